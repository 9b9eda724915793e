"""Which tests show a promise of docs/promises.md, and what each of them measured: a plugin of pytest.

    @pytest.mark.promise(2, case="nine of ten instances go at once", target="5 of 10 serve, 0 failed")
    def test_nine_of_ten(director: Director, figure: Figure) -> None:
        ...
        figure(report.requests, "requests")

A test is marked once for each promise that it shows. `case` is what is done, in a few words; parameters of the test are
cases of it. A kernel test is on the real kernel and a real Consul; another test says `on="Consul"` where it runs one,
and is else simulated: it has no kernel, and our own server or values in place of a Consul.

A mark adds nothing to a run but its fixture. `make promises` (tests/lab/promises.py) names a directory in
LVSCTL_PROMISES, and LVSCTL_PROMISE_NUMBERS where only some are wanted; every process leaves there which marked tests it
has, and how those ended that it ran.
"""

import json
import os
import uuid
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs
import cattrs
import pytest

from tests.lab.traffic import HeldConnections, Report

DIRECTORY: Final = os.environ.get("LVSCTL_PROMISES", "")
NUMBERS: Final = frozenset(os.environ.get("LVSCTL_PROMISE_NUMBERS", "").split())
PROMISES: Final = range(1, 21)
KERNEL, CONSUL, SIMULATED = "kernel", "Consul", "simulated"
OUTSIDE: Final = not os.environ.get("LVSCTL_LAB")


class Figure:
    """What one test measured: numbers, each with its words."""

    def __init__(self) -> None:
        self.values: list[tuple[float | int, str]] = []

    def __call__(self, value: float, words: str) -> None:
        """Report `312, "requests"` or `1.5, "s until it was repaired"`.

        Over the cases of a test whole numbers are added up, and of others the largest counts.
        """
        self.values.append((value, words))

    def traffic(self, report: Report, held: HeldConnections | None = None) -> None:
        """Report what a client saw: requests, failed ones, and connections that were held."""
        self(report.requests, "requests")
        self(len(report.failures), "failed")
        if held is not None:
            self(len(held.names), "held")
            self(len(held.broken), "broken")


@attrs.frozen(kw_only=True)
class Case:
    """A marked test: the promise that it shows, and how."""

    test: str  # pytest's node id
    promise: int
    case: str
    target: str
    on: str


@attrs.frozen(kw_only=True)
class Outcome:
    """How a test ended."""

    test: str
    outcome: str  # passed, failed or skipped
    why: str  # `skipped: …`, or `missed: …` of one that is expected to fail
    values: Sequence[tuple[float, str]]  # what it measured; whole numbers are int


def add_up(values: Iterable[tuple[float, str]]) -> str:
    """Return `312 requests, 0 failed, 1.5 s until it was repaired`, of what the cases of a test measured."""
    summed: dict[str, float] = {}
    for value, words in values:
        if words not in summed:
            summed[words] = value
        elif isinstance(value, int):
            summed[words] += value
        else:
            summed[words] = max(summed[words], value)
    return ", ".join(f"{_number(value)} {words}" for words, value in summed.items())


def _number(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def read(directory: Path) -> tuple[tuple[Case, ...], Mapping[str, Outcome]]:
    """Return the cases that all processes found, and the outcome of each test that ended; a failed one counts."""
    cases: dict[Case, None] = {}
    outcomes: dict[str, Outcome] = {}
    for file in sorted(directory.glob("*.json")):
        cases |= dict.fromkeys(cattrs.structure(json.loads(file.read_text("utf-8")), tuple[Case, ...]))
    for file in sorted(directory.glob("*.jsonl")):
        for line in file.read_text("utf-8").splitlines():
            written = json.loads(line)
            found = Outcome(**written | {"values": tuple((value, words) for value, words in written["values"])})
            if found.test not in outcomes or outcomes[found.test].outcome != "failed":
                outcomes[found.test] = found
    return tuple(sorted(cases, key=lambda case: (case.promise, case.on == SIMULATED, case.test))), outcomes


# ---- pytest's hooks


def arguments_of_mark(
    number: int, /, *, case: str = "", target: str = "", on: str = SIMULATED
) -> tuple[int, str, str, str]:
    """Return the arguments of a mark; TypeError or ValueError for a wrong one."""
    if number not in PROMISES:
        raise ValueError(f"there is no promise {number}")
    if not case or not target:
        raise ValueError("case and target must say something")
    if on not in (KERNEL, CONSUL, SIMULATED):
        raise ValueError(f"on is {on!r}, not one of {KERNEL}, {CONSUL} and {SIMULATED}")
    return number, case, target, on


def cases_of(item: pytest.Item) -> list[Case]:
    """Return a case for each mark of a test; UsageError where a mark is wrong or the test measures nothing."""
    found = []
    for mark in item.iter_markers("promise"):
        try:
            number, case, target, on = arguments_of_mark(*mark.args, **mark.kwargs)
        except (TypeError, ValueError) as error:
            raise pytest.UsageError(f"{item.nodeid}: promise{mark.args}: {error}") from error
        if "figure" not in getattr(item, "fixturenames", ()):
            raise pytest.UsageError(f"{item.nodeid}: it shows P{number} and takes no `figure` to say what it measured")
        on = KERNEL if item.get_closest_marker("kernel") else on
        found.append(Case(test=item.nodeid, promise=number, case=case, target=target, on=on))
    return found


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the cases for `make promises`, of the numbers that are wanted; the tests of others are deselected."""
    cases = {item.nodeid: cases_of(item) for item in items}
    if not DIRECTORY:
        return
    if NUMBERS:
        others = [item for item in items if not any(str(each.promise) in NUMBERS for each in cases[item.nodeid])]
        items[:] = [item for item in items if item not in others]
        config.hook.pytest_deselected(items=others)
    chosen = [each for item in items for each in cases[item.nodeid]]
    (Path(DIRECTORY) / f"{uuid.uuid4()}.json").write_text(json.dumps(cattrs.unstructure(chosen)), "utf-8")


FIGURE: Final = pytest.StashKey[Figure]()
FAILED: Final = pytest.StashKey[bool]()
SKIPPED: Final = pytest.StashKey[str]()


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figure:
    """Return what takes the numbers that a test of a promise measures."""
    found = Figure()
    request.node.stash[FIGURE] = found
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Write down how a marked test ended, once its fixtures did, too."""
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    if report.skipped:
        missed = getattr(report, "wasxfail", None)
        skipped = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else ""
        item.stash[SKIPPED] = (
            f"skipped: {skipped.removeprefix('Skipped: ')}"
            if missed is None
            else f"missed: {missed.removeprefix('reason: ')}"
        )
    elsewhere = OUTSIDE and item.get_closest_marker("kernel")
    if report.when == "teardown" and DIRECTORY and not elsewhere and item.get_closest_marker("promise"):
        why = item.stash.get(SKIPPED, "")
        ended = Outcome(
            test=item.nodeid,
            outcome="failed" if item.stash.get(FAILED, False) else "skipped" if why else "passed",
            why=why,
            values=item.stash[FIGURE].values if FIGURE in item.stash else (),
        )
        with (Path(DIRECTORY) / f"{_PROCESS}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(attrs.asdict(ended)) + "\n")
    return report


_PROCESS: Final = uuid.uuid4()

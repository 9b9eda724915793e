"""Runs the tests that show the promises of docs/promises.md, and says of each promise what was measured.

    python -m tests.lab.promises [--timeout S] [NUMBER...]

First those that need no kernel, then the others in the lab's kernels, the slow ones too. Prints a table and writes
build/promises.json: a list of {promise, case, figure, target, passed}. The exit status is 1 when a test failed or did
not run. What is not shown says so and is no failure: it was skipped, or has no test, or only a simulated one.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs
import pytest

from tests.lab import kernel_tests
from tests.lab.kernels import CHECKOUT, STATE
from tests.showing import SIMULATED, Case, Outcome, add_up, read

PAGE: Final = CHECKOUT / "docs/promises.md"
RESULT: Final = CHECKOUT / "build/promises.json"
OPEN: Final = {  # what has no test, and why
    17: ("the second socket, read-only", "there is none yet"),
    18: ("the web page: read-only, escaped, Host checked", "there is none yet"),
}
SHOWN, FAILED, NOT_SHOWN = "shown", "FAILED", "not shown"
WIDTHS: Final = (46, 44, 26)  # of what was done, the figure and the target; the longest is folded


@attrs.frozen(kw_only=True)
class Row:
    """One line of the table: a marked test, all its cases together, or what has no test."""

    promise: int
    case: str
    figure: str
    target: str
    verdict: str
    failed: tuple[str, ...] = ()  # tests
    real: bool = True


def rows_of(cases: Sequence[Case], outcomes: Mapping[str, Outcome]) -> list[Row]:
    """Return a row for each marked test and promise, in the order of promises."""
    together: dict[tuple[int, str, str], list[Case]] = {}
    for each in cases:
        together.setdefault((each.promise, each.test.partition("[")[0], each.case), []).append(each)
    found = [_row(same, outcomes) for same in together.values()]
    for promise, (case, why) in OPEN.items():
        found.append(Row(promise=promise, case=case, figure=why, target="", verdict=NOT_SHOWN))
    return sorted(found, key=lambda row: (row.promise, not row.real))


def _row(cases: Sequence[Case], outcomes: Mapping[str, Outcome]) -> Row:
    ended = [outcomes[each.test] for each in cases if each.test in outcomes]
    by_outcome = {word: [each for each in ended if each.outcome == word] for word in ("passed", "failed", "skipped")}
    missing = [each.test for each in cases if each.test not in outcomes]
    failed = [*(f"{each.test} failed" for each in by_outcome["failed"]), *(f"{each} did not run" for each in missing)]
    figure = add_up(value for each in ended for value in each.values)
    if by_outcome["skipped"]:
        figure = ", ".join(filter(None, [figure, by_outcome["skipped"][0].why]))
    if len(cases) > 1:
        passed = len(by_outcome["passed"])
        figure = ", ".join(filter(None, [f"{passed} of {len(cases)} cases", figure]))
    silent = any(not each.values for each in by_outcome["passed"])
    shown = len(by_outcome["passed"]) == len(cases) and not silent
    return Row(
        promise=cases[0].promise,
        case=cases[0].case,
        figure=figure or ("did not run" if missing else "nothing was measured"),
        target=cases[0].target,
        verdict=FAILED if failed else SHOWN if shown else NOT_SHOWN,
        failed=tuple(failed),
        real=any(each.on != SIMULATED for each in cases),
    )


def verdict_on(promise: int, rows: Sequence[Row]) -> str:
    """Return how a promise stands: as shown as its least row; without a real test it is not shown."""
    mine = [row for row in rows if row.promise == promise]
    if any(row.verdict == FAILED for row in mine):
        return FAILED
    shown = [row for row in mine if row.verdict == SHOWN]
    if not any(row.real for row in shown):
        return NOT_SHOWN
    return SHOWN if len(shown) == len(mine) else "in part"


def titles() -> dict[int, str]:
    """Return what the page says of each promise."""
    found = re.findall(r"^\| P(\d+) \| ([^|]+) \|", PAGE.read_text("utf-8"), re.MULTILINE)
    return {int(number): title.strip() for number, title in found}


def table(rows: Sequence[Row], promises: Mapping[int, str]) -> Iterator[str]:
    """Yield the lines: a promise and its verdict, and below it what was done, figure, target and verdict."""
    for promise, title in promises.items():
        yield f"{f'P{promise}':<4}{title}: {verdict_on(promise, rows)}"
        for row in (each for each in rows if each.promise == promise):
            cells = (row.case if row.real else f"{row.case} (simulated)", row.figure, row.target)
            folded = [textwrap.wrap(text, width) or [""] for text, width in zip(cells, WIDTHS, strict=True)]
            for at in range(max(map(len, folded))):
                parts = [lines[at] if at < len(lines) else "" for lines in folded]
                columns = [part.ljust(width) for part, width in zip(parts, WIDTHS, strict=True)]
                yield "  ".join([f"  P{promise}".ljust(5), *columns, row.verdict if at == 0 else ""]).rstrip()
            for each in row.failed:
                yield f"       {each}"


def as_json(cases: Sequence[Case], outcomes: Mapping[str, Outcome], promises: Mapping[int, str]) -> list[object]:
    """Return a value for each case of each test, and for what has none."""
    found: list[tuple[int, object]] = []
    for each in cases:
        ended = outcomes.get(each.test)
        _, _, parameters = each.test.partition("[")
        passed = ended is not None and ended.outcome == "passed" and bool(ended.values)
        figure = ", ".join(filter(None, [add_up(ended.values), ended.why])) if ended else "did not run"
        case = " ".join(filter(None, [each.case, f"[{parameters}" if parameters else ""]))
        if each.on == SIMULATED:
            case += " (simulated)"
        found.append((each.promise, _value(each.promise, case, figure, each.target, passed=passed)))
    tested = {each.promise for each in cases}
    for promise in promises:
        if promise in OPEN or promise not in tested:
            case, why = OPEN.get(promise, ("", "no test"))
            found.append((promise, _value(promise, case, f"not shown: {why}", "", passed=False)))
    return [value for _, value in sorted(found, key=lambda pair: pair[0])]


def _value(promise: int, case: str, figure: str, target: str, *, passed: bool) -> object:
    return {"promise": f"P{promise}", "case": case, "figure": figure, "target": target, "passed": passed}


def run(numbers: Sequence[int], timeout: float) -> tuple[tuple[Case, ...], Mapping[str, Outcome], bool]:
    """Return cases and outcomes of the marked tests, of the promises `numbers` or all, and whether all went well."""
    with tempfile.TemporaryDirectory(prefix="promises-", dir=STATE) as directory:
        os.environ["LVSCTL_PROMISES"] = directory
        os.environ["LVSCTL_PROMISE_NUMBERS"] = " ".join(map(str, numbers))
        marked = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rf", "-m", "promise"]
        outside = subprocess.run(marked, cwd=CHECKOUT, check=False).returncode
        cases, _ = read(Path(directory))
        inside = 0
        if any(each.on == "kernel" for each in cases):
            inside = kernel_tests.main(["--timeout", f"{timeout:g}", "-m", "kernel and promise"])
        cases, outcomes = read(Path(directory))
    return cases, outcomes, outside in (0, pytest.ExitCode.NO_TESTS_COLLECTED) and inside == 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 1 when a test of a promise failed or did not run."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.promises", description="Show the promises.")
    parser.add_argument("--timeout", type=float, default=3600.0, help="seconds until a kernel is ended")
    parser.add_argument("numbers", nargs="*", type=lambda text: int(text.removeprefix("P")), metavar="NUMBER")
    given = parser.parse_args(arguments)
    wanted = {number: title for number, title in titles().items() if not given.numbers or number in given.numbers}
    if set(given.numbers) - wanted.keys():
        parser.error(f"the promises are P1 to P{max(titles())}")
    STATE.mkdir(parents=True, exist_ok=True)
    cases, outcomes, well = run(given.numbers, given.timeout)
    rows = rows_of(cases, outcomes)
    print("", *table(rows, wanted), sep="\n")
    verdicts = [verdict_on(promise, rows) for promise in wanted]
    counted = ", ".join(f"{verdicts.count(word)} {word}" for word in (SHOWN, "in part", NOT_SHOWN, FAILED))
    RESULT.write_text(json.dumps(as_json(cases, outcomes, wanted), indent=2) + "\n", encoding="utf-8")
    print("", f"promises: {counted}; {RESULT.relative_to(CHECKOUT)} has every case", sep="\n")
    return 1 if FAILED in verdicts or not well else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end the kernels on the way out, as for Ctrl-C
    sys.exit(main())

"""`make promises`: what is counted, what a verdict says, and that a mark which is wrong is no mark."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.lab.kernels import CHECKOUT
from tests.lab.promises import FAILED, NOT_SHOWN, SHOWN, as_json, rows_of, table, verdict_on
from tests.showing import KERNEL, SIMULATED, Case, Figure, Outcome, add_up, arguments_of_mark, read

ONE = Case(test="tests/test_one.py::test_one", promise=1, case="all is cut", target="0 failed", on=KERNEL)
PASSED = Outcome(test=ONE.test, outcome="passed", why="", values=((3, "requests"), (0, "failed")))
KINDS: dict[str, Outcome | None] = {
    "passed": PASSED,
    "failed": attrs.evolve(PASSED, outcome="failed"),
    "skipped": attrs.evolve(PASSED, outcome="skipped", why="skipped: no mh here", values=()),
    "silent": attrs.evolve(PASSED, values=()),
    "missing": None,
}


def outcomes(*kinds: str) -> tuple[list[Case], dict[str, Outcome]]:
    """Return as many cases of one test, which ended in these ways."""
    cases, ended = [], {}
    for number, kind in enumerate(kinds):
        case = attrs.evolve(ONE, test=f"{ONE.test}[{number}]")
        cases.append(case)
        if (outcome := KINDS[kind]) is not None:
            ended[case.test] = attrs.evolve(outcome, test=case.test)
    return cases, ended


def test_whole_numbers_are_added_and_of_others_the_largest_counts() -> None:
    figure = Figure()
    for requests, seconds in ((1000, 0.25), (312, 4.26), (0, 0.0)):
        figure(requests, "requests")
        figure(seconds, "s until then")
    assert add_up(figure.values) == "1,312 requests, 4.3 s until then"
    assert add_up([(0.25, "s")]) == "0.25 s"


@pytest.mark.parametrize(
    ("kinds", "verdict", "figure"),
    [
        (["passed", "passed"], SHOWN, "2 of 2 cases, 6 requests, 0 failed"),
        (["passed", "failed"], FAILED, "1 of 2 cases, 6 requests, 0 failed"),
        (["passed", "missing"], FAILED, "1 of 2 cases, 3 requests, 0 failed"),
        (["passed", "skipped"], NOT_SHOWN, "1 of 2 cases, 3 requests, 0 failed, skipped: no mh here"),
        (["skipped"], NOT_SHOWN, "skipped: no mh here"),
        (["silent"], NOT_SHOWN, "nothing was measured"),
        (["missing"], FAILED, "did not run"),
    ],
)
def test_a_row_is_shown_when_every_case_passed_and_was_measured(kinds: list[str], verdict: str, figure: str) -> None:
    (row,) = (row for row in rows_of(*outcomes(*kinds)) if row.promise == 1)
    assert (row.verdict, row.figure) == (verdict, figure)


def test_a_promise_is_shown_on_the_real_thing_or_not_at_all() -> None:
    cases, ended = outcomes("passed")
    assert verdict_on(1, rows_of(cases, ended)) == SHOWN
    assert verdict_on(1, rows_of([attrs.evolve(each, on=SIMULATED) for each in cases], ended)) == NOT_SHOWN
    assert verdict_on(2, rows_of(cases, ended)) == NOT_SHOWN, "it has no test"


def test_the_table_names_what_failed_and_what_is_not_shown() -> None:
    lines = list(table(rows_of(*outcomes("failed")), {1: "Fail static", 18: "The web page", 20: "One writer"}))
    assert lines[0] == "P1  Fail static: FAILED"
    assert lines[1].split() == ["P1", "all", "is", "cut", "3", "requests,", "0", "failed", "0", "failed", "FAILED"]
    assert lines[2].strip() == "tests/test_one.py::test_one[0] failed"
    assert lines[3] == "P18 The web page: not shown"
    assert lines[-1] == "P20 One writer: not shown"


@pytest.mark.parametrize("kind", KINDS)
def test_the_json_has_every_case_and_a_skip_is_no_pass(kind: str) -> None:
    first, second, web = as_json(*outcomes("passed", kind), {1: "Fail static", 18: "The web page"})
    assert first == {
        "promise": "P1",
        "case": "all is cut [0]",
        "figure": "3 requests, 0 failed",
        "target": "0 failed",
        "passed": True,
    }
    assert isinstance(second, dict)
    assert isinstance(web, dict)
    assert second["passed"] == (kind == "passed")
    assert (web["promise"], web["passed"]) == ("P18", False)
    assert web["figure"].startswith("not shown: ")


# ---- the plugin, in a pytest of its own

HEAD = "import pytest\npytest_plugins = ['tests.showing']\n"
MARK = '@pytest.mark.promise(2, case="it goes", target="0 failed")\n'


def run(directory: Path, text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a pytest on a file with `text`; what it leaves is in `directory`/left."""
    (directory / "left").mkdir()
    (directory / "test_it.py").write_text(HEAD + text, "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(directory)]
    variables = os.environ | {"LVSCTL_PROMISES": str(directory / "left"), "PYTHONPATH": str(CHECKOUT)} | environment
    return subprocess.run(
        [*command, str(directory)], env=variables, cwd=directory, capture_output=True, text=True, check=False
    )


def test_every_way_to_end_is_written_down(tmp_path: Path) -> None:
    text = f"""
@pytest.fixture
def dirty():
    yield
    assert False
{MARK}def test_good(figure):
    figure(3, "requests")
{MARK}def test_bad(figure):
    figure(3, "requests")
    assert False
{MARK}def test_unclean(figure, dirty):
    pass
{MARK}def test_skipped(figure):
    pytest.skip("not here")
{MARK}@pytest.mark.xfail(reason="too slow")
def test_missed(figure):
    figure(9, "s")
    assert False
{MARK}@pytest.mark.parametrize("number", (1, 2))
def test_twice(figure, number):
    figure(number / 4, "s")
def test_unmarked():
    pass
"""
    ended = run(tmp_path, text)
    cases, found = read(tmp_path / "left")
    assert {each.on for each in cases} == {SIMULATED}, ended.stdout
    assert len(cases) == 7
    seen: dict[str, Any] = {name.partition("::")[2]: (each.outcome, list(each.values)) for name, each in found.items()}
    assert seen == {
        "test_good": ("passed", [(3, "requests")]),
        "test_bad": ("failed", [(3, "requests")]),
        "test_unclean": ("failed", []),
        "test_skipped": ("skipped", []),
        "test_missed": ("skipped", [(9, "s")]),
        "test_twice[1]": ("passed", [(0.25, "s")]),
        "test_twice[2]": ("passed", [(0.5, "s")]),
    }
    assert found["test_it.py::test_skipped"].why == "skipped: not here"
    assert found["test_it.py::test_missed"].why == "missed: too slow"


def test_only_the_numbers_that_are_wanted_run(tmp_path: Path) -> None:
    other = MARK.replace("promise(2", "promise(3")
    run(
        tmp_path,
        f"{MARK}def test_a(figure):\n    figure(1, 'x')\n{other}def test_b(figure):\n    figure(1, 'x')\n",
        LVSCTL_PROMISE_NUMBERS="3 4",
    )
    cases, found = read(tmp_path / "left")
    assert [each.promise for each in cases] == [3]
    assert list(found) == ["test_it.py::test_b"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"number": 21, "case": "a", "target": "b"}, "there is no promise 21"),
        ({"number": 2, "case": "", "target": "b"}, "case and target must say something"),
        ({"number": 2, "case": "a"}, "case and target must say something"),
        ({"number": 2, "case": "a", "target": "b", "on": "paper"}, "on is 'paper'"),
        ({"number": 2, "case": "a", "target": "b", "to": "c"}, "unexpected keyword argument 'to'"),
    ],
)
def test_a_wrong_mark_says_what_is_wrong(arguments: dict[str, Any], said: str) -> None:
    number = arguments.pop("number")
    with pytest.raises((TypeError, ValueError), match=said):
        arguments_of_mark(number, **arguments)


def test_a_wrong_mark_is_an_error(tmp_path: Path) -> None:
    ended = run(tmp_path, "@pytest.mark.promise(21, case='a', target='b')\ndef test_it(figure):\n    pass\n")
    assert ended.returncode == pytest.ExitCode.USAGE_ERROR, ended
    assert "test_it.py::test_it: promise(21,): there is no promise 21" in ended.stderr


def test_a_marked_test_without_a_figure_is_an_error(tmp_path: Path) -> None:
    ended = run(tmp_path, f"{MARK}def test_it():\n    pass\n")
    assert ended.returncode == pytest.ExitCode.USAGE_ERROR, ended
    assert "it shows P2 and takes no `figure`" in ended.stderr


def test_what_is_left_is_read_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([attrs.asdict(ONE)]), "utf-8")
    for name, outcome in (("b", "failed"), ("c", "passed")):
        ended = attrs.evolve(PASSED, outcome=outcome)
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(attrs.asdict(ended)) + "\n", "utf-8")
    assert read(tmp_path) == ((ONE,), {ONE.test: attrs.evolve(PASSED, outcome="failed")}), "what failed once failed"

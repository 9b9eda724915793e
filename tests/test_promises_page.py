"""docs/promises.md names tests that are there, and every test that is marked as showing a promise is named there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/promises.md").read_text("utf-8")
ROWS = [line for line in PAGE.splitlines() if re.match(r"\| P\d+ \|", line)]


def named(row: str) -> list[tuple[str, str]]:
    """Return the files and tests that a row names; `::test` is in the file before it."""
    file, found = "", []
    for each in re.findall(r"`((?:tests/\S+\.py)?::\w+)`", row):
        own, _, test = each.partition("::")
        file = own or file
        found.append((file, test))
    return found


def test_every_promise_has_its_row() -> None:
    assert [row.split("|")[1].strip() for row in ROWS] == [f"P{number}" for number in range(1, 21)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_every_test_that_is_named_is_there(row: str) -> None:
    tests = named(row)
    assert tests
    for file, test in tests:
        assert re.search(rf"^(async )?def {test}\(", (ROOT / file).read_text("utf-8"), re.MULTILINE), f"{file}::{test}"


def marked() -> list[tuple[int, str, str]]:
    """Return promise, file and name of each marked test, as the files say it."""
    return [
        (ast.literal_eval(mark.args[0]), str(file.relative_to(ROOT)), test.name)
        for file in sorted((ROOT / "tests").rglob("test_*.py"))
        for test in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(test, (ast.FunctionDef, ast.AsyncFunctionDef))
        for mark in test.decorator_list
        if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.promise"
    ]


MARKED = marked()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_every_test_that_is_marked_is_named(row: str) -> None:
    own = {(file, test) for promise, file, test in MARKED if f"P{promise}" == row.split("|")[1].strip()}
    assert own, "no test is marked"
    assert own - set(named(row)) == set()

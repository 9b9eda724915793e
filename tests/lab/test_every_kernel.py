"""The summary of `make test-kernels` says what happened: only tests that passed are a success."""

from pathlib import Path

import pytest

from tests.lab.every_kernel import Outcome, read_outcome


def left_behind(directory: Path, *, status: int, report: str | None, version: str | None = "6.1.176\n") -> Outcome:
    """Return what is read of a run that left these files and ended with `status`."""
    files = directory / "version", directory / "report"
    for file, text in zip(files, (version, report), strict=True):
        if text is not None:
            file.write_text(text)
    return read_outcome("uml-6.1", status, *files, 61.4)


def suite(tests: int, failures: int = 0, errors: int = 0, skipped: int = 0) -> str:
    """Return a report in pytest's form."""
    counts = f'tests="{tests}" failures="{failures}" errors="{errors}" skipped="{skipped}"'
    return f'<?xml version="1.0"?><testsuites><testsuite {counts}/></testsuites>'


@pytest.mark.parametrize(
    ("status", "report", "version", "line"),
    [
        (0, suite(9, skipped=2), "6.1.176\n", "6.1.176    passed   7 passed, 0 failed, 2 skipped, 61 s"),
        (1, suite(9, 1, 1, 2), "6.1.176\n", "6.1.176    FAILED   5 passed, 2 failed, 2 skipped, 61 s"),
        (0, suite(9, skipped=9), "6.1.176\n", "6.1.176    FAILED   0 passed, 0 failed, 9 skipped, 61 s"),
        (5, suite(0), "6.1\n", "6.1        FAILED   pytest ended with 5 (0 passed, 0 failed, 0 skipped, 61 s)"),
        (1, suite(9), "6.1\n", "6.1        FAILED   pytest ended with 1 (9 passed, 0 failed, 0 skipped, 61 s)"),
        (
            124,
            None,
            "6.1.176\n",
            "6.1.176    FAILED   pytest did not finish, exit status 124 (0 passed, 0 failed, 0 skipped, 61 s)",
        ),
        (125, None, None, "-          FAILED   not run: the kernel did not come up, exit status 125"),
    ],
)
def test_what_a_run_left_behind(
    tmp_path: Path, status: int, report: str | None, version: str | None, line: str
) -> None:
    outcome = left_behind(tmp_path, status=status, report=report, version=version)
    assert str(outcome) == f"uml-6.1   {line}"
    assert outcome.good == (" passed   " in line)


def test_a_kernel_that_could_not_be_had_is_no_success() -> None:
    outcome = Outcome(kernel="uml-7.2", problem="no such release")
    assert not outcome.good
    assert str(outcome) == "uml-7.2   -          FAILED   not run: no such release"

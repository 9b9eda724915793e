"""Several kernels share the tests: every one runs once, and one that did not run is no success."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.kernel_tests import count_tests
from tests.lab.kernels import CHECKOUT
from tests.lab.processor import claimed

FILES = ("tests/core/test_guard.py", "tests/core/test_drain.py", "tests/core/test_plan.py")


def share(claims: Path, report: Path) -> None:
    """Run the tests of FILES whose modules nobody has claimed."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junit-xml={report}", *FILES]
    environment = os.environ | {"LVSCTL_CLAIMS": str(claims)}
    ended = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout


def test_a_module_that_is_claimed_is_left_to_whoever_has_it(tmp_path: Path) -> None:
    (tmp_path / "tests-core-test_drain.py").mkdir()
    reports = [tmp_path / "1.xml", tmp_path / "2.xml"]
    for report in reports:
        share(tmp_path, report)
    first, second = (count_tests([report])["passed"] for report in reports)
    chosen = {int(path.read_text(encoding="ascii")) for path in tmp_path.glob("chosen-*")}
    assert len(chosen) == 1
    assert 0 < first < chosen.pop()
    assert second == 0


def test_every_kernel_has_a_processor_of_its_own_while_there_are_any() -> None:
    usable = os.sched_getaffinity(0)
    with claimed() as first, claimed() as second:
        assert first is None or first in usable
        assert second is None or (second in usable and second != first)


@pytest.mark.parametrize(
    ("suite", "counted"),
    [
        ('tests="9" failures="1" errors="2" skipped="3"', {"failed": 3, "passed": 3, "skipped": 3}),
        ('tests="0" failures="0" errors="0" skipped="0"', {"failed": 0, "passed": 0, "skipped": 0}),
    ],
)
def test_reports_are_counted_together(tmp_path: Path, suite: str, counted: dict[str, int]) -> None:
    report = tmp_path / "1.xml"
    report.write_text(f"<testsuites><testsuite {suite}/></testsuites>", encoding="utf-8")
    twice = {word: 2 * number for word, number in counted.items()}
    assert count_tests([report, report, tmp_path / "none.xml"]) == twice

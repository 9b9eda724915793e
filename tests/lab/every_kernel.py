"""Runs the kernel tests in each of `kernels.RELEASES`, and sums up.

    python -m tests.lab.every_kernel [PYTEST ARGUMENT...]        (tests/netlink when there is none)

Every kernel has its turn, whatever became of those before it. A kernel counts as passed when pytest ended with 0 and
at least one test passed; the exit status is 0 when all of them did.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import attrs

from tests.lab.kernels import CHECKOUT, RELEASES, STATE

DEADLINE = 900  # seconds for one kernel


@attrs.frozen(kw_only=True)
class Outcome:
    """What became of the tests in one kernel; `problem` says why there are no counts, or what they do not show."""

    kernel: str
    version: str = attrs.field(default="-")  # as `uname -r` has it
    passed: int = attrs.field(default=0)
    failed: int = attrs.field(default=0)
    skipped: int = attrs.field(default=0)
    seconds: float = attrs.field(default=0.0)
    problem: str = attrs.field(default="")

    @property
    def good(self) -> bool:
        """Whether tests passed and nothing else happened."""
        return self.passed > 0 and not self.failed and not self.problem

    def __str__(self) -> str:
        """Return the line of the summary."""
        words = f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped, {self.seconds:.0f} s"
        if self.problem:
            words = f"{self.problem} ({words})" if self.version != "-" else f"not run: {self.problem}"
        return f"{self.kernel:<9} {self.version:<10} {'passed' if self.good else 'FAILED'}   {words}"


def read_outcome(kernel: str, status: int, version: Path, report: Path, seconds: float) -> Outcome:
    """Return what became of a run that ended with `status` from the two files that it should have left."""
    if not version.exists():
        return Outcome(kernel=kernel, problem=f"the kernel did not come up, exit status {status}")
    outcome = Outcome(kernel=kernel, version=version.read_text(encoding="ascii").strip(), seconds=seconds)
    if not report.exists():
        return attrs.evolve(outcome, problem=f"pytest did not finish, exit status {status}")
    count = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    for suite in ET.parse(report).getroot().iter("testsuite"):  # noqa: S314 - our own pytest wrote it
        count = {name: number + int(suite.attrib[name]) for name, number in count.items()}
    failed = count["failures"] + count["errors"]
    return attrs.evolve(
        outcome,
        passed=count["tests"] - failed - count["skipped"],
        failed=failed,
        skipped=count["skipped"],
        problem=f"pytest ended with {status}" if status and not failed else "",
    )


def run(kernel: str, release: str, arguments: Sequence[str]) -> Outcome:
    """Return what became of the tests that `arguments` name in `kernel`, installed first where it is missing."""
    install = ["tests/lab/install_kernel.sh", kernel, release]
    installed = subprocess.run(install, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True, check=False)
    print(installed.stderr, end="", file=sys.stderr, flush=True)
    if installed.returncode:
        return Outcome(kernel=kernel, problem=(installed.stderr.splitlines() or ["no words"])[-1])
    place = STATE / "kernels"
    version, report = place / f"{kernel}.version", place / f"{kernel}.xml"
    for old in (version, report):
        old.unlink(missing_ok=True)
    pytest = [sys.executable, "-m", "pytest", "-m", "kernel", "-p", "no:cacheprovider", f"--junit-xml={report}"]
    inside = ["sh", "-c", 'uname -r >"$0" && exec "$@"', str(version), *pytest, *arguments]
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "tests.lab.kernel", "--timeout", str(DEADLINE), "--", *inside],
        cwd=CHECKOUT,
        env=os.environ | {"LVSCTL_LAB_KERNEL": kernel},
        check=False,
    )
    return read_outcome(kernel, ended.returncode, version, report, time.monotonic() - began)


def main(arguments: Sequence[str]) -> int:
    """Return 0 when the tests that `arguments` name passed in every kernel."""
    outcomes = []
    for kernel, release in RELEASES.items():
        print(f"== {kernel}", flush=True)
        outcomes.append(run(kernel, release, arguments or ["tests/netlink"]))
    print("== summary", *outcomes, sep="\n")
    return 0 if all(outcome.good for outcome in outcomes) else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end the kernel on the way out, as for Ctrl-C
    sys.exit(main(sys.argv[1:]))

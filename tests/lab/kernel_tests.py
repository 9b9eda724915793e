"""Runs the kernel tests, in as many kernels at once as there are processors.

    python -m tests.lab.kernel_tests [--timeout S] [-m MARKS] [PYTEST ARGUMENT...]

The kernels take one test module after the other from a common list (`tests/conftest.py` does it, by LVSCTL_CLAIMS), so
that none waits while another still has work. Every line they print carries the number of its kernel. The last line
counts all of them; the exit status is 0 when every test that was chosen has run and none failed. With arguments there
is one kernel, whose output is shown as it is: somebody looks for something.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.lab.kernel import choose_kernel
from tests.lab.kernels import CHECKOUT, STATE

MOST = 4  # kernels: each has 2 GB of memory, and makes its scenes anew


def run_in_one(timeout: float, pytest: Sequence[str]) -> int:
    """Return pytest's exit status, its output unchanged."""
    return subprocess.run(_inside(timeout, pytest), cwd=CHECKOUT, check=False).returncode


def run_in_many(count: int, timeout: float, pytest: Sequence[str]) -> int:
    """Return 0 when every chosen test ran in one of `count` kernels and none failed."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="claims-", dir=STATE) as directory:
        claims = Path(directory)
        reports = [STATE / f"kernel-{number}.xml" for number in range(1, count + 1)]  # each test with its time
        for report in reports:
            report.unlink(missing_ok=True)
        kernels = [
            subprocess.Popen(
                _inside(timeout, [*pytest, f"--junit-xml={report}"]),
                cwd=CHECKOUT,
                env=os.environ | {"LVSCTL_CLAIMS": directory},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            for report in reports
        ]
        try:
            readers = [threading.Thread(target=_show, args=each) for each in enumerate(kernels, start=1)]
            for reader in readers:
                reader.start()
            for reader in readers:
                reader.join()
            statuses = [kernel.wait() for kernel in kernels]
        finally:
            for kernel in kernels:
                kernel.terminate()
                kernel.wait()
        chosen = sum(int(path.read_text(encoding="ascii")) for path in claims.glob("chosen-*")) // count
        counted = count_tests(reports)
    ran = sum(counted.values())
    words = ", ".join(f"{number} {word}" for word, number in counted.items() if number)
    # In the form of pytest's own last line, for whoever sums up.
    print(f"{words or 'no tests ran'} of {chosen} in {count} kernels in {time.monotonic() - began:.2f}s", flush=True)
    return 0 if ran == chosen > 0 and not any(statuses) else 1


def count_tests(reports: Sequence[Path]) -> dict[str, int]:
    """Return how many tests passed, failed and were skipped, by pytest's reports of those that left one."""
    counted = {"failed": 0, "passed": 0, "skipped": 0}
    for report in reports:
        if not report.exists():
            continue
        for suite in ET.parse(report).getroot().iter("testsuite"):  # noqa: S314 - our own pytest wrote it
            failed = int(suite.attrib["failures"]) + int(suite.attrib["errors"])
            skipped = int(suite.attrib["skipped"])
            counted["failed"] += failed
            counted["skipped"] += skipped
            counted["passed"] += int(suite.attrib["tests"]) - failed - skipped
    return counted


def _inside(timeout: float, pytest: Sequence[str]) -> list[str]:
    """Return the command that runs pytest in a kernel."""
    kernel = [sys.executable, "-m", "tests.lab.kernel", "--timeout", f"{timeout:g}", "--"]
    return [*kernel, sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *pytest]


def _show(number: int, kernel: subprocess.Popen[bytes]) -> None:
    """Print what `kernel` prints, line by line; of a line that it wrote over, what is left."""
    assert kernel.stdout is not None
    for line in kernel.stdout:
        text = line.decode("utf-8", "replace").rstrip().rpartition("\r")[2]
        sys.stdout.write(f"{number} {text}\n")
        sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit status of the tests that `arguments` choose."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.kernel_tests", description="Run the kernel tests.")
    parser.add_argument("--timeout", type=float, default=1200.0, help="seconds until a kernel is ended")
    parser.add_argument("-m", dest="marks", default="kernel and not soak", help="pytest's, as it takes them")
    given, rest = parser.parse_known_args(arguments)
    pytest = ["-m", given.marks, *rest]
    count = min(MOST, len(os.sched_getaffinity(0)))
    # Namespaces of the host's kernel share its modules, which some tests take out.
    if rest or count == 1 or choose_kernel() == "host":
        return run_in_one(given.timeout, pytest)
    return run_in_many(count, given.timeout, pytest)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end the kernels on the way out, as for Ctrl-C
    sys.exit(main())

"""`make bench`: measures in the lab's kernel, in a real one under qemu, and with a real Consul; prints one table.

    python -m tests.bench [--only GROUP,GROUP] [--quick]

Writes build/bench.json too. The exit status is 0 when everything was measured; a missed target is a line that says no.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from tests.bench import scaling
from tests.bench.emulated import run_emulated
from tests.bench.inside import ALL as IN_THE_LAB
from tests.bench.inside import EMULATED
from tests.bench.result import Result, as_json, from_json
from tests.bench.table import render
from tests.lab.kernel import Job, run
from tests.lab.kernels import CHECKOUT, KernelError

OUTSIDE: Final = (EMULATED, scaling.NAME)  # groups that do not run in the lab's kernel
ALL: Final = (*IN_THE_LAB, scaling.NAME)
RESULTS: Final = CHECKOUT / "build/bench.json"
LAB_RESULTS: Final = CHECKOUT / "build/bench/lab.json"
DEADLINE: Final = 900.0  # seconds, for all that runs in the lab's kernel


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when everything was measured, 1 when something could not be."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure netlink/ against its peers.")
    parser.add_argument("--only", type=_groups, default=ALL, metavar="GROUP,...", help=f"some of {', '.join(ALL)}")
    parser.add_argument("--quick", action="store_true", help="fewer rounds; the figures are rough")
    given = parser.parse_args(arguments)
    groups: Sequence[str] = given.only
    status, results = _in_the_lab([group for group in groups if group not in OUTSIDE], quick=given.quick)
    if EMULATED in groups:
        print("bench: emulated, a real kernel under qemu", file=sys.stderr)
        results += run_emulated(quick=given.quick)
    if scaling.NAME in groups:
        results += scaling.scaling(quick=given.quick)
    RESULTS.write_text(as_json(results), "utf-8")
    print(render(results), end="")
    return status


def _groups(text: str) -> tuple[str, ...]:
    groups = tuple(text.split(","))
    unknown = set(groups) - set(ALL)
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not among {', '.join(ALL)}")
    return groups


def _in_the_lab(groups: Sequence[str], *, quick: bool) -> tuple[int, list[Result]]:
    if not groups:
        return 0, []
    LAB_RESULTS.parent.mkdir(parents=True, exist_ok=True)
    LAB_RESULTS.unlink(missing_ok=True)
    options = ["--quick"] if quick else []
    command = (sys.executable, "-m", "tests.bench.inside", *options, str(LAB_RESULTS), *groups)
    try:
        status = run(Job(command=command, timeout=DEADLINE, memory="2G"))
    except KernelError as error:
        print(error, file=sys.stderr)
        return 1, []
    results = from_json(LAB_RESULTS.read_text("utf-8")) if LAB_RESULTS.exists() else []
    return int(status != 0), results


if __name__ == "__main__":
    sys.exit(main())

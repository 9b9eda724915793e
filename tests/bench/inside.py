"""The part of `make bench` that runs inside a kernel with IPVS: measures the groups it is given, writes their lines.

    python -m tests.bench.inside [--quick] RESULTS GROUP...

RESULTS is a file. A group that could not be measured is told about on standard error and does not stop the others.
"""

import argparse
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from tests.bench.growth import growth
from tests.bench.reconciling import reconcile
from tests.bench.result import Result, as_json
from tests.bench.works import FULL, GROUPS, QUICK, emulated, warm_up

EMULATED = "emulated"  # the group for the kernel under qemu
ALL = GROUPS | {"growth": growth, "reconcile": reconcile, EMULATED: emulated}


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 1 when a group could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.inside")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("results", type=Path)
    parser.add_argument("groups", nargs="+", choices=ALL)
    given = parser.parse_args(arguments)
    effort = QUICK if given.quick else FULL
    results: list[Result] = []
    status = 0
    warm_up()
    for name in given.groups:
        began = time.monotonic()
        try:
            results += ALL[name](effort)
        except Exception:  # noqa: BLE001 - whatever it was, the other groups are still worth measuring
            traceback.print_exc()
            status = 1
        print(f"bench: {name}, {time.monotonic() - began:.0f} s", file=sys.stderr)
        given.results.write_text(as_json(results), "utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())

"""The daemon on top: whole cycles of `lvsctl.reconcile`, and how much of their time is the kernel's.

Each shape is measured by a process of its own, `cycles`, so that the most memory it ever had is its own too.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from tests.bench.result import Result, Sense, compared
from tests.bench.shapes import Shape
from tests.bench.timing import Samples, median
from tests.bench.works import WIDE, Effort

SHAPES: Final = (WIDE, Shape(10_000, 5))
DEADLINE: Final = 300.0  # seconds, for one shape


@attrs.define(kw_only=True)
class Cycle:
    """Milliseconds of one cycle, and which of the client's calls it made; what is in no part is lvsctl's own code."""

    work: str
    whole: float = 0.0
    client: float = 0.0  # in the IPVS client's calls, the kernel's time among it
    addresses: float = 0.0  # reading them, the kernel's time among it
    first_call: int = 0
    last_call: int = 0


def reconcile(effort: Effort) -> Iterator[Result]:
    """Yield the lines of whole cycles."""
    for shape in SHAPES:
        lives, repeats = (effort.slow_rounds, 3) if shape is WIDE else (1, 2)
        numbers = (shape.virtual_servers, shape.real_servers, lives, repeats)
        command = [sys.executable, "-m", "tests.bench.cycles", *map(str, numbers)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=DEADLINE)
        measured = json.loads(done.stdout)
        cycles = [Cycle(**each) for each in measured["cycles"]]
        for work in dict.fromkeys(cycle.work for cycle in cycles):
            kernel = [ms for of, ms in measured["kernel"] if of == work]
            yield _line(shape, [cycle for cycle in cycles if cycle.work == work], kernel, measured["peak"])


def _line(shape: Shape, cycles: Sequence[Cycle], replayed: Sequence[float], peak: float) -> Result:
    """Return the line that compares our code with the kernel; `peak` is MiB."""
    whole = median([each.whole for each in cycles])
    client = median([each.client for each in cycles])
    addresses = median([each.addresses for each in cycles])
    kernel = min(replayed)  # what disturbs a replay only adds to it
    note = (
        f"whole {whole:,.0f} ms: kernel {kernel:,.0f}, rest of the client {client - kernel:,.0f}, "
        f"addresses {addresses:,.0f}, rest of lvsctl {whole - client - addresses:,.0f}; peak RSS {peak:,.0f} MiB"
    )
    samples = Samples(ours=tuple(each.whole - kernel for each in cycles), theirs=(kernel,))
    return compared(f"reconcile {cycles[0].work}", shape, "the kernel's part", samples, Sense.ITS_TIME, note=note)

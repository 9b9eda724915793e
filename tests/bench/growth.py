"""What loading, an audit and a single change cost as the table grows to 10,000 virtual servers.

Linear: the times' log-log slope is at most 1.15 (1 is a line through zero). Independent: at the largest size at most
1.3 times what it is at the smallest. The kernel's own part is in the notes, for what it does is not ours to change.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from netlink import IPVS
from tests.bench import ours, peers
from tests.bench.fit import fit
from tests.bench.result import Result, Sense, compared
from tests.bench.shapes import Shape
from tests.bench.timing import Samples, median, timed
from tests.bench.works import BLOCK, BLOCKS, Effort

SIZES: Final = tuple(Shape(virtual_servers, 5) for virtual_servers in (1_000, 2_500, 5_000, 10_000))
AUDITS: Final = 5  # in one visit
LINEAR: Final = 1.15  # exponent
INDEPENDENT: Final = 1.3  # times


@attrs.frozen(kw_only=True)
class Visit:
    """Milliseconds at one size."""

    load: float
    audit: float
    reading: float  # of /proc/net/ip_vs, which is the audit's without ours
    change: float
    c_change: float


def growth(effort: Effort) -> Iterator[Result]:
    """Yield the lines; the sizes take turns, so that a busy moment does not bend the line."""
    rounds = [[_visit(shape) for shape in SIZES] for _ in range(effort.slow_rounds)]
    at = {
        name: [median([getattr(visits[index], name) for visits in rounds]) for index in range(len(SIZES))]
        for name in attrs.fields_dict(Visit)
    }
    yield _growing("load, by size", at["load"])
    yield _growing("audit, by size", at["audit"], f"; reading the file alone {_listed(at['reading'])}")
    yield compared(
        "one change, by size",
        SIZES[-1],
        f"itself at {SIZES[0]}",
        Samples(ours=(at["change"][-1],), theirs=(at["change"][0],)),
        Sense.ITS_TIME,
        target=INDEPENDENT,
        note=f"{_listed(at['change'])} ms; in C {_listed(at['c_change'])}",
    )


def _visit(shape: Shape) -> Visit:
    run, load = ours.loaded(shape)
    with IPVS() as ipvs:
        before = ipvs.glance()
        audit = median([ours.audit(ipvs, before)[0] for _ in range(AUDITS)])
        change = median(ours.changes(ipvs, shape, run, BLOCKS, BLOCK))
    c_change = median(peers.c_changes(shape, run, BLOCKS, BLOCK))
    reading = median([timed(_read)[0] for _ in range(AUDITS)])
    return Visit(load=load, audit=audit, reading=reading, change=change, c_change=c_change)


def _read() -> None:
    descriptor = os.open("/proc/self/net/ip_vs", os.O_RDONLY)
    while os.read(descriptor, 1 << 20):
        pass
    os.close(descriptor)


def _growing(work: str, times: Sequence[float], more: str = "") -> Result:
    line = fit([shape.virtual_servers for shape in SIZES], times)
    return Result(
        work=work,
        shape=str(SIZES[-1]),
        against="its size",
        ours_ms=times[-1],
        sense=Sense.SLOPE,
        ratio=line.exponent,
        target=LINEAR,
        note=f"{_listed(times)} ms at {_sizes()}: {line}{more}",
    )


def _listed(times: Sequence[float]) -> str:
    return ", ".join(f"{time:.3g}" for time in times)


def _sizes() -> str:
    return ", ".join(f"{shape.virtual_servers:,}" for shape in SIZES)

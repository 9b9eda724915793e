"""What loading, an audit and a single change cost as the table grows to 10,000 virtual servers.

Linear: the times' log-log slope is at most 1.15 (1 is a line through zero). Independent: at the largest size at most
1.3 times what it is at the smallest.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Final

import attrs

from netlink import IPVS
from tests.bench import ours
from tests.bench.fit import fit
from tests.bench.result import Result, Sense, compared
from tests.bench.shapes import Shape
from tests.bench.timing import Samples, median
from tests.bench.works import BLOCK, Effort

SIZES: Final = tuple(Shape(virtual_servers, 5) for virtual_servers in (1_000, 2_500, 5_000, 10_000))
AUDITS: Final = 5  # of one table
LINEAR: Final = 1.15  # exponent
INDEPENDENT: Final = 1.3  # times


@attrs.define(kw_only=True)
class Times:
    """Milliseconds at one size."""

    loads: list[float] = attrs.field(factory=list)
    audits: list[float] = attrs.field(factory=list)
    changes: list[float] = attrs.field(factory=list)


def growth(effort: Effort) -> Iterator[Result]:
    """Yield the lines; the sizes take turns, so that a busy moment does not bend the line."""
    every = [Times() for _ in SIZES]
    for _ in range(effort.slow_rounds):
        for shape, times in zip(SIZES, every, strict=True):
            _load_and_audit(shape, times)
    _change_in_turn(every, 3 * effort.rounds)
    yield _growing("load, by size", [median(times.loads) for times in every])
    yield _growing("audit, by size", [median(times.audits) for times in every])
    yield compared(
        "one change, by size",
        SIZES[-1],
        f"itself at {SIZES[0]}",
        Samples(ours=tuple(every[-1].changes), theirs=tuple(every[0].changes)),
        Sense.ITS_TIME,
        target=INDEPENDENT,
        note=f"{_listed([median(times.changes) for times in every])} ms at {_sizes()}",
    )


def _load_and_audit(shape: Shape, times: Times) -> None:
    _, ms = ours.loaded(shape)
    times.loads.append(ms)
    with IPVS() as ipvs:
        before = ipvs.glance()
        for _ in range(AUDITS):
            times.audits += ours.audit(ipvs, before)


def _change_in_turn(every: Sequence[Times], rounds: int) -> None:
    """Add the times of single changes, in tables that are there at once, each with its client in its namespace."""
    with ExitStack() as stack:
        tables: list[tuple[IPVS, Shape, int]] = []
        for shape in SIZES:
            run, _ = ours.loaded(shape, beside=bool(tables))
            tables.append((stack.enter_context(IPVS()), shape, run))
        for _ in range(rounds):
            for (ipvs, shape, run), times in zip(tables, every, strict=True):
                times.changes += ours.changes(ipvs, shape, run, 1, BLOCK)


def _growing(work: str, times: Sequence[float]) -> Result:
    line = fit([shape.virtual_servers for shape in SIZES], times)
    return Result(
        work=work,
        shape=str(SIZES[-1]),
        against="its size",
        ours_ms=times[-1],
        sense=Sense.SLOPE,
        ratio=line.exponent,
        target=LINEAR,
        note=f"{_listed(times)} ms at {_sizes()}: {line}",
    )


def _listed(times: Sequence[float]) -> str:
    return ", ".join(f"{time:.3g}" for time in times)


def _sizes() -> str:
    return ", ".join(f"{shape.virtual_servers:,}" for shape in SIZES)

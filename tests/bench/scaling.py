"""The daemon with many Consul services: how soon a flip is written, and what starting and waiting cost.

Each size runs in processes of its own (`waking`), on the host: User-Mode Linux has no room for a Consul with thousands
of queries. Where the host has no IPVS the table is netlink/fake.py. The target is what was promised: the flip at most
100 ms after a bare blocking query's own wake-up (99 of 100), or with signals half of the flips within 0.5 s at 1,000
Consul services and within 3 s at 5,000.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

from tests.bench.fit import fit
from tests.bench.result import Result, Sense
from tests.bench.timing import median, spread

NAME: Final = "consul"
DEADLINE: Final = 900.0  # seconds, for one size
HTTP1: Final = (80, 1_000, 5_000)  # 80 fit into the budget; more are waited for by signals
HTTP2: Final = (100, 1_000, 5_000)
LATER: Final = 100.0  # ms that we may be later than a bare query
SIGNALS: Final = {1_000: 500.0, 5_000: 3_000.0}  # ms, median
MEMORY: Final = {1_000: 100, 5_000: 200}  # MB


def scaling(*, quick: bool) -> Iterator[Result]:
    """Yield the lines."""
    few, many = (10, 20) if quick else (30, 100)  # a median, or the slowest of a hundred
    for transport, sizes in (("http1", HTTP1), ("http2", HTTP2)):
        found = {
            size: measured(transport, size, few if is_signalled(transport, size) else many)
            for size in (sizes[:2] if quick else sizes)
        }
        for size, figures in found.items():
            yield from lines(transport, size, figures)
        if len(found) > 2:
            yield grown(transport, found)


def measured(transport: str, size: int, flips: int) -> dict[str, Any]:
    """Return the figures of one size."""
    print(f"bench: {NAME}, {transport}, {size:,} Consul services", file=sys.stderr)
    command = [sys.executable, "-m", "tests.bench.waking", transport, str(size), str(flips)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=DEADLINE)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def lines(transport: str, size: int, figures: dict[str, Any]) -> Iterator[Result]:
    """Yield the lines of one size."""
    shape, ours, bare = f"{size:,} x 5", figures["kernel_ms"], figures["bare_ms"]
    signalled = is_signalled(transport, size)
    later = sorted(mine - theirs for mine, theirs in zip(ours, bare, strict=True))
    for word, at in (("p50", 0.5), ("p99", 0.99)):
        mine, theirs = quantile(ours, at), quantile(bare, at)
        target = None
        if signalled and word == "p50":
            target = SIGNALS[size] / theirs
        elif not signalled and word == "p99":
            target = (mine + LATER - quantile(later, at)) / theirs
        yield Result(
            work=f"flip to write, {way(transport, size)}, {word}",
            shape=shape,
            against="a bare blocking query",
            ours_ms=mine,
            theirs_ms=theirs,
            sense=Sense.ITS_TIME,
            ratio=mine / theirs,
            target=target,
            spread=spread(ours),
            note=f"{quantile(later, at):.0f} ms later than the bare query of the same flip; "
            f"{figures['flip_cpu_ms']:.0f} ms of a processor for each flip",
        )
    peak, most = figures["peak"], MEMORY.get(size)
    yield Result(
        work=f"start to first sync, {way(transport, size)}",
        shape=shape,
        against="nothing",
        ours_ms=figures["start_s"] * 1e3,
        note=f"{figures['start_cpu_s']:.1f} s of a processor; RSS {figures['rss']} MB, at most {peak}"
        + (f" (promised: {most})" if most else "")
        + f"; {figures['connections']} connections; idle {figures['idle_cpu']:.1%} of a processor",
    )


def grown(transport: str, found: dict[int, dict[str, Any]]) -> Result:
    """Return the line that says how the start grows, and the memory."""
    sizes, times = list(found), [each["start_cpu_s"] * 1e3 for each in found.values()]
    memory = fit(sizes, [each["rss"] for each in found.values()])
    return Result(
        work=f"start, processor's time by size, {transport}",
        shape=f"{sizes[-1]:,} x 5",
        against="its size",
        ours_ms=times[-1],
        sense=Sense.SLOPE,
        ratio=fit(sizes, times).exponent,
        note=f"{', '.join(f'{each:,.0f}' for each in times)} ms at {', '.join(f'{size:,}' for size in sizes)}; "
        f"RSS {memory.fixed:.0f} MB + {memory.each * 1000:.1f} kB for each Consul service; idle "
        + ", ".join(f"{each['idle_cpu']:.1%}" for each in found.values()),
    )


def is_signalled(transport: str, size: int) -> bool:
    """Tell whether so many are more than there may be connections of HTTP/1.1."""
    return transport == "http1" and size in SIGNALS


def way(transport: str, size: int) -> str:
    """Return how news are waited for."""
    return "HTTP/2" if transport == "http2" else "signals" if is_signalled(transport, size) else "HTTP/1.1"


def quantile(times: Sequence[float], at: float) -> float:
    """Return the time below which that part of `times` is."""
    return median(times) if at == 0.5 else sorted(times)[min(len(times) - 1, int(at * len(times)))]

"""Our own runs: what netlink/ needs for a piece of work, each from a fresh namespace and values that nobody saw before.

A peer's table is read back with `check`, outside the measured time, so that nobody is quick by doing less.
"""

import itertools
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import attrs

import netlink
from netlink import (
    IPVS,
    AddRealServer,
    AddVirtualServer,
    RealServer,
    RealServerKey,
    RealServerUsage,
    Request,
    SetRealServer,
    SetVirtualServer,
    VirtualServer,
    VirtualServerKey,
)
from tests.bench import namespace
from tests.bench.shapes import Shape
from tests.bench.timing import timed

_VIRTUAL_SERVERS: Final = "10.64.0.0/10"
_REAL_SERVERS: Final = "10.128.0.0/9"
_GATHERED: Final = 2.2  # seconds; the kernel gathers counters every 2

Usages = Mapping[VirtualServerKey, Mapping[RealServerKey, RealServerUsage]]

_runs = itertools.count(1)


class WrongTable(Exception):
    """Somebody's work did not lead to the table that was wanted."""


def next_run() -> int:
    """Return a run that nobody had yet."""
    return next(_runs)


def load(shape: Shape) -> Sequence[float]:
    """Return the ms of creating a table."""
    run, ms = loaded(shape)
    check(shape, run)
    return (ms,)


def loaded(shape: Shape, *, beside: bool = False) -> tuple[int, float]:
    """Return the run that is in a fresh table now, `beside` the old one or instead, and the ms of creating it."""
    run = next_run()
    namespace.fresh(beside=beside)
    with IPVS() as ipvs:
        ms = apply(ipvs, shape.additions(run))
    return run, ms


def load_and_change(shape: Shape) -> Sequence[float]:
    """Return the ms of creating a table and of changing every weight."""
    run, loading = loaded(shape)
    with IPVS() as ipvs:
        changing = apply(ipvs, shape.changes(run, 1))
    check(shape, run, 1)
    return loading, changing


def apply(ipvs: IPVS, requests: Sequence[Request]) -> float:
    """Return the ms of `requests`, all of which have to succeed."""
    ms, results = timed(lambda: ipvs.apply(requests))
    for refused in filter(None, results):
        raise refused
    return ms


def dump(ipvs: IPVS) -> Sequence[float]:
    """Return the ms of reading everything."""
    return (timed(ipvs.observe)[0],)


def take_turns(ipvs: IPVS, shape: Shape, run: int) -> None:
    """Have every real server of the table get as many connections, and the way there be open."""
    turns = [VirtualServer(key=key, scheduler="rr") for key in shape.keys(run)]
    apply(ipvs, [SetVirtualServer(virtual_server=each) for each in turns])
    lines = (
        "link add wire type dummy",
        "link set wire up",
        "address add 10.0.0.1/32 dev wire",
        f"route add {_REAL_SERVERS} dev wire",
        f"route add local {_VIRTUAL_SERVERS} dev lo",
    )
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines).encode(), check=True)


def connect(shape: Shape, run: int) -> None:
    """Have every real server be sent the first packet of a connection, and the kernel gather its counters since."""
    for key in shape.keys(run):
        for _ in range(shape.real_servers):
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as made:
                made.settimeout(0.0)
                made.connect_ex((str(key.address), key.port))
    time.sleep(_GATHERED)


def check_moved(before: Usages, after: Usages) -> None:
    """Raise WrongTable unless nearly every real server has counted something in between.

    A few are passed over: a client's port that was used a moment ago leads to the real server of that time.
    """
    moved = [
        each.in_packets > before[key][server].in_packets
        for key, usage in after.items()
        for server, each in usage.items()
    ]
    if sum(moved) < 0.9 * len(moved):
        raise WrongTable(f"{sum(moved)} of {len(moved)} real servers counted a packet")


def first_dump() -> Sequence[float]:
    """Return the ms of reading everything with a client that never did."""
    with IPVS() as ipvs:
        return dump(ipvs)


def audit(ipvs: IPVS, before: object) -> Sequence[float]:
    """Return the ms of finding that nothing has changed."""
    ms, same = timed(lambda: ipvs.glance() == before)
    if not same:
        raise WrongTable("a glance differs though nothing was changed")
    return (ms,)


def changes(ipvs: IPVS, shape: Shape, run: int, blocks: int, block: int) -> list[float]:
    """Return the ms of one weight change, `blocks` times, each the mean of `block` changes; the first are left out."""
    index = shape.virtual_servers // 2
    key = next(itertools.islice(shape.keys(run), index, None))
    server = shape.servers(run, index)[0]

    def send(requests: Sequence[Request]) -> None:
        for request in requests:
            ipvs.apply([request])

    times = []
    for first in range(0, (blocks + 1) * block, block):
        weights = range(first + 1, first + block + 1)
        requests = [
            SetRealServer(virtual_server=key, real_server=attrs.evolve(server, weight=each)) for each in weights
        ]
        times.append(timed(partial(send, requests))[0] / block)
    return times[1:]


def fill(real_servers: int) -> Sequence[float]:
    """Return the ms of filling an mh virtual server the way we do it."""
    virtual_server, servers = _hashed(real_servers)
    namespace.fresh()
    with IPVS() as ipvs:
        ms, results = timed(lambda: ipvs.apply(netlink.fill(virtual_server, servers)))
    _check_filled(virtual_server, servers, results)
    return (ms,)


def fill_one_by_one(real_servers: int, *, batched: bool) -> Sequence[float]:
    """Return the ms of the same with plain additions, each by itself or all in one call."""
    virtual_server, servers = _hashed(real_servers)
    requests: list[Request] = [AddVirtualServer(virtual_server=virtual_server)]
    requests += [AddRealServer(virtual_server=virtual_server.key, real_server=each) for each in servers]

    def each_by_itself() -> Sequence[object]:
        return [result for request in requests for result in ipvs.apply([request])]

    namespace.fresh()
    with IPVS() as ipvs:
        work: Callable[[], Sequence[object]] = partial(ipvs.apply, requests) if batched else each_by_itself
        ms, results = timed(work)
    _check_filled(virtual_server, servers, results)
    return (ms,)


def check(shape: Shape, run: int, shift: int = 0) -> None:
    """Raise WrongTable unless the table is exactly the one of `run`."""
    with IPVS() as ipvs:
        if ipvs.observe().table != shape.table(run, shift):
            raise WrongTable(f"the table is not the {shape} that was asked for")


def _hashed(real_servers: int) -> tuple[VirtualServer, list[RealServer]]:
    shape, run = Shape(1, real_servers), next_run()
    (key,) = shape.keys(run)
    return VirtualServer(key=key, scheduler="mh"), shape.servers(run, 0)


def _check_filled(virtual_server: VirtualServer, servers: Sequence[RealServer], results: Sequence[object]) -> None:
    with IPVS() as ipvs:
        entry = ipvs.observe().table[virtual_server.key]
    if any(results) or entry.virtual_server != virtual_server or set(entry.real_servers.values()) != set(servers):
        raise WrongTable("the mh virtual server is not the one that was asked for")

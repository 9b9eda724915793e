"""Cycles of the daemon on the real kernel, in a process of their own; prints what each took, as JSON.

    python -m tests.bench.cycles VIRTUAL_SERVERS REAL_SERVERS LIVES REPEATS

All is as in the daemon (its modules in memory, the ledger on disk, the machine's addresses read) but for
Consul, whose answers are made here. A last life, after the most memory was looked up, tells the kernel's part.
"""

import functools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs

import lvsctl.daemon  # noqa: F401 - for the memory: all that the daemon imports
from lvsctl.config import Config, VirtualServerConfig
from lvsctl.core.desired import query_of
from lvsctl.core.instance import Answer, Answers, Instance
from lvsctl.reconcile import Reconciler
from lvsctl.store import Store
from netlink import IPVS
from netlink.addresses import Addresses
from netlink.types import VirtualServerKey
from tests.bench import namespace
from tests.bench.ours import WrongTable
from tests.bench.reconciling import Cycle
from tests.bench.replay import Call, recorded, replayed
from tests.bench.shapes import Shape
from tests.bench.timing import timed

FROM_EMPTY, FROM_EQUAL, AUDIT = "from empty", "from equal", "audit, equal"
ONE_CHANGE, ALONE = "one change", "one change, alone"
CLIENT_CALLS: Final = ("observe", "glance", "forget", "apply")
REPLAYS: Final = 3

Value = TypeVar("Value")


def main() -> None:
    """Print what the cycles of one shape took, what of it the kernel, and the most memory in MiB."""
    virtual_servers, real_servers, lives, repeats = map(int, sys.argv[1:])
    shape = Shape(virtual_servers, real_servers)
    lived: list[Cycle] = []
    for run in range(lives):
        namespace.fresh()
        with IPVS() as ipvs:
            lived += _life(ipvs, shape, run, repeats)
    peak = _peak()
    namespace.fresh()
    with recorded() as (ipvs, calls):
        again = _life(ipvs, shape, lives, 1, calls)
    kernel: list[tuple[str, float]] = []
    for _ in range(REPLAYS):
        namespace.fresh()
        opening = calls[: again[0].first_call]
        _, *times = replayed([opening, *(calls[cycle.first_call : cycle.last_call] for cycle in again)])
        kernel += [(cycle.work, ms) for cycle, ms in zip(again, times, strict=True)]
    print(
        json.dumps(
            {
                "cycles": [attrs.asdict(cycle) for cycle in lived],
                "kernel": kernel,
                "peak": peak,
            }
        )
    )


def _life(ipvs: IPVS, shape: Shape, run: int, repeats: int, calls: Sequence[Call] = ()) -> list[Cycle]:
    """Return the cycles of a daemon that starts with an empty table, those after the first `repeats` times.

    `calls` is what `ipvs` writes down.
    """
    lived: list[Cycle] = []
    config, answers = _wanted(shape, run)
    now = Cycle(work="")
    for name in CLIENT_CALLS:
        setattr(ipvs, name, _adding(now, "client", getattr(ipvs, name)))
    addresses = Addresses()
    addresses.local_addresses = _adding(now, "addresses", addresses.local_addresses)  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as directory:
        reconciler = Reconciler(ipvs, addresses, Store(Path(directory)), time.time)

        def cycle(
            work: str,
            answers: Answers,
            steps: int,
            only: frozenset[VirtualServerKey] | None = None,
            *,
            audit: bool = False,
        ) -> None:
            now.client = now.addresses = 0.0
            now.work, now.first_call = work, len(calls)
            now.whole, done = timed(lambda: reconciler.cycle(config, answers, only, audit=audit))
            now.last_call = len(calls)
            if len(done.done) != steps or done.undone:
                raise WrongTable(f"a cycle {work} took {len(done.done)} steps, not {steps}")
            lived.append(attrs.evolve(now))

        cycle(FROM_EMPTY, answers, shape.rules)
        for _ in range(repeats):
            cycle(FROM_EQUAL, answers, 0)
        for _ in range(repeats):
            cycle(AUDIT, answers, 0, frozenset(), audit=True)
        for repeat in range(repeats):
            answers = _with_one_change(answers, 1_000 + repeat)
            cycle(ONE_CHANGE, answers, 1)
        for repeat in range(repeats):
            answers = _with_one_change(answers, 2_000 + repeat)
            cycle(ALONE, answers, 1, frozenset({next(iter(config.virtual_servers.values())).key}))
    return lived


def _wanted(shape: Shape, run: int) -> tuple[Config, Answers]:
    """Return the configuration of `shape`, each virtual server with a Consul service of its own, and the answers."""
    virtual_servers, answers = {}, {}
    for index, key in enumerate(shape.keys(run)):
        name = f"service-{index}"
        each = VirtualServerConfig(name=name, key=key, consul_service=name)
        virtual_servers[name] = each
        instances = tuple(
            Instance(
                node=f"node-{server.key.address}",
                instance_id=f"{name}-{number}",
                address=str(server.key.address),
                port=server.key.port,
                weight=server.weight,
            )
            for number, server in enumerate(shape.servers(run, index))
        )
        answers[query_of(each)] = Answer(instances=instances, index=1)
    return Config(virtual_servers=virtual_servers), answers


def _with_one_change(answers: Answers, weight: int) -> Answers:
    """Return `answers` with another weight for one instance."""
    query, answer = next(iter(answers.items()))
    first, *others = answer.instances
    return {**answers, query: attrs.evolve(answer, instances=(attrs.evolve(first, weight=weight), *others))}


def _adding(now: Cycle, part: str, call: Callable[..., Value]) -> Callable[..., Value]:
    """Return `call` with its time added to a part of `now`."""

    @functools.wraps(call)
    def adding(*arguments: Any, **named: Any) -> Value:  # noqa: ANN401 - whatever the call takes
        began = time.perf_counter_ns()
        try:
            return call(*arguments, **named)
        finally:
            setattr(now, part, getattr(now, part) + (time.perf_counter_ns() - began) / 1e6)

    return adding


def _peak() -> float:
    """Return the most memory this process had, in MiB; ru_maxrss would begin with that of the process before exec."""
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmHWM")


if __name__ == "__main__":
    main()

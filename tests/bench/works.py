"""What is measured on the table itself, against whom, and what was promised; yields each line as it is measured.

Runs in the lab's kernel, in namespaces of its own.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

import attrs

from netlink import IPVS
from tests.bench import namespace, ours, peers
from tests.bench.result import Result, Sense, compared
from tests.bench.shapes import Shape
from tests.bench.timing import in_turn, median

WIDE: Final = Shape(1_000, 10)
DEEP: Final = Shape(200, 100)
FILLED: Final = 1_000  # real servers of the mh virtual server
BLOCKS, BLOCK = 5, 100  # single changes are timed by the hundred: one is not much longer than looking at the clock


@attrs.frozen(kw_only=True)
class Effort:
    """How often things are measured."""

    rounds: int  # of what takes milliseconds
    slow_rounds: int  # of what takes seconds


FULL: Final = Effort(rounds=25, slow_rounds=3)
QUICK: Final = Effort(rounds=3, slow_rounds=1)


def warm_up() -> None:
    """Have the kernel load its modules, and Python what it loads late, on nobody's account."""
    ours.load(Shape(100, 10))


def load(effort: Effort) -> Iterator[Result]:
    """Yield the lines of loading a table, and of changing every weight."""
    for shape in (WIDE, DEEP):
        we = partial(ours.load_and_change, shape)
        loaded, changed = in_turn(effort.rounds, we, partial(_c_load, shape))
        yield compared("load", shape, "C, same batches", loaded, Sense.ITS_TIME, target=1.5)
        yield compared("change of every weight", shape, "C, same batches", changed, Sense.ITS_TIME)
        yield load_against_ipvsadm(shape, effort, target=90)
        loaded, changed = in_turn(effort.slow_rounds, we, partial(_keepalived, shape), ours_each=3)
        yield compared("load", shape, "keepalived 2.2, start", loaded, Sense.FASTER, target=15)
        yield compared("change of every weight", shape, "keepalived 2.2, reload", changed, Sense.FASTER, target=15)


def load_against_ipvsadm(shape: Shape, effort: Effort, *, target: float | None) -> Result:
    """Return the line that compares loading with `ipvsadm -R`."""
    we, they = partial(ours.load, shape), partial(_ipvsadm_load, shape)
    (samples,) = in_turn(effort.slow_rounds, we, they, ours_each=3)
    return compared("load", shape, "ipvsadm -R", samples, Sense.FASTER, target=target)


def dump(effort: Effort) -> Iterator[Result]:
    """Yield the lines of reading everything."""
    for shape in (WIDE, DEEP):
        run, _ = ours.loaded(shape)
        with IPVS() as ipvs:
            we, c = partial(ours.dump, ipvs), partial(_c_dump, shape)
            we()
            (samples,) = in_turn(effort.rounds, we, c)
            yield compared("full dump", shape, "C", samples, Sense.ITS_TIME, target=1.3)
            (samples,) = in_turn(effort.rounds, we, partial(_ipvsadm_list, "--stats"))
            yield compared("full dump", shape, "ipvsadm -Ln --stats", samples, Sense.FASTER, target=5)
            (samples,) = in_turn(effort.rounds, partial(_changed_dump, ipvs, shape, run, itertools.count(1)), c)
            yield compared("dump, every weight new", shape, "C", samples, Sense.ITS_TIME)
            ours.take_turns(ipvs, shape, run)
            moved = partial(_moved_dump, ipvs, shape, run)
            (samples,) = in_turn(effort.slow_rounds, moved, c)
            yield compared("dump, every counter new", shape, "C", samples, Sense.ITS_TIME, target=1.3)
            (samples,) = in_turn(effort.slow_rounds, moved, partial(_ipvsadm_list, "--stats"))
            yield compared("dump, every counter new", shape, "ipvsadm -Ln --stats", samples, Sense.FASTER, target=5)
        (samples,) = in_turn(effort.rounds, ours.first_dump, partial(peers.c_dumps, shape, 1))
        yield compared("dump, the client's first", shape, "C, its first", samples, Sense.ITS_TIME)


def audit(effort: Effort) -> Iterator[Result]:
    """Yield the lines of finding out that nothing has changed."""
    for shape in (WIDE, DEEP):
        ours.loaded(shape)
        with IPVS() as ipvs:
            (samples,) = in_turn(effort.rounds, partial(ours.audit, ipvs, ipvs.glance()), _ipvsadm_list)
        yield compared("audit, nothing changed", shape, "ipvsadm -Ln", samples, Sense.FASTER, target=20)


def change(effort: Effort) -> Iterator[Result]:
    """Yield the line of one weight change on a warm client."""
    run, _ = ours.loaded(WIDE)
    with IPVS() as ipvs:
        (samples,) = in_turn(
            3 * effort.rounds,
            lambda: (median(ours.changes(ipvs, WIDE, run, BLOCKS, BLOCK)),),
            lambda: (median(peers.c_changes(WIDE, run, BLOCKS, BLOCK)),),
        )
    yield compared("one weight change, warm", WIDE, "C, one request", samples, Sense.ITS_TIME, target=1.15)


def fill(effort: Effort) -> Iterator[Result]:
    """Yield the lines of filling a virtual server whose scheduler builds a table at every addition."""
    work, shape, we = "fill an mh virtual server", f"1 x {FILLED:,}", partial(ours.fill, FILLED)
    ours.fill_one_by_one(FILLED, batched=True)  # which loads the scheduler's module
    (samples,) = in_turn(effort.rounds, we, partial(ours.fill_one_by_one, FILLED, batched=False))
    yield compared(work, shape, "one by one", samples, Sense.FASTER, target=20)
    (samples,) = in_turn(effort.rounds, we, partial(ours.fill_one_by_one, FILLED, batched=True))
    yield compared(work, shape, "one by one, batched", samples, Sense.FASTER)


def emulated(effort: Effort) -> Iterator[Result]:
    """Yield the one line that is also measured in a real distribution kernel, see the module `emulated`."""
    yield load_against_ipvsadm(WIDE, effort, target=None)


def _changed_dump(ipvs: IPVS, shape: Shape, run: int, shifts: Iterator[int]) -> Sequence[float]:
    ours.apply(ipvs, shape.changes(run, next(shifts)))
    return ours.dump(ipvs)


def _moved_dump(ipvs: IPVS, shape: Shape, run: int) -> Sequence[float]:
    before = ipvs.observe().usage
    ours.connect(shape, run)
    moved = ours.dump(ipvs)
    ours.check_moved(before, ipvs.observe().usage)
    return moved


def _c_load(shape: Shape) -> Sequence[float]:
    run = ours.next_run()
    namespace.fresh()
    loading = peers.c_load(shape, run)
    changing = peers.c_weights(shape, run, 1)
    ours.check(shape, run, 1)
    return loading, changing


def _c_dump(shape: Shape) -> Sequence[float]:
    return (median(peers.c_dumps(shape, 4)[1:]),)


def _ipvsadm_load(shape: Shape) -> Sequence[float]:
    run = ours.next_run()
    namespace.fresh()
    ms = peers.ipvsadm_load(shape, run)
    ours.check(shape, run)
    return (ms,)


def _ipvsadm_list(*options: str) -> Sequence[float]:
    return (peers.ipvsadm_list(*options),)


def _keepalived(shape: Shape) -> Sequence[float]:
    run = ours.next_run()
    namespace.fresh()
    with peers.keepalived(shape, run) as running:
        ours.check(shape, run)
        reloading = running.reload(1)
        ours.check(shape, run, 1)
    return running.started_ms, reloading


GROUPS: Final[dict[str, Callable[[Effort], Iterator[Result]]]] = {
    "load": load,
    "dump": dump,
    "audit": audit,
    "change": change,
    "fill": fill,
}

"""Somebody sets the clock: what was to last some time lasts as long as it was to, on a kernel in memory."""

from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from lvsctl.announce import Announcer
from lvsctl.clock_watch import ClockWatch
from lvsctl.core.clock import moved
from lvsctl.core.event import Event
from lvsctl.core.event_words import sentence
from lvsctl.core.instance import Instance
from lvsctl.reconcile import Cycle, Reconciler
from lvsctl.store import Store
from netlink.fake import FakeIPVS
from netlink.requests import SetRealServer
from netlink.types import RealServerUsage
from tests.addresses import FakeAddresses
from tests.strategies import ledgers
from tests.values import KEY, NOW, answers_of, config_of, configured, failing, instance, real_key

HOUR = 3600.0
JUMPS = (HOUR, -HOUR, 365 * 24 * HOUR, -365 * 24 * HOUR)
FOUR = tuple(instance(number) for number in range(1, 5))
EIGHT = tuple(instance(number) for number in range(1, 9))
CONFIG = config_of(configured(drain_timeout=30.0, slow_start=30.0, damping=True))


@attrs.define
class World:
    """A reconciler with the two clocks of a machine."""

    state: Path
    kernel: FakeIPVS = attrs.field(factory=FakeIPVS)
    now: float = NOW
    steady: float = 5.0
    reconciler: Reconciler = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Start."""
        self.restart()

    def restart(self) -> None:
        self.reconciler = Reconciler(
            self.kernel, FakeAddresses(), Store(self.state), lambda: self.now, steady=lambda: self.steady
        )

    def cycle(self, *instances: Instance, after: float = 0.0) -> Cycle:
        self.now += after
        self.steady += after
        return self.reconciler.cycle(CONFIG, answers_of(CONFIG, *instances))

    def weights(self) -> dict[int, int]:
        real_servers = self.kernel.observe().table[KEY].real_servers
        return {int(key.address) & 255: each.weight for key, each in sorted(real_servers.items())}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("jump", JUMPS)
def test_a_drain_has_its_time(world: World, jump: float) -> None:
    world.cycle(*FOUR)
    world.kernel.set_usage(KEY, real_key(4), RealServerUsage(active=1))
    world.cycle(*FOUR[:3])
    world.cycle(*FOUR[:3], after=10)
    world.now += jump
    for _ in range(2):
        world.cycle(*FOUR[:3], after=9)
        assert world.weights() == {1: 1, 2: 1, 3: 1, 4: 0}
    world.cycle(*FOUR[:3], after=2)
    assert world.weights() == {1: 1, 2: 1, 3: 1}


@pytest.mark.parametrize("jump", JUMPS)
def test_a_slow_start_goes_on(world: World, jump: float) -> None:
    world.cycle(*FOUR[:3])
    world.cycle(*FOUR)
    world.cycle(*FOUR, after=10)
    assert world.weights()[4] == 6
    world.now += jump
    world.cycle(*FOUR, after=4)
    assert world.weights()[4] == 8
    world.cycle(*FOUR, after=16)
    assert world.weights() == {1: 1, 2: 1, 3: 1, 4: 1}


@pytest.mark.parametrize("jump", JUMPS)
def test_the_floor_is_not_forgotten(world: World, jump: float) -> None:
    world.cycle(*EIGHT)
    bad = (*EIGHT[:2], *(failing(number) for number in range(3, 9)))
    world.cycle(*bad)
    serving = {number for number, weight in world.weights().items() if weight}
    assert len(serving) == 4
    world.now += jump
    world.cycle(*bad, after=890)
    assert {number for number, weight in world.weights().items() if weight} == serving
    world.cycle(*bad, after=11)
    assert len([weight for weight in world.weights().values() if weight]) == 2


@pytest.mark.parametrize("jump", JUMPS)
def test_who_is_damped_waits_no_longer_and_no_less(world: World, jump: float) -> None:
    world.cycle(*FOUR)
    world.kernel.set_usage(KEY, real_key(4), RealServerUsage(active=1))
    for _ in range(4):
        world.cycle(*FOUR[:3], failing(4), after=1)
        world.cycle(*FOUR, after=1)
    assert not world.weights().get(4)
    world.now += jump
    world.cycle(*FOUR, after=29)
    assert not world.weights().get(4)
    world.cycle(*FOUR, after=1)
    assert world.weights()[4]


def test_what_was_refused_is_tried_again_when_it_would_have_been(world: World) -> None:
    world.cycle(*FOUR[:3])
    world.kernel.fail_next(lambda request: not isinstance(request, SetRealServer), 12)
    assert world.cycle(*FOUR).undone
    world.now += 30
    assert world.cycle(*FOUR, after=0.5).undone
    world.kernel.writes.clear()
    assert not world.cycle(*FOUR, after=0.5).undone


def test_a_cycle_about_a_part_is_about_everything_then_and_the_log_says_why(world: World) -> None:
    told: list[Event] = []
    world.cycle(*FOUR)
    world.now += HOUR
    cycle = world.reconciler.cycle(CONFIG, answers_of(CONFIG, *FOUR), frozenset({KEY}), audit=True)
    assert (cycle.only, cycle.clock_set) == (None, HOUR)
    with capture_logs() as logs:
        Announcer(told.append).cycle(cycle)
    assert [(each["event"], each["by"]) for each in logs] == [("clock_set", "+3600 s")]
    assert [sentence(each) for each in told] == ["lvsctl found that the clock was set (+3600 s)"]
    assert world.cycle(*FOUR).clock_set == 0


def test_a_clock_that_is_slewed_is_not_set(world: World) -> None:
    world.cycle(*FOUR)
    for _ in range(20):
        world.now += 0.4
        assert not world.cycle(*FOUR).clock_set


@given(ledgers(), st.sampled_from(JUMPS))
def test_there_and_back_is_the_same(ledger: dict, jump: float) -> None:  # type: ignore[type-arg]
    assert moved(moved(ledger, jump), -jump) == ledger


def test_a_process_that_is_stopped_between_two_looks_has_not_had_its_clock_set() -> None:
    time, stops = [0.0], [(0.0, 0.0)]

    def clock() -> float:
        before, after = stops.pop(0) if stops else (0.0, 0.0)
        time[0] += before
        found = NOW + time[0]
        time[0] += after
        return found

    watch = ClockWatch(clock, lambda: time[0])
    for stop in ((5.0, 0.0), (0.0, 0.0), (0.0, 5.0), (0.0, 0.0)):
        stops[:] = [stop]
        assert watch.set_by() == 0

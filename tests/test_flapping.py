"""Instances that flap, through the real `Reconciler` on a kernel in memory: who stays out, and what is said of it."""

from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from lvsctl.announce import Announcer
from lvsctl.cli.status_screen import render
from lvsctl.config import Config
from lvsctl.core.event import Event as Told
from lvsctl.core.event_words import sentence
from lvsctl.core.instance import Health, Instance
from lvsctl.core.order import NO_ORDERS, Drain, OnNode, Order, Orders
from lvsctl.core.override import Override, Overrides, Percent
from lvsctl.core.ramp import NO_RAMPS
from lvsctl.core.standing import standings
from lvsctl.core.status import Place, State
from lvsctl.core.virtual_server_status import virtual_servers
from lvsctl.ledger_format import decode, encode, encode_one
from lvsctl.reconcile import Cycle
from lvsctl.store import Store
from netlink.fake import FakeIPVS
from netlink.types import RealServerUsage
from tests.histories import histories
from tests.statuses import FULL
from tests.test_floor import Event, change, directing, events, pauses
from tests.test_reconcile import World
from tests.test_slow_start import meant_by
from tests.values import KEY, NOW, VIP, answers_of, config_of, configured, failing, instance, real_key

DAMPING = config_of(configured(damping=True))
BOTH = config_of(configured(damping=True, slow_start=30.0))
FOUR = tuple(instance(number) for number in range(1, 5))
THREE = FOUR[:3]


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a world that serves with four real servers, the last of which has a connection for ever."""
    world = World(state=tmp_path, kernel=FakeIPVS())
    world.cycle(DAMPING, *FOUR)
    world.kernel.set_usage(KEY, real_key(4), RealServerUsage(active=1))
    return world


def flap(world: World, times: int, *, config: Config = DAMPING) -> Cycle:
    """Have the fourth fail and pass again so often; return the last cycle."""
    for _ in range(times):
        world.now += 5
        world.cycle(config, *THREE, failing(4))
        world.now += 5
        cycle = world.cycle(config, *FOUR)
    return cycle


def weight(world: World) -> int | None:
    found = world.table[KEY].real_servers.get(real_key(4))
    return found.weight if found else None


def test_three_returns_go_through_at_once_and_the_fourth_waits(world: World) -> None:
    for _ in range(3):
        flap(world, 1)
        assert weight(world) == 1
    cycle = flap(world, 1)
    assert weight(world) == 0
    assert cycle.look.decision.virtual_servers[KEY].next_look == world.now + 30
    world.now += 29.9
    world.cycle(DAMPING, *FOUR)
    assert not weight(world), "its drain is over, too"
    world.now += 0.1
    cycle = world.cycle(DAMPING, *FOUR)
    assert weight(world) == 1
    assert cycle.look.decision.virtual_servers[KEY].next_look is None
    world.kernel.writes.clear()
    world.now += 3600
    world.cycle(DAMPING, *FOUR)
    assert world.kernel.writes == []


def test_without_damping_every_return_goes_through(world: World) -> None:
    for _ in range(20):
        flap(world, 1, config=config_of())
        assert weight(world) == 1


def test_a_rolling_deploy_is_never_damped(world: World) -> None:
    """Each instance goes out, fails twice while it starts, and is back; three deploys within the hour."""
    for _ in range(3):
        for number in range(4):
            others = [each for each in FOUR if each is not FOUR[number]]
            for there in ((failing(number + 1),), (), (failing(number + 1),), (FOUR[number],), (), (FOUR[number],)):
                world.now += 3
                world.cycle(DAMPING, *others, *there)
            assert len([each for each in world.table[KEY].real_servers.values() if each.weight]) == 4
        world.now += 600


def test_a_restart_neither_forgets_nor_begins_anew(world: World) -> None:
    flap(world, 4)
    world.now += 20
    world.restart()
    world.cycle(DAMPING, *FOUR)
    assert weight(world) == 0
    world.now += 10
    world.restart()
    world.cycle(DAMPING, *FOUR)
    assert weight(world) == 1


def test_while_it_waits_its_drain_goes_on(world: World) -> None:
    flap(world, 4)
    world.now += 26  # a drain of 30 s began with the failure
    world.cycle(DAMPING, *FOUR)
    assert weight(world) is None
    world.now += 4
    world.cycle(DAMPING, *FOUR)
    assert weight(world) == 1


def test_where_others_fail_it_comes_back_at_once(world: World) -> None:
    flap(world, 4)
    world.cycle(DAMPING, FOUR[0], failing(2), FOUR[2], FOUR[3])
    assert weight(world) == 0, "two of four are half of them"
    world.cycle(DAMPING, FOUR[0], failing(2), failing(3), FOUR[3])
    assert weight(world) == 1


def test_a_canary_that_waits_has_no_part(world: World) -> None:
    part = Overrides(entries=(Override(virtual_server="reco", selector="v2", share=Percent(500)),))

    def cycle(last: Instance) -> list[int]:
        world.now += 1
        world.reconciler.cycle(DAMPING, answers_of(DAMPING, *THREE, last), overrides=part)
        return [each.weight for _, each in sorted(world.table[KEY].real_servers.items())]

    for _ in range(3):
        assert cycle(instance(4, tags=("v2",))) == [19, 19, 19, 3]
        assert cycle(failing(4, tags=("v2",))) == [1, 1, 1, 0]
    cycle(instance(4, tags=("v2",)))
    cycle(failing(4, tags=("v2",)))
    assert cycle(instance(4, tags=("v2",))) == [1, 1, 1, 0]


def test_status_log_and_journal_say_so(world: World) -> None:
    told: list[Told] = []
    announcer = Announcer(told.append)
    cycle = flap(world, 4)
    why = "passes, but is damped until 1970-01-12 13:47:50 UTC: it left 4 times in a row soon after it had come"
    with capture_logs() as logs:
        announcer.cycle(cycle)
    (log,) = [each for each in logs if each["event"] == "instance_damped"]
    assert (log["name"], log["why"]) == ("reco: reco-4 on app4", why)
    (event,) = [each for each in told if each.event == "instance_damped"]
    assert (event.real_server, event.cause) == ("10.0.0.4:8080", "damped")
    assert sentence(event) == f"10.0.0.4:8080 was damped: {why}"
    assert world.now + 30 == NOW + 70
    look = world.reconciler.look(DAMPING, answers_of(DAMPING, *FOUR))
    (row,) = virtual_servers(look.config, look.decision, look.observed, refused={}, local=frozenset({VIP}), ages={})
    (standing,) = standings(look.config, look.decision, look.observed, refused=frozenset()).values()
    assert standing.damped == 1
    assert (row.state, row.serving, row.wanted) == (State.DEGRADED, 3, 4)
    assert row.note == "1 damped; lvsctl release reco lets it in"
    (damped,) = [each for each in row.real_servers if each.instance == "reco-4"]
    assert (damped.place, damped.check, damped.why) == (Place.DRAINING, "passing", why)
    assert any(
        line.endswith(why) for line in render(attrs.evolve(FULL, virtual_servers=(row,)), with_real_servers=True)
    )
    world.now += 30
    with capture_logs() as logs:
        announcer.cycle(world.cycle(DAMPING, *FOUR))
    assert [each["trouble"] for each in logs if each["event"] == "trouble_over"] == ["instance_damped"]
    assert sentence(told[-1]) == "10.0.0.4:8080 was damped no longer"


def test_two_hundred_flips_within_a_second_are_few_writes(world: World) -> None:
    """Even where every one of them has its cycle: three returns, and the fourth waits."""
    world.kernel.writes.clear()
    for _ in range(100):
        world.now += 0.005
        world.cycle(DAMPING, *THREE, failing(4))
        world.now += 0.005
        world.cycle(DAMPING, *FOUR)
    assert len(world.kernel.writes) == 7


flapping = st.builds(lambda found: change(damping=found), st.booleans())


@histories()
@given(history=st.lists(st.tuples(st.lists(events | flapping, max_size=3), pauses | st.just(7.0)), max_size=25))
def test_no_history_leaves_anybody_out_for_ever(history: list[tuple[list[Event], float]]) -> None:
    """The floor is kept, as `Director` checks it in each cycle."""
    with directing() as director:
        change(damping=True, slow_start=30.0)(director)
        for happens, pause in history:
            for happen in happens:
                happen(director)
            cycle = director.cycle()
            director.kernel.left, director.kernel.refuses = None, frozenset()
            if cycle is not None and not cycle.undone:
                director.is_steady()
            director.world.now += pause
        each = director.settles()
        assert each.wanted is not None
        assert each.undamped is None
        assert each.next_look is None
        if director.never is None:
            assert director.real_servers() == meant_by(each)


def test_the_ledger_has_who_ramps_and_who_flaps_and_one_without_can_be_read(world: World) -> None:
    flap(world, 4)
    world.now += 1
    world.cycle(BOTH, *FOUR, instance(5))
    entry = Store(world.state).load(set_aside_damage=False)[KEY]
    assert entry.ramps.of.keys() == {real_key(5)}
    assert entry.flapping.keys() == {real_key(4)}
    content, _ = encode([encode_one(KEY, entry)])
    assert decode(content)[0] == {KEY: entry}
    plain = attrs.evolve(entry, ramps=NO_RAMPS, flapping={})
    written = encode_one(KEY, plain)
    assert "ramps" not in written
    assert "flapping" not in written
    assert decode(encode([written])[0])[0] == {KEY: plain}


def test_an_operator_lets_it_in_and_what_it_did_is_forgotten(world: World) -> None:
    flap(world, 4)
    cycle = world.reconciler.cycle(DAMPING, answers_of(DAMPING, *FOUR), released=frozenset({KEY}))
    assert cycle.look.decision.virtual_servers[KEY].let_in == {real_key(4)}
    assert weight(world) == 1
    cycle = world.cycle(DAMPING, *FOUR)
    assert not cycle.done
    assert cycle.look.decision.virtual_servers[KEY].let_in == frozenset()
    assert Store(world.state).load(set_aside_damage=False)[KEY].flapping == {}
    for _ in range(3):
        flap(world, 1)
        assert weight(world) == 1


@pytest.mark.parametrize("by_order", [True, False])
def test_who_was_taken_out_on_purpose_comes_back_at_once(world: World, *, by_order: bool) -> None:
    flap(world, 4)
    assert not weight(world)
    world.now += 5
    if by_order:
        order = Order(what=Drain(OnNode("app4")), by="alice", written=world.now)
        world.reconciler.orders = Orders((order,))
        world.cycle(DAMPING, *FOUR)
        world.reconciler.orders = NO_ORDERS
    else:
        world.cycle(DAMPING, *THREE, failing(4, Health.MAINTENANCE))
    world.cycle(DAMPING, *FOUR)
    assert weight(world) == 1

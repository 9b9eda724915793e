"""A pause, on the fake kernel: nothing is written and nothing forgotten, whatever happens meanwhile; and previews."""

from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.core.cause import Kind
from lvsctl.core.order import NO_ORDERS, Drain, Hold, OnNode, Order, Orders, Pause, What
from lvsctl.core.override import NO_OVERRIDES
from lvsctl.core.ownership import Ledger
from lvsctl.store import Store
from netlink.fake import FakeIPVS
from netlink.requests import AddRealServer, AddVirtualServer, DeleteRealServer, DeleteVirtualServer, SetRealServer
from tests.test_reconcile import OTHER_VIP, SECOND, WITH_VIP, World
from tests.values import (
    KEY,
    NOW,
    VIP,
    answers_of,
    config_of,
    configured,
    entry,
    failing,
    instance,
    real,
    real_key,
    table_of,
)

TWO = config_of(configured(), configured("shop", SECOND))


def orders(*whats: What) -> Orders:
    return Orders(tuple(Order(what=what, by="alice", written=NOW) for what in whats))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(state=tmp_path, kernel=FakeIPVS())


def ledger(world: World) -> Ledger:
    return Store(world.state).load(set_aside_damage=False)


def test_nothing_is_written_and_the_ledger_stays_until_it_is_over(world: World) -> None:
    world.cycle(config_of(), instance(1), instance(2))
    before = ledger(world)
    world.reconciler.orders = orders(Pause())
    world.kernel.writes.clear()
    world.kernel.apply([SetRealServer(virtual_server=KEY, real_server=real(1, 7))])
    world.kernel.writes.clear()
    byhand = world.table
    for _ in range(3):
        world.now += 1000.0
        cycle = world.cycle(config_of(), failing(1), instance(2), instance(3))
        assert cycle.undone
        assert not cycle.done
        assert len(cycle.look.decision.steps) == 2
    assert (world.table, world.kernel.writes, ledger(world)) == (byhand, [], before)
    world.reconciler.orders = NO_ORDERS
    cycle = world.cycle(config_of(), failing(1), instance(2), instance(3))
    assert world.table == table_of(entry(real(1, 0), real(2), real(3)))
    assert not cycle.refusals


def test_what_a_hand_did_is_told_from_what_consul_says_afterwards(world: World) -> None:
    world.cycle(config_of(), instance(1), instance(2))
    world.reconciler.orders = orders(Pause("reco"))
    world.kernel.apply([DeleteRealServer(virtual_server=KEY, key=real_key(2))])
    world.cycle(config_of(), instance(1), instance(2), instance(3))
    world.reconciler.orders = NO_ORDERS
    cycle = world.cycle(config_of(), instance(1), instance(2), instance(3))
    assert [each.step.cause.kind for each in cycle.done] == [Kind.DRIFT, Kind.NEW]


def test_another_virtual_server_goes_on(world: World) -> None:
    world.cycle(TWO, instance(1))
    world.reconciler.orders = orders(Pause("shop"))
    world.cycle(TWO, instance(1), instance(2))
    assert {key: len(each.real_servers) for key, each in world.table.items()} == {KEY: 2, SECOND: 1}
    assert ledger(world)[SECOND].written == world.table[SECOND]


def test_one_that_left_the_file_stays_and_so_does_its_address(world: World) -> None:
    both = attrs.evolve(TWO, vip=WITH_VIP.vip)
    world.cycle(both, instance(1))
    world.reconciler.orders = orders(Pause("shop"))
    alone = attrs.evolve(config_of(), vip=WITH_VIP.vip)
    before = world.table
    for _ in range(3):
        world.now += 1000.0
        world.cycle(alone, instance(1))
    assert world.table == before
    assert world.reconciler.look(alone, answers_of(alone, instance(1))).surroundings.there == {VIP, OTHER_VIP}
    world.reconciler.orders = NO_ORDERS
    for _ in range(3):
        world.now += 1000.0
        world.cycle(alone, instance(1))
    assert world.table.keys() == {KEY}
    assert world.reconciler.look(alone, answers_of(alone, instance(1))).surroundings.there == {VIP}


def test_a_pause_of_everything_moves_no_address(world: World) -> None:
    world.reconciler.orders = orders(Pause())
    cycle = world.cycle(WITH_VIP, instance(1))
    assert (cycle.added_addresses, world.table, ledger(world)) == ((), {}, {})
    assert cycle.undone
    world.reconciler.orders = NO_ORDERS
    assert world.cycle(WITH_VIP, instance(1)).added_addresses == (VIP,)


def test_what_somebody_creates_meanwhile_is_theirs(world: World) -> None:
    world.reconciler.orders = orders(Pause())
    world.cycle(config_of(), instance(1))
    theirs = entry(real(9), scheduler="rr")
    world.kernel.apply(
        [
            AddVirtualServer(virtual_server=theirs.virtual_server),
            AddRealServer(virtual_server=KEY, real_server=real(9)),
        ]
    )
    world.cycle(config_of(), instance(1))
    world.reconciler.orders = NO_ORDERS
    cycle = world.cycle(config_of(), instance(1))
    assert cycle.look.decision.foreign == {KEY}
    assert world.table == table_of(theirs)


def test_what_is_gone_meanwhile_is_put_back(world: World) -> None:
    world.cycle(config_of(), instance(1))
    world.reconciler.orders = orders(Pause())
    world.kernel.apply([DeleteVirtualServer(key=KEY)])
    world.cycle(config_of(), instance(1))
    assert world.table == {}
    world.reconciler.orders = NO_ORDERS
    cycle = world.cycle(config_of(), instance(1))
    assert world.table == table_of(entry(real(1)))
    assert {each.step.cause.kind for each in cycle.done} == {Kind.DRIFT}


def test_a_cycle_about_a_few_is_paused_as_well(world: World) -> None:
    world.cycle(TWO, instance(1))
    before = world.table
    world.reconciler.orders = orders(Pause("reco"))
    world.cycle(TWO, instance(1))
    answers = answers_of(TWO, instance(1), instance(2))
    cycle = world.reconciler.cycle(TWO, answers, frozenset({KEY}))
    assert cycle.only == frozenset({KEY})
    assert (cycle.done, cycle.undone, world.table) == ((), True, before)
    assert ledger(world)[KEY].written == before[KEY]


@given(whats=st.lists(st.sampled_from([Drain(OnNode("app1")), Hold("reco"), Pause(), Pause("reco")]), unique=True))
def test_a_preview_leaves_no_trace(tmp_path_factory: pytest.TempPathFactory, whats: list[What]) -> None:
    world = World(state=tmp_path_factory.mktemp("state"), kernel=FakeIPVS())
    config = config_of()
    world.cycle(config, instance(1), instance(2))
    before, known = world.table, ledger(world)
    answers = answers_of(config, instance(1), instance(2), instance(3))
    look = world.reconciler.preview(
        config, answers, overrides=NO_OVERRIDES, candidates=frozenset(), orders=orders(*whats)
    )
    assert (world.table, ledger(world)) == (before, known)
    assert look.decision.virtual_servers[KEY].leaving.keys() == (
        {real_key(1)} if Drain(OnNode("app1")) in whats else set()
    )
    cycle = world.reconciler.cycle(config, answers, frozenset({KEY}))
    assert cycle.only == frozenset({KEY}), "what is known of everything is what it was"
    assert world.table == table_of(entry(real(1), real(2), real(3)))

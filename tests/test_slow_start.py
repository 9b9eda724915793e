"""Slow start through the real `Reconciler`, on a kernel in memory: who ramps, what is written, what is said."""

import errno
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.cli.explain_screen import answer
from lvsctl.cli.status_screen import render
from lvsctl.config import Config
from lvsctl.control import converter
from lvsctl.core.decision import VirtualServerDecision
from lvsctl.core.difference import difference
from lvsctl.core.fallback import with_fallback
from lvsctl.core.instance import Instance
from lvsctl.core.override import Fixed, Override, Overrides, Percent
from lvsctl.core.ramp import NO_RAMPS
from lvsctl.core.standing import standings
from lvsctl.core.status import SlowStart, Status
from lvsctl.core.subject import Subject
from lvsctl.core.virtual_server_status import virtual_servers
from lvsctl.reconcile import Cycle
from netlink.fake import FakeIPVS
from netlink.requests import AddRealServer, DeleteVirtualServer, SetRealServer
from netlink.types import RealServerKey, RealServers, RealServerUsage
from tests.histories import histories
from tests.statuses import FULL
from tests.test_floor import Event, change, directing, events, pauses
from tests.test_reconcile import World
from tests.values import KEY, VIP, answers_of, config_of, configured, failing, instance, real_key

SLOW = config_of(configured(slow_start=30.0))
FOUR = tuple(instance(number) for number in range(1, 5))


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a world that serves with three real servers."""
    world = World(state=tmp_path, kernel=FakeIPVS())
    world.cycle(SLOW, *FOUR[:3])
    world.kernel.writes.clear()
    return world


def weights(world: World) -> dict[int, int]:
    entry = world.table.get(KEY)
    return {int(key.address) & 255: each.weight for key, each in entry.real_servers.items()} if entry else {}


def next_look(cycle: Cycle) -> float | None:
    return cycle.look.decision.virtual_servers[KEY].next_look


def last(world: World, *instances: Instance, config: Config = SLOW, seconds: float) -> Cycle:
    """Have a cycle whenever one asks for it, for so many seconds; return the one at their end."""
    end = world.now + seconds
    while True:
        cycle = world.cycle(config, *instances)
        at = next_look(cycle)
        if at is None or at > end:
            world.now = end
            return world.cycle(config, *instances)
        world.now = at


def written(world: World) -> dict[RealServerKey, list[int]]:
    """Return the weights that each real server got, in their order."""
    found: dict[RealServerKey, list[int]] = {}
    for request in world.kernel.writes:
        assert isinstance(request, AddRealServer | SetRealServer)
        found.setdefault(request.real_server.key, []).append(request.real_server.weight)
    return found


def causes(cycle: Cycle) -> dict[int, str]:
    found = {}
    for done in cycle.done:
        assert isinstance(done.step.request, AddRealServer | SetRealServer)
        found[int(done.step.request.real_server.key.address) & 255] = done.step.cause.text
    return found


def test_a_new_one_has_a_write_for_each_step_and_the_others_two(world: World) -> None:
    last(world, *FOUR, seconds=31.0)
    assert written(world) == {
        real_key(4): [*range(1, 16), 1],
        **{real_key(number): [16, 1] for number in (1, 2, 3)},
    }
    world.kernel.writes.clear()
    cycle = last(world, *FOUR, seconds=3600.0)
    assert world.kernel.writes == []
    assert next_look(cycle) is None
    assert weights(world) == {1: 1, 2: 1, 3: 1, 4: 1}


def test_more_that_come_than_there_were_ramp_to_the_end(world: World) -> None:
    nine = (*FOUR, *(instance(number) for number in range(5, 10)))
    last(world, *nine, seconds=15.0)
    assert weights(world) == {**dict.fromkeys((1, 2, 3), 16), **dict.fromkeys(range(4, 10), 8)}
    world.restart()
    last(world, *nine, seconds=16.0)
    assert weights(world) == dict.fromkeys(range(1, 10), 1)
    assert written(world)[real_key(9)] == [*range(1, 16), 1]


def test_more_that_come_carry_everything_where_most_of_those_before_fail(world: World) -> None:
    nine = (*FOUR, *(instance(number) for number in range(5, 10)))
    last(world, *nine, seconds=15.0)
    world.cycle(SLOW, failing(1), failing(2), *nine[2:])
    assert weights(world) == {**dict.fromkeys((1, 2), 0), **dict.fromkeys(range(3, 10), 1)}


def test_what_is_written_has_its_cause(world: World) -> None:
    assert causes(world.cycle(SLOW, *FOUR)) == {
        4: "passing in Consul: instance 'reco-4' on node 'app4'; slow start, 6% of weight 1, 30 s left",
        **{
            number: "weights are times 16 while others have their slow start: "
            f"instance 'reco-{number}' on node 'app{number}'"
            for number in (1, 2, 3)
        },
    }
    world.now += 10
    assert causes(world.cycle(SLOW, *FOUR)) == {
        4: "slow start, 37% of weight 1, 20 s left: instance 'reco-4' on node 'app4'"
    }
    world.now += 20
    assert causes(world.cycle(SLOW, *FOUR)) == {
        4: "slow start is over: instance 'reco-4' on node 'app4'",
        **{
            number: "weights are no longer times 16, for nobody has a slow start any more: "
            f"instance 'reco-{number}' on node 'app{number}'"
            for number in (1, 2, 3)
        },
    }


def test_a_weight_and_a_hand_are_told_from_a_step(world: World) -> None:
    world.cycle(SLOW, *FOUR)
    world.now += 10
    heavier = (attrs.evolve(FOUR[0], weight=2), *FOUR[1:])
    assert causes(world.cycle(SLOW, *heavier))[1] == ("weight in Consul is 2, was 1: instance 'reco-1' on node 'app1'")
    found = world.table[KEY].real_servers[real_key(2)]
    changed = attrs.evolve(found, weight=7)
    world.kernel.apply([SetRealServer(virtual_server=KEY, real_server=changed)])
    assert causes(world.cycle(SLOW, *heavier)) == {2: "changed by hand: weight 16 -> 7"}


def test_a_restart_goes_on_where_it_was(world: World) -> None:
    last(world, *FOUR, seconds=15.0)
    assert weights(world) == {1: 16, 2: 16, 3: 16, 4: 8}
    world.restart()
    world.kernel.writes.clear()
    world.cycle(SLOW, *FOUR)
    assert world.kernel.writes == []
    world.now += 10
    world.cycle(SLOW, *FOUR)
    assert weights(world) == {1: 16, 2: 16, 3: 16, 4: 13}


def test_a_start_and_a_table_that_was_lost_ramp_nobody(world: World) -> None:
    last(world, *FOUR, seconds=15.0)
    world.restart()
    world.kernel.apply([DeleteVirtualServer(key=KEY)])
    world.cycle(SLOW, *FOUR)
    assert weights(world) == {1: 1, 2: 1, 3: 1, 4: 1}


def test_a_lost_ledger_ramps_nobody(world: World) -> None:
    last(world, *FOUR, seconds=31.0)
    for path in world.state.iterdir():
        path.unlink()
    world.restart()
    world.kernel.writes.clear()
    world.cycle(SLOW, *FOUR)
    assert world.kernel.writes == []


def test_who_fails_meanwhile_starts_over(world: World) -> None:
    last(world, *FOUR, seconds=15.0)
    world.kernel.set_usage(KEY, real_key(4), RealServerUsage(active=1))
    cycle = world.cycle(SLOW, *FOUR[:3], failing(4))
    assert weights(world) == {1: 1, 2: 1, 3: 1, 4: 0}
    assert next_look(cycle) is None
    world.now += 2
    cycle = world.cycle(SLOW, *FOUR)
    assert weights(world) == {1: 16, 2: 16, 3: 16, 4: 1}
    assert causes(cycle)[4] == (
        "passing again: instance 'reco-4' on node 'app4'; slow start, 6% of weight 1, 30 s left"
    )


def test_those_that_ramp_carry_everything_where_the_others_fail(world: World) -> None:
    last(world, *FOUR, seconds=15.0)
    cycle = world.cycle(SLOW, failing(1), failing(2), instance(3), instance(4))
    assert weights(world) == {1: 0, 2: 0, 3: 1, 4: 1}
    assert causes(cycle)[4] == ("slow start is cut short, for too few others serve: instance 'reco-4' on node 'app4'")


def test_who_is_raised_from_0_by_an_operator_ramps_too(world: World) -> None:
    quiesced = Overrides(entries=(Override(virtual_server="reco", selector="v2", share=Fixed(0)),))
    answers = answers_of(SLOW, *FOUR[:2], instance(3, tags=("v2",)))
    world.reconciler.cycle(SLOW, answers, overrides=quiesced)
    assert weights(world) == {1: 1, 2: 1, 3: 0}
    world.reconciler.cycle(SLOW, answers)
    assert weights(world) == {1: 16, 2: 16, 3: 1}


def test_a_canary_rises_to_its_part(world: World) -> None:
    canary = (*FOUR[:3], instance(4, tags=("v2",)))
    part = Overrides(entries=(Override(virtual_server="reco", selector="v2", share=Percent(500)),))
    world.reconciler.cycle(SLOW, answers_of(SLOW, *canary), overrides=part)
    assert weights(world) == {1: 19 * 6, 2: 19 * 6, 3: 19 * 6, 4: 1}
    world.now += 30
    world.reconciler.cycle(SLOW, answers_of(SLOW, *canary), overrides=part)
    assert weights(world) == {1: 19, 2: 19, 3: 19, 4: 3}


def test_what_is_held_keeps_its_part_while_others_ramp(world: World) -> None:
    """Of four with weight 2 two fail, and for a floor of 100 % one of them stays beside one that comes."""
    config = config_of(configured(slow_start=30.0, floor=100))
    four = tuple(instance(number, weight=2) for number in range(1, 5))
    world.cycle(SLOW, *four)
    last(world, *four, seconds=31.0)
    assert weights(world) == dict.fromkeys(range(1, 5), 2)
    now = (*four[:2], failing(3), failing(4), instance(5, weight=2))
    for _ in range(2):
        world.cycle(config, *now)
        assert {number: weight for number, weight in weights(world).items() if weight} == {1: 16, 2: 16, 3: 16, 5: 1}
    last(world, *now, config=config, seconds=31.0)
    assert {number: weight for number, weight in weights(world).items() if weight} == {1: 2, 2: 2, 3: 2, 5: 2}


def test_status_explain_and_diff_say_so(world: World) -> None:
    last(world, *FOUR, seconds=15.0)
    look = world.reconciler.look(SLOW, answers_of(SLOW, *FOUR))
    (row,) = virtual_servers(look.config, look.decision, look.observed, refused={}, local=frozenset({VIP}), ages={})
    (standing,) = standings(look.config, look.decision, look.observed, refused=frozenset()).values()
    assert standing.ramping == 1
    assert row.note == "weights are times 16 while 1 real server has its slow start"
    assert row.serving == 4
    assert [each.slow_start for each in row.real_servers] == [
        None,
        None,
        None,
        SlowStart(percent=50, weight=1, until=world.now + 15),
    ]
    whole = attrs.evolve(FULL, virtual_servers=(row,), time=world.now)
    (line,) = [line for line in render(whole, with_real_servers=True) if "reco-4" in line]
    assert line.endswith("ramping: 50% of weight 1, 15 s left")
    assert any(
        "It has its slow start: 50% of weight 1 now, all of it at" in line
        for line in answer(whole, Subject(text="10.0.0.4:8080"), ())
    )
    (told,) = difference(look.decision)
    assert (told.real_server, told.what, told.differs) == ("10.0.0.4:8080", "ramping: 50% of weight 1", True)
    assert converter.structure(converter.unstructure(whole), Status) == whole


def test_switched_off_it_ends_at_once(world: World) -> None:
    last(world, *FOUR, seconds=15.0)
    cycle = world.cycle(config_of(), *FOUR)
    assert weights(world) == {1: 1, 2: 1, 3: 1, 4: 1}
    assert causes(cycle)[4].startswith("slow start is switched off")


def test_for_what_the_kernel_refuses_nobodys_weight_is_multiplied(world: World) -> None:
    world.kernel.fail_next(AddRealServer, errno.ENOMEM)
    world.cycle(SLOW, *FOUR)
    assert weights(world) == {1: 16, 2: 16, 3: 16}
    world.now += 0.5
    assert next_look(world.cycle(SLOW, *FOUR)) is None
    assert weights(world) == {1: 1, 2: 1, 3: 1}
    world.now += 3600
    world.cycle(SLOW, *FOUR)
    assert weights(world) == {1: 1, 2: 1, 3: 1, 4: 1}


def meant_by(each: VirtualServerDecision) -> RealServers:
    """Return the real servers as they are to be in the end."""
    assert each.wanted is not None
    return with_fallback(each.wanted.config, {**each.wanted.entry.real_servers, **each.held})


slowly = st.builds(lambda found: change(slow_start=found), st.sampled_from((0.0, 30.0, 900.0)))


@histories()
@given(history=st.lists(st.tuples(st.lists(events | slowly, max_size=3), pauses | st.just(7.0)), max_size=12))
def test_no_history_leaves_a_ramp_undone_or_a_weight_of_0(history: list[tuple[list[Event], float]]) -> None:
    """The floor is kept, as `Director` checks it in each cycle, and so is every weight above 0."""
    with directing() as director:
        change(slow_start=30.0)(director)
        for happens, pause in history:
            for happen in happens:
                happen(director)
            cycle = director.cycle()
            director.kernel.left, director.kernel.refuses = None, frozenset()
            if cycle is not None and not cycle.undone:
                director.is_steady()
                each = cycle.look.decision.virtual_servers[KEY]
                assert each.wanted is not None
                there = director.real_servers()
                meant = meant_by(each)
                assert {key for key, found in there.items() if found.weight} == {
                    key for key, found in meant.items() if found.weight
                }
                for key, ramp in each.ramps.of.items():
                    assert 1 <= there[key].weight <= ramp.weight * each.ramps.times
            director.world.now += pause
        each = director.settles()
        assert each.wanted is not None
        assert each.next_look is None
        assert each.remembered is not None
        assert each.remembered.ramps == NO_RAMPS
        if director.never is None:
            assert director.real_servers() == meant_by(each)

"""Everything a cycle decides, from whatever may be found: what must never happen, and that it always arrives.

`Cycles` is the loop of `reconcile` with the fake kernel; each property starts from a drawn configuration, answers,
table and ledger that know nothing of each other.
"""

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import attrs
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lvsctl.config import Config
from lvsctl.core.admission import Rejected, admit
from lvsctl.core.cause import Kind
from lvsctl.core.decide import decide
from lvsctl.core.decision import Decision
from lvsctl.core.desired import limits_of, query_of
from lvsctl.core.fallback import with_fallback
from lvsctl.core.instance import Answer, Answers, Health, Instance
from lvsctl.core.order import NO_ORDERS
from lvsctl.core.ownership import Border, Ledger, LedgerEntry, Owner, is_still_ours
from lvsctl.core.remembrance import ledger_ahead, ledger_settled
from netlink.requests import (
    AddRealServer,
    DeleteRealServer,
    DeleteVirtualServer,
    Request,
    SetRealServer,
    SetVirtualServer,
)
from netlink.types import Address, Observed, RealServerKey, RealServerUsage, Table, VirtualServerKey
from tests import strategies
from tests.histories import histories
from tests.showing import Figure
from tests.strategies import KEYS, answers_for, configs, entries, ledgers, some_orders, tables
from tests.values import (
    KEY,
    NOW,
    OWN,
    VIP,
    Cycles,
    answers_of,
    config_of,
    configured,
    decided,
    entry,
    failing,
    instance,
    kernel_with,
    lasting,
    observed_of,
    real,
    real_key,
    table_of,
)


@st.composite
def worlds(draw: st.DrawFn) -> Cycles:
    """Draw everything a start may find."""
    config = draw(configs())
    table = draw(tables())
    return Cycles(
        config=config,
        answers=draw(answers_for(config)),
        kernel=kernel_with(table),
        ledger=draw(ledgers(table)),
        orders=draw(st.just(NO_ORDERS) | some_orders),
    )


def deciding(world: Cycles) -> tuple[Decision, Observed]:
    observed = world.kernel.observe()
    return decide(
        world.config,
        world.answers,
        observed,
        world.ledger,
        own_addresses=OWN,
        templates_expire=False,
        now=NOW,
        orders=world.orders,
    ), observed


def ours_of(found: Table, ledger: Ledger) -> Table:
    return {key: each for key, each in found.items() if key in ledger}


@histories()
@given(data=st.data(), world=worlds())
def test_a_decision_owes_nothing_to_the_one_before(data: st.DataObject, world: Cycles) -> None:
    for _ in range(data.draw(st.integers(1, 4), "cycles")):
        world.once()
        for change in data.draw(st.sets(st.sampled_from(CHANGES), max_size=2), "changes"):
            change(data.draw, world)
    world.once()


def another_answer(draw: Callable[..., Any], world: Cycles) -> None:
    world.answers = {**world.answers, **draw(answers_for(world.config))}


def another_configuration(draw: Callable[..., Any], world: Cycles) -> None:
    other: Config = draw(configs())
    world.config = attrs.evolve(other, virtual_servers={**other.virtual_servers, **world.config.virtual_servers})


def another_table(draw: Callable[..., Any], world: Cycles) -> None:
    world.kernel = kernel_with(draw(tables()))


def another_ledger(draw: Callable[..., Any], world: Cycles) -> None:
    world.ledger = draw(ledgers(world.kernel.observe().table))


def other_own_addresses(draw: Callable[..., Any], world: Cycles) -> None:
    world.own_addresses = draw(st.sampled_from((OWN, frozenset(), frozenset({ip_address("10.0.0.1")}))))


def another_setting(draw: Callable[..., Any], world: Cycles) -> None:
    world.templates_expire, world.connections_expire = draw(st.booleans()), draw(st.booleans())


def a_word_on_whose_they_are(draw: Callable[..., Any], world: Cycles) -> None:
    keys = st.frozensets(st.sampled_from(KEYS), max_size=2)
    adopted = draw(keys)
    world.border = Border(adopted=adopted, disowned=draw(keys) - adopted)


CHANGES = (
    a_word_on_whose_they_are,
    another_answer,
    another_configuration,
    another_table,
    another_ledger,
    other_own_addresses,
    another_setting,
)


# --- what must never happen -----------------------------------------------------------------------------------------


@histories()
@given(world=worlds())
def test_foreign_virtual_servers_stay_as_they_are(world: Cycles) -> None:
    decision, observed = deciding(world)
    assert (decision.foreign - decision.disowned).isdisjoint(world.ledger)
    assert decision.disowned <= decision.foreign
    assert decision.foreign.isdisjoint({step.key for step in decision.steps})
    before = {key: observed.table[key] for key in decision.foreign}
    world.until_quiet()
    after = world.kernel.observe().table
    assert {key: after[key] for key in before} == before


@histories()
@given(world=worlds(), data=st.data())
def test_what_is_disowned_stays_as_it_is_until_it_is_adopted(world: Cycles, data: st.DataObject) -> None:
    world.until_quiet()
    a_word_on_whose_they_are(data.draw, world)
    asked, before = world.border.disowned, world.kernel.observe().table
    disowned = asked & world.once().virtual_servers.keys()  # of one that waits for Consul nothing is decided
    for change in data.draw(st.sets(st.sampled_from((another_answer, another_setting)), max_size=2), "changes"):
        change(data.draw, world)
    if data.draw(st.booleans(), "restarts"):
        world.last = None
    table = world.kernel.observe().table
    for _ in range(3):
        decision = world.once()
        assert disowned & table.keys() <= decision.foreign | decision.left_alone
        assert disowned.isdisjoint({step.key for step in decision.steps})
    after = world.kernel.observe().table
    for key in disowned & before.keys():
        assert after[key] == before[key]
    world.border = Border(adopted=disowned)
    world.once()
    world.until_quiet()
    for name, each in world.config.virtual_servers.items():
        if each.key in disowned and query_of(each) in world.answers:
            assert world.last is not None
            assert world.last.virtual_servers[each.key].owner is Owner.OURS, name


@histories()
@given(world=worlds())
def test_every_step_says_why(world: Cycles) -> None:
    seen: list[Decision] = []
    world.on_decision = lambda decision, _ledger, _observed: seen.append(decision)
    world.until_quiet()
    for decision in seen:
        for step in decision.steps:
            assert isinstance(step.cause.kind, Kind)
            assert step.cause.text.strip()


@histories()
@given(world=worlds())
def test_nothing_is_written_where_consul_never_answered(world: Cycles) -> None:
    decision, _ = deciding(world)
    unanswered = {each.key for each in world.config.virtual_servers.values() if query_of(each) not in world.answers}
    assert unanswered.isdisjoint({step.key for step in decision.steps})
    assert {world.config.virtual_servers[name].key for name in decision.waiting} == unanswered


@histories()
@given(world=worlds())
def test_who_serves_is_quiesced_in_an_earlier_cycle_than_deleted(world: Cycles) -> None:
    def check(decision: Decision, _ledger: Ledger, observed: Observed) -> None:
        for step in decision.steps:
            if decision.virtual_servers[step.key].drain_timeout == 0:
                continue
            there = observed.table[step.key].real_servers if step.key in observed.table else {}
            match step.request:
                case DeleteRealServer(key=key):
                    assert there[key].weight == 0 or key in decision.virtual_servers[step.key].undrained
                case DeleteVirtualServer():
                    assert all(each.weight == 0 for each in there.values())
                case _:
                    pass

    world.on_decision = check
    world.until_quiet()


def may_serve(world: Cycles, name: str, key: RealServerKey) -> bool:
    """Tell whether no instance at `key` is rejected; written apart from the guard that is under test."""
    virtual_server = world.config.virtual_servers[name]
    limits = limits_of(world.config, OWN)
    verdicts = [admit(each, virtual_server, limits) for each in world.answers[query_of(virtual_server)].instances]
    return not any(isinstance(each, Rejected) and each.key == key for each in verdicts)


@histories()
@given(world=worlds())
def test_a_virtual_server_that_serves_is_never_emptied(world: Cycles) -> None:
    def check(decision: Decision, _ledger: Ledger, observed: Observed) -> None:
        for each in decision.virtual_servers.values():
            if each.wanted is None or each.owner is Owner.FOREIGN or each.key not in observed.table:
                continue
            there = observed.table[each.key].real_servers
            if any(found.weight > 0 and may_serve(world, each.name, key) for key, found in there.items()):
                assert each.intended is not None
                assert any(found.weight > 0 for found in each.intended.real_servers.values())

    world.on_decision = check
    world.until_quiet()


@histories()
@given(world=worlds())
def test_what_admission_rejects_leaves(world: Cycles) -> None:
    world.until_quiet()
    table = world.kernel.observe().table
    for name, virtual_server in world.config.virtual_servers.items():
        if query_of(virtual_server) in world.answers and virtual_server.key in world.ledger:
            for key in table[virtual_server.key].real_servers:
                assert may_serve(world, name, key)


# --- it arrives, and then rests -------------------------------------------------------------------------------------


@histories()
@given(world=worlds())
def test_it_arrives_in_few_cycles_and_then_rests(world: Cycles) -> None:
    assert world.until_quiet(3) <= 3
    table, ledger = world.kernel.observe().table, world.ledger
    world.kernel.writes.clear()
    for _ in range(3):
        decision = world.once()
        assert decision.look_again is None
    assert world.kernel.writes == []
    assert world.kernel.observe().table == table
    assert world.ledger == ledger
    for each in decision.virtual_servers.values():
        if each.owner is not Owner.FOREIGN and each.wanted is not None:
            expected = with_fallback(each.wanted.config, {**each.wanted.entry.real_servers, **each.held})
            assert table[each.key] == attrs.evolve(each.wanted.entry, real_servers=expected)


@histories()
@given(world=worlds())
def test_a_second_start_with_nothing_changed_writes_nothing(world: Cycles) -> None:
    world.until_quiet()
    world.kernel.writes.clear()
    again = Cycles(
        config=world.config,
        answers=world.answers,
        kernel=world.kernel,
        ledger=dict(world.ledger),
        now=world.now + 1e6,
        orders=world.orders,
    )
    again.once()
    assert world.kernel.writes == []
    assert lasting(again.ledger, again.now) == lasting(world.ledger, again.now)


@pytest.mark.promise(5, case="killed after any step, up to three times, from any state", target="the same table")
@histories()
@given(world=worlds(), data=st.data())
def test_killed_after_any_step_it_arrives_where_it_would_have(
    world: Cycles, data: st.DataObject, figure: Figure
) -> None:
    table = world.kernel.observe().table
    unharmed = attrs.evolve(world, kernel=kernel_with(table))
    unharmed.until_quiet()
    for _ in range(data.draw(st.integers(1, 3), label="deaths")):
        world.once(steps=data.draw(st.integers(0, 4), label="steps done"))
        world.now += data.draw(st.sampled_from((0.0, 1000.0, -1000.0)), label="seconds dead")
    world.until_quiet()
    assert world.kernel.observe().table == unharmed.kernel.observe().table
    figure(1, "histories")


@st.composite
def worlds_of_one(draw: st.DrawFn) -> Cycles:
    """Draw a virtual server in the ledger, in the file or not, that the kernel lost or somebody changed since."""
    config = config_of(draw(strategies.configured("vs0", draw(st.sampled_from((KEY, KEYS[3]))))))
    table = draw(st.builds(table_of, entries(KEY)) | st.just({}))
    written = draw(st.none() | entries(KEY))
    known = {server for each in (*table.values(), written) if each for server in each.real_servers}
    draining = draw(st.frozensets(st.sampled_from(sorted(known)))) if known else frozenset()
    seconds = st.sampled_from((-1000.0, -10.0, 0.0, 10.0))
    line = LedgerEntry(
        name="vs0",
        drain_timeout=draw(st.sampled_from((0.0, 30.0))),
        written=written,
        draining={server: NOW + draw(seconds) for server in draining},
    )
    return Cycles(config=config, answers=draw(answers_for(config)), kernel=kernel_with(table), ledger={KEY: line})


@histories()
@given(world=worlds_of_one(), more=st.lists(st.integers(0, 4), max_size=2))
def test_killed_after_any_step_it_knows_its_own_although_the_file_changed_meanwhile(
    world: Cycles, more: list[int]
) -> None:
    decision, observed = deciding(world)
    table = observed.table
    # killed after a virtual server got new options, it is known by its real servers alone
    assume(not any(isinstance(step.request, SetVirtualServer) for step in decision.steps))
    for steps in range(len(decision.steps) + 1):
        ours = {key for key, each in world.ledger.items() if key in table and is_still_ours(table[key], each)}
        killed = attrs.evolve(world, kernel=kernel_with(table))
        for done in (steps, *more):
            ours |= {step.key for step in killed.once(steps=done).steps[:done]}
        killed.config, killed.answers = config_of(configured("other", KEYS[4])), {}
        killed.until_quiet()
        assert ours.isdisjoint(killed.kernel.observe().table)


@histories()
@given(world=worlds(), deaths=st.dictionaries(st.sampled_from((0, 1, 2, 30, 31, 32)), st.integers(0, 4), max_size=3))
def test_connections_that_never_end_hold_it_up_until_the_deadline_whenever_it_is_killed(
    world: Cycles, deaths: dict[int, int]
) -> None:
    for key, each in world.kernel.observe().table.items():
        for server in each.real_servers:
            world.kernel.set_usage(key, server, RealServerUsage(active=1))
    for cycle in range(33):
        world.once(steps=deaths.get(cycle))
    assert world.until_quiet(len(deaths) + 1) <= len(deaths) + 1


@histories()
@given(world=worlds())
def test_the_ledger_knows_a_virtual_server_before_the_kernel_does(world: Cycles) -> None:
    def check(decision: Decision, ledger: Ledger, observed: Observed) -> None:
        saved = ledger_ahead(decision, ledger, observed)
        assert {step.key for step in decision.steps} <= saved.keys()
        assert saved.keys().isdisjoint(decision.foreign)

    world.on_decision = check
    world.until_quiet()


@histories()
@given(world=worlds())
def test_what_is_gone_is_forgotten(world: Cycles) -> None:
    world.until_quiet()
    world.once()
    configured_keys = {each.key for each in world.config.virtual_servers.values()}
    waiting = {each.key for each in world.config.virtual_servers.values() if query_of(each) not in world.answers}
    names = {each.name for each in world.config.virtual_servers.values() if query_of(each) not in world.answers}
    there = world.kernel.observe().table.keys()
    for key, each in world.ledger.items():
        assert key in configured_keys | waiting or each.name in names or key in there
    assert world.ledger.keys() & configured_keys - waiting <= there


# --- by example -----------------------------------------------------------------------------------------------------

OURS = {KEY: LedgerEntry(name="reco", drain_timeout=30.0, written=entry(real(1), real(2)))}


def requests(decision: Decision) -> list[object]:
    return [step.request for step in decision.steps]


def test_a_failing_instance_is_quiesced_then_deleted_when_its_connections_are_gone() -> None:
    world = Cycles(
        config=config_of(),
        answers=answers_of(config_of(), instance(1), failing(2)),
        kernel=kernel_with(table_of(entry(real(1), real(2)))),
        ledger=OURS,
    )
    first = world.once()
    assert requests(first) == [SetRealServer(virtual_server=KEY, real_server=real(2, 0))]
    assert first.look_again == NOW + 1.0
    assert world.ledger[KEY].draining == {real_key(2): NOW}
    assert requests(world.once()) == [DeleteRealServer(virtual_server=KEY, key=real_key(2))]
    assert requests(world.once()) == []


def test_killed_when_a_drain_is_over_it_does_not_begin_another() -> None:
    kernel = kernel_with(table_of(entry(real(1), real(2, 0))))
    kernel.set_usage(KEY, real_key(2), RealServerUsage(active=3))
    ledger = {KEY: attrs.evolve(OURS[KEY], draining={real_key(2): NOW - 31})}
    world = Cycles(config=config_of(), answers=answers_of(config_of(), instance(1)), kernel=kernel, ledger=ledger)
    deletion = [DeleteRealServer(virtual_server=KEY, key=real_key(2))]
    assert requests(world.once(steps=0)) == deletion
    assert requests(world.once()) == deletion
    assert world.ledger[KEY].draining == {}


def test_one_that_returns_is_raised_in_place() -> None:
    ledger = {KEY: attrs.evolve(OURS[KEY], draining={real_key(2): NOW - 5})}
    decision = decided(observed_of(entry(real(1), real(2, 0))), instance(1), instance(2), ledger=ledger)
    assert requests(decision) == [SetRealServer(virtual_server=KEY, real_server=real(2))]
    assert decision.steps[0].cause.kind is Kind.RETURNED
    assert ledger_ahead(decision, ledger, observed_of())[KEY].draining == {}


def test_a_virtual_server_taken_out_of_the_configuration_drains_then_goes_whole() -> None:
    other = VirtualServerKey.by_mark(7)
    config = config_of(configured("other", other))
    world = Cycles(
        config=config,
        answers=answers_of(config),
        kernel=kernel_with(table_of(entry(real(1), real(2)))),
        ledger=OURS,
    )
    assert {type(each) for each in requests(world.once())[1:]} == {SetRealServer}
    assert DeleteVirtualServer(key=KEY) in requests(world.once(steps=0))
    assert KEY in world.ledger  # until the kernel has said that it is gone
    assert DeleteVirtualServer(key=KEY) in requests(world.once())
    assert KEY not in world.ledger


def test_killed_while_it_drains_one_that_a_hand_changed_it_still_knows_it_for_its_own() -> None:
    config = config_of(configured("other", KEYS[3]))
    world = Cycles(
        config=config,
        answers=answers_of(config),
        kernel=kernel_with(table_of(entry(real(1, 0), real(9), scheduler="rr"))),  # ours is 1, by hand are 9 and rr
        ledger={KEY: attrs.evolve(OURS[KEY], draining={real_key(1): NOW - 5})},
    )
    death = world.once(steps=3)
    assert requests(death)[1:] == [
        SetRealServer(virtual_server=KEY, real_server=real(9, 0)),
        DeleteRealServer(virtual_server=KEY, key=real_key(1)),
    ]
    world.until_quiet()
    assert KEY not in world.kernel.observe().table


def test_killed_while_it_puts_back_what_the_kernel_lost_it_knows_it_by_its_new_options() -> None:
    config = config_of(configured(scheduler="rr"))
    world = Cycles(config=config, answers=answers_of(config, instance(3)), kernel=kernel_with({}), ledger=OURS)
    world.once(steps=2)
    assert world.kernel.observe().table == table_of(entry(real(3), scheduler="rr"))
    world.config, world.answers = config_of(configured("other", KEYS[3])), {}
    world.until_quiet()
    assert world.kernel.observe().table == {}


def test_a_foreign_virtual_server_in_the_way_is_left_alone() -> None:
    found = entry(real(9), scheduler="rr")
    decision = decided(observed_of(found), instance(1))
    assert decision.steps == []
    assert decision.virtual_servers[KEY].owner is Owner.FOREIGN
    assert decision.foreign == {KEY}
    assert decision.addresses == frozenset()
    assert ledger_ahead(decision, {}, observed_of(found)) == {}


def test_what_stands_as_wanted_is_adopted_without_a_write() -> None:
    found = entry(real(1))
    decision = decided(observed_of(found), instance(1))
    assert decision.steps == []
    assert decision.foreign == frozenset()
    assert ledger_ahead(decision, {}, observed_of(found))[KEY].written == found


def test_what_failed_is_not_remembered_as_written() -> None:
    decision = decided(observed_of(), instance(1))
    ledger = ledger_ahead(decision, {}, observed_of())
    assert ledger[KEY].written is None
    assert ledger_settled(decision, ledger, decision.steps)[KEY].written is None
    assert ledger_settled(decision, ledger, ())[KEY].written == entry(real(1))


def addresses(*, observed: Observed, answers: Answers, ledger: Ledger, config: Config) -> frozenset[Address]:
    return decide(config, answers, observed, ledger, own_addresses=OWN, templates_expire=False, now=NOW).addresses


def test_which_virtual_addresses_are_needed() -> None:
    config = config_of(configured(), configured("mark", KEYS[3]))
    answered = answers_of(config, instance(1))
    assert addresses(observed=observed_of(), answers=answered, ledger={}, config=config) == {VIP}
    assert addresses(observed=observed_of(), answers={}, ledger=OURS, config=config) == frozenset()
    found = observed_of(entry(real(1)))
    assert addresses(observed=found, answers={}, ledger=OURS, config=config) == {VIP}
    gone = config_of(configured("mark", KEYS[3]))
    assert addresses(observed=found, answers=answered, ledger=OURS, config=gone) == {VIP}  # while it drains
    drained = observed_of(entry())
    assert addresses(observed=drained, answers=answered, ledger=OURS, config=gone) == frozenset()


def test_a_virtual_server_that_waits_keeps_its_address_whatever_it_is_called_now() -> None:
    renamed = config_of(configured("shop"), configured("mark", KEYS[3]))
    answered = {query_of(renamed.virtual_servers["mark"]): Answer(instances=(instance(1),))}
    found = observed_of(entry(real(1)))
    assert addresses(observed=found, answers=answered, ledger=OURS, config=renamed) == {VIP}


def test_who_only_has_the_key_of_one_of_ours_is_foreign_and_left_alone() -> None:
    gone = config_of(configured("mark", KEYS[3]))
    theirs = observed_of(entry(real(9), scheduler="fo", persistence=120))
    ledger = {KEY: attrs.evolve(OURS[KEY], written=entry(real(1)))}
    decision = decided(theirs, instance(1), config=gone, ledger=ledger)
    assert KEY not in decision.virtual_servers
    assert decision.foreign == decision.disowned == {KEY}
    assert VIP not in decision.addresses
    assert KEY not in ledger_ahead(decision, ledger, theirs)


PERSISTENT = config_of(configured(persistence=300))
SERVING = entry(real(1), real(2), persistence=300)


@pytest.mark.parametrize(
    ("leaving", "templates_expire", "request_of_2"),
    [
        (failing(2), False, DeleteRealServer(virtual_server=KEY, key=real_key(2))),
        (failing(2), True, SetRealServer(virtual_server=KEY, real_server=real(2, 0))),
        (failing(2, Health.MAINTENANCE), False, SetRealServer(virtual_server=KEY, real_server=real(2, 0))),
    ],
)
def test_a_failing_one_is_not_drained_where_persistence_keeps_its_clients(
    leaving: Instance, *, templates_expire: bool, request_of_2: Request
) -> None:
    decision = decided(
        observed_of(SERVING, connections={real_key(2): 3}),
        instance(1),
        leaving,
        config=PERSISTENT,
        ledger=OURS,
        templates_expire=templates_expire,
    )
    assert requests(decision) == [request_of_2]
    deleted = isinstance(request_of_2, DeleteRealServer)
    assert decision.steps[0].cause.text.startswith("not drained, persistence would keep its clients; ") is deleted


def test_what_brings_comes_before_what_only_removes() -> None:
    moved = config_of(configured(key=KEYS[3]))
    decision = decided(observed_of(entry()), instance(1), config=moved, ledger=OURS)
    assert [type(each) for each in requests(decision)][-2:] == [AddRealServer, DeleteVirtualServer]

"""Operators' orders in the decision of a cycle: what leaves, what stays, what is said, and what nobody may undo."""

from ipaddress import ip_address

import attrs
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.config import Config
from lvsctl.core.admission import Admitted, Reason, Rejected, parse_address
from lvsctl.core.cause import Kind
from lvsctl.core.decide import decide
from lvsctl.core.decision import Decision
from lvsctl.core.guard import serves
from lvsctl.core.instance import Answers, Check, Health, Instance
from lvsctl.core.order import AtAddress, AtPort, Drain, Hold, OnNode, Order, Orders, Pause, What, in_force
from lvsctl.core.order_status import orders_status
from lvsctl.core.order_target import drained_by
from lvsctl.core.ownership import Ledger, LedgerEntry, Owner
from lvsctl.core.status import Place, State
from lvsctl.core.virtual_server_status import virtual_servers
from netlink.requests import AddRealServer, SetRealServer
from netlink.types import Observed, Table
from tests.strategies import KEYS, answers_for, configs, ledgers, some_orders, tables
from tests.values import (
    KEY,
    NOW,
    OWN,
    answers_of,
    config_of,
    configured,
    entry,
    failing,
    instance,
    kernel_with,
    observed_of,
    real,
    real_key,
)

FOUR = tuple(instance(number) for number in range(1, 5))
ALL = entry(*map(real, range(1, 5)))
OURS: Ledger = {KEY: LedgerEntry(name="reco", drain_timeout=30.0, written=ALL)}


def order(what: What, until: float | None = None) -> Order:
    return Order(what=what, by="alice", reason="upgrade", written=NOW, until=until)


def ordered(*these: Order) -> Orders:
    return Orders(these)


FIRST = order(Drain(AtPort(ip_address("10.0.0.1"), 8080)), NOW + 60)


def deciding(
    orders: Orders,
    *instances: Instance,
    config: Config | None = None,
    observed: Observed | None = None,
    ledger: Ledger = OURS,
    now: float = NOW,
    doubt: str = "",
) -> Decision:
    config = config or config_of()
    answers: Answers = {
        query: attrs.evolve(answer, doubt=doubt) for query, answer in answers_of(config, *instances).items()
    }
    observed = observed or observed_of(ALL)
    return decide(config, answers, observed, ledger, own_addresses=OWN, templates_expire=False, now=now, orders=orders)


def test_one_that_is_drained_is_quiesced_by_the_operators_word() -> None:
    decision = deciding(ordered(FIRST), *FOUR)
    (step,) = decision.steps
    assert step.request == SetRealServer(virtual_server=KEY, real_server=real(1, 0))
    assert step.cause.kind is Kind.OVERRIDE
    assert step.cause.text == ("instance 'reco-1' on node 'app1': drained by alice until 1970-01-12 13:47 UTC: upgrade")
    assert decision.next_end == NOW + 60
    assert decision.virtual_servers[KEY].hold.real_servers == {}


def test_it_is_over_at_its_time() -> None:
    assert not deciding(ordered(FIRST), *FOUR, now=NOW + 60).steps
    assert deciding(ordered(FIRST), *FOUR, now=NOW + 59.9).steps


def test_one_that_comes_back_then_is_told_as_no_longer_drained() -> None:
    over = attrs.evolve(FIRST, until=NOW - 1, ended=True)
    draining = {KEY: attrs.evolve(OURS[KEY], written=entry(real(1, 0), real(2)), draining={real_key(1): NOW - 9})}
    told = "no longer drained by alice: upgrade: instance 'reco-1' on node 'app1'"
    for observed in (observed_of(entry(real(1, 0), real(2))), observed_of(entry(real(2)))):
        (step,) = deciding(ordered(over), *FOUR[:2], observed=observed, ledger=draining).steps
        assert (step.cause.kind, step.cause.text) == (Kind.OVERRIDE, told)
        (step,) = deciding(ordered(over), *FOUR[:2], observed=observed, ledger=draining, now=NOW + 9).steps
        assert step.cause.kind in (Kind.RETURNED, Kind.NEW)
    (step,) = deciding(ordered(over), *FOUR, observed=observed_of(entry(*map(real, (2, 3, 4))))).steps
    assert step.cause.kind is Kind.DRIFT, "it was in the table: a hand deleted it"


def test_drains_are_no_loss_that_the_floor_prevents() -> None:
    half = order(Drain(OnNode("app2")))
    three = ordered(FIRST, half, order(Drain(AtAddress(ip_address("10.0.0.3")))))
    decision = deciding(three, *FOUR)
    assert decision.virtual_servers[KEY].leaving.keys() == {real_key(1), real_key(2), real_key(3)}
    assert not decision.virtual_servers[KEY].held


def test_the_last_ones_stay_and_status_says_whose_word_it_was() -> None:
    all_of_them = ordered(*(order(Drain(OnNode(f"app{number}"))) for number in range(1, 5)))
    observed = observed_of(ALL)
    decision = deciding(all_of_them, *FOUR, observed=observed)
    assert not decision.steps
    assert len(decision.virtual_servers[KEY].held) == 4
    shown = orders_status(all_of_them, decision, observed, NOW)
    assert [each.real_servers[0].place for each in shown] == [Place.HELD] * 4
    assert shown[0].real_servers[0].why == "kept, for nothing else would serve: drained by alice: upgrade"


def test_an_instance_that_is_drained_leaves_its_place_to_another_one_there() -> None:
    twin = instance(1, instance_id="twin", node="app9")
    drain = ordered(order(Drain(OnNode("app1"))))
    observed = observed_of(ALL)
    decision = deciding(drain, *FOUR, twin, observed=observed)
    assert not decision.steps
    (shown,) = orders_status(drain, decision, observed, NOW)
    (row,) = shown.real_servers
    assert (row.place, row.why) == (Place.SERVING, "instance 'twin' on node 'app9' is there, too")
    assert deciding(ordered(FIRST), *FOUR, twin).steps, "by its address both are meant"


def test_what_is_in_doubt_is_not_kept_against_an_operator() -> None:
    drain = ordered(order(Drain(AtAddress(ip_address("10.0.0.1")))))
    kept = deciding(Orders(), *FOUR[2:], doubt="two are gone").virtual_servers[KEY]
    assert kept.held.keys() == {real_key(1), real_key(2)}
    drained = deciding(drain, *FOUR[2:], doubt="two are gone").virtual_servers[KEY]
    assert drained.held.keys() == {real_key(2)}


def test_a_real_server_without_an_instance_is_shown_while_it_leaves() -> None:
    drain = ordered(order(Drain(AtAddress(ip_address("10.0.0.1")))))
    observed = observed_of(ALL, connections={real_key(1): 3})
    decision = deciding(drain, *FOUR[1:], observed=observed)
    (shown,) = orders_status(drain, decision, observed, NOW)
    (row,) = shown.real_servers
    assert (row.real_server, row.place, row.active, row.instance, row.until) == (
        "10.0.0.1:8080", Place.DRAINING, 3, "", NOW + 30,
    )  # fmt: skip


def test_a_hold_keeps_what_fails_what_is_gone_and_what_is_in_maintenance() -> None:
    hold = order(Hold("reco"), NOW + 60)
    answers = (failing(1), failing(2, health=Health.MAINTENANCE), instance(4), instance(5))
    decision = deciding(ordered(hold), *answers)
    assert decision.virtual_servers[KEY].held == {real_key(number): real(number) for number in (1, 2, 3)}
    assert [step.request for step in decision.steps] == [AddRealServer(virtual_server=KEY, real_server=real(5))]
    assert decision.virtual_servers[KEY].hold.order == hold
    assert deciding(ordered(hold), *answers, now=NOW + 60).virtual_servers[KEY].hold.order is None
    observed = observed_of(ALL)
    (shown,) = orders_status(ordered(hold), decision, observed, NOW)
    assert [(each.instance, each.place) for each in shown.real_servers] == [
        ("reco-1", Place.HELD), ("reco-2", Place.HELD), ("", Place.HELD),
    ]  # fmt: skip


def test_a_hold_gives_way_to_a_drain_and_to_what_is_rejected() -> None:
    hold, drain = order(Hold("reco")), order(Drain(OnNode("app1")))
    decision = deciding(ordered(hold, drain), failing(1), *FOUR[1:])
    assert decision.virtual_servers[KEY].leaving.keys() == {real_key(1)}
    mine = {KEY: attrs.evolve(OURS[KEY], written=entry(real(1), real(2), real(254)))}
    observed = observed_of(entry(real(1), real(2), real(254)))
    decision = deciding(ordered(hold), instance(1), instance(254), observed=observed, ledger=mine)
    assert decision.virtual_servers[KEY].held.keys() == {real_key(2)}
    assert decision.virtual_servers[KEY].leaving.keys() == {real_key(254)}, "10.0.0.254 is the director"


def test_a_hold_that_holds_nothing_is_said_all_the_same() -> None:
    observed = observed_of(ALL)
    decision = deciding(ordered(order(Hold("reco"))), *FOUR, observed=observed)
    (row,) = virtual_servers(config_of(), decision, observed, refused={}, local=frozenset({KEY.address}), ages={})  # type: ignore[arg-type]
    assert (row.state, row.note) == (State.OK, "held by alice: upgrade; lvsctl release reco ends it")


def test_a_pause_is_decided_as_any_other_and_shown_with_what_waits() -> None:
    observed = observed_of(ALL)
    for pause in (order(Pause(), NOW + 60), order(Pause("reco"), NOW + 60)):
        decision = deciding(ordered(pause), failing(1), *FOUR[1:], observed=observed)
        assert decision.virtual_servers[KEY].ordered.pause == pause
        assert decision.paused == (pause if pause.what == Pause() else None)
        assert len(decision.steps) == 1
        (shown,) = orders_status(ordered(pause), decision, observed, NOW)
        assert shown.changes == 1
        (row,) = virtual_servers(config_of(), decision, observed, refused={}, local=frozenset({KEY.address}), ages={})  # type: ignore[arg-type]
        assert row.state is State.PAUSED
        assert row.note.startswith("1 change to make, but paused by alice until ")


def test_a_virtual_address_stays_while_its_virtual_server_is_paused() -> None:
    other = config_of(configured("shop", KEYS[2]))
    assert deciding(Orders(), config=other).addresses == {KEY.address, KEYS[2].address}
    gone = observed_of(entry())
    assert KEY.address not in deciding(Orders(), config=other, observed=gone).addresses
    paused = deciding(ordered(order(Pause("reco"))), config=other, observed=gone)
    assert KEY.address in paused.addresses
    missing = deciding(ordered(order(Pause())), config=config_of(), observed=observed_of(), ledger={})
    assert missing.addresses == frozenset(), "what is not there and not made needs none"


# --- whatever is found ----------------------------------------------------------------------------------------------


def in_maintenance(answers: Answers, orders: Orders) -> Answers:
    """Return `answers` with those in maintenance that `orders` drain."""
    drains = in_force(orders, NOW).drains

    def resting(each: Instance) -> Instance:
        if drains.of(each, parse_address(each.address), None) is None:
            return each
        return attrs.evolve(
            each, checks=(*each.checks, Check(check_id="m", name="m", health=Health.MAINTENANCE, output=""))
        )

    return {
        query: attrs.evolve(answer, instances=tuple(map(resting, answer.instances)))
        for query, answer in answers.items()
    }


@given(data=st.data(), config=configs(), table=tables(), orders=some_orders)
def test_a_drain_does_to_the_table_what_maintenance_does(
    data: st.DataObject, config: Config, table: Table, orders: Orders
) -> None:
    orders = Orders(tuple(each for each in orders.entries if isinstance(each.what, Drain)))
    answers = data.draw(answers_for(config))
    ledger = data.draw(ledgers(table))
    observed = kernel_with(table).observe()

    def decided(answers: Answers, orders: Orders) -> Decision:
        return decide(
            config, answers, observed, ledger, own_addresses=OWN, templates_expire=False, now=NOW, orders=orders
        )

    drained, resting = decided(answers, orders), decided(in_maintenance(answers, orders), Orders())
    assert [each.request for each in drained.steps] == [each.request for each in resting.steps]
    assert {key: each.intended for key, each in drained.virtual_servers.items()} == {
        key: each.intended for key, each in resting.virtual_servers.items()
    }


@given(data=st.data(), config=configs(), table=tables(), orders=some_orders)
def test_what_is_drained_never_comes_and_what_is_held_never_leaves(
    data: st.DataObject, config: Config, table: Table, orders: Orders
) -> None:
    answers = data.draw(answers_for(config))
    observed = kernel_with(table).observe()
    ledger = data.draw(ledgers(table))
    decision = decide(
        config, answers, observed, ledger, own_addresses=OWN, templates_expire=False, now=NOW, orders=orders
    )
    drains = in_force(orders, NOW).drains
    for each in decision.virtual_servers.values():
        if each.wanted is None or each.owner is Owner.FOREIGN or each.intended is None:
            continue
        there = each.observed.real_servers if each.observed else {}
        for key, found in each.intended.real_servers.items():
            member = each.wanted.by_key.get(key)
            if member is not None and member.is_drained and serves(found):
                assert key in each.held
                assert drained_by(member, drains)
        if each.ordered.hold is not None:
            for key, found in there.items():
                member = each.wanted.by_key.get(key)
                told = drains.at(key) or (member is not None and member.is_drained)
                rejected = (
                    member is not None
                    and isinstance(member.verdict, Rejected)
                    and member.verdict.reason is not Reason.DUPLICATE
                )
                if serves(found) and not told and not rejected:
                    assert serves(each.intended.real_servers[key]) or isinstance(
                        member.verdict if member else None, Admitted
                    )


@given(data=st.data(), config=configs(), table=tables(), orders=some_orders)
def test_every_order_is_shown_and_what_it_shows_is_in_the_table(
    data: st.DataObject, config: Config, table: Table, orders: Orders
) -> None:
    answers = data.draw(answers_for(config))
    observed = kernel_with(table).observe()
    ledger = data.draw(ledgers(table))
    decision = decide(
        config, answers, observed, ledger, own_addresses=OWN, templates_expire=False, now=NOW, orders=orders
    )
    shown = orders_status(orders, decision, observed, NOW)
    assert len(shown) == len(orders.entries)
    rows = virtual_servers(config, decision, observed, refused={}, local=frozenset(), ages={})
    places = {
        (row.name, each.real_server): each.place for row in rows for each in row.real_servers if each.weight is not None
    }
    for each in shown:
        for one in each.real_servers:
            there = places.get((one.virtual_server, one.real_server))
            assert one.place is there if there else one.place in (Place.OUT, Place.PENDING, Place.HELD)


@given(data=st.data(), config=configs(), table=tables(), orders=st.lists(some_orders, min_size=2, max_size=4))
def test_what_was_decided_under_other_orders_spares_work_and_changes_nothing(
    data: st.DataObject, config: Config, table: Table, orders: list[Orders]
) -> None:
    ledger, observed, last = data.draw(ledgers(table)), kernel_with(table).observe(), None
    answers = data.draw(answers_for(config))
    for number, each in enumerate(orders):
        if data.draw(st.booleans()):
            answers = data.draw(answers_for(config))
        ended = Orders(tuple(attrs.evolve(one, until=NOW, ended=True) for one in orders[number - 1].entries))
        known = Orders((*each.entries, *(one for one in ended.entries if each.of(one.what) is None)))
        afresh, last = (
            decide(
                config,
                answers,
                observed,
                ledger,
                own_addresses=OWN,
                templates_expire=False,
                now=NOW,
                orders=known,
                before=before,
            )
            for before in (None, last)
        )
        assert last == afresh

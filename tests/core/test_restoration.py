"""What a snapshot may do while Consul has not answered: fill what is empty, and not one write more."""

from collections.abc import Collection
from ipaddress import ip_address

import attrs
from hypothesis import assume, given
from hypothesis import strategies as st

from lvsctl.config import Config
from lvsctl.core.decide import decide
from lvsctl.core.desired import desired, limits_of
from lvsctl.core.fallback import with_fallback
from lvsctl.core.instance import Answers, Instance, Query
from lvsctl.core.ownership import LedgerEntry
from lvsctl.core.restoration import snapshot_age, stands_alone
from netlink.types import Protocol, VirtualServerKey
from tests.histories import histories
from tests.strategies import answers_for, configs, entries, ledgers, tables
from tests.values import (
    KEY,
    NOW,
    OWN,
    VIP,
    Cycles,
    answers_of,
    config_of,
    configured,
    entry,
    failing,
    instance,
    kernel_with,
    real,
    table_of,
)

SAID = NOW - 60.0


def recalled(answers: Answers, queries: Collection[Query] | None = None) -> Answers:
    """Return `answers` with those to `queries`, or all, as a snapshot has them."""
    return {
        query: attrs.evolve(answer, snapshot=SAID) if queries is None or query in queries else answer
        for query, answer in answers.items()
    }


def cycles(*instances: Instance, config: Config | None = None, **given: object) -> Cycles:
    """Return cycles on an empty kernel with a snapshot that has `instances`."""
    config = config or config_of()
    values = {"answers": recalled(answers_of(config, *instances)), "kernel": kernel_with({}), "ledger": {}, **given}
    return Cycles(config=config, **values)  # type: ignore[arg-type]  # any of its fields


@st.composite
def worlds(draw: st.DrawFn) -> Cycles:
    """Draw everything that a start may find, with a snapshot for some of what Consul has not answered."""
    config, table = draw(configs()), draw(tables())
    answers = draw(answers_for(config))
    from_snapshot = draw(st.sets(st.sampled_from(sorted(answers)))) if answers else set()
    ledger = draw(ledgers(table))
    return Cycles(config=config, answers=recalled(answers, from_snapshot), kernel=kernel_with(table), ledger=ledger)


@histories()
@given(world=worlds())
def test_only_what_has_no_real_server_is_restored(world: Cycles) -> None:
    observed = world.kernel.observe()
    decision = world.decide(observed)
    for step in decision.steps:
        each = decision.virtual_servers[step.key]
        if each.wanted is not None and each.wanted.snapshot is not None:
            assert step.key not in observed.table or not observed.table[step.key].real_servers
    world.until_quiet(most=8)


@histories()
@given(world=worlds())
def test_until_consul_answers_anything_nothing_leaves_and_what_serves_is_not_touched(world: Cycles) -> None:
    assume(world.answers)  # without any the daemon only looks
    world.answers = recalled(world.answers)
    before = world.kernel.observe().table
    world.until_quiet(most=8)
    after = world.kernel.observe().table
    assert {key: after.get(key) for key, each in before.items() if each.real_servers} == {
        key: each for key, each in before.items() if each.real_servers
    }
    assert before.keys() <= after.keys()


@histories()
@given(data=st.data(), config=configs())
def test_an_empty_table_becomes_what_the_snapshot_makes_of_it_in_one_cycle(data: st.DataObject, config: Config) -> None:
    answers = recalled(data.draw(answers_for(config)))
    world = Cycles(config=config, answers=answers, kernel=kernel_with({}), ledger={})
    world.once()
    expected = {
        each.config.key: attrs.evolve(each.entry, real_servers=with_fallback(each.config, each.entry.real_servers))
        for each in desired(config, answers, limits_of(config, OWN)).values()
    }
    assert world.kernel.observe().table == expected


numbers = st.sets(st.integers(1, 4))


@histories()
@given(there=numbers, said=numbers, says=numbers.filter(bool))
def test_when_consul_answers_with_one_that_serves_the_table_is_as_it_says(
    there: set[int], said: set[int], says: set[int]
) -> None:
    standing = entry(*(real(number) for number in sorted(there)))
    ours = {KEY: LedgerEntry(name="reco", drain_timeout=30.0, written=standing)}
    bare = config_of(configured(floor=0))
    world = cycles(*map(instance, sorted(said)), config=bare, kernel=kernel_with(table_of(standing)), ledger=ours)
    world.until_quiet()
    assert world.kernel.observe().table == table_of(entry(*(real(number) for number in sorted(there or said))))
    world.answers = answers_of(world.config, *map(instance, sorted(says)))
    world.until_quiet()
    assert world.kernel.observe().table == table_of(entry(*(real(number) for number in sorted(says))))


# --- by example -----------------------------------------------------------------------------------------------------


def test_a_virtual_server_that_stands_empty_is_filled() -> None:
    world = cycles(
        instance(1),
        kernel=kernel_with(table_of(entry())),
        ledger={KEY: LedgerEntry(name="reco", drain_timeout=30.0, written=entry(real(1)))},
    )
    world.once()
    assert world.kernel.observe().table == table_of(entry(real(1)))


def test_one_real_server_that_is_quiesced_is_enough_to_be_left_alone() -> None:
    world = cycles(
        instance(1),
        instance(2),
        kernel=kernel_with(table_of(entry(real(1, 0)))),
        ledger={KEY: LedgerEntry(name="reco", drain_timeout=30.0, written=entry(real(1), real(2)))},
    )
    decision = world.once()
    assert (decision.steps, decision.waiting) == ([], frozenset({"reco"}))
    assert world.kernel.writes == []


def test_a_query_of_two_virtual_servers_restores_the_empty_one_alone() -> None:
    other = VirtualServerKey.by_mark(7)
    config = config_of(configured(), configured("twin", other, consul_service="reco"))
    table = table_of(entry(real(9)))
    ours = {KEY: LedgerEntry(name="reco", drain_timeout=30.0, written=entry(real(9)))}
    world = cycles(instance(1), config=config, kernel=kernel_with(table), ledger=ours)
    decision = world.once()
    assert {step.key for step in decision.steps} == {other}
    assert decision.waiting == {"reco"}


def test_what_was_held_before_a_reboot_is_held_again() -> None:
    ours = {KEY: LedgerEntry(name="reco", drain_timeout=30.0, written=entry(real(1)))}
    world = cycles(failing(1), ledger=ours)
    world.once()
    assert world.kernel.observe().table == table_of(entry(real(1)))


def test_a_virtual_server_that_left_the_file_stays_with_its_address_until_consul_answers_something() -> None:
    gone = VirtualServerKey.by_address(Protocol.TCP, ip_address("10.9.0.109"), 80)
    there = entry(real(5), key=gone)
    ours = {gone: LedgerEntry(name="gone", drain_timeout=0.0, written=there)}
    world = cycles(instance(1), kernel=kernel_with(table_of(there)), ledger=ours)
    world.until_quiet()
    assert world.kernel.observe().table == table_of(there, entry(real(1)))
    assert world.last is not None
    assert world.last.addresses == {gone.address, VIP}
    assert world.ledger.keys() == {gone, KEY}
    world.answers = answers_of(world.config, instance(1))
    world.until_quiet()
    assert world.kernel.observe().table == table_of(entry(real(1)))


def test_an_empty_first_answer_removes_nothing_of_what_was_restored() -> None:
    world = cycles(instance(1), instance(2))
    world.until_quiet()
    world.answers = answers_of(world.config)
    world.until_quiet()
    assert world.kernel.observe().table == table_of(entry(real(1), real(2)))


def test_admission_judges_what_a_snapshot_says_by_the_configuration_of_now() -> None:
    world = cycles(instance(1), instance(2, address="127.0.0.1"))
    world.once()
    assert world.kernel.observe().table == table_of(entry(real(1)))


@given(entry_there=entries(KEY))
def test_without_any_answer_nothing_is_decided(entry_there: object) -> None:
    observed = kernel_with({KEY: entry_there}).observe()  # type: ignore[dict-item]  # a plain table
    decision = decide(config_of(), {}, observed, {}, own_addresses=OWN, templates_expire=False, now=NOW)
    assert (list(decision.steps), decision.waiting) == ([], frozenset({"reco"}))


def test_the_age_is_that_of_the_oldest_in_use() -> None:
    answers = answers_of(config_of(configured(), configured("shop", VirtualServerKey.by_mark(7))), instance(1))
    assert snapshot_age(answers, NOW) is None
    assert not stands_alone(answers)
    assert not stands_alone({})
    one, two = sorted(answers)
    old = {**recalled(answers), one: attrs.evolve(answers[one], snapshot=NOW - 90)}
    assert snapshot_age(old, NOW) == 90
    assert snapshot_age({two: attrs.evolve(answers[two], snapshot=NOW + 5)}, NOW) == 0
    assert stands_alone(recalled(answers))

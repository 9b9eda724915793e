"""Overrides in the decision of a cycle: what is written, why, when it ends, and what is held meanwhile."""

import attrs
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.config import Config
from lvsctl.core.cause import Kind
from lvsctl.core.decide import decide
from lvsctl.core.decision import Decision
from lvsctl.core.desired import query_of
from lvsctl.core.difference import difference
from lvsctl.core.guard import serves
from lvsctl.core.instance import Answer, Instance
from lvsctl.core.override import NO_OVERRIDES, Fixed, Override, Overrides, Percent
from lvsctl.core.override_status import overrides_status
from lvsctl.core.ownership import Ledger, LedgerEntry
from lvsctl.core.status import Place
from lvsctl.core.virtual_server_status import virtual_servers
from netlink.types import Observed, Table, TableEntry
from tests.strategies import answers_for, configs, ledgers, some_overrides, tables
from tests.values import KEY, NOW, OWN, config_of, configured, entry, instance, kernel_with, observed_of, real, real_key

V2 = instance(2, tags=("v2",))
FIVE = Override(
    virtual_server="reco", selector="v2", share=Percent(500), by="alice@adm1", until=NOW + 7200, reason="canary"
)
WORDS = "override 'v2' 5% of 'alice@adm1' until 1970-01-12 15:46 UTC ('canary')"
CONFIG = config_of(configured(scheduler="wrr"))
QUERY = query_of(CONFIG.virtual_servers["reco"])
OWN_WEIGHTS = entry(real(1), real(2), real(3), scheduler="wrr")
SHARED = entry(real(1, 19), real(2, 2), real(3, 19), scheduler="wrr")


def overridden(
    observed: Observed, *instances: Instance, written: TableEntry, now: float = NOW, doubt: str = "", **changes: object
) -> Decision:
    """Return what is decided under FIVE with these changes."""
    ledger: Ledger = {KEY: LedgerEntry(name="reco", drain_timeout=30.0, written=written)}
    return decide(
        CONFIG,
        {QUERY: Answer(instances=instances, index=1, doubt=doubt)},
        observed,
        ledger,
        own_addresses=OWN,
        templates_expire=False,
        now=now,
        overrides=Overrides(entries=(attrs.evolve(FIVE, **changes),)),  # type: ignore[arg-type]
    )


def test_weights_are_set_in_place_and_the_cause_says_whose_word_it_is() -> None:
    decision = overridden(observed_of(OWN_WEIGHTS), instance(1), V2, instance(3), written=OWN_WEIGHTS)
    assert decision.virtual_servers[KEY].intended == SHARED
    assert [(line.real_server, line.what, line.cause.kind) for line in difference(decision)] == [
        ("10.0.0.1:8080", "weight 1 -> 19", Kind.OVERRIDE),
        ("10.0.0.2:8080", "weight 1 -> 2", Kind.OVERRIDE),
        ("10.0.0.3:8080", "weight 1 -> 19", Kind.OVERRIDE),
    ]
    first = decision.steps[0].cause.text
    assert first == f"weight 19, was 1, for {WORDS}: instance 'reco-1' on node 'app1'"
    assert decision.next_end == NOW + 7200
    assert decision.look_again is None, "nothing drains: `run --once` does not wait for an override to end"


def test_it_is_over_at_its_time_by_the_directors_clock() -> None:
    decision = overridden(observed_of(SHARED), instance(1), V2, instance(3), written=SHARED, now=NOW + 7200)
    assert decision.virtual_servers[KEY].intended == OWN_WEIGHTS
    assert {step.cause.kind for step in decision.steps} == {Kind.WEIGHT}
    assert decision.next_end is None


def test_a_hand_is_still_told_from_an_override() -> None:
    byhand = entry(real(1, 19), real(2, 7), real(3, 19), scheduler="wrr")
    decision = overridden(observed_of(byhand), instance(1), V2, instance(3), written=SHARED)
    assert [(step.cause.kind, step.cause.text) for step in decision.steps] == [
        (Kind.DRIFT, "changed by hand: weight 2 -> 7")
    ]


def test_one_that_leaves_drains_and_the_others_stay_as_they_are() -> None:
    decision = overridden(observed_of(SHARED), instance(1), V2, written=SHARED)
    assert [(line.real_server, line.what) for line in difference(decision)] == [
        ("10.0.0.2:8080", "weight 2 -> 1"),
        ("10.0.0.3:8080", "weight 19 -> 0"),
    ]


def test_what_is_held_keeps_its_proportion_when_an_override_begins_or_ends() -> None:
    plain = entry(real(1), real(2), real(3), real(4), scheduler="wrr")
    shared = entry(real(1, 19), real(2, 2), real(3, 19), real(4, 19), scheduler="wrr")
    left = (instance(1), V2, instance(4))
    for before, after, until in ((plain, shared, NOW + 1), (shared, plain, NOW)):
        decision = overridden(observed_of(before), *left, written=before, doubt="one is gone", until=until)
        assert decision.virtual_servers[KEY].held.keys() == {real_key(3)}
        assert decision.virtual_servers[KEY].intended == after
        assert not overridden(observed_of(after), *left, written=after, doubt="one is gone", until=until).steps


def test_what_is_held_beside_few_keeps_its_proportion_too() -> None:
    begins = overridden(observed_of(OWN_WEIGHTS), instance(1), V2, written=OWN_WEIGHTS, doubt="one is gone")
    assert begins.virtual_servers[KEY].held == {real_key(3): real(3, 19)}
    ends = overridden(observed_of(SHARED), instance(1), V2, written=SHARED, doubt="one is gone", until=NOW)
    assert ends.virtual_servers[KEY].held == {real_key(3): real(3, 1)}


def test_what_is_held_is_not_made_lighter_because_a_canary_has_fewer_beside_it() -> None:
    for left, held in (((instance(1), V2), {real_key(3): 19}), ((V2,), {real_key(1): 19, real_key(3): 19})):
        decision = overridden(observed_of(SHARED), *left, written=SHARED, doubt="some are gone")
        assert {key: each.weight for key, each in decision.virtual_servers[KEY].held.items()} == held


def test_status_shows_who_and_until_when() -> None:
    look = observed_of(SHARED)
    decision = overridden(look, instance(1), V2, instance(3), written=SHARED)
    (row,) = virtual_servers(CONFIG, decision, look, refused={}, local=frozenset(), ages={})
    (shown,) = row.overrides
    assert (shown.selector, shown.share, shown.by, shown.until) == ("v2", "5%", "alice@adm1", NOW + 7200)
    assert (shown.matching, shown.smallest, shown.largest, shown.why_not) == (1, 2, 2, "")
    assert [(each.weight, each.why) for each in row.real_servers] == [(19, WORDS), (2, WORDS), (19, WORDS)]


def test_status_explains_only_weights_that_an_override_touches() -> None:
    table = entry(real(1), real(2, 2), real(3), scheduler="wrr")
    look = observed_of(table)
    decision = overridden(look, instance(1), V2, instance(3), written=table, share=Percent(5000))
    assert not decision.steps
    (row,) = virtual_servers(CONFIG, decision, look, refused={}, local=frozenset(), ages={})
    assert [bool(each.why) for each in row.real_servers] == [False, True, False]


def test_status_shows_one_that_is_quiesced_by_an_override_and_a_weight_that_is_none() -> None:
    config = config_of(configured(scheduler="wrr", weight_meta="w"))
    table = entry(real(1), real(2, 0), scheduler="wrr")
    look = observed_of(table)
    decision = decide(
        config,
        {QUERY: Answer(instances=(instance(1, meta={"w": "x"}), V2))},
        look,
        {KEY: LedgerEntry(name="reco", drain_timeout=30.0, written=table)},
        own_addresses=OWN,
        templates_expire=False,
        now=NOW,
        overrides=Overrides(entries=(attrs.evolve(FIVE, share=Fixed(0), until=None),)),
    )
    assert not decision.steps
    (row,) = virtual_servers(config, decision, look, refused={}, local=frozenset(), ages={})
    assert [(each.place, each.why) for each in row.real_servers] == [
        (Place.SERVING, "meta 'w' is 'x', no weight from 0 to 65535: Weights.Passing counts"),
        (Place.QUIESCED, "override 'v2' 0 of 'alice@adm1' ('canary')"),
    ]


def test_status_names_virtual_servers_that_are_elsewhere() -> None:
    overrides = Overrides(entries=(FIVE, attrs.evolve(FIVE, virtual_server="shop")))
    status = overrides_status(CONFIG, overrides, prefix="lvsctl", data_age=1.0, error="")
    assert status.elsewhere == ("shop",)


@given(data=st.data(), config=configs(), table=tables(), overrides=some_overrides)
def test_whatever_is_found_an_override_takes_nobody_out_and_empties_nothing(
    data: st.DataObject, config: Config, table: Table, overrides: Overrides
) -> None:
    answers = data.draw(answers_for(config))
    ledger = data.draw(ledgers(table))
    observed = kernel_with(table).observe()
    plain, changed = (
        decide(config, answers, observed, ledger, own_addresses=OWN, templates_expire=False, now=NOW, overrides=chosen)
        for chosen in (NO_OVERRIDES, overrides)
    )
    for key, each in plain.virtual_servers.items():
        other = changed.virtual_servers[key]
        if each.intended is None or each.owner is not other.owner:
            continue  # a foreign one is adopted where it stands exactly as wanted, weights and all
        assert other.intended is not None
        assert other.intended.real_servers.keys() == each.intended.real_servers.keys()
        served = any(serves(real_server) for real_server in each.intended.real_servers.values())
        assert any(serves(real_server) for real_server in other.intended.real_servers.values()) == served
        assert other.leaving == each.leaving

"""How virtual servers stand in numbers: what the rows of `status` say, whatever the world looks like."""

import attrs
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.core.admission import Reason
from lvsctl.core.decide import decide
from lvsctl.core.fingerprint import fingerprint
from lvsctl.core.ownership import LedgerEntry
from lvsctl.core.standing import standings
from lvsctl.core.status import Place, State
from lvsctl.core.virtual_server_status import virtual_servers
from netlink.types import Observed, RealServerKey, VirtualServerKey
from tests.strategies import answers_for, configs, ledgers, tables
from tests.values import KEY, NOW, OWN, config_of, configured, decided, entry, instance, observed_of, real

OURS = {KEY: LedgerEntry(name="reco", drain_timeout=30.0, written=entry(real(1)), draining={})}


@given(data=st.data())
def test_they_say_what_status_says(data: st.DataObject) -> None:
    config, table = data.draw(configs()), data.draw(tables())
    answers, ledger = data.draw(answers_for(config)), data.draw(ledgers(table))
    observed = Observed(table=table, traffic={}, usage={})
    decision = decide(config, answers, observed, ledger, own_addresses=OWN, templates_expire=False, now=NOW)
    keys = sorted(decision.virtual_servers)
    refused = frozenset(data.draw(st.lists(st.sampled_from(keys), unique=True))) if keys else frozenset()
    found = standings(config, decision, observed, refused=refused)
    said: dict[tuple[VirtualServerKey, RealServerKey | None], str] = {(key, None): "no" for key in refused}
    rows = virtual_servers(config, decision, observed, refused=said, local=frozenset(), ages={})
    assert {
        (each.label, each.state, each.serving, each.wanted, each.held, each.draining) for each in found.values()
    } == {
        (
            (row.name, row.address),
            row.state,
            row.serving,
            row.wanted,
            sum(each.place is Place.HELD for each in row.real_servers),
            sum(each.place is Place.DRAINING for each in row.real_servers),
        )
        for row in rows
    }
    assert len(found) == len(rows)
    again = standings(config, decision, observed, refused=refused, before=found)
    assert again == found
    assert all(again[key] is found[key] for key in decision.virtual_servers)


def test_another_refusal_or_another_decision_is_another_standing() -> None:
    config, observed = config_of(), observed_of(entry(real(1)))
    decision = decided(observed, instance(1), config=config)
    before = standings(config, decision, observed, refused=frozenset())
    assert before[KEY].state is State.OK
    refused = standings(config, decision, observed, refused=frozenset({KEY}), before=before)
    assert refused[KEY].state is State.REFUSED
    other = decided(observed, instance(1), instance(2), config=config, ledger=OURS)
    assert standings(config, other, observed, refused=frozenset(), before=before)[KEY].wanted == 2


def test_rejections_are_counted_by_reason() -> None:
    config, observed = config_of(), observed_of(entry(real(1)))
    wrong = [instance(2, address="8.8.8.8"), instance(3, address="8.8.4.4"), instance(4, port=0)]
    decision = decided(observed, instance(1), *wrong, config=config)
    (found,) = standings(config, decision, observed, refused=frozenset()).values()
    assert found.rejected == {Reason.OUTSIDE_ALLOWED_NETWORKS: 2, Reason.PORT: 1}


def test_the_fingerprints_are_of_what_is_wanted_and_of_what_is_there() -> None:
    config, observed = config_of(), observed_of(entry(real(1)))
    decision = decided(observed, instance(1), instance(2), config=config, ledger=OURS)
    found = standings(config, decision, observed, refused=frozenset())[KEY]
    assert found.kernel_print == fingerprint(entry(real(1)))
    assert found.wanted_print == fingerprint(entry(real(1), real(2)))


def test_a_foreign_one_has_no_part_in_the_kernels_fingerprint() -> None:
    config, theirs = config_of(), observed_of(entry(real(9), scheduler="fo"))
    decision = decided(theirs, instance(1), config=config)
    found = standings(config, decision, theirs, refused=frozenset())[KEY]
    assert (found.state, found.kernel_print) == (State.FOREIGN, 0)
    assert found.wanted_print == fingerprint(entry(real(1)))
    waiting = decide(config, {}, theirs, {}, own_addresses=OWN, templates_expire=False, now=NOW)
    found = standings(config, waiting, theirs, refused=frozenset())[KEY]
    assert (found.state, found.serving, found.kernel_print) == (State.WAITING, 1, 0)


def test_labels_show_what_is_hidden_and_end_somewhere() -> None:
    config = config_of(attrs.evolve(configured(), name="a\n\x1b" + "x" * 500))
    decision = decided(observed_of(), instance(1), config=config)
    ((name, address),) = [
        each.label for each in standings(config, decision, observed_of(), refused=frozenset()).values()
    ]
    assert name.startswith("a\\n\\x1bxxx")
    assert len(name) == 128
    assert address == "tcp 10.9.0.100:80"

"""Ours is what the ledger says; adopted only what stands exactly as wanted."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.core.ownership import LedgerEntry, Owner, foreign, is_still_ours, owner_of
from netlink.types import Forwarding, RealServer, Table, TableEntry
from tests.strategies import KEYS, NEVER_CONFIGURED, entries, tables
from tests.values import KEY, entry, real

LEDGER = {KEY: LedgerEntry(name="reco", drain_timeout=30.0)}
WANTED = entry(real(1), real(2))


def test_nobodys_is_ours_and_what_the_ledger_knows_too() -> None:
    assert owner_of(WANTED, None, {}) is Owner.OURS
    assert owner_of(WANTED, entry(real(9), scheduler="rr"), LEDGER) is Owner.OURS


def test_exactly_as_wanted_is_adopted() -> None:
    assert owner_of(WANTED, entry(real(2), real(1)), {}) is Owner.ADOPTED


@pytest.mark.parametrize(
    ("found", "ours"),
    [
        (WANTED, True),
        (entry(real(1), real(9), scheduler="rr"), True),  # a hand changed the scheduler and one real server
        (entry(real(9)), True),  # all real servers, not the virtual server
        (entry(), True),
        (entry(real(9), scheduler="rr"), False),
        (entry(scheduler="rr"), False),
    ],
)
def test_a_key_alone_makes_nothing_ours(found: TableEntry, *, ours: bool) -> None:
    assert is_still_ours(found, attrs.evolve(LEDGER[KEY], written=WANTED)) is ours
    assert is_still_ours(found, LEDGER[KEY])  # killed before it could be written down


@pytest.mark.parametrize(
    "found",
    [
        entry(real(1)),
        entry(),
        entry(real(1), real(2), real(9)),
        entry(real(1), real(2, 0)),
        entry(real(1), real(2), real(9, 0)),
        entry(real(1), real(2, 2)),
        entry(real(1), real(2, forwarding=Forwarding.TUNNEL)),
        entry(real(1), real(2, upper_threshold=1)),
        entry(real(1), real(2), scheduler="rr"),
        entry(real(1), real(2), persistence=300),
    ],
)
def test_anything_else_is_foreign(found: TableEntry) -> None:
    assert owner_of(WANTED, found, {}) is Owner.FOREIGN


@given(wanted=entries(KEY), observed=entries(KEY))
def test_what_is_adopted_gets_the_same_new_connections_as_what_is_wanted(
    wanted: TableEntry, observed: TableEntry
) -> None:
    def serving(found: TableEntry) -> set[RealServer]:
        return {each for each in found.real_servers.values() if each.weight > 0}

    if owner_of(wanted, observed, {}) is Owner.ADOPTED:
        assert serving(wanted) == serving(observed)
        assert wanted.virtual_server == observed.virtual_server
    assert owner_of(observed, observed, {}) is Owner.ADOPTED
    changed = attrs.evolve(observed, virtual_server=attrs.evolve(observed.virtual_server, scheduler="sed"))
    assert owner_of(observed, changed, {}) is Owner.FOREIGN


@given(table=tables(), ours=st.sets(st.sampled_from(KEYS)))
def test_foreign_is_all_the_rest(table: Table, ours: set[object]) -> None:
    found = foreign(table, frozenset(key for key in table if key in ours))
    assert found == {key for key in table if key not in ours}
    if NEVER_CONFIGURED in table:
        assert NEVER_CONFIGURED in found

"""Moving the border between ours and foreign: what follows from it, on a kernel in memory."""

import pytest

from lvsctl.core.border import Stays, adopted, disowned
from lvsctl.core.ownership import LedgerEntry
from netlink.types import VirtualServerKey
from tests.values import KEY, Cycles, answers_of, config_of, configured, entry, instance, kernel_with, real, table_of

RECO = config_of(configured(drain_timeout=5.0))
FOREIGN = entry(real(1, 7), real(9), scheduler="rr")
EMPTY = config_of(configured("shop", VirtualServerKey.by_mark(7)))


def cycles(ledger: dict[VirtualServerKey, LedgerEntry] | None = None) -> Cycles:
    return Cycles(
        config=RECO,
        answers=answers_of(RECO, instance(1), instance(2)),
        kernel=kernel_with(table_of(FOREIGN)),
        ledger=ledger or {},
    )


def test_what_is_foreign_and_differs_is_left_alone_until_it_is_adopted() -> None:
    left = cycles()
    left.once()
    assert left.kernel.writes == []
    key, ledger = adopted("reco", RECO, {}, left.kernel.observe().table)
    assert (key, ledger) == (KEY, {KEY: LedgerEntry(name="reco", drain_timeout=5.0)})
    taken = cycles(dict(ledger))
    first = taken.once()
    assert [type(step.request).__name__ for step in first.steps] == [
        "SetVirtualServer", "AddRealServer", "SetRealServer", "SetRealServer",
    ], "in place, and nothing is deleted that was not drained"  # fmt: skip
    assert first.steps[-1].cause.text == "added by hand: neither Consul nor lvsctl knows it"
    (deletion,) = taken.once().steps
    assert deletion.cause.text == "drained in 1 s; added by hand: neither Consul nor lvsctl knows it"
    taken.until_quiet()
    assert taken.kernel.observe().table == table_of(entry(real(1), real(2)))


def test_what_was_quiesced_before_it_was_adopted_was_never_registered_either() -> None:
    taken = cycles({KEY: LedgerEntry(name="reco", drain_timeout=5.0)})
    taken.kernel = kernel_with(table_of(entry(real(1), real(9, 0))))
    assert [type(step.request).__name__ for step in taken.once().steps] == ["AddRealServer"]
    (deletion,) = taken.once().steps
    assert deletion.cause.text == "drained in 1 s; added by hand: neither Consul nor lvsctl knows it"


def test_what_is_disowned_is_never_touched_again() -> None:
    ours = {KEY: LedgerEntry(name="reco", drain_timeout=5.0, written=FOREIGN)}
    key, ledger = disowned("reco", EMPTY, ours)
    assert (key, ledger) == (KEY, {})
    left = cycles(dict(ledger))
    left.config, left.answers = EMPTY, answers_of(EMPTY, instance(1))
    left.until_quiet()
    assert left.kernel.observe().table[KEY] == FOREIGN
    assert disowned("tcp 10.9.0.100:80", EMPTY, ours) == (KEY, {})


def test_the_border_stays_where_it_cannot_move() -> None:
    table = table_of(FOREIGN)
    ours = {KEY: LedgerEntry(name="reco", drain_timeout=5.0, written=FOREIGN)}
    with pytest.raises(Stays, match="'shop' is not in the file"):
        adopted("shop", RECO, {}, table)
    with pytest.raises(Stays, match="the kernel has no mark 7"):
        adopted("shop", EMPTY, {}, table)
    with pytest.raises(Stays, match="is ours already, as 'reco'"):
        adopted("reco", RECO, ours, table)
    with pytest.raises(Stays, match="nothing called 'shop' is ours"):
        disowned("shop", EMPTY, ours)
    with pytest.raises(Stays, match="take it out there first"):
        disowned("reco", RECO, ours)
    both = {**ours, VirtualServerKey.by_mark(9): LedgerEntry(name="reco", drain_timeout=5.0)}
    with pytest.raises(Stays, match="is more than one: "):
        disowned("reco", EMPTY, both)
    assert disowned("mark 9", EMPTY, both) == (VirtualServerKey.by_mark(9), ours)


def test_one_that_became_somebody_elses_may_be_taken_over_again() -> None:
    others = entry(real(8), scheduler="sh")
    ours = {KEY: LedgerEntry(name="reco", drain_timeout=5.0, written=entry(real(1)))}
    assert adopted("reco", RECO, ours, table_of(others))[0] == KEY

"""Cycles counted: what was written, how long it took, and since when something is not done."""

import attrs
from hypothesis import given
from hypothesis import strategies as st

from lvsctl import announce
from lvsctl.core.addresses import AddressMoves
from lvsctl.core.decision import Decision
from lvsctl.core.ownership import LedgerEntry
from lvsctl.core.tally import BUCKETS, WRITES, Durations, Tally
from netlink.types import VirtualServerKey
from tests.values import KEY, NOW, VIP, config_of, configured, decided, entry, instance, observed_of, real, real_key

WRITTEN = entry(real(1), real(2))
ONE = {KEY: LedgerEntry(name="reco", drain_timeout=30.0, written=entry(real(1)), draining={})}
OURS = {KEY: LedgerEntry(name="reco", drain_timeout=30.0, written=WRITTEN, draining={})}


def done(decision: Decision, steps: int | None = None, tally: Tally | None = None, now: float = 0.0) -> Tally:
    """Return the tally after a cycle that took so many of the decision's steps."""
    return (tally or Tally()).after_cycle(decision, done=decision.steps[:steps], seconds=0.1, now=now)


def written(tally: Tally) -> dict[str, int]:
    return {kind: count for kind, count in tally.writes.items() if count}


def test_the_kinds_are_the_events_of_the_log() -> None:
    addresses = {"virtual_address_added", "virtual_address_removed"}
    assert set(WRITES) == {*announce.EVENTS.values(), "real_server_quiesced", *addresses}
    assert Tally().writes == dict.fromkeys(WRITES, 0)


def test_writes_are_counted_by_kind() -> None:
    first = done(decided(observed_of(), instance(1), instance(2)))
    assert written(first) == {"virtual_server_added": 1, "real_server_added": 2}
    assert first.drift_repairs == 0
    busy = observed_of(WRITTEN, connections={real_key(2): 3})
    second = done(decided(busy, instance(1), ledger=OURS), tally=first)
    assert written(second) == written(first) | {"real_server_quiesced": 1}
    changed = config_of(configured(scheduler="rr", upper_threshold=5))
    third = done(decided(observed_of(WRITTEN), instance(1), instance(2), config=changed, ledger=OURS))
    assert written(third) == {"virtual_server_changed": 1, "real_server_changed": 2}
    moved = config_of(configured(key=VirtualServerKey.by_mark(7), drain_timeout=0.0))
    undrained = {KEY: attrs.evolve(OURS[KEY], drain_timeout=0.0)}
    fourth = done(decided(observed_of(WRITTEN), instance(1), config=moved, ledger=undrained))
    assert written(fourth) == {"virtual_server_added": 1, "real_server_added": 1, "virtual_server_deleted": 1}
    undrained_here = config_of(configured(drain_timeout=0.0))
    fifth = done(decided(observed_of(WRITTEN), instance(1), config=undrained_here, ledger=OURS))
    assert written(fifth) == {"real_server_deleted": 1}


def test_what_a_hand_did_is_drift() -> None:
    edited = observed_of(entry(real(1, 7)))
    decision = decided(edited, instance(1), instance(2), ledger=OURS)
    assert done(decision).drift_repairs == 2
    assert done(decision, steps=1).drift_repairs == 1


def test_addresses_are_writes_and_wait_too() -> None:
    decision = decided(observed_of(WRITTEN), instance(1), instance(2), ledger=OURS)
    assert decision.steps == []
    moves = AddressMoves(interface="lvs0", missing=frozenset({VIP}))
    waiting = Tally().after_cycle(decision, done=(), moves=moves, seconds=0.1, now=5.0)
    assert waiting.pending == {VIP: 5.0}
    moved = waiting.after_cycle(decision, done=(), moves=moves, added=frozenset({VIP}), seconds=0.1, now=6.0)
    assert (written(moved), moved.pending) == ({"virtual_address_added": 1}, {})
    back = AddressMoves(interface="lvs0", superfluous=frozenset({VIP}))
    removed = moved.after_cycle(decision, done=(), moves=back, removed=frozenset({VIP}), seconds=0.1, now=7.0)
    assert written(removed) == {"virtual_address_added": 1, "virtual_address_removed": 1}
    assert removed.pending == {}


def test_a_change_waits_from_when_it_was_first_wanted_until_it_is_made() -> None:
    decision = decided(observed_of(entry(real(1))), instance(1), instance(2), instance(3), ledger=ONE)
    assert len(decision.steps) == 2
    first = done(decision, steps=1, now=10.0)
    assert first.pending == {(KEY, decision.steps[1].request.real_server.key): 10.0}  # type: ignore[union-attr]
    assert first.waiting(12.5) == 2.5
    again = done(decision, steps=0, tally=first, now=20.0)
    assert sorted(again.pending.values()) == [10.0, 20.0]
    assert again.waiting(30.0) == 20.0
    assert done(decision, tally=again, now=30.0).waiting(31.0) == 0.0


def test_a_cycle_about_some_leaves_what_others_wait_for() -> None:
    both = config_of(configured(), configured("shop", VirtualServerKey.by_mark(7)))
    everything = decided(observed_of(), instance(1), config=both)
    first = done(everything, steps=0, now=10.0)
    assert len(first.pending) == 4
    part = decided(observed_of(), instance(1))
    second = first.after_cycle(part, done=part.steps, only={KEY}, seconds=0.1, now=20.0)
    assert {change[0] for change in second.pending if isinstance(change, tuple)} == {VirtualServerKey.by_mark(7)}
    assert second.waiting(30.0) == 20.0


def test_cycles_that_fail_wait_from_the_first_on() -> None:
    failed = Tally().after_failure(100.0).after_failure(110.0)
    assert (failed.failures, failed.waiting(115.0)) == (2, 15.0)
    over = done(decided(observed_of(), instance(1)), tally=failed, now=NOW)
    assert (over.failures, over.waiting(NOW + 9)) == (2, 0.0)
    assert failed.waiting(50.0) == 0.0, "a clock that is behind is no age"


def test_refusals_are_counted() -> None:
    decision = decided(observed_of(), instance(1))
    tally = Tally().after_cycle(decision, done=(), refused=2, seconds=0.1, now=1.0)
    assert (tally.refusals, written(tally), len(tally.pending)) == (2, {}, 2)


@given(st.lists(st.floats(0, 100)))
def test_every_duration_is_in_the_bucket_that_it_fits_into(seconds: list[float]) -> None:
    durations = Durations()
    for each in seconds:
        durations = durations.and_one(each)
    for number, bound in enumerate(BUCKETS):
        assert sum(durations.counts[: number + 1]) == sum(each <= bound for each in seconds)
    assert sum(durations.counts) == len(seconds)
    assert durations.total == sum(seconds)

"""What the cycles since the start did, counted, and what they left to be done.

Pure. `record` hands every cycle over. Times are seconds of a clock that never goes back.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

import attrs

from lvsctl.core.addresses import AddressMoves
from lvsctl.core.cause import Kind
from lvsctl.core.decision import Decision, Step
from netlink.requests import (
    AddRealServer,
    AddVirtualServer,
    DeleteRealServer,
    DeleteVirtualServer,
    SetRealServer,
    SetVirtualServer,
)
from netlink.types import Address, RealServerKey, VirtualServerKey

Change = tuple[VirtualServerKey, RealServerKey | None] | Address
"""What is to be changed: a virtual server (None), one of its real servers, or a virtual address."""

WRITES: Final = (
    *("virtual_server_added", "virtual_server_changed", "virtual_server_deleted"),
    *("real_server_added", "real_server_changed", "real_server_quiesced", "real_server_deleted"),
    *("virtual_address_added", "virtual_address_removed"),
)
"""The kinds of write, by the words that the log has for them."""

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds that a cycle may take to count in a bucket; the last bucket has those that took longer."""


@attrs.frozen(kw_only=True)
class Durations:
    """How long cycles took."""

    counts: tuple[int, ...] = (0,) * (len(BUCKETS) + 1)  # each bucket by itself
    total: float = 0.0  # seconds

    def and_one(self, seconds: float) -> "Durations":
        """Return these and one of `seconds`."""
        place = bisect_left(BUCKETS, seconds)
        counts = tuple(count + (number == place) for number, count in enumerate(self.counts))
        return Durations(counts=counts, total=self.total + seconds)


@attrs.frozen(kw_only=True)
class Tally:
    """The counts since the start, and the changes that are still to be made, each with when it was first seen."""

    writes: Mapping[str, int] = attrs.field(factory=lambda: dict.fromkeys(WRITES, 0))
    drift_repairs: int = 0
    refusals: int = 0
    failures: int = 0  # cycles that could not be finished
    durations: Durations = Durations()
    pending: Mapping[Change, float] = attrs.field(factory=dict)
    failing_since: float | None = None  # when the first of the cycles that fail now did

    def after_cycle(
        self,
        decision: Decision,
        *,
        done: Sequence[Step],
        refused: int = 0,
        moves: AddressMoves | None = None,
        added: AbstractSet[Address] = frozenset(),
        removed: AbstractSet[Address] = frozenset(),
        only: AbstractSet[VirtualServerKey] | None = None,
        seconds: float,
        now: float,
    ) -> "Tally":
        """Return the tally after a cycle that took `seconds`.

        Of the steps of `decision` it took those `done`, and the kernel refused so many. It `added` and `removed`
        virtual addresses, of those that had to move and of those that had to afterwards. It was about the virtual
        servers at `only`, or about everything; what else is pending stays so.
        """
        kinds = [_kind(step, decision) for step in done]
        kinds += ["virtual_address_added"] * len(added) + ["virtual_address_removed"] * len(removed)
        left: set[Change] = {_change(step) for step in decision.steps} - {_change(step) for step in done}
        if moves is not None:
            left |= (moves.missing - added) | (moves.superfluous - removed)
        if only is not None:
            left |= {change for change in self.pending if not (isinstance(change, tuple) and change[0] in only)}
        return attrs.evolve(
            self,
            writes=_counted(self.writes, kinds),
            drift_repairs=self.drift_repairs + sum(step.cause.kind is Kind.DRIFT for step in done),
            refusals=self.refusals + refused,
            durations=self.durations.and_one(seconds),
            pending={change: self.pending.get(change, now) for change in left},
            failing_since=None,
        )

    def with_late(self, decision: Decision, done: Sequence[Step]) -> "Tally":
        """Return the tally with the steps of `decision` that a cycle is found to have `done` that was not finished."""
        return attrs.evolve(
            self,
            writes=_counted(self.writes, [_kind(step, decision) for step in done]),
            drift_repairs=self.drift_repairs + sum(step.cause.kind is Kind.DRIFT for step in done),
        )

    def after_failure(self, now: float) -> "Tally":
        """Return the tally after a cycle that could not be finished: what is to be done is not even known."""
        since = now if self.failing_since is None else self.failing_since
        return attrs.evolve(self, failures=self.failures + 1, failing_since=since)

    def waiting(self, now: float) -> float:
        """Return for how many seconds the change that waits longest has waited, 0 where none does."""
        times = list(self.pending.values())
        if self.failing_since is not None:
            times.append(self.failing_since)
        return max(0.0, now - min(times, default=now))


def _counted(counts: Mapping[str, int], kinds: Iterable[str]) -> Mapping[str, int]:
    counted = dict(counts)
    for kind in kinds:
        counted[kind] += 1
    return counted


def _kind(step: Step, decision: Decision) -> str:
    match step.request:
        case AddVirtualServer():
            return "virtual_server_added"
        case SetVirtualServer():
            return "virtual_server_changed"
        case DeleteVirtualServer():
            return "virtual_server_deleted"
        case AddRealServer():
            return "real_server_added"
        case SetRealServer(real_server=real_server):
            leaves = real_server.key in decision.virtual_servers[step.key].leaving
            return "real_server_quiesced" if leaves else "real_server_changed"
        case DeleteRealServer():
            return "real_server_deleted"


def _change(step: Step) -> Change:
    match step.request:
        case AddRealServer(real_server=real_server) | SetRealServer(real_server=real_server):
            return step.key, real_server.key
        case DeleteRealServer(key=key):
            return step.key, key
        case _:
            return step.key, None

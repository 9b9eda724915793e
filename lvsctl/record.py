"""What the metrics know of the cycles: each is counted when it ends, and what the last one read is kept."""

import time
from collections.abc import Set as AbstractSet

from lvsctl.config import Config
from lvsctl.core.measures import Reading
from lvsctl.core.tally import Tally
from lvsctl.reconcile import Cycle
from netlink.types import VirtualServerKey


class Record:
    """Counts cycles; keeps the reading of the last one where `keep` says that somebody will ask for it."""

    def __init__(self, *, keep: bool) -> None:
        self._keep = keep
        self.tally = Tally()
        self.reading: Reading | None = None

    def cycle(
        self, config: Config, cycle: Cycle, *, seconds: float, only: AbstractSet[VirtualServerKey] | None = None
    ) -> None:
        """Count a cycle with `config` that took `seconds`; with `only` it was about those virtual servers alone."""
        look = cycle.look
        for late in cycle.late:
            self.tally = self.tally.with_late(late.look.decision, [each.step for each in late.done])
        self.tally = self.tally.after_cycle(
            look.decision,
            done=[each.step for each in cycle.done if each.refused is None],
            refused=sum(each.refused is not None for each in cycle.done),
            moves=look.moves,
            added=frozenset(cycle.added_addresses),
            removed=frozenset(cycle.removed_addresses),
            only=only,
            seconds=seconds,
            now=time.monotonic(),
        )
        if self._keep:
            reading = Reading(
                config=config,
                decision=look.decision,
                observed=look.observed,
                refused={key for key, _ in cycle.refusals},
                time=time.time(),
            )
            whole = self.reading if only is not None else None
            self.reading = whole.with_part(reading, only) if whole and only is not None else reading

    def failure(self) -> None:
        """Count a cycle that could not be finished."""
        self.tally = self.tally.after_failure(time.monotonic())

    @property
    def waiting(self) -> float:
        """Return for how many seconds the change that waits longest has waited, 0 where none does."""
        return self.tally.waiting(time.monotonic())

"""What is to be looked at next, and when: some virtual servers, or everything.

Does no I/O; the times it is given and gives are of one clock that never goes back. Everything is looked at as often as
an audit is due, and when nobody knows better. In between a look is at those virtual servers that there is a reason to
look at: news of Consul, a write that is to be seen again, a drain, a refusal that is over. What is decided of them is
what a look at everything would decide, so a reason that is forgotten costs no more than waiting for the audit.
"""

from collections.abc import Set as AbstractSet
from typing import Final

import attrs

from lvsctl.reconcile import Cycle
from netlink.types import VirtualServerKey

VERIFY: Final = 1.0  # seconds after a write until what was written is looked at again
MOST: Final = 500  # virtual servers; to look at more of them costs as much as to look at everything
SOONEST: Final = 0.05  # seconds between two looks that nobody woke us for

Keys = frozenset[VirtualServerKey]


@attrs.define
class Agenda:
    """When each look is due."""

    _everything: float = 0.0
    _some: dict[VirtualServerKey, float] = attrs.field(factory=dict)

    def everything(self) -> None:
        """Have the next look be at everything."""
        self._everything = 0.0

    def due(self, news: AbstractSet[VirtualServerKey], now: float) -> Keys | None:
        """Return the virtual servers to look at now, which may be none; None for everything."""
        if now >= self._everything:
            return None
        keys = frozenset(key for key, at in self._some.items() if at <= now) | news
        return None if len(keys) > MOST else keys

    def note(self, cycle: Cycle, *, now: float, clock: float, audit_interval: float, dry_run: bool) -> None:
        """Take note of `cycle`, which has just ended; `clock` are the Unix seconds of `now`."""
        if cycle.only is None:
            self._some.clear()
            self._everything = now + audit_interval
        else:
            for key in cycle.only:
                self._some.pop(key, None)
        decision = cycle.look.decision
        again = decision.look_again
        if again is not None and not dry_run:
            for key, each in decision.virtual_servers.items():
                if each.leaving and each.draining:
                    self._by(key, now + again - clock)
        if decision.override_ends is not None:
            self._everything = min(self._everything, now + decision.override_ends - clock)
        for done in cycle.done:
            self._by(done.step.key, now + VERIFY)
        for (key, _), refusal in cycle.refusals.items():
            if refusal.retry_at > clock:  # else it was tried now, or waits for another one that has a time
                self._by(key, now + refusal.retry_at - clock)

    def pause(self, now: float) -> float:
        """Return seconds until the next look is due."""
        soonest = min(self._some.values(), default=self._everything)
        return max(SOONEST, min(soonest, self._everything) - now)

    def _by(self, key: VirtualServerKey, at: float) -> None:
        self._some[key] = min(at, self._some.get(key, at))

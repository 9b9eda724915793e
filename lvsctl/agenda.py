"""What is to be looked at next, and when: some virtual servers, or everything.

Does no I/O; the times it is given and gives are of one clock that never goes back. Everything is looked at when nobody
knows better, and now and then. In between a look is at those virtual servers that there is a reason to look at: news of
Consul, a write that is to be seen again, a drain, a slow start, a refusal that is over; and at every audit those that a
glance at the table shows to be others than they were. What is decided of them is what a look at everything would
decide, so a reason that is forgotten costs no more than waiting for that.

A look at ten thousand real servers takes a second or two, in which nobody else is looked at. So where there is a reason
to look at a large virtual server and at others, the others come first, once: the next look is at the large one again.
So do they before an audit, which may find that the large one is to be looked at. And news of a large one wait for a
moment: others that came with them are on their way, and more of its own often are.
"""

from collections.abc import Set as AbstractSet
from typing import Final

import attrs

from lvsctl.core.decision import Decision
from lvsctl.core.nothing import NOBODY
from lvsctl.core.part import MOST
from lvsctl.reconcile import Cycle
from netlink.types import VirtualServerKey

VERIFY: Final = 1.0  # seconds after a write until what was written is looked at again
SOONEST: Final = 0.05  # seconds between two looks that nobody woke us for
LARGE: Final = 1000  # real servers from which on others come first
MOMENT: Final = 0.25  # seconds that news of a large one wait for
EVERYTHING: Final = 30  # audits until everything is looked at, whatever a glance shows

Keys = frozenset[VirtualServerKey]


@attrs.frozen
class Due:
    """What to look at now."""

    keys: Keys | None = frozenset()  # None: everything
    audit: bool = False  # with those that are not as they were

    def __bool__(self) -> bool:
        """Tell whether there is anything to look at."""
        return self.keys is None or bool(self.keys) or self.audit


@attrs.define
class Agenda:
    """When each look is due."""

    _everything: float = 0.0
    _audit: float = 0.0
    _some: dict[VirtualServerKey, float] = attrs.field(factory=dict)
    _large: set[VirtualServerKey] = attrs.field(factory=set)
    _put_off: Keys | None = None  # the large ones that were, when others came first the last time; None: they did not

    def everything(self) -> None:
        """Have the next look be at everything."""
        self._everything = 0.0

    def audit(self) -> None:
        """Have the next look be an audit."""
        self._audit = 0.0

    def due(
        self, news: AbstractSet[VirtualServerKey], now: float, *, at_once: AbstractSet[VirtualServerKey] = NOBODY
    ) -> Due:
        """Return what to look at now; nothing of it is forgotten before `note`, but the `news`.

        Those of the `news` that are wanted `at_once` are not put off.
        """
        put_off, self._put_off = self._put_off, None
        if now >= self._everything:
            return Due(None)
        for key in (news & self._large) - at_once:
            self._by(key, now + MOMENT)
        keys = frozenset(key for key, at in self._some.items() if at <= now) | (news - self._large) | at_once
        if len(keys) > MOST:
            return Due(None)
        audit = now >= self._audit
        large = (keys & self._large) - at_once - (put_off or frozenset())
        if keys - large and (large or (audit and self._large and put_off is None)):
            for key in large:
                self._by(key, now)
            self._put_off = large
            return Due(keys - large)
        return Due(keys, audit=audit)

    def note(self, cycle: Cycle, *, now: float, clock: float, audit_interval: float, dry_run: bool) -> None:
        """Take note of `cycle`, which has just ended; `clock` are the Unix seconds of `now`."""
        if cycle.only is None:
            self._some.clear()
            self._everything = now + EVERYTHING * audit_interval
        else:
            for key in cycle.only:
                self._some.pop(key, None)
        if cycle.audit or cycle.only is None:
            self._audit = now + audit_interval
        decision = cycle.look.decision
        for key, each in decision.virtual_servers.items():
            is_large = each.intended is not None and len(each.intended.real_servers) >= LARGE
            (self._large.add if is_large else self._large.discard)(key)
        if not dry_run:
            self._note_drains(decision, now - clock)
            self._note_looks(decision, now - clock)
        if decision.next_end is not None:
            self._everything = min(self._everything, now + decision.next_end - clock)
        for done in cycle.done:
            self._by(done.step.key, now + VERIFY)
        for (key, _), refusal in cycle.refusals.items():
            # Where that is past it waits for another one that has a time, or its time came during this very cycle.
            self._by(key, now + (refusal.retry_at - clock if refusal.waits(clock) else audit_interval))

    def _note_drains(self, decision: Decision, offset: float) -> None:
        if decision.look_again is not None:
            for key, each in decision.virtual_servers.items():
                if each.leaving and each.draining:
                    self._by(key, decision.look_again + offset)

    def _note_looks(self, decision: Decision, offset: float) -> None:
        for key, each in decision.virtual_servers.items():
            if each.next_look is not None:
                self._by(key, each.next_look + offset)

    def pause(self, now: float) -> float:
        """Return seconds until the next look is due."""
        return max(SOONEST, min((*self._some.values(), self._everything, self._audit)) - now)

    def _by(self, key: VirtualServerKey, at: float) -> None:
        self._some[key] = min(at, self._some.get(key, at))

"""What a cycle did and found, in the log: every write once, every lasting trouble when it begins and when it ends.

Event names are constant; fields carry the rest. Nothing is announced twice, however many cycles see it.
"""

import time
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from typing import Final

import attrs
import structlog

from lvsctl.apply import Done, target_of
from lvsctl.core.admission import Excluded, Reason, Rejected
from lvsctl.core.cause import Kind
from lvsctl.core.condition import why_nobody
from lvsctl.core.decision import VirtualServerDecision
from lvsctl.core.desired import Member
from lvsctl.core.difference import Line, Sign, address_lines, line_of, remedy_of_foreign
from lvsctl.core.event import Event, Evidence
from lvsctl.core.evidence import evidence_of, evidence_of_member
from lvsctl.core.failover import named
from lvsctl.core.ownership import Owner
from lvsctl.core.provenance import CLOSED
from lvsctl.core.restoration import OLD
from lvsctl.core.weighing import Effect, override_words
from lvsctl.core.words import moment
from lvsctl.journal import now
from lvsctl.reconcile import Cycle
from netlink.requests import (
    AddRealServer,
    AddVirtualServer,
    DeleteRealServer,
    DeleteVirtualServer,
    Request,
    SetRealServer,
    SetVirtualServer,
)
from netlink.types import VirtualServerKey

EVENTS: dict[type[Request], str] = {
    AddVirtualServer: "virtual_server_added",
    SetVirtualServer: "virtual_server_changed",
    DeleteVirtualServer: "virtual_server_deleted",
    AddRealServer: "real_server_added",
    SetRealServer: "real_server_changed",
    DeleteRealServer: "real_server_deleted",
}

HOLD: Final = "hold"
DECLARATION: Final = "declaration_refused"
REJECTED: Final = "instance_rejected"
DAMPED: Final = "instance_damped"
OF_INSTANCES: Final = {REJECTED: Kind.REJECTED, DAMPED: Kind.DAMPED}

Trouble = dict[tuple[str, str], str]
"""What is wrong, by event name and object."""

Troubles = dict[VirtualServerKey | None, Trouble]
"""The troubles of each virtual server that has any, and of what is no virtual server's."""

Tell = Callable[[Event], None]
"""Who else is told what happened: the journal."""

log = structlog.get_logger()


class Announcer:
    """Remembers what was announced, so that only changes are. What is logged of a cycle it tells to `tell`, too."""

    def __init__(self, tell: Tell = lambda _: None) -> None:
        self._tell = tell
        self._troubles: Troubles = {}
        self._told: dict[tuple[str, str], Event] = {}  # of the troubles that there are
        self._plan: tuple[Line, ...] = ()
        self._overrides: dict[tuple[str, str], Effect] = {}

    def cycle(self, cycle: Cycle, *, planned: bool = False) -> None:
        """Log what `cycle` did, and what troubles began or ended with it; `planned` logs what it would have done."""
        for event in (event for each in (*cycle.late, cycle) for event in events_of(each)):
            _announce(event)
            if event.attempt & (event.attempt - 1) == 0:  # a refusal is tried for ever: the 1st, 2nd, 4th, 8th …
                self._tell(event)
        if cycle.clock_set:
            by = f"{cycle.clock_set:+.0f} s"
            log.warning(
                "clock_set", by=by, follows="drains, slow starts, holds and damping last as long as they were to"
            )
            self._tell(Event(time=now(), event="clock_set", what=by))
        _announce_restored(cycle)
        self._announce_overrides(cycle)
        if planned:
            decision, moves = cycle.look.decision, cycle.look.moves
            plan = tuple(line_of(step, decision.virtual_servers[step.key]) for step in decision.steps)
            plan += tuple(address_lines(moves)) if moves else ()
            if plan != self._plan:
                for line in plan:
                    log.info("would_change", **_fields(line))
            self._plan = plan
        troubles, only = _troubles(cycle), cycle.only
        if only is not None:
            troubles |= {key: each for key, each in self._troubles.items() if key is not None and key not in only}
            known = self._troubles.get(None, {}).items()  # what is declared is a matter of cycles about everything
            troubles[None] |= {place: text for place, text in known if place[0] == DECLARATION}
        self._announce_troubles(troubles, cycle)

    def _announce_overrides(self, cycle: Cycle) -> None:
        """Log each override when it begins to count, when it changes, and when it is over or cleared."""
        decided = cycle.look.decision.virtual_servers.values()
        wanted = {each.name: each.wanted for each in decided if each.wanted is not None}
        found = {
            (name, effect.override.selector): effect for name, each in wanted.items() for effect in each.weighed.effects
        }
        for (name, selector), effect in found.items():
            known, fields = self._overrides.get((name, selector)), _override_fields(effect)
            if known is None or _override_fields(known) != fields:
                log.info("override", name=name, selector=selector, **fields)
                self._tell(_override_event("override", effect, why=effect.why_not))
        over = set(wanted)
        if cycle.only is None:  # and of what is no virtual server any more
            over |= {name for name, _ in self._overrides} - cycle.look.config.virtual_servers.keys()
        gone = [place for place in self._overrides if place not in found and place[0] in over]
        for name, selector in gone:
            effect = self._overrides.pop((name, selector))
            override = effect.override
            why = "cleared" if cycle.look.config.overrides is not None else CLOSED
            why = "its time is over" if override.until is not None and override.until <= time.time() else why
            log.info("override_over", name=name, selector=selector, share=str(override.share), by=override.by, why=why)
            self._tell(_override_event("override_over", effect, why=why))
        self._overrides |= found

    def _announce_troubles(self, troubles: "Troubles", cycle: Cycle) -> None:
        before, after = _flat(self._troubles), _flat(troubles)
        new = {place: found for place, found in after.items() if before.get(place, (None, ""))[1] != found[1]}
        rejected = _rejected({key for (event, _), (key, _) in new.items() if event in OF_INSTANCES}, cycle)
        for (event, name), (key, text) in new.items():
            log.warning(event, name=name, why=text)
            its = cycle.look.decision.virtual_servers.get(key) if key else None
            told = Event(
                time=now(), event=event, name=its.name if its else name, virtual_server=str(key or ""), why=text
            )
            if event == HOLD and its is not None:
                told = attrs.evolve(told, what=", ".join(map(str, sorted(its.held))))
            if event in OF_INSTANCES and name in rejected:
                place, evidence = rejected[name]
                told = attrs.evolve(told, real_server=place, cause=OF_INSTANCES[event].value, evidence=evidence)
            self._told[event, name] = told
            self._tell(told)
        for event, name in before.keys() - after.keys():
            log.info("trouble_over", name=name, trouble=event)
            told = self._told.pop((event, name))
            self._tell(attrs.evolve(told, time=now(), event="trouble_over", of=event, why=""))
        self._troubles = troubles


def _override_fields(effect: Effect) -> dict[str, str]:
    """Return what the log says of an override."""
    override = effect.override
    until = "cleared" if override.until is None else moment(override.until)
    fields = {"share": str(override.share), "until": until, "by": override.by, "reason": override.reason}
    return fields | ({"why_not": effect.why_not} if effect.why_not else {})


def events_of(cycle: Cycle) -> Iterator[Event]:
    """Yield what `cycle` did to the kernel, or tried to."""
    time = now()
    for done in cycle.done:
        yield _event_of(done, cycle, time)
    for address in cycle.added_addresses:
        yield Event(time=time, event="virtual_address_added", address=str(address))
    for address in cycle.removed_addresses:
        yield Event(time=time, event="virtual_address_removed", address=str(address))


def _event_of(done: Done, cycle: Cycle, time: float) -> Event:
    step = done.step
    each = cycle.look.decision.virtual_servers[step.key]
    line, (key, server) = line_of(step, each), target_of(step)
    quiesced = isinstance(step.request, SetRealServer) and line.sign is Sign.REMOVE
    name = "real_server_quiesced" if quiesced else EVENTS[type(step.request)]
    refused = done.refused is not None
    return Event(
        time=time,
        event="kernel_refused" if refused else name,
        of=name if refused else "",
        name=line.name,
        virtual_server=line.virtual_server,
        real_server=line.real_server or "",
        what=line.what,
        cause=line.cause.kind.value,
        why=line.cause.text,
        error=str(done.refused) if refused else "",
        attempt=cycle.refusals[key, server].attempts if refused else 0,
        evidence=evidence_of(each, server, step.cause) if server else None,
    )


def _announce(event: Event) -> None:
    if event.address:
        log.info(event.event, address=event.address)
        return
    fields = {"name": event.name, "virtual_server": event.virtual_server}
    fields |= {"real_server": event.real_server} if event.real_server else {}
    fields |= {"what": event.what, "cause": event.cause, "why": event.why}
    if event.of:
        log.error(event.event, **fields, error=event.error, attempt=event.attempt)
    else:
        log.info(event.event, **fields)


def _override_event(name: str, effect: Effect, *, why: str) -> Event:
    override = effect.override
    words = override_words(attrs.evolve(override, by=""))
    return Event(time=now(), event=name, name=override.virtual_server, what=words, by=override.by, why=why)


def _rejected(keys: AbstractSet[VirtualServerKey | None], cycle: Cycle) -> dict[str, tuple[str, Evidence]]:
    """Return the rejected and damped instances of the virtual servers at `keys`, by what the log calls them."""
    decided = cycle.look.decision.virtual_servers
    wanted = [(each, each.wanted) for key in keys if key and (each := decided.get(key)) and each.wanted]
    return {
        _label(each, member): (str(member.key or ""), evidence_of_member(its, member))
        for each, its in wanted
        for member in its.members
        if isinstance(member.verdict, Rejected) or _is_damped(member)
    }


def _label(each: VirtualServerDecision, member: Member) -> str:
    return f"{each.name}: {member.source.instance_id} on {member.source.node}"


def _announce_restored(cycle: Cycle) -> None:
    """Log from how old a snapshot what was restored; an old one loudly, for its addresses may be others' by now."""
    written = {done.step.key for done in cycle.done}
    wanted = [each.wanted for key, each in cycle.look.decision.virtual_servers.items() if key in written]
    restored = [each for each in wanted if each is not None and each.snapshot is not None]
    if not restored:
        return
    age = max(time.time() - min(each.snapshot for each in restored if each.snapshot is not None), 0.0)
    why = "Consul does not answer, and nothing served"
    if age > OLD:
        why += "; it is so old that some of its addresses may be somebody else's by now"
        log.error("snapshot_used", virtual_servers=len(restored), age=f"{age:.0f}s", why=why)
    else:
        log.warning("snapshot_used", virtual_servers=len(restored), age=f"{age:.0f}s", why=why)


def _fields(line: Line) -> dict[str, str]:
    fields = {"name": line.name, "virtual_server": line.virtual_server}
    if line.real_server:
        fields["real_server"] = line.real_server
    return fields | {"what": line.what, "cause": line.cause.kind.value, "why": line.cause.text}


def _flat(troubles: Troubles) -> dict[tuple[str, str], tuple[VirtualServerKey | None, str]]:
    return {name: (key, text) for key, each in troubles.items() for name, text in each.items()}


def _troubles(cycle: Cycle) -> Troubles:
    """Return what is wrong now with what `cycle` was about."""
    found = {key: _troubles_of(each) for key, each in cycle.look.decision.virtual_servers.items()}
    troubles: Troubles = {key: trouble for key, trouble in found.items() if trouble}
    others = {("ledger_failed", "ledger"): cycle.ledger_error, ("virtual_addresses_failed", "vip"): cycle.address_error}
    troubles[None] = {name: text for name, text in others.items() if text}
    for refusal in cycle.look.refusals:
        kept = f"; {refusal.kept} goes on as it was" if refusal.kept else ""
        text = f"Consul service {refusal.service!r}: {refusal.text}{kept}"
        troubles[None][DECLARATION, refusal.name] = text
    return troubles


def _troubles_of(each: VirtualServerDecision) -> Trouble:
    troubles: Trouble = {}
    if each.held:
        kept = (
            "1 real server that serves is" if len(each.held) == 1 else f"{len(each.held)} real servers that serve are"
        )
        release = f"; lvsctl release {each.name} lets go" if each.hold.floor.least or each.hold.order else ""
        troubles[HOLD, each.name] = f"{each.hold.why}; {kept} kept{release}"
    if each.fallback is not None:
        troubles["fallback", each.name] = f"{why_nobody(each)}; {each.fallback} serves"
    if each.owner is Owner.FOREIGN and not each.disowned:
        why = f"{each.key} exists, is not ours, is not as wanted; {remedy_of_foreign(each)}"
        troubles["foreign_in_the_way", each.name] = why
    if each.wanted and each.wanted.failed_over:
        first = named(each.wanted.config.datacenter or "")
        troubles["failed_over", each.name] = f"{named(each.wanted.failed_over)} serves in place of {first}"
    for member in each.wanted.members if each.wanted else ():
        if isinstance(member.verdict, Rejected):
            troubles[REJECTED, _label(each, member)] = member.verdict.text
        elif isinstance(member.verdict, Excluded) and _is_damped(member):
            troubles[DAMPED, _label(each, member)] = member.verdict.text
    return troubles


def _is_damped(member: Member) -> bool:
    """Tell whether the instance would serve, did it not come and go."""
    return isinstance(member.verdict, Excluded) and member.verdict.reason is Reason.DAMPED

"""What a cycle did and found, in the log: every write once, every lasting trouble when it begins and when it ends.

Event names are constant; fields carry the rest. Nothing is announced twice, however many cycles see it.
"""

import time
from typing import Final

import structlog

from lvsctl.apply import Done, target_of
from lvsctl.core.admission import Rejected
from lvsctl.core.decision import VirtualServerDecision
from lvsctl.core.difference import Line, Sign, address_lines, line_of, remedy_of_foreign
from lvsctl.core.failover import named
from lvsctl.core.ownership import Owner
from lvsctl.core.restoration import OLD
from lvsctl.core.weighing import Effect
from lvsctl.core.words import moment
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

DECLARATION: Final = "declaration_refused"

Trouble = dict[tuple[str, str], str]
"""What is wrong, by event name and object."""

Troubles = dict[VirtualServerKey | None, Trouble]
"""The troubles of each virtual server that has any, and of what is no virtual server's."""

log = structlog.get_logger()


class Announcer:
    """Remembers what was announced, so that only changes are."""

    def __init__(self) -> None:
        self._troubles: Troubles = {}
        self._plan: tuple[Line, ...] = ()
        self._overrides: dict[tuple[str, str], Effect] = {}

    def cycle(self, cycle: Cycle, *, planned: bool = False) -> None:
        """Log what `cycle` did, and what troubles began or ended with it; `planned` logs what it would have done."""
        for done in cycle.done:
            _announce_step(done, cycle)
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
        for address in cycle.added_addresses:
            log.info("virtual_address_added", address=str(address))
        for address in cycle.removed_addresses:
            log.info("virtual_address_removed", address=str(address))
        troubles, only = _troubles(cycle), cycle.only
        if only is not None:
            troubles |= {key: each for key, each in self._troubles.items() if key is not None and key not in only}
            known = self._troubles.get(None, {}).items()  # what is declared is a matter of cycles about everything
            troubles[None] |= {place: text for place, text in known if place[0] == DECLARATION}
        self._announce_troubles(troubles)

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
        over = set(wanted)
        if cycle.only is None:  # and of what is no virtual server any more
            over |= {name for name, _ in self._overrides} - cycle.look.config.virtual_servers.keys()
        gone = [place for place in self._overrides if place not in found and place[0] in over]
        for name, selector in gone:
            override = self._overrides.pop((name, selector)).override
            why = "its time is over" if override.until is not None and override.until <= time.time() else "cleared"
            log.info("override_over", name=name, selector=selector, share=str(override.share), by=override.by, why=why)
        self._overrides |= found

    def _announce_troubles(self, troubles: "Troubles") -> None:
        before, now = _flat(self._troubles), _flat(troubles)
        for (event, name), text in now.items():
            if before.get((event, name)) != text:
                log.warning(event, name=name, why=text)
        for event, name in before.keys() - now.keys():
            log.info("trouble_over", name=name, trouble=event)
        self._troubles = troubles


def _override_fields(effect: Effect) -> dict[str, str]:
    """Return what the log says of an override."""
    override = effect.override
    until = "cleared" if override.until is None else moment(override.until)
    fields = {"share": str(override.share), "until": until, "by": override.by, "reason": override.reason}
    return fields | ({"why_not": effect.why_not} if effect.why_not else {})


def _announce_step(done: Done, cycle: Cycle) -> None:
    step = done.step
    line = line_of(step, cycle.look.decision.virtual_servers[step.key])
    fields = _fields(line)
    if done.refused is not None:
        attempt = cycle.refusals[target_of(step)].attempts
        log.error("kernel_refused", **fields, error=str(done.refused), attempt=attempt)
    elif isinstance(step.request, SetRealServer) and line.sign is Sign.REMOVE:
        log.info("real_server_quiesced", **fields)
    else:
        log.info(EVENTS[type(step.request)], **fields)


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


def _flat(troubles: Troubles) -> Trouble:
    return {name: text for each in troubles.values() for name, text in each.items()}


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
        release = f"; lvsctl release {each.name} lets go" if each.hold.floor.least else ""
        troubles["hold", each.name] = f"{each.hold.why}; {kept} kept{release}"
    if each.owner is Owner.FOREIGN:
        why = f"{each.key} exists, is not ours, is not as wanted; {remedy_of_foreign(each)}"
        troubles["foreign_in_the_way", each.name] = why
    if each.wanted and each.wanted.failed_over:
        first = named(each.wanted.config.datacenter or "")
        troubles["failed_over", each.name] = f"{named(each.wanted.failed_over)} serves in place of {first}"
    for member in each.wanted.members if each.wanted else ():
        if isinstance(member.verdict, Rejected):
            source = member.source
            label = f"{each.name}: {source.instance_id} on {source.node}"
            troubles["instance_rejected", label] = member.verdict.text
    return troubles

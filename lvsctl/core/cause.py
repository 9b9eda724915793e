"""Why a step is taken, in a constant word and a sentence.

Pure. What tells a change in Consul from a hand in the kernel is the ledger: a table that differs from what we last
wrote was changed by somebody else, a wish that differs from it was changed in Consul or in the configuration.
"""

import enum
from collections.abc import Iterator
from typing import Final

import attrs

from lvsctl.config import Declaration
from lvsctl.core.admission import Admitted, Excluded, Reason, Rejected
from lvsctl.core.desired import Member
from lvsctl.core.drain import Drained
from lvsctl.core.instance import Instance
from lvsctl.core.words import word
from netlink.types import RealServer, TableEntry, VirtualServer


class Kind(enum.Enum):
    """The constant word for a cause, in logs and JSON."""

    NEW = "new"
    RETURNED = "returned"
    CHECK = "check"
    MAINTENANCE = "maintenance"
    DEREGISTERED = "deregistered"
    FILTERED = "filtered"
    FAILOVER = "failover"
    DAMPED = "damped"
    REJECTED = "rejected"
    WEIGHT = "weight"
    CONFIGURATION = "configuration"
    DRIFT = "drift"
    DRAIN = "drain"
    HELD = "held"
    FALLBACK = "fallback"
    OVERRIDE = "override"
    SLOW_START = "slow-start"
    UNKNOWN = "unknown"


@attrs.frozen(kw_only=True)
class Cause:
    """Why something is as it is, or is about to change; `text` may hold strings from Consul, unescaped."""

    kind: Kind
    text: str


EXCLUSIONS = {
    Reason.CRITICAL: Kind.CHECK,
    Reason.WARNING: Kind.CHECK,
    Reason.MAINTENANCE: Kind.MAINTENANCE,
    Reason.DRAINED: Kind.OVERRIDE,
    Reason.TAGS: Kind.FILTERED,
    Reason.META: Kind.FILTERED,
    Reason.DATACENTER: Kind.FAILOVER,
    Reason.DAMPED: Kind.DAMPED,
}


UNDECLARED: Final = "no longer declared in Consul, or not allowed by [discovery]"


def cause_of_virtual_server(
    wanted: VirtualServer | None,
    observed: VirtualServer | None,
    written: TableEntry | None,
    *,
    declaration: Declaration | None = None,
) -> Cause:
    """Return why virtual server `observed` becomes `wanted`; None stands for one that is not there.

    `declaration` is what a Consul service declared; None where the configuration file has or had the virtual server.
    """
    if wanted is None:
        return Cause(kind=Kind.CONFIGURATION, text=UNDECLARED if declaration else "no longer in the configuration")
    if observed is None and written is not None:
        return Cause(kind=Kind.DRIFT, text="was in the kernel and is gone: a reboot, or deleted by hand")
    if observed is None:
        who = f"declared by Consul service {declaration.service!r}" if declaration else "new in the configuration"
        return Cause(kind=Kind.NEW, text=who)
    if written is not None and written.virtual_server == wanted:
        return Cause(kind=Kind.DRIFT, text=f"changed by hand: {', '.join(changes(wanted, observed))}")
    return Cause(kind=Kind.CONFIGURATION, text=f"configuration changed: {', '.join(changes(observed, wanted))}")


def cause_of_addition(
    member: Member | None, written: RealServer | None, *, table_lost: bool, weight: int = 0, override: str = ""
) -> Cause:
    """Return why a real server is added; `table_lost` when its whole virtual server has to be put back.

    `override` is what counts before its own weight, so that it comes with `weight`; empty for nothing.
    """
    if written is not None and written.weight > 0:
        text = "put back with its virtual server" if table_lost else "was in the kernel and is gone: deleted by hand"
        return Cause(kind=Kind.DRIFT, text=text)
    weighed = f"; weight {weight} for {override}" if override else ""
    return Cause(kind=Kind.NEW, text=f"passing in Consul: {name_of(member)}{weighed}")


def cause_of_change(
    intended: RealServer,
    observed: RealServer,
    written: RealServer | None,
    *,
    member: Member | None,
    returning: bool,
    override: str = "",
    unweighed: str = "",
) -> Cause:
    """Return why a real server that stays is changed.

    `returning` when it was on its way out; `override` is what counts before its own weight, `unweighed` what did until
    now; both are empty for nothing.
    """
    if returning:
        return Cause(kind=Kind.RETURNED, text=f"passing again: {name_of(member)}")
    if written == intended:
        return Cause(kind=Kind.DRIFT, text=f"changed by hand: {', '.join(changes(intended, observed))}")
    if attrs.evolve(intended, weight=observed.weight) == observed:
        if why := override or unweighed:
            text = f"weight {intended.weight}, was {observed.weight}, for {why}: {name_of(member)}"
            return Cause(kind=Kind.OVERRIDE, text=text)
        text = f"weight in Consul is {intended.weight}, was {observed.weight}: {name_of(member)}"
        return Cause(kind=Kind.WEIGHT, text=text)
    return Cause(kind=Kind.CONFIGURATION, text=f"configuration changed: {', '.join(changes(observed, intended))}")


def cause_of_leaving(
    member: Member | None,
    written: RealServer | None,
    *,
    configured: bool,
    declaration: Declaration | None = None,
    unasked: str = "",
) -> Cause:
    """Return why a real server has to go; `configured` tells whether its virtual server is still wanted.

    `unasked` is why Consul is not asked any more for what it came from; empty where it is.
    """
    if not configured:
        why = UNDECLARED if declaration else "no longer in the configuration"
        return Cause(kind=Kind.CONFIGURATION, text=f"its virtual server is {why}")
    if member is None and written is None:
        return Cause(kind=Kind.DRIFT, text="added by hand: neither Consul nor lvsctl knows it")
    if member is None:
        return cause_of_disappearance(unasked)
    return cause_of_absence(member)


def cause_of_disappearance(unasked: str) -> Cause:
    """Return why what was in Consul's answers is in none: `unasked`, or that it was deregistered."""
    if unasked:
        return Cause(kind=Kind.CONFIGURATION, text=unasked)
    return Cause(kind=Kind.DEREGISTERED, text="no longer registered in Consul")


def cause_of_absence(member: Member) -> Cause:
    """Return why the instance of `member` does not serve (or that it does)."""
    match member.verdict:
        case Admitted():
            return Cause(kind=Kind.NEW, text=f"passing in Consul: {name_of(member)}")
        case Excluded(reason=reason, text=text):
            return Cause(kind=EXCLUSIONS[reason], text=f"{name_of(member)}: {text}")
        case Rejected(text=text):
            return Cause(kind=Kind.REJECTED, text=f"{name_of(member)}: {text}")


def cause_of_fallback(*, named: bool, needed: bool) -> Cause:
    """Return why the fallback comes, is there, or goes: `needed` where nothing else serves, `named` while it is it."""
    if not named:
        return Cause(kind=Kind.CONFIGURATION, text="no longer the fallback in the configuration")
    text = "nothing else serves: the fallback" if needed else "the fallback is not needed: others serve"
    return Cause(kind=Kind.FALLBACK, text=text)


def cause_of_deletion(drained: Drained, leaving: Cause, *, timeout: float, now: float) -> Cause:
    """Return why a real server that was leaving for `leaving` is deleted now."""
    if timeout == 0:
        return Cause(kind=Kind.DRAIN, text=f"not drained, for drain_timeout is 0 s; {leaving.text}")
    if drained.active == 0 and drained.closing == 0:
        return Cause(kind=Kind.DRAIN, text=f"drained in {max(0.0, now - drained.since):.0f} s; {leaving.text}")
    left = f"{drained.active} active and {drained.closing} closing connections left"
    return Cause(kind=Kind.DRAIN, text=f"drain timeout of {timeout:g} s is over with {left}; {leaving.text}")


def name_of(member: Member | None) -> str:
    """Return `instance 'reco-1' on node 'app1'`, with its datacenter where that is not the agent's own."""
    if member is None:
        return "an instance unknown to Consul"
    source = member.source
    if isinstance(source, Instance) or source.instance_id:
        place = f" in datacenter {member.datacenter!r}" if member.datacenter else ""
        return f"instance {source.instance_id!r} on node {source.node!r}{place}"
    return "an unreadable entry"


def changes(before: attrs.AttrsInstance, after: attrs.AttrsInstance) -> Iterator[str]:
    """Yield `weight 1 -> 5` for each field that differs."""
    for field in attrs.fields(type(before)):
        was, is_now = getattr(before, field.name), getattr(after, field.name)
        if was != is_now:
            yield f"{field.name.replace('_', ' ')} {word(was)} -> {word(is_now)}"

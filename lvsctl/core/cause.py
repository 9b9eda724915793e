"""Why a step is taken, in a constant word and a sentence.

Pure. What tells a change in Consul from a hand in the kernel is the ledger: a table that differs from what we last
wrote was changed by somebody else, a wish that differs from it was changed in Consul or in the configuration.
"""

import enum
from collections.abc import Iterator
from typing import Final

import attrs

from lvsctl.config import Declaration
from lvsctl.core.admission import Admitted, Excluded, Reason, Rejected, failing_text
from lvsctl.core.desired import Member
from lvsctl.core.drain import Drained
from lvsctl.core.instance import Health, Instance
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


GONE: Final = {kind.value: kind for kind in (Kind.DEREGISTERED, Kind.REJECTED)}
BY_HAND: Final = "added by hand: neither Consul nor lvsctl knows it"
UNREGISTERED: Final = "no longer registered in Consul"
UNDECLARED: Final = "no longer declared in Consul, or not allowed by [discovery]"
UNCONFIGURED: Final = "no longer in the configuration"


def cause_of_virtual_server(
    wanted: VirtualServer | None,
    observed: VirtualServer | None,
    written: TableEntry | None,
    *,
    unwanted: str = UNCONFIGURED,
    declaration: Declaration | None = None,
) -> Cause:
    """Return why virtual server `observed` becomes `wanted`; None stands for one that is not there.

    `unwanted` is why nothing is wanted there, in words; `declaration` is what a Consul service declared; None where
    the configuration file has or had the virtual server.
    """
    if wanted is None:
        return Cause(kind=Kind.CONFIGURATION, text=unwanted)
    if observed is None and written is not None:
        return Cause(kind=Kind.DRIFT, text="was in the kernel and is gone: a reboot, or deleted by hand")
    if observed is None:
        who = f"declared by Consul service {declaration.service!r}" if declaration else "new in the configuration"
        return Cause(kind=Kind.NEW, text=who)
    if written is not None and written.virtual_server == wanted:
        return Cause(kind=Kind.DRIFT, text=f"changed by hand: {', '.join(changes(wanted, observed))}")
    return Cause(kind=Kind.CONFIGURATION, text=f"configuration changed: {', '.join(changes(observed, wanted))}")


def cause_of_addition(
    member: Member | None,
    written: RealServer | None,
    *,
    table_lost: bool,
    leaving: bool = False,
    weight: int = 0,
    override: str = "",
) -> Cause:
    """Return why a real server is added; `table_lost` when its whole virtual server has to be put back.

    `leaving` when it was on its way out: that it is gone is no wonder then. `override` is what counts before its own
    weight, so that it comes with `weight`; empty for nothing.
    """
    if written is not None and not leaving:
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
    held: bool = False,
) -> Cause:
    """Return why a real server that stays is changed.

    `returning` when it was on its way out; `held` when it stays although it should not; `override` is what counts
    before its own weight, `unweighed` what did until now; both are empty for nothing.
    """
    if returning:
        return Cause(kind=Kind.RETURNED, text=f"passing again: {name_of(member)}")
    if written == intended:
        return Cause(kind=Kind.DRIFT, text=f"changed by hand: {', '.join(changes(intended, observed))}")
    if attrs.evolve(intended, weight=observed.weight) == observed:
        if held:
            text = f"weight {intended.weight}, was {observed.weight}, in proportion to the others while it is held"
            return Cause(kind=Kind.HELD, text=f"{text}: {override}" if override else text)
        if why := override or unweighed:
            text = f"weight {intended.weight}, was {observed.weight}, for {why}: {name_of(member)}"
            return Cause(kind=Kind.OVERRIDE, text=text)
        return _cause_of_own_weight(intended.weight, observed.weight, member)
    return Cause(kind=Kind.CONFIGURATION, text=f"configuration changed: {', '.join(changes(observed, intended))}")


def _cause_of_own_weight(weight: int, before: int, member: Member | None) -> Cause:
    """Return why the weight that an instance has of its own is another one: its check warns, or Consul says so."""
    source = member.source if member else None
    if isinstance(source, Instance) and source.health is Health.WARNING:
        text = f"weight {weight}, was {before}, while it warns: {name_of(member)}: {failing_text(source.worst_check)}"
        return Cause(kind=Kind.CHECK, text=text)
    if member is not None and isinstance(member.verdict, Admitted) and member.verdict.note:
        text = f"weight {weight}, was {before}: {name_of(member)}: {member.verdict.note}"
        return Cause(kind=Kind.WEIGHT, text=text)
    return Cause(kind=Kind.WEIGHT, text=f"weight in Consul is {weight}, was {before}: {name_of(member)}")


def cause_of_quiescing(
    intended: RealServer, observed: RealServer, written: RealServer | None, leaving: Cause, *, known: bool
) -> Cause:
    """Return why what leaves for `leaving` is quiesced; `known` when it was on its way out before."""
    if not known or written != intended:
        return leaving
    hand = f"changed by hand: {', '.join(changes(intended, observed))}"
    return Cause(kind=Kind.DRIFT, text=f"{hand}, and it leaves; {leaving.text}")


def cause_of_leaving(
    member: Member | None,
    written: RealServer | None,
    *,
    unwanted: str = "",
    gone: str = "",
) -> Cause:
    """Return why a real server has to go.

    `unwanted` is why its virtual server has to, empty where that stays; `gone` is why it is in none of Consul's
    answers, as `cause_of_disappearance` takes it, or why its instance is left out since the configuration changed.
    """
    if unwanted:
        return Cause(kind=Kind.CONFIGURATION, text=f"its virtual server is {unwanted}")
    if member is None and written is None:
        return Cause(kind=Kind.DRIFT, text=BY_HAND)
    if member is None:
        return cause_of_disappearance(gone)
    if gone:
        return Cause(kind=Kind.CONFIGURATION, text=f"{gone}: {cause_of_absence(member).text}")
    return cause_of_absence(member)


def of_kind(kind: Kind, text: str) -> str:
    """Return `text` so that `cause_of_disappearance` knows its kind, which is one of GONE."""
    return f"{kind.value}: {text}"


def cause_of_disappearance(why: str) -> Cause:
    """Return why what is in none of Consul's answers has to go: `why`, or that it was deregistered.

    What has no kind is the configuration's.
    """
    kind, colon, text = why.partition(": ")
    if colon and kind in GONE:
        return Cause(kind=GONE[kind], text=text)
    if why == BY_HAND:
        return Cause(kind=Kind.DRIFT, text=BY_HAND)
    if why:
        return Cause(kind=Kind.CONFIGURATION, text=why)
    return Cause(kind=Kind.DEREGISTERED, text=UNREGISTERED)


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

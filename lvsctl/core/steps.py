"""The steps of one virtual server, each with why it is made.

Pure. `plan` says which requests there are and in what order; the cause is found in what was wanted, in what the ledger
has of before, and in what stands in the kernel.
"""

from collections.abc import Sequence

import attrs

from lvsctl.core.admission import parse_address
from lvsctl.core.cause import (
    Cause,
    Kind,
    cause_of_addition,
    cause_of_change,
    cause_of_deletion,
    cause_of_fallback,
    cause_of_leaving,
    cause_of_quiescing,
    cause_of_virtual_server,
    name_of,
)
from lvsctl.core.decision import Step, VirtualServerDecision
from lvsctl.core.desired import Member
from lvsctl.core.drain import Drained
from lvsctl.core.fallback import fallbacks
from lvsctl.core.instance import Instance
from lvsctl.core.ownership import LedgerEntry
from lvsctl.core.plan import plan_virtual_server
from lvsctl.core.provenance import why_unweighed
from lvsctl.core.ramp_cause import beginning, cause_of_step, whole_of, written_whole
from lvsctl.core.weighing import why_weighed
from netlink.requests import AddRealServer, DeleteRealServer, SetRealServer, TableRequest
from netlink.types import RealServer, RealServerKey


def steps_of(decision: VirtualServerDecision, entry: LedgerEntry | None, *, now: float) -> Sequence[Step]:
    """Return what makes of the observed virtual server the intended one; `entry` is what the ledger has of it."""
    return [
        Step(
            name=decision.name,
            key=decision.key,
            request=request,
            cause=_cause(request, decision, entry, now=now),
        )
        for request in plan_virtual_server(decision.intended, decision.observed)
    ]


def _cause(request: TableRequest, decision: VirtualServerDecision, entry: LedgerEntry | None, *, now: float) -> Cause:
    match request:
        case AddRealServer(real_server=RealServer(key=key)) | SetRealServer(real_server=RealServer(key=key)) if (
            key == decision.fallback
        ):
            return cause_of_fallback(named=True, needed=True)
        case AddRealServer(real_server=real_server):
            cause = cause_of_addition(
                _member(decision, real_server.key),
                _written(entry, real_server.key),
                table_lost=decision.observed is None,
                leaving=bool(entry and real_server.key in entry.draining),
                weight=whole_of(real_server, decision).weight,
                override=_why_weighed(decision, real_server.key),
            )
            return beginning(_or_undrained(cause, decision, real_server.key), real_server, decision, now)
        case SetRealServer(real_server=real_server) if real_server.key in decision.leaving:
            return cause_of_quiescing(
                real_server,
                decision.observed.real_servers[real_server.key] if decision.observed else real_server,
                _written(entry, real_server.key),
                decision.leaving_causes[real_server.key],
                known=bool(entry and real_server.key in entry.draining),
            )
        case SetRealServer(real_server=real_server):
            cause = _cause_of_change(real_server, decision, entry, now=now)
            return _or_undrained(cause, decision, real_server.key)
        case DeleteRealServer(key=key):
            state = decision.leaving[key]
            assert isinstance(state, Drained)  # noqa: S101  # what drains still is never deleted
            leaving = decision.leaving_causes[key]
            if key in decision.undrained:
                return Cause(kind=leaving.kind, text=f"not drained, {decision.undrained[key]}; {leaving.text}")
            return cause_of_deletion(state, leaving, timeout=decision.drain_timeout, now=now)
        case _:
            intended, observed = decision.intended, decision.observed
            return cause_of_virtual_server(
                intended.virtual_server if intended else None,
                observed.virtual_server if observed else None,
                entry.written if entry else None,
                unwanted=decision.why_unwanted,
                declaration=decision.declaration,
            )


def _or_undrained(cause: Cause, decision: VirtualServerDecision, key: RealServerKey) -> Cause:
    """Return `cause`, or that an operator's drain has just ended where that is why a real server comes back."""
    member = _member(decision, key)
    if cause.kind not in (Kind.NEW, Kind.RETURNED) or decision.wanted is None or member is None:
        return cause
    if not isinstance(member.source, Instance):
        return cause
    order = decision.wanted.drains.ended_of(member.source, parse_address(member.source.address), key)
    return Cause(kind=Kind.OVERRIDE, text=f"no longer {order.words_after}: {name_of(member)}") if order else cause


def _cause_of_change(
    intended: RealServer, decision: VirtualServerDecision, entry: LedgerEntry | None, *, now: float
) -> Cause:
    observed = decision.observed.real_servers[intended.key] if decision.observed else intended
    written, member = _written(entry, intended.key), _member(decision, intended.key)
    whole, meant = whole_of(intended, decision), written_whole(written, entry)
    if entry is not None and whole == meant and written != intended:
        if observed == written:
            return cause_of_step(intended, decision, entry, member, now)
        written = intended  # what differs beside the step is a hand's
    cause = cause_of_change(
        intended if written == intended else whole,
        meant if written == observed and meant is not None else observed,
        written,
        member=member,
        override=_why_weighed(decision, intended.key),
        unweighed=_why_unweighed(decision, intended.key, entry, now=now),
        returning=bool(entry and intended.key in entry.draining),
        held=intended.key in decision.held,
    )
    return beginning(cause, intended, decision, now) if observed.weight == 0 else cause


def _why_weighed(decision: VirtualServerDecision, key: RealServerKey) -> str:
    return why_weighed(decision.wanted.weighed, key) if decision.wanted else ""


def _why_unweighed(
    decision: VirtualServerDecision, key: RealServerKey, entry: LedgerEntry | None, *, now: float
) -> str:
    member = _member(decision, key)
    if decision.wanted is None or entry is None or member is None or not isinstance(member.source, Instance):
        return ""
    effects, opened = decision.wanted.weighed.effects, decision.overridable
    return why_unweighed(entry.provenance, effects, member.source, now, opened=opened)


def _member(decision: VirtualServerDecision, key: RealServerKey) -> Member | None:
    return decision.wanted.by_key.get(key) if decision.wanted else None


def _written(entry: LedgerEntry | None, key: RealServerKey) -> RealServer | None:
    return entry.written.real_servers.get(key) if entry and entry.written else None


def why_leaving(key: RealServerKey, decision: VirtualServerDecision, entry: LedgerEntry | None) -> Cause:
    """Return why real server `key` has to go."""
    member = decision.wanted.by_key.get(key) if decision.wanted else None
    if decision.wanted is not None and key in fallbacks(decision.wanted, entry):
        return cause_of_fallback(named=key == decision.wanted.config.fallback, needed=False)
    cause = cause_of_leaving(
        member,
        _written(entry, key),
        unwanted=decision.why_unwanted if decision.wanted is None else "",
        gone=decision.why_gone(key),
    )
    if decision.opinion is not None and key in decision.opinion.dead & decision.hold.suspects:
        return attrs.evolve(cause, text=f"{cause.text}; it takes no connection of lvsctl's either")
    return (
        attrs.evolve(cause, text=f"released by an operator; {cause.text}") if key in decision.hold.released else cause
    )

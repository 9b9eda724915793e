"""Everything one cycle decides, as one value: a function of configuration, answers, ledger, clock and live table.

Pure. `reconcile` reads the inputs and carries the outcome out; `diff` and `status` only show it. Each virtual server
is decided on its own, so that nothing about one can hurt another.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

import attrs

from lvsctl.config import Config, Declaration
from lvsctl.core import guard
from lvsctl.core.admission import Excluded, Limits, Reason
from lvsctl.core.cause import (
    Cause,
    cause_of_addition,
    cause_of_change,
    cause_of_deletion,
    cause_of_leaving,
    cause_of_virtual_server,
)
from lvsctl.core.desired import Member, Wanted, desired, limits_of
from lvsctl.core.drain import Drained, Draining, drain
from lvsctl.core.instance import Answers, Instance
from lvsctl.core.override import NO_OVERRIDES, Overrides, next_end, standing
from lvsctl.core.ownership import Ledger, LedgerEntry, Owner, foreign, is_still_ours, owner_of
from lvsctl.core.plan import plan_virtual_server
from lvsctl.core.provenance import why_unasked, why_unweighed
from lvsctl.core.restoration import stands_alone
from lvsctl.core.share import in_proportion
from lvsctl.core.weighing import why_weighed
from netlink.requests import AddRealServer, DeleteRealServer, SetRealServer, TableRequest
from netlink.types import (
    Address,
    Observed,
    RealServer,
    RealServerKey,
    RealServers,
    RealServerUsage,
    TableEntry,
    VirtualServerKey,
)

NO_USAGE = RealServerUsage()
DRAIN_POLL = 1.0  # seconds between looks at the connections of what drains


@attrs.frozen(kw_only=True)
class Step:
    """One change to the kernel and why it is made."""

    name: str  # of the virtual server in the configuration
    key: VirtualServerKey
    request: TableRequest
    cause: Cause


@attrs.frozen(kw_only=True)
class VirtualServerDecision:
    """What is to become of one virtual server of ours."""

    name: str
    key: VirtualServerKey
    wanted: Wanted | None  # None: no longer configured
    owner: Owner
    observed: TableEntry | None
    intended: TableEntry | None = None  # what the kernel shall have after the steps; None: nothing
    held: RealServers = attrs.field(factory=dict)
    leaving: Mapping[RealServerKey, Draining | Drained] = attrs.field(factory=dict)
    leaving_causes: Mapping[RealServerKey, Cause] = attrs.field(factory=dict)
    steps: tuple[Step, ...] = ()
    drain_timeout: float = 0.0
    undrained: frozenset[RealServerKey] = frozenset()  # not drained when they leave
    remembered: LedgerEntry | None = attrs.field(default=None, eq=False, repr=False)  # what the ledger had of it

    @property
    def declaration(self) -> Declaration | None:
        """Return what a Consul service declared; None where it is or was in the file."""
        if self.wanted is not None:
            return self.wanted.config.declaration
        return self.remembered.declaration if self.remembered else None

    def why_unasked(self, key: RealServerKey) -> str:
        """Return why Consul is not asked any more for what real server `key` came from; empty where it is."""
        if self.wanted is None or self.remembered is None or key in self.wanted.by_key:
            return ""
        before = self.remembered.provenance
        return before.left.get(key) or why_unasked(before, self.wanted.queries)

    @property
    def draining(self) -> Mapping[RealServerKey, Draining]:
        """Return the real servers that stay quiesced for now."""
        return {key: state for key, state in self.leaving.items() if isinstance(state, Draining)}


@attrs.frozen(kw_only=True)
class Decision:
    """What one cycle decided."""

    virtual_servers: Mapping[VirtualServerKey, VirtualServerDecision]
    waiting: frozenset[str]  # configured, but Consul has not answered for them yet: left exactly as they are
    foreign: frozenset[VirtualServerKey]  # in the kernel and not ours
    disowned: frozenset[VirtualServerKey]  # in the ledger, but what stands there now is somebody else's
    addresses: frozenset[Address]  # virtual addresses that virtual servers in the kernel will need
    look_again: float | None  # Unix seconds by which to decide again although nothing changed
    override_ends: float | None  # Unix seconds when the next override is over
    limits: Limits = attrs.field(eq=False, repr=False)  # by which instances were judged
    templates_expire: bool = attrs.field(eq=False, repr=False)

    @property
    def steps(self) -> Sequence[Step]:
        """Return all steps, virtual server by virtual server: those that bring come before those that only remove."""
        changing = [each for each in self.virtual_servers.values() if each.steps]
        ordered = sorted(changing, key=lambda each: (each.intended is None, each.key))
        return [step for each in ordered for step in each.steps]


def decide(
    config: Config,
    answers: Answers,
    observed: Observed,
    ledger: Ledger,
    *,
    own_addresses: AbstractSet[Address],
    templates_expire: bool,
    now: float,
    before: Decision | None = None,
    limits: Limits | None = None,
    overrides: Overrides = NO_OVERRIDES,
) -> Decision:
    """Return what to do about every virtual server.

    `own_addresses` are the director's, `now` is Unix seconds. `templates_expire` is the kernel's setting
    `expire_quiescent_template`: whether clients with persistence leave a quiesced real server. `before` is an earlier
    decision: it spares work where nothing has changed since, and changes nothing.
    """
    limits = limits or limits_of(config, own_addresses)
    if before is not None and (before.limits, before.templates_expire) != (limits, templates_expire):
        before = None
    known = before.virtual_servers if before else {}
    limits = before.limits if before else limits
    wanted = desired(
        config,
        answers,
        limits,
        {key: each.wanted for key, each in known.items() if each.wanted},
        standing(overrides, now),
        table=observed.table,
        failed_over={key: entry.failed_over for key, entry in ledger.items() if entry.failed_over},
        peaks={key: entry.peaks for key, entry in ledger.items() if entry.peaks},
        now=now,
    )
    decisions = {}
    for each in wanted.values():
        key = each.config.key
        same = _same_as_before(known.get(key), each, observed.table.get(key), ledger.get(key))
        decisions[key] = same or _decide_configured(each, observed, ledger, templates_expire=templates_expire, now=now)
    waiting = frozenset(config.virtual_servers.keys() - wanted.keys())
    configured = {virtual_server.key for virtual_server in config.virtual_servers.values()}
    left = {key: ledger[key] for key in ledger.keys() & observed.table.keys() - configured}
    disowned = frozenset(key for key, entry in left.items() if not is_still_ours(observed.table[key], entry))
    staying = {key for key, entry in left.items() if entry.name in waiting or stands_alone(answers)}
    for key, entry in left.items():
        if key not in disowned and key not in staying:
            decisions[key] = _decide_removed(key, entry, observed, now=now)
    adopted = {key for key, each in decisions.items() if each.owner is Owner.ADOPTED}
    return Decision(
        virtual_servers=decisions,
        waiting=waiting,
        foreign=foreign(observed.table, (ledger.keys() - disowned) | adopted),
        disowned=disowned,
        addresses=_addresses(decisions, observed, (_left_alone(config, waiting, ledger) | staying) - disowned),
        look_again=now + DRAIN_POLL if any(each.draining for each in decisions.values()) else None,
        override_ends=next_end(overrides, now),
        limits=limits,
        templates_expire=templates_expire,
    )


def _same_as_before(
    before: VirtualServerDecision | None, wanted: Wanted, observed: TableEntry | None, entry: LedgerEntry | None
) -> VirtualServerDecision | None:
    """Return `before` where it was made of the same; what leaves is decided by the clock and by connections too."""
    if before is None or before.leaving or before.wanted is not wanted or before.remembered is not entry:
        return None
    return before if before.observed == observed else None


def _decide_configured(
    wanted: Wanted, observed: Observed, ledger: Ledger, *, templates_expire: bool, now: float
) -> VirtualServerDecision:
    key = wanted.config.key
    current = observed.table.get(key)
    owner = owner_of(wanted.entry, current, ledger)
    if owner is Owner.FOREIGN:
        return VirtualServerDecision(
            name=wanted.config.name,
            key=key,
            wanted=wanted,
            owner=owner,
            intended=current,
            observed=current,
            remembered=ledger.get(key),
        )
    there = current.real_servers if current else {}
    entry = ledger.get(key)
    written = entry.written.real_servers if entry and entry.written else {}
    held = in_proportion(guard.held(wanted, there, written), wanted.entry.real_servers, written)
    return _decide_leaving(
        VirtualServerDecision(
            name=wanted.config.name,
            key=key,
            wanted=wanted,
            owner=owner,
            observed=current,
            held=held,
            remembered=entry,
            drain_timeout=wanted.config.drain_timeout,
            undrained=frozenset() if templates_expire else _undrainable(wanted),
        ),
        attrs.evolve(wanted.entry, real_servers={**wanted.entry.real_servers, **held}) if held else wanted.entry,
        observed,
        entry,
        now=now,
    )


def _undrainable(wanted: Wanted) -> frozenset[RealServerKey]:
    """Return the real servers that would go on getting clients however long they are quiesced, and are failing.

    A persistent virtual server keeps its clients where they are. One that leaves on purpose still answers them until
    it is deleted; one whose check is critical may not, so it is not worth waiting for.
    """
    if wanted.config.persistence is None:
        return frozenset()
    return frozenset(
        key
        for key, member in wanted.by_key.items()
        if isinstance(member.verdict, Excluded) and member.verdict.reason is Reason.CRITICAL
    )


def _decide_removed(
    key: VirtualServerKey, entry: LedgerEntry, observed: Observed, *, now: float
) -> VirtualServerDecision:
    """Return the way out of a virtual server of ours that is no longer configured: drain all, then delete."""
    current = observed.table[key]
    decision = _decide_leaving(
        VirtualServerDecision(
            name=entry.name,
            key=key,
            wanted=None,
            owner=Owner.OURS,
            observed=current,
            drain_timeout=entry.drain_timeout,
            remembered=entry,
        ),
        attrs.evolve(current, real_servers={}),
        observed,
        entry,
        now=now,
    )
    if decision.draining:
        return decision
    cause = cause_of_virtual_server(None, current.virtual_server, entry.written, declaration=entry.declaration)
    requests = plan_virtual_server(None, current)
    steps = tuple(Step(name=entry.name, key=key, request=request, cause=cause) for request in requests)
    return attrs.evolve(decision, intended=None, steps=steps)


def _decide_leaving(
    decision: VirtualServerDecision,
    intended: TableEntry,
    observed: Observed,
    entry: LedgerEntry | None,
    *,
    now: float,
) -> VirtualServerDecision:
    """Return `decision` with what `intended` lacks drained step by step, and with the steps that follow from it."""
    there = decision.observed.real_servers if decision.observed else {}
    staying = intended.real_servers
    since = entry.draining if entry else {}
    usage = observed.usage.get(decision.key, {})
    leaving = {
        key: drain(
            real_server,
            usage.get(key, NO_USAGE),
            since=since.get(key),
            timeout=0.0 if key in decision.undrained else decision.drain_timeout,
            now=now,
        )
        for key, real_server in there.items()
        if key not in staying
    }
    quiesced = {
        key: attrs.evolve(there[key], weight=0) for key, state in leaving.items() if isinstance(state, Draining)
    }
    if quiesced:
        intended = attrs.evolve(intended, real_servers={**staying, **quiesced})
    decision = attrs.evolve(
        decision,
        leaving=leaving,
        leaving_causes={key: _cause_of_leaving(key, decision, entry) for key in leaving},
        intended=decision.observed if decision.observed == intended else intended,  # the same is kept once
    )
    return attrs.evolve(decision, steps=tuple(_steps(decision, entry, now=now)))


def _cause_of_leaving(key: RealServerKey, decision: VirtualServerDecision, entry: LedgerEntry | None) -> Cause:
    member = decision.wanted.by_key.get(key) if decision.wanted else None
    configured = decision.wanted is not None
    return cause_of_leaving(
        member,
        _written(entry, key),
        configured=configured,
        declaration=decision.declaration,
        unasked=decision.why_unasked(key),
    )


def _steps(decision: VirtualServerDecision, entry: LedgerEntry | None, *, now: float) -> Sequence[Step]:
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
        case AddRealServer(real_server=real_server):
            return cause_of_addition(
                _member(decision, real_server.key),
                _written(entry, real_server.key),
                table_lost=decision.observed is None,
                weight=real_server.weight,
                override=_why_weighed(decision, real_server.key),
            )
        case SetRealServer(real_server=real_server) if real_server.key in decision.leaving:
            return decision.leaving_causes[real_server.key]
        case SetRealServer(real_server=real_server):
            return _cause_of_change(real_server, decision, entry, now=now)
        case DeleteRealServer(key=key):
            state = decision.leaving[key]
            assert isinstance(state, Drained)  # noqa: S101  # what drains still is never deleted
            leaving = decision.leaving_causes[key]
            if key in decision.undrained:
                return Cause(kind=leaving.kind, text=f"not drained, persistence would keep its clients; {leaving.text}")
            return cause_of_deletion(state, leaving, timeout=decision.drain_timeout, now=now)
        case _:
            intended, observed = decision.intended, decision.observed
            return cause_of_virtual_server(
                intended.virtual_server if intended else None,
                observed.virtual_server if observed else None,
                entry.written if entry else None,
                declaration=decision.declaration,
            )


def _cause_of_change(
    intended: RealServer, decision: VirtualServerDecision, entry: LedgerEntry | None, *, now: float
) -> Cause:
    observed = decision.observed.real_servers[intended.key] if decision.observed else intended
    return cause_of_change(
        intended,
        observed,
        _written(entry, intended.key),
        member=_member(decision, intended.key),
        override=_why_weighed(decision, intended.key),
        unweighed=_why_unweighed(decision, intended.key, entry, now=now),
        returning=bool(entry and intended.key in entry.draining),
    )


def _why_weighed(decision: VirtualServerDecision, key: RealServerKey) -> str:
    return why_weighed(decision.wanted.weighed, key) if decision.wanted else ""


def _why_unweighed(
    decision: VirtualServerDecision, key: RealServerKey, entry: LedgerEntry | None, *, now: float
) -> str:
    member = _member(decision, key)
    if decision.wanted is None or entry is None or member is None or not isinstance(member.source, Instance):
        return ""
    return why_unweighed(entry.provenance, decision.wanted.weighed.effects, member.source, now)


def _member(decision: VirtualServerDecision, key: RealServerKey) -> Member | None:
    return decision.wanted.by_key.get(key) if decision.wanted else None


def _written(entry: LedgerEntry | None, key: RealServerKey) -> RealServer | None:
    return entry.written.real_servers.get(key) if entry and entry.written else None


def _left_alone(config: Config, waiting: AbstractSet[str], ledger: Ledger) -> AbstractSet[VirtualServerKey]:
    """Return the virtual servers of ours that wait for Consul, under their present key or a former one."""
    present = {config.virtual_servers[name].key for name in waiting}
    return {key for key, entry in ledger.items() if key in present or entry.name in waiting}


def _addresses(
    decisions: Mapping[VirtualServerKey, VirtualServerDecision],
    observed: Observed,
    left_alone: AbstractSet[VirtualServerKey],
) -> frozenset[Address]:
    """Return the addresses of the virtual servers of ours that the kernel has or is about to have."""
    keys = {key for key, each in decisions.items() if each.intended is not None and each.owner is not Owner.FOREIGN}
    keys |= left_alone & observed.table.keys()
    return frozenset(key.address for key in keys if key.address is not None)

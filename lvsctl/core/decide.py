"""What to do about every virtual server: a function of configuration, answers, ledger, clock and live table.

Pure. `reconcile` reads the inputs. Each virtual server is decided on its own, so that nothing about one can hurt
another.
"""

import functools
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import attrs

from lvsctl.config import Config, Probe
from lvsctl.core import peak
from lvsctl.core.admission import Limits
from lvsctl.core.cause import cause_of_virtual_server
from lvsctl.core.damped import damped
from lvsctl.core.decision import Decision, Step, VirtualServerDecision
from lvsctl.core.desired import Member, Wanted, desired, limits_of
from lvsctl.core.drain import NO_USAGE, Draining, drain
from lvsctl.core.fallback import fallback_of, with_fallback
from lvsctl.core.guard import guard, serves_in
from lvsctl.core.instance import Answers
from lvsctl.core.nothing import NOBODY, NOTHING
from lvsctl.core.opinion import NO_OPINION, Opinion, Opinions
from lvsctl.core.order import NO_DRAINS, NO_ORDERS, Ordered, Orders, in_force
from lvsctl.core.order import next_end as next_end_of_orders
from lvsctl.core.override import NO_OVERRIDES, Overrides, next_end, standing
from lvsctl.core.ownership import (
    NO_WORD,
    Border,
    Ledger,
    LedgerEntry,
    Owner,
    foreign,
    is_still_ours,
    ours_in,
    owner_of,
)
from lvsctl.core.plan import plan_virtual_server
from lvsctl.core.ramping import ramping, whole
from lvsctl.core.restoration import stands_alone
from lvsctl.core.served import NO_FLOOR, Floor
from lvsctl.core.steps import steps_of, why_leaving
from lvsctl.core.undrained import undrained
from lvsctl.core.velocity import Loss, limits_of_table
from lvsctl.core.whereabouts import whereabouts
from netlink.types import (
    Address,
    Observed,
    RealServerKey,
    RealServers,
    TableEntry,
    VirtualServerKey,
)

DRAIN_POLL: Final = 1.0  # seconds between looks at the connections of what drains


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
    released: AbstractSet[VirtualServerKey] = NOBODY,
    refused: Mapping[VirtualServerKey, AbstractSet[RealServerKey]] = NOTHING,
    opinions: Opinions | None = None,
    last: Decision | None = None,
    orders: Orders = NO_ORDERS,
    elsewhere: Ledger = NOTHING,
    border: Border = NO_WORD,
    connections_expire: bool = False,
) -> Decision:
    """Return what to do about every virtual server.

    `own_addresses` are the director's, `now` is Unix seconds. `templates_expire` is the kernel's setting
    `expire_quiescent_template`: whether clients with persistence leave a quiesced real server; `connections_expire` is
    `expire_nodest_conn`: whether clients leave a deleted one with their next packet. `before` is an earlier decision:
    it spares work where nothing has changed since, and changes nothing. Of the virtual servers that are `released` an
    operator has just let go of what is held. `refused` are real servers that the kernel did not take, `opinions` what
    the director itself found of some; None where it does not look. The `last` decision tells which instance is gone
    where a real server is in no answer any more; None where none is known. `elsewhere` is the ledger with the virtual
    servers of which nothing is decided here, `border` what operators have just said of whose they are, `orders` what
    they ordered before.
    """
    force = in_force(orders, now)
    limits = limits or limits_of(config, own_addresses)
    settings = templates_expire, connections_expire
    if before and (before.limits, before.templates_expire, before.connections_expire) != (limits, *settings):
        before = None
    known = before.virtual_servers if before else {}
    limits = before.limits if before else limits
    wanted = desired(
        config,
        answers,
        limits,
        {key: each.undamped or each.wanted for key, each in known.items() if each.wanted},
        standing(overrides, now),
        drains=force.drains,
        drains_before=before.drains if before else NO_DRAINS,
        table=observed.table,
        failed_over={key: entry.failed_over for key, entry in ledger.items() if entry.failed_over},
        peaks={key: entry.peaks for key, entry in ledger.items() if entry.peaks},
        now=now,
    )
    decisions, afresh = {}, {}
    for each in wanted.values():
        key = each.config.key
        absent = _absent(refused.get(key, NOBODY), each, observed.table.get(key))
        there, entry, opinion = observed.table.get(key), ledger.get(key), None
        if opinions is not None and each.config.probe is not Probe.NOBODY:
            opinion = opinions.get(key, NO_OPINION)
        ordered = force.on(each.config.name, there.real_servers if there else ())
        same = _same_as_before(
            known.get(key), each, there, entry, absent=absent, opinion=opinion, ordered=ordered, now=now
        )
        if same and key not in released | border.adopted | border.disowned:
            decisions[key] = same
            continue
        afresh[key] = functools.partial(
            _decide_configured,
            each,
            observed,
            ledger,
            absent,
            opinion,
            ordered=ordered,
            templates_expire=templates_expire,
            connections_expire=connections_expire,
            now=now,
            released=key in released,
            last=last.virtual_servers.get(key) if last else None,
            border=border,
            overridable=config.overrides is not None,
        )
        decisions[key] = afresh[key]()
    for key, limit in _limits(decisions, afresh.keys(), (elsewhere, ledger), config, now).items():
        decisions[key] = afresh[key](limit=limit)
    waiting = frozenset(config.virtual_servers.keys() - wanted.keys())
    configured = {virtual_server.key for virtual_server in config.virtual_servers.values()}
    left = {key: ledger[key] for key in ledger.keys() & observed.table.keys() - configured}
    disowned = frozenset(
        key for key, entry in left.items() if key in border.disowned or not is_still_ours(observed.table[key], entry)
    )
    staying = {key for key, entry in left.items() if entry.name in waiting or stands_alone(answers)}
    for key, entry in left.items():
        if key not in disowned and key not in staying:
            moved = _moved_to(config, key, entry.name)
            decisions[key] = _decide_removed(key, entry, observed, force.on(entry.name), moved, now=now)
    adopted = {key for key, each in decisions.items() if each.owner is Owner.ADOPTED}
    given_up = {key for key, each in decisions.items() if each.disowned} & observed.table.keys()
    left_alone = _left_alone(config, waiting, ledger)
    return Decision(
        virtual_servers=decisions,
        waiting=waiting,
        left_alone=left_alone,
        foreign=foreign(observed.table, (ours_in(ledger) - disowned - given_up) | adopted),
        disowned=disowned,
        addresses=_addresses(decisions, observed, (left_alone | staying | given_up) - disowned),
        look_again=now + DRAIN_POLL if any(each.draining for each in decisions.values()) else None,
        next_end=_next_end(decisions, overrides, orders, now),
        paused=force.everything,
        drains=force.drains,
        limits=limits,
        templates_expire=templates_expire,
        connections_expire=connections_expire,
    )


def _limits(
    decisions: Mapping[VirtualServerKey, VirtualServerDecision],
    afresh: AbstractSet[VirtualServerKey],
    ledgers: Iterable[Ledger],
    config: Config,
    now: float,
) -> Mapping[VirtualServerKey, Floor]:
    """Return of which virtual servers decided `afresh` less may leave, for all that leaves of the table."""
    if not any(decisions[key].counts.loss for key in afresh):
        return NOTHING
    losses = {
        key: Loss(each.counts.before if key in afresh else each.counts.after, each.counts.after.count)
        for key, each in decisions.items()
    }
    others = {key: entry.served for ledger in ledgers for key, entry in ledger.items()}
    return limits_of_table(losses, others, config.safety.max_removals, now)


def _next_end(
    decisions: Mapping[VirtualServerKey, VirtualServerDecision], overrides: Overrides, orders: Orders, now: float
) -> float | None:
    peaks = {id(each.wanted.peaks): each.wanted.peaks for each in decisions.values() if each.wanted}
    ends = [next_end(overrides, now), next_end_of_orders(orders, now), *map(peak.next_end, peaks.values())]
    ends += [each.hold.floor.until for each in decisions.values()]
    return min((end for end in ends if end is not None), default=None)


def _same_as_before(
    before: VirtualServerDecision | None,
    wanted: Wanted,
    observed: TableEntry | None,
    entry: LedgerEntry | None,
    *,
    absent: AbstractSet[RealServerKey],
    opinion: Opinion | None,
    ordered: Ordered,
    now: float,
) -> VirtualServerDecision | None:
    """Return `before` where it was made of the same; what leaves is decided by the clock and by connections too."""
    if before is None or before.leaving or before.steps or before.hold.floor.why:
        return None
    if before.next_look is not None or before.hold.released or before.let_in:
        return None
    if before.wanted is not wanted or before.remembered is not entry:
        return None
    if (before.absent, before.opinion, before.ordered) != (absent, opinion, ordered):
        return None
    return before if before.observed == observed and before.hold.floor.holds(now) else None


def _absent(refused: AbstractSet[RealServerKey], wanted: Wanted, there: TableEntry | None) -> frozenset[RealServerKey]:
    """Return which of those that are wanted do not serve because the kernel `refused` them."""
    if not refused:
        return NOBODY
    ours = (key for key in refused if serves_in(wanted.entry, key))
    return frozenset(key for key in ours if there is None or not serves_in(there, key))


def _decide_configured(
    wanted: Wanted,
    observed: Observed,
    ledger: Ledger,
    absent: frozenset[RealServerKey],
    opinion: Opinion | None,
    *,
    ordered: Ordered,
    templates_expire: bool,
    connections_expire: bool,
    now: float,
    released: bool,
    last: VirtualServerDecision | None,
    border: Border,
    overridable: bool,
    limit: Floor = NO_FLOOR,
) -> VirtualServerDecision:
    key = wanted.config.key
    current = observed.table.get(key)
    standing = _entry(wanted, with_fallback(wanted.config, wanted.entry.real_servers))
    owner, entry = owner_of(standing, current, ledger, border), ledger.get(key)
    if owner is Owner.FOREIGN:
        return VirtualServerDecision(
            name=wanted.config.name,
            key=key,
            wanted=wanted,
            owner=owner,
            intended=current,
            observed=current,
            ordered=ordered,
            remembered=entry,
            disowned=key in border.disowned or (entry is not None and entry.disowned),
        )
    if entry is not None and entry.disowned:
        entry = None  # what it says is of long ago
    undamped, (wanted, flapping) = wanted, damped(wanted, entry, absent=absent, released=released, now=now)
    there = current.real_servers if current else {}
    behind = _behind(wanted, there, last) if last else NOTHING
    hold, counts = guard(
        wanted,
        there,
        whole(entry),
        now=now,
        released=released,
        absent=absent,
        opinion=opinion,
        limit=limit,
        ordered=ordered,
    )
    found = ramping(wanted, hold, counts, there, entry, absent=absent, now=now)
    fallback = fallback_of(wanted.config, found.real_servers)
    return _decide_leaving(
        VirtualServerDecision(
            name=wanted.config.name,
            key=key,
            wanted=wanted,
            owner=owner,
            observed=current,
            hold=found.hold,
            counts=counts,
            absent=absent,
            opinion=opinion,
            behind=behind,
            became=whereabouts(behind, wanted),
            ordered=ordered,
            remembered=ledger.get(key),
            overridable=overridable,
            ramps=found.ramps,
            next_look=min(filter(None, (found.next_step, *flapping.waiting.values())), default=None),
            flapping=flapping.flapping,
            let_in=flapping.let_in,
            undamped=undamped if undamped is not wanted else None,
            fallback=fallback.key if fallback else None,
            drain_timeout=wanted.config.drain_timeout,
            undrained=undrained(
                wanted,
                entry.fallback if entry else None,
                templates_expire=templates_expire,
                connections_expire=connections_expire,
            ),
        ),
        _entry(wanted, {**found.real_servers, fallback.key: fallback} if fallback else found.real_servers),
        observed,
        entry,
        now=now,
    )


def _behind(wanted: Wanted, there: RealServers, last: VirtualServerDecision) -> Mapping[RealServerKey, Member]:
    """Return who was behind the real servers that are `there` and in no answer any more, as far as `last` knows."""
    known = last.wanted.by_key if last.wanted else NOTHING
    found = {key: known.get(key) or last.behind.get(key) for key in there if key not in wanted.by_key}
    return {key: member for key, member in found.items() if member is not None} or NOTHING


def _entry(wanted: Wanted, real_servers: RealServers) -> TableEntry:
    """Return `wanted` as an entry of the table with these real servers."""
    if real_servers is wanted.entry.real_servers:
        return wanted.entry
    return attrs.evolve(wanted.entry, real_servers=real_servers)


def _moved_to(config: Config, key: VirtualServerKey, name: str) -> VirtualServerKey | None:
    """Return where the virtual server is wanted that was at `key`; None where it is nowhere."""
    present = config.virtual_servers.get(name)
    return present.key if present and present.key != key else None


def _decide_removed(
    key: VirtualServerKey,
    entry: LedgerEntry,
    observed: Observed,
    ordered: Ordered,
    moved_to: VirtualServerKey | None,
    *,
    now: float,
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
            moved_to=moved_to,
            ordered=ordered,
            remembered=entry,
        ),
        attrs.evolve(current, real_servers={}),
        observed,
        entry,
        now=now,
    )
    if decision.draining:
        return decision
    cause = cause_of_virtual_server(None, current.virtual_server, entry.written, unwanted=decision.why_unwanted)
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
        leaving=leaving or NOTHING,
        leaving_causes={key: why_leaving(key, decision, entry) for key in leaving} or NOTHING,
        intended=intended,
        observed=intended if decision.observed == intended else decision.observed,  # the same is kept once
    )
    return attrs.evolve(decision, steps=tuple(steps_of(decision, entry, now=now)))


def _left_alone(config: Config, waiting: AbstractSet[str], ledger: Ledger) -> frozenset[VirtualServerKey]:
    """Return the virtual servers of ours that wait for Consul, under their present key or a former one."""
    present = {config.virtual_servers[name].key for name in waiting}
    return frozenset(key for key, entry in ledger.items() if key in present or entry.name in waiting)


def _addresses(
    decisions: Mapping[VirtualServerKey, VirtualServerDecision],
    observed: Observed,
    left_alone: AbstractSet[VirtualServerKey],
) -> frozenset[Address]:
    """Return the addresses of the virtual servers of ours that the kernel has or is about to have."""
    ours = {key: each for key, each in decisions.items() if each.owner is not Owner.FOREIGN}
    keys = {key for key, each in ours.items() if each.intended is not None and not each.ordered.pause}
    keys |= {key for key, each in ours.items() if each.ordered.pause and key in observed.table}
    keys |= left_alone & observed.table.keys()
    return frozenset(key.address for key in keys if key.address is not None)

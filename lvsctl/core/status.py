"""What `lvsctl status` shows, as values: the daemon computes them, the socket carries them, the terminal draws them.

Pure. Text in here may come from Consul and is unescaped; whoever shows it escapes it. Times are Unix seconds.
"""

import enum
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import attrs

from lvsctl.config import Config, VirtualServerConfig
from lvsctl.core.admission import Admitted, Rejected
from lvsctl.core.candidates import Refusal
from lvsctl.core.cause import UNDECLARED, cause_of_disappearance
from lvsctl.core.decision import NO_USAGE, Decision, VirtualServerDecision
from lvsctl.core.desired import Member, Wanted, deciding_queries
from lvsctl.core.difference import ipvsadm_delete
from lvsctl.core.failover import named, why_failed_over
from lvsctl.core.guard import serves, why_held
from lvsctl.core.instance import Health, Instance, Query
from lvsctl.core.override import Overrides
from lvsctl.core.ownership import Owner
from lvsctl.core.weighing import Effect, why_weighed
from lvsctl.core.words import virtual_server_words, word
from netlink.types import Address, Observed, RealServerKey, Traffic, VirtualServerKey

SCHEMA: Final = "lvsctl.status/1"
NO_TRAFFIC: Final = Traffic()


class State(enum.Enum):
    """How a virtual server stands; the value is what screens and JSON show."""

    OK = "ok"
    DEGRADED = "degraded"  # some instances do not serve, or another datacenter's do
    EMPTY = "empty"  # nothing serves
    HELD = "held"  # Consul wants the last ones out; they stay
    LEAVING = "leaving"  # no longer configured, draining
    WAITING = "waiting"  # Consul has not answered for it yet; left as it is
    REFUSED = "refused"  # the kernel refused something
    FOREIGN = "foreign"  # somebody else's virtual server has its address


class Place(enum.Enum):
    """Where a real server or an instance stands."""

    SERVING = "serving"
    QUIESCED = "quiesced"  # wanted with weight 0
    DRAINING = "draining"
    HELD = "held"
    PENDING = "pending"  # wanted, not in the kernel yet
    OUT = "out"  # not wanted now
    REJECTED = "rejected"


@attrs.frozen(kw_only=True)
class RealServerStatus:
    """One real server, or one instance that is none."""

    real_server: str  # address and port; empty where an instance has none
    node: str
    instance: str
    check: str  # passing, warning, critical, maintenance; empty where Consul does not know it
    place: Place
    weight: int | None  # in the kernel; None when it is not there
    active: int
    inactive: int
    rate: int  # new connections a second
    why: str
    datacenter: str = ""  # where the instance is; empty: the agent's own, or not in Consul


@attrs.frozen(kw_only=True)
class OverrideStatus:
    """One override of a virtual server's weights."""

    selector: str
    share: str  # `5%`, `10`
    by: str
    reason: str
    until: float | None  # None: until it is cleared
    written: float | None
    matching: int  # instances that may serve and are its
    smallest: int  # of their weights
    largest: int
    why_not: str  # why it does nothing, or not what it says; empty when it does


@attrs.frozen(kw_only=True)
class VirtualServerStatus:
    """One virtual server."""

    name: str
    consul_service: str
    address: str  # `tcp 10.9.0.100:80` or `mark 7`
    scheduler: str
    forwarding: str
    serving: int
    wanted: int  # instances that Consul has for it, tags and meta considered
    state: State
    note: str
    active: int
    inactive: int
    rate: int  # new connections a second
    real_servers: tuple[RealServerStatus, ...] = ()
    data_age: float | None = None  # seconds since Consul was last heard about it; None: never, or it is leaving
    datacenter: str = ""  # whose instances serve; empty: the agent's own
    failed_over: bool = False  # it is not the first of its list
    overrides: tuple[OverrideStatus, ...] = ()  # that stand, in the order in which they count


@attrs.frozen(kw_only=True)
class ConsulStatus:
    """How the daemon stands with Consul."""

    address: str
    reachable: bool
    data_age: float | None  # seconds since the oldest of the last answers was confirmed; None: never answered
    failing_since: float | None = None
    failing: int = 0  # queries that fail now
    error: str = ""
    transport: str = ""  # how news are waited for; empty before that is known
    transport_why: str = ""
    transport_remedy: str = ""  # what an operator can do for a better one; empty where it is good
    snapshot_age: float | None = (
        None  # seconds since Consul said the oldest of what a snapshot stands in for; None: none
    )


@attrs.frozen(kw_only=True)
class OverridesStatus:
    """How the daemon stands with the overrides in Consul's KV."""

    kv_prefix: str
    data_age: float | None  # seconds since Consul was last heard about them; None: not since the start
    error: str  # why they cannot be read now; empty when they can
    ignored: Mapping[str, str]  # keys that are no overrides, and why
    elsewhere: tuple[str, ...]  # virtual servers that have some, and are not in this configuration


@attrs.frozen(kw_only=True)
class KernelStatus:
    """How the kernel stands against what is wanted."""

    in_sync_since: float | None  # None: not in sync
    pending: int  # steps to be taken
    error: str = ""


@attrs.frozen(kw_only=True)
class RefusedDeclaration:
    """What a Consul service declares and does not get, by `[discovery]`."""

    consul_service: str
    name: str  # of the virtual server that it has or would have
    kept: str  # what it declared before and keeps: `tcp 10.9.0.120:80`; empty where it has nothing
    why: str


@attrs.frozen(kw_only=True)
class Status:
    """The whole answer to `lvsctl status`."""

    schema: str = SCHEMA
    version: str
    host: str
    role: str  # active, dry-run; `no daemon` when read from the kernel alone
    time: float
    started: float | None
    config: str  # path of the file
    config_error: str  # why the last reload was refused; empty when it was not
    consul: ConsulStatus | None
    kernel: KernelStatus
    foreign: tuple[str, ...]
    virtual_servers: tuple[VirtualServerStatus, ...]
    refused_declarations: tuple[RefusedDeclaration, ...] = ()
    overrides: OverridesStatus | None = None  # None: the configuration has none, or no daemon answers


def overrides_status(
    config: Config, overrides: Overrides, *, prefix: str, data_age: float | None, error: str
) -> OverridesStatus:
    """Return how it stands with `overrides`, which were last heard `data_age` seconds ago."""
    named = {each.virtual_server for each in overrides.entries}
    return OverridesStatus(
        kv_prefix=prefix,
        data_age=data_age,
        error=error,
        ignored={each.key: each.why for each in overrides.ignored},
        elsewhere=tuple(sorted(named - config.virtual_servers.keys())),
    )


def virtual_servers(
    config: Config,
    decision: Decision,
    observed: Observed,
    *,
    refused: Mapping[VirtualServerKey, str],
    local: AbstractSet[Address],
    ages: Mapping[Query, float],
) -> tuple[VirtualServerStatus, ...]:
    """Return a row for every virtual server that is configured or ours.

    `local` are the director's addresses, `ages` the seconds since each query was last answered.
    """
    rows = [
        _decided(each, observed, refused=refused.get(each.key, ""), local=local)
        for each in decision.virtual_servers.values()
    ]
    rows += [_waiting(config.virtual_servers[name], observed) for name in decision.waiting]
    rows = [
        attrs.evolve(row, data_age=_data_age(config.virtual_servers[row.name], row.datacenter, ages))
        if row.name in config.virtual_servers
        else row
        for row in rows
    ]
    return tuple(sorted(rows, key=lambda row: (row.name, row.address)))


def _data_age(virtual_server: VirtualServerConfig, serving: str, ages: Mapping[Query, float]) -> float | None:
    """Return the age of the oldest answer that decides: of the datacenter that serves, or of one before it."""
    deciding = [ages.get(query) for query in deciding_queries(virtual_server, serving)]
    known = [age for age in deciding if age is not None]
    return max(known, default=None) if deciding[-1] is not None else None


def refused_declarations(refusals: Iterable[Refusal]) -> tuple[RefusedDeclaration, ...]:
    """Return what is shown of `refusals`."""
    return tuple(
        RefusedDeclaration(
            consul_service=each.service, name=each.name, kept=str(each.kept) if each.kept else "", why=each.text
        )
        for each in refusals
    )


def bare_virtual_servers(observed: Observed, names: Mapping[VirtualServerKey, str]) -> tuple[VirtualServerStatus, ...]:
    """Return a row for every virtual server of the kernel, for when there is no daemon to ask."""
    return tuple(
        _bare(observed, key, name=names.get(key, ""), consul_service="", state=None) for key in sorted(observed.table)
    )


def _decided(
    each: VirtualServerDecision, observed: Observed, *, refused: str, local: AbstractSet[Address]
) -> VirtualServerStatus:
    if each.owner is Owner.FOREIGN:
        note = f"a foreign virtual server is in the way; {ipvsadm_delete(each)} lets lvsctl create its own"
        return attrs.evolve(_of_observed(each, observed), state=State.FOREIGN, note=note)
    rows = _real_servers(each, observed)
    serving = sum(row.place in (Place.SERVING, Place.HELD) for row in rows)
    wanted = sum(not member.is_filtered for member in each.wanted.members) if each.wanted else 0
    state = state_of(each, serving=serving, wanted=wanted, refused=bool(refused))
    return attrs.evolve(
        _of_observed(each, observed),
        serving=serving,
        wanted=wanted,
        state=state,
        note=refused or _note(each, state, local),
        real_servers=rows,
        overrides=tuple(_override(effect) for effect in each.wanted.weighed.effects) if each.wanted else (),
    )


def _override(effect: Effect) -> OverrideStatus:
    return OverrideStatus(
        selector=effect.override.selector,
        share=str(effect.override.share),
        by=effect.override.by,
        reason=effect.override.reason,
        until=effect.override.until,
        written=effect.override.written,
        matching=effect.matching,
        smallest=effect.smallest,
        largest=effect.largest,
        why_not=effect.why_not,
    )


def _of_observed(each: VirtualServerDecision, observed: Observed) -> VirtualServerStatus:
    row = _bare(
        observed,
        each.key,
        name=each.name,
        consul_service=each.wanted.config.consul_service if each.wanted else "",
        state=State.OK,
    )
    if each.wanted is None:
        return row
    virtual_server = each.wanted.entry.virtual_server
    return attrs.evolve(
        row,
        scheduler=virtual_server_words(virtual_server),
        forwarding=word(each.wanted.config.forwarding),
        datacenter=each.wanted.datacenter,
        failed_over=bool(each.wanted.failed_over),
    )


def _waiting(config: VirtualServerConfig, observed: Observed) -> VirtualServerStatus:
    row = _bare(observed, config.key, name=config.name, consul_service=config.consul_service, state=State.WAITING)
    return attrs.evolve(
        row,
        scheduler=row.scheduler or config.scheduler,
        forwarding=word(config.forwarding),
        datacenter=config.datacenter or "",
        note="Consul has not answered yet; left as it is",
    )


def _bare(
    observed: Observed, key: VirtualServerKey, *, name: str, consul_service: str, state: State | None
) -> VirtualServerStatus:
    """Return what the kernel alone says about a virtual server; zeros when it is not there."""
    entry = observed.table.get(key)
    real_servers = entry.real_servers if entry else {}
    usage = observed.usage.get(key, {})
    serving = sum(serves(real_server) for real_server in real_servers.values())
    forwardings = sorted({word(real_server.forwarding) for real_server in real_servers.values()})
    return VirtualServerStatus(
        name=name,
        consul_service=consul_service,
        address=str(key),
        scheduler=virtual_server_words(entry.virtual_server) if entry else "",
        forwarding=", ".join(forwardings),
        serving=serving,
        wanted=len(real_servers),
        state=state or (State.OK if serving else State.EMPTY),
        note="",
        active=sum(each.active for each in usage.values()),
        inactive=sum(each.inactive for each in usage.values()),
        rate=observed.traffic.get(key, NO_TRAFFIC).connection_rate,
        real_servers=tuple(
            _row(None, observed, key, server, Place.SERVING if serves(each) else Place.QUIESCED)
            for server, each in sorted(real_servers.items(), key=lambda pair: pair[0])
        ),
    )


def state_of(each: VirtualServerDecision, *, serving: int, wanted: int, refused: bool) -> State:
    """Return the state of a virtual server that is not foreign."""
    if refused:
        return State.REFUSED
    if each.wanted is None:
        return State.LEAVING
    if each.held:
        return State.HELD
    if serving == 0:
        return State.EMPTY
    return State.OK if serving >= wanted and not each.wanted.failed_over else State.DEGRADED


def _note(each: VirtualServerDecision, state: State, local: AbstractSet[Address]) -> str:
    notes = []
    if each.wanted and each.wanted.failed_over:
        notes.append(_failed_over(each.wanted))
    if state is State.HELD:
        notes.append(_why_held(each))
    if state is State.LEAVING:
        notes.append(UNDECLARED if each.declaration else "no longer in the configuration")
    if state is State.EMPTY:
        notes.append(_nobody(each) + _unheard(each))
    if each.key.address is not None and each.key.address not in local:
        notes.append(f"{each.key.address} is on no interface of this machine")
    return "; ".join(notes)


def _failed_over(wanted: Wanted) -> str:
    return why_failed_over(wanted.standings, [query.datacenter for query in wanted.queries], wanted.datacenter)


def _unheard(each: VirtualServerDecision) -> str:
    """Return which datacenters cannot take over because they do not answer, in words; empty where there is none."""
    if each.wanted is None:
        return ""
    asked = zip(each.wanted.queries, each.wanted.standings, strict=True)
    unheard = [named(query.datacenter) for query, standing in asked if standing is None or standing.silent]
    return f", {' and '.join(unheard)} {'does' if len(unheard) == 1 else 'do'} not answer" if unheard else ""


def _why_held(each: VirtualServerDecision) -> str:
    if each.wanted and each.wanted.doubt:
        return f"{len(each.held)} kept, for {why_held(each.wanted)}"
    return f"{_nobody(each)}{_unheard(each)}; the last serving real servers stay"


def _nobody(each: VirtualServerDecision) -> str:
    """Return why nothing that Consul has may serve."""
    members = each.wanted.members if each.wanted else ()
    meant = [member for member in members if not member.is_filtered]
    rejections = [member.verdict.text for member in meant if isinstance(member.verdict, Rejected)]
    if not members:
        return "Consul has no instance of it"
    if not meant:
        return f"none of Consul's {len(members)} instances has the tags and meta asked for"
    if len(rejections) < len(meant):
        return f"no instance passes, {len(rejections)} rejected" if rejections else "no instance passes"
    return (
        f"all {len(meant)} instances are rejected" if len(meant) > 1 else f"its instance is rejected: {rejections[0]}"
    )


def _real_servers(each: VirtualServerDecision, observed: Observed) -> tuple[RealServerStatus, ...]:
    """Return a row for each real server in the kernel, then for each instance that is none, in Consul's order."""
    there = each.observed.real_servers if each.observed else {}
    by_key = each.wanted.by_key if each.wanted else {}
    rows = []
    for key in sorted(there):
        place, why = _place(each, key, by_key.get(key))
        rows.append(_row(by_key.get(key), observed, each.key, key, place, why))
    shown = {id(by_key[key]) for key in there if key in by_key}
    for member in each.wanted.members if each.wanted else ():
        if id(member) in shown or member.is_filtered:
            continue
        place, why = _absent(member)
        rows.append(_row(member, observed, each.key, None if member.key in there else member.key, place, why))
    return tuple(rows)


def _place(each: VirtualServerDecision, key: RealServerKey, member: Member | None) -> tuple[Place, str]:
    if key in each.held:
        why = _absent(member)[1] if member else cause_of_disappearance(each.why_unasked(key)).text
        return Place.HELD, f"kept, for {why_held(each.wanted)}: {why}" if each.wanted else why
    if key in each.leaving:
        why = each.leaving_causes[key].text if member is None else _absent(member)[1]
        return Place.DRAINING, why
    weight = each.observed.real_servers[key].weight if each.observed else 0
    return (Place.SERVING if weight > 0 else Place.QUIESCED), _why_this_weight(each, key, member)


def _why_this_weight(each: VirtualServerDecision, key: RealServerKey, member: Member | None) -> str:
    """Return why the weight of a real server is not its instance's own; empty when it is."""
    if each.wanted is None or member is None or not isinstance(member.verdict, Admitted):
        return ""
    weighed = each.wanted.weighed
    touched = key in weighed.by or weighed.weights.get(key) != member.verdict.weight
    why = why_weighed(weighed, key) if touched else "" if member.verdict.weight else "its own weight is 0"
    return "; ".join(filter(None, (why, member.verdict.note)))


def _absent(member: Member) -> tuple[Place, str]:
    match member.verdict:
        case Admitted():
            return Place.PENDING, "passing, not in the kernel yet"
        case Rejected():
            return Place.REJECTED, member.verdict.text
        case _:
            return Place.OUT, member.verdict.text


def _row(  # noqa: PLR0917  # a row has its columns
    member: Member | None,
    observed: Observed,
    virtual_server: VirtualServerKey,
    key: RealServerKey | None,
    place: Place,
    why: str = "",
) -> RealServerStatus:
    """Return the row of real server `key`; None for an instance that is none."""
    usage = observed.usage.get(virtual_server, {}).get(key, NO_USAGE) if key else NO_USAGE
    source = member.source if member else None
    check = source.health.word if isinstance(source, Instance) else ("" if source is None else Health.CRITICAL.word)
    entry = observed.table.get(virtual_server)
    return RealServerStatus(
        real_server=str(key or ""),
        node=source.node if source else "",
        instance=source.instance_id if source else "",
        check=check,
        place=place,
        weight=entry.real_servers[key].weight if entry and key and key in entry.real_servers else None,
        active=usage.active,
        inactive=usage.inactive,
        rate=usage.traffic.connection_rate,
        why=why,
        datacenter=member.datacenter if member else "",
    )

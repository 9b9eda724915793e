"""The virtual servers wanted, from the configuration and Consul's last complete answers.

Pure. Says for every instance what becomes of it (`Member`), so that nothing that is left out is left out silently.
Two instances at one address and port are one real server: one that is admitted stands for both, the first by node and
id when both are; the other is shown.

Where a virtual server has a `failover` list, the instances of every datacenter are judged, and those of one serve
(`failover`); the others that could are left out with that as the reason.
"""

import functools
import operator
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import attrs

from lvsctl.config import Config, VirtualServerConfig
from lvsctl.core import peak
from lvsctl.core.admission import (
    Admitted,
    Excluded,
    Limits,
    Reason,
    Rejected,
    Verdict,
    admit,
    parse_address,
    real_server_port,
)
from lvsctl.core.failover import Standing, choose, why_not
from lvsctl.core.instance import Answer, Answers, Instance, Malformed, Query
from lvsctl.core.nothing import NOTHING
from lvsctl.core.order import NO_DRAINS, Drains, Place
from lvsctl.core.override import Override
from lvsctl.core.peak import NO_PEAKS, Peaks
from lvsctl.core.restoration import usable
from lvsctl.core.weighing import UNWEIGHED, Weighed, weigh
from netlink.types import (
    Address,
    Family,
    RealServer,
    RealServerKey,
    RealServers,
    Table,
    TableEntry,
    VirtualServer,
    VirtualServerKey,
)

MOST_QUERIES: Final = 1 << 14  # that are kept once


@attrs.frozen(kw_only=True)
class Member:
    """What becomes of one instance in one virtual server."""

    source: Instance | Malformed
    verdict: Verdict
    datacenter: str = ""  # where it is; empty: the agent's own

    @property
    def key(self) -> RealServerKey | None:
        """Return the real server the instance is or would be; None where it cannot be one."""
        return self.verdict.key

    @property
    def is_in_maintenance(self) -> bool:
        """Tell whether somebody took the instance or its node out on purpose, in Consul or by an order to lvsctl."""
        return isinstance(self.verdict, Excluded) and self.verdict.reason in (Reason.MAINTENANCE, Reason.DRAINED)

    @property
    def is_drained(self) -> bool:
        """Tell whether an operator's order takes the instance out."""
        return isinstance(self.verdict, Excluded) and self.verdict.reason is Reason.DRAINED

    @property
    def is_filtered(self) -> bool:
        """Tell whether the instance is simply not meant for this virtual server."""
        return isinstance(self.verdict, Excluded) and self.verdict.reason in (Reason.TAGS, Reason.META)


@attrs.frozen(kw_only=True)
class Wanted:
    """One virtual server as configured, with what Consul's answers make of it."""

    config: VirtualServerConfig
    entry: TableEntry
    members: tuple[Member, ...]  # of the datacenter that serves, then of those before it; of all while none can
    by_key: Mapping[RealServerKey, Member]  # the member behind each real server, the one nearest to serving
    doubt: str = ""  # why Consul may have more instances than it says; empty when it is believed
    snapshot: float | None = None  # Unix seconds when Consul said it, where a snapshot stands in for it
    weighed: Weighed = UNWEIGHED  # the weights of its real servers, and what overrides made of them
    overrides: tuple[Override, ...] = ()
    drains: Drains = NO_DRAINS  # those that matter to its instances
    datacenter: str = ""  # whose instances serve; empty: the agent's own
    failed_over: str = ""  # the same where it is not the first of its list; empty where it is
    standings: tuple[Standing | None, ...] = ()  # of the datacenters in their order; None for one never heard
    peaks: Peaks = NO_PEAKS  # what is to be remembered of them
    # Of what it was made: where these are the same objects again, overrides and drains equal, it is the same again.
    queries: tuple[Query, ...] = attrs.field(default=(), eq=False, repr=False)
    heard: tuple[Answer | None, ...] = attrs.field(default=(), eq=False, repr=False)
    limits: Limits | None = attrs.field(default=None, eq=False, repr=False)


@functools.lru_cache(maxsize=MOST_QUERIES)
def _query(service: str, datacenter: str, near: str = "") -> Query:
    """Return the query, the same object each time: thousands of them are kept in several places."""
    return Query(service=service, datacenter=datacenter, near=near)


def query_of(virtual_server: VirtualServerConfig) -> Query:
    """Return what has to be asked of Consul for `virtual_server` first of all."""
    return _query(virtual_server.consul_service, virtual_server.datacenter or "", virtual_server.near or "")


def queries_in_order(virtual_server: VirtualServerConfig) -> tuple[Query, ...]:
    """Return what has to be asked for `virtual_server`: of its own datacenter, then of each it may fail over to.

    The others are asked without `near`, which is a node of the first.
    """
    others = (_query(virtual_server.consul_service, name) for name in virtual_server.failover)
    return (query_of(virtual_server), *others)


def deciding_queries(virtual_server: VirtualServerConfig, serving: str) -> tuple[Query, ...]:
    """Return the queries whose age is that of its data: of the datacenter that serves, and of those before it."""
    queries = queries_in_order(virtual_server)
    last = next((place for place, query in enumerate(queries) if query.datacenter == serving), 0)
    return queries[: last + 1]


def queries_of(config: Config) -> frozenset[Query]:
    """Return everything that has to be asked of Consul; virtual servers may share a query."""
    return frozenset(query for each in config.virtual_servers.values() for query in queries_in_order(each))


def first_queries_of(config: Config) -> frozenset[Query]:
    """Return what has to be answered before all virtual servers can be served; failover is not waited for."""
    return frozenset(query_of(virtual_server) for virtual_server in config.virtual_servers.values())


def contested_queries_of(config: Config) -> frozenset[Query]:
    """Return the queries of which it matters whether they are answered just now: of all that can fail over."""
    several = (each for each in config.virtual_servers.values() if each.failover)
    return frozenset(query for each in several for query in queries_in_order(each))


def virtual_addresses(config: Config) -> frozenset[Address]:
    """Return the addresses of all configured virtual servers; firewall marks have none."""
    keys = (virtual_server.key for virtual_server in config.virtual_servers.values())
    return frozenset(key.address for key in keys if key.address is not None)


def limits_of(config: Config, own_addresses: AbstractSet[Address]) -> Limits:
    """Return what no instance may claim on a director that has `own_addresses`."""
    return Limits(
        allowed_networks=config.safety.allowed_networks,
        max_weight=config.safety.max_weight,
        virtual_addresses=virtual_addresses(config),
        own_addresses=own_addresses,
    )


def desired(
    config: Config,
    answers: Answers,
    limits: Limits,
    before: Mapping[VirtualServerKey, Wanted] | None = None,
    overrides: Mapping[str, tuple[Override, ...]] | None = None,
    *,
    drains: Drains = NO_DRAINS,
    drains_before: Drains = NO_DRAINS,
    table: Table | None = None,
    failed_over: Mapping[VirtualServerKey, str] | None = None,
    peaks: Mapping[VirtualServerKey, Peaks] | None = None,
    now: float = 0.0,
) -> Mapping[str, Wanted]:
    """Return what is wanted by name, without the virtual servers that wait for an answer.

    `overrides` are those that stand now, by virtual server, and so are `drains`; `table` is what stands in the kernel,
    `failed_over` the datacenters that serve in place of the first, `peaks` with how many each served; `now` is Unix
    seconds. To judge instances is most of the work of a cycle, so what is made of the same as in `before` is taken from
    there; that was made with `drains_before`.
    """
    before, overrides, table, failed_over = before or {}, overrides or {}, table or {}, failed_over or {}
    peaks = peaks or {}
    wanted = {}
    for name, virtual_server in config.virtual_servers.items():
        key = virtual_server.key
        known, serving, standing = before.get(key), failed_over.get(key, ""), table.get(key)
        if known is not None and (known.config is not virtual_server or known.limits is not limits):
            known = None
        judged = known
        its = overrides.get(name, ())
        if known is not None and known.overrides != its:
            known = None
        known_peaks = peaks.get(key, NO_PEAKS)
        if known is not None and (known.peaks != known_peaks or not peak.hold(known_peaks, now)):
            known = None
        queries = known.queries if known else queries_in_order(virtual_server)
        heard = tuple([usable(answers.get(query), standing) for query in queries])
        if known and not all(map(operator.is_, known.heard, heard)):
            known = None
        matter = known.drains if known and drains == drains_before else drains.among(_places(virtual_server, heard))
        if known and (known.failed_over, known.drains) == (serving, matter):
            wanted[name] = known
        elif each := _wanted(
            virtual_server,
            queries,
            heard,
            limits,
            overrides=its,
            drains=matter,
            serving=serving,
            peaks=known_peaks,
            now=now,
            before=judged,
        ):
            wanted[name] = each
    return wanted


def virtual_server_of(config: VirtualServerConfig) -> VirtualServer:
    """Return the virtual server as the kernel shall have it, a full-length persistence prefix as the default it is."""
    full_length = 32 if config.key.family is Family.IPV4 else 128
    return VirtualServer(
        key=config.key,
        scheduler=config.scheduler,
        scheduler_flags=config.scheduler_flags,
        one_packet=config.one_packet,
        persistence=config.persistence,
        persistence_prefix=None if config.persistence_prefix == full_length else config.persistence_prefix,
    )


def _wanted(
    config: VirtualServerConfig,
    queries: tuple[Query, ...],
    heard: tuple[Answer | None, ...],
    limits: Limits,
    *,
    overrides: tuple[Override, ...],
    drains: Drains,
    serving: str,
    peaks: Peaks,
    now: float,
    before: Wanted | None = None,
) -> Wanted | None:
    """Return what the datacenters' answers make of `config`, None while it waits; `serving` is `Wanted.failed_over`.

    `before` was made of other answers, and with the same `config` and `limits`.
    """
    datacenters = tuple(query.datacenter for query in queries)
    known = _admitted(before)
    judged = [_judged(config, *each, limits, drains, known=known) for each in zip(heard, datacenters, strict=True)]
    bare = tuple(_standing(*each) for each in zip(heard, judged, strict=True))
    able = tuple(None if each is None or each.doubt or each.silent else each.able for each in bare)
    until_now = config.failover.index(serving) + 1 if serving in config.failover else 0
    peaks = peak.after(peaks, datacenters, able, until_now, now)
    chosen = choose(_with_peaks(bare, datacenters, peaks, until_now), until_now)
    if chosen is None or (answer := heard[chosen]) is None:
        return None
    peaks = peak.after(peaks, datacenters, able, chosen, now)
    standings = _with_peaks(bare, datacenters, peaks, chosen)
    weighed = _weighed(config, judged[chosen], overrides)
    real_servers = _real_servers(config, weighed, before.entry.real_servers if before else NOTHING)
    for place, standing in enumerate(standings):
        if place != chosen and standing is not None:
            why = why_not(standing, datacenters[chosen], returning=place < chosen)
            judged[place] = tuple(_left_out(member, why) for member in judged[place])
    shown = (
        judged[:chosen]
        if any(each.weight > 0 for each in real_servers.values())
        else judged[:chosen] + judged[chosen + 1 :]
    )
    return Wanted(
        config=config,
        entry=TableEntry(virtual_server=virtual_server_of(config), real_servers=real_servers),
        members=sum(shown, judged[chosen]),
        by_key=_by_key(sum(judged, ())),
        doubt=answer.doubt,
        snapshot=answer.snapshot,
        datacenter=datacenters[chosen],
        failed_over=datacenters[chosen] if chosen else "",
        standings=standings,
        peaks=peaks,
        queries=queries,
        heard=heard,
        weighed=weighed,
        overrides=overrides,
        drains=drains,
        limits=limits,
    )


def left_out(wanted: Wanted, verdicts: Mapping[RealServerKey, Excluded]) -> Wanted:
    """Return `wanted` without the real servers that have `verdicts` now, although their instances may serve."""
    judged = {key: attrs.evolve(wanted.by_key[key], verdict=verdict) for key, verdict in verdicts.items()}
    members = tuple(
        judged[member.key] if member.key in judged and isinstance(member.verdict, Admitted) else member
        for member in wanted.members
    )
    weighed = _weighed(wanted.config, members, wanted.overrides)
    return attrs.evolve(
        wanted,
        entry=attrs.evolve(wanted.entry, real_servers=_real_servers(wanted.config, weighed, wanted.entry.real_servers)),
        members=members,
        by_key={**wanted.by_key, **judged},
        weighed=weighed,
    )


def _admitted(before: Wanted | None) -> Mapping[tuple[str, str], Member]:
    """Return who was admitted before, by identity: of thousands in an answer most are as they were in the last."""
    return {
        each.source.identity: each
        for each in (before.members if before else ())
        if isinstance(each.verdict, Admitted) and isinstance(each.source, Instance)
    }


def _judged(
    config: VirtualServerConfig,
    answer: Answer | None,
    datacenter: str,
    limits: Limits,
    drains: Drains,
    *,
    known: Mapping[tuple[str, str], Member],
) -> tuple[Member, ...]:
    """Return what each instance of one datacenter may become, were it to serve; of those `known` it need not be found.

    Nothing counts for that but the instance, `config` and `limits`.
    """
    if answer is None:
        return ()

    def judged(instance: Instance) -> Member:
        found = known.get(instance.identity)
        is_same = found is not None and found.source == instance
        verdict = found.verdict if found and is_same else admit(instance, config, limits)
        verdict = _unless_drained(instance, verdict, drains)
        if found and is_same and verdict is found.verdict and found.datacenter == datacenter:
            return found
        return Member(source=instance, verdict=verdict, datacenter=datacenter)

    members = _one_for_each_real_server(map(judged, answer.instances))
    unreadable = tuple(
        Member(source=each, verdict=Rejected(reason=Reason.MALFORMED, text=each.reason), datacenter=datacenter)
        for each in answer.malformed
    )
    return members + unreadable


def _places(config: VirtualServerConfig, heard: Iterable[Answer | None]) -> Iterator[Place]:
    """Yield where the instances are that were `heard` of."""
    for answer in heard:
        for each in answer.instances if answer else ():
            address = parse_address(each.address)
            port = real_server_port(each.port, config)
            yield each, address, RealServerKey(address=address, port=port) if address else None


def _unless_drained(instance: Instance, verdict: Verdict, drains: Drains) -> Verdict:
    """Return `verdict`, or that an operator's order takes out what would serve or only fails."""
    if not drains.entries or isinstance(verdict, Rejected):
        return verdict
    if isinstance(verdict, Excluded) and verdict.reason in (Reason.TAGS, Reason.META):
        return verdict
    order = drains.of(instance, parse_address(instance.address), verdict.key)
    return verdict if order is None else Excluded(reason=Reason.DRAINED, text=order.words, key=verdict.key)


def _standing(answer: Answer | None, members: tuple[Member, ...]) -> Standing | None:
    if answer is None:
        return None
    able = sum(isinstance(each.verdict, Admitted) and each.verdict.weight > 0 for each in members)
    kept_out = sum(isinstance(each.verdict, Excluded) and not each.is_filtered for each in members)
    return Standing(able=able, meant=able + kept_out, doubt=answer.doubt, silent=answer.silent)


def _with_peaks(
    standings: tuple[Standing | None, ...], datacenters: tuple[str, ...], peaks: Peaks, serving: int
) -> tuple[Standing | None, ...]:
    """Return the standings, those before `serving` with how many served there."""
    return tuple(
        attrs.evolve(each, peak=peaks[name].count) if each and place < serving and name in peaks else each
        for place, (each, name) in enumerate(zip(standings, datacenters, strict=True))
    )


def _left_out(member: Member, why: str) -> Member:
    """Return `member` of a datacenter that does not serve."""
    if not isinstance(member.verdict, Admitted):
        return member
    return attrs.evolve(member, verdict=Excluded(reason=Reason.DATACENTER, text=why, key=member.key))


def _by_key(members: tuple[Member, ...]) -> Mapping[RealServerKey, Member]:
    by_name = sorted(members, key=lambda member: (member.source.node, member.source.instance_id), reverse=True)
    best_last = sorted(by_name, key=_nearness)
    return {member.key: member for member in best_last if member.key is not None}


def _nearness(member: Member) -> int:
    """Return how near an instance is to serving."""
    match member.verdict:
        case Rejected():
            return 0
        case Excluded():
            return 1 if member.is_filtered else 2
        case Admitted():
            return 3


def _weighed(config: VirtualServerConfig, members: tuple[Member, ...], overrides: tuple[Override, ...]) -> Weighed:
    own = {each.verdict.key: each.verdict.weight for each in members if isinstance(each.verdict, Admitted)}
    if not overrides:
        return Weighed(weights=own)
    instances = {
        each.verdict.key: each.source
        for each in members
        if isinstance(each.verdict, Admitted) and isinstance(each.source, Instance)
    }
    return weigh(own, instances, overrides, config.scheduler)


def _real_servers(config: VirtualServerConfig, weighed: Weighed, before: RealServers) -> RealServers:
    """Return the real servers; of those `before`, made with the same `config`, the very objects that still fit."""

    def real_server(key: RealServerKey, weight: int) -> RealServer:
        known = before.get(key)
        if known is not None and known.weight == weight:
            return known
        return RealServer(
            key=key,
            forwarding=config.forwarding,
            weight=weight,
            upper_threshold=config.upper_threshold,
            lower_threshold=config.lower_threshold,
        )

    return {key: real_server(key, weight) for key, weight in weighed.weights.items()}


def _one_for_each_real_server(members: Iterable[Member]) -> tuple[Member, ...]:
    """Return the members in their order, all but one admitted at the same real server rejected as duplicates.

    The first by node and instance id stays, whatever the order of Consul's answer, so that the choice never flaps.
    """
    members = tuple(members)
    chosen: dict[RealServerKey, Instance] = {}
    for member in members:
        if isinstance(member.verdict, Admitted) and isinstance(member.source, Instance):
            key, instance = member.verdict.key, member.source
            if key not in chosen or instance.identity < chosen[key].identity:
                chosen[key] = instance
    return tuple(_unless_duplicate(member, chosen) for member in members)


def _unless_duplicate(member: Member, chosen: Mapping[RealServerKey, Instance]) -> Member:
    if not isinstance(member.verdict, Admitted) or chosen[member.verdict.key] is member.source:
        return member
    other = chosen[member.verdict.key]
    return attrs.evolve(
        member,
        verdict=Rejected(
            reason=Reason.DUPLICATE,
            text=f"is at {member.verdict.key} like instance {other.instance_id!r} on node {other.node!r}, which serves",
            key=member.verdict.key,
        ),
    )

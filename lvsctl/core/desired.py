"""The virtual servers wanted, from the configuration and Consul's last complete answers.

Pure. Says for every instance what becomes of it (`Member`), so that nothing that is left out is left out silently.
Two instances at one address and port are one real server: one that is admitted stands for both, the first by node and
id when both are; the other is shown.
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

import attrs

from lvsctl.config import Config, VirtualServerConfig
from lvsctl.core.admission import Admitted, Excluded, Limits, Reason, Rejected, Verdict, admit
from lvsctl.core.instance import Answer, Answers, Instance, Malformed, Query
from lvsctl.core.override import Override
from lvsctl.core.weighing import UNWEIGHED, Weighed, weigh
from netlink.types import (
    Address,
    Family,
    RealServer,
    RealServerKey,
    RealServers,
    TableEntry,
    VirtualServer,
    VirtualServerKey,
)


@attrs.frozen(kw_only=True)
class Member:
    """What becomes of one instance in one virtual server."""

    source: Instance | Malformed
    verdict: Verdict

    @property
    def key(self) -> RealServerKey | None:
        """Return the real server the instance is or would be; None where it cannot be one."""
        return self.verdict.key

    @property
    def is_filtered(self) -> bool:
        """Tell whether the instance is simply not meant for this virtual server."""
        return isinstance(self.verdict, Excluded) and self.verdict.reason in (Reason.TAGS, Reason.META)


@attrs.frozen(kw_only=True)
class Wanted:
    """One virtual server as configured, with what Consul's answer makes of it."""

    config: VirtualServerConfig
    entry: TableEntry
    members: tuple[Member, ...]
    by_key: Mapping[RealServerKey, Member]  # the member behind each real server, the one nearest to serving
    doubt: str = ""  # why Consul may have more instances than it says; empty when it is believed
    snapshot: float | None = None  # Unix seconds when Consul said it, where a snapshot stands in for it
    weighed: Weighed = UNWEIGHED  # the weights of its real servers, and what overrides made of them
    overrides: tuple[Override, ...] = ()
    # Of what it was made: where these are the same objects again, and the overrides equal, it is the same again.
    answer: Answer | None = attrs.field(default=None, eq=False, repr=False)
    limits: Limits | None = attrs.field(default=None, eq=False, repr=False)


def query_of(virtual_server: VirtualServerConfig) -> Query:
    """Return what has to be asked of Consul for `virtual_server`."""
    return Query(
        service=virtual_server.consul_service,
        datacenter=virtual_server.datacenter or "",
        near=virtual_server.near or "",
    )


def queries_of(config: Config) -> frozenset[Query]:
    """Return everything that has to be asked of Consul; virtual servers may share a query."""
    return frozenset(query_of(virtual_server) for virtual_server in config.virtual_servers.values())


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
) -> Mapping[str, Wanted]:
    """Return what is wanted by name, without the virtual servers whose query was never answered.

    `overrides` are those that stand now, by virtual server.

    To judge instances is most of the work of a cycle, so what is made of the same as in `before` is taken from there.
    """
    before = before or {}
    overrides = overrides or {}
    wanted = {}
    for name, virtual_server in config.virtual_servers.items():
        answer = answers.get(query_of(virtual_server))
        if answer is None:
            continue
        known, its = before.get(virtual_server.key), overrides.get(name, ())
        same = known and known.config is virtual_server and known.answer is answer and known.limits is limits
        if known and same and known.overrides == its:
            wanted[name] = known
        else:
            wanted[name] = _wanted(virtual_server, answer, limits, its)
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


def _wanted(config: VirtualServerConfig, answer: Answer, limits: Limits, overrides: tuple[Override, ...]) -> Wanted:
    members = _one_for_each_real_server(
        Member(source=instance, verdict=admit(instance, config, limits)) for instance in answer.instances
    )
    unreadable = tuple(
        Member(source=entry, verdict=Rejected(reason=Reason.MALFORMED, text=entry.reason)) for entry in answer.malformed
    )
    weighed = _weighed(config, members, overrides)
    real_servers = _real_servers(config, weighed)
    return Wanted(
        config=config,
        entry=TableEntry(virtual_server=virtual_server_of(config), real_servers=real_servers),
        members=members + unreadable,
        by_key=_by_key(members),
        doubt=answer.doubt,
        snapshot=answer.snapshot,
        weighed=weighed,
        overrides=overrides,
        answer=answer,
        limits=limits,
    )


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


def _real_servers(config: VirtualServerConfig, weighed: Weighed) -> RealServers:
    return {
        key: RealServer(
            key=key,
            forwarding=config.forwarding,
            weight=weight,
            upper_threshold=config.upper_threshold,
            lower_threshold=config.lower_threshold,
        )
        for key, weight in weighed.weights.items()
    }


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

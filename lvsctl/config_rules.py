"""What must hold between the keys of a configuration file, and how a virtual server's keys become one value.

Pure. `config_types` has judged each value by itself before; here a key that was refused there is unknown, and a rule
that would need it stays silent, so one mistake is told once. Rules yield what is wrong in no particular order.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

import attrs

from lvsctl.config import (
    DEFAULT_SCHEDULER_FLAGS,
    FORWARDING,
    NAME_PATTERN,
    RAMPING,
    SCHEDULER_FLAGS,
    ConsulConfig,
    DefaultsTable,
    Probe,
    VirtualServerConfig,
    VirtualServerTable,
)
from lvsctl.config_addresses import ClientPrefix
from lvsctl.config_types import KeyPath, Wrong, quoted, shown
from netlink.types import Family, Forwarding, Protocol, RealServerKey, SchedulerFlag, VirtualServerKey

T = TypeVar("T")

_NAME: Final = re.compile(NAME_PATTERN)
_BUILT_IN: Final = {field.name: field.default for field in attrs.fields(VirtualServerConfig)}


@attrs.frozen(kw_only=True)
class Read(Generic[T]):
    """A table as it was read: the values that were good, the keys that were written, the keys that were refused."""

    table: T
    written: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()


@attrs.frozen(kw_only=True)
class Merged:
    """A virtual server's own keys over those of `[defaults]` over the built-in ones."""

    name: str
    own: Read[VirtualServerTable]
    defaults: Read[DefaultsTable]

    def value(self, key: str) -> Any:  # noqa: ANN401  as many types as there are keys
        """Return what counts for `key` of DefaultsTable; meaningless when it is not `known`."""
        if key in self.own.written:
            return getattr(self.own.table, key)
        inherited = getattr(self.defaults.table, key)
        return _BUILT_IN[key] if inherited is None else inherited

    def known(self, *keys: str) -> bool:
        """Return whether none of `keys` was refused where it counts."""
        return not any(key in (self.own.refused if key in self.own.written else self.defaults.refused) for key in keys)

    def at(self, key: str) -> KeyPath:
        """Return where to point for `key`: at it, or at the virtual server when it was inherited."""
        return ("virtual_server", self.name, *([key] if key in self.own.written else []))

    def is_written(self, key: str) -> bool:
        """Return whether the virtual server itself has `key`, good or refused."""
        return key in self.own.written


def name_rules(name: str) -> Iterator[Wrong]:
    """Yield what is wrong with the name of a virtual server."""
    if not _NAME.fullmatch(name):
        yield Wrong(
            f"{shown(name)} cannot name a virtual server",
            "write 1 to 63 of A-Z a-z 0-9 _ . - beginning with a letter, digit or _ (a name with a dot goes in quotes)",
            ("virtual_server", name),
        )


def consul_rules(consul: Read[ConsulConfig]) -> Iterator[Wrong]:
    """Yield what does not fit together in `[consul]`, completed from the environment."""
    for one, other in (("certificate_file", "key_file"), ("key_file", "certificate_file")):
        if one in consul.written and other not in consul.written:
            yield Wrong(f"{one} without {other}", f"write {other} too", ("consul", one))
    address = consul.table.address
    if "address" in consul.refused or address.startswith("https:"):
        return
    for key in ("ca_file", "certificate_file", "key_file", "server_name"):
        if key in consul.written:
            scheme = address.partition(":")[0]
            yield Wrong(
                f"address is {scheme}, which uses no certificates",
                'write address = "https://…" or remove this key',
                ("consul", key),
            )


def virtual_server_rules(merged: Merged) -> Iterator[Wrong]:
    """Yield what does not fit together in one virtual server."""
    yield from _identity(merged)
    yield from _scheduling(merged)
    yield from _persistence(merged)
    yield from thresholds(merged)
    yield from failover(merged)
    yield from _probe(merged)
    yield from _fallback(merged)


def _identity(merged: Merged) -> Iterator[Wrong]:
    by_address, by_mark = merged.is_written("address"), merged.is_written("firewall_mark")
    if by_address and by_mark:
        yield Wrong("address and firewall_mark exclude each other", "remove one of the two", merged.at("firewall_mark"))
        return
    if not by_address and not by_mark:
        yield Wrong(
            "neither address nor firewall_mark",
            'write address = "10.9.0.100:80" or firewall_mark = 7',
            merged.at("address"),
        )
        return
    if by_mark and merged.is_written("protocol"):
        yield Wrong(
            "a firewall mark has no protocol",
            "remove it; the firewall rule that sets the mark chooses the protocols",
            merged.at("protocol"),
        )
    if by_address and merged.is_written("family"):
        yield Wrong("an address says its own family", "remove it; it goes with firewall_mark only", merged.at("family"))


def _scheduling(merged: Merged) -> Iterator[Wrong]:
    scheduler = merged.value("scheduler")
    if merged.known("scheduler", "scheduler_flags"):
        for index, flag in enumerate(merged.own.table.scheduler_flags):
            wanted = flag.partition("-")[0]
            if wanted not in {"flag", scheduler}:
                fitting = [word for word in SCHEDULER_FLAGS if word.startswith((f"{scheduler}-", "flag-"))]
                yield Wrong(
                    f"{quoted(flag)} does not fit the scheduler {quoted(scheduler)}",
                    f"write scheduler = {quoted(wanted)}, or one of {', '.join(fitting)}",
                    (*merged.at("scheduler_flags"), index),
                )
    is_address = merged.is_written("address") and not merged.is_written("firewall_mark")
    if is_address and merged.known("protocol", "one_packet") and merged.own.table.one_packet:
        protocol = merged.own.table.protocol or Protocol.TCP
        if protocol is not Protocol.UDP:
            yield Wrong(
                f"one_packet does not work with {protocol.name.lower()}",
                'write protocol = "udp" or remove this key',
                merged.at("one_packet"),
            )


def _persistence(merged: Merged) -> Iterator[Wrong]:
    if not merged.is_written("persistence_netmask"):
        return
    if merged.known("persistence") and not merged.value("persistence"):
        yield Wrong(
            "persistence_netmask without persistence",
            'write persistence = "5m" too, or remove this key',
            merged.at("persistence_netmask"),
        )
    prefix = merged.own.table.persistence_netmask
    family = family_of_table(merged)
    if prefix is None or family is None:
        return
    if family is Family.IPV6 and prefix.dotted:
        yield Wrong(
            "a dotted mask is for IPv4, this virtual server is IPv6",
            "write a prefix length from 1 to 128, like 64",
            merged.at("persistence_netmask"),
        )
    if family is Family.IPV4 and prefix.length > 32:
        yield Wrong(
            f"{prefix.length} is too long for IPv4",
            'write 1 to 32, or a mask like "255.255.255.0"',
            merged.at("persistence_netmask"),
        )


def thresholds(merged: Merged) -> Iterator[Wrong]:
    """Yield that a lower threshold is above the upper one."""
    if not merged.known("upper_threshold", "lower_threshold"):
        return
    upper, lower = merged.value("upper_threshold"), merged.value("lower_threshold")
    if lower <= upper:
        return
    own = [key for key in ("lower_threshold", "upper_threshold") if merged.is_written(key)]
    both_inherited = not own and {"lower_threshold", "upper_threshold"} <= merged.defaults.written
    yield Wrong(
        f"lower_threshold {lower} is above upper_threshold {upper}" + ("" if upper else " (no limit)"),
        "write an upper_threshold that is not below it",
        ("defaults", "lower_threshold") if both_inherited else merged.at(own[0] if own else ""),
    )


def failover(merged: Merged) -> Iterator[Wrong]:
    """Yield that a datacenter is to fail over to itself."""
    if not merged.known("datacenter", "failover"):
        return
    own, others = merged.value("datacenter"), merged.value("failover")
    if own not in others:
        return
    left = ", ".join(quoted(each) for each in others if each != own)
    listed = merged.is_written("failover")
    yield Wrong(
        f"{quoted(own)} is its own datacenter, it cannot fail over to it",
        f"write failover = [{left}]",
        (*merged.at("failover"), others.index(own)) if listed else merged.at("datacenter"),
    )


def _probe(merged: Merged) -> Iterator[Wrong]:
    if not merged.is_written("probe") or not merged.known("probe") or _is_tcp(merged):
        return
    if merged.value("probe") is not Probe.NOBODY:
        yield Wrong(
            "probe connects by TCP, and this virtual server is not told to be TCP alone",
            'remove this key, or write address and protocol = "tcp"',
            merged.at("probe"),
        )


def slow_start_rules(merged: Merged) -> Iterator[Wrong]:
    """Yield that the weights of a virtual server of the file give no shares, so that slow start does nothing.

    Where a virtual server names its scheduler itself, it is no mistake that `[defaults]` asks for slow start, nor is it
    one of a Consul service that declares a virtual server: what is inherited does not count there.
    """
    if not merged.known("slow_start", "scheduler") or not merged.value("slow_start"):
        return
    scheduler = merged.value("scheduler")
    if scheduler in RAMPING or (merged.is_written("scheduler") and not merged.is_written("slow_start")):
        return
    inherited = not merged.is_written("slow_start")
    yield Wrong(
        f"slow_start does nothing with the scheduler {quoted(scheduler)}, whose weights give no shares",
        f"write {' or '.join(f'scheduler = {quoted(each)}' for each in RAMPING[:2])}, or remove this key",
        ("defaults", "slow_start") if inherited else merged.at("slow_start"),
    )


def _slow_start(merged: Merged) -> float:
    """Return the seconds; of what is inherited nothing counts where weights give no shares."""
    return float(merged.value("slow_start")) if merged.value("scheduler") in RAMPING else 0.0


def _fallback(merged: Merged) -> Iterator[Wrong]:
    fallback, address, at = merged.own.table.fallback, merged.own.table.address, merged.at("fallback")
    family = family_of_table(merged)
    if fallback is None or family is None:
        return
    if fallback.address.version != (4 if family is Family.IPV4 else 6):
        other = 4 if family is Family.IPV4 else 6
        yield Wrong(
            f"the fallback is IPv{fallback.address.version}, the virtual server IPv{other}",
            f"write an IPv{other} address",
            at,
        )
    elif address is not None and fallback.address == address.address:
        yield Wrong(
            "the fallback is at the virtual address itself", "write the address of the machine that it runs on", at
        )
    elif address is not None and merged.known("forwarding") and fallback.port != address.port:
        forwarding = merged.value("forwarding")
        if forwarding is not Forwarding.MASQUERADE:
            words = next(name for name, each in FORWARDING.items() if each is forwarding)
            yield Wrong(
                f"the fallback listens at port {fallback.port}, and {words} leaves the port as it is",
                f"write port {address.port}",
                at,
            )


def _is_tcp(merged: Merged) -> bool:
    """Tell whether all that is balanced is TCP; of what is inherited nothing counts where it is not."""
    return merged.own.table.firewall_mark is None and merged.own.table.protocol in {None, Protocol.TCP}


def family_of_table(merged: Merged) -> Family | None:
    """Return the address family of a virtual server, None when its keys do not say one."""
    if merged.own.table.address is not None:
        return Family.IPV4 if merged.own.table.address.address.version == 4 else Family.IPV6
    if merged.own.table.firewall_mark is not None and merged.known("family"):
        return merged.own.table.family or Family.IPV4
    return None


def key_of(merged: Merged) -> VirtualServerKey | None:
    """Return what identifies the virtual server, None when its keys do not say it."""
    table = merged.own.table
    if merged.is_written("address") == merged.is_written("firewall_mark"):
        return None
    if table.address is not None and merged.known("protocol"):
        return VirtualServerKey.by_address(table.protocol or Protocol.TCP, table.address.address, table.address.port)
    if table.firewall_mark is not None and merged.known("family"):
        return VirtualServerKey.by_mark(table.firewall_mark, table.family or Family.IPV4)
    return None


def duplicates(servers: Mapping[str, VirtualServerKey | None], lines: Mapping[str, int]) -> Iterator[Wrong]:
    """Yield every virtual server that has the identity of an earlier one; `lines` are those of their tables."""
    first: dict[VirtualServerKey, str] = {}
    for name in sorted(servers, key=lambda name: lines[name]):
        key = servers[name]
        if key is None:
            continue
        if key in first:
            other = first[key]
            at = "firewall_mark" if key.mark else "address"
            yield Wrong(
                f"{key} is also virtual_server.{shown_name(other)} (line {lines[other]})",
                "change or remove one of the two",
                ("virtual_server", name, at),
            )
        first.setdefault(key, name)


def misplaced_fallbacks(servers: Sequence[Merged]) -> Iterator[Wrong]:
    """Yield every fallback at another virtual server's address: the director would take its packets for its own."""
    at = {each.own.table.address.address: each.name for each in reversed(servers) if each.own.table.address}
    for merged in servers:
        fallback, address = merged.own.table.fallback, merged.own.table.address
        if fallback is None or (address is not None and address.address == fallback.address):
            continue
        if (name := at.get(fallback.address)) is not None:
            yield Wrong(
                f"the fallback is at the virtual address of virtual_server.{shown_name(name)}",
                "write the address of the machine that it runs on",
                merged.at("fallback"),
            )


def shown_name(name: str) -> str:
    """Return a virtual server's name as it is written in a header."""
    return name if re.fullmatch("[A-Za-z0-9_-]{1,63}", name) else shown(name)


def _fallback_key(merged: Merged, key: VirtualServerKey) -> RealServerKey | None:
    """Return the real server that the fallback is: only masquerading changes the port of a packet."""
    written = merged.own.table.fallback
    if written is None:
        return None
    masquerade = merged.value("forwarding") is Forwarding.MASQUERADE
    return RealServerKey(address=written.address, port=written.port if masquerade else key.port)


def _scheduler_flags(merged: Merged) -> SchedulerFlag:
    words = merged.own.table.scheduler_flags
    if not merged.is_written("scheduler_flags"):
        words = DEFAULT_SCHEDULER_FLAGS.get(merged.value("scheduler"), ())
    flags = SchedulerFlag.NONE
    for word in words:
        flags |= SCHEDULER_FLAGS[word]
    return flags


def virtual_server(merged: Merged) -> VirtualServerConfig:
    """Return the virtual server; the rules have been asked and found nothing."""
    table = merged.own.table
    key = key_of(merged)
    if key is None:
        raise ValueError(merged.name)
    prefix: ClientPrefix | None = table.persistence_netmask
    return VirtualServerConfig(
        name=merged.name,
        key=key,
        consul_service=table.consul_service or merged.name,
        tags=table.tags,
        meta=table.meta,
        scheduler_flags=_scheduler_flags(merged),
        one_packet=table.one_packet,
        persistence=int(merged.value("persistence") or 0) or None,
        persistence_prefix=prefix.length if prefix else None,
        probe=merged.value("probe") if _is_tcp(merged) else Probe.NOBODY,
        slow_start=_slow_start(merged),
        fallback=_fallback_key(merged, key),
        **{
            name: merged.value(name)
            for name in attrs.fields_dict(DefaultsTable)
            if name not in {"persistence", "probe", "slow_start"}
        },
    )

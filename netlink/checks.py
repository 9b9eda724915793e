"""What a value of this package may not be: why no kernel should get it, in words.

Pure. `layout` says what each attribute alone may hold; here is what holds between several, and what is of another type
altogether. Source: net/netfilter/ipvs/ip_vs_ctl.c, which checks little and silently makes other things of the rest.
"""

import enum
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

import attrs

from netlink.types import (
    Address,
    Family,
    Forwarding,
    Protocol,
    RealServer,
    RealServerKey,
    SchedulerFlag,
    SyncDaemon,
    SyncRole,
    Timeouts,
    Tunnel,
    TunnelFlag,
    VirtualServer,
    VirtualServerKey,
    family_of,
)

# To look up a member of an enumeration takes longer than to compare with it.
_IPV4: Final = Family.IPV4
_BALANCED: Final = (Protocol.TCP, Protocol.UDP, Protocol.SCTP)
_NO_SCHEDULER_FLAGS: Final = SchedulerFlag.NONE
_NO_FLAGS: Final = ~int(SchedulerFlag.FLAG_1 | SchedulerFlag.FLAG_2 | SchedulerFlag.FLAG_3)


def shown(value: object) -> str:
    """Return `value` as an error shows it; its type where it cannot be shown, as a number of thousands of digits."""
    try:
        return str(value.name) if isinstance(value, enum.Enum) else repr(value)
    except (AttributeError, TypeError, ValueError):
        return f"of type {type(value).__name__}"


def type_problem(value: object, cls: type[Any]) -> str | None:
    """Return which field of `value`, that should be a `cls`, is of another type, None when none is."""
    if not isinstance(value, cls):
        return f"it is no {cls.__name__} but {shown(value)}"
    for field in attrs.fields(cls):
        found, wanted = getattr(value, field.name), field.type
        if isinstance(wanted, type) and attrs.has(wanted):
            problem = type_problem(found, wanted)
        elif isinstance(found, wanted) or (isinstance(found, int) and wanted in (Forwarding, Tunnel, TunnelFlag)):
            problem = None
        else:
            problem = f"{field.name} {shown(found)} is no {getattr(wanted, '__name__', wanted)}"
        if problem is not None:
            return problem
    return None


def key_problem(key: VirtualServerKey) -> str | None:
    """Return what is wrong with the identity of a virtual server, None when nothing is."""
    if type(key.address) is IPv4Address and key.family is _IPV4 and type(key.protocol) is Protocol and key.mark == 0:
        return None  # as nearly always
    return _unusual_key_problem(key)


def _unusual_key_problem(key: VirtualServerKey) -> str | None:
    if not isinstance(key.family, Family):
        return f"family {shown(key.family)} is no Family"
    if key.mark:
        if key.protocol is not None or key.address is not None or key.port != 0 or key.mark < 0:
            return "key must be a mark from 1, or a protocol with address and port"
        return None
    if key.protocol is None or key.address is None or key.mark != 0:
        return "key must be a mark from 1, or a protocol with address and port"
    if not isinstance(key.protocol, Protocol):
        return f"protocol {shown(key.protocol)} is no Protocol"
    if family_of(key.address) is not key.family:
        return f"family {key.family.name} does not fit its address"
    return _address_problem(key.address)


def _address_problem(address: Address, name: str = "address") -> str | None:
    if type(address) is IPv4Address:
        return None
    if type(address) is not IPv6Address:  # IPv4Interface is an IPv4Address too, but equals none
        return f"{name} {shown(address)} is no IPv4Address or IPv6Address"
    if address.scope_id is not None:
        return f"address {address} has a scope, which the kernel cannot keep"
    return None


def virtual_server_problem(virtual_server: VirtualServer) -> str | None:
    """Return what is wrong with the configuration of a virtual server, besides its key, None when nothing is."""
    key, prefix = virtual_server.key, virtual_server.persistence_prefix
    if key.protocol is not None and key.protocol not in _BALANCED:
        return f"protocol {int(key.protocol)} is none that IPVS balances"
    if key.mark == 0 and key.port == 0 and virtual_server.persistence is None:
        return "port 0 (every port) needs persistence"
    if virtual_server.persistence is not None and virtual_server.persistence < 1:
        return f"persistence {shown(virtual_server.persistence)} is not 1 second or more"
    if prefix is not None:
        low, high = (0, 32) if key.family is _IPV4 else (1, 128)
        if not low <= prefix <= high:
            return f"persistence_prefix {shown(prefix)} is not in {low}..{high}"
    if virtual_server.scheduler_flags is _NO_SCHEDULER_FLAGS and virtual_server.one_packet is False:
        return None  # as nearly always
    return _flags_problem(virtual_server)


def _flags_problem(virtual_server: VirtualServer) -> str | None:
    if not isinstance(virtual_server.scheduler_flags, int):
        return f"scheduler_flags {shown(virtual_server.scheduler_flags)} is no SchedulerFlag"
    if int(virtual_server.scheduler_flags) & _NO_FLAGS:
        return f"scheduler_flags {int(virtual_server.scheduler_flags):#x} has unknown bits"
    if virtual_server.one_packet not in (False, True):
        return f"one_packet {shown(virtual_server.one_packet)} is no bool"
    if virtual_server.one_packet and virtual_server.key.protocol in (Protocol.TCP, Protocol.SCTP):
        return "one_packet works with UDP only"
    return None


def real_server_problem(real_server: RealServer) -> str | None:
    """Return what is wrong with a real server, None when nothing is."""
    key = real_server.key
    if not isinstance(key, RealServerKey):  # another thing may have an address and a port too
        return f"it is no RealServerKey but {shown(key)}"
    if (problem := _address_problem(key.address)) is not None:
        return problem
    return _tunnel_problem(real_server)


def _tunnel_problem(real_server: RealServer) -> str | None:
    """Return what the kernel would keep of a tunnel and never look at, or cannot do without."""
    kind, flags = real_server.tunnel_type, int(real_server.tunnel_flags)
    if kind == Tunnel.GUE:
        return "tunnel_type 1 (gue) needs a tunnel_port" if real_server.tunnel_port == 0 else None
    if real_server.tunnel_port != 0:
        return f"tunnel_port {shown(real_server.tunnel_port)} means nothing but with gue"
    if kind == Tunnel.IPIP and flags & (TunnelFlag.CHECKSUM | TunnelFlag.REMOTE_CHECKSUM):
        return f"tunnel_flags {flags} mean nothing with ipip"
    if kind == Tunnel.GRE and flags & TunnelFlag.REMOTE_CHECKSUM:
        return f"tunnel_flags {flags} ask for the remote checksum, which only gue has"
    return None


def sync_daemon_problem(daemon: SyncDaemon) -> str | None:
    """Return what is wrong with a synchronisation daemon, None when nothing is."""
    if not isinstance(daemon.role, SyncRole):
        return f"role {shown(daemon.role)} is no SyncRole"
    if (problem := _address_problem(daemon.group, "group")) is not None:
        return problem
    overhead = 28 if daemon.group.version == 4 else 48  # IP and UDP headers
    low, high = 1024 if daemon.role is SyncRole.BACKUP else 1, 65535 - overhead  # else the kernel silently clamps
    if daemon.max_length is not None and not low <= daemon.max_length <= high:
        return f"max_length {shown(daemon.max_length)} is not in {low}..{high}"
    if not daemon.group.is_multicast:
        return f"group {daemon.group} is no multicast address"
    if not 1 <= daemon.port <= 65535:
        return f"port {shown(daemon.port)} is not in 1..65535"
    if not 1 <= daemon.ttl <= 255:
        return f"ttl {shown(daemon.ttl)} is not in 1..255"
    return None


def timeouts_problem(timeouts: Timeouts) -> str | None:
    """Return what is wrong with timeouts, None when nothing is."""
    for name in ("tcp", "tcp_fin", "udp"):
        seconds = getattr(timeouts, name)
        if not isinstance(seconds, int) or seconds < 1:
            return f"{name} {shown(seconds)} is not 1 second or more"
    return None

"""Every attribute of IPVS's generic netlink interface: the one table that all else is made from.

Pure. A row is all there is to an attribute: its number, its form on the wire, and what of a value it carries. Encoding
and decoding (`compiler`, `bulk`), comparing (`codec.differences`), the fake kernel and the table in docs/netlink.md use
the same rows, so nothing can be compared but not written. A new attribute is a new row here and a field of that name in
`types`. Where an attribute is no field as it stands (a key has four, the flags hold three fields), a row has a function
that takes it from the value, and a `Field` says what is made of it.

The kernel says *service* and *destination*; those words stay here and in `codec`.
Source: include/uapi/linux/ip_vs.h and net/netfilter/ipvs/ip_vs_ctl.c.
"""

import functools
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from operator import index
from typing import Any, Final

import attrs

from netlink import wire
from netlink.checks import real_server_problem, shown, sync_daemon_problem, timeouts_problem, virtual_server_problem
from netlink.errors import Malformed
from netlink.types import (
    IRREGULAR_MASK,
    MAX_CONNECTIONS,
    MAX_PERSISTENCE,
    MAX_TIMEOUT,
    MAX_WEIGHT,
    Address,
    Family,
    Forwarding,
    Info,
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
)


@attrs.frozen(kw_only=True)
class Row:
    """One attribute of an object. `take` and `path` start at the object, in a row of the key at its key."""

    number: int
    kernel: str  # the kernel's name, without what the layout's names begin with
    name: str  # ours, in errors, differences, and as a field of the value unless `fields` say otherwise
    form: wire.Form
    key: bool = False  # part of the identity, sent with every command
    path: str = ""  # where the value has it, when that is not its name: "address.packed"
    take: Callable[[Any], wire.Plain | None] | None = None  # how to get it, when no path leads to it always
    optional: bool = False  # None is not sent, and what the kernel did not send is None
    absent: wire.Plain | None = None  # what it means when an older kernel does not send it; None: Malformed
    high: int | None = None  # largest number to send; None: whatever the form holds
    allowed: tuple[int, ...] = ()  # numbers to send; (): all
    usual: int | None = None  # the very object that nearly all have here; such rows come last
    note: str = ""  # for the documentation

    def value_of(self, value: Any) -> wire.Plain | None:
        """Return what this attribute is for `value`, None when it is not sent."""
        holder = value.key if self.key else value
        if self.take is not None:
            return self.take(holder)
        for name in (self.path or self.name).split("."):
            holder = getattr(holder, name)
        plain: wire.Plain | None = holder
        return plain

    def problem(self, value: Any) -> str | None:
        """Return why this attribute of `value` cannot be sent, None when it can.

        What is raised where it has another type is for `type_problem` to explain.
        """
        plain = self.value_of(value)
        if plain is None:
            return None if self.optional else f"{self.name} is missing"
        problem = self._plain_problem(plain)
        return None if problem is None else f"{self.name} {shown(plain)} {problem}"

    def _plain_problem(self, plain: wire.Plain) -> str | None:
        if self.high is not None and not (isinstance(plain, int) and 0 <= plain <= self.high):
            return f"is not in 0..{self.high}" if isinstance(plain, int) else "is no integer"
        if self.allowed and plain not in self.allowed:
            return "cannot be asked for"
        return self.form.problem(plain)


@attrs.frozen
class Field:
    """A field of a value that is made of attributes: of those named `reads`, in that order, by `make`."""

    name: str
    make: Callable[..., object]
    reads: tuple[str, ...]


@attrs.frozen(kw_only=True)
class Layout:
    """All attributes of one kind of object."""

    kind: str  # as errors say it
    prefix: str  # of the kernel's names
    make: type[Any]  # the value of its fields
    rows: tuple[Row, ...]
    fields: tuple[Field, ...] = ()  # those that are not a row's own
    problem: Callable[[Any], str | None] = lambda _: None  # what is wrong where no row's range can say it
    counters: tuple[Row, ...] = ()  # what only the kernel writes
    traffic: tuple[int, int] | None = None  # numbers of the nested counters of 64 bits, and of 32 for kernels without

    def named(self, *names: str) -> tuple[Row, ...]:
        """Return the rows of these names."""
        return tuple(row for row in self.rows if row.name in names)

    @property
    def identity(self) -> tuple[Row, ...]:
        """Return the rows that are the key."""
        return tuple(row for row in self.rows if row.key)

    @property
    def configuration(self) -> tuple[Row, ...]:
        """Return the other rows."""
        return tuple(row for row in self.rows if not row.key)


def _address(family: Family, octets: bytes) -> Address:
    return _ipv4(octets[:4]) if family is Family.IPV4 else IPv6Address(octets)


@functools.lru_cache(maxsize=4096)
def _ipv4(octets: bytes) -> IPv4Address:
    """Return the address; one that many real servers have, on as many ports, is one object."""
    return IPv4Address(octets)


def _family(kind: str, number: int) -> Family:
    if number == Family.IPV4:
        return Family.IPV4
    if number == Family.IPV6:
        return Family.IPV6
    raise Malformed("read", kind, f"its address family is {number}")


def _packed(address: Address | None) -> bytes | None:
    return None if address is None else address.packed


# ---- virtual servers

_PERSISTENT: Final = 0x01
_HASHED: Final = 0x02  # the kernel's own
_ONE_PACKET: Final = 0x04
_NOT_SCHEDULERS: Final = _PERSISTENT | _HASHED | _ONE_PACKET


def _virtual_server_key(
    family: int, protocol: int | None, octets: bytes | None, port: int | None, mark: int | None
) -> VirtualServerKey:
    kind = "virtual server"
    of = _family(kind, family)
    if mark:
        return VirtualServerKey.by_mark(mark, of)
    if protocol is None or octets is None or port is None:
        raise Malformed("read", kind, "it has neither a mark nor protocol, address and port")
    return VirtualServerKey.by_address(Protocol(protocol), _address(of, octets), port)


def _flags(virtual_server: VirtualServer) -> int:
    persistent = _PERSISTENT if virtual_server.persistence is not None else 0
    one_packet = _ONE_PACKET if virtual_server.one_packet else 0
    return index(virtual_server.scheduler_flags) | persistent | one_packet  # | of an IntFlag takes a microsecond


def _prefix(family: int, octets: bytes) -> int | None:
    """Return the persistence prefix: the kernel keeps a mask in network order for IPv4, a number of bits for IPv6."""
    if family == Family.IPV6:
        bits: int = struct.unpack("=I", octets)[0]
        return bits
    mask = int.from_bytes(octets, "big")
    ones = mask.bit_count()
    return ones if mask == (0xFFFFFFFF << (32 - ones)) & 0xFFFFFFFF else IRREGULAR_MASK


_WHOLE_IPV4: Final = b"\xff\xff\xff\xff"
_WHOLE_IPV6: Final = struct.pack("=I", 128)


_IPV4: Final = Family.IPV4  # to look up a member of an enumeration takes longer than to compare with it


def _netmask(virtual_server: VirtualServer) -> bytes:
    prefix = virtual_server.persistence_prefix
    if prefix == IRREGULAR_MASK:
        return b""  # no prefix has it; it cannot be sent
    if prefix is None:
        return _WHOLE_IPV4 if virtual_server.key.family is _IPV4 else _WHOLE_IPV6
    if virtual_server.key.family is Family.IPV6:
        return struct.pack("=I", prefix)
    return ((0xFFFFFFFF << (32 - prefix)) & 0xFFFFFFFF).to_bytes(4, "big")


SERVICE: Final = Layout(
    kind="virtual server",
    prefix="IPVS_SVC_ATTR_",
    make=VirtualServer,
    problem=virtual_server_problem,
    rows=(
        Row(number=1, kernel="AF", name="family", form=wire.U16, key=True),
        Row(number=2, kernel="PROTOCOL", name="protocol", form=wire.U16, key=True, optional=True),
        Row(number=3, kernel="ADDR", name="address", form=wire.OCTETS_16, key=True, optional=True,
            path="address.packed", take=lambda key: _packed(key.address), note="IPv4 in the first 4"),
        Row(number=4, kernel="PORT", name="port", form=wire.BE16, key=True, optional=True,
            path="port", take=lambda key: None if key.protocol is None else key.port),
        Row(number=5, kernel="FWMARK", name="mark", form=wire.U32, key=True, optional=True,
            path="mark", take=lambda key: key.mark or None, note="instead of protocol, address and port"),
        Row(number=6, kernel="SCHED_NAME", name="scheduler", form=wire.NAME),
        Row(number=7, kernel="FLAGS", name="flags", form=wire.FLAGS, take=_flags,
            note="1 persistent, 4 one packet, 8 16 32 the scheduler's"),
        Row(number=8, kernel="TIMEOUT", name="persistence", form=wire.U32, take=lambda v: v.persistence or 0,
            high=MAX_PERSISTENCE, note="seconds"),
        Row(number=9, kernel="NETMASK", name="persistence_prefix", form=wire.OCTETS_4, take=_netmask,
            note="IPv4: mask in network order; IPv6: u32 of bits"),
        Row(number=11, kernel="PE_NAME", name="persistence_engine", form=wire.NAME, optional=True),
    ),
    fields=(
        Field("key", _virtual_server_key, ("family", "protocol", "address", "port", "mark")),
        Field("one_packet", lambda flags: bool(flags & _ONE_PACKET), ("flags",)),
        Field("scheduler_flags", lambda flags: SchedulerFlag(flags & ~_NOT_SCHEDULERS), ("flags",)),
        # the kernel keeps a timeout on a virtual server that is not persistent, where it means nothing
        Field("persistence", lambda flags, seconds: seconds if flags & _PERSISTENT else None, ("flags", "persistence")),
        Field("persistence_prefix", _prefix, ("family", "persistence_prefix")),
    ),
    traffic=(12, 10),
)  # fmt: skip


# ---- real servers

_FORWARDINGS: Final = (
    Forwarding.MASQUERADE,
    Forwarding.TUNNEL,
    Forwarding.DIRECT_ROUTE,
    Forwarding.LOCAL,
    Forwarding.BYPASS,
)


def _real_server_key(family: int, octets: bytes, port: int) -> RealServerKey:
    return RealServerKey(address=_address(_family("real server", family), octets), port=port)


# Calling an enumeration takes half a microsecond, and there are three in each of ten thousand real servers.
_KNOWN_FORWARDINGS: Final = {int(each): each for each in Forwarding}
_KNOWN_TUNNELS: Final = {int(each): each for each in Tunnel}
_KNOWN_TUNNEL_FLAGS: Final = {number: TunnelFlag(number) for number in range(4)}


def _forwarding(number: int) -> Forwarding:
    if number > 7:  # IP_VS_CONN_F_FWD_MASK has three bits
        raise Malformed("read", "real server", f"its forwarding is {number}")
    known = _KNOWN_FORWARDINGS.get(number)
    return Forwarding(number) if known is None else known


def _tunnel(number: int) -> Tunnel:
    known = _KNOWN_TUNNELS.get(number)
    return Tunnel(number) if known is None else known


def _tunnel_flags(number: int) -> TunnelFlag:
    known = _KNOWN_TUNNEL_FLAGS.get(number)
    return TunnelFlag(number) if known is None else known


# A kernel before 5.3 has ipip only, and sends none of the tunnel's three attributes; one before 3.18 sends no family.
DESTINATION: Final = Layout(
    kind="real server",
    prefix="IPVS_DEST_ATTR_",
    make=RealServer,
    problem=real_server_problem,
    rows=(
        Row(number=11, kernel="ADDR_FAMILY", name="family", form=wire.U16, key=True, allowed=tuple(Family)),
        Row(number=1, kernel="ADDR", name="address", form=wire.OCTETS_16, key=True, path="packed",
            note="IPv4 in the first 4"),
        Row(number=2, kernel="PORT", name="port", form=wire.BE16, key=True),
        Row(number=3, kernel="FWD_METHOD", name="forwarding", form=wire.U32, allowed=_FORWARDINGS,
            note="0 masquerade, 1 local, 2 tunnel, 3 direct-route, 4 bypass"),
        Row(number=4, kernel="WEIGHT", name="weight", form=wire.U32, high=MAX_WEIGHT),
        Row(number=5, kernel="U_THRESH", name="upper_threshold", form=wire.U32, high=MAX_CONNECTIONS, usual=0),
        Row(number=6, kernel="L_THRESH", name="lower_threshold", form=wire.U32, high=MAX_CONNECTIONS, usual=0),
        Row(number=13, kernel="TUN_TYPE", name="tunnel_type", form=wire.U8, high=max(Tunnel), usual=Tunnel.IPIP,
            absent=0, note="0 ipip, 1 gue, 2 gre"),
        Row(number=14, kernel="TUN_PORT", name="tunnel_port", form=wire.BE16, usual=0, absent=0),
        Row(number=15, kernel="TUN_FLAGS", name="tunnel_flags", form=wire.U16, usual=TunnelFlag.NONE, absent=0,
            high=TunnelFlag.CHECKSUM | TunnelFlag.REMOTE_CHECKSUM, note="1 checksum, 2 remote checksum"),
    ),
    fields=(
        Field("key", _real_server_key, ("family", "address", "port")),
        Field("forwarding", _forwarding, ("forwarding",)),
        Field("tunnel_type", _tunnel, ("tunnel_type",)),
        Field("tunnel_flags", _tunnel_flags, ("tunnel_flags",)),
    ),
    counters=(
        Row(number=7, kernel="ACTIVE_CONNS", name="active", form=wire.U32),
        Row(number=8, kernel="INACT_CONNS", name="inactive", form=wire.U32),
        Row(number=9, kernel="PERSIST_CONNS", name="persistent", form=wire.U32),
    ),
    traffic=(12, 10),
)  # fmt: skip


# ---- synchronisation daemons


def _sync_group(octets4: bytes | None, octets6: bytes | None) -> Address:
    if octets6 is not None:
        return IPv6Address(octets6)
    if octets4 is not None:
        return IPv4Address(octets4)
    return IPv4Address("224.0.0.81")  # a kernel before 4.3 knows no other


DAEMON: Final = Layout(
    kind="synchronisation daemon",
    prefix="IPVS_DAEMON_ATTR_",
    make=SyncDaemon,
    problem=sync_daemon_problem,
    rows=(
        Row(number=1, kernel="STATE", name="role", form=wire.U32, allowed=tuple(SyncRole), note="1 master, 2 backup"),
        Row(number=2, kernel="MCAST_IFN", name="interface", form=wire.INTERFACE),
        Row(number=3, kernel="SYNC_ID", name="sync_id", form=wire.U32, high=255),
        Row(number=4, kernel="SYNC_MAXLEN", name="max_length", form=wire.U16, optional=True,
            note="at most 65535 less the headers, for a backup at least 1024"),
        Row(number=5, kernel="MCAST_GROUP", name="group4", form=wire.OCTETS_4, optional=True,
            take=lambda d: _packed(d.group) if d.group.version == 4 else None),
        Row(number=6, kernel="MCAST_GROUP6", name="group6", form=wire.OCTETS_16, optional=True,
            take=lambda d: _packed(d.group) if d.group.version == 6 else None),
        Row(number=7, kernel="MCAST_PORT", name="port", form=wire.U16, absent=8848, note="in host order"),
        Row(number=8, kernel="MCAST_TTL", name="ttl", form=wire.U8, absent=1),
    ),
    fields=(
        Field("role", lambda number: SyncRole(number) if number in (1, 2) else _unknown_role(number), ("role",)),
        Field("group", _sync_group, ("group4", "group6")),
    ),
)  # fmt: skip


def _unknown_role(number: int) -> SyncRole:
    raise Malformed("read", "synchronisation daemon", f"its state is {number}")


# ---- what is not nested: timeouts, and what the kernel says of itself


TIMEOUTS: Final = Layout(
    kind="timeouts",
    prefix="IPVS_CMD_ATTR_TIMEOUT_",
    make=Timeouts,
    problem=timeouts_problem,
    rows=(
        Row(number=4, kernel="TCP", name="tcp", form=wire.U32, high=MAX_TIMEOUT, absent=0, note="seconds"),
        Row(number=5, kernel="TCP_FIN", name="tcp_fin", form=wire.U32, high=MAX_TIMEOUT, absent=0, note="seconds"),
        Row(number=6, kernel="UDP", name="udp", form=wire.U32, high=MAX_TIMEOUT, absent=0, note="seconds"),
    ),
)

INFORMATION: Final = Layout(
    kind="IPVS information",
    prefix="IPVS_INFO_ATTR_",
    make=Info,
    rows=(
        Row(number=1, kernel="VERSION", name="version", form=wire.U32, note="a byte each from the second: 1.2.1"),
        Row(number=2, kernel="CONN_TAB_SIZE", name="connection_table_size", form=wire.U32),
    ),
    fields=(Field("version", lambda n: (n >> 16 & 0xFF, n >> 8 & 0xFF, n & 0xFF), ("version",)),),
)

LAYOUTS: Final = (SERVICE, DESTINATION, DAEMON, TIMEOUTS, INFORMATION)

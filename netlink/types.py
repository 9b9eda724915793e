"""Virtual servers and real servers as values: identity, configuration and counters, kept apart.

Pure. `codec` turns these into IPVS attribute bytes and back, `ipvs` exchanges them with the kernel.
What the numbers mean is the kernel's: include/uapi/linux/ip_vs.h.
"""

import enum
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple, TypeVar

import attrs

Address = IPv4Address | IPv6Address
EnumInt = TypeVar("EnumInt", bound=enum.IntEnum)

MAX_WEIGHT: Final = 2**31 - 1  # an int in the kernel; more comes back negative or ERANGE
MAX_PERSISTENCE: Final = 86_400 * 31  # seconds; the kernel multiplies by HZ and silently wraps
MAX_CONNECTIONS: Final = 2**31 - 1  # thresholds; more is EINVAL on the newest kernels
MAX_TIMEOUT: Final = (2**31 - 1) // 1000  # seconds; the kernel multiplies by HZ, at most 1000, into an int
IRREGULAR_MASK: Final = -1  # a persistence_prefix as read where another tool set a mask that is no prefix


class Family(enum.IntEnum):
    """Address family of a virtual server or a real server."""

    IPV4 = 2  # AF_INET
    IPV6 = 10  # AF_INET6


_ADDRESS_FAMILIES: Final[Mapping[type, int]] = {IPv4Address: 2, IPv6Address: 10}


def family_of(address: Address) -> Family:
    """Return the address family of `address`."""
    return Family.IPV4 if address.version == 4 else Family.IPV6


def _unnamed(cls: type[EnumInt], number: object, high: int) -> EnumInt | None:
    """Return a member for a number that the kernel lets others use; None outside 0..high."""
    if not isinstance(number, int) or not 0 <= number <= high:
        return None
    member = int.__new__(cls, number)
    member._name_ = f"{cls.__name__.upper()}_{number}"
    member._value_ = number
    return member


class Protocol(enum.IntEnum):
    """Transport protocol of a virtual server (IPPROTO_*). The kernel lets others create any of 16 bits: PROTOCOL_50."""

    TCP = 6
    UDP = 17
    SCTP = 132

    @classmethod
    def _missing_(cls, value: object) -> "Protocol | None":
        return _unnamed(cls, value, 65535)


class Forwarding(enum.IntEnum):
    """How a packet gets from the director to the real server (IP_VS_CONN_F_FWD_MASK).

    LOCAL gives it to the director itself and BYPASS sends it on to where it was addressed; the kernel never chooses
    either by itself, and ipvsadm cannot ask for them.
    """

    MASQUERADE = 0
    LOCAL = 1
    TUNNEL = 2
    DIRECT_ROUTE = 3
    BYPASS = 4

    @classmethod
    def _missing_(cls, value: object) -> "Forwarding | None":
        return _unnamed(cls, value, 7)  # IP_VS_CONN_F_FWD_MASK; the kernel lets others ask for 5 to 7


class Tunnel(enum.IntEnum):
    """What wraps a packet on its way to a real server reached by a tunnel (IP_VS_CONN_F_TUNNEL_TYPE_*)."""

    IPIP = 0
    GUE = 1  # Generic UDP Encapsulation; needs a UDP port
    GRE = 2

    @classmethod
    def _missing_(cls, value: object) -> "Tunnel | None":
        return _unnamed(cls, value, 255)  # the kernel lets others ask for 3 to 255


class TunnelFlag(enum.IntFlag):
    """How a gue or gre tunnel protects what it carries (IP_VS_TUNNEL_ENCAP_FLAG_*)."""

    NONE = 0
    CHECKSUM = 1
    REMOTE_CHECKSUM = 2  # checksum offload of the inner packet; means nothing but with gue


class SchedulerFlag(enum.IntFlag):
    """Scheduler options of a virtual server (IP_VS_SVC_F_SCHED*). sh and mh name the first two."""

    NONE = 0
    FLAG_1 = 0x08  # sh-fallback, mh-fallback
    FLAG_2 = 0x10  # sh-port, mh-port
    FLAG_3 = 0x20


@attrs.frozen(kw_only=True, order=True, cache_hash=True)
class VirtualServerKey:
    """What identifies a virtual server: protocol, address and port, or a firewall mark in a family.

    Exactly one form: `mark` is None and the other three are set, or `mark` is 1..2**32-1, `protocol` is None,
    `address` is None and `port` is 0. Build one with `by_address` or `by_mark`.
    """

    family: Family
    protocol: Protocol | None = attrs.field(order=lambda protocol: int(protocol or 0))
    address: Address | None = attrs.field(order=lambda address: int(address or 0))
    port: int
    mark: int = 0

    @classmethod
    def by_address(cls, protocol: Protocol, address: Address, port: int) -> "VirtualServerKey":
        """Return the key of the virtual server at `address`:`port`; port 0 (persistence only) is every port."""
        return cls(family=family_of(address), protocol=protocol, address=address, port=port)

    @classmethod
    def by_mark(cls, mark: int, family: Family = Family.IPV4) -> "VirtualServerKey":
        """Return the key of the virtual server for packets that carry firewall mark `mark` (not 0)."""
        return cls(family=family, protocol=None, address=None, port=0, mark=mark)

    def __str__(self) -> str:
        """Return `tcp 10.9.0.100:80`, `udp [fd00::1]:53`, `mark 7` or `mark 7 ipv6`."""
        if self.protocol is None or self.address is None:
            return f"mark {self.mark}" + (" ipv6" if self.family is Family.IPV6 else "")
        return f"{self.protocol.name.lower()} {endpoint(self.address, self.port)}"


@attrs.frozen(kw_only=True, order=True, cache_hash=True)
class RealServerKey:
    """What identifies a real server within its virtual server.

    It has its address as bytes too, by which two are compared: to compare or to hash an ipaddress takes longer than to
    make those, tables have thousands of them, and a request needs them. An address that is none to be sent, of a class
    of its own or with a scope, stands there as text.
    """

    address: Address = attrs.field(eq=False)
    packed: bytes = attrs.field(init=False, order=lambda packed: (len(packed), packed), repr=False)
    port: int
    family: int = attrs.field(init=False, eq=False, order=False, repr=False)  # 0: the address is none to be sent

    @packed.default
    def _packed(self) -> bytes:
        scope = self.address.scope_id if type(self.address) is IPv6Address else None
        if type(self.address) in _ADDRESS_FAMILIES and scope is None:
            return self.address.packed
        return f"{type(self.address).__name__} {self.address}".encode()

    @family.default
    def _family(self) -> int:
        scope = self.address.scope_id if type(self.address) is IPv6Address else None
        return _ADDRESS_FAMILIES.get(type(self.address), 0) if scope is None else 0

    def __str__(self) -> str:
        """Return `10.0.0.1:8080` or `[fd00::1]:8080`."""
        return endpoint(self.address, self.port)


def endpoint(address: Address, port: int) -> str:
    """Return `10.0.0.1:80` or `[fd00::1]:80`."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


@attrs.frozen(kw_only=True)
class VirtualServer:
    """The configuration of a virtual server; every field is sent on every write, for SET replaces all."""

    key: VirtualServerKey
    scheduler: str = "wlc"
    scheduler_flags: SchedulerFlag = SchedulerFlag.NONE
    one_packet: bool = False  # UDP: schedule every datagram anew
    persistence: int | None = None  # seconds a client stays with its real server; None: not persistent
    # Client addresses that are the same in so many bits count as one; None: 32 or 128, to which those become None.
    persistence_prefix: int | None = attrs.field(default=None)
    persistence_engine: str | None = None  # "sip"

    def __attrs_post_init__(self) -> None:
        """Give the whole address one spelling, so that what was written equals what is read."""
        if self.persistence_prefix == (32 if self.key.family is Family.IPV4 else 128):
            object.__setattr__(self, "persistence_prefix", None)


@attrs.frozen(kw_only=True)
class RealServer:
    """The configuration of a real server."""

    key: RealServerKey
    forwarding: Forwarding = Forwarding.MASQUERADE
    weight: int = 1  # share of new connections; 0 is quiesced
    upper_threshold: int = 0  # connections above which no new one comes; 0: no limit
    lower_threshold: int = 0  # connections below which new ones come again; 0: three quarters of upper
    # The kernel keeps these whatever the forwarding.
    tunnel_type: Tunnel = Tunnel.IPIP
    tunnel_port: int = 0  # UDP port of gue; 0: none
    tunnel_flags: TunnelFlag = TunnelFlag.NONE


RealServers = Mapping[RealServerKey, RealServer]


@attrs.frozen(kw_only=True)
class TableEntry:
    """One virtual server with its real servers."""

    virtual_server: VirtualServer
    real_servers: RealServers


Table = Mapping[VirtualServerKey, TableEntry]
"""All virtual servers with their real servers; an empty table is a table."""


class Traffic(NamedTuple):
    """Counters since creation (or zero) and rates per second, both up to two seconds old (IPVS_STATS_ATTR_*, from 1).

    A tuple, as `RealServerUsage` is, for a dump makes one of each for every real server.
    """

    connections: int = 0
    in_packets: int = 0
    out_packets: int = 0
    in_bytes: int = 0
    out_bytes: int = 0
    connection_rate: int = 0
    in_packet_rate: int = 0
    out_packet_rate: int = 0
    in_byte_rate: int = 0
    out_byte_rate: int = 0


class RealServerUsage(NamedTuple):
    """What a real server carries: connection counts by state, then its traffic, as in `Traffic`."""

    active: int = 0  # established TCP and SCTP connections
    inactive: int = 0  # the rest: opening, closing, and every UDP connection
    persistent: int = 0  # persistence templates
    connections: int = 0
    in_packets: int = 0
    out_packets: int = 0
    in_bytes: int = 0
    out_bytes: int = 0
    connection_rate: int = 0
    in_packet_rate: int = 0
    out_packet_rate: int = 0
    in_byte_rate: int = 0
    out_byte_rate: int = 0

    @property
    def traffic(self) -> Traffic:
        """Return the traffic alone."""
        return Traffic(*self[3:])


@attrs.frozen(kw_only=True)
class Observed:
    """The live table as one dump saw it, with the counters beside it so that tables compare without them."""

    table: Table
    traffic: Mapping[VirtualServerKey, Traffic]
    usage: Mapping[VirtualServerKey, Mapping[RealServerKey, RealServerUsage]]


@attrs.frozen(kw_only=True)
class Info:
    """What the kernel says of its IPVS (IPVS_CMD_GET_INFO)."""

    version: tuple[int, int, int]
    connection_table_size: int


@attrs.frozen(kw_only=True)
class Timeouts:
    """Seconds after which an idle connection is forgotten (IPVS_CMD_SET_CONFIG), each 1..MAX_TIMEOUT."""

    tcp: int = 900  # established
    tcp_fin: int = 120  # after a FIN
    udp: int = 300


DEFAULT_GROUP: Final = IPv4Address("224.0.0.81")  # IP_VS_SYNC_GROUP


class SyncRole(enum.IntEnum):
    """What a synchronisation daemon does (IP_VS_STATE_*)."""

    MASTER = 1  # sends this director's connections
    BACKUP = 2  # takes those of another


@attrs.frozen(kw_only=True)
class SyncDaemon:
    """A thread of the kernel that sends connections to other directors, or takes theirs; one of each role at most."""

    role: SyncRole
    interface: str
    sync_id: int = 0  # 0..255; a backup with an id other than 0 takes only that one's messages
    # Bytes of a datagram's content, for a backup at least 1024. None: the kernel decides by the interface; a read gives
    # what it decided.
    max_length: int | None = None
    group: Address = DEFAULT_GROUP  # multicast
    port: int = 8848  # UDP
    ttl: int = 1  # 1..255 hops


@attrs.frozen(kw_only=True)
class Connection:
    """One connection of the kernel's connection table, or a template: what a persistent client is remembered by.

    `virtual_server` is where the client's packets went. That is the key of a virtual server in the table, but for one
    that is a firewall mark or has port 0, whose connections show the address and port that they came to. A template's
    shows the mark, and port 0 where it stands for every port.
    """

    client: Address  # in a template without what the persistence prefix leaves out
    client_port: int
    virtual_server: VirtualServerKey
    real_server: RealServerKey
    state: str  # ESTABLISHED, TIME_WAIT, UDP …; of a template NONE or ASSURED
    expires: int  # seconds until the kernel forgets it, unless a packet comes
    persistence_engine: str | None = None
    persistence_data: bytes = b""  # by which the engine knows a client: a SIP call's identity

    @property
    def template(self) -> bool:
        """Tell whether this is a template: it has no client's port, and a state that hardly anything else has."""
        return self.client_port == 0 and self.state in ("NONE", "ASSURED")


@attrs.frozen(kw_only=True)
class Lacking:
    """What a kernel does not have, and found no module for."""

    schedulers: frozenset[str] = frozenset()
    persistence_engines: frozenset[str] = frozenset()

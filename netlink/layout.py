"""Every IPVS attribute of a virtual server and of a real server: the one table that `codec` walks.

Pure. The kernel says *service* and *destination*; those words stay here and in `codec`. A row is all there is to an
attribute: its number, its form on the wire, what it takes from a value, and what of a value it fills. Encoding,
decoding and comparing walk the same rows, so that nothing can be compared but not written. A new attribute is a new
row here, and a field in `types`. Source: include/uapi/linux/ip_vs.h and net/netfilter/ipvs/ip_vs_ctl.c.
"""

import struct
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Generic, TypeVar

import attrs

from netlink import wire
from netlink.errors import Malformed
from netlink.types import (
    IRREGULAR_MASK,
    MAX_CONNECTIONS,
    MAX_PERSISTENCE,
    MAX_WEIGHT,
    Address,
    Family,
    Forwarding,
    Protocol,
    RealServer,
    RealServerKey,
    SchedulerFlag,
    VirtualServer,
    VirtualServerKey,
    family_of,
)
from netlink.wire import Raw

_PERSISTENT: Final = 0x01
_HASHED: Final = 0x02  # the kernel's own
_ONE_PACKET: Final = 0x04
_SCHEDULER_FLAGS: Final = SchedulerFlag.FLAG_1 | SchedulerFlag.FLAG_2 | SchedulerFlag.FLAG_3

_GUE, _GRE = 1, 2  # IP_VS_CONN_F_TUNNEL_TYPE_*
_CSUM, _REMCSUM = 1, 2  # IP_VS_TUNNEL_ENCAP_FLAG_*

_FORWARDINGS: Final = frozenset({Forwarding.MASQUERADE, Forwarding.TUNNEL, Forwarding.DIRECT_ROUTE})

Value = TypeVar("Value", VirtualServer, RealServer)


@attrs.frozen(kw_only=True)
class Row(Generic[Value]):
    """One attribute of an object."""

    number: int  # IPVS_SVC_ATTR_* or IPVS_DEST_ATTR_*
    name: str  # what it is called in errors, differences and `fills`
    form: wire.Form
    take: Callable[[Value], wire.Plain | None]  # None: the attribute is not sent
    fills: Callable[[Raw], Mapping[str, object]] | None = None  # fields of the value; None: another row's does it
    identity: bool = False  # part of the key, sent with every command
    high: int | None = None  # largest number to send; None: whatever the form holds


def _address(family: Family, octets: bytes) -> Address:
    return IPv4Address(octets[:4]) if family is Family.IPV4 else IPv6Address(octets)


def _family(raw: Raw) -> Family:
    number = raw.integer("family")
    if number not in (Family.IPV4, Family.IPV6):
        raise Malformed("read", raw.kind, f"its address family is {number}")
    return Family(number)


# ---- virtual servers


def _virtual_server_key(raw: Raw) -> Mapping[str, object]:
    family, mark = _family(raw), raw.optional_integer("mark")
    if mark:
        return {"key": VirtualServerKey.by_mark(mark, family)}
    number = raw.integer("protocol")
    if not 0 < number < 256:
        raise Malformed("read", raw.kind, f"its protocol is {number}")
    address = _address(family, raw.octets("address"))
    return {"key": VirtualServerKey.by_address(Protocol(number), address, raw.integer("port"))}


def _flags(virtual_server: VirtualServer) -> int:
    persistent = _PERSISTENT if virtual_server.persistence is not None else 0
    return virtual_server.scheduler_flags | persistent | (_ONE_PACKET if virtual_server.one_packet else 0)


def _fill_flags(raw: Raw) -> Mapping[str, object]:
    flags = raw.integer("flags")
    ours = _PERSISTENT | _HASHED | _ONE_PACKET
    return {"one_packet": bool(flags & _ONE_PACKET), "scheduler_flags": SchedulerFlag(flags & ~ours)}


def _fill_persistence(raw: Raw) -> Mapping[str, object]:
    # the kernel keeps a timeout on a virtual server that is not persistent, where it means nothing
    seconds = raw.integer("persistence")
    return {"persistence": seconds if raw.integer("flags") & _PERSISTENT else None}


def _netmask(virtual_server: VirtualServer) -> bytes:
    prefix = virtual_server.persistence_prefix
    if virtual_server.key.family is Family.IPV6:
        return struct.pack("=I", 128 if prefix is None else prefix)
    return ((0xFFFFFFFF << (32 - prefix) if prefix is not None else 0xFFFFFFFF) & 0xFFFFFFFF).to_bytes(4, "big")


def _fill_prefix(raw: Raw) -> Mapping[str, object]:
    octets = raw.octets("persistence_prefix")
    if _family(raw) is Family.IPV6:
        (prefix,) = struct.unpack("=I", octets)
        return {"persistence_prefix": None if prefix == 128 else prefix}
    mask = int.from_bytes(octets, "big")
    prefix = mask.bit_count()
    if mask != (0xFFFFFFFF << (32 - prefix)) & 0xFFFFFFFF:
        return {"persistence_prefix": IRREGULAR_MASK}
    return {"persistence_prefix": None if prefix == 32 else prefix}


SERVICE: Final[tuple[Row[VirtualServer], ...]] = (
    Row(number=1, name="family", form=wire.U16, take=lambda v: v.key.family, identity=True),
    Row(number=2, name="protocol", form=wire.U16, take=lambda v: v.key.protocol, identity=True),
    Row(number=3, name="address", form=wire.OCTETS_16, identity=True,
        take=lambda v: None if v.key.address is None else v.key.address.packed),
    Row(number=4, name="port", form=wire.BE16, identity=True,
        take=lambda v: None if v.key.protocol is None else v.key.port),
    Row(number=5, name="mark", form=wire.U32, identity=True, take=lambda v: v.key.mark or None,
        fills=_virtual_server_key),
    Row(number=6, name="scheduler", form=wire.NAME, take=lambda v: v.scheduler,
        fills=lambda raw: {"scheduler": raw.text("scheduler")}),
    Row(number=7, name="flags", form=wire.FLAGS, take=_flags, fills=_fill_flags),
    Row(number=8, name="persistence", form=wire.U32, take=lambda v: v.persistence or 0, fills=_fill_persistence,
        high=MAX_PERSISTENCE),
    Row(number=9, name="persistence_prefix", form=wire.OCTETS_4, take=_netmask, fills=_fill_prefix),
    Row(number=11, name="persistence_engine", form=wire.NAME, take=lambda v: v.persistence_engine,
        fills=lambda raw: {"persistence_engine": raw.optional_text("persistence_engine")}),
)  # fmt: skip


def key_problem(key: VirtualServerKey) -> str | None:
    """Return what is wrong with the identity of a virtual server, None when nothing is."""
    by_mark = key.mark > 0 and key.protocol is None and key.address is None and key.port == 0
    by_address = key.mark == 0 and key.protocol is not None and key.address is not None
    if not by_mark and not by_address:
        return "key must be a mark from 1, or a protocol with address and port"
    if key.address is not None and family_of(key.address) is not key.family:
        return f"family {key.family.name} does not fit its address"
    return None


def virtual_server_problem(virtual_server: VirtualServer) -> str | None:
    """Return what is wrong where a row's range cannot say it, None when nothing is."""
    key, prefix = virtual_server.key, virtual_server.persistence_prefix
    if (problem := key_problem(key)) is not None:
        return problem
    if key.protocol is not None and key.protocol not in (Protocol.TCP, Protocol.UDP, Protocol.SCTP):
        return f"protocol {int(key.protocol)} is none that IPVS balances"
    if key.mark == 0 and key.port == 0 and virtual_server.persistence is None:
        return "port 0 (every port) needs persistence"
    if virtual_server.persistence is not None and virtual_server.persistence < 1:
        return f"persistence {virtual_server.persistence} is not 1 second or more"
    bits = 32 if key.family is Family.IPV4 else 128
    if prefix is not None and not 0 <= prefix <= bits:
        return f"persistence_prefix {prefix} is not in 0..{bits}"
    if int(virtual_server.scheduler_flags) & ~int(_SCHEDULER_FLAGS):  # ~ of a Flag knows only the named bits
        return f"scheduler_flags {int(virtual_server.scheduler_flags):#x} has unknown bits"
    if virtual_server.one_packet and key.protocol in (Protocol.TCP, Protocol.SCTP):
        return "one_packet works with UDP only"
    return None


# ---- real servers


def _real_server_key(raw: Raw) -> Mapping[str, object]:
    address = _address(_family(raw), raw.octets("address"))
    return {"key": RealServerKey(address=address, port=raw.integer("port"))}


def _fill_forwarding(raw: Raw) -> Mapping[str, object]:
    number = raw.integer("forwarding")
    if number > 7:  # IP_VS_CONN_F_FWD_MASK has three bits
        raise Malformed("read", raw.kind, f"its forwarding is {number}")
    return {"forwarding": Forwarding(number)}


DESTINATION: Final[tuple[Row[RealServer], ...]] = (
    Row(number=11, name="family", form=wire.U16, take=lambda r: family_of(r.key.address), identity=True),
    Row(number=1, name="address", form=wire.OCTETS_16, take=lambda r: r.key.address.packed, identity=True),
    Row(number=2, name="port", form=wire.BE16, take=lambda r: r.key.port, fills=_real_server_key, identity=True),
    Row(number=3, name="forwarding", form=wire.U32, take=lambda r: r.forwarding, fills=_fill_forwarding),
    Row(number=4, name="weight", form=wire.U32, take=lambda r: r.weight, high=MAX_WEIGHT,
        fills=lambda raw: {"weight": raw.integer("weight")}),
    Row(number=5, name="upper_threshold", form=wire.U32, take=lambda r: r.upper_threshold, high=MAX_CONNECTIONS,
        fills=lambda raw: {"upper_threshold": raw.integer("upper_threshold")}),
    Row(number=6, name="lower_threshold", form=wire.U32, take=lambda r: r.lower_threshold, high=MAX_CONNECTIONS,
        fills=lambda raw: {"lower_threshold": raw.integer("lower_threshold")}),
    # Read so that an edit by hand is a difference, written so that a drain leaves the tunnel of others as it is. A
    # kernel before 5.3 has ipip only, and sends none of the three.
    Row(number=13, name="tunnel_type", form=wire.U8, take=lambda r: r.tunnel_type, high=_GRE,
        fills=lambda raw: {"tunnel_type": raw.optional_integer("tunnel_type") or 0}),
    Row(number=14, name="tunnel_port", form=wire.BE16, take=lambda r: r.tunnel_port,
        fills=lambda raw: {"tunnel_port": raw.optional_integer("tunnel_port") or 0}),
    Row(number=15, name="tunnel_flags", form=wire.U16, take=lambda r: r.tunnel_flags, high=_CSUM | _REMCSUM,
        fills=lambda raw: {"tunnel_flags": raw.optional_integer("tunnel_flags") or 0}),
)  # fmt: skip


def real_server_problem(real_server: RealServer) -> str | None:
    """Return what is wrong where a row's range cannot say it, None when nothing is."""
    if real_server.forwarding not in _FORWARDINGS:
        return f"forwarding {real_server.forwarding.name} cannot be asked for"
    if real_server.tunnel_type == _GUE and real_server.tunnel_port == 0:
        return "tunnel_type 1 (gue) needs a tunnel_port"
    return None

"""Requests with any values in their fields, right and wrong ones, drawn from bytes."""

import decimal
import enum
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface
from typing import Any

from netlink.requests import (
    AddRealServer,
    AddVirtualServer,
    DeleteRealServer,
    DeleteVirtualServer,
    Flush,
    Request,
    SetRealServer,
    SetTimeouts,
    SetVirtualServer,
    StartSyncDaemon,
    StopSyncDaemon,
    ZeroCounters,
)
from netlink.types import (
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
)
from tests.fuzz.draw import Draw

# ruff: noqa: ANN401 -- the wrong types are the point


class Name(str, enum.Enum):  # noqa: UP042 -- str() of a member is not its value, as with StrEnum
    """A text that is not what str() makes of it."""

    WLC = "wlc"


class Big(enum.IntEnum):
    """Numbers that are members of something else."""

    ONE = 1
    TWO = 2
    THOUSAND = 1000


NUMBERS = (0, 1, 2, 3, 6, 7, 10, 17, 32, 33, 64, 128, 129, 255, 256, 1024, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1,
           2**32, 2**64, -1, -(2**31), 10**5000, -(10**5000))  # fmt: skip
ADDRESSES: tuple[Any, ...] = (
    IPv4Address("10.9.0.100"), IPv6Address("fd00::1"), IPv4Address(0), IPv4Address("224.0.0.81"),
    IPv6Address("ff02::81"), IPv6Address("fe80::1%eth0"), IPv6Address("::ffff:10.0.0.1"), IPv6Address("ff02::81%lo"),
    IPv4Interface("10.0.0.1/24"), IPv4Interface("10.0.0.1/32"), IPv6Interface("fd00::1/64"),
    IPv6Interface("ff02::81/128"), IPv4Network("10.0.0.0/8"),
)  # fmt: skip
TEXTS: tuple[Any, ...] = (
    "", "wlc", "sip", "lo", "a" * 15, "a" * 16, "é", "\ud800", "\udc80", "\udcc3\udca9", "10.0.0.1", "80", "a\0b",
    "a b", ".", "eth0/1", "wlc\n", "\x85", "\u00b5lo", Name.WLC,
)  # fmt: skip
MEMBERS: tuple[Any, ...] = (
    *Family, *Protocol, *Forwarding, *Tunnel, *SyncRole, *Big, Protocol(50), Protocol(0), Forwarding(5), Tunnel(3),
    *(SchedulerFlag(number) for number in (0, 1, 8, 16, 56, 64, 2**32)), *(TunnelFlag(number) for number in (0, 3, 4)),
)  # fmt: skip
OTHERS: tuple[Any, ...] = (
    None, True, False, 0.0, 1.0, 1.5, float("nan"), float("inf"), 1j, decimal.Decimal(2), b"", b"wlc", bytes(16),
    bytearray(4), (), [], {}, [1], object(), int, Family, ..., frozenset({1}), "key".join, range(3),
    memoryview(b"abcd"),
)  # fmt: skip
GROUPS = (NUMBERS, ADDRESSES, TEXTS, MEMBERS, OTHERS)


def wild(draw: Draw) -> Any:
    """Return any value."""
    kind = draw.below(8)
    if kind < len(GROUPS):
        group: tuple[Any, ...] = GROUPS[kind]
        return draw.choice(group)
    return draw.choice(OBJECTS)(draw)


def field(draw: Draw, tame: Callable[[], Any]) -> Any:
    """Return what `tame` draws, or sometimes any value."""
    return wild(draw) if draw.below(8) == 7 else tame()


def key(draw: Draw) -> VirtualServerKey:
    """Return the key of a virtual server."""
    if draw.below(4) == 3:
        family = field(draw, lambda: draw.choice(tuple(Family)))
        marked: dict[str, Any] = {"protocol": None, "address": None, "port": 0}
        if draw.below(4) == 3:
            marked[draw.choice(tuple(marked))] = wild(draw)
        return VirtualServerKey(family=family, mark=field(draw, lambda: draw.number(4)), **marked)
    address = field(draw, lambda: draw.choice(ADDRESSES[:2]))
    family = Family.IPV6 if isinstance(address, IPv6Address) else Family.IPV4
    return VirtualServerKey(
        family=field(draw, lambda: family),
        protocol=field(draw, lambda: draw.choice(tuple(Protocol))),
        address=address,
        port=field(draw, lambda: draw.number(2)),
        mark=field(draw, lambda: 0),
    )


def virtual_server(draw: Draw) -> VirtualServer:
    """Return a virtual server."""
    return VirtualServer(
        key=key(draw),
        scheduler=field(draw, lambda: draw.choice(("wlc", "sh", "mh", "none"))),
        scheduler_flags=field(draw, lambda: SchedulerFlag(draw.below(8) << 3)),
        one_packet=field(draw, lambda: False),
        persistence=field(draw, lambda: draw.choice((None, 1, 300, 86_400 * 31))),
        persistence_prefix=field(draw, lambda: draw.choice((None, 0, 1, 24, 31, 32, 64, 127, 128))),
        persistence_engine=field(draw, lambda: draw.choice((None, "sip"))),
    )


def real_server_key(draw: Draw) -> RealServerKey:
    """Return the key of a real server."""
    return RealServerKey(
        address=field(draw, lambda: draw.choice(ADDRESSES[:3])), port=field(draw, lambda: draw.number(2))
    )


def real_server(draw: Draw) -> RealServer:
    """Return a real server."""
    return RealServer(
        key=field(draw, lambda: real_server_key(draw)),
        forwarding=field(draw, lambda: draw.choice(tuple(Forwarding))),
        weight=field(draw, lambda: draw.number(4)),
        upper_threshold=field(draw, lambda: draw.number(4)),
        lower_threshold=field(draw, lambda: draw.number(1)),
        tunnel_type=field(draw, lambda: draw.choice(tuple(Tunnel))),
        tunnel_port=field(draw, lambda: draw.number(2)),
        tunnel_flags=field(draw, lambda: TunnelFlag(draw.below(4))),
    )


def daemon(draw: Draw) -> SyncDaemon:
    """Return a synchronisation daemon."""
    return SyncDaemon(
        role=field(draw, lambda: draw.choice(tuple(SyncRole))),
        interface=field(draw, lambda: draw.choice(("lo", "eth0", "\u00b5"))),
        sync_id=field(draw, lambda: draw.number(1)),
        max_length=field(draw, lambda: draw.choice((None, 1, 1023, 1024, 65487, 65488, 65507, 65508))),
        group=field(draw, lambda: draw.choice(ADDRESSES[3:5])),
        port=field(draw, lambda: draw.number(2)),
        ttl=field(draw, lambda: draw.number(1)),
    )


def timeouts(draw: Draw) -> Timeouts:
    """Return timeouts."""
    return Timeouts(**{name: field(draw, lambda: draw.number(3)) for name in ("tcp", "tcp_fin", "udp")})


OBJECTS: tuple[Callable[[Draw], Any], ...] = (key, virtual_server, real_server_key, real_server, daemon, timeouts)

REQUESTS: tuple[Callable[[Draw, Any], Request], ...] = (
    lambda draw, parent: AddRealServer(virtual_server=parent, real_server=field(draw, lambda: real_server(draw))),
    lambda draw, parent: SetRealServer(virtual_server=parent, real_server=field(draw, lambda: real_server(draw))),
    lambda draw, _: AddVirtualServer(virtual_server=field(draw, lambda: virtual_server(draw))),
    lambda draw, _: SetVirtualServer(virtual_server=field(draw, lambda: virtual_server(draw))),
    lambda _, parent: DeleteVirtualServer(key=parent),
    lambda draw, parent: DeleteRealServer(virtual_server=parent, key=field(draw, lambda: real_server_key(draw))),
    lambda _, parent: ZeroCounters(key=parent),
    lambda draw, _: SetTimeouts(timeouts=field(draw, lambda: timeouts(draw))),
    lambda draw, _: StartSyncDaemon(daemon=field(draw, lambda: daemon(draw))),
    lambda draw, _: StopSyncDaemon(role=field(draw, lambda: draw.choice(tuple(SyncRole)))),
    lambda *_: Flush(),
)


def request(draw: Draw, parent: Any) -> Request:
    """Return a request; what needs the key of a virtual server takes `parent`."""
    return draw.choice(REQUESTS)(draw, parent)

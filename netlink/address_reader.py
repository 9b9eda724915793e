"""Reads the addresses of this network namespace, in one dump each time.

Shell around `address_dump`. pyroute2 does the same with 70 microseconds or more for each address, this with three;
everything else about addresses goes through pyroute2 (`addresses`). Reading needs no privilege. Like generic netlink,
rtnetlink has queued its answer when sendmsg returns, and unlike IPVS it says when a dump was interrupted by a writer
(NLM_F_DUMP_INTR). Source: rtnetlink(7), net/core/rtnetlink.c.
"""

import contextlib
import errno
import functools
import socket
from collections.abc import Callable
from typing import Final

from netlink import address_dump
from netlink.channel import DUMPS, Channel, Disturbed
from netlink.errors import Interrupted, Malformed, NetlinkError, Refused, Unavailable
from netlink.types import Address

_ATTEMPTS: Final = 5

# include/uapi/linux/netlink.h; the socket module has no names for them
_NETLINK_ROUTE: Final = 0
_SOL_NETLINK: Final = 270
_STRICT_CHECK: Final = 12  # NETLINK_GET_STRICT_CHK


def route_socket() -> socket.socket:
    """Return an rtnetlink socket of the current network namespace, which lists one interface where one is asked for."""
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE)
    with contextlib.suppress(OSError):  # without it the kernel lists all, and we choose
        opened.setsockopt(_SOL_NETLINK, _STRICT_CHECK, 1)
    return opened


def read(
    operation: str, target: str, *, index: int = 0, open_socket: Callable[[], socket.socket] = route_socket
) -> frozenset[Address]:
    """Return the addresses on the interface `index`, or on all when that is 0; none when there is no such interface.

    Raises NetlinkError about `operation` and `target`.
    """
    packed = address_dump.request(index=index, sequence=DUMPS)
    try:
        channel = Channel(functools.partial(_opened, open_socket, operation, target))
        with contextlib.closing(channel):
            return frozenset(
                held.address for held in _dump(channel, operation, target, packed) if index in (0, held.interface)
            )
    except Unavailable as error:  # a channel's words for it are about IPVS
        if error.__cause__ is None:
            raise Refused(operation, target, errno.EPERM) from error
        raise NetlinkError(operation, target, f"opening a netlink socket: {error.__cause__}") from error
    except Refused as error:
        if index and error.errno == errno.ENODEV:
            return frozenset()
        raise
    except Malformed as error:
        if error.operation == operation and error.target == target:
            raise
        raise Malformed(operation, target, str(error)) from error


def _dump(channel: Channel, operation: str, target: str, packed: bytes) -> list[address_dump.Held]:
    """Return what a whole dump says; one that was interrupted or lost is taken again, a few times."""
    last: Disturbed | NetlinkError | None = None
    for _ in range(_ATTEMPTS):
        found: list[address_dump.Held] = []
        try:
            channel.dump(operation, target, packed, functools.partial(_take, found))
        except (Refused, Unavailable):
            raise  # the kernel's answer
        except (Disturbed, NetlinkError) as error:
            last = error
        else:
            return found
    if isinstance(last, NetlinkError):
        raise last
    raise Interrupted(operation, target, f"others kept changing them in {_ATTEMPTS} attempts: {last}")


def _take(found: list[address_dump.Held], datagram: bytes, offset: int, _: bytes) -> int:
    return address_dump.take(datagram, offset, DUMPS, found)


def _opened(open_socket: Callable[[], socket.socket], operation: str, target: str) -> socket.socket:
    try:
        return open_socket()
    except OSError as error:
        raise NetlinkError(operation, target, f"opening a netlink socket: {error.strerror or error}") from error

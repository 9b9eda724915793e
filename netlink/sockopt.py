"""Real servers by getsockopt, IPVS's interface before netlink: one call for the whole list of a virtual server.

It is the cheapest way to see that nothing has changed. It shows IPv4 alone, and neither tunnels nor real servers of
another family than their virtual server's; where there are any, nothing is shown. A list is filled under the lock that
every writer takes, so it is a snapshot. Source: struct ip_vs_get_dests and its neighbours in
include/uapi/linux/ip_vs.h, do_ip_vs_get_ctl in net/netfilter/ipvs/ip_vs_ctl.c.
"""

import ctypes
import functools
import os
import socket
import struct
from collections.abc import Callable, Hashable, Mapping, Sequence
from ipaddress import IPv4Address
from typing import Final

import attrs

from netlink.types import Forwarding, Protocol, VirtualServerKey

_GET_INFO: Final = 64 + 1024 + 64 + 1  # IP_VS_BASE_CTL + 1
_GET_SERVICES: Final = _GET_INFO + 1
_GET_DESTS: Final = _GET_INFO + 3
# Structs as C lays them out. `0Q` rounds one up to the alignment of the 64-bit counters in it.
_INFO: Final = struct.Struct("@2I I")  # version, size of the connection table; virtual servers of IPv4
_IDENTITY: Final = "H2x 4s H2x I"  # protocol, address, port, mark
_COUNTERS: Final = "3I 2Q 5I 0Q"  # struct ip_vs_stats_user
_SERVICES: Final = struct.Struct("@I 0Q")  # how many are asked for; so many of the next follow
_SERVICE: Final = struct.Struct(f"@{_IDENTITY} 28x I 0Q {struct.calcsize(f'@{_COUNTERS}')}x")  # and its real servers
_DESTS: Final = struct.Struct(f"@{_IDENTITY} I 0Q")  # how many are asked for; so many of the next follow
_CONFIGURATION: Final = "4s H2x I i 2I"  # address, port, forwarding, weight, thresholds
_CONFIGURED: Final = struct.calcsize(f"@{_CONFIGURATION}")
_DEST: Final = struct.calcsize(f"@{_CONFIGURATION} 3I 0Q {_COUNTERS}")
_FORWARDING: Final = struct.Struct("@4s 4x I")  # address and flags
_FORWARDING_MASK: Final = 7  # IP_VS_CONN_F_FWD_MASK
_NO_ADDRESS: Final = bytes(4)  # that of no real server

_getsockopt: Final = ctypes.CDLL(None, use_errno=True).getsockopt

RealServers = tuple[bytes, ...]
"""Each real server of a virtual server in the kernel's order: address, port, forwarding, weight and thresholds."""


@attrs.frozen
class Hidden:
    """A virtual server whose real servers are not shown whole."""

    key: VirtualServerKey


class Sockopt:
    """Asks the table of the network namespace that `open_socket` opens a socket in, at the first question."""

    def __init__(self, open_socket: Callable[[], socket.socket]) -> None:
        self._open_socket = open_socket
        self._socket: socket.socket | None = None
        self._buffer = ctypes.create_string_buffer(0)
        self._virtual_servers: list[tuple[int, bytes, int, int, int]] = []  # of the last time
        self._real_servers: list[RealServers | Hidden] = []
        self._counted: list[tuple[int, bytes, int, int, int]] = []
        self._census: Mapping[VirtualServerKey, int] = {}

    @property
    def names(self) -> Sequence[Hashable]:
        """Return what tells the virtual servers of the last `real_servers()` from each other, in its order."""
        return self._virtual_servers

    def close(self) -> None:
        """Close the socket; a second call does nothing, any other raises what `open_socket` does."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def real_servers(self) -> list[RealServers | Hidden]:
        """Return the real servers of each virtual server of IPv4, the same objects where they are as the last time.

        OSError as it comes: ESRCH where a virtual server went in between, ENOPROTOOPT where the kernel has no such
        interface any more.
        """
        virtual_servers = self._list()
        if virtual_servers != self._virtual_servers:
            self._virtual_servers, self._real_servers = virtual_servers, [()] * len(virtual_servers)
            longest = max((count for *_, count in virtual_servers), default=0)
            self._buffer = ctypes.create_string_buffer(_DESTS.size + longest * _DEST)
        self._real_servers = self._ask()
        return self._real_servers

    def census(self) -> Mapping[VirtualServerKey, int]:
        """Return how many real servers each virtual server of IPv4 has, the same object where it is as the last time.

        Two system calls, whatever there is. Where a virtual server came or went between them, one may be missing.
        OSError as it comes.
        """
        virtual_servers = self._list()
        if virtual_servers != self._counted:
            self._counted = virtual_servers
            now = {key_of(each): each[-1] for each in virtual_servers if each[0] or each[3]}  # neither: left empty
            self._census = self._census if now == self._census else now
        return self._census

    def _list(self) -> list[tuple[int, bytes, int, int, int]]:
        """Return protocol, address, port and mark of each virtual server, and how many real servers it has."""
        asked = ctypes.create_string_buffer(_INFO.size)
        self._get(_GET_INFO, asked)
        (_, _, count) = _INFO.unpack(asked)
        answer = ctypes.create_string_buffer(_SERVICES.size + count * _SERVICE.size)
        _SERVICES.pack_into(answer, 0, count)
        self._get(_GET_SERVICES, answer)
        return list(_SERVICE.iter_unpack(memoryview(answer)[_SERVICES.size :]))

    def _descriptor(self) -> int:
        if self._socket is None:
            self._socket = self._open_socket()
        return self._socket.fileno()

    def _get(self, option: int, buffer: "ctypes.Array[ctypes.c_char]") -> None:
        length = ctypes.c_uint(len(buffer))
        if _getsockopt(self._descriptor(), socket.IPPROTO_IP, option, buffer, ctypes.byref(length)):
            raise _error()

    def _ask(self) -> list[RealServers | Hidden]:
        """Return what the kernel has for each virtual server. Here every microsecond counts a thousand times."""
        descriptor, buffer = self._descriptor(), self._buffer
        view = memoryview(buffer).cast("B")
        length = ctypes.c_uint(0)
        reference = ctypes.byref(length)
        lists: list[RealServers | Hidden] = []
        for virtual_server, last in zip(self._virtual_servers, self._real_servers, strict=True):
            count = virtual_server[-1]
            length.value = size = _DESTS.size + count * _DEST
            _DESTS.pack_into(view, 0, *virtual_server)
            if count:
                view[size - _DEST : size - _DEST + len(_NO_ADDRESS)] = _NO_ADDRESS  # so it stays where fewer are shown
            if _getsockopt(descriptor, socket.IPPROTO_IP, _GET_DESTS, buffer, reference):
                raise _error()
            found: RealServers = _configured(count).unpack_from(view)
            if found == last:
                lists.append(last)
            else:
                lists.append(found if all(map(_shown, found)) else Hidden(key_of(virtual_server)))
        return lists


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


@functools.lru_cache(maxsize=1024)
def _configured(count: int) -> struct.Struct:
    """Return what takes the configuration of `count` real servers, and not their counters."""
    return struct.Struct(f"={_DESTS.size}x" + f"{_CONFIGURED}s{_DEST - _CONFIGURED}x" * count)


def _shown(real_server: bytes) -> bool:
    """Tell whether this is a real server, and all that there is of it."""
    address, flags = _FORWARDING.unpack_from(real_server)
    return bool(address != _NO_ADDRESS and flags & _FORWARDING_MASK != Forwarding.TUNNEL)


def key_of(name: tuple[int, bytes, int, int, int]) -> VirtualServerKey:
    """Return what one of `Sockopt.names` stands for."""
    protocol, address, port, mark, _ = name
    if mark:
        return VirtualServerKey.by_mark(mark)
    return VirtualServerKey.by_address(Protocol(protocol), IPv4Address(address), socket.ntohs(port))

"""The kernel's part of a piece of work: the same calls once more, with nothing between them.

Looking at the clock around every call would not do. In User-Mode Linux that is a system call like those it would time,
and processor times tell nothing, for nearly all is charged to the process. So a client's calls of its socket, and its
reads of /proc/net/ip_vs, are written down in one life and made again in another, from an empty table on.
"""

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from netlink import IPVS
from netlink.channel import netlink_socket
from tests.bench.timing import timed

Call = tuple[str, tuple[Any, ...]]
SENDS: Final = ("send", "sendto", "sendmsg")
RECEIVES: Final = ("recv_into", "recvfrom_into")  # into a buffer, the first argument
OTHERS: Final = ("recv", "recvfrom", "recvmsg", "recvmsg_into", "sendall")
FILES: Final = ("read", "lseek")  # of os, on a descriptor
TABLE: Final = "/proc/thread-self/net/ip_vs"


@contextmanager
def recorded() -> Iterator[tuple[IPVS, list[Call]]]:
    """Yield a client and the list to which it adds each of its calls."""
    calls: list[Call] = []

    class RecordedSocket(socket.socket):
        """A socket whose calls are written down."""

    for name in SENDS:
        setattr(RecordedSocket, name, _recording(calls, name, getattr(socket.socket, name), kept=1))
    for name in RECEIVES:
        setattr(RecordedSocket, name, _recording(calls, name, getattr(socket.socket, name), kept=2))
    for name in OTHERS:
        setattr(RecordedSocket, name, partial(_unknown, name))
    originals = {name: getattr(os, name) for name in FILES}
    original = socket.socket
    try:
        socket.socket = RecordedSocket  # type: ignore[misc]
        for name, function in originals.items():
            setattr(os, name, _recording(calls, name, function, kept=1))
        with IPVS() as ipvs:
            socket.socket = original  # type: ignore[misc]
            yield ipvs, calls
    finally:
        socket.socket = original  # type: ignore[misc]
        for name, function in originals.items():
            setattr(os, name, function)


def replayed(works: Sequence[Sequence[Call]]) -> list[float]:
    """Return the ms that the calls of each work take in this namespace, one work after the other on one socket."""
    buffer = bytearray(1 << 20)
    with netlink_socket() as again:
        again.connect((0, 0))
        again.setsockopt(socket.SOL_SOCKET, 33, 1 << 21)  # SO_RCVBUFFORCE
        descriptor = os.open(TABLE, os.O_RDONLY)
        try:
            return [
                timed(partial(_make, [_bound(again, descriptor, buffer, call) for call in calls]))[0] for calls in works
            ]
        finally:
            os.close(descriptor)


def _make(calls: Sequence[Callable[[], object]]) -> None:
    for call in calls:
        call()


def _bound(again: socket.socket, descriptor: int, buffer: bytearray, call: Call) -> Callable[[], object]:
    name, arguments = call
    if name in FILES:
        return partial(getattr(os, name), descriptor, *arguments)
    return partial(getattr(again, name), *((buffer,) if name in RECEIVES else ()), *arguments)


def _recording(calls: list[Call], name: str, function: Callable[..., Any], *, kept: int) -> Callable[..., Any]:
    """Return `function`, which adds its calls to `calls`, without its first `kept` arguments."""

    def recording(*arguments: Any) -> Any:  # noqa: ANN401 - whatever the call takes
        calls.append((name, arguments[kept:]))
        return function(*arguments)

    return recording


def _unknown(name: str, *_: object) -> None:
    raise NotImplementedError(f"the client calls {name}, which cannot be replayed yet")

"""The kernel's part of a piece of work: the same calls once more, with nothing between them.

Looking at the clock around every call would not do. In User-Mode Linux that is a system call like those it would time,
and processor times tell nothing, for nearly all is charged to the process. So a client's calls of its sockets are
written down in one life and made again in another, from an empty table on.
"""

import itertools
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Final

import attrs

from netlink import IPVS
from netlink.channel import netlink_socket
from tests.bench.timing import timed

SENDS: Final = ("send", "sendto")
OTHERS: Final = ("recv", "recvfrom", "recvfrom_into", "recvmsg", "recvmsg_into", "sendall", "sendmsg")
SO_RCVBUFFORCE: Final = 33  # asm-generic/socket.h
ROOM: Final = 1 << 21  # bytes of answers that may wait


@attrs.frozen
class Call:
    """One system call; `place` is the number of the socket."""

    place: int
    name: str
    arguments: tuple[Any, ...]


@contextmanager
def recorded() -> Iterator[tuple[IPVS, list[Call]]]:
    """Yield a client and the list to which it adds each of its calls."""
    calls: list[Call] = []
    numbers = itertools.count()

    class RecordedSocket(socket.socket):
        """A socket that writes down its calls."""

        def __init__(self, *arguments: Any) -> None:  # noqa: ANN401 - the socket's own
            super().__init__(*arguments)
            self.number = next(numbers)

        def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:  # noqa: ANN401 - the socket's own
            calls.append(Call(self.number, "recv_into", (nbytes or len(buffer), flags)))
            return super().recv_into(buffer, nbytes, flags)

    for name in SENDS:
        setattr(RecordedSocket, name, _recorded_send(calls, name, getattr(socket.socket, name)))
    for name in OTHERS:
        setattr(RecordedSocket, name, partial(_unknown, name))
    original = socket.socket
    with ExitStack() as stack:
        stack.callback(setattr, socket, "socket", original)
        socket.socket = RecordedSocket  # type: ignore[assignment, misc]
        ipvs = stack.enter_context(IPVS())
        socket.socket = original  # type: ignore[misc]
        yield ipvs, calls


def replayed(works: Sequence[Sequence[Call]]) -> list[float]:
    """Return the ms that the calls of each work take in this namespace, one work after the other."""
    with ExitStack() as stack:
        every = list(itertools.chain.from_iterable(works))
        sockets = {place: _socket(stack) for place in {call.place for call in every}}
        sizes = {call.arguments[0] for call in every if call.name == "recv_into"}
        buffers = {size: memoryview(bytearray(size)) for size in sizes}

        def bound(call: Call) -> Callable[[], object]:
            function = getattr(sockets[call.place], call.name)
            if call.name == "recv_into":
                size, flags = call.arguments
                return partial(function, buffers[size], size, flags)
            return partial(function, *call.arguments)

        return [timed(partial(_make, [bound(call) for call in calls]))[0] for calls in works]


def _make(calls: Sequence[Callable[[], object]]) -> None:
    for call in calls:
        call()


def _socket(stack: ExitStack) -> socket.socket:
    opened = stack.enter_context(netlink_socket())
    opened.connect((0, 0))
    opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM)
    return opened


def _recorded_send(calls: list[Call], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def send(self: Any, data: bytes, *more: Any) -> Any:  # noqa: ANN401 - the socket's own
        calls.append(Call(self.number, name, (bytes(data), *more)))  # a copy: the buffer may be used again
        return function(self, data, *more)

    return send


def _unknown(name: str, *_: object) -> None:
    raise NotImplementedError(f"the client calls {name}, which cannot be replayed yet")

"""The target for the socket's other end: whatever a kernel answers, reading gives a table or our error."""

import errno
from collections.abc import Callable
from typing import Any, Final

from netlink import codec, framing
from netlink.channel import Channel
from netlink.errors import NetlinkError
from netlink.reader import Reader
from netlink.types import Observed
from tests.fuzz.draw import Draw
from tests.fuzz.reading import KINDS, Sketch

FAMILY: Final = 28
SERVICES, DESTINATIONS, DAEMONS = KINDS
MOST_TABLES: Final = 4
ERRORS: Final = (errno.EPERM, errno.ESRCH, errno.ENOBUFS, errno.EBUSY, errno.EINTR, errno.ENOENT)


class Kernel:
    """Answers each request with datagrams drawn beforehand; stands for the socket of a channel."""

    def __init__(self, answers: Callable[[bytes], list[bytes | int]]) -> None:
        self._answers = answers
        self._queue: list[bytes | int] = []

    def send(self, packed: bytes) -> int:
        """Queue what is answered to a request; of an earlier one nothing is left, for its answers have an end."""
        self._queue = self._answers(packed)
        return len(packed)

    def recv_into(self, buffer: memoryview, _size: int, _flags: int) -> int:
        """Give the next datagram, its whole length where the buffer is too short, or fail with the next errno."""
        if not self._queue:
            raise BlockingIOError(errno.EAGAIN, "nothing is left")
        first = self._queue.pop(0)
        if isinstance(first, int):
            raise OSError(first, "as drawn")
        taken = first[: len(buffer)]
        buffer[: len(taken)] = taken
        return len(first)

    def bind(self, *_: object) -> None:
        """Do nothing."""

    def connect(self, *_: object) -> None:
        """Do nothing."""

    def setsockopt(self, *_: object) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Forget what was not received, as a new socket does."""
        self._queue.clear()


def channel(kernel: Kernel) -> Channel:
    """Return a channel to `kernel`."""
    socket: Any = kernel
    return Channel(lambda: socket)


def talk_target(data: bytes) -> None:
    """Have readers read what is drawn: one that has read other tables before must see what a new one sees.

    Every table is shown the same way for as long as it lasts, so two readings of it agree.
    """
    draw = Draw(data)
    shown: dict[bytes, list[bytes | int]] = {}

    def answers(packed: bytes) -> list[bytes | int]:
        request = packed[16:17] + packed[20:]  # command and attributes
        if request not in shown:
            shown[request] = _answers(draw, packed[16])
        sequence = packed[8:12]
        return [each if isinstance(each, int) else _numbered(each, sequence) for each in shown[request]]

    used = Reader(channel(Kernel(answers)), channel(Kernel(answers)), FAMILY)
    for _ in range(MOST_TABLES):
        if not draw.more:
            break
        shown.clear()
        fresh = Reader(channel(Kernel(answers)), channel(Kernel(answers)), FAMILY)
        for read in (Reader.observe, Reader.sync_daemons):
            seen, again = _tried(read, used), _tried(read, used)
            expected = _tried(read, fresh)
            assert seen == again == expected, f"a used reader: {seen}, then {again}; a new one: {expected}"
        _acknowledged(draw)


def _tried(read: Callable[[Reader], object], reader: Reader) -> object:
    """Return what `read` does, None for our error."""
    try:
        found = read(reader)
    except NetlinkError:
        return None
    return (found.table, found.traffic, found.usage) if isinstance(found, Observed) else found


def _acknowledged(draw: Draw) -> None:
    """Read answers to a batch of requests."""
    first = 1 + draw.below(3)
    drawn: list[bytes | int] = [draw.octets(36) if draw.below(4) else draw.choice(ERRORS) for _ in range(draw.below(4))]
    try:
        errors = channel(Kernel(lambda _: drawn)).batch(b"packed", first, first + 2, ["a request"])
    except NetlinkError:
        return
    assert errors.keys() <= set(range(first, first + 3))


def _answers(draw: Draw, command: int) -> list[bytes | int]:
    """Draw the datagrams of a dump, mostly as a kernel sends them."""
    kind = {codec.GET_SERVICE: SERVICES, codec.GET_DEST: DESTINATIONS}.get(command, DAEMONS)
    datagrams: list[bytes | int] = []
    sketch = Sketch(draw.choice(kind.samples))
    for _ in range(draw.below(4)):
        messages = []
        for _ in range(1 + draw.below(3)):
            for _ in range(draw.choice((0, 0, 1, 3))):
                sketch.change(draw)
            messages.append(sketch.packed())
        if draw.below(8) == 7:
            messages.append(_done(draw))
        datagrams.append(b"".join(messages))
        if draw.below(8) == 7:
            sketch = Sketch(draw.choice(kind.samples))
    if draw.below(8) == 7:
        datagrams.append(draw.octets(40) if draw.below(2) else draw.choice(ERRORS))
    return [*datagrams, _done(draw)]


def _done(draw: Draw) -> bytes:
    number = -draw.choice(ERRORS) if draw.below(8) == 7 else 0
    kind = draw.choice((framing.NLMSG_DONE, framing.NLMSG_DONE, framing.NLMSG_ERROR))
    return framing.request(kind, 0, version=0, flags=2, sequence=0)[:16] + number.to_bytes(4, "little", signed=True)


def _numbered(datagram: bytes, sequence: bytes) -> bytes:
    """Return `datagram` with the sequence number of the request in its messages, unless they have one of their own."""
    changed = bytearray(datagram)
    offset = 0
    while offset + 16 <= len(changed):
        length = int.from_bytes(changed[offset : offset + 4], "little")
        if changed[offset + 8 : offset + 11] != b"\xff\xff\xff":
            changed[offset + 8 : offset + 12] = sequence
        offset += max(16, (length + 3) & ~3)
    return bytes(changed)

"""Netlink and generic netlink framing: headers, attributes, acknowledgements.

Pure: bytes in, values out; anything that does not fit raises Malformed. Lengths count the header, everything is
padded to 4 bytes, integers are in host byte order. Source: include/uapi/linux/netlink.h and genetlink.h.
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

import attrs

from netlink.errors import Malformed

NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3

NLM_F_REQUEST: Final = 0x01
NLM_F_ACK: Final = 0x04
NLM_F_DUMP_INTR: Final = 0x10  # the kernel saw the table change while it dumped
NLM_F_DUMP: Final = 0x300

NLA_F_NESTED: Final = 0x8000
_NLA_TYPE_MASK: Final = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER

_MESSAGE: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_GENERIC: Final = struct.Struct("=BBH")  # command, version, reserved
_ATTRIBUTE: Final = struct.Struct("=HH")  # length, type
MESSAGE_HEADER: Final = _MESSAGE.size  # bytes
ATTRIBUTE_HEADER: Final = _ATTRIBUTE.size  # bytes
_ERRNO: Final = struct.Struct("=i")
_HEAD: Final = struct.Struct("=I4sI8s")
_NESTED: Final = struct.Struct("=I4sI8sHH")
REQUEST_HEADER: Final = _MESSAGE.size + _GENERIC.size  # bytes


@attrs.frozen
class Message:
    """One netlink message: its header, and what follows it."""

    kind: int  # NLMSG_ERROR, NLMSG_DONE or the number of a generic netlink family
    flags: int
    sequence: int
    payload: bytes


def request(family: int, command: int, *, version: int, flags: int, sequence: int, body: bytes = b"") -> bytes:
    """Return a generic netlink request as bytes; `body` is encoded attributes."""
    return (
        _MESSAGE.pack(REQUEST_HEADER + len(body), family, flags | NLM_F_REQUEST, sequence, 0)
        + _GENERIC.pack(command, version, 0)
        + body
    )


class Head:
    """The headers of requests of one family: netlink's and generic netlink's.

    A header is packed by `"=I4sI8s"`: length, `start`, sequence number, `ends[command]`.
    """

    def __init__(self, family: int, version: int) -> None:
        self.start = struct.pack("=HH", family, NLM_F_REQUEST)
        self.ends = [struct.pack("=IBBH", 0, command, version, 0) for command in range(32)]  # port, then generic's
        self._acknowledged = struct.pack("=HH", family, NLM_F_REQUEST | NLM_F_ACK)

    def message(self, sequence: int, command: int, body: bytes) -> bytes:
        """Return a request as bytes; `body` is encoded attributes."""
        return _HEAD.pack(REQUEST_HEADER + len(body), self.start, sequence, self.ends[command]) + body

    def nested(self, sequence: int, command: int, number: int, inside: bytes) -> bytes:
        """Return a request with one attribute that has the attributes `inside` in it; they end at a multiple of 4."""
        length = len(inside)
        ends, kind = self.ends[command], number | NLA_F_NESTED
        return _NESTED.pack(_NESTED.size + length, self.start, sequence, ends, 4 + length, kind) + inside

    def acknowledged(self, message: bytes) -> bytes:
        """Return `message`, which asks for an acknowledgement now."""
        return message[:4] + self._acknowledged + message[8:]


def attribute(number: int, payload: bytes, *, nested: bool = False) -> bytes:
    """Return one attribute as bytes, padded."""
    kind = number | NLA_F_NESTED if nested else number
    return _ATTRIBUTE.pack(4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


class Header(NamedTuple):
    """The header of one netlink message, which lies in its datagram."""

    length: int
    kind: int
    flags: int
    sequence: int
    port: int

    @property
    def padded_length(self) -> int:
        """Return the bytes to the next message."""
        return (self.length + 3) & ~3


def header(datagram: bytes, offset: int) -> Header:
    """Return the header of the message at `offset`."""
    end = len(datagram)
    if end - offset < MESSAGE_HEADER:
        raise Malformed("read", "message", f"{end - offset} bytes are left, a header has {MESSAGE_HEADER}")
    found = Header(*_MESSAGE.unpack_from(datagram, offset))
    if not MESSAGE_HEADER <= found.length <= end - offset:
        raise Malformed("read", "message", f"its length is {found.length}, {end - offset} bytes are left")
    return found


def messages(datagram: bytes) -> Iterator[Message]:
    """Yield the messages of one received datagram."""
    offset = 0
    while offset < len(datagram):
        found = header(datagram, offset)
        payload = datagram[offset + MESSAGE_HEADER : offset + found.length]
        yield Message(found.kind, found.flags, found.sequence, payload)
        offset += found.padded_length


class Place(NamedTuple):
    """Where an attribute is: offsets of its header, of its payload, and of the end of that without padding."""

    number: int
    start: int
    payload: int
    end: int


def places(data: bytes, start: int = 0, end: int | None = None) -> list[Place]:
    """Return where the attributes are that fill `data` from `start` to `end`, in order."""
    found: list[Place] = []
    offset, end = start, len(data) if end is None else end
    while end - offset >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if not _ATTRIBUTE.size <= length <= end - offset:
            raise Malformed("read", "attribute", f"its length is {length}, {end - offset} bytes are left")
        found.append(Place(kind & _NLA_TYPE_MASK, offset, offset + _ATTRIBUTE.size, offset + length))
        offset += (length + 3) & ~3
    if offset < end:
        raise Malformed("read", "attribute", f"{end - offset} bytes are left, a header has {_ATTRIBUTE.size}")
    return found


def attributes(payload: bytes) -> dict[int, bytes]:
    """Return the attributes in `payload` by number; of a repeated one the last counts, as in the kernel."""
    return {place.number: payload[place.payload : place.end] for place in places(payload)}


def generic_attributes(message: Message) -> dict[int, bytes]:
    """Return the attributes of a generic netlink message."""
    if len(message.payload) < _GENERIC.size:
        raise Malformed("read", "message", f"{len(message.payload)} bytes do not hold a generic netlink header")
    return attributes(message.payload[_GENERIC.size :])


def errno_of(message: Message) -> int:
    """Return the positive errno that an NLMSG_ERROR or NLMSG_DONE carries; 0 is success."""
    if len(message.payload) < _ERRNO.size:
        raise Malformed("read", "acknowledgement", f"{len(message.payload)} bytes do not hold an errno")
    (number,) = _ERRNO.unpack_from(message.payload)
    if number > 0 and message.kind == NLMSG_ERROR:
        raise Malformed("read", "acknowledgement", f"its errno is {number}, the kernel sends negative ones")
    return max(0, -int(number))

"""Netlink and generic netlink framing: headers, attributes, acknowledgements.

Pure: bytes in, values out; anything that does not fit raises Malformed. Lengths count the header, everything is
padded to 4 bytes, integers are in host byte order. Source: include/uapi/linux/netlink.h and genetlink.h.
"""

import struct
from collections.abc import Iterator
from typing import Final

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
_ERRNO: Final = struct.Struct("=i")
_BODY: Final = _MESSAGE.size + _GENERIC.size


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
        _MESSAGE.pack(_BODY + len(body), family, flags | NLM_F_REQUEST, sequence, 0)
        + _GENERIC.pack(command, version, 0)
        + body
    )


def attribute(number: int, payload: bytes, *, nested: bool = False) -> bytes:
    """Return one attribute as bytes, padded."""
    kind = number | NLA_F_NESTED if nested else number
    return _ATTRIBUTE.pack(4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def messages(datagram: bytes) -> Iterator[Message]:
    """Yield the messages of one received datagram."""
    offset, end = 0, len(datagram)
    while offset < end:
        if end - offset < _MESSAGE.size:
            raise Malformed("read", "message", f"{end - offset} bytes are left, a header has {_MESSAGE.size}")
        length, kind, flags, sequence, _ = _MESSAGE.unpack_from(datagram, offset)
        if not _MESSAGE.size <= length <= end - offset:
            raise Malformed("read", "message", f"its length is {length}, {end - offset} bytes are left")
        yield Message(kind, flags, sequence, datagram[offset + _MESSAGE.size : offset + length])
        offset += (length + 3) & ~3


def attributes(payload: bytes) -> dict[int, bytes]:
    """Return the attributes in `payload` by number; of a repeated one the last counts, as in the kernel."""
    found: dict[int, bytes] = {}
    offset, end = 0, len(payload)
    while end - offset >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(payload, offset)
        if not _ATTRIBUTE.size <= length <= end - offset:
            raise Malformed("read", "attribute", f"its length is {length}, {end - offset} bytes are left")
        found[kind & _NLA_TYPE_MASK] = payload[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    if offset < end:
        raise Malformed("read", "attribute", f"{end - offset} bytes are left, a header has {_ATTRIBUTE.size}")
    return found


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

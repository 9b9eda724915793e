"""The dump of a machine's addresses: its request as bytes, and what the kernel answers as values.

Pure; `address_reader` sends and receives. All begins at multiples of 4, integers are in host byte order, addresses in
the network's. The kernel answers with as many of these as there are addresses, then NLMSG_DONE:

    16 bytes  netlink's header, its type is RTM_NEWADDR
     1        ifa_family     2 for IPv4, 10 for IPv6; others have no addresses of ours
     1        ifa_prefixlen
     1        ifa_flags
     1        ifa_scope
     4        ifa_index      of the interface
     …        attributes: 2 bytes length, 2 bytes type, then 4 or 16 bytes of IFA_ADDRESS and IFA_LOCAL, among others

On a link with a peer, IFA_LOCAL is ours and IFA_ADDRESS the peer's; else either is ours, and IPv6 sends no IFA_LOCAL.
A request is the two headers alone. With ifa_index and strict checking the kernel lists one interface. Source:
rtnetlink(7), include/uapi/linux/if_addr.h, net/ipv4/devinet.c, net/ipv6/addrconf.c.
"""

import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from netlink.errors import Malformed
from netlink.framing import NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST
from netlink.types import Address

RTM_NEWADDR: Final = 20
RTM_GETADDR: Final = 22

_IFA_ADDRESS: Final = 1
_IFA_LOCAL: Final = 2
_TYPE_MASK: Final = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER

_MESSAGE: Final = struct.Struct("=IHHIIBBBBI")  # netlink's header, then struct ifaddrmsg
_ATTRIBUTE: Final = struct.Struct("=HH")  # length, type
_FORMS: Final[dict[int, tuple[Callable[[bytes], Address], int]]] = {2: (IPv4Address, 4), 10: (IPv6Address, 16)}


class Held(NamedTuple):
    """An address, and the index of the interface that it is on."""

    interface: int
    address: Address


def request(*, index: int, sequence: int) -> bytes:
    """Return the request for the addresses on the interface `index`, or on all of them when that is 0."""
    flags = NLM_F_REQUEST | NLM_F_DUMP
    return _MESSAGE.pack(_MESSAGE.size, RTM_GETADDR, flags, sequence, 0, 0, 0, 0, 0, index)


def take(datagram: bytes, offset: int, sequence: int, found: list[Held]) -> int:
    """Append to `found` the addresses that stand in the messages from `offset` on; return where the last of them ends.

    That is at the first message that is no address, answers another request or says that the dump was interrupted.
    Raises Malformed when the message at `offset` is such a one already, or one does not fit in its datagram.
    """
    start, end = offset, len(datagram)
    while end - offset >= _MESSAGE.size:
        length, kind, flags, number, _, family, _, _, _, index = _MESSAGE.unpack_from(datagram, offset)
        if kind != RTM_NEWADDR or number != sequence or flags & NLM_F_DUMP_INTR:
            break
        if not _MESSAGE.size <= length <= end - offset:
            raise Malformed("read", "address", f"its length is {length}, {end - offset} bytes are left")
        if family in _FORMS:
            make, size = _FORMS[family]
            payload = _own(datagram, offset + _MESSAGE.size, offset + length)
            if payload:
                if len(payload) != size:
                    raise Malformed("read", "address", f"one of family {family} has {len(payload)} bytes")
                found.append(Held(index, make(payload)))
        offset += (length + 3) & ~3
    if offset == start:
        raise Malformed("read", "address", "the kernel sent something else among the addresses")
    return offset


def _own(datagram: bytes, offset: int, end: int) -> bytes:
    """Return the payload of IFA_LOCAL, else of IFA_ADDRESS, else nothing, of the attributes from `offset` to `end`.

    `framing.places` reads any attributes; this stops at the first IFA_LOCAL, which is what makes a long dump cheap.
    """
    found = b""
    while end - offset >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(datagram, offset)
        if not _ATTRIBUTE.size <= length <= end - offset:
            raise Malformed("read", "address", f"an attribute's length is {length}, {end - offset} bytes are left")
        kind &= _TYPE_MASK
        if kind == _IFA_LOCAL:
            return datagram[offset + _ATTRIBUTE.size : offset + length]
        if kind == _IFA_ADDRESS:
            found = datagram[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found

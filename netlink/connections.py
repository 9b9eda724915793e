"""The kernel's connection table as /proc/net/ip_vs_conn prints it, one line for each connection or template.

Pure but for `read`. IPVS has no netlink command for connections. Lines are bytes, for a persistence engine's data are
whatever the client sent. A busy director has a million lines: they are read a few at a time and never kept. The file
is no snapshot: a connection that comes or goes meanwhile may be missing or, seldom, come twice.
Source: ip_vs_conn_seq_show in net/netfilter/ipvs/ip_vs_conn.c.
"""

import os
import re
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeVar

from netlink.errors import Malformed
from netlink.types import Address, Connection, Family, Protocol, RealServerKey, VirtualServerKey, family_of

PATH: Final = "/proc/thread-self/net/ip_vs_conn"  # of the network namespace that this thread is in

Server = TypeVar("Server", VirtualServerKey, RealServerKey)

_READ: Final = 1 << 16  # bytes; the kernel gives a page at a time
_MOST_KNOWN: Final = 4096  # servers that a reader remembers
_MOST_SECONDS: Final = 2**31 // 100  # an int of jiffies, 100 a second
_HEADING: Final = b"Pro "
_ADDRESS: Final = rb"[0-9A-F]{8}|[0-9a-f]{4}(?::[0-9a-f]{4}){7}"
_LINE: Final = re.compile(
    rb"(?P<client>(?P<protocol>\w+) +(?P<address>ADDRESS) (?P<port>[0-9A-F]{4})) "
    rb"(?P<virtual>(?:ADDRESS) [0-9A-F]{4}) "
    rb"(?P<real>(?:ADDRESS) [0-9A-F]{4}) "
    rb"(?P<state>[!-~]+) +(?P<expires>[0-9]{1,20})"
    rb"(?: (?P<engine>[!-~]+) (?P<data>.*))?".replace(b"ADDRESS", _ADDRESS),
    re.DOTALL,
)
_PROTOCOLS: Final = {
    b"TCP": Protocol.TCP,
    b"UDP": Protocol.UDP,
    b"SCTP": Protocol.SCTP,
    b"ICMP": Protocol(1),
    b"ICMPv6": Protocol(58),
}
_OTHER_PROTOCOL: Final = re.compile(rb"IP_([0-9]{1,3})")
_OF_A_MARK: Final = b"IP"  # the protocol of a template that belongs to a firewall mark


class Parser:
    """Reads lines. It remembers some of the servers that it has seen, for they come again in line after line."""

    def __init__(self) -> None:
        self._virtual: dict[tuple[bytes, bytes], VirtualServerKey] = {}
        self._real: dict[bytes, RealServerKey] = {}

    def parse(self, line: bytes) -> Connection:
        """Return the connection that a line without its end describes; Malformed where it describes none."""
        match = _LINE.fullmatch(line)
        if match is None:
            raise _malformed(line)
        protocol, virtual, real = match["protocol"], match["virtual"], match["real"]
        client = _address(match["address"])
        server = _known(self._virtual, (protocol, virtual), lambda: _virtual_server(line, protocol, virtual))
        if family_of(client) is not server.family:
            raise _malformed(line)
        expires = int(match["expires"])
        engine = match["engine"]
        return Connection(
            client=client,
            client_port=int(match["port"], 16),
            virtual_server=server,
            real_server=_known(self._real, real, lambda: _real_server(real)),
            state=match["state"].decode("ascii"),
            # one whose time is over until its timer runs has less than 0, printed without a sign
            expires=0 if expires > _MOST_SECONDS else expires,
            persistence_engine=None if engine is None else engine.decode("ascii"),
            persistence_data=match["data"] or b"",
        )


def read(descriptor: int) -> Iterator[Connection]:
    """Yield the connections in the open file `descriptor`, from its start; never more of it in memory than 64 KiB.

    Raises OSError where it cannot be read, Malformed at a line that describes no connection.
    """
    os.lseek(descriptor, 0, os.SEEK_SET)
    parse = Parser().parse
    rest = b""
    heading = True
    while part := os.read(descriptor, _READ):
        *lines, rest = (rest + part).split(b"\n")
        if heading and lines:
            heading = False
            if not lines[0].startswith(_HEADING):
                raise _malformed(lines[0])
            del lines[0]
        for line in lines:
            yield parse(line)
    if rest:  # the kernel ends every line
        raise _malformed(rest)


def _malformed(line: bytes) -> Malformed:
    return Malformed("read", "connection", f"this is none: {line[:200]!r}")


def _address(text: bytes) -> Address:
    if len(text) == 8:
        return IPv4Address(int(text, 16))
    return IPv6Address(int(text.replace(b":", b""), 16))


def _virtual_server(line: bytes, protocol: bytes, text: bytes) -> VirtualServerKey:
    where, _, port = text.partition(b" ")
    address = _address(where)
    if protocol == _OF_A_MARK:  # the mark is where the address would begin
        mark = int.from_bytes(address.packed[:4], "big")
        if mark == 0 or any(address.packed[4:]) or int(port, 16) != 0:
            raise _malformed(line)
        return VirtualServerKey.by_mark(mark, Family.IPV4 if address.version == 4 else Family.IPV6)
    number = _PROTOCOLS.get(protocol)
    if number is None:
        other = _OTHER_PROTOCOL.fullmatch(protocol)
        if other is None or not 1 <= int(other[1]) <= 255:
            raise _malformed(line)
        number = Protocol(int(other[1]))
    return VirtualServerKey.by_address(number, address, int(port, 16))


def _real_server(text: bytes) -> RealServerKey:
    where, _, port = text.partition(b" ")
    return RealServerKey(address=_address(where), port=int(port, 16))


Text = TypeVar("Text", bytes, tuple[bytes, bytes])


def _known(known: dict[Text, Server], text: Text, make: Callable[[], Server]) -> Server:
    """Return the server that `text` names, made once."""
    if text not in known:
        if len(known) >= _MOST_KNOWN:
            known.clear()
        known[text] = make()
    return known[text]

"""Lines of /proc/net/ip_vs_conn: what they mean, and that any other bytes are Malformed."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netlink import connections
from netlink.connections import Parser
from netlink.errors import Malformed
from netlink.types import Connection, Family, Protocol, RealServerKey, VirtualServerKey
from tests.netlink.strategies import addresses, mark_keys

# Printed by 6.1; a director with a client, held connections, a firewall's marks and SIP calls.
HEADING = b"Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n"
PRINTED = [
    b"UDP 0A010002 C607 0A010064 0035 0A010001 1F90 UDP             299",
    (
        b"TCP fd00:0001:0000:0000:0000:0000:0000:0002 B470 fd00:0001:0000:0000:0000:0000:0000:0100 0050 "
        b"fd00:0001:0000:0000:0000:0000:0000:0001 1F90 ESTABLISHED     899"
    ),
    b"TCP 0A010000 0000 0A010064 0051 0A010001 1F90 ASSURED         299",
    b"SCTP 0A010002 C7DB 0A010064 005A 0A010001 1F90 REJECTED          3",
    (
        b"IP  fd00:0001:0000:0000:0000:0000:0000:0000 0000 ffff:fffe:0000:0000:0000:0000:0000:0000 0000 "
        b"fd00:0001:0000:0000:0000:0000:0000:0001 0000 ASSURED         100"
    ),
    b"IP  0A010064 0000 00000007 0000 0A010001 0000 ASSURED         100",
    b"UDP 0A010002 0000 0A010064 13C4 0A010001 1F90 NONE            300 sip abc-123@host",
    b'UDP 0A010002 0000 0A010064 13C4 0A010001 1F90 NONE            300 sip a%s<>()"x',
]


def real(address: str, port: int) -> RealServerKey:
    return RealServerKey(address=ip_address(address), port=port)


def to(protocol: Protocol, address: str, port: int) -> VirtualServerKey:
    return VirtualServerKey.by_address(protocol, ip_address(address), port)


MEANT = [
    Connection(
        client=ip_address("10.1.0.2"),
        client_port=50695,
        virtual_server=to(Protocol.UDP, "10.1.0.100", 53),
        real_server=real("10.1.0.1", 8080),
        state="UDP",
        expires=299,
    ),
    Connection(
        client=ip_address("fd00:1::2"),
        client_port=46192,
        virtual_server=to(Protocol.TCP, "fd00:1::100", 80),
        real_server=real("fd00:1::1", 8080),
        state="ESTABLISHED",
        expires=899,
    ),
    Connection(
        client=ip_address("10.1.0.0"),
        client_port=0,
        virtual_server=to(Protocol.TCP, "10.1.0.100", 81),
        real_server=real("10.1.0.1", 8080),
        state="ASSURED",
        expires=299,
    ),
    Connection(
        client=ip_address("10.1.0.2"),
        client_port=51163,
        virtual_server=to(Protocol.SCTP, "10.1.0.100", 90),
        real_server=real("10.1.0.1", 8080),
        state="REJECTED",
        expires=3,
    ),
    Connection(
        client=ip_address("fd00:1::"),
        client_port=0,
        virtual_server=VirtualServerKey.by_mark(2**32 - 2, Family.IPV6),
        real_server=real("fd00:1::1", 0),
        state="ASSURED",
        expires=100,
    ),
    Connection(
        client=ip_address("10.1.0.100"),
        client_port=0,
        virtual_server=VirtualServerKey.by_mark(7),
        real_server=real("10.1.0.1", 0),
        state="ASSURED",
        expires=100,
    ),
    Connection(
        client=ip_address("10.1.0.2"),
        client_port=0,
        virtual_server=to(Protocol.UDP, "10.1.0.100", 5060),
        real_server=real("10.1.0.1", 8080),
        state="NONE",
        expires=300,
        persistence_engine="sip",
        persistence_data=b"abc-123@host",
    ),
    Connection(
        client=ip_address("10.1.0.2"),
        client_port=0,
        virtual_server=to(Protocol.UDP, "10.1.0.100", 5060),
        real_server=real("10.1.0.1", 8080),
        state="NONE",
        expires=300,
        persistence_engine="sip",
        persistence_data=b'a%s<>()"x',
    ),
]


def hexadecimal(key: VirtualServerKey | RealServerKey | Connection) -> str:
    """Return address and port as the kernel prints them; of a mark, the mark in place of the address."""
    match key:
        case VirtualServerKey(mark=mark, family=family) if mark:
            packed = mark.to_bytes(4, "big") + bytes(12 if family is Family.IPV6 else 0)
            port = 0
        case VirtualServerKey(address=address, port=port) | RealServerKey(address=address, port=port):
            assert address is not None
            packed = address.packed
        case Connection(client=client, client_port=port):
            packed = client.packed
    text = packed.hex().upper() if len(packed) == 4 else packed.hex(":", 2)
    return f"{text} {port:04X}"


def printed(connection: Connection) -> bytes:
    """Return the line that the kernel prints, without its end."""
    key = connection.virtual_server
    names = {6: "TCP", 17: "UDP", 132: "SCTP", 1: "ICMP", 58: "ICMPv6"}
    protocol = "IP" if key.protocol is None else names.get(key.protocol, f"IP_{int(key.protocol)}")
    places = " ".join((hexadecimal(connection), hexadecimal(key), hexadecimal(connection.real_server)))
    line = f"{protocol:<3} {places} {connection.state:<11} {connection.expires:7}".encode()
    if connection.persistence_engine is not None:
        line += f" {connection.persistence_engine} ".encode() + connection.persistence_data
    return line


_NO_ENDS = bytes.maketrans(b"\n\0", b" 0")  # neither can be in a SIP header
every_port = st.integers(0, 65535)
address_keys = st.builds(VirtualServerKey.by_address, st.integers(1, 255).map(Protocol), addresses, every_port)


@st.composite
def any_connections(draw: st.DrawFn) -> Connection:
    """Draw what a kernel may have."""
    key = draw(address_keys | mark_keys)
    engine = draw(st.none() | st.sampled_from(["sip", "a-b_c9"]))
    return Connection(
        client=draw(st.ip_addresses(v=4 if key.family is Family.IPV4 else 6)),
        client_port=draw(every_port),
        virtual_server=key,
        real_server=RealServerKey(address=draw(addresses), port=draw(every_port)),
        state=draw(st.sampled_from(["NONE", "ESTABLISHED", "SHUTDOWN_ACK_SENT", "UDP", "BUG!", "ERR!", "?"])),
        expires=draw(st.integers(0, 2**31 // 100)),
        persistence_engine=engine,
        persistence_data=b"" if engine is None else draw(st.binary(max_size=255)).translate(_NO_ENDS),
    )


@contextmanager
def opened(content: bytes) -> Iterator[int]:
    """Yield the descriptor of a file with `content`."""
    descriptor = os.memfd_create("ip_vs_conn")
    try:
        os.write(descriptor, content)
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(("line", "meant"), list(zip(PRINTED, MEANT, strict=True)), ids=str)
def test_what_a_kernel_printed_is_read(line: bytes, meant: Connection) -> None:
    assert Parser().parse(line) == meant
    assert printed(meant) == line


def test_templates_are_told_from_connections() -> None:
    assert [each.template for each in MEANT] == [False, False, True, False, True, True, True, True]


@given(st.lists(any_connections(), max_size=20))
def test_every_connection_is_read_back(expected: list[Connection]) -> None:
    content = HEADING + b"".join(printed(each) + b"\n" for each in expected)
    with opened(content) as descriptor:
        for _ in range(2):  # it starts at the start
            assert list(connections.read(descriptor)) == expected


@given(st.binary())
def test_any_line_is_read_or_malformed(line: bytes) -> None:
    with suppress(Malformed):
        Parser().parse(line)


@given(st.data(), st.sampled_from(PRINTED), st.booleans())
def test_a_mutated_line_is_read_or_malformed(data: st.DataObject, line: bytes, learned: bool) -> None:  # noqa: FBT001
    parser = Parser()
    if learned:
        for each in PRINTED:
            parser.parse(each)
    changed = bytearray(line)
    for place, byte in data.draw(st.lists(st.tuples(st.integers(0, len(line) - 1), st.integers(0, 255)), max_size=4)):
        changed[place] = byte
    with suppress(Malformed):
        found = parser.parse(bytes(changed))
        assert Parser().parse(bytes(changed)) == found
        if b"IP" not in changed[:3]:  # a number may have leading zeros, an address that is remembered may not differ
            assert printed(found).split()[1:7] == bytes(changed).split()[1:7]


ODD = {
    "empty": b"",
    "heading": HEADING[:-1],
    "short": PRINTED[0][:-12],
    "mixed families": PRINTED[1].replace(b"fd00:0001:0000:0000:0000:0000:0000:0002", b"0A010002"),
    "small letters": PRINTED[0].lower(),
    "capital letters": PRINTED[1].upper(),
    "seven groups": PRINTED[1].replace(b"fd00:0001:0000:", b"fd00:0001:"),
    "mark 0": PRINTED[5].replace(b"00000007", b"00000000"),
    "mark with a port": PRINTED[5].replace(b"00000007 0000", b"00000007 0050"),
    "more than a mark": PRINTED[4].replace(b"ffff:fffe:0000", b"ffff:fffe:0001"),
    "unknown protocol": PRINTED[0].replace(b"UDP", b"FOO", 1),
    "protocol 0": PRINTED[0].replace(b"UDP", b"IP_0", 1),
    "protocol 256": PRINTED[0].replace(b"UDP", b"IP_256", 1),
    "a sign": PRINTED[0].replace(b"299", b"-99"),
    "endless": PRINTED[0] + b"0" * 20,
    "engine without data": PRINTED[0] + b" sip",
    "control character": PRINTED[0].replace(b"UDP  ", b"\x1b[2J "),
    "other digits": PRINTED[0].replace(b"299", "٢٩٩".encode()),
}


@pytest.mark.parametrize("line", list(ODD.values()), ids=list(ODD))
def test_an_odd_line_is_malformed(line: bytes) -> None:
    with pytest.raises(Malformed, match="read connection: this is none: b"):
        Parser().parse(line)


def test_what_is_over_and_not_yet_gone_has_no_time_left() -> None:
    """The kernel prints a difference of unsigned numbers."""
    for number in (b"184467440737095516", b"18446744073709551", b"42949672"):
        assert Parser().parse(PRINTED[0].replace(b"299", number)).expires == 0


def test_an_empty_table_has_no_connection() -> None:
    for content in (b"", HEADING):
        with opened(content) as descriptor:
            assert list(connections.read(descriptor)) == []


def test_another_file_is_malformed() -> None:
    with opened(b"IP Virtual Server version 1.2.1 (size=4096)\n") as descriptor, pytest.raises(Malformed):
        list(connections.read(descriptor))
    with opened(HEADING + PRINTED[0]) as descriptor:  # cut in the middle
        found = connections.read(descriptor)
        with pytest.raises(Malformed):
            next(found)


def test_connections_before_an_odd_one_are_given() -> None:
    with opened(HEADING + PRINTED[0] + b"\nodd\n") as descriptor:
        found = connections.read(descriptor)
        assert next(found) == MEANT[0]
        with pytest.raises(Malformed):
            next(found)


def test_it_is_read_as_it_is_asked_for(tmp_path: Path) -> None:
    whole = io.BytesIO()
    whole.write(HEADING)
    for _ in range(20_000):
        whole.write(PRINTED[1] + b"\n")
    file = tmp_path / "ip_vs_conn"
    file.write_bytes(whole.getvalue())
    descriptor = os.open(file, os.O_RDONLY)
    try:
        found = connections.read(descriptor)
        assert next(found) == MEANT[1]
        assert os.lseek(descriptor, 0, os.SEEK_CUR) <= 1 << 16
        assert sum(1 for _ in found) == 19_999
    finally:
        os.close(descriptor)


def test_a_parser_forgets_the_servers_that_were_long_ago() -> None:
    parser = Parser()
    lines = [PRINTED[0].replace(b"0A010064", f"{number:08X}".encode()) for number in range(10_000)]
    found = [parser.parse(line).virtual_server.address for line in lines]
    assert [int(address or 0) for address in found] == list(range(10_000))
    assert len(parser._virtual) <= 4096  # noqa: SLF001 -- memory is what this is about

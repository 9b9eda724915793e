"""The codec: identity both ways, no other error than Malformed, and bytes as they lie on the wire."""

import re
import sys
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from netlink import codec, framing
from netlink.bulk import Counters, Decoder, Piece
from netlink.errors import Malformed
from netlink.requests import (
    AddRealServer,
    AddVirtualServer,
    DeleteRealServer,
    DeleteVirtualServer,
    SetRealServer,
    SetVirtualServer,
)
from netlink.types import (
    IRREGULAR_MASK,
    Family,
    Forwarding,
    Info,
    Protocol,
    RealServer,
    RealServerKey,
    RealServerUsage,
    SchedulerFlag,
    Traffic,
    Tunnel,
    TunnelFlag,
    VirtualServer,
    VirtualServerKey,
)
from tests.netlink.strategies import keys, real_servers, virtual_servers

little_endian = pytest.mark.skipif(sys.byteorder != "little", reason="the bytes are written down in little endian")

TCP = VirtualServerKey.by_address(Protocol.TCP, IPv4Address("10.9.0.100"), 80)
UDP6 = VirtualServerKey.by_address(Protocol.UDP, IPv6Address("fd00::100"), 53)
MARK = VirtualServerKey.by_mark(7)
REAL = RealServer(key=RealServerKey(address=IPv4Address("10.0.0.1"), port=8080))


def answer(body: bytes) -> framing.Message:
    """Return a generic netlink message with `body`."""
    return framing.Message(30, 2, 1, b"\x01\x01\x00\x00" + body)


def virtual_server_answer(virtual_server: VirtualServer) -> framing.Message:
    return answer(codec.encode_request(AddVirtualServer(virtual_server=virtual_server))[1])


def real_server_answer(real_server: RealServer) -> framing.Message:
    body = codec.encode_request(AddRealServer(virtual_server=TCP, real_server=real_server))[1]
    return answer(body)


def read_virtual_server(message: framing.Message) -> tuple[VirtualServer, Traffic]:
    decoder = codec.service_decoder()
    settings, counters = decoder.piece(message)
    return decoder.value(settings), codec.traffic([(settings, counters)])[0]


def read_real_server(message: framing.Message) -> tuple[RealServer, RealServerUsage]:
    decoder = codec.destination_decoder()
    settings, counters = decoder.piece(message)
    return decoder.value(settings), codec.usage([(settings, counters)])[0]


def octets(text: str) -> bytes:
    """Return the bytes written in hexadecimal, without what follows a # on a line."""
    return bytes.fromhex(re.sub(r"#.*", "", text))


# ---- properties


@given(virtual_servers())
def test_a_virtual_server_is_read_back_as_it_was_written(virtual_server: VirtualServer) -> None:
    assert read_virtual_server(virtual_server_answer(virtual_server)) == (virtual_server, Traffic())


@given(real_servers())
def test_a_real_server_is_read_back_as_it_was_written(real_server: RealServer) -> None:
    assert read_real_server(real_server_answer(real_server)) == (real_server, RealServerUsage())


@given(virtual_servers(), virtual_servers())
def test_virtual_servers_differ_where_their_fields_do(one: VirtualServer, other: VirtualServer) -> None:
    other = attrs.evolve(other, key=one.key, persistence_prefix=one.persistence_prefix)
    assert (codec.differences(one, other) == ()) == (one == other)


@given(real_servers(), real_servers())
def test_real_servers_differ_where_their_fields_do(one: RealServer, other: RealServer) -> None:
    assert (codec.differences(one, other) == ()) == (one == other)


@given(st.sampled_from((read_virtual_server, read_real_server, codec.decode_info)), st.binary())
def test_any_bytes_are_read_or_malformed(decode: Callable[[framing.Message], object], payload: bytes) -> None:
    with suppress(Malformed):
        decode(framing.Message(30, 2, 1, payload))


@given(st.binary())
def test_any_datagram_is_read_or_malformed(datagram: bytes) -> None:
    with suppress(Malformed):
        for message in framing.messages(datagram):
            framing.generic_attributes(message)
            framing.errno_of(message)
            codec.decode_family(message)


@st.composite
def mutated(draw: st.DrawFn, whole: bytes) -> bytes:
    """Draw `whole` with some bytes changed, and maybe an end missing."""
    changed = bytearray(whole)
    for index, value in draw(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=8)):
        changed[index] = value
    return bytes(changed[: draw(st.integers(0, len(whole)) | st.just(len(whole)))])


# Dumped by 6.1 on x86-64, from `ipvsadm -A -u [fd00::100]:53 -s sh -p 300 -M 64 -o -b sh-fallback` and
# `ipvsadm -a -u [fd00::100]:53 -r 10.0.0.7:1 -i`.
DUMPED_VIRTUAL_SERVER = octets("""
    68 01 00 00 1c 00 02 00 63 00 00 00 b4 02 00 00 01 01 00 00 54 01 01 00 06 00 01 00 0a 00 00 00
    06 00 02 00 11 00 00 00 14 00 03 00 fd 00 00 00 00 00 00 00 00 00 00 00 00 00 01 00 06 00 04 00
    00 35 00 00 07 00 06 00 73 68 00 00 0c 00 07 00 0f 00 00 00 ff ff ff ff 08 00 08 00 2c 01 00 00
    08 00 09 00 40 00 00 00 60 00 0a 00 08 00 01 00 00 00 00 00 08 00 02 00 00 00 00 00 08 00 03 00
    00 00 00 00 0c 00 04 00 00 00 00 00 00 00 00 00 04 00 0b 00 0c 00 05 00 00 00 00 00 00 00 00 00
    08 00 06 00 00 00 00 00 08 00 07 00 00 00 00 00 08 00 08 00 00 00 00 00 08 00 09 00 00 00 00 00
    08 00 0a 00 00 00 00 00 a0 00 0c 00 0c 00 01 00 00 00 00 00 00 00 00 00 04 00 0b 00 0c 00 02 00
    00 00 00 00 00 00 00 00 04 00 0b 00 0c 00 03 00 00 00 00 00 00 00 00 00 04 00 0b 00 0c 00 04 00
    00 00 00 00 00 00 00 00 04 00 0b 00 0c 00 05 00 00 00 00 00 00 00 00 00 04 00 0b 00 0c 00 06 00
    00 00 00 00 00 00 00 00 04 00 0b 00 0c 00 07 00 00 00 00 00 00 00 00 00 04 00 0b 00 0c 00 08 00
    00 00 00 00 00 00 00 00 04 00 0b 00 0c 00 09 00 00 00 00 00 00 00 00 00 04 00 0b 00 0c 00 0a 00
    00 00 00 00 00 00 00 00
""")
DUMPED_REAL_SERVER = octets("""
    90 01 00 00 1c 00 02 00 63 00 00 00 b4 02 00 00 05 01 00 00 7c 01 02 00 14 00 01 00 0a 00 00 07
    00 00 00 00 00 00 00 00 00 00 00 00 06 00 02 00 00 35 00 00 08 00 03 00 02 00 00 00 08 00 04 00
    01 00 00 00 05 00 0d 00 00 00 00 00 06 00 0e 00 00 00 00 00 06 00 0f 00 00 00 00 00 08 00 05 00
    00 00 00 00 08 00 06 00 00 00 00 00 08 00 07 00 00 00 00 00 08 00 08 00 00 00 00 00 08 00 09 00
    00 00 00 00 06 00 0b 00 02 00 00 00 64 00 0a 00 08 00 01 00 00 00 00 00 08 00 02 00 00 00 00 00
    08 00 03 00 00 00 00 00 04 00 0b 00 0c 00 04 00 00 00 00 00 00 00 00 00 04 00 0b 00 0c 00 05 00
    00 00 00 00 00 00 00 00 08 00 06 00 00 00 00 00 08 00 07 00 00 00 00 00 08 00 08 00 00 00 00 00
    08 00 09 00 00 00 00 00 08 00 0a 00 00 00 00 00 a0 00 0c 00 0c 00 01 00 00 00 00 00 00 00 00 00
    04 00 0b 00 0c 00 02 00 00 00 00 00 00 00 00 00 04 00 0b 00 0c 00 03 00 00 00 00 00 00 00 00 00
    04 00 0b 00 0c 00 04 00 00 00 00 00 00 00 00 00 04 00 0b 00 0c 00 05 00 00 00 00 00 00 00 00 00
    04 00 0b 00 0c 00 06 00 00 00 00 00 00 00 00 00 04 00 0b 00 0c 00 07 00 00 00 00 00 00 00 00 00
    04 00 0b 00 0c 00 08 00 00 00 00 00 00 00 00 00 04 00 0b 00 0c 00 09 00 00 00 00 00 00 00 00 00
    04 00 0b 00 0c 00 0a 00 00 00 00 00 00 00 00 00
""")


@given(mutated(DUMPED_VIRTUAL_SERVER))
@example(DUMPED_VIRTUAL_SERVER)
def test_a_mutated_virtual_server_is_read_or_malformed(datagram: bytes) -> None:
    with suppress(Malformed):
        for message in framing.messages(datagram):
            read_virtual_server(message)


@given(mutated(DUMPED_REAL_SERVER))
@example(DUMPED_REAL_SERVER)
def test_a_mutated_real_server_is_read_or_malformed(datagram: bytes) -> None:
    with suppress(Malformed):
        for message in framing.messages(datagram):
            read_real_server(message)


# ---- many messages at once


def walked(decoder: Decoder, datagram: bytes) -> list[tuple[object, Counters]]:
    """Return value and counters of every message, read one at a time by a decoder that has not learned anything."""
    pieces = [decoder.piece(message) for message in framing.messages(datagram)]
    return [(decoder.build(framing.attributes(settings)), counters) for settings, counters in pieces]


def split(decoder: Decoder, datagram: bytes) -> list[tuple[object, Counters]]:
    """Return value and counters of every message, read as a dump is."""
    offset = 0
    found: list[tuple[object, Counters]] = []
    while offset < len(datagram):
        framing.header(datagram, offset)
        pieces, offset = decoder.split(datagram, offset)
        found += [(decoder.value(settings), counters) for settings, counters in pieces]
    return found


@given(st.data(), st.sampled_from((DUMPED_VIRTUAL_SERVER, DUMPED_REAL_SERVER)), st.integers(1, 40))
def test_reading_many_at_once_gives_what_reading_one_at_a_time_does(
    data: st.DataObject, message: bytes, count: int
) -> None:
    make = codec.service_decoder if message is DUMPED_VIRTUAL_SERVER else codec.destination_decoder
    learned = make()
    assert split(learned, message * 3) == walked(make(), message * 3)
    datagram = data.draw(mutated(message * count))
    try:
        expected = walked(make(), datagram)
    except Malformed:
        with pytest.raises(Malformed):
            split(learned, datagram)
    else:
        assert split(learned, datagram) == expected


def pieces_of(decoder: Decoder, datagram: bytes) -> list[Piece]:
    found, offset = [], 0
    while offset < len(datagram):
        pieces, offset = decoder.split(datagram, offset)
        found += pieces
    return found


@given(st.data(), st.sampled_from((DUMPED_VIRTUAL_SERVER, DUMPED_REAL_SERVER)), st.integers(1, 40))
def test_counters_that_are_taken_alone_are_those_of_the_whole(data: st.DataObject, message: bytes, count: int) -> None:
    decoder = codec.service_decoder() if message is DUMPED_VIRTUAL_SERVER else codec.destination_decoder()
    before = message * count
    settings = [each for each, _ in pieces_of(decoder, before)]
    datagram = data.draw(mutated(before))
    counters = decoder.again(datagram, before) if len(datagram) >= 4 else None
    if counters is not None:
        assert list(zip(settings, counters, strict=True)) == pieces_of(decoder, datagram)


@little_endian
def test_counters_are_taken_alone_where_nothing_else_differs() -> None:
    decoder = codec.destination_decoder()
    before = DUMPED_REAL_SERVER * 40
    pieces_of(decoder, before)
    changed = bytearray(before)
    changed[112:116] = (7).to_bytes(4, "little")  # active connections
    changed[-8:] = (1 << 40).to_bytes(8, "little")  # the last of the wide counters
    counters = decoder.again(bytes(changed), before)
    assert counters is not None
    assert (counters[0][0], counters[1][0], counters[39][-1]) == (7, 0, 1 << 40)
    changed[-len(DUMPED_REAL_SERVER) + 60] ^= 1
    assert decoder.again(bytes(changed), before) is None
    assert decoder.again(before[: len(DUMPED_REAL_SERVER)], before) is None
    assert codec.destination_decoder().again(before, before) is None, "it has learned nothing yet"


@given(st.lists(virtual_servers(), min_size=1, max_size=30))
def test_virtual_servers_of_every_shape_are_read_from_one_datagram(wanted: list[VirtualServer]) -> None:
    decoder = codec.service_decoder()
    bodies = [codec.encode_request(AddVirtualServer(virtual_server=each))[1] for each in wanted]
    datagram = b"".join(framing.request(30, 1, version=1, flags=2, sequence=1, body=body) for body in bodies)
    for _ in range(2):
        assert split(decoder, datagram) == [(each, (0,) * 10) for each in wanted]


@little_endian
def test_counters_are_those_of_their_own_message() -> None:
    messages = []
    for n in range(1, 30):
        changed = bytearray(DUMPED_REAL_SERVER)
        changed[112:116] = n.to_bytes(4, "little")  # active connections
        changed[-8:] = (n << 33).to_bytes(8, "little")  # the last of the wide counters
        messages.append(bytes(changed))
    pieces, end = codec.destination_decoder().split(b"".join(messages))
    assert end == len(DUMPED_REAL_SERVER) * 29
    found = codec.usage(pieces)
    assert [(usage.active, usage.out_byte_rate) for usage in found] == [(n, n << 33) for n in range(1, 30)]


# ---- bytes on the wire


@little_endian
def test_a_dumped_virtual_server_is_read() -> None:
    (message,) = framing.messages(DUMPED_VIRTUAL_SERVER)
    virtual_server, traffic = read_virtual_server(message)
    assert virtual_server == VirtualServer(
        key=UDP6,
        scheduler="sh",
        scheduler_flags=SchedulerFlag.FLAG_1,
        one_packet=True,
        persistence=300,
        persistence_prefix=64,
    )
    assert traffic == Traffic()


@little_endian
def test_a_dumped_real_server_is_read() -> None:
    (message,) = framing.messages(DUMPED_REAL_SERVER)
    real_server, usage = read_real_server(message)
    key = RealServerKey(address=IPv4Address("10.0.0.7"), port=53)  # ipvsadm made it 53
    assert real_server == RealServer(key=key, forwarding=Forwarding.TUNNEL)
    assert usage == RealServerUsage()


@little_endian
def test_add_virtual_server_on_the_wire() -> None:
    virtual_server = VirtualServer(key=TCP, scheduler="wrr", persistence=300, persistence_prefix=24)
    assert codec.encode_request(AddVirtualServer(virtual_server=virtual_server)) == (
        1,
        octets("""
            54 00 01 80                # IPVS_CMD_ATTR_SERVICE, nested
            06 00 01 00  02 00 00 00   # AF_INET
            06 00 02 00  06 00 00 00   # TCP
            14 00 03 00  0a 09 00 64  00 00 00 00 00 00 00 00 00 00 00 00
            06 00 04 00  00 50 00 00   # port 80, big endian
            0c 00 07 00  01 00 00 00  ff ff ff ff   # persistent; all bits are meant
            08 00 08 00  2c 01 00 00   # 300 s
            08 00 09 00  ff ff ff 00   # /24, big endian
            08 00 06 00  77 72 72 00   # wrr
        """),
    )


@little_endian
def test_the_prefix_of_ipv6_is_a_number_in_host_order() -> None:
    virtual_server = VirtualServer(key=UDP6, persistence=1, persistence_prefix=64)
    _, body = codec.encode_request(SetVirtualServer(virtual_server=virtual_server))
    assert octets("08 00 09 00  40 00 00 00") in body


@little_endian
def test_delete_by_mark_on_the_wire() -> None:
    assert codec.encode_request(DeleteVirtualServer(key=MARK)) == (
        3,
        octets("""
            14 00 01 80
            06 00 01 00  02 00 00 00   # AF_INET
            08 00 05 00  07 00 00 00   # mark 7
        """),
    )


@little_endian
def test_set_real_server_on_the_wire() -> None:
    real_server = attrs.evolve(REAL, forwarding=Forwarding.TUNNEL, weight=5, upper_threshold=1000, lower_threshold=500)
    command, body = codec.encode_request(SetRealServer(virtual_server=MARK, real_server=real_server))
    assert command == 6
    assert body[20:] == octets("""
        60 00 02 80                # IPVS_CMD_ATTR_DEST, nested
        06 00 0b 00  02 00 00 00   # AF_INET
        14 00 01 00  0a 00 00 01  00 00 00 00 00 00 00 00 00 00 00 00
        06 00 02 00  1f 90 00 00   # port 8080, big endian
        08 00 03 00  02 00 00 00   # tunnel
        08 00 04 00  05 00 00 00   # weight
        08 00 05 00  e8 03 00 00   # upper threshold
        08 00 06 00  f4 01 00 00   # lower threshold
        05 00 0d 00  00 00 00 00   # ipip
        06 00 0e 00  00 00 00 00   # tunnel port
        06 00 0f 00  00 00 00 00   # tunnel flags
    """)


@little_endian
def test_delete_real_server_on_the_wire() -> None:
    command, body = codec.encode_request(DeleteRealServer(virtual_server=MARK, key=REAL.key))
    assert command == 7
    assert body[20:] == octets("""
        28 00 02 80
        06 00 0b 00  02 00 00 00
        14 00 01 00  0a 00 00 01  00 00 00 00 00 00 00 00 00 00 00 00
        06 00 02 00  1f 90 00 00
    """)


@little_endian
def test_a_request_on_the_wire() -> None:
    assert framing.request(30, 4, version=1, flags=framing.NLM_F_DUMP, sequence=9) == octets("""
        14 00 00 00  1e 00  01 03  09 00 00 00  00 00 00 00   # length, family, flags, sequence, port
        04 01 00 00                                           # command, version
    """)


def test_information() -> None:
    body = octets("08 00 01 00  01 02 01 00  08 00 02 00  00 10 00 00")
    assert codec.decode_info(answer(body)) == Info(version=(1, 2, 1), connection_table_size=4096)


def test_counters_of_64_bits_come_before_those_of_32() -> None:
    names = Traffic._fields
    wide = b"".join(framing.attribute(n, (n << 40).to_bytes(8, sys.byteorder)) for n in range(1, 11))
    narrow = b"".join(framing.attribute(n, n.to_bytes(4, sys.byteorder)) for n in range(1, 11))
    _, body = codec.encode_request(AddRealServer(virtual_server=TCP, real_server=REAL))
    inner = framing.attributes(body)[2]
    both = inner + framing.attribute(10, narrow) + framing.attribute(12, wide)
    assert read_real_server(answer(framing.attribute(2, both)))[1].traffic == Traffic(
        **{name: n << 40 for n, name in enumerate(names, 1)}
    )
    only = inner + framing.attribute(10, narrow) + framing.attribute(7, (3).to_bytes(4, sys.byteorder))
    usage = read_real_server(answer(framing.attribute(2, only)))[1]
    assert usage.traffic == Traffic(**{name: n for n, name in enumerate(names, 1)})
    assert usage.active == 3


# ---- what others put into the table


def with_attribute(virtual_server: VirtualServer, number: int, payload: bytes) -> framing.Message:
    """Return the answer for `virtual_server` with one attribute replaced; the last one counts."""
    _, body = codec.encode_request(AddVirtualServer(virtual_server=virtual_server))
    return answer(framing.attribute(1, framing.attributes(body)[1] + framing.attribute(number, payload)))


def test_the_kernels_own_flag_is_not_ours() -> None:
    message = with_attribute(VirtualServer(key=TCP), 7, (2).to_bytes(4, sys.byteorder) + bytes(4))
    assert read_virtual_server(message)[0] == VirtualServer(key=TCP)


def test_a_mask_that_is_no_prefix_equals_no_prefix() -> None:
    found, _ = read_virtual_server(with_attribute(VirtualServer(key=TCP), 9, bytes([255, 0, 255, 0])))
    assert found.persistence_prefix == IRREGULAR_MASK
    with pytest.raises(ValueError, match="persistence_prefix -1 is not in"):
        codec.encode_request(SetVirtualServer(virtual_server=found))


def test_an_unknown_protocol_is_a_key_all_the_same() -> None:
    found, _ = read_virtual_server(with_attribute(VirtualServer(key=TCP), 2, (50).to_bytes(2, sys.byteorder)))
    assert str(found.key) == "protocol_50 10.9.0.100:80"
    assert codec.encode_key(found.key)


def test_an_unknown_forwarding_is_read_and_never_written() -> None:
    body = framing.attributes(codec.encode_request(AddRealServer(virtual_server=TCP, real_server=REAL))[1])[2]
    message = answer(framing.attribute(2, body + framing.attribute(3, (5).to_bytes(4, sys.byteorder))))
    found, _ = read_real_server(message)
    assert found.forwarding == 5
    with pytest.raises(ValueError, match="forwarding FORWARDING_5 cannot be asked for"):
        codec.encode_request(SetRealServer(virtual_server=TCP, real_server=found))


@little_endian
def test_the_tunnel_of_somebody_else_is_seen() -> None:
    gue = octets("05 00 0d 00  01 00 00 00   06 00 0e 00  17 c0 00 00   06 00 0f 00  02 00 00 00")  # port big endian
    body = framing.attributes(codec.encode_request(AddRealServer(virtual_server=TCP, real_server=REAL))[1])[2]
    found, _ = read_real_server(answer(framing.attribute(2, body + gue)))
    assert found == attrs.evolve(REAL, tunnel_type=Tunnel.GUE, tunnel_port=6080, tunnel_flags=TunnelFlag(2))
    assert codec.differences(REAL, found) == ("tunnel_type", "tunnel_port", "tunnel_flags")
    assert gue in codec.encode_request(SetRealServer(virtual_server=TCP, real_server=found))[1]


def test_a_kernel_without_tunnel_attributes_has_ipip() -> None:
    _, body = codec.encode_request(AddRealServer(virtual_server=TCP, real_server=REAL))
    rest = {n: p for n, p in framing.attributes(framing.attributes(body)[2]).items() if n not in (13, 14, 15)}
    nested = b"".join(framing.attribute(n, payload) for n, payload in rest.items())
    assert read_real_server(answer(framing.attribute(2, nested)))[0] == REAL


@pytest.mark.parametrize("missing", [1, 2, 3, 4, 6, 7, 8, 9])
def test_a_virtual_server_without_an_attribute_is_malformed(missing: int) -> None:
    _, body = codec.encode_request(AddVirtualServer(virtual_server=VirtualServer(key=TCP)))
    rest = {n: payload for n, payload in framing.attributes(framing.attributes(body)[1]).items() if n != missing}
    with pytest.raises(Malformed, match=r"read virtual server: it has n(o|either)"):
        read_virtual_server(answer(framing.attribute(1, b"".join(framing.attribute(n, p) for n, p in rest.items()))))


# ---- what is never sent

GARBAGE_VIRTUAL_SERVERS = {
    "persistence 100000000 is not in 0..2678400": {"persistence": 100_000_000},
    "persistence 0 is not 1 second or more": {"persistence": 0},
    "persistence_prefix 33 is not in 0..32": {"persistence_prefix": 33},
    "persistence_prefix 0 is not in 1..128": {"key": UDP6, "persistence": 1, "persistence_prefix": 0},
    "address fd00::1%eth0 has a scope": {
        "key": VirtualServerKey.by_address(Protocol.TCP, IPv6Address("fd00::1%eth0"), 80)
    },
    "scheduler 'wrr; reboot' is not a name": {"scheduler": "wrr; reboot"},
    "scheduler '' is not a name": {"scheduler": ""},
    "scheduler 'aaaaaaaaaaaaaaaa' is longer than 15": {"scheduler": "a" * 16},
    "persistence_engine '../x' is not a name": {"persistence_engine": "../x"},
    "scheduler_flags 0x40 has unknown bits": {"scheduler_flags": SchedulerFlag(0x40)},
    "one_packet works with UDP only": {"one_packet": True},
    "port 0 (every port) needs persistence": {
        "key": VirtualServerKey.by_address(Protocol.TCP, IPv4Address("1.1.1.1"), 0)
    },
    "port 65536 is not in 0..65535": {"key": VirtualServerKey.by_address(Protocol.TCP, IPv4Address("1.1.1.1"), 65536)},
    "key must be a mark from 1": {"key": VirtualServerKey.by_mark(0)},
    "mark 4294967296 is not in": {"key": VirtualServerKey.by_mark(2**32)},
    "family IPV6 does not fit its address": {"key": attrs.evolve(TCP, family=Family.IPV6)},
    "protocol 50 is none that IPVS balances": {"key": attrs.evolve(TCP, protocol=Protocol(50))},
}


@pytest.mark.parametrize(("says", "fields"), GARBAGE_VIRTUAL_SERVERS.items())
def test_a_garbage_virtual_server_is_not_sent(says: str, fields: dict[str, object]) -> None:
    make = attrs.evolve
    virtual_server = make(VirtualServer(key=TCP), **fields)
    for request in (AddVirtualServer(virtual_server=virtual_server), SetVirtualServer(virtual_server=virtual_server)):
        with pytest.raises(ValueError, match=re.escape(says)) as caught:
            codec.encode_request(request)
        assert str(virtual_server.key) in str(caught.value)


GARBAGE_REAL_SERVERS = {
    "weight -1 is not in 0..2147483647": {"weight": -1},
    "weight 2147483648 is not in 0..2147483647": {"weight": 2**31},
    "upper_threshold 2147483648 is not in": {"upper_threshold": 2**31},
    "lower_threshold -1 is not in": {"lower_threshold": -1},
    "forwarding FORWARDING_5 cannot be asked for": {"forwarding": Forwarding(5)},
    "tunnel_type 3 is not in 0..2": {"tunnel_type": 3},
    "tunnel_type -1 is not in 0..2": {"tunnel_type": -1},
    "tunnel_type 1 (gue) needs a tunnel_port": {"tunnel_type": 1},
    "tunnel_port 65536 is not in 0..65535": {"tunnel_type": 1, "tunnel_port": 65536},
    "tunnel_port 6080 means nothing but with gue": {"tunnel_type": 2, "tunnel_port": 6080},
    "tunnel_flags 1 mean nothing with ipip": {"tunnel_flags": 1},
    "tunnel_flags 3 ask for the remote checksum, which only gue has": {"tunnel_type": 2, "tunnel_flags": 3},
    "tunnel_flags 4 is not in 0..3": {"tunnel_flags": 4},
    "address fe80::1%eth0 has a scope": {"key": RealServerKey(address=IPv6Address("fe80::1%eth0"), port=80)},
    "weight '5' is no integer": {"weight": "5"},
    "weight 1.5 is no integer": {"weight": 1.5},
    "port -1 is not in 0..65535": {"key": RealServerKey(address=IPv4Address("10.0.0.1"), port=-1)},
}


@pytest.mark.parametrize(("says", "fields"), GARBAGE_REAL_SERVERS.items())
def test_a_garbage_real_server_is_not_sent(says: str, fields: dict[str, object]) -> None:
    make = attrs.evolve
    real_server = make(REAL, **fields)
    with pytest.raises(ValueError, match=re.escape(says)) as caught:
        codec.encode_request(AddRealServer(virtual_server=TCP, real_server=real_server))
    assert str(real_server.key) in str(caught.value)


@given(keys)
def test_every_key_that_can_be_read_can_be_asked_for(key: VirtualServerKey) -> None:
    assert codec.encode_key(key)


def test_an_irregular_mask_differs_from_every_prefix() -> None:
    irregular = VirtualServer(key=TCP, persistence=1, persistence_prefix=IRREGULAR_MASK)
    for prefix in (None, 0, 24, 31):
        assert codec.differences(irregular, attrs.evolve(irregular, persistence_prefix=prefix)) == (
            "persistence_prefix",
        )
    assert codec.differences(irregular, irregular) == ()

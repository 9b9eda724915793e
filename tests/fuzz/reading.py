"""Targets for what reads bytes: any bytes decode or raise Malformed, and both ways to read a dump give the same."""

import struct
from collections.abc import Callable
from contextlib import suppress
from tempfile import TemporaryFile

import attrs

from netlink import codec, connections, framing
from netlink.bulk import Counters, Decoder
from netlink.connections import Parser
from netlink.errors import Malformed
from netlink.types import Connection, Family
from tests.fuzz.draw import Draw
from tests.fuzz.recorded import connection_lines, single_messages

Value = tuple[object, Counters]


@attrs.frozen(kw_only=True)
class Kind:
    """One kind of object of a dump."""

    decoder: Callable[[], Decoder]
    samples: list[bytes]
    walking: Decoder = attrs.field(init=False)  # what reads one message at a time learns nothing

    @walking.default
    def _walking(self) -> Decoder:
        return self.decoder()


KINDS = (
    Kind(decoder=codec.service_decoder, samples=single_messages("virtual-servers")),
    Kind(
        decoder=codec.destination_decoder,
        samples=single_messages("real-servers-of-two-families") + single_messages("real-servers-of-ipv6"),
    ),
    Kind(decoder=codec.daemon_decoder, samples=single_messages("daemons")),
)

# ---- framing and single answers


def framing_target(data: bytes) -> None:
    """Read `data` as a datagram, as attributes and as an acknowledgement."""
    for offset in (0, 1, len(data), len(data) + 1):
        with suppress(Malformed):
            found = framing.header(data, offset)
            assert framing.MESSAGE_HEADER <= found.length <= len(data) - offset
    with suppress(Malformed):
        for message in framing.messages(data):
            _read_message(message)
    with suppress(Malformed):
        end = 0
        for place in framing.places(data):
            assert end == place.start == place.payload - framing.ATTRIBUTE_HEADER
            assert place.payload <= place.end <= len(data)
            end = (place.end + 3) & ~3
        assert end in range(len(data), len(data) + 4)
        assert framing.attributes(data).keys() == {place.number for place in framing.places(data)}


def _read_message(message: framing.Message) -> None:
    with suppress(Malformed):
        assert framing.errno_of(message) >= 0
    with suppress(Malformed):
        framing.generic_attributes(message)


def answers_target(data: bytes) -> None:
    """Read what follows the first byte as each of the answers that come alone."""
    message = framing.Message(data[0] if data else 0, 0, 1, data[1:])
    for decode in (codec.decode_info, codec.decode_timeouts, codec.decode_family):
        with suppress(Malformed):
            decode(message)
    for kind in KINDS:
        with suppress(Malformed):
            settings, _ = kind.walking.piece(message)
            kind.walking.build(framing.attributes(settings))


# ---- dumps


def bulk_input(kind: int, *datagrams: bytes, times: int = 1) -> bytes:
    """Return what has `bulk_target` read `datagrams`, each repeated, as objects of `kind`."""
    return bytes([kind]) + b"".join(struct.pack("<BH", times - 1, len(each)) + each for each in datagrams)


def bulk_target(data: bytes) -> None:
    """Read datagrams as they come in `data`; `bulk_input` writes them."""
    draw = Draw(data)
    kind = draw.choice(KINDS)
    decoder = kind.decoder()
    while draw.more:
        times = 1 + draw.below(40)
        _compare(kind, decoder, draw.octets(draw.number(2)) * times)


def layouts_target(data: bytes) -> None:
    """Read datagrams made of a kernel's message, changed attribute by attribute from message to message.

    Lengths are right, where a change does not make them wrong, which changed bytes hardly ever are.
    """
    draw = Draw(data)
    kind = draw.choice(KINDS)
    decoder = kind.decoder()
    sketch = Sketch(draw.choice(kind.samples))
    while draw.more:
        messages: list[bytes] = []
        for _ in range(1 + draw.below(4)):
            for _ in range(draw.below(6)):
                sketch.change(draw)
            messages += [sketch.packed()] * draw.choice((1, 1, 1, 2, 17))
        _compare(kind, decoder, b"".join(messages))


def walked(decoder: Decoder, datagram: bytes) -> list[Value] | None:
    """Return value and counters of every message, read one at a time; None for Malformed."""
    try:
        pieces = [decoder.piece(message) for message in framing.messages(datagram)]
        return [(decoder.build(framing.attributes(settings)), counters) for settings, counters in pieces]
    except Malformed:
        return None


def split(decoder: Decoder, datagram: bytes) -> list[Value] | None:
    """Return value and counters of every message, read as a dump is; None for Malformed."""
    offset = 0
    found: list[Value] = []
    try:
        while offset < len(datagram):
            framing.header(datagram, offset)
            pieces, end = decoder.split(datagram, offset)
            assert pieces, "it must read one message at least"
            assert end > offset
            found += [(decoder.value(settings), counters) for settings, counters in pieces]
            offset = end
    except Malformed:
        return None
    return found


def _compare(kind: Kind, learned: Decoder, datagram: bytes) -> None:
    """Have `datagram` read by a decoder that has learned from others, and message for message."""
    expected = walked(kind.walking, datagram)
    found = split(learned, datagram)
    assert found == expected, f"{datagram.hex()}: many at once are {found}, one at a time {expected}"


class Attribute:
    """An attribute that can be changed: it has a payload or `inner` attributes."""

    def __init__(self, kind: int, payload: bytes, inner: "list[Attribute] | None" = None) -> None:
        self.kind = kind  # number and flags
        self.payload = payload
        self.inner = inner
        self.padding = 0
        self.lies = 0  # how much longer its length says it is

    def packed(self, *, last: bool) -> bytes:
        """Return it as bytes, padded; `last` may do without."""
        payload = self.payload if self.inner is None else packed(self.inner)
        header = struct.pack("=HH", max(0, 4 + len(payload) + self.lies) & 0xFFFF, self.kind)
        padding = b"" if last and self.padding == 255 else bytes([self.padding]) * (-len(payload) % 4)
        return header + payload + padding

    def change(self, draw: Draw) -> None:
        """Make one change."""
        match draw.below(8):
            case 0:
                self.payload, self.inner = draw.octets(draw.below(24)), None
            case 1:
                self.payload = self.payload.ljust(8 if len(self.payload) == 4 else 4, b"\0")[:8]
            case 2:
                self.kind = draw.below(18)
            case 3:
                self.kind ^= draw.choice((0x8000, 0x4000, 0xC000))
            case 4:
                self.padding = draw.number()
            case 5:
                self.lies = draw.choice((0, 1, -1, 4, -4, 100))
            case _ if self.payload:
                changed = bytearray(self.payload)
                changed[draw.below(len(changed))] = draw.number()
                self.payload = bytes(changed)
            case _:
                pass

    def copy(self) -> "Attribute":
        """Return another that is the same."""
        copied = Attribute(self.kind, self.payload, self.inner and [each.copy() for each in self.inner])
        copied.padding, copied.lies = self.padding, self.lies
        return copied


def packed(attributes: list[Attribute]) -> bytes:
    """Return `attributes` as bytes."""
    return b"".join(each.packed(last=place == len(attributes) - 1) for place, each in enumerate(attributes))


class Sketch:
    """A message that can be changed."""

    def __init__(self, sample: bytes) -> None:
        self._sample = sample
        self._reset()

    def _reset(self) -> None:
        self._head = bytearray(self._sample[4:20])
        self._lies = 0
        self._outer = [
            Attribute(
                place.number,
                b"",
                [_attribute(self._sample, each) for each in framing.places(self._sample, place.payload, place.end)],
            )
            for place in framing.places(self._sample, 20)
        ]

    def packed(self) -> bytes:
        """Return the message as bytes."""
        content = bytes(self._head) + packed(self._outer)
        return struct.pack("=I", max(0, 4 + len(content) + self._lies)) + content + bytes(-len(content) % 4)

    def change(self, draw: Draw) -> None:
        """Make one change."""
        siblings = self._level(draw)
        if not siblings:
            self._reset()
            return
        place = draw.below(len(siblings))
        match draw.below(8):
            case 0:
                siblings.insert(draw.below(len(siblings) + 1), siblings[place].copy())
            case 1:
                del siblings[place]
            case 2:
                other = draw.below(len(siblings))
                siblings[place], siblings[other] = siblings[other], siblings[place]
            case 3:
                self._level(draw).append(siblings[place].copy())
            case 4:
                self._head[draw.below(16)] = draw.number()
                self._lies = draw.choice((0, 0, 0, 1, -1, 4, -4))
            case 5 if draw.below(4) == 0:
                self._reset()
            case _:
                siblings[place].change(draw)

    def _level(self, draw: Draw) -> list[Attribute]:
        """Return the attributes of the message, of its object, or of one of its objects' own."""
        siblings = self._outer
        for _ in range(draw.choice((1, 1, 0, 2, 2))):
            inner = [each.inner for each in siblings if each.inner is not None]
            if not inner:
                break
            siblings = draw.choice(inner)
        return siblings


_COUNTERS = (10, 12)  # attributes that have attributes, of those that have a hundred bytes


def _attribute(sample: bytes, place: framing.Place) -> Attribute:
    payload = sample[place.payload : place.end]
    if place.number not in _COUNTERS or len(payload) < 80:
        return Attribute(place.number, payload)
    inner = [_attribute(sample, each) for each in framing.places(sample, place.payload, place.end)]
    return Attribute(place.number, b"", inner)


# ---- /proc/net/ip_vs_conn


def connections_target(data: bytes) -> None:
    """Read drawn lines and a kernel's, changed, by a parser that remembers and by one that does not."""
    draw = Draw(data)
    remembering = Parser()
    printed = connection_lines()
    while draw.more:
        line = draw.choice(printed)
        for _ in range(draw.below(4)):
            place = draw.below(len(line) + 1)
            line = line[:place] + draw.octets(draw.below(4)) + line[place + draw.below(6) :]
        if draw.below(4) == 0:
            line = draw.octets(draw.below(200))
        found = _parsed(remembering, line)
        assert found == _parsed(Parser(), line)
        assert found is None or _printed_again(found) == found
    with suppress(Malformed), TemporaryFile() as file:
        file.write(data)
        file.flush()
        for connection in connections.read(file.fileno()):
            assert connection == _parsed(Parser(), _line(connection))


def _parsed(parser: Parser, line: bytes) -> Connection | None:
    try:
        return parser.parse(line)
    except Malformed:
        return None


def _printed_again(connection: Connection) -> Connection | None:
    return _parsed(Parser(), _line(connection))


def _line(connection: Connection) -> bytes:
    """Return the line that a kernel prints for `connection`."""
    to = connection.virtual_server
    if to.protocol is None:
        protocol, packed = "IP", to.mark.to_bytes(4, "big") + (b"" if to.family == Family.IPV4 else bytes(12))
    else:
        protocol = f"IP_{int(to.protocol)}"
        packed = b"" if to.address is None else to.address.packed
    real = connection.real_server
    line = (
        f"{protocol} {_hexadecimal(connection.client.packed)} {connection.client_port:04X} {_hexadecimal(packed)} "
        f"{to.port:04X} {_hexadecimal(real.address.packed)} {real.port:04X} {connection.state} {connection.expires}"
    ).encode()
    if connection.persistence_engine is None:
        return line
    return line + b" " + connection.persistence_engine.encode() + b" " + connection.persistence_data


def _hexadecimal(packed: bytes) -> str:
    return packed.hex().upper() if len(packed) == 4 else packed.hex(":", 2)

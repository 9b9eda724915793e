"""Reads the messages of a dump, many at once.

Pure. A message is split into its settings (the attributes that are identity and configuration, as the kernel laid them
out, counters left out) and its counters. Equal settings are equal objects, so a caller who has seen them before needs
no value made again; `value` makes one.

Walking the attributes of every message costs more than the kernel's own work. But messages of one kind and length are
laid out alike, on whatever kernel and architecture. So the first is walked, and of what the walk found a struct is
made that takes the others apart in one call, with a mask of all bytes that must not differ: the headers of the
attributes. A message whose masked bytes differ is walked like the first. Both ways give the same, in different times.

Where a datagram differs in nothing but counters from one that was read before, as with any table that has traffic, only
those are taken from it (`again`).
"""

import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, TypeVar

import attrs

from netlink import framing
from netlink.compiler import builder, padded, reader
from netlink.errors import Malformed
from netlink.layout import Layout

Counters = tuple[int, ...]
"""The layout's own counters in the order of its rows, then the traffic's ten; 0 for what the kernel did not send."""

Piece = tuple[bytes, Counters]
"""Settings and counters of one message."""

TRAFFIC_COUNTERS: Final = 10  # IPVS_STATS_ATTR_CONNS and on, numbered from 1
_HEAD: Final = 20  # bytes: netlink's header and generic netlink's
_PORT: Final = slice(12, 16)  # of the head: the number of the socket that asked
_CHUNK: Final = 16  # messages that are compared with the mask at once
_MOST_LEARNED: Final = 8  # layouts of one length
_MOST_LENGTHS: Final = 64  # a kernel has one for real servers, and a few for virtual servers
_LENGTH: Final = struct.Struct("=I")

T = TypeVar("T")
Pick = Callable[[Sequence[Any]], tuple[Any, ...]]


class _Shape:
    """What does not differ between messages of one layout: `fixed` has a 1 for every such byte of `sample`."""

    def __init__(self, sample: bytes, fixed: bytes) -> None:
        self._mask = bytes(255 if same else 0 for same in fixed)
        self._pattern = bytes(byte if same else 0 for byte, same in zip(sample, fixed, strict=True))
        self._numbers: dict[int, tuple[int, int]] = {}

    def fits(self, messages: bytes, count: int) -> bool:
        """Tell whether each of `count` messages, at most _CHUNK, has this shape."""
        if count not in self._numbers:
            self._numbers[count] = (
                int.from_bytes(self._mask * count, "little"),
                int.from_bytes(self._pattern * count, "little"),
            )
        mask, pattern = self._numbers[count]
        return int.from_bytes(messages, "little") & mask == pattern

    def agree(self, messages: bytes, others: bytes, count: int) -> bool:
        """Tell whether `count` messages, at most _CHUNK, are the same as `others` in every byte that is fixed."""
        if count not in self._numbers:
            self.fits(messages, count)
        differing = int.from_bytes(messages, "little") ^ int.from_bytes(others, "little")
        return differing & self._numbers[count][0] == 0


@attrs.frozen
class _Split:
    """How to take apart messages of one layout. The first item is the head."""

    shape: _Shape
    items: struct.Struct
    settings_of: Pick
    counters_of: Pick
    headed: _Shape  # `shape` and the head, of whichever socket
    still: _Shape  # all that does not move: neither counters nor what nobody reads
    counters: struct.Struct | None  # what takes the counters alone; None where one is missing or out of order


@attrs.frozen
class _Make:
    """How to read settings of one layout."""

    shape: _Shape
    items: struct.Struct
    make: Callable[..., Any]  # the value of the items


class Decoder:
    """Reads messages of one kind of object; `nested` is the number of the attribute that holds the object.

    What it learns, a few structs, is all that it keeps.
    """

    def __init__(self, layout: Layout, nested: int) -> None:
        self._layout = layout
        self._nested = nested
        self._build = builder(layout)
        self._rows = {row.number: row for row in layout.rows}
        self._splits: dict[int, list[_Split]] = {}
        self._makes: dict[int, list[_Make]] = {}

    def split(self, datagram: bytes, offset: int = 0) -> tuple[list[Piece], int]:
        """Return the pieces of the message at `offset` and of those after it that have its head, and where they end.

        The head is the first 20 bytes. The caller has checked it, and that the message lies in the datagram.
        """
        (length,) = _LENGTH.unpack_from(datagram, offset)
        head = datagram[offset : offset + _HEAD]
        if length % 4 or length < _HEAD:
            return [self._walk(datagram[offset : offset + length])], offset + padded(length)
        found: list[Piece] = []
        while datagram.startswith(head, offset) and offset + length <= len(datagram):
            pieces = self._chunk(datagram, offset, length, head)
            found += pieces
            offset += len(pieces) * length
        return found, offset

    def again(self, datagram: bytes, before: bytes) -> list[Counters] | None:
        """Return the counters of each message of `datagram`; None unless it is `before`, but for counters.

        `before` was split, from its beginning to its end.
        """
        (length,) = _LENGTH.unpack_from(datagram)
        if len(before) != len(datagram) or length < _HEAD or len(datagram) % length:
            return None
        for split in self._splits.get(length, ()):
            if split.counters is not None and _only_counters_differ(split, length, datagram, before):
                return list(split.counters.iter_unpack(datagram))
        return None

    def piece(self, message: framing.Message) -> Piece:
        """Return settings and counters of one message that came alone."""
        return self._walk(bytes(framing.MESSAGE_HEADER) + message.payload)

    def value(self, settings: bytes) -> Any:
        """Return the object that `settings` describe; Malformed where they describe none."""
        for make in self._makes.get(len(settings), ()):
            if make.shape.fits(settings, 1):
                return make.make(*make.items.unpack(settings))
        value = self.build(framing.attributes(settings))
        self._learn_make(settings)
        return value

    def build(self, found: Mapping[int, bytes]) -> Any:
        """Return the object whose attributes are `found`; Malformed where they are not what the kernel sends."""
        kind = self._layout.kind
        plain: list[object] = []
        for row in self._layout.rows:
            payload = found.get(row.number)
            if payload is not None:
                plain.append(row.form.unpack(kind, row.name, payload))
            elif row.optional or row.absent is not None:
                plain.append(row.absent)
            else:
                raise Malformed("read", kind, f"it has no {row.name}")
        return self._build(*plain)

    # ---- one message, attribute by attribute

    def _walk(self, message: bytes) -> Piece:
        nested = framing.attributes(message[_HEAD:]).get(self._nested)
        if nested is None:
            raise Malformed("read", self._layout.kind, "the message has none")
        settings = b"".join(
            nested[place.start : place.end].ljust(padded(place.end - place.start), b"\0")
            for place in framing.places(nested)
            if place.number in self._rows
        )
        return settings, self._counters(framing.attributes(nested))

    def _counters(self, found: Mapping[int, bytes]) -> Counters:
        own = tuple(self._counter(row.name, found.get(row.number)) for row in self._layout.counters)
        if self._layout.traffic is None:
            return own
        wide, narrow = self._layout.traffic
        traffic = framing.attributes(found.get(wide, found.get(narrow, b"")))
        return own + tuple(self._counter(f"counter {n}", traffic.get(n)) for n in range(1, TRAFFIC_COUNTERS + 1))

    def _counter(self, name: str, payload: bytes | None) -> int:
        if payload is None:
            return 0
        if len(payload) not in (4, 8):
            raise Malformed("read", self._layout.kind, f"its {name} has {len(payload)} bytes")
        return int.from_bytes(payload, sys.byteorder)

    # ---- many messages

    def _chunk(self, datagram: bytes, offset: int, length: int, head: bytes) -> list[Piece]:
        """Return the pieces of one message or more from `offset` on."""
        known = _learned(self._splits, length)
        for split in known:
            count = min((len(datagram) - offset) // length, _CHUNK)
            rows = list(split.items.iter_unpack(datagram[offset : offset + count * length]))
            count = next((place for place, row in enumerate(rows) if row[0] != head), count)
            for some in (count, 1):
                if split.shape.fits(datagram[offset : offset + some * length], some):
                    settings_of, counters_of = split.settings_of, split.counters_of
                    return [(b"".join(settings_of(row)), counters_of(row)) for row in rows[:some]]
        message = datagram[offset : offset + length]
        piece = self._walk(message)
        if len(known) < _MOST_LEARNED and (learned := self._learn_split(message)) is not None:
            known.append(learned)
        return [piece]

    def _learn_split(self, message: bytes) -> _Split | None:
        """Return how to take apart messages laid out as `message`, which can be walked; None where it is too odd."""
        outer = framing.places(message, _HEAD)
        inner = framing.places(message, outer[0].payload, outer[0].end) if len(outer) == 1 else ()
        numbers = [place.number for place in inner]
        if len(set(numbers)) < len(numbers) or not inner:
            return None
        wide, narrow = self._layout.traffic or (-1, -1)
        traffic = wide if wide in numbers else narrow
        own = {row.number: place for place, row in enumerate(self._layout.counters)}
        counters = [-1] * (len(own) + (TRAFFIC_COUNTERS if self._layout.traffic else 0))
        drawn = _Drawing(message, head=_HEAD)
        drawn.fix(_HEAD, outer[0].payload)
        settings: list[int] = []
        for place in inner:
            if place.number in self._rows:
                settings.append(drawn.whole(place))
            elif place.number in own:
                counters[own[place.number]] = drawn.number(place)
            elif place.number == traffic:
                drawn.fix(place.start, place.payload)
                nested = framing.places(message, place.payload, place.end)
                for each in nested:  # among them padding before counters of 8 bytes, where the processor wants it
                    if 1 <= each.number <= TRAFFIC_COUNTERS:
                        counters[len(own) + each.number - 1] = drawn.number(each)  # of two the last
                    else:
                        drawn.skip(each)
            else:
                drawn.skip(place)
        split = drawn.done()
        if split is None:
            return None
        shape, items = split
        alone = drawn.only(counters) if -1 not in counters and counters == sorted(set(counters)) else None
        return _Split(
            shape,
            items,
            _pick(sorted(set(settings))),
            _pick_or_zero(counters),
            headed=drawn.headed(),
            still=drawn.still(),
            counters=alone,
        )

    # ---- settings

    def _learn_make(self, settings: bytes) -> None:
        """Learn how to read settings laid out as these, which can be read, unless they are too odd."""
        places = framing.places(settings)
        numbers = [place.number for place in places]
        known = _learned(self._makes, len(settings))
        if len(set(numbers)) < len(numbers) or len(known) == _MOST_LEARNED:
            return
        drawn = _Drawing(settings)
        for place in places:
            drawn.item(place, self._rows[place.number].form.code)
        made = drawn.done()
        if made is not None:
            known.append(_Make(*made, reader(self._layout, numbers)))


class _Drawing:
    """The layout of one sample, drawn attribute by attribute in their order."""

    def __init__(self, sample: bytes, *, head: int = 0) -> None:
        self._sample = sample
        self._fixed = bytearray(len(sample))
        self._still = bytearray(b"\1" * len(sample))
        self._codes = [f"{head}s"] if head else []
        self._items = len(self._codes)
        self._odd = False
        self._run = (0, -1)  # bytes and end of the run of whole attributes that was drawn last

    def fix(self, start: int, end: int) -> None:
        """Draw bytes that never differ."""
        self._fixed[start:end] = b"\1" * (end - start)
        self._codes.append(f"{end - start}x")

    def skip(self, place: framing.Place) -> None:
        """Draw an attribute that nobody reads."""
        self.fix(place.start, place.payload)
        self._move(place)
        self._codes.append(f"{padded(place.end - place.payload)}x")

    def whole(self, place: framing.Place) -> int:
        """Draw an attribute that is taken with its header; return the item that it becomes, with its neighbours."""
        self._fixed[place.start : place.payload] = b"\1" * (place.payload - place.start)
        size = padded(place.end - place.start)
        before, end = self._run
        if place.start == end:
            size += before
            self._codes.pop()
            self._items -= 1
        self._run = (size, place.start + padded(place.end - place.start))
        return self._item(f"{size}s")

    def item(self, place: framing.Place, code: str = "") -> int:
        """Draw an attribute whose payload is taken, as bytes where there is no `code`; return the item it becomes."""
        self.fix(place.start, place.payload)
        size = place.end - place.payload
        return self._item(f"{code or f'{size}s'}{padded(size) - size}x")

    def number(self, place: framing.Place) -> int:
        """Draw a counter of 4 or 8 bytes; return the item that it becomes."""
        size = place.end - place.payload
        if size not in (4, 8):  # one that is not the last of its number, so nobody has looked at it
            self._odd = True
        self._move(place)
        return self.item(place, "Q" if size == 8 else "I")

    def _move(self, place: framing.Place) -> None:
        """Draw a payload that may be another in a message with the same settings."""
        self._still[place.payload : place.end] = bytes(place.end - place.payload)

    def _item(self, code: str) -> int:
        self._codes.append(code)
        self._items += 1
        return self._items - 1

    def only(self, items: Sequence[int]) -> struct.Struct:
        """Return the struct that takes nothing but `items`, which are in order."""
        codes, item = [], 0
        for code in self._codes:
            if code.removesuffix("x").isdigit():  # bytes that are no item
                codes.append(code)
            else:
                codes.append(code if item in items else f"{struct.calcsize(f'={code}')}x")
                item += 1
        return struct.Struct("=" + "".join(codes))

    def headed(self) -> _Shape:
        """Return what differs between no two messages of one kind and layout, the head of the sample included."""
        fixed = self._fixed[:]
        fixed[:_HEAD] = b"\1" * _HEAD
        fixed[_PORT] = bytes(4)
        return _Shape(self._sample, bytes(fixed))

    def still(self) -> _Shape:
        """Return what does not move between two messages with the same settings."""
        return _Shape(self._sample, bytes(self._still))

    def done(self) -> tuple[_Shape, struct.Struct] | None:
        """Return shape and struct; None where the attributes do not fill the sample exactly."""
        items = struct.Struct("=" + "".join(self._codes))
        if self._odd or items.size != len(self._sample):
            return None
        return _Shape(self._sample, bytes(self._fixed)), items


def _only_counters_differ(split: _Split, length: int, datagram: bytes, before: bytes) -> bool:
    """Tell whether two datagrams with messages of this length are laid out so, and differ in counters alone."""
    step = _CHUNK * length
    for start in range(0, len(datagram), step):
        messages = datagram[start : start + step]
        count = len(messages) // length
        if not split.headed.fits(messages, count):
            return False
        if not split.still.agree(messages, before[start : start + step], count):
            return False
    return True


def _learned(by_length: dict[int, list[T]], length: int) -> list[T]:
    """Return what was learned of messages of this length, to be added to; beyond _MOST_LENGTHS nothing is kept."""
    known = by_length.get(length)
    if known is None:
        known = []
        if len(by_length) < _MOST_LENGTHS:
            by_length[length] = known
    return known


def _pick(places: Sequence[int]) -> Pick:
    """Return a function that takes the items at `places`."""
    if len(places) < 2:  # of one item itemgetter makes no tuple, and none it does not take
        return lambda items: tuple(items[place] for place in places)
    return itemgetter(*places)


def _pick_or_zero(places: Sequence[int]) -> Pick:
    """Return a function that takes the items at `places`, 0 for -1."""
    if -1 not in places:
        return _pick(places)
    return lambda items: tuple(0 if place < 0 else items[place] for place in places)

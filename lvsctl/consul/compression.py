"""The fields of requests and answers as HPACK has them (RFC 7541), at a small part of what `hpack` takes for them.

Pure. Thousands of queries wait all the time, and each that ends without news is asked again: half of what that took of
a processor was HPACK. So what we send is written without a table, which would fill with paths that are all different,
and be searched for every field. What Consul sends is read with hpack's table, but what nearly every field is, an entry
of it or a new one, is read here; the rest is hpack's.
"""

from collections.abc import Iterable
from typing import Any, Final

from hpack import Decoder, Encoder, HeaderTuple, HPACKDecodingError, OversizedHeaderListError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

ENTRY: Final = 32  # bytes that a field counts in a list, beside its name and value
KEPT: Final = 16  # fields as they are written, which are the same in every request
PATH: Final = b":path"  # which is another one in each
LONGEST_INTEGER: Final = 28  # bits; more than any block has bytes

_PLACES: Final = {field: place for place, field in enumerate(HeaderTable.STATIC_TABLE, 1)}
_NAMES: Final = {name: place for place, (name, _) in reversed([*enumerate(HeaderTable.STATIC_TABLE, 1)])}


class PlainEncoder(Encoder):
    """Writes fields without a table of its own and without Huffman's code: the same fields always give the same bytes.

    Fields that no table may keep are written as such, for whoever passes them on.
    """

    def __init__(self) -> None:
        super().__init__()
        self._written: dict[tuple[bytes, bytes, bool], bytes] = {}

    def encode(self, headers: Iterable[HeaderTuple], huffman: bool = False) -> bytes:  # type: ignore[override]  # noqa: FBT001, FBT002  # hpack's
        """Return `headers`, names and values in bytes, as one block."""
        if self.header_table.resized:  # by the peer's settings, which the next block has to acknowledge
            return super().encode(headers, huffman)
        return b"".join([self._field(*header, header.indexable) for header in headers])

    def _field(self, name: bytes, value: bytes, indexable: bool) -> bytes:  # noqa: FBT001  # for every field
        """Return one field; those that come again are kept as they are written."""
        key = name, value, indexable
        written = self._written.get(key)
        if written is None:
            written = _written(name, value, indexable=indexable)
            if name != PATH:
                if len(self._written) >= KEPT:  # another token
                    self._written.clear()
                self._written[key] = written
        return written


def _written(name: bytes, value: bytes, *, indexable: bool) -> bytes:
    """Return a field as an entry of the static table (6.1), else as a literal that goes into none (6.2.2, 6.2.3)."""
    if place := _PLACES.get((name, value)):
        return bytes([0x80 | place])
    kind = 0x00 if indexable else 0x10
    if place := _NAMES.get(name, 0):
        return _integer(place, 0x0F, kind) + _string(value)
    return bytes([kind]) + _string(name) + _string(value)


def _string(text: bytes) -> bytes:
    return _integer(len(text), 0x7F) + text


def _integer(number: int, mask: int, kind: int = 0) -> bytes:
    """Return `number` in the bits of `mask` and as many bytes more as it takes (5.1); `kind` is in the other bits."""
    if number < mask:
        return bytes([kind | number])
    written = bytearray([kind | mask])
    number -= mask
    while number > 0x7F:
        written.append(0x80 | (number & 0x7F))
        number >>= 7
    written.append(number)
    return bytes(written)


class QuickDecoder(Decoder):
    """Reads a block of fields as hpack does, with its table, and with the same limit for the list."""

    def decode(self, data: bytes, raw: bool = False) -> Iterable[Any]:  # noqa: ARG002, FBT001, FBT002  # hpack's
        """Return names and values, always in bytes; raises hpack's errors.

        A block is no longer than the list that it may describe. Else one that says nothing (it changes the table's size
        a million times) keeps everything waiting for seconds, for the frames of one block are one piece to h2.
        """
        if len(data) > self.max_header_list_size:
            raise OversizedHeaderListError(f"the fields of an answer take more than {self.max_header_list_size}")
        table, at, size = self.header_table, 0, 0
        fields: list[tuple[bytes, bytes]] = []
        while at < len(data):
            first = data[at]
            if first & 0x80:  # an entry of the table
                place, at = _read_integer(data, at, 0x7F)
                field = table.get_by_index(place)
            elif first & 0x40:  # a new entry of it
                place, at = _read_integer(data, at, 0x3F)
                name, at = (table.get_by_index(place)[0], at) if place else _read_string(data, at)
                value, at = _read_string(data, at)
                field = name, value
                table.add(name, value)
            elif fields and first & 0x20:
                raise HPACKDecodingError("a table in the fields of an answer changes its size between them")
            else:
                return [*fields, *super().decode(data[at:], raw=True)]  # a list as long again, at most
            fields.append(field)
            size += ENTRY + len(field[0]) + len(field[1])
            if size > self.max_header_list_size:
                raise OversizedHeaderListError(f"the fields of an answer take more than {self.max_header_list_size}")
        return fields


def _read_integer(data: bytes, at: int, mask: int) -> tuple[int, int]:
    """Return the number that begins at `at`, in the bits of `mask`, and where it ends."""
    number = data[at] & mask if at < len(data) else mask
    at += 1
    if number < mask:
        return number, at
    for shift in range(0, LONGEST_INTEGER, 7):
        if at >= len(data):
            break
        more = data[at]
        at += 1
        number += (more & 0x7F) << shift
        if more < 0x80:
            return number, at
    raise HPACKDecodingError("a number in the fields of an answer does not end")


def _read_string(data: bytes, at: int) -> tuple[bytes, int]:
    """Return the text that begins at `at`, and where it ends."""
    length, start = _read_integer(data, at, 0x7F)
    end = start + length
    if end > len(data):
        raise HPACKDecodingError("a text in the fields of an answer does not end")
    text = data[start:end]
    return (decode_huffman(text) if data[at] & 0x80 else text), end

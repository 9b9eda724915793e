r"""The entries of a JSON list or object, one at a time, so that what was sent decides neither time nor memory.

Pure. `json.loads` makes of a body whatever it describes: of `[],[],` twenty times its size; one value nested a thousand
deep makes the whole unreadable, and so does one byte that is not UTF-8. Here never more than one entry is taken apart,
of less than MAX_ENTRY bytes; one that is larger, nested deeper than MAX_DEPTH, or no UTF-8, is left out alone, by
looking for its end.

A part of the body at a time is looked at as Latin-1, where every byte is a character: offsets are those of the bytes.
Only an entry that is not ASCII is then decoded as what it is, UTF-8.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import attrs

from lvsctl.consul.budget import Body
from lvsctl.consul.pieces import Pieces

MAX_ENTRY: Final = 1 << 20  # bytes from which on an entry is not read; one of Consul's has about 1,500
MAX_SKIPPED: Final = 2 << 20  # bytes of an entry that is left out; a larger one makes the body unreadable
MAX_DEPTH: Final = 32  # lists and objects in each other, in an entry; one of Consul's has 4, a proxy's a few more
MAX_DIGITS: Final = 400  # digits of an integer that are read: those left are far out of every range, and cheap

_BLANK: Final = re.compile(rb"[ \t\n\r]*")
_TOKEN: Final = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[{]++|[\]}]++|"', re.DOTALL)
_DECODER: Final = json.JSONDecoder(parse_int=lambda digits: int(digits[:MAX_DIGITS]))


@attrs.frozen
class Unread:
    """Stands for an entry that was left out; the text says what it is: "is nested too deep"."""

    reason: str


def entries(body: Body) -> Iterator[Any]:
    """Yield each entry of the JSON list `body`, or an `Unread`; ValueError where it is no complete list."""
    return (value for value, _, _ in _Reading(body).list(None))


def entries_beside(body: Body, pieces: Pieces) -> Iterator[tuple[Any, int, int]]:
    """Yield each as `entries` does, and where it begins and ends; one of `pieces` that is there is that `Piece`."""
    return _Reading(body).list(pieces)


def members(body: Body) -> Iterator[tuple[Any, Any]]:
    """Yield name and value of each member of the JSON object `body`, an `Unread` for either; ValueError as above."""
    return _Reading(body).object()


class _Reading:
    """One body, and the part of it that may be taken apart at the moment."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._end = 0  # of the entry that was read last
        self._look_at(0)

    def _look_at(self, start: int) -> None:
        """Have the window begin at `start`."""
        self._start = start
        self._window = self._body[start : start + MAX_ENTRY].decode("latin-1")
        self._is_last = start + len(self._window) == len(self._body)

    def list(self, pieces: Pieces | None) -> Iterator[tuple[Any, int, int]]:
        for at in self._places(b"[", b"]"):
            piece = pieces.at(self._body, at) if pieces else None
            value, self._end = (piece, at + len(piece.raw)) if piece else self._value(at)
            yield value, at, self._end

    def object(self) -> Iterator[tuple[Any, Any]]:
        for at in self._places(b"{", b"}"):
            name, end = self._value(at)
            at_colon = _blank(self._body, end)
            if not isinstance(name, str | Unread) or self._body[at_colon : at_colon + 1] != b":":
                raise ValueError(f"it breaks off or goes wrong at byte {at}")
            value, self._end = self._value(_blank(self._body, at_colon + 1))
            yield name, value

    def _places(self, opening: bytes, closing: bytes) -> Iterator[int]:
        """Yield where each entry begins; whoever reads it sets `_end` to where it ends."""
        body = self._body
        at = _blank(body, 0)
        if body[at : at + 1] != opening:
            raise ValueError(f"it begins with {bytes(body[:40])!r}")
        at = _blank(body, at + 1)
        if body[at : at + 1] == closing:
            _no_more(body, at + 1)
            return
        while True:
            yield at
            at = _blank(body, self._end)
            if body[at : at + 1] == closing:
                _no_more(body, at + 1)
                return
            if body[at : at + 1] != b",":
                raise ValueError(f"it breaks off or goes wrong at byte {at}")
            at = _blank(body, at + 1)

    def _value(self, at: int) -> tuple[Any, int]:
        """Return the value at `at`, or an `Unread`, and where it ends."""
        if at > self._start + len(self._window):
            self._look_at(at)
        value, end = _entry(self._window, at - self._start, is_last=self._is_last)
        if end is None and at > self._start and not self._is_last:  # it may go on behind the window
            self._look_at(at)
            value, end = _entry(self._window, 0, is_last=self._is_last)
        end = _end(self._body, at, deep=value is _TOO_DEEP) if end is None else self._start + end
        return _decoded(self._body[at:end], value), end


_TOO_DEEP: Final = Unread(f"is nested deeper than {MAX_DEPTH}")
_TOO_LARGE: Final = Unread(f"has {MAX_ENTRY} bytes or more")


def _entry(window: str, at: int, *, is_last: bool) -> tuple[Any, int | None]:
    """Return the value at `at` and where it ends; None for the end of one that cannot be read here."""
    try:
        value, end = _DECODER.raw_decode(window, at)
    except RecursionError:
        return _TOO_DEEP, None
    except ValueError:
        return _TOO_LARGE, None
    if end == len(window) and not is_last:  # a number may go on
        return _TOO_LARGE, None
    # Most have fewer brackets than that, and a look at each value is saved.
    if window.count("[", at, end) + window.count("{", at, end) > MAX_DEPTH and _is_deep(value):
        return _TOO_DEEP, end
    return value, end


def _is_deep(value: Any) -> bool:
    """Tell whether more than MAX_DEPTH lists and objects are in each other."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [each for each in level if isinstance(each, list | dict)]
        if not level:
            return False
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
    return True


def _end(body: Body, start: int, *, deep: bool) -> int:
    """Return where the value at `start` ends, which was too deep or too large; ValueError when it just is no JSON."""
    depth = 0
    text = body[start : start + MAX_SKIPPED].decode("latin-1")
    for token in _TOKEN.finditer(text):
        first, length = text[token.start()], token.end() - token.start()
        if depth == 0 and token.start() != 0:  # neither an object, nor a list, nor a string
            break
        if first == '"':
            if length == 1:
                break
        elif first in "[{":
            depth += length
        else:
            depth -= length
        if depth <= 0:
            end = token.end() + depth  # brackets below 0 are those around the value
            if not deep and end < MAX_ENTRY:  # it was there as a whole, and could not be read
                break
            return start + end
    raise ValueError(f"the entry at byte {start} is broken or larger than {MAX_SKIPPED} bytes")


def _decoded(raw: Body, value: Any) -> Any:
    """Return `value`, read from `raw` as Latin-1, with its strings decoded as UTF-8."""
    if isinstance(value, Unread) or raw.isascii():
        return value
    try:
        return _DECODER.decode(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Unread(f"is not UTF-8 at its byte {error.start}")
    except RecursionError:  # what could just be read at a stack one frame lower
        return _TOO_DEEP


def _blank(body: Body, at: int) -> int:
    """Return where the white space at `at` ends."""
    match = _BLANK.match(body, at)
    return match.end() if match else at


def _no_more(body: Body, at: int) -> None:
    if _blank(body, at) != len(body):
        raise ValueError(f"there is more behind its end at byte {at}")

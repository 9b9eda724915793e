r"""The entries of a JSON list, one at a time, so that what was sent decides neither time nor memory.

Pure. `json.loads` makes of a body whatever it describes: of `[],[],` twenty times its size; one value nested a thousand
deep makes the whole unreadable, and so does one byte that is not UTF-8. Here never more than one entry is taken apart,
of less than MAX_ENTRY bytes; one that is larger, too deep or no UTF-8 is left out alone, by looking for its end.

The body is looked at as Latin-1, where every byte is a character: offsets are those of the bytes, and nothing grows.
Only an entry that is not ASCII is then decoded as what it is, UTF-8.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import attrs

MAX_ENTRY: Final = 1 << 20  # bytes from which on an entry is not read; one of Consul's has about 1,500
MAX_SKIPPED: Final = 2 << 20  # bytes of an entry that is left out; a larger one makes the body unreadable
MAX_DIGITS: Final = 400  # digits of an integer that are read: those left are far out of every range, and cheap

_BLANK: Final = re.compile(r"[ \t\n\r]*")
_TOKEN: Final = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[{]++|[\]}]++|"', re.DOTALL)
_DECODER: Final = json.JSONDecoder(parse_int=lambda digits: int(digits[:MAX_DIGITS]))


@attrs.frozen
class Unread:
    """Stands for an entry that was left out; the text says what it is: "is nested too deep"."""

    reason: str


def entries(body: bytes) -> Iterator[Any]:
    """Yield each entry of the JSON list `body`, or an `Unread`; ValueError where it is no complete list."""
    text = body.decode("latin-1")
    at = _blank(text, 0)
    if text[at : at + 1] != "[":
        raise ValueError(f"it begins with {body[:40]!r}")
    at = _blank(text, at + 1)
    if text[at : at + 1] == "]":
        _no_more(text, at + 1)
        return
    start = at  # of the window, the part of the text that may be taken apart
    window = text[start : start + MAX_ENTRY]
    while True:
        value, end = _entry(window, at - start, is_last=start + len(window) == len(text))
        if end is None and at > start and start + len(window) < len(text):  # it may go on behind the window
            start, window = at, text[at : at + MAX_ENTRY]
            continue
        end = _end(text, at, deep=value is _TOO_DEEP) if end is None else start + end
        yield _decoded(text, at, end, value)
        at = _blank(text, end)
        if text[at : at + 1] == "]":
            _no_more(text, at + 1)
            return
        if text[at : at + 1] != ",":
            raise ValueError(f"it breaks off or goes wrong at byte {at}")
        at = _blank(text, at + 1)


_TOO_DEEP: Final = Unread("is nested too deep")
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
    return value, end


def _end(text: str, at: int, *, deep: bool) -> int:
    """Return where the value at `at` ends, which was too deep or too large; ValueError when it just is no JSON."""
    depth = 0
    for token in _TOKEN.finditer(text, at, at + MAX_SKIPPED):
        first, length = text[token.start()], token.end() - token.start()
        if depth == 0 and token.start() != at:  # neither an object, nor a list, nor a string
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
            if not deep and end - at < MAX_ENTRY:  # it was there as a whole, and could not be read
                break
            return end
    raise ValueError(f"the entry at byte {at} is broken or larger than {MAX_SKIPPED} bytes")


def _decoded(text: str, at: int, end: int, value: Any) -> Any:
    """Return `value`, read from `text` between `at` and `end`, with its strings decoded as UTF-8."""
    if isinstance(value, Unread):
        return value
    raw = text[at:end]
    if raw.isascii():
        return value
    try:
        return _DECODER.decode(raw.encode("latin-1").decode("utf-8"))
    except UnicodeDecodeError as error:
        return Unread(f"is not UTF-8 at its byte {error.start}")
    except RecursionError:  # what could just be read at a stack one frame lower
        return _TOO_DEEP


def _blank(text: str, at: int) -> int:
    """Return where the white space at `at` ends."""
    match = _BLANK.match(text, at)
    return match.end() if match else at


def _no_more(text: str, at: int) -> None:
    if _blank(text, at) != len(text):
        raise ValueError(f"there is more behind its end at byte {at}")

"""What the keys of overrides and of fleet orders have in common: how they are listed and spelled, and the JSON in them.

Pure. Nothing in there is trusted: whatever cannot be used raises `Unusable`, and that key is ignored alone, with the
reason. A value that says something unknown is such a one: to obey half of it (without a mistyped `until`) would be
worse. Characters that a key cannot have as they are become `!XX`, for Consul refuses from 1.22 on keys in which `%XX`
would be a space or dots.
"""

import binascii
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Any, Final, TypeVar

from lvsctl.consul.budget import Body
from lvsctl.consul.entries import Unread, entries
from lvsctl.core.override import Ignored
from lvsctl.errors import ConsulError

V = TypeVar("V")

MAX_VALUE: Final = 4096  # bytes
MAX_TIME: Final = 1e11  # Unix seconds; the year 5138

_PLAIN: Final = re.compile(rb"[A-Za-z0-9._~=:,@+-]")  # what stands in a key as it is; the rest as !XX
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")


class Unusable(Exception):
    """A key that does not count; the text says why."""


def plain_of(text: str) -> str:
    """Return `text` as it is spelled in a key, where it is one of the names between slashes."""
    plain = "".join(
        chr(byte) if _PLAIN.match(bytes([byte])) else f"!{byte:02X}" for byte in text.encode("utf-8", "replace")
    )
    return plain if plain.strip(".") else plain.replace(".", "!2E")  # a name of dots would be taken out of the path


def text_of(plain: str, what: str, longest: int) -> str:
    """Return the text that is spelled `plain`, of 1 to `longest` characters; `what` is its name where it is unusable.

    Not every spelling that can be read is the one that `plain_of` has; whoever reads a key compares.
    """
    try:
        raw = re.sub(rb"!([0-9A-F]{2})", lambda found: bytes([int(found[1], 16)]), plain.encode("utf-8"))
        text = raw.decode("utf-8")
    except UnicodeError:
        raise Unusable(f"its {what} is not UTF-8") from None
    if not 1 <= len(text) <= longest:
        raise Unusable(f"its {what} has {len(text)} characters, expected 1 to {longest}")
    return text


def listed(key: str, value: str, *, created: int = 0, modified: int = 0) -> dict[str, Any]:
    """Return a key as Consul lists it."""
    return {
        "Key": key,
        "Value": b64encode(value.encode()).decode(),
        "CreateIndex": created,
        "ModifyIndex": modified,
    }


def each_of(
    body: Body, folder: str, read: Callable[[dict[str, Any], str], V], *, most: int, longest: int
) -> tuple[list[V], list[Ignored]]:
    """Return what `read` makes of each key below `folder` in `body`, Consul's JSON list of them, and what is ignored.

    `read` gets an entry and the rest of its key, or raises Unusable. Of a key that is ignored `longest` characters are
    kept. Raises ConsulError when the body as a whole is no such list, or has more than `most` entries.
    """
    found: list[V] = []
    ignored: list[Ignored] = []
    try:
        for number, entry in enumerate(entries(body), 1):
            if number > most:
                raise ConsulError(f"there are more than {most} keys below {folder}; the last ones count")
            key = _key_in(entry, longest)
            if key == folder:
                continue  # the folder itself, as Consul's own pages make it
            try:
                found.append(read(_usable(entry, key, folder), key.removeprefix(folder)))
            except Unusable as why:
                ignored.append(Ignored(key=key, why=str(why), modified=index_in(entry, "ModifyIndex")))
    except ValueError as error:
        raise ConsulError(f"answer is not a JSON list: {error}") from error
    return found, ignored


def _usable(entry: Any, key: str, folder: str) -> dict[str, Any]:
    if isinstance(entry, Unread):
        raise Unusable(f"the entry {entry.reason}")
    if not isinstance(entry, dict) or not key.startswith(folder):
        raise Unusable(f"it is no key below {folder}")
    return entry


def in_order(ignored: list[Ignored]) -> tuple[Ignored, ...]:
    """Return what is ignored in the order in which it is shown."""
    return tuple(sorted(ignored, key=lambda each: (each.key, each.why)))


def _key_in(entry: Any, longest: int) -> str:
    key = entry.get("Key") if isinstance(entry, dict) else None
    return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", key)[:longest] if isinstance(key, str) else ""


def index_in(entry: Any, name: str) -> int:
    """Return one of Consul's indexes, 0 where there is none."""
    index = entry.get(name) if isinstance(entry, dict) else None
    return index if isinstance(index, int) and not isinstance(index, bool) and 0 <= index < 1 << 64 else 0


def document_in(entry: Any, known: AbstractSet[str]) -> dict[str, Any]:
    """Return the JSON object that the value of an entry is, which says nothing but what is `known`."""
    value = entry.get("Value")
    if not isinstance(value, str) or len(value) > (MAX_VALUE + 2) // 3 * 4:
        raise Unusable(f"it has no value, or one of more than {MAX_VALUE} bytes")
    try:
        document = json.loads(
            b64decode(value, validate=True).decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_number
        )
    except (binascii.Error, ValueError, RecursionError):
        raise Unusable("its value is not JSON") from None
    if not isinstance(document, dict):
        raise Unusable("its value is not a JSON object")
    unknown = document.keys() - known
    if unknown:
        raise Unusable(f"its value says {min(unknown)!r:.60}, which is not known here")
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        raise ValueError("a key is there twice")
    return document


def _no_number(text: str) -> Any:
    raise ValueError(text)


def words_in(document: dict[str, Any], name: str, longest: int) -> str:
    """Return a text of a value; empty where there is none."""
    words = document.get(name) or ""
    if not isinstance(words, str) or len(words) > longest or _SURROGATE.search(words):
        raise Unusable(f"{name} is no text of at most {longest} characters")
    return words


def time_in(document: dict[str, Any], name: str) -> float | None:
    """Return a time of a value, Unix seconds; None where there is none."""
    time = document.get(name)
    if time is None:
        return None
    if isinstance(time, bool) or not isinstance(time, int | float) or not 0 < time < MAX_TIME:
        raise Unusable(f"{name} is no time in Unix seconds")
    return float(time)

"""Overrides as keys of Consul's KV, both ways: one key for each virtual server and selector, its value JSON.

Pure. `PREFIX/weights/NAME/SELECTOR` holds `{"share": "5%", "by": …, "reason": …, "until": …, "written": …}`, of which
only `share` has to be there, so that a person can write one with `consul kv put`. Nothing in there is trusted: a key
that cannot be used is ignored alone, with the reason. One that says something unknown is such a key: to obey half of it
(without a mistyped `until`) would be worse. Characters that a key cannot have as they are become `!XX`, for Consul
refuses from 1.22 on keys in which `%XX` would be a space or dots. Source: Consul HTTP API, KV Store, Read Key
(`?recurse`).
"""

import binascii
import json
import re
from base64 import b64decode, b64encode
from typing import Any, Final

from lvsctl.config import NAME_PATTERN
from lvsctl.consul.budget import Body
from lvsctl.consul.entries import Unread, entries
from lvsctl.core.override import MAX_SELECTOR, MAX_WORDS, Ignored, Override, Overrides, parse_share
from lvsctl.errors import ConsulError

MAX_KEYS: Final = 1000
MAX_VALUE: Final = 4096  # bytes
MAX_KEY: Final = 1024  # characters that are kept of a key that is ignored
MAX_TIME: Final = 1e11  # Unix seconds; the year 5138

_NAME: Final = re.compile(NAME_PATTERN)
_PLAIN: Final = re.compile(rb"[A-Za-z0-9._~=:,@+-]")  # what stands in a key as it is; the rest as !XX
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")


class _Unusable(Exception):
    """A key that is no override; the text says why."""


def folder_of(prefix: str) -> str:
    """Return what the keys of all overrides begin with, and the prefix that an ACL policy has to name."""
    return f"{prefix}/weights/"


def key_of(prefix: str, name: str, selector: str) -> str:
    """Return the key of the override of virtual server `name` for `selector`."""
    plain = "".join(
        chr(byte) if _PLAIN.match(bytes([byte])) else f"!{byte:02X}" for byte in selector.encode("utf-8", "replace")
    )
    if not plain.strip("."):  # a segment of dots would be taken out of the path
        plain = plain.replace(".", "!2E")
    return f"{folder_of(prefix)}{name}/{plain}"


def value_of(override: Override) -> str:
    """Return the value of the key of `override`."""
    return json.dumps({
        "share": str(override.share),
        "by": override.by,
        "reason": override.reason,
        "until": override.until,
        "written": override.written,
    })  # fmt: skip


def encode_overrides(overrides: Overrides, prefix: str) -> bytes:
    """Return the overrides as Consul would list them; what is ignored is left out."""
    return json.dumps([
        {
            "Key": key_of(prefix, each.virtual_server, each.selector),
            "Value": b64encode(value_of(each).encode()).decode(),
            "CreateIndex": each.created,
            "ModifyIndex": each.modified,
        }
        for each in overrides.entries
    ]).encode()  # fmt: skip


def unwritable(override: Override, prefix: str) -> str:
    """Return why `override` would not be obeyed if it was written, in words; empty when it would."""
    read = decode_overrides(encode_overrides(Overrides(entries=(override,)), prefix), prefix)
    if read.entries == (override,):
        return ""
    return read.ignored[0].why if read.ignored else "it would be read as another one"


def decode_overrides(body: Body, prefix: str) -> Overrides:
    """Return the overrides in `body`, Consul's JSON list of the keys below `folder_of(prefix)`.

    Raises ConsulError when the body as a whole is no such list, or has more than MAX_KEYS entries.
    """
    found: list[Override] = []
    ignored: list[Ignored] = []
    try:
        for number, entry in enumerate(entries(body), 1):
            if number > MAX_KEYS:
                raise ConsulError(f"there are more than {MAX_KEYS} keys below {folder_of(prefix)}; the last ones count")
            key = _key(entry)
            if key == folder_of(prefix):
                continue  # the folder itself, as Consul's own pages make it
            try:
                found.append(_override(entry, key, prefix))
            except _Unusable as why:
                ignored.append(Ignored(key=key, why=str(why), modified=_index(entry, "ModifyIndex")))
    except ValueError as error:
        raise ConsulError(f"answer is not a JSON list: {error}") from error
    found.sort(key=lambda each: (each.created, each.virtual_server, each.selector))
    return Overrides(entries=tuple(found), ignored=tuple(sorted(ignored, key=lambda each: (each.key, each.why))))


def _key(entry: Any) -> str:
    key = entry.get("Key") if isinstance(entry, dict) else None
    return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", key)[:MAX_KEY] if isinstance(key, str) else ""


def _override(entry: Any, key: str, prefix: str) -> Override:
    if isinstance(entry, Unread):
        raise _Unusable(f"the entry {entry.reason}")
    if not isinstance(entry, dict) or not key.startswith(folder_of(prefix)):
        raise _Unusable("it is no key of an override")
    name, slash, plain = key.removeprefix(folder_of(prefix)).partition("/")
    if not slash or not _NAME.fullmatch(name):
        raise _Unusable("its name is not PREFIX/weights/VIRTUAL_SERVER/SELECTOR")
    selector = _selector(plain)
    if key_of(prefix, name, selector) != key:
        raise _Unusable("its selector is not spelled as lvsctl spells it")
    document = _document(entry.get("Value"))
    try:
        share = parse_share(_words(document, "share"))
    except ValueError as error:
        raise _Unusable(f"share is {document.get('share')!r:.60}: {error}") from None
    return Override(
        virtual_server=name,
        selector=selector,
        share=share,
        by=_words(document, "by"),
        reason=_words(document, "reason"),
        until=_time(document, "until"),
        written=_time(document, "written"),
        created=_index(entry, "CreateIndex"),
        modified=_index(entry, "ModifyIndex"),
    )


def _index(entry: Any, name: str) -> int:
    """Return one of Consul's indexes, 0 where there is none."""
    index = entry.get(name) if isinstance(entry, dict) else None
    return index if isinstance(index, int) and not isinstance(index, bool) and 0 <= index < 1 << 64 else 0


def _selector(plain: str) -> str:
    try:
        raw = re.sub(rb"!([0-9A-F]{2})", lambda found: bytes([int(found[1], 16)]), plain.encode("utf-8"))
        selector = raw.decode("utf-8")
    except UnicodeError:
        raise _Unusable("its selector is not UTF-8") from None
    if not 1 <= len(selector) <= MAX_SELECTOR:
        raise _Unusable(f"its selector has {len(selector)} characters, expected 1 to {MAX_SELECTOR}")
    return selector


def _document(value: Any) -> dict[str, Any]:
    """Return the JSON object that a key's value, in base64, is."""
    if not isinstance(value, str) or len(value) > (MAX_VALUE + 2) // 3 * 4:
        raise _Unusable(f"it has no value, or one of more than {MAX_VALUE} bytes")
    try:
        document = json.loads(
            b64decode(value, validate=True).decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_number
        )
    except (binascii.Error, ValueError, RecursionError):
        raise _Unusable("its value is not JSON") from None
    if not isinstance(document, dict):
        raise _Unusable("its value is not a JSON object")
    unknown = document.keys() - {"share", "by", "reason", "until", "written"}
    if unknown:
        raise _Unusable(f"its value says {min(unknown)!r:.60}, which is not known here")
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        raise ValueError("a key is there twice")
    return document


def _no_number(text: str) -> Any:
    raise ValueError(text)


def _words(document: dict[str, Any], name: str) -> str:
    words = document.get(name) or ""
    if not isinstance(words, str) or len(words) > MAX_WORDS or _SURROGATE.search(words):
        raise _Unusable(f"{name} is no text of at most {MAX_WORDS} characters")
    return words


def _time(document: dict[str, Any], name: str) -> float | None:
    time = document.get(name)
    if time is None:
        return None
    if isinstance(time, bool) or not isinstance(time, int | float) or not 0 < time < MAX_TIME:
        raise _Unusable(f"{name} is no time in Unix seconds")
    return float(time)

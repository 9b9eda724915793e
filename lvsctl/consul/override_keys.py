"""Overrides as keys of Consul's KV, both ways: one key for each virtual server and selector, its value JSON.

Pure. `PREFIX/weights/NAME/SELECTOR` holds `{"share": "5%", "by": …, "reason": …, "until": …, "written": …}`, of which
only `share` has to be there, so that a person can write one with `consul kv put`. A key that cannot be used is ignored
alone, with the reason (`kv_values`). Source: Consul HTTP API, KV Store, Read Key (`?recurse`).
"""

import json
import re
from typing import Any, Final

from lvsctl.config import NAME_PATTERN
from lvsctl.consul.budget import Body
from lvsctl.consul.entries import Unread, entries
from lvsctl.consul.kv_values import (
    MAX_VALUE,
    Unusable,
    document_in,
    index_in,
    key_in,
    listed,
    plain_of,
    text_of,
    time_in,
    words_in,
)
from lvsctl.core.override import MAX_SELECTOR, MAX_WORDS, Ignored, Override, Overrides, parse_share
from lvsctl.errors import ConsulError

__all__ = ["MAX_VALUE", "decode_overrides", "encode_overrides", "folder_of", "key_of", "unwritable", "value_of"]

MAX_KEYS: Final = 1000
MAX_KEY: Final = 1024  # characters that are kept of a key that is ignored

_NAME: Final = re.compile(NAME_PATTERN)
_SAYS: Final = frozenset({"share", "by", "reason", "until", "written"})


def folder_of(prefix: str) -> str:
    """Return what the keys of all overrides begin with, and the prefix that an ACL policy has to name."""
    return f"{prefix}/weights/"


def key_of(prefix: str, name: str, selector: str) -> str:
    """Return the key of the override of virtual server `name` for `selector`."""
    return f"{folder_of(prefix)}{name}/{plain_of(selector)}"


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
        listed(
            key_of(prefix, each.virtual_server, each.selector),
            value_of(each),
            created=each.created,
            modified=each.modified,
        )
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
            key = key_in(entry, MAX_KEY)
            if key == folder_of(prefix):
                continue  # the folder itself, as Consul's own pages make it
            try:
                found.append(_override(entry, key, prefix))
            except Unusable as why:
                ignored.append(Ignored(key=key, why=str(why), modified=index_in(entry, "ModifyIndex")))
    except ValueError as error:
        raise ConsulError(f"answer is not a JSON list: {error}") from error
    found.sort(key=lambda each: (each.created, each.virtual_server, each.selector))
    return Overrides(entries=tuple(found), ignored=tuple(sorted(ignored, key=lambda each: (each.key, each.why))))


def _override(entry: Any, key: str, prefix: str) -> Override:
    if isinstance(entry, Unread):
        raise Unusable(f"the entry {entry.reason}")
    if not isinstance(entry, dict) or not key.startswith(folder_of(prefix)):
        raise Unusable("it is no key of an override")
    name, slash, plain = key.removeprefix(folder_of(prefix)).partition("/")
    if not slash or not _NAME.fullmatch(name):
        raise Unusable("its name is not PREFIX/weights/VIRTUAL_SERVER/SELECTOR")
    selector = text_of(plain, "selector", MAX_SELECTOR)
    if key_of(prefix, name, selector) != key:
        raise Unusable("its selector is not spelled as lvsctl spells it")
    document = document_in(entry, _SAYS)
    try:
        share = parse_share(words_in(document, "share", MAX_WORDS))
    except ValueError as error:
        raise Unusable(f"share is {document.get('share')!r:.60}: {error}") from None
    return Override(
        virtual_server=name,
        selector=selector,
        share=share,
        by=words_in(document, "by", MAX_WORDS),
        reason=words_in(document, "reason", MAX_WORDS),
        until=time_in(document, "until"),
        written=time_in(document, "written"),
        created=index_in(entry, "CreateIndex"),
        modified=index_in(entry, "ModifyIndex"),
    )

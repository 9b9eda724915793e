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
from lvsctl.consul.kv_values import (
    MAX_VALUE,
    Unusable,
    document_in,
    each_of,
    in_order,
    index_in,
    listed,
    plain_of,
    text_of,
    time_in,
    words_in,
)
from lvsctl.core.override import MAX_SELECTOR, MAX_WORDS, Override, Overrides, parse_share

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
    found, ignored = each_of(
        body, folder_of(prefix), lambda entry, rest: _override(entry, rest, prefix), most=MAX_KEYS, longest=MAX_KEY
    )
    found.sort(key=lambda each: (each.created, each.virtual_server, each.selector))
    return Overrides(entries=tuple(found), ignored=in_order(ignored))


def _override(entry: dict[str, Any], rest: str, prefix: str) -> Override:
    name, slash, plain = rest.partition("/")
    if not slash or not _NAME.fullmatch(name):
        raise Unusable("its name is not PREFIX/weights/VIRTUAL_SERVER/SELECTOR")
    selector = text_of(plain, "selector", MAX_SELECTOR)
    if key_of(prefix, name, selector) != folder_of(prefix) + rest:
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

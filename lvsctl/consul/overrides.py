"""The overrides in Consul's KV: read and written once, and watched; all of it as `key_watch` says."""

from collections.abc import Callable
from typing import Final

import attrs

from lvsctl.consul.client import Client
from lvsctl.consul.doubt import HOLD
from lvsctl.consul.folder import Events, Folder
from lvsctl.consul.key_watch import KeyWatch, delete_key, read_folder, write_key
from lvsctl.consul.override_keys import MAX_KEYS, decode_overrides, encode_overrides, folder_of, key_of, value_of
from lvsctl.core.override import NO_OVERRIDES, Override, Overrides


def _keys(overrides: Overrides, prefix: str) -> frozenset[str]:
    return frozenset(key_of(prefix, each.virtual_server, each.selector) for each in overrides.entries)


def _joined(found: Overrides, before: Overrides, _prefix: str) -> Overrides:
    there = {(each.virtual_server, each.selector) for each in found.entries}
    gone = [each for each in before.entries if (each.virtual_server, each.selector) not in there]
    return attrs.evolve(found, entries=tuple(sorted((*found.entries, *gone), key=lambda each: each.created)))


OVERRIDES: Final = Folder(
    words="overrides",
    events=Events(
        ignored="override_ignored",
        doubted="overrides_doubted",
        failed="overrides_failed",
        back="overrides_back",
        file_ignored="overrides_file_ignored",
        file_failed="overrides_file_failed",
    ),
    nothing=NO_OVERRIDES,
    most=MAX_KEYS,
    path=folder_of,
    decode=decode_overrides,
    encode=encode_overrides,
    keys=_keys,
    ignored=lambda overrides: overrides.ignored,
    index=lambda overrides: max((each.modified for each in overrides.entries), default=0),
    joined=_joined,
)


async def read(
    client: Client, prefix: str, known: Overrides = NO_OVERRIDES, *, index: int = 0
) -> tuple[int, Overrides]:
    """Return X-Consul-Index and all overrides; `known` are those of before, which are not lost without a check.

    Raises ConsulRefused when the token may not read them, ConsulError when there is no complete answer.
    """
    found = await read_folder(OVERRIDES, client, prefix, known, index=index)
    return found.index, found.value


async def write(client: Client, prefix: str, override: Override, *, modified: int) -> bool:
    """Write `override` where its key is still as it was at ModifyIndex `modified`, 0: not there; return whether.

    Raises ConsulRefused when the token may not write it.
    """
    key = key_of(prefix, override.virtual_server, override.selector)
    return await write_key(OVERRIDES, client, prefix, key, value_of(override), modified=modified)


async def clear(client: Client, prefix: str, override: Override, *, modified: int) -> bool:
    """Delete `override` where its key is still as it was at ModifyIndex `modified`; return whether."""
    key = key_of(prefix, override.virtual_server, override.selector)
    return await delete_key(OVERRIDES, client, prefix, key, modified=modified)


class OverrideWatch(KeyWatch[Overrides]):
    """The overrides, renewed as soon as Consul has newer ones."""

    def __init__(
        self,
        client: Client,
        prefix: str | None,
        wake: Callable[[], None],
        keep: Callable[[Overrides], None],
        *,
        hold: float = HOLD,
    ) -> None:
        super().__init__(OVERRIDES, client, prefix, wake, keep, hold=hold)

    @property
    def overrides(self) -> Overrides:
        """Return the last known overrides, those that are over too."""
        return self.value

"""The overrides in Consul's KV: read and written once, and watched by one blocking query.

Consul lists only what the token may read, with status 200 or 404: a lost permission looks like overrides that were
cleared. So where one is gone, or there is none, a single key is asked for, which a token without permission is refused
(403). Where Consul's index went back, its data was lost or is being restored, and what is gone stays for a while. It
goes back, too, when a folder above is deleted as a whole; the index of a key that is not there, which is that of the
whole KV, tells the two apart.
A failure is never emptiness: the last known overrides stay, until they are over by the director's own clock.
The other rules of blocking queries are those of `watch`.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import attrs
import structlog

from lvsctl.consul.client import Client
from lvsctl.consul.contact import Contact
from lvsctl.consul.doubt import HOLD
from lvsctl.consul.override_keys import decode_overrides, folder_of, key_of, value_of
from lvsctl.consul.pace import back_off, next_index, until_sweep
from lvsctl.core.override import NO_OVERRIDES, Override, Overrides
from lvsctl.errors import ConsulRefused
from lvsctl.unexpected import in_words

SHORTEST_POLL: Final = 0.02  # seconds; as in `watch`
IDLE_POLL: Final = 1.0

log = structlog.get_logger()


@attrs.frozen(kw_only=True)
class _Read:
    """What Consul says of the overrides."""

    overrides: Overrides
    index: int  # X-Consul-Index
    reached: int  # the index that the whole KV has reached, where something is gone; else 0


async def read(
    client: Client, prefix: str, known: Overrides = NO_OVERRIDES, *, index: int = 0
) -> tuple[int, Overrides]:
    """Return X-Consul-Index and all overrides; `known` are those of before, which are not lost without a check.

    Raises ConsulRefused when the token may not read them, ConsulError when there is no complete answer.
    """
    found = await _read(client, prefix, known, index=index)
    return found.index, found.overrides


async def _read(client: Client, prefix: str, known: Overrides, *, index: int) -> _Read:
    folder, reached = folder_of(prefix), 0
    try:
        received, body = await client.keys(folder, index=index)
        overrides = decode_overrides(body, prefix)
        there = _keys(overrides, prefix)
        # Only of what is obeyed: Consul refuses, from 1.22 on, to be asked for some keys that others could write.
        gone = sorted(_keys(attrs.evolve(known, ignored=()), prefix) - there)
        if gone or not there:
            for key in (folder, *gone[:1]):
                reached = max(reached, await client.key_index(key))
    except ConsulRefused as error:
        raise _with_policy(error, folder, "read") from error
    return _Read(overrides=overrides, index=received, reached=reached)


async def write(client: Client, prefix: str, override: Override, *, modified: int) -> bool:
    """Write `override` where its key is still as it was at ModifyIndex `modified`, 0: not there; return whether.

    Raises ConsulRefused when the token may not write it.
    """
    key = key_of(prefix, override.virtual_server, override.selector)
    try:
        return await client.write_key(key, value_of(override), modified=modified)
    except ConsulRefused as error:
        raise _with_policy(error, folder_of(prefix), "write") from error


async def clear(client: Client, prefix: str, override: Override, *, modified: int) -> bool:
    """Delete `override` where its key is still as it was at ModifyIndex `modified`; return whether."""
    key = key_of(prefix, override.virtual_server, override.selector)
    try:
        return await client.delete_key(key, modified=modified)
    except ConsulRefused as error:
        raise _with_policy(error, folder_of(prefix), "write") from error


class OverrideWatch:
    """The overrides, renewed as soon as Consul has newer ones; without a prefix there are none, and none are asked for.

    `wake` is called on every news, `keep` (in a thread) with what Consul said. Run `run()` as a task.
    """

    def __init__(
        self,
        client: Client,
        prefix: str | None,
        wake: Callable[[], None],
        keep: Callable[[Overrides], None],
        *,
        hold: float = HOLD,
    ) -> None:
        self._client = client
        self._prefix = prefix
        self._wake = wake
        self._keep = keep
        self._overrides = NO_OVERRIDES
        self._contact = Contact()
        self._settled = False
        self._hold = hold  # seconds for which what is gone stays where the index went back
        self._index = 0  # of the last answer that was believed as a whole
        self._unkept = False  # what is kept on disk is of another address or prefix
        self._lost: float | None = None  # when it was first seen that the index had gone back
        self._changed = asyncio.Event()

    @property
    def overrides(self) -> Overrides:
        """Return the last known overrides, those that are over too."""
        return self._overrides if self._prefix is not None else NO_OVERRIDES

    @property
    def contact(self) -> Contact | None:
        """Return how the query stands; None where nothing is asked."""
        return self._contact if self._prefix is not None else None

    @property
    def settled(self) -> bool:
        """Tell whether there is nothing to wait for: something is known, or the token may not know."""
        return self._settled or self._prefix is None

    @property
    def tried(self) -> bool:
        """Tell whether there is nothing to wait for, or it was asked for in vain."""
        return self.settled or self._contact.failing_since is not None

    def recall(self, overrides: Overrides) -> None:
        """Have what was known before the start count until Consul answers."""
        if overrides.entries and self._prefix is not None:
            self._overrides, self._settled = overrides, True

    def use(self, client: Client, prefix: str | None) -> None:
        """Ask `client` for the overrides of `prefix` from now on; the last ones count until there are newer ones."""
        if (client, prefix) == (self._client, self._prefix):
            return
        if (client.address, prefix) != (self._client.address, self._prefix):
            self._index, self._unkept = 0, True  # it may be another Consul
        self._client, self._prefix = client, prefix
        self._contact = Contact()
        if prefix is None:
            self._overrides = NO_OVERRIDES
        self._changed.set()

    async def run(self) -> None:
        """Ask until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                task = group.create_task(self._follow(), name="overrides")
                await self._changed.wait()
                task.cancel()

    async def _follow(self) -> None:
        client, prefix = self._client, self._prefix
        if prefix is None:
            return
        index, seen, failures, known = 0, 0, 0, self._overrides
        sweep = time.monotonic() + until_sweep()
        while True:
            asked = time.monotonic()
            if asked >= sweep:
                index, sweep = 0, asked + until_sweep()
            try:
                found = await _read(client, prefix, known, index=index)
                known = self._believable(found)
                news = await self._found(known)
            except Exception as error:  # noqa: BLE001  # without it the daemon would end
                index, failures = 0, failures + 1
                self._failed(error)
                await asyncio.sleep(back_off(failures))
                continue
            failures = 0
            index, seen = next_index(index, found.index, seen), found.index or seen
            rest = (SHORTEST_POLL if news and index else IDLE_POLL) - (time.monotonic() - asked)
            await asyncio.sleep(max(0.0, rest))

    def _believable(self, read: _Read) -> Overrides:
        """Return what was found, with what is gone from it where that may come back."""
        found = read.overrides
        there = {(each.virtual_server, each.selector) for each in found.entries}
        gone = [each for each in self._overrides.entries if (each.virtual_server, each.selector) not in there]
        if gone and (self._lost is not None or max(read.index, read.reached) <= self._index):
            if self._lost is None:
                self._lost = time.monotonic()
                went = f"from {self._index} to {read.index}"
                why = f"Consul's index went back {went}: its data was lost or is being restored"
                log.warning("overrides_doubted", why=why, kept=f"what is gone, for {self._hold:g} s")
            if time.monotonic() - self._lost < self._hold:
                entries = sorted((*found.entries, *gone), key=lambda each: each.created)
                return attrs.evolve(found, entries=tuple(entries))
        self._index, self._lost = read.index, None
        return found

    async def _found(self, found: Overrides) -> bool:
        """Have `found` count; return whether it is news."""
        if self._contact.failing_since is not None:
            log.info("overrides_back", after=f"{time.time() - self._contact.failing_since:.1f}s")
        self._contact = Contact(last=time.time())
        news = found != self._overrides or not self._settled
        for ignored in set(found.ignored) - set(self._overrides.ignored):
            log.warning("override_ignored", key=ignored.key, why=ignored.why)
        self._overrides, self._settled = found, True
        if news:
            self._wake()
        if news or self._unkept:
            await asyncio.to_thread(self._keep, found)
            self._unkept = False
        return news

    def _failed(self, error: Exception) -> None:
        text = in_words(error, "overrides")
        if not self._contact.knows(text):
            kept = "the last known overrides" if self._overrides.entries else "no overrides, as before"
            log.warning("overrides_failed", error=text, kept=kept)
        first = self._contact.failing_since is None
        self._contact = self._contact.failed(text)
        if first and not self._settled:
            self._wake()  # who waits for them need not any longer
        if isinstance(error, ConsulRefused) and error.status == 403 and not self._settled:
            self._settled = True
            self._wake()


def _keys(overrides: Overrides, prefix: str) -> set[str]:
    found = {key_of(prefix, each.virtual_server, each.selector) for each in overrides.entries}
    return found | {each.key for each in overrides.ignored}


def _with_policy(error: ConsulRefused, folder: str, policy: str) -> ConsulRefused:
    """Return `error` with the line that the token's policy lacks."""
    if error.status != 403:
        return error
    return ConsulRefused(error.status, f'{error.text}; the token needs key_prefix "{folder}" {{ policy = "{policy}" }}')

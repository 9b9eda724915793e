"""One folder of Consul's KV, read once and watched by one blocking query: overrides, or fleet orders.

Consul lists only what the token may read, with status 200 or 404: a lost permission looks like keys that were deleted.
So where one is gone, or there is none, a single key is asked for, which a token without permission is refused
(403). Where Consul's index went back, its data was lost or is being restored, and what is gone stays for a while. It
goes back, too, when a folder above is deleted as a whole; the index of a key that is not there, which is that of the
whole KV, tells the two apart.
A failure is never emptiness: what was known last stays, until it is over by the director's own clock.
The other rules of blocking queries are those of `watch`.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

import attrs
import structlog

from lvsctl.consul.client import Client
from lvsctl.consul.contact import Contact
from lvsctl.consul.doubt import HOLD
from lvsctl.consul.folder import Folder
from lvsctl.consul.pace import back_off, next_index, until_sweep
from lvsctl.errors import ConsulRefused
from lvsctl.unexpected import in_words

V = TypeVar("V")

SHORTEST_POLL: Final = 0.02  # seconds; as in `watch`
IDLE_POLL: Final = 1.0

log = structlog.get_logger()


@attrs.frozen(kw_only=True)
class Found(Generic[V]):
    """What Consul says of a folder."""

    value: V
    index: int  # X-Consul-Index
    reached: int  # the index that the whole KV has reached, where something is gone; else 0


async def read_folder(folder: Folder[V], client: Client, prefix: str, known: V, *, index: int = 0) -> Found[V]:
    """Return what is there; `known` is what was before, and is not lost without a check.

    Raises ConsulRefused when the token may not read it, ConsulError when there is no complete answer.
    """
    path, reached = folder.path(prefix), 0
    try:
        received, body = await client.keys(path, index=index)
        value = folder.decode(body, prefix)
        there = folder.keys(value, prefix) | {each.key for each in folder.ignored(value)}
        # Only of what is obeyed: Consul refuses, from 1.22 on, to be asked for some keys that others could write.
        gone = sorted(folder.keys(known, prefix) - there)
        if gone or not there:
            for key in (path, *gone[:1]):
                reached = max(reached, await client.key_index(key))
    except ConsulRefused as error:
        raise with_policy(error, path, "read") from error
    return Found(value=value, index=received, reached=reached)


async def write_key(folder: Folder[V], client: Client, prefix: str, key: str, value: str, *, modified: int) -> bool:
    """Write a key where it is still as it was at ModifyIndex `modified`, 0: not there; return whether.

    Raises ConsulRefused when the token may not write it.
    """
    try:
        return await client.write_key(key, value, modified=modified)
    except ConsulRefused as error:
        raise with_policy(error, folder.path(prefix), "write") from error


async def delete_key(folder: Folder[V], client: Client, prefix: str, key: str, *, modified: int) -> bool:
    """Delete a key where it is still as it was at ModifyIndex `modified`; return whether."""
    try:
        return await client.delete_key(key, modified=modified)
    except ConsulRefused as error:
        raise with_policy(error, folder.path(prefix), "write") from error


def with_policy(error: ConsulRefused, path: str, policy: str) -> ConsulRefused:
    """Return `error` with the line that the token's policy lacks."""
    if error.status != 403:
        return error
    return ConsulRefused(error.status, f'{error.text}; the token needs key_prefix "{path}" {{ policy = "{policy}" }}')


class KeyWatch(Generic[V]):
    """What is in a folder, renewed as soon as Consul has newer; without a prefix it is nothing, and nobody asks.

    `wake` is called on every news, `keep` (in a thread) with what Consul said. Run `run()` as a task.
    """

    def __init__(
        self,
        folder: Folder[V],
        client: Client,
        prefix: str | None,
        wake: Callable[[], None],
        keep: Callable[[V], None],
        *,
        hold: float = HOLD,
    ) -> None:
        self._folder = folder
        self._client = client
        self._prefix = prefix
        self._wake = wake
        self._keep = keep
        self._value = folder.nothing
        self._contact = Contact()
        self._settled = False
        self._hold = hold  # seconds for which what is gone stays where the index went back
        self._index = 0  # of the last answer that was believed as a whole
        self._unkept = False  # what is kept on disk is of another address or prefix
        self._lost: float | None = None  # when it was first seen that the index had gone back
        self._changed = asyncio.Event()

    @property
    def value(self) -> V:
        """Return what was known last, what is over too."""
        return self._value if self._prefix is not None else self._folder.nothing

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

    def recall(self, value: V) -> None:
        """Have what was known before the start count until Consul answers.

        A server that has just started may answer before it has read its own log again: what is gone with an index from
        before the youngest key is no more believed than later.
        """
        if self._prefix is not None and self._folder.keys(value, self._prefix):
            self._value, self._settled = value, True
            self._index = self._folder.index(value)

    def use(self, client: Client, prefix: str | None) -> None:
        """Ask `client` for what is below `prefix` from now on; what was known last counts until there is newer."""
        if (client, prefix) == (self._client, self._prefix):
            return
        if (client.address, prefix) != (self._client.address, self._prefix):
            self._index, self._unkept = 0, True  # it may be another Consul
        self._client, self._prefix = client, prefix
        self._contact = Contact()
        if prefix is None:
            self._value = self._folder.nothing
        self._changed.set()

    async def run(self) -> None:
        """Ask until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                task = group.create_task(self._follow(), name=self._folder.words)
                await self._changed.wait()
                task.cancel()

    async def _follow(self) -> None:
        client, prefix = self._client, self._prefix
        if prefix is None:
            return
        index, seen, failures, known = 0, 0, 0, self._value
        sweep = time.monotonic() + until_sweep()
        while True:
            asked = time.monotonic()
            if asked >= sweep:
                index, sweep = 0, asked + until_sweep()
            try:
                found = await read_folder(self._folder, client, prefix, known, index=index)
                known = self._believable(found, prefix)
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

    def _believable(self, read: Found[V], prefix: str) -> V:
        """Return what was found, with what is gone from it where that may come back."""
        folder, found = self._folder, read.value
        gone = folder.keys(self._value, prefix) - folder.keys(found, prefix)
        if gone and (self._lost is not None or max(read.index, read.reached) <= self._index):
            if self._lost is None:
                self._lost = time.monotonic()
                went = f"from {self._index} to {read.index}"
                why = f"Consul's index went back {went}: its data was lost or is being restored"
                log.warning(folder.events.doubted, why=why, kept=f"what is gone, for {self._hold:g} s")
            if time.monotonic() - self._lost < self._hold:
                return folder.joined(found, self._value, prefix)
        self._index, self._lost = read.index, None
        return found

    async def _found(self, found: V) -> bool:
        """Have `found` count; return whether it is news."""
        if self._contact.failing_since is not None:
            log.info(self._folder.events.back, after=f"{time.time() - self._contact.failing_since:.1f}s")
        self._contact = Contact(last=time.time())
        news = found != self._value or not self._settled
        for ignored in set(self._folder.ignored(found)) - set(self._folder.ignored(self._value)):
            log.warning(self._folder.events.ignored, key=ignored.key, why=ignored.why)
        self._value, self._settled = found, True
        if news:
            self._wake()
        if news or self._unkept:
            await asyncio.to_thread(self._keep, found)
            self._unkept = False
        return news

    def _failed(self, error: Exception) -> None:
        folder = self._folder
        text = in_words(error, folder.words)
        if not self._contact.knows(text):
            there = self._prefix is not None and folder.keys(self._value, self._prefix)
            kept = f"the last known {folder.words}" if there else f"no {folder.words}, as before"
            log.warning(folder.events.failed, error=text, kept=kept)
        first = self._contact.failing_since is None
        self._contact = self._contact.failed(text)
        if first and not self._settled:
            self._wake()  # who waits for them need not any longer
        if isinstance(error, ConsulRefused) and error.status == 403 and not self._settled:
            self._settled = True
            self._wake()

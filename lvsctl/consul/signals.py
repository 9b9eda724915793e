"""News of any number of Consul services by three blocking queries, where one for each would take too many connections.

Each waits for a list of the catalogue to move and passes on what may have changed (`changes`). At the first answer,
after a failure and when an index went back nothing is known of the time before: everything may have changed, which is
passed on once in a round of as many (`turns`). While a list cannot be read no signal comes: then `turns`.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import attrs
import structlog

from lvsctl.consul.budget import Body
from lvsctl.consul.changes import EVERYTHING, Changes, Listed, Listing, changes, decode_listing
from lvsctl.consul.client import Client
from lvsctl.consul.contact import Contact
from lvsctl.consul.pace import LONGEST_LIMITED, back_off, next_index
from lvsctl.consul.turns import round_of
from lvsctl.errors import ConsulUnreadable
from lvsctl.unexpected import in_words

AT_MOST_EVERY: Final = 1.0  # seconds between two readings of one list that is long
SHORTEST_REST: Final = 0.1  # seconds
SHARE: Final = 0.2  # of the time may go into reading a list that moves all the time; a short one is read more often
BIG: Final = 1 << 18  # bytes from which on a list is decoded beside the loop

log = structlog.get_logger()


class Signals:
    """The three queries of one datacenter, empty for the agent's own; run `run()` as a task.

    `hear` is told what may have changed, and returns about how many Consul services it has asked.
    """

    def __init__(self, client: Client, datacenter: str, hear: Callable[[Changes], int]) -> None:
        self._client = client
        self._datacenter = datacenter
        self._hear = hear
        self._contacts = dict.fromkeys(Listing, Contact())
        self.failed = 0.0  # when a list was asked for in vain the last time; 0: never
        self._everything = asyncio.Event()
        self._heard_of: set[Listing] = set()  # lists that were answered for, or failed
        self._heard_all = asyncio.Event()
        self.failing = asyncio.Event()  # set while a list cannot be read, so that what has changed is not heard of

    @property
    def contact(self) -> Contact:
        """Return how the worst of the three stands."""
        lasts = [each.last for each in self._contacts.values()]
        known = [last for last in lasts if last is not None]
        failing = [each for each in self._contacts.values() if each.failing_since is not None]
        worst = min(failing, key=lambda each: each.failing_since or 0.0, default=Contact())
        return Contact(
            last=min(known) if len(known) == len(lasts) else None,
            failing_since=worst.failing_since,
            error=worst.error,
        )

    async def run(self) -> None:
        """Listen until cancelled."""
        async with asyncio.TaskGroup() as group:
            for listing in Listing:
                group.create_task(self._follow(listing), name=f"signals {listing.value}")
            group.create_task(self._pass_on_everything(), name="signals of everything")

    async def _follow(self, listing: Listing) -> None:
        index, seen, failures = 0, 0, 0
        listed: Listed | None = None
        while True:
            asked = time.monotonic()
            try:
                with self._client.share() as share:
                    received, body = await self._client.listing(
                        listing.value, self._datacenter, index=index, share=share
                    )
                    came, moved = time.monotonic(), received != index
                    if listed is None or moved:
                        listed = await self._read(listing, listed, body)
                    del body
            except Exception as error:  # noqa: BLE001  # one list never ends the others
                index, listed, failures = 0, None, failures + 1
                self._failed(listing, error)
                await asyncio.sleep(_pause(failures, error, time.monotonic() - asked))
                continue
            failures = 0
            self._contacts[listing] = Contact(last=time.time())
            if not any(each.failing_since for each in self._contacts.values()):
                self.failing.clear()
            self._note(listing)
            index, seen = next_index(index, received, seen), received or seen
            listed = listed if index else None
            now = time.monotonic()
            rest = min(AT_MOST_EVERY, max(SHORTEST_REST, (now - came) / SHARE)) if moved and index else AT_MOST_EVERY
            await asyncio.sleep(max(0.0, rest - (now - asked)))

    async def _read(self, listing: Listing, before: Listed | None, body: Body) -> Listed:
        """Return what `body` lists, and pass on what has changed since `before`."""
        if len(body) < BIG:
            now, found = _compared(listing, before, body)
        else:
            now, found = await asyncio.to_thread(_compared, listing, before, body)
        if found.everything:
            self._everything.set()
        if found.services or found.nodes:  # these at once
            self._hear(attrs.evolve(found, everything=False))
        return now

    async def _pass_on_everything(self) -> None:
        await self._heard_all.wait()  # what is read before that may miss a change that no list will show
        while True:
            await self._everything.wait()
            self._everything.clear()
            await asyncio.sleep(round_of(self._hear(EVERYTHING)))

    def _failed(self, listing: Listing, error: Exception) -> None:
        place, words = f"/v1/{listing.value}", in_words(error, f"signals {listing.value}")
        # What cannot be read is a matter of the list, anything else one of whoever was asked.
        text = f"{place}: {words}" if isinstance(error, ConsulUnreadable) else words
        before = self._contacts[listing]
        if not before.knows(text):
            log.warning("consul_failed", signal=place, error=words, kept="the last answers")
        self._contacts[listing] = before.failed(text)
        if not isinstance(error, ConsulUnreadable):  # else Consul is there
            self.failed = time.time()
        self.failing.set()
        self._note(listing)

    def _note(self, listing: Listing) -> None:
        self._heard_of.add(listing)
        if len(self._heard_of) == len(Listing):
            self._heard_all.set()


def _pause(failures: int, error: Exception, took: float) -> float:
    """Return seconds until the list is asked for again; one that is of no use, and cost `took`, not soon."""
    useless = min(LONGEST_LIMITED, took / SHARE) if isinstance(error, ConsulUnreadable) else 0.0
    return max(useless, back_off(failures, error))


def _compared(listing: Listing, before: Listed | None, body: Body) -> tuple[Listed, Changes]:
    now = decode_listing(listing, body)
    return now, EVERYTHING if before is None else changes(listing, before, now)

"""Keeping Consul's last believed answers on disk as they come, for a start without Consul (`snapshot`)."""

import asyncio
import contextlib
import time
from typing import Final

from lvsctl.snapshot import Snapshot
from lvsctl.sources import Sources
from lvsctl.unexpected import in_words

PAUSE: Final = 1.0  # seconds between snapshots at least
SHARE: Final = 100.0  # times as long as writing the last one took: a large one takes a processor's tenth of a second
RENEW: Final = 300.0  # seconds after which a snapshot without news is written again: its age is what it is trusted by


class Keeping:
    """Writes what `sources` heard to `snapshot`; run `run()` as a task."""

    def __init__(self, snapshot: Snapshot, sources: Sources) -> None:
        self._snapshot = snapshot
        self._sources = sources
        self._news = asyncio.Event()
        self._all = True  # the next snapshot is made of everything, not of news alone

    def hear(self) -> None:
        """Write soon: there are news."""
        self._news.set()

    def everything(self) -> None:
        """Make the next snapshot of all answers: they are another Consul's."""
        self._all = True

    async def recall(self) -> None:
        """Have what is on disk stand in for Consul's answers until it gives them."""
        answers = await asyncio.to_thread(self._snapshot.load, self._sources.address, self._sources.questions.queries)
        self._sources.heard.recall(answers)

    async def run(self) -> None:
        """Keep until cancelled."""
        renewed = time.monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, renewed + RENEW - time.monotonic())):
                    await self._news.wait()
            self._news.clear()
            began = time.monotonic()
            due = began >= renewed + RENEW
            try:
                await self.keep(renew=due)
            except Exception as error:  # noqa: BLE001  # the older file stays, and no more
                in_words(error, "snapshots")
            if due:
                renewed = began
            await asyncio.sleep(max(PAUSE, SHARE * (time.monotonic() - began)))

    async def keep(self, *, renew: bool) -> None:
        """Write what is news, with `renew` everything: that the same was said again, too."""
        address, heard = self._sources.address, self._sources.heard
        news = heard.take_believed()
        believed = heard.believed if renew or self._all else news
        self._all = True  # until it is known that the file has it
        kept = await asyncio.to_thread(
            self._snapshot.keep, address, self._sources.questions.queries, believed, renew=renew
        )
        self._all = not kept or address != self._sources.address

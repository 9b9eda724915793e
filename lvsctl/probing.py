"""Knocking at real servers, for a second opinion on what Consul would have go (`core.opinion`).

Only what the guard would have to hold is knocked at, and a few that serve, so that a director that reaches nobody knows
it. A knock is a TCP connection that is closed as soon as it is there; nothing is sent. It goes to the real server's own
address, whatever the forwarding.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

import attrs
import structlog

from lvsctl.core.decision import VirtualServerDecision
from lvsctl.core.guard import serves
from lvsctl.core.opinion import NO_OPINION, Opinion, Opinions, opinion_of
from lvsctl.reconcile import Cycle
from netlink.types import RealServerKey, VirtualServerKey

EVERY: Final = 1.0  # seconds from one round to the next
PATIENCE: Final = 1.0  # seconds for a connection to be made
MOST: Final = 128  # knocks at a time
OTHERS: Final = 3  # real servers that serve and are knocked at, too, of each virtual server

log = structlog.get_logger()

Knock = Callable[[RealServerKey], Awaitable[bool]]


async def knock(key: RealServerKey) -> bool:
    """Tell whether real server `key` takes a connection within `PATIENCE`."""
    try:
        async with asyncio.timeout(PATIENCE):
            _, writer = await asyncio.open_connection(str(key.address), key.port)
    except OSError:  # TimeoutError is one
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


@attrs.define(eq=False)
class _Asked:
    """Who is knocked at for one virtual server, and how many knocks in a row have failed at each so far."""

    name: str
    suspects: frozenset[RealServerKey]
    failures: dict[RealServerKey, int | None]  # None: not knocked at yet
    opinion: Opinion = NO_OPINION
    told: Opinion = NO_OPINION  # of the suspects, in the log


class Prober:
    """Knocks as long as there is anybody of whom an opinion is wanted; `wake` is called on every other opinion."""

    def __init__(self, wake: Callable[[], None], knock: Knock = knock) -> None:
        self._wake = wake
        self._knock = knock
        self._asked: dict[VirtualServerKey, _Asked] = {}
        self._some = asyncio.Event()
        self._room = asyncio.Semaphore(MOST)
        self._news: set[VirtualServerKey] = set()

    @property
    def opinions(self) -> Opinions:
        """Return what was found until now."""
        return {key: each.opinion for key, each in self._asked.items()}

    def take_news(self) -> frozenset[VirtualServerKey]:
        """Return the virtual servers of which the opinion has become another one since this was asked last."""
        news, self._news = frozenset(self._news), set()
        return news

    def concern(self, cycle: Cycle) -> None:
        """Knock from now on at those of whom `cycle` wants an opinion, and for those it was about at nobody else."""
        decided = cycle.look.decision.virtual_servers
        only = self._asked.keys() | decided.keys() if cycle.only is None else cycle.only
        for key in only:
            each = decided.get(key)
            if each is None or not each.hold.suspects:
                self._asked.pop(key, None)
            else:
                self._ask(key, each)
        if self._asked:
            self._some.set()

    def _ask(self, key: VirtualServerKey, each: VirtualServerDecision) -> None:
        known = self._asked.get(key)
        before: Mapping[RealServerKey, int | None] = known.failures if known else {}
        wanted = each.wanted.entry.real_servers.items() if each.wanted else ()
        others = sorted(server for server, found in wanted if serves(found) and server not in each.hold.suspects)
        asked = [*each.hold.suspects, *others[:OTHERS]]
        self._asked[key] = _Asked(
            name=each.name,
            suspects=each.hold.suspects,
            failures={server: before.get(server) for server in asked},
            opinion=known.opinion if known else NO_OPINION,
            told=known.told if known else NO_OPINION,
        )

    async def run(self) -> None:
        """Knock in rounds, until it is cancelled."""
        while True:
            await self._some.wait()
            rest = asyncio.create_task(asyncio.sleep(EVERY))
            try:
                await asyncio.gather(*(self._round(key, each.failures.keys()) for key, each in self._asked.items()))
                await rest
            finally:
                rest.cancel()
            if not self._asked:
                self._some.clear()

    async def _round(self, key: VirtualServerKey, servers: Iterable[RealServerKey]) -> None:
        """Knock once at every one of `servers`, for virtual server `key`."""
        servers = tuple(servers)
        found = await asyncio.gather(*map(self._one, servers))
        asked = self._asked.get(key)
        if asked is None:
            return
        for server, answers in zip(servers, found, strict=True):
            if server in asked.failures:
                asked.failures[server] = 0 if answers else (asked.failures[server] or 0) + 1
        known = ((server, failed) for server, failed in asked.failures.items() if failed is not None)
        opinion = opinion_of(known)
        self._tell(asked, opinion)
        if opinion != asked.opinion:
            asked.opinion = opinion
            self._news.add(key)
            self._wake()

    async def _one(self, server: RealServerKey) -> bool:
        async with self._room:
            return await self._knock(server)

    @staticmethod
    def _tell(asked: _Asked, opinion: Opinion) -> None:
        """Log what is new of the suspects."""
        found = Opinion(answering=opinion.answering & asked.suspects, silent=opinion.silent & asked.suspects)
        if found == asked.told:
            return
        asked.told = found
        log.warning(
            "probed",
            name=asked.name,
            answering=[str(server) for server in sorted(found.answering)],
            silent=[str(server) for server in sorted(found.silent)],
            **{} if opinion.counts else {"why": "nobody answers, not even what serves, so this is no opinion"},
        )

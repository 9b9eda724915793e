"""Knocking at real servers, for a second opinion on what Consul would have go (`core.opinion`).

Only what the guard would have to hold is knocked at, and a few that serve, whose answers tell that the director
reaches anybody. A knock is a TCP connection that is closed as soon as it is there; nothing is sent. It goes to the real
server's own address, whatever the forwarding. Each virtual server has its own rounds: none waits for a large one.
"""

import asyncio
import contextlib
import errno
from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import structlog

from lvsctl.core.decision import VirtualServerDecision
from lvsctl.core.event import Event
from lvsctl.core.guard import serves
from lvsctl.core.opinion import ALONE, ENOUGH, NO_OPINION, Knocks, Opinion, Opinions, opinion_of
from lvsctl.journal import now
from lvsctl.reconcile import Cycle
from netlink.types import RealServerKey, VirtualServerKey

EVERY: Final = 1.0  # seconds from one round to the next
PATIENCE: Final = 1.5  # seconds for a connection to be made: a SYN that is lost is sent again after one
MOST: Final = 256  # knocks at a time
MOST_OF_ONE: Final = 32  # for one virtual server
OTHERS: Final = 3  # real servers that serve and are knocked at, too, of each virtual server
NO_DOOR: Final = frozenset({errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH, errno.ETIMEDOUT})

log = structlog.get_logger()

Knock = Callable[[RealServerKey], Awaitable[bool | None]]


async def knock(key: RealServerKey) -> bool | None:
    """Tell whether real server `key` takes a connection within `PATIENCE`; None where it could not be tried."""
    try:
        async with asyncio.timeout(PATIENCE):
            _, writer = await asyncio.open_connection(str(key.address), key.port)
    except TimeoutError:
        return False
    except OSError as error:
        return False if error.errno in NO_DOOR else None  # else it is about us: no file left, no route
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


@attrs.define(eq=False)
class _Asked:
    """Who is knocked at for one virtual server, and what came of it."""

    name: str
    suspects: frozenset[RealServerKey]
    others: frozenset[RealServerKey]  # that serve
    knocks: dict[RealServerKey, Knocks]
    opinion: Opinion = NO_OPINION
    told: set[tuple[str, RealServerKey]] = attrs.field(factory=set)  # in the log

    def judge(self) -> bool:
        """Have an opinion of the suspects; return whether it is another one."""
        suspects = {key: each for key, each in self.knocks.items() if key in self.suspects}
        before, self.opinion = self.opinion, opinion_of(suspects, enough=ENOUGH if self.others else ALONE)
        return self.opinion != before


class Prober:
    """Knocks as long as there is anybody of whom an opinion is wanted; `wake` is called on every other opinion."""

    def __init__(
        self, wake: Callable[[], None], knock: Knock = knock, tell: Callable[[Event], None] = lambda _: None
    ) -> None:
        self._wake = wake
        self._knock = knock
        self._told = tell  # what the log is told, the journal
        self._asked: dict[VirtualServerKey, _Asked] = {}
        self._rounds: dict[VirtualServerKey, asyncio.Task[None]] = {}
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
        for key in self._asked.keys() | decided.keys() if cycle.only is None else cycle.only:
            each = decided.get(key)
            if each is None or not each.hold.suspects:
                self._asked.pop(key, None)
                if key in self._rounds:
                    self._rounds.pop(key).cancel()
            else:
                self._ask(key, each)

    def _ask(self, key: VirtualServerKey, each: VirtualServerDecision) -> None:
        known = self._asked.get(key)
        wanted = each.wanted.entry.real_servers.items() if each.wanted else ()
        others = sorted(server for server, found in wanted if serves(found) and server not in each.hold.suspects)
        if not others and each.wanted and each.wanted.config.fallback:
            others = [each.wanted.config.fallback]
        apart = len(others) // OTHERS or 1  # neighbours may be in one rack
        asked = _Asked(
            name=each.name,
            suspects=each.hold.suspects,
            others=frozenset(others[::apart][:OTHERS]),
            knocks={
                server: known.knocks[server]
                for server in each.hold.suspects
                if known and server in known.suspects and server in known.knocks
            },
            told=known.told if known else set(),
        )
        asked.judge()
        self._asked[key] = asked
        if key not in self._rounds:
            self._rounds[key] = asyncio.create_task(self._keep_knocking(key), name=f"probe {each.name}")

    async def run(self) -> None:
        """Return when it is cancelled; nobody is knocked at any more then."""
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            rounds, self._rounds = self._rounds, {}
            for each in rounds.values():
                each.cancel()
            await asyncio.gather(*rounds.values(), return_exceptions=True)

    async def _keep_knocking(self, key: VirtualServerKey) -> None:
        room = asyncio.Semaphore(MOST_OF_ONE)
        while True:
            ends = asyncio.get_running_loop().time() + EVERY
            await self._round(key, room)
            await asyncio.sleep(max(0.0, ends - asyncio.get_running_loop().time()))

    async def _round(self, key: VirtualServerKey, room: asyncio.Semaphore) -> None:
        """Knock once at all for virtual server `key`."""
        asked = self._asked[key]
        servers = (*asked.suspects, *asked.others)
        found = dict(zip(servers, await asyncio.gather(*(self._one(each, room) for each in servers)), strict=True))
        asked = self._asked[key]  # it may be another one meanwhile
        reached = any(found.get(each) for each in asked.others or asked.suspects)
        for server in asked.suspects:
            answers = found.get(server)
            if answers is not None:
                asked.knocks[server] = asked.knocks.get(server, Knocks()).after(answers, counts=reached)
        if asked.judge():
            self._tell(key, asked)
            self._news.add(key)
            self._wake()

    async def _one(self, server: RealServerKey, room: asyncio.Semaphore) -> bool | None:
        async with room, self._room:
            try:
                return await self._knock(server)
            except Exception as error:  # noqa: BLE001  # whatever it is, it says nothing of the real server
                log.debug("probe_failed", real_server=str(server), error=repr(error))
                return None

    def _tell(self, key: VirtualServerKey, asked: _Asked) -> None:
        """Log what is known of suspects for the first time."""
        found = {"alive": asked.opinion.alive, "dead": asked.opinion.dead, "unknowable": asked.opinion.unknowable}
        new = {
            word: sorted(server for server in servers if (word, server) not in asked.told)
            for word, servers in found.items()
        }
        if not any(new.values()):
            return
        asked.told |= {(word, server) for word, servers in new.items() for server in servers}
        words = {word: list(map(str, servers)) for word, servers in new.items() if servers}
        log.warning("probed", name=asked.name, **words)
        what = "; ".join(f"{word} {', '.join(servers)}" for word, servers in words.items())
        self._told(Event(time=now(), event="probed", name=asked.name, virtual_server=str(key), what=what))

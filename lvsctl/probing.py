"""Knocking at real servers, for a second opinion on what Consul would have go (`core.opinion`).

Only what the guard would have to hold is knocked at; and when one of those does not open, a few that serve, whose
answers tell that the director reaches anybody. A knock is a TCP connection that is closed as soon as it is there;
nothing is sent. It goes to the real server's own address, whatever the forwarding. Each virtual server has its own
rounds: none waits for a large one, nor does a round wait for who is silent.

A program that stops refuses its clients from then on, and a deployment stops it some seconds after it has told Consul.
So the rounds are quick at first, and one refusal is followed by the next knocks at once.
"""

import asyncio
import errno
import heapq
import itertools
import socket
from collections.abc import Awaitable, Callable, Collection
from typing import Final

import attrs
import structlog

from lvsctl.config import Probe
from lvsctl.core.decision import VirtualServerDecision
from lvsctl.core.event import Event
from lvsctl.core.guard import serves
from lvsctl.core.opinion import (
    NO_OPINION,
    REFUSALS,
    Found,
    Knocks,
    Opinion,
    Opinions,
    means_something,
    opinion_of,
)
from lvsctl.journal import now
from lvsctl.reconcile import Cycle
from netlink.types import RealServerKey, VirtualServerKey

QUICK: Final = 0.1  # seconds from one round to the next, for as long as it is
FRESH: Final = 60.0  # seconds since somebody is knocked at; deployments that wait longer are few
EVERY: Final = 1.0  # seconds from one round to the next after that
CONFIRM: Final = 0.03  # seconds from a refusal to the next knock
PATIENCE: Final = 1.5  # seconds for a connection to be made: a SYN that is lost is sent again after one
PATIENCE_WITH_OTHERS: Final = 0.5  # the same of those that serve, for which a round waits
MOST: Final = 256  # knocks at a time
MOST_OF_ONE: Final = 32  # for one virtual server; where more are held, each round is about the next so many
MOST_OTHERS: Final = 64  # at those that serve
MOST_A_SECOND: Final = 250  # knocks, for all virtual servers: rounds are slower where it would be more
JUDGED: Final = (
    1000  # real servers a second, of one virtual server: what is decided of thousands is not decided again soon
)
OTHERS: Final = 3  # real servers that serve and are knocked at, too, of each virtual server
NO_DOOR: Final = frozenset({errno.ECONNRESET, errno.EHOSTUNREACH, errno.ETIMEDOUT})

log = structlog.get_logger()

Knock = Callable[[RealServerKey], Awaitable[Found | None]]


async def knock(key: RealServerKey) -> Found | None:
    """Return whether real server `key` takes a connection within `PATIENCE`; None where it could not be tried."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + PATIENCE
    family = socket.AF_INET if key.address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(0)
            async with asyncio.timeout(PATIENCE):
                await loop.sock_connect(connection, (str(key.address), key.port))
    except ConnectionRefusedError:
        return Found.REFUSED
    except TimeoutError:
        return Found.SILENT
    except OSError as error:
        if error.errno not in NO_DOOR:
            return None  # it is about us: no file left, no route
        await asyncio.sleep(max(0.0, ends - loop.time()))  # a route may come back as soon as a packet does
        return Found.SILENT
    return Found.OPEN


@attrs.define(eq=False)
class _Asked:
    """Who is knocked at for one virtual server, and what came of it."""

    name: str
    suspects: frozenset[RealServerKey]
    others: frozenset[RealServerKey]  # instances that serve; where there is none, the fallback server
    serving: bool  # whether they are instances
    careful: bool  # about a suspect that never answered: where nobody has asked for more than the default
    fresh_until: float  # by the clock of the event loop
    knocks: dict[RealServerKey, Knocks]  # at suspects
    pending: dict[RealServerKey, asyncio.Task[Found | None]]
    turns: dict[RealServerKey, int]  # the last one of each
    judged: float = 0.0  # when, by the clock of the event loop
    opinion: Opinion = NO_OPINION
    told: set[tuple[str, RealServerKey]] = attrs.field(factory=set)  # in the log

    @property
    def refusing(self) -> frozenset[RealServerKey]:
        """Return the suspects of whom it is nearly known that nobody is there."""
        return frozenset(key for key, each in self.knocks.items() if 0 < each.refused < REFUSALS)

    @property
    def answering(self) -> frozenset[RealServerKey]:
        """Return the suspects that opened when they were knocked at last."""
        return frozenset(key for key, each in self.knocks.items() if each.answered and not each.failed)

    def due(self) -> Collection[RealServerKey]:
        """Return at whom to knock next: at those who have just refused, else at those who were the longest ago."""
        if refusing := self.refusing:
            return refusing - self.pending.keys()
        waiting = self.suspects - self.pending.keys()
        room = max(0, MOST_OF_ONE - len(self.pending))
        return heapq.nsmallest(room, waiting, key=lambda server: (self.turns.get(server, 0), server))

    def take(self, found: Found | None, server: RealServerKey, others: Collection[Found | None] = ()) -> None:
        """Note what came of a knock at `server`, and of those at `others` beside it."""
        knocks = self.knocks.get(server, Knocks())
        if found is None:
            self.knocks[server] = attrs.evolve(knocks, refused=0)
            return
        counts = means_something(others, answered=knocks.answered, careful=self.careful, serving=self.serving)
        self.knocks[server] = knocks.after(found, counts=counts)

    def judge(self) -> bool:
        """Have an opinion of the suspects; return whether there is news of any."""
        before, after = self.opinion, opinion_of(self.knocks, alone=not self.others)
        self.opinion = after
        return bool(after.alive - before.alive or after.dead - before.dead or after.unknowable - before.unknowable)

    def leave(self, servers: Collection[RealServerKey]) -> None:
        """Wait no longer for what comes of knocks at `servers`."""
        for server in servers:
            self.pending.pop(server).cancel()


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
        self._room_for_others = asyncio.Semaphore(MOST_OTHERS)
        self._turns = itertools.count(1)
        self._at_a_time = 0  # knocks in a round of each
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
                self._forget(key)
            else:
                self._ask(key, each)
        self._at_a_time = sum(min(MOST_OF_ONE, len(asked.suspects)) for asked in self._asked.values())

    def _forget(self, key: VirtualServerKey) -> None:
        if key in self._asked:
            asked = self._asked.pop(key)
            asked.leave(tuple(asked.pending))
        if key in self._rounds:
            self._rounds.pop(key).cancel()

    def _ask(self, key: VirtualServerKey, each: VirtualServerDecision) -> None:
        known = self._asked.get(key)
        wanted = each.wanted.entry.real_servers.items() if each.wanted else ()
        others = sorted(server for server, found in wanted if serves(found) and server not in each.hold.suspects)
        serving = bool(others)
        if not others and each.wanted and each.wanted.config.fallback:
            others = [each.wanted.config.fallback]
        apart = len(others) // OTHERS or 1  # neighbours may be in one rack
        if known:
            known.leave(known.pending.keys() - each.hold.suspects)
        fresh_until = known.fresh_until if known else 0.0
        if known is None or each.hold.suspects - known.suspects:
            fresh_until = asyncio.get_running_loop().time() + FRESH
            if key in self._rounds:
                self._rounds.pop(key).cancel()  # the next round is at once
        asked = _Asked(
            name=each.name,
            suspects=each.hold.suspects,
            others=frozenset(others[::apart][:OTHERS]),
            serving=serving,
            careful=each.wanted is None or each.wanted.config.probe is not Probe.ALL,
            fresh_until=fresh_until,
            pending=known.pending if known else {},
            turns={server: known.turns.get(server, 0) for server in each.hold.suspects} if known else {},
            judged=known.judged if known else 0.0,
            opinion=known.opinion if known else NO_OPINION,
            knocks={
                server: known.knocks[server]
                for server in each.hold.suspects
                if known and server in known.suspects and server in known.knocks
            },
            told=known.told if known else set(),
        )
        self._asked[key] = asked
        if asked.judge():
            self._publish(key, asked)
        if key not in self._rounds:
            self._rounds[key] = asyncio.create_task(self._keep_knocking(key), name=f"probe {each.name}")

    async def run(self) -> None:
        """Return when it is cancelled; nobody is knocked at any more then."""
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ending = [
                *self._rounds.values(),
                *(task for each in self._asked.values() for task in each.pending.values()),
            ]
            for key in tuple(self._asked):
                self._forget(key)
            await asyncio.gather(*ending, return_exceptions=True)

    async def _keep_knocking(self, key: VirtualServerKey) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began, asked = loop.time(), self._asked[key]
            started = {
                server: asyncio.create_task(self._in_turn(server), name=f"knock at {server}") for server in asked.due()
            }
            asked.pending |= started
            asked.turns |= {server: next(self._turns) for server in started}
            await asyncio.wait((started or asked.pending).values(), timeout=QUICK)
            await self._hear(key)
            while (left := began + self._until_next(key, began) - loop.time()) > 0:
                if pending := self._asked[key].pending:
                    await asyncio.wait(pending.values(), timeout=left, return_when=asyncio.FIRST_COMPLETED)
                    await self._hear(key)
                else:
                    await asyncio.sleep(left)

    def _until_next(self, key: VirtualServerKey, began: float) -> float:
        """Return the seconds from the round that `began` to the next one."""
        asked = self._asked[key]
        if asked.refusing:
            return CONFIRM
        every = (QUICK if began < asked.fresh_until else EVERY) / -(-len(asked.suspects) // MOST_OF_ONE)
        return max(every, self._at_a_time / MOST_A_SECOND)

    async def _hear(self, key: VirtualServerKey) -> None:
        """Take what came of knocks meanwhile for virtual server `key`; who is silent is heard of another time."""
        asked = self._asked[key]
        found = {server: task.result() for server, task in asked.pending.items() if task.done()}
        asked.leave(found.keys())
        failed = {server: each for server, each in found.items() if each in {Found.REFUSED, Found.SILENT}}
        for server in found.keys() - failed.keys():
            asked.take(found[server], server)
        if failed:
            others = await self._at_others(asked)
            asked = self._asked[key]  # it may be another one meanwhile
            for server in failed.keys() & asked.suspects:
                asked.take(failed[server], server, others)
        time = asyncio.get_running_loop().time()
        if time >= asked.judged + len(asked.suspects) / JUDGED:
            asked.judged = time
            if asked.judge():
                self._publish(key, asked)

    def _publish(self, key: VirtualServerKey, asked: _Asked) -> None:
        self._tell(key, asked)
        self._news.add(key)
        self._wake()

    async def _at_others(self, asked: _Asked) -> list[Found | None]:
        """Return what comes of knocks at those that serve, or, where nobody does, at suspects that just opened."""
        others = asked.others or asked.answering
        return await asyncio.gather(*(self._briefly(each) for each in sorted(others)[:OTHERS]))

    async def _briefly(self, server: RealServerKey) -> Found | None:
        try:
            async with asyncio.timeout(PATIENCE_WITH_OTHERS), self._room_for_others:
                return await self._one(server)
        except TimeoutError:
            return Found.SILENT

    async def _in_turn(self, server: RealServerKey) -> Found | None:
        async with self._room:
            return await self._one(server)

    async def _one(self, server: RealServerKey) -> Found | None:
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

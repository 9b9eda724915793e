"""Blocking queries: for every query the last complete answer, renewed as soon as Consul has a newer one.

The rules of a blocking query, in the order they are applied to an answer (Consul HTTP API, Blocking Queries):
1. not a complete 200: keep the last good answer, ask again after a back-off with full jitter, and without blocking:
   whoever answers next may be another server, or the same one restarted with a lower index, and would hold a request
   with our index back although it has news; it also says at once that Consul is back;
2. no usable index: ask the next time without blocking, and not at once;
3. the index went back (a restored or rebuilt Consul): start over from 0;
4. the same content: no news, nobody is woken; and when Consul answered at once, do not ask again at once;
5. so few instances that it may be a lie: ask once more, of a leader that makes sure it still is one (`doubt`).
A failure is never emptiness: a query without a good answer is absent from `answers`.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import attrs
import structlog

from lvsctl.consul.client import Client
from lvsctl.consul.doubt import Belief, Doubt, believe, recalled
from lvsctl.core.instance import Answer, Answers, Query
from lvsctl.errors import ConsulError, ConsulRefused

FIRST_BACK_OFF: Final = 0.25  # seconds
LONGEST_BACK_OFF: Final = 2.5  # seconds; with 2 s to the next SYN of a lost connection, work resumes within 5 s
SHORTEST_POLL: Final = 0.02  # seconds; a changed answer this quick is Consul catching up
IDLE_POLL: Final = 1.0  # seconds between answers without news that came at once

log = structlog.get_logger()


@attrs.frozen(kw_only=True)
class Contact:
    """How one query stands with Consul."""

    last: float | None = None  # Unix seconds of the last complete answer of this Consul
    failing_since: float | None = None
    error: str = ""


class Watches:
    """One watcher for each query, and what they last heard.

    `wake` is called on every news. Run `run()` as a task; `watch()` sets what is watched, at any time.
    """

    def __init__(self, client: Client, wake: Callable[[], None]) -> None:
        self._client = client
        self._wake = wake
        self._beliefs: dict[Query, Belief] = {}
        self._contacts: dict[Query, Contact] = {}
        self._tasks: dict[Query, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._wanted: frozenset[Query] = frozenset()
        self._retired: list[Client] = []

    @property
    def answers(self) -> Answers:
        """Return the last complete answers, each with why it is in doubt; a snapshot's where there is none yet."""
        return {query: belief.answer for query, belief in self._beliefs.items()}

    @property
    def believed(self) -> Answers:
        """Return what this Consul said last and is not in doubt, each with when it said so: worth a snapshot."""
        return {
            query: attrs.evolve(belief.answer, snapshot=self._contacts[query].last)
            for query, belief in self._beliefs.items()
            if belief.doubt is None and self._contacts.get(query, Contact()).last is not None
        }

    @property
    def contacts(self) -> Mapping[Query, Contact]:
        """Return how each query stands."""
        return dict(self._contacts)

    @property
    def complete(self) -> bool:
        """Tell whether every query was answered at least once."""
        return all(self._is_answered(query) for query in self._wanted)

    @property
    def tried(self) -> bool:
        """Tell whether every query was answered or has failed at least once."""
        unanswered = {query for query in self._wanted if not self._is_answered(query)}
        return all(self._contacts.get(query, Contact()).failing_since is not None for query in unanswered)

    @property
    def recalls(self) -> bool:
        """Tell whether a snapshot stands in for any answer."""
        return any(belief.answer.snapshot is not None for belief in self._beliefs.values())

    def _is_answered(self, query: Query) -> bool:
        belief = self._beliefs.get(query)
        return belief is not None and belief.answer.snapshot is None

    def recall(self, snapshot: Answers) -> None:
        """Have the answers of `snapshot` stand in for Consul's own until it gives them."""
        self._beliefs |= {query: recalled(answer) for query, answer in snapshot.items() if query not in self._beliefs}

    def watch(self, queries: Iterable[Query]) -> None:
        """Watch exactly `queries`; the answers of those that stay are kept."""
        self._wanted = frozenset(queries)
        self._changed.set()

    def use(self, client: Client, replaced: Client) -> None:
        """Ask `client` from now on and close `replaced`; the last answers stay until there are newer ones.

        It may be another Consul, so an index of the old one says nothing about those of the new one.
        """
        self._client = client
        for query, belief in self._beliefs.items():
            self._beliefs[query] = attrs.evolve(belief, answer=attrs.evolve(belief.answer, index=0))
        self._contacts = {query: attrs.evolve(contact, last=None) for query, contact in self._contacts.items()}
        self._retired.append(replaced)
        self._changed.set()

    async def run(self) -> None:
        """Keep one task a query until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                await self._retire()
                for query in self._tasks.keys() - self._wanted:
                    self._tasks.pop(query).cancel()
                    self._beliefs.pop(query, None)
                    self._contacts.pop(query, None)
                for query in sorted(self._wanted - self._tasks.keys()):
                    self._contacts.setdefault(query, Contact())
                    self._tasks[query] = group.create_task(self._watch(query), name=f"watch {query.service}")
                await self._changed.wait()

    async def _retire(self) -> None:
        """Stop every watcher of a client that was replaced; they start again with the new one."""
        if self._retired:
            for task in self._tasks.values():
                task.cancel()
            self._tasks.clear()
        while self._retired:
            await self._retired.pop().close()

    async def _watch(self, query: Query) -> None:
        index, failures, refused = 0, 0, False
        while True:
            asked = time.monotonic()
            try:
                answer = await self._client.instances(query, index=index)
                belief = believe(self._beliefs.get(query), answer, time.time(), refused=refused)
                if belief.doubt is Doubt.UNCONFIRMED:
                    belief = await self._confirmed(query, belief)
            except ConsulError as error:
                index, failures = 0, failures + 1
                refused = refused or (isinstance(error, ConsulRefused) and error.status == 403)
                self._failed(query, str(error))
                await asyncio.sleep(back_off(failures))
                continue
            failures, refused = 0, False
            news = self._believed(query, belief)
            index = next_index(index, belief.answer.index)
            rest = (SHORTEST_POLL if news and index else IDLE_POLL) - (time.monotonic() - asked)
            await asyncio.sleep(max(0.0, rest))

    async def _confirmed(self, query: Query, belief: Belief) -> Belief:
        """Return what to believe after a second answer; `belief` counts meanwhile where Consul does not give one."""
        try:
            answer = await self._client.instances(query, consistent=True)
        except ConsulError:
            self._believed(query, belief)
            raise
        return believe(belief, answer, time.time(), consistent=True)

    def _believed(self, query: Query, belief: Belief) -> bool:
        """Keep `belief`; return whether it says anything new."""
        before = self._beliefs.get(query)
        failing_since = self._contacts[query].failing_since
        if failing_since is not None:
            log.info("consul_back", consul_service=query.service, after=f"{time.time() - failing_since:.1f}s")
        self._contacts[query] = Contact(last=time.time())
        answer = belief.answer
        news = before is None or _content(before.answer) != _content(answer)
        if before is not None and not news:  # the same object stays: what was made of it is known to hold
            answer = before.answer
        self._beliefs[query] = attrs.evolve(belief, answer=answer)
        _log_doubt(query, before, belief)
        if news:
            log.debug("consul_answered", consul_service=query.service, instances=len(answer.instances))
            self._wake()
        return news

    def _failed(self, query: Query, error: str) -> None:
        contact = self._contacts[query]
        if contact.failing_since is None or contact.error != error:
            log.warning(
                "consul_failed",
                consul_service=query.service,
                error=error,
                kept=_kept(self._beliefs.get(query)),
            )
        self._contacts[query] = attrs.evolve(contact, failing_since=contact.failing_since or time.time(), error=error)
        if contact.failing_since is None and self.recalls and not self._is_answered(query):
            self._wake()  # who waits for the first answers need not wait for this one


def _content(answer: Answer) -> tuple[object, ...]:
    """Return what of an answer is news when it changes."""
    return answer.instances, answer.malformed, answer.doubt, answer.snapshot


def _kept(belief: Belief | None) -> str:
    if belief is None:
        return "nothing, it never answered"
    return "the last answer" if belief.answer.snapshot is None else "the snapshot's answer, for what is empty"


def _log_doubt(query: Query, before: Belief | None, belief: Belief) -> None:
    doubted = before.answer.doubt if before else ""
    if belief.answer.doubt and belief.answer.doubt != doubted:
        log.warning(
            "consul_doubted",
            consul_service=query.service,
            why=belief.answer.doubt,
            kept="what serves and is not listed",
        )
    elif before is not None and doubted and not belief.answer.doubt:
        log.info("consul_believed", consul_service=query.service, after=f"{time.time() - before.since:.1f}s")


def next_index(sent: int, received: int) -> int:
    """Return the index for the next request: 0, which does not block, when it went back or was unusable."""
    return received if received >= max(sent, 1) else 0


def back_off(failures: int) -> float:
    """Return seconds to wait after so many failures in a row: full jitter under a doubling bound."""
    bound = min(LONGEST_BACK_OFF, FIRST_BACK_OFF * 2 ** min(failures, 10))
    return random.uniform(FIRST_BACK_OFF / 2, bound)  # noqa: S311  # jitter, no secret


async def ask_once(client: Client, queries: Iterable[Query]) -> Answers:
    """Return a fresh answer to every query; raises the first ConsulError when one has none."""
    queries = sorted(queries)
    tasks = [asyncio.ensure_future(_ask(client, query)) for query in queries]
    try:
        return dict(zip(queries, await asyncio.gather(*tasks), strict=True))
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConsulError):
            await asyncio.gather(*tasks, return_exceptions=True)


async def _ask(client: Client, query: Query) -> Answer:
    try:
        return believe(None, await client.instances(query), time.time()).answer
    except ConsulError as error:
        place = f" in datacenter {query.datacenter!r}" if query.datacenter else ""
        raise ConsulError(f"Consul service {query.service!r}{place}: {error}") from error

"""Blocking queries: for every query the last complete answer, renewed as soon as Consul has a newer one.

The rules of a blocking query, in the order they are applied to an answer (Consul HTTP API, Blocking Queries):
1. not a complete 200: keep the last good answer, ask again after a back-off with full jitter, and without blocking:
   whoever answers next may be another server, or the same one restarted with a lower index, and would hold a request
   with our index back although it has news; it also says at once that Consul is back;
2. no usable index: ask the next time without blocking, and not at once;
3. the index went back (a restored or rebuilt Consul): start over from 0;
4. the same content: no news, nobody is woken; and when Consul answered at once, do not ask again at once.
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
from lvsctl.core.instance import Answer, Answers, Query
from lvsctl.errors import ConsulError

FIRST_BACK_OFF: Final = 0.25  # seconds
LONGEST_BACK_OFF: Final = 2.5  # seconds; with 2 s to the next SYN of a lost connection, work resumes within 5 s
SHORTEST_POLL: Final = 0.02  # seconds; a changed answer this quick is Consul catching up
IDLE_POLL: Final = 1.0  # seconds between answers without news that came at once

log = structlog.get_logger()


@attrs.frozen(kw_only=True)
class Contact:
    """How one query stands with Consul."""

    last: float | None = None  # Unix seconds of the last complete answer
    failing_since: float | None = None
    error: str = ""


class Watches:
    """One watcher for each query, and what they last heard.

    `wake` is called on every news. Run `run()` as a task; `watch()` sets what is watched, at any time.
    """

    def __init__(self, client: Client, wake: Callable[[], None]) -> None:
        self._client = client
        self._wake = wake
        self._answers: dict[Query, Answer] = {}
        self._contacts: dict[Query, Contact] = {}
        self._tasks: dict[Query, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._wanted: frozenset[Query] = frozenset()
        self._retired: list[Client] = []

    @property
    def answers(self) -> Answers:
        """Return the last complete answers."""
        return dict(self._answers)

    @property
    def contacts(self) -> Mapping[Query, Contact]:
        """Return how each query stands."""
        return dict(self._contacts)

    @property
    def complete(self) -> bool:
        """Tell whether every query was answered at least once."""
        return self._wanted <= self._answers.keys()

    def watch(self, queries: Iterable[Query]) -> None:
        """Watch exactly `queries`; the answers of those that stay are kept."""
        self._wanted = frozenset(queries)
        self._changed.set()

    def use(self, client: Client, replaced: Client) -> None:
        """Ask `client` from now on and close `replaced`; the last answers stay until there are newer ones."""
        self._client = client
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
                    self._answers.pop(query, None)
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
        index, failures = 0, 0
        while True:
            asked = time.monotonic()
            try:
                answer = await self._client.instances(query, index=index)
            except ConsulError as error:
                index, failures = 0, failures + 1
                self._failed(query, str(error))
                await asyncio.sleep(back_off(failures))
                continue
            failures = 0
            news = self._answered(query, answer)
            index = next_index(index, answer.index)
            rest = (SHORTEST_POLL if news and index else IDLE_POLL) - (time.monotonic() - asked)
            await asyncio.sleep(max(0.0, rest))

    def _answered(self, query: Query, answer: Answer) -> bool:
        """Keep `answer`; return whether it says anything new."""
        before = self._answers.get(query)
        failing_since = self._contacts[query].failing_since
        if failing_since is not None:
            log.info("consul_back", consul_service=query.service, after=f"{time.time() - failing_since:.1f}s")
        self._contacts[query] = Contact(last=time.time())
        news = before is None or (before.instances, before.malformed) != (answer.instances, answer.malformed)
        if news:  # else the same object stays: what was made of it is known to hold
            self._answers[query] = answer
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
                kept="the last answer" if query in self._answers else "nothing, it never answered",
            )
        self._contacts[query] = attrs.evolve(contact, failing_since=contact.failing_since or time.time(), error=error)


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
        return await client.instances(query)
    except ConsulError as error:
        place = f" in datacenter {query.datacenter!r}" if query.datacenter else ""
        raise ConsulError(f"Consul service {query.service!r}{place}: {error}") from error

"""Asking the agent what it can take, and choosing by that how news are waited for (`choice`)."""

import asyncio
import resource
import sys
import time
from typing import Final

import attrs
import structlog

from lvsctl.consul.choice import Choice, choose, most_connections
from lvsctl.consul.client import Capacity, Client
from lvsctl.unexpected import in_words

LONGEST_QUESTION: Final = 2.0  # seconds that the agent may take to tell its limits
ASK_AGAIN: Final = 5.0  # seconds between two such questions, while queries fail

log = structlog.get_logger()


class Chooser:
    """How news are waited for, with one Consul agent at a time."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._capacity: Capacity | None = None  # what the agent last told
        self.choice: Choice | None = None
        self._unsure = True  # the agent has not told what it can take, or may be another one since
        self._asked = -ASK_AGAIN  # seconds of the monotonic clock when it was asked last

    def use(self, client: Client) -> None:
        """Ask `client` from now on."""
        self._client, self._capacity = client, None

    def lose(self) -> None:
        """Note that a query could not be asked: whoever answers the next one may take less, or speak otherwise."""
        self._unsure = True

    def is_due(self) -> bool:
        """Tell, of a query that was just answered, whether it is time to choose again."""
        return self._unsure and time.monotonic() - self._asked >= ASK_AGAIN

    async def choose(self, queries: int) -> bool:
        """Choose for `queries` blocking queries, by what the agent says now; return whether it is another way."""
        capacity, client = None, self._client
        self._unsure, self._asked = False, time.monotonic()
        try:
            async with asyncio.timeout(LONGEST_QUESTION):
                capacity = await client.capacity()
        except TimeoutError:
            pass
        except Exception as error:  # noqa: BLE001  # without it the daemon would end
            in_words(error, "choose")
        if client is not self._client:  # what the one before says is nothing about this one
            return await self.choose(queries)
        self._unsure = self._unsure or capacity is None
        # What it told once holds while it cannot be asked, and its limit while it refuses to tell it (a revoked token).
        known = self._capacity
        if capacity is not None and known is not None:
            limit = known.limit if capacity.limit is None else capacity.limit
            capacity = attrs.evolve(capacity, limit=limit, streams=capacity.streams or known.streams)
        self._capacity = capacity or known
        told = self._capacity or Capacity(http2=False, limit=None)
        chosen = choose(
            queries=queries,
            http2=told.http2,
            limit=told.limit,
            files=open_files(),
            http2_needs=told.http2_needs,
            streams=told.streams,
        )
        self._client.allow(most_connections(limit=told.limit, files=open_files())[0])
        if self._capacity is None:  # what to advise is known when the agent has answered
            chosen = attrs.evolve(chosen, why=f"the agent has not answered yet; {chosen.why}", remedy="")
        before, self.choice = self.choice, chosen
        another = before is None or before.way is not chosen.way
        if before is not None and not another and (before.remedy or not chosen.remedy):
            return False
        if chosen.remedy:
            log.warning("consul_transport", way=chosen.way.value, why=chosen.why, remedy=chosen.remedy)
        else:
            log.info("consul_transport", way=chosen.way.value, why=chosen.why)
        return another


def open_files() -> int:
    """Return how many files, sockets among them, this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft

"""Every query asked once, for those who do not watch: `diff`, `status` without a daemon, `weight`."""

import asyncio
import contextlib
import time
from collections.abc import Iterable

import structlog

from lvsctl.consul.client import Client
from lvsctl.consul.doubt import believe
from lvsctl.core.instance import Answer, Answers, Query
from lvsctl.errors import ConsulError

log = structlog.get_logger()


async def ask_once(client: Client, queries: Iterable[Query], others: Iterable[Query] = ()) -> Answers:
    """Return a fresh answer to every query; raises the first ConsulError when one has none.

    One of `others` without an answer is only told in the log.
    """
    needed = sorted(queries)
    asked = sorted({*needed, *others})
    tasks = [asyncio.ensure_future(_ask(client, query, needed=query in needed)) for query in asked]
    try:
        answers = zip(asked, await asyncio.gather(*tasks), strict=True)
        return {query: answer for query, answer in answers if answer is not None}
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConsulError):
            await asyncio.gather(*tasks, return_exceptions=True)


async def _ask(client: Client, query: Query, *, needed: bool) -> Answer | None:
    try:
        return believe(None, await client.instances(query), time.monotonic()).answer
    except ConsulError as error:
        place = f" in datacenter {query.datacenter!r}" if query.datacenter else ""
        if needed:
            raise ConsulError(f"Consul service {query.service!r}{place}: {error}") from error
        log.warning("consul_failed", consul_service=query.service, error=query.place + str(error), kept="nothing")
        return None

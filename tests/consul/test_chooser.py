"""What one agent says that it takes is never taken for what another does, nor for what it takes after an outage."""

import asyncio
import contextlib
from collections.abc import Callable

import pytest
from aiohttp import web

from lvsctl.config import ConsulConfig
from lvsctl.consul import chooser
from lvsctl.consul.choice import Way
from lvsctl.consul.chooser import Chooser
from lvsctl.consul.client import Client
from lvsctl.consul.watch import Watches
from lvsctl.core.instance import Query
from tests.consul.server import DEADLINE, answer, consul


async def nobody(_: web.Request) -> web.StreamResponse:
    return answer()


async def cut(request: web.Request) -> web.StreamResponse:
    assert request.transport
    request.transport.abort()
    return answer()


async def test_an_agent_that_comes_back_with_a_lower_limit_is_asked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chooser, "ASK_AGAIN", 0.1)
    away = asyncio.Event()

    async def until_away(request: web.Request) -> web.StreamResponse:
        if "index" not in request.query:
            return answer()
        await away.wait()
        return await cut(request)

    async with consul(until_away) as server:
        server.limit = 1000
        client = Client(ConsulConfig(address=server.address))
        watches = Watches(client, lambda: None)
        watches.watch(Query(service=f"s{number}") for number in range(300))
        task = asyncio.create_task(watches.run())
        try:
            await until(lambda: watches.heard.complete)
            assert watches.choice is not None
            assert watches.choice.way is Way.POLLS
            server.answering = cut
            away.set()
            await until(lambda: watches.heard.failing("") == 300)
            server.limit, server.answering = 200, nobody
            await until(lambda: watches.choice is not None and watches.choice.way is Way.SIGNALS)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await client.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110  # of several things
            await asyncio.sleep(0.02)


async def test_a_client_that_is_replaced_while_its_agent_is_asked() -> None:
    asked, told = asyncio.Event(), asyncio.Event()

    async def slowly(_: web.Request) -> web.StreamResponse:
        asked.set()
        await told.wait()
        return web.json_response({"DebugConfig": {"HTTPMaxConnsPerClient": 20}})

    async with (
        consul(nobody) as few,
        consul(nobody) as many,
        Client(ConsulConfig(address=few.address)) as before,
        Client(ConsulConfig(address=many.address)) as after,
    ):
        few.agent, many.limit = slowly, 2000
        choosing_for = Chooser(before)
        choosing = asyncio.create_task(choosing_for.choose(300))
        await asked.wait()
        choosing_for.use(after)
        told.set()
        assert await choosing
        assert choosing_for.choice is not None
        assert (choosing_for.choice.way, choosing_for.is_due()) == (Way.POLLS, False)
        assert "2000" in choosing_for.choice.why

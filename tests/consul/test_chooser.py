"""What one agent says that it takes is never taken for what another does."""

import asyncio

from aiohttp import web

from lvsctl.config import ConsulConfig
from lvsctl.consul.choice import Way
from lvsctl.consul.chooser import Chooser
from lvsctl.consul.client import Client
from tests.consul.server import answer, consul


async def nobody(_: web.Request) -> web.StreamResponse:
    return answer()


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
        chooser = Chooser(before)
        choosing = asyncio.create_task(chooser.choose(300))
        await asked.wait()
        chooser.use(after)
        told.set()
        assert await choosing
        assert chooser.choice is not None
        assert (chooser.choice.way, chooser.sure) == (Way.POLLS, True)
        assert "2000" in chooser.choice.why

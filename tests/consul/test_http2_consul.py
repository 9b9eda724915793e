"""HTTP/2 against a real Consul: blocking queries wake, hundreds share a connection, places come free at once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest
import pytest_asyncio

from lvsctl.consul.client import Client
from lvsctl.consul.transport import Protocol
from lvsctl.core.instance import Answer, Query
from lvsctl.errors import ConsulError
from tests.consul.agent import Agent
from tests.consul.certificates import Certificates

WITHIN = 20.0  # seconds, less than the 25 that a blocking query waits: what is there by then was woken


@pytest_asyncio.fixture
async def agent(tmp_path: Path, certificates: Certificates) -> AsyncIterator[Agent]:
    """Run a Consul."""
    async with Agent.running(tmp_path, certificates) as running:
        yield running


async def blocked(client: Client, service: str) -> tuple[Answer, asyncio.Task[Answer]]:
    """Return what there is now, and a blocking query for what comes next."""
    answer = await client.instances(Query(service=service))
    return answer, asyncio.create_task(client.instances(Query(service=service), index=max(answer.index, 1)))


async def test_a_blocking_query_wakes_and_a_certificate_is_needed(agent: Agent) -> None:
    await agent.register("reco", port=80)
    async with Client(agent.config) as client, asyncio.timeout(WITHIN):
        first, waiting = await blocked(client, "reco")
        assert [each.port for each in first.instances] == [80]
        await agent.register("reco", port=81)
        second = await waiting
        assert [each.port for each in second.instances] == [81]
        assert second.index > first.index
        assert second.leader
        assert client.protocol is Protocol.HTTP2
    async with Client(attrs.evolve(agent.config, certificate_file=None, key_file=None)) as anonymous:
        with pytest.raises(ConsulError, match=r"cannot reach .* certificate"):
            await anonymous.instances(Query(service="reco"))


async def test_600_watches_on_3_connections_converge(agent: Agent) -> None:
    services = [f"service-{number}" for number in range(600)]
    await agent.register(*services)
    async with Client(agent.config) as client, asyncio.timeout(WITHIN):
        started = await asyncio.gather(*(blocked(client, service) for service in services))
        await client.instances(Query(service="reco"))  # all others have been sent before it
        assert agent.connections() == 3
        await agent.check_node("critical")
        found = await asyncio.gather(*(waiting for _, waiting in started))
        assert all(answer.instances[0].checks[0].health.word == "critical" for answer in found)
        assert agent.connections() == 3


async def test_abandoned_queries_free_their_places_at_once(agent: Agent) -> None:
    await agent.register("reco")
    async with Client(agent.config) as client, asyncio.timeout(WITHIN):
        for _ in range(5):  # 1,200 queries on a connection that takes 250
            started = await asyncio.gather(*(blocked(client, "reco") for _ in range(239)))
            await client.instances(Query(service="reco"))
            assert agent.connections() == 1
            for _, waiting in started:
                waiting.cancel()
            for _, waiting in started:
                with contextlib.suppress(asyncio.CancelledError):
                    await waiting
        assert len((await client.instances(Query(service="reco"))).instances) == 1
        assert agent.connections() == 1

"""HTTP/2 or HTTP/1.1: which the client takes, that both are asked alike, and that their errors read alike."""

import asyncio
import sys
from pathlib import Path

import attrs
import pytest

from lvsctl.config import ConsulConfig
from lvsctl.consul import transport as transport_module
from lvsctl.consul.client import Client
from lvsctl.consul.transport import Protocol, Transport
from lvsctl.core.instance import Query
from lvsctl.errors import ConsulError
from tests.consul.certificates import Certificates
from tests.consul.listener import Asked, Listener, at_once, never
from tests.consul.server import DEADLINE, always, consul, to_json
from tests.values import instance

TOKEN = "canary-5f0c2b1e-token"  # noqa: S105  sent where it must be
RECO = Query(service="reco")


# --- which protocol -------------------------------------------------------------------------------------------------


@pytest.fixture
def config(certificates: Certificates) -> ConsulConfig:
    return ConsulConfig(ca_file=certificates.ca, certificate_file=certificates.client, key_file=certificates.client_key)


def spoken(client: Client) -> Protocol:
    return client.protocol  # mypy believes that a property stays


def answer_found(asked: Asked) -> None:
    asked.answer(to_json(instance(1)), x_consul_index="7", x_consul_knownleader="false")


async def test_where_it_is_offered_it_is_used(certificates: Certificates, config: ConsulConfig, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    async with Listener.serving(certificates, answer_found) as listener:
        address = f"https://127.0.0.1:{listener.port}"
        async with Client(attrs.evolve(config, address=address, token_file=tmp_path / "token")) as client:
            assert spoken(client) is Protocol.UNDECIDED
            found = await client.instances(Query(service="a?b c", datacenter="d c&x=1"), index=3, wait=1)
            assert spoken(client) is Protocol.HTTP2
        (asked,) = listener.asked
    assert found.instances == (instance(1),)
    assert found.index == 7
    assert not found.leader
    assert asked.headers[":path"] == "/v1/health/service/a%3Fb%20c?dc=d+c%26x%3D1&index=3&wait=1s"
    assert asked.headers["x-consul-token"] == TOKEN
    assert asked.headers["accept-encoding"] == "identity"


async def test_where_it_is_not_offered_requests_go_as_before(certificates: Certificates, config: ConsulConfig) -> None:
    tls = certificates.server
    tls.set_alpn_protocols(["http/1.1"])
    async with (
        consul(always(instance(1)), tls=tls) as server,
        Client(attrs.evolve(config, address=server.address)) as client,
    ):
        answers = await asyncio.gather(*(client.instances(RECO) for _ in range(20)))
        assert all(found.instances == (instance(1),) for found in answers)
        assert spoken(client) is Protocol.NOT_OFFERED
        assert {request.version for request in server.requests} == {(1, 1)}


async def test_a_plain_address_and_a_missing_package(
    certificates: Certificates, config: ConsulConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with consul(always()) as server, Client(ConsulConfig(address=server.address)) as client:
        await client.instances(RECO)
        assert spoken(client) is Protocol.PLAIN
    monkeypatch.setitem(sys.modules, "h2", None)
    async with (
        consul(always(), tls=certificates.server) as server,
        Client(attrs.evolve(config, address=server.address)) as client,
    ):
        await client.instances(RECO)
        assert spoken(client) is Protocol.NOT_INSTALLED
        told = await client.capacity()
        assert told is not None
        assert told.http2_needs == "install the extra lvsctl[http2] (package h2) and start again"


async def test_a_listener_that_comes_back_is_asked_again(certificates: Certificates, config: ConsulConfig) -> None:
    tls = certificates.server
    tls.set_alpn_protocols(["http/1.1"])
    async with consul(always(), tls=tls) as server:
        client = Client(attrs.evolve(config, address=server.address))
        await client.instances(RECO)
        assert spoken(client) is Protocol.NOT_OFFERED
    with pytest.raises(ConsulError):
        await client.instances(RECO)
    assert spoken(client) is Protocol.UNDECIDED
    async with Listener.serving(certificates, at_once, port=int(server.address.rpartition(":")[2])):
        await client.instances(RECO)
        assert spoken(client) is Protocol.HTTP2
        await client.close()


async def test_a_closed_client_opens_nothing_again_over_http1() -> None:
    """Who is in the middle of two questions when it is closed would open a session that nobody closes."""
    async with consul(always(instance(1))) as server:
        await _asked_after_its_end(ConsulConfig(address=server.address))
        assert len(server.requests) == 2


async def test_a_closed_client_opens_nothing_again_over_http2(certificates: Certificates, config: ConsulConfig) -> None:
    async with Listener.serving(certificates, answer_found) as listener:
        await _asked_after_its_end(attrs.evolve(config, address=f"https://127.0.0.1:{listener.port}"))
        assert len(listener.asked) == 2


async def _asked_after_its_end(config: ConsulConfig) -> None:
    client, unused = Client(config), Client(config)
    for _ in range(2):
        await client.instances(RECO)
    for each in (client, unused):
        await each.close()
        for _ in range(2):
            with pytest.raises(ConsulError, match=f"cannot reach {config.address}: closed"):
                await each.instances(RECO)


# --- errors as Consul errors ----------------------------------------------------------------------------------------


async def error_of(config: ConsulConfig, *, timeout: float = DEADLINE) -> str:  # noqa: ASYNC109  for all of it
    transport = Transport(config)
    try:
        with pytest.raises(ConsulError) as caught:
            await transport.get(lambda response: response, "/v1/status/leader", timeout=timeout)
    finally:
        await transport.close()
    return str(caught.value)


async def test_errors_read_as_those_of_http1(
    certificates: Certificates, config: ConsulConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Listener.serving(certificates, never) as listener:
        config = attrs.evolve(config, address=f"https://127.0.0.1:{listener.port}")
        assert await error_of(config, timeout=0.2) == f"no answer from {config.address} within 0.2 s"
        untrusted = await error_of(attrs.evolve(config, ca_file=None))
        assert untrusted.startswith(f"cannot reach {config.address}: its certificate is not trusted: ")
        anonymous = await error_of(attrs.evolve(config, certificate_file=None, key_file=None))
        assert anonymous.startswith(f"cannot reach {config.address}: ")
        listener.answering = lambda asked: asked.link.go_away()
        assert await error_of(config) == (
            f"cannot reach {config.address}: the listener ends the connection (GOAWAY, NO_ERROR)"
        )
        monkeypatch.setattr(transport_module, "MAX_BODY", 1 << 20)
        pouring: list[asyncio.Task[int]] = []

        def pour(asked: Asked) -> None:
            asked.begin()
            pouring.append(asyncio.create_task(asked.pour(3 << 20)))

        listener.answering = pour
        assert await error_of(config) == "answer is larger than 1 MiB"
        await asyncio.gather(*pouring)
    assert await error_of(config) == f"cannot reach {config.address}: connection refused"

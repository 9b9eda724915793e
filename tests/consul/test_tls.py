"""Client certificates against a real Consul that wants them, over HTTP/2 and HTTP/1.1, and renewed while it runs."""

import contextlib
import gc
import shutil
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import pytest_asyncio
from aiohttp import web
from structlog.testing import capture_logs

from lvsctl.config import ConsulConfig
from lvsctl.consul.client import Client
from lvsctl.consul.tls import Tls
from lvsctl.consul.transport import Protocol
from lvsctl.core.instance import Query
from lvsctl.errors import ConsulError
from tests.consul.agent import Agent
from tests.consul.certificates import Certificates
from tests.consul.server import answer, consul
from tests.values import instance

RECO = Query(service="reco")
REFUSED = "it does not accept our client certificate, or wants one and there is none; see consul.certificate_file"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agent(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> AsyncIterator[Agent]:
    """Run a Consul with an instance of reco."""
    async with Agent.running(tmp_path_factory.mktemp("consul"), certificates) as running:
        await running.register("reco")
        yield running


@pytest.fixture(params=[Protocol.HTTP2, Protocol.NOT_INSTALLED], ids=["HTTP/2", "HTTP/1.1"])
def protocol(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Protocol:
    """Return what a client uses from now on."""
    wanted: Protocol = request.param
    if wanted is Protocol.NOT_INSTALLED:
        monkeypatch.setitem(sys.modules, "h2", None)
    return wanted


@pytest.fixture
def files(tmp_path: Path, certificates: Certificates) -> ConsulConfig:
    """Return a configuration with files of its own, which may be replaced."""
    config = ConsulConfig(
        ca_file=tmp_path / "ca.pem", certificate_file=tmp_path / "client.pem", key_file=tmp_path / "client.key"
    )
    replace(config, ca_file=certificates.ca, certificate_file=certificates.client, key_file=certificates.client_key)
    return config


def replace(config: ConsulConfig, **contents: Path) -> None:
    """Put what other files hold in the place of files of `config`, as a person who renews them does."""
    for name, content in contents.items():
        path: Path = getattr(config, name)
        shutil.copy(content, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)


async def found(client: Client) -> int:
    return len((await client.instances(RECO)).instances)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_consul_that_wants_a_certificate_is_answered_with_one(
    agent: Agent, protocol: Protocol, certificates: Certificates
) -> None:
    async with Client(agent.config) as client:
        assert await found(client) == 1
        assert client.protocol is protocol
    for wrong in (
        attrs.evolve(agent.config, certificate_file=None, key_file=None),
        attrs.evolve(agent.config, certificate_file=certificates.expired),
    ):
        async with Client(wrong) as client:
            client.check()
            with pytest.raises(ConsulError) as caught:
                await found(client)
        assert str(caught.value).startswith(f"cannot reach {agent.config.address}: {REFUSED}"), caught.value


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.usefixtures("protocol")
@pytest.mark.parametrize("trusts", [False, True], ids=["untrusted", "no certificate"])
async def test_connections_that_fail_need_no_collector(agent: Agent, *, trusts: bool) -> None:
    config = attrs.evolve(agent.config, ca_file=agent.config.ca_file if trusts else None)
    gc.collect()
    async with Client(attrs.evolve(config, certificate_file=None, key_file=None)) as client:
        gc.disable()
        try:
            for _ in range(20):
                with contextlib.suppress(ConsulError):
                    await found(client)
                    raise AssertionError("it was answered")
            kept = sum(isinstance(each, ssl.SSLObject) for each in gc.get_objects())
        finally:
            gc.enable()
    assert kept <= 2, "the last one, which may not have closed yet"


@pytest.mark.asyncio(loop_scope="module")
async def test_an_expired_certificate_is_replaced_without_a_restart(
    agent: Agent, protocol: Protocol, files: ConsulConfig, certificates: Certificates
) -> None:
    replace(files, certificate_file=certificates.expired)
    async with Client(attrs.evolve(files, address=agent.config.address)) as client:
        with pytest.raises(ConsulError, match="does not accept our client certificate"):
            await found(client)
        replace(files, certificate_file=certificates.renewed, key_file=certificates.renewed_key)
        assert await found(client) == 1
        assert client.protocol is protocol


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.usefixtures("protocol")
async def test_what_cannot_be_reached_names_the_files_that_cannot_be_used(
    agent: Agent, files: ConsulConfig, certificates: Certificates
) -> None:
    """A new authority for Consul, whose file here is half-written when the connection is lost."""
    assert files.ca_file is not None
    replace(files, certificate_file=certificates.expired)
    async with Client(attrs.evolve(files, address=agent.config.address)) as client:
        with pytest.raises(ConsulError):
            await found(client)
        files.ca_file.write_bytes(certificates.ca.read_bytes()[:100])
        with pytest.raises(ConsulError) as caught:
            await found(client)
        assert str(caught.value).startswith(f"cannot reach {agent.config.address}: "), caught.value
        assert f"; consul.ca_file {files.ca_file} cannot be used: " in str(caught.value)
        assert str(caught.value).endswith(", so those read before are used")
        replace(files, ca_file=certificates.ca, certificate_file=certificates.client)
        assert await found(client) == 1


async def test_the_next_connection_has_the_certificate_of_now(files: ConsulConfig, certificates: Certificates) -> None:
    names: list[Any] = []

    async def named(request: web.Request) -> web.StreamResponse:
        assert request.transport
        names.append(dict(each[0] for each in request.transport.get_extra_info("peercert")["subject"])["commonName"])
        return answer(instance(1))

    async with (
        consul(named, tls=certificates.server) as server,
        Client(attrs.evolve(files, address=server.address)) as client,
    ):
        with capture_logs() as logged:
            await found(client)
            await found(client)
            replace(files, certificate_file=certificates.renewed)  # and not yet its key
            await found(client)
            assert [each["event"] for each in logged] == ["certificate_unusable"]
            assert "cannot be used" in logged[0]["why"]
            await found(client)
            replace(files, key_file=certificates.renewed_key)
            await found(client)
            files.key_file.unlink()  # type: ignore[union-attr]  # it has one
            await found(client)
            assert [each["event"] for each in logged] == ["certificate_unusable"] * 2
        assert names == ["client"] * 4 + ["renewed"] * 2
        assert len({request.transport for request in server.requests}) == 2


def test_files_that_never_could_be_used_are_an_error(files: ConsulConfig, certificates: Certificates) -> None:
    replace(files, key_file=certificates.renewed_key)
    tls = Tls(files)
    with pytest.raises(ConsulError, match="cannot be used: "):
        tls.context()
    replace(files, certificate_file=certificates.renewed)
    assert tls.context() is tls.context()

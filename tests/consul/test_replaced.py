"""What the daemon needs for Consul is replaced while that is away: token, authority and certificate, half of it wrong.

A whole daemon on a kernel in memory, and a real Consul with ACLs whose listener wants client certificates.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import attrs
import pytest
from structlog.testing import capture_logs

from lvsctl import control
from lvsctl.config import Secret
from lvsctl.configfile import load
from lvsctl.consul.pool import Response
from lvsctl.consul.transport import Transport
from lvsctl.core.status import Status
from lvsctl.daemon import Daemon
from lvsctl.reconcile import Reconciler
from lvsctl.store import Store
from netlink.fake import FakeIPVS
from tests.addresses import FakeAddresses
from tests.consul.agent import Agent
from tests.consul.certificates import Certificates
from tests.consul.server import DEADLINE
from tests.lab.waiting import eventually

POLICY: Final = 'node_prefix "" { policy = "read" } service_prefix "" { policy = "read" }'
SERVICES: Final = [f"service-{number}" for number in range(10, 22)]
RESUMED: Final = 5.0  # seconds from the last file that is put right to the table
MOST_LINES: Final = 60  # about all twelve, through six troubles one after the other
ACL: Final = {"acl": {"enabled": True, "default_policy": "deny", "policy_ttl": "1s", "token_ttl": "1s"}}


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Put the signal handlers back that the daemon replaced."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(params=["HTTP/2", "HTTP/1.1"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what queries go over."""
    wanted: str = request.param
    if wanted == "HTTP/1.1":
        monkeypatch.setitem(sys.modules, "h2", None)
    return wanted


async def ask(agent: Agent, method: str, path: str, body: object = None) -> dict[str, str]:
    """Return what Consul says, as JSON."""
    made = Transport(agent.config)
    asking = getattr(made, method)
    try:
        response: Response = await asking(lambda response: response, path, data=json.dumps(body) if body else "")
    finally:
        await made.close()
    assert response.status == 200, response
    found: dict[str, str] = json.loads(response.body)
    return found


async def token_of(agent: Agent, name: str) -> dict[str, str]:
    """Return a new token that may read: its AccessorID and its SecretID."""
    await ask(agent, "put", "/v1/acl/policy", {"Name": name, "Rules": POLICY})
    return await ask(agent, "put", "/v1/acl/token", {"Policies": [{"Name": name}]})


@attrs.frozen
class Files:
    """What the daemon reads, each of which is replaced as a whole unless it is to be half-written."""

    directory: Path

    def write(self, name: str, content: bytes) -> None:
        """Put `content` in place of the file."""
        new = self.directory / f"{name}.new"
        new.write_bytes(content)
        new.chmod(0o600)
        new.replace(self.directory / name)

    def text(self, agent: Agent) -> str:
        """Return a configuration that names them."""
        virtual_servers = "".join(
            f'[virtual_server.{name}]\naddress = "10.9.0.100:{port}"\n' for port, name in enumerate(SERVICES, 80)
        )
        return (
            f'[consul]\naddress = "{agent.config.address}"\ntoken_file = "{self.directory}/token"\n'
            f'ca_file = "{self.directory}/ca"\ncertificate_file = "{self.directory}/certificate"\n'
            f'key_file = "{self.directory}/key"\n[daemon]\nstate_directory = "{self.directory}"\n'
            f'control_socket = "{self.directory}/control.sock"\n{virtual_servers}'
        )


@attrs.frozen
class Seen:
    """What the daemon shows, and what its kernel has."""

    kernel: FakeIPVS
    socket: Path

    def serving(self) -> int:
        """Return how many real servers get new connections."""
        table = self.kernel.observe().table.values()
        return sum(each.weight > 0 for entry in table for each in entry.real_servers.values())

    async def until_serving(self, number: int, within: float) -> None:
        """Return when so many serve."""
        await asyncio.to_thread(eventually, lambda: self.serving() == number, within=within, every=0.02)

    async def until_error(self, wanted: Callable[[str], bool]) -> None:
        """Return when all queries fail, with an error as `wanted`."""

        def shown() -> bool:
            consul = self.status().consul
            assert consul is not None
            assert consul.failing == len(SERVICES), consul
            assert wanted(consul.error), consul
            return True

        await asyncio.to_thread(eventually, shown, within=DEADLINE)

    def status(self) -> Status:
        """Return what `lvsctl status` would show."""
        return control.ask(self.socket)


async def test_all_that_was_needed_for_consul_is_replaced_while_it_is_away(
    tmp_path: Path, transport: str, certificates: Certificates
) -> None:
    (tmp_path / "next").mkdir()
    following = Certificates.make(tmp_path / "next")
    listener = {"ca_file": "ca", "cert_file": "certificate", "key_file": "key"}
    (tmp_path / "listener").mkdir()

    def listen_as(made: Certificates) -> None:
        for source, name in ((made.ca, "ca"), (made.server_certificate, "certificate"), (made.server_key, "key")):
            shutil.copy(source, tmp_path / "listener" / name)

    listen_as(certificates)
    files = Files(tmp_path)
    settings = ACL | {key: str(tmp_path / "listener" / name) for key, name in listener.items()}
    async with Agent.running(tmp_path, certificates, settings=settings) as agent:
        first = await ask(agent, "put", "/v1/acl/bootstrap")
        agent.config = attrs.evolve(agent.config, token=Secret(first["SecretID"]))
        await agent.register(*SERVICES)
        old, new = await token_of(agent, "old"), await token_of(agent, "new")
        files.write("token", old["SecretID"].encode())
        files.write("ca", certificates.ca.read_bytes())
        files.write("certificate", certificates.client.read_bytes())
        files.write("key", certificates.client_key.read_bytes())
        (tmp_path / "lvsctl.toml").write_text(files.text(agent))
        seen = Seen(FakeIPVS(), tmp_path / "control.sock")
        reconciler = Reconciler(seen.kernel, FakeAddresses(), Store(tmp_path), time.time)
        file = tmp_path / "lvsctl.toml"
        with capture_logs() as logs:
            task = asyncio.create_task(Daemon(file, load(file), reconciler, dry_run=False).run(), name="daemon")
            await seen.until_serving(len(SERVICES), DEADLINE)
            consul = (await asyncio.to_thread(seen.status)).consul
            assert consul is not None
            assert consul.transport == transport

            await ask(agent, "delete", f"/v1/acl/token/{old['AccessorID']}")
            await agent.kill()
            listen_as(following)
            files.write("token", b"")
            await seen.until_error(lambda error: f"{tmp_path}/token does not hold exactly one token" in error)
            files.write("token", new["SecretID"][:20].encode())
            agent.config = attrs.evolve(
                agent.config,
                ca_file=following.ca,
                certificate_file=following.client,
                key_file=following.client_key,
            )
            await agent.start()
            await seen.until_error(lambda error: "its certificate is not trusted" in error)
            files.write("ca", following.ca.read_bytes()[:200])
            await seen.until_error(lambda error: f"consul.ca_file {tmp_path}/ca cannot be used: " in error)
            files.write("ca", following.ca.read_bytes())
            files.write("certificate", following.client.read_bytes())  # and not yet its key
            await seen.until_error(lambda error: f"{tmp_path}/certificate cannot be used: " in error)
            files.write("key", following.client_key.read_bytes())
            await seen.until_error(lambda error: "Consul answered 403" in error)
            assert seen.serving() == len(SERVICES)
            await agent.put(
                "/v1/catalog/register",
                {"Node": "more", "Address": "10.1.2.4", "Service": {"Service": SERVICES[0], "Port": 80}},
            )
            files.write("token", new["SecretID"].encode())
            await seen.until_serving(len(SERVICES) + 1, RESUMED)
            os.kill(os.getpid(), signal.SIGTERM)
            async with asyncio.timeout(DEADLINE):
                await task
    assert not [each for each in logs if each["event"] in ("real_server_quiesced", "real_server_deleted", "hold")]
    troubles = [each for each in logs if each["log_level"] in ("warning", "error")]
    assert len(troubles) <= MOST_LINES, troubles
    for token in (old, new, first):
        assert token["SecretID"] not in str(logs)

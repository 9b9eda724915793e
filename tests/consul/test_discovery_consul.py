"""Discovery against a real Consul, with a kernel in memory: from the registration to the table, and no way back."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import attrs
import pytest
import pytest_asyncio

from lvsctl import control
from lvsctl.configfile import load
from lvsctl.core.reload import Order
from lvsctl.core.status import State, Status
from lvsctl.daemon import Daemon
from lvsctl.errors import DaemonError
from lvsctl.reconcile import Reconciler
from lvsctl.store import Store
from netlink.fake import FakeIPVS
from netlink.types import Protocol, VirtualServerKey
from tests.addresses import FakeAddresses
from tests.consul.agent import Agent
from tests.consul.certificates import Certificates

WITHIN = 20.0  # seconds, less than the 25 that a blocking query waits: what is there by then was woken
HERE = VirtualServerKey.by_address(Protocol.TCP, ip_address("10.9.1.20"), 80)
DISCOVERY = '[discovery]\naddresses = ["10.9.1.0/24"]\nkeys = ["scheduler"]\n'


@pytest_asyncio.fixture
async def agent(tmp_path: Path, certificates: Certificates) -> AsyncIterator[Agent]:
    """Run a Consul."""
    async with Agent.running(tmp_path, certificates) as running:
        yield running


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Put the signal handlers back that the daemon replaced."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@attrs.define
class Running:
    """A daemon that runs on a kernel in memory, and Consul."""

    agent: Agent
    kernel: FakeIPVS
    file: Path
    directory: Path

    async def register(self, number: int, service: str, *tags: str, **meta: str) -> None:
        """Register instance `number` of `service`, at 10.0.0.N, or change it."""
        registered = {"ID": f"{service}-{number}", "Service": service, "Tags": tags, "Meta": meta, "Port": 8080}
        node = {"Node": f"app{number}", "Address": f"10.0.0.{number}"}
        await self.agent.put("/v1/catalog/register", node | {"Service": registered})

    async def deregister(self, number: int) -> None:
        """Forget all that is on this node."""
        await self.agent.put("/v1/catalog/deregister", {"Node": f"app{number}"})

    def write(self, discovery: str) -> None:
        """Write the file."""
        consul = self.agent.config
        lines = [
            f'[consul]\naddress = "{consul.address}"\nca_file = "{consul.ca_file}"',
            f'certificate_file = "{consul.certificate_file}"\nkey_file = "{consul.key_file}"',
            f'[daemon]\nstate_directory = "{self.directory}"\ncontrol_socket = "{self.directory}/control.sock"',
            discovery,
            '[defaults]\ndrain_timeout = "0s"\n',
        ]
        self.file.write_text("\n".join(lines))

    @contextlib.asynccontextmanager
    async def daemon(self) -> AsyncIterator[None]:
        """Run a daemon while the context lasts."""
        reconciler = Reconciler(self.kernel, FakeAddresses(), Store(self.directory), time.time)
        task = asyncio.create_task(Daemon(self.file, load(self.file), reconciler, dry_run=False).run(), name="daemon")
        try:
            yield
        finally:
            if not task.done():
                os.kill(os.getpid(), signal.SIGTERM)
            async with asyncio.timeout(WITHIN):
                await task

    async def until(self, wanted: Callable[[Status], bool]) -> Status:
        """Return the first status that is as `wanted`."""
        ends = time.monotonic() + WITHIN
        status = None
        while time.monotonic() < ends:
            with contextlib.suppress(DaemonError):
                status = await asyncio.to_thread(control.ask, self.directory / "control.sock")
                if wanted(status):
                    return status
        raise AssertionError(status)

    def weights(self, key: VirtualServerKey = HERE) -> dict[str, int]:
        """Return the weights of the real servers at `key`."""
        return {str(server): each.weight for server, each in self.kernel.observe().table[key].real_servers.items()}


@pytest.fixture
def running(agent: Agent, tmp_path: Path) -> Running:
    """Return a daemon that can be started, with nothing but [discovery] in its file."""
    directory = tmp_path / "state"
    directory.mkdir()
    made = Running(agent=agent, kernel=FakeIPVS(), file=tmp_path / "lvsctl.toml", directory=directory)
    made.write(DISCOVERY)
    return made


def rows(status: Status) -> list[tuple[str, str, State, int]]:
    return [(row.name, row.address, row.state, row.serving) for row in status.virtual_servers]


async def test_a_service_declares_itself_clashes_and_stays(running: Running) -> None:
    async with running.daemon():
        await running.until(lambda status: bool(status.consul and status.consul.data_age is not None))
        assert running.kernel.observe().table == {}
        await running.register(1, "reco", "lvs-address=10.9.1.20:80", "lvs-scheduler=wrr")
        one = [("reco", "tcp 10.9.1.20:80", State.OK, 1)]
        status = await running.until(lambda status: rows(status) == one)
        assert (status.virtual_servers[0].scheduler, status.refused_declarations) == ("wrr", ())
        await running.register(2, "reco", "lvs", **{"lvs-address": "10.9.1.20:80", "lvs-scheduler": "wrr"})
        await running.until(lambda status: rows(status) == [("reco", "tcp 10.9.1.20:80", State.OK, 2)])
        await running.register(3, "aaa", "lvs-address=10.9.1.20:80")
        status = await running.until(lambda status: bool(status.refused_declarations))
        (refused,) = status.refused_declarations
        assert (refused.consul_service, refused.kept) == ("aaa", "")
        assert refused.why == "tcp 10.9.1.20:80 belongs to Consul service 'reco', which had it first"
        assert running.weights() == {"10.0.0.1:8080": 1, "10.0.0.2:8080": 1}
        await running.deregister(1)
        await running.until(lambda status: rows(status) == [("reco", "tcp 10.9.1.20:80", State.OK, 1)])
        await running.deregister(2)
        await running.until(lambda status: rows(status) == [("reco", "tcp 10.9.1.20:80", State.HELD, 1)])
    written = len(running.kernel.writes)
    async with running.daemon():
        held = [("reco", "tcp 10.9.1.20:80", State.HELD, 1)]  # waiting, until the last of both has answered
        await running.until(lambda status: bool(status.refused_declarations) and rows(status) == held)
        running.write(DISCOVERY + 'exclude = ["reco"]\n')
        assert len(running.kernel.writes) == written
        order = Order(allow_remove=True)  # the one virtual server that serves goes
        await asyncio.to_thread(control.reload, running.directory / "control.sock", order)
        status = await running.until(lambda status: rows(status) == [("aaa", "tcp 10.9.1.20:80", State.OK, 1)])
        assert status.refused_declarations == ()
    assert running.weights() == {"10.0.0.3:8080": 1}


async def test_a_withdrawn_declaration_goes(running: Running) -> None:
    await running.register(1, "reco", "lvs-address=10.9.1.20:80")
    async with running.daemon():
        await running.until(lambda status: rows(status) == [("reco", "tcp 10.9.1.20:80", State.OK, 1)])
        await running.register(1, "reco", "v2")
        await running.until(lambda status: rows(status) == [])
        assert running.kernel.observe().table == {}


async def test_a_daemon_that_cannot_reach_consul_leaves_what_was_declared(running: Running) -> None:
    await running.register(1, "reco", "lvs-address=10.9.1.20:80")
    async with running.daemon():
        await running.until(lambda status: bool(rows(status)) and rows(status)[0][2] is State.OK)
    running.kernel.writes.clear()
    port = running.agent.port
    running.agent.config = attrs.evolve(running.agent.config, address=f"https://127.0.0.1:{port - 1}")
    for discovery in (DISCOVERY, DISCOVERY + '[virtual_server.mine]\naddress = "10.9.0.1:80"\n'):
        running.write(discovery)
        async with running.daemon():
            status = await running.until(
                lambda status: bool(status.consul and not status.consul.reachable and status.virtual_servers)
            )
            assert ("reco", "tcp 10.9.1.20:80", State.WAITING, 1) in rows(status)
            os.kill(os.getpid(), signal.SIGHUP)  # a cycle more
            await running.until(lambda _: True)
    assert running.kernel.writes == []
    assert running.weights() == {"10.0.0.1:8080": 1}

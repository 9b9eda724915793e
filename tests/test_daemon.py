"""The daemon whole, but for the kernel: real signals, a real socket, a real HTTP server as Consul."""

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import attrs
import pytest
import structlog
from structlog.testing import capture_logs

from lvsctl import control
from lvsctl.configfile import load
from lvsctl.core.status import State, Status
from lvsctl.daemon import Daemon
from lvsctl.reconcile import Reconciler
from lvsctl.store import Store
from netlink.errors import Refused
from netlink.fake import FakeIPVS
from netlink.requests import Request
from netlink.types import Table
from tests.addresses import FakeAddresses
from tests.consul.server import DEADLINE, Answering, Blocking, Consul, consul, refusing
from tests.values import entry, failing, instance, real, table_of


class Watched(FakeIPVS):
    """A kernel that lets a test wait for a table."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()

    def apply(self, requests: Sequence[Request]) -> list[Refused | None]:
        """Tell who waits."""
        with self._changed:
            done = super().apply(requests)
            self._changed.notify_all()
        return done

    def until(self, table: Table) -> bool:
        """Return whether the table became `table` in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self.observe().table == table, DEADLINE)


@attrs.define
class Running:
    """A daemon that runs, and what it runs on."""

    server: Consul
    kernel: Watched
    file: Path
    task: asyncio.Task[None]
    logs: list[structlog.typing.EventDict]

    async def until(self, table: Table) -> None:
        """Return when the kernel has `table`."""
        assert await asyncio.to_thread(self.kernel.until, table), self.kernel.observe().table

    async def status(self) -> Status:
        """Return what `lvsctl status` would show."""
        return await asyncio.to_thread(control.ask, self.file.parent / "control.sock")

    async def until_status(self, wanted: Callable[[Status], bool]) -> Status:
        """Return the first status that is as `wanted`; each takes a turn of the daemon's own loop."""
        ends = time.monotonic() + DEADLINE
        while not wanted(status := await self.status()):
            assert time.monotonic() < ends, status
        return status

    def events(self, name: str) -> list[structlog.typing.EventDict]:
        """Return what was logged under `name`."""
        return [each for each in self.logs if each["event"] == name]


def written(server: Consul, directory: Path, *lines: str) -> Path:
    """Write a configuration file and return it."""
    file = directory / "lvsctl.toml"
    daemon = [f'state_directory = "{directory}"', f'control_socket = "{directory}/control.sock"']
    head = ["[consul]", f'address = "{server.address}"', "[daemon]", *daemon]
    file.write_text("\n".join([*head, "[virtual_server.reco]", 'address = "10.9.0.100:80"', *lines, ""]))
    return file


@contextlib.asynccontextmanager
async def running(
    answering: Answering, directory: Path, kernel: Watched | None = None, *, dry_run: bool = False
) -> AsyncIterator[Running]:
    """Run a daemon until the context ends, then stop it as systemd does."""
    kernel = kernel or Watched()
    async with consul(answering) as server:
        file = written(server, directory)
        reconciler = Reconciler(kernel, FakeAddresses(), Store(directory), time.time)
        with capture_logs() as logs:
            task = asyncio.create_task(Daemon(file, load(file), reconciler, dry_run=dry_run).run(), name="daemon")
            found = Running(server=server, kernel=kernel, file=file, task=task, logs=logs)
            await server.came(1)
            yield found
            if not task.done():
                os.kill(os.getpid(), signal.SIGTERM)
            async with asyncio.timeout(DEADLINE):
                await task


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Put the signal handlers back that the daemon replaced."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


async def test_it_follows_consul_and_leaves_the_table_serving(tmp_path: Path) -> None:
    blocking = Blocking((instance(1),))
    async with running(blocking, tmp_path) as daemon:
        await daemon.until(table_of(entry(real(1))))
        await blocking.change(instance(1), instance(2))
        await daemon.until(table_of(entry(real(1), real(2))))
        await blocking.change(instance(1), failing(2))
        await daemon.until(table_of(entry(real(1), real(2, 0))))
        await daemon.until(table_of(entry(real(1))))
        status = await daemon.until_status(lambda status: status.kernel.in_sync_since is not None)
        assert (status.role, status.foreign, status.config_error) == ("active", (), "")
        assert status.consul is not None
        assert status.consul.reachable
        assert [(row.name, row.state, row.serving, row.wanted) for row in status.virtual_servers] == [
            ("reco", State.DEGRADED, 1, 2)
        ]
    assert daemon.kernel.observe().table == table_of(entry(real(1)))
    assert not (tmp_path / "control.sock").exists()
    assert [each["event"] for each in (daemon.logs[0], daemon.logs[-1])] == ["started", "stopped"]
    names = [each["event"] for each in daemon.logs]
    assert names.count("real_server_added") == 2
    assert names.count("real_server_quiesced") == 1
    assert names.count("real_server_deleted") == 1


async def test_an_empty_answer_is_held_and_said(tmp_path: Path) -> None:
    blocking = Blocking((instance(1),))
    async with running(blocking, tmp_path) as daemon:
        await daemon.until(table_of(entry(real(1))))
        await blocking.change()
        status = await daemon.until_status(lambda status: status.virtual_servers[0].state is State.HELD)
        assert status.virtual_servers[0].serving == 1
    assert daemon.kernel.observe().table == table_of(entry(real(1)))


async def test_a_dry_run_writes_nothing_and_says_what_it_would(tmp_path: Path) -> None:
    blocking = Blocking((instance(1),))
    async with running(blocking, tmp_path, dry_run=True) as daemon:
        ends = time.monotonic() + DEADLINE
        while len(daemon.events("would_change")) < 2:
            assert time.monotonic() < ends
            await asyncio.to_thread(daemon.kernel.observe)  # a turn of the loop
        assert daemon.kernel.writes == []
        assert not (tmp_path / "control.sock").exists()
        assert not (tmp_path / "ledger.json").exists()


async def test_without_an_answer_nothing_is_written_and_status_says_so(tmp_path: Path) -> None:
    async with running(refusing(500, "No cluster leader"), tmp_path) as daemon:
        status = await daemon.until_status(lambda status: bool(status.consul and status.consul.failing))
        assert status.consul is not None
        assert not status.consul.reachable
        assert status.consul.error == "Consul answered 500: No cluster leader"
        assert status.consul.data_age is None
        assert [row.state for row in status.virtual_servers] == [State.WAITING]
    assert daemon.kernel.writes == []


async def test_a_bad_file_changes_nothing_and_a_good_one_does(tmp_path: Path) -> None:
    async with running(Blocking((instance(1),)), tmp_path) as daemon:
        await daemon.until(table_of(entry(real(1))))
        written(daemon.server, tmp_path, 'scheduler = "x"')
        os.kill(os.getpid(), signal.SIGHUP)
        status = await daemon.until_status(lambda status: bool(status.config_error))
        assert "virtual_server.reco.scheduler" in status.config_error
        written(daemon.server, tmp_path, 'scheduler = "rr"')
        os.kill(os.getpid(), signal.SIGHUP)
        await daemon.until(table_of(entry(real(1), scheduler="rr")))
        assert (await daemon.status()).config_error == ""
    assert len(daemon.events("reload_refused")) == 1
    assert len(daemon.events("reloaded")) == 1


async def test_another_consul_after_a_reload(tmp_path: Path) -> None:
    async with running(Blocking((instance(1),)), tmp_path) as daemon, consul(Blocking((instance(2),))) as other:
        await daemon.until(table_of(entry(real(1))))
        written(other, tmp_path)
        os.kill(os.getpid(), signal.SIGHUP)
        await daemon.until(table_of(entry(real(2))))

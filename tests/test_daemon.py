"""The daemon whole, but for the kernel: real signals, a real socket, a real HTTP server as Consul."""

import asyncio
import contextlib
import os
import resource
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import attrs
import pytest
import structlog
from aiohttp import web
from structlog.testing import capture_logs

from lvsctl import control
from lvsctl.config import Config
from lvsctl.configfile import load
from lvsctl.consul.pace import SHORTEST_POLL
from lvsctl.core.instance import Answer, Query
from lvsctl.core.opinion import Found
from lvsctl.core.reload import Order
from lvsctl.core.status import State, Status
from lvsctl.daemon import MOST_FILES, Daemon
from lvsctl.reconcile import Reconciler
from lvsctl.snapshot import Snapshot
from lvsctl.store import Store
from netlink.errors import Refused
from netlink.fake import FakeIPVS
from netlink.requests import DeleteRealServer, Request
from netlink.types import RealServerKey, Table
from tests.addresses import FakeAddresses
from tests.consul.server import DEADLINE, Answering, Blocking, Consul, consul, refusing
from tests.values import KEY, entry, failing, instance, real, real_key, table_of

QUERY = Query(service="reco")


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


def written(server: Consul, directory: Path, *lines: str, tables: str = "") -> Path:
    """Write a configuration file and return it; `lines` are of the virtual server, `tables` more of the file."""
    file = directory / "lvsctl.toml"
    daemon = [f'state_directory = "{directory}"', f'control_socket = "{directory}/control.sock"']
    head = ["[consul]", f'address = "{server.address}"', "[daemon]", *daemon, tables]
    file.write_text("\n".join([*head, "[virtual_server.reco]", 'address = "10.9.0.100:80"', *lines, ""]))
    return file


async def unknown(_: RealServerKey) -> Found | None:
    """Return that nothing can be found out: these real servers have addresses of networks elsewhere."""
    return None


def port_of(server: Consul) -> int:
    """Return the port at which the next Consul is the same one, come back."""
    return int(server.address.rpartition(":")[2])


@contextlib.asynccontextmanager
async def running(
    answering: Answering,
    directory: Path,
    kernel: Watched | None = None,
    *,
    dry_run: bool = False,
    port: int = 0,
    lines: Sequence[str] = (),
    tables: str = "",
    text: str = "",
    begin: Callable[[Path], Config] = load,
) -> AsyncIterator[Running]:
    """Run a daemon until the context ends, then stop it as systemd does.

    `port` is Consul's, any when 0; `lines` are more of reco's. With `text` that is the whole file. It begins with what
    `begin` makes of the file.
    """
    kernel = kernel or Watched()
    async with consul(answering, port=port) as server:
        file = written(server, directory, *lines, tables=tables)
        if text:
            file.write_text(text)
        reconciler = Reconciler(kernel, FakeAddresses(), Store(directory), time.time)
        with capture_logs() as logs:
            made = Daemon(file, begin(file), reconciler, dry_run=dry_run, knock=unknown)
            task = asyncio.create_task(made.run(), name="daemon")
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


async def test_it_lets_itself_have_the_open_files_that_it_may(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        async with running(Blocking((instance(1),)), tmp_path):
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert hard == before[1]
        assert soft == (MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.unexpected
async def test_an_error_that_nobody_expected_fails_the_cycle_and_is_tried_again(tmp_path: Path) -> None:
    class Broken(Watched):
        asked = 0

        def apply(self, requests: Sequence[Request]) -> list[Refused | None]:
            """Fail twice."""
            self.asked += 1
            if self.asked <= 2:
                raise ZeroDivisionError("deep inside")
            return super().apply(requests)

    async with running(Blocking((instance(1),)), tmp_path, Broken()) as found:
        await found.until(table_of(entry(real(1))))
        status = await found.until_status(lambda status: status.kernel.in_sync_since is not None)
        assert status.kernel.error == ""
    failed = found.events("cycle_failed")
    assert len(failed) == 2
    assert "ZeroDivisionError at test_daemon.py:" in failed[0]["error"]
    (told,) = found.events("unexpected")
    assert told["log_level"] == "error"


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


async def test_the_last_answers_restore_an_empty_table_and_consul_is_followed_when_it_is_back(tmp_path: Path) -> None:
    async with running(Blocking((instance(1), instance(2))), tmp_path) as daemon:
        await daemon.until(table_of(entry(real(1), real(2))))
    blocking = Blocking((instance(2), instance(3)), index=11)
    async with running(refusing(500, "No cluster leader"), tmp_path, port=port_of(daemon.server)) as daemon:
        await daemon.until(table_of(entry(real(1), real(2))))
        status = await daemon.until_status(lambda status: bool(status.consul and status.consul.failing))
        assert status.consul is not None
        assert status.consul.snapshot_age is not None
        assert status.consul.data_age is None
        assert status.kernel.in_sync_since is None
        assert [(row.state, row.serving) for row in status.virtual_servers] == [(State.WAITING, 2)]
        daemon.server.answering = blocking
        await daemon.until(table_of(entry(real(1, 0), real(2), real(3))))
        status = await daemon.until_status(lambda status: status.kernel.in_sync_since is not None)
        assert status.consul is not None
        assert status.consul.snapshot_age is None
    used = daemon.events("snapshot_used")
    assert [(each["virtual_servers"], each["log_level"]) for each in used] == [(1, "warning")]
    kept = daemon.events("consul_failed")[0]["kept"]
    assert kept == "the snapshot's answer, for what is empty"


async def test_a_populated_table_and_a_snapshot_of_something_else_write_nothing(tmp_path: Path) -> None:
    async with running(Blocking((instance(1), instance(2))), tmp_path) as daemon:
        await daemon.until(table_of(entry(real(1), real(2))))
    kernel = daemon.kernel
    kernel.apply([DeleteRealServer(virtual_server=KEY, key=real_key(2))])
    kernel.writes.clear()
    async with running(refusing(500), tmp_path, kernel, port=port_of(daemon.server)) as daemon:
        await daemon.until_status(lambda status: bool(status.consul and status.consul.failing))
        while not daemon.events("consul_incomplete"):
            await daemon.status()
        os.kill(os.getpid(), signal.SIGHUP)
        await daemon.until_status(lambda _: bool(daemon.events("reloaded")))
        await daemon.status()
    assert kernel.writes == []
    assert daemon.events("snapshot_used") == []


async def test_an_empty_first_answer_is_doubted_by_what_the_snapshot_says(tmp_path: Path) -> None:
    async with running(Blocking((instance(1), instance(2)), index=50), tmp_path) as daemon:
        await daemon.until(table_of(entry(real(1), real(2))))
    kernel = daemon.kernel
    kernel.writes.clear()
    async with running(Blocking((), index=3), tmp_path, kernel, port=port_of(daemon.server)) as daemon:
        status = await daemon.until_status(lambda status: status.virtual_servers[0].state is State.HELD)
        assert "index went back from 50 to 3" in status.virtual_servers[0].note
    assert kernel.writes == []
    async with running(refusing(500), tmp_path, port=port_of(daemon.server)) as daemon:
        await daemon.until(table_of(entry(real(1), real(2))))  # what is in doubt is not kept, what was before it is


async def test_a_first_answer_of_few_is_doubted_by_what_the_ledger_says_where_there_is_no_snapshot(
    tmp_path: Path,
) -> None:
    four = [instance(number) for number in range(1, 5)]
    kernel = Watched()
    whole = table_of(entry(*(real(number) for number in range(1, 5))))
    async with running(Blocking(tuple(four)), tmp_path, kernel) as daemon:
        await daemon.until(whole)
    (tmp_path / "snapshot.json").unlink()
    wiped = Blocking((four[0],), index=3)
    async with running(wiped, tmp_path, kernel) as daemon:
        status = await daemon.until_status(lambda status: status.virtual_servers[0].state is State.HELD)
        assert "lists 1 of the 4 or more instances that served" in str(status.virtual_servers[0])
        assert kernel.observe().table == whole
        await wiped.change(*four, instance(5))
        await daemon.until(table_of(entry(*(real(number) for number in range(1, 6)))))
        await daemon.until_status(lambda status: status.virtual_servers[0].state is not State.HELD)


async def test_a_snapshot_is_written_while_it_runs_and_has_the_last_word_when_it_stops(tmp_path: Path) -> None:
    blocking = Blocking((instance(1),))
    async with running(blocking, tmp_path) as daemon:
        while not daemon.events("snapshot_saved"):
            await daemon.status()
        await blocking.change(instance(1), instance(2))  # less than a second after the last one was written
        await daemon.until(table_of(entry(real(1), real(2))))
    (answer,) = Snapshot(tmp_path).load(daemon.server.address, frozenset({QUERY})).values()
    assert [each.instance_id for each in answer.instances] == ["reco-1", "reco-2"]


async def test_a_dry_run_keeps_no_snapshot(tmp_path: Path) -> None:
    async with running(Blocking((instance(1),)), tmp_path, dry_run=True) as daemon:
        while not daemon.events("would_change"):
            await asyncio.to_thread(daemon.kernel.observe)  # a turn of the loop
    assert Snapshot(tmp_path).load(daemon.server.address, frozenset({QUERY})) == {}


async def test_an_old_snapshot_is_used_and_called_old(tmp_path: Path) -> None:
    async with consul(refusing(500)) as server:
        port = port_of(server)
    old = Answer(instances=(instance(1),), index=7, snapshot=time.time() - 8 * 86400)
    Snapshot(tmp_path).keep(f"http://127.0.0.1:{port}", frozenset({QUERY}), {QUERY: old}, renew=True)
    async with running(refusing(500), tmp_path, port=port) as daemon:
        await daemon.until(table_of(entry(real(1))))
        await daemon.status()
    (used,) = daemon.events("snapshot_used")
    assert used["log_level"] == "error"
    assert "somebody else's" in used["why"]


async def test_another_datacenter_takes_over_and_a_restart_changes_nothing(tmp_path: Path) -> None:
    here, there = Blocking((instance(1), instance(2))), Blocking((instance(11),))

    async def both(request: web.Request) -> web.StreamResponse:
        return await (there if request.query.get("dc") == "dc2" else here)(request)

    async with running(both, tmp_path, lines=('failover = ["dc2"]',)) as daemon:
        await daemon.until(table_of(entry(real(1), real(2))))
        await here.change(failing(1), failing(2), failing(3))
        await daemon.until(table_of(entry(real(11))))
        await here.change(instance(1), failing(2), failing(3))
        status = await daemon.until_status(lambda status: "1 now" in status.virtual_servers[0].note)
        row = status.virtual_servers[0]
        assert (row.state, row.datacenter, row.failed_over) == (State.DEGRADED, "dc2", True)
        assert row.data_age is not None
    assert len(daemon.events("failed_over")) == 1
    kernel = daemon.kernel
    kernel.writes.clear()
    lines = ('failover = ["dc2"]',)
    async with running(both, tmp_path, kernel, port=port_of(daemon.server), lines=lines) as daemon:
        await daemon.until_status(lambda status: status.kernel.in_sync_since is not None)
        await daemon.until_status(lambda status: status.virtual_servers[0].state is State.DEGRADED)
        assert kernel.writes == []
        await here.change(instance(1), instance(2), failing(3))
        await daemon.until(table_of(entry(real(1), real(2))))
        await daemon.until_status(lambda status: not status.virtual_servers[0].failed_over)


async def test_a_datacenter_to_fail_over_to_delays_no_start(tmp_path: Path) -> None:
    """It hangs for longer than the start waits for answers; nothing has failed or timed out when the first serves."""
    never = asyncio.Event()

    async def hanging(request: web.Request) -> web.StreamResponse:
        if "dc" in request.query:
            await never.wait()
        return await Blocking((instance(1),))(request)

    async with running(hanging, tmp_path, lines=('failover = ["dc2"]',)) as daemon:
        await daemon.until(table_of(entry(real(1))))
        status = await daemon.until_status(lambda status: status.kernel.in_sync_since is not None)
        assert status.consul is not None
        assert status.consul.data_age is not None
        assert daemon.events("consul_failed") == daemon.events("consul_incomplete") == []
        never.set()


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
        status = await daemon.until_status(lambda status: bool(status.config_error))
        assert "it would take away 1 of 1 real server now serving" in status.config_error
        await asyncio.to_thread(control.reload, tmp_path / "control.sock", Order(allow_remove=True))
        await daemon.until(table_of(entry(real(2))))


async def test_one_change_is_written_at_once_and_two_hundred_within_a_second_are_few_writes(tmp_path: Path) -> None:
    """What comes in a burst is read together: a query asks again after 20 ms, and a cycle takes what there is."""
    blocking = Blocking((instance(1), instance(2), instance(3)))
    async with running(blocking, tmp_path) as daemon:
        await daemon.until(table_of(entry(real(1), real(2), real(3))))
        await daemon.until_status(lambda status: status.kernel.in_sync_since is not None)
        began = time.monotonic()
        await blocking.change(instance(1), instance(2), failing(3))
        await daemon.until(table_of(entry(real(1), real(2), real(3, 0))))
        single = time.monotonic() - began
        before, began = len(daemon.kernel.writes), time.monotonic()
        for number in range(200):
            await blocking.change(instance(1), instance(2), failing(3) if number % 2 else instance(3))
            await asyncio.sleep(0.005)
        await blocking.change(instance(1), instance(2), instance(3), instance(4))
        await daemon.until(table_of(entry(real(1), real(2), real(3), real(4))))
        seconds = time.monotonic() - began
        writes = len(daemon.kernel.writes) - before
    assert single < 1.0
    assert 1 <= writes <= seconds / SHORTEST_POLL + 5, (writes, seconds)  # the few are what has drained

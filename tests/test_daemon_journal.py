"""The daemon's journal: all that it did, from its start to its stop, and nothing secret."""

import asyncio
import os
import signal
from pathlib import Path

from lvsctl.core.event import Event
from lvsctl.core.event_words import OURSELVES
from lvsctl.journal import DIRECTORY, Reader
from tests.consul.server import Blocking, refusing
from tests.test_daemon import Running, running
from tests.test_daemon_release import SIX, held, release
from tests.values import entry, failing, instance, real, table_of


def read(directory: Path) -> list[Event]:
    return list(Reader(directory).read())


async def reloaded(daemon: Running) -> None:
    os.kill(os.getpid(), signal.SIGHUP)
    before = len(daemon.events("reloaded") + daemon.events("reload_refused"))
    while len(daemon.events("reloaded") + daemon.events("reload_refused")) == before:
        await daemon.status()


async def test_it_has_everything_from_the_start_to_the_stop(tmp_path: Path) -> None:
    blocking = Blocking(SIX)
    async with running(blocking, tmp_path) as daemon:
        await daemon.until(table_of(entry(*map(real, range(1, 7)))))
        await blocking.change(SIX[0], SIX[1], failing(3))
        await daemon.until_status(lambda status: held(status) == 1)
        released = await release(daemon)
        await daemon.until(table_of(entry(real(1), real(2))))
        await reloaded(daemon)
        daemon.file.write_text(daemon.file.read_text() + 'scheduler = "x"\n')
        await reloaded(daemon)
    events = read(tmp_path)
    names = [each.event for each in events]
    assert names[:8] == ["started", "virtual_server_added", *["real_server_added"] * 6]
    ours = [each for each in events if each.event in OURSELVES]
    assert [each.event for each in ours] == ["started", "reloaded", "reload_refused", "stopped"]
    assert "virtual_server.reco.scheduler" in ours[2].why
    (let_go,) = [each for each in events if each.event == "released"]
    assert (let_go.name, let_go.what) == ("reco", ", ".join(released.real_servers))
    assert let_go.by.endswith(f"pid {os.getpid()}")
    story = [each for each in events if each.real_server == "10.0.0.3:8080"]
    assert [(each.event, each.cause) for each in story] == [
        ("real_server_added", "new"),
        ("real_server_quiesced", "check"),
        ("real_server_deleted", "drain"),
    ]
    assert story[1].why.startswith("released by an operator; instance 'reco-3'")
    holds = [each for each in events if each.event == "hold" or each.of == "hold"]
    assert (holds[0].event, holds[-1].event) == ("hold", "trouble_over")
    logged = [each["event"] for each in daemon.logs if each["event"].startswith(("virtual_server_", "real_server_"))]
    assert [name for name in names if name.startswith(("virtual_server_", "real_server_"))] == logged


async def test_a_restart_goes_on_with_it(tmp_path: Path) -> None:
    blocking = Blocking((instance(1),))
    async with running(blocking, tmp_path) as daemon:
        await daemon.until(table_of(entry(real(1))))
    async with running(blocking, tmp_path, daemon.kernel) as daemon:
        await daemon.until_status(lambda status: status.kernel.in_sync_since is not None)
    assert [each.event for each in read(tmp_path)] == [
        "started",
        "virtual_server_added",
        "real_server_added",
        "stopped",
        "started",
        "stopped",
    ]


async def test_a_dry_run_has_none(tmp_path: Path) -> None:
    async with running(Blocking((instance(1),)), tmp_path, dry_run=True) as daemon:
        while not daemon.events("would_change"):
            await asyncio.to_thread(daemon.kernel.observe)  # a turn of the loop
    assert not (tmp_path / DIRECTORY).exists()


async def test_a_journal_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / DIRECTORY).write_text("in the way")
    blocking = Blocking((instance(1), instance(2)))
    async with running(blocking, tmp_path) as daemon:
        await daemon.until(table_of(entry(real(1), real(2))))
        await blocking.change(instance(1), failing(2))
        await daemon.until(table_of(entry(real(1))))
        assert len(daemon.events("journal_failed")) == 1
        status = await daemon.status()
        assert status.kernel.error == ""


async def test_the_token_is_never_in_it(tmp_path: Path) -> None:
    token = "0f2b2a9c-canary-in-the-journal"  # noqa: S105  # it is none
    (tmp_path / "token").write_text(token)
    os.environ.pop("CONSUL_HTTP_TOKEN", None)
    async with running(refusing(403, f"token {token} is not allowed"), tmp_path) as daemon:
        daemon.file.write_text(
            daemon.file.read_text().replace("[daemon]", f'token_file = "{tmp_path}/token"\n[daemon]')
        )
        await reloaded(daemon)
        await daemon.until_status(lambda status: status.consul is not None and "(token)" in status.consul.error)
        await reloaded(daemon)
    assert [each.event for each in read(tmp_path)][:2] == ["started", "reloaded"]
    assert token not in "".join(path.read_text() for path in (tmp_path / DIRECTORY).iterdir())

"""An operator moves the border: a foreign virtual server is taken over as it stands, one of ours is left alone."""

import asyncio
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from lvsctl import control
from lvsctl.core.status import Moved, State
from lvsctl.errors import DaemonError, OrderRefused
from netlink.requests import AddVirtualServer, DeleteVirtualServer
from netlink.types import Observed, VirtualServerKey
from tests.consul.server import Blocking
from tests.test_daemon import Running, Watched, _signals, running
from tests.test_daemon_orders import command
from tests.test_daemon_reload import Services, both_serve
from tests.values import KEY, entry, instance, real, requests_for, table_of

__all__ = ["_signals"]  # a fixture

TWO = instance(1), instance(2)


async def move(daemon: Running, *, adopt: bool, name: str = "reco") -> Moved:
    path = daemon.file.parent / "control.sock"
    return await asyncio.to_thread(control.move, path, name, adopt=adopt)


async def test_a_foreign_one_is_taken_over_as_it_stands(tmp_path: Path) -> None:
    theirs = table_of(entry(real(1, 7), real(9), scheduler="rr"))
    kernel = Watched()
    assert not any(kernel.apply(requests_for(theirs)))
    kernel.writes.clear()
    async with running(Blocking(TWO), tmp_path, kernel) as daemon:
        status = await daemon.until_status(lambda status: status.virtual_servers[0].state is State.FOREIGN)
        assert "lvsctl adopt reco takes it over" in status.virtual_servers[0].note
        assert daemon.kernel.observe().table == theirs
        moved = await move(daemon, adopt=True)
        assert (moved.name, moved.address, moved.changed, moved.refused) == ("reco", str(KEY), True, "")
        assert [line.split("  ")[0] for line in moved.done] == [
            "~ tcp 10.9.0.100:80",
            "+ 10.0.0.2:8080",
            "~ 10.0.0.1:8080",
            "- 10.0.0.9:8080",
        ]
        await daemon.until(table_of(entry(real(1), real(2))))
        assert not any(isinstance(each, AddVirtualServer | DeleteVirtualServer) for each in daemon.kernel.writes)
        (said,) = daemon.events("adopted")
        assert said["name"] == "reco"
        assert said["by"]
        again = await move(daemon, adopt=True)
        assert (again.changed, again.done) == (False, ())


async def test_an_adoption_that_takes_most_away_is_refused_until_it_is_meant(tmp_path: Path) -> None:
    theirs = table_of(entry(real(1), real(7), real(8), real(9)))
    kernel = Watched()
    assert not any(kernel.apply(requests_for(theirs)))
    kernel.writes.clear()
    async with running(Blocking(TWO), tmp_path, kernel) as daemon:
        await daemon.until_status(lambda status: status.virtual_servers[0].state is State.FOREIGN)
        said = r"it would take away 3 of its 4 real servers that serve \(10.0.0.7:8080, 10.0.0.8:8080, 10.0.0.9:8080\)"
        with pytest.raises(OrderRefused, match=said):
            await move(daemon, adopt=True)
        assert kernel.writes == []
        result = await command(daemon, "adopt", "reco", "--yes")
        assert result.exit_code == 0, result.output
        await daemon.until(table_of(entry(real(1), real(2))))


async def test_one_of_ours_is_left_as_it_stands_over_restarts_until_it_is_adopted(tmp_path: Path) -> None:
    blocking = Blocking(TWO)
    async with running(blocking, tmp_path) as daemon:
        await daemon.until(table_of(entry(real(1), real(2))))
        assert (await move(daemon, adopt=False)).changed
        assert not (await move(daemon, adopt=False)).changed
        await blocking.change(*TWO, instance(3))
        status = await daemon.until_status(lambda status: status.virtual_servers[0].state is State.FOREIGN)
        assert status.virtual_servers[0].note.startswith("disowned: lvsctl neither changes nor deletes it")
        assert status.foreign == (str(KEY),)
        assert not daemon.events("foreign_in_the_way")
    async with running(blocking, tmp_path, daemon.kernel) as daemon:
        status = await daemon.until_status(lambda status: status.kernel.in_sync_since is not None)
        assert status.virtual_servers[0].state is State.FOREIGN
        assert daemon.kernel.observe().table == table_of(entry(real(1), real(2)))
        assert (await move(daemon, adopt=True)).changed
        await daemon.until(table_of(entry(real(1), real(2), real(3))))


async def test_an_order_about_what_is_foreign_says_that_it_does_nothing(tmp_path: Path) -> None:
    async with running(Blocking(TWO), tmp_path) as daemon:
        await daemon.until(table_of(entry(real(1), real(2))))
        assert (await move(daemon, adopt=False)).changed
        drained = await command(daemon, "drain", "app1", "--wait")
        assert drained.exit_code == 1
        row = "reco  10.0.0.1:8080  reco-1  serving  0 active, 0 inactive  reco is foreign, so lvsctl does not touch it"
        assert drained.output.splitlines() == [
            "node app1 is drained until it is undrained: nothing leaves",
            f"  {row}",
            f"  {row}",
            "node app1 stays drained, but 1 real server will not leave",
        ]
        for order in ("hold", "pause"):
            said = (await command(daemon, order, "reco")).output
            assert said.endswith("reco is foreign: lvsctl does not touch it before lvsctl adopt reco\n")
        assert daemon.kernel.observe().table == table_of(entry(real(1), real(2)))


class Slow(Watched):
    """A kernel that takes its time, and says when it is being read."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = False
        self.read = threading.Event()

    def observe(self, only: Iterable[VirtualServerKey] | None = None) -> Observed:
        """Return the table after a while."""
        if self.slow:
            self.read.set()
            time.sleep(0.3)
        return super().observe(only)


async def test_who_asks_while_a_cycle_is_under_way_is_served_by_the_next_one(tmp_path: Path) -> None:
    kernel = Slow()
    async with running(Services(), tmp_path, kernel) as daemon:
        await both_serve(daemon)
        await daemon.until_status(lambda status: status.kernel.in_sync_since is not None)
        kernel.slow = True
        first = asyncio.create_task(move(daemon, adopt=False))
        await asyncio.to_thread(kernel.read.wait)
        second = asyncio.create_task(move(daemon, adopt=False, name="shop"))
        async with asyncio.timeout(5):  # an audit comes later
            assert [(await each).changed for each in (first, second)] == [True, True]
        kernel.slow = False
        status = await daemon.status()
        assert [row.state for row in status.virtual_servers] == [State.FOREIGN, State.FOREIGN]


async def test_what_is_in_no_file_is_an_error(tmp_path: Path) -> None:
    async with running(Blocking(TWO), tmp_path) as daemon:
        with pytest.raises(DaemonError, match="no virtual server 'shop'"):
            await move(daemon, adopt=True, name="shop")

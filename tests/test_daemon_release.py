"""A hold that the daemon keeps until its time is over or an operator lets go, whatever is restarted meanwhile."""

import asyncio
import os
import signal
import socket
from pathlib import Path

import pytest
from aiohttp import web

from lvsctl import control
from lvsctl.core.status import Place, Released, State, Status
from lvsctl.errors import DaemonError
from lvsctl.releases import Releases
from tests.consul.server import Blocking, refusing
from tests.test_daemon import Running, running
from tests.values import config_of, entry, failing, instance, real, table_of

SIX = tuple(instance(number) for number in range(1, 7))


def held(status: Status) -> int:
    """Return how many real servers are held; as many as there are reasons shown."""
    (row,) = status.virtual_servers
    places = [each for each in row.real_servers if each.place is Place.HELD]
    assert all(each.why for each in places)
    assert (row.state is State.HELD) == bool(places)
    return len(places)


async def release(daemon: Running, name: str = "reco") -> Released:
    return await asyncio.to_thread(control.release, daemon.file.parent / "control.sock", name)


async def test_it_is_kept_through_reloads_and_restarts(tmp_path: Path) -> None:
    blocking = Blocking(SIX)
    async with running(blocking, tmp_path) as daemon:
        await daemon.until(table_of(entry(*map(real, range(1, 7)))))
        await blocking.change(SIX[0])
        status = await daemon.until_status(lambda status: held(status) == 2)
        assert "fewer than 3 of the 6 that served would be left; the floor is 3 until" in status.virtual_servers[0].note
        await daemon.until(table_of(entry(*map(real, range(1, 4)))))
    for _ in range(3):
        async with running(blocking, tmp_path, daemon.kernel) as daemon:
            await daemon.until_status(lambda status: held(status) == 2)
            for reload in range(1, 4):
                os.kill(os.getpid(), signal.SIGHUP)
                while len(daemon.events("reloaded")) < reload:
                    await daemon.status()
                assert held(await daemon.status()) == 2
            assert daemon.kernel.observe().table == table_of(entry(*map(real, range(1, 4))))


async def test_an_operator_releases_it_and_it_is_counted_anew(tmp_path: Path) -> None:
    blocking = Blocking(SIX)
    async with running(blocking, tmp_path) as daemon:
        await daemon.until(table_of(entry(*map(real, range(1, 7)))))
        await blocking.change(SIX[0], SIX[1])
        await daemon.until_status(lambda status: held(status) == 1)
        released = await release(daemon)
        assert released == Released(name="reco", real_servers=("10.0.0.3:8080",), serving=2)
        assert held(await daemon.status()) == 0
        await daemon.until(table_of(entry(real(1), real(2))))
        assert (await release(daemon)).real_servers == ()
        with pytest.raises(DaemonError, match="no virtual server 'rec'"):
            await release(daemon, "rec")
        said = daemon.events("released")
        assert said[0]["real_servers"] == ["10.0.0.3:8080"]
        assert said[0]["by"].endswith(f"pid {os.getpid()}")
        await blocking.change(SIX[0])
        await daemon.until(table_of(entry(real(1))))


async def test_the_last_ones_are_released_too(tmp_path: Path) -> None:
    blocking = Blocking((instance(1), instance(2)))
    async with running(blocking, tmp_path) as daemon:
        await daemon.until(table_of(entry(real(1), real(2))))
        await blocking.change()
        await daemon.until_status(lambda status: held(status) == 2)
        assert (await release(daemon)).serving == 0
        await daemon.until(table_of(entry()))
        await blocking.change(instance(2))
        await daemon.until(table_of(entry(real(2))))


async def test_two_at_once_are_both_answered_and_one_that_goes_away_hurts_nobody(tmp_path: Path) -> None:
    blocking = Blocking(SIX)
    async with running(blocking, tmp_path) as daemon:
        await daemon.until(table_of(entry(*map(real, range(1, 7)))))
        await blocking.change(SIX[0])
        await daemon.until_status(lambda status: held(status) == 2)
        with socket.socket(socket.AF_UNIX) as impatient:
            impatient.connect(str(daemon.file.parent / "control.sock"))
            impatient.sendall(b"POST /v1/release/reco HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        both = await asyncio.gather(release(daemon), release(daemon))
        assert all(each.serving == 1 for each in both)
        await daemon.until(table_of(entry(real(1))))
        assert held(await daemon.status()) == 0


async def test_while_consul_is_away_what_it_said_last_counts(tmp_path: Path) -> None:
    blocking = Blocking(SIX)
    away = False

    async def answering(request: web.Request) -> web.StreamResponse:
        return await (refusing(500)(request) if away else blocking(request))

    async with running(answering, tmp_path) as daemon:
        await daemon.until(table_of(entry(*map(real, range(1, 7)))))
        await blocking.change(SIX[0])
        await daemon.until_status(lambda status: held(status) == 2)
        away = True
        await blocking.change(SIX[0])  # what waits is answered, and asks again
        await daemon.until_status(lambda status: status.consul is not None and not status.consul.reachable)
        assert (await release(daemon)).serving == 1
        await daemon.until(table_of(entry(real(1))))


def test_who_waits_when_the_daemon_stops_is_told() -> None:
    async def asked() -> None:
        releases = Releases()
        waiting = releases.ask(config_of(), "reco")
        assert releases.ask(config_of(), "reco") is waiting
        releases.fail("the daemon is stopping; nothing was released")
        with pytest.raises(DaemonError, match=r"^the daemon is stopping; nothing was released$"):
            await waiting
        assert releases.keys == frozenset()

    asyncio.run(asked())


async def test_an_operator_lets_in_who_is_damped(tmp_path: Path) -> None:
    blocking = Blocking(SIX[:3])
    async with running(blocking, tmp_path, lines=["damping = true", 'drain_timeout = "0s"']) as daemon:
        await daemon.until(table_of(entry(*map(real, range(1, 4)))))
        for returns in range(4):
            await blocking.change(SIX[0], SIX[1], failing(3))
            await daemon.until(table_of(entry(real(1), real(2))))
            await blocking.change(*SIX[:3])
            if returns < 3:
                await daemon.until(table_of(entry(*map(real, range(1, 4)))))
        await daemon.until_status(lambda status: "damped until" in status.virtual_servers[0].real_servers[2].why)
        released = await release(daemon)
        assert released == Released(name="reco", real_servers=(), serving=3, let_in=("10.0.0.3:8080",))
        await daemon.until(table_of(entry(*map(real, range(1, 4)))))
        (said,) = daemon.events("released")
        assert (said["real_servers"], said["let_in"]) == ([], ["10.0.0.3:8080"])

"""A second opinion: who is knocked at, when, and what comes of it, with a kernel in memory and with real sockets."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address

import attrs
import pytest
from structlog.testing import capture_logs

from lvsctl import probing
from lvsctl.core.opinion import Opinion
from lvsctl.probing import OTHERS, Prober, knock
from netlink.types import RealServerKey
from tests.consul.server import DEADLINE
from tests.test_floor import Director, change, directing, set_instances
from tests.values import KEY, failing, real_key


@attrs.define
class Doors:
    """Who opens, by number, and how often each was knocked at."""

    open: set[int]
    knocks: dict[int, int] = attrs.field(factory=dict)

    async def __call__(self, key: RealServerKey) -> bool:
        number = int(key.address) & 255
        self.knocks[number] = self.knocks.get(number, 0) + 1
        await asyncio.sleep(0)
        return number in self.open


@attrs.define
class Knocking:
    """A director with six real servers, and who knocks for it."""

    director: Director
    doors: Doors
    prober: Prober
    woken: asyncio.Event

    def cycle(self) -> set[int]:
        """Reconcile once, as the daemon does; return who serves then."""
        self.director.opinion = self.prober.opinions.get(KEY, Opinion())
        cycle = self.director.cycle()
        assert cycle is not None
        self.prober.concern(cycle)
        self.director.world.now += 1
        return self.director.serving()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Return when it holds; looked at after each other opinion."""
        async with asyncio.timeout(DEADLINE):
            while not holds():
                await self.woken.wait()
                self.woken.clear()


@contextlib.asynccontextmanager
async def knocking(*opened: int, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Knocking]:
    """Have a director that wants opinions; doors of those numbers are open."""
    monkeypatch.setattr(probing, "EVERY", 0.001)
    woken, doors = asyncio.Event(), Doors(open=set(opened))
    with directing() as director:
        change(probe=True)(director)
        prober = Prober(woken.set, doors)
        task = asyncio.create_task(prober.run())
        try:
            yield Knocking(director=director, doors=doors, prober=prober, woken=woken)
            assert not task.done()
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def keys(*numbers: int) -> frozenset[RealServerKey]:
    return frozenset(map(real_key, numbers))


async def test_of_what_consul_calls_bad_the_living_stay_and_the_dead_go(monkeypatch: pytest.MonkeyPatch) -> None:
    async with knocking(1, 2, 5, 6, monkeypatch=monkeypatch) as here:
        assert here.cycle() == {1, 2, 3, 4, 5, 6}
        set_instances([1, 2, 3, 4], failing)(here.director)
        assert here.cycle() == {1, 2, 3, 4, 5, 6}, "nobody goes before it is known"
        with capture_logs() as logs:
            await here.until(lambda: here.prober.opinions[KEY].silent == keys(3, 4))
        assert here.prober.take_news() == {KEY}
        assert here.cycle() == {1, 2, 5, 6}
        told = [each for each in logs if each["event"] == "probed"][-1]
        assert (told["name"], told["answering"], told["silent"]) == (
            "reco",
            ["10.0.0.1:8080", "10.0.0.2:8080"],
            ["10.0.0.3:8080", "10.0.0.4:8080"],
        )
        for _ in range(3):
            here.director.world.now += 250
            assert here.cycle() == {1, 2, 5, 6}, "they stay as long as the floor asks for more"
        here.director.world.now += 250
        assert here.cycle() == {5, 6}, "half of the four that served lately"
        assert here.prober.opinions == {}


async def test_whoever_falls_silent_later_goes_then(monkeypatch: pytest.MonkeyPatch) -> None:
    async with knocking(1, 2, 3, 4, 5, 6, monkeypatch=monkeypatch) as here:
        here.cycle()
        set_instances([1, 2, 3, 4, 5], lambda _: None)(here.director)
        assert here.cycle() == {1, 2, 3, 4, 5, 6}
        await here.until(lambda: here.prober.opinions[KEY].answering == keys(1, 2, 3, 4, 5, 6))
        here.doors.open -= {2}
        await here.until(lambda: here.prober.opinions[KEY].silent == keys(2))
        assert here.cycle() == {1, 3, 4, 5, 6}


async def test_who_reaches_nobody_has_no_opinion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then half of six stay, as they would without it."""
    async with knocking(monkeypatch=monkeypatch) as here:
        here.cycle()
        set_instances([1, 2, 3, 4, 5], failing)(here.director)
        assert here.cycle() == {1, 2, 3, 4, 5, 6}
        with capture_logs() as logs:
            await here.until(lambda: len(here.prober.opinions[KEY].silent) == 6)
        assert here.cycle() == {1, 2, 6}
        (told,) = [each for each in logs if each["event"] == "probed"]
        assert told["why"] == "nobody answers, not even what serves, so this is no opinion"


async def test_the_last_ones_stay_though_they_are_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    async with knocking(1, monkeypatch=monkeypatch) as here:
        change(floor=0)(here.director)
        here.cycle()
        set_instances([1, 2, 3, 4, 5, 6], failing)(here.director)
        assert here.cycle() == {1, 2, 3, 4, 5, 6}
        await here.until(lambda: len(here.prober.opinions[KEY].silent) == 5)
        assert here.cycle() == {1}
        here.doors.open.clear()
        await here.until(lambda: real_key(1) in here.prober.opinions[KEY].silent)
        assert here.cycle() == {1}


async def test_nobody_is_knocked_at_without_need_and_few_of_those_that_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    async with knocking(1, 2, 3, 4, 5, 6, monkeypatch=monkeypatch) as here:
        here.cycle()
        set_instances([1], lambda _: None)(here.director)
        here.cycle()
        assert not here.doors.knocks
        change(floor=100)(here.director)
        set_instances([2], failing)(here.director)
        here.cycle()
        await here.until(lambda: len(here.prober.opinions[KEY].answering) == 1 + OTHERS)
        assert set(here.doors.knocks) == {2, 3, 4, 5}
        assert len(here.doors.knocks) == 1 + OTHERS
        change(probe=False)(here.director)
        here.cycle()
        assert here.prober.opinions == {}


async def test_a_knock_is_a_connection() -> None:
    here = ip_address("127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert await knock(RealServerKey(address=here, port=port))
        connection, _ = server.accept()
        with connection:
            assert connection.recv(1) == b"", "nothing is sent"
    assert not await knock(RealServerKey(address=here, port=port))

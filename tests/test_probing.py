"""A second opinion: who is knocked at, when, and what comes of it, with a kernel in memory and with real sockets."""

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address

import attrs
import pytest
from structlog.testing import capture_logs

from lvsctl import probing
from lvsctl.config import Probe
from lvsctl.core.event import Event
from lvsctl.core.event_words import sentence
from lvsctl.core.instance import Health
from lvsctl.core.opinion import ALONE, REFUSALS, Found, Opinion
from lvsctl.probing import OTHERS, Prober, knock
from netlink.requests import Flush
from netlink.types import RealServerKey
from tests.consul.server import DEADLINE
from tests.test_floor import Director, change, directing, set_instances
from tests.values import KEY, failing, instance, real_key


@attrs.define
class Doors:
    """Who opens, by number, and how often each was knocked at."""

    open: set[int]
    refusing: set[int] = attrs.field(factory=set)
    untried: set[int] = attrs.field(factory=set)
    broken: set[int] = attrs.field(factory=set)
    hanging: set[int] = attrs.field(factory=set)
    knocks: dict[int, int] = attrs.field(factory=dict)
    now: int = 0
    most: int = 0  # at a time

    async def __call__(self, key: RealServerKey) -> Found | None:
        number = int(key.address) & 255
        self.knocks[number] = self.knocks.get(number, 0) + 1
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0)
        self.now -= 1
        if number in self.hanging:
            await asyncio.get_running_loop().create_future()
        if number in self.broken:
            raise ValueError(number)
        if number in self.untried:
            return None
        if number in self.open:
            return Found.OPEN
        return Found.REFUSED if number in self.refusing else Found.SILENT

    async def rounds(self, many: int) -> None:
        """Return after so many more rounds."""
        before = max(self.knocks.values(), default=0)
        async with asyncio.timeout(DEADLINE):
            while max(self.knocks.values(), default=0) <= before + many:  # noqa: ASYNC110 -- of a loop under test
                await asyncio.sleep(0.001)


@attrs.define
class Knocking:
    """A director with six real servers, and who knocks for it."""

    director: Director
    doors: Doors
    prober: Prober
    woken: asyncio.Event
    told: list[Event] = attrs.field(factory=list)

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
async def knocking(*opened: int, monkeypatch: pytest.MonkeyPatch, probe: Probe = Probe.ALL) -> AsyncIterator[Knocking]:
    """Have a director that wants opinions; doors of those numbers are open."""
    for name in ("QUICK", "EVERY", "CONFIRM"):
        monkeypatch.setattr(probing, name, 0.001)
    monkeypatch.setattr(probing, "MOST_A_SECOND", 1_000_000)
    woken, doors = asyncio.Event(), Doors(open=set(opened))
    with directing() as director:
        change(probe=probe)(director)
        told: list[Event] = []
        prober = Prober(woken.set, doors, told.append)
        task = asyncio.create_task(prober.run())
        try:
            yield Knocking(director=director, doors=doors, prober=prober, woken=woken, told=told)
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
            await here.until(lambda: here.prober.opinions[KEY].dead == keys(3, 4))
        assert here.prober.take_news() == {KEY}
        assert here.cycle() == {1, 2, 5, 6}
        told = [each for each in logs if each["event"] == "probed"]
        assert told == [
            {
                "event": "probed",
                "log_level": "warning",
                "name": "reco",
                "alive": ["10.0.0.1:8080", "10.0.0.2:8080"],
            },
            {"event": "probed", "log_level": "warning", "name": "reco", "dead": ["10.0.0.3:8080", "10.0.0.4:8080"]},
        ]
        assert [sentence(each) for each in here.told] == [
            "tcp 10.9.0.100:80 was probed by lvsctl itself (alive 10.0.0.1:8080, 10.0.0.2:8080)",
            "tcp 10.9.0.100:80 was probed by lvsctl itself (dead 10.0.0.3:8080, 10.0.0.4:8080)",
        ]
        decision = here.director.world.reconciler._decision.virtual_servers[KEY]  # type: ignore[union-attr]  # noqa: SLF001
        causes = decision.leaving_causes
        assert causes.keys() == keys(3, 4)
        assert all(each.text.endswith("; it takes no connection of lvsctl's either") for each in causes.values())


async def test_it_ends_when_it_would_without_an_opinion(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes connections may hang all the same, and Consul has said so for long enough then."""
    async with knocking(1, 2, 3, 4, 5, 6, monkeypatch=monkeypatch) as here:
        here.cycle()
        set_instances([1, 2, 3, 4], failing)(here.director)
        here.cycle()
        await here.until(lambda: here.prober.opinions[KEY].alive == keys(1, 2, 3, 4))
        for _ in range(3):
            assert here.cycle() == {1, 2, 3, 4, 5, 6}
            here.director.world.now += 250
        here.director.world.now += 250
        assert here.cycle() == {5, 6}, "half of the three that serve by Consul or by the floor"
        assert here.prober.opinions == {}


async def test_whoever_dies_later_goes_then(monkeypatch: pytest.MonkeyPatch) -> None:
    async with knocking(1, 2, 3, 4, 5, 6, monkeypatch=monkeypatch) as here:
        here.cycle()
        set_instances([1, 2, 3, 4, 5], lambda _: None)(here.director)
        assert here.cycle() == {1, 2, 3, 4, 5, 6}
        await here.until(lambda: here.prober.opinions[KEY].alive == keys(1, 2, 3, 4, 5))
        here.doors.open -= {2}
        await here.until(lambda: here.prober.opinions[KEY].dead == keys(2))
        assert here.cycle() == {1, 3, 4, 5, 6}


async def test_who_reaches_nobody_for_a_while_forgets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with knocking(1, 2, 3, 4, 5, 6, monkeypatch=monkeypatch) as here:
        here.cycle()
        set_instances([1, 2, 3, 4], failing)(here.director)
        here.cycle()
        await here.until(lambda: here.prober.opinions[KEY].alive == keys(1, 2, 3, 4))
        here.doors.open.clear()
        await here.doors.rounds(2 * ALONE)
        assert here.cycle() == {1, 2, 3, 4, 5, 6}
        here.doors.open |= {1, 5, 6}
        await here.until(lambda: here.prober.opinions[KEY].dead == keys(2, 3, 4))
        assert here.cycle() == {1, 5, 6}


async def test_who_never_reaches_anybody_that_serves_has_no_opinion_of_the_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Then half of six stay, as they would without it, and who answers beside them."""
    async with knocking(5, monkeypatch=monkeypatch) as here:
        here.cycle()
        set_instances([1, 2, 3, 4, 5], failing)(here.director)
        assert here.cycle() == {1, 2, 3, 4, 5, 6}
        await here.until(lambda: here.prober.opinions[KEY].unknowable == keys(1, 2, 3, 4))
        assert here.cycle() == {1, 2, 5, 6}


async def test_the_last_ones_stay_though_they_are_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    async with knocking(1, monkeypatch=monkeypatch) as here:
        change(floor=0)(here.director)
        here.cycle()
        set_instances([1, 2, 3, 4, 5, 6], failing)(here.director)
        assert here.cycle() == {1, 2, 3, 4, 5, 6}
        await here.until(lambda: len(here.prober.opinions[KEY].dead) == 5)
        assert here.cycle() == {1}
        here.doors.open.clear()
        await here.doors.rounds(2 * ALONE)
        assert here.cycle() == {1}


async def test_a_doubt_of_one_takes_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async with knocking(1, 2, 3, 4, 5, 6, monkeypatch=monkeypatch) as here:
        here.cycle()
        set_instances([1, 2, 3, 4], failing)(here.director)
        here.cycle()
        await here.until(lambda: here.prober.opinions[KEY].alive == keys(1, 2, 3, 4))
        set_instances([5], lambda _: None)(here.director)
        change(doubt="x")(here.director)
        assert here.cycle() == {1, 2, 3, 4, 5, 6}
        set_instances([5], instance)(here.director)
        change(doubt="")(here.director)
        assert here.cycle() == {1, 2, 3, 4, 5, 6}


async def test_what_is_ours_says_nothing_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    async with knocking(1, 2, 5, 6, monkeypatch=monkeypatch) as here:
        here.cycle()
        set_instances([1, 2, 3, 4], failing)(here.director)
        here.doors.untried, here.doors.broken = {3}, {4}
        here.cycle()
        await here.until(lambda: here.prober.opinions[KEY].alive == keys(1, 2))
        await here.doors.rounds(2 * ALONE)
        assert here.cycle() == {1, 2, 3, 4, 5, 6}


async def test_who_is_not_in_the_table_is_not_put_there_to_find_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async with knocking(5, 6, monkeypatch=monkeypatch) as here:
        here.cycle()
        set_instances([1, 2, 3, 4], failing)(here.director)
        here.director.kernel.apply([Flush()])
        assert here.cycle() == {1, 5, 6}


async def test_maintenance_counts_where_others_live(monkeypatch: pytest.MonkeyPatch) -> None:
    async with knocking(1, 2, 3, 4, 5, 6, monkeypatch=monkeypatch) as here:
        here.cycle()
        set_instances([1, 2], lambda number: failing(number, Health.MAINTENANCE))(here.director)
        set_instances([3, 4, 5, 6], failing)(here.director)
        here.cycle()
        await here.until(lambda: here.prober.opinions[KEY].alive >= keys(3, 4, 5, 6))
        assert here.cycle() == {3, 4, 5, 6}


async def test_nobody_is_knocked_at_without_need_and_few_of_those_that_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    async with knocking(1, 2, 3, 4, 5, 6, monkeypatch=monkeypatch) as here:
        here.cycle()
        set_instances([1], lambda _: None)(here.director)
        here.cycle()
        assert not here.doors.knocks
        change(floor=100)(here.director)
        set_instances([2], failing)(here.director)
        here.cycle()
        await here.until(lambda: here.prober.opinions[KEY].alive == keys(2))
        await here.doors.rounds(5)
        assert here.doors.knocks.keys() == {2}, "as long as it opens"
        here.doors.open.discard(2)
        await here.until(lambda: here.prober.opinions[KEY].dead == keys(2))
        assert len(here.doors.knocks) == 1 + OTHERS
        change(probe=Probe.NOBODY)(here.director)
        here.cycle()
        assert here.prober.opinions == {}
        before = dict(here.doors.knocks)
        await asyncio.sleep(0.02)
        assert here.doors.knocks == before


async def test_by_default_what_is_held_is_asked_and_goes_when_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six become two, orderly: four may leave at once, and the floor holds one, until its program stops, too."""
    async with knocking(*range(1, 7), monkeypatch=monkeypatch, probe=Probe.HELD) as here:
        here.cycle()
        set_instances([1, 2, 3, 4], lambda _: None)(here.director)
        assert here.cycle() == {1, 5, 6}
        await here.until(lambda: here.prober.opinions[KEY].alive == keys(1))
        assert here.cycle() == {1, 5, 6}
        assert here.doors.knocks.keys() == {1}, "nobody else, as long as it opens"
        here.doors.open, here.doors.refusing = {5, 6}, {1}
        before = here.doors.knocks[1]
        with capture_logs() as logs:
            await here.until(lambda: here.prober.opinions[KEY].dead == keys(1))
        assert here.doors.knocks[1] - before <= REFUSALS + 1
        assert here.doors.knocks.keys() == {1, 5, 6}
        assert [each["dead"] for each in logs if each["event"] == "probed"] == [["10.0.0.1:8080"]]
        assert here.cycle() == here.cycle() == {5, 6}
        assert here.prober.opinions == {}


async def test_by_default_the_floor_is_of_those_that_live(monkeypatch: pytest.MonkeyPatch) -> None:
    async with knocking(2, 3, 4, 5, 6, monkeypatch=monkeypatch, probe=Probe.HELD) as here:
        change(floor=100)(here.director)
        here.doors.refusing = {1}
        here.cycle()
        set_instances([1, 2, 3], failing)(here.director)
        assert here.cycle() == {1, 2, 3, 4, 5, 6}
        await here.until(lambda: here.prober.opinions[KEY].dead == keys(1))
        assert here.cycle() == {2, 3, 4, 5, 6}


async def test_by_default_who_never_answered_is_judged_by_those_alone_that_all_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Behind a firewall that refuses for some, or where some listen at the virtual address alone, it means nothing."""
    async with knocking(2, 5, monkeypatch=monkeypatch, probe=Probe.HELD) as here:
        change(floor=100)(here.director)
        here.doors.refusing = {1, 6}
        here.cycle()
        set_instances([1, 2], lambda _: None)(here.director)
        assert here.cycle() == {1, 2, 3, 4, 5, 6}
        await here.doors.rounds(2 * ALONE)
        assert here.prober.opinions[KEY] == Opinion(alive=keys(2), unknowable=keys(1))
        here.doors.open.remove(2)
        await here.until(lambda: here.prober.opinions[KEY].dead == keys(2))
        assert here.cycle() == {1, 3, 4, 5, 6}


async def test_by_default_an_empty_answer_takes_nobody_whom_the_director_never_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with knocking(1, 99, monkeypatch=monkeypatch, probe=Probe.HELD) as here:
        change(fallback=real_key(99))(here.director)
        here.doors.refusing = {2, 3, 4}
        here.cycle()
        set_instances([*range(1, 7)], lambda _: None)(here.director)
        assert here.cycle() == {1, 2, 3, 4, 5, 6}
        await here.until(lambda: here.prober.opinions[KEY].unknowable == keys(2, 3, 4, 5, 6))
        await here.doors.rounds(2 * ALONE)
        assert here.cycle() == {1, 2, 3, 4, 5, 6}
        assert here.prober.opinions[KEY].dead == frozenset()


async def test_by_default_the_last_ones_go_to_a_fallback_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with knocking(*range(1, 7), 99, monkeypatch=monkeypatch, probe=Probe.HELD) as here:
        here.cycle()
        set_instances([*range(1, 7)], lambda _: None)(here.director)
        assert here.cycle() == {1, 2, 3, 4, 5, 6}
        await here.until(lambda: len(here.prober.opinions[KEY].alive) == 6)
        here.doors.refusing = {*range(1, 7)}
        here.doors.open = {6, 99}
        await here.until(lambda: here.prober.opinions[KEY].dead == keys(1, 2, 3, 4, 5))
        assert here.cycle() == {6}
        here.doors.open = {99}
        await here.doors.rounds(2 * ALONE)
        assert here.cycle() == {6}, "the last one stays, for nothing takes over"
        change(fallback=real_key(99))(here.director)
        here.cycle()
        await here.until(lambda: here.prober.opinions[KEY].dead == keys(6))
        assert here.cycle() == {99}


async def test_who_is_silent_keeps_no_one_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async with knocking(1, 5, 6, monkeypatch=monkeypatch, probe=Probe.HELD) as here:
        change(floor=100)(here.director)
        here.doors.hanging = {2}
        here.cycle()
        set_instances([1, 2], lambda _: None)(here.director)
        here.cycle()
        await here.until(lambda: here.prober.opinions[KEY].alive == keys(1))
        here.doors.open, here.doors.refusing = {3, 4, 5, 6}, {1}
        await here.until(lambda: here.prober.opinions[KEY].dead == keys(1))
        assert here.doors.knocks[2] == 1, "the first of them hangs still"
        assert here.cycle() == {2, 3, 4, 5, 6}


async def test_where_many_are_held_they_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "MOST_OF_ONE", 2)
    async with knocking(*range(1, 7), monkeypatch=monkeypatch, probe=Probe.HELD) as here:
        change(floor=100)(here.director)
        here.cycle()
        set_instances([1, 2, 3, 4, 5], failing)(here.director)
        assert here.cycle() == {1, 2, 3, 4, 5, 6}
        await here.until(lambda: here.prober.opinions[KEY].alive == keys(1, 2, 3, 4, 5))
        assert here.doors.most == 2
        await here.doors.rounds(10)
        knocks = [here.doors.knocks[number] for number in range(1, 6)]
        assert max(knocks) - min(knocks) <= 1
        here.doors.open, here.doors.refusing = {6}, {1, 2, 3, 4, 5}
        await here.until(lambda: here.prober.opinions[KEY].dead == keys(1, 2, 3, 4, 5))
        assert here.cycle() == {6}


async def test_a_knock_is_a_connection() -> None:
    here = ip_address("127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert await knock(RealServerKey(address=here, port=port)) is Found.OPEN
        connection, _ = server.accept()
        with connection:
            assert connection.recv(1) == b"", "nothing is sent"
    assert await knock(RealServerKey(address=here, port=port)) is Found.REFUSED


async def test_no_route_is_as_slow_as_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may say at once that there is none for now, and five times is soon then."""
    loop = asyncio.get_running_loop()

    async def no_route(_: socket.socket, address: tuple[str, int]) -> None:
        raise OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH), address)

    monkeypatch.setattr(loop, "sock_connect", no_route)
    monkeypatch.setattr(probing, "PATIENCE", 0.05)
    began = loop.time()
    assert await knock(real_key(1)) is Found.SILENT
    assert loop.time() - began >= 0.04

"""The client for asyncio: the same answers, never a blocked event loop, and what a cancelled task leaves behind."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import get_type_hints

import pytest

from netlink.aio import AsyncIPVS
from netlink.client import Client
from netlink.errors import Invalid, Malformed, NetlinkError, Refused, Unavailable
from netlink.fake import FakeIPVS
from netlink.ipvs import IPVS
from netlink.requests import AddVirtualServer, DeleteVirtualServer, Request, SetTimeouts, StartSyncDaemon
from netlink.types import Connection, Lacking, SyncDaemon, SyncRole, Timeouts, VirtualServer, VirtualServerKey
from tests.lab.waiting import eventually
from tests.netlink.test_connections import MEANT
from tests.netlink.test_contract import TCP, UDP6

ADD = AddVirtualServer(virtual_server=VirtualServer(key=TCP))


class Slow(FakeIPVS):
    """A kernel that takes its time over `apply`: until `go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.go = threading.Event()
        self.closed = 0
        self.threads: set[int] = set()

    def apply(self, requests: Sequence[Request]) -> list[Refused | None]:
        self.begun.set()
        assert self.go.wait(10)
        return super().apply(requests)

    def glance(self):  # type: ignore[no-untyped-def]
        self.threads.add(threading.get_ident())
        return super().glance()

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def slow() -> Slow:
    return Slow()


def opener(client: Client) -> Callable[[], Client]:
    return lambda: client


async def test_it_has_every_method_of_a_client(slow: Slow) -> None:
    slow.go.set()
    slow.set_connections(*MEANT)
    async with AsyncIPVS(open_client=opener(slow)) as ipvs:
        assert (await ipvs.observe()).table == {}
        done, refused = await ipvs.apply([ADD, ADD])
        assert done is None
        assert "exists already" in str(refused)
        assert list((await ipvs.observe(only=iter([TCP, UDP6]))).table) == [TCP]
        assert (await ipvs.glance()).virtual_servers == 1
        assert await ipvs.census() == {TCP: 0}
        assert await ipvs.timeouts() == Timeouts()
        assert await ipvs.sync_daemons() == ()
        assert (await ipvs.info()).version == (1, 2, 1)
        assert [each async for each in ipvs.connections()] == MEANT
        assert await ipvs.lacking(schedulers=["rr", "x"], persistence_engines=["sip"]) == Lacking(
            schedulers=frozenset({"x"})
        )
    public = {name for name in vars(Client) if not name.startswith("_")}
    assert public <= {name for name in vars(AsyncIPVS) if not name.startswith("_")}
    for name in public - {"connections", "close"}:
        theirs, ours = get_type_hints(getattr(Client, name)), get_type_hints(getattr(AsyncIPVS, name))
        assert theirs == ours, name


async def test_errors_come_through(slow: Slow) -> None:
    async with AsyncIPVS(open_client=opener(slow)) as ipvs:
        slow.fail_next_observe(Malformed("read", "the IPVS table", "a test said so"))
        with pytest.raises(Malformed, match="a test said so"):
            await ipvs.observe()
        assert (await ipvs.observe()).table == {}
        with pytest.raises(Invalid, match="virtual server"):
            await ipvs.observe([VirtualServerKey.by_mark(0)])


async def test_the_event_loop_goes_on_meanwhile(slow: Slow) -> None:
    async with AsyncIPVS(open_client=opener(slow)) as ipvs:
        applied = asyncio.create_task(ipvs.apply([ADD]), name="apply")
        await asyncio.to_thread(slow.begun.wait, 10)
        assert not applied.done()
        slow.go.set()
        assert await applied == [None]


async def test_tasks_use_one_client_in_turn(slow: Slow) -> None:
    slow.go.set()
    keys = [VirtualServerKey.by_mark(mark) for mark in range(1, 51)]
    async with AsyncIPVS(open_client=opener(slow)) as ipvs, asyncio.TaskGroup() as tasks:
        for key in keys:
            tasks.create_task(ipvs.apply([AddVirtualServer(virtual_server=VirtualServer(key=key))]), name=str(key))
            tasks.create_task(ipvs.glance(), name=f"glance {key}")
    assert set(slow.observe().table) == set(keys)
    assert len(slow.threads) == 1
    assert threading.get_ident() not in slow.threads


async def test_what_was_begun_is_done_and_what_was_not_is_not(slow: Slow) -> None:
    async with AsyncIPVS(open_client=opener(slow)) as ipvs:
        begun = asyncio.create_task(ipvs.apply([ADD]), name="begun")
        await asyncio.to_thread(slow.begun.wait, 10)
        waiting = asyncio.create_task(ipvs.apply([DeleteVirtualServer(key=TCP)]), name="waiting")
        after = asyncio.create_task(ipvs.observe(), name="after")
        await asyncio.sleep(0)  # each has its first step
        for task in (begun, waiting):
            task.cancel()
        for task in (begun, waiting):
            with pytest.raises(asyncio.CancelledError):
                await task
        slow.go.set()
        assert list((await after).table) == [TCP], "the addition was done and the deletion was not"
        assert slow.writes == [ADD]
        assert await ipvs.apply([DeleteVirtualServer(key=TCP)]) == [None], "the client is as good as before"


async def test_a_timeout_leaves_the_client_usable(slow: Slow) -> None:
    async with AsyncIPVS(open_client=opener(slow)) as ipvs:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await ipvs.apply([ADD])
        slow.go.set()
        assert len((await ipvs.observe()).table) == len(slow.writes)


async def test_it_is_closed_once_and_for_all(slow: Slow) -> None:
    ipvs = AsyncIPVS(open_client=opener(slow))
    with pytest.raises(RuntimeError, match="not open"):
        await ipvs.info()
    async with ipvs:
        assert slow.closed == 0
    assert slow.closed == 1
    await ipvs.close()
    assert slow.closed == 1
    with pytest.raises(RuntimeError, match="not open"):
        await ipvs.info()
    with pytest.raises(RuntimeError, match="closed"):
        await ipvs.open()


async def test_closing_waits_for_what_is_under_way_and_happens_though_it_is_cancelled(slow: Slow) -> None:
    ipvs = AsyncIPVS(open_client=opener(slow))
    await ipvs.open()
    applied = asyncio.create_task(ipvs.apply([ADD]), name="apply")
    await asyncio.to_thread(slow.begun.wait, 10)
    closing = asyncio.create_task(ipvs.close(), name="close")
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert slow.closed == 0
    slow.go.set()
    assert await applied == [None]
    await asyncio.to_thread(eventually, lambda: slow.closed)


async def test_what_cannot_be_opened_leaves_no_thread() -> None:
    def refuse() -> Client:
        raise Unavailable("open", "IPVS", "a test said so")

    before = threading.active_count()
    with pytest.raises(Unavailable, match="a test said so"):
        async with AsyncIPVS(open_client=refuse):
            raise AssertionError
    eventually(lambda: threading.active_count() <= before)


async def test_connections_are_read_some_at_a_time_and_given_up() -> None:
    read = closed = 0

    class Many(FakeIPVS):
        def connections(self) -> Generator[Connection, None, None]:
            given.append(endless())
            return given[0]

    def endless() -> Generator[Connection, None, None]:
        nonlocal read, closed
        try:
            while True:
                read += 1
                yield MEANT[0]
        finally:
            closed += 1

    given: list[Generator[Connection, None, None]] = []  # so that nobody else closes it
    async with AsyncIPVS(open_client=Many) as ipvs:
        some = ipvs.connections()
        assert await anext(some) == MEANT[0]
        assert read == 1000
        assert [await anext(some) for _ in range(1500)] == [MEANT[0]] * 1500
        assert read == 2000
        await some.aclose()
        assert (await ipvs.info()).version == (1, 2, 1)
        assert closed == 1


# ---- the real kernel


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.kernel
async def test_the_kernel_answers(kernel: IPVS) -> None:
    async with AsyncIPVS() as ipvs:
        daemon = SyncDaemon(role=SyncRole.MASTER, interface="lo", max_length=1000)
        assert (
            await ipvs.apply([ADD, SetTimeouts(timeouts=Timeouts(tcp=5)), StartSyncDaemon(daemon=daemon)]) == [None] * 3
        )
        assert (await ipvs.observe()).table == kernel.observe().table != {}
        assert (await ipvs.glance()) == kernel.glance()
        assert await ipvs.timeouts() == Timeouts(tcp=5)
        assert await ipvs.sync_daemons() == (daemon,)
        assert [each async for each in ipvs.connections()] == list(kernel.connections())
        assert await ipvs.lacking(schedulers=["nosuch"]) == Lacking(schedulers=frozenset({"nosuch"}))


@pytest.mark.kernel
async def test_the_event_loop_runs_while_a_large_table_is_read(kernel: IPVS) -> None:
    marks = [VirtualServerKey.by_mark(mark) for mark in range(1, 2001)]
    kernel.apply([AddVirtualServer(virtual_server=VirtualServer(key=key)) for key in marks])
    async with AsyncIPVS() as ipvs:
        turns = 0
        reading = asyncio.create_task(ipvs.observe(), name="observe")
        while not reading.done():
            await asyncio.sleep(0)
            turns += 1
        assert len((await reading).table) == 2000
        assert turns > 2


@pytest.mark.kernel
async def test_no_descriptor_is_left(kernel: IPVS) -> None:
    assert kernel.observe().table == {}
    before = descriptors()
    for _ in range(5):
        async with AsyncIPVS() as ipvs:
            await ipvs.glance()
            async with contextlib.aclosing(ipvs.connections()) as connections:
                async for _ in connections:
                    break
    assert descriptors() == before
    with pytest.raises(NetlinkError):
        async with AsyncIPVS("no-such-namespace"):
            raise AssertionError
    assert descriptors() == before

"""Who else adds to the table or takes from it is noticed at once; what we do ourselves, and counters, are not."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.pulse import BEAT, REST, Pulse
from netlink.errors import NetlinkError, Unavailable
from netlink.fake import FakeIPVS
from netlink.requests import (
    AddRealServer,
    AddVirtualServer,
    DeleteRealServer,
    DeleteVirtualServer,
    Flush,
    Request,
    SetRealServer,
)
from netlink.types import Family, VirtualServer, VirtualServerKey
from tests.values import KEY, real

MARK, SIX = VirtualServerKey.by_mark(7), VirtualServerKey.by_mark(7, Family.IPV6)
KEYS = (KEY, MARK)
requests = st.one_of(
    st.builds(lambda key: AddVirtualServer(virtual_server=VirtualServer(key=key)), st.sampled_from((*KEYS, SIX))),
    st.builds(lambda key: DeleteVirtualServer(key=key), st.sampled_from((*KEYS, SIX))),
    st.builds(
        lambda key, number: AddRealServer(virtual_server=key, real_server=real(number)),
        st.sampled_from(KEYS),
        st.integers(1, 3),
    ),
    st.builds(
        lambda key, number: SetRealServer(virtual_server=key, real_server=real(number, 5)),
        st.sampled_from(KEYS),
        st.integers(1, 3),
    ),
    st.builds(
        lambda key, number: DeleteRealServer(virtual_server=key, key=real(number).key),
        st.sampled_from(KEYS),
        st.integers(1, 3),
    ),
)


def is_ours(key: VirtualServerKey) -> bool:
    """Tell the marked one, which is another's, from ours."""
    return key != MARK


def done(kernel: FakeIPVS, asked: Sequence[Request]) -> list[Request]:
    """Have `asked` done and return what was."""
    return [request for request, refused in zip(asked, kernel.apply(asked), strict=True) if refused is None]


@given(batches=st.lists(st.lists(requests, max_size=6), max_size=6))
def test_what_we_do_ourselves_is_no_news(batches: list[list[Request]]) -> None:
    kernel = FakeIPVS()
    pulse, now = Pulse(kernel.census, is_ours), 0.0
    assert not pulse.beat(now)
    for batch in batches:
        pulse.wrote(done(kernel, batch))
        now += REST
        assert not pulse.beat(now)


@given(ours=st.lists(requests, max_size=9), theirs=st.lists(requests, max_size=4), more=st.lists(requests, max_size=4))
def test_what_others_do_is_news_once_whatever_we_do_meanwhile(
    ours: list[Request], theirs: list[Request], more: list[Request]
) -> None:
    kernel = FakeIPVS()
    pulse = Pulse(kernel.census, is_ours)
    assert not pulse.beat(0.0)
    pulse.wrote(done(kernel, ours))
    assert not pulse.beat(REST)
    done(kernel, theirs)
    alone = FakeIPVS()
    done(alone, ours)
    before = alone.census()
    assert pulse.beat(2 * REST) is (kernel.census() != before)
    pulse.wrote(done(kernel, more))
    assert not pulse.beat(3 * REST)


def test_a_flush_is_news_although_we_write_in_the_same_moment() -> None:
    kernel = FakeIPVS()
    pulse = Pulse(kernel.census, is_ours)
    first = [AddVirtualServer(virtual_server=VirtualServer(key=key)) for key in KEYS]
    assert not pulse.beat(0.0)
    pulse.wrote(done(kernel, [*first, AddRealServer(virtual_server=KEY, real_server=real(1))]))
    assert not pulse.beat(1.0)
    done(kernel, [Flush()])
    pulse.wrote(done(kernel, [first[0], AddRealServer(virtual_server=KEY, real_server=real(1))]))
    assert pulse.beat(2.0)


def test_who_changes_it_all_the_time_is_told_of_once_in_a_while_and_never_missed() -> None:
    kernel = FakeIPVS()
    pulse = Pulse(kernel.census, is_ours)
    assert not pulse.beat(0.0)
    told = []
    for number in range(1, 40):
        wanted = bool(number % 2) or number > 30
        kernel.apply(
            [AddVirtualServer(virtual_server=VirtualServer(key=KEY)) if wanted else DeleteVirtualServer(key=KEY)]
        )
        if pulse.beat(1.0 + number * REST / 10):
            told.append(number)
    assert told[:3] == [1, 12, 23], "the first at once, and where it comes back to what it was there is nothing to tell"
    assert pulse.beat(99.0) is False, "the last was told"


def test_ours_is_told_of_at_once_while_others_are_busy_with_theirs() -> None:
    kernel = FakeIPVS()
    pulse = Pulse(kernel.census, is_ours)
    assert not pulse.beat(0.0)
    pulse.wrote(done(kernel, [AddVirtualServer(virtual_server=VirtualServer(key=KEY))]))
    assert not pulse.beat(1.0)
    kernel.apply([AddVirtualServer(virtual_server=VirtualServer(key=MARK))])
    assert pulse.beat(2.0)
    kernel.apply([AddRealServer(virtual_server=MARK, real_server=real(1))])
    assert not pulse.beat(2.0 + REST / 4), "it was told of another's a moment ago"
    kernel.apply([DeleteVirtualServer(key=KEY)])
    assert pulse.beat(2.0 + REST / 2)
    kernel.apply([AddVirtualServer(virtual_server=VirtualServer(key=KEY))])
    assert not pulse.beat(2.0 + REST), "who takes ours away again and again is answered once in a while, too"
    assert pulse.beat(2.0 + 2 * REST)


async def test_it_beats_while_nobody_is_busy_and_ends_where_the_kernel_cannot_count() -> None:
    counts: list[Mapping[VirtualServerKey, int] | NetlinkError] = [
        {KEY: 1},
        NetlinkError("count", "the real servers", "interrupted"),
        {KEY: 1},
        {KEY: 0},
        {KEY: 0},
        Unavailable("count", "the real servers", "protocol not available"),
    ]
    told, busy = [], [False, True, False, False, False, False, True, False]

    def count() -> Mapping[VirtualServerKey, int]:
        found = counts.pop(0)
        if isinstance(found, NetlinkError):
            raise found
        return found

    pulse = Pulse(count, is_ours)
    async with asyncio.timeout(100 * BEAT):
        await pulse.run(lambda: told.append(len(counts)), is_busy=lambda: busy.pop(0))
    assert (counts, busy, told) == ([], [], [2])


async def test_it_goes_on_until_it_is_cancelled() -> None:
    seen = asyncio.Event()
    kernel = FakeIPVS()
    beating = asyncio.create_task(Pulse(kernel.census, is_ours).run(seen.set, is_busy=lambda: False), name="pulse")
    await asyncio.sleep(3 * BEAT)
    kernel.apply([AddVirtualServer(virtual_server=VirtualServer(key=KEY))])
    async with asyncio.timeout(100 * BEAT):
        await seen.wait()
    beating.cancel()
    with contextlib.suppress(asyncio.CancelledError), pytest.raises(asyncio.CancelledError):
        await beating

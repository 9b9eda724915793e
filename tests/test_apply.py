"""Steps to requests: every refusal is somebody's, and nobody else's."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.apply import (
    BATCH,
    FIRST_BACK_OFF,
    LONGEST_BACK_OFF,
    Done,
    Refusal,
    Target,
    refusals_after,
    send,
)
from lvsctl.core.cause import Cause, Kind
from lvsctl.core.decision import Step
from netlink.errors import Interrupted, Invalid, Refused
from netlink.fake import FakeIPVS
from netlink.requests import AddRealServer, AddVirtualServer, TableRequest
from netlink.types import VirtualServer, VirtualServerKey
from tests.strategies import KEYS
from tests.values import KEY, NOW, real

OTHER = KEYS[3]


def step(request: TableRequest, key: VirtualServerKey = KEY) -> Step:
    return Step(name="reco", key=key, request=request, cause=Cause(kind=Kind.NEW, text="for a test"))


def new(key: VirtualServerKey = KEY) -> Step:
    return step(AddVirtualServer(virtual_server=VirtualServer(key=key)), key)


def server(number: int, key: VirtualServerKey = KEY, weight: int = 1) -> Step:
    return step(AddRealServer(virtual_server=key, real_server=real(number, weight)), key)


def test_everything_is_sent_in_order_and_accounted_for() -> None:
    kernel = FakeIPVS()
    steps = [new(), server(1), new(OTHER), server(1, OTHER)]
    assert send(kernel, steps) == [Done(step=each) for each in steps]
    assert kernel.writes == [each.request for each in steps]
    assert send(kernel, []) == []


def test_a_refusal_stops_nobody() -> None:
    kernel = FakeIPVS()
    kernel.fail_next(lambda request: request == server(1).request, errno.ENOMEM)
    done = send(kernel, [new(), server(1), server(2), new(OTHER)])
    assert [isinstance(each.refused, Refused) for each in done] == [False, True, False, False]
    assert kernel.observe().table.keys() == {KEY, OTHER}


def test_what_no_kernel_should_get_refuses_itself_alone() -> None:
    kernel = FakeIPVS()
    done = send(kernel, [new(), server(1, weight=-1), server(2)])
    assert [type(each.refused) for each in done] == [type(None), Invalid, type(None)]
    assert len(kernel.observe().table[KEY].real_servers) == 1


def test_many_go_in_batches() -> None:
    sizes = []

    class Counting(FakeIPVS):
        def apply(self, requests: object) -> list[Refused | None]:
            assert isinstance(requests, list)
            sizes.append(len(requests))
            return super().apply(requests)

    steps = [new(), *(step(server(1).request) for _ in range(BATCH))]
    assert len(send(Counting(), steps)) == BATCH + 1
    assert sizes == [BATCH, 1]


def test_an_unknown_outcome_is_no_success() -> None:
    class Deaf(FakeIPVS):
        def apply(self, requests: object) -> list[Refused | None]:
            raise Interrupted("apply", "", f"nobody knows what became of {requests}")

    with pytest.raises(Interrupted):
        send(Deaf(), [new()])


NO = Refused("add virtual server", "x", errno.ENOMEM)


def test_the_back_off_grows_while_it_goes_on_and_ends_with_success() -> None:
    waits = []
    refusals: dict[Target, Refusal] = {}
    for _ in range(9):
        refusals = dict(refusals_after([Done(step=new(), refused=NO)], refusals, NOW))
        waits.append(refusals[KEY, None].retry_at - NOW)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert waits[0] == FIRST_BACK_OFF
    assert waits[-1] == LONGEST_BACK_OFF
    assert refusals[KEY, None].attempts == 9
    assert refusals_after([Done(step=new())], refusals, NOW) == {}


@pytest.mark.parametrize(("back", "waits"), [(0.0, True), (50.0, True), (3600.0, False), (-3.9, True), (-4.0, False)])
def test_a_clock_that_is_set_back_makes_nobody_wait_for_hours(back: float, waits: bool) -> None:  # noqa: FBT001
    refusal = Refusal(error="no", attempts=3, retry_at=NOW + 4)
    assert refusal.waits(NOW - back) is waits


def test_what_was_not_tried_stays_refused_and_each_target_has_its_own() -> None:
    before: dict[Target, Refusal] = {(OTHER, None): Refusal(error="no", attempts=3, retry_at=NOW + 4)}
    second = Refused("add real server", "y", errno.EINVAL)
    after = refusals_after([Done(step=new(), refused=NO), Done(step=server(1), refused=second)], before, NOW)
    assert after == {
        **before,
        (KEY, None): Refusal(error=str(NO), attempts=1, retry_at=NOW + 1),
        (KEY, real(1).key): Refusal(error=str(second), attempts=1, retry_at=NOW + 1),
    }


@given(outcomes=st.lists(st.tuples(st.sampled_from(KEYS), st.booleans()), max_size=9), now=st.floats(0, 1e9))
def test_refused_is_exactly_who_was_refused_something(
    outcomes: list[tuple[VirtualServerKey, bool]], now: float
) -> None:
    last = dict(outcomes)
    done = [Done(step=new(key), refused=NO if refused else None) for key, refused in outcomes]
    after = refusals_after(done, {}, now)
    assert after.keys() == {(key, None) for key, refused in last.items() if refused}
    assert all(each.retry_at > now for each in after.values())

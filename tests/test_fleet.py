"""What is told of orders for the fleet: whoever reads the log knows which stand, whatever Consul's KV did."""

import time

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from lvsctl.core.event import Event
from lvsctl.core.fleet import NO_FLEET_ORDERS, FleetOrder, FleetOrders
from lvsctl.core.order import LATELY, Drain, Hold, OnNode, Order, Pause, What, in_force
from lvsctl.fleet import Fleet

WHATS: tuple[What, ...] = (Drain(OnNode("app1")), Drain(OnNode("app2")), Hold("reco"), Pause())
FAR = 3e9  # Unix seconds that no test sees

entries = st.builds(
    Order,
    what=st.sampled_from(WHATS),
    by=st.sampled_from(["alice@a", "bob@b"]),
    written=st.just(1.0),
    until=st.sampled_from([None, FAR, 2.0]),
    fleet=st.sampled_from([True]),
)
heard = st.lists(entries, max_size=4, unique_by=lambda order: order.what).map(
    lambda orders: FleetOrders(entries=tuple(FleetOrder(order=each) for each in orders))
)


def standing(found: FleetOrders) -> set[str]:
    return {str(each.what) for each in found.orders.standing(time.time()).entries}


@given(known=heard, history=st.lists(heard, max_size=6))
def test_what_is_told_says_what_stands(known: FleetOrders, history: list[FleetOrders]) -> None:
    told: list[Event] = []
    fleet = Fleet(told.append)
    with capture_logs() as logs:
        fleet.recall(known)
        assert (told, logs) == ([], [])
        stands, before = standing(known), known
        for found in history:
            already = len(told)
            fleet.hear(found)
            fleet._expire(time.time())  # noqa: SLF001  # what the task does
            for event in told[already:]:
                what = event.what.removesuffix(" until 2065-01-24 05:20 UTC").removesuffix(" for the fleet")
                if event.event == "order":
                    stands.add(what)
                else:
                    assert what in stands, "over is only what stood"
                    stands.remove(what)
            assert stands == standing(found)
            assert set(map(str, (each.what for each in fleet.orders.standing(time.time()).entries))) == stands
            if found == before:
                assert len(told) == already, "the same again is no news"
            before = found
    assert [each.event for each in told] == [each["event"] for each in logs]
    assert all(each["fleet"] is True for each in logs)
    assert sum(fleet.counts().values()) == len(stands)


def test_one_that_was_taken_back_is_known_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("lvsctl.fleet.time.time", lambda: now[0])
    drain = Order(what=WHATS[0], by="alice@a", written=1.0, fleet=True)
    fleet = Fleet(lambda _: None)
    fleet.hear(FleetOrders(entries=(FleetOrder(order=drain),)))
    now[0] += 1
    fleet.hear(NO_FLEET_ORDERS)
    (ended,) = in_force(fleet.orders, now[0]).drains.ended
    assert ended == attrs.evolve(drain, until=now[0], ended=True)
    now[0] += LATELY + 1
    fleet._expire(now[0])  # noqa: SLF001  # what the task does
    assert fleet.orders.entries == ()


def test_one_that_comes_again_in_that_moment_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("lvsctl.fleet.time.time", lambda: now[0])
    drain = Order(what=WHATS[0], by="alice@a", written=1.0, fleet=True)
    there = FleetOrders(entries=(FleetOrder(order=drain),))
    fleet = Fleet(lambda _: None)
    for found in (there, NO_FLEET_ORDERS, there):
        now[0] += 1
        fleet.hear(found)
    assert fleet.orders.standing(now[0]).entries == (drain,)

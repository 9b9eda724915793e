"""What is in the table yet is not out, whatever a status has left out of a drain."""

import attrs
import pytest

from lvsctl.core.drain_watch import UNHEARD, as_it_stands, is_unheard
from lvsctl.core.status import (
    OrderedRealServer,
    OrderStatus,
    Place,
    RealServerStatus,
    State,
    Status,
    VirtualServerStatus,
)
from tests.statuses import FULL, RECO, real_server

ROW = OrderedRealServer(
    virtual_server="reco",
    real_server="10.0.0.1:8080",
    node="app1",
    instance="reco-1",
    place=Place.DRAINING,
    active=7,
    inactive=0,
)
ORDER = OrderStatus(order="drain", target="node app1", by="root", reason="", written=1.0, until=None)
BEFORE = attrs.evolve(ORDER, real_servers=(ROW,))
DRAINING = attrs.evolve(
    real_server(1, Place.DRAINING, "no longer registered in Consul"), node="", instance="", active=3
)
GONE = attrs.evolve(real_server(1, Place.OUT, "drained by root"), weight=None)


def status(*virtual_servers: VirtualServerStatus) -> Status:
    return attrs.evolve(FULL, virtual_servers=virtual_servers, orders=(ORDER,))


def reco(state: State, *rows: RealServerStatus) -> VirtualServerStatus:
    return attrs.evolve(RECO, state=state, real_servers=rows)


def test_what_consul_has_no_instance_of_any_more_is_left_until_it_leaves_the_table() -> None:
    for state in (State.DEGRADED, State.LEAVING):
        (row,) = as_it_stands(ORDER, status(reco(state, DRAINING)), BEFORE).real_servers
        assert (row.place, row.active, row.why) == (Place.DRAINING, 3, "no longer registered in Consul")
        assert (row.node, row.instance) == ("app1", "reco-1")
    for there in (status(reco(State.OK, real_server(2))), status(reco(State.OK, GONE)), status()):
        assert as_it_stands(ORDER, there, BEFORE).real_servers == ()


def test_what_the_order_says_itself_counts() -> None:
    out = attrs.evolve(BEFORE, real_servers=(attrs.evolve(ROW, place=Place.OUT),))
    assert as_it_stands(out, status(reco(State.DEGRADED, DRAINING)), BEFORE) == out
    assert as_it_stands(ORDER, status(reco(State.DEGRADED, DRAINING)), out) == ORDER, "it was out before"


@pytest.mark.parametrize(
    ("state", "why"),
    [(State.WAITING, UNHEARD), (State.FOREIGN, "reco is foreign, so lvsctl does not touch it")],
)
def test_what_does_not_leave_now_says_why(state: State, why: str) -> None:
    there = status(reco(state, attrs.evolve(DRAINING, place=Place.QUIESCED, why="")))
    stands = as_it_stands(ORDER, there, BEFORE)
    assert [(each.place, each.why) for each in stands.real_servers] == [(Place.QUIESCED, why)]
    assert is_unheard(stands, there) is (state is State.WAITING)


def test_nothing_is_known_of_an_order_about_nothing_while_consul_has_not_answered() -> None:
    waiting, heard = status(reco(State.WAITING)), status(reco(State.OK))
    assert is_unheard(ORDER, waiting)
    assert not is_unheard(ORDER, heard)
    shop = attrs.evolve(RECO, name="shop", state=State.WAITING)
    assert not is_unheard(BEFORE, attrs.evolve(heard, virtual_servers=(*heard.virtual_servers, shop)))

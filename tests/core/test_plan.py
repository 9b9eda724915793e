"""The plan's invariant: it arrives, it repeats nothing, it never serves from fewer than both ends have."""

from hypothesis import given
from hypothesis import strategies as st

from lvsctl.core.plan import plan_virtual_server
from netlink.fake import FakeIPVS
from netlink.requests import (
    AddRealServer,
    AddVirtualServer,
    DeleteRealServer,
    DeleteVirtualServer,
    SetRealServer,
    SetVirtualServer,
)
from netlink.types import TableEntry
from tests.strategies import entries
from tests.values import KEY, entry, kernel_with, real, real_key, table_of

some = st.none() | entries(KEY)


def plan(intended: TableEntry | None, observed: TableEntry | None) -> list[object]:
    return list(plan_virtual_server(intended, observed))


def state(kernel: FakeIPVS) -> TableEntry | None:
    return kernel.observe().table.get(KEY)


def serving(found: TableEntry | None) -> int:
    return sum(each.weight > 0 for each in found.real_servers.values()) if found else 0


def kernel_at(observed: TableEntry | None) -> FakeIPVS:
    return kernel_with(table_of(observed) if observed else {})


@given(intended=some, observed=some)
def test_arrives_from_anything_and_is_refused_nothing(intended: TableEntry | None, observed: TableEntry | None) -> None:
    kernel = kernel_at(observed)
    assert not [refused for refused in kernel.apply(list(plan_virtual_server(intended, observed))) if refused]
    assert state(kernel) == intended


@given(same=some)
def test_equal_needs_nothing(same: TableEntry | None) -> None:
    assert plan(same, same) == []


@given(intended=some, observed=some, data=st.data())
def test_interrupted_after_any_step_and_planned_again_it_still_arrives(
    intended: TableEntry | None, observed: TableEntry | None, data: st.DataObject
) -> None:
    kernel = kernel_at(observed)
    requests = list(plan_virtual_server(intended, observed))
    kernel.apply(requests[: data.draw(st.integers(0, len(requests)))])
    kernel.apply(list(plan_virtual_server(intended, state(kernel))))
    assert state(kernel) == intended


@given(intended=some, observed=some)
def test_never_serves_from_fewer_than_both_ends(intended: TableEntry | None, observed: TableEntry | None) -> None:
    least = min(serving(intended), serving(observed))
    kernel = kernel_at(observed)
    for request in plan_virtual_server(intended, observed):
        kernel.apply([request])
        assert serving(state(kernel)) >= least


@given(intended=entries(KEY), observed=entries(KEY))
def test_what_stays_is_changed_in_place(intended: TableEntry, observed: TableEntry) -> None:
    requests = plan(intended, observed)
    assert not [each for each in requests if isinstance(each, AddVirtualServer | DeleteVirtualServer)]
    touched = {each.real_server.key for each in requests if isinstance(each, AddRealServer)}
    touched |= {each.key for each in requests if isinstance(each, DeleteRealServer)}
    assert not touched & intended.real_servers.keys() & observed.real_servers.keys()


def test_the_order_by_example() -> None:
    observed = entry(real(1, 5), real(2, 0), real(3, 1), scheduler="rr")
    intended = entry(real(1, 0), real(2, 5), real(4, 1))
    assert plan(intended, observed) == [
        SetVirtualServer(virtual_server=intended.virtual_server),
        AddRealServer(virtual_server=KEY, real_server=real(4, 1)),
        SetRealServer(virtual_server=KEY, real_server=real(2, 5)),
        SetRealServer(virtual_server=KEY, real_server=real(1, 0)),
        DeleteRealServer(virtual_server=KEY, key=real_key(3)),
    ]


def test_a_new_virtual_server_comes_before_its_real_servers_and_goes_with_them() -> None:
    found = entry(real(1), real(2))
    assert plan(found, None) == [
        AddVirtualServer(virtual_server=found.virtual_server),
        AddRealServer(virtual_server=KEY, real_server=real(1)),
        AddRealServer(virtual_server=KEY, real_server=real(2)),
    ]
    assert plan(None, found) == [DeleteVirtualServer(key=KEY)]

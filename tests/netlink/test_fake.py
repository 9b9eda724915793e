"""The hooks of the fake, and that it takes no thing the contract does not speak of."""

import errno
from ipaddress import IPv4Address

import pytest

import netlink
from netlink.client import Client
from netlink.errors import Interrupted
from netlink.fake import FakeIPVS
from netlink.requests import AddRealServer, AddVirtualServer, DeleteRealServer
from netlink.types import RealServerUsage, Traffic, VirtualServer, VirtualServerKey
from tests.netlink.test_contract import TCP, real

ADD = AddVirtualServer(virtual_server=VirtualServer(key=TCP))
SERVER = real("198.51.100.1")
ADD_REAL = AddRealServer(virtual_server=TCP, real_server=SERVER)


def test_both_are_clients() -> None:
    clients: list[type[Client]] = [netlink.FakeIPVS, netlink.IPVS]
    assert len(clients) == 2


def test_it_counts_writes_and_not_reads() -> None:
    with FakeIPVS() as fake:
        fake.apply([ADD, ADD])
        fake.observe()
        assert fake.writes == [ADD, ADD]


def test_a_failure_happens_once_to_the_kind_asked_for() -> None:
    fake = FakeIPVS()
    fake.fail_next(AddRealServer, errno.ENOMEM)
    first = fake.apply([ADD, ADD_REAL])
    assert [refused and refused.errno for refused in first] == [None, errno.ENOMEM]
    assert "out of memory" in str(first[1])
    assert fake.apply([ADD_REAL]) == [None]


def test_a_failure_happens_to_the_request_asked_for() -> None:
    fake = FakeIPVS()
    fake.fail_next(lambda request: "tcp 192.0.2.100:80" in request.target, errno.ENOBUFS)
    other = AddVirtualServer(virtual_server=VirtualServer(key=VirtualServerKey.by_mark(1)))
    assert [refused and refused.errno for refused in fake.apply([other, ADD])] == [None, errno.ENOBUFS]


def test_an_observation_fails_once() -> None:
    fake = FakeIPVS()
    fake.fail_next_observe(Interrupted("read", "the IPVS table", "a test said so"))
    with pytest.raises(Interrupted, match="a test said so"):
        fake.observe()
    assert fake.observe().table == {}


def test_counters_stay_until_their_object_goes() -> None:
    fake = FakeIPVS()
    fake.apply([ADD, ADD_REAL])
    fake.set_usage(TCP, SERVER.key, RealServerUsage(active=3))
    fake.set_traffic(TCP, Traffic(connections=9))
    observed = fake.observe()
    assert observed.usage[TCP][SERVER.key].active == 3
    assert observed.traffic[TCP].connections == 9
    fake.apply([DeleteRealServer(virtual_server=TCP, key=SERVER.key), ADD_REAL])
    assert fake.observe().usage[TCP][SERVER.key].active == 0


def test_what_was_observed_stays_as_it_was() -> None:
    fake = FakeIPVS()
    fake.apply([ADD])
    before = fake.observe()
    fake.apply([ADD_REAL, AddVirtualServer(virtual_server=VirtualServer(key=VirtualServerKey.by_mark(1)))])
    assert list(before.table) == [TCP]
    assert before.table[TCP].real_servers == {}


def test_a_kernel_without_a_scheduler_refuses_it() -> None:
    fake = FakeIPVS(schedulers=frozenset({"rr"}))
    (refused,) = fake.apply([ADD])
    assert refused is not None
    assert str(refused) == (
        "add virtual server tcp 192.0.2.100:80: the kernel has no scheduler 'wlc', and found no module for it (ENOENT)"
    )


def test_requests_read_well() -> None:
    key = VirtualServerKey.by_address(netlink.Protocol.TCP, IPv4Address("10.9.0.100"), 80)
    add = AddRealServer(virtual_server=key, real_server=real("10.0.0.1"))
    assert str(add) == "add real server 10.0.0.1:80 to tcp 10.9.0.100:80"

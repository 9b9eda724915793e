"""Requests with wrong fields that fuzzing found: each is refused in words that name the field, and none is sent."""

import enum
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

import attrs
import pytest

from netlink import codec, framing
from netlink.requests import (
    AddRealServer,
    AddVirtualServer,
    DeleteRealServer,
    DeleteVirtualServer,
    Request,
    SetTimeouts,
    StartSyncDaemon,
    StopSyncDaemon,
    ZeroCounters,
)
from netlink.types import (
    Protocol,
    RealServer,
    RealServerKey,
    SyncDaemon,
    SyncRole,
    Timeouts,
    VirtualServer,
    VirtualServerKey,
)

KEY = VirtualServerKey.by_address(Protocol.TCP, IPv4Address("10.9.0.100"), 80)
MARK = VirtualServerKey.by_mark(7)
REAL = RealServer(key=RealServerKey(address=IPv4Address("10.0.0.1"), port=80))
DAEMON = SyncDaemon(role=SyncRole.MASTER, interface="lo")
INTERFACE = IPv4Interface("10.0.0.1/24")  # an IPv4Address too, for isinstance
HUGE = 10**5000  # more digits than Python writes
ANY_ADDRESS: Any = "10.0.0.1"
BACKUP: Any = 2
CHANGE: Any = attrs.evolve  # any field to any value


def changed_key(**fields: object) -> Request:
    return ZeroCounters(key=CHANGE(KEY, **fields))


def changed_mark(**fields: object) -> Request:
    return DeleteVirtualServer(key=CHANGE(MARK, **fields))


def changed(**fields: object) -> Request:
    return AddVirtualServer(virtual_server=CHANGE(VirtualServer(key=KEY), **fields))


def changed_real(**fields: object) -> Request:
    return AddRealServer(virtual_server=KEY, real_server=CHANGE(REAL, **fields))


def changed_daemon(**fields: object) -> Request:
    return StartSyncDaemon(daemon=CHANGE(DAEMON, **fields))


def whole(make: Any, **fields: object) -> Request:  # noqa: ANN401 -- a request of any class, with anything in it
    request: Request = make(**fields)
    return request


REFUSED: tuple[tuple[Request, str], ...] = (
    # sent as something else, or as nothing that the kernel understands
    (whole(AddRealServer, virtual_server=None, real_server=REAL), "it is no VirtualServerKey but None"),
    (changed_real(key=RealServerKey(address=INTERFACE, port=80)), "address IPv4Interface('10.0.0.1/24') is no IPv4Add"),
    (changed_key(address=INTERFACE), "address IPv4Interface('10.0.0.1/24') is no IPv4Address"),
    (changed(one_packet="no"), "one_packet 'no' is no bool"),
    (changed(scheduler_flags="8"), "scheduler_flags '8' is no SchedulerFlag"),
    (changed(scheduler_flags=8.5), "scheduler_flags 8.5 is no SchedulerFlag"),
    (changed_key(family=2), "family 2 is no Family"),
    (changed_key(mark=""), "key must be a mark"),
    (changed_mark(port=None), "key must be a mark"),
    (changed_daemon(interface="\udcc3\udca9"), r"interface '\udcc3\udca9' is no text"),
    (changed_daemon(role=BACKUP, max_length=1), "role 2 is no SyncRole"),
    (changed(scheduler=None), "scheduler is missing"),
    (changed_daemon(interface=None), "interface is missing"),
    # other errors than ValueError
    (changed_key(protocol=6), "protocol 6 is no Protocol"),
    (changed_key(address="10.9.0.100"), "address '10.9.0.100' is no"),
    (changed_mark(mark="7"), "mark '7' is no int"),
    (whole(ZeroCounters, key="tcp"), "it is no VirtualServerKey but 'tcp'"),
    (whole(AddVirtualServer, virtual_server=KEY), "it is no VirtualServer but VirtualServerKey("),
    (changed(persistence="5m"), "persistence '5m' is no integer"),
    (changed(persistence_prefix="24"), "persistence_prefix '24' is no int"),
    (changed(scheduler_flags=float("inf")), "scheduler_flags inf is no SchedulerFlag"),
    (whole(AddRealServer, virtual_server=KEY, real_server=None), "it is no RealServer but None"),
    (whole(AddRealServer, virtual_server=KEY, real_server=VirtualServer(key=KEY)), "it is no RealServerKey but V"),
    (changed_real(key=None), "it is no RealServerKey but None"),
    (changed_real(key=RealServerKey(address=ANY_ADDRESS, port=80)), "address '10.0.0.1' is no"),
    (changed_real(key=CHANGE(KEY, protocol=6)), "it is no RealServerKey but VirtualServerKey("),
    (whole(DeleteRealServer, virtual_server=KEY, key="10.0.0.1:80"), "it is no RealServerKey but '10.0.0.1:80'"),
    (whole(SetTimeouts, timeouts=None), "it is no Timeouts but None"),
    (whole(StartSyncDaemon, daemon=None), "it is no SyncDaemon but None"),
    (changed_daemon(role=None), "role None is no SyncRole"),
    (changed_daemon(group="224.0.0.81"), "group '224.0.0.81' is no IPv4Address"),
    (changed_daemon(port=None), "port is missing"),
    (changed_daemon(interface="\ud800"), r"interface '\ud800' has a letter that cannot be written"),
    (whole(StopSyncDaemon, role="master"), "role 'master' is no SyncRole"),
    # words that name nothing
    (changed_key(port=None), "port None is no int"),
    (changed(persistence_prefix="", scheduler_flags=""), "scheduler_flags '' is no SchedulerFlag"),
    (changed(persistence="", persistence_prefix=64), "persistence '' is no int"),
    (changed_key(port=HUGE), "port of type int is not in 0..65535"),
    (changed_mark(mark=HUGE), "mark of type int is not in"),
    (changed(persistence=HUGE), "persistence of type int is not in"),
    (changed(persistence_prefix=-HUGE), "persistence_prefix of type int is not in 0..32"),
    (changed_real(weight=HUGE), "weight of type int is not in"),
    (whole(SetTimeouts, timeouts=Timeouts(tcp=HUGE)), "tcp of type int is not in"),
)  # fmt: skip


@pytest.mark.parametrize(("request_", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_a_wrong_value_is_refused_in_words(request_: Request, says: str) -> None:
    refused = codec.unsent(request_)
    assert refused is not None
    assert f": {says}" in str(refused)
    batch = codec.Encoder(28).encode([request_], 0, 1, 1)
    assert (batch.packed, [str(each) for _, each in batch.invalid]) == (b"", [str(refused)])


class Scheduler(str, enum.Enum):  # noqa: UP042 -- str() of a StrEnum would be its value
    """Schedulers as a caller may name them."""

    WRR = "wrr"


def test_a_scheduler_of_an_enumeration_is_sent_as_its_value() -> None:
    request = AddVirtualServer(virtual_server=VirtualServer(key=KEY, scheduler=Scheduler.WRR))
    _, body = codec.encode_request(request)
    assert framing.attributes(framing.attributes(body)[1])[6] == b"wrr\0"

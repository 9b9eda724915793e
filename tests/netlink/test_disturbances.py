"""What goes wrong on the way to a real kernel: answers lost, cut or late, a client that is closed."""

import errno
import pickle
import socket
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest

from netlink import codec
from netlink.channel import BATCH, netlink_socket
from netlink.errors import Invalid, Malformed, NetlinkError, Refused
from netlink.ipvs import IPVS
from netlink.requests import (
    AddRealServer,
    AddVirtualServer,
    DeleteVirtualServer,
    Flush,
    Request,
    SetVirtualServer,
    ZeroCounters,
)
from netlink.types import Protocol, VirtualServer, VirtualServerKey
from tests.netlink.test_contract import TCP, done, real

ANSWER = Callable[[int], int]


class Faulty(socket.socket):
    """A netlink socket on which things may go wrong: `faults` change the size of an answer, or raise, in turn."""

    def __init__(self) -> None:
        with netlink_socket() as made:
            super().__init__(fileno=made.detach())
        self.faults: list[ANSWER] = []
        self.full = 0  # batches until nothing more can be sent; 0: never

    def recv_into(self, *arguments: Any) -> int:  # noqa: ANN401 - as it is
        """Receive, and have the next thing go wrong."""
        size = super().recv_into(*arguments)
        return self.faults.pop(0)(size) if self.faults else size

    def send(self, data: Any, flags: int = 0) -> int:  # noqa: ANN401 - as it is
        """Send, or fail where that is due."""
        if self.full:
            self.full -= 1
            if not self.full:
                raise OSError(errno.ENOBUFS, "No buffer space available")
        return super().send(data, flags)


def lost(_size: int) -> int:
    raise OSError(errno.ENOBUFS, "No buffer space available")


def late(_size: int) -> int:
    raise BlockingIOError


def cut(size: int) -> int:
    return size // 2


def too_long(_size: int) -> int:
    return 1 << 20


@attrs.define
class Client:
    """A client, and the sockets that it has opened."""

    sockets: list[Faulty] = attrs.field(factory=list)
    ipvs: IPVS = attrs.field(init=False)

    def open(self) -> Faulty:
        self.sockets.append(Faulty())
        return self.sockets[-1]


@pytest.fixture
def faulty(kernel: IPVS) -> Iterator[Client]:
    """Give a client of the table that `kernel` empties."""
    client = Client()
    with IPVS(open_socket=client.open) as client.ipvs:
        done(kernel, AddVirtualServer(virtual_server=VirtualServer(key=TCP)))
        done(kernel, AddRealServer(virtual_server=TCP, real_server=real("198.51.100.1")))
        yield client


@pytest.mark.kernel
@pytest.mark.parametrize("fault", [lost, late, cut, too_long])
@pytest.mark.parametrize("sound", [0, 1, 2])
def test_a_dump_that_is_lost_or_cut_is_taken_again(faulty: Client, fault: ANSWER, sound: int) -> None:
    faulty.sockets[0].faults = [lambda size: size] * sound + [fault]
    table = faulty.ipvs.observe().table
    assert {key: len(entry.real_servers) for key, entry in table.items()} == {TCP: 1}
    assert list(faulty.ipvs.observe([TCP]).table) == [TCP]


@pytest.mark.kernel
def test_what_goes_wrong_every_time_is_raised(faulty: Client) -> None:
    open_socket = faulty.open

    def open_and_fail() -> Faulty:
        made = open_socket()
        made.faults = [cut] * 100
        return made

    faulty.ipvs._make_socket = open_and_fail  # noqa: SLF001 -- every socket from now on
    faulty.sockets[0].faults = [cut] * 100
    with pytest.raises(Malformed):
        faulty.ipvs.observe()


@pytest.mark.kernel
def test_what_was_answered_before_the_rest_could_not_be_sent_is_not_forgotten(faulty: Client) -> None:
    requests: list[Request] = [ZeroCounters(key=TCP), DeleteVirtualServer(key=VirtualServerKey.by_mark(9))]
    faulty.sockets[0].full = 2
    with pytest.raises(NetlinkError, match="sending: No buffer space") as caught:
        faulty.ipvs.apply(requests * BATCH)
    results = caught.value.results
    assert len(results) == BATCH
    assert [each and each.errno for each in results[:2]] == [None, errno.ESRCH]


@pytest.mark.kernel
def test_a_closed_client_stays_closed(kernel: IPVS) -> None:
    client = Client()
    ipvs = IPVS(open_socket=client.open)
    ipvs.glance()
    ipvs.close()
    opened = len(client.sockets)
    for call in (ipvs.observe, ipvs.glance, ipvs.info, lambda: list(ipvs.connections()), lambda: ipvs.apply([Flush()])):
        with pytest.raises(NetlinkError, match="this client is closed"):
            call()
    ipvs.close()
    assert len(client.sockets) == opened
    assert kernel.observe().table == {}


@pytest.mark.kernel
@pytest.mark.parametrize("number", [0, 50, 256, 300, 65535])
def test_any_protocol_of_somebody_else_is_read_and_can_be_deleted(kernel: IPVS, number: int) -> None:
    done(kernel, AddVirtualServer(virtual_server=VirtualServer(key=TCP)))
    key = attrs.evolve(TCP, protocol=Protocol(number))
    body = codec.encode_request(AddVirtualServer(virtual_server=VirtualServer(key=TCP)))[1]
    assert body.count(codec.encode_key(TCP)[4:]) == 1
    body = body.replace(codec.encode_key(TCP)[4:], codec.encode_key(key)[4:])
    assert kernel._errno_of(codec.NEW_SERVICE, body) == 0  # noqa: SLF001 -- as another tool
    assert kernel.observe().table.keys() == {TCP, key}
    assert list(kernel.observe([key]).table) == [key]
    (refused,) = kernel.apply([SetVirtualServer(virtual_server=VirtualServer(key=key))])
    assert isinstance(refused, Invalid)
    assert "none that IPVS balances" in str(refused)
    done(kernel, DeleteVirtualServer(key=key))
    assert kernel.observe().table.keys() == {TCP}


def test_what_is_no_request_has_its_own_result() -> None:
    refused = codec.unsent("junk")  # type: ignore[arg-type]
    assert str(refused) == "send without a name: str is no request; not sent (EINVAL)"


@pytest.mark.parametrize(
    "error",
    [
        NetlinkError("read", "", "no answer"),
        Refused("add", "tcp 10.0.0.1:80", errno.EEXIST, "it exists"),
        Invalid("add", "tcp 10.0.0.1:80", "weight -1"),
    ],
)
def test_an_error_goes_to_other_processes(error: NetlinkError) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 -- our own
    assert type(again) is type(error)
    assert (str(again), vars(again)) == (str(error), vars(error))

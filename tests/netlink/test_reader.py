"""Dumps beside a writer, by a socket that cuts and walks them as the kernel does: its cursor is a count of rows."""

import errno
import socket
import struct
import sys
from collections.abc import Callable
from ipaddress import IPv4Address

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netlink import codec, framing
from netlink.channel import DATAGRAM, Channel
from netlink.errors import Interrupted, NetlinkError
from netlink.reader import SECOND_DATAGRAM, Reader
from netlink.requests import AddRealServer, AddVirtualServer
from netlink.sockopt import Hidden, RealServers
from netlink.types import Protocol, RealServer, RealServerKey, TableEntry, VirtualServer, VirtualServerKey

FAMILY = 28
MOST = 32_768  # bytes of a datagram of a dump, however many are received into


class Kernel:
    """A table, and what happens to it: `writer` is called before each datagram of a dump with how many there were."""

    def __init__(self) -> None:
        self.table: dict[VirtualServerKey, TableEntry] = {}
        self.writer: Callable[[int], None] = lambda _: None
        self.datagrams = 0
        self.active = 0  # connections of every real server, and each of its other counters
        self.own: dict[RealServerKey, int] = {}  # those of real servers that have their own
        self._keys: dict[bytes, VirtualServerKey] = {}

    def rows(self, command: int, body: bytes) -> list[tuple[int, bytes]]:
        """Return command and attributes of what a dump lists."""
        if command == codec.GET_SERVICE:
            services = [AddVirtualServer(virtual_server=each.virtual_server) for each in self.table.values()]
            return [codec.encode_request(each) for each in services]
        key = self._keys.get(body)
        if key not in self.table:
            self._keys = {codec.encode_key(each): each for each in self.table}
            key = self._keys.get(body)
        if key is None:
            return []
        rows = []
        for each in self.table[key].real_servers.values():
            _, whole = codec.encode_request(AddRealServer(virtual_server=key, real_server=each))
            settings = framing.attributes(whole)[2]
            inside = settings + self._counters(self.own.get(each.key, self.active))
            rows.append((codec.NEW_DEST, framing.attribute(2, inside, nested=True)))
        return rows

    def _counters(self, number: int) -> bytes:
        own = [framing.attribute(each, number.to_bytes(4, sys.byteorder)) for each in (7, 8, 9)]
        wide = [framing.attribute(each, number.to_bytes(8, sys.byteorder)) for each in range(1, 11)]
        return b"".join(own) + framing.attribute(12, b"".join(wide), nested=True)

    def open(self) -> socket.socket:
        """Return a socket that dumps the table."""
        return Dumping(self)  # type: ignore[return-value] # all that a channel asks of a socket


class Dumping:
    """As much of a netlink socket as a dump needs."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._asked = (0, b"", 0)
        self._cursor: int | None = None

    def bind(self, address: object) -> None: ...
    def connect(self, address: object) -> None: ...
    def setsockopt(self, level: int, name: int, value: int) -> None: ...
    def close(self) -> None: ...

    def send(self, packed: bytes) -> int:
        (message,) = framing.messages(packed)
        self._asked = message.payload[0], message.payload[4:], message.sequence
        self._cursor = 0
        return len(packed)

    def recv_into(self, buffer: memoryview, _: int, __: int) -> int:
        if self._cursor is None:
            raise BlockingIOError(errno.EAGAIN, "nothing is left")
        command, body, sequence = self._asked
        self._kernel.writer(self._kernel.datagrams)
        self._kernel.datagrams += 1
        datagram, count = b"", 0
        for number, row in self._kernel.rows(command, body)[self._cursor :]:
            message = framing.request(FAMILY, number, version=1, flags=2, sequence=sequence, body=row)
            if len(datagram) + len(message) > min(len(buffer), MOST):
                break
            datagram += message
            count += 1
        if not count:
            datagram = struct.pack("=IHHIIi", 20, framing.NLMSG_DONE, 2, sequence, 0, 0)
        self._cursor = self._cursor + count if count else None
        buffer[: len(datagram)] = datagram
        return len(datagram)


def entry(port: int, *ports: int) -> TableEntry:
    key = VirtualServerKey.by_address(Protocol.TCP, IPv4Address("192.0.2.1"), port)
    servers = [RealServer(key=RealServerKey(address=IPv4Address("198.51.100.1"), port=each)) for each in ports]
    return TableEntry(virtual_server=VirtualServer(key=key), real_servers={each.key: each for each in servers})


def put(kernel: Kernel, *entries: TableEntry) -> None:
    kernel.table |= {each.virtual_server.key: each for each in entries}


@pytest.fixture
def kernel() -> Kernel:
    made = Kernel()
    put(made, *(entry(port, 8080, 8081) for port in range(1, 11)))
    return made


def reader_of(kernel: Kernel) -> Reader:
    return Reader(Channel(kernel.open, datagram=DATAGRAM), Channel(kernel.open, datagram=SECOND_DATAGRAM), FAMILY)


@pytest.fixture
def reader(kernel: Kernel) -> Reader:
    return reader_of(kernel)


def test_an_unchanged_table_is_the_same_answer(kernel: Kernel, reader: Reader) -> None:
    first = reader.observe()
    assert first.table == kernel.table
    assert reader.observe() is first


def test_values_that_did_not_change_are_the_same_values(kernel: Kernel, reader: Reader) -> None:
    first = reader.observe()
    one, other, *_ = kernel.table
    server, neighbour = kernel.table[one].real_servers.values()
    servers = kernel.table[one].real_servers | {server.key: attrs.evolve(server, weight=9)}  # type: ignore[operator]
    put(kernel, attrs.evolve(kernel.table[one], real_servers=servers))
    second = reader.observe()
    assert second.table == kernel.table != first.table
    assert second.table[other] is first.table[other]
    assert second.table[one].real_servers[neighbour.key] is first.table[one].real_servers[neighbour.key]


def test_counters_change_alone(kernel: Kernel, reader: Reader) -> None:
    first = reader.observe()
    kernel.active = 7
    second = reader.observe()
    assert {usage.active for usages in second.usage.values() for usage in usages.values()} == {7}
    assert {usage.active for usages in first.usage.values() for usage in usages.values()} == {0}
    assert all(second.table[key] is first.table[key] for key in kernel.table)


CHANGES = st.lists(
    st.tuples(st.sampled_from(("counter", "counters", "weight", "delete", "add")), st.integers(0, 399)), max_size=6
)


@given(st.lists(CHANGES, max_size=5))
@settings(deadline=None, max_examples=40)
def test_what_is_remembered_of_the_last_dump_changes_nothing(histories: list[list[tuple[str, int]]]) -> None:
    kernel = Kernel()
    put(kernel, entry(1, *range(1000, 1150)), entry(2, 8080))
    key = next(iter(kernel.table))
    remembering = Reader(
        Channel(kernel.open, datagram=DATAGRAM), Channel(kernel.open, datagram=SECOND_DATAGRAM), FAMILY
    )
    for changes in ([], *histories):
        for change, number in changes:
            servers = dict(kernel.table[key].real_servers)
            there = list(servers)[number % len(servers)]
            match change:
                case "counter":
                    kernel.own[there] = number
                case "counters":
                    kernel.active = number
                case "weight":
                    servers[there] = attrs.evolve(servers[there], weight=number)
                case "delete":
                    del servers[there]
                case "add":
                    (added,) = entry(1, 2000 + number).real_servers.values()
                    servers[added.key] = added
            put(kernel, attrs.evolve(kernel.table[key], real_servers=servers))
        seen = remembering.observe()
        assert seen == reader_of(kernel).observe()
        assert seen.table == kernel.table
        counted = {server: usage.active for server, usage in seen.usage[key].items()}
        assert counted == {server: kernel.own.get(server, kernel.active) for server in kernel.table[key].real_servers}


def test_a_virtual_server_that_changes_keeps_its_real_servers(kernel: Kernel, reader: Reader) -> None:
    first = reader.observe()
    key = next(iter(kernel.table))
    changed = VirtualServer(key=key, scheduler="sed")
    put(kernel, attrs.evolve(kernel.table[key], virtual_server=changed))
    second = reader.observe()
    assert second.table == kernel.table
    assert second.table[key].real_servers is first.table[key].real_servers


def test_what_went_while_it_was_read_is_not_remembered(kernel: Kernel, reader: Reader) -> None:
    """The attempt that was disturbed must not count as what the table was."""
    reader.observe()
    going = next(iter(kernel.table))
    begun = kernel.datagrams

    def delete_after_the_first_datagram(datagrams: int) -> None:
        if datagrams > begun:
            kernel.table.pop(going, None)

    kernel.writer = delete_after_the_first_datagram
    found = reader.observe().table
    assert found == kernel.table
    assert going not in found


def test_a_writer_at_the_same_place_of_both_dumps_hides_nothing(reader: Reader, kernel: Kernel) -> None:
    """Rows before the cursor go, so as many after it are passed over; the dumps are cut at different places."""
    staying = [entry(port) for port in range(1_000, 1_600)]
    passing = [entry(port) for port in range(2_000, 2_050)]
    kernel.table.clear()

    def flap(datagrams: int) -> None:
        kernel.table.clear()
        put(kernel, *(passing if datagrams % 3 == 0 else ()), *staying)

    kernel.writer = flap
    for _ in range(5):
        try:
            found = reader.observe().table
        except Interrupted:
            continue
        assert {each.virtual_server.key for each in staying} <= found.keys()


def test_a_writer_that_never_rests_is_said_to(reader: Reader, kernel: Kernel) -> None:
    def come(datagrams: int) -> None:
        if datagrams % 5 == 0:  # at every one the dump would never end
            put(kernel, entry(3_000 + datagrams))

    kernel.writer = come
    with pytest.raises(Interrupted, match="others kept changing it in 5 attempts: virtual servers came or went"):
        reader.observe()


def test_real_servers_in_several_datagrams_are_read_until_two_agree(reader: Reader, kernel: Kernel) -> None:
    key = entry(9).virtual_server.key
    kernel.table.clear()
    begun = kernel.datagrams

    def shrink(datagrams: int) -> None:
        first = 1 if datagrams <= begun + 2 else 201  # the kernel lists the newest first, and those go
        put(kernel, entry(9, *range(first, 1_001)))

    kernel.writer = shrink
    found = reader.observe().table[key]
    assert found == kernel.table[key]
    assert len(found.real_servers) == 800


def test_only_some(kernel: Kernel, reader: Reader) -> None:
    whole = reader.observe()
    assert whole.table.keys() == kernel.table.keys()
    assert whole.traffic.keys() == whole.usage.keys() == whole.table.keys()


class OldKernel:
    """As much of `Sockopt` as a glance needs."""

    def __init__(self, *answers: list[RealServers | Hidden] | OSError) -> None:
        self._answers = list(answers)
        self.shown = 0

    @property
    def names(self) -> list[tuple[int, bytes, int, int, int]]:
        return [(0, bytes(4), 0, mark, 2) for mark in range(1, self.shown + 1)]

    def real_servers(self) -> list[RealServers | Hidden]:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, OSError):
            raise answer
        self.shown = len(answer)
        return answer


def glancing(kernel: Kernel, sockopt: OldKernel | None) -> Reader:
    channels = Channel(kernel.open, datagram=DATAGRAM), Channel(kernel.open, datagram=SECOND_DATAGRAM)
    return Reader(*channels, FAMILY, sockopt)  # type: ignore[arg-type] # all that a reader asks of it


SHOWN: list[RealServers | Hidden] = [(b"one", b"two")] * 10


@pytest.mark.parametrize("sockopt", [None, OldKernel(OSError(errno.ENOPROTOOPT, "Protocol not available"))])
def test_a_kernel_without_getsockopt_is_glanced_at_by_dumps(kernel: Kernel, sockopt: OldKernel | None) -> None:
    reader = glancing(kernel, sockopt)
    before = reader.glance()
    assert (before.virtual_servers, before.real_servers) == (10, 20)
    kernel.active = 3
    assert reader.glance() == before
    key = next(iter(kernel.table))
    put(kernel, entry(1, 8080, 8082))
    assert key in kernel.table
    assert reader.glance() != before


def test_what_getsockopt_does_not_show_comes_from_a_dump(kernel: Kernel) -> None:
    keys = list(kernel.table)
    mixed = [*SHOWN[:-1], Hidden(keys[-1])]
    reader = glancing(kernel, OldKernel(mixed))
    before = reader.glance()
    assert before.real_servers == 20
    kernel.active = 3
    assert reader.glance() == before
    put(kernel, entry(1, 9999))
    assert reader.glance() == before, "of all others the dump knows nothing"
    put(kernel, entry(10, 9999))
    assert reader.glance() != before


@pytest.mark.parametrize(
    "raced",
    [
        OSError(errno.ESRCH, "No such process"),
        SHOWN[1:],
        [*SHOWN, ()],
        [*SHOWN[1:], Hidden(entry(99).virtual_server.key)],
    ],
)
def test_a_glance_that_was_raced_is_taken_again(kernel: Kernel, raced: list[RealServers | Hidden] | OSError) -> None:
    assert glancing(kernel, OldKernel(raced, SHOWN)).glance() == glancing(kernel, OldKernel(SHOWN)).glance()
    with pytest.raises(Interrupted):
        glancing(kernel, OldKernel(raced)).glance()


def test_any_other_refusal_is_an_error(kernel: Kernel) -> None:
    reader = glancing(kernel, OldKernel(OSError(errno.EPERM, "Operation not permitted")))
    with pytest.raises(NetlinkError, match="read the real servers: operation not permitted"):
        reader.glance()


def test_a_glance_disturbs_no_dump(kernel: Kernel, reader: Reader) -> None:
    first = reader.observe()
    reader.glance()
    assert reader.observe() is first
    put(kernel, entry(1, 8080, 8082))
    reader.glance()
    assert reader.observe().table == kernel.table

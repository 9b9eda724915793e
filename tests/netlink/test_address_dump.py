"""The dump of addresses: its bytes, any bytes, a socket's bad days, and the kernel's own with pyroute2 as a witness."""

import errno
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2 import IPRoute

from netlink import address_reader, framing
from netlink.address_dump import RTM_NEWADDR, Held, request, take
from netlink.addresses import Addresses
from netlink.channel import DATAGRAM
from netlink.errors import Interrupted, Malformed, NetlinkError, Refused
from netlink.namespace import Pinned
from netlink.types import Address
from tests.netlink.test_channel import Kernel, Reply, finish, message

ADDRESS, LOCAL = 1, 2
FOUR, SIX = 2, 10
PHONET = 35
ONE, TWO = IPv4Address("192.0.2.1"), IPv6Address("2001:db8::2")
NAME, SECOND = "vip-dump", "vip-dump2"


def newaddr(
    address: Address,
    index: int = 1,
    *,
    peer: Address | None = None,
    sequence: int = 0,
    flags: int = 2,
    others: Sequence[tuple[int, bytes]] = (),
) -> bytes:
    """Return what the kernel sends for `address`; IPv4 names it twice, IPv6 names it locally only beside a peer."""
    family = FOUR if address.version == 4 else SIX
    own = [(LOCAL, address.packed)] if peer or family == FOUR else []
    far = [(ADDRESS, (peer or address).packed)]
    attributes = [*far, *own] if family == FOUR else [*own, *far]
    payload = b"".join(framing.attribute(number, value) for number, value in [*attributes, *others])
    return message(RTM_NEWADDR, sequence, ifaddrmsg(family, index) + payload, flags=flags)


def ifaddrmsg(family: int, index: int = 1) -> bytes:
    return struct.pack("=BBBBI", family, 32, 0, 0, index)


@attrs.frozen
class Sent:
    """An address as the kernel may send it."""

    address: Address
    index: int
    peer: Address | None
    others: tuple[tuple[int, bytes], ...]

    def packed(self) -> bytes:
        return newaddr(self.address, self.index, peer=self.peer, others=self.others)


OTHERS = st.lists(st.tuples(st.integers(3, 11), st.binary(max_size=20)), max_size=4).map(tuple)


@st.composite
def sent(draw: st.DrawFn) -> Sent:
    addresses: st.SearchStrategy[Address] = draw(st.sampled_from((st.ip_addresses(v=4), st.ip_addresses(v=6))))
    return Sent(draw(addresses), draw(st.integers(1, 2**31 - 1)), draw(st.none() | addresses), draw(OTHERS))


def test_a_request_byte_for_byte() -> None:
    wanted = bytes.fromhex("18000000 1600 0103 00000000 00000000 00 00 00 00 07000000")
    assert request(index=7, sequence=0) == wanted


def test_an_address_byte_for_byte() -> None:
    datagram = bytes.fromhex(
        "30000000 1400 0200 00000000 78560000 02 18 80 00 02000000"  # headers: IPv4, /24, permanent, universe, index 2
        "0800 0100 c0000202"  # IFA_ADDRESS, the peer
        "0800 0200 c0000201"  # IFA_LOCAL, ours
        "0800 0800 80000000"  # IFA_FLAGS
    )
    found: list[Held] = []
    assert take(datagram, 0, 0, found) == len(datagram) == 48
    assert found == [Held(2, IPv4Address("192.0.2.1"))]


@given(st.lists(sent(), min_size=1, max_size=20))
def test_every_address_is_read_with_its_interface(every: list[Sent]) -> None:
    datagram = b"".join(each.packed() for each in every)
    found: list[Held] = []
    assert take(datagram, 0, 0, found) == len(datagram)
    assert found == [Held(each.index, each.address) for each in every]


@given(st.lists(sent(), min_size=1, max_size=5), st.sampled_from(("end", "other", "interrupted", "kind")))
def test_reading_stops_where_something_else_begins(every: list[Sent], what: str) -> None:
    datagram = b"".join(each.packed() for each in every)
    then = {
        "end": finish(),
        "other": newaddr(ONE, sequence=5),
        "interrupted": newaddr(ONE, flags=2 | framing.NLM_F_DUMP_INTR),
        "kind": message(16, 0, bytes(16)),
    }[what]
    found: list[Held] = []
    assert take(datagram + then, 0, 0, found) == len(datagram)
    assert len(found) == len(every)
    with pytest.raises(Malformed):
        take(datagram + then, len(datagram), 0, found)


@st.composite
def nearly_addresses(draw: st.DrawFn) -> bytes:
    """Return a datagram of addresses with a few bytes of it changed, or cut."""
    whole = bytearray(b"".join(each.packed() for each in draw(st.lists(sent(), min_size=1, max_size=4))))
    for _ in range(draw(st.integers(0, 3))):
        whole[draw(st.integers(0, len(whole) - 1))] = draw(st.integers(0, 255))
    return bytes(whole[: draw(st.integers(0, len(whole)))])


@given(st.one_of(st.binary(), nearly_addresses()))
def test_any_bytes_are_read_or_malformed(datagram: bytes) -> None:
    found: list[Held] = []
    try:
        end = take(datagram, 0, 0, found)
    except Malformed:
        return
    assert end >= 24
    assert len(found) <= end // 24


def body(family: int, *attributes: tuple[int, bytes]) -> bytes:
    inside = b"".join(framing.attribute(number, payload) for number, payload in attributes)
    return message(RTM_NEWADDR, 0, ifaddrmsg(family) + inside)


@pytest.mark.parametrize(
    "datagram",
    [
        pytest.param(body(FOUR, (LOCAL, bytes(16))), id="IPv6 in IPv4"),
        pytest.param(body(SIX, (ADDRESS, bytes(4))), id="IPv4 in IPv6"),
        pytest.param(message(RTM_NEWADDR, 0, ifaddrmsg(FOUR) + b"\x03\0\x02\0"), id="attribute below its header"),
        pytest.param(message(RTM_NEWADDR, 0, ifaddrmsg(FOUR) + b"\x40\0\x02\0"), id="attribute beyond its message"),
        pytest.param(message(RTM_NEWADDR, 0, ifaddrmsg(FOUR), length=23), id="message below its header"),
        pytest.param(message(RTM_NEWADDR, 0, ifaddrmsg(FOUR), length=99), id="message beyond its datagram"),
        pytest.param(message(RTM_NEWADDR, 0, b"\x02"), id="cut"),
    ],
)
def test_what_does_not_fit_is_malformed(datagram: bytes) -> None:
    with pytest.raises(Malformed):
        take(datagram, 0, 0, [])


@pytest.mark.parametrize("datagram", [body(PHONET, (LOCAL, b"\x10")), body(FOUR), body(FOUR, (3, b"lo\0"))])
def test_what_has_no_address_of_ours_is_passed_over(datagram: bytes) -> None:
    found: list[Held] = []
    assert take(datagram + newaddr(ONE), 0, 0, found) == len(datagram + newaddr(ONE))
    assert found == [Held(1, ONE)]


# --- a socket's bad days --------------------------------------------------------------------------------------------

WHOLE: Sequence[Reply] = [newaddr(ONE, 3), newaddr(TWO, 4), finish()]
INTERRUPTED: Sequence[Reply] = [newaddr(IPv4Address("192.0.2.9"), 3), newaddr(ONE, flags=2 | 0x10), finish()]
INTERRUPTED_AT_THE_END: Sequence[Reply] = [
    newaddr(IPv4Address("192.0.2.9"), 3),
    message(3, 0, bytes(4), flags=2 | 0x10),
]
LOST: Sequence[Reply] = [newaddr(IPv4Address("192.0.2.9"), 3), OSError(errno.ENOBUFS, "No buffer space available")]
CUT: Sequence[Reply] = [newaddr(IPv4Address("192.0.2.9"), 3), bytes(DATAGRAM + 1)]
SILENT: Sequence[Reply] = [newaddr(IPv4Address("192.0.2.9"), 3)]
STRANGE: Sequence[Reply] = [newaddr(IPv4Address("192.0.2.9"), 3), message(16, 0, bytes(16)), finish()]
BAD = [INTERRUPTED, INTERRUPTED_AT_THE_END, LOST, CUT, SILENT, STRANGE]


def read(*replies: Sequence[Reply], index: int = 0) -> frozenset[Address]:
    """Return what is read where each dump in turn gets one of `replies`, the last of them for ever."""

    def answering(reply: Sequence[Reply]) -> Callable[[bytes], Sequence[Reply]]:
        return lambda _: reply

    kernel = Kernel(*map(answering, replies))
    try:
        return address_reader.read("read", "the addresses of x", index=index, open_socket=kernel.open)
    finally:
        assert all(each.fileno() == -1 for each in kernel.opened), "every socket is closed"


def test_all_interfaces_or_one() -> None:
    assert read(WHOLE) == {ONE, TWO}
    assert read(WHOLE, index=3) == {ONE}  # also where the kernel knows no strict checking, and lists all
    assert read(WHOLE, index=5) == frozenset()
    assert read([finish()]) == frozenset()


@pytest.mark.parametrize("bad", BAD)
def test_a_dump_that_went_wrong_is_taken_again_as_a_whole(bad: Sequence[Reply]) -> None:
    assert read(bad, bad, WHOLE) == {ONE, TWO}


@pytest.mark.parametrize(
    ("bad", "kind", "says"),
    [
        (INTERRUPTED, Interrupted, "others kept changing them in 5 attempts"),
        (LOST, NetlinkError, "receiving: No buffer space available"),
        (CUT, Malformed, "65537 bytes"),
        (SILENT, NetlinkError, "no answer from the kernel"),
        (STRANGE, Malformed, "something else among the addresses"),
    ],
)
def test_one_that_goes_wrong_for_ever(bad: Sequence[Reply], kind: type[NetlinkError], says: str) -> None:
    with pytest.raises(kind, match=f"^read the addresses of x: .*{says}"):
        read(bad)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL, errno.ENODEV])
def test_a_refusal_is_told_at_once(number: int) -> None:
    with pytest.raises(Refused, match=r"^read the addresses of x: ") as refused:
        read([finish(number=number)], WHOLE)
    assert refused.value.errno == number
    assert "IPVS" not in str(refused.value)


def test_an_interface_that_went_meanwhile_has_no_addresses() -> None:
    assert read([finish(number=errno.ENODEV)], index=3) == frozenset()


def test_no_socket() -> None:
    def refuse() -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    with pytest.raises(NetlinkError, match=r"^read the addresses of x: opening a netlink socket: Too many open files$"):
        address_reader.read("read", "the addresses of x", open_socket=refuse)


class Unbound(socket.socket):
    """A socket that cannot be bound."""

    def bind(self, _: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")


def test_a_socket_that_cannot_be_set_up() -> None:
    with pytest.raises(NetlinkError, match=r"^read the addresses of x: opening a netlink socket: .*allocate") as raised:
        address_reader.read("read", "the addresses of x", open_socket=Unbound)
    assert "IPVS" not in str(raised.value)


# --- the kernel -----------------------------------------------------------------------------------------------------


def ip(*arguments: str, lines: str | None = None) -> None:
    """Run ip."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=60, input=lines)


def witnessed(name: str | None = None) -> frozenset[Address]:
    """Return the addresses of the machine, or on one interface, as pyroute2 tells them."""
    with IPRoute() as routes:
        wanted = routes.link("get", ifname=name)[0]["index"] if name else None
        return frozenset(
            ip_address(each.get_attr("IFA_LOCAL") or each.get_attr("IFA_ADDRESS"))
            for each in routes.get_addr()
            if wanted in (None, each["index"])
        )


def without_link_local(addresses: frozenset[Address]) -> frozenset[Address]:
    return frozenset(each for each in addresses if each.version == 4 or not each.is_link_local)


def test_pyroute2_says_the_same_of_this_machine() -> None:
    addresses = Addresses()
    assert addresses.local_addresses() == witnessed()
    assert addresses.interface_addresses("lo") == without_link_local(witnessed("lo"))


@pytest.fixture
def interfaces() -> Iterator[None]:
    """Have two dummy interfaces that are up."""
    for name in (NAME, SECOND):
        ip("link", "add", name, "type", "dummy")
        ip("link", "set", name, "up")
    yield
    for name in (NAME, SECOND):
        ip("link", "del", name)


@pytest.mark.kernel
@pytest.mark.usefixtures("interfaces")
def test_pyroute2_says_the_same_of_every_kind() -> None:
    ip("address", "add", "192.0.2.1/24", "dev", NAME, "label", f"{NAME}:a")
    ip("address", "add", "192.0.2.2", "peer", "198.51.100.2", "dev", NAME)
    ip("address", "add", "169.254.1.1/16", "dev", NAME, "valid_lft", "300", "preferred_lft", "300")
    ip("address", "add", "2001:db8::1/64", "dev", NAME)
    ip("address", "add", "2001:db8::2", "peer", "2001:db8::3", "dev", NAME)
    ip("address", "add", "192.0.2.1/32", "dev", SECOND)  # there twice
    ip("address", "add", "203.0.113.1/32", "dev", SECOND)
    own = {ip_address(each) for each in ("192.0.2.1", "192.0.2.2", "169.254.1.1", "2001:db8::1", "2001:db8::2")}
    addresses = Addresses()
    assert addresses.interface_addresses(NAME) == own == without_link_local(witnessed(NAME))
    assert addresses.interface_addresses(SECOND) == {ip_address("192.0.2.1"), ip_address("203.0.113.1")}
    every = addresses.local_addresses()
    assert every == witnessed()
    assert any(each.version == 6 and each.is_link_local for each in every), "the kernel's own of the interfaces"


def many(start: Address, count: int, verb: str = "add") -> str:
    bits = 32 if start.version == 4 else 128
    return "".join(f"address {verb} {start + number}/{bits} dev {NAME}\n" for number in range(count))


@pytest.mark.kernel
@pytest.mark.usefixtures("interfaces")
def test_pyroute2_says_the_same_of_many() -> None:
    lines = many(ip_address("10.77.0.1"), 2000) + many(ip_address("2001:db8::1"), 1000)
    ip("-batch", "-", lines=lines)
    addresses = Addresses()
    found = addresses.interface_addresses(NAME)
    assert len(found) == 3000
    assert found == without_link_local(witnessed(NAME))
    assert addresses.local_addresses() == witnessed()


@pytest.mark.kernel
@pytest.mark.usefixtures("interfaces")
def test_what_stays_is_always_seen_beside_a_writer() -> None:
    ip("-batch", "-", lines=many(ip_address("10.77.0.1"), 1000))
    stays = frozenset(ip_address("10.77.0.1") + number for number in range(1000))
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            ip("address", "add", "10.78.0.1/32", "dev", NAME)
            ip("address", "del", "10.78.0.1/32", "dev", NAME)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(50):
            try:
                assert stays <= Addresses().local_addresses()
            except Interrupted:
                continue
    finally:
        stop.set()
        writer.join()


@pytest.mark.kernel
def test_the_namespace_is_the_one_of_the_thread() -> None:
    ip("netns", "add", "addr-test")
    try:
        ip("-n", "addr-test", "address", "add", f"{ONE}/32", "dev", "lo")
        pinned = Pinned("addr-test")
        try:
            with pinned.entered():
                assert ONE in Addresses().interface_addresses("lo")
                assert ONE in Addresses().local_addresses()
        finally:
            pinned.close()
        assert ONE not in Addresses().local_addresses()
    finally:
        ip("netns", "del", "addr-test")

"""What the kernel counts and remembers while there is traffic: counters, connection counts, connections, zero."""

import contextlib
import re
import socket
import tempfile
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import attrs
import pytest

from netlink.ipvs import IPVS
from netlink.requests import AddRealServer, DeleteRealServer, Flush, SetRealServer, SetTimeouts, ZeroCounters
from netlink.types import (
    Connection,
    Family,
    Protocol,
    RealServer,
    RealServerKey,
    RealServerUsage,
    Timeouts,
    Traffic,
    VirtualServer,
    VirtualServerKey,
)
from tests.lab.hosts import Host, Lab
from tests.lab.waiting import eventually
from tests.netlink.test_contract import additions, done, entry, real

pytestmark = pytest.mark.kernel

VIP4, VIP6 = "10.1.0.100", "fd00:1::100"
OWN4, OWN6 = "10.1.0.1", "fd00:1::1"  # the director's own address: it is its own real server
LISTENS = 8080
MARKED = 82  # a persistent mark's real servers get the port that the client asked for
SO_MARK = 36


@attrs.frozen
class Place:
    """A director with its client, and the table of the director."""

    director: Host
    client: Host
    ipvs: IPVS

    def connect(self, address: str, port: int, *, host: Host | None = None, mark: int = 0) -> socket.socket:
        """Return a TCP connection."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        made = (host or self.client).socket(family, socket.SOCK_STREAM)
        made.settimeout(5.0)
        if mark:
            made.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
        made.connect((address, port))
        return made

    def say(self, data: bytes, address: str, port: int) -> None:
        """Send a datagram."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with self.client.socket(family, socket.SOCK_DGRAM) as made:
            made.settimeout(5.0)
            made.sendto(data, (address, port))

    def usage(self, key: VirtualServerKey, server: RealServerKey) -> RealServerUsage:
        return self.ipvs.observe([key]).usage[key][server]


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Host, Host]]:
    """Give a director and a client."""
    with tempfile.TemporaryDirectory() as directory, Lab(Path(directory)) as lab, contextlib.ExitStack() as listening:
        director = lab.host("director", front=[f"{OWN4}/24", f"{OWN6}/64"])
        client = lab.host("client", front=["10.1.0.2/24", "fd00:1::2/64"])
        director.add_address("front", f"{VIP4}/32", f"{VIP6}/128")
        for family, address in ((socket.AF_INET, OWN4), (socket.AF_INET6, OWN6)):
            for port in (LISTENS, MARKED):
                listener = listening.enter_context(director.socket(family, socket.SOCK_STREAM))
                listener.bind((address, port))
                listener.listen(64)  # the kernel completes them; nobody needs to accept
        yield director, client


@pytest.fixture
def place(hosts: tuple[Host, Host]) -> Iterator[Place]:
    director, client = hosts
    with IPVS(director.namespace) as ipvs:
        done(ipvs, Flush())
        yield Place(director, client, ipvs)
        done(ipvs, Flush())


def to(protocol: Protocol, address: str, port: int) -> VirtualServerKey:
    return VirtualServerKey.by_address(protocol, ip_address(address), port)


def own(key: VirtualServerKey) -> RealServer:
    """Return the director itself as a real server of `key`."""
    return real(OWN4 if key.family is Family.IPV4 else OWN6, LISTENS)


def make(place: Place, *virtual_servers: VirtualServer) -> None:
    """Create virtual servers with the director as their real server."""
    done(place.ipvs, *additions(*(entry(each, own(each.key)) for each in virtual_servers)))


WEB = to(Protocol.TCP, VIP4, 80)
WEB6 = to(Protocol.TCP, VIP6, 80)
DNS = to(Protocol.UDP, VIP4, 53)
STATS = re.compile(r"^(?:TCP|  ->) +\S+ +(\d+) +(\d+) +(\d+) +(\d+) +(\d+)", re.MULTILINE)


def test_traffic_is_counted_and_started_from_0_again(place: Place) -> None:
    web, web6 = to(Protocol.TCP, VIP4, 85), to(Protocol.TCP, VIP6, 85)
    make(place, VirtualServer(key=web), VirtualServer(key=web6))
    with contextlib.ExitStack() as held:
        for address, count in ((VIP4, 3), (VIP6, 2)):
            for _ in range(count):
                connection = held.enter_context(place.connect(address, 85))
                connection.sendall(bytes(20_000))

        def counted() -> bool:  # the kernel sums its counters every two seconds
            return [place.ipvs.observe().traffic[key].connections for key in (web, web6)] == [3, 2]

        eventually(counted)
        # what came after the last sum is in the next
        sums: list[Traffic] = []

        def settled() -> bool:
            sums.append(place.ipvs.observe().traffic[web])
            return len(sums) > 15 and sums[-1][:5] == sums[-15][:5]

        eventually(settled, every=0.2)
        observed = place.ipvs.observe()
        for key, count in ((web, 3), (web6, 2)):
            traffic = observed.traffic[key]
            assert traffic.connections == count
            assert traffic.in_bytes > 20_000 * count
            assert traffic.in_packets > 3 * count
            assert traffic.out_packets >= 2 * count
            assert traffic.out_bytes > 40 * traffic.out_packets
            usage = observed.usage[key][own(key).key]
            assert usage.traffic[:5] == traffic[:5], "it has one real server"
            assert (usage.active, usage.inactive, usage.persistent) == (count, 0, 0)
        exact = place.director.run(["ipvsadm", "-Ln", "-t", f"{VIP4}:85", "--stats", "--exact"]).stdout
        assert [tuple(map(int, found)) for found in STATS.findall(exact)] == [observed.traffic[web][:5]] * 2

        done(place.ipvs, ZeroCounters(key=web))
        observed = place.ipvs.observe()
        assert observed.traffic[web] == Traffic()
        assert observed.usage[web][own(web).key] == RealServerUsage(active=3), "connections stay"
        assert observed.traffic[web6].connections == 2
        done(place.ipvs, ZeroCounters())
        observed = place.ipvs.observe()
        assert observed.traffic[web6] == Traffic()
        assert observed.usage[web6][own(web6).key] == RealServerUsage(active=2)
        held.enter_context(place.connect(VIP4, 85))
        eventually(lambda: place.ipvs.observe().traffic[web].connections == 1)


def test_connections_are_counted_by_their_state(place: Place) -> None:
    web = to(Protocol.TCP, VIP4, 86)  # a real server that comes back soon has its counts again
    many = VirtualServer(key=to(Protocol.TCP, VIP4, 87), persistence=300)
    make(place, VirtualServer(key=web), VirtualServer(key=DNS), many)
    before = place.ipvs.glance()
    with place.connect(VIP4, 86), place.connect(VIP4, 86), place.connect(VIP4, 87), place.connect(VIP4, 87):
        place.say(b"who?", VIP4, 53)
        counts = {key: tuple(place.usage(key, own(key).key)[:3]) for key in (web, DNS, many.key)}
        assert counts == {web: (2, 0, 0), DNS: (0, 1, 0), many.key: (2, 0, 1)}
        assert place.ipvs.glance() == before, "how many connections there are is no change"
    eventually(lambda: place.usage(web, own(web).key)[:2] == (0, 2))  # closed: they wait for their end
    assert place.ipvs.glance() == before
    heavier = attrs.evolve(own(web), weight=9)
    done(place.ipvs, SetRealServer(virtual_server=web, real_server=heavier))
    assert place.ipvs.glance() != before
    assert place.usage(web, own(web).key)[:2] == (0, 2), "connections stay with an edited real server"


def found(place: Place, key: VirtualServerKey) -> list[Connection]:
    return [each for each in place.ipvs.connections() if each.virtual_server == key]


def test_connections_are_listed(place: Place) -> None:
    many = VirtualServer(key=to(Protocol.TCP, VIP4, 83), persistence=300, persistence_prefix=24)
    make(place, VirtualServer(key=WEB), VirtualServer(key=WEB6), VirtualServer(key=DNS), many)
    with contextlib.ExitStack() as held:
        for address, key in ((VIP4, WEB), (VIP6, WEB6)):
            connection = held.enter_context(place.connect(address, 80))
            client, port = connection.getsockname()[:2]
            (listed,) = [each for each in found(place, key) if each.client_port == port]
            assert 890 <= listed.expires <= 900
            assert attrs.evolve(listed, expires=0) == Connection(
                client=ip_address(client),
                client_port=port,
                virtual_server=key,
                real_server=own(key).key,
                state="ESTABLISHED",
                expires=0,
            )
            assert not listed.template
        held.enter_context(place.connect(VIP4, 83))
        (template,) = [each for each in found(place, many.key) if each.template]
        assert template.client == IPv4Address("10.1.0.0")
        assert (template.client_port, template.real_server) == (0, own(WEB).key)
        assert len(found(place, many.key)) == 2
        place.say(b"who?", VIP4, 53)
        assert {each.state for each in found(place, DNS)} == {"UDP"}
        printed = place.director.run(["ipvsadm", "-Lnc"]).stdout.splitlines()[2:]
        assert len(printed) == len(list(place.ipvs.connections()))


def test_timeouts_are_how_long_connections_live(place: Place) -> None:
    make(place, VirtualServer(key=DNS))
    done(place.ipvs, SetTimeouts(timeouts=Timeouts(udp=7)))
    place.say(b"who?", VIP4, 53)
    assert min(each.expires for each in found(place, DNS)) in (6, 7)
    done(place.ipvs, SetTimeouts(timeouts=Timeouts()))


@pytest.mark.parametrize(
    "mark", [VirtualServerKey.by_mark(7), VirtualServerKey.by_mark(2**31 - 1, Family.IPV6)], ids=str
)
def test_a_marks_template_is_listed_by_its_mark(place: Place, mark: VirtualServerKey) -> None:
    make(place, VirtualServer(key=mark, persistence=300))
    address = VIP4 if mark.family is Family.IPV4 else VIP6
    with place.connect(address, MARKED, host=place.director, mark=mark.mark):
        (template,) = found(place, mark)
        assert template.template
        assert template.client_port == template.real_server.port == 0
        assert template.real_server.address == own(mark).key.address
        (connection,) = found(place, to(Protocol.TCP, address, MARKED))
        assert connection.real_server == RealServerKey(address=own(mark).key.address, port=MARKED)
        assert tuple(place.usage(mark, own(mark).key)[:3]) == (1, 0, 1)


@pytest.mark.parametrize("identity", [b"abc-123@host", b'a%s<>()"x', b"x" * 200])
def test_what_a_persistence_engine_knows_is_listed(place: Place, identity: bytes) -> None:
    sip = VirtualServer(key=to(Protocol.UDP, VIP4, 5060), persistence=300, persistence_engine="sip")
    make(place, sip)
    call = b"INVITE sip:x@y SIP/2.0\r\nVia: SIP/2.0/UDP x\r\nCall-ID: " + identity + b"\r\nFrom: me\r\n\r\n"
    place.say(call, VIP4, 5060)
    listed = [each for each in found(place, sip.key) if each.persistence_data == identity]
    assert [each.persistence_engine for each in listed] == ["sip"]
    assert listed[0].template


def test_every_state_of_a_connection_can_be_read(place: Place) -> None:
    sctp = to(Protocol.SCTP, VIP4, 90)
    make(place, VirtualServer(key=WEB), VirtualServer(key=sctp))
    with place.connect(VIP4, 80):
        pass
    with place.client.inside(), socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP) as made:
        made.settimeout(5.0)
        with pytest.raises(ConnectionRefusedError):  # nobody listens; IPVS has seen it all the same
            made.connect((VIP4, 90))
    assert {each.state for each in found(place, sctp)} == {"REJECTED"}
    states = {each.state for each in found(place, WEB)}
    assert states & {"FIN_WAIT", "TIME_WAIT", "CLOSE_WAIT", "LAST_ACK", "CLOSE"}, states


def test_an_iterator_that_is_left_leaves_nothing_open(place: Place) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    make(place, VirtualServer(key=WEB))
    with place.connect(VIP4, 80):
        before = descriptors()
        connections = place.ipvs.connections()
        assert descriptors() == before
        next(connections)
        assert descriptors() == before + 1
        connections.close()
        assert descriptors() == before


def test_a_deleted_real_server_takes_its_counts_with_it(place: Place) -> None:
    """Its connections are still listed, and belong to it again when it comes back soon."""
    make(place, VirtualServer(key=WEB))
    server = own(WEB)
    with place.connect(VIP4, 80):
        done(place.ipvs, DeleteRealServer(virtual_server=WEB, key=server.key))
        assert place.ipvs.observe([WEB]).usage[WEB] == {}
        assert [each for each in found(place, WEB) if each.state == "ESTABLISHED"]
        done(place.ipvs, AddRealServer(virtual_server=WEB, real_server=server))
        assert place.usage(WEB, server.key).active == 1


def tables(ipvs: Sequence[IPVS]) -> list[int]:
    return [len(each.observe().table) for each in ipvs]


def test_a_glance_is_of_its_own_namespace(place: Place) -> None:
    """Up to 6.12 /proc/net/ip_vs leaves virtual servers out while others have some; a glance does not."""

    def many(address: str, count: int) -> list[VirtualServer]:
        return [VirtualServer(key=to(Protocol.TCP, address, port)) for port in range(1, count + 1)]

    with IPVS(place.client.namespace) as other:
        done(place.ipvs, *additions(*(entry(each) for each in many("192.0.2.1", 300))))
        alone = place.ipvs.glance()
        assert alone.virtual_servers == 300
        done(other, *additions(*(entry(each) for each in many("192.0.2.2", 400))))
        assert tables([place.ipvs, other]) == [300, 400]
        assert place.ipvs.glance() == alone
        assert other.glance().virtual_servers == 400
        done(other, Flush())
        assert place.ipvs.glance() == alone

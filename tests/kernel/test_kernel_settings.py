"""What kernel settings do to traffic, as `lvsctl doctor` says it: its sentences are tried here, not believed."""

import contextlib
import errno
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.director import Director, endpoint
from tests.lab.hosts import Host
from tests.lab.scene import VIP4, Forwarding
from tests.lab.waiting import eventually

pytestmark = pytest.mark.kernel

OURS = "net.ipv4.vs."
REDIRECTS = "send_redirects"
PATIENCE = 2.0  # seconds in which an answer comes, where one does
_ports = iter(range(40_000, 50_000))  # source ports that no other test has


@pytest.fixture(autouse=True)
def _settings(director: Director) -> Iterator[None]:
    """Put back what a test sets on the director."""
    names = [f"{OURS}{name}" for name in ("expire_nodest_conn", "expire_quiescent_template", "conn_reuse_mode")]
    names += [f"{OURS}{name}" for name in ("run_estimation", "conntrack", "sloppy_tcp")]
    names += ["net.ipv4.ip_forward", "net.ipv4.conf.all.arp_ignore"]
    names += [f"net.ipv4.conf.{each}.{name}" for each in ("all", "back", "front") for name in ("rp_filter", REDIRECTS)]
    before = {name: int(setting(director.host, name)) for name in names if has(director.host, name)}
    yield
    director.host.sysctl(before)


def setting(host: Host, name: str) -> str:
    """Return what a kernel setting of the host's network is."""
    return host.call(lambda: Path("/proc/sys", *name.split(".")).read_text("ascii").strip())


def has(host: Host, name: str) -> bool:
    """Tell whether this kernel has the setting."""
    return host.call(lambda: Path("/proc/sys", *name.split(".")).exists())


def serve(director: Director, forwarding: Forwarding = "masquerade", *, protocol: str = "-t", port: int = 0) -> str:
    """Have r1 and r2 serve in turn at the virtual address; return ipvsadm's word for it."""
    port = port or director.port
    if protocol == "-t":
        director.programs()
    way = {"masquerade": "-m", "direct-route": "-g", "tunnel": "-i"}[forwarding]
    director.ipvsadm("-A", protocol, endpoint(VIP4, port), "-s", "rr")
    for server in director.scene.real_servers[:2]:
        director.ipvsadm("-a", protocol, endpoint(VIP4, port), "-r", endpoint(server.host.ipv4, port), way)
    return endpoint(VIP4, port)


def connected(client: Host, port: int, source: int) -> tuple[socket.socket, str]:
    """Return a connection from port `source` that is open, and the name of the real server that answers."""
    made = client.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.settimeout(PATIENCE)
    made.bind(("", source))
    made.connect((VIP4, port))
    made.sendall(b"GET /hold HTTP/1.1\r\nHost: lab\r\n\r\n")
    file = made.makefile("rb")
    while file.readline() != b"\r\n":
        pass
    return made, file.readline().decode().strip()


def asked_once(client: Host, port: int, source: int) -> str:
    """Return who answers one request from port `source`; the server closes first, so the port is free again."""
    with client.socket(socket.AF_INET, socket.SOCK_STREAM) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.settimeout(PATIENCE)
        made.bind(("", source))
        made.connect((VIP4, port))
        made.sendall(b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")
        answer = b""
        while piece := made.recv(65536):
            answer += piece
    return answer.decode().rpartition("\r\n\r\n")[2].strip()


def closing(director: Director, source: int) -> str:
    """Return the state in which IPVS remembers the connection from port `source`, once that is a closing one."""

    def state() -> str:
        ends = f":{source} ", f"{endpoint(VIP4, director.port)} "
        (line,) = (each for each in director.ipvsadm("-Lnc").splitlines() if all(end in each for end in ends))
        found = line.split()[2]
        assert found in {"FIN_WAIT", "TIME_WAIT"}, line
        return found

    return eventually(state)


@pytest.mark.parametrize(("number", "outcome"), [(0, TimeoutError), (1, ConnectionResetError)])
def test_the_clients_of_a_deleted_real_server_hang_or_are_reset(
    director: Director, number: int, outcome: type[OSError]
) -> None:
    address = serve(director)
    director.host.sysctl({f"{OURS}expire_nodest_conn": number})
    made, server = connected(director.scene.client, director.port, next(_ports))
    with contextlib.closing(made):
        real_server = director.scene.lab.hosts[server].ipv4
        director.ipvsadm("-d", "-t", address, "-r", endpoint(real_server, director.port))
        made.sendall(b"still here\n")
        with pytest.raises(outcome):
            made.recv(100)


@pytest.mark.parametrize("number", [0, 1])
def test_the_datagrams_of_a_deleted_real_server_are_lost_or_go_to_another(director: Director, number: int) -> None:
    address = serve(director, protocol="-u", port=53)
    director.host.sysctl({f"{OURS}expire_nodest_conn": number})
    with director.scene.client.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.settimeout(PATIENCE)
        made.bind(("", next(_ports)))
        made.connect((VIP4, 53))
        made.send(b"who\n")
        first = made.recv(100).decode().strip()
        hosts = director.scene.lab.hosts
        real_server = next(host.ipv4 for name, host in hosts.items() if name in first)
        director.ipvsadm("-d", "-u", address, "-r", endpoint(real_server, 53))
        answers = set()
        for _ in range(3):
            made.send(b"who\n")
            with contextlib.suppress(TimeoutError):
                answers.add(made.recv(100).decode().strip())
    assert len(answers) == number
    assert first not in answers


@pytest.mark.parametrize(
    ("forwarding", "number", "again"),
    [
        ("masquerade", 0, True),
        ("masquerade", 1, False),
        ("direct-route", 0, True),
        ("direct-route", 1, True),
        ("direct-route", 2, False),
        ("direct-route", 3, False),
    ],
)
def test_a_source_port_that_is_used_again_meets_the_same_real_server_or_the_next(
    director: Director, forwarding: Forwarding, number: int, *, again: bool
) -> None:
    serve(director, forwarding)
    director.host.sysctl({f"{OURS}conn_reuse_mode": number})
    source = next(_ports)
    first = asked_once(director.scene.client, director.port, source)
    time.sleep(0.2)
    second = asked_once(director.scene.client, director.port, source)
    assert {first, second} <= {"r1", "r2"}
    assert (first == second) is again


@pytest.mark.parametrize(
    ("forwarding", "nodest", "reuse", "state", "answered"),
    [
        ("masquerade", 0, 1, "TIME_WAIT", True),
        ("masquerade", 0, 0, "TIME_WAIT", False),
        ("direct-route", 0, 1, "FIN_WAIT", False),
        ("direct-route", 1, 1, "FIN_WAIT", True),
        ("direct-route", 0, 2, "FIN_WAIT", True),
    ],
)
def test_a_source_port_that_is_used_again_after_its_real_server_was_deleted(
    director: Director, forwarding: Forwarding, nodest: int, reuse: int, state: str, *, answered: bool
) -> None:
    """IPVS remembers a closed connection for two minutes; the next from its port is lost with it, or goes elsewhere."""
    address = serve(director, forwarding)
    director.host.sysctl({f"{OURS}expire_nodest_conn": nodest, f"{OURS}conn_reuse_mode": reuse})
    client, source = director.scene.client, next(_ports)
    first = asked_once(client, director.port, source)
    assert closing(director, source) == state
    real_server = endpoint(director.scene.lab.hosts[first].ipv4, director.port)
    director.ipvsadm("-d", "-t", address, "-r", real_server)
    if answered:
        assert asked_once(client, director.port, source) in {"r1", "r2"} - {first}
        return
    with pytest.raises(TimeoutError):
        asked_once(client, director.port, source)
    assert asked_once(client, director.port, next(_ports)) in {"r1", "r2"} - {first}, "another port is served"
    director.ipvsadm("-a", "-t", address, "-r", real_server, "-m" if forwarding == "masquerade" else "-g")
    assert asked_once(client, director.port, source) == first, "what comes back finds its connections"


@pytest.mark.parametrize("forwarding", ["direct-route"])
@pytest.mark.parametrize(("nodest", "again"), [(0, True), (1, False)])
def test_a_quiesced_real_server_goes_on_getting_who_uses_a_source_port_again_or_does_not(
    director: Director, nodest: int, *, again: bool
) -> None:
    address = serve(director, "direct-route")
    director.host.sysctl({f"{OURS}expire_nodest_conn": nodest})
    client, source = director.scene.client, next(_ports)
    first = asked_once(client, director.port, source)
    closing(director, source)
    real_server = endpoint(director.scene.lab.hosts[first].ipv4, director.port)
    director.ipvsadm("-e", "-t", address, "-r", real_server, "-g", "-w", "0")
    assert (asked_once(client, director.port, source) == first) is again


@pytest.mark.parametrize(("number", "stays"), [(0, True), (1, False)])
def test_persistence_outlives_a_weight_of_0_or_does_not(director: Director, number: int, *, stays: bool) -> None:
    address = serve(director)
    director.ipvsadm("-E", "-t", address, "-s", "rr", "-p", "300")
    director.host.sysctl({f"{OURS}expire_quiescent_template": number})
    client = director.scene.client
    first = asked_once(client, director.port, next(_ports))
    assert asked_once(client, director.port, next(_ports)) == first
    real_server = endpoint(director.scene.lab.hosts[first].ipv4, director.port)
    director.ipvsadm("-e", "-t", address, "-r", real_server, "-m", "-w", "0")
    assert (asked_once(client, director.port, next(_ports)) == first) is stays


@pytest.mark.parametrize("number", [0, 1])
def test_a_packet_in_the_middle_of_a_connection_makes_one_or_does_not(director: Director, number: int) -> None:
    serve(director)
    director.host.sysctl({f"{OURS}sloppy_tcp": number})
    source = next(_ports)
    client, there = socket.inet_aton(director.scene.client.ipv4), socket.inet_aton(VIP4)
    header = struct.pack("!HHIIBBHHH", source, director.port, 1000, 2000, 5 << 4, 0x10, 1024, 0, 0)
    summed = sum(struct.unpack("!16H", client + there + struct.pack("!HH", 6, len(header)) + header))
    checksum = ~((summed & 0xFFFF) + (summed >> 16)) & 0xFFFF
    with director.scene.client.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)) as raw:
        raw.sendto(header[:16] + struct.pack("!H", checksum) + header[18:], (VIP4, 0))
    time.sleep(0.5)
    assert (f":{source} " in director.ipvsadm("-Lnc")) is bool(number)


@pytest.mark.parametrize("number", [0, 1])
def test_netfilter_tracks_balanced_connections_or_does_not(director: Director, number: int) -> None:
    serve(director)
    director.host.sysctl({f"{OURS}conntrack": number})
    rule = ["INPUT", "-m", "conntrack", "--ctstate", "NEW", "-j", "ACCEPT"]
    director.host.run(["iptables-legacy", "-A", *rule])  # without one nothing is tracked at all
    try:
        before = int(setting(director.host, "net.netfilter.nf_conntrack_count"))
        for _ in range(5):
            asked_once(director.scene.client, director.port, next(_ports))
        tracked = int(setting(director.host, "net.netfilter.nf_conntrack_count")) - before
    finally:
        director.host.run(["iptables-legacy", "-D", *rule])
    assert (tracked >= 5) is bool(number), tracked


@pytest.mark.parametrize("number", [0, 1])
def test_without_estimation_nothing_is_counted(director: Director, number: int) -> None:
    if not has(director.host, f"{OURS}run_estimation"):
        pytest.skip("this kernel, older than 6.1, always counts")
    serve(director)
    director.host.sysctl({f"{OURS}run_estimation": number})
    for _ in range(3):
        asked_once(director.scene.client, director.port, next(_ports))

    def counted() -> int:
        lines = director.ipvsadm("-Ln", "--stats", "--exact").splitlines()
        return sum(int(line.split()[2]) for line in lines if line.startswith("TCP"))

    if number:
        eventually(lambda: counted() == 3, within=10)
    else:
        time.sleep(5)
        assert counted() == 0


def test_masquerade_needs_forwarding(director: Director) -> None:
    serve(director)
    assert asked_once(director.scene.client, director.port, next(_ports)) in {"r1", "r2"}
    director.host.sysctl({"net.ipv4.ip_forward": 0})
    with pytest.raises(TimeoutError):
        asked_once(director.scene.client, director.port, next(_ports))


@pytest.mark.parametrize("forwarding", ["direct-route"])
def test_direct_route_needs_no_forwarding(director: Director) -> None:
    serve(director, "direct-route")
    assert setting(director.host, "net.ipv4.ip_forward") == "0"
    assert asked_once(director.scene.client, director.port, next(_ports)) in {"r1", "r2"}


@pytest.mark.parametrize("number", [0, 1, 2, 8])
def test_arp_is_answered_for_an_address_of_another_interface_unless_it_is_ignored(
    director: Director, number: int
) -> None:
    address = f"10.1.0.{200 + number}"
    director.host.ip("link add lvs9 type dummy", f"address add {address}/32 dev lvs9", "link set lvs9 up")
    try:
        director.host.sysctl({"net.ipv4.conf.all.arp_ignore": number})
        with director.scene.client.socket(socket.AF_INET, socket.SOCK_STREAM) as made:
            made.settimeout(5.0)
            outcome = made.connect_ex((address, 9))
    finally:
        director.host.ip("link delete lvs9")
    assert (outcome == errno.ECONNREFUSED) is (number == 0), os.strerror(outcome)


@pytest.mark.parametrize(("everywhere", "here", "sent"), [(0, 0, False), (1, 0, True), (0, 1, True)])
def test_who_sends_by_the_director_to_its_own_network_is_redirected(
    director: Director, everywhere: int, here: int, *, sent: bool
) -> None:
    """As a real server does that answers a client behind the interface by which it was asked."""
    director.host.sysctl({f"net.ipv4.conf.all.{REDIRECTS}": everywhere, f"net.ipv4.conf.back.{REDIRECTS}": here})
    server, there = director.scene.real_servers[2].host, director.scene.consul_host.ipv4
    before = redirects(director.host)
    server.ip(f"route add {there}/32 via 10.2.0.1")
    try:
        with server.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
            made.sendto(b"answer", (there, 9))
        time.sleep(0.5)
    finally:
        server.ip(f"route delete {there}/32")
        server.ip("route flush cache")
    assert (redirects(director.host) > before) is sent


def redirects(host: Host) -> int:
    """Return how many redirects the host has sent."""
    text = host.call(lambda: Path("/proc/thread-self/net/snmp").read_text("ascii"))
    names, numbers = (line.split() for line in text.splitlines() if line.startswith("Icmp:"))
    return int(numbers[names.index("OutRedirects")])


@pytest.mark.parametrize("forwarding", ["direct-route"])
@pytest.mark.parametrize(("number", "served"), [(0, True), (1, False), (2, True)])
def test_a_client_that_comes_in_elsewhere_than_it_would_be_answered(
    director: Director, number: int, *, served: bool
) -> None:
    serve(director, "direct-route")
    client = director.scene.client.ipv4
    director.host.sysctl({f"net.ipv4.conf.{each}.rp_filter": 0 for each in ("all", "back")})
    director.host.sysctl({"net.ipv4.conf.front.rp_filter": number})
    director.host.ip(f"route add {client}/32 via 10.2.0.5")
    try:
        if served:
            assert asked_once(director.scene.client, director.port, next(_ports)) in {"r1", "r2"}
        else:
            with pytest.raises(TimeoutError):
                asked_once(director.scene.client, director.port, next(_ports))
    finally:
        director.host.ip(f"route delete {client}/32")

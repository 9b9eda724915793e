"""How a real server leaves where there is no connection to wait for, or where clients are bound to it.

UDP, whose entries say who asked lately and not who is being served; one-packet, which has no entries; `sh`, `mh` and
`dh`, which keep the place of a quiesced real server. What the clients lose is printed, for docs/operations.md.
"""

import socket
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import pytest

from tests.kernel.director import Director, endpoint
from tests.kernel.test_drain import Session
from tests.lab.consul import Check, Registration
from tests.lab.hosts import Host
from tests.lab.scene import VIP4, Forwarding
from tests.lab.servers import UdpServer
from tests.lab.traffic import Traffic
from tests.lab.waiting import eventually

pytestmark = pytest.mark.kernel

NODEST = "net.ipv4.vs.expire_nodest_conn"
NAMES = ("r1", "r2")


@pytest.fixture(autouse=True)
def _settings(director: Director) -> Iterator[None]:
    """Put back what a test sets on the director: to the kernel's default."""
    yield
    director.host.sysctl({NODEST: 0})


@pytest.fixture
def programs(director: Director) -> Iterator[Mapping[str, UdpServer]]:
    """Return a UDP program for each of `NAMES`, on a port that no other test has."""
    made = {name: UdpServer(director.scene.lab.hosts[name], ports=[director.port]) for name in NAMES}
    for each in made.values():
        each.start()
    yield made
    for each in made.values():
        each.stop()


class Flow:
    """A client that asks from one source port as long as it lives."""

    def __init__(self, client: Host, port: int) -> None:
        self._socket = client.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(0.2)
        self._socket.connect((VIP4, port))

    def ask(self) -> str:
        """Return who answers; empty where nobody does."""
        try:
            self._socket.send(b"who")
            return self._socket.recv(100).decode()
        except OSError:  # TimeoutError is one, and so is what the host of a dead program says
            return ""

    def ask_until(self, deadline: float) -> Sequence[str]:
        """Return who answered each time until then; asks about 20 times a second."""
        answers = []
        while time.monotonic() < deadline:
            answers.append(self.ask())
            time.sleep(0.05)
        return answers

    def close(self) -> None:
        """End it."""
        self._socket.close()


def serve(director: Director, more: str, *, protocol: str = "tcp", drain_timeout: str = "2s") -> str:
    """Have r1 and r2 serve with `more` lines; return the virtual server in ipvsadm's words."""
    for name in NAMES:
        address = director.scene.lab.hosts[name].ipv4
        director.register(
            Registration(service="reco", id=f"reco-{name}", address=address, port=director.port, check=Check.ttl())
        )
    director.configure(
        f'[virtual_server.reco]\naddress = "{VIP4}:{director.port}"\nprotocol = "{protocol}"\n'
        f'drain_timeout = "{drain_timeout}"\n{more}'
    )
    virtual_server = f"{'-u' if protocol == 'udp' else '-t'} {endpoint(VIP4, director.port)}"
    director.wait_for_weights(virtual_server, {key_of(director, name): 1 for name in NAMES})
    return virtual_server


def key_of(director: Director, name: str) -> str:
    return endpoint(director.scene.lab.hosts[name].ipv4, director.port)


def other_of(name: str) -> str:
    return NAMES[1 - NAMES.index(name)]


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("number", [0, 1])
def test_a_udp_client_that_keeps_its_port_stays_until_the_deadline_and_then_goes_elsewhere_or_nowhere(
    director: Director, number: int
) -> None:
    director.host.sysctl({NODEST: number})
    virtual_server = serve(director, 'scheduler = "rr"\n', protocol="udp")
    client, flow = director.scene.client, Flow(director.scene.client, director.port)
    leaving = flow.ask()
    staying = other_of(leaving)
    with Traffic(client, VIP4, director.port, udp=True) as traffic:
        director.scene.consul.deregister(f"reco-{leaving}")
        director.wait_for_weights(virtual_server, {key_of(director, leaving): 0, key_of(director, staying): 1})
        new = Traffic(client, VIP4, director.port, udp=True).count(10)
        drained = flow.ask_until(time.monotonic() + 0.8)
        assert director.connections(virtual_server)[key_of(director, leaving)].inactive > 0
        director.wait_for_weights(virtual_server, {key_of(director, staying): 1}, within=5)
        after = flow.ask_until(time.monotonic() + 1)
        report = traffic.stop()
    flow.close()
    print(f"expire_nodest_conn {number}: drained {Counter(drained)}, deleted {Counter(after)}; new ports {report}")
    assert new.answers == {staying: 10}, new
    assert set(drained) == {leaving}
    assert set(after) == ({staying} if number else {""})
    assert not report.failures, report
    deleted = director.wait_for_event("real_server_deleted", real_server=key_of(director, leaving))
    assert deleted["why"].startswith("drain timeout of 2 s is over with 0 active and ")


def test_a_failing_udp_real_server_loses_its_clients_at_once_where_the_kernel_lets_them_go(
    director: Director, programs: Mapping[str, UdpServer]
) -> None:
    director.host.sysctl({NODEST: 1})
    virtual_server = serve(director, 'scheduler = "rr"\n', protocol="udp", drain_timeout="30s")
    flow = Flow(director.scene.client, director.port)
    failing = flow.ask()
    programs[failing].stop()
    assert flow.ask() == ""
    director.scene.consul.update_ttl(f"reco-{failing}", "fail")
    director.wait_for_weights(virtual_server, {key_of(director, other_of(failing)): 1}, within=2)
    assert flow.ask() == other_of(failing)
    flow.close()
    deleted = director.wait_for_event("real_server_deleted", real_server=key_of(director, failing))
    assert deleted["why"].startswith("not drained, clients that keep their source port would stay with it; ")
    assert not director.events("real_server_quiesced")


def test_a_failing_udp_real_server_is_drained_where_its_clients_would_be_lost(
    director: Director, programs: Mapping[str, UdpServer]
) -> None:
    director.host.sysctl({NODEST: 0})
    virtual_server = serve(director, 'scheduler = "rr"\n', protocol="udp", drain_timeout="30s")
    flow = Flow(director.scene.client, director.port)
    failing = flow.ask()
    director.scene.consul.update_ttl(f"reco-{failing}", "fail")
    weights = {key_of(director, failing): 0, key_of(director, other_of(failing)): 1}
    director.wait_for_weights(virtual_server, weights, within=2)
    assert flow.ask() == failing, "a check may be wrong"
    programs[failing].stop()
    assert flow.ask() == ""
    programs[failing].start()
    director.scene.consul.update_ttl(f"reco-{failing}", "pass")
    director.wait_for_weights(virtual_server, dict.fromkeys(weights, 1), within=2)
    assert flow.ask() == failing
    flow.close()
    assert not director.events("real_server_deleted")


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("forwarding", ["direct-route"])
def test_a_one_packet_real_server_goes_a_look_after_it_was_quiesced_and_no_datagram_is_lost(
    director: Director, forwarding: Forwarding
) -> None:
    more = f'scheduler = "rr"\none_packet = true\nforwarding = "{forwarding}"\n'
    virtual_server = serve(director, more, protocol="udp", drain_timeout="30s")
    flow = Flow(director.scene.client, director.port)
    assert {flow.ask() for _ in range(4)} == set(NAMES), "each datagram is scheduled anew"
    with Traffic(director.scene.client, VIP4, director.port, udp=True) as traffic:
        eventually(lambda: traffic.report().answers.get("r1", 0) > 5)
        director.scene.consul.deregister("reco-r1")
        answers: list[str] = []
        while key_of(director, "r1") in director.weights(virtual_server):
            answers += [flow.ask() for _ in range(5)]
            assert len(answers) < 500
        answers += [flow.ask() for _ in range(5)]
        report = traffic.stop()
    flow.close()
    quiesced = director.wait_for_event("real_server_quiesced", real_server=key_of(director, "r1"))
    deleted = director.wait_for_event("real_server_deleted", real_server=key_of(director, "r1"))
    seconds = director.seconds_between(quiesced, deleted)
    print(f"one packet: deleted {seconds:.1f} s after it was quiesced; one port {Counter(answers)}; {report}")
    assert seconds <= 3.0
    assert deleted["why"].startswith("drained in ")
    assert "" not in answers
    assert set(answers[-5:]) == {"r2"}
    assert not report.failures, report


@pytest.mark.parametrize(("scheduler", "flags"), [("sh", '"sh-port"'), ("mh", '"mh-port"'), ("dh", "")])
def test_without_fallback_who_fails_is_deleted_at_once_and_who_leaves_refuses_its_clients(
    director: Director, scheduler: str, flags: str
) -> None:
    director.programs()
    virtual_server = serve(director, f'scheduler = "{scheduler}"\nscheduler_flags = [{flags}]\n')
    client, port = director.scene.client, director.port
    (failing,) = Traffic(client, VIP4, port).count(1).answers
    director.scene.consul.update_ttl(f"reco-{failing}", "fail")
    director.wait_for_weights(virtual_server, {key_of(director, other_of(failing)): 1}, within=2)
    deleted = director.wait_for_event("real_server_deleted", real_server=key_of(director, failing))
    assert deleted["why"].startswith(f"not drained, {scheduler} would refuse its clients; ")
    assert Traffic(client, VIP4, port, new_ports=True).count(20).answers == {other_of(failing): 20}
    director.scene.consul.update_ttl(f"reco-{failing}", "pass")
    director.wait_for_weights(virtual_server, {key_of(director, name): 1 for name in NAMES}, within=2)

    session = Session(client, port)
    leaving, staying = session.server, other_of(session.server)
    director.scene.consul.deregister(f"reco-{leaving}")
    director.wait_for_weights(virtual_server, {key_of(director, leaving): 0, key_of(director, staying): 1}, within=2)
    drained = Traffic(client, VIP4, port, new_ports=True, patience=0.1).count(12)
    assert session.echo()
    director.wait_for_weights(virtual_server, {key_of(director, staying): 1}, within=5)
    after = Traffic(client, VIP4, port, new_ports=True).count(20)
    session.reset()
    print(f"{scheduler} without fallback: drained {drained}\n  deleted {after}")
    assert drained.failures
    reasons = {each.reason for each in drained.failures}
    assert reasons <= {"Connection refused", "no answer in 0.1 s"}, drained  # the kernel limits how often it refuses
    assert drained.answers.keys() <= {staying}
    assert after.answers == {staying: 20}, after


@pytest.mark.parametrize("scheduler", ["sh", "mh"])
def test_with_fallback_its_clients_go_elsewhere_at_once(director: Director, scheduler: str) -> None:
    director.programs()
    flags = f'["{scheduler}-fallback", "{scheduler}-port"]'
    virtual_server = serve(director, f'scheduler = "{scheduler}"\nscheduler_flags = {flags}\n', drain_timeout="30s")
    session = Session(director.scene.client, director.port)
    leaving, staying = session.server, other_of(session.server)
    director.scene.consul.update_ttl(f"reco-{leaving}", "fail")
    director.wait_for_weights(virtual_server, {key_of(director, leaving): 0, key_of(director, staying): 1}, within=2)
    drained = Traffic(director.scene.client, VIP4, director.port, new_ports=True).count(20)
    assert drained.answers == {staying: 20}, drained
    assert session.echo()
    session.reset()

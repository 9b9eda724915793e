"""The lab itself: what the other kernel tests take for granted, done by hand with ipvsadm."""

from collections.abc import Iterator

import pytest

from tests.lab.consul import Check, ConsulAgent, Registration
from tests.lab.scene import HTTP, UDP, VIP4, VIP6, Forwarding, Scene, scene
from tests.lab.traffic import HeldConnections, Traffic
from tests.lab.waiting import eventually

pytestmark = pytest.mark.kernel

IPVSADM = {"masquerade": "-m", "direct-route": "-g", "tunnel": "-i"}


@pytest.fixture(scope="module", params=["masquerade", "direct-route", "tunnel"])
def by_hand(request: pytest.FixtureRequest) -> Iterator[Scene]:
    forwarding: Forwarding = request.param
    with scene(forwarding, consul=False) as made:
        lines = []
        for vip, family in ((VIP4, "ipv4"), (f"[{VIP6}]", "ipv6")):
            for flag, port in (("-t", HTTP), ("-u", UDP)):
                lines.append(f"-A {flag} {vip}:{port} -s rr")
                for each in made.real_servers:
                    address = each.host.ipv4 if family == "ipv4" else f"[{each.host.ipv6}]"
                    lines.append(f"-a {flag} {vip}:{port} -r {address}:{port} {IPVSADM[forwarding]}")
        made.director.run(["ipvsadm", "-R"], text="\n".join(lines) + "\n")
        yield made


@pytest.mark.parametrize("vip", [VIP4, VIP6])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_every_real_server_answers_in_turn(by_hand: Scene, vip: str, protocol: str) -> None:
    udp = protocol == "udp"
    report = Traffic(by_hand.client, vip, UDP if udp else HTTP, udp=udp).count(9)
    assert not report.failures, report
    assert report.answers == {"r1": 3, "r2": 3, "r3": 3}


def test_held_connections_break_when_their_server_is_killed_and_only_those(by_hand: Scene) -> None:
    with HeldConnections(by_hand.client, VIP4, HTTP, count=3, every=0.05) as held:
        assert sorted(held.names) == ["r1", "r2", "r3"]
        eventually(lambda: held.exchanged > 9)
        assert not held.broken
        by_hand.real_servers[0].http.kill()
        try:
            eventually(lambda: set(held.broken) == {held.names.index("r1")})
        finally:
            by_hand.real_servers[0].http.start()


def test_traffic_counts_what_fails_when_a_server_is_gone(by_hand: Scene) -> None:
    by_hand.real_servers[1].http.stop()
    try:
        report = Traffic(by_hand.client, VIP4, HTTP).count(6)
    finally:
        by_hand.real_servers[1].http.start()
    assert report.answers == {"r1": 2, "r3": 2}
    assert len(report.failures) == 2
    assert "refused" in report.failures[0].reason


def test_the_rate_the_lab_can_carry(by_hand: Scene) -> None:
    with Traffic(by_hand.client, VIP4, HTTP, rate=1000) as traffic:
        eventually(lambda: traffic.report().seconds > 2)
        report = traffic.stop()
    print(report)
    assert not report.failures, report
    assert report.rate > 20


@pytest.fixture(scope="module")
def with_consul() -> Iterator[Scene]:
    with scene(real_servers=2) as made:
        yield made


def test_consul_sees_a_server_stop_and_come_back(with_consul: Scene) -> None:
    first, second = with_consul.real_servers
    consul = with_consul.consul
    consul.register(first.registration())
    consul.write(second.registration())
    consul.wait_for_health("reco", {"reco-r1": "passing", "reco-r2": "passing"})
    first.http.kill()
    consul.wait_for_health("reco", {"reco-r1": "critical", "reco-r2": "passing"})
    first.http.start()
    consul.wait_for_health("reco", {"reco-r1": "passing", "reco-r2": "passing"})
    consul.maintain("reco-r1", enable=True)
    consul.wait_for_health("reco", {"reco-r1": "critical", "reco-r2": "passing"})
    consul.deregister("reco-r1")
    consul.remove("reco-r2")
    consul.wait_for_health("reco", {})


def test_a_client_agent_joins_and_a_server_keeps_what_it_knew_over_a_kill() -> None:
    with scene(real_servers=1, consul=False) as made:
        server = ConsulAgent(made.consul_host, kind="server", node="server")
        server.start(wait=False)
        agent = ConsulAgent(made.director, kind="client", join=[made.consul_host.ipv4], address="10.2.0.1")
        agent.start()
        r1 = made.real_servers[0]
        check = Check.http(r1.host.ipv4, HTTP)
        agent.register(Registration(service="web", id="web-1", address=r1.host.ipv4, port=HTTP, check=check))
        agent.register(Registration(service="ttl", id="ttl-1", port=9, weight=7, check=Check.ttl()))
        server.wait_for_health("web", {"web-1": "passing"})
        r1.http.healthy = False
        server.wait_for_health("web", {"web-1": "critical"})
        agent.update_ttl("ttl-1", "warn", "rather slow")
        server.wait_for_health("ttl", {"ttl-1": "warning"})
        server.kill()
        server.start()
        server.wait_for_health("ttl", {"ttl-1": "warning"})
        server.freeze()
        with pytest.raises(OSError, match="timed out"):
            server.request("GET", "/v1/status/leader", within=0.5)
        server.thaw()
        eventually(lambda: server.get("/v1/status/leader"))

"""A site's Consul, three servers and client agents, in trouble and in upgrades, under steady traffic.

Promises: errors 0, and no write that Consul's own word does not ask for; a registration made once there is a leader
again is in the table within `RESUMED`. Requests are short, and some connections are held through all of it.

Of the three instances that serve, one is registered with the director's own agent and two with the agent of the
applications. Consul itself takes out the instances of an agent that is away: those may be quiesced, and nothing else.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Final

import attrs
import pytest

from lvsctl.core.status import State
from tests.kernel.director import Director, tcp
from tests.kernel.writes import wait_until_in_sync, writes
from tests.lab.cluster import Cluster, cluster
from tests.lab.consul import Check, ConsulAgent, Registration
from tests.lab.hosts import CommandError
from tests.lab.scene import HTTP, VIP4, RealServer
from tests.lab.traffic import HeldConnections, Traffic
from tests.lab.waiting import eventually
from tests.showing import Figure

pytestmark = pytest.mark.kernel

RESUMED: Final = 5.0  # seconds from a registration to the table
NOTICED: Final = 25 * 17 / 16 + 10  # seconds in which an answer that does not come is missed, see consul/transport.py
ERRORS: Final = f"0 failed, 0 broken, resumed in {RESUMED:g} s"
RESUMES, NOTICES = "s to resume", "s until it was noticed"
RECO: Final = f'[virtual_server.reco]\naddress = "{VIP4}:{HTTP}"\nscheduler = "rr"\ndrain_timeout = "2m"\n'
OWN, FIRST, SECOND, NEW = (f"10.2.0.{number}:{HTTP}" for number in (11, 12, 13, 14))
THREE: Final = {OWN: 1, FIRST: 1, SECOND: 1}
FOUR: Final = THREE | {NEW: 1}
VIRTUAL_SERVER: Final = tcp(VIP4, HTTP)


def registration(server: RealServer) -> Registration:
    """Return its registration, with a check that outlasts a SYN that is lost and an agent that does not run.

    The usual check gives up after a second, which is when Linux sends a SYN again: one that is lost is critical until
    the next check, a second later, and lvsctl rightly quiesces and raises. That is no concern of these tests.
    """
    address = server.host.ipv4
    return attrs.evolve(server.registration(), check=Check.tcp(address, HTTP, timeout="30s"))


@attrs.frozen(kw_only=True)
class Site:
    """The cluster and the daemon that balances by its word."""

    cluster: Cluster
    director: Director

    def register_new(self) -> float:
        """Register r4 with the agent of the applications; return the seconds until it serves."""
        began = time.monotonic()
        self.cluster.applications.register(registration(self.cluster.scene.real_servers[3]))
        self.director.wait_for_weights(VIRTUAL_SERVER, FOUR, within=RESUMED)
        return time.monotonic() - began

    def wait_until_served_by(self, expected: dict[str, int], within: float = 20.0) -> None:
        """Return when the table has exactly these; Consul's agents tell each other in their own time."""
        self.director.wait_for_weights(VIRTUAL_SERVER, expected, within=within)


@pytest.fixture(scope="module")
def own_site() -> Iterator[Site]:
    with cluster(real_servers=4) as made:
        director = Director(made.scene)
        director.configure(RECO)  # before there is a Consul, which would take the processor from it
        made.mend()
        r1, r2, r3, _ = map(registration, made.scene.real_servers)
        made.agent.write(r1)
        made.applications.write(r2)
        made.applications.write(r3)
        yield Site(cluster=made, director=director)


@pytest.fixture
def site(own_site: Site) -> Iterator[Site]:
    """Return the site with all agents well and r1 to r3 serving."""
    own_site.cluster.mend()
    own_site.wait_until_served_by(THREE)
    wait_until_in_sync(own_site.director)
    own_site.director.forget_log()
    yield own_site
    own_site.cluster.mend()
    with contextlib.suppress(OSError):  # it may not be there, or not with this agent
        own_site.cluster.applications.deregister("reco-r4")
    eventually(lambda: own_site.director.weights(VIRTUAL_SERVER).get(NEW, 0) == 0, within=20)
    if NEW in own_site.director.weights(VIRTUAL_SERVER):  # what drains would stay for long
        with contextlib.suppress(CommandError):  # the daemon was quicker
            own_site.director.ipvsadm("-d", *VIRTUAL_SERVER.split(), "-r", NEW)


@contextlib.contextmanager
def steady_traffic(site: Site, what: str, figure: Figure) -> Iterator[None]:
    """Have the client ask all the while; no request may fail and no held connection break."""
    client = site.cluster.scene.client
    with (
        HeldConnections(client, VIP4, HTTP, count=6) as held,
        Traffic(client, VIP4, HTTP, rate=20) as traffic,
    ):
        assert set(held.names) == {"r1", "r2", "r3"}
        yield
        report = traffic.stop()
        exchanged, broken = held.exchanged, dict(held.broken)
    print(f"{what}: {report}; {exchanged} bytes over {len(held.names)} held connections")
    figure.traffic(report, held)
    assert not report.failures, report
    assert not broken, broken


@pytest.mark.promise(1, case="Consul's leader is killed", target=ERRORS)
def test_the_leader_is_killed(site: Site, figure: Figure) -> None:
    with steady_traffic(site, "leader killed", figure):
        site.cluster.leader().kill()
        began = time.monotonic()
        site.cluster.wait_for_leader()
        election = time.monotonic() - began
        took = site.register_new()
    figure(took, RESUMES)
    print(f"leader killed: another after {election:.1f} s, a registration {took:.1f} s after that")
    assert writes(site.director) == [f"real_server_added {NEW}"]


@pytest.mark.promise(1, case="all of Consul's servers are killed, and back after 8 s", target=ERRORS)
def test_all_servers_are_killed(site: Site, figure: Figure) -> None:
    with steady_traffic(site, "all servers killed", figure):
        for each in site.cluster.servers:
            each.kill()
        failed = site.director.wait_for_event("consul_failed", within=10, consul_service="reco")
        assert failed["kept"] == "the last answer"

        def away_for_long() -> bool:
            consul = site.director.status().consul
            assert consul is not None
            assert consul.failing_since is not None
            assert not consul.reachable
            return time.time() - consul.failing_since > 8

        eventually(away_for_long, within=20)
        assert [row.state for row in site.director.status().virtual_servers] == [State.OK]
        assert writes(site.director) == []
        site.cluster.mend()
        took = site.register_new()
        site.director.wait_for_event("consul_back", consul_service="reco")
    figure(took, RESUMES)
    failures = len(site.director.events("consul_failed"))
    print(f"all servers killed: {failures} lines in the log, a registration {took:.1f} s after there was a leader")
    assert writes(site.director) == [f"real_server_added {NEW}"], site.director.log


def only_quiesced_and_raised(site: Site, real_servers: Sequence[str]) -> list[str]:
    """Return the writes; no real server but these was changed, and these have their weight again."""
    made = writes(site.director)
    allowed = {f"{event} {each}" for each in real_servers for event in ("real_server_quiesced", "real_server_changed")}
    assert set(made) <= allowed, made
    return made


def agent_of(site: Site, name: str) -> tuple[ConsulAgent, list[str]]:
    """Return an agent by its name here, and the real servers that are registered with it."""
    return {
        "the director's": (site.cluster.agent, [OWN]),
        "the applications'": (site.cluster.applications, [FIRST, SECOND]),
    }[name]


@pytest.mark.promise(1, case="a client agent is killed and comes back", target=ERRORS)
@pytest.mark.parametrize("name", ["the director's", "the applications'"])
def test_a_client_agent_is_killed_and_comes_back(site: Site, name: str, figure: Figure) -> None:
    """The others miss it after seconds; what is registered with it may be called critical until it is back.

    Of three that serve two are the floor, so one of the two that are critical goes on serving.
    """
    agent, registered = agent_of(site, name)
    with steady_traffic(site, f"{name} agent killed", figure):
        agent.kill()
        if agent is site.cluster.agent:
            site.director.wait_for_event("consul_failed", consul_service="reco", error="connection refused")
        else:
            site.wait_until_served_by(THREE | {SECOND: 0})
            assert site.director.status_of("reco").state is State.HELD
        agent.start()
        site.wait_until_served_by(THREE)
        made = only_quiesced_and_raised(site, registered)
        took = site.register_new()
    figure(took, RESUMES)
    print(f"{name} agent killed: {made or 'no write'}, a registration after {took:.1f} s")


@pytest.mark.promise(1, case="every Consul agent restarted, in the order of an upgrade", target=ERRORS)
def test_a_rolling_restart_in_the_order_of_an_upgrade(site: Site, figure: Figure) -> None:
    """Followers, leader, clients. A client agent that ends in order takes its instances with it until it is back."""
    with steady_traffic(site, "rolling restart", figure):
        leader = site.cluster.leader()
        for each in (*(follower for follower in site.cluster.servers if follower is not leader), leader):
            site.cluster.restart(each)
            site.cluster.wait_for_leader()
        took = site.register_new()
        assert writes(site.director) == [f"real_server_added {NEW}"], "no server has an instance"
        site.director.forget_log()
        for name in ("the applications'", "the director's"):
            agent, _ = agent_of(site, name)
            site.cluster.restart(agent)
            site.wait_until_served_by(FOUR)
        made = only_quiesced_and_raised(site, list(FOUR))
    figure(took, RESUMES)
    print(f"rolling restart: a registration after the servers' {took:.1f} s; clients: {made}")


@pytest.mark.promise(1, case="a firewall drops what goes to the agent", target=ERRORS)
@pytest.mark.promise(13, case="a firewall drops what goes to the agent", target=f"noticed in {NOTICED:.1f} s")
@pytest.mark.soak
def test_a_firewall_drops_what_goes_to_the_agent(site: Site, figure: Figure) -> None:
    director = site.cluster.scene.director
    director.run(["modprobe", "-a", "iptable_filter", "xt_tcpudp"], check=False)
    rules = [["INPUT", "-p", "tcp", port, "8500", "-j", "DROP"] for port in ("--dport", "--sport")]
    with steady_traffic(site, "agent behind a firewall rule", figure):
        for rule in rules:
            director.run(["iptables-legacy", "-A", *rule])
        began = time.monotonic()
        try:
            site.director.wait_for_event("consul_failed", within=NOTICED + 2, consul_service="reco")
            noticed = time.monotonic() - began
            assert writes(site.director) == []
        finally:
            for rule in rules:
                director.run(["iptables-legacy", "-D", *rule])
        took = site.register_new()
    figure(noticed, NOTICES)
    figure(took, RESUMES)
    print(f"firewall: noticed after {noticed:.1f} s, a registration {took:.1f} s after the rule went")
    assert writes(site.director) == [f"real_server_added {NEW}"]


@pytest.mark.promise(1, case="Consul's leader is frozen", target="0 failed, 0 broken")
@pytest.mark.soak
def test_the_leader_is_frozen(site: Site, figure: Figure) -> None:
    """It holds its connections and says nothing: the others elect another, and an agent that asked it waits."""
    with steady_traffic(site, "leader frozen", figure):
        frozen = site.cluster.leader()
        frozen.freeze()
        try:
            others = attrs.evolve(
                site.cluster, servers=tuple(each for each in site.cluster.servers if each is not frozen)
            )
            leader = others.wait_for_leader()
            began = time.monotonic()
            service = {"Service": "reco", "ID": "reco-r4", "Port": HTTP}
            leader.put("/v1/catalog/register", {"Node": "r4", "Address": "10.2.0.14", "Service": service})
            site.wait_until_served_by(FOUR, within=NOTICED + 2 * RESUMED)
            took = time.monotonic() - began
            leader.put("/v1/catalog/deregister", {"Node": "r4"})
        finally:
            frozen.thaw()
    figure(took, "s until a registration was in the table")
    print(f"leader frozen: a registration {took:.1f} s after another led")
    assert writes(site.director)[:1] == [f"real_server_added {NEW}"]
    assert set(writes(site.director)[1:]) <= {f"real_server_quiesced {NEW}"}

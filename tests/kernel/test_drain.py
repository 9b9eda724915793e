"""Who leaves keeps its connections: quiesced at once, deleted when they are gone or the deadline has come."""

import contextlib
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from tests.kernel.director import Connections, Director, tcp
from tests.lab.consul import Check, Registration
from tests.lab.hosts import Host
from tests.lab.scene import VIP4, Forwarding
from tests.lab.traffic import HeldConnections, Traffic
from tests.lab.waiting import eventually
from tests.showing import Figure

pytestmark = pytest.mark.kernel

CLOSED = 10.0  # seconds the kernel keeps a connection after a reset (IP_VS_TCP_S_CLOSE)
MANY = 200


def serve(
    director: Director, *, drain_timeout: str, forwarding: Forwarding = "masquerade", more: str = ""
) -> tuple[str, str, str]:
    """Have r1 and r2 serve, in turn; return ipvsadm's words for their virtual server and for the two."""
    director.programs()
    keys = {}
    for name in ("r1", "r2"):
        address = director.scene.lab.hosts[name].ipv4
        keys[f"{address}:{director.port}"] = 1
        director.register(
            Registration(service="reco", id=f"reco-{name}", address=address, port=director.port, check=Check.ttl())
        )
    director.configure(
        f'[virtual_server.reco]\naddress = "{VIP4}:{director.port}"\nscheduler = "rr"\n'
        f'forwarding = "{forwarding}"\ndrain_timeout = "{drain_timeout}"\n{more}'
    )
    virtual_server = tcp(VIP4, director.port)
    director.wait_for_weights(virtual_server, keys)
    r1, r2 = keys
    return virtual_server, r1, r2


class Session:
    """One connection through the virtual address, of which the test decides when it ends."""

    def __init__(self, client: Host, port: int) -> None:
        self._socket = client.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.settimeout(3.0)
        self._socket.connect((VIP4, port))
        self._socket.sendall(b"GET /hold HTTP/1.1\r\nHost: lab\r\n\r\n")
        self._file = self._socket.makefile("rb")
        while self._file.readline() != b"\r\n":
            pass
        self.server = self._file.readline().decode().strip()

    def echo(self) -> bool:
        """Tell whether what is sent comes back; OSError when it does not."""
        self._socket.sendall(b"still here\n")
        return self._file.readline() == b"still here\n"

    def reset(self) -> None:
        """End it with a reset, after which the kernel forgets it in `CLOSED` seconds and not in two minutes."""
        if self._socket.fileno() < 0:
            return  # it is ended already
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._file.close()
        self._socket.close()


@contextlib.contextmanager
def session_on(director: Director, port: int, server: str) -> Iterator[Session]:
    """Open a connection that `server` answers; others that were opened on the way are reset."""
    opened = [Session(director.scene.client, port)]
    try:
        while opened[-1].server != server:
            opened.append(Session(director.scene.client, port))
        yield opened[-1]
    finally:
        for each in opened:
            each.reset()


@pytest.mark.promise(
    11, case="deregistered with a connection, in both forwardings", target="it lives, then the entry goes"
)
@pytest.mark.parametrize("forwarding", ["masquerade", "direct-route"])
def test_a_connection_outlives_the_deregistration_and_the_real_server_goes_with_it(
    director: Director, forwarding: Forwarding, figure: Figure
) -> None:
    virtual_server, r1, r2 = serve(director, drain_timeout="60s", forwarding=forwarding)
    with session_on(director, director.port, "r1") as session:
        director.scene.consul.deregister("reco-r1")
        director.wait_for_weights(virtual_server, {r1: 0, r2: 1}, within=2)
        report = Traffic(director.scene.client, VIP4, director.port).count(20)
        figure.traffic(report)
        assert report.answers == {"r2": 20}, report
        until = time.monotonic() + 3  # three audits
        while time.monotonic() < until:
            assert session.echo()
        assert director.weights(virtual_server) == {r1: 0, r2: 1}
        assert director.connections(virtual_server)[r1] == Connections(active=1, inactive=0)
        session.reset()
        ended = time.monotonic()
        director.wait_for_weights(virtual_server, {r2: 1}, within=CLOSED + 5)
        figure(time.monotonic() - ended, "s from its end until the entry went")
    deleted = director.wait_for_event("real_server_deleted", real_server=r1, cause="drain")
    assert deleted["why"].startswith("drained in ")
    assert "no longer registered in Consul" in deleted["why"]


@pytest.mark.promise(11, case="a connection that outlasts its drain_timeout of 3 s", target="deleted after 3 to 5 s")
def test_after_the_drain_timeout_the_real_server_is_deleted_whatever_is_left(
    director: Director, figure: Figure
) -> None:
    virtual_server, r1, r2 = serve(director, drain_timeout="3s")
    with session_on(director, director.port, "r1") as session:
        director.scene.consul.update_ttl("reco-r1", "fail", "no database")
        director.wait_for_weights(virtual_server, {r1: 0, r2: 1}, within=2)
        quiesced = director.wait_for_event("real_server_quiesced", real_server=r1)
        assert session.echo()
        director.wait_for_weights(virtual_server, {r2: 1}, within=6)
        deleted = director.wait_for_event("real_server_deleted", real_server=r1)
        figure(director.seconds_between(quiesced, deleted), "s from quiesced to deleted")
        assert 3.0 <= director.seconds_between(quiesced, deleted) <= 5.0
        assert "drain timeout of 3 s is over with 1 active and 0 closing connections left" in deleted["why"]
        assert "no database" in deleted["why"]
        with pytest.raises(TimeoutError):
            session.echo()


def test_without_a_drain_timeout_it_is_deleted_at_once(director: Director) -> None:
    virtual_server, r1, r2 = serve(director, drain_timeout="0s")
    director.scene.consul.deregister("reco-r1")
    director.wait_for_weights(virtual_server, {r2: 1}, within=2)
    director.wait_for_event("real_server_deleted", real_server=r1)
    assert not director.events("real_server_quiesced")


def test_one_that_fails_may_be_deleted_at_once_and_one_that_leaves_is_drained(director: Director) -> None:
    virtual_server, r1, r2 = serve(director, drain_timeout="60s", more='on_critical = "delete"\nfloor = "0%"\n')
    with session_on(director, director.port, "r2") as session:
        director.scene.consul.update_ttl("reco-r1", "fail", "no database")
        director.wait_for_weights(virtual_server, {r2: 1}, within=2)
        deleted = director.wait_for_event("real_server_deleted", real_server=r1)
        assert deleted["why"].startswith('not drained, on_critical is "delete"; ')
        assert "no database" in deleted["why"]
        assert not director.events("real_server_quiesced")
        director.scene.consul.update_ttl("reco-r1", "pass")
        director.wait_for_weights(virtual_server, {r1: 1, r2: 1}, within=2)
        director.scene.consul.deregister("reco-r2")
        director.wait_for_weights(virtual_server, {r1: 1, r2: 0}, within=2)
        assert session.echo()


def test_one_that_returns_while_it_drains_keeps_its_connections_and_gets_new_ones(director: Director) -> None:
    virtual_server, r1, r2 = serve(director, drain_timeout="60s")
    with session_on(director, director.port, "r1") as session:
        director.scene.consul.update_ttl("reco-r1", "fail")
        director.wait_for_weights(virtual_server, {r1: 0, r2: 1}, within=2)
        director.scene.consul.update_ttl("reco-r1", "pass")
        director.wait_for_weights(virtual_server, {r1: 1, r2: 1}, within=2)
        assert session.echo()
        assert Traffic(director.scene.client, VIP4, director.port).count(10).answers == {"r1": 5, "r2": 5}
    director.wait_for_event("real_server_changed", real_server=r1, cause="returned", why="passing again")
    assert not director.events("real_server_deleted")
    assert len(director.events("real_server_added")) == 2


@pytest.mark.promise(
    11, case="200 long connections, half on an instance that is deregistered", target="0 broken, no new one after 2 s"
)
def test_no_connection_of_two_hundred_breaks_before_the_deadline_and_no_new_one_goes_there(
    director: Director, figure: Figure
) -> None:
    virtual_server, r1, r2 = serve(director, drain_timeout="60s")
    client = director.scene.client
    with HeldConnections(client, VIP4, director.port, count=MANY, every=1.0) as held:
        assert held.names.count("r1") == MANY // 2
        with Traffic(client, VIP4, director.port) as before:
            eventually(lambda: before.report().answers.get("r1", 0) > 5)
            director.scene.consul.deregister("reco-r1")
            director.wait_for_weights(virtual_server, {r1: 0, r2: 1}, within=2)
            report = before.stop()
        assert not report.failures, report
        with Traffic(client, VIP4, director.port) as after:
            exchanged = held.exchanged
            eventually(lambda: held.exchanged > exchanged + 3 * MANY, within=20)  # each about three times
            report = after.stop()
        figure.traffic(report, held)
        figure(report.answers.get("r1", 0), "new ones there")
        assert not report.failures, report
        assert report.answers.keys() == {"r2"}
        assert not held.broken
        assert director.weights(virtual_server) == {r1: 0, r2: 1}
        assert director.connections(virtual_server)[r1].active >= MANY // 2


@pytest.mark.promise(11, case="persistence, and the real server of a client fails", target="0 failed at the other")
def test_a_failing_one_loses_its_clients_at_once_where_persistence_would_keep_them(
    director: Director, figure: Figure
) -> None:
    """A quiesced real server keeps the clients that persistence bound to it; one that is dead must not."""
    director.host.sysctl({"net.ipv4.vs.expire_quiescent_template": 0})
    virtual_server, r1, r2 = serve(director, drain_timeout="30s", more='persistence = "5m"\n')
    (bound,) = Traffic(director.scene.client, VIP4, director.port).count(20).answers
    failing, other = (r1, r2) if bound == "r1" else (r2, r1)
    director.scene.consul.update_ttl(f"reco-{bound}", "fail")
    director.wait_for_weights(virtual_server, {other: 1})
    after = Traffic(director.scene.client, VIP4, director.port).count(20)
    figure.traffic(after)
    assert (set(after.answers), after.failures) == ({"r1", "r2"} - {bound}, ())
    deleted = director.events("real_server_deleted")[-1]
    assert deleted["real_server"] == failing
    assert str(deleted["why"]).startswith("not drained, persistence would keep its clients; ")
    assert director.events("real_server_quiesced") == []

"""All real servers restarted, one after the other, behind a drain: no client notices.

Under steady short requests and with long connections held open. What the restart itself ends after the drain may end,
nothing else.
"""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

import pytest

from tests.kernel.director import Director, tcp
from tests.lab.consul import Check, Registration
from tests.lab.scene import VIP4, Forwarding
from tests.lab.servers import HttpServer
from tests.lab.traffic import HeldConnections, Traffic
from tests.lab.waiting import eventually

pytestmark = pytest.mark.kernel

NODEST = "net.ipv4.vs.expire_nodest_conn"
DRAWN = "/proc/sys/net/ipv4/ip_local_port_range"
FEW = "30000 30399"


def real_server_of(program: HttpServer) -> str:
    return f"{program.host.ipv4}:{program.ports[0]}"


def serve(
    director: Director, programs: Sequence[HttpServer], forwarding: Forwarding, *, drain_timeout: str, more: str = ""
) -> str:
    """Have `programs` serve, by their health pages, with `more` lines; return the virtual server in ipvsadm's words."""
    for each in programs:
        address = each.host.ipv4
        check = Check.http(address, director.port)
        director.register(
            Registration(service="reco", id=f"reco-{each.name}", address=address, port=director.port, check=check)
        )
    director.configure(
        f'[virtual_server.reco]\naddress = "{VIP4}:{director.port}"\nscheduler = "rr"\n'
        f'forwarding = "{forwarding}"\ndrain_timeout = "{drain_timeout}"\n{more}'
    )
    virtual_server = tcp(VIP4, director.port)
    director.wait_for_weights(virtual_server, {real_server_of(each): 1 for each in programs})
    return virtual_server


def quiesced(director: Director, virtual_server: str, key: str, *, left: int) -> None:
    """Return when `key` gets no new connections and of those it has only `left` are alive: the held ones."""
    eventually(lambda: director.weights(virtual_server)[key] == 0)
    eventually(lambda: director.connections(virtual_server)[key].active == left)


def wait_until_broken(held: HeldConnections, positions: AbstractSet[int]) -> None:
    """Return when exactly these of the held connections are broken."""
    eventually(lambda: held.broken.keys() == positions)


def wait_until_deleted(director: Director, virtual_server: str, key: str) -> None:
    """Return when `key` is not in the table."""
    eventually(lambda: key not in director.weights(virtual_server))


def answers_again(director: Director, virtual_server: str, each: HttpServer, traffic: Traffic) -> None:
    """Return when `each` is in the table and the client was answered by it once more."""
    eventually(lambda: director.weights(virtual_server).get(real_server_of(each)) == 1)
    before = traffic.report().answers.get(each.name, 0)
    eventually(lambda: traffic.report().answers.get(each.name, 0) > before)


@pytest.mark.parametrize("forwarding", ["masquerade", "direct-route"])
def test_restarted_while_quiesced_no_request_fails(
    director: Director, forwarding: Forwarding, capsys: pytest.CaptureFixture[str]
) -> None:
    """Maintenance, then a restart as soon as no short request runs there; it comes back from its drain."""
    programs, consul = director.programs(), director.scene.consul
    virtual_server = serve(director, programs, forwarding, drain_timeout="5m")
    ended: set[int] = set()  # the held connections that a restart ended
    with (
        HeldConnections(director.scene.client, VIP4, director.port, count=8) as held,
        Traffic(director.scene.client, VIP4, director.port) as traffic,
    ):
        for each in programs:
            on_it = {position for position, name in enumerate(held.names) if name == each.name}
            assert on_it, held.names
            consul.maintain(f"reco-{each.name}", enable=True, reason="restart")
            quiesced(director, virtual_server, real_server_of(each), left=len(on_it))
            assert held.broken.keys() == ended, held.broken
            each.stop(within=0.1)
            each.start()
            ended |= on_it
            consul.maintain(f"reco-{each.name}", enable=False)
            answers_again(director, virtual_server, each, traffic)
            wait_until_broken(held, ended)
        report = traffic.stop()
    with capsys.disabled():
        print(f"\nrolling restart, {forwarding}, quiesced: {report}")
    assert not report.failures, report
    assert not director.events("real_server_deleted")
    assert len(director.events("real_server_quiesced")) == len(programs)


@pytest.fixture
def _nodest(director: Director, nodest: int) -> Iterator[None]:
    """Have the kernel keep or let go of the clients of a deleted real server."""
    director.host.sysctl({NODEST: nodest})
    yield
    director.host.sysctl({NODEST: 0})


@pytest.fixture
def _few_ports(director: Director, *, new_ports: bool) -> Iterator[None]:
    """Have the client draw its ports from so few that each comes again within seconds, unless it takes new ones."""
    before = drawn_from(director)
    if not new_ports:
        draw_from(director, FEW)
    yield
    draw_from(director, before)


def drawn_from(director: Director) -> str:
    return director.scene.client.call(lambda: Path(DRAWN).read_text("ascii").strip())


def draw_from(director: Director, ports: str) -> None:
    director.scene.client.call(lambda: Path(DRAWN).write_text(ports, "ascii"))


@pytest.mark.usefixtures("_nodest", "_few_ports")
@pytest.mark.parametrize(
    ("forwarding", "nodest", "new_ports"),
    [("masquerade", 0, False), ("direct-route", 0, True), ("direct-route", 1, False)],
)
def test_restarted_after_it_was_deleted_no_request_fails(
    director: Director, forwarding: Forwarding, nodest: int, capsys: pytest.CaptureFixture[str], *, new_ports: bool
) -> None:
    """Its health page says 503, the drain timeout passes, then it is restarted.

    With direct-route, and `expire_nodest_conn` at 0, IPVS drops a request from a port that it remembers of the deleted
    real server; `test_kernel_settings.py` shows it with one port. There, so that nothing else is forgiven, no port
    comes twice; everywhere else each comes again and again.
    """
    programs = director.programs()
    # Longer than a slow machine takes to see that it is quiesced.
    virtual_server = serve(director, programs, forwarding, drain_timeout="4s")
    restarted: set[str] = set()
    with (
        HeldConnections(director.scene.client, VIP4, director.port, count=8) as held,
        Traffic(director.scene.client, VIP4, director.port, new_ports=new_ports) as traffic,
    ):
        for each in programs:
            key = real_server_of(each)
            on_it = {position for position, name in enumerate(held.names) if name == each.name}
            assert on_it, held.names
            each.healthy = False
            quiesced(director, virtual_server, key, left=len(on_it))
            assert not held.broken.keys() & on_it, held.broken
            wait_until_deleted(director, virtual_server, key)
            each.stop(within=0.1)
            each.healthy = True
            each.start()
            answers_again(director, virtual_server, each, traffic)
            restarted.add(each.name)
            assert {held.names[position] for position in held.broken} <= restarted, held.broken
        report = traffic.stop()
    with capsys.disabled():
        print(f"\nrolling restart, {forwarding}, expire_nodest_conn {nodest}, deleted: {report}")
    assert not report.failures, report
    assert len(director.events("real_server_deleted")) == len(programs)

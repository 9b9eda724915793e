"""Nine of ten instances go on Consul's word, at once and one by one: never fewer than half serve, and no request fails.

Ten programs on four hosts, registered on a node without an agent, so that one transaction takes nine of them out.
"""

from collections.abc import Callable, Iterator

import pytest

from tests.kernel import catalogue
from tests.kernel.director import Director, tcp
from tests.lab.scene import VIP4
from tests.lab.servers import HttpServer
from tests.lab.traffic import HeldConnections, Traffic
from tests.lab.waiting import eventually
from tests.showing import Figure

pytestmark = pytest.mark.kernel

PORTS = (9001, 9002, 9003)
TEN, FLOOR = 10, 5
IDS = [f"reco-{number}" for number in range(1, TEN + 1)]
GOES = IDS[:-1]


@pytest.fixture
def ten(director: Director) -> Iterator[str]:
    """Have ten programs serve; return ipvsadm's words for their virtual server."""
    places = [(each.host, port) for port in PORTS for each in director.scene.real_servers][:TEN]
    made = [HttpServer(host, ports=[port], name=f"{host.ipv4}:{port}") for host, port in places]
    for each in made:
        each.start()
    services = [
        {"ID": name, "Service": "reco", "Address": host.ipv4, "Port": port}
        for name, (host, port) in zip(IDS, places, strict=True)
    ]
    catalogue.put(director.scene.consul, services)
    director.configure(
        f'[virtual_server.reco]\naddress = "{VIP4}:{director.port}"\nscheduler = "rr"\ndrain_timeout = "2s"\n'
    )
    virtual_server = tcp(VIP4, director.port)
    director.wait_for_weights(virtual_server, {each.name: 1 for each in made})
    yield virtual_server
    for each in made:
        each.kill()


def at_once(director: Director, _serving: Callable[[], int]) -> None:
    """Have nine go in one answer."""
    catalogue.remove(director.scene.consul, "reco", *GOES)


def one_by_one(director: Director, serving: Callable[[], int]) -> None:
    """Have one in ten go with every answer, nine times; each alone is believable."""
    for gone, name in enumerate(GOES, 1):
        catalogue.remove(director.scene.consul, "reco", name)
        expected = max(TEN - gone, FLOOR)
        eventually(lambda expected=expected: serving() == expected, within=20)  # type: ignore[misc]
        status = director.status_of("reco")
        assert (status.state.value == "held") == (gone > TEN - FLOOR), status


def goes(
    director: Director, virtual_server: str, figure: Figure, go: Callable[[Director, Callable[[], int]], None]
) -> None:
    """Have nine of ten go in the way of `go`, under traffic."""
    seen: list[int] = []

    def serving() -> int:
        seen.append(sum(weight > 0 for weight in director.weights(virtual_server).values()))
        return seen[-1]

    client = director.scene.client
    with (
        HeldConnections(client, VIP4, director.port, count=TEN) as held,
        Traffic(client, VIP4, director.port) as traffic,
    ):
        go(director, serving)
        director.wait_for_event("hold", name="reco")
        asked = traffic.report().seconds
        eventually(lambda: traffic.report().seconds > asked + 4 and serving() == FLOOR, within=20)  # four audits
        report = traffic.stop()
        figure(min(seen), "of 10 served at least")
        figure.traffic(report)
        stays = {key for key, weight in director.weights(virtual_server).items() if weight > 0}
        broken = {at: why for at, why in held.broken.items() if held.names[at] in stays}
        figure(sum(name in stays for name in held.names), "held at those that stay")
        figure(len(broken), "broken")
    assert min(seen) == FLOOR
    assert not report.failures, report
    assert not broken, broken


@pytest.mark.promise(2, case="nine of ten deregistered in one answer", target="5 of 10 serve, 0 failed")
def test_nine_of_ten_go_in_one_answer_and_half_serve(director: Director, ten: str, figure: Figure) -> None:
    goes(director, ten, figure, at_once)


@pytest.mark.promise(2, case="a slow leak: one in ten with every answer, nine times", target="5 of 10 serve, 0 failed")
def test_a_slow_leak_stops_at_half(director: Director, ten: str, figure: Figure) -> None:
    goes(director, ten, figure, one_by_one)

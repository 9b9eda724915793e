"""How many leave at most on Consul's word, under traffic: half of those that served, until an operator says more."""

import pytest

from lvsctl.core.status import Place, State
from tests.kernel.director import Director, tcp
from tests.lab.scene import HTTP, VIP4
from tests.lab.traffic import HeldConnections, Traffic
from tests.lab.waiting import eventually
from tests.showing import Figure

pytestmark = pytest.mark.kernel

R1, R2, R3, R4 = (f"10.2.0.{10 + number}:{HTTP}" for number in range(1, 5))


def four_serve(director: Director) -> str:
    """Have reco served by all four real servers; return ipvsadm's words for it."""
    director.register(*(each.registration() for each in director.scene.real_servers))
    director.configure(
        f'[virtual_server.reco]\naddress = "{VIP4}:{director.port}"\nscheduler = "rr"\ndrain_timeout = "2s"\n'
    )
    virtual_server = tcp(VIP4, director.port)
    director.wait_for_weights(virtual_server, {R1: 1, R2: 1, R3: 1, R4: 1})
    return virtual_server


def lose(director: Director, *names: str) -> None:
    """Deregister the instances on hosts of these names; their programs go on."""
    for name in names:
        director.scene.consul.deregister(f"reco-{name}")


def held(director: Director) -> list[str]:
    """Return the real servers that status shows as held; whatever they are, its word and its note agree."""
    row = director.status_of("reco")
    found = [each.real_server for each in row.real_servers if each.place is Place.HELD]
    assert (row.state is State.HELD) == bool(found) == bool(row.note), row
    return found


@pytest.mark.promise(2, case="four of four deregistered, one by one", target="2 serve, 0 failed, 0 broken")
def test_three_of_four_go_under_traffic_and_two_serve(director: Director, figure: Figure) -> None:
    virtual_server = four_serve(director)
    with (
        HeldConnections(director.scene.client, VIP4, director.port, count=4) as connections,
        Traffic(director.scene.client, VIP4, director.port) as traffic,
    ):
        lose(director, "r1", "r2")  # one by one, as in a slow leak: half may go
        eventually(lambda: director.weights(virtual_server) == {R3: 1, R4: 1}, within=20)
        lose(director, "r3")
        director.wait_for_event("hold", name="reco")
        lose(director, "r4")
        eventually(lambda: len(held(director)) == 2)
        asked = traffic.report().seconds
        eventually(lambda: traffic.report().seconds > asked + 3)  # three audits
        report = traffic.stop()
        broken = {at: why for at, why in connections.broken.items() if connections.names[at] in {"r3", "r4"}}
    figure(sum(weight > 0 for weight in director.weights(virtual_server).values()), "serve")
    figure.traffic(report)
    figure(len(broken), "broken of those that stay")
    print(f"four deregistered, one after the other: {report}")
    assert director.weights(virtual_server) == {R3: 1, R4: 1}
    assert not report.failures, report
    assert not broken, broken


@pytest.mark.promise(3, case="a hold, ten reloads and restarts, one release", target="10 times held, 0 failed")
def test_a_hold_outlives_ten_reloads_and_restarts_and_one_command_releases_it(
    director: Director, figure: Figure
) -> None:
    virtual_server = four_serve(director)
    with Traffic(director.scene.client, VIP4, director.port) as traffic:
        lose(director, "r1", "r2", "r4")
        said = director.wait_for_event("hold", name="reco")
        assert "lvsctl release reco" in said["why"]
        eventually(lambda: director.weights(virtual_server).keys() - held(director) == {R3})
        (kept,) = held(director)  # which one depends on how they went
        for number in range(10):
            if number % 2:
                director.reload()
            else:
                director.stop()
                director.start()
            eventually(lambda: held(director) == [kept], within=10)
            figure(1, "times held")
        assert director.weights(virtual_server)[kept] == 1
        assert director.lvsctl("status").returncode == 1
        released = director.lvsctl("release", "reco")
        assert (released.returncode, released.stderr) == (0, "")
        assert released.stdout.splitlines() == ["reco: 1 real server leaves, 1 other serves", f"  {kept}"]
        assert held(director) == []
        director.wait_for_weights(virtual_server, {R3: 1}, within=20)
        report = traffic.stop()
    figure.traffic(report)
    print(f"five reloads, five restarts and a release: {report}")
    assert not report.failures, report
    assert director.wait_for_event("released", name="reco")["by"].startswith("root, pid ")

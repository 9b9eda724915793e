"""The daemon killed, stopped and started again, under steady traffic: the kernel goes on, and nothing is written twice.

Promises: killed at any moment the table serves and the next start converges; when nothing changed no write is made;
a stop leaves the table serving.
"""

import threading
from collections.abc import Iterator
from typing import Final

import pytest

from tests.kernel.director import START, Director, tcp
from tests.kernel.writes import wait_until_in_sync, writes
from tests.lab.scene import HTTP, VIP4
from tests.lab.traffic import HeldConnections, Traffic
from tests.lab.waiting import eventually
from tests.showing import Figure

pytestmark = pytest.mark.kernel

RECO: Final = f'[virtual_server.reco]\naddress = "{VIP4}:{HTTP}"\nscheduler = "rr"\ndrain_timeout = "1s"\n'
MANY: Final = '[virtual_server.many]\naddress = "10.1.0.100:81"\ndrain_timeout = "0s"\nscheduler = "wrr"\n'
SIZE: Final = 200  # instances of `many`


@pytest.fixture
def serving(director: Director) -> Iterator[Director]:
    """Return the director with `reco` served by four real servers, and `many` configured."""
    director.register(*(each.registration() for each in director.scene.real_servers))
    director.configure(RECO + MANY)
    director.wait_for_weights(tcp(VIP4, HTTP), {f"10.2.0.{number}:80": 1 for number in (11, 12, 13, 14)})
    yield director
    director.scene.consul.put("/v1/catalog/deregister", {"Node": "fake"})


def put_many(director: Director, numbers: range, *, weight: int) -> None:
    """Register instances of `many` on a node that no agent answers for, 8 in one transaction."""
    consul = director.scene.consul
    consul.put("/v1/catalog/register", {"Node": "fake", "Address": "10.3.0.1"})
    for start in range(numbers.start, numbers.stop, 8):
        services = [
            {
                "ID": f"many-{number}",
                "Service": "many",
                "Address": f"10.3.1.{number}",
                "Port": 80,
                "Weights": {"Passing": weight, "Warning": 1},
            }
            for number in range(start, min(start + 8, numbers.stop))
        ]
        consul.put("/v1/txn", [{"Service": {"Verb": "set", "Node": "fake", "Service": each}} for each in services])


def weights_of_many(director: Director) -> dict[str, int]:
    table = director.table()
    return dict(table["-t 10.1.0.100:81"].weights) if "-t 10.1.0.100:81" in table else {}


def changed_when_killed(serving: Director, registered: int, *, weight: int) -> int:
    """Kill it while it changes many to `weight`, register the rest and start it; return how many were changed."""
    changer = threading.Thread(target=put_many, args=(serving, range(1, registered + 1)), kwargs={"weight": weight})
    changer.start()
    eventually(lambda: weight in weights_of_many(serving).values(), within=20, every=0.0)
    serving.kill()
    at_kill = serving.lines()
    changer.join()
    put_many(serving, range(registered + 1, SIZE + 1), weight=weight)
    assert serving.lines() == at_kill, "nobody writes now"
    serving.start()
    wanted = {f"10.3.1.{number}:80": weight for number in range(1, SIZE + 1)}
    serving.wait_for_weights("-t 10.1.0.100:81", wanted, within=START)
    return sum(":81 " in line and line.endswith(f"-w {weight}") for line in at_kill)


@pytest.mark.promise(
    5, case="SIGKILL in the middle of changing 200 weights, then a start", target="0 failed, converged"
)
@pytest.mark.parametrize("registered", [32, 104, 168])  # of all 200 a batch may have changed each before it is seen
def test_killed_in_the_middle_of_many_changes_the_next_start_converges(
    serving: Director, registered: int, figure: Figure
) -> None:
    """Kill it at the first change that ipvsadm shows, with so many registered; the rest comes while it is dead."""
    put_many(serving, range(1, SIZE // 2 + 1), weight=1)
    half = {f"10.3.1.{number}:80": 1 for number in range(1, SIZE // 2 + 1)}
    serving.wait_for_weights("-t 10.1.0.100:81", half, within=20)
    with Traffic(serving.scene.client, VIP4, HTTP, rate=20) as traffic:
        changed = changed_when_killed(serving, registered, weight=7)
        report = traffic.stop()
    print(f"killed when {changed} of {SIZE} were changed; {report}")
    figure.traffic(report)
    figure(changed, "of the weights changed when it was killed")
    assert 0 < changed <= registered
    assert not report.failures, report
    assert not serving.events("virtual_server_deleted", "real_server_deleted", "cycle_failed")


@pytest.mark.promise(5, case="SIGKILL and start, twice, nothing changed", target="0 writes, 0 failed, 0 broken")
def test_killed_and_started_again_with_nothing_changed_nothing_is_written(serving: Director, figure: Figure) -> None:
    put_many(serving, range(1, SIZE + 1), weight=1)
    wanted = {f"10.3.1.{number}:80": 1 for number in range(1, SIZE + 1)}
    serving.wait_for_weights("-t 10.1.0.100:81", wanted, within=20)
    client = serving.scene.client
    with HeldConnections(client, VIP4, HTTP, count=8) as held, Traffic(client, VIP4, HTTP, rate=20) as traffic:
        before = serving.lines()
        for _ in range(2):
            counted = counted_connections(serving)
            serving.kill()
            serving.start()
            wait_until_in_sync(serving)
            assert serving.lines() == before
            figure(len(writes(serving)), "writes")
            assert writes(serving) == []
            assert counted_connections(serving) >= counted, "a counter went back: something was made anew"
        report = traffic.stop()
        exchanged = held.exchanged
        eventually(lambda: held.exchanged > exchanged + 8)
        figure.traffic(report, held)
        assert not held.broken
    assert not report.failures, report


def counted_connections(director: Director) -> int:
    """Return how many connections the kernel has counted for `reco`; anew from 0 when it is made anew."""
    line = next(
        line
        for line in director.ipvsadm("-Ln", "--stats", "--exact", "-t", f"{VIP4}:{HTTP}").splitlines()
        if line.startswith("TCP")
    )
    return int(line.split()[2])


@pytest.mark.promise(5, case="stopped, 40 requests later started", target="0 writes, 0 failed, 0 broken")
def test_stopped_and_started_again_under_traffic_no_request_fails(serving: Director, figure: Figure) -> None:
    client = serving.scene.client
    with HeldConnections(client, VIP4, HTTP, count=4) as held, Traffic(client, VIP4, HTTP, rate=40) as traffic:
        before = serving.lines()
        assert serving.stop() == 0
        assert serving.events("stopped")[-1]["table"] == "left serving"
        assert not serving.socket.exists()
        assert serving.lines() == before
        asked = traffic.report().requests
        eventually(lambda: traffic.report().requests > asked + 40)
        serving.start()
        wait_until_in_sync(serving)
        report = traffic.stop()
        figure(len(writes(serving)), "writes")
        figure.traffic(report, held)
        assert not held.broken
    print(report)
    assert not report.failures, report
    assert sorted(report.answers) == ["r1", "r2", "r3", "r4"]
    assert serving.lines() == before
    assert writes(serving) == []

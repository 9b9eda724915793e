"""Consul services that declare themselves, on a real Consul and a real kernel: they serve, and no silence ends them.

These stop Consul, so they have a scene of their own. The virtual addresses are on an interface that lvsctl makes, so
what the client reaches it reaches by what was declared.
"""

import json
from collections.abc import Iterator
from typing import Final

import attrs
import pytest

from lvsctl.core.status import State
from tests.kernel.director import START, Director, tcp
from tests.kernel.writes import wait_until_in_sync, writes
from tests.lab.consul import Registration
from tests.lab.scene import HTTP, VIP4, Scene, scene
from tests.lab.traffic import Traffic
from tests.lab.waiting import eventually

pytestmark = pytest.mark.kernel

DECLARED: Final = "10.1.0.120"
HERE: Final = tcp(DECLARED, HTTP)
DISCOVERY: Final = '[discovery]\naddresses = ["10.1.0.96/27"]\nkeys = ["scheduler"]\n[defaults]\ndrain_timeout = "0s"\n'
BOTH: Final = {"10.2.0.11:80": 1, "10.2.0.12:80": 1}
RESUMED: Final = 5.0  # seconds from Consul's return to the table


@pytest.fixture(scope="module")
def own_director() -> Iterator[Director]:
    with scene(real_servers=3) as made:
        yield Director(made)


@pytest.fixture
def director(own_director: Director) -> Iterator[Director]:
    """Return a director at which r1 and r2 serve what they have declared; there is nothing else in its file."""
    consul = own_director.scene.consul
    for number in (0, 1):
        consul.write(declaring(own_director.scene, number))
    own_director.configure(DISCOVERY, vip="lvs0")
    own_director.wait_for_weights(HERE, BOTH, within=START)
    yield own_director
    assert consul.process is not None
    if own_director.running:
        own_director.stop()
    if not consul.process.running:
        consul.start()
    own_director.clean()
    own_director.host.ip("link delete lvs0")


def declaring(made: Scene, number: int, service: str = "reco", *tags: str) -> Registration:
    """Return the registration of a real server that declares DECLARED, or has other tags."""
    said = tags or (f"lvs-address={DECLARED}:{HTTP}", "lvs-scheduler=rr")
    return attrs.evolve(made.real_servers[number].registration(service), tags=said)


def wait_for_traffic(director: Director, *names: str) -> None:
    """Return when the client was answered by each of these at the declared address, and see that it always was."""
    with Traffic(director.scene.client, DECLARED, HTTP, rate=20) as traffic:
        eventually(lambda: set(names) <= traffic.report().answers.keys())
        report = traffic.stop()
    assert report.failures == (), str(report)


def test_what_is_declared_serves_and_is_held_when_all_are_gone(director: Director) -> None:
    wait_for_traffic(director, "r1", "r2")
    assert director.table()[HERE].options.startswith("-s rr")
    consul = director.scene.consul
    for instance in ("reco-r1", "reco-r2"):
        consul.remove(instance)
    director.wait_for_event("hold", name="reco")
    wait_for_traffic(director, *held(director))
    assert director.stop() == 0
    director.start()
    status = wait_until_in_sync(director)
    assert [(row.name, row.state) for row in status.virtual_servers] == [("reco", State.HELD)]
    assert writes(director) == []
    wait_for_traffic(director, *held(director))
    director.configure(DISCOVERY.replace("[defaults]", 'exclude = ["reco"]\n[defaults]'), vip="lvs0", allow_remove=True)
    director.wait_for_lines([])


def held(director: Director) -> list[str]:
    """Return the names of the real servers in the table."""
    return [f"r{int(address.split(':')[0].rpartition('.')[2]) - 10}" for address in director.weights(HERE)]


def test_a_start_without_consul_and_an_empty_consul_change_nothing(director: Director) -> None:
    before = director.lines()
    consul = director.scene.consul
    assert director.stop() == 0
    consul.stop()
    director.start()
    director.wait_for_event("consul_incomplete", within=START)
    eventually(lambda: director.status().virtual_servers)
    director.reload()  # a cycle more
    assert director.lines() == before
    assert [(row.name, row.state, row.serving) for row in director.status().virtual_servers] == [
        ("reco", State.WAITING, 2)
    ]
    wait_for_traffic(director, "r1", "r2")
    for file in consul.files.glob("reco-*.json"):
        file.unlink()
    consul.start()
    director.wait_for_event("hold", name="reco", within=START)
    director.reload()
    assert director.lines() == before
    assert writes(director) == []
    wait_for_traffic(director, "r1", "r2")
    for number in (0, 1, 2):
        consul.write(declaring(director.scene, number))
    director.wait_for_weights(HERE, BOTH | {"10.2.0.13:80": 1}, within=RESUMED)


def test_after_a_reboot_without_consul_it_is_restored(director: Director) -> None:
    before = director.lines()
    eventually(lambda: "reco" in (director.state / "snapshot.json").read_text(encoding="utf-8"))
    assert director.stop() == 0
    director.scene.consul.stop()
    director.ipvsadm("-C")
    director.host.ip("link delete lvs0")
    director.start()
    director.wait_for_lines(before, within=START)
    director.host.ip(f"address show to {DECLARED}")
    wait_for_traffic(director, "r1", "r2")
    director.host.ip("link show lvs0")


def test_a_clash_is_refused_under_traffic_and_the_owner_goes_on(director: Director) -> None:
    before = director.lines()
    with Traffic(director.scene.client, DECLARED, HTTP, rate=20) as traffic:
        director.register(declaring(director.scene, 2, "aaa"))
        director.register(declaring(director.scene, 2, "bbb", f"lvs-address={VIP4}:22"))
        director.register(declaring(director.scene, 2, "ccc", "lvs-address=10.1.0.2:80"))
        director.register(
            declaring(director.scene, 2, "ddd", f"lvs-address=10.1.0.121:{HTTP}", "lvs-forwarding=tunnel")
        )
        director.wait_for_event("declaration_refused", name="aaa", why="belongs to Consul service 'reco'")
        director.wait_for_event("declaration_refused", name="bbb", why="the director's own address")
        director.wait_for_event("declaration_refused", name="ccc", why="outside discovery.addresses")
        director.wait_for_event("declaration_refused", name="ddd", why="this key is not opened")
        report = traffic.stop()
    assert report.failures == (), str(report)
    assert director.lines() == before
    shown = director.lvsctl("diff", "-o", "json")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert [line["name"] for line in json.loads(shown.stdout)["lines"]] == ["aaa", "bbb", "ccc", "ddd"]
    screen = director.lvsctl("status")
    assert screen.returncode == 1
    assert "refused declarations:" in screen.stdout


def test_a_withdrawn_declaration_leaves_with_its_address(director: Director) -> None:
    consul = director.scene.consul
    for number in (0, 1):
        consul.write(declaring(director.scene, number, "reco", "v2"))
    director.wait_for_lines([])
    shown = eventually(lambda: DECLARED not in director.host.run(["ip", "address", "show", "dev", "lvs0"]).stdout)
    assert shown

"""A start without Consul: a populated table is left alone, an empty one becomes what it was, from the snapshot on disk.

These stop Consul, so they have a scene of their own. A reboot is an IPVS table that is flushed while nobody runs.
Promises: populated, 0 writes; empty, equal within `RESTORED` of the start; the snapshot's age is shown.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.kernel.director import START, Director, tcp
from tests.kernel.writes import wait_until_in_sync, writes
from tests.lab.scene import HTTP, VIP4, Scene, scene
from tests.lab.waiting import eventually
from tests.showing import Figure

pytestmark = pytest.mark.kernel

RESTORED: Final = 5.0  # seconds from the daemon's start to the table
RESUMED: Final = 5.0  # seconds from Consul's return to the table
VIRTUAL_SERVERS: Final = f"""
[virtual_server.reco]
address = "{VIP4}:{HTTP}"
scheduler = "wrr"
persistence = "5m"
drain_timeout = "0s"

[virtual_server.reco-by-mark]
firewall_mark = 7
consul_service = "reco"
drain_timeout = "0s"
"""
WEIGHTS: Final = {"10.2.0.11:80": 1, "10.2.0.12:80": 5, "10.2.0.13:80": 1}
SILENCE: Final = "blackhole 10.2.0.1/32"  # what Consul's host sends to the director is lost without a word


@pytest.fixture(scope="module")
def own_director() -> Iterator[Director]:
    with scene(real_servers=4) as made:
        yield Director(made)


@pytest.fixture
def director(own_director: Director) -> Iterator[Director]:
    """Return a director that served r1 to r3 and was stopped with a snapshot on disk; Consul is down."""
    consul = own_director.scene.consul
    assert consul.process is not None
    if not consul.process.running:
        consul.start()
    for each in own_director.scene.real_servers[:3]:
        consul.write(each.registration(weight=WEIGHTS[f"{each.host.ipv4}:80"]))
    own_director.configure(VIRTUAL_SERVERS)
    own_director.wait_for_weights(tcp(VIP4, HTTP), WEIGHTS)
    own_director.wait_for_weights("-f 7", WEIGHTS)
    assert own_director.stop() == 0
    consul.stop()
    yield own_director
    if own_director.running:
        own_director.stop()
    if not consul.process.running:
        consul.start()
    own_director.clean()


def write_only(made: Scene, number: int, *, weight: int) -> None:
    """Put the file of a real server's instance in place, for an agent that is not there to be told."""
    registration = made.real_servers[number].registration(weight=weight)
    path = made.consul.files / f"{registration.id}.json"
    path.write_text(json.dumps({"service": registration.definition()}), encoding="utf-8")


def snapshot_of(director: Director) -> Path:
    return director.state / "snapshot.json"


@pytest.mark.promise(6, case="started with Consul down, table populated", target="0 writes")
def test_a_populated_table_is_not_written_and_followed_when_consul_is_back(director: Director, figure: Figure) -> None:
    before = director.lines()
    director.start()
    director.wait_for_event("consul_incomplete")
    eventually(lambda: director.status().consul is not None)
    status = director.status()
    assert status.consul is not None
    assert not status.consul.reachable
    assert status.consul.snapshot_age is not None
    assert status.consul.snapshot_age < 60
    assert {(row.name, row.serving) for row in status.virtual_servers} == {("reco", 3), ("reco-by-mark", 3)}
    director.reload()  # a cycle more
    assert director.lines() == before
    assert writes(director) == []
    assert director.events("snapshot_used", "snapshot_ignored") == []
    made = director.scene
    made.consul.start()
    wait_until_in_sync(director)
    assert director.lines() == before
    figure(len(writes(director)), "writes")
    assert writes(director) == []
    made.consul.write(made.real_servers[3].registration())
    director.wait_for_weights(tcp(VIP4, HTTP), WEIGHTS | {"10.2.0.14:80": 1}, within=RESUMED)


@pytest.mark.promise(6, case="table empty, Consul down, a snapshot on disk", target=f"equal in {RESTORED:g} s")
def test_after_a_reboot_the_table_is_what_it_was_and_says_since_when(director: Director, figure: Figure) -> None:
    before = director.lines()
    director.ipvsadm("-C")
    director.start()
    director.wait_for_lines(before, within=START)
    used = director.wait_for_event("snapshot_used")
    took = director.seconds_between(director.events("started")[0], used)
    figure(took, "s from the start until it was equal")
    print(f"restored {used['virtual_servers']} virtual servers {took:.2f} s after the start, from {used['age']} ago")
    assert took < RESTORED
    assert (used["virtual_servers"], used["level"]) == (2, "warning")
    written = writes(director)
    assert len(written) == 2 + 2 * len(WEIGHTS)
    shown = director.lvsctl("status")
    assert shown.returncode == 1, "Consul is away"
    assert "what is empty is filled from the snapshot of " in shown.stdout
    made = director.scene
    write_only(made, 2, weight=9)
    write_only(made, 3, weight=1)
    made.consul.start()
    changed = WEIGHTS | {"10.2.0.13:80": 9, "10.2.0.14:80": 1}
    director.wait_for_weights(tcp(VIP4, HTTP), changed, within=RESUMED)
    status = wait_until_in_sync(director)
    assert status.consul is not None
    assert status.consul.snapshot_age is None


def test_after_a_reboot_a_consul_that_says_nothing_at_all_is_not_waited_for_long(director: Director) -> None:
    before = director.lines()
    director.ipvsadm("-C")
    host = director.scene.consul_host
    host.ip(f"route add {SILENCE}")
    try:
        director.start()
        director.wait_for_lines(before, within=START)
        used = director.wait_for_event("snapshot_used")
        took = director.seconds_between(director.events("started")[0], used)
        print(f"restored {took:.2f} s after the start")
        assert took < RESTORED
        assert director.events("consul_failed") == [], "nothing has failed yet"
    finally:
        host.ip(f"route del {SILENCE}")


def test_a_consul_that_comes_back_empty_removes_nothing_of_what_was_restored(director: Director) -> None:
    before = director.lines()
    director.ipvsadm("-C")
    director.start()
    director.wait_for_lines(before, within=START)
    for file in director.scene.consul.files.glob("reco-*.json"):
        file.unlink()
    director.scene.consul.start()
    director.wait_for_event("hold", within=RESUMED, name="reco")
    assert director.lines() == before


@pytest.mark.promise(
    6, case="a snapshot that is damaged, newer or of another Consul", target="ignored, nothing restored"
)
@pytest.mark.parametrize("damage", ["cut", "newer", "elsewhere"])
def test_a_snapshot_that_cannot_be_used_restores_nothing_and_says_why(
    director: Director, damage: str, figure: Figure
) -> None:
    path = snapshot_of(director)
    content = path.read_bytes()
    url = director.scene.consul.url
    reason = "damaged"
    match damage:
        case "cut":
            path.write_bytes(content[: len(content) // 2])
        case "newer":
            path.write_bytes(content.replace(b"lvsctl-snapshot 1 ", b"lvsctl-snapshot 2 ", 1))
            reason = "format 2, of a newer lvsctl"
        case _:
            text = director.file.read_text(encoding="utf-8")
            director.file.write_text(text.replace(url, url.replace(":8500", ":8501")), encoding="utf-8")
            reason = f"of another Consul ({url})"
    director.ipvsadm("-C")
    director.start()
    ignored = director.wait_for_event("snapshot_ignored", path=str(path), why=reason)
    assert ignored["level"] == "warning"
    assert "nothing is restored" in ignored["follows"]
    director.wait_for_event("consul_failed")
    director.reload()
    assert len(director.events("snapshot_ignored")) == 1
    figure(len(director.lines()), "lines in the table")
    assert director.lines() == []
    assert director.stop() == 0

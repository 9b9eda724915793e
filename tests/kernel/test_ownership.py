"""What is not ours: never changed, never removed, and said clearly when it is in the way."""

import itertools
from collections.abc import Iterator
from typing import Final

import pytest

from lvsctl.core.status import State
from tests.kernel.director import START, Director, parse, tcp
from tests.kernel.writes import wait_until_in_sync, writes
from tests.lab.scene import HTTP, VIP4
from tests.lab.traffic import HeldConnections, Traffic
from tests.lab.waiting import eventually
from tests.showing import Figure

pytestmark = pytest.mark.kernel

RECO: Final = f'[virtual_server.reco]\naddress = "{VIP4}:{HTTP}"\nscheduler = "rr"\ndrain_timeout = "1s"\n'
OTHER: Final = RECO.replace(".reco]", ".other]").replace(f":{HTTP}", ":81") + 'consul_service = "reco"\n'
FOUR: Final = {f"10.2.0.{number}:80": 1 for number in (11, 12, 13, 14)}


def foreign_table() -> list[str]:
    """Return the lines of 50 virtual servers of every kind, as `ipvsadm -Sn` prints them."""
    kinds = itertools.cycle(
        [
            ("-t 10.9.{n}.1:80", "-s wlc -p 300", "-r 10.8.{n}.1:8080 -m -w 3"),
            ("-u 10.9.{n}.1:53", "-s rr", "-r 10.8.{n}.1:53 -g -w 1"),
            ("-t [fd00:9::{n}]:443", "-s wrr -p 60 -M 64", "-r [fd00:8::{n}]:443 -m -w 0"),
            ("-f {n}", "-s sh -b sh-port", "-r 10.8.{n}.1:0 -i -w 100 --tun-type ipip"),
            ("-u 10.9.{n}.1:5060", "-s lc -o", "-r 10.8.{n}.1:5060 -m -w 1"),
        ]
    )
    lines = []
    for number, (key, options, real_server) in zip(range(1, 51), kinds, strict=False):
        lines += [f"-A {key} {options}".format(n=number), f"-a {key} {real_server}".format(n=number)]
    return lines


@pytest.fixture
def registered(director: Director) -> Iterator[Director]:
    """Return the director with four instances of `reco` in Consul, and without a daemon."""
    if director.running:
        director.stop()
    director.forget()
    director.ipvsadm("-C")
    director.register(*(each.registration() for each in director.scene.real_servers))
    wanted = {f"reco-{each.name}": "passing" for each in director.scene.real_servers}
    director.scene.consul.wait_for_health("reco", wanted)
    yield director
    if director.running:
        director.stop()
    director.ipvsadm("-C")


def foreign_lines(director: Director) -> list[str]:
    """Return the lines of `ipvsadm -Sn` that are not of our virtual address."""
    return [line for line in director.lines() if f" {VIP4}:" not in line]


@pytest.mark.promise(
    4, case="50 foreign ones through start, changes, stop and teardown", target="50 of 50 byte-identical"
)
def test_fifty_foreign_virtual_servers_stay_byte_for_byte(registered: Director, figure: Figure) -> None:
    director = registered
    director.ipvsadm("-R", text="\n".join(foreign_table()) + "\n")
    before = director.lines()
    assert len(before) == 100
    director.configure(RECO)
    director.wait_for_weights(tcp(VIP4, HTTP), FOUR, within=START)
    assert foreign_lines(director) == before
    assert len(director.status().foreign) == 50
    director.scene.consul.deregister("reco-r4")
    director.wait_for_weights(tcp(VIP4, HTTP), {k: v for k, v in FOUR.items() if k != "10.2.0.14:80"})
    director.configure(OTHER, allow_remove=True)  # reco goes, other comes
    eventually(lambda: [key for key in director.table() if VIP4 in key] == ["-t 10.1.0.100:81"])
    assert foreign_lines(director) == before
    refused = director.lvsctl("teardown", "--yes")
    assert (refused.returncode, refused.stdout) == (6, "")
    assert refused.stderr == (
        f"lvsctl: another lvsctl (pid {pid(director)}) is the writer of this table; nothing was written. "
        "Ask it with `lvsctl status`, or stop it first\n"
    )
    assert "-t 10.1.0.100:81" in director.table()
    director.stop()
    assert foreign_lines(director) == before
    shown = director.lvsctl("teardown", "--dry-run")
    assert shown.returncode == 0
    assert shown.stdout == "to be removed:\n  other  tcp 10.1.0.100:81  3 real servers\n"
    assert "-t 10.1.0.100:81" in director.table()
    declined = director.lvsctl("teardown")  # nobody answers the question
    assert declined.returncode == 1
    assert "-t 10.1.0.100:81" in director.table()
    done = director.lvsctl("teardown", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("removed 1 virtual server\n")
    assert not (director.state / "configuration.kept").exists()  # nothing to go back to
    assert director.lines() == before
    same = [key for key in parse(before) if parse(director.lines()).get(key) == parse(before)[key]]
    figure(len(same), "of 50 byte-identical at the end")
    again = director.lvsctl("teardown", "--yes")
    unknown = f"the ledger in {director.state} does not know the 50 virtual servers there"
    assert (again.returncode, again.stdout) == (0, f"nothing of lvsctl's is in the kernel; {unknown}\n")


def pid(director: Director) -> int:
    assert director.process is not None
    return director.process.pid


def test_a_foreign_virtual_server_in_the_way_is_left_alone_and_said_with_what_to_do(registered: Director) -> None:
    director = registered
    theirs = [f"-A -t {VIP4}:{HTTP} -s wlc", f"-a -t {VIP4}:{HTTP} -r 10.2.0.11:80 -m -w 5"]
    director.ipvsadm("-R", text="\n".join(theirs) + "\n")
    director.configure(RECO + OTHER)
    director.wait_for_weights("-t 10.1.0.100:81", FOUR, within=START)
    assert [line for line in director.lines() if ":81 " not in line] == theirs
    remedy = f"ipvsadm -D -t {VIP4}:{HTTP}"
    event = director.wait_for_event("foreign_in_the_way")
    assert event["name"] == "reco"
    assert remedy in event["why"]
    row = director.status_of("reco")
    assert row.state is State.FOREIGN
    assert remedy in row.note
    diff = director.lvsctl("diff")
    assert diff.returncode == 1
    assert "foreign virtual server" in diff.stdout
    assert remedy in diff.stdout
    assert "1 difference: " in diff.stdout
    shown = director.lvsctl("status")
    assert shown.returncode == 1
    assert remedy in shown.stdout
    assert len(director.events("foreign_in_the_way")) == 1, "said once"
    director.ipvsadm(*remedy.split()[1:])  # the remedy works
    director.wait_for_weights(tcp(VIP4, HTTP), FOUR)
    director.wait_for_event("trouble_over", trouble="foreign_in_the_way")


def test_what_stands_exactly_as_wanted_is_adopted_without_a_write(registered: Director) -> None:
    director = registered
    lines = [f"-A -t {VIP4}:{HTTP} -s rr", *(f"-a -t {VIP4}:{HTTP} -r {key} -m -w 1" for key in FOUR)]
    director.ipvsadm("-R", text="\n".join(lines) + "\n")
    with Traffic(director.scene.client, VIP4, HTTP, rate=20) as traffic:
        director.configure(RECO)
        wait_until_in_sync(director)
        assert writes(director) == []
        assert director.lines() == sorted(lines)
        director.scene.consul.deregister("reco-r4")  # and from then on it is ours
        director.wait_for_weights(tcp(VIP4, HTTP), {k: v for k, v in FOUR.items() if k != "10.2.0.14:80"})
        report = traffic.stop()
    assert not report.failures, report
    director.stop()
    assert director.lvsctl("teardown", "--yes").stdout.endswith("removed 1 virtual server\n")
    assert director.lines() == []


def test_adopted_and_disowned_under_traffic(registered: Director) -> None:
    """Somebody's own virtual server is taken over, and left again: neither costs a request or a connection."""
    director = registered
    director.ipvsadm("-A", "-t", f"{VIP4}:{HTTP}", "-s", "wlc")
    for key in list(FOUR)[:2]:
        director.ipvsadm("-a", "-t", f"{VIP4}:{HTTP}", "-r", key, "-m", "-w", "7")
    before = director.lines()
    director.configure(RECO)
    eventually(lambda: director.status_of("reco").state is State.FOREIGN)
    client = director.scene.client
    with Traffic(client, VIP4, HTTP) as traffic, HeldConnections(client, VIP4, HTTP, count=4) as held:
        assert director.lines() == before
        adopted = director.lvsctl("adopt", "reco")
        assert (adopted.returncode, adopted.stdout.splitlines()[0]) == (
            0,
            f"reco (tcp {VIP4}:{HTTP}): ours now, 5 changes",
        )
        director.wait_for_weights(tcp(VIP4, HTTP), FOUR)
        eventually(lambda: len(traffic.report().answers) == 4)
        disowned = director.lvsctl("disown", "reco")
        assert disowned.stdout == f"reco (tcp {VIP4}:{HTTP}): foreign now, left as it stands\n"
        director.scene.consul.deregister("reco-r4")
        director.ipvsadm("-e", "-t", f"{VIP4}:{HTTP}", "-r", "10.2.0.13:80", "-m", "-w", "9")
        asked = traffic.report().seconds
        eventually(lambda: traffic.report().seconds > asked + 3)  # three audits
        assert director.weights(tcp(VIP4, HTTP)) == {**FOUR, "10.2.0.13:80": 9}
        director.stop()
        torn_down = director.lvsctl("teardown", "--yes")
        assert torn_down.returncode == 0
        assert director.weights(tcp(VIP4, HTTP)) == {**FOUR, "10.2.0.13:80": 9}
        report = traffic.stop()
        assert not held.broken
    assert not report.failures, report

"""Virtual addresses on a dummy interface that lvsctl makes: exactly those that are needed, and only then.

The addresses here are no other's in the scene: what the client reaches it reaches by them.
"""

import json
from collections.abc import Iterator

import pytest

from tests.kernel.director import IDLE, Director, tcp
from tests.lab.consul import Check, Registration
from tests.lab.scene import HTTP
from tests.lab.traffic import Traffic
from tests.lab.waiting import eventually

pytestmark = pytest.mark.kernel

VIP4, OTHER, VIP6 = "10.1.0.101", "10.1.0.102", "fd00:1::101"
R1 = f"10.2.0.11:{HTTP}"


@pytest.fixture
def lvs0(director: Director) -> Iterator[str]:
    """Return the name of an interface that is not there, and see that it is not there afterwards."""
    yield "lvs0"
    if addresses(director, "lvs0") is not None:
        director.configure(IDLE, allow_remove=True)  # no [vip]: the daemon lets go of it
        director.host.ip("link delete lvs0")


def addresses(director: Director, interface: str) -> set[str] | None:
    """Return the addresses with prefix length that `ip` shows on `interface`; None when there is no such one."""
    shown = director.host.run(["ip", "-json", "address", "show", "dev", interface], check=False)
    if shown.returncode != 0:
        return None
    return {
        f"{each['local']}/{each['prefixlen']}"
        for link in json.loads(shown.stdout)
        for each in link.get("addr_info", [])
        if each.get("scope") != "link"
    }


def alias_of(director: Director, interface: str) -> str:
    shown = director.host.run(["ip", "-json", "link", "show", "dev", interface])
    return str(json.loads(shown.stdout)[0].get("ifalias", ""))


def register(director: Director) -> None:
    host = director.scene.real_servers[0].host
    for service, address in (("reco", host.ipv4), ("other", host.ipv4), ("six", host.ipv6)):
        check = Check.tcp(address, HTTP)
        director.register(Registration(service=service, id=f"{service}-r1", address=address, port=HTTP, check=check))


RECO = f'[virtual_server.reco]\naddress = "{VIP4}:{HTTP}"\ndrain_timeout = "0s"\n'
BESIDE = f'[virtual_server.reco-beside]\naddress = "{VIP4}:8080"\nconsul_service = "reco"\ndrain_timeout = "0s"\n'
SIX = f'[virtual_server.six]\naddress = "[{VIP6}]:{HTTP}"\ndrain_timeout = "0s"\n'
ELSE = f'[virtual_server.other]\naddress = "{OTHER}:{HTTP}"\ndrain_timeout = "0s"\n'


def test_addresses_come_after_the_real_servers_and_go_with_their_last_virtual_server(
    director: Director, lvs0: str
) -> None:
    register(director)
    with Traffic(director.scene.client, VIP4, HTTP, patience=1.0) as traffic:  # before the address is there
        director.configure(RECO + BESIDE + SIX + ELSE, vip=lvs0)
        eventually(lambda: addresses(director, lvs0) == {f"{VIP4}/32", f"{OTHER}/32", f"{VIP6}/128"}, within=10)
        eventually(lambda: traffic.report().answers.get("r1", 0) > 5)
        report = traffic.stop()
    assert not [each for each in report.failures if "refused" in each.reason], report  # an empty virtual server says so
    assert alias_of(director, lvs0) == "lvsctl"
    eventually(lambda: len(director.events("virtual_address_added")) == 3)
    for virtual_server, address in (("reco", VIP4), ("reco-beside", VIP4), ("other", OTHER), ("six", VIP6)):
        first = director.wait_for_event("real_server_added", name=virtual_server)
        then = director.wait_for_event("virtual_address_added", address=address)
        assert director.events().index(first) < director.events().index(then), director.log
    # Unlike ARP, neighbour discovery answers for the addresses of its own interface only: IPv6 needs a route.
    director.scene.client.ip(f"route replace {VIP6}/128 via {director.host.ipv6}")
    assert Traffic(director.scene.client, VIP6, HTTP).count(2).answers == {"r1": 2}

    director.configure(RECO + ELSE, vip=lvs0)
    eventually(lambda: addresses(director, lvs0) == {f"{VIP4}/32", f"{OTHER}/32"})  # reco still needs VIP4
    director.configure(ELSE, vip=lvs0)
    eventually(lambda: addresses(director, lvs0) == {f"{OTHER}/32"})
    director.wait_for_lines([f"-A {tcp(OTHER, HTTP)} -s wlc", f"-a {tcp(OTHER, HTTP)} -r {R1} -m -w 1"])
    removed = director.wait_for_event("virtual_address_removed", address=VIP4)
    deleted = director.wait_for_event("virtual_server_deleted", name="reco")
    assert director.events().index(deleted) < director.events().index(removed)


def test_an_address_taken_off_or_put_on_by_hand_is_put_right(director: Director, lvs0: str) -> None:
    register(director)
    director.configure(RECO, vip=lvs0)
    eventually(lambda: addresses(director, lvs0) == {f"{VIP4}/32"}, within=10)
    director.host.ip(f"address delete {VIP4}/32 dev {lvs0}", f"address add {OTHER}/32 dev {lvs0}")
    eventually(lambda: addresses(director, lvs0) == {f"{VIP4}/32"}, within=5)


def test_a_dummy_interface_that_is_not_ours_is_left_alone_until_it_is_given_to_us(
    director: Director, lvs0: str
) -> None:
    director.host.ip(f"link add {lvs0} type dummy", f"link set {lvs0} up", f"address add 10.1.0.200/32 dev {lvs0}")
    register(director)
    director.configure(RECO, vip=lvs0)
    trouble = director.wait_for_event("virtual_addresses_failed", within=10)
    assert "interface lvs0" in trouble["why"]
    assert "belongs to nobody" in trouble["why"]
    assert "ip link set lvs0 alias lvsctl" in trouble["why"]
    director.wait_for_weights(tcp(VIP4, HTTP), {R1: 1})  # the table is kept all the same
    assert addresses(director, lvs0) == {"10.1.0.200/32"}
    row = director.status_of("reco")
    assert f"{VIP4} is on no interface of this machine" in row.note
    director.host.ip(f"address delete 10.1.0.200/32 dev {lvs0}")
    director.host.run(["ip", "link", "set", lvs0, "alias", "lvsctl"])
    eventually(lambda: addresses(director, lvs0) == {f"{VIP4}/32"}, within=5)
    director.wait_for_event("trouble_over", trouble="virtual_addresses_failed")
    assert len(director.events("virtual_addresses_failed")) == 1


def test_teardown_finds_an_interface_that_the_file_no_longer_names(director: Director, lvs0: str) -> None:
    register(director)
    director.configure(RECO, vip=lvs0)
    eventually(lambda: addresses(director, lvs0) == {f"{VIP4}/32"}, within=10)
    director.configure(RECO)
    director.stop()
    shown = director.lvsctl("teardown", "--dry-run")
    assert [line.split() for line in shown.stdout.splitlines()[1:]] == [
        ["reco", "tcp", f"{VIP4}:{HTTP}", "1", "real", "server"],
        ["address", VIP4, "on", lvs0],
        ["interface", lvs0],
    ]
    assert addresses(director, lvs0) == {f"{VIP4}/32"}
    done = director.lvsctl("teardown", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("removed 1 virtual server, 1 interface\n")
    assert addresses(director, lvs0) is None
    assert director.lines() == []


def test_an_interface_of_another_kind_is_refused(director: Director) -> None:
    register(director)
    before = addresses(director, "front")
    director.configure(RECO, vip="front")
    trouble = director.wait_for_event("virtual_addresses_failed", within=10)
    assert "is not a dummy interface but veth; choose another name" in trouble["why"]
    assert addresses(director, "front") == before

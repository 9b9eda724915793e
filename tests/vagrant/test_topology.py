"""The lab's topology: what is in it can work, and a mistake in it is found before anything boots."""

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest

from vagrant.stories.topology import ROLES, Topology, Wrong, having, load, problems, profile_of

PROFILES = ("mini", "full")


@pytest.fixture(scope="module")
def topology() -> Topology:
    return load()


@pytest.mark.parametrize("name", PROFILES)
def test_nothing_is_wrong_with_it(topology: Topology, name: str) -> None:
    assert list(problems(topology, name)) == []


def test_the_profiles_are_as_large_as_documented(topology: Topology) -> None:
    assert set(topology["profiles"]) == set(PROFILES)
    assert len(topology["profiles"]["mini"]["guests"]) == 4
    assert {role: len(having(topology["profiles"]["full"], role)) for role in ROLES} == {
        "consul-server": 3,
        "director": 2,
        "access": 2,
        "application": 3,
        "client": 1,
    }


@pytest.mark.parametrize("name", PROFILES)
def test_every_way_of_forwarding_udp_and_both_ways_to_register_are_shown(topology: Topology, name: str) -> None:
    profile = topology["profiles"][name]
    servers, instances = profile["virtual_servers"].values(), profile["instances"]
    assert {each["forwarding"] for each in servers} == {"masquerade", "direct-route", "tunnel"}
    assert {each["protocol"] for each in servers} == {"tcp", "udp"}
    assert {each["check"] for each in instances} == {"http", "tcp"}
    assert {each["registered"] for each in instances} == {"file", "api"}


def test_access_nodes_are_behind_a_virtual_server_themselves(topology: Topology) -> None:
    full = topology["profiles"]["full"]
    web = {each["guest"] for each in full["instances"] if each["service"] == "web"}
    assert web == set(having(full, "access"))


@pytest.mark.parametrize(
    ("profile", "guest", "role"),
    [
        (profile, guest, role)
        for profile in PROFILES
        for guest, one in load()["profiles"][profile]["guests"].items()
        for role in one["roles"]
    ],
)
def test_a_role_that_is_deleted_is_noticed(topology: Topology, profile: str, guest: str, role: str) -> None:
    changed = copy.deepcopy(topology)
    changed["profiles"][profile]["guests"][guest]["roles"].remove(role)
    found = list(problems(changed, profile))
    assert any(re.search(rf"\d guests are {role}, expected", each) for each in found)
    with pytest.raises(Wrong, match=role):
        profile_of(changed, profile)


@pytest.mark.parametrize("guest", load()["profiles"]["full"]["guests"])
def test_a_guest_that_is_deleted_is_noticed(topology: Topology, guest: str) -> None:
    changed = copy.deepcopy(topology)
    del changed["profiles"]["full"]["guests"][guest]
    assert list(problems(changed, "full"))


Change = Callable[[dict[str, Any]], None]


def _guest(profile: dict[str, Any], name: str, **values: object) -> None:
    profile["guests"][name].update(values)


def _server(profile: dict[str, Any], name: str, **values: object) -> None:
    profile["virtual_servers"][name].update(values)


def _instance(profile: dict[str, Any], number: int, **values: object) -> None:
    profile["instances"][number].update(values)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda it: _guest(it, "app2", back="192.168.57.41"), "192.168.57.41 is there 2 times"),
        (lambda it: _guest(it, "app1", front="192.168.56.101"), "192.168.56.101 is there 2 times"),
        (lambda it: _guest(it, "app1", back="192.168.58.41"), "app1: back: 192.168.58.41 is outside 192.168.57.0/24"),
        (lambda it: _guest(it, "app1", back="192.168.57.1"), "app1: back: 192.168.57.1 is reserved"),
        (lambda it: _guest(it, "app1", back="app1"), "app1: back: 'app1' is no address"),
        (lambda it: _guest(it, "app1", memory=64), "app1: memory is 64"),
        (lambda it: _guest(it, "app1", roles=["aplication"]), "app1: there is no role 'aplication'"),
        (lambda it: it["guests"]["client"].pop("front"), "client: client without the address it needs"),
        (lambda it: it["guests"]["app1"].pop("back"), "app1: application without the address it needs"),
        (lambda it: _server(it, "reco", vip="10.0.0.1"), "virtual server reco: 10.0.0.1 is outside 192.168.56.0/24"),
        (lambda it: _server(it, "reco", forwarding="nat"), "there is no forwarding 'nat'"),
        (lambda it: _server(it, "session", port=80), "instance session-1: with direct-route its port must be 80"),
        (lambda it: it["virtual_servers"].pop("reco"), "instance reco-1: there is no virtual server 'reco'"),
        (lambda it: it.update(instances=[]), "virtual server reco: its instances are not on two guests"),
        (lambda it: _instance(it, 0, guest="app9"), "instance reco-1: there is no guest 'app9'"),
        (lambda it: _instance(it, 0, guest="client"), "instance reco-1: client is neither application nor access"),
        (lambda it: _instance(it, 0, port=31102), "app1:31102 is there 2 times"),
        (lambda it: _instance(it, 1, id="reco-1"), "reco-1 is there 2 times"),
        (lambda it: _instance(it, 0, check="ping"), "instance reco-1: check 'ping'"),
        (lambda it: it.update(gateway="192.168.56.9"), "gateway: 192.168.56.9 is outside 192.168.57.0/24"),
        (lambda it: it.pop("expect"), "no expect"),
    ],
)
def test_a_mistake_is_told(topology: Topology, change: Change, found: str) -> None:
    changed = copy.deepcopy(topology)
    change(changed["profiles"]["mini"])
    assert any(found in each for each in problems(changed, "mini"))


def test_two_directors_cannot_both_have_the_addresses_by_themselves(topology: Topology) -> None:
    changed = copy.deepcopy(topology)
    changed["profiles"]["full"]["virtual_addresses"] = "lvsctl"
    assert "virtual_addresses: 'lvsctl' is none of failover" in list(problems(changed, "full"))


def test_networks_that_virtualbox_refuses_are_told(topology: Topology) -> None:
    changed = copy.deepcopy(topology)
    changed["networks"]["front"] = "10.1.0.0/24"
    assert any("is outside 192.168.56.0/21" in each for each in problems(changed, "mini"))

"""What each guest gets from the topology: files that Consul, lvsctl and nginx take, and the tools that check them."""

import importlib.util
import ipaddress
import json
import pathlib
import re
import shutil
import subprocess
from types import ModuleType

import pytest

from lvsctl.configfile import load as load_configuration
from tests.test_docs import ROOT
from vagrant.stories.topology import Topology, having, load

VAGRANT = ROOT / "vagrant"
GUESTS = [(profile, name) for profile, one in load()["profiles"].items() for name in one["guests"]]


def _module(path: pathlib.Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


render = _module(VAGRANT / "provision" / "render.py")


@pytest.fixture(scope="module")
def topology() -> Topology:
    return load()


@pytest.mark.parametrize(("profile", "name"), GUESTS)
def test_every_role_has_what_its_script_asks_for(topology: Topology, profile: str, name: str) -> None:
    made = render.files(topology, profile, name)
    guest = topology["profiles"][profile]["guests"][name]
    wanted = {"guest.env", "hosts", "network.env"} | ({"consul.d/agent.json"} if "back" in guest else set())
    wanted |= {"lvsctl.toml"} if "director" in guest["roles"] else set()
    wanted |= {"nginx.conf"} if "access" in guest["roles"] else set()
    assert wanted <= made.keys()
    for role in guest["roles"]:
        assert role == "consul-server" or (VAGRANT / "provision" / f"{role}.sh").exists()


@pytest.mark.parametrize("profile", ["mini", "full"])
def test_lvsctl_takes_the_file_of_a_director(topology: Topology, profile: str, tmp_path: pathlib.Path) -> None:
    for name in having(topology["profiles"][profile], "director"):
        path = tmp_path / "lvsctl.toml"
        path.write_text(render.files(topology, profile, name)["lvsctl.toml"], encoding="utf-8")
        wanted = topology["profiles"][profile]["virtual_servers"]
        assert set(load_configuration(path).virtual_servers) == set(wanted)


def test_each_instance_is_registered_once_by_a_stanza_or_by_its_program(topology: Topology) -> None:
    for profile, name in GUESTS:
        made = render.files(topology, profile, name)
        for each in topology["profiles"][profile]["instances"]:
            if each["guest"] == name:
                text = made.get(f"consul.d/{each['id']}.hcl", "")
                assert (each["registered"] == "file") == bool(text)
                if text:
                    assert re.search(rf'name += "{each["service"]}"\n', text)
                    assert re.search(rf"port += {each['port']}\n", text)
                    assert re.search(rf"{each['check']} += .*:{each['port']}", text)
                    assert 'interval = "10s"' in text


def test_agents_bind_to_the_back_network_and_survive_restarts(topology: Topology) -> None:
    made = json.loads(render.files(topology, "full", "consul1")["consul.d/agent.json"])
    assert made["bind_addr"] == "192.168.57.21"
    assert (made["server"], made["bootstrap_expect"]) == (True, 3)
    assert made["leave_on_terminate"] is False
    assert "server" not in json.loads(render.files(topology, "full", "app1")["consul.d/agent.json"])


def test_nobody_is_a_real_server_of_what_it_asks(topology: Topology) -> None:
    """An access node has the address of nginx on lo, and not those that nginx asks: they would never leave it."""
    environment = render.files(topology, "full", "access1")["network.env"]
    asked = set(re.findall(r"http://([0-9.]+):", render.files(topology, "full", "access1")["nginx.conf"]))
    assert asked
    assert asked.isdisjoint(re.findall(r"[0-9.]+", re.findall(r"DIRECT='(.*)'", environment)[0]))


def test_cards_are_known_by_their_address() -> None:
    assert render.mac("192.168.56.11") == "52:54:00:a8:38:0b"
    guests = load()["profiles"]["full"]["guests"].values()
    cards = [render.mac(each[which]) for each in guests for which in ("front", "back") if which in each]
    assert len(set(cards)) == len(cards)


def test_the_active_director_gets_every_virtual_address_and_the_gateway(topology: Topology) -> None:
    full = topology["profiles"]["full"]
    lines = render.files(topology, "full", "director2")["addresses"].splitlines()
    assert {line.split()[1] for line in lines} == {each["vip"] for each in full["virtual_servers"].values()} | {
        full["gateway"]
    }
    networks = {which: ipaddress.IPv4Network(network) for which, network in topology["networks"].items()}
    assert all(ipaddress.IPv4Address(line.split()[1]) in networks[line.split()[0]] for line in lines)


def test_the_unit_in_the_documentation_is_the_one_that_the_lab_runs() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    unit = (VAGRANT / "files" / "lvsctl.service").read_text(encoding="utf-8")
    assert "\n".join(f"    {line}".rstrip() for line in unit.splitlines()) in page
    users = (VAGRANT / "files" / "lvsctl.sysusers").read_text(encoding="utf-8")
    assert users.splitlines()[-1] in page


def tool(name: str) -> str:
    """Return a program's path, or skip."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not here")
    return path


SCRIPTS = sorted(
    path
    for path in [*VAGRANT.rglob("*"), VAGRANT / "power"]
    if path.is_file() and path.read_bytes().startswith((b"#!/bin/bash", b"#!/bin/sh"))
)


@pytest.mark.parametrize("path", [each for each in SCRIPTS if each.name != "lib.sh"], ids=lambda path: path.name)
def test_a_script_ends_at_its_first_mistake(path: pathlib.Path) -> None:
    assert re.search(r"^set -euo pipefail$", path.read_text(encoding="utf-8"), re.MULTILINE)


def test_systemd_takes_the_units(tmp_path: pathlib.Path) -> None:
    """What it says of programs that are not here does not count."""
    for unit in (VAGRANT / "files").glob("*.service"):
        shutil.copy(unit, tmp_path)
    units = sorted(tmp_path.glob("*.service"))
    done = subprocess.run([tool("systemd-analyze"), "verify", *units], capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if "is not executable" not in line]
    assert [line for line in said if str(tmp_path) in line or "Unknown" in line] == []

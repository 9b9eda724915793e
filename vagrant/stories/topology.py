"""The topology file: reading it, and what is wrong with one. `problems` is pure and knows what a working lab needs."""

import ipaddress
import json
import os
import pathlib
import subprocess
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

HERE: Final = pathlib.Path(__file__).resolve().parent.parent
ROLES: Final = ("consul-server", "director", "access", "application", "client")
FORWARDINGS: Final = ("masquerade", "direct-route", "tunnel")
HOST_ONLY: Final = ipaddress.IPv4Network("192.168.56.0/21")  # what VirtualBox lets host-only networks be in
RESERVED: Final = (1, 254)  # libvirt and VirtualBox take them for the host

Topology = dict[str, Any]  # as YAML has it; `problems` says what is wrong with it


class Wrong(Exception):
    """The topology or the lab is not as it should be; the text says what."""


def load(path: pathlib.Path | None = None) -> Topology:
    """Return the topology of LAB_TOPOLOGY, or else topology.yaml; raises Wrong where it cannot be read."""
    path = path or pathlib.Path(os.environ.get("LAB_TOPOLOGY") or HERE / "topology.yaml")
    try:
        text = path.read_text(encoding="utf-8")
        read = json.loads(text) if path.suffix == ".json" else _yaml(text, path)
    except (OSError, ValueError) as error:
        raise Wrong(f"{path}: {error}") from error
    if not isinstance(read, dict):
        raise Wrong(f"{path}: no topology")
    return read


def _yaml(text: str, path: pathlib.Path) -> object:
    try:
        import yaml  # noqa: PLC0415 - whoever has none has Ruby
    except ImportError:  # Vagrant has a Ruby, and Ruby has YAML
        program = "require 'yaml'; require 'json'; puts JSON.generate(YAML.safe_load($stdin.read))"
        for ruby in ("ruby", "/opt/vagrant/embedded/bin/ruby"):
            try:
                done = subprocess.run([ruby, "-e", program], input=text, capture_output=True, text=True, check=True)
            except FileNotFoundError:
                continue
            except subprocess.CalledProcessError as error:
                raise Wrong(f"{path}: {error.stderr.strip()}") from error
            return json.loads(done.stdout)
        raise Wrong(f"{path}: neither PyYAML nor Ruby is here to read it: apt install python3-yaml") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise Wrong(f"{path}: {error}") from error


def profile_of(topology: Topology, name: str) -> dict[str, Any]:
    """Return a profile; raises Wrong where there is none of that name or it cannot work."""
    if name not in topology.get("profiles", {}):
        raise Wrong(f"no profile {name!r}; there are: {', '.join(topology.get('profiles', {}))}")
    found = list(problems(topology, name))
    if found:
        raise Wrong(f"the topology of {name}: " + "\n        ".join(found))
    profile: dict[str, Any] = topology["profiles"][name]
    return profile


def having(profile: dict[str, Any], role: str) -> list[str]:
    """Return the guests that have a role, in the file's order."""
    return [name for name, guest in profile["guests"].items() if role in guest["roles"]]


def problems(topology: Topology, name: str) -> Iterator[str]:
    """Yield what is wrong with profile `name`, in sentences; nothing where it can work."""
    profile = topology["profiles"][name]
    missing = {"expect", "guests", "gateway", "virtual_addresses", "virtual_servers", "instances"} - profile.keys()
    if missing:
        yield f"no {', '.join(sorted(missing))}"
        return
    yield from _guests(topology, profile)
    yield from _roles(profile)
    yield from _virtual_servers(topology, profile)
    yield from _instances(profile)


def _guests(topology: Topology, profile: dict[str, Any]) -> Iterator[str]:
    networks = {which: ipaddress.IPv4Network(topology["networks"][which]) for which in ("front", "back")}
    for which, network in networks.items():
        if not network.subnet_of(HOST_ONLY):
            yield f"network {which}: {network} is outside {HOST_ONLY}"
    if networks["front"].overlaps(networks["back"]):
        yield "the networks front and back overlap"
    taken = [profile["gateway"]] if profile["virtual_addresses"] == "failover" else []
    taken += {each["vip"] for each in profile["virtual_servers"].values()}
    for name, guest in profile["guests"].items():
        for which, network in networks.items():
            if which in guest:
                taken.append(guest[which])
                yield from _address(f"{name}: {which}", guest[which], network)
        if not {"front", "back"} & guest.keys():
            yield f"{name}: no address"
        if not 256 <= guest.get("memory", 0) <= 8192:
            yield f"{name}: memory is {guest.get('memory')} and not 256 to 8192 MB"
    yield from (f"{address} is there {times} times" for address, times in Counter(taken).items() if times > 1)
    yield from _address("gateway", profile["gateway"], networks["back"])


def _address(what: str, address: str, network: ipaddress.IPv4Network) -> Iterator[str]:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        yield f"{what}: {address!r} is no address"
        return
    if parsed not in network:
        yield f"{what}: {address} is outside {network}"
    elif int(parsed) - int(network.network_address) in (0, 255, *RESERVED):
        yield f"{what}: {address} is reserved"


def _roles(profile: dict[str, Any]) -> Iterator[str]:
    for name, guest in profile["guests"].items():
        yield from (f"{name}: {each}" for each in _roles_of(guest))
    for role in ROLES:
        there, expected = len(having(profile, role)), profile["expect"].get(role)
        if there != expected:
            yield f"{there} guests are {role}, expected are {expected}"
        if not there and role != "access":
            yield f"nobody is {role}"
    ways = {"lvsctl", "failover"} if len(having(profile, "director")) == 1 else {"failover"}
    if profile["virtual_addresses"] not in ways:
        yield f"virtual_addresses: {profile['virtual_addresses']!r} is none of {', '.join(sorted(ways))}"


def _roles_of(guest: dict[str, Any]) -> Iterator[str]:
    if not guest.get("roles"):
        yield "no role"
    for role in guest.get("roles", []):
        if role not in ROLES:
            yield f"there is no role {role!r}"
        elif (role != "client" and "back" not in guest) or (role != "consul-server" and "front" not in guest):
            yield f"{role} without the address it needs"


def _virtual_servers(topology: Topology, profile: dict[str, Any]) -> Iterator[str]:
    front = ipaddress.IPv4Network(topology["networks"]["front"])
    for name, server in profile["virtual_servers"].items():
        yield from _address(f"virtual server {name}", server["vip"], front)
        if server["forwarding"] not in FORWARDINGS:
            yield f"virtual server {name}: there is no forwarding {server['forwarding']!r}"
        if server["protocol"] not in ("tcp", "udp"):
            yield f"virtual server {name}: protocol is {server['protocol']!r}"
        behind = [each for each in profile["instances"] if each["service"] == name]
        if len({each["guest"] for each in behind}) < 2:
            yield f"virtual server {name}: its instances are not on two guests"


def _instances(profile: dict[str, Any]) -> Iterator[str]:
    for each in profile["instances"]:
        who, guest = each["id"], profile["guests"].get(each["guest"])
        server = profile["virtual_servers"].get(each["service"])
        if guest is None:
            yield f"instance {who}: there is no guest {each['guest']!r}"
        elif not {"application", "access"} & set(guest["roles"]):
            yield f"instance {who}: {each['guest']} is neither application nor access"
        if server is None:
            yield f"instance {who}: there is no virtual server {each['service']!r}"
        elif server["forwarding"] != "masquerade" and server["port"] != each["port"]:
            yield f"instance {who}: with {server['forwarding']} its port must be {server['port']}"
        if each["check"] not in ("http", "tcp") or each["registered"] not in ("file", "api"):
            yield f"instance {who}: check {each['check']!r}, registered {each['registered']!r}"
    for what in (lambda each: each["id"], lambda each: f"{each['guest']}:{each['port']}"):
        counted = Counter(what(each) for each in profile["instances"])
        yield from (f"{which} is there {times} times" for which, times in counted.items() if times > 1)

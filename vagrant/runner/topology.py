"""The guests of a profile, from topology.yaml.

Only what booting them needs; the roles, the virtual servers and the instances are for the provisioning scripts, which
read the same file. Pure but for `read`.
"""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import attrs
import yaml


class TopologyError(Exception):
    """The file does not describe a lab; the text says where."""


@attrs.frozen(kw_only=True)
class Card:
    """A guest's network card in one of the lab's networks."""

    network: str
    address: IPv4Address

    @property
    def mac(self) -> str:
        """Return the card's MAC address: by it the guest knows which card is which."""
        return "52:54:00:" + ":".join(f"{byte:02x}" for byte in self.address.packed[1:])


@attrs.frozen(kw_only=True)
class Guest:
    """A virtual machine: memory in MB, and its cards in the order of the lab's networks."""

    name: str
    memory: int
    cards: tuple[Card, ...]


@attrs.frozen(kw_only=True)
class Profile:
    """Everything that is booted together."""

    name: str
    networks: tuple[str, ...]
    guests: tuple[Guest, ...]


def read(path: Path, profile: str) -> Profile:
    """Return the profile of that name from the file at `path`."""
    try:
        return parse(yaml.safe_load(path.read_text("utf-8")), profile)
    except (OSError, yaml.YAMLError) as error:
        raise TopologyError(f"{path}: {error}") from error


def parse(topology: Any, name: str) -> Profile:  # noqa: ANN401 - YAML is untyped; its types end here
    """Return the profile of that name of a topology as YAML has it."""
    try:
        profiles: Mapping[str, Any] = topology["profiles"]
        if name not in profiles:
            raise TopologyError(f"no profile {name}: there are {', '.join(profiles)}")
        networks = {network: IPv4Network(text) for network, text in topology["networks"].items()}
        guests = tuple(_guest(each, described, networks) for each, described in profiles[name]["guests"].items())
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TopologyError(f"profile {name}: {type(error).__name__}: {error}") from error
    if not guests:
        raise TopologyError(f"profile {name} has no guests")
    taken: set[IPv4Address] = set()
    for guest in guests:
        for card in guest.cards:
            if card.address in taken:
                raise TopologyError(f"profile {name}: {card.address} of {guest.name} is another's, too")
            taken.add(card.address)
    return Profile(name=name, networks=tuple(networks), guests=guests)


def _guest(name: str, described: Mapping[str, Any], networks: Mapping[str, IPv4Network]) -> Guest:
    cards = []
    for network, where in networks.items():
        if network not in described:
            continue
        address = IPv4Address(described[network])
        if address not in where:
            raise TopologyError(f"{name}: {address} is not in {network}, which is {where}")
        cards.append(Card(network=network, address=address))
    return Guest(name=name, memory=int(described["memory"]), cards=tuple(cards))

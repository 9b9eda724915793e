"""A lab that is up, as stories see it: who is who, what Consul and the directors say, and a way to tell it."""

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any

from vagrant.stories import guests, table, topology
from vagrant.stories.guests import Failed
from vagrant.stories.load import Load, traffic, wait


class Lab:
    """One profile's guests."""

    def __init__(self, name: str, profile: dict[str, Any]) -> None:
        self.name = name
        self.profile = profile
        self.directors = topology.having(profile, "director")
        self.client = topology.having(profile, "client")[0]
        self._begin = time.monotonic()

    # -- telling

    def say(self, text: str) -> None:
        """Print a line of the story, with the seconds since it began."""
        print(f"[{time.monotonic() - self._begin:5.0f} s] {text}", flush=True)

    def do(self, guest: str, command: str, *, check: bool = True) -> str:
        """Run a command as if it were typed in a guest, and show it; raises Failed."""
        self.say(f"{guest}# {command}")
        done = guests.run(guest, command, check=check)
        for line in (done.stdout + done.stderr).splitlines():
            print(f"          {line}", flush=True)
        return done.stdout

    def expect(self, holds: object, otherwise: str) -> None:
        """Raise Failed with a sentence where something does not hold."""
        if not holds:
            raise Failed(otherwise)

    # -- who is who

    def server(self, service: str) -> dict[str, Any]:
        """Return the virtual server of a service."""
        found: dict[str, Any] = self.profile["virtual_servers"][service]
        return found

    def instances(self, service: str) -> list[dict[str, Any]]:
        """Return the instances of a service."""
        return [each for each in self.profile["instances"] if each["service"] == service]

    def count(self, service: str) -> int:
        """Return how many instances a service has."""
        return len(self.instances(service))

    def address(self, instance: dict[str, Any]) -> table.Address:
        """Return where an instance is."""
        return (self.profile["guests"][instance["guest"]]["back"], instance["port"])

    def holders(self) -> list[str]:
        """Return the directors that have the virtual addresses and can be reached."""
        if self.profile["virtual_addresses"] == "lvsctl":
            return self.directors[:1]
        show = "lab-addresses show >/dev/null"
        return [each for each in self.directors if guests.run(each, show, check=False).returncode == 0]

    def active(self) -> str:
        """Return the director that clients reach; raises Failed where it is not one."""
        here = self.holders()
        self.expect(len(here) == 1, f"the virtual addresses are on {here or 'no director'}")
        return here[0]

    # -- what is so

    def health(self, director: str, *services: str) -> dict[str, str]:
        """Return the JSON that a director's Consul agent has of each service's health."""
        asked = "; ".join(
            f"curl -fsS http://127.0.0.1:8500/v1/health/service/{each} || exit 1; echo" for each in services
        )
        lines = [line for line in guests.ask(director, asked).splitlines() if line]
        return dict(zip(services, lines, strict=True))

    def passing(self, service: str) -> set[str]:
        """Return the instances of a service that pass all their checks."""
        return set(table.passing(self.health(self.directors[0], service)[service]).values())

    def weights(self, director: str, service: str) -> dict[table.Address, int]:
        """Return the weights in a director's IPVS table of a service's real servers."""
        server = self.server(service)
        there = table.parse(guests.ask(director, "ipvsadm -Ln")).get(
            (server["protocol"], server["vip"], server["port"])
        )
        return {} if there is None else {address: weight for address, (_, weight) in there.real_servers.items()}

    def serving(self, service: str) -> bool:
        """Whether every director has every instance of a service with a weight."""
        wanted = {self.address(each) for each in self.instances(service)}
        return all(
            {each for each, weight in self.weights(one, service).items() if weight} == wanted for one in self.directors
        )

    def wait_serving(self, service: str, patience: float = 120) -> float:
        """Return after how many seconds all instances of a service served, on every director."""
        return wait(f"all of {service} serve", lambda: self.serving(service), patience)

    @contextlib.contextmanager
    def traffic(self, service: str, rate: float = 5, path: str = "/") -> Iterator[Load]:
        """Have the client ask a virtual server while the context lasts."""
        self.say(f"{self.client} asks {service} at {self.server(service)['vip']} {rate:g} times a second")
        with traffic(self.client, self.server(service), rate, path) as load:
            yield load


def chosen() -> Lab:
    """Return the lab of LAB_PROFILE (or PROFILE; mini without) and LAB_TOPOLOGY; raises topology.Wrong."""
    name = os.environ.get("LAB_PROFILE") or os.environ.get("PROFILE") or "mini"
    return Lab(name, topology.profile_of(topology.load(), name))

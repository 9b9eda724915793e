"""The kernel's table and Consul's health, and how they differ. Pure; texts in, sentences out."""

import dataclasses
import json
import re
from collections.abc import Iterator
from typing import Any, Final

METHODS: Final = {"Masq": "masquerade", "Route": "direct-route", "Tunnel": "tunnel"}
VIRTUAL: Final = re.compile(r"(TCP|UDP)\s+(\d+\.\d+\.\d+\.\d+):(\d+)\s+(\w+)")
REAL: Final = re.compile(r"\s+->\s+(\d+\.\d+\.\d+\.\d+):(\d+)\s+(\w+)\s+(\d+)\s+(\d+)\s+(\d+)")

Address = tuple[str, int]


@dataclasses.dataclass(frozen=True)
class VirtualServer:
    """A virtual server as `ipvsadm -Ln` shows it: scheduler, and method and weight of each real server."""

    scheduler: str
    real_servers: dict[Address, tuple[str, int]]


def parse(text: str) -> dict[tuple[str, str, int], VirtualServer]:
    """Return what `ipvsadm -Ln` printed, by protocol, address and port."""
    table: dict[tuple[str, str, int], VirtualServer] = {}
    last: VirtualServer | None = None
    for line in text.splitlines():
        if found := VIRTUAL.match(line):
            last = VirtualServer(found[4], {})
            table[found[1].lower(), found[2], int(found[3])] = last
        elif (found := REAL.match(line)) and last is not None:
            last.real_servers[found[1], int(found[2])] = (METHODS.get(found[3], found[3]), int(found[4]))
    return table


def passing(health: str) -> dict[Address, str]:
    """Return the instances all whose checks pass, of the JSON of /v1/health/service/NAME, by address."""
    entries: list[dict[str, Any]] = json.loads(health)
    return {
        (each["Service"]["Address"] or each["Node"]["Address"], each["Service"]["Port"]): each["Service"]["ID"]
        for each in entries
        if all(check["Status"] == "passing" for check in each["Checks"])
    }


def differences(profile: dict[str, Any], listing: str, health: dict[str, str]) -> Iterator[str]:
    """Yield how a director's table differs from the topology and from Consul's health, in sentences."""
    table = parse(listing)
    for name, wanted in profile["virtual_servers"].items():
        there = table.get((wanted["protocol"], wanted["vip"], wanted["port"]))
        if there is None:
            yield f"{name}: no virtual server {wanted['protocol']} {wanted['vip']}:{wanted['port']}"
            continue
        if there.scheduler != wanted["scheduler"]:
            yield f"{name}: scheduler {there.scheduler} instead of {wanted['scheduler']}"
        well = passing(health[name])
        expected = {
            (profile["guests"][each["guest"]]["back"], each["port"]): each["id"]
            for each in profile["instances"]
            if each["service"] == name
        }
        yield from (
            f"{name}: {expected[each]} does not pass in Consul" for each in sorted(expected.keys() - well.keys())
        )
        yield from (
            f"{name}: {well[each]} is in Consul, not in the topology" for each in sorted(well.keys() - expected.keys())
        )
        for address in sorted(well.keys() - there.real_servers.keys()):
            yield f"{name}: {well[address]} passes in Consul and is not in the table"
        for address, (method, weight) in sorted(there.real_servers.items()):
            where = f"{name}: {address[0]}:{address[1]}"
            if address not in well:
                yield f"{where} is in the table and does not pass in Consul"
            if method != wanted["forwarding"]:
                yield f"{where} is reached by {method} instead of {wanted['forwarding']}"
            if weight < 1:
                yield f"{where} has the weight 0"
    known = {(each["protocol"], each["vip"], each["port"]) for each in profile["virtual_servers"].values()}
    yield from (f"{' '.join(map(str, each))} is in the table and not in the topology" for each in table.keys() - known)

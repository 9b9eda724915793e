"""Says whether a lab that is up works: guests, Consul, the directors' tables, and each virtual server from the client.

    vagrant/verify [--wait SECONDS]

Every line is a check. What is not right yet is looked at again until the time is over: Consul checks each 10 s. Exit
code 0: everything is right; 1: something is not, the topology perhaps; 2: there is no lab to reach.
"""

import argparse
import concurrent.futures
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from vagrant.stories import guests, table
from vagrant.stories.guests import Failed
from vagrant.stories.lab import Lab, chosen
from vagrant.stories.load import arguments
from vagrant.stories.topology import Wrong, having

NET_ADMIN = 1 << 12  # capability(7)


def units(profile: dict[str, Any], name: str) -> list[str]:
    """Return the units that run on a guest."""
    guest = profile["guests"][name]
    by_role = {"director": ["lvsctl"], "access": ["nginx"]}
    wanted = ["lab-network"] + (["consul"] if "back" in guest else [])
    wanted += [unit for role in guest["roles"] for unit in by_role.get(role, [])]
    if "application" in guest["roles"]:
        wanted += [f"lab-app@{each['id']}" for each in profile["instances"] if each["guest"] == name]
    return wanted


def guest(lab: Lab, name: str) -> Iterator[str]:
    """Yield what is wrong in a guest."""
    wanted = units(lab.profile, name)
    said = guests.run(name, f"uname -n; systemctl is-active {' '.join(wanted)}", check=False)
    if said.returncode == 255:
        yield f"cannot be reached: {said.stderr.strip()}"
        return
    called, *states = said.stdout.split()
    if called != name:
        yield f"is called {called}"
    if len(states) != len(wanted):
        yield f"systemctl said {said.stdout!r}"
    yield from (f"{unit} is {state}" for unit, state in zip(wanted, states, strict=False) if state != "active")


def consul(lab: Lab, name: str) -> Iterator[str]:
    """Yield what the Consul agent of a director misses: members, servers, a leader."""
    paths = ("agent/members", "status/leader", "status/peers")
    said = guests.ask(name, "; ".join(f"curl -fsS http://127.0.0.1:8500/v1/{path}; echo" for path in paths))
    members, leader, peers = (json.loads(line) for line in said.splitlines() if line)
    alive = {each["Name"] for each in members if each["Status"] == 1}
    wanted = {each for each, one in lab.profile["guests"].items() if "back" in one}
    yield from (f"{each} is no member that is alive" for each in sorted(wanted - alive))
    yield from (f"{each} is a member and not in the topology" for each in sorted(alive - wanted))
    if not leader:
        yield "no leader"
    if len(peers) != lab.profile["expect"]["consul-server"]:
        yield f"{len(peers)} servers instead of {lab.profile['expect']['consul-server']}"


def kernel(lab: Lab, name: str) -> Iterator[str]:
    """Yield how a director's IPVS table differs from Consul's health and from the topology."""
    health = lab.health(name, *lab.profile["virtual_servers"])
    yield from table.differences(lab.profile, guests.ask(name, "ipvsadm -Ln"), health)


def daemon(_: Lab, name: str) -> Iterator[str]:
    """Yield what lvsctl itself complains of on a director, and what it may do beyond its need."""
    for command in ("lvsctl status", "lvsctl diff", "lvsctl doctor"):
        done = guests.run(name, command, check=False)
        if done.returncode != 0:
            yield f"{command}: exit code {done.returncode}: {(done.stdout + done.stderr).strip()}"
    look = 'pid=$(systemctl show -P MainPID lvsctl); stat -c %U /proc/$pid; grep -E "^Cap(Eff|Bnd)" /proc/$pid/status'
    said = guests.ask(name, look)
    user, *capabilities = said.splitlines()
    if user != "lvsctl":
        yield f"lvsctl runs as {user}"
    yield from (f"lvsctl has {line}" for line in capabilities if int(line.split()[1], 16) != NET_ADMIN)


def active(lab: Lab, _: str) -> Iterator[str]:
    """Yield that not exactly one director has the virtual addresses."""
    here = lab.holders()
    if len(here) != 1:
        yield f"the virtual addresses are on {', '.join(here) or 'no director'}"


def answers(lab: Lab, name: str) -> Iterator[str]:
    """Yield which virtual servers do not answer the client, or not with each of their instances."""
    servers = lab.profile["virtual_servers"]
    ways = [(each, "/") for each in servers]
    if "web" in servers:  # nginx on the access nodes is a client of the others
        ways += [
            ("web", f"/{each}/") for each, server in servers.items() if each != "web" and server["protocol"] == "tcp"
        ]
    asks = [
        f"lab-load {arguments(servers[each], path)} 8 {4 * lab.count(path.strip('/') or each)}" for each, path in ways
    ]
    all_at_once = " ".join(f"{ask} >$d/{number} &" for number, ask in enumerate(asks))
    show = f"for i in $(seq 0 {len(ways) - 1}); do cat $d/$i; echo; done"
    said = guests.ask(name, f"d=$(mktemp -d); {all_at_once} wait; {show}; rm -r $d")
    for (each, path), lines in zip(ways, said.split("\n\n"), strict=False):
        what = each + ("" if path == "/" else f" {path}")
        got = [json.loads(line) for line in lines.splitlines() if line]
        wanted = {one["id"] for one in lab.profile["instances"] if one["service"] == (path.strip("/") or each)}
        errors = sorted({one["error"] for one in got if "error" in one})
        yield from (f"{what}: {error}" for error in errors)
        missing = wanted - {one.get("instance") for one in got}
        if missing:
            yield f"{what}: no answer of {', '.join(sorted(missing))}"
        seen = {one["client"] for one in got if "client" in one}
        if path == "/" and seen - {lab.profile["guests"][name]["front"]}:
            yield f"{what}: the applications see {', '.join(sorted(seen))} as their client"


Check = Callable[[Lab, str], Iterator[str]]


def checks(lab: Lab) -> list[tuple[str, Check, str]]:
    """Return all that is looked at: what it is called, how, and where."""
    directors, clients = having(lab.profile, "director"), having(lab.profile, "client")
    wanted: list[tuple[str, Check, str]] = [(f"{each}: its units run", guest, each) for each in lab.profile["guests"]]
    wanted += [(f"{each}: Consul's members, servers and leader", consul, each) for each in directors]
    if lab.profile["virtual_addresses"] == "failover":
        wanted += [("one director has the virtual addresses", active, "")]
    wanted += [(f"{each}: IPVS is what Consul says", kernel, each) for each in directors]
    wanted += [(f"{each}: lvsctl is content, and has CAP_NET_ADMIN alone", daemon, each) for each in directors]
    wanted += [(f"{each}: every virtual server answers by every instance", answers, each) for each in clients]
    return wanted


def judge(lab: Lab, wanted: tuple[str, Check, str], until: float) -> bool:
    """Print one check's line, and what is wrong; look again until it is right or the time is over."""
    what, check, where = wanted
    while True:
        try:
            wrong = list(check(lab, where))
        except (Failed, ValueError, KeyError) as error:
            wrong = [str(error) or repr(error)]
        if not wrong or time.monotonic() > until:
            break
        time.sleep(3)
    print("\n        ".join([("ok      " if not wrong else "WRONG   ") + what, *wrong]), flush=True)
    return not wrong


def main(arguments_: list[str] | None = None) -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(prog="verify", description="Says whether the lab works.")
    parser.add_argument(
        "--wait", type=float, default=180, metavar="SECONDS", help="how long to wait for what is not right yet (180)"
    )
    given = parser.parse_args(arguments_)
    try:
        lab = chosen()
    except Wrong as error:
        print(f"WRONG   {error}")
        return 1
    try:
        guests.ssh_configuration()
    except Wrong as error:
        print(f"verify: {error}", file=sys.stderr)
        return 2
    until = time.monotonic() + given.wait
    print(f"ok      the topology of {lab.name}: {len(lab.profile['guests'])} guests", flush=True)
    wanted = checks(lab)
    first = len(lab.profile["guests"])
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        good = list(pool.map(lambda each: judge(lab, each, until), wanted[:first]))
    good += [judge(lab, each, until) for each in wanted[first:]]
    bad = good.count(False)
    print(f"{lab.name}: {f'{bad} of {len(good)} checks are wrong' if bad else 'the lab works'}")
    return 1 if bad else 0

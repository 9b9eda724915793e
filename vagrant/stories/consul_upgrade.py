"""Consul is upgraded, followers, leader, then the other agents, each a restart: no request fails.

The order of HashiCorp's documentation. After each restart the next one waits until Consul has a leader and what the
node runs passes again: an agent that starts calls its checks critical until it has looked once.
"""

import json

from vagrant.stories import guests
from vagrant.stories.lab import Lab
from vagrant.stories.load import summary, wait
from vagrant.stories.topology import having

SERVICE = "reco"


def leader(lab: Lab) -> str:
    """Return the guest that leads Consul's servers; empty where none does, or none says so."""
    for name in having(lab.profile, "consul-server"):
        done = guests.run(name, "curl -fsS http://127.0.0.1:8500/v1/status/leader", check=False)
        address = json.loads(done.stdout).split(":")[0] if done.returncode == 0 else ""
        found: list[str] = [
            each for each, guest in lab.profile["guests"].items() if address and guest.get("back") == address
        ]
        if found:
            return found[0]
    return ""


def alive(lab: Lab, name: str) -> bool:
    """Whether a guest's agent answers, knows a leader, and what it runs passes in Consul."""
    done = guests.run(name, "curl -fsS http://127.0.0.1:8500/v1/status/leader", check=False)
    if done.returncode != 0 or not json.loads(done.stdout):
        return False
    mine = {each["id"] for each in lab.profile["instances"] if each["guest"] == name}
    said = guests.run(name, f"curl -fsS http://127.0.0.1:8500/v1/health/node/{name}", check=False)
    if said.returncode != 0:
        return False
    checks = json.loads(said.stdout)
    return mine <= {each["ServiceID"] for each in checks} and all(each["Status"] == "passing" for each in checks)


def run(lab: Lab) -> None:
    """Restart every agent in order."""
    servers = having(lab.profile, "consul-server")
    wait("Consul has a leader", lambda: bool(leader(lab)))
    first = leader(lab)
    order = [each for each in servers if each != first] + [first]
    order += [each for each, guest in lab.profile["guests"].items() if "back" in guest and each not in servers]
    lab.say(f"the leader is {first}; the order is {', '.join(order)}")
    director = lab.active()
    with lab.traffic(SERVICE) as load:
        for each in order:
            lab.do(each, "systemctl restart consul")
            took = wait(f"{each} is back, with a leader and passing checks", lambda: alive(lab, each), 180)  # noqa: B023
            lab.say(
                f"{each} is back after {took:.0f} s" + (f"; the leader is {leader(lab)}" if each in servers else "")
            )
            lab.wait_serving(SERVICE)
        mark = load.mark()
        wait("10 more answers", lambda: load.mark() >= mark + 10, 60)
    lab.say(summary(load.since()))
    lab.expect(not load.failed(), f"{len(load.failed())} requests failed")
    for each in lab.profile["virtual_servers"]:
        lab.wait_serving(each)
    wait("lvsctl is content", lambda: guests.run(director, "lvsctl status", check=False).returncode == 0, 120, 3)
    lab.do(director, "lvsctl status")

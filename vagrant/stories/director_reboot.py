"""the active director reboots while Consul is down: it serves what Consul said last.

What Consul said last is on the director's disk. It boots, fills its empty table from that, and says so.
"""

import time

from vagrant.stories import guests
from vagrant.stories.lab import Lab
from vagrant.stories.load import Load, summary, wait
from vagrant.stories.topology import having

SERVICE = "reco"
BOOT = "cat /proc/sys/kernel/random/boot_id"


def answered(load: Load, count: int) -> None:
    """Wait for some answers more."""
    mark = load.mark()
    wait(f"{count} more answers", lambda: load.mark() >= mark + count, 90)


def run(lab: Lab) -> None:
    """Stop Consul's servers, reboot the active director, ask, and start Consul again."""
    director = lab.active()
    servers = having(lab.profile, "consul-server")
    services = list(lab.profile["virtual_servers"])
    try:
        for each in servers:
            lab.do(each, "systemctl disable --now consul 2>&1")
        with lab.traffic(SERVICE) as load:
            answered(load, 10)
        lab.expect(not load.failed(), f"without Consul: {summary(load.since())}")
        lab.say(f"without Consul, before the reboot: {summary(load.since())}")

        before = guests.ask(director, BOOT)
        lab.say(f"reboot of {director}")
        began = time.monotonic()
        guests.power("reboot", director)

        def booted() -> bool:
            done = guests.run(director, BOOT, check=False)
            return done.returncode == 0 and done.stdout != before

        wait(f"{director} has booted", booted, 400, 2)
        lab.say(f"{director} has booted after {time.monotonic() - began:.0f} s")
        took = wait(
            "every virtual server is in its table",
            lambda: all(lab.weights(director, each) for each in services),
            180,
            2,
        )
        lab.say(f"every virtual server is in its table, {took:.0f} s later, and Consul is still down")
        lab.do(director, "lvsctl status", check=False)
        with lab.traffic(SERVICE) as load:
            answered(load, 30)
        lab.say(f"without Consul, after the reboot: {summary(load.since())}")
        lab.expect(not load.failed(), f"{len(load.failed())} requests failed")
        wanted = {each["id"] for each in lab.instances(SERVICE)}
        lab.expect(set(load.shares()) == wanted, f"only {sorted(load.shares())} answer")
    finally:
        for each in servers:
            lab.do(each, "systemctl enable --now consul 2>&1", check=False)
    wait(
        "Consul answers and lvsctl is content",
        lambda: guests.run(director, "lvsctl status", check=False).returncode == 0,
        240,
        3,
    )
    for each in services:
        lab.wait_serving(each)
    lab.say("Consul is back, and everything is as Consul says")

"""two directors: the addresses move by hand, first as planned, then because one is dead.

The standby director has the same table, for it watches the same Consul; all that moves is the addresses. The unit
lab-addresses has them: it asks the network first, and takes nothing that another director answers for.
"""

import itertools

from vagrant.stories import guests
from vagrant.stories.lab import Lab
from vagrant.stories.load import Load, summary, wait

DIRECTORS = 2
SERVICE = "reco"
TAKE, GIVE = "systemctl enable --now lab-addresses 2>&1", "systemctl disable --now lab-addresses 2>&1"


def good(load: Load, count: int = 30) -> int:
    """Return the mark from which `count` answers in a row were good."""
    mark = load.mark()
    wait(f"{count} good answers in a row", lambda: len(load.since(mark)) >= count, 120)
    return mark


def gap(load: Load) -> float:
    """Return the longest time between two good answers that came one after the other."""
    times = [each.at for each in load.since() if not each.error]
    return max((later - sooner for sooner, later in itertools.pairwise(times)), default=0.0)


def run(lab: Lab) -> None:
    """Fail over, as planned and not."""
    active = lab.active()
    standby = next(each for each in lab.directors if each != active)
    services = list(lab.profile["virtual_servers"])
    lab.say(f"{active} has the addresses, {standby} stands by with the same table")
    lab.expect(all(lab.serving(each) for each in services), "the directors' tables are not the same")
    try:
        with lab.traffic(SERVICE) as load:
            lab.do(active, GIVE)
            lab.do(standby, TAKE)
            wait("good answers", lambda: any(not each.error for each in load.since(load.mark() - 1)), 60)
            mark = load.mark() + 10  # those that were asked in between
            wait("30 more answers", lambda: load.mark() >= mark + 30, 120)
            lab.expect(not load.failed(mark), f"after the change {summary(load.since(mark))}")
        lab.say(f"as planned: {summary(load.since())}\n          longest time without an answer {gap(load):.1f} s")

        with lab.traffic(SERVICE) as load:
            lab.say(f"the plug of {standby}, which has the addresses, is pulled")
            guests.power("kill", standby)
            lab.do(active, TAKE)
            wait("good answers", lambda: any(not each.error for each in load.since(load.mark() - 1)), 60)
            mark = load.mark() + 50  # those that were asked in between wait for their timeouts
            wait("30 more answers", lambda: load.mark() >= mark + 30, 180)
            lab.expect(not load.failed(mark), f"after the failover {summary(load.since(mark))}")
        lab.say(f"not planned: {summary(load.since())}\n          longest time without an answer {gap(load):.1f} s")
    finally:
        guests.power("start", standby)
    wait(
        f"{standby} is up",
        lambda: guests.run(standby, "systemctl is-active lvsctl", check=False).returncode == 0,
        400,
        3,
    )
    wait(
        "it has tried",
        lambda: guests.run(standby, "systemctl is-failed lab-addresses", check=False).returncode == 0,
        120,
        2,
    )
    lab.do(standby, "systemctl status --no-pager --lines 2 lab-addresses", check=False)
    lab.expect(lab.active() == active, "the director that came back has taken addresses")
    lab.do(standby, "systemctl disable lab-addresses 2>&1; systemctl reset-failed lab-addresses")
    for each in services:
        lab.wait_serving(each, 180)
    lab.say(f"{standby} is back and stands by; {active} has the addresses")

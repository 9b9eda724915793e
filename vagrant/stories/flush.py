"""somebody types ipvsadm -C: the table is back within moments.

The kernel tells nobody of such a thing, so lvsctl counts what is there, twenty times a second.
"""

from vagrant.stories import guests
from vagrant.stories.lab import Lab
from vagrant.stories.load import summary, wait

SERVICE = "reco"


def run(lab: Lab) -> None:
    """Clear the table of the active director, and wait."""
    director = lab.active()
    services = list(lab.profile["virtual_servers"])
    with lab.traffic(SERVICE) as load:
        mark = load.mark()
        lab.do(director, "ipvsadm -C")
        took = wait("every virtual server is back", lambda: all(lab.serving(each) for each in services), 60, 0.5)
        again = load.mark() + 5  # those that are under way
        lab.say(f"all {len(services)} virtual servers are back after {took:.0f} s")
        lab.do(director, f"lvsctl events {SERVICE} | tail -n 5", check=False)
        wait("30 more answers", lambda: load.mark() >= again + 30, 90)
        lab.say(f"meanwhile {summary(load.since(mark)[: again - mark])}")
        lab.say(f"since then {summary(load.since(again))}")
        lab.expect(not load.failed(again), "requests fail although the table is back")
    guests.run(director, "lvsctl diff")

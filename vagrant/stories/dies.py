"""an instance dies: its clients get errors until Consul's check sees it, and nobody after that.

Consul looks every 10 seconds, so that long at worst a part of the requests is refused. From then on it gets none.
Started again, it serves as soon as it passes.
"""

from vagrant.stories import guests
from vagrant.stories.lab import Lab
from vagrant.stories.load import summary, wait

SERVICE = "reco"


def run(lab: Lab) -> None:
    """Kill an instance, and start it again."""
    victim = lab.instances(SERVICE)[1]
    node, name, address = victim["guest"], victim["id"], lab.address(victim)
    director = lab.active()
    try:
        with lab.traffic(SERVICE) as load:
            lab.do(node, f"systemctl kill -s KILL lab-app@{name}")
            took = wait(
                f"{name} gets no new connections",
                lambda: all(lab.weights(each, SERVICE).get(address, 0) == 0 for each in lab.directors),
                60,
                0.5,
            )
            meanwhile = summary(load.since())
            lab.say(
                f"out of the way on {' and '.join(lab.directors)} {took:.0f} s after its death; meanwhile {meanwhile}"
            )
            lab.do(director, f"lvsctl explain {name}")
            mark = load.mark() + 5  # those that are under way
            wait("30 more answers", lambda: load.mark() >= mark + 30, 90)
            lab.say(f"since then {summary(load.since(mark))}")
            lab.expect(not load.failed(mark), "requests fail although it is out")
            others = {each["id"] for each in lab.instances(SERVICE)} - {name}
            lab.expect(set(load.shares(mark)) == others, f"not the others answer, but {sorted(load.shares(mark))}")
            lab.do(node, f"systemctl start lab-app@{name}")
            took = lab.wait_serving(SERVICE)
            lab.say(f"{name} serves again {took:.0f} s after its start")
            mark = load.mark()
            wait(f"{name} answers the client", lambda: load.shares(mark)[name] > 0, 60)
            lab.expect(not load.failed(mark), "requests fail although it is back")
    finally:
        guests.run(node, f"systemctl reset-failed lab-app@{name}; systemctl start lab-app@{name}", check=False)

"""a grey release: the canary has a tenth of the requests, then half, then its own weight again.

One command on any director writes the share to Consul, and every director obeys it.
"""

from vagrant.stories import guests
from vagrant.stories.lab import Lab
from vagrant.stories.load import wait
from vagrant.stories.table import Address

SERVICE, TAG = "reco", "v2"
REQUESTS = 100


def run(lab: Lab) -> None:
    """Give the canary shares, and count."""
    director = lab.active()
    canaries = {each["id"] for each in lab.instances(SERVICE) if each["version"] == TAG}
    try:
        with lab.traffic(SERVICE, rate=8) as load:
            for share in (10, 50):
                give(lab, director, share)
                mark = load.mark() + 3  # those that are under way
                reached = mark + REQUESTS
                wait(f"{REQUESTS} answers", lambda goal=reached: load.mark() >= goal, 120)  # type: ignore[misc]
                counted = load.since(mark)[:REQUESTS]
                got = sum(each.instance in canaries for each in counted) * 100 / len(counted)
                lab.say(f"{' and '.join(sorted(canaries))} answered {got:.0f} % of {len(counted)} requests")
                lab.expect(abs(got - share) <= 7, f"{got:.0f} % instead of {share} %")
            lab.do(director, f"lvsctl weight {SERVICE}")
            lab.do(director, f"lvsctl weight {SERVICE} {TAG} --clear")
            wait("every weight is 1", lambda: all(set(each.values()) == {1} for each in weights(lab)))
        lab.expect(not load.failed(), f"{len(load.failed())} of {load.mark()} requests failed")
        lab.say(f"{load.mark()} requests, none failed")
    finally:
        guests.run(director, f"lvsctl weight {SERVICE} {TAG} --clear", check=False)


def weights(lab: Lab) -> list[dict[Address, int]]:
    """Return the weights of the service's real servers on each director."""
    return [lab.weights(each, SERVICE) for each in lab.directors]


def give(lab: Lab, director: str, share: int) -> None:
    """Give the canary a share, and return when every director obeys."""
    before = weights(lab)
    lab.do(director, f"lvsctl weight {SERVICE} {TAG} {share}% --for 1h --reason 'grey release'")
    wait("the weights change", lambda: all(new != old for new, old in zip(weights(lab), before, strict=True)))
    for name, there in zip(lab.directors, weights(lab), strict=True):
        lab.say(f"weights on {name}: {sorted(there.values())}")

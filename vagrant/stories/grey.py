"""a grey release: the canary has a tenth of the requests, then half, then its own weight again

One command on any director writes the share to Consul, and every director obeys it.
"""

from vagrant.stories import guests
from vagrant.stories.lab import Lab
from vagrant.stories.load import wait

SERVICE, TAG = "reco", "v2"
REQUESTS = 100


def run(lab: Lab) -> None:
    """Give the canary shares, and count."""
    director = lab.active()
    canaries = {each["id"] for each in lab.instances(SERVICE) if each["version"] == TAG}
    try:
        with lab.traffic(SERVICE, rate=8) as load:
            for share in (10, 50):
                before = [lab.weights(each, SERVICE) for each in lab.directors]
                lab.do(director, f"lvsctl weight {SERVICE} {TAG} {share}% --for 1h --reason 'grey release'")
                wait("the weights change on every director", lambda: all(lab.weights(each, SERVICE) != old for each, old in zip(lab.directors, before)))  # noqa: B023
                for each in lab.directors:
                    lab.say(f"weights on {each}: {sorted(lab.weights(each, SERVICE).values())}")
                mark = load.mark() + 3  # those that are under way
                wait(f"{REQUESTS} answers", lambda: load.mark() >= mark + REQUESTS, 120)  # noqa: B023
                counted = load.since(mark)[:REQUESTS]
                got = sum(each.instance in canaries for each in counted) * 100 / len(counted)
                lab.say(f"{' and '.join(sorted(canaries))} answered {got:.0f} % of {len(counted)} requests, of which {share} % were meant")
                lab.expect(abs(got - share) <= 7, f"{got:.0f} % instead of {share} %")
            lab.do(director, f"lvsctl weight {SERVICE}")
            lab.do(director, f"lvsctl weight {SERVICE} {TAG} --clear")
            wait("every weight is 1 again", lambda: all(set(lab.weights(each, SERVICE).values()) == {1} for each in lab.directors))
        lab.expect(not load.failed(), f"{len(load.failed())} of {load.mark()} requests failed")
        lab.say(f"{load.mark()} requests, none failed")
    finally:
        guests.run(director, f"lvsctl weight {SERVICE} {TAG} --clear", check=False)

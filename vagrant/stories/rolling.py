"""a rolling release, drain, stop and start of one instance after the other: no request fails.

Each request takes a second, so every drain finds some under way. The order that matters: drained and out of the table,
then stopped; started and passing in Consul, then let back.
"""

from vagrant.stories import guests
from vagrant.stories.lab import Lab
from vagrant.stories.load import summary, wait

SERVICE = "reco"
RELEASES = f"/etc/lab/releases/{SERVICE}"


def run(lab: Lab) -> None:
    """Release all instances of the service anew."""
    instances = lab.instances(SERVICE)
    director = lab.active()
    nodes = list(dict.fromkeys(each["guest"] for each in instances))
    release = int(guests.ask(nodes[0], f"cat {RELEASES} 2>/dev/null || echo 1")) + 1
    lab.say(f"release {release} of {SERVICE}, {len(instances)} instances on {', '.join(nodes)}")
    for node in nodes:
        guests.ask(node, f"mkdir -p {RELEASES.rsplit('/', 1)[0]} && echo {release} >{RELEASES}")
    with lab.traffic(SERVICE, path="/?sleep=1") as load:
        for each in instances:
            one(lab, director, each)
        mark = load.mark()
        wait("20 more answers", lambda: load.mark() >= mark + 20, 60)
    lab.say(summary(load.since()))
    lab.expect(not load.failed(), f"{len(load.failed())} requests failed")
    answered = {each.release for each in load.since(mark + 5)}
    lab.expect(answered == {str(release)}, f"releases {sorted(answered)} answered at the end, not {release} alone")
    lab.do(director, f"lvsctl status {SERVICE}")


def one(lab: Lab, director: str, instance: dict[str, str]) -> None:
    """Release one instance."""
    node, name = instance["guest"], instance["id"]
    address, port = lab.address(instance)
    try:
        lab.do(director, f"lvsctl drain {node}/{name} --fleet --reason release --wait")
        lab.do(node, f"systemctl stop lab-app@{name}")
    finally:
        lab.do(node, f"systemctl start lab-app@{name}")
        wait(
            f"{name} answers",
            lambda: guests.run(node, f"curl -fsS {address}:{port}/health", check=False).returncode == 0,
        )
        took = wait(f"{name} passes", lambda: name in lab.passing(SERVICE))
        lab.say(f"{name} passes in Consul, {took:.0f} s later")
        lab.do(director, f"lvsctl undrain {node}/{name} --fleet", check=False)
    lab.wait_serving(SERVICE)

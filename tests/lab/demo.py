"""`make demo`: the daemon at work on a real kernel with a real Consul, step by step, with what a client saw of it.

The story an operator knows: instances appear, one fails its check and leaves, comes back, a weight changes, a hand
slips on the table, the daemon is killed. A client asks the virtual address all the while. Ends with status 0 and
`demo: N requests, 0 failed`, or says what went otherwise.
"""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

from tests.lab.consul import Check, Registration
from tests.lab.hosts import Host, Process
from tests.lab.scene import HTTP, VIP4, RealServer, Scene, scene
from tests.lab.traffic import Report, Traffic
from tests.lab.waiting import eventually

CONFIGURATION: Final = """\
[consul]
address = "{consul}"

[defaults]
drain_timeout = "10s"

[virtual_server.reco]
address = "{vip}:80"
scheduler = "wrr"
tags = ["v1"]

[daemon]
state_directory = "/run/lvsctl/state"
control_socket = "/run/lvsctl/control.sock"
audit_interval = "3s"
"""

MAP: Final = """\
    client ─────┐                        ┌───── r1 r2 r3: instances of reco, HTTP on port 80
    10.1.0.2    ├────── director ────────┤      10.2.0.11, .12, .13
                │   VIP 10.1.0.100:80    └───── consul 10.2.0.5
"""

LVSCTL: Final = (sys.executable, "-m", "lvsctl")
RATE: Final = 40.0  # requests a second, each a new connection


class Demo:
    """Prints the steps, the commands and what they say; counts what the client sees."""

    def __init__(self, made: Scene) -> None:
        self.scene = made
        self.file = made.directory / "lvsctl.toml"
        self.began = time.monotonic()
        self.steps = 0
        self.seen: Counter[str] = Counter()
        self.traffic = Traffic(made.client, VIP4, HTTP, rate=RATE)

    def step(self, title: str) -> None:
        """Begin a step."""
        self.steps += 1
        _say(f"\n── {self.steps}. {title} " + "─" * max(4, 96 - len(title)) + f" {self.seconds:3.0f} s")

    @property
    def seconds(self) -> float:
        """Since the demo began."""
        return time.monotonic() - self.began

    def run(self, *command: str, on: Host | None = None, show: Sequence[str] | None = None) -> str:
        """Run a command on the director (or `on` another host), show it and its output, and return that."""
        host = on or self.scene.director
        _say(f"\n{host.name}# {' '.join(show or command)}")
        with host.inside():
            ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        _say(_indent(ended.stdout + ended.stderr))
        return ended.stdout + ended.stderr

    def lvsctl(self, *arguments: str) -> str:
        """Run an lvsctl command on the director."""
        return self.run(*LVSCTL, *arguments, "-c", str(self.file), show=["lvsctl", *arguments])

    def daemon(self) -> Process:
        """Start `lvsctl run` on the director."""
        _say("\ndirector# lvsctl run &")
        return self.scene.director.start(
            [*LVSCTL, "run", "-c", str(self.file), "--log-format", "text"], environment={"PYTHONUNBUFFERED": "1"}
        )

    def shares(self) -> None:
        """Show how the client's requests were answered since the last time."""
        report = self.traffic.report()
        now = Counter(report.answers)
        new = now - self.seen
        self.seen = now
        shares = "   ".join(f"{name} {count}" for name, count in sorted(new.items())) or "none"
        _say(f"\nclient: answers since the last look: {shares}   (failed so far: {len(report.failures)})")

    def table(self) -> Counter[str]:
        """Return the weights in the kernel's table by real server, as ipvsadm says."""
        answer = self.scene.director.run(["ipvsadm", "-Sn"])
        rows = [line.split() for line in answer.stdout.splitlines() if line.startswith("-a")]
        return Counter({row[row.index("-r") + 1]: int(row[row.index("-w") + 1]) for row in rows})

    def wait_for_table(self, wanted: dict[str, int]) -> None:
        """Return when ipvsadm shows exactly these weights."""
        eventually(lambda: dict(self.table()) == wanted, within=30)

    def let_traffic_flow(self, requests: int = 60) -> None:
        """Return when the client has made so many more requests."""
        goal = self.traffic.report().requests + requests
        eventually(lambda: self.traffic.report().requests >= goal, within=30)


def story(demo: Demo) -> Report:
    """Tell the story; return what the client saw."""
    made = demo.scene
    r1, r2, r3 = made.real_servers
    demo.file.write_text(CONFIGURATION.format(consul=made.consul.url, vip=VIP4), encoding="utf-8")

    demo.step("Three instances in Consul, an empty table in the kernel")
    for server in made.real_servers:
        made.consul.register(_registration(server))
    made.consul.wait_for_health("reco", {f"reco-{each.name}": "passing" for each in made.real_servers})
    demo.run("cat", str(demo.file), show=["cat", "/etc/lvsctl/lvsctl.toml"])
    demo.run(*LVSCTL, "check", str(demo.file), show=["lvsctl", "check"])
    demo.run("ipvsadm", "-Ln")
    demo.lvsctl("diff")

    demo.step("The daemon starts; a client asks the virtual address, and will not stop")
    daemon = demo.daemon()
    demo.wait_for_table({_at(r1): 1, _at(r2): 1, _at(r3): 1})
    demo.traffic.start()
    demo.let_traffic_flow()
    demo.run("ipvsadm", "-Ln")
    demo.lvsctl("status")
    demo.shares()

    demo.step("r2 fails its health check: quiesced at once, deleted when its connections are gone")
    r2.http.healthy = False
    demo.wait_for_table({_at(r1): 1, _at(r3): 1})
    demo.shares()
    demo.let_traffic_flow()
    demo.lvsctl("status", "reco")
    demo.shares()

    demo.step("r2 is well again, and r1 gets three times the weight in Consul")
    r2.http.healthy = True
    made.consul.register(_registration(r1, weight=3))
    demo.wait_for_table({_at(r1): 3, _at(r2): 1, _at(r3): 1})
    demo.shares()
    demo.let_traffic_flow(100)
    demo.run("ipvsadm", "-Ln")
    demo.shares()

    demo.step("The daemon is killed, a hand slips on the table; nothing stops serving")
    daemon.kill()
    _say("\ndirector# kill -9 $(pidof lvsctl)")
    demo.run("ipvsadm", "-e", "-t", f"{VIP4}:80", "-r", _at(r3), "-m", "-w", "9")
    demo.lvsctl("diff")
    restarted = demo.daemon()
    demo.wait_for_table({_at(r1): 3, _at(r2): 1, _at(r3): 1})
    demo.lvsctl("diff")
    demo.shares()
    report = demo.traffic.stop()

    demo.step("What the two daemons logged")
    _say(_indent(daemon.output + restarted.output))
    restarted.stop()
    return report


def main() -> int:
    """Return 0 when the whole story came true and no request failed."""
    _say("lab: a kernel with IPVS, hosts in network namespaces, a real Consul\n")
    _say(MAP)
    with scene("masquerade") as made:
        demo = Demo(made)
        report = story(demo)
    _say(f"\n{report}")
    _say(f"the story took {demo.seconds:.0f} s")
    _say(f"demo: {report.requests} requests, {len(report.failures)} failed")
    return 1 if report.failures else 0


def _registration(server: RealServer, *, weight: int = 1) -> Registration:
    return Registration(
        service="reco",
        id=f"reco-{server.name}",
        address=server.host.ipv4,
        port=HTTP,
        tags=("v1",),
        weight=weight,
        check=Check.http(server.host.ipv4, HTTP),
    )


def _at(server: RealServer) -> str:
    return f"{server.host.ipv4}:{HTTP}"


def _indent(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.strip("\n").splitlines())


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())

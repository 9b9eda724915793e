"""What happens to instances, Consul and director, while each balancer has a virtual server with traffic on it.

All three have the same instances at the same time, so a story is the very same for each. The people in it know nothing
of the balancer: a deployment deregisters an instance, gives its connections `GRACE` seconds, restarts the program,
registers it again. A held connection counts as broken when it broke before its own program ended, which is
no fault of a balancer.
"""

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from typing import Final

import attrs

from tests.compare.balancers import BALANCERS, SERVICE, Balancer
from tests.kernel.director import Director
from tests.lab.consul import Check, ConsulAgent, Registration
from tests.lab.scene import Forwarding
from tests.lab.servers import HttpServer
from tests.lab.traffic import HeldConnections, Report, Traffic
from tests.lab.waiting import eventually

FIRST: Final = 4  # instances that serve when a story begins
GRACE: Final = 4.0  # seconds between a deregistration and the end of the program
PAUSE: Final = 2.0  # seconds in which nothing happens, for what was done to have its effect
HELD: Final = 8
PATIENCE: Final = 3.0  # seconds without an answer after which a connection is broken
RATE: Final = 25.0  # requests a second, to each


@attrs.frozen(kw_only=True)
class Seen:
    """What the client saw of a story."""

    report: Report
    held: int
    broken: int
    right: bool  # whether the table was as Consul has it at the end


class Client:
    """The client's connections to the virtual server of one balancer."""

    def __init__(self, balancer: Balancer) -> None:
        # Of its own: behind masquerade, two connections from one port of one client to the same program would be one.
        client = balancer.scene.lab.hosts[balancer.client]
        self.balancer = balancer
        self.held = HeldConnections(client, balancer.address, balancer.port, count=HELD)
        self.traffic = Traffic(client, balancer.address, balancer.port, rate=RATE, concurrency=200)
        self.broken: set[int] = set()  # held connections that broke before their program ended
        self.ended: set[int] = set()  # and those whose program ended

    def ends(self, name: str) -> None:
        """Have the held connections of this program be nobody's fault from now on."""
        on_it = {at for at, each in enumerate(self.held.names) if each == name}
        self.broken |= (on_it & self.held.broken.keys()) - self.ended
        self.ended |= on_it

    def seen(self, *, right: bool) -> Seen:
        """Return what it saw, after its last request."""
        self.broken |= self.held.broken.keys() - self.ended
        for at in sorted(self.broken):
            print(
                f"{self.balancer.name}: broken after {self.held.broken[at].after:.1f} s: {self.held.broken[at].reason}"
            )
        return Seen(report=self.traffic.stop(), held=HELD, broken=len(self.broken), right=right)


class Site:
    """The instances of a story, the balancers that all have them, and the client's connections to each."""

    def __init__(self, director: Director, forwarding: Forwarding, port: int) -> None:
        self.balancers = [each(director, forwarding, port) for each in BALANCERS]
        self.host, self.port = director.host, port
        self.consul: ConsulAgent = director.scene.consul
        self.programs = [HttpServer(each.host, ports=[port]) for each in director.scene.real_servers]
        self.registered: dict[str, int] = {}  # weights of those that should serve, by address and port
        self.clients = [Client(each) for each in self.balancers]

    def key(self, number: int) -> str:
        """Return the address and port of a program."""
        return f"{self.programs[number].host.ipv4}:{self.port}"

    def register(self, *numbers: int, weight: int = 10) -> None:
        """Register the instances with their health checks, by file: an agent that restarts knows them."""
        for number in numbers:
            self._file(number, weight)
            self.registered[self.key(number)] = weight
        self.consul.reload()

    def _file(self, number: int, weight: int) -> None:
        address = self.programs[number].host.ipv4
        made = Registration(
            service=SERVICE,
            id=f"{SERVICE}-{number}",
            address=address,
            port=self.port,
            weight=weight,
            check=Check.http(address, self.port),
        )
        path = self.consul.files / f"{made.id}.json"
        path.write_text(json.dumps({"service": made.definition()}), encoding="utf-8")

    def deregister(self, *numbers: int) -> None:
        """Take the instances out of Consul."""
        for number in numbers:
            (self.consul.files / f"{SERVICE}-{number}.json").unlink()
            del self.registered[self.key(number)]
        self.consul.reload()

    def stop(self, number: int) -> None:
        """End the program in order; its held connections end with it."""
        for client in self.clients:
            client.ends(self.programs[number].name)
        self.programs[number].stop(within=0.2)

    def run(self, story: "Callable[[Site], None]") -> dict[str, Seen]:
        """Return what the client saw of `story`, by balancer."""
        for each in self.programs[:FIRST]:
            each.start()
        self.register(*range(FIRST))
        self.consul.wait_for_health(SERVICE, {f"{SERVICE}-{number}": "passing" for number in range(FIRST)})
        try:
            with contextlib.ExitStack() as stack:
                for balancer in self.balancers:
                    balancer.start()
                    stack.callback(balancer.end)
                eventually(lambda: all(each.serving() == self.registered for each in self.balancers), within=30)
                for client in self.clients:
                    stack.enter_context(client.held)
                for client in self.clients:
                    stack.enter_context(client.traffic)
                time.sleep(PAUSE)
                story(self)
                time.sleep(PAUSE)
                right = [each.serving() == self.registered for each in self.balancers]
                time.sleep(PATIENCE)  # whoever is silent now is broken
                return {
                    client.balancer.name: client.seen(right=good)
                    for client, good in zip(self.clients, right, strict=True)
                }
        finally:
            self.clean()

    def clean(self) -> None:
        """Leave Consul, the hosts and the table as they were."""
        self.host.run(["ipvsadm", "-C"])
        for file in self.consul.files.glob(f"{SERVICE}-*.json"):
            file.unlink()
        self.consul.reload()
        eventually(lambda: self.consul.get(f"/v1/health/service/{SERVICE}") == [])
        for each in self.programs:
            each.kill()


def rolling_deploy(site: Site) -> None:
    """Restart every instance, one after the other."""
    for number in range(FIRST):
        site.deregister(number)
        time.sleep(GRACE)
        site.stop(number)
        site.programs[number].start()
        site.register(number)
        time.sleep(PAUSE)


def careless_deploy(site: Site) -> None:
    """Restart every instance without a deregistration: its check is the first to know."""
    for number in range(FIRST):
        site.programs[number].healthy = False
        time.sleep(GRACE)
        site.stop(number)
        site.programs[number].healthy = True
        site.programs[number].start()
        time.sleep(PAUSE)


def scale(site: Site, *, maintenance: bool = False, grace: float = GRACE) -> None:
    """Scale from four to eight, and to two; programs stop `grace` seconds after their instances were deregistered.

    With `maintenance` they are in that for as long before.
    """
    for each in site.programs[FIRST:]:
        each.start()
    site.register(*range(FIRST, 2 * FIRST))
    time.sleep(PAUSE)
    if maintenance:
        for number in range(2, 2 * FIRST):
            site.consul.maintain(f"{SERVICE}-{number}", enable=True)
        time.sleep(grace)
    site.deregister(*range(2, 2 * FIRST))
    time.sleep(grace)
    for number in range(2, 2 * FIRST):
        site.stop(number)


def scale_at_once(site: Site) -> None:
    """Scale from four to eight, and to two, and stop the programs at once, one after the other."""
    scale(site, grace=0.0)


def scale_in_order(site: Site) -> None:
    """Scale from four to eight, and to two, which are told first by maintenance mode."""
    scale(site, maintenance=True)


def grey_release(site: Site) -> None:
    """Give a new instance a small share, half, and everything, then take the old ones out."""
    new = FIRST
    site.programs[new].start()
    for weight in (1, 10, 40):
        site.register(new, weight=weight)
        time.sleep(PAUSE)
    site.deregister(*range(FIRST - 1))
    time.sleep(GRACE)
    for number in range(FIRST - 1):
        site.stop(number)


def mass_failure(site: Site) -> None:
    """Have every health page fail by mistake for some seconds, while every program serves."""
    for each in site.programs[:FIRST]:
        each.healthy = False
    time.sleep(GRACE)
    for each in site.programs[:FIRST]:
        each.healthy = True
    time.sleep(PAUSE)


def catalogue_lost(site: Site) -> None:
    """Have Consul come back with an empty catalogue, and the instances register again some seconds later."""
    files = {file: file.read_bytes() for file in site.consul.files.glob(f"{SERVICE}-*.json")}
    site.consul.kill()
    for file in files:
        file.unlink()
    shutil.rmtree(site.consul.files.parent / "data")
    site.consul.start()
    time.sleep(GRACE)
    for file, text in files.items():
        file.write_bytes(text)
    site.consul.reload()
    time.sleep(PAUSE)


def consul_restart(site: Site) -> None:
    """Restart the Consul agent, in order, with its data."""
    site.consul.restart()
    time.sleep(PAUSE)


def stopped_and_started(site: Site) -> None:
    """Stop the balancer as its service would, for an upgrade, and start it some seconds later."""
    for each in site.balancers:
        each.stop()
    time.sleep(GRACE)
    for each in site.balancers:
        each.start()
    time.sleep(PAUSE)


def killed_and_started(site: Site) -> None:
    """Kill the balancer, and start it some seconds later."""
    for each in site.balancers:
        each.kill()
    time.sleep(GRACE)
    for each in site.balancers:
        each.start()
    time.sleep(PAUSE)


def cleared_by_hand(site: Site) -> None:
    """Clear the table by mistake (`ipvsadm -C`), and wait longer than lvsctl's audit_interval of 10 s."""
    site.host.run(["ipvsadm", "-C"])
    time.sleep(12)


def edited_by_hand(site: Site) -> None:
    """Take a real server out by hand, forget it, and deploy another some seconds later."""
    for each in site.balancers:
        site.host.run(["ipvsadm", "-d", "-t", f"{each.address}:{site.port}", "-r", site.key(0)])
    time.sleep(12)
    site.register(1, weight=11)
    time.sleep(PAUSE)


STORIES: Final[Mapping[str, Callable[[Site], None]]] = {
    "rolling deploy of 4, deregistered first": rolling_deploy,
    "rolling deploy of 4, by their checks": careless_deploy,
    "scale 4 to 8 to 2": scale,
    "scale 4 to 8 to 2, without a grace": scale_at_once,
    "scale 4 to 8 to 2, maintenance first": scale_in_order,
    "grey release: weight 1, 10, 40, the old ones out": grey_release,
    "all 4 health pages fail by mistake, 4 s": mass_failure,
    "Consul's catalogue is empty, 4 s": catalogue_lost,
    "Consul's agent restarts": consul_restart,
    "balancer stopped, 4 s, started": stopped_and_started,
    "balancer killed, 4 s, started": killed_and_started,
    "ipvsadm -C": cleared_by_hand,
    "ipvsadm -d of one, then a change": edited_by_hand,
}

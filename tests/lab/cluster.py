"""Three Consul servers and two client agents on the lab's hosts: what a site has, in small.

The servers elect a leader among themselves. One client agent is the director's own, which lvsctl asks; the other is
that of the applications. Raft and serf need addresses that stay, and each agent has a host of its own for that.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import attrs

from tests.lab.consul import ConsulAgent
from tests.lab.scene import Scene, scene
from tests.lab.waiting import eventually

SERVERS: Final = 3
ELECTION: Final = 90.0  # seconds; 2 on an idle machine, but five agents share one processor with whatever else runs
LEAVING: Final = 20.0  # seconds for an agent that says farewell to the others


@attrs.frozen(kw_only=True)
class Cluster:
    """The agents of a site and the scene around them; `scene.consul` is the director's own agent."""

    scene: Scene
    servers: tuple[ConsulAgent, ...]
    applications: ConsulAgent

    @property
    def agent(self) -> ConsulAgent:
        """Return the director's own agent."""
        return self.scene.consul

    @property
    def agents(self) -> tuple[ConsulAgent, ...]:
        """Return all of them, servers first."""
        return (*self.servers, self.applications, self.agent)

    def leader(self) -> ConsulAgent:
        """Return the server that leads, by the word of those that run; AssertionError when none does."""
        running = [each for each in self.servers if each.running]
        words = [each.get("/v1/status/leader") for each in running]
        leading = [each for each in running if f"{each.address}:8300" in words]
        assert len(leading) == 1, f"the servers name {words} as leader"
        return leading[0]

    def wait_for_leader(self) -> ConsulAgent:
        """Return the server that leads, as soon as one does."""
        return eventually(self.leader, within=ELECTION)

    def mend(self) -> None:
        """Start what does not run, and return when all know a leader."""
        stopped = [each for each in self.agents if not each.running]
        for each in stopped:
            each.start(wait=False)
        for each in stopped:
            each.wait_until_ready(ELECTION)
        self.wait_for_leader()

    def restart(self, agent: ConsulAgent) -> None:
        """End `agent` in order, as an upgrade does, and start it; it knows a leader when this returns."""
        agent.leave(LEAVING)
        agent.start(wait=False)
        agent.wait_until_ready(ELECTION)


@contextmanager
def cluster(*, real_servers: int) -> Iterator[Cluster]:
    """Yield the usual scene with a cluster instead of the one agent; `mend` starts it."""
    with scene(real_servers=real_servers, consul=False) as made:
        addresses = [f"10.2.0.{5 + number}" for number in range(1, SERVERS + 1)]
        servers = tuple(
            ConsulAgent(
                made.lab.host(f"s{number}", back=[f"{address}/24"]), kind="server", join=addresses, servers=SERVERS
            )
            for number, address in enumerate(addresses, 1)
        )
        own = ConsulAgent(made.director, kind="client", join=addresses, address="10.2.0.1")
        applications = ConsulAgent(made.consul_host, kind="client", join=addresses, node="applications")
        here = Cluster(scene=attrs.evolve(made, consul=own), servers=servers, applications=applications)
        try:
            yield here
        finally:
            for each in here.agents:  # nobody is left to whom a farewell would matter, and each takes seconds
                if each.running:
                    each.kill()

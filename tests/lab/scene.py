"""The usual scene: a client, a director, real servers, a Consul, on two networks.

    client ──┐ front                    ┌── real servers r1, r2, …
             ├──────── director ────────┤
    (VIP) ───┘                     back └── consul

The client is on the front network, where the virtual addresses are; Consul and the real servers are on the back
network. With masquerade the director is the real servers' way out. With direct-route and tunnel the real servers hold
the virtual addresses and a leg of their own in the front network, by which they answer.

Numbers: front 10.1.0.0/24 and fd00:1::/64, back 10.2.0.0/24 and fd00:2::/64; the director is .1, the client .2,
Consul .5, real server N is .10+N; the virtual addresses are 10.1.0.100 and fd00:1::100.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import attrs

from tests.lab.consul import Check, ConsulAgent, Registration
from tests.lab.hosts import Host, Lab
from tests.lab.servers import HttpServer, UdpServer

Forwarding = Literal["masquerade", "direct-route", "tunnel"]
VIP4, VIP6 = "10.1.0.100", "fd00:1::100"
HTTP, UDP = 80, 53


@attrs.frozen(kw_only=True)
class RealServer:
    """A real server's host and the programs on it."""

    host: Host
    http: HttpServer
    udp: UdpServer

    @property
    def name(self) -> str:
        return self.host.name

    def registration(self, service: str = "reco", *, ipv6: bool = False, weight: int | None = None) -> Registration:
        """Return its registration as an instance of `service` with a TCP check."""
        address = self.host.ipv6 if ipv6 else self.host.ipv4
        return Registration(
            service=service,
            id=f"{service}-{self.name}",
            address=address,
            port=HTTP,
            weight=weight,
            check=Check.tcp(address, HTTP),
        )


@attrs.frozen(kw_only=True)
class Scene:
    """Handles to everything in the scene."""

    lab: Lab
    forwarding: Forwarding
    director: Host
    client: Host
    real_servers: tuple[RealServer, ...]
    consul_host: Host
    consul: ConsulAgent  # started only when the scene was asked for it

    @property
    def directory(self) -> Path:
        """A directory in memory for the test's files."""
        return self.lab.directory


@contextmanager
def scene(forwarding: Forwarding = "masquerade", *, real_servers: int = 3, consul: bool = True) -> Iterator[Scene]:
    """Yield the scene with its servers started, and remove it afterwards.

    Without `consul` the agent is there but not started: `scene.consul.start()`.
    """
    with tempfile.TemporaryDirectory(prefix="lab-") as directory, Lab(Path(directory)) as lab:
        director = _director(lab, forwarding)
        client = lab.host("client", front=["10.1.0.2/24", "fd00:1::2/64"])
        consul_host = lab.host("consul", back=["10.2.0.5/24", "fd00:2::5/64"])
        agent = ConsulAgent(consul_host)
        if consul:
            agent.start(wait=False)  # it needs some seconds, in which the rest is made
        servers = []
        for number in range(1, real_servers + 1):
            host = _real_server(lab, forwarding, number)
            server = RealServer(host=host, http=HttpServer(host, ports=[HTTP]), udp=UdpServer(host, ports=[UDP]))
            server.http.start()
            server.udp.start()
            servers.append(server)
        if consul:
            agent.wait_until_ready()
        yield Scene(
            lab=lab,
            forwarding=forwarding,
            director=director,
            client=client,
            real_servers=tuple(servers),
            consul_host=consul_host,
            consul=agent,
        )


def _director(lab: Lab, forwarding: Forwarding) -> Host:
    host = lab.host("director", front=["10.1.0.1/24", "fd00:1::1/64"], back=["10.2.0.1/24", "fd00:2::1/64"])
    host.add_address("front", f"{VIP4}/32", f"{VIP6}/128")
    if forwarding == "masquerade":
        host.sysctl({"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1})
    return host


def _real_server(lab: Lab, forwarding: Forwarding, number: int) -> Host:
    back = [f"10.2.0.{10 + number}/24", f"fd00:2::{10 + number}/64"]
    front = [f"10.1.0.{10 + number}/24", f"fd00:1::{10 + number}/64"]
    name = f"r{number}"
    if forwarding == "masquerade":
        host = lab.host(name, back=back)
        host.ip("route add default via 10.2.0.1", "route add default via fd00:2::1")
        return host
    host = lab.host(name, back=back, front=front)
    # Requests come in on one network and answers leave on the other; nobody but the director answers for the VIP.
    host.sysctl(
        {
            **{f"net.ipv4.conf.{each}.rp_filter": 0 for each in ("all", "back", "front")},
            "net.ipv4.conf.all.arp_ignore": 1,
            "net.ipv4.conf.all.arp_announce": 2,
        }
    )
    if forwarding == "direct-route":
        host.add_address("lo", f"{VIP4}/32", f"{VIP6}/128")
        return host
    host.run(["modprobe", "-a", "ipip", "ip6_tunnel"])
    host.ip("link set tunl0 up", "link set ip6tnl0 up")
    host.sysctl({"net.ipv4.conf.tunl0.rp_filter": 0})
    host.add_address("tunl0", f"{VIP4}/32")
    host.add_address("ip6tnl0", f"{VIP6}/128")
    return host

"""What the measured tables contain: the same virtual servers and real servers for us and for every peer.

Pure. A `run` has addresses of its own, so that nothing remembered from an earlier run is of use to a later one. The
formulas are written a second time in baseline.c, in C; `works` checks that each peer's table is the one wanted.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address

import attrs

from netlink import (
    AddRealServer,
    AddVirtualServer,
    Protocol,
    RealServer,
    RealServerKey,
    Request,
    SetRealServer,
    Table,
    TableEntry,
    VirtualServer,
    VirtualServerKey,
)

SCHEDULER = "wlc"  # everybody's default
RUNS = 64  # a run counts modulo this: six bits of the addresses


@attrs.frozen
class Shape:
    """So many virtual servers with so many real servers each; at most 65,535 of either in all."""

    virtual_servers: int
    real_servers: int  # of each

    def __str__(self) -> str:
        """Return `1,000 x 10`."""
        return f"{self.virtual_servers:,} x {self.real_servers:,}"

    @property
    def rules(self) -> int:
        """Return how many requests create it."""
        return self.virtual_servers * (1 + self.real_servers)

    def keys(self, run: int) -> Iterator[VirtualServerKey]:
        """Yield the virtual servers of `run`."""
        for index in range(self.virtual_servers):
            address = IPv4Address((10 << 24) + ((64 + run % RUNS) << 16) + index + 1)
            yield VirtualServerKey.by_address(Protocol.TCP, address, 80 + index % 7)

    def servers(self, run: int, virtual_server: int, shift: int = 0) -> list[RealServer]:
        """Return the real servers of the virtual server with this index; `shift` is added to every weight."""
        first = virtual_server * self.real_servers
        return [
            RealServer(
                key=RealServerKey(
                    address=IPv4Address((10 << 24) + ((128 + run % RUNS) << 16) + index + 1), port=8000 + index % 1000
                ),
                weight=1 + index % 100 + shift,
            )
            for index in range(first, first + self.real_servers)
        ]

    def additions(self, run: int) -> list[Request]:
        """Return what creates the table, from values that nobody saw before."""
        requests: list[Request] = []
        for index, key in enumerate(self.keys(run)):
            requests.append(AddVirtualServer(virtual_server=VirtualServer(key=key, scheduler=SCHEDULER)))
            requests += [AddRealServer(virtual_server=key, real_server=each) for each in self.servers(run, index)]
        return requests

    def changes(self, run: int, shift: int) -> list[Request]:
        """Return what changes every weight."""
        return [
            SetRealServer(virtual_server=key, real_server=each)
            for index, key in enumerate(self.keys(run))
            for each in self.servers(run, index, shift)
        ]

    def table(self, run: int, shift: int = 0) -> Table:
        """Return the table as it should be read back."""
        return {
            key: TableEntry(
                virtual_server=VirtualServer(key=key, scheduler=SCHEDULER),
                real_servers={each.key: each for each in self.servers(run, index, shift)},
            )
            for index, key in enumerate(self.keys(run))
        }

    def rules_text(self, run: int) -> str:
        """Return the table as `ipvsadm -R` reads it."""
        lines: list[str] = []
        for index, key in enumerate(self.keys(run)):
            lines.append(f"-A -t {key.address}:{key.port} -s {SCHEDULER}")
            lines += [
                f"-a -t {key.address}:{key.port} -r {each.key.address}:{each.key.port} -m -w {each.weight}"
                for each in self.servers(run, index)
            ]
        return "\n".join(lines) + "\n"

    def keepalived_text(self, run: int, shift: int = 0) -> str:
        """Return the table as keepalived's configuration; without checkers a real server is up at once."""
        lines = ["global_defs {", "}"]
        for index, key in enumerate(self.keys(run)):
            lines += [f"virtual_server {key.address} {key.port} {{", f"    lb_algo {SCHEDULER}", "    lb_kind NAT"]
            lines.append("    protocol TCP")
            for each in self.servers(run, index, shift):
                lines.append(f"    real_server {each.key.address} {each.key.port} {{")
                lines += [f"        weight {each.weight}", "    }"]
            lines.append("}")
        return "\n".join(lines) + "\n"

"""A real Consul on 127.0.0.1 whose HTTPS listener wants client certificates, for as long as a test needs it."""

import asyncio
import contextlib
import json
import shutil
import socket
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Self

import attrs
import pytest

from lvsctl.config import ConsulConfig
from lvsctl.consul.pool import Response
from lvsctl.consul.transport import Transport
from lvsctl.errors import ConsulError
from tests.consul.certificates import Certificates
from tests.lab.consul import no_grpc, program

START = 30.0  # seconds a Consul may take until it leads
NODE = {"Node": "elsewhere", "Address": "10.1.2.3"}
CONNECTED = "01"  # as /proc/net/tcp writes ESTABLISHED


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody has."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@attrs.define
class Agent:
    """The Consul, and a way to change its catalogue over HTTP/2."""

    config: ConsulConfig
    port: int
    directory: Path
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it; it leads when this returns."""
        with (self.directory / "consul.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(program(), "agent", f"-config-file={self.directory / 'consul.json'}"),
                stdout=log,
                stderr=log,
                env={"GOMAXPROCS": "1"},
            )
        await _wait_for_leader(self.config, self.process, self.directory / "consul.log")

    async def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
            self.process = None

    async def put(self, path: str, body: object) -> None:
        """Change something; raises ConsulError when Consul did not."""

        def check(response: Response) -> None:
            if response.status != 200:
                raise ConsulError(response.body.decode())

        transport = Transport(self.config)  # its own, so that it leaves no connection to be counted
        try:
            await transport.put(check, path, data=json.dumps(body))
        finally:
            await transport.close()

    async def register(self, *services: str, port: int = 80) -> None:
        """Have one instance of each service on a node without an agent."""
        await self.put("/v1/catalog/register", NODE)
        for start in range(0, len(services), 64):  # operations that a transaction may have
            operations = [
                {
                    "Service": {
                        "Verb": "set",
                        "Node": NODE["Node"],
                        "Service": {"ID": name, "Service": name, "Port": port},
                    }
                }
                for name in services[start : start + 64]
            ]
            await self.put("/v1/txn", operations)

    async def check_node(self, status: str) -> None:
        """Give the node's check a status, which changes every instance there."""
        check = {"CheckID": "node", "Name": "node", "Status": status}
        await self.put("/v1/catalog/register", {**NODE, "SkipNodeUpdate": True, "Check": check})

    def connections(self) -> int:
        """Return how many connections to the listener there are, as the kernel counts them."""
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return sum(fields[2] == f"0100007F:{self.port:04X}" and fields[3] == CONNECTED for fields in lines)

    @classmethod
    @contextlib.asynccontextmanager
    async def running(
        cls, directory: Path, certificates: Certificates, *, settings: Mapping[str, object] | None = None
    ) -> AsyncIterator[Self]:
        """Run a server that leads itself while the context lasts; with these `settings` besides its own."""
        if shutil.which(program()) is None:
            pytest.skip(f"no Consul at {program()}: make install, or LVSCTL_CONSUL=/path/to/consul")
        https, serf, server = free_ports(3)
        own = {
            "server": True,
            "bootstrap_expect": 1,
            "node_name": "consul",
            "data_dir": str(directory / "data"),
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "ports": {
                "https": https,
                "serf_lan": serf,
                "server": server,
                "serf_wan": -1,
                "http": -1,
                "dns": -1,
                **no_grpc(),
            },
            "ca_file": str(certificates.ca),
            "cert_file": str(certificates.server_certificate),
            "key_file": str(certificates.server_key),
            "verify_incoming_https": True,
            "disable_update_check": True,
            "performance": {"raft_multiplier": 1},
        }
        (directory / "consul.json").write_text(json.dumps({**own, **(settings or {})}))
        config = ConsulConfig(
            address=f"https://127.0.0.1:{https}",
            ca_file=certificates.ca,
            certificate_file=certificates.client,
            key_file=certificates.client_key,
        )
        agent = cls(config=config, port=https, directory=directory)
        try:
            await agent.start()
            yield agent
        finally:
            await agent.kill()


async def _wait_for_leader(config: ConsulConfig, process: asyncio.subprocess.Process, log: Path) -> None:
    """Return when Consul leads."""
    transport = Transport(config)
    try:
        async with asyncio.timeout(START):
            while True:
                assert process.returncode is None, f"consul ended: {log.read_text()[-3000:]}"  # noqa: ASYNC240  # once
                with contextlib.suppress(ConsulError):
                    if await transport.get(lambda response: len(response.body) > 2, "/v1/status/leader"):
                        return
                await asyncio.sleep(0.1)
    finally:
        await transport.close()

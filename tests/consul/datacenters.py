"""Two real Consul datacenters on 127.0.0.1, one server each, joined over the WAN."""

import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from lvsctl.config import ConsulConfig
from lvsctl.consul.pool import Response
from lvsctl.consul.transport import Transport
from lvsctl.errors import ConsulError
from tests.consul.agent import free_ports
from tests.lab.consul import no_grpc, program

START = 60.0  # seconds that both may take until each leads and knows the other
PORTS = ("http", "serf_lan", "serf_wan", "server")


@attrs.define
class Datacenter:
    """One of them, and a way to change its catalogue."""

    name: str
    ports: dict[str, int]
    directory: Path
    process: asyncio.subprocess.Process | None = None

    @property
    def address(self) -> str:
        """Return where its server answers."""
        return f"http://127.0.0.1:{self.ports['http']}"

    async def start(self, other: "Datacenter", limit: int) -> None:
        """Start its server; `limit` is how many connections it takes from one address."""
        consul = shutil.which(program())
        if consul is None:
            pytest.skip(f"no Consul at {program()}: make install, or LVSCTL_CONSUL=/path/to/consul")
        settings = {
            "server": True,
            "bootstrap_expect": 1,
            "datacenter": self.name,
            "node_name": f"server-{self.name}",
            "data_dir": str(self.directory / f"data-{self.name}"),
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "ports": {**self.ports, "https": -1, "dns": -1, **no_grpc()},
            "retry_join_wan": [f"127.0.0.1:{other.ports['serf_wan']}"],
            "retry_interval_wan": "1s",
            "limits": {"http_max_conns_per_client": limit},
            "disable_update_check": True,
            "performance": {"raft_multiplier": 1},
        }
        file = self.directory / f"{self.name}.json"
        file.write_text(json.dumps(settings))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CONSUL_")}
        with (self.directory / f"{self.name}.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(consul, "agent", f"-config-file={file}"),
                stdout=log,
                stderr=log,
                env={**environment, "GOMAXPROCS": "1"},
            )

    async def kill(self) -> None:
        """End its server at once."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
            self.process = None

    async def nodes_of(self, datacenter: str) -> int:
        """Return how many nodes of `datacenter` it knows; raises ConsulError when it cannot say."""
        return len(await self._request("GET", "/v1/catalog/nodes", params=[("dc", datacenter)]))

    async def _request(
        self, method: str, path: str, body: object = None, params: list[tuple[str, str]] | None = None
    ) -> Any:  # noqa: ANN401  Consul's JSON
        def decoded(response: Response) -> Any:  # noqa: ANN401  the same
            if response.status != 200:
                raise ConsulError(response.body.decode())
            return json.loads(response.body)

        transport = Transport(ConsulConfig(address=self.address))
        try:
            if method == "GET":
                return await transport.get(decoded, path, params)
            return await transport.put(decoded, path, params, data=json.dumps(body))
        finally:
            await transport.close()

    async def have(self, service: str, **instances: str) -> None:
        """Have these instances, `a1="passing"` on node a1; the number is the last of 10.0.0.0's addresses."""
        for name, status in instances.items():
            await self._request(
                "PUT",
                "/v1/catalog/register",
                {
                    "Node": name,
                    "Address": f"10.0.0.{name[1:]}",
                    "Service": {"Service": service, "ID": f"{service}-{name}", "Port": 8080},
                    "Check": {
                        "CheckID": f"{service}-{name}",
                        "Name": "HTTP",
                        "ServiceID": f"{service}-{name}",
                        "Status": status,
                    },
                },
            )


@contextlib.asynccontextmanager
async def two_datacenters(directory: Path, *, limit: int = 200) -> AsyncIterator[tuple[Datacenter, Datacenter]]:
    """Run dc1 and dc2 while the context lasts; each can be asked about the other when it is entered."""
    ports = free_ports(2 * len(PORTS))
    one = Datacenter(name="dc1", ports=dict(zip(PORTS, ports[:4], strict=True)), directory=directory)
    two = Datacenter(name="dc2", ports=dict(zip(PORTS, ports[4:], strict=True)), directory=directory)
    try:
        await one.start(two, limit)
        await two.start(one, limit)
        await joined(one, two)
        await joined(two, one)
        yield one, two
    finally:
        await one.kill()
        await two.kill()


async def joined(asked: Datacenter, other: Datacenter) -> None:
    """Return when `asked` answers about `other`, whose server leads."""
    async with asyncio.timeout(START):
        while True:
            with contextlib.suppress(ConsulError):
                if await asked.nodes_of(other.name):
                    return
            assert asked.process is not None
            assert asked.process.returncode is None, (asked.directory / f"{asked.name}.log").read_text()[-3000:]
            await asyncio.sleep(0.2)

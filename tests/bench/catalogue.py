"""A real Consul with any number of Consul services, for measuring what a daemon makes of them.

One server that leads itself, on 127.0.0.1, with the limits that Consul has by default. Instances are on nodes without
agents, so nothing but the one who measures changes them.
"""

import contextlib
import http.client
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self

import attrs

from tests.consul.agent import free_ports
from tests.consul.certificates import Certificates
from tests.lab.consul import no_grpc, program
from tests.lab.waiting import eventually

OPERATIONS: Final = 64  # that a transaction may have
START: Final = 60.0  # seconds a Consul may take until it leads
DEADLINE: Final = 60.0  # seconds for one answer
REAL: Final = "10.200.0"  # the addresses of the nodes begin so


@attrs.define(kw_only=True)
class Catalogue:
    """The Consul; `names` are its Consul services, each with an instance on every one of `nodes`."""

    port: int
    https: int
    certificates: Certificates
    names: Sequence[str] = ()
    nodes: Sequence[str] = ()
    _connection: http.client.HTTPConnection = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Have one connection for all that is written."""
        self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)

    def put(self, path: str, body: object) -> None:
        """Change something; AssertionError where Consul did not."""
        self._connection.request("PUT", path, json.dumps(body))
        answer = self._connection.getresponse()
        text = answer.read()
        assert answer.status == 200, (answer.status, text[:500])

    def fill(self, names: Sequence[str], instances: int) -> None:
        """Register so many instances of each name, all passing, on as many nodes."""
        self.names, self.nodes = names, [f"node-{number}" for number in range(instances)]
        operations: list[dict[str, Any]] = [
            {"Node": {"Verb": "set", "Node": {"Node": node, "Address": f"{REAL}.{number + 1}"}}}
            for number, node in enumerate(self.nodes)
        ]
        for index in range(len(names)):
            for number in range(instances):
                operations += self._instance(index, number)
        for start in range(0, len(operations), OPERATIONS):
            self.put("/v1/txn", operations[start : start + OPERATIONS])

    def _instance(self, index: int, number: int) -> list[dict[str, Any]]:
        name, node = self.names[index], self.nodes[number]
        service = {"ID": f"{name}-{number}", "Service": name, "Port": 1024 + index}
        return [
            {"Service": {"Verb": "set", "Node": node, "Service": service}},
            {"Check": {"Verb": "set", "Check": self._check(index, number, "passing")}},
        ]

    def _check(self, index: int, number: int, status: str) -> dict[str, Any]:
        service = f"{self.names[index]}-{number}"
        return {
            "Node": self.nodes[number],
            "CheckID": f"check-{service}",
            "Name": "the program answers",
            "Status": status,
            "ServiceID": service,
            "ServiceName": self.names[index],
        }

    def flip(self, index: int, number: int, *, passing: bool) -> None:
        """Have the check of one instance pass, or fail."""
        check = self._check(index, number, "passing" if passing else "critical")
        self.put("/v1/txn", [{"Check": {"Verb": "set", "Check": check}}])

    @classmethod
    @contextlib.contextmanager
    def running(cls, directory: Path) -> Iterator[Self]:
        """Run a Consul while the context lasts, with listeners for http and https."""
        consul = shutil.which(program())
        assert consul is not None, f"no Consul at {program()}"
        plain, https, serf, server = free_ports(4)
        certificates = Certificates.make(directory)
        settings = {
            "server": True,
            "bootstrap_expect": 1,
            "node_name": "consul",
            "data_dir": str(directory / "data"),
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "ports": {
                "http": plain,
                "https": https,
                "serf_lan": serf,
                "server": server,
                "serf_wan": -1,
                "dns": -1,
                **no_grpc(),
            },
            "ca_file": str(certificates.ca),
            "cert_file": str(certificates.server_certificate),
            "key_file": str(certificates.server_key),
            "disable_update_check": True,
            "log_level": "err",
        }
        (directory / "consul.json").write_text(json.dumps(settings), "utf-8")
        with (
            (directory / "consul.log").open("wb") as log,
            subprocess.Popen(
                [consul, "agent", f"-config-file={directory / 'consul.json'}"],
                stdout=log,
                stderr=log,
                env=os.environ | {"GOMAXPROCS": "1"},
            ) as process,
        ):
            try:
                made = cls(port=plain, https=https, certificates=certificates)
                eventually(made.leads, within=START, every=0.2)
                with contextlib.closing(made._connection):  # its own
                    yield made
            finally:
                process.kill()

    def leads(self) -> bool:
        """Tell whether the Consul leads itself and knows itself."""
        for path, least in (("/v1/status/leader", 5), ("/v1/catalog/nodes", 5)):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
            with contextlib.closing(connection):
                connection.request("GET", path)
                if len(connection.getresponse().read()) < least:
                    return False
        return True

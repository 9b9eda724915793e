"""Real Consul agents on the lab's hosts.

An agent is `dev` (a server alone whose catalogue is in memory), `server` (with a catalogue that survives a
restart) or `client` (joined to servers). It runs the checks itself, from its own host, so that health is Consul's own
verdict. Works with any Consul from 1.8 on. The HTTP API is at `url` and, on the agent's host, at 127.0.0.1:8500.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote

import attrs

from tests.lab.hosts import Host, Process
from tests.lab.kernels import STATE
from tests.lab.waiting import eventually

Kind = Literal["dev", "server", "client"]
PORT = 8500


def program() -> str:
    """Return the Consul to run: LVSCTL_CONSUL, else the one on PATH, else the one that install.sh unpacked."""
    return os.environ.get("LVSCTL_CONSUL") or shutil.which("consul") or str(STATE / "consul/usr/bin/consul")


def version() -> tuple[int, ...]:
    """Return the version of that program, (1, 8, 7)."""
    told = subprocess.run([program(), "version"], capture_output=True, text=True, check=True).stdout
    return tuple(int(number) for number in re.findall(r"[0-9]+", told.splitlines()[0])[:3])


def no_grpc() -> dict[str, int]:
    """Return the ports that keep a server from 8502 and 8503, which two of them would have by default."""
    return {"grpc": -1, **({"grpc_tls": -1} if version() >= (1, 14) else {})}


@attrs.frozen(kw_only=True)
class Check:
    """A check of an instance, as Consul's own definition of it."""

    definition: Mapping[str, Any]

    @classmethod
    def tcp(cls, address: str, port: int, *, interval: str = "200ms", timeout: str = "1s") -> "Check":
        """Return a check that connects."""
        target = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        return cls(definition={"tcp": target, "interval": interval, "timeout": timeout, "status": "passing"})

    @classmethod
    def http(cls, address: str, port: int, *, path: str = "/health", interval: str = "200ms") -> "Check":
        """Return a check that asks for `path`."""
        target = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        return cls(
            definition={"http": f"http://{target}{path}", "interval": interval, "timeout": "1s", "status": "passing"}
        )

    @classmethod
    def ttl(cls, ttl: str = "10m", *, status: str = "passing") -> "Check":
        """Return a check that the test itself answers, with `ConsulAgent.update_ttl`."""
        return cls(definition={"ttl": ttl, "status": status})


@attrs.frozen(kw_only=True)
class Registration:
    """One instance to register with an agent."""

    service: str
    id: str
    port: int
    address: str = ""  # empty: the node's
    tags: tuple[str, ...] = ()
    meta: Mapping[str, str] = attrs.field(factory=dict)
    weight: int | None = None  # Weights.Passing; None: Consul's default, 1
    check: Check | None = None

    def definition(self) -> dict[str, Any]:
        """Return it as in a configuration file; the HTTP API takes the same words."""
        made: dict[str, Any] = {"name": self.service, "id": self.id, "port": self.port, "tags": list(self.tags)}
        if self.address:
            made["address"] = self.address
        if self.meta:
            made["meta"] = dict(self.meta)
        if self.weight is not None:
            made["weights"] = {"passing": self.weight, "warning": 1}
        if self.check is not None:
            made["check"] = dict(self.check.definition)
        return made


class ConsulAgent:
    """A Consul agent on a host, at its first address unless told another."""

    def __init__(
        self,
        host: Host,
        *,
        kind: Kind = "dev",
        join: Sequence[str] = (),
        servers: int = 1,
        node: str = "",
        address: str = "",
    ) -> None:
        self.host = host
        self.node = node or host.name
        self.address = address or host.ipv4  # where other agents reach it
        self.url = f"http://{self.address}:{PORT}"
        self.program = program()
        directory = host.lab.directory / f"consul-{self.node}"
        self.files = directory / "config"  # `service` stanzas, one file each
        self.files.mkdir(parents=True)
        self._command = [
            *(self.program, "agent", f"-node={self.node}", f"-bind={self.address}", "-client=0.0.0.0"),
            # Without it a `dev` agent forgets at every reload what came through the API.
            *(f"-data-dir={directory / 'data'}", f"-config-dir={self.files}", "-log-level=info"),
        ]
        base: dict[str, Any] = {"disable_update_check": True, "performance": {"raft_multiplier": 1}}
        match kind:
            case "dev":
                self._command.append("-dev")
            case "server":
                self._command += ["-server", f"-bootstrap-expect={servers}"]
            case "client":
                pass
        if join:
            base["retry_join"] = list(join)
            base["retry_interval"] = "1s"
        (self.files / "agent.json").write_text(json.dumps(base), encoding="utf-8")
        self.process: Process | None = None

    def start(self, *, wait: bool = True) -> None:
        """Start the agent; it knows a leader and is in the catalogue when this returns, unless `wait` is False."""
        self.process = self.host.start(self._command, environment={"GOMAXPROCS": "1", "CONSUL_HTTP_ADDR": ""})
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self, within: float = 30.0) -> None:
        """Return when the agent knows a leader and the catalogue knows the agent."""

        def ready() -> bool:
            assert self.process is not None
            if not self.process.running:
                raise ConsulEndedError(f"consul on {self.host.name} ended:\n{self.process.output[-3000:]}")
            return bool(self.get("/v1/status/leader")) and self.node in {
                each["Node"] for each in self.get("/v1/catalog/nodes")
            }

        eventually(ready, within=within, every=0.1)

    def stop(self) -> None:
        """End it in order (SIGTERM)."""
        self._running().stop()

    def leave(self, within: float) -> None:
        """End it in order, however long it takes: a client agent first tells the others (SIGTERM)."""
        process = self._running()
        process.signal(signal.SIGTERM)
        process.wait(within)

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        self._running().kill()

    def freeze(self) -> None:
        """Stop it where it is: connections stay open and nothing answers."""
        self._running().signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on after `freeze`."""
        self._running().signal(signal.SIGCONT)

    def restart(self) -> None:
        """End it in order and start it."""
        self.stop()
        self.start()

    def reload(self, *, wait: bool = True) -> None:
        """Have it read its files again; it has when this returns, unless `wait` is False (SIGHUP).

        Meanwhile the agent knows no instance, and a deregistration is refused ("Unknown service") for one that comes
        back from its own file a moment later.
        """
        if wait:
            self.put("/v1/agent/reload")
        else:
            self._running().signal(signal.SIGHUP)

    @property
    def running(self) -> bool:
        """Tell whether it runs."""
        return self.process is not None and self.process.running

    def _running(self) -> Process:
        assert self.process is not None, f"the Consul agent on {self.host.name} was not started"
        return self.process

    # Registration by file

    def write(self, registration: Registration, *, wait: bool = True) -> None:
        """Put the instance's file in place and reload; without `wait` an agent that cannot answer is told, too."""
        path = self.files / f"{registration.id}.json"
        path.write_text(json.dumps({"service": registration.definition()}), encoding="utf-8")
        self.reload(wait=wait)

    def remove(self, instance: str) -> None:
        """Remove the file of the instance with this id and reload."""
        (self.files / f"{instance}.json").unlink()
        self.reload()

    # The HTTP API

    def request(self, method: str, path: str, body: object = None, *, within: float = 10.0) -> Any:  # noqa: ANN401 - JSON
        """Return the decoded answer of the agent; OSError (HTTPError too) when there is none or it is not a 200."""
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(f"http://127.0.0.1:{PORT}{path}", data=data, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with self.host.inside(), opener.open(asked, timeout=within) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            error.close()  # it holds the connection
            raise
        return json.loads(text) if text.strip() else None

    def get(self, path: str) -> Any:  # noqa: ANN401 - Consul's JSON
        """Return the decoded answer to GET."""
        return self.request("GET", path)

    def put(self, path: str, body: object = None) -> Any:  # noqa: ANN401 - Consul's JSON
        """Return the decoded answer to PUT."""
        return self.request("PUT", path, body)

    def register(self, registration: Registration) -> None:
        """Register the instance, or replace it."""
        self.put("/v1/agent/service/register?replace-existing-checks=true", registration.definition())

    def deregister(self, instance: str) -> None:
        """Remove the instance with this id."""
        self.put(f"/v1/agent/service/deregister/{quote(instance, safe='')}")

    def maintain(self, instance: str, *, enable: bool, reason: str = "lab") -> None:
        """Switch maintenance mode of an instance."""
        flags = f"enable={str(enable).lower()}&reason={quote(reason)}"
        self.put(f"/v1/agent/service/maintenance/{quote(instance, safe='')}?{flags}")

    def maintain_node(self, *, enable: bool, reason: str = "lab") -> None:
        """Switch maintenance mode of the whole node."""
        self.put(f"/v1/agent/maintenance?enable={str(enable).lower()}&reason={quote(reason)}")

    def update_ttl(self, instance: str, status: Literal["pass", "warn", "fail"], note: str = "") -> None:
        """Answer the TTL check of an instance."""
        self.put(f"/v1/agent/check/{status}/service:{quote(instance, safe='')}?note={quote(note)}")

    def health(self, service: str) -> dict[str, str]:
        """Return the worst check status by instance id: passing, warning or critical."""
        order = ("passing", "warning", "critical")
        return {
            entry["Service"]["ID"]: max(
                (check["Status"] for check in entry["Checks"]), key=order.index, default="passing"
            )
            for entry in self.get(f"/v1/health/service/{quote(service, safe='')}")
        }

    def wait_for_health(self, service: str, wanted: Mapping[str, str], within: float = 10.0) -> None:
        """Return when `health(service)` equals `wanted`."""

        def equal() -> bool:
            seen = self.health(service)
            assert seen == wanted, f"Consul says {seen}, wanted {wanted}"
            return True

        eventually(equal, within=within)


class ConsulEndedError(Exception):
    """The agent ended by itself; the text is its last words."""

"""The daemon under test on the director's host, and ipvsadm as the witness of what it did.

`Director` writes the configuration file, starts the real `lvsctl run` as a process, gives its log as events, runs
other lvsctl commands beside it, and reads the kernel's table with ipvsadm, never with lvsctl's own code.
Starting a Python process takes seconds in User-Mode Linux, so a daemon may live through many tests:
`clean` gives it nothing to do and forgets what was in its log.
"""

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import attrs

from lvsctl import control
from lvsctl.core.reload import Became, Order
from lvsctl.core.status import Status, VirtualServerStatus
from tests.lab.consul import Registration
from tests.lab.hosts import Process
from tests.lab.scene import Scene
from tests.lab.servers import HttpServer
from tests.lab.waiting import eventually

Event = dict[str, Any]
Table = Mapping[str, "VirtualServerLine"]
"""What `ipvsadm -Sn` prints, by virtual server: `-t 10.1.0.100:80`, `-u [fd00:1::100]:53`, `-f 7`, `-f 7 -6`."""

START: Final = 60.0  # seconds; a start takes two on a quiet machine, and ten were seen on a busy one
CHANGE: Final = 5.0  # seconds for a change to come through Consul and the daemon into the kernel, by default
AUDITED: Final = 'audit_interval = "1s"'
IDLE: Final = '[virtual_server.idle]\naddress = "10.1.0.99:9"\n'  # a file without virtual servers is refused


@attrs.frozen(kw_only=True)
class VirtualServerLine:
    """One virtual server as ipvsadm prints it."""

    options: str  # `-s wrr -p 300`
    real_servers: Mapping[str, str]  # options by address and port: `-m -w 1`

    @property
    def weights(self) -> Mapping[str, int]:
        """Return the weight of each real server by address and port."""
        return {key: int(options.split("-w ")[1].split()[0]) for key, options in self.real_servers.items()}


@attrs.frozen(kw_only=True)
class Connections:
    """What ipvsadm counts at one real server."""

    active: int
    inactive: int


class Director:
    """The daemon, its file and its log, and the table it works on."""

    def __init__(self, scene: Scene, *, name: str = "lvsctl") -> None:
        self.scene = scene
        self.host = scene.director
        directory = scene.directory / name
        directory.mkdir()
        self.file = directory / "lvsctl.toml"
        self.state = directory / "state"
        self.socket = directory / "control.sock"
        self.process: Process | None = None
        # Of a virtual server that this test alone has, for masquerade: the kernel remembers connections of a deleted
        # virtual server for two minutes, and counts them again when one with the same address and port appears.
        self.port = 8001
        self._programs: list[HttpServer] = []
        self._mark = 0  # bytes of the log that belong to earlier tests

    # The daemon

    @property
    def running(self) -> bool:
        """Tell whether the daemon runs."""
        return self.process is not None and self.process.running

    def write(self, text: str, *, vip: str = "", head: str = "", daemon: str = AUDITED, consul: str = "") -> None:
        """Write the file: `text` has the virtual servers and [defaults]; the rest is this scene's.

        `vip` is the interface of [vip], none when empty; `head` takes more tables, such as [safety], `daemon` and
        `consul` more lines of those.
        """
        tables = [
            f'[consul]\naddress = "{self.scene.consul.url}"\n{consul}',
            f'[daemon]\nstate_directory = "{self.state}"\ncontrol_socket = "{self.socket}"\n{daemon}',
            f'[vip]\ninterface = "{vip}"' if vip else "",
        ]
        self.file.write_text("\n".join([*tables, head, text]), encoding="utf-8")

    def configure(
        self, text: str, *, vip: str = "", head: str = "", daemon: str = AUDITED, allow_remove: bool = True
    ) -> None:
        """Write the file and have the daemon use it: by a reload when it runs, else by a start.

        With `allow_remove` also where most of what serves goes; without it by SIGHUP.
        """
        self.write(text, vip=vip, head=head, daemon=daemon)
        if self.running and allow_remove:
            became = control.reload(self.socket, Order(allow_remove=True))
            assert became.became is Became.USED, became
        elif self.running:
            self.reload()
            assert not self.events("reloaded", "reload_refused")[-1].get("problem"), self.log
        else:
            self.start()

    def start(self, *options: str, wait: bool = True) -> Process:
        """Start `lvsctl run`; it has set up its signals when this returns, unless `wait` is False."""
        assert not self.running, "the daemon runs already"
        command = [sys.executable, "-m", "lvsctl", "run", "-c", str(self.file), "--log-format", "json", *options]
        self.process = self.host.start(command, environment={"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"})
        self._mark = 0
        if wait:
            try:
                self.wait_for_event("started", within=START)
            except AssertionError as error:
                where = self._where_it_stands()
                self.process = None
                raise AssertionError(f"{error}\n{where}") from error
        return self.process

    def _where_it_stands(self) -> str:
        """Return where the daemon's threads are, and end it."""
        process = self._process()
        about = "".join(_text(f"/proc/{process.pid}/{name}") for name in ("wchan", "syscall", "stack", "status"))
        process.signal(6)  # faulthandler writes every thread's traceback
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(START)
        process.kill()
        return f"{about}\n{process.output}"

    def reload(self) -> None:
        """Have the daemon read its file again (SIGHUP); returns when it said that it did or did not."""
        before = len(self.events("reloaded", "reload_refused"))
        self._process().signal(1)
        eventually(lambda: len(self.events("reloaded", "reload_refused")) > before, within=START)

    def stop(self) -> int:
        """Return the daemon's exit status after SIGTERM; the table stays."""
        process = self._process()
        process.signal(15)
        return process.wait(START)

    def kill(self) -> None:
        """End the daemon at once (SIGKILL)."""
        self._process().kill()

    def forget(self) -> None:
        """Remove the ledger and the lock; the daemon must not run."""
        assert not self.running
        shutil.rmtree(self.state, ignore_errors=True)

    def clean(self) -> None:
        """Undo what a test did: no instances in Consul, all programs healthy, an empty table, an empty log.

        A daemon that runs stays, with nothing to do.
        """
        consul = self.scene.consul
        if consul.process is not None and consul.process.running:
            consul.maintain_node(enable=False)
            for file in consul.files.glob("*.json"):
                if file.name != "agent.json":
                    file.unlink()
            consul.reload()
            for instance in consul.get("/v1/agent/services"):
                consul.deregister(instance)
            for node in consul.get("/v1/catalog/nodes"):
                if node["Node"] != consul.node:
                    consul.put("/v1/catalog/deregister", {"Node": node["Node"]})
            eventually(lambda: list(consul.get("/v1/catalog/services")) == ["consul"])
        for each in self.scene.real_servers:
            each.http.healthy = True
        for program in self._programs:
            program.kill()
        self._programs.clear()
        if self.running:
            self.configure(IDLE, allow_remove=True)
            self.ipvsadm("-C")  # what drains would stay for long
            self.reload()  # a cycle now, in which the daemon sees that it is gone
            self.wait_for_lines(["-A -t 10.1.0.99:9 -s wlc"])
        else:
            self.forget()
            self.ipvsadm("-C")
        self.port += 1
        self.forget_log()

    def _process(self) -> Process:
        assert self.process is not None, "the daemon was not started"
        return self.process

    # Its log

    @property
    def log(self) -> str:
        """Return what the daemon wrote in this test, for messages."""
        if self.process is None:
            return ""
        return self.process.log.read_bytes()[self._mark :].decode()

    def _log_size(self) -> int:
        return self.process.log.stat().st_size if self.process else 0

    def forget_log(self) -> None:
        """Have what the daemon wrote so far belong to an earlier test."""
        self._mark = self._log_size()

    def events(self, *names: str) -> list[Event]:
        """Return the log's events called one of `names`, or all; AssertionError for a line that is no event."""
        whole, _, _ = self.log.rpartition("\n")  # the last line may still be written
        found = []
        for line in whole.splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                raise AssertionError(f"the daemon wrote something that is no event:\n{self.log[-3000:]}") from None
            if not names or event["event"] in names:
                found.append(event)
        return found

    def wait_for_event(self, event_name: str, /, *, within: float = CHANGE, **fields: str) -> Event:
        """Return the last event of that name in which each of `fields` contains its text."""

        def found() -> Event:
            if not self.running:
                raise DaemonEndedError(f"the daemon ended:\n{self.log[-3000:]}")
            matching = [
                event
                for event in self.events(event_name)
                if all(text in str(event.get(field, "")) for field, text in fields.items())
            ]
            assert matching, f"no event {event_name} with {fields} in:\n{self.log[-3000:]}"
            return matching[-1]

        return eventually(found, within=within)

    def seconds_between(self, first: Event, second: Event) -> float:
        """Return the seconds from `first` to `second`, by the daemon's clock."""
        began, ended = (datetime.fromisoformat(event["timestamp"]) for event in (first, second))
        return (ended - began).total_seconds()

    # Other commands

    def lvsctl(self, *arguments: str, within: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Return the finished command, `lvsctl("diff", "-o", "json")`, with the file of this director."""
        command = [sys.executable, "-m", "lvsctl", arguments[0], "-c", str(self.file), *arguments[1:]]
        return self.host.run(command, check=False, within=within)

    def status(self) -> Status:
        """Return what `lvsctl status` would show, without starting a process for it."""
        return control.ask(self.socket)

    def status_of(self, name: str) -> VirtualServerStatus:
        """Return the row of the virtual server `name`."""
        return next(row for row in self.status().virtual_servers if row.name == name)

    # The kernel, by ipvsadm

    def ipvsadm(self, *arguments: str, text: str | None = None) -> str:
        """Return what `ipvsadm` with these arguments prints."""
        return self.host.run(["ipvsadm", *arguments], text=text).stdout

    def lines(self) -> list[str]:
        """Return the lines of `ipvsadm -Sn`, sorted."""
        return sorted(line.strip() for line in self.ipvsadm("-Sn").splitlines())

    def table(self) -> Table:
        """Return `ipvsadm -Sn` as a table."""
        return parse(self.lines())

    def weights(self, virtual_server: str) -> Mapping[str, int]:
        """Return the weights of the real servers of `-t 10.1.0.100:80`; AssertionError when that is not there."""
        table = self.table()
        assert virtual_server in table, f"{virtual_server} is not in the table {list(table)}"
        return table[virtual_server].weights

    def connections(self, virtual_server: str) -> Mapping[str, Connections]:
        """Return the connections of the real servers of `-t 10.1.0.100:80`."""
        found = {}
        for line in self.ipvsadm("-Ln", *virtual_server.split()).splitlines():
            words = line.split()  # -> 10.2.0.11:80  Masq  1  0  0
            if words[:1] == ["->"] and words[-1].isdigit():
                found[words[1]] = Connections(active=int(words[-2]), inactive=int(words[-1]))
        return found

    # Waiting

    def wait_for_lines(self, expected: Sequence[str], *, within: float = CHANGE) -> None:
        """Return when `ipvsadm -Sn` prints exactly these lines, in any order."""

        def equal() -> bool:
            self._assert_alive()
            seen = self.lines()
            assert seen == sorted(expected), f"ipvsadm has {seen}, expected {sorted(expected)}; {self.log[-2000:]}"
            return True

        eventually(equal, within=within)

    def wait_for_weights(self, virtual_server: str, expected: Mapping[str, int], *, within: float = CHANGE) -> None:
        """Return when the virtual server has exactly these real servers with these weights."""

        def equal() -> bool:
            self._assert_alive()
            seen = self.weights(virtual_server)
            assert seen == expected, f"ipvsadm has {seen}, expected {expected}; {self.log[-2000:]}"
            return True

        eventually(equal, within=within)

    def _assert_alive(self) -> None:
        """Raise when the daemon ended by itself: then nothing that is waited for will come."""
        if self.process is not None and not self.process.running and self.process.wait() > 0:
            raise DaemonEndedError(f"the daemon ended:\n{self.log[-3000:]}")

    # What it balances

    def programs(self) -> Sequence[HttpServer]:
        """Return a new HTTP program on `port` of each real server, for a test that restarts them; `clean` ends them.

        In direct-route the port of an instance is the virtual server's, so there a `port` of one's own needs them.
        """
        made = [HttpServer(each.host, ports=[self.port]) for each in self.scene.real_servers]
        for program in made:
            program.start()
        self._programs += made
        return made

    def register(self, *registrations: Registration) -> None:
        """Register instances with the scene's Consul."""
        for registration in registrations:
            self.scene.consul.register(registration)


class DaemonEndedError(Exception):
    """The daemon ended while something was expected of it; the text is its last words."""


def parse(lines: Sequence[str]) -> Table:
    """Return the table that the lines of `ipvsadm -Sn` describe."""
    table: dict[str, VirtualServerLine] = {}
    real_servers: dict[str, dict[str, str]] = {}
    for line in sorted(lines):  # -A sorts before -a
        verb, _, rest = line.strip().partition(" ")
        if verb == "-A":
            key, _, options = rest.partition(" -s ")
            real_servers[key] = {}
            table[key] = VirtualServerLine(options=f"-s {options}", real_servers=real_servers[key])
        else:
            assert verb == "-a", line
            key, _, real_server = rest.partition(" -r ")
            address, _, options = real_server.partition(" ")
            real_servers[key][address] = options
    return table


def tcp(address: str, port: int) -> str:
    """Return how ipvsadm names a TCP virtual server: `-t 10.1.0.100:80`."""
    return f"-t {endpoint(address, port)}"


def endpoint(address: str, port: int) -> str:
    """Return `10.1.0.100:80` or `[fd00:1::100]:80`."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _text(path: str) -> str:
    """Return what the kernel says in `path`; empty where it says nothing."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace") + "\n"
    except OSError:
        return ""

"""Who balances: lvsctl, the updater with ipvsadm, the updater with keepalived; each as its documentation runs it."""

import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.kernel.director import START, Director, tcp
from tests.lab.hosts import Process
from tests.lab.scene import VIP4, Forwarding
from tests.lab.waiting import eventually

SERVICE: Final = "reco"


class Balancer(ABC):
    """What keeps one virtual server equal to Consul on the director, for one story."""

    name: str
    address: str  # the virtual one, its own
    client: str  # the host whose requests it balances

    def __init__(self, director: Director, forwarding: Forwarding, port: int) -> None:
        self.director, self.forwarding, self.port = director, forwarding, port
        self.scene, self.host = director.scene, director.host
        self.directory = self.scene.directory / f"{self.name.replace(' ', '-')}-{port}"
        self.directory.mkdir()

    @abstractmethod
    def start(self) -> None:
        """Start it; it may need a moment."""

    @abstractmethod
    def stop(self) -> None:
        """End it in order, as its service would (SIGTERM)."""

    @abstractmethod
    def kill(self) -> None:
        """End it at once (SIGKILL)."""

    def weights(self) -> Mapping[str, int]:
        """Return the real servers in the kernel with their weights; none where the virtual server is missing."""
        saved = self.host.run(["ipvsadm", "-Sn"]).stdout.splitlines()
        mine = [line.split() for line in saved if line.startswith(f"-a {tcp(self.address, self.port)} ")]
        return {words[words.index("-r") + 1]: int(words[words.index("-w") + 1]) for words in mine}

    def serving(self) -> Mapping[str, int]:
        """Return those that get new connections."""
        return {key: weight for key, weight in self.weights().items() if weight}

    def end(self) -> None:
        """End it; what it leaves in the table is for others to clear."""
        self.stop()


class Lvsctl(Balancer):
    """The daemon, with its defaults."""

    name = "lvsctl"
    address = VIP4
    client = "client"

    def start(self) -> None:
        """Start it; it has read its file when this returns."""
        self.director.write(
            f'[virtual_server.{SERVICE}]\naddress = "{self.address}:{self.port}"\nscheduler = "wrr"\n'
            f'forwarding = "{self.forwarding}"\n',
            daemon="",
        )
        self.director.start()

    def stop(self) -> None:
        """End it in order."""
        self.director.stop()

    def kill(self) -> None:
        """End it at once."""
        self.director.kill()

    def end(self) -> None:
        """End it and leave no ledger."""
        super().end()
        self.director.forget()


class Updater(Balancer):
    """The updater with ipvsadm."""

    name = "template updater"
    address = "10.1.0.101"
    client = "client-2"
    tool = "ipvsadm"

    def start(self) -> None:
        """Start it."""
        self.process = self._updater()

    def _updater(self, *more: str) -> Process:
        arguments = [self.scene.consul.url, SERVICE, f"{self.address}:{self.port}", self.forwarding, str(self.rendered)]
        command = [sys.executable, "-m", "tests.compare.updater", *arguments, self.tool, *more]
        return self.host.start(command, environment={"PYTHONUNBUFFERED": "1"})

    @property
    def rendered(self) -> Path:
        return self.directory / "rendered.conf"

    def stop(self) -> None:
        """End it in order."""
        self.process.stop()

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()


class Keepalived(Updater):
    """The updater with keepalived, which a story stops, kills and starts; the updater stays."""

    name = "keepalived"
    address = "10.1.0.102"
    client = "client-3"
    tool = "keepalived"
    keepalived: Process

    def start(self) -> None:
        """Start the updater where it does not run yet, and keepalived with the file that it made."""
        pid = self.directory / "pid"
        if not hasattr(self, "process"):
            self.process = self._updater(str(pid))
            eventually(self.rendered.exists, within=START)
        pids = [f"--pid={pid}", f"--checkers_pid={self.directory}/checkers.pid"]
        only = ["--check", "--dont-fork", "--log-console", "--no-syslog", f"--use-file={self.rendered}"]
        self.keepalived = self.host.start(["keepalived", *only, *pids])

    def stop(self) -> None:
        """End keepalived in order: it takes its virtual servers with it, unless told otherwise."""
        self.keepalived.signal(signal.SIGTERM)
        self.keepalived.wait(START)

    def kill(self) -> None:
        """End keepalived at once, both of its processes."""
        children = Path(f"/proc/{self.keepalived.pid}/task/{self.keepalived.pid}/children").read_text("ascii").split()
        for each in children:
            self.host.run(["kill", "-9", each])
        self.keepalived.kill()

    def end(self) -> None:
        """End both."""
        self.process.stop()
        super().end()


BALANCERS: Final[tuple[type[Balancer], ...]] = (Lvsctl, Updater, Keepalived)

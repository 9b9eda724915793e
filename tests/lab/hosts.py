"""Hosts for tests: network namespaces joined by bridges.

A host here is a network namespace and a name. A thread can step into one for a moment (`Host.inside`): a socket
made there stays there, a process started there lives there. So one Python process owns the servers and the
clients of all hosts, which matters in User-Mode Linux where a Python process takes 0.3 s to start and `import
aiohttp` 2 s. The coroutines of all hosts share one event loop in a thread of its own (`Lab.wait_for`).

Everything that a `Lab` made is gone when it is left.
"""

import asyncio
import concurrent.futures
import ctypes
import itertools
import os
import shlex
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import ip_interface
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

NAMES = Path("/run/netns")  # where `ip netns` looks
CLONE_NEWNET = 0x40000000
MS_BIND = 4096
MNT_DETACH = 2
GRACE = 3.0  # seconds between SIGTERM and SIGKILL

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> None:
    """Call the C library's `name`; OSError when it fails. Python has setns, unshare and mount only later."""
    if getattr(_libc, name)(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


class CommandError(Exception):
    """A command on a host ended with a status that is not 0."""

    def __init__(self, host: str, answer: subprocess.CompletedProcess[str]) -> None:
        self.answer = answer
        super().__init__(f"{host}: {shlex.join(answer.args)}: status {answer.returncode}: {answer.stderr.strip()}")


class Process:
    """A process on a host; ended with the lab at the latest."""

    def __init__(self, host: "Host", command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.host = host
        self.command = tuple(command)
        self.log = log
        with host.inside(), log.open("ab") as output:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | environment,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def output(self) -> str:
        """What it wrote so far, both streams."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def signal(self, number: int) -> None:
        """Send the signal `number`; nothing when the process has ended."""
        self._process.send_signal(number)

    def wait(self, within: float = 10.0) -> int:
        """Return the exit status; subprocess.TimeoutExpired when it does not end in time."""
        return self._process.wait(within)

    def stop(self) -> int:
        """Return the exit status after SIGTERM, and after SIGKILL when that was not enough."""
        self._process.terminate()
        self._process.send_signal(signal.SIGCONT)  # a stopped process would not hear
        try:
            return self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """Return the exit status after SIGKILL."""
        self._process.kill()
        return self._process.wait(GRACE)


class Host:
    """One network namespace; made by `Lab.host`."""

    def __init__(self, lab: "Lab", name: str) -> None:
        self.lab = lab
        self.name = name
        self.addresses: tuple[str, ...] = ()  # without prefix length, in the order given
        self._file = _new_file(name)
        # The namespace is made in a thread, which ends: nobody has to find the way back.
        maker = threading.Thread(target=self._make, name=f"make {name}")
        maker.start()
        maker.join()
        self._descriptor = os.open(self._file, os.O_RDONLY | os.O_CLOEXEC)

    def __repr__(self) -> str:
        """Return what pytest shows."""
        return f"<host {self.name}>"

    def _make(self) -> None:
        _call("unshare", CLONE_NEWNET)
        _call("mount", b"/proc/thread-self/ns/net", bytes(self._file), b"none", MS_BIND, None)

    def close(self) -> None:
        """Let go of the namespace; it ends with its last process and socket."""
        os.close(self._descriptor)
        _call("umount2", bytes(self._file), MNT_DETACH)
        self._file.unlink()

    @property
    def namespace(self) -> str:
        """What `ip netns` calls it."""
        return self._file.name

    @property
    def ipv4(self) -> str:
        """Its first IPv4 address."""
        return next(address for address in self.addresses if "." in address)

    @property
    def ipv6(self) -> str:
        """Its first IPv6 address."""
        return next(address for address in self.addresses if ":" in address)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Have the calling thread on this host meanwhile: sockets and processes made there stay there.

        Do not await inside: the event loop's other coroutines would come along.
        """
        back = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call("setns", self._descriptor, CLONE_NEWNET)
            try:
                yield
            finally:
                _call("setns", back, CLONE_NEWNET)
        finally:
            os.close(back)

    def socket(self, family: int, kind: int) -> socket.socket:
        """Return a new non-blocking socket of this host."""
        with self.inside():
            made = socket.socket(family, kind)
        made.settimeout(0.0)
        return made

    def call(self, function: Callable[[], T]) -> T:
        """Return what `function` returns, called on this host."""
        with self.inside():
            return function()

    def run(
        self, command: Sequence[str], *, check: bool = True, text: str | None = None, within: float = 30.0
    ) -> subprocess.CompletedProcess[str]:
        """Return the finished `command`, which reads `text`; CommandError when it fails and `check` is set."""
        with self.inside():
            answer = subprocess.run(
                list(command), input=text or "", capture_output=True, text=True, check=False, timeout=within
            )
        if check and answer.returncode != 0:
            raise CommandError(self.name, answer)
        return answer

    def start(self, command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> Process:
        """Return `command` running on this host, its output in a file."""
        log = self.lab.directory / f"{self.name}-{Path(command[0]).name}-{self.lab.next_number()}.log"
        process = Process(self, command, log, environment or {})
        self.lab.at_exit(process.stop)
        return process

    def ip(self, *lines: str) -> None:
        """Run each line as `ip LINE`, all in one process: `host.ip("link set lo up", "route add …")`."""
        if lines:
            self.run(["ip", "-batch", "-"], text="\n".join(lines) + "\n")

    def add_address(self, interface: str, *addresses: str) -> None:
        """Give `interface` each of `addresses` (with prefix length), usable at once."""
        self.ip(*(f"address add {address} dev {interface}{_nodad(address)}" for address in addresses))

    def sysctl(self, values: Mapping[str, int]) -> None:
        """Set kernel parameters of this host's network: `{"net.ipv4.ip_forward": 1}`."""
        with self.inside():
            for name, value in values.items():
                Path("/proc/sys", *name.split(".")).write_text(f"{value}\n", encoding="ascii")


class Lab:
    """The hosts, networks and processes of one test; a context manager that removes them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory  # for logs and the like; its owner removes it
        self.hosts: dict[str, Host] = {}
        self._exits = ExitStack()
        self._number = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lab", daemon=True)
        self._networks: set[str] = set()

    def __enter__(self) -> Self:
        """Start the event loop and make the place for the bridges."""
        self._thread.start()
        self._exits.callback(self._stop_loop)
        self._wire = Host(self, "wire")  # where the bridges are: nobody's, so that no host's rules apply to them
        self._exits.callback(self._wire.close)
        self._wire.sysctl({"net.ipv6.conf.default.disable_ipv6": 1})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove all of it, last made first."""
        self._exits.close()

    def _stop_loop(self) -> None:
        self.wait_for(_cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def at_exit(self, function: Callable[[], object]) -> None:
        """Call `function` when the lab is left, in reverse order."""
        self._exits.callback(function)

    def next_number(self) -> int:
        """Return 1, 2, 3 …, for names."""
        self._number += 1
        return self._number

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> "concurrent.futures.Future[T]":
        """Start `coroutine` in the lab's event loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def wait_for(self, coroutine: Coroutine[Any, Any, T], within: float = 30.0) -> T:
        """Return what `coroutine` returns, run in the lab's event loop."""
        return self.begin(coroutine).result(within)

    def host(self, name: str, **networks: Sequence[str]) -> Host:
        """Return a new host with an interface in each of `networks`, named like it, with these addresses.

        `lab.host("director", front=["10.1.0.1/24", "fd00:1::1/64"], back=["10.2.0.1/24"])`
        """
        host = Host(self, name)
        self._exits.callback(host.close)
        self.hosts[name] = host
        # No duplicate address detection: it holds an IPv6 address back for a second.
        host.sysctl({"net.ipv6.conf.default.accept_dad": 0, "net.ipv6.conf.all.accept_dad": 0})
        number = len(self.hosts)
        wires, addresses = [], ["link set lo up"]
        for network, given in networks.items():
            if network not in self._networks:
                self._networks.add(network)
                wires += [f"link add {network} type bridge mcast_snooping 0", f"link set {network} up"]
            port = f"{network}{number}"
            wires += [
                f"link add {port} type veth peer name {network} netns {host.namespace}",
                f"link set {port} master {network} up",
            ]
            addresses.append(f"link set {network} up")
            addresses += [f"address add {address} dev {network}{_nodad(address)}" for address in given]
            host.addresses += tuple(str(ip_interface(address).ip) for address in given)
        self._wire.ip(*wires)
        host.ip(*addresses)
        return host


def _new_file(name: str) -> Path:
    """Return a new file for `ip netns` to know a host by: `name`, or `name-2` while another lab has that."""
    NAMES.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        file = NAMES / (name if number == 1 else f"{name}-{number}")
        with suppress(FileExistsError):
            file.touch(exist_ok=False)
            return file
    raise AssertionError


def _nodad(address: str) -> str:
    return " nodad" if ":" in address else ""


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)

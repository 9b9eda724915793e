"""The whole way from a check in Consul to the kernel, in a process beside the daemon; prints the figures as JSON.

    python -m tests.bench.waking TRANSPORT CONSUL_SERVICES FLIPS

TRANSPORT is `http1` or `http2`. Consul is real, with its default limits. The daemon is `lvsctl run` where there is a
kernel with IPVS; elsewhere it is the same daemon on netlink/fake.py (`tests.bench.pretending`), and its log says when
the write was done. Times are from the PUT that flips a check; beside it waits a blocking query with nothing behind it.
"""

import http.client
import json
import os
import random
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import attrs

from tests.bench.catalogue import REAL, Catalogue
from tests.lab.waiting import eventually

INSTANCES: Final = 5
SETTLED: Final = 30.0  # seconds after the start until the daemon is called idle: its first polls are over
IDLE: Final = 20.0  # seconds for which its load is measured
TAIL: Final = 1 << 16  # bytes of the log, more than a flip adds
LONGEST: Final = 60.0  # seconds that a flip may take
START: Final = 180.0
PAUSE: Final = (0.1, 1.0)  # seconds between flips


@attrs.define
class Daemon:
    """The process, its configuration and its log."""

    process: subprocess.Popen[bytes]
    log: Path
    port: int  # of Consul

    def seconds(self) -> float:
        """Return the processor's time that it took."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self, which: str) -> int:
        """Return VmRSS or VmHWM in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text("ascii")
        return int(status.split(f"{which}:")[1].split()[0]) * 1024 // 1_000_000

    def connections(self) -> int:
        """Return how many established connections to Consul there are."""
        inodes = {str(each.readlink()) for each in Path(f"/proc/{self.process.pid}/fd").iterdir()}
        lines = [line.split() for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]]
        to_consul = [f for f in lines if f[2] == f"0100007F:{self.port:04X}" and f[3] == "01"]
        return sum(f"socket:[{fields[9]}]" in inodes for fields in to_consul)

    def written(self, real_server: str, after: float) -> float | None:
        """Return when the log first speaks of `real_server` after Unix seconds `after`."""
        with self.log.open("rb") as file:  # its end alone: to read all of it would take the daemon's processor
            file.seek(max(0, self.log.stat().st_size - TAIL))
            lines = file.read().rpartition(b"\n")[0].splitlines()
        for line in lines[1:]:
            event = json.loads(line)
            if event.get("real_server") == real_server:
                at = datetime.fromisoformat(event["timestamp"]).timestamp()
                if at >= after:
                    return at
        return None


def main() -> None:
    """Print what was measured."""
    transport, services, flips = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        with Catalogue.running(place) as catalogue:
            catalogue.fill([f"service-{index}" for index in range(services)], INSTANCES)
            print(json.dumps(measured(catalogue, place, transport, flips)))


def measured(catalogue: Catalogue, place: Path, transport: str, flips: int) -> dict[str, Any]:
    """Return the figures of one daemon on `catalogue`."""
    configure(catalogue, place, transport)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(place / "notify"))
        manager.settimeout(START)
        began = time.time()
        with (place / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *program(), "-c", str(place / "lvsctl.toml")],
                stderr=log,
                env=os.environ | {"NOTIFY_SOCKET": str(place / "notify"), "PYTHONUNBUFFERED": "1"},
            )
        try:
            while b"READY=1" not in manager.recv(4096):
                pass
            port = catalogue.https if transport == "http2" else catalogue.port
            daemon = Daemon(process, place / "log", port)
            all_of_them = len(catalogue.names) * INSTANCES
            eventually(
                lambda: daemon.log.read_bytes().count(b'"real_server_added"') == all_of_them, within=START, every=0.5
            )
            started = time.time() - began
            used = daemon.seconds()
            time.sleep(max(0.0, SETTLED - started))
            before = daemon.seconds()
            time.sleep(IDLE)
            idle = (daemon.seconds() - before) / IDLE
            before = daemon.seconds()
            times = [flip(catalogue, daemon, transport, number) for number in range(flips)]
            return {
                "start_s": started,
                "start_cpu_s": used,
                "idle_cpu": idle,
                "flip_cpu_ms": (daemon.seconds() - before) / flips * 1e3,
                "rss": daemon.memory("VmRSS"),
                "peak": daemon.memory("VmHWM"),
                "connections": daemon.connections(),
                "kernel_ms": [ours for ours, _ in times],
                "bare_ms": [bare for _, bare in times],
            }
        finally:
            process.terminate()
            process.wait(30)


def program() -> list[str]:
    """Return the module that is the daemon, with its first arguments."""
    real = os.environ.get("LVSCTL_LAB")
    return ["lvsctl", "run", "--log-format", "json"] if real else ["tests.bench.pretending"]


def configure(catalogue: Catalogue, place: Path, transport: str) -> None:
    """Write the daemon's file: a virtual server for each Consul service."""
    lines = ["[consul]"]
    if transport == "http2":
        lines += [f'address = "https://127.0.0.1:{catalogue.https}"', f'ca_file = "{catalogue.certificates.ca}"']
    else:
        lines += [f'address = "http://127.0.0.1:{catalogue.port}"']
    lines += ["[daemon]", f'state_directory = "{place}/state"', f'control_socket = "{place}/control.sock"']
    for index, name in enumerate(catalogue.names):
        lines += [f"[virtual_server.{name}]", f'address = "10.100.{index // 250}.{index % 250 + 1}:80"']
    (place / "lvsctl.toml").write_text("\n".join(lines), "utf-8")


def flip(catalogue: Catalogue, daemon: Daemon, transport: str, number: int) -> tuple[float, float]:
    """Return the milliseconds until the kernel was written, and until a bare blocking query was answered."""
    index = random.Random(number // 2).randrange(len(catalogue.names))  # fails, and the next time passes again
    path = f"/v1/health/service/{catalogue.names[index]}"
    connection = connected(catalogue, transport)
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    consul_index = answer.headers["X-Consul-Index"]
    woken: list[float] = []

    def wait() -> None:
        connection.request("GET", f"{path}?index={consul_index}&wait=25s")
        connection.getresponse().read()
        woken.append(time.time())

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(random.uniform(*PAUSE))
    began = time.time()
    catalogue.flip(index, 0, passing=number % 2 == 1)
    written = _once(lambda: daemon.written(f"{REAL}.1:{1024 + index}", began))
    waiting.join(LONGEST)
    connection.close()
    return (written - began) * 1e3, (woken[0] - began) * 1e3


def _once(happened: Callable[[], float | None]) -> float:
    found = eventually(happened, within=LONGEST, every=0.01)
    assert found is not None
    return found


def connected(catalogue: Catalogue, transport: str) -> http.client.HTTPConnection:
    """Return a connection of its own."""
    if transport == "http2":
        tls = ssl.create_default_context(cafile=str(catalogue.certificates.ca))
        return http.client.HTTPSConnection("127.0.0.1", catalogue.https, timeout=LONGEST, context=tls)
    return http.client.HTTPConnection("127.0.0.1", catalogue.port, timeout=LONGEST)


if __name__ == "__main__":
    main()

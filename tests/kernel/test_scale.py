"""A thousand Consul services on a real Consul with its default limits, in a kernel: the daemon whole."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from netlink import IPVS
from netlink.requests import Flush
from tests.bench.catalogue import REAL, Catalogue
from tests.bench.waking import Daemon, configure
from tests.lab.waiting import eventually

pytestmark = [pytest.mark.kernel, pytest.mark.soak]

SERVICES: Final = 1_000
INSTANCES: Final = 5
FLIPS: Final = 60
BUDGET: Final = 90  # connections, 45 % of Consul's default limit
MEMORY: Final = 100e6 / 2**20  # MiB, which are 100 MB


def test_all_converge_within_the_budgets_and_nothing_else_is_removed(tmp_path: Path) -> None:
    with IPVS() as ipvs, Catalogue.running(tmp_path) as catalogue:
        catalogue.fill([f"service-{index}" for index in range(SERVICES)], INSTANCES)
        configure(catalogue, tmp_path, "http1")
        log = tmp_path / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "lvsctl", "run", "--log-format", "json", "-c", str(tmp_path / "lvsctl.toml")],
                stderr=file,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )
        try:
            daemon = Daemon(process, log, catalogue.port)

            def serving() -> dict[str, int]:
                """Return how many real servers serve, by the port of their Consul service."""
                assert daemon.connections() <= BUDGET
                found: dict[str, int] = {}
                for entry in ipvs.observe().table.values():
                    for key, real_server in entry.real_servers.items():
                        found[f"{key.port}"] = found.get(f"{key.port}", 0) + (real_server.weight > 0)
                return found

            everything = {f"{1024 + index}": INSTANCES for index in range(SERVICES)}
            eventually(lambda: serving() == everything, within=120, every=1.0)
            down: set[int] = set()
            choose = random.Random(7)
            for _ in range(FLIPS):
                index = choose.randrange(SERVICES)
                catalogue.flip(index, 0, passing=index in down)
                down ^= {index}
            expected = everything | {f"{1024 + index}": INSTANCES - 1 for index in down}
            eventually(lambda: serving() == expected, within=60, every=1.0)
            for index in sorted(down):
                catalogue.flip(index, 0, passing=True)
            eventually(lambda: serving() == everything, within=60, every=1.0)
            assert daemon.memory("VmRSS") <= MEMORY
            lines = log.read_text("utf-8").splitlines()
            removed = [line for line in lines if '_deleted"' in line or '_quiesced"' in line]
            ours = [line for line in removed if f'"{REAL}.1:' in line]
            assert removed == ours
            assert ours
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            ipvs.apply([Flush()])

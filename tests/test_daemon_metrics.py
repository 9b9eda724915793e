"""The metrics endpoint of a whole daemon: what it does can be read there, and Consul can neither kill it nor be seen.

The kernel is in memory, Consul a real HTTP server that answers what a test tells it to.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import aiohttp
import attrs
import pytest

from lvsctl import daemon as daemon_module
from lvsctl import health
from lvsctl.configfile import load
from lvsctl.daemon import Daemon
from lvsctl.errors import StateError
from lvsctl.reconcile import Reconciler
from lvsctl.store import Store
from netlink.errors import NetlinkError
from netlink.requests import AddRealServer, AddVirtualServer, DeleteRealServer
from netlink.types import Observed, VirtualServer, VirtualServerKey
from tests.addresses import FakeAddresses
from tests.consul.server import DEADLINE, Answering, Blocking, consul, refusing
from tests.test_daemon import Running, Watched, running, written
from tests.test_metrics import free_port, samples, value
from tests.values import KEY, entry, instance, real, real_key, table_of

RECO = {"virtual_server": "reco", "address": "tcp 10.9.0.100:80"}
CANARY = "canary-5f1c2d3e"


@attrs.define
class Scraped:
    """The metrics endpoint of a daemon that runs."""

    daemon: Running
    port: int

    async def ask(self, path: str = "/metrics") -> tuple[int, bytes]:
        """Return status and body of one answer."""
        url = f"http://127.0.0.1:{self.port}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return response.status, await response.read()

    async def page(self) -> bytes:
        """Return what Prometheus would get."""
        status, page = await self.ask()
        assert status == 200
        return page

    async def until(self, name: str, wanted: float, **labels: str) -> bytes:
        """Return the first page on which the series has the value that is `wanted`."""
        ends = time.monotonic() + DEADLINE
        while True:
            page = await self.page()
            named = [each for each in samples(page) if each.name == name and labels.items() <= each.labels.items()]
            if [each.value for each in named] == [wanted]:
                return page
            assert time.monotonic() < ends, named

    async def until_told(self, path: str, status: int, words: bytes) -> None:
        """Return when a probe answers so."""
        ends = time.monotonic() + DEADLINE
        while (answer := await self.ask(path)) != (status, words):
            assert time.monotonic() < ends, answer


def listening(port: int) -> str:
    return f'[metrics]\nlisten = "127.0.0.1:{port}"\n'


@contextlib.asynccontextmanager
async def scraped(
    answering: Answering, directory: Path, kernel: Watched | None = None, *, consul_port: int = 0
) -> AsyncIterator[Scraped]:
    """Run a daemon with a metrics endpoint until the context ends; `consul_port` is Consul's, any when 0."""
    port = free_port()
    async with running(answering, directory, kernel, port=consul_port, tables=listening(port)) as found:
        yield Scraped(found, port)


class Slow(Watched):
    """A kernel that is not read before it `may_go`."""

    def __init__(self) -> None:
        super().__init__()
        self.may_go = threading.Event()
        self.may_go.set()

    def observe(self, only: Iterable[VirtualServerKey] | None = None) -> Observed:
        """Wait until it may go."""
        assert self.may_go.wait(DEADLINE)
        return super().observe(only)


async def test_metrics_follow_what_the_daemon_does(tmp_path: Path) -> None:
    blocking, before = Blocking((instance(1),)), time.time()
    async with scraped(blocking, tmp_path) as scrape:
        await scrape.daemon.until(table_of(entry(real(1))))
        page = await scrape.until("lvsctl_virtual_server_serving_real_servers", 1)
        assert value(page, "lvsctl_in_sync") == 1
        assert value(page, "lvsctl_writes_total", kind="virtual_server_added") == 1
        assert value(page, "lvsctl_writes_total", kind="real_server_added") == 1
        assert value(page, "lvsctl_pending_changes") == 0
        assert value(page, "lvsctl_oldest_pending_change_seconds") == 0
        assert value(page, "lvsctl_cycle_duration_seconds_count") >= 2
        assert value(page, "lvsctl_consul_transport_info", transport="HTTP/1.1", why="within-limit") == 1
        assert value(page, "lvsctl_consul_queries") == 1
        assert before < value(page, "lvsctl_consul_last_contact_timestamp_seconds", **RECO) <= time.time()
        agreed = value(page, "lvsctl_table_fingerprint", of="wanted")
        assert value(page, "lvsctl_table_fingerprint", of="kernel") == agreed
        assert await scrape.ask("/readyz") == (200, b"ready\n")
        await blocking.change()
        began = time.monotonic()
        page = await scrape.until("lvsctl_virtual_servers", 1, state="held")
        assert time.monotonic() - began < 1, "a hold is visible within a second"
        assert value(page, "lvsctl_virtual_server_held_real_servers", **RECO) == 1
        assert value(page, "lvsctl_table_fingerprint", of="kernel") == agreed


async def test_who_scrapes_has_nobody_read_the_table(tmp_path: Path) -> None:
    kernel = Slow()
    async with scraped(Blocking((instance(1),)), tmp_path, kernel) as scrape:
        await scrape.until("lvsctl_virtual_server_serving_real_servers", 1)
        kernel.may_go.clear()
        for _ in range(3):
            await asyncio.gather(*(scrape.page() for _ in range(20)))
        assert await asyncio.wait_for(scrape.page(), DEADLINE)
        kernel.may_go.set()


async def test_drift_is_counted(tmp_path: Path) -> None:
    async with scraped(Blocking((instance(1), instance(2))), tmp_path) as scrape:
        await scrape.until("lvsctl_virtual_server_serving_real_servers", 2)
        scrape.daemon.kernel.apply([DeleteRealServer(virtual_server=KEY, key=real_key(2))])
        os.kill(os.getpid(), signal.SIGHUP)  # a cycle now, not at the next audit
        page = await scrape.until("lvsctl_drift_repairs_total", 1)
        assert value(page, "lvsctl_writes_total", kind="real_server_added") == 3


async def test_consul_has_no_say_in_who_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon_module, "FIRST_ANSWERS", 0.5)
    async with scraped(refusing(500, "No cluster leader"), tmp_path) as scrape:
        page = await scrape.until("lvsctl_consul_reachable", 0)
        assert value(page, "lvsctl_consul_failing_queries") == 1
        assert value(page, "lvsctl_consul_last_contact_timestamp_seconds", **RECO) == 0
        assert await scrape.ask("/livez") == (200, b"alive\n")
        why = b"not ready: Consul has not answered yet, and the table has no real server\n"
        await scrape.until_told("/readyz", 503, why)
        page = await scrape.until("lvsctl_virtual_servers", 1, state="waiting")
        assert b"leader" not in page
        scrape.daemon.server.answering = Blocking((instance(1),))
        await scrape.until_told("/readyz", 200, b"ready\n")
        scrape.daemon.server.answering = refusing(500)
        assert await scrape.ask("/livez") == (200, b"alive\n")


async def test_a_table_that_stands_and_one_that_a_snapshot_restores_make_ready(tmp_path: Path) -> None:
    async with scraped(Blocking((instance(1),)), tmp_path) as scrape:
        await scrape.daemon.until(table_of(entry(real(1))))
        while not scrape.daemon.events("snapshot_saved"):
            await scrape.page()
    port = int(scrape.daemon.server.address.rpartition(":")[2])
    for kernel in (scrape.daemon.kernel, Watched()):
        async with scraped(refusing(500), tmp_path, kernel, consul_port=port) as again:
            await again.until_told("/readyz", 200, b"ready\n")
            page = await again.until("lvsctl_virtual_server_serving_real_servers", 1)
            assert value(page, "lvsctl_consul_snapshot_age_seconds") > 0
            assert value(page, "lvsctl_consul_reachable") == 0


async def test_a_table_of_before_makes_ready_even_where_all_state_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "FIRST_ANSWERS", 0.5)
    kernel = Watched()
    kernel.apply(
        [
            AddVirtualServer(virtual_server=VirtualServer(key=KEY)),
            AddRealServer(virtual_server=KEY, real_server=real(1)),
        ]
    )
    async with scraped(refusing(500), tmp_path, kernel) as scrape:
        await scrape.until_told("/readyz", 200, b"ready\n")


async def test_a_kernel_that_cannot_be_read_is_trouble_and_not_readiness(tmp_path: Path) -> None:
    kernel = Watched()
    for _ in range(2):
        kernel.fail_next_observe(NetlinkError("read", "the table", "broken\nby a test"))
    async with scraped(Blocking((instance(1),)), tmp_path, kernel) as scrape:
        page = await scrape.until("lvsctl_cycle_failures_total", 1)
        assert value(page, "lvsctl_trouble") == 1
        assert value(page, "lvsctl_oldest_pending_change_seconds") > 0
        status, why = await scrape.ask("/readyz")
        assert (status, why.count(b"\n")) == (503, 1)
        assert why.startswith(b"not ready: cannot reconcile: ")
        assert await scrape.ask("/livez") == (200, b"alive\n")
        await scrape.until_told("/readyz", 200, b"ready\n")
        page = await scrape.until("lvsctl_cycle_failures_total", 2)
        assert value(page, "lvsctl_trouble") == 0
        assert value(page, "lvsctl_oldest_pending_change_seconds") == 0


async def test_a_cycle_that_is_stuck_is_no_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Slow()
    async with scraped(Blocking((instance(1),)), tmp_path, kernel) as scrape:
        await scrape.until_told("/livez", 200, b"alive\n")
        monkeypatch.setattr(health, "STALLED", 0.0)
        kernel.may_go.clear()
        os.kill(os.getpid(), signal.SIGHUP)
        await scrape.until_told("/livez", 503, b"not alive: a cycle has been stuck for 0 s\n")
        assert (await scrape.ask())[0] == 200, "metrics are shown all the same"
        kernel.may_go.set()
        await scrape.until_told("/livez", 200, b"alive\n")


async def test_the_token_and_consuls_words_are_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", CANARY)
    hostile = instance(2, node="evil", instance_id="evil", address="evil", tags=("evil",), meta={"evil": "evil"})
    blocking = Blocking((instance(1), hostile))
    async with scraped(blocking, tmp_path) as scrape:
        await scrape.until("lvsctl_rejected_instances", 1, reason="not-an-address")
        request = await scrape.daemon.server.came(1)
        assert request.headers["X-Consul-Token"] == CANARY
        scrape.daemon.server.answering = refusing(403, f"evil {CANARY}")
        await blocking.change(instance(1))
        await scrape.until("lvsctl_consul_failing_queries", 1)
        for path in ("/metrics", "/livez", "/readyz"):
            _, body = await scrape.ask(path)
            assert CANARY.encode() not in body
            assert b"evil" not in body


async def test_another_address_counts_at_the_next_start_only(tmp_path: Path) -> None:
    async with scraped(Blocking((instance(1),)), tmp_path) as scrape:
        await scrape.until_told("/readyz", 200, b"ready\n")
        written(scrape.daemon.server, tmp_path, tables=listening(free_port()))
        os.kill(os.getpid(), signal.SIGHUP)
        await scrape.daemon.until_status(lambda _: bool(scrape.daemon.events("reloaded")))
        (needed,) = scrape.daemon.events("restart_needed")
        assert "[metrics]" in needed["why"]
        assert (await scrape.ask("/livez"))[0] == 200
        os.kill(os.getpid(), signal.SIGHUP)
        await scrape.daemon.until_status(lambda _: len(scrape.daemon.events("reloaded")) == 2)
        assert len(scrape.daemon.events("restart_needed")) == 2, "it is still needed"
        written(scrape.daemon.server, tmp_path, tables="[metrics]\nlisten = 9105\n")
        os.kill(os.getpid(), signal.SIGHUP)
        await scrape.until("lvsctl_config_last_reload_successful", 0)


async def test_a_port_that_is_taken_ends_the_start_before_anything_is_written(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        kernel = Watched()
        async with consul(Blocking((instance(1),))) as server:
            file = written(server, tmp_path, tables=listening(port))
            daemon = Daemon(
                file, load(file), Reconciler(kernel, FakeAddresses(), Store(tmp_path), time.time), dry_run=False
            )
            with pytest.raises(StateError, match=f"metrics.listen 127.0.0.1:{port}: address already in use"):
                await daemon.run()
    assert kernel.writes == []
    assert not (tmp_path / "control.sock").exists()


async def test_a_dry_run_serves_nothing(tmp_path: Path) -> None:
    port = free_port()
    async with running(Blocking((instance(1),)), tmp_path, dry_run=True, tables=listening(port)) as found:
        while not found.events("would_change"):
            await asyncio.to_thread(found.kernel.observe)  # a turn of the loop
        with pytest.raises(aiohttp.ClientConnectorError):
            await Scraped(found, port).ask()


def test_without_metrics_their_library_is_not_imported() -> None:
    code = "import sys, lvsctl.daemon; sys.exit('prometheus_client' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)

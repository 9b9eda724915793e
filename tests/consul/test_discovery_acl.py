"""Discovery on a real Consul with ACLs: the documented policy is enough, and what is lost of it takes nothing away."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import attrs
import pytest

from lvsctl import control
from lvsctl.configfile import load
from lvsctl.core.status import Status
from lvsctl.daemon import Daemon
from lvsctl.errors import DaemonError
from lvsctl.reconcile import Reconciler
from lvsctl.store import Store
from netlink.fake import FakeIPVS
from netlink.types import Protocol, VirtualServerKey
from tests.addresses import FakeAddresses
from tests.consul.test_acl import POLICIES, Guarded, guarded, hold

__all__ = ["guarded"]  # the fixture of test_acl, a Consul with ACLs

QUIET = 3.0  # seconds in which what must not come would have
WITHIN = 30.0  # seconds; a permission counts until the agent's cache of its token is renewed
NODES = 'node_prefix "" { policy = "read" }\n'
SERVICES = 'service_prefix "" { policy = "read" }\n'
CART = VirtualServerKey.by_address(Protocol.TCP, ip_address("10.9.1.31"), 80)
SHOP = VirtualServerKey.by_address(Protocol.TCP, ip_address("10.9.1.32"), 80)


@attrs.define
class Discovering:
    """A daemon that runs on a kernel in memory, and the Consul that it may not read all of."""

    guarded: Guarded
    kernel: FakeIPVS
    file: Path
    directory: Path
    registered: int = 0

    @property
    def served(self) -> dict[VirtualServerKey, set[str]]:
        """Return the addresses that get new connections, by virtual server."""
        table = self.kernel.observe().table
        return {
            key: {str(each.key.address) for each in entry.real_servers.values() if each.weight}
            for key, entry in table.items()
        }

    async def register(self, service: str, number: int, address: str) -> None:
        """Have an instance of `service` at 10.0.2.N that declares a virtual server."""
        self.registered += 1  # ends the requests that wait
        meta = {"lvs-address": address, "registered": str(self.registered)}
        instance = {"Service": service, "ID": f"{service}-{number}", "Port": 8080, "Tags": ["lvs"], "Meta": meta}
        node = {"Node": f"d{number}", "Address": f"10.0.2.{number}", "Service": instance}
        await asyncio.to_thread(self.guarded.ask, "PUT", "/v1/catalog/register", node)

    async def both(self) -> None:
        """Have both services, with something new about them."""
        await self.register("cart", 1, "10.9.1.31:80")
        await self.register("cart", 2, "10.9.1.31:80")
        await self.register("shop", 3, "10.9.1.32:80")

    @contextlib.asynccontextmanager
    async def daemon(self) -> AsyncIterator[None]:
        """Run a daemon while the context lasts."""
        reconciler = Reconciler(self.kernel, FakeAddresses(), Store(self.directory), time.time)
        task = asyncio.create_task(Daemon(self.file, load(self.file), reconciler, dry_run=False).run(), name="daemon")
        try:
            yield
        finally:
            if not task.done():
                os.kill(os.getpid(), signal.SIGTERM)
            async with asyncio.timeout(WITHIN):
                await task

    async def until(self, wanted: Callable[[Status], bool]) -> Status:
        """Return the first status that is as `wanted`."""
        ends = time.monotonic() + WITHIN
        status = None
        while time.monotonic() < ends:
            with contextlib.suppress(DaemonError):
                status = await asyncio.to_thread(control.ask, self.directory / "control.sock")
                if wanted(status):
                    return status
        raise AssertionError((status, self.served))

    async def stays(self, served: dict[VirtualServerKey, set[str]]) -> None:
        """Return after a while in which exactly these were served, and Consul had something new now and then."""
        for _ in range(3):
            await self.both()
            ends = time.monotonic() + QUIET / 3
            while time.monotonic() < ends:
                assert self.served == served
                await asyncio.sleep(0.05)


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Put the signal handlers back that the daemon replaced."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def discovering(guarded: Guarded, tmp_path: Path) -> Discovering:
    """Return a daemon that can be started, with nothing but [discovery] in its file."""
    (tmp_path / "token").touch(0o600)
    file = tmp_path / "lvsctl.toml"
    file.write_text(
        f'[consul]\naddress = "{guarded.address}"\ntoken_file = "{tmp_path}/token"\n'
        f'[daemon]\nstate_directory = "{tmp_path}"\ncontrol_socket = "{tmp_path}/control.sock"\n'
        '[discovery]\naddresses = ["10.9.1.0/24"]\n[defaults]\ndrain_timeout = "0s"\n'
    )
    return Discovering(guarded=guarded, kernel=FakeIPVS(), file=file, directory=tmp_path)


ALL = {CART: {"10.0.2.1", "10.0.2.2"}, SHOP: {"10.0.2.3"}}


async def test_the_policy_of_the_page_is_enough(discovering: Discovering) -> None:
    await discovering.both()
    hold(discovering.directory / "token", discovering.guarded.token("discover-all", POLICIES[0]))
    async with discovering.daemon():
        await discovering.until(lambda _: discovering.served == ALL)


@pytest.mark.parametrize(
    ("name", "rules", "seen"),
    [
        ("one-service", NODES + 'service "cart" { policy = "read" }', {CART: ALL[CART]}),
        ("no-nodes", SERVICES, {}),
        ("one-node", SERVICES + 'node "d1" { policy = "read" }', {CART: {"10.0.2.1"}}),
        ("nothing", 'key_prefix "x" { policy = "read" }', {}),
    ],
)
async def test_what_the_token_may_not_read_declares_nothing(
    discovering: Discovering, name: str, rules: str, seen: dict[VirtualServerKey, set[str]]
) -> None:
    await discovering.both()
    hold(discovering.directory / "token", discovering.guarded.token(f"discover-{name}", rules))
    async with discovering.daemon():
        status = await discovering.until(lambda status: bool(status.consul and status.consul.data_age is not None))
        await discovering.until(lambda _: discovering.served == seen)
        assert status.refused_declarations == ()


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("services", NODES),
        ("one-service", NODES + 'service "shop" { policy = "read" }'),
        ("nodes", SERVICES),
        ("one-node", SERVICES + 'node "d1" { policy = "read" }'),
        ("all", 'key_prefix "x" { policy = "read" }'),
    ],
)
async def test_a_permission_that_is_revoked_takes_nothing_away_that_is_declared(
    discovering: Discovering, name: str, rules: str
) -> None:
    """Nor does a restart with what is left, and when it is given back all is as it was."""
    guarded, policy = discovering.guarded, f"discover-revoked-{name}"
    version = guarded.ask("GET", "/v1/agent/self")["Config"]["Version"]
    if name == "one-node" and tuple(map(int, version.split(".")[:2])) < (1, 11):
        pytest.skip(f"Consul {version} does not tell what it leaves out: half of cart is as if it deregistered")
    await discovering.both()
    hold(discovering.directory / "token", guarded.token(policy, POLICIES[0]))
    (made,) = (each for each in guarded.ask("GET", "/v1/acl/policies") if each["Name"] == policy)

    async def allow(rules: str) -> None:
        path = f"/v1/acl/policy/{made['ID']}"
        await asyncio.to_thread(guarded.ask, "PUT", path, {"Name": policy, "Rules": rules})
        await discovering.both()

    async with discovering.daemon():
        await discovering.until(lambda _: discovering.served == ALL)
        discovering.kernel.writes.clear()
        await allow(rules)
        await discovering.stays(ALL)
    async with discovering.daemon():
        await discovering.until(lambda status: bool(status.consul and status.consul.data_age is not None))
        await discovering.stays(ALL)
        assert discovering.kernel.writes == []
        await allow(POLICIES[0])
        await discovering.register("cart", 4, "10.9.1.31:80")
        await discovering.until(lambda _: discovering.served == {**ALL, CART: ALL[CART] | {"10.0.2.4"}})
    await asyncio.to_thread(guarded.ask, "PUT", "/v1/catalog/deregister", {"Node": "d4"})

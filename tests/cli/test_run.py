"""`lvsctl run --once` and its dry run: what they print, on a kernel in memory and a real HTTP server as Consul."""

import asyncio
import errno
import functools
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from lvsctl.cli.run import _once, _plan
from lvsctl.config import Config, ConsulConfig, DaemonConfig, VipConfig
from lvsctl.configuration_kept import ConfigurationKept
from lvsctl.core.instance import Instance
from lvsctl.core.order import Order, Orders, Pause
from lvsctl.errors import ConsulError
from lvsctl.reconcile import Reconciler
from lvsctl.store import Store
from netlink.fake import FakeIPVS
from netlink.requests import AddVirtualServer
from netlink.types import Protocol, VirtualServerKey
from tests.addresses import FakeAddresses
from tests.consul.server import Answering, always, consul, refusing
from tests.values import NOW, VIP, config_of, configured, entry, failing, instance, kernel_with, real, table_of

OTHER = VirtualServerKey.by_address(Protocol.TCP, VIP, 81)
Running = Callable[[Config, Reconciler], int | None]


@attrs.define
class World:
    """What a run works on, and what it printed."""

    state: Path
    capsys: pytest.CaptureFixture[str]
    kernel: FakeIPVS = attrs.field(factory=FakeIPVS)
    addresses: FakeAddresses = attrs.field(factory=FakeAddresses)
    printed: list[str] = attrs.field(factory=list)
    errors: str = ""

    async def run(self, what: Running, answering: Answering, config: Config) -> int | None:
        """Run `what` against a Consul, as a command does: in a thread without a loop."""
        reconciler = Reconciler(self.kernel, self.addresses, Store(self.state), lambda: NOW)
        async with consul(answering) as server:
            asked = attrs.evolve(config, consul=ConsulConfig(address=server.address))
            code = await asyncio.to_thread(what, asked, reconciler)
        captured = self.capsys.readouterr()
        self.printed, self.errors = captured.out.splitlines(), captured.err
        return code

    async def once(self, *instances: Instance, config: Config | None = None) -> int | None:
        """Run once against a Consul that has these instances."""
        return await self.run(_once, always(*instances), config or config_of())


@pytest.fixture
def world(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> World:
    return World(state=tmp_path, capsys=capsys)


async def test_once_converges_prints_what_it_did_and_then_has_nothing_to_do(world: World) -> None:
    config = config_of(configured(drain_timeout=0.0), vip=VipConfig(interface="lvs0"))
    assert await world.once(instance(1), config=config) == 0
    assert world.printed == [
        "reco  tcp 10.9.0.100:80",
        "  + virtual server  wlc                   new in the configuration",
        "  + 10.0.0.1:8080   masquerade, weight 1  passing in Consul: instance 'reco-1' on node 'app1'",
        "+ virtual address 10.9.0.100",
        "in sync, 3 changes made",
    ]
    world.kernel.writes.clear()
    assert await world.once(instance(1), config=config) == 0
    assert world.printed == ["in sync, 0 changes made"]
    assert world.kernel.writes == []


async def test_once_says_what_it_could_not_put_right(world: World) -> None:
    await world.once(instance(1))
    assert await world.once() == 1
    assert world.printed[-1] == "not in sync: 1 difference left, 0 changes made"
    assert "held, for nothing else would serve" in world.printed[1]


async def test_once_leaves_what_is_paused_as_it_is_and_says_so(world: World) -> None:
    assert await world.once(instance(1), instance(2)) == 0
    before = world.kernel.observe().table

    def paused(config: Config, reconciler: Reconciler) -> int:
        reconciler.orders = Orders((Order(what=Pause("reco"), by="alice", reason="by hand", written=NOW),))
        return _once(config, reconciler)

    assert await world.run(paused, always(failing(1), instance(2)), config_of()) == 1
    assert world.kernel.observe().table == before
    assert world.printed[-2:] == [
        "not in sync: 1 difference left, 0 changes made", "paused by alice: by hand: lvsctl resume ends it",
    ]  # fmt: skip


async def test_once_does_not_take_most_of_what_serves_away_unasked(world: World, tmp_path: Path) -> None:
    file, four = (
        tmp_path / "lvsctl.toml",
        [instance(number, tags=("v2",) if number == 1 else ()) for number in range(1, 5)],
    )
    plain = '[virtual_server.reco]\naddress = "10.9.0.100:80"\n'
    before = config_of(daemon=DaemonConfig(state_directory=world.state))
    assert await world.once(*four, config=before) == 0
    table = world.kernel.observe().table

    async def judged(text: str, config: Config) -> int | None:
        file.write_text(text)
        return await world.run(functools.partial(_once, judged=file), always(*four), config)

    gone = attrs.evolve(before, virtual_servers={"shop": configured("shop", OTHER)})
    assert await judged('[virtual_server.shop]\naddress = "10.9.0.100:81"\n', gone) == 1
    assert world.errors == (
        "lvsctl: refused, nothing was changed: it would take away 1 of 1 virtual server (reco) and 4 of 4 real servers "
        "now serving; if that is meant: --allow-remove\n"
    )
    tagged = attrs.evolve(before, virtual_servers={"reco": configured(tags=("v2",))})
    ConfigurationKept(world.state).take(plain)
    assert await judged(plain + 'tags = ["v2"]\n', tagged) == 1
    assert "it would take away 3 of 4 real servers now serving" in world.errors
    assert world.kernel.observe().table == table
    assert await judged(plain, before) == 0
    assert await world.once(*four, config=tagged) is not None
    assert world.kernel.observe().table == table_of(entry(real(1)))


async def test_once_with_a_refusal_is_code_5(world: World) -> None:
    world.kernel.fail_next(AddVirtualServer, errno.ENOMEM)
    assert await world.once(instance(1)) == 5
    expected = "lvsctl: add virtual server tcp 10.9.0.100:80: the kernel is out of memory (ENOMEM)\n"
    assert world.errors == expected


async def test_once_without_consul_writes_nothing(world: World) -> None:
    with pytest.raises(ConsulError, match="No cluster leader"):
        await world.run(_once, refusing(500, "No cluster leader"), config_of())
    assert world.kernel.writes == []
    assert list(world.state.iterdir()) == []


async def test_a_plan_is_printed_and_not_carried_out(world: World) -> None:
    await world.run(_plan, always(instance(1)), config_of())
    assert len(world.printed) == 3
    assert world.kernel.writes == []
    assert list(world.state.iterdir()) == []
    world.kernel = kernel_with(table_of(entry(real(1))))
    await world.run(_plan, always(instance(1)), config_of())
    assert world.printed == ["in sync: nothing would be changed"]


BY_DATACENTER = config_of(configured(failover=("dc2",), drain_timeout=0.0))


def elsewhere_fails(*instances: Instance) -> Answering:
    """Return what has `instances` in the agent's datacenter and knows no way to any other."""

    async def answering(request: web.Request) -> web.StreamResponse:
        return await (refusing(500, "No path to datacenter") if "dc" in request.query else always(*instances))(request)

    return answering


async def test_a_datacenter_that_is_not_needed_may_fail_and_is_named(world: World) -> None:
    with capture_logs() as logs:
        assert await world.run(_once, elsewhere_fails(instance(1)), BY_DATACENTER) == 0
    assert world.kernel.observe().table == table_of(entry(real(1)))
    (failed,) = [each for each in logs if each["event"] == "consul_failed"]
    assert failed["error"] == "datacenter 'dc2': Consul answered 500: No path to datacenter"


@pytest.mark.parametrize("what", [_once, _plan])
async def test_one_that_serves_may_not(world: World, what: Running) -> None:
    async def both(request: web.Request) -> web.StreamResponse:
        return await (always(instance(2)) if "dc" in request.query else always(failing(1)))(request)

    assert await world.run(_once, both, BY_DATACENTER) == 0
    assert world.kernel.observe().table == table_of(entry(real(2)))
    world.kernel.writes.clear()
    with pytest.raises(ConsulError, match="reco: served by another datacenter, which does not answer now"):
        await world.run(what, elsewhere_fails(failing(1)), BY_DATACENTER)
    assert world.kernel.writes == []

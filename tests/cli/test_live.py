"""What a command that asks once makes of a Consul that answers for some and not for others."""

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from lvsctl.cli import live
from lvsctl.config import Config, ConsulConfig, DaemonConfig, OverridesConfig
from lvsctl.core.desired import query_of
from lvsctl.core.fleet import FleetOrder, FleetOrders
from lvsctl.core.order import NO_ORDERS, Hold, Order
from lvsctl.core.override import Override, Overrides, Percent
from lvsctl.errors import ConsulError, ConsulRefused
from lvsctl.key_file import fleet_order_file
from lvsctl.override_file import OverrideFile
from netlink.types import VirtualServerKey
from tests.consul.server import answer, consul, refusing
from tests.values import config_of, configured, instance

RECO, SHOP = configured(), configured("shop", VirtualServerKey.by_mark(7))
AWAY = configured("away", VirtualServerKey.by_mark(8), consul_service="reco", datacenter="dc2")


async def for_reco_only(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(0)
    if request.path.endswith("/shop"):
        return web.Response(status=403, text="Permission denied")
    if "dc" in request.query:
        return web.Response(status=500, text="No path to datacenter")
    return answer(instance(1))


def config_at(address: str, *servers: object, **changes: object) -> Config:
    return config_of(*servers, consul=ConsulConfig(address=address), **changes)  # type: ignore[arg-type]


async def test_what_is_refused_for_one_leaves_the_others_to_be_seen() -> None:
    async with consul(for_reco_only) as server:
        config = config_at(server.address, RECO, SHOP, AWAY)
        asked = await asyncio.to_thread(live.ask, config)
    assert asked.answers.keys() == {query_of(RECO)}
    assert asked.unanswered.keys() == {query_of(SHOP), query_of(AWAY)}
    assert asked.why_unknown(SHOP).startswith("Consul service 'shop': Consul answered 403: Permission denied")
    assert asked.why_unknown(AWAY).startswith("Consul service 'reco' in datacenter 'dc2': Consul answered 500: No path")
    with pytest.raises(ConsulError, match="datacenter 'dc2'"):
        asked.whole()


async def test_nothing_but_refusals_is_no_answer() -> None:
    async with consul(refusing(403, "Permission denied")) as server:
        with pytest.raises(ConsulError, match="Consul service 'reco': Consul answered 403"):
            await asyncio.to_thread(live.ask, config_at(server.address, RECO, SHOP))


async def test_a_consul_that_is_not_there_is_told_once() -> None:
    with pytest.raises(ConsulError, match=r"Consul service '\w+': cannot reach http://127\.0\.0\.1:1"):
        await asyncio.to_thread(live.ask, config_at("http://127.0.0.1:1", RECO, SHOP))


async def test_of_everything_answered_nothing_is_missing() -> None:
    async with consul(for_reco_only) as server:
        asked = await asyncio.to_thread(live.ask, config_at(server.address, RECO))
    assert asked.whole() is asked


async def test_the_last_known_overrides_are_those_of_the_daemon(tmp_path: Path) -> None:
    known = Overrides(entries=(Override(virtual_server="reco", selector="v2", share=Percent(500)),))
    async with consul(refusing(403, "Permission denied")) as server:
        config = config_at(
            server.address,
            RECO,
            overrides=OverridesConfig(kv_prefix="lvsctl"),
            daemon=DaemonConfig(state_directory=tmp_path),
        )
        assert live.last_overrides(config).entries == ()
        OverrideFile(tmp_path).keep(known, server.address, "lvsctl")
        with pytest.raises(ConsulRefused):
            await asyncio.to_thread(live.ask_overrides, config)
        assert live.last_overrides(config) == known
        order = Order(what=Hold("reco"), by="alice@adm1", written=5.0, fleet=True)
        assert live.last_fleet_orders(config).entries == ()
        found = FleetOrders(entries=(FleetOrder(order=order, created=1, modified=2),))
        fleet_order_file(tmp_path).keep(found, server.address, "lvsctl")
        with pytest.raises(ConsulRefused):
            await asyncio.to_thread(live.ask_fleet_orders, config)
        assert live.last_fleet_orders(config).entries == (order,)
        closed = config_at(server.address, RECO, daemon=DaemonConfig(state_directory=tmp_path))
        assert live.last_fleet_orders(closed) == live.ask_fleet_orders(closed) == NO_ORDERS, "nobody is asked"

"""Orders for the fleet on a real Consul with ACLs: written under a condition, read, kept from who may not."""

import asyncio
import time
from ipaddress import ip_address
from pathlib import Path

import attrs
import pytest
from structlog.testing import capture_logs

from lvsctl.consul import fleet_orders as kv
from lvsctl.consul.fleet_orders import FLEET_ORDERS
from lvsctl.consul.key_watch import KeyWatch
from lvsctl.consul.order_keys import key_of, value_of
from lvsctl.core.fleet import NO_FLEET_ORDERS, FleetOrders
from lvsctl.core.order import AtPort, Drain, Hold, OneInstance, Order, Pause
from lvsctl.errors import ConsulRefused
from lvsctl.key_file import FLEET_FILE, fleet_order_file
from lvsctl.override_file import OverrideFile
from tests.consul.server import DEADLINE
from tests.consul.test_acl import OPERATIONS, Guarded, guarded
from tests.consul.test_overrides import _empty, client_of, put, token
from tests.lab.waiting import eventually

__all__ = ["_empty", "guarded"]  # fixtures

READS = 'key_prefix "lvsctl/orders/"  { policy = "read" }'
WRITES = 'key_prefix "lvsctl/orders/"  { policy = "write" }'
NOW = 1.7e9
ORDERS = tuple(
    Order(what=what, by="alice@adm1", reason="\x1b[31m \N{SNOWMAN}", written=NOW, until=NOW + 60, fleet=True)
    for what in (
        Drain(AtPort(ip_address("fd00::1"), 80)), Drain(OneInstance("app/1", "a b%?#")), Hold("reco"), Pause(),
    )
)  # fmt: skip


def test_the_page_has_the_rules_of_these_tests() -> None:
    assert READS in OPERATIONS
    assert WRITES in OPERATIONS


async def test_what_is_written_is_read_and_cleared(guarded: Guarded) -> None:
    async with client_of(guarded, token(guarded, WRITES)["SecretID"]) as client:
        assert await kv.read(client, "lvsctl") == NO_FLEET_ORDERS
        for each in ORDERS:
            key = key_of("lvsctl", each.what)
            assert await kv.write(client, "lvsctl", key, value_of(each), modified=0)
            assert not await kv.write(client, "lvsctl", key, value_of(each), modified=0), "it is there"
        found = await kv.read(client, "lvsctl")
        assert (found.orders.entries, found.ignored) == (ORDERS, ())
        first, *rest = found.entries
        key = key_of("lvsctl", first.order.what)
        assert not await kv.clear(client, "lvsctl", key, modified=first.modified + 1)
        assert await kv.clear(client, "lvsctl", key, modified=first.modified)
        assert (await kv.read(client, "lvsctl")).entries == tuple(rest)


async def test_of_many_who_write_at_the_same_time_one_does(guarded: Guarded) -> None:
    async with client_of(guarded, token(guarded, WRITES)["SecretID"]) as client:
        each = ORDERS[2]
        written = await asyncio.gather(
            *(
                kv.write(client, "lvsctl", "lvsctl/orders/hold/reco", value_of(attrs.evolve(each, by=by)), modified=0)
                for by in "abcdefgh"
            )
        )
        assert sum(written) == 1
        (there,) = (await kv.read(client, "lvsctl")).orders.entries
        assert there.by == "abcdefgh"[written.index(True)]


@pytest.mark.parametrize("rules", ['key_prefix "lvsctl/weights/" { policy = "write" }', READS])
async def test_who_may_not_is_told_the_rule(guarded: Guarded, rules: str) -> None:
    async with client_of(guarded, token(guarded, rules)["SecretID"]) as client:
        with pytest.raises(ConsulRefused, match=r'the token needs key_prefix "lvsctl/orders/" { policy = "write" }'):
            await kv.write(client, "lvsctl", "lvsctl/orders/pause", "{}", modified=0)
        if rules == READS:
            assert await kv.read(client, "lvsctl") == NO_FLEET_ORDERS
            return
        with pytest.raises(ConsulRefused, match=r'the token needs key_prefix "lvsctl/orders/" { policy = "read" }'):
            await kv.read(client, "lvsctl")


async def test_a_watch_hears_within_a_moment_and_keeps_what_it_heard(guarded: Guarded, tmp_path: Path) -> None:
    file = fleet_order_file(tmp_path)
    async with client_of(guarded, token(guarded, READS)["SecretID"]) as client:

        def keep(found: FleetOrders) -> None:
            file.keep(found, client.address, "lvsctl")

        watch = KeyWatch(FLEET_ORDERS, client, "lvsctl", lambda: None, keep)
        task = asyncio.create_task(watch.run(), name="watch")
        try:
            await asyncio.to_thread(eventually, lambda: watch.settled, within=DEADLINE)
            began = time.monotonic()
            put(guarded, "lvsctl/orders/drain/node/app1", "{}")
            await asyncio.to_thread(eventually, lambda: watch.value.entries, within=DEADLINE, every=0.01)
            assert time.monotonic() - began < 2
            await asyncio.to_thread(eventually, (tmp_path / FLEET_FILE).exists, within=DEADLINE)
            kept = fleet_order_file(tmp_path).load(client.address, "lvsctl")
            assert kept == watch.value, "written by hand, without a time"
            assert fleet_order_file(tmp_path).load(client.address, "other") == NO_FLEET_ORDERS
            (tmp_path / "overrides.json").write_bytes((tmp_path / FLEET_FILE).read_bytes())
            with capture_logs() as logs:
                assert OverrideFile(tmp_path).load(client.address, "lvsctl").entries == ()
            assert [each["event"] for each in logs] == ["fleet_orders_file_ignored", "overrides_file_ignored"][1:]
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

"""Failover between two real Consul datacenters: watched by the real watches, decided in whole cycles."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address
from pathlib import Path

import attrs
import pytest

from lvsctl.config import Config, ConsulConfig
from lvsctl.consul.choice import Way
from lvsctl.consul.client import Client
from lvsctl.consul.once import ask_once
from lvsctl.consul.watch import Watches
from lvsctl.core.desired import contested_queries_of, first_queries_of, queries_of
from lvsctl.core.instance import Query
from lvsctl.errors import ConsulError
from netlink.types import Protocol, Table, VirtualServerKey
from tests.consul.datacenters import Datacenter, joined, two_datacenters
from tests.values import KEY, Cycles, config_of, configured, entry, kernel_with, real, table_of

WITHIN = (
    30.0  # seconds for what must come; a query that nothing wakes waits for 25, so what is there by then may be late
)
QUIET = 3.0  # seconds in which what must not come would have
RECO_THERE = Query(service="reco", datacenter="dc2")
TWO = config_of(configured(failover=("dc2",)))
MANY = config_of(
    configured(failover=("dc2",)),
    *(
        configured(
            f"more-{number}",
            VirtualServerKey.by_address(Protocol.TCP, ip_address(f"10.9.1.{number}"), 80),
            failover=("dc2",),
        )
        for number in range(1, 6)
    ),
)  # 12 queries, of which 24 connections leave room for 10


@attrs.define
class Director:
    """Watches on the first datacenter, and cycles with what they say."""

    watches: Watches
    cycles: Cycles
    seen: list[Table] = attrs.field(factory=list)

    def once(self) -> Table:
        """Return what the kernel has of reco after a cycle."""
        self.cycles.answers = self.watches.heard.answers
        self.cycles.once()
        table = {key: each for key, each in self.cycles.kernel.observe().table.items() if key == KEY}
        if not self.seen or self.seen[-1] != table:
            self.seen.append(table)
        return table

    async def until(self, happened: Callable[[Table], bool]) -> None:
        """Return when it happened."""
        async with asyncio.timeout(WITHIN):
            while not happened(self.once()):  # noqa: ASYNC110 -- of many things, and no event tells of all
                await asyncio.sleep(0.05)

    async def until_table(self, table: Table) -> None:
        """Return when the kernel has `table`, and something served in every cycle until then."""
        began = len(self.seen)
        await self.until(lambda found: found == table)
        for each in self.seen[max(0, began - 1) :]:
            assert any(real_server.weight for real_server in each[KEY].real_servers.values())

    async def stays(self, table: Table) -> None:
        """Return after a while in which the kernel had `table` and nothing was written."""
        await self.until_table(table)
        self.cycles.kernel.writes.clear()
        ends = asyncio.get_running_loop().time() + QUIET
        while asyncio.get_running_loop().time() < ends:
            assert self.once() == table
            await asyncio.sleep(0.05)
        assert self.cycles.kernel.writes == []


@contextlib.asynccontextmanager
async def directing(datacenter: Datacenter, config: Config) -> AsyncIterator[Director]:
    """Watch at `datacenter` while the context lasts."""
    client = Client(ConsulConfig(address=datacenter.address))
    watches = Watches(client, lambda: None)
    watches.watch(queries_of(config), first=first_queries_of(config), contested=contested_queries_of(config))
    task = asyncio.create_task(watches.run())
    try:
        async with asyncio.timeout(WITHIN):
            while not watches.heard.complete:  # noqa: ASYNC110 -- the same
                await asyncio.sleep(0.05)
        yield Director(watches=watches, cycles=Cycles(config=config, answers={}, kernel=kernel_with({}), ledger={}))
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await client.close()


@pytest.mark.parametrize(("config", "limit", "way"), [(TWO, 200, Way.POLLS), (MANY, 24, Way.SIGNALS)])
async def test_another_datacenter_takes_over_and_gives_back(
    tmp_path: Path, config: Config, limit: int, way: Way
) -> None:
    async with two_datacenters(tmp_path, limit=limit) as (one, two):
        await one.have("reco", a1="passing", a2="passing", a3="passing", a4="passing")
        await two.have("reco", b11="passing", b12="passing")
        async with directing(one, config) as director:
            assert director.watches.choice is not None
            assert director.watches.choice.way is way
            first = table_of(entry(real(1), real(2), real(3), real(4)))
            second = table_of(entry(real(11), real(12)))
            await director.until_table(first)
            await director.until(lambda _: RECO_THERE in director.watches.heard.answers)

            await one.have("reco", a1="critical", a2="critical", a3="critical")
            await director.until(lambda found: len(found[KEY].real_servers) == 2)  # the floor: half of the four
            await one.have("reco", a4="critical")
            await director.until_table(second)
            await one.have("reco", a1="passing")
            await director.until(lambda _: director.cycles.last is not None and "1 now" in why_not(director))
            await director.stays(second)
            await one.have("reco", a2="passing")
            await director.until_table(table_of(entry(real(1), real(2))))
            await one.have("reco", a3="passing", a4="passing")
            await director.until_table(first)


def why_not(director: Director) -> str:
    """Return why the first instance does not serve, in words; empty when it does."""
    assert director.cycles.last is not None
    wanted = director.cycles.last.virtual_servers[KEY].wanted
    assert wanted is not None
    return getattr(next(each for each in wanted.members if each.source.node == "a1").verdict, "text", "")


async def test_a_datacenter_that_dies_changes_nothing_and_takes_nothing_over(tmp_path: Path) -> None:
    async with two_datacenters(tmp_path) as (one, two):
        await one.have("reco", a1="passing", a2="passing")
        await two.have("reco", b11="passing")
        async with directing(one, TWO) as director:
            first = table_of(entry(real(1), real(2)))
            await director.until_table(first)
            await director.until(lambda _: RECO_THERE in director.watches.heard.answers)
            await two.kill()
            await director.until(lambda _: director.watches.heard.contacts[RECO_THERE].failing_since is not None)
            assert director.watches.heard.contacts[RECO_THERE].error.startswith("datacenter 'dc2': Consul answered 50")
            await director.stays(first)

            await one.have("reco", a1="critical")
            await director.until_table(table_of(entry(real(2))))
            await one.have("reco", a2="critical")
            await director.until(
                lambda _: bool(director.cycles.last and director.cycles.last.virtual_servers[KEY].held)
            )
            await director.stays(table_of(entry(real(2))))  # held: nobody knows how dc2 is

            await two.start(one, 200)
            await joined(one, two)
            await director.until_table(table_of(entry(real(11))))
            await two.kill()
            await director.until(lambda _: director.watches.heard.contacts[RECO_THERE].failing_since is not None)
            await director.stays(table_of(entry(real(11))))  # by its last answer


async def test_what_asks_once_needs_the_first_alone(tmp_path: Path) -> None:
    async with two_datacenters(tmp_path) as (one, two):
        await one.have("reco", a1="passing")
        await two.have("reco", b11="passing")
        async with Client(ConsulConfig(address=one.address)) as client:
            both = await ask_once(client, first_queries_of(TWO), queries_of(TWO))
            assert {query.datacenter: len(answer.instances) for query, answer in both.items()} == {"": 1, "dc2": 1}
            await two.kill()
            alone = await ask_once(client, first_queries_of(TWO), queries_of(TWO))
            assert [query.datacenter for query in alone] == [""]
            with pytest.raises(ConsulError, match=r"'reco' in datacenter 'dc2': Consul answered 50[03]"):
                await ask_once(client, queries_of(TWO))

"""Watches by signals: what may have changed is asked for, and nothing else."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, MutableMapping, Sequence
from typing import Any

import attrs
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from lvsctl.config import ConsulConfig
from lvsctl.consul import signals, transport, turns, watch
from lvsctl.consul.budget import Share
from lvsctl.consul.choice import Way
from lvsctl.consul.client import Client
from lvsctl.consul.pace import WAIT
from lvsctl.consul.signals import Signals
from lvsctl.consul.watch import Watches
from lvsctl.core.instance import Instance, Query
from tests.consul.certificates import Certificates
from tests.consul.listener import Asked, Listener
from tests.consul.server import DEADLINE, Consul, always, answer, consul
from tests.values import failing, instance

NAMES = [f"service-{number}" for number in range(20)]
QUERIES = [Query(service=name) for name in NAMES]


@attrs.define
class Catalogue:
    """As much of a catalogue as signals need, each list with its index. Every Consul service has one instance."""

    instances: dict[str, Instance] = attrs.field(factory=lambda: {name: instance(1) for name in NAMES})
    checks: dict[str, int] = attrs.field(factory=lambda: dict.fromkeys(NAMES, 1))
    nodes: dict[str, int] = attrs.field(factory=lambda: {"app1": 1})
    tags: dict[str, list[str]] = attrs.field(factory=dict)  # none but these
    indexes: dict[str, int] = attrs.field(
        factory=lambda: {"health/state/any": 5, "catalog/services": 5, "catalog/nodes": 5}
    )
    broken: bool = False
    empty: bool = False  # it lists no instances
    spoiled: bytes = b""  # what the checks are answered with instead
    asked: list[str] = attrs.field(factory=list)  # Consul services
    _changed: asyncio.Condition = attrs.field(factory=asyncio.Condition)

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        if self.broken:
            return web.Response(status=500, text="No cluster leader")
        path = request.path.removeprefix("/v1/")
        if path.startswith("health/service/"):
            name = path.removeprefix("health/service/")
            assert "index" not in request.query
            self.asked.append(name)
            return answer(*([] if self.empty else [self.instances[name]]), index="6" if self.empty else "5")
        async with self._changed:
            await self._changed.wait_for(
                lambda: self.broken or int(request.query.get("index", 0)) != self.indexes[path]
            )
        if self.broken:
            return web.Response(status=500, text="No cluster leader")
        bodies: dict[str, object] = {
            "health/state/any": [
                {"Node": "app1", "CheckID": name, "ServiceName": name, "ModifyIndex": index}
                for name, index in self.checks.items()
            ],
            "catalog/services": {name: self.tags.get(name, []) for name in self.checks},
            "catalog/nodes": [{"Node": name, "ModifyIndex": index} for name, index in self.nodes.items()],
        }
        if self.spoiled and path == "health/state/any":
            return web.Response(body=self.spoiled, headers={"X-Consul-Index": str(self.indexes[path])})
        return web.json_response(bodies[path], headers={"X-Consul-Index": str(self.indexes[path])})

    async def move(self, path: str) -> None:
        """Have a list move; what it lists was changed before."""
        async with self._changed:
            self.indexes[path] += 1
            self._changed.notify_all()

    async def be(self, *, broken: bool) -> None:
        """Fail, or not any more."""
        async with self._changed:
            self.broken = broken
            self._changed.notify_all()


@attrs.define
class Watching:
    """Watches that run."""

    server: Consul
    catalogue: Catalogue
    watches: Watches

    async def until(self, happened: Callable[[], bool]) -> None:
        """Return when it happened."""
        async with asyncio.timeout(DEADLINE):
            while not happened():  # noqa: ASYNC110 -- of many things, and no event tells of all
                await asyncio.sleep(0.01)

    async def settled(self) -> None:
        """Return when all was asked for and all three lists are waited for again."""
        await self.until(lambda: self.watches.heard.complete)
        await self.until(lambda: self.waiting() >= 3)
        self.catalogue.asked.clear()

    def waiting(self) -> int:
        """Return how many blocking queries came."""
        return sum("index" in request.query for request in self.server.requests)


@pytest.fixture
async def watching(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watching]:
    """Watch more Consul services than an agent with 20 connections has room for."""
    monkeypatch.setattr(signals, "AT_MOST_EVERY", 0.05)
    monkeypatch.setattr(turns, "ROUND", 0.3)
    catalogue = Catalogue()
    async with consul(catalogue) as server:
        server.limit = 20
        asking = Client(ConsulConfig(address=server.address))
        watches = Watches(asking, lambda: None)
        watches.watch(QUERIES)
        task = asyncio.create_task(watches.run())
        try:
            yield Watching(server=server, catalogue=catalogue, watches=watches)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await asking.close()


async def test_all_are_asked_for_at_the_start_and_none_after(watching: Watching) -> None:
    await watching.until(lambda: watching.watches.heard.complete)
    assert watching.watches.choice is not None
    assert watching.watches.choice.way is Way.SIGNALS
    await asyncio.sleep(0.5)
    assert sorted(watching.catalogue.asked) == sorted(NAMES)
    assert [len(found.instances) for found in watching.watches.heard.answers.values()] == [1] * len(NAMES)


async def test_a_small_limit_of_connections_leaves_room_for_others(watching: Watching) -> None:
    await watching.settled()
    server = watching.server
    ports = {request.transport.get_extra_info("peername") for request in server.requests if request.transport}
    assert None not in ports
    assert len(ports) <= 9  # 45 of 100 of the 20


async def test_a_check_that_changes_is_one_question(watching: Watching) -> None:
    await watching.settled()
    catalogue = watching.catalogue
    catalogue.checks["service-3"] = 2
    catalogue.instances["service-3"] = failing(1)
    await catalogue.move("health/state/any")
    await watching.until(lambda: watching.watches.heard.answers[QUERIES[3]].instances == (failing(1),))
    assert catalogue.asked == ["service-3"]


async def test_a_name_in_another_case_is_the_same_to_consul(watching: Watching) -> None:
    await watching.settled()
    watching.catalogue.checks["Service-3"] = 1
    watching.catalogue.instances["service-3"] = failing(1)
    await watching.catalogue.move("health/state/any")
    await watching.until(lambda: watching.watches.heard.answers[QUERIES[3]].instances == (failing(1),))
    assert watching.catalogue.asked == ["service-3"]


async def test_a_weight_that_no_list_has_is_found(watching: Watching) -> None:
    await watching.settled()
    heavier = attrs.evolve(instance(1), address="10.0.0.99")
    watching.catalogue.instances["service-7"] = heavier
    await watching.catalogue.move("catalog/services")
    await watching.until(lambda: watching.watches.heard.answers[QUERIES[7]].instances == (heavier,))
    await watching.until(lambda: len(watching.catalogue.asked) == len(NAMES))
    assert sorted(watching.catalogue.asked) == sorted(NAMES)


@pytest.mark.parametrize("tags", [["v2", "blue"], ["blue", "v2", "green"]])
async def test_a_weight_is_found_although_the_list_differs_in_tags(watching: Watching, tags: list[str]) -> None:
    """Consul lists tags in another order each time, and those of one may change together with a weight of another."""
    await watching.settled()
    watching.catalogue.tags["service-2"] = ["blue", "v2"]
    await watching.catalogue.move("catalog/services")
    await watching.until(lambda: len(watching.catalogue.asked) >= len(NAMES))
    heavier = attrs.evolve(instance(1), address="10.0.0.99")
    watching.catalogue.instances["service-7"] = heavier
    watching.catalogue.tags["service-2"] = tags
    await watching.catalogue.move("catalog/services")
    await watching.until(lambda: watching.watches.heard.answers[QUERIES[7]].instances == (heavier,))


async def test_a_node_concerns_the_instances_on_it(watching: Watching) -> None:
    await watching.settled()
    node = instance(1).node
    watching.catalogue.nodes[node] = 2
    await watching.catalogue.move("catalog/nodes")
    await watching.until(lambda: len(watching.catalogue.asked) == len(NAMES))


async def test_everything_is_asked_for_no_more_often_than_that(watching: Watching) -> None:
    await watching.settled()
    for _ in range(20):
        await watching.catalogue.move("catalog/services")
        await asyncio.sleep(0.05)
    assert len(watching.catalogue.asked) <= 6 * len(NAMES)


async def test_after_a_failure_everything_is_asked_for(watching: Watching) -> None:
    await watching.settled()
    await watching.catalogue.be(broken=True)
    await watching.until(lambda: all(each.failing_since for each in watching.watches.heard.contacts.values()))
    assert {each.error for each in watching.watches.heard.contacts.values()} == {
        "Consul answered 500: No cluster leader"
    }
    assert watching.watches.heard.complete, "a failure is never emptiness"
    watching.catalogue.instances["service-5"] = instance(2)
    await watching.catalogue.be(broken=False)
    await watching.until(lambda: watching.watches.heard.answers[QUERIES[5]].instances == (instance(2),))
    await watching.until(lambda: not any(each.failing_since for each in watching.watches.heard.contacts.values()))


@pytest.mark.parametrize("limit", [20, 1000])
async def test_after_an_outage_so_few_are_in_doubt_of_those_too_that_were_not_asked_in_vain(
    watching: Watching, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """The lists failed, and a few queries; the way may be another one when Consul is back, and each watcher new."""
    monkeypatch.setattr(turns, "ROUND", 2.0)
    monkeypatch.setattr(watch, "TROUBLED", 4)
    await watching.settled()
    await watching.catalogue.be(broken=True)
    await watching.until(lambda: watching.watches.heard.failing("") >= 4)
    watching.catalogue.empty, watching.server.limit = True, limit
    watching.watches.watch(QUERIES)
    await watching.catalogue.be(broken=False)
    answers = watching.watches.heard
    await watching.until(lambda: all(not each.instances for each in answers.answers.values()))
    assert {each.doubt for each in answers.answers.values()} == {
        "Consul has just come back, and lists 0 of 1 instances"
    }
    assert watching.watches.choice is not None
    assert watching.watches.choice.way is (Way.SIGNALS if limit == 20 else Way.POLLS)


@pytest.mark.parametrize("spoiled", [b"[", b" " * 5000, b'[{"Node":"\xff","CheckID":"c","ServiceName":"x"}]'])
async def test_a_list_that_cannot_be_read_delays_news_and_hides_none(
    watching: Watching, monkeypatch: pytest.MonkeyPatch, spoiled: bytes
) -> None:
    """Too large or broken as a whole, or one byte that is no UTF-8 and may hide what has changed."""
    monkeypatch.setattr(turns, "ROUND", 0.3)
    await watching.settled()
    monkeypatch.setattr(transport, "MAX_BODY", 4096)
    watching.catalogue.spoiled = spoiled
    await watching.catalogue.move("health/state/any")
    await watching.until(lambda: len(watching.catalogue.asked) >= len(NAMES))
    watching.catalogue.instances["service-3"] = instance(2)
    await watching.catalogue.move("health/state/any")
    await watching.until(lambda: watching.watches.heard.answers[QUERIES[3]].instances == (instance(2),))
    assert not any(each.failing_since for each in watching.watches.heard.contacts.values())
    assert watching.watches.choice is not None
    if b"Node" not in spoiled:
        assert "/v1/health/state/any" in watching.watches.choice.why
        assert watching.watches.choice.why.endswith(", so every Consul service is asked about each 0 s")
        if len(spoiled) > 4096:  # the request that waited had the limit of before
            await watching.until(lambda: "answer is larger than" in str(watching.watches.choice))
        assert "http_max_conns_per_client = " in watching.watches.choice.remedy
        assert "or use HTTP/2: an https consul.address" in watching.watches.choice.remedy


async def test_turns_end_with_their_reason(watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "ROUND", 0.1)
    await watching.settled()
    watching.catalogue.spoiled = b"["
    await watching.catalogue.move("health/state/any")
    await watching.until(lambda: len(watching.catalogue.asked) >= 2 * len(NAMES))
    watching.catalogue.spoiled = b""
    await watching.catalogue.move("health/state/any")
    await watching.until(lambda: watching.watches.choice is not None and "asked" not in watching.watches.choice.why)
    await asyncio.sleep(0.5)  # everything is asked for once more
    asked = len(watching.catalogue.asked)
    await asyncio.sleep(0.5)
    assert len(watching.catalogue.asked) == asked


async def test_a_consul_that_is_away_is_not_asked_by_all_in_turn(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "ROUND", 2.0)
    monkeypatch.setattr(watch, "TROUBLED", 4)
    await watching.settled()
    await watching.catalogue.be(broken=True)
    own = watching.watches.heard._contacts  # noqa: SLF001  what each heard itself
    await watching.until(lambda: sum(each.failing_since is not None for each in own.values()) >= 4)
    await asyncio.sleep(2)  # a round
    assert sum(each.failing_since is not None for each in own.values()) < 10


async def test_fewer_that_fit_are_waited_for_one_by_one(watching: Watching) -> None:
    await watching.settled()
    watching.watches.watch(QUERIES[:9])
    await watching.until(lambda: watching.watches.choice is not None and watching.watches.choice.way is Way.POLLS)
    assert watching.watches.heard.complete
    assert watching.watches.heard.answers.keys() == set(QUERIES[:9])


async def test_a_limit_that_is_not_told_any_more_still_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A revoked token hides the limit, and an agent that is away tells nothing: neither changes the way."""
    monkeypatch.setattr(watch, "CHOOSE_AGAIN", 0.05)
    async with consul(always(instance(1))) as server:
        server.limit = 1000
        asking = Client(ConsulConfig(address=server.address))
        watches = Watches(asking, lambda: None)
        watches.watch([Query(service=f"many-{number}") for number in range(100)])
        task = asyncio.create_task(watches.run())
        running = Watching(server=server, catalogue=Catalogue(), watches=watches)
        try:
            await running.until(lambda: watches.heard.complete)
            assert watches.choice is not None
            assert watches.choice.way is Way.POLLS
            server.limit = None  # the agent refuses to tell it
            told = server.told
            await running.until(lambda: server.told > told + 2)
            assert watches.choice.way is Way.POLLS
            monkeypatch.setattr(asking, "capacity", nothing)
            told = len(ASKED)
            await running.until(lambda: len(ASKED) > told + 2)
            assert watches.choice.way is Way.POLLS
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await asking.close()


async def test_nothing_is_advised_before_the_agent_has_answered() -> None:
    """Consul is away at the start: what it lacks is not known, and HTTP/2 may be all there."""
    async with consul(always(instance(1))) as server:
        address = server.address
    asking = Client(ConsulConfig(address=address))
    watches = Watches(asking, lambda: None)
    watches.watch([Query(service=f"many-{number}") for number in range(100)])
    with capture_logs() as logged:
        task = asyncio.create_task(watches.run())
        try:
            running = Watching(server=server, catalogue=Catalogue(), watches=watches)
            await running.until(lambda: any(each["event"] == "consul_failed" for each in logged))
            assert levels(logged) == ["info"]
            assert watches.choice is not None
            assert not watches.choice.remedy
            assert watches.choice.why.startswith("the agent has not answered yet; ")
            async with consul(always(instance(1)), port=int(address.rpartition(":")[2])):
                await running.until(lambda: watches.heard.complete)
                await running.until(lambda: len(levels(logged)) > 1)
                assert levels(logged) == ["info", "warning"]
                assert watches.choice.why.startswith("100 do not fit into the 90 ")
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await asking.close()


def levels(logged: Sequence[MutableMapping[str, Any]]) -> list[str]:
    return [each["log_level"] for each in logged if each["event"] == "consul_transport"]


async def test_http2_that_shares_nothing_takes_a_few_connections_of_the_limit(certificates: Certificates) -> None:
    def answering(asked: Asked) -> None:
        path = asked.headers[":path"]
        if path == "/v1/agent/self":
            asked.answer(b'{"DebugConfig": {"HTTPMaxConnsPerClient": 200}}')
        elif "index=" not in path:
            asked.answer(b"{}" if "catalog/services" in path else b"[]", x_consul_index="7")

    async with Listener.serving(certificates, answering, most_streams=1) as listener:
        config = ConsulConfig(
            address=f"https://127.0.0.1:{listener.port}",
            ca_file=certificates.ca,
            certificate_file=certificates.client,
            key_file=certificates.client_key,
        )
        asking = Client(config)
        watches = Watches(asking, lambda: None)
        watches.watch([Query(service=f"many-{number}") for number in range(300)])
        task = asyncio.create_task(watches.run())
        try:
            async with asyncio.timeout(DEADLINE):
                while not watches.heard.complete:
                    assert len(listener.open) <= 90
                    await asyncio.sleep(0.01)
            assert watches.choice is not None
            assert watches.choice.way is Way.STREAM_SIGNALS
            assert not any(each.failing_since for each in watches.heard.contacts.values())
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await asking.close()


ASKED: list[None] = []


async def nothing() -> None:
    """Be an agent that is away."""
    await asyncio.sleep(0)
    ASKED.append(None)


@pytest.mark.unexpected
async def test_an_error_that_nobody_expected_fails_its_list_and_is_tried_again() -> None:
    again = asyncio.Event()

    class Broken(Client):
        asked = 0

        async def listing(
            self, path: str, datacenter: str = "", *, share: Share, index: int = 0, wait: float = WAIT
        ) -> tuple[int, bytes]:
            self.asked += 1
            if self.asked == 9:
                again.set()
            raise ZeroDivisionError(f"deep inside {path} of {datacenter!r} at {index}, {wait}, {len(share)}")

    client = Broken(ConsulConfig(address="http://127.0.0.1:1"))
    listening = Signals(client, "", lambda _changes: 0)
    task = asyncio.create_task(listening.run(), name="signals")
    try:
        async with asyncio.timeout(DEADLINE):
            await again.wait()
        assert not task.done()
        assert "ZeroDivisionError" in listening.contact.error
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.close()

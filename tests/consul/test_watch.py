"""Blocking queries against a Consul that misbehaves: the index rules, and that a failure is never emptiness.

Nothing here sleeps to wait for something: it waits for the request, the wake or the news, under a deadline.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Self

import attrs
import pytest
import structlog
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from lvsctl.config import ConsulConfig, Secret
from lvsctl.consul import pace
from lvsctl.consul.client import Capacity, Client
from lvsctl.consul.known import Known
from lvsctl.consul.once import ask_once
from lvsctl.consul.pace import (
    FIRST_BACK_OFF,
    FIRST_LEAP,
    LARGEST_INDEX,
    LEAP,
    LONGEST_BACK_OFF,
    WAIT,
    back_off,
    next_index,
    wait_after,
    wait_in_doubt,
)
from lvsctl.consul.watch import Watches
from lvsctl.core.instance import Answer, Health, Instance, Query
from lvsctl.errors import ConsulError
from tests.consul.server import DEADLINE, Answering, Blocking, Consul, always, answer, consul, refusing
from tests.values import failing, instance

RECO = Query(service="reco")
CANARY = "canary-3e8d-token"
SHOP = Query(service="shop")


@attrs.define
class Woken:
    """Counts wakes and lets a test wait for what a wake brings."""

    count: int = 0
    _event: asyncio.Event = attrs.field(factory=asyncio.Event)

    def __call__(self) -> None:
        """Be woken."""
        self.count += 1
        self._event.set()

    async def until(self, happened: Callable[[], bool]) -> None:
        """Return when a wake finds that it `happened`."""
        async with asyncio.timeout(DEADLINE):
            while not happened():
                self._event.clear()
                await self._event.wait()


@attrs.define
class Watching:
    """Watches that run, with all that they are made of."""

    server: Consul
    client: Client
    watches: Watches
    woken: Woken

    @classmethod
    def of(cls, server: Consul) -> Self:
        """Return watches that ask `server`."""
        woken = Woken()
        client = Client(ConsulConfig(address=server.address))
        return cls(server=server, client=client, watches=Watches(client, woken), woken=woken)


@contextlib.asynccontextmanager
async def watching(
    server: Consul, *queries: Query, snapshot: Mapping[Query, Answer] | None = None
) -> AsyncIterator[Watching]:
    """Watch `queries` at `server` while the context lasts, from a start with `snapshot`."""
    all_of_it = Watching.of(server)
    all_of_it.watches.heard.recall(snapshot or {})
    all_of_it.watches.watch(queries)
    task = asyncio.create_task(all_of_it.watches.run(), name="watches")
    try:
        yield all_of_it
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await all_of_it.client.close()


def names(found: Answer | None) -> list[str] | None:
    return None if found is None else [each.instance_id for each in found.instances]


# --- the rules, in order --------------------------------------------------------------------------------------------


indexes = st.integers(0, 100) | st.integers(0, 2 * LEAP) | st.integers(0, 2**64)


@given(sent=indexes, received=indexes, seen=indexes)
def test_an_index_never_goes_back_nor_leaps(sent: int, received: int, seen: int) -> None:
    following = next_index(sent, received, seen)
    assert following in (0, received)
    assert following == 0 or following >= sent
    leapt = received - seen > (LEAP if seen else FIRST_LEAP)
    assert (following == 0) == (received == 0 or received < sent or leapt)


@given(received=st.integers(1, LARGEST_INDEX))
def test_an_index_that_leapt_counts_when_the_next_answer_has_it_too(received: int) -> None:
    assert next_index(0, received, received) == received


@given(failures=st.integers(1, 10**9))
def test_a_back_off_has_bounds(failures: int) -> None:
    assert FIRST_BACK_OFF / 2 <= back_off(failures) <= LONGEST_BACK_OFF


async def test_news_arrive_and_the_next_request_blocks_on_their_index() -> None:
    blocking = Blocking((instance(1),))
    async with consul(blocking) as server, watching(server, RECO) as all_of_it:
        watches, woken = all_of_it.watches, all_of_it.woken
        assert not watches.heard.complete
        await woken.until(lambda: watches.heard.complete)
        assert names(watches.heard.answers[RECO]) == ["reco-1"]
        await server.came(2)
        await blocking.change(instance(1), instance(2))
        await woken.until(lambda: names(watches.heard.answers[RECO]) == ["reco-1", "reco-2"])
        await server.came(3)
        assert server.indexes() == [None, "10", "11"]
        assert 0 < float(server.requests[1].query["wait"].removesuffix("s")) <= WAIT
        assert server.requests[2].query["wait"] == "25s"


async def test_an_index_that_went_back_starts_over() -> None:
    blocking = Blocking((instance(1),), index=50)
    async with consul(blocking) as server, watching(server, RECO) as all_of_it:
        await server.came(2)
        await blocking.change(instance(2), index=3)
        await all_of_it.woken.until(lambda: names(all_of_it.watches.heard.answers[RECO]) == ["reco-2"])
        await server.came(6)
        asked = [each.query.get("index") for each in server.requests if "consistent" not in each.query]
        assert asked == [None, "50", None, "3"]


@attrs.define
class Patient:
    """Blocks as Consul does on an index that is its own or beyond; `lie` is the index of one answer."""

    instances: tuple[Instance, ...]
    index: int = 50
    lie: int = 0
    told: int = 0  # lies
    _changed: asyncio.Condition = attrs.field(factory=asyncio.Condition)

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        async with self._changed:
            await self._changed.wait_for(lambda: int(request.query.get("index", 0)) < self.index or bool(self.lie))
            lie, self.lie = self.lie, 0
        self.told += bool(lie)
        return answer(*self.instances, index=str(lie or self.index))

    async def change(self, *instances: Instance, lie: int = 0) -> None:
        async with self._changed:
            self.instances, self.index, self.lie = instances, self.index + (not lie), lie
            self._changed.notify_all()


@pytest.mark.parametrize("lie", [50 + LEAP + 1, 9 * 10**15])
async def test_a_flip_is_noticed_soon_after_an_index_that_leapt(lie: int) -> None:
    patient = Patient((instance(1), instance(2)))
    async with consul(patient) as server, watching(server, RECO) as all_of_it:
        await server.came(2)
        await patient.change(instance(1), instance(2), lie=lie)
        await server.came(3)
        assert server.indexes() == [None, "50", None]
        await server.came(4)
        assert server.indexes()[3] == "50"
        began = time.monotonic()
        await patient.change(instance(1), failing(2))
        await all_of_it.woken.until(
            lambda: (
                [each.health for each in all_of_it.watches.heard.answers[RECO].instances]
                == [Health.PASSING, Health.CRITICAL]
            )
        )
        assert time.monotonic() - began < 1.0


async def test_a_first_index_beyond_all_is_asked_for_again() -> None:
    patient = Patient((instance(1),), lie=9 * 10**15)
    async with consul(patient) as server, watching(server, RECO):
        await server.came(3)
        assert server.indexes() == [None, None, "50"]


async def test_an_index_that_leapt_for_good_is_blocked_on() -> None:
    blocking = Blocking((instance(1),), index=50)
    async with consul(blocking) as server, watching(server, RECO):
        await server.came(2)
        await blocking.change(instance(1), index=9 * 10**15)
        await server.came(4)
        assert server.indexes() == [None, "50", None, str(9 * 10**15)]


@pytest.mark.parametrize("status", [403, 500])
async def test_an_error_keeps_the_last_answer_and_its_index_is_never_used(status: int) -> None:
    blocking = Blocking((instance(1),))
    async with consul(blocking) as server, watching(server, RECO) as all_of_it:
        watches, woken = all_of_it.watches, all_of_it.woken
        await server.came(2)
        server.answering = refusing(status, "No cluster leader")
        await blocking.change(instance(1))  # ends the request that is held
        await server.came(4)
        assert watches.heard.contacts[RECO].failing_since is not None
        assert watches.heard.contacts[RECO].error.startswith(f"Consul answered {status}: No cluster leader")
        assert names(watches.heard.answers[RECO]) == ["reco-1"]
        assert watches.heard.complete
        assert woken.count == 1
        assert "999" not in server.indexes()
        server.answering = Blocking((instance(1), instance(2)))
        await woken.until(lambda: names(watches.heard.answers[RECO]) == ["reco-1", "reco-2"])
        assert watches.heard.contacts[RECO].failing_since is None


async def test_a_query_that_was_never_answered_is_absent_not_empty() -> None:
    async with consul(refusing(500)) as server, watching(server, RECO) as all_of_it:
        await server.came(2)
        assert all_of_it.watches.heard.answers == {}
        assert not all_of_it.watches.heard.complete
        assert all_of_it.watches.heard.contacts[RECO].last is None
        assert all_of_it.woken.count == 0


@pytest.mark.parametrize("body", [b"[", b"{}"])
async def test_half_an_answer_is_none(body: bytes) -> None:
    async def broken(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, headers={"X-Consul-Index": "11"})

    blocking = Blocking((instance(1),))
    async with consul(blocking) as server, watching(server, RECO) as all_of_it:
        await server.came(2)
        server.answering = broken
        await blocking.change(instance(1))
        await server.came(4)
        assert names(all_of_it.watches.heard.answers[RECO]) == ["reco-1"]
        assert all_of_it.watches.heard.contacts[RECO].failing_since is not None


@pytest.mark.parametrize("index", [None, "x", "0", str(LARGEST_INDEX + 1), "9999999999999999999"])
async def test_without_a_usable_index_it_asks_again_without_blocking_and_not_at_once(index: str | None) -> None:
    loop = asyncio.get_running_loop()
    times: list[float] = []

    async def timed(_request: web.Request) -> web.StreamResponse:
        times.append(loop.time())
        return answer(instance(1), index=index)

    async with consul(timed) as server, watching(server, RECO):
        await server.came(2)
        assert server.indexes() == [None, None]
    assert times[1] - times[0] > 0.5


async def test_an_index_that_never_advances_is_asked_for_a_bounded_number_of_times() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with consul(always(instance(1))) as server, watching(server, RECO) as all_of_it:
        await server.came(4)
        took = loop.time() - began
        assert server.indexes() == [None, "7", "7", "7"]
        assert all_of_it.woken.count == 1  # the same content is no news
    assert took > 1.5


async def test_a_flood_of_news_is_asked_for_a_bounded_number_of_times() -> None:
    loop = asyncio.get_running_loop()
    number = 0

    async def flood(_request: web.Request) -> web.StreamResponse:
        nonlocal number
        number += 1
        return answer(instance(1, weight=1, port=number), index=str(number))

    async with consul(flood) as server, watching(server, RECO):
        began = loop.time()
        await server.came(20)
        assert loop.time() - began > 19 * 0.015


# --- answers in doubt -----------------------------------------------------------------------------------------------


async def test_so_few_instances_are_believed_when_a_leader_confirms_it_and_nobody_is_woken_before() -> None:
    blocking = Blocking((instance(1), instance(2), instance(3)))
    async with consul(blocking) as server, watching(server, RECO) as all_of_it:
        await server.came(2)
        woken = all_of_it.woken.count
        await blocking.change(instance(3))
        await all_of_it.woken.until(lambda: names(all_of_it.watches.heard.answers[RECO]) == ["reco-3"])
        assert ["consistent" in request.query for request in server.requests] == [False, False, True]
        assert all_of_it.watches.heard.answers[RECO].doubt == ""
        assert all_of_it.woken.count == woken + 1


async def test_so_few_instances_are_in_doubt_until_a_leader_confirms_it() -> None:
    blocking = Blocking((instance(1), instance(2), instance(3)))
    confirming = asyncio.Event()

    async def leaderless(request: web.Request) -> web.StreamResponse:
        if "consistent" in request.query and not confirming.is_set():
            return web.Response(status=500, text="No cluster leader")
        return await blocking(request)

    async with consul(leaderless) as server, watching(server, RECO) as all_of_it:
        watches = all_of_it.watches
        await server.came(2)
        await blocking.change()
        await all_of_it.woken.until(lambda: bool(watches.heard.answers[RECO].doubt))
        assert names(watches.heard.answers[RECO]) == []
        assert (
            "lists 0 of 3 instances, and no leader confirms it (Consul answers 500)"
            in watches.heard.answers[RECO].doubt
        )
        assert watches.heard.contacts[RECO].failing_since is None
        with capture_logs() as logs:
            await server.came(len(server.requests) + 4)
        assert logs == []
        confirming.set()
        await all_of_it.woken.until(lambda: not watches.heard.answers[RECO].doubt)
        assert watches.heard.contacts[RECO].failing_since is None


async def test_an_empty_answer_after_a_refused_token_is_in_doubt() -> None:
    blocking = Blocking((instance(1),))
    async with consul(blocking) as server, watching(server, RECO) as all_of_it:
        await server.came(2)
        server.answering = refusing(403, "ACL not found")
        await blocking.change(instance(1))
        await server.came(4)
        server.answering = Blocking((), index=20)
        await all_of_it.woken.until(lambda: "refused the token" in all_of_it.watches.heard.answers[RECO].doubt)


async def test_a_token_that_is_refused_what_would_confirm_is_a_refused_token() -> None:
    blocking = Blocking((instance(1), instance(2), instance(3)))

    async def refusing_to_confirm(request: web.Request) -> web.StreamResponse:
        if "consistent" in request.query:
            return web.Response(status=403, text="ACL not found")
        return await blocking(request)

    async with consul(refusing_to_confirm) as server, watching(server, RECO) as all_of_it:
        watches = all_of_it.watches
        await server.came(2)
        await blocking.change()
        await all_of_it.woken.until(lambda: "(Consul answers 403)" in watches.heard.answers[RECO].doubt)
        await blocking.change(instance(1))
        await all_of_it.woken.until(lambda: "refused the token" in watches.heard.answers[RECO].doubt)


async def test_that_a_token_was_refused_outlives_who_heard_it() -> None:
    """Another transport, or a reload, begins every query anew."""
    blocking = Blocking((instance(1), instance(2), instance(3)))
    async with consul(blocking) as server, watching(server, RECO) as all_of_it:
        watches = all_of_it.watches
        await server.came(2)
        server.answering = refusing(403, "ACL not found")
        await blocking.change(instance(1), instance(2), instance(3))
        await server.came(4)
        server.answering = Blocking((instance(1),), index=20)
        again = Watching.of(server).client
        watches.use(again, all_of_it.client)
        await all_of_it.woken.until(lambda: "refused the token" in watches.heard.answers[RECO].doubt)
        await again.close()


async def test_that_a_token_was_refused_is_remembered_until_an_answer_is_believed() -> None:
    blocking = Blocking((instance(1), instance(2), instance(3)))
    async with consul(blocking) as server, watching(server, RECO) as all_of_it:
        watches = all_of_it.watches
        await server.came(2)
        server.answering = refusing(403, "ACL not found")
        await blocking.change()
        await server.came(4)

        async def leaderless(request: web.Request) -> web.StreamResponse:
            found = await changed(request)
            found.headers["X-Consul-KnownLeader"] = "false"
            return found

        changed = Blocking((instance(1), instance(2), instance(3)), index=20)
        server.answering = leaderless
        await all_of_it.woken.until(lambda: "no leader" in watches.heard.answers[RECO].doubt)
        server.answering = changed
        await changed.change(instance(1))
        await all_of_it.woken.until(lambda: "refused the token" in watches.heard.answers[RECO].doubt)


async def test_a_wall_clock_that_is_set_ends_no_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    blocking = Blocking((instance(1), instance(2), instance(3)), index=50)
    async with consul(blocking) as server, watching(server, RECO) as all_of_it:
        watches = all_of_it.watches
        await server.came(2)
        await blocking.change(instance(1), index=3)
        await all_of_it.woken.until(lambda: "went back" in watches.heard.answers[RECO].doubt)
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + 3600.0)
        await blocking.change(instance(1), instance(4))
        await all_of_it.woken.until(lambda: names(watches.heard.answers[RECO]) == ["reco-1", "reco-4"])
        assert "went back" in watches.heard.answers[RECO].doubt


async def test_what_consul_says_of_its_leader_and_of_permissions_is_heard() -> None:
    headers = {
        "X-Consul-Index": "7",
        "X-Consul-KnownLeader": "false",
        "X-Consul-LastContact": "12500",
        "X-Consul-Results-Filtered-By-ACLs": "true",
    }

    async def said(_request: web.Request) -> web.StreamResponse:
        return web.json_response([], headers=headers)

    async with consul(said) as server, Client(ConsulConfig(address=server.address)) as client:
        found = await client.instances(RECO)
        assert (found.leader, found.last_contact, found.filtered) == (False, 12.5, True)
        server.answering = always()
        found = await client.instances(RECO)
        assert (found.leader, found.last_contact, found.filtered) == (True, 0.0, False)


STREAMED = {  # by Consul 1.20.6, of a blocking query; one that does not block has "blocking-query" and "true"
    "X-Consul-Default-Acl-Policy": "deny",
    "X-Consul-Effective-Consistency": "leader",
    "X-Consul-KnownLeader": "false",
    "X-Consul-LastContact": "0",
    "X-Consul-Query-Backend": "streaming",
}


async def test_a_streamed_answer_says_nothing_of_a_leader() -> None:
    async def said(_request: web.Request) -> web.StreamResponse:
        return web.json_response([], headers=STREAMED | {"X-Consul-Index": "28"})

    async with consul(said) as server, Client(ConsulConfig(address=server.address)) as client:
        found = await client.instances(RECO)
        assert (found.streamed, found.leader, found.index) == (True, True, 28)
        server.answering = always()
        assert not (await client.instances(RECO)).streamed


async def test_one_that_goes_from_a_streamed_answer_is_believed_when_a_server_confirms_it() -> None:
    blocking = Blocking((instance(1), instance(2), instance(3)))

    async def streaming(request: web.Request) -> web.StreamResponse:
        response = await blocking(request)
        response.headers.update(STREAMED if "index" in request.query else {"X-Consul-KnownLeader": "true"})
        return response

    async with consul(streaming) as server, watching(server, RECO) as all_of_it:
        await server.came(2)
        await blocking.change(instance(1), instance(2))
        await all_of_it.woken.until(lambda: names(all_of_it.watches.heard.answers[RECO]) == ["reco-1", "reco-2"])
        assert all_of_it.watches.heard.answers[RECO].doubt == ""
        await server.came(4)
        assert ["consistent" in request.query for request in server.requests] == [False, False, True, False]


@attrs.define
class Mistaken:
    """An agent that streams: its own copy says what it says, and the leader what is true."""

    truth: Blocking
    copied: Callable[[], web.Response] | None = None
    filtered: bool = False  # the leader says that the token may not read it all, and lists nothing

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if "index" in request.query and self.copied:
            await asyncio.sleep(0.02)
            return self.copied()
        if self.filtered:
            response = answer(index=str(self.truth.index))
            response.headers["X-Consul-Results-Filtered-By-ACLs"] = "true"
            return response
        if "index" not in request.query:
            return await self.truth(request)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(float(request.query["wait"].removesuffix("s"))):
                await self.truth(request)
        return streamed(*self.truth.instances, index=self.truth.index)


def streamed(*instances: Instance, index: int) -> web.Response:
    response = answer(*instances, index=str(index))
    response.headers.update(STREAMED)
    return response


async def test_a_copy_that_lists_nothing_by_mistake_wakes_nobody_where_a_leader_knows_better() -> None:
    """At index 1, as Consul 1.20.6 does where it is slow to refuse a token, and 1.22.7 before a server of 1.8.7."""
    agent = Mistaken(truth=Blocking((instance(1), instance(2)), index=50))
    agent.copied = partial(streamed, index=1)
    async with consul(agent) as server, watching(server, RECO) as all_of_it:
        with capture_logs() as logs:
            await server.came(5)
        assert names(all_of_it.watches.heard.answers[RECO]) == ["reco-1", "reco-2"]
        assert all_of_it.watches.heard.answers[RECO].doubt == ""
        assert all_of_it.woken.count == 1
        assert not [each for each in logs if each["event"] == "consul_doubted"]


@pytest.mark.parametrize("behind", [False, True])
async def test_what_went_while_a_permission_was_lost_goes_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
    behind: bool,  # noqa: FBT001  the agent's own copy does not know yet
) -> None:
    """Its own copy does not say that the token may read no more, the leader does; and that it may again."""
    monkeypatch.setattr(pace, "SHORTEST_DOUBTED", 0.2)
    agent = Mistaken(truth=Blocking((instance(1), instance(2), instance(3)), index=50))
    async with consul(agent) as server, watching(server, RECO) as all_of_it:
        heard, woken = all_of_it.watches.heard, all_of_it.woken
        await server.came(2)
        agent.filtered, agent.copied = True, partial(streamed, index=50)
        await agent.truth.change(instance(1), instance(2), instance(3), index=51)  # ends the query that waits
        await woken.until(lambda: "the token may not read" in heard.answers[RECO].doubt)
        assert names(heard.answers[RECO]) == []
        await agent.truth.change(instance(1), instance(2), index=60)
        agent.filtered, agent.copied = False, agent.copied if behind else None
        await woken.until(lambda: heard.answers[RECO].doubt == "")
        assert names(heard.answers[RECO]) == ["reco-1", "reco-2"]


@attrs.define
class Copied:
    """An agent's own copy of one Consul service, which goes on saying the same while nobody hears from its servers."""

    copied: int = 0  # answers from it
    servers: bool = True  # answer

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if "index" in request.query:
            await asyncio.sleep(0.1)  # its wait is over
            self.copied += 1
            response = answer(instance(1), index="10")
            response.headers.update(STREAMED)
            return response
        if not self.servers:
            return web.Response(status=500, text="rpc error getting client: connection refused")
        return answer(instance(1), index="10")


async def test_what_the_agent_repeats_of_another_datacenter_is_asked_there() -> None:
    copy, there = Copied(), Query(service="reco", datacenter="dc2")
    async with consul(copy) as server, watching(server, there) as all_of_it:
        await server.came(2)
        copy.servers = False
        async with asyncio.timeout(DEADLINE):
            while all_of_it.watches.heard.contacts[there].failing_since is None:  # noqa: ASYNC110 -- no event tells
                await asyncio.sleep(0.01)
        assert copy.copied <= 1
        assert names(all_of_it.watches.heard.answers[there]) == ["reco-1"]
        copy.servers = True
        asked = len(server.requests)
        await server.came(asked + 2)
        assert all_of_it.watches.heard.contacts[there].failing_since is None


async def test_what_the_agent_repeats_of_its_own_datacenter_costs_no_second_question() -> None:
    """Of thousands of queries each would be asked twice as often, all the time."""
    copy = Copied()
    async with consul(copy) as server, watching(server, RECO):
        await server.came(4)
        assert server.indexes()[:4] == [None, "10", "10", "10"]


async def test_asking_once_tells_what_is_in_doubt() -> None:
    async def filtered(_request: web.Request) -> web.StreamResponse:
        return web.json_response([], headers={"X-Consul-Results-Filtered-By-ACLs": "true"})

    async with consul(filtered) as server, Client(ConsulConfig(address=server.address)) as client:
        assert "node:read" in (await ask_once(client, [RECO]))[RECO].doubt


# --- what is watched ------------------------------------------------------------------------------------------------


async def test_queries_come_and_go_and_those_that_stay_keep_their_answer() -> None:
    async with consul(Blocking((instance(1),))) as server, watching(server, RECO) as all_of_it:
        watches, woken = all_of_it.watches, all_of_it.woken
        await woken.until(lambda: watches.heard.complete)
        await server.came(2)
        kept = watches.heard.answers[RECO]
        watches.watch([RECO, SHOP])
        assert not watches.heard.complete
        await woken.until(lambda: watches.heard.complete)
        assert watches.heard.answers.keys() == {RECO, SHOP}
        assert watches.heard.answers[RECO] is kept
        watches.watch([SHOP])
        for _ in range(5):  # turns of the loop until its task has seen to it
            await asyncio.sleep(0)
        assert watches.heard.contacts.keys() == {SHOP}
        assert watches.heard.complete
        asked = [request.path.rpartition("/")[2] for request in server.requests]
        assert asked.count("reco") == 2


async def test_one_query_that_fails_does_not_hold_up_another() -> None:
    blocking = Blocking((instance(1),))

    async def picky(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/shop"):
            return web.Response(status=403, text="Permission denied")
        return await blocking(request)

    async with consul(picky) as server, watching(server, RECO, SHOP) as all_of_it:
        await all_of_it.woken.until(lambda: RECO in all_of_it.watches.heard.answers)
        assert all_of_it.watches.heard.answers.keys() == {RECO}
        assert not all_of_it.watches.heard.complete


@pytest.mark.unexpected
async def test_an_error_that_nobody_expected_is_a_failure_of_its_own_query_and_told_once() -> None:
    again = asyncio.Event()

    class Broken(Client):
        asked = 0

        async def instances(
            self,
            query: Query,
            *,
            index: int = 0,
            wait: float = WAIT,
            consistent: bool = False,
            known: Known | None = None,
        ) -> Answer:
            if query == SHOP:
                self.asked += 1
                if self.asked == 3:
                    again.set()
                raise ZeroDivisionError("deep inside")
            return await super().instances(query, index=index, wait=wait, consistent=consistent, known=known)

        async def capacity(self) -> Capacity | None:
            raise ZeroDivisionError("elsewhere")

    async with consul(Blocking((instance(1),))) as server:
        client, woken = Broken(ConsulConfig(address=server.address)), Woken()
        watches = Watches(client, woken)
        watches.watch((RECO, SHOP))
        with capture_logs() as logs:
            task = asyncio.create_task(watches.run(), name="watches")
            await woken.until(lambda: RECO in watches.heard.answers)
            async with asyncio.timeout(DEADLINE):
                await again.wait()
            assert not task.done()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await client.close()
    assert "ZeroDivisionError" in watches.heard.contacts[SHOP].error
    assert watches.heard.contacts[RECO].failing_since is None
    told = [(each["log_level"], each["task"], each["error"]) for each in logs if each["event"] == "unexpected"]
    assert [(level, task) for level, task, _ in told] == [("error", "choose"), ("error", "watch shop")]
    assert all("ZeroDivisionError at test_watch.py:" in error for _, _, error in told)
    assert sum(each["event"] == "consul_failed" for each in logs) == 1


async def test_a_client_that_is_replaced_leaves_its_answers() -> None:
    async with consul(Blocking((instance(1),))) as old, consul(refusing(500)) as new, watching(old, RECO) as all_of_it:
        watches, woken = all_of_it.watches, all_of_it.woken
        await woken.until(lambda: watches.heard.complete)
        await old.came(2)
        replaced, all_of_it.client = all_of_it.client, Client(ConsulConfig(address=new.address))
        watches.use(all_of_it.client, replaced)
        await new.came(2)
        assert names(watches.heard.answers[RECO]) == ["reco-1"]
        assert watches.heard.complete
        assert len(old.requests) == 2
        new.answering = Blocking((instance(2),))
        await woken.until(lambda: names(watches.heard.answers[RECO]) == ["reco-2"])


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_loss_with_a_new_token_contradicts_the_same_consul_and_says_nothing_about_another(
    *, elsewhere: bool
) -> None:
    async def by_token(request: web.Request) -> web.StreamResponse:
        number = 1 if "X-Consul-Token" in request.headers else 3
        if request.query.get("index") == "100":
            await asyncio.sleep(DEADLINE)
        return answer(*(instance(each) for each in range(1, number + 1)), index="100")

    async with consul(by_token) as server, consul(by_token) as other, watching(server, RECO) as all_of_it:
        watches = all_of_it.watches
        await server.came(2)
        address = other.address if elsewhere else server.address
        replaced, all_of_it.client = all_of_it.client, Client(ConsulConfig(address=address, token=Secret("fewer")))
        watches.use(all_of_it.client, replaced)
        await all_of_it.woken.until(lambda: names(watches.heard.answers[RECO]) == ["reco-1"])
        assert ("index stayed at 100" in watches.heard.answers[RECO].doubt) is not elsewhere


async def test_a_query_that_goes_with_its_client_is_forgotten() -> None:
    """A reload of both: what is no longer asked would be heard of last for ever, and never fail."""
    async with consul(always(instance(1))) as server, watching(server, RECO, SHOP) as all_of_it:
        watches = all_of_it.watches
        await all_of_it.woken.until(lambda: watches.heard.complete)
        replaced, all_of_it.client = all_of_it.client, Client(ConsulConfig(address=server.address))
        asked = len(server.requests)
        watches.use(all_of_it.client, replaced)
        watches.watch([RECO])
        await server.came(asked + 1)
        assert watches.heard.contacts.keys() == watches.heard.answers.keys() == {RECO}


async def test_every_client_that_is_replaced_is_closed() -> None:
    """Two reloads in a row: an open session that is forgotten is a ResourceWarning, and warnings are errors."""
    async with consul(Blocking((instance(1),))) as server, watching(server, RECO) as all_of_it:
        watches = all_of_it.watches
        await all_of_it.woken.until(lambda: watches.heard.complete)
        replaced = [all_of_it.client, Client(ConsulConfig(address=server.address))]
        await replaced[1].instances(RECO)
        last = Client(ConsulConfig(address=server.address))
        watches.use(replaced[1], replaced[0])
        watches.use(last, replaced[1])
        asked = len(server.requests)
        await server.came(asked + 1)
        assert [each._transport._session for each in replaced] == [None, None]  # noqa: SLF001  aiohttp tells nobody
        await last.close()


async def test_a_client_that_is_replaced_is_closed_though_the_end_comes_first() -> None:
    """A reload and a stop while the agent is asked for its limits, which may take a while."""
    async with consul(always(instance(1))) as server:
        asked, replaced = asyncio.Event(), Client(ConsulConfig(address=server.address))

        async def silent(_request: web.Request) -> web.StreamResponse:
            asked.set()
            await asyncio.sleep(DEADLINE)
            return web.Response()

        server.agent = silent
        watches = Watches(replaced, lambda: None)
        task = asyncio.create_task(watches.run(), name="watches")
        async with asyncio.timeout(DEADLINE):
            await asked.wait()
        async with Client(ConsulConfig(address=server.address)) as client:
            watches.use(client, replaced)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        with pytest.raises(ConsulError, match="closed"):
            await replaced.instances(RECO)


# --- once -----------------------------------------------------------------------------------------------------------


async def test_asking_once_gives_every_answer_or_the_first_error() -> None:
    async with consul(always(instance(1))) as server, Client(ConsulConfig(address=server.address)) as client:
        found = await ask_once(client, [SHOP, RECO])
        assert {query: names(each) for query, each in found.items()} == {RECO: ["reco-1"], SHOP: ["reco-1"]}
        assert await ask_once(client, []) == {}
        server.answering = refusing(500, "no")
        with pytest.raises(ConsulError, match="Consul answered 500: no"):
            await ask_once(client, [SHOP, RECO])


# --- the token ------------------------------------------------------------------------------------------------------


async def redirecting(_request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(0)
    return web.Response(status=307, headers={"Location": "http://127.0.0.1:1/"})


async def hanging_up(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(0)
    assert request.transport
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize("answering", [refusing(403, "Permission denied"), refusing(500), redirecting, hanging_up])
async def test_the_token_is_in_nothing_that_is_logged_or_shown(answering: Answering) -> None:
    async with consul(answering) as server:
        config = ConsulConfig(address=server.address, token=Secret(CANARY), token_name="CONSUL_HTTP_TOKEN")  # noqa: S106  its name
        with capture_logs() as logged:
            async with Client(config) as client:
                watches = Watches(client, Woken())
                watches.watch([RECO])
                task = asyncio.create_task(watches.run(), name="watches")
                await server.came(3)  # the transport itself tries twice where a connection ends
                told = f"{watches.heard.contacts} {watches.heard.answers} {client!r} {vars(client)} {config} {task}"
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        assert [each["event"] for each in logged] == ["consul_transport", "consul_failed"]
        assert CANARY not in told + str(logged)
        assert server.requests[0].headers["X-Consul-Token"] == CANARY
        assert all(CANARY not in request.path_qs for request in server.requests)


# --- with a snapshot ------------------------------------------------------------------------------------------------

SAID = 1000.0


def recalled(*numbers: int, index: int = 7) -> dict[Query, Answer]:
    """Return a snapshot that has these instances of RECO."""
    return {RECO: Answer(instances=tuple(map(instance, numbers)), index=index, snapshot=SAID)}


async def test_a_snapshot_stands_in_until_every_query_has_failed_once_and_longer() -> None:
    async with consul(refusing(500)) as server, watching(server, RECO, SHOP, snapshot=recalled(1)) as all_of_it:
        watches = all_of_it.watches
        assert watches.heard.recalls
        assert not watches.heard.tried
        await all_of_it.woken.until(lambda: watches.heard.tried)
        assert watches.heard.answers == recalled(1)
        assert not watches.heard.complete
        assert watches.heard.believed == {}, "what Consul has not said since the start is on disk already"
        assert watches.heard.contacts[RECO].last is None


async def test_consuls_first_answer_replaces_the_snapshots_even_where_it_is_the_same() -> None:
    async with consul(always(instance(1))) as server, watching(server, RECO, snapshot=recalled(1)) as all_of_it:
        watches = all_of_it.watches
        await all_of_it.woken.until(lambda: watches.heard.complete)
        assert watches.heard.answers[RECO].snapshot is None
        assert not watches.heard.recalls
        (kept,) = watches.heard.believed.values()
        assert kept.instances == watches.heard.answers[RECO].instances
        assert kept.snapshot == watches.heard.contacts[RECO].last


async def test_an_empty_first_answer_is_compared_with_the_snapshot_and_not_kept_while_in_doubt() -> None:
    async with consul(always(index="3")) as server, watching(server, RECO, snapshot=recalled(1, 2)) as all_of_it:
        watches = all_of_it.watches
        await all_of_it.woken.until(lambda: watches.heard.complete)
        assert "index went back from 7 to 3" in watches.heard.answers[RECO].doubt
        assert watches.heard.believed == {}


async def test_what_another_consul_said_is_kept_for_none() -> None:
    async with (
        consul(always(instance(1))) as server,
        consul(refusing(500)) as other,
        watching(server, RECO) as all_of_it,
    ):
        watches = all_of_it.watches
        await all_of_it.woken.until(lambda: watches.heard.complete)
        assert watches.heard.believed.keys() == {RECO}
        replaced, all_of_it.client = all_of_it.client, Client(ConsulConfig(address=other.address))
        watches.use(all_of_it.client, replaced)
        await other.came(2)
        assert watches.heard.answers.keys() == {RECO}
        assert watches.heard.believed == {}


# --- very many ------------------------------------------------------------------------------------------------------


async def told(logs: list[structlog.typing.EventDict], event: str, queries: int) -> None:
    """Return when the lines about `event` are of so many queries."""
    async with asyncio.timeout(DEADLINE):
        while sum(each.get("queries", 1) for each in logs if each["event"] == event) < queries:  # noqa: ASYNC110 -- a line
            await asyncio.sleep(0.01)


async def test_an_agent_that_goes_away_is_told_in_a_few_lines_and_so_is_its_return(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lvsctl.consul.heard.WINDOW", 1.0)
    queries = [Query(service=f"service-{number}") for number in range(60)]
    async with consul(refusing(500, "No cluster leader")) as server, watching(server, *queries) as watched:
        with capture_logs() as logs:
            await told(logs, "consul_failed", len(queries))
            assert len([each for each in logs if each["event"] == "consul_failed"]) < 10
            assert all(each.failing_since for each in watched.watches.heard.contacts.values())
            server.answering = always(instance(1))
            await told(logs, "consul_back", len(queries))
        assert len([each for each in logs if each["event"] == "consul_back"]) < 10
        assert not any(each.failing_since for each in watched.watches.heard.contacts.values())


def test_queries_that_begin_together_do_not_end_together() -> None:
    waits = [wait_after(0) for _ in range(1000)]
    assert 0 < min(waits) < WAIT / 5
    assert 4 * WAIT / 5 < max(waits) <= WAIT
    for start in range(0, WAIT, 5):
        assert sum(start <= wait < start + 5 for wait in waits) < 400
    assert wait_after(7) == WAIT


async def test_two_errors_that_take_turns_are_told_once_each() -> None:
    """A listener that wants another certificate resets the connection now, and says why then."""
    turn = [0]

    async def answering(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0)
        turn[0] += 1
        return web.Response(status=500, text=("No cluster leader", "rpc error")[turn[0] % 2])

    async with consul(answering) as server, watching(server, RECO):
        with capture_logs() as logs:
            await server.came(6)
        assert len([each for each in logs if each["event"] == "consul_failed"]) == 2


@pytest.mark.parametrize("doubted", [0, 1, 500, 1000, 5000])
def test_doubts_are_asked_about_soon_and_not_by_all_at_once(doubted: int) -> None:
    wait = wait_in_doubt(doubted)
    assert 5 <= wait <= WAIT
    assert wait == WAIT or doubted / wait <= 100


async def test_news_are_named_once() -> None:
    blocking = Blocking((instance(1),))
    async with consul(blocking) as server, watching(server, Query(service="reco")) as watched:
        await watched.woken.until(lambda: watched.watches.heard.complete)
        assert watched.watches.heard.take_news() == {Query(service="reco")}
        assert watched.watches.heard.take_news() == frozenset()
        await blocking.change(instance(2))
        await watched.woken.until(lambda: names(watched.watches.heard.answers[Query(service="reco")]) == ["reco-2"])
        assert watched.watches.heard.take_news() == {Query(service="reco")}

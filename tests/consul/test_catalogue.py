"""Who may declare something, by the catalogue's list of Consul services: news, failures and what is no list."""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_network

import attrs
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.config import ConsulConfig, DefaultsTable, DiscoveryConfig
from lvsctl.consul import catalogue
from lvsctl.consul.budget import Share
from lvsctl.consul.catalogue import Catalogue, candidates_in, candidates_once
from lvsctl.consul.client import Client
from lvsctl.consul.overrides import OverrideWatch
from lvsctl.errors import ConsulError
from tests.consul.server import DEADLINE, Consul, consul

OPEN = DiscoveryConfig(addresses=(ip_network("10.9.1.0/24"),))


@attrs.define
class Listing:
    """A list of Consul services that answers as Consul does; while `refusal` is above 0, with that status."""

    services: dict[str, list[str]]
    index: int = 5
    refusal: int = 0
    _changed: asyncio.Condition = attrs.field(factory=asyncio.Condition)

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        assert request.path == "/v1/catalog/services"
        async with self._changed:
            await self._changed.wait_for(lambda: self.refusal or int(request.query.get("index", 0)) != self.index)
        if self.refusal:
            return web.Response(status=self.refusal, headers={"X-Consul-Index": "1"})
        return web.json_response(self.services, headers={"X-Consul-Index": str(self.index)})

    async def change(self, *, refusal: int = 0, index: int | None = None, **services: list[str]) -> None:
        async with self._changed:
            self.services, self.refusal = services, refusal
            self.index = self.index + 1 if index is None else index
            self._changed.notify_all()


@attrs.define
class Listening:
    """A catalogue that is asked."""

    server: Consul
    client: Client
    catalogue: Catalogue

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not condition():  # noqa: ASYNC110  no event is made of what is waited for
                await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def listening(listing: Listing, discovery: DiscoveryConfig | None = OPEN) -> AsyncIterator[Listening]:
    async with consul(listing) as server, Client(ConsulConfig(address=server.address)) as client:
        found = Catalogue(client, discovery, lambda: None)
        task = asyncio.create_task(found.run())
        try:
            yield Listening(server=server, client=client, catalogue=found)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def test_it_lists_who_has_the_tag_and_hears_of_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "AT_MOST_EVERY", 0.0)
    listing = Listing({"reco": ["v2", "lvs-address=10.9.1.1:80"], "shop": ["v1"], "consul": []})
    async with listening(listing) as found:
        assert not found.catalogue.heard
        await found.until(lambda: found.catalogue.candidates == {"reco"})
        await listing.change(reco=["v2"], shop=["lvs"])
        await found.until(lambda: found.catalogue.candidates == {"shop"})
        assert found.server.indexes()[:2] == [None, "5"]
        assert await candidates_once(found.client, OPEN) == {"shop"}


async def test_a_failure_keeps_what_was_listed_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "AT_MOST_EVERY", 0.0)
    monkeypatch.setattr(catalogue, "back_off", lambda _failures: 0.01)
    listing = Listing({"reco": ["lvs"]})
    async with listening(listing) as found:
        await found.until(lambda: found.catalogue.heard)
        await listing.change(refusal=500)
        await found.until(lambda: found.catalogue.contact.failing_since is not None)
        assert found.catalogue.candidates == {"reco"}
        assert "500" in found.catalogue.contact.error
        await listing.change(index=3, shop=["lvs"])
        await found.until(lambda: found.catalogue.candidates == {"shop"})
        assert found.catalogue.contact.failing_since is None
        assert "1" not in found.server.indexes(), "the index of an error"


async def test_what_fails_at_first_was_tried() -> None:
    async with listening(Listing({}, refusal=403)) as found:
        await found.until(lambda: found.catalogue.tried)
        assert not found.catalogue.heard


async def test_off_it_asks_nothing_and_on_it_does() -> None:
    async with listening(Listing({"reco": ["lvs"]}), None) as found:
        assert found.catalogue.heard
        assert not found.catalogue.watched
        await asyncio.sleep(0)
        assert found.server.requests == []
        found.catalogue.use(found.client, OPEN)
        await found.until(lambda: found.catalogue.candidates == {"reco"})
        found.catalogue.use(found.client, attrs.evolve(OPEN, keys=("scheduler",)))
        assert found.catalogue.candidates == {"reco"}, "who is asked about is the same"
        elsewhere = attrs.evolve(OPEN, defaults=DefaultsTable(datacenter="dc2"))
        found.catalogue.use(found.client, elsewhere)
        assert (found.catalogue.candidates, found.catalogue.heard) == (frozenset(), False)
        await found.until(lambda: found.catalogue.heard)
        assert found.server.requests[-1].query["dc"] == "dc2"
        found.catalogue.use(found.client, None)
        assert found.catalogue.candidates == frozenset()


async def test_a_large_list_is_read_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    readers: list[threading.Thread] = []
    read = candidates_in

    def noting(body: bytes, tag: str) -> frozenset[str]:
        readers.append(threading.current_thread())
        return read(body, tag)

    monkeypatch.setattr(catalogue, "candidates_in", noting)
    services = {f"service-{number}": ["a tag that is somewhat long"] for number in range(10_000)} | {"reco": ["lvs"]}
    async with listening(Listing(services)) as found:
        await found.until(lambda: found.catalogue.candidates == {"reco"})
    assert readers[0] is not threading.main_thread()


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"3", b'"x"', b"\xff", b"[" * 100_000, b'{"a":' * 100_000, b" " * (8 << 20) + b"{}"],
    ids=["empty", "cut", "list", "null", "number", "string", "no text", "deep", "deep objects", "large"],
)
def test_what_is_no_list_of_consul_services_is_an_error(body: bytes) -> None:
    with pytest.raises(ConsulError, match="/v1/catalog/services"):
        candidates_in(body, "lvs")


@pytest.mark.parametrize(
    "bad", [b'"x":' + b"[" * 1000 + b"]" * 1000, b'"\xff":["lvs"]', b'"x":["' + b"x" * (1 << 20) + b'"]']
)
def test_one_that_cannot_be_read_hides_no_other(bad: bytes) -> None:
    assert candidates_in(b'{"a":["lvs"],' + bad + b',"b":["lvs"]}', "lvs") == {"a", "b"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.just("lvs"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(services=st.dictionaries(st.text(max_size=8), json_values, max_size=5))
def test_whatever_the_tags_are_only_those_with_the_tag_are_listed(services: dict[str, object]) -> None:
    expected = {name for name, tags in services.items() if isinstance(tags, list) and "lvs" in tags}
    assert candidates_in(json.dumps(services).encode(), "lvs") == expected


class Broken(Client):
    """Whoever asks for a list finds an error in lvsctl itself; `again` is set when it is asked for the third time."""

    def __init__(self, config: ConsulConfig) -> None:
        super().__init__(config)
        self.asked = 0
        self.again = asyncio.Event()

    async def listing(
        self, path: str, datacenter: str = "", *, share: Share, index: int = 0, wait: float = 1
    ) -> tuple[int, bytes]:
        raise self._error(path, datacenter, share, index, wait)

    async def keys(self, folder: str, *, index: int = 0, wait: float = 1) -> tuple[int, bytes]:
        raise self._error(folder, "", index, wait)

    def _error(self, *what: object) -> Exception:
        self.asked += 1
        if self.asked == 3:
            self.again.set()
        return ZeroDivisionError(f"deep inside {what}")


@pytest.mark.unexpected
async def test_an_error_that_nobody_expected_is_a_failure_and_tried_again() -> None:
    async with Broken(ConsulConfig(address="http://127.0.0.1:1")) as client, asyncio.timeout(DEADLINE):
        found = Catalogue(client, OPEN, lambda: None)
        overrides = OverrideWatch(client, "lvsctl/", lambda: None, lambda _overrides: None)
        for each in (found, overrides):
            client.asked = 0
            client.again.clear()
            task = asyncio.create_task(each.run())
            await client.again.wait()
            assert not task.done()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert "ZeroDivisionError" in found.contact.error
        assert overrides.contact is not None
        assert "ZeroDivisionError" in overrides.contact.error

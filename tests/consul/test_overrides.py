"""Overrides on a real Consul with ACLs: written by the command, seen by the watch, kept when permission is lost."""

import asyncio
import contextlib
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import attrs
import pytest
import structlog
from aiohttp import web
from structlog.testing import capture_logs

from lvsctl.config import ConsulConfig, Secret
from lvsctl.consul import overrides as kv
from lvsctl.consul.client import Client
from lvsctl.consul.override_keys import encode_overrides
from lvsctl.consul.overrides import OverrideWatch
from lvsctl.core.override import NO_OVERRIDES, Fixed, Override, Overrides, Percent
from lvsctl.errors import ConsulError, ConsulRefused
from tests.consul.server import DEADLINE, consul, refusing
from tests.consul.test_acl import OPERATIONS, Guarded, guarded, hold
from tests.lab.waiting import eventually

__all__ = ["guarded"]  # a fixture

READER = """node_prefix "" { policy = "read" }
service_prefix "" { policy = "read" }
"""
READS = 'key_prefix "lvsctl/weights/" { policy = "read" }\n'
WRITES = 'key_prefix "lvsctl/weights/" { policy = "write" }\n'
NAMES = iter(range(10_000))


def token(guarded: Guarded, rules: str) -> dict[str, str]:
    return guarded.token(f"overrides-{next(NAMES)}", rules)


def client_of(guarded: Guarded, secret: str) -> Client:
    return Client(ConsulConfig(address=guarded.address, token=Secret(secret)))


@pytest.fixture(autouse=True)
def _empty(guarded: Guarded) -> Iterator[None]:
    """Leave no key behind."""
    yield
    guarded.ask("DELETE", "/v1/kv/lvsctl?recurse")


def put(guarded: Guarded, key: str, value: str) -> None:
    """Write a key as it is, not as lvsctl would."""
    operation = {"Verb": "set", "Key": key, "Value": b64encode(value.encode()).decode()}
    guarded.ask("PUT", "/v1/txn", [{"KV": operation}])


OVERRIDE = Override(virtual_server="reco", selector="v2", share=Percent(500), by="alice@admin1")


@attrs.define
class Watching:
    """A watch that runs, with what it kept and logged."""

    watch: OverrideWatch
    kept: list[Overrides]
    logs: list[structlog.typing.EventDict]

    async def until(self, happened: Callable[[], object]) -> None:
        """Return when it happened."""
        await asyncio.to_thread(eventually, happened, within=DEADLINE, every=0.01)


@contextlib.asynccontextmanager
async def watching(config: ConsulConfig, prefix: str | None = "lvsctl", hold: float = 180.0) -> AsyncIterator[Watching]:
    """Watch while the context lasts."""
    kept: list[Overrides] = []
    async with Client(config) as client:
        watch = OverrideWatch(client, prefix, lambda: None, kept.append, hold=hold)
        with capture_logs() as logs:
            task = asyncio.create_task(watch.run(), name="watch")
            try:
                yield Watching(watch=watch, kept=kept, logs=logs)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


def config_of(guarded: Guarded, file: Path) -> ConsulConfig:
    return ConsulConfig(address=guarded.address, token_file=file)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "consul.token"
    path.touch(0o600)
    return path


# ---- one at a time


def test_the_page_has_the_rules_of_these_tests() -> None:
    assert READS.strip() in OPERATIONS
    assert WRITES.strip() in OPERATIONS


async def test_what_is_written_is_read_and_cleared(guarded: Guarded) -> None:
    async with client_of(guarded, token(guarded, WRITES)["SecretID"]) as client:
        assert (await kv.read(client, "lvsctl"))[1] == NO_OVERRIDES
        strange = attrs.evolve(OVERRIDE, selector="a/b c%?#\N{SNOWMAN}", reason="\x1b[31m")
        for each in (OVERRIDE, strange):
            assert await kv.write(client, "lvsctl", each, modified=0)
        index, found = await kv.read(client, "lvsctl")
        assert index > 0
        assert [attrs.evolve(each, created=0, modified=0) for each in found.entries] == [OVERRIDE, strange]
        first, second = found.entries
        assert 0 < first.created < second.created
        assert not await kv.clear(client, "lvsctl", first, modified=second.modified), "of another time"
        assert await kv.clear(client, "lvsctl", first, modified=first.modified)
        assert (await kv.read(client, "lvsctl"))[1].entries == (second,)


async def test_of_two_who_write_at_the_same_time_one_is_told(guarded: Guarded) -> None:
    async with client_of(guarded, token(guarded, WRITES)["SecretID"]) as client:
        written = await asyncio.gather(
            *(kv.write(client, "lvsctl", attrs.evolve(OVERRIDE, by=str(number)), modified=0) for number in range(8))
        )
        assert sum(written) == 1
        (there,) = (await kv.read(client, "lvsctl"))[1].entries
        assert there.by == str(written.index(True))
        again = await asyncio.gather(
            *(kv.write(client, "lvsctl", attrs.evolve(there, by=f"x{each}"), modified=there.modified) for each in "ab")
        )
        assert sum(again) == 1


@pytest.mark.parametrize("rules", ["", READER, 'key_prefix "other/" { policy = "write" }'])
async def test_without_permission_a_read_is_refused_though_consul_lists_nothing(guarded: Guarded, rules: str) -> None:
    guarded.ask("PUT", "/v1/kv/lvsctl/weights/reco/v2", "x")
    made = token(guarded, rules or 'node "x" { policy = "read" }')
    async with client_of(guarded, made["SecretID"]) as client:
        index, body = await client.keys("lvsctl/weights/")
        assert (index > 0, body) == (True, b"[]"), "this is what Consul does, and why a key is asked for"
        with pytest.raises(ConsulRefused) as caught:
            await kv.read(client, "lvsctl")
        assert caught.value.status == 403
        assert READS.strip() in str(caught.value)


async def test_a_reader_may_not_write_and_is_told_the_rule(guarded: Guarded) -> None:
    async with client_of(guarded, token(guarded, READS)["SecretID"]) as client:
        with pytest.raises(ConsulRefused) as caught:
            await kv.write(client, "lvsctl", OVERRIDE, modified=0)
        assert WRITES.strip() in str(caught.value)


# ---- the watch


async def test_the_watch_sees_what_is_written_and_cleared(guarded: Guarded, file: Path) -> None:
    hold(file, token(guarded, READS))
    async with (
        watching(config_of(guarded, file)) as seen,
        client_of(guarded, guarded.management) as operator,
    ):
        await seen.until(lambda: seen.watch.settled)
        assert seen.watch.overrides == NO_OVERRIDES
        began = time.monotonic()
        assert await kv.write(operator, "lvsctl", OVERRIDE, modified=0)
        await seen.until(lambda: seen.watch.overrides.entries)
        assert time.monotonic() - began < 2
        (there,) = seen.watch.overrides.entries
        assert there.share == Percent(500)
        assert await kv.write(operator, "lvsctl", attrs.evolve(there, share=Fixed(7)), modified=there.modified)
        await seen.until(lambda: seen.watch.overrides.entries[0].share == Fixed(7))
        put(guarded, "lvsctl/weights/reco/v9", "rubbish")
        await seen.until(lambda: seen.watch.overrides.ignored)
        assert seen.watch.overrides.entries[0].share == Fixed(7)
        assert [each["why"] for each in seen.logs if each["event"] == "override_ignored"] == ["its value is not JSON"]
        for key in ("v2", "v9"):  # Consul does not wake who waits for a folder when one above it is deleted as a whole
            guarded.ask("DELETE", f"/v1/kv/lvsctl/weights/reco/{key}")
        await seen.until(lambda: seen.watch.overrides == NO_OVERRIDES)
        assert seen.kept[-1] == NO_OVERRIDES


async def test_a_lost_permission_clears_nothing(guarded: Guarded, file: Path) -> None:
    made = token(guarded, READS)
    hold(file, made)
    async with client_of(guarded, guarded.management) as operator:
        assert await kv.write(operator, "lvsctl", OVERRIDE, modified=0)
    async with watching(config_of(guarded, file)) as seen:
        await seen.until(lambda: seen.watch.overrides.entries)
        hold(file, token(guarded, READER))  # may read all but these keys
        put(guarded, "lvsctl/weights/other/x", '{"share": "1"}')  # wakes the watch
        await seen.until(lambda: seen.watch.contact and seen.watch.contact.error)
        assert seen.watch.contact is not None
        assert "Consul answered 403" in seen.watch.contact.error
        assert "v2" in {each.selector for each in seen.watch.overrides.entries}, "maybe more, read before"
        hold(file, made)
        await seen.until(lambda: len(seen.watch.overrides.entries) == 2)
        assert [each["event"] for each in seen.logs].count("overrides_failed") == 1
        assert [each["event"] for each in seen.logs].count("overrides_back") == 1


async def test_a_key_that_consul_cannot_be_asked_for_comes_and_goes(guarded: Guarded, file: Path) -> None:
    """Consul refuses it from 1.22 on, but lists it where it was there before, or was written by a transaction."""
    key = "lvsctl/weights/reco/a%20b"
    hold(file, token(guarded, READS))
    async with watching(config_of(guarded, file)) as seen:
        put(guarded, key, '{"share": "1"}')
        await seen.until(lambda: [each.key for each in seen.watch.overrides.ignored] == [key])
        guarded.ask("PUT", "/v1/txn", [{"KV": {"Verb": "delete", "Key": key}}])
        await seen.until(lambda: seen.watch.overrides == NO_OVERRIDES)
        assert not [each for each in seen.logs if each["event"] == "overrides_failed"]


async def test_a_key_that_consul_refuses_with_500_is_not_asked_for_when_it_is_gone() -> None:
    """The refusal is that of Consul 1.22.7."""
    entry = {"Key": "lvsctl/weights/reco/a%20b", "Value": "e30=", "CreateIndex": 3, "ModifyIndex": 3}
    listed: list[object] = [entry]

    async def answering(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.01)
        if request.path.endswith("b"):
            return web.Response(status=500, text="invalid key name, leading/trailing spaces are not allowed")
        headers = {"X-Consul-Index": "5"}
        return web.json_response(listed, headers=headers) if listed else web.Response(status=404, headers=headers)

    async with consul(answering) as server, Client(ConsulConfig(address=server.address)) as client:
        _, known = await kv.read(client, "lvsctl")
        assert [each.key for each in known.ignored] == [entry["Key"]]
        listed.clear()
        assert (await kv.read(client, "lvsctl", known))[1] == NO_OVERRIDES


async def test_a_deleted_token_clears_nothing(guarded: Guarded, file: Path) -> None:
    made = token(guarded, READS)
    hold(file, made)
    async with client_of(guarded, guarded.management) as operator:
        assert await kv.write(operator, "lvsctl", OVERRIDE, modified=0)
    async with watching(config_of(guarded, file)) as seen:
        await seen.until(lambda: seen.watch.overrides.entries)
        guarded.ask("DELETE", f"/v1/acl/token/{made['AccessorID']}")
        put(guarded, "lvsctl/weights/other/x", '{"share": "1"}')  # may be seen: a deleted token is cached for a moment
        await seen.until(lambda: seen.watch.contact and seen.watch.contact.error)
        assert "v2" in {each.selector for each in seen.watch.overrides.entries}


async def test_a_token_that_never_could_read_them_is_said_once_and_nobody_waits(guarded: Guarded, file: Path) -> None:
    hold(file, token(guarded, READER))
    async with watching(config_of(guarded, file)) as seen:
        await seen.until(lambda: seen.watch.settled)
        assert seen.watch.overrides == NO_OVERRIDES
        (said,) = [each for each in seen.logs if each["event"] == "overrides_failed"]
        assert READS.strip() in said["error"]


async def test_what_was_known_before_the_start_counts_until_consul_answers() -> None:
    async with consul(refusing(500, "No cluster leader")) as server:
        config = ConsulConfig(address=server.address)
        async with watching(config) as seen:
            assert not seen.watch.settled
            seen.watch.recall(Overrides(entries=(OVERRIDE,)))
            assert seen.watch.settled
            await server.came(2)
            assert seen.watch.overrides.entries == (OVERRIDE,)
            assert not seen.kept


async def test_where_they_are_not_opened_nothing_is_asked() -> None:
    async with (
        consul(refusing(500)) as server,
        Client(ConsulConfig(address=server.address)) as other,
        watching(ConsulConfig(address=server.address), None) as seen,
    ):
        assert seen.watch.settled
        assert seen.watch.contact is None
        await asyncio.sleep(0)
        seen.watch.use(other, "lvsctl")  # after a reload
        await server.came(1)
        seen.watch.use(other, None)
        assert server.requests[0].path == "/v1/kv/lvsctl/weights/"
        assert seen.watch.settled


async def test_a_404_without_an_index_is_not_consuls() -> None:
    async with consul(_not_found) as server, Client(ConsulConfig(address=server.address)) as client:
        with pytest.raises(ConsulError, match="404"):
            await kv.read(client, "lvsctl")


async def _not_found(_request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(0)
    return web.Response(status=404, text="404 page not found")


@pytest.mark.parametrize("hold", [180.0, 1.0])
async def test_a_consul_that_lost_its_data_loses_overrides_only_after_a_while(hold: float) -> None:
    """A reload in between that stays at that Consul changes nothing about it."""
    here = [True]

    async def answering(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.01)
        if here[0]:
            body = encode_overrides(Overrides(entries=(OVERRIDE,)), "lvsctl")
            return web.Response(body=body, headers={"X-Consul-Index": "50"})
        if "index" in request.query:
            await asyncio.sleep(0.2)
        return web.Response(status=404, headers={"X-Consul-Index": "5"})

    async with (
        consul(answering) as server,
        Client(ConsulConfig(address=server.address)) as reloaded,
        watching(ConsulConfig(address=server.address), hold=hold) as seen,
    ):
        await seen.until(lambda: seen.watch.overrides.entries)
        asked = len(server.requests)
        here[0] = False
        seen.watch.use(reloaded, "lvsctl")
        if hold > DEADLINE:
            await server.came(asked + 6)
            assert seen.watch.overrides.entries == (OVERRIDE,)
        else:
            await seen.until(lambda: not seen.watch.overrides.entries)
        (doubt,) = [each for each in seen.logs if each["event"] == "overrides_doubted"]
        assert doubt["why"].startswith("Consul's index went back from 50 to 5")


async def test_what_is_cleared_is_gone_at_once_though_the_index_was_reset_before() -> None:
    index, body = [50], [encode_overrides(Overrides(entries=(OVERRIDE,)), "lvsctl")]

    async def answering(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.05)
        headers = {"X-Consul-Index": str(index[0])}
        return web.Response(body=body[0], headers=headers) if body[0] else web.Response(status=404, headers=headers)

    config = ConsulConfig()
    async with consul(answering) as server, watching(attrs.evolve(config, address=server.address)) as seen:
        await seen.until(lambda: seen.watch.overrides.entries)
        index[0] = 5  # Consul collected the remains of keys that were deleted long ago
        await server.came(len(server.requests) + 2)
        index[0], body[0] = 6, b""
        await seen.until(lambda: not seen.watch.overrides.entries)


async def test_a_folder_above_that_is_deleted_as_a_whole_is_no_loss_of_data(guarded: Guarded, file: Path) -> None:
    """The index of the list goes back to that of an earlier deletion there; that of the whole KV does not."""
    hold(file, token(guarded, READS))
    put(guarded, "lvsctl/weights/reco/earlier", '{"share": "1"}')
    guarded.ask("DELETE", "/v1/kv/lvsctl/weights/reco/earlier")
    async with (
        client_of(guarded, guarded.management) as operator,
        Client(config_of(guarded, file)) as reloaded,
        watching(config_of(guarded, file)) as seen,
    ):
        assert await kv.write(operator, "lvsctl", OVERRIDE, modified=0)
        await seen.until(lambda: seen.watch.overrides.entries)
        before, _ = await kv.read(operator, "lvsctl")
        guarded.ask("DELETE", "/v1/kv/lvsctl?recurse")
        after, _ = await kv.read(operator, "lvsctl")
        assert after < before
        seen.watch.use(reloaded, "lvsctl")  # asks again; that deletion wakes nobody
        await seen.until(lambda: not seen.watch.overrides.entries)
        assert not [each for each in seen.logs if each["event"] == "overrides_doubted"]


async def test_a_snapshot_that_is_restored_loses_overrides_only_after_a_while(guarded: Guarded, file: Path) -> None:
    """The index of the whole KV goes back with it."""
    hold(file, token(guarded, READS))
    put(guarded, "lvsctl/weights/reco/saved", '{"share": "1"}')
    snapshot = guarded.send("GET", "/v1/snapshot")
    async with (
        client_of(guarded, guarded.management) as operator,
        Client(config_of(guarded, file)) as reloaded,
        watching(config_of(guarded, file)) as seen,
    ):
        assert await kv.write(operator, "lvsctl", OVERRIDE, modified=0)
        await seen.until(lambda: len(seen.watch.overrides.entries) == 2)
        guarded.send("PUT", "/v1/snapshot", snapshot)
        seen.watch.use(reloaded, "lvsctl")  # nothing else asks again before its wait ends
        await seen.until(lambda: [each for each in seen.logs if each["event"] == "overrides_doubted"])
        assert {each.selector for each in seen.watch.overrides.entries} == {"saved", "v2"}

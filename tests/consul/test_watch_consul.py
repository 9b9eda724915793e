"""The watch against a real Consul, whichever version it is: what goes is believed, what a token may not read is not.

With LVSCTL_CONSUL it is another Consul; from 1.10 on it streams, and says less about its answers.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import attrs
import pytest

from lvsctl.config import ConsulConfig
from lvsctl.consul.choice import Way
from lvsctl.consul.client import Client
from lvsctl.consul.watch import Watches
from lvsctl.core.instance import Answer, Query
from tests.consul.test_acl import Guarded, guarded, hold

RECO = Query(service="web")
READING = 'node_prefix "" { policy = "read" } service_prefix "" { policy = "read" }'
FEWER = 'node "host1" { policy = "read" } node "host2" { policy = "read" } service_prefix "" { policy = "read" }'
WITHIN = 20.0  # seconds, less than a blocking query waits: what is there by then was woken

__all__ = ["guarded"]  # the fixture of test_acl, a Consul with ACLs


@attrs.define
class Heard:
    """Watches of `web`, and a way to wait for what they hear."""

    watches: Watches
    woken: asyncio.Event = attrs.field(factory=asyncio.Event)

    @property
    def answer(self) -> Answer:
        """Return the last answer."""
        return self.watches.heard.answers.get(RECO, Answer())

    @property
    def ids(self) -> set[str]:
        """Return the instances of the last answer."""
        return {each.instance_id for each in self.answer.instances}

    async def until(self, happened: Callable[[], bool]) -> None:
        """Return when it `happened`: looked at when woken, and now and then for what wakes nobody, a failure."""
        async with asyncio.timeout(WITHIN):
            while not happened():
                self.woken.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await self.woken.wait()


@contextlib.asynccontextmanager
async def heard(guarded: Guarded, file: Path) -> AsyncIterator[Heard]:
    """Watch `web`, which has three instances, with the token in `file`."""
    for number in (1, 2, 3):
        register(guarded, number)
    async with Client(ConsulConfig(address=guarded.address, token_file=file)) as client:
        event = asyncio.Event()
        found = Heard(watches=Watches(client, event.set), woken=event)
        found.watches.watch([RECO])
        task = asyncio.create_task(found.watches.run(), name="watches")
        try:
            await found.until(lambda: found.ids == {"web-1", "web-2", "web-3"})
            yield found
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def register(guarded: Guarded, number: int, *, port: int = 80) -> None:
    service = {"Service": "web", "ID": f"web-{number}", "Port": port}
    node = {"Node": f"host{number}", "Address": f"10.0.1.{number}", "Service": service}
    guarded.ask("PUT", "/v1/catalog/register", node)


def is_left(found: Heard, ids: set[str]) -> bool:
    """Tell whether exactly these are left, for certain."""
    return found.ids == ids and not found.answer.doubt


def deregister(guarded: Guarded, number: int) -> None:
    guarded.ask("PUT", "/v1/catalog/deregister", {"Node": f"host{number}", "ServiceID": f"web-{number}"})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "consul.token"
    path.touch(0o600)
    return path


async def test_one_that_is_deregistered_goes_at_once_and_without_a_doubt(guarded: Guarded, file: Path) -> None:
    hold(file, guarded.token("watch-all", READING))
    async with heard(guarded, file) as found:
        for number, left in ((3, {"web-1", "web-2"}), (2, {"web-1"}), (1, set())):
            began = time.monotonic()
            await asyncio.to_thread(deregister, guarded, number)
            await found.until(partial(is_left, found, left))
            assert time.monotonic() - began < 5.0
        await asyncio.to_thread(register, guarded, 4)
        await found.until(lambda: found.ids == {"web-4"})
        await asyncio.to_thread(deregister, guarded, 4)


async def test_a_token_that_is_deleted_is_refused_and_the_next_one_in_its_file_resumes(
    guarded: Guarded, file: Path
) -> None:
    token = guarded.token("watch-deleted", READING)
    hold(file, token)
    async with heard(guarded, file) as found:
        await asyncio.to_thread(guarded.ask, "DELETE", f"/v1/acl/token/{token['AccessorID']}")
        await asyncio.to_thread(register, guarded, 5)  # ends the request that waits, where its token still counts
        await found.until(lambda: "403" in found.watches.heard.contacts[RECO].error)
        # With streaming the request that waits may end with an empty list at index 1, which is in doubt.
        assert {"web-1", "web-2", "web-3"} <= found.ids or found.answer.doubt
        assert token["SecretID"] not in str(found.watches.heard.contacts)
        hold(file, guarded.token("watch-next", READING))
        await asyncio.to_thread(register, guarded, 6)
        began = time.monotonic()
        await found.until(lambda: "web-6" in found.ids and not found.answer.doubt)
        assert time.monotonic() - began < 5.0
        for number in (5, 6):
            await asyncio.to_thread(deregister, guarded, number)


async def test_a_permission_that_is_lost_while_the_list_changes_is_no_loss(guarded: Guarded, file: Path) -> None:
    """From 1.11 on Consul tells when it leaves something out; before, this one loss may go unnoticed."""
    version = guarded.ask("GET", "/v1/agent/self")["Config"]["Version"]
    if tuple(map(int, version.split(".")[:2])) < (1, 11):
        pytest.skip(f"Consul {version} does not tell what it leaves out")
    hold(file, guarded.token("watch-narrowed", READING))
    async with heard(guarded, file) as found:
        (policy,) = (each for each in guarded.ask("GET", "/v1/acl/policies") if each["Name"] == "watch-narrowed")

        async def allow(rules: str, *, port: int) -> None:
            changed = {"Name": "watch-narrowed", "Rules": rules}
            await asyncio.to_thread(guarded.ask, "PUT", f"/v1/acl/policy/{policy['ID']}", changed)
            await asyncio.to_thread(register, guarded, 1, port=port)  # ends the request that waits

        await allow(FEWER, port=81)
        await found.until(lambda: "may not read" in found.answer.doubt)
        assert {each.port for each in found.answer.instances} == {80, 81}, "what an answer changes counts"
        assert found.ids == {"web-1", "web-2"}
        await allow(READING, port=82)
        await found.until(lambda: found.ids == {"web-1", "web-2", "web-3"} and not found.answer.doubt)


async def test_with_more_than_the_agent_takes_signals_bring_the_news(guarded: Guarded, file: Path) -> None:
    """Another Consul service has tags, which its list has in another order each time: that hides nothing."""
    tagged = {"Service": "tagged", "Tags": [f"tag-{number}" for number in range(8)], "Port": 80}
    guarded.ask("PUT", "/v1/catalog/register", {"Node": "host9", "Address": "10.0.1.9", "Service": tagged})
    hold(file, guarded.token("watch-signals", READING))
    async with heard(guarded, file) as found:
        found.watches.watch([RECO, *(Query(service=f"absent-{number}") for number in range(120))])
        await found.until(lambda: found.watches.heard.complete)
        assert found.watches.choice is not None
        assert found.watches.choice.way is Way.SIGNALS
        await asyncio.to_thread(register, guarded, 1, port=81)
        await found.until(lambda: 81 in {each.port for each in found.answer.instances})
        await asyncio.to_thread(deregister, guarded, 3)
        await found.until(partial(is_left, found, {"web-1", "web-2"}))
        await asyncio.to_thread(register, guarded, 3)
        await found.until(partial(is_left, found, {"web-1", "web-2", "web-3"}))

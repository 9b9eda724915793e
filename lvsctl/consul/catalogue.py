"""Which Consul services may declare something, by one blocking query of the catalogue: `[discovery]`.

The list of Consul services has the tags of all their instances and no metadata, so a Consul service that declares
itself by metadata alone needs a tag, too. What is declared is then read from its instances, watched like those of any
other (`watch`): this list only says who is to be asked, so a list that failed or lacks one takes nothing away.
Source: Consul HTTP API, Catalog, List Services.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog

from lvsctl.config import DiscoveryConfig
from lvsctl.consul.budget import Body
from lvsctl.consul.client import Client
from lvsctl.consul.contact import Contact
from lvsctl.consul.entries import members
from lvsctl.consul.pace import back_off, next_index, until_sweep
from lvsctl.core.declaration import is_candidate
from lvsctl.errors import ConsulError
from lvsctl.unexpected import in_words

PATH: Final = "catalog/services"
MAX_BODY: Final = 8 << 20  # bytes; 5,000 Consul services with tags take less than one
BIG: Final = 1 << 18  # bytes from which on a list is read beside the loop
AT_MOST_EVERY: Final = 1.0  # seconds between two readings; it moves with every registration of any Consul service

log = structlog.get_logger()


class Catalogue:
    """The Consul services that may declare something; run `run()` as a task. `hear` is called when they change."""

    def __init__(self, client: Client, discovery: DiscoveryConfig | None, hear: Callable[[], None]) -> None:
        self._client = client
        self._discovery = discovery
        self._hear = hear
        self._changed = asyncio.Event()
        self._heard = False
        self.candidates: frozenset[str] = frozenset()
        self.contact = Contact()

    @property
    def watched(self) -> bool:
        """Tell whether the catalogue is asked at all."""
        return self._discovery is not None

    @property
    def heard(self) -> bool:
        """Tell whether it was answered for at least once, where it is asked."""
        return self._heard or not self.watched

    @property
    def tried(self) -> bool:
        """Tell whether it was answered for or has failed at least once, where it is asked."""
        return self.heard or self.contact.failing_since is not None

    def use(self, client: Client, discovery: DiscoveryConfig | None) -> None:
        """Ask `client` from now on, for what `discovery` is about."""
        if (client, discovery) == (self._client, self._discovery):
            return
        before, self._client, self._discovery = self._discovery, client, discovery
        self.contact = Contact()
        if before is None or discovery is None or _asks(before) != _asks(discovery):
            self.candidates, self._heard = frozenset(), False
        self._changed.set()

    async def run(self) -> None:
        """Keep asking until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                asking = None
                if self._discovery is not None:
                    asking = group.create_task(self._ask(self._client, self._discovery), name="catalogue")
                await self._changed.wait()
                if asking is not None:
                    asking.cancel()

    async def _ask(self, client: Client, discovery: DiscoveryConfig) -> None:
        index, seen, failures = 0, 0, 0
        sweep = time.monotonic() + until_sweep()
        while True:
            asked = time.monotonic()
            if asked >= sweep:
                index, sweep = 0, asked + until_sweep()
            try:
                with client.share() as share:
                    received, body = await client.listing(
                        PATH, discovery.defaults.datacenter or "", index=index, share=share
                    )
                    found = await _read(body, discovery.tag)
                    del body
            except Exception as error:  # noqa: BLE001  # without it the daemon would end
                index, failures = 0, failures + 1
                self._failed(in_words(error, "catalogue"))
                await asyncio.sleep(back_off(failures))
                continue
            failures = 0
            if self.contact.failing_since is not None:
                log.info(
                    "consul_back", catalogue=f"/v1/{PATH}", after=f"{time.time() - self.contact.failing_since:.1f}s"
                )
            self.contact = Contact(last=time.time())
            index, seen = next_index(index, received, seen), received or seen
            if found != self.candidates or not self._heard:
                self.candidates, self._heard = found, True
                self._hear()
            await asyncio.sleep(max(0.0, AT_MOST_EVERY - (time.monotonic() - asked)))

    def _failed(self, error: str) -> None:
        before = self.contact
        self.contact = before.failed(error)
        if not before.knows(error):
            log.warning("consul_failed", catalogue=f"/v1/{PATH}", error=error, kept="what is declared so far")
        if before.failing_since is None:
            self._hear()


async def candidates_once(client: Client, discovery: DiscoveryConfig) -> frozenset[str]:
    """Return the Consul services that may declare something now; raises ConsulError when Consul does not say."""
    with client.share() as share:
        _, body = await client.listing(PATH, discovery.defaults.datacenter or "", share=share)
        return await _read(body, discovery.tag)


def candidates_in(body: Body, tag: str) -> frozenset[str]:
    """Return the Consul services in `body` whose tags say that they may declare something.

    Raises ConsulError where it is no list of Consul services.
    """
    if len(body) > MAX_BODY:
        raise ConsulError(f"/v1/{PATH} is larger than {MAX_BODY >> 20} MiB")
    try:
        return frozenset(
            name for name, tags in members(body) if isinstance(name, str) and is_candidate(tags, tag)
        )  # what cannot be read is a Consul service less
    except ValueError as error:
        raise ConsulError(f"/v1/{PATH} is not a JSON object: {error}") from error


async def _read(body: Body, tag: str) -> frozenset[str]:
    return candidates_in(body, tag) if len(body) < BIG else await asyncio.to_thread(candidates_in, body, tag)


def _asks(discovery: DiscoveryConfig) -> tuple[str | None, str]:
    return discovery.defaults.datacenter, discovery.tag

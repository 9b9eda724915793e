"""What the daemon hears from outside: Consul's answers, who may declare virtual servers, what operators say to all.

All of one Consul, by one client; a configuration with another `[consul]` brings another client.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final

from lvsctl.config import Config
from lvsctl.consul.catalogue import Catalogue
from lvsctl.consul.choice import Choice
from lvsctl.consul.client import Client
from lvsctl.consul.fleet_orders import FLEET_ORDERS
from lvsctl.consul.key_watch import KeyWatch
from lvsctl.consul.overrides import OverrideWatch
from lvsctl.consul.watch import Watches
from lvsctl.core.candidates import Questions
from lvsctl.core.fleet import FleetOrders, fleet_status
from lvsctl.core.instance import Query
from lvsctl.core.measures import Consul
from lvsctl.core.override import Overrides
from lvsctl.core.override_status import overrides_status
from lvsctl.core.restoration import snapshot_age
from lvsctl.core.status import ConsulStatus, FleetStatus, OverridesStatus
from lvsctl.key_file import fleet_order_file
from lvsctl.override_file import OverrideFile

NAMES: Final = ("watches", "overrides", "fleet orders", "catalogue")


class Sources:
    """The four of them.

    `hear` is called when an answer is news, `hear_overrides`, `hear_orders` and `hear_candidates` when those are
    others. With `dry_run` nothing is written to disk.
    """

    def __init__(
        self,
        config: Config,
        *,
        hear: Callable[[], None],
        hear_overrides: Callable[[], None],
        hear_orders: Callable[[], None],
        hear_candidates: Callable[[], None],
        dry_run: bool,
    ) -> None:
        self._config = config
        self._dry_run = dry_run
        self._client = _client(config)
        self._watches = Watches(self._client, hear)
        self._override_file = OverrideFile(config.daemon.state_directory)
        self._overrides = OverrideWatch(self._client, _prefix(config), hear_overrides, self._keep_overrides)
        self._order_file = fleet_order_file(config.daemon.state_directory)
        self._orders = KeyWatch(FLEET_ORDERS, self._client, _prefix(config), hear_orders, self._keep_orders)
        self._catalogue = Catalogue(self._client, config.discovery, hear_candidates)
        self.questions = Questions()
        self.heard = self._watches.heard

    @property
    def overrides(self) -> Overrides:
        """Return what operators have said of weights."""
        return self._overrides.overrides

    @property
    def fleet_orders(self) -> FleetOrders:
        """Return what operators have ordered to all directors."""
        return self._orders.value

    @property
    def candidates(self) -> frozenset[str]:
        """Return the Consul services that may declare virtual servers."""
        return self._catalogue.candidates

    @property
    def address(self) -> str:
        """Return where Consul is asked."""
        return self._config.consul.address

    @property
    def choice(self) -> Choice | None:
        """Return how news are waited for; None before that is known."""
        return self._watches.choice

    @property
    def client(self) -> Client:
        """Return who asks."""
        return self._client

    @property
    def listed(self) -> bool:
        """Tell whether Consul has said who may declare virtual servers."""
        return self._catalogue.watched and self._catalogue.heard

    @property
    def complete(self) -> bool:
        """Tell whether everything that the start waits for was answered."""
        return self._catalogue.heard and self.heard.complete and self._overrides.settled and self._orders.settled

    @property
    def tried(self) -> bool:
        """Tell whether everything that the start waits for was answered or has failed."""
        return self._catalogue.tried and self.heard.tried and self._overrides.tried and self._orders.tried

    def watch(self, questions: Questions, *, again: bool = False) -> None:
        """Ask `questions` from now on; `again` even where they are the same, for how they are asked may be another."""
        if again or questions != self.questions:
            self.questions = questions
            self._watches.watch(
                questions.queries,
                first=questions.first,
                contested=questions.contested,
                beside=int(self._catalogue.watched) + 2 * int(self._config.overrides is not None),
            )

    def use(self, config: Config) -> bool:
        """Hear as `config` says from now on; return whether another client asks. Then `watch`."""
        old, self._config = self._config, config
        another = not asks_alike(config, old)
        if another:
            replaced, self._client = self._client, _client(config)
            self._watches.use(self._client, replaced)
        self._overrides.use(self._client, _prefix(config))
        self._orders.use(self._client, _prefix(config))
        self._catalogue.use(self._client, config.discovery)
        return another

    async def recall_keys(self) -> None:
        """Have the overrides and orders that were known last stand in until Consul tells them."""
        if self._config.overrides is not None:
            whose = (self.address, self._config.overrides.kv_prefix)
            self._overrides.recall(await asyncio.to_thread(self._override_file.load, *whose))
            self._orders.recall(await asyncio.to_thread(self._order_file.load, *whose))

    def tasks(self, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Begin to ask; what asks lasts until it is cancelled."""
        runs = (self._watches.run(), self._overrides.run(), self._orders.run(), self._catalogue.run())
        return [group.create_task(run, name=name) for run, name in zip(runs, NAMES, strict=True)]

    async def close(self) -> None:
        """Close the connections to Consul."""
        await self._client.close()

    def ages(self) -> Mapping[Query, float]:
        """Return how many seconds ago each query was answered last; without those that never were."""
        now, contacts = time.time(), self.heard.contacts
        return {query: max(0.0, now - each.last) for query, each in contacts.items() if each.last is not None}

    def seen(self) -> Consul:
        """Return what the metrics show of Consul."""
        choice, contacts = self.choice, self.heard.contacts
        return Consul(
            status=self.status(),
            reason=choice.reason.value if choice else "",
            queries=len(contacts),
            doubted=sum(bool(answer.doubt) for answer in self.heard.answers.values()),
            heard={query: contact.last for query, contact in contacts.items()},
        )

    def status(self) -> ConsulStatus:
        """Return how we stand with Consul."""
        heard = self.heard.contacts
        contacts = list(heard.values())
        contacts += [self._catalogue.contact] if self._catalogue.watched else []
        failing = [contact for contact in contacts if contact.failing_since is not None]
        last = {query: each.last for query, each in heard.items() if each.last is not None}
        complete = self.questions.first <= last.keys()
        times = list(last.values())
        if self._catalogue.watched:
            listed = self._catalogue.contact.last
            complete, times = complete and listed is not None, times + ([] if listed is None else [listed])
        choice = self.choice
        since = [each.failing_since for each in failing if each.failing_since]
        reachable = len(failing) < len(contacts) or not contacts
        return ConsulStatus(
            address=self.address,
            reachable=reachable,
            data_age=max(0.0, time.time() - min(times)) if complete and times else None,
            # One datacenter may have been away for days before the agent was: it is since the last one failed.
            failing_since=(min if reachable else max)(since, default=None),
            failing=len(failing),
            error=failing[0].error if failing else "",
            transport=choice.way.value if choice else "",
            transport_why=choice.why if choice else "",
            transport_remedy=choice.remedy if choice else "",
            snapshot_age=snapshot_age(self.heard.answers, time.time()),
        )

    def overrides_status(self, config: Config) -> OverridesStatus | None:
        """Return how the overrides stand, of the virtual servers of `config`; None where there are none by its word."""
        contact = self._overrides.contact
        if contact is None or config.overrides is None:
            return None
        return overrides_status(
            config,
            self.overrides,
            prefix=config.overrides.kv_prefix,
            data_age=None if contact.last is None else max(0.0, time.time() - contact.last),
            error=contact.error,
        )

    def fleet_status(self) -> FleetStatus | None:
        """Return how the orders for the fleet stand; None where there are none by the configuration's word."""
        contact = self._orders.contact
        if contact is None or self._config.overrides is None:
            return None
        return fleet_status(
            self.fleet_orders,
            prefix=self._config.overrides.kv_prefix,
            data_age=None if contact.last is None else max(0.0, time.time() - contact.last),
            error=contact.error,
        )

    def _keep_orders(self, orders: FleetOrders) -> None:
        if self._config.overrides is not None and not self._dry_run:
            self._order_file.keep(orders, self.address, self._config.overrides.kv_prefix)

    def _keep_overrides(self, overrides: Overrides) -> None:
        if self._config.overrides is not None and not self._dry_run:
            self._override_file.keep(overrides, self.address, self._config.overrides.kv_prefix)


def asks_alike(one: Config, other: Config) -> bool:
    """Tell whether Consul is asked the same by both, so that the answers for one count for the other."""
    return (one.consul, one.safety.max_instances) == (other.consul, other.safety.max_instances)


def _prefix(config: Config) -> str | None:
    return config.overrides.kv_prefix if config.overrides else None


def _client(config: Config) -> Client:
    return Client(config.consul, max_instances=config.safety.max_instances)

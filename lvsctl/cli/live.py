"""The live kernel and the live Consul, opened for commands that ask once; imported late, for all of it is heavy."""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet

import attrs
import structlog

from lvsctl.config import Config, VirtualServerConfig
from lvsctl.consul import overrides
from lvsctl.consul.catalogue import candidates_once
from lvsctl.consul.client import Client
from lvsctl.consul.once import ask_once
from lvsctl.core.candidates import queries_to_ask
from lvsctl.core.desired import first_queries_of, queries_in_order, queries_of
from lvsctl.core.instance import Answers, Query
from lvsctl.core.override import NO_OVERRIDES, Overrides
from lvsctl.errors import ConsulError, ConsulRefused, ConsulUnreadable, StateError
from lvsctl.order_file import OrderFile
from lvsctl.override_file import OverrideFile
from lvsctl.reconcile import Look, Reconciler
from lvsctl.store import Store
from netlink import IPVS
from netlink.addresses import Addresses

log = structlog.get_logger()


@contextlib.contextmanager
def reconciler(config: Config) -> Iterator[Reconciler]:
    """Open the kernel; raises netlink.errors.Unavailable when IPVS cannot be used from here."""
    with IPVS() as kernel:
        found = Reconciler(kernel, Addresses(), Store(config.daemon.state_directory), time.time, steady=time.monotonic)
        try:
            found.orders = OrderFile(config.daemon.state_directory).load(set_aside_damage=False)
        except StateError as error:
            log.warning("orders_failed", error=str(error), follows="no order counts that was on disk")
        found.opinions = {}  # a daemon beside us may have some: what it may hold by them is not shown as to go
        yield found


@attrs.frozen(kw_only=True)
class Asked:
    """What Consul says now."""

    answers: Answers
    candidates: frozenset[str] = frozenset()  # Consul services that may declare virtual servers themselves
    unanswered: Mapping[Query, ConsulError] = attrs.field(factory=dict)  # what the file needs, and why there is none

    def whole(self) -> "Asked":
        """Return this; raises ConsulError where something is unanswered."""
        for error in self.unanswered.values():
            raise error
        return self

    def why_unknown(self, virtual_server: VirtualServerConfig) -> str:
        """Return why Consul's answer for `virtual_server` is not known, in words."""
        errors = (self.unanswered.get(query) for query in queries_in_order(virtual_server))
        known = next((error for error in errors if error), None)
        return str(known) if known else "served by another datacenter, which does not answer now; left as it is"


def ask(config: Config) -> Asked:
    """Return a fresh answer of Consul for every virtual server of the file that it answers for.

    Raises ConsulError when it does not answer at all, or for none. A datacenter to fail over to that does not answer
    is told in the log, and so is a Consul service that only declares something: it must not keep the others from being
    seen.
    """

    async def ask_all() -> Asked:
        async with Client(config.consul, max_instances=config.safety.max_instances) as client:
            asked = await _ask_each(client, first_queries_of(config), queries_of(config))
            if config.discovery is None:
                return asked
            candidates = await candidates_once(client, config.discovery)
            ledger = Store(config.daemon.state_directory).load(set_aside_damage=False)
            answers = dict(asked.answers)
            for query in sorted(queries_to_ask(config, candidates, ledger) - answers.keys() - asked.unanswered.keys()):
                try:
                    answers |= await ask_once(client, [query])
                except ConsulError as error:
                    log.warning("consul_failed", consul_service=query.service, error=str(error), kept="left out here")
            return attrs.evolve(asked, answers=answers, candidates=candidates)

    return asyncio.run(ask_all())


async def _ask_each(client: Client, needed: AbstractSet[Query], queries: AbstractSet[Query]) -> Asked:
    """Return the answers to `queries`; raises ConsulError when Consul is not there, or answers none that is `needed`.

    What it refuses for one Consul service, or cannot get from another datacenter, is no reason to leave out the others.
    """

    async def one(query: Query) -> tuple[Answers, ConsulError | None]:
        try:
            return await (ask_once(client, [query]) if query in needed else ask_once(client, [], [query])), None
        except ConsulError as error:
            told = isinstance(error.__cause__, (ConsulRefused, ConsulUnreadable))
            if not told and not query.datacenter:
                raise
            return {}, error

    asked = sorted(queries)
    tasks = [asyncio.ensure_future(one(query)) for query in asked]
    try:
        outcomes = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    answers = {query: answer for found, _ in outcomes for query, answer in found.items()}
    unanswered = {query: error for query, (_, error) in zip(asked, outcomes, strict=True) if error}
    if unanswered and needed <= unanswered.keys():
        raise next(iter(unanswered.values()))
    return Asked(answers=answers, unanswered=unanswered)


def demand(look: Look) -> Look:
    """Return `look`; raises ConsulError where a virtual server waits for a datacenter that did not answer."""
    if look.decision.waiting:
        names = ", ".join(sorted(look.decision.waiting))
        raise ConsulError(f"{names}: served by another datacenter, which does not answer now; left as it is")
    return look


def last_overrides(config: Config) -> Overrides:
    """Return the overrides that the daemon of this director knew last, as it goes on with them itself."""
    if config.overrides is None:
        return NO_OVERRIDES
    return OverrideFile(config.daemon.state_directory).load(config.consul.address, config.overrides.kv_prefix)


def ask_overrides(config: Config) -> Overrides:
    """Return the overrides as Consul has them, none where they are not opened; raises ConsulError when it has none."""
    if config.overrides is None:
        return NO_OVERRIDES
    prefix = config.overrides.kv_prefix

    async def ask_them() -> Overrides:
        async with Client(config.consul) as client:
            return (await overrides.read(client, prefix))[1]

    return asyncio.run(ask_them())

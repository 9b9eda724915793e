"""What another configuration would do to the live table, found out without using it.

Consul's answers that the daemon has count; what else the other configuration needs is asked once. Whoever does not
answer in time is left out: its virtual servers are left as they are, and the preview says so. Nothing is written.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import attrs

from lvsctl.config import Config
from lvsctl.consul import fleet_orders, overrides
from lvsctl.consul.catalogue import candidates_once
from lvsctl.consul.client import Client
from lvsctl.consul.once import ask_once
from lvsctl.core.desired import queries_in_order
from lvsctl.core.difference import Line, difference, unknown_line
from lvsctl.core.fleet import ended_by, own_of, together
from lvsctl.core.instance import Answer, Answers, Query
from lvsctl.core.order import NO_ORDERS, Hold, Orders, Pause
from lvsctl.core.override import NO_OVERRIDES, Overrides
from lvsctl.core.reload import PlannedLine
from lvsctl.core.removal import Removal, removal
from lvsctl.errors import ConsulError
from lvsctl.reconcile import Look, Reconciler
from lvsctl.sources import Sources, asks_alike
from netlink.types import Table

PATIENCE: Final = 5.0  # seconds for Consul to answer in
A_SECOND: Final = 500  # queries for which it has another second
RECALLED: Final = "Consul has not answered for it since lvsctl was started"
SILENT: Final = f"Consul did not answer within {PATIENCE:g} s"


@attrs.frozen(kw_only=True)
class _Asked:
    """What decides about a configuration, besides the machine."""

    answers: Answers
    candidates: frozenset[str] = frozenset()
    overrides: Overrides = NO_OVERRIDES
    fleet: Orders = NO_ORDERS  # operators' orders to all directors
    unanswered: Mapping[Query, str] = attrs.field(factory=dict)  # and why
    missing: tuple[str, ...] = ()  # what else Consul did not say


@attrs.frozen(kw_only=True)
class Preview:
    """The live table, and what two configurations would make of it."""

    config: Config  # the one in use
    now: Look
    then: Look  # by the other one
    asked: _Asked
    orders: Orders = NO_ORDERS  # that stand

    @property
    def removal(self) -> Removal:
        """Return how much of what serves the other one would take away."""
        return self.removal_of(self.now.observed.table)

    def removal_of(self, table: Table) -> Removal:
        """Return the same of what served in `table`, which was there a while ago."""
        return removal(table, self.now.decision, self.then.decision, self.now.config)

    @property
    def lines(self) -> tuple[PlannedLine, ...]:
        """Return the live table against the other one, as `lvsctl diff` has it."""
        decision, virtual_servers = self.then.decision, self.then.config.virtual_servers
        waiting = [virtual_servers[name] for name in sorted(decision.waiting)]
        unknown = (unknown_line(each, self._why(queries_in_order(each))) for each in waiting)
        return tuple(map(_planned, (*difference(decision, self.then.moves, self.then.refusals), *unknown)))

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what Consul did not say, but for the answers of `lines`, and what orders have to do with it."""
        return (*self.asked.missing, *self._paused, *self._lapsed)

    @property
    def _paused(self) -> Iterator[str]:
        """Yield whose order it is that what is shown is not written yet."""
        decision = self.then.decision
        if pause := decision.paused:
            yield f"nothing is written yet: everything is {pause.words}; {ended_by(pause)} ends that"
            return
        for each in decision.virtual_servers.values():
            pause = each.ordered.pause
            if pause and each.steps:
                yield f"{each.name}: nothing is written yet: {pause.words}; {ended_by(pause)} ends that"

    @property
    def _lapsed(self) -> Iterator[str]:
        """Yield the orders that would be about nothing any more: they know a virtual server by its name."""
        gone = self.now.config.virtual_servers.keys() - self.then.config.virtual_servers.keys()
        for each in self.orders.entries:
            if isinstance(each.what, Hold | Pause) and each.what.virtual_server in gone:
                yield f"{each.what} does nothing any more: the file has no virtual server of that name"

    @property
    def complete(self) -> bool:
        """Tell whether Consul said everything."""
        return not self.then.decision.waiting and not self.asked.missing

    def _why(self, queries: Iterable[Query]) -> str:
        known = list(queries)
        if any(answer is not None and answer.snapshot for answer in map(self.asked.answers.get, known)):
            return RECALLED
        return next((self.asked.unanswered[each] for each in known if each in self.asked.unanswered), SILENT)


def _planned(line: Line) -> PlannedLine:
    return PlannedLine(
        sign=line.sign.name.lower(),
        name=line.name,
        virtual_server=line.virtual_server,
        real_server=line.real_server,
        what=line.what,
        cause=line.cause.kind.value,
        why=line.cause.text,
        differs=line.differs,
    )


async def preview(
    config: Config, in_use: Config, *, sources: Sources, reconciler: Reconciler, kernel: asyncio.Lock
) -> Preview:
    """Return what `config` would do in place of the configuration `in_use`; `kernel` is held meanwhile.

    Raises NetlinkError or StateError where the live table or the ledger cannot be read.
    """
    asked = await _ask(config, in_use, sources, reconciler)

    def looks() -> tuple[Look, Look]:
        now = reconciler.preview(
            in_use, sources.heard.answers, overrides=sources.overrides, candidates=sources.candidates
        )
        then = reconciler.preview(
            config,
            asked.answers,
            overrides=asked.overrides,
            candidates=asked.candidates,
            orders=together(own_of(reconciler.orders), asked.fleet),
        )
        return now, then

    async with kernel:
        now, then = await asyncio.to_thread(looks)
    return Preview(config=in_use, now=now, then=then, asked=asked, orders=reconciler.orders.standing(time.time()))


async def preview_of_start(
    config: Config, before: Config, *, sources: Sources, reconciler: Reconciler, kernel: asyncio.Lock
) -> Preview:
    """Return what `config`, with which we have started, would do in place of the one `before`; nobody is asked.

    What Consul has not answered for since stays as it is by both. Raises NetlinkError or StateError.
    """
    heard = sources.heard.answers
    answers = heard if asks_alike(config, before) else {}

    def looks() -> tuple[Look, Look]:
        overrides, candidates = sources.overrides, sources.candidates
        now = reconciler.preview(before, answers, overrides=overrides, candidates=candidates)
        return now, reconciler.preview(config, heard, overrides=overrides, candidates=candidates)

    async with kernel:
        now, then = await asyncio.to_thread(looks)
    return Preview(config=before, now=now, then=then, asked=_Asked(answers=heard))


async def _ask(config: Config, in_use: Config, sources: Sources, reconciler: Reconciler) -> _Asked:
    """Return what Consul says for `config`: what is heard already, and what has to be asked."""
    same = asks_alike(config, in_use)
    missing = []
    candidates, counting, fleet = frozenset[str](), NO_OVERRIDES, NO_ORDERS
    async with _client(config, sources if same else None) as client:
        ends = asyncio.get_running_loop().time() + PATIENCE
        if config.discovery is not None:
            if same and config.discovery == in_use.discovery and sources.listed:
                candidates = sources.candidates
            else:
                try:
                    async with asyncio.timeout_at(ends):
                        candidates = await candidates_once(client, config.discovery)
                except (ConsulError, TimeoutError) as error:
                    missing.append(f"who declares virtual servers is not known: {str(error) or SILENT}")
        if config.overrides is not None:
            if same and config.overrides == in_use.overrides:
                counting, fleet = sources.overrides, sources.fleet_orders.orders
            else:
                try:
                    async with asyncio.timeout_at(ends):
                        counting = (await overrides.read(client, config.overrides.kv_prefix))[1]
                        fleet = (await fleet_orders.read(client, config.overrides.kv_prefix)).orders
                except (ConsulError, TimeoutError) as error:
                    missing.append(f"the overrides and the orders for the fleet are not known: {str(error) or SILENT}")
        answers = sources.heard.answers if same else {}
        queries = reconciler.questions(config, candidates).queries - answers.keys()
        fresh, unanswered = await _ask_each(client, queries, ends)
    return _Asked(
        answers={**answers, **fresh},
        candidates=candidates,
        overrides=counting,
        fleet=fleet,
        unanswered=unanswered,
        missing=tuple(missing),
    )


async def _ask_each(client: Client, queries: AbstractSet[Query], ends: float) -> tuple[Answers, Mapping[Query, str]]:
    """Return the answers to `queries` that came before `ends` of the loop's clock, and why others did not.

    Of very many it takes longer.
    """
    asked, more = sorted(queries), len(queries) / A_SECOND

    async def one(query: Query) -> Answers | str:
        try:
            async with asyncio.timeout_at(ends + more):
                return await ask_once(client, [query])
        except ConsulError as error:
            return str(error)
        except TimeoutError:
            return f"Consul did not answer within {PATIENCE + more:g} s" if more >= 1 else SILENT

    outcomes = await asyncio.gather(*(one(query) for query in asked))
    answers: dict[Query, Answer] = {}
    unanswered: dict[Query, str] = {}
    for query, outcome in zip(asked, outcomes, strict=True):
        if isinstance(outcome, str):
            unanswered[query] = outcome
        else:
            answers |= outcome
    return answers, unanswered


@contextlib.asynccontextmanager
async def _client(config: Config, sources: Sources | None) -> AsyncIterator[Client]:
    """Give the client of `sources`, or one of its own for `config`."""
    if sources is not None:
        yield sources.client
        return
    async with Client(config.consul, max_instances=config.safety.max_instances) as client:
        yield client

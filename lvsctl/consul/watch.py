"""Watches: for every query the last complete answer, renewed as soon as Consul has a newer one.

How news are waited for is chosen by `choice`: a blocking query for each, or signals, after which what may have changed
is asked for. The rules that are applied to an answer, in this order (Consul HTTP API, Blocking Queries):
1. not a complete 200: keep the last good answer, ask again after a back-off with full jitter, and without blocking:
   whoever answers next may be another server, or the same one restarted with a lower index, and would hold a request
   with our index back although it has news; it also says at once that Consul is back;
2. no usable index: ask the next time without blocking, and not at once;
3. the index went back (a restored or rebuilt Consul), or leapt beyond what it can have risen: start over from 0;
4. the same content: no news, nobody is woken; and when Consul answered at once, do not ask again at once, and later
   each time it does it again;
5. so few instances that it may be a lie: ask once more, of a leader that makes sure it still is one (`doubt`);
6. every few minutes ask without an index, whatever it says (`pace.SWEEP`); of another datacenter also after an answer
   without news from the agent's own copy (streaming, from Consul 1.10 on): such a copy says the same when its wait is
   over while it has no connection to there, and only a question without an index is asked there.
A failure is never emptiness: a query without a good answer is absent from `answers`.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

import attrs

from lvsctl.consul.changes import Changes
from lvsctl.consul.choice import Choice
from lvsctl.consul.chooser import Chooser
from lvsctl.consul.client import Client
from lvsctl.consul.doubt import Belief, Doubt, believe, identities, is_whole, not_confirmed
from lvsctl.consul.heard import Heard
from lvsctl.consul.known import Known
from lvsctl.consul.pace import IDLE_POLL, WAIT, back_off, next_index, rest, until_sweep, wait_after, wait_in_doubt
from lvsctl.consul.signals import Signals
from lvsctl.consul.turns import TROUBLED, round_of, take_turns
from lvsctl.core.instance import Answer, Query
from lvsctl.errors import ConsulError, ConsulRefused, ConsulUnreadable
from lvsctl.unexpected import in_words

CHOOSE_AGAIN: Final = 300.0  # seconds; an agent's limits may change while it runs


@attrs.frozen(kw_only=True)
class _Read:
    """What the next query is asked by; thousands of watchers wait, and keep nothing else of the last answer."""

    news: bool
    index: int  # X-Consul-Index; 0 where there is none that can be used
    doubted: bool
    missing: ConsulError | None  # why there is no second answer where one was needed
    streamed: bool  # it is from the agent's own copy


class Watches:
    """One watcher for each query; what they hear is in `heard`.

    `wake` is called on every news. Run `run()` as a task; `watch()` sets what is watched, at any time.
    """

    def __init__(self, client: Client, wake: Callable[[], None]) -> None:
        self._client = client
        self._chooser = Chooser(client)
        self._wanted: frozenset[Query] = frozenset()
        self._beside = 0  # blocking queries that others have
        self._tasks: dict[Query, asyncio.Task[None]] = {}
        self._stirred: dict[Query, asyncio.Event] = {}  # set when a signal says that something may have changed
        self._signals: dict[str, Signals] = {}  # of each datacenter
        self._signal_tasks: dict[str, asyncio.Task[None]] = {}
        self._refused: set[Query] = set()  # the token was, since an answer was believed; whoever watches
        self._changed = asyncio.Event()
        self._retired: list[Client] = []
        self.heard = Heard(wake, self._signals)

    @property
    def choice(self) -> Choice | None:
        """Return how news are waited for; None before that is known."""
        unheard = [each.contact.error for _, each in sorted(self._signals.items()) if each.failing.is_set()]
        choice = self._chooser.choice
        if choice is None or not unheard:
            return choice
        why = f"{unheard[0]}, so every Consul service is asked about each {round_of(len(self._tasks)):.0f} s"
        return attrs.evolve(choice, why=f"{choice.why}; {why}")

    def watch(
        self,
        queries: Iterable[Query],
        *,
        first: Iterable[Query] | None = None,
        contested: Iterable[Query] = (),
        beside: int = 0,
    ) -> None:
        """Watch exactly `queries`; the answers of those that stay are kept.

        `first` are those of them that count for `heard.complete` and `heard.tried`, all of them where it is None;
        `contested` are those of which `heard.answers` tells that they fail now. `beside` are blocking queries that
        others have with the same Consul.
        """
        self._beside = beside
        self._wanted = frozenset(queries)
        self.heard.want(first=self._wanted if first is None else frozenset(first), contested=frozenset(contested))
        self._changed.set()

    def use(self, client: Client, replaced: Client) -> None:
        """Ask `client` from now on and close `replaced`; the last answers stay until there are newer ones."""
        self._client = client
        self._chooser.use(client)
        self.heard.ask_another(elsewhere=client.address != replaced.address)
        self._retired.append(replaced)
        self._changed.set()

    async def run(self) -> None:
        """Keep one task a query until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                await self._keep_up(group)
        finally:
            await self._close_retired()  # the end may come while the agent is still asked for its limits

    async def _keep_up(self, group: asyncio.TaskGroup) -> None:
        while True:
            self._changed.clear()
            for query in self._tasks.keys() - self._wanted:
                self._tasks.pop(query).cancel()
                self._stirred.pop(query, None)
                self._refused.discard(query)
                self.heard.forget(query)
            if self._retired:
                self._stop_all()
            await self._close_retired()
            if await self._chooser.choose(len(self._wanted) + self._beside):
                self._stop_all()
            self._listen(group)
            for query in sorted(self._wanted - self._tasks.keys()):
                self.heard.begin(query)
                if query.datacenter in self._signals:
                    self._stirred[query] = asyncio.Event()
                self._tasks[query] = group.create_task(self._watch(query), name=f"watch {query.service}")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHOOSE_AGAIN):
                    await self._changed.wait()

    async def _close_retired(self) -> None:
        while self._retired:
            await self._retired.pop().close()

    def _stop_all(self) -> None:
        """Stop every watcher; they start again with the client, and in the way, of that time."""
        self.heard.outlive(self._signals)
        for task in (*self._tasks.values(), *self._signal_tasks.values()):
            task.cancel()
        self._tasks.clear()
        self._signal_tasks.clear()
        self._signals.clear()

    def _listen(self, group: asyncio.TaskGroup) -> None:
        """Have signals for every datacenter that is watched, where they are the way."""
        choice = self._chooser.choice
        signalled = choice is not None and choice.way.signalled
        wanted = {query.datacenter for query in self._wanted} if signalled else set()
        for datacenter in self._signals.keys() - wanted:
            self._signal_tasks.pop(datacenter).cancel()
            del self._signals[datacenter]
        for datacenter in sorted(wanted - self._signals.keys()):
            signals = Signals(self._client, datacenter, partial(self._stir, datacenter))
            self._signals[datacenter] = signals
            self._signal_tasks[datacenter] = group.create_task(
                self._signalled(datacenter, signals), name=f"signals {datacenter}"
            )

    async def _signalled(self, datacenter: str, signals: Signals) -> None:
        """Listen to `signals`, and have every watcher ask by itself while there are none."""
        async with asyncio.TaskGroup() as group:
            group.create_task(signals.run(), name=f"listening {datacenter}")
            ready, troubled = partial(self._waiting, datacenter), partial(self._is_troubled, datacenter)
            group.create_task(take_turns(signals.failing, ready, troubled), name=f"turns {datacenter}")

    def _waiting(self, datacenter: str) -> list[asyncio.Event]:
        return [event for query, event in self._stirred.items() if query.datacenter == datacenter]

    def _is_troubled(self, datacenter: str) -> bool:
        """Tell whether so many queries fail that it is no matter of a list."""
        return self.heard.failing(datacenter) >= TROUBLED

    def _stir(self, datacenter: str, changes: Changes) -> int:
        """Have every watcher ask whose Consul service `changes` may concern, and return how many these are.

        To Consul `Reco` and `reco` are one.
        """
        services, stirred = {service.lower() for service in changes.services}, 0
        for query, event in self._stirred.items():
            if query.datacenter != datacenter:
                continue
            if changes.everything or query.service.lower() in services or self._is_on(query, changes.nodes):
                event.set()
                stirred += 1
        return stirred

    def _is_on(self, query: Query, nodes: frozenset[str]) -> bool:
        belief = self.heard.belief(query)
        if not nodes or belief is None:
            return False
        return any(node in nodes for node, _ in belief.known | identities(belief.answer))

    async def _watch(self, query: Query) -> None:
        index, seen, failures, quiet = 0, 0, 0, 0
        wait: float = WAIT
        sweep = time.monotonic() + until_sweep()
        known = Known()
        while True:
            if query.datacenter in self._signals:
                index = 0
                if not failures:
                    await self._until_stirred(query)
            asked = time.monotonic()
            if asked >= sweep:
                index, sweep = 0, asked + until_sweep()
            try:
                read = await self._read(
                    query,
                    await self._client.instances(query, index=index, wait=wait, known=known),
                    known,
                )
            except Exception as error:  # noqa: BLE001  # one query never ends the others
                index, failures = 0, failures + 1
                self._fail(query, error)
                await asyncio.sleep(back_off(failures, error))
                continue
            if self._chooser.is_due():
                self._changed.set()
            if read.missing is not None:  # no failure, for it was answered; but a confirmation is asked for again soon
                index, failures = 0, failures + 1
                await asyncio.sleep(back_off(failures, read.missing))
                continue
            failures = 0
            wait = wait_in_doubt(self.heard.doubted) if read.doubted else wait_after(index)
            repeated = bool(index and query.datacenter and read.streamed and not read.news)
            index, seen = 0 if repeated else next_index(index, read.index, seen), read.index or seen
            took = time.monotonic() - asked
            quiet = quiet + 1 if not read.news and took < IDLE_POLL else 0
            if query.datacenter not in self._signals:
                await _sleep(rest(news=read.news, index=index, quiet=quiet) - took)

    def _fail(self, query: Query, error: Exception) -> None:
        """Take note that `query` was asked in vain."""
        if _is_lost(error):
            self._chooser.lose()
        if _refuses(error):
            self._refused.add(query)
        self.heard.fail(query, query.place + in_words(error, f"watch {query.service}"))

    async def _read(self, query: Query, answer: Answer, known: Known) -> "_Read":
        """Have `answer` heard, once it is known what to believe of it; `known` keeps what is heard."""
        before, served = self.heard.belief(query), self.heard.served(query)
        refused, failed = query in self._refused, self.heard.is_failing(query)
        belief = believe(before, answer, time.monotonic(), refused=refused, failed=failed, served=served)
        missing = None
        if belief.doubt is Doubt.UNCONFIRMED:
            belief, missing = await self._confirmed(query, belief)
        elif belief.doubt is Doubt.CONTRADICTED and before is not None:
            again = partial(believe, before, refused=refused, failed=failed, consistent=True)
            belief = await self._asked_again(query, before, belief, again)
        if belief.doubt is None:
            self._refused.discard(query)
        elif _refuses(missing):
            self._refused.add(query)
        try:
            self.heard.check_room(query, belief.answer)
        except ConsulUnreadable:
            known.forget()
            raise
        news, kept = self.heard.believe(query, belief)
        known.keep(kept)
        return _Read(
            news=news,
            index=belief.answer.index,
            doubted=belief.doubt is not None,
            missing=missing,
            streamed=answer.streamed,
        )

    async def _until_stirred(self, query: Query) -> None:
        """Wait until a signal says that something may have changed, or until it is time to ask in any case."""
        belief = self.heard.belief(query)
        doubted = belief is not None and belief.doubt is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_in_doubt(self.heard.doubted) if doubted else until_sweep()):
                await self._stirred[query].wait()
        self._stirred[query].clear()

    async def _confirmed(self, query: Query, belief: Belief) -> tuple[Belief, ConsulError | None]:
        """Return what to believe after a second answer, or `belief` and why there was none."""
        try:
            answer = await self._client.instances(query, consistent=True)
        except ConsulError as error:
            why = f"Consul answers {error.status}" if isinstance(error, ConsulRefused) else "no answer"
            return not_confirmed(belief, why), error
        return believe(belief, answer, time.monotonic(), consistent=True), None

    async def _asked_again(
        self, query: Query, before: Belief, belief: Belief, again: Callable[[Answer, float], Belief]
    ) -> Belief:
        """Return what to believe after `belief` contradicted `before`, and a leader was asked what it says of it.

        `again` tells what to believe of another answer in place of the one that contradicted.

        An agent sometimes lists nothing by mistake, with status 200: where a server is slow to refuse a token, or too
        old to stream. And its own copy does not say that a permission is lost, a doubt that ends when it is back.
        """
        try:
            answer = await self._client.instances(query, consistent=True)
        except ConsulError:
            return belief
        told = again(answer, time.monotonic())
        knows = belief.answer.streamed and told.doubt is None  # who streams says in other answers what is left out
        if is_whole(before, answer) or told.doubt is Doubt.FILTERED or knows:
            return told
        return believe(belief, answer, time.monotonic(), consistent=True)


async def _sleep(seconds: float) -> None:
    """Sleep where there is time left; where there is none, others had their turn while an answer was waited for."""
    if seconds > 0:
        await asyncio.sleep(seconds)


def _is_lost(error: Exception) -> bool:
    """Tell whether a query could not be asked: there is no answer at all, or the agent has too many connections."""
    if isinstance(error, ConsulRefused):
        return error.status == 429
    return isinstance(error, ConsulError) and not isinstance(error, ConsulUnreadable)


def _refuses(error: Exception | None) -> bool:
    return isinstance(error, ConsulRefused) and error.status == 403

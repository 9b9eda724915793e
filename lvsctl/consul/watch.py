"""Watches: for every query the last complete answer, renewed as soon as Consul has a newer one.

How news are waited for is chosen by `choice`: a blocking query for each, or signals, after which what may have changed
is asked for. The rules that are applied to an answer, in this order (Consul HTTP API, Blocking Queries):
1. not a complete 200: keep the last good answer, ask again after a back-off with full jitter, and without blocking:
   whoever answers next may be another server, or the same one restarted with a lower index, and would hold a request
   with our index back although it has news; it also says at once that Consul is back;
2. no usable index: ask the next time without blocking, and not at once;
3. the index went back (a restored or rebuilt Consul): start over from 0;
4. the same content: no news, nobody is woken; and when Consul answered at once, do not ask again at once, and later
   each time it does it again;
5. so few instances that it may be a lie: ask once more, of a leader that makes sure it still is one (`doubt`);
6. every few minutes ask without an index, whatever it says (`pace.SWEEP`).
A failure is never emptiness: a query without a good answer is absent from `answers`.
"""

import asyncio
import contextlib
import resource
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final

import attrs
import structlog

from lvsctl.consul.burst import WINDOW, Burst
from lvsctl.consul.changes import Changes
from lvsctl.consul.choice import Choice, choose, most_connections
from lvsctl.consul.client import Capacity, Client
from lvsctl.consul.contact import Contact
from lvsctl.consul.doubt import Belief, Doubt, believe, identities, moved, not_confirmed, recalled
from lvsctl.consul.known import Known
from lvsctl.consul.pace import IDLE_POLL, WAIT, back_off, next_index, rest, until_sweep, wait_after
from lvsctl.consul.signals import Signals
from lvsctl.consul.turns import TROUBLED, round_of, take_turns
from lvsctl.core.instance import Answer, Answers, Query
from lvsctl.errors import ConsulError, ConsulRefused
from lvsctl.unexpected import in_words

CHOOSE_AGAIN: Final = 300.0  # seconds; an agent's limits may change while it runs
FRESH: Final = 3  # rounds of `turns` within which a query was heard that needs no signal
LONGEST_QUESTION: Final = 2.0  # seconds that the agent may take to tell its limits

log = structlog.get_logger()


class Watches:
    """One watcher for each query, and what they last heard.

    `wake` is called on every news. Run `run()` as a task; `watch()` sets what is watched, at any time.
    """

    def __init__(self, client: Client, wake: Callable[[], None]) -> None:
        self._client = client
        self._wake = wake
        self._beliefs: dict[Query, Belief] = {}
        self._contacts: dict[Query, Contact] = {}
        self._tasks: dict[Query, asyncio.Task[None]] = {}
        self._stirred: dict[Query, asyncio.Event] = {}  # set when a signal says that something may have changed
        self._signals: dict[str, Signals] = {}  # of each datacenter
        self._signal_tasks: dict[str, asyncio.Task[None]] = {}
        self._choice: Choice | None = None
        self._capacity: Capacity | None = None  # what the agent last told
        self._sure = False  # it was asked since it last could not be
        self._changed = asyncio.Event()
        self._wanted: frozenset[Query] = frozenset()
        self._first: frozenset[Query] = frozenset()  # those of them that the start waits for
        self._contested: frozenset[Query] = frozenset()  # those of which it is told that they fail (`Answer.silent`)
        self._silent: dict[Query, tuple[Answer, Answer]] = {}  # their last answers, and the same with that told
        self._served: dict[Query, int] = {}  # until the first answer, real servers that were in place before the start
        self._beside = 0  # blocking queries that others have
        self._retired: list[Client] = []
        self._bursts = {"consul_failed": Burst(), "consul_back": Burst()}
        self._news: set[Query] = set()
        self._unsaved: set[Query] = set()  # news that no snapshot has yet
        self._unanswered: set[Query] = set()  # of those wanted, by Consul itself
        self._unheard: set[Query] = set()  # of those, the ones that have not failed either

    @property
    def answers(self) -> Answers:
        """Return the last complete answers, each with why it is in doubt; a snapshot's where there is none yet."""
        answers = {query: belief.answer for query, belief in self._beliefs.items()}
        contacts = self.contacts if self._contested else {}
        failing = {query for query in self._contested if contacts.get(query, Contact()).failing_since is not None}
        heard = {query for query in failing & answers.keys() if answers[query].snapshot is None}
        self._silent = {query: self._told_silent(query, answers[query]) for query in heard}
        return answers | {query: told for query, (_, told) in self._silent.items()}

    def _told_silent(self, query: Query, answer: Answer) -> tuple[Answer, Answer]:
        """Return `answer`, and it as one that nothing came after; the same objects as long as it is the same."""
        known = self._silent.get(query)
        return known if known and known[0] is answer else (answer, attrs.evolve(answer, silent=True))

    @property
    def believed(self) -> Answers:
        """Return what this Consul said last and is not in doubt, each with when it said so: worth a snapshot."""
        return self._believed_of(self._beliefs.keys())

    def take_believed(self) -> Answers:
        """Return of `believed` what has changed since this was asked last."""
        unsaved, self._unsaved = self._unsaved, set()
        return self._believed_of(unsaved & self._beliefs.keys())

    def _believed_of(self, queries: Iterable[Query]) -> Answers:
        beliefs = {query: self._beliefs[query] for query in queries}
        return {
            query: attrs.evolve(belief.answer, snapshot=self._contacts[query].last)
            for query, belief in beliefs.items()
            if belief.doubt is None and self._contacts.get(query, Contact()).last is not None
        }

    @property
    def contacts(self) -> Mapping[Query, Contact]:
        """Return how each query stands."""
        signals = {datacenter: each.contact for datacenter, each in self._signals.items()}
        fresh = FRESH * round_of(len(self._contacts))
        return {
            query: contact.beside(signals[query.datacenter], fresh=fresh) if query.datacenter in signals else contact
            for query, contact in self._contacts.items()
        }

    @property
    def choice(self) -> Choice | None:
        """Return how news are waited for; None before that is known."""
        unheard = [each.contact.error for _, each in sorted(self._signals.items()) if each.failing.is_set()]
        if self._choice is None or not unheard:
            return self._choice
        why = f"{unheard[0]}, so every Consul service is asked about each {round_of(len(self._contacts)):.0f} s"
        return attrs.evolve(self._choice, why=f"{self._choice.why}; {why}")

    @property
    def complete(self) -> bool:
        """Tell whether every query that the start waits for was answered at least once."""
        return not self._unanswered

    @property
    def tried(self) -> bool:
        """Tell whether every query that the start waits for was answered or has failed at least once."""
        failing = {name for name, signals in self._signals.items() if signals.contact.failing_since is not None}
        return all(query.datacenter in failing for query in self._unheard)

    @property
    def recalls(self) -> bool:
        """Tell whether a snapshot stands in for any answer."""
        return any(belief.answer.snapshot is not None for belief in self._beliefs.values())

    def take_news(self) -> frozenset[Query]:
        """Return the queries whose answers have become others since this was asked last."""
        news, self._news = frozenset(self._news), set()
        return news

    def _is_answered(self, query: Query) -> bool:
        belief = self._beliefs.get(query)
        return belief is not None and belief.answer.snapshot is None

    def recall(self, snapshot: Answers) -> None:
        """Have the answers of `snapshot` stand in for Consul's own until it gives them."""
        self._beliefs |= {query: recalled(answer) for query, answer in snapshot.items() if query not in self._beliefs}

    def expect(self, served: Mapping[Query, int]) -> None:
        """Have first answers compared with how many real servers were in place, where there is no snapshot of them."""
        self._served = dict(served)

    def watch(
        self,
        queries: Iterable[Query],
        *,
        first: Iterable[Query] | None = None,
        contested: Iterable[Query] = (),
        beside: int = 0,
    ) -> None:
        """Watch exactly `queries`; the answers of those that stay are kept.

        `first` are those of them that count for `complete` and `tried`, all of them where it is None; `contested` are
        those of which `answers` tells that they fail now. `beside` are blocking queries that others have with the same
        Consul.
        """
        self._beside = beside
        self._wanted = frozenset(queries)
        self._first = self._wanted if first is None else frozenset(first)
        self._contested = frozenset(contested)
        self._unanswered = {query for query in self._first if not self._is_answered(query)}
        failing = {query for query, contact in self._contacts.items() if contact.failing_since is not None}
        self._unheard = self._unanswered - failing
        self._changed.set()

    def use(self, client: Client, replaced: Client) -> None:
        """Ask `client` from now on and close `replaced`; the last answers stay until there are newer ones.

        At another address it may be another Consul, of which the old one's indexes say nothing. At the same one they
        do: a new token that reads less is seen by them.
        """
        self._client = client
        self._capacity = None
        if client.address != replaced.address:
            self._beliefs = {query: moved(belief) for query, belief in self._beliefs.items()}
        self._contacts = {query: attrs.evolve(contact, last=None) for query, contact in self._contacts.items()}
        self._retired.append(replaced)
        self._changed.set()

    async def run(self) -> None:
        """Keep one task a query until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                for query in self._tasks.keys() - self._wanted:
                    self._tasks.pop(query).cancel()
                    self._beliefs.pop(query, None)
                    self._contacts.pop(query, None)
                    self._stirred.pop(query, None)
                if self._retired:
                    self._stop_all()
                while self._retired:
                    await self._retired.pop().close()
                await self._choose()
                self._listen(group)
                for query in sorted(self._wanted - self._tasks.keys()):
                    self._contacts.setdefault(query, Contact())
                    if query.datacenter in self._signals:
                        self._stirred[query] = asyncio.Event()
                    self._tasks[query] = group.create_task(self._watch(query), name=f"watch {query.service}")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(CHOOSE_AGAIN):
                        await self._changed.wait()

    def _stop_all(self) -> None:
        """Stop every watcher; they start again with the client, and in the way, of that time."""
        for task in (*self._tasks.values(), *self._signal_tasks.values()):
            task.cancel()
        self._tasks.clear()
        self._signal_tasks.clear()
        self._signals.clear()

    async def _choose(self) -> None:
        """Choose how to wait for news, as the agent and the number of queries have it now."""
        capacity = None
        try:
            async with asyncio.timeout(LONGEST_QUESTION):
                capacity = await self._client.capacity()
        except TimeoutError:
            pass
        except Exception as error:  # noqa: BLE001  # without it the daemon would end
            in_words(error, "choose")
        self._sure = capacity is not None
        # What it told once holds while it cannot be asked, and its limit while it refuses to tell it (a revoked token).
        known = self._capacity
        if capacity is not None and known is not None:
            limit = known.limit if capacity.limit is None else capacity.limit
            capacity = attrs.evolve(capacity, limit=limit, streams=capacity.streams or known.streams)
        self._capacity = capacity or known
        told = self._capacity or Capacity(http2=False, limit=None)
        chosen = choose(
            queries=len(self._wanted) + self._beside,
            http2=told.http2,
            limit=told.limit,
            files=open_files(),
            http2_needs=told.http2_needs,
            streams=told.streams,
        )
        self._client.allow(most_connections(limit=told.limit, files=open_files())[0])
        if self._capacity is None:  # what to advise is known when the agent has answered
            chosen = attrs.evolve(chosen, why=f"the agent has not answered yet; {chosen.why}", remedy="")
        before, self._choice = self._choice, chosen
        if before is None or before.way is not chosen.way:
            self._stop_all()
        elif before.remedy or not chosen.remedy:
            return
        if chosen.remedy:
            log.warning("consul_transport", way=chosen.way.value, why=chosen.why, remedy=chosen.remedy)
        else:
            log.info("consul_transport", way=chosen.way.value, why=chosen.why)

    def _listen(self, group: asyncio.TaskGroup) -> None:
        """Have signals for every datacenter that is watched, where they are the way."""
        signalled = self._choice is not None and self._choice.way.signalled
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
        failing = (each for query, each in self._contacts.items() if query.datacenter == datacenter)
        return sum(each.failing_since is not None for each in failing) >= TROUBLED

    def _stir(self, datacenter: str, changes: Changes) -> None:
        """Have every watcher ask whose Consul service `changes` may concern."""
        for query, event in self._stirred.items():
            if query.datacenter != datacenter:
                continue
            if changes.everything or query.service in changes.services or self._is_on(query, changes.nodes):
                event.set()

    def _is_on(self, query: Query, nodes: frozenset[str]) -> bool:
        belief = self._beliefs.get(query)
        if not nodes or belief is None:
            return False
        return any(node in nodes for node, _ in belief.known | identities(belief.answer))

    async def _watch(self, query: Query) -> None:
        index, failures, quiet, refused = 0, 0, 0, False
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
                answer = await self._client.instances(query, index=index, wait=wait, known=known)
                served = self._served.get(query, 0)
                belief = believe(self._beliefs.get(query), answer, time.monotonic(), refused=refused, served=served)
                missing = None
                if belief.doubt is Doubt.UNCONFIRMED:
                    belief, missing = await self._confirmed(query, belief)
                news = self._believed(query, belief)
                known.keep(self._beliefs[query].answer)
            except Exception as error:  # noqa: BLE001  # one query never ends the others
                index, failures = 0, failures + 1
                refused = refused or _refuses(error)
                self._failed(query, _at(query) + in_words(error, f"watch {query.service}"))
                await asyncio.sleep(back_off(failures, error))
                continue
            refused = belief.doubt is not None and (refused or _refuses(missing))
            if missing is not None:  # no failure, for it was answered; but a confirmation is asked for again soon
                index, failures = 0, failures + 1
                await asyncio.sleep(back_off(failures, missing))
                continue
            failures = 0
            wait = wait_after(index)
            index = next_index(index, belief.answer.index)
            took = time.monotonic() - asked
            quiet = quiet + 1 if not news and took < IDLE_POLL else 0
            if query.datacenter not in self._signals:
                await asyncio.sleep(max(0.0, rest(news=news, index=index, quiet=quiet) - took))

    async def _until_stirred(self, query: Query) -> None:
        """Wait until a signal says that something may have changed, or until it is time to ask in any case."""
        belief = self._beliefs.get(query)
        doubted = belief is not None and belief.doubt is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT if doubted else until_sweep()):
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

    def _believed(self, query: Query, belief: Belief) -> bool:
        """Keep `belief`; return whether it says anything new."""
        before = self._beliefs.get(query)
        failing_since = self._contacts[query].failing_since
        if failing_since is not None and self._is_told("consul_back", ""):
            log.info("consul_back", consul_service=query.service, after=f"{time.time() - failing_since:.1f}s")
        self._contacts[query] = Contact(last=time.time())
        if not self._sure:  # whoever could not say what it can may now
            self._sure = True
            self._changed.set()
        answer = belief.answer
        news = before is None or _content(before.answer) != _content(answer)
        if before is not None and not news:  # the same object stays: what was made of it is known to hold
            answer = before.answer
        self._beliefs[query] = attrs.evolve(belief, answer=answer)
        self._served.pop(query, None)
        self._unanswered.discard(query)
        self._unheard.discard(query)
        _log_doubt(query, before, belief)
        if news:
            self._unsaved.add(query)
            log.debug("consul_answered", consul_service=query.service, instances=len(answer.instances))
        if news or (query in self._contested and (failing_since is not None or query in self._silent)):
            self._news.add(query)
            self._wake()
        return news

    def _is_told(self, event: str, text: str) -> bool:
        """Tell whether `event` is to be logged of this query; where it is not, it is summed up with others' later."""
        burst = self._bursts[event]
        if not burst.is_open:
            asyncio.get_running_loop().call_later(WINDOW, self._sum_up, event)
        return burst.take(text)

    def _sum_up(self, event: str) -> None:
        """Log how many more there were of `event`, until there are no more."""
        rest = self._bursts[event].sum_up()
        if rest is None:
            return
        if event == "consul_failed":
            log.warning("consul_failed", queries=rest.queries, error=rest.text, kept="of each what it had")
        else:
            log.info("consul_back", queries=rest.queries)
        asyncio.get_running_loop().call_later(WINDOW, self._sum_up, event)

    def _failed(self, query: Query, error: str) -> None:
        contact = self._contacts[query]
        if (contact.failing_since is None or contact.error != error) and self._is_told("consul_failed", error):
            log.warning(
                "consul_failed",
                consul_service=query.service,
                error=error,
                kept=_kept(self._beliefs.get(query)),
            )
        self._contacts[query] = contact.failed(error)
        self._unheard.discard(query)
        if contact.failing_since is None and self.recalls and not self._is_answered(query):
            self._wake()  # who waits for the first answers need not wait for this one


def _refuses(error: Exception | None) -> bool:
    return isinstance(error, ConsulRefused) and error.status == 403


def open_files() -> int:
    """Return how many files, sockets among them, this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def _content(answer: Answer) -> tuple[object, ...]:
    """Return what of an answer is news when it changes."""
    return answer.instances, answer.malformed, answer.doubt, answer.snapshot


def _kept(belief: Belief | None) -> str:
    if belief is None:
        return "nothing, it never answered"
    return "the last answer" if belief.answer.snapshot is None else "the snapshot's answer, for what is empty"


def _log_doubt(query: Query, before: Belief | None, belief: Belief) -> None:
    doubted = before.answer.doubt if before else ""
    if belief.answer.doubt and belief.answer.doubt != doubted:
        log.warning(
            "consul_doubted",
            consul_service=query.service,
            why=belief.answer.doubt,
            kept="what serves and is not listed",
        )
    elif before is not None and before.since is not None and doubted and not belief.answer.doubt:
        log.info("consul_believed", consul_service=query.service, after=f"{time.monotonic() - before.since:.1f}s")


def _at(query: Query) -> str:
    """Return where it was asked, to begin an error with; empty for the agent's own datacenter."""
    return f"datacenter {query.datacenter!r}: " if query.datacenter else ""


async def ask_once(client: Client, queries: Iterable[Query], others: Iterable[Query] = ()) -> Answers:
    """Return a fresh answer to every query; raises the first ConsulError when one has none.

    One of `others` without an answer is only told in the log.
    """
    needed = sorted(queries)
    asked = sorted({*needed, *others})
    tasks = [asyncio.ensure_future(_ask(client, query, needed=query in needed)) for query in asked]
    try:
        answers = zip(asked, await asyncio.gather(*tasks), strict=True)
        return {query: answer for query, answer in answers if answer is not None}
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConsulError):
            await asyncio.gather(*tasks, return_exceptions=True)


async def _ask(client: Client, query: Query, *, needed: bool) -> Answer | None:
    try:
        return believe(None, await client.instances(query), time.monotonic()).answer
    except ConsulError as error:
        place = f" in datacenter {query.datacenter!r}" if query.datacenter else ""
        if needed:
            raise ConsulError(f"Consul service {query.service!r}{place}: {error}") from error
        log.warning("consul_failed", consul_service=query.service, error=_at(query) + str(error), kept="nothing")
        return None

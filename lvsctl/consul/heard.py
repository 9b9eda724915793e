"""What was heard of each query: the last answer that may be believed, how it stands with Consul, and what is news.

Pure but for clock and log. A failure is never emptiness: a query without a good answer is absent from `answers`.
"""

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import attrs
import structlog

from lvsctl.consul.burst import WINDOW, Burst
from lvsctl.consul.contact import Contact
from lvsctl.consul.doubt import SETTLING, Belief, moved, recalled
from lvsctl.consul.signals import Signals
from lvsctl.consul.turns import round_of
from lvsctl.core.instance import Answer, Answers, Query
from lvsctl.errors import ConsulUnreadable

KEPT: Final = "what serves and is not listed"  # of an answer in doubt
SMALL: Final = 1 << 20  # bytes of memory that an answer takes and always has
MOST: Final = 64 << 20  # bytes that all larger answers take together; those in doubt are kept beside the last believed
FRESH: Final = 3  # rounds of `turns` within which a query was heard that needs no signal

log = structlog.get_logger()


class Heard:
    """What was heard of every query that is wanted.

    `wake` is called on every news. Queries rest upon the `signals` of their datacenter, where there are some.
    """

    def __init__(self, wake: Callable[[], None], signals: Mapping[str, Signals]) -> None:
        self._wake = wake
        self._signals = signals
        self._beliefs: dict[Query, Belief] = {}
        self._contacts: dict[Query, Contact] = {}
        self._contested: frozenset[Query] = frozenset()  # those of which it is told that they fail (`Answer.silent`)
        self._silent: dict[Query, tuple[Answer, Answer]] = {}  # their last answers, and the same with that told
        self._served: dict[Query, int] = {}  # until the first answer, real servers that were in place before the start
        self._bursts = {name: Burst() for name in ("consul_failed", "consul_back", "consul_doubted", "consul_believed")}
        self._in_vain: dict[str, float] = {}  # when signals that have ended failed the last time, by datacenter
        self._large: dict[Query, int] = {}  # bytes of memory of those that take more than `SMALL`
        self._news: set[Query] = set()
        self._doubted: set[Query] = set()  # those whose last answers are in doubt
        self._unsaved: set[Query] = set()  # news that no snapshot has yet
        self._unanswered: set[Query] = set()  # of those that the start waits for, by Consul itself
        self._unheard: set[Query] = set()  # of those, the ones that have not failed either

    @property
    def answers(self) -> Answers:
        """Return the last complete answers, each with why it is in doubt; a snapshot's where there is none yet."""
        answers = {query: belief.answer for query, belief in self._beliefs.items()}
        contacts = self.contacts if self._contested else {}
        failing = {query for query in self._contested if contacts.get(query, Contact()).failing_since is not None}
        heard = {query for query in failing & answers.keys() if answers[query].snapshot is None}
        silent = {query: self._told_silent(query, answers[query]) for query in heard}
        if others := silent.keys() ^ self._silent.keys():  # whoever reads this may not be who decides by it
            self._news |= others
            self._wake()
        self._silent = silent
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

    @property
    def doubted(self) -> int:
        """Return how many queries' last answers are in doubt."""
        return len(self._doubted)

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

    def want(self, *, first: frozenset[Query], contested: frozenset[Query]) -> None:
        """Have `first` count for `complete` and `tried`, and `answers` tell of `contested` that they fail now."""
        self._contested = contested
        self._unanswered = {query for query in first if not self._is_answered(query)}
        failing = {query for query, contact in self._contacts.items() if contact.failing_since is not None}
        self._unheard = self._unanswered - failing

    def begin(self, query: Query) -> None:
        """Have a contact for `query`, which is asked from now on."""
        self._contacts.setdefault(query, Contact())

    def forget(self, query: Query) -> None:
        """Forget what was heard of `query`."""
        self._beliefs.pop(query, None)
        self._contacts.pop(query, None)
        self._large.pop(query, None)
        self._doubted.discard(query)

    def ask_another(self, *, elsewhere: bool) -> None:
        """Have the last answers stay until another client brings newer ones; `elsewhere`: from another address.

        There it may be another Consul, of which the old one's indexes say nothing. At the same address they do: a new
        token that reads less is seen by them.
        """
        if elsewhere:
            self._beliefs = {query: moved(belief) for query, belief in self._beliefs.items()}
        self._contacts = {query: attrs.evolve(contact, last=None) for query, contact in self._contacts.items()}

    def failing(self, datacenter: str) -> int:
        """Return how many queries of `datacenter` fail."""
        failing = (each for query, each in self._contacts.items() if query.datacenter == datacenter)
        return sum(each.failing_since is not None for each in failing)

    def is_failing(self, query: Query) -> bool:
        """Tell whether Consul was asked in vain since the last answer: for `query`, or for the signals it rests upon.

        That outlives who watches it: the first answer after an outage may have another way chosen.
        """
        contact, signals = self._contacts[query], self._signals.get(query.datacenter)
        in_vain = max(self._in_vain.get(query.datacenter, 0.0), signals.failed if signals else 0.0)
        return contact.failing_since is not None or in_vain > (contact.last or 0.0)

    def outlive(self, signals: Mapping[str, Signals]) -> None:
        """Remember which of `signals`, which end now, have just been asked for in vain."""
        since = time.time() - SETTLING
        self._in_vain = {datacenter: each.failed for datacenter, each in signals.items() if each.failed > since}

    def belief(self, query: Query) -> Belief | None:
        """Return what is believed of `query`; None where it was never answered and no snapshot has it."""
        return self._beliefs.get(query)

    def served(self, query: Query) -> int:
        """Return how many real servers `query` had in place before the start, as long as it was not answered."""
        return self._served.get(query, 0)

    def check_room(self, query: Query, answer: Answer) -> None:
        """Raise ConsulUnreadable where `answer` is so large that with all others too much would be kept.

        What is no larger than what it replaces is always kept: without it nothing would ever be heard of it again.
        """
        before = self._large.get(query, 0)
        if answer.size > max(before, SMALL) and sum(self._large.values()) - before + answer.size > MOST:
            raise ConsulUnreadable(
                f"answer would take {answer.size >> 20} MiB of memory, and all large ones together more than "
                f"{MOST >> 20}; the last complete one stays"
            )

    def believe(self, query: Query, belief: Belief) -> tuple[bool, Answer]:
        """Keep `belief`; return whether it says anything new, and its answer as it is kept."""
        before = self._beliefs.get(query)
        failing_since = self._contacts[query].failing_since
        if failing_since is not None and self._is_told("consul_back", ""):
            log.info("consul_back", consul_service=query.service, after=f"{time.time() - failing_since:.1f}s")
        self._contacts[query] = Contact(last=time.time())
        answer = belief.answer
        news = before is None or _content(before.answer) != _content(answer)
        if before is not None and not news:  # the same object stays: what was made of it is known to hold
            answer = before.answer
        trusted = answer if belief.trusted is belief.answer else belief.trusted  # nothing is kept twice
        self._beliefs[query] = attrs.evolve(belief, answer=answer, trusted=trusted)
        self._weigh(query, answer.size)
        (self._doubted.discard if belief.doubt is None else self._doubted.add)(query)
        self._served.pop(query, None)
        self._unanswered.discard(query)
        self._unheard.discard(query)
        self._tell_doubt(query, before, belief)
        if news:
            self._unsaved.add(query)
            log.debug("consul_answered", consul_service=query.service, instances=len(answer.instances))
        if news or (query in self._contested and (failing_since is not None or query in self._silent)):
            self._news.add(query)
            self._wake()
        return news, answer

    def _weigh(self, query: Query, size: int) -> None:
        if size > SMALL:
            self._large[query] = size
        else:
            self._large.pop(query, None)

    def _is_told(self, event: str, text: str, kind: str = "") -> bool:
        """Tell whether `event` is to be logged of this query; where it is not, it is summed up with others' later."""
        burst = self._bursts[event]
        if not burst.is_open:
            asyncio.get_running_loop().call_later(burst.pause(WINDOW), self._sum_up, event)
        return burst.take(text, kind)

    def _sum_up(self, event: str) -> None:
        """Log how many more there were of `event`, until there are no more."""
        burst = self._bursts[event]
        rest = burst.sum_up()
        if rest is None:
            return
        match event:
            case "consul_failed":
                log.warning(event, queries=rest.queries, error=rest.text, kept="of each what it had")
            case "consul_doubted":
                log.warning(event, queries=rest.queries, why=rest.text, kept=KEPT)
            case _:
                log.info(event, queries=rest.queries)
        asyncio.get_running_loop().call_later(burst.pause(WINDOW), self._sum_up, event)

    def _tell_doubt(self, query: Query, before: Belief | None, belief: Belief) -> None:
        """Log that a doubt begins, or is another one, or is over."""
        doubted, doubt = before.answer.doubt if before else "", belief.answer.doubt
        if doubt and doubt != doubted and self._is_told("consul_doubted", doubt, re.sub(r"[0-9]+", "N", doubt)):
            log.warning("consul_doubted", consul_service=query.service, why=doubt, kept=KEPT)
        since = before.since if before and doubted and not doubt else None
        if since is not None and self._is_told("consul_believed", ""):
            log.info("consul_believed", consul_service=query.service, after=f"{time.monotonic() - since:.1f}s")

    def fail(self, query: Query, error: str) -> None:
        """Note that `query` has no answer now, and why; its last one stays."""
        contact = self._contacts[query]
        if not contact.knows(error) and self._is_told("consul_failed", error):
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


def _content(answer: Answer) -> tuple[object, ...]:
    """Return what of an answer is news when it changes."""
    return answer.instances, answer.malformed, answer.doubt, answer.snapshot


def _kept(belief: Belief | None) -> str:
    if belief is None:
        return "nothing, it never answered"
    return "the last answer" if belief.answer.snapshot is None else "the snapshot's answer, for what is empty"

"""One cycle: read the live table, ask the core, write the ledger, apply.

Level-triggered: nothing is decided from the event that woke the loop. Blocking; the daemon runs it in a thread and
never two at once. `look` never writes anything; `cycle` is the only writer of the kernel in the whole program. A cycle
may be about some virtual servers only (`core.part`): with thousands of them, one that changes should not wait for all.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import attrs

from lvsctl.apply import Done, Refusals, Target, apply, is_done, later, refusals_after, target_of
from lvsctl.clock_watch import ClockWatch
from lvsctl.config import Config
from lvsctl.core import clock as ledger_clock
from lvsctl.core import part
from lvsctl.core.addresses import AddressMoves, address_moves
from lvsctl.core.candidates import Questions, Refusal, queries_elsewhere, queries_to_ask, questions_of
from lvsctl.core.decide import decide
from lvsctl.core.decision import Decision, Step
from lvsctl.core.discovery import Discovered, discover
from lvsctl.core.expectation import expected
from lvsctl.core.instance import Answers, Query
from lvsctl.core.opinion import Opinions
from lvsctl.core.order import NO_ORDERS, Orders
from lvsctl.core.override import NO_OVERRIDES, Overrides
from lvsctl.core.ownership import NO_WORD, Border, Ledger
from lvsctl.core.remembrance import ledger_ahead, ledger_settled
from lvsctl.ledger_kept import KeptLedger
from lvsctl.store import Store
from lvsctl.virtual_addresses import Addresses, VirtualAddresses
from netlink import settings
from netlink.client import Client
from netlink.glance import Glance
from netlink.requests import AddVirtualServer
from netlink.types import Address, Observed, RealServerKey, VirtualServerKey

MOST_LATE: Final = 16  # cycles one after the other that could not be finished and did something all the same
COUNTED_EVERY: Final = 15.0  # seconds; by then the counters that metrics show are read again, which a glance does not


@attrs.frozen(kw_only=True)
class Surroundings:
    """What else decides about everything, besides what is asked of Consul."""

    local: frozenset[Address] = frozenset()  # every address of this machine
    there: frozenset[Address] = frozenset()  # those on our interface
    templates_expire: bool = False
    connections_expire: bool = False


@attrs.frozen(kw_only=True)
class Look:
    """What is, and what would be done about it."""

    config: Config  # with what was discovered
    refusals: tuple[Refusal, ...] = ()  # declarations that do not count
    observed: Observed
    surroundings: Surroundings = Surroundings()
    decision: Decision
    moves: AddressMoves | None = None  # None: the addresses are not ours to keep


@attrs.frozen(kw_only=True)
class Cycle:
    """What one pass saw and did."""

    look: Look
    done: tuple[Done, ...] = ()
    refusals: Refusals = attrs.field(factory=dict)
    added_addresses: tuple[Address, ...] = ()
    removed_addresses: tuple[Address, ...] = ()
    address_error: str = ""  # why the virtual addresses are not as wanted; empty when they are
    ledger_error: str = ""  # why the ledger on disk is not the one in memory; empty when it is
    only: frozenset[VirtualServerKey] | None = None  # those it was about; None: everything
    audit: bool = False  # it was about all that are not as they were, too
    clock_set: float = 0.0  # seconds by which somebody had set the clock since the cycle before; 0: nobody
    late: tuple["Cycle", ...] = ()  # what is found to be done of those before it that could not be finished

    @property
    def undone(self) -> bool:
        """Tell whether the kernel is not yet as it was decided."""
        trouble = self.refusals or self.address_error or self.ledger_error
        return len(self.done) < len(self.look.decision.steps) or bool(trouble)


class Reconciler:
    """Owns the kernel, the ledger and the virtual addresses; remembers refusals between cycles."""

    def __init__(
        self,
        kernel: Client,
        addresses: Addresses,
        store: Store,
        clock: Callable[[], float],
        setting: Callable[[str], int | None] = settings.read,
        *,
        steady: Callable[[], float] | None = None,
    ) -> None:
        """Take what it works on; `clock` gives Unix seconds, `steady` those of a clock that nobody sets."""
        self._kernel = kernel
        self._setting = setting
        self._addresses = VirtualAddresses(addresses)
        self._ledger = KeptLedger(store)
        self._clock = clock
        self._clock_watch = ClockWatch(clock, steady or clock)
        self._put_off = False  # a virtual server waits for a ledger that can be written
        self._counted = 0.0  # Unix seconds when everything was read last
        self._decision: Decision | None = None  # the last one
        self._decided_by: Config | None = None  # its configuration
        self._discovered: Discovered | None = None  # what became of that
        self._address_error = ""  # of the last cycle about everything
        self._audited: tuple[Glance, Surroundings] | None = None  # how everything was just before the last audit
        self._written: frozenset[VirtualServerKey] = frozenset()  # since then: who undoes that leaves what was
        self._unfinished: tuple[Look, list[Step]] | None = None  # what a cycle tried that is not known to have ended
        self._late: tuple[Cycle, ...] = ()  # what was found to be done of such, and is not told yet
        self.refusals: Refusals = {}
        self.opinions: Opinions | None = None  # what the director itself found of real servers; None: it does not look
        self.orders: Orders = NO_ORDERS  # operators'

    def census(self) -> Mapping[VirtualServerKey, int]:
        """Return how many real servers each virtual server of IPv4 has now; raises NetlinkError."""
        return self._kernel.census()

    def questions(self, config: Config, candidates: AbstractSet[str]) -> Questions:
        """Return what has to be asked of Consul; `candidates` may declare virtual servers themselves."""
        if config.discovery is None:
            return questions_of(config)
        discovered = self._discovered.config if self._discovered and self._decided_by is config else config
        ledger = self._ledger.known()
        return questions_of(discovered, queries_to_ask(config, candidates, ledger), queries_elsewhere(config, ledger))

    def expected(self, config: Config, *, writes: bool) -> Mapping[Query, int]:
        """Return how many real servers were in place before us for each query; `writes`: we are the writer."""
        return expected(config, self._ledger.own() if writes else self._ledger.known())

    def look(
        self,
        config: Config,
        answers: Answers,
        *,
        overrides: Overrides = NO_OVERRIDES,
        candidates: AbstractSet[str] = frozenset(),
        ledger: Ledger | None = None,
        released: AbstractSet[VirtualServerKey] = frozenset(),
        orders: Orders | None = None,
        border: Border = NO_WORD,
    ) -> Look:
        """Return what would be done now, without doing it. Reads the ledger from disk where we are not the writer."""
        if ledger is None:
            ledger = self._ledger.known()
        around = self._surroundings(config)
        local, there = around.local, around.there
        discovered = discover(
            config,
            candidates,
            answers,
            ledger,
            own_addresses=local - there if config.vip else frozenset(),  # without it all may be virtual addresses
            before=self._discovered,
        )
        self._discovered, self._decided_by, config = discovered, config, discovered.config
        observed, self._counted = self._observe(ledger), self._clock()
        self._kernel.forget()  # it is long until everything is read again
        decision = decide(
            config,
            answers,
            observed,
            ledger,
            own_addresses=local,
            templates_expire=around.templates_expire,
            connections_expire=around.connections_expire,
            now=self._clock(),
            before=self._decision,
            overrides=overrides,
            released=released,
            refused=self._refused_real_servers(),
            opinions=self.opinions,
            last=self._decision,
            orders=self.orders if orders is None else orders,
            border=border,
        )
        self._decision = decision
        moves = None
        if config.vip is not None:
            moves = address_moves(decision, config.vip.interface, there, self._absent(observed))
        return Look(
            config=config,
            refusals=discovered.refusals,
            observed=observed,
            surroundings=around,
            decision=decision,
            moves=moves,
        )

    def preview(
        self,
        config: Config,
        answers: Answers,
        *,
        overrides: Overrides,
        candidates: AbstractSet[str],
        orders: Orders | None = None,
        border: Border = NO_WORD,
    ) -> Look:
        """Return what would be done with `config`, which may not be in use; the next cycle knows nothing of it.

        By other `orders` than those that stand, where there are any; with what operators would have said of the
        `border`.
        """
        kept = self._discovered, self._decided_by, self._counted, self._decision
        try:
            return self.look(config, answers, overrides=overrides, candidates=candidates, orders=orders, border=border)
        finally:
            self._discovered, self._decided_by, self._counted, self._decision = kept

    def served_last(self) -> Ledger:
        """Return the ledger: what we left in the kernel. Raises StateError where it cannot be read."""
        return self._ledger.known()

    def is_ours(self, key: VirtualServerKey) -> bool:
        """Tell whether we are the writer of the virtual server at `key`, and wrote it."""
        entry = self._ledger.own().get(key) if self._ledger.is_own else None
        return entry is not None and entry.written is not None and not entry.disowned

    def lost(self) -> tuple[frozenset[str], bool]:
        """Return by name what we left in the kernel and is not there any more, and whether that is all of it.

        Raises NetlinkError or StateError.
        """
        left = {key: each.name for key, each in self._ledger.known().items() if each.written and not each.disowned}
        gone = left.keys() - self._kernel.observe().table.keys() if left else frozenset()
        return frozenset(left[key] for key in gone), bool(left) and len(gone) == len(left)

    def _surroundings(self, config: Config) -> Surroundings:
        return Surroundings(
            local=self._addresses.local(),
            there=self._addresses.there(config.vip.interface) if config.vip else frozenset(),
            templates_expire=bool(self._setting("expire_quiescent_template")),
            connections_expire=bool(self._setting("expire_nodest_conn")),
        )

    @staticmethod
    def _has_moved(config: Config, key: VirtualServerKey, name: str) -> bool:
        """Tell whether the virtual server that was at `key` is to be at another one: what becomes of both is one."""
        return name in config.virtual_servers and config.virtual_servers[name].key != key

    def look_at(
        self,
        config: Config,
        answers: Answers,
        only: frozenset[VirtualServerKey],
        *,
        overrides: Overrides = NO_OVERRIDES,
        released: AbstractSet[VirtualServerKey] = frozenset(),
    ) -> Look | None:
        """Return what would be done now about the virtual servers at `only`; None where it takes a look at everything.

        Reads nothing but them: everything else is as the last look at everything found it.
        """
        whole = self._decision
        if whole is None or self._decided_by is not config or not self._ledger.is_own or config.discovery is not None:
            return None  # a declaration concerns others: who has an address
        ledger = part.only(self._ledger.own(), only)
        if any(self._has_moved(config, key, entry.name) for key, entry in ledger.items()):
            return None
        observed = self._observe(ledger, only)
        decision = decide(
            part.config_of(config, only),
            answers,
            observed,
            ledger,
            own_addresses=frozenset(),  # they are in the limits
            templates_expire=whole.templates_expire,
            connections_expire=whole.connections_expire,
            now=self._clock(),
            before=part.decision_of(whole, only),
            limits=whole.limits,
            overrides=overrides,
            released=released,
            refused=self._refused_real_servers(),
            opinions=self.opinions,
            last=self._decision,
            orders=self.orders,
            elsewhere=self._ledger.own(),
        )
        if not part.stands_for_itself(decision, whole, only):
            return None
        self._decision = part.decision_joined(whole, decision, only)
        return Look(config=config, observed=observed, decision=decision)

    def cycle(
        self,
        config: Config,
        answers: Answers,
        only: frozenset[VirtualServerKey] | None = None,
        *,
        audit: bool = False,
        overrides: Overrides = NO_OVERRIDES,
        candidates: AbstractSet[str] = frozenset(),
        released: AbstractSet[VirtualServerKey] = frozenset(),
        border: Border = NO_WORD,
    ) -> Cycle:
        """Make the kernel what `look` says it should be, and return what was done.

        With `only` the cycle is about those virtual servers, where it can be; see `Cycle.only` of what is returned.
        With `audit` it is also about those that are not as they were at the last audit, or cycle about everything.
        Of those `released` nothing is held this time: an operator wants what is held to go. The `border` is what
        operators have just said of whose virtual servers are; it takes a cycle about everything.
        Needs the lock (`store.locked`). Raises NetlinkError or StateError when nothing more can be done now; what was
        done until then is found again by the next cycle. A ledger that cannot be written stops what would be new in it
        and nothing else: a full disk must not keep a failing instance in the table.
        """
        seen, clock_set = None, self._follow_clock()
        if clock_set:
            only = None
        if only is not None and audit:
            seen, only = self._glance(config, only)
        if seen is not None and not only:
            cycle = self._idle_cycle(config)
        else:
            cycle = self._cycle(
                config, answers, only, overrides=overrides, candidates=candidates, released=released, border=border
            )
        written = frozenset(each.step.key for each in cycle.done)
        if cycle.only is None:  # `_audited` was noted on the way
            self._written = written
        elif seen is not None:
            self._audited, self._written = seen, written
        else:
            self._written |= written
        return attrs.evolve(cycle, audit=audit, clock_set=clock_set)

    def _follow_clock(self) -> float:
        """Return by how much the clock was set, once what is remembered has gone with it; 0 where it was not."""
        seconds = self._clock_watch.set_by()
        if seconds:
            self._ledger.keep(ledger_clock.moved(self._ledger.own(), seconds), None, durable=False)
            self.refusals = later(self.refusals, seconds)
        return seconds

    def _idle_cycle(self, config: Config) -> Cycle:
        """Return a cycle about nothing."""
        assert self._decision is not None  # noqa: S101  # who finds that nothing differs knows from what
        config = self._discovered.config if self._discovered else config
        decision = part.decision_of(self._decision, frozenset())
        look = Look(config=config, observed=Observed(table={}, traffic={}, usage={}), decision=decision)
        return Cycle(look=look, refusals=self.refusals, only=frozenset())

    def _glance(
        self, config: Config, only: frozenset[VirtualServerKey]
    ) -> tuple[tuple[Glance, Surroundings] | None, frozenset[VirtualServerKey] | None]:
        """Return what everything looks like now, and `only` with those that are not as they were; None: everything."""
        settled = self._decided_by is config and self._ledger.is_saved and not (self._address_error or self._put_off)
        counted = config.metrics is None or 0 <= self._clock() - self._counted < COUNTED_EVERY
        if self._audited is None or self._decision is None or not settled or not counted:
            return None, None
        before, around = self._audited
        end = self._decision.next_end
        if (end is not None and self._clock() >= end) or not (
            config.vip is None
            or not around.there
            or self._decision.paused
            or self._addresses.is_up(config.vip.interface)
        ):
            return None, None
        now = self._kernel.glance()
        some = only | now.changed(before) | self._written
        if len(some) > part.MOST or not some <= self._decision.virtual_servers.keys():
            return None, None
        return (None, None) if self._surroundings(config) != around else ((now, around), some)

    def _cycle(
        self,
        config: Config,
        answers: Answers,
        only: frozenset[VirtualServerKey] | None,
        *,
        overrides: Overrides,
        candidates: AbstractSet[str],
        released: AbstractSet[VirtualServerKey],
        border: Border,
    ) -> Cycle:
        before = self._ledger.own()
        look = None
        if only is not None and border == NO_WORD:
            look = self.look_at(config, answers, only, overrides=overrides, released=released)
        if look is None or only is None:
            glance = self._kernel.glance()  # what changes after it is seen by the next one
            look = self.look(
                config,
                answers,
                overrides=overrides,
                candidates=candidates,
                ledger=before,
                released=released,
                border=border,
            )
            only = None
        else:
            before = part.only(before, only)
        paused = frozenset(key for key, each in look.decision.virtual_servers.items() if each.ordered.pause)
        waiting = self._waiting() | {target_of(step) for step in look.decision.steps if step.key in paused}
        ledger = _kept(ledger_ahead(look.decision, before, look.observed), before, paused)
        unsent = [step for step in look.decision.steps if target_of(step) in waiting]
        ledger = _without(ledger, _to_create(unsent) - before.keys())
        new = ledger.keys() - before.keys()
        error = self._ledger.keep(ledger, only, durable=ledger.keys() != before.keys())
        if only is None:
            self._put_off = bool(error and new)
        if error and new:
            ledger = _without(ledger, new)
            self._ledger.use(ledger, only)
            waiting |= {(key, None) for key in new}
        self._late = (*self._late, *self._found_done(look.observed))[-MOST_LATE:]
        tried: list[Step] = []
        self._unfinished = look, tried
        done = tuple(apply(self._kernel, look.decision, waiting, tried))
        self.refusals = refusals_after(done, self._still_refused(look.decision, only), self._clock())
        error = self._settle(look.decision, done, only, ledger=ledger, before=before, paused=paused) or error
        cycle = Cycle(look=look, done=done, refusals=self.refusals, ledger_error=error, only=only)
        if only is not None:
            return self._finished(attrs.evolve(cycle, address_error=self._address_error))
        if look.moves is not None and not look.decision.paused:
            moved = self._addresses.keep(
                look.moves.interface,
                functools.partial(
                    address_moves, look.decision, look.moves.interface, absent=self._absent(look.observed)
                ),
            )
            cycle = attrs.evolve(
                cycle, added_addresses=moved.added, removed_addresses=moved.removed, address_error=moved.error
            )
        self._address_error = cycle.address_error
        self._audited = glance, look.surroundings
        if cycle.added_addresses or cycle.removed_addresses:
            self._audited = None  # who undoes that leaves what was
        return self._finished(cycle)

    def _finished(self, cycle: Cycle) -> Cycle:
        """Return `cycle` with what is told late, which nobody has to tell any more."""
        late, self._late, self._unfinished = self._late, (), None
        return attrs.evolve(cycle, late=late)

    def _found_done(self, observed: Observed) -> Iterator[Cycle]:
        """Yield what a cycle that could not be finished did all the same, by what stands in the kernel now."""
        if self._unfinished is not None:
            look, tried = self._unfinished
            if done := tuple(Done(step=step) for step in tried if is_done(step, observed.table)):
                yield Cycle(look=look, done=done)

    def _settle(
        self,
        decision: Decision,
        done: tuple[Done, ...],
        only: frozenset[VirtualServerKey] | None,
        *,
        ledger: Ledger,
        before: Ledger,
        paused: AbstractSet[VirtualServerKey],
    ) -> str:
        """Write down what was done, and forget what we could not create: whoever creates it now is somebody else.

        Return why that is not on disk; empty when it is.
        """
        carried_out = {each.step.request for each in done if each.refused is None}
        failed = [step for step in decision.steps if step.request not in carried_out]
        settled = ledger_settled(decision, ledger, failed)
        settled = _kept(_without(settled, _to_create(failed) - before.keys()), before, paused)
        return self._ledger.keep(settled, only, durable=settled.keys() != ledger.keys())

    def _observe(self, ledger: Ledger, only: frozenset[VirtualServerKey] | None = None) -> Observed:
        """Return the live table, read twice when something of ours seems to be missing: a dump is no snapshot."""
        observed = self._kernel.observe(only)
        return self._kernel.observe(only) if _misses(observed, ledger) else observed

    def _waiting(self) -> frozenset[Target]:
        """Return the targets that are not to be tried yet, because the kernel refused them a moment ago."""
        now = self._clock()
        return frozenset(target for target, refusal in self.refusals.items() if refusal.waits(now))

    def _refused_real_servers(self) -> Mapping[VirtualServerKey, AbstractSet[RealServerKey]]:
        found: dict[VirtualServerKey, set[RealServerKey]] = {}
        for key, server in self.refusals:
            if server is not None:
                found.setdefault(key, set()).add(server)
        return found

    def _still_refused(self, decision: Decision, only: frozenset[VirtualServerKey] | None) -> Refusals:
        wrong = {target_of(step) for step in decision.steps}
        return {
            target: refusal
            for target, refusal in self.refusals.items()
            if target in wrong or (only is not None and target[0] not in only)
        }

    def _absent(self, observed: Observed) -> frozenset[VirtualServerKey]:
        """Return the virtual servers that the kernel refused to create."""
        return frozenset(key for key, server in self.refusals if server is None and key not in observed.table)


def _to_create(steps: Iterable[Step]) -> frozenset[VirtualServerKey]:
    """Return the virtual servers that `steps` were to create."""
    return frozenset(step.key for step in steps if isinstance(step.request, AddVirtualServer))


def _without(ledger: Ledger, keys: AbstractSet[VirtualServerKey]) -> Ledger:
    return {key: entry for key, entry in ledger.items() if key not in keys}


def _kept(ledger: Ledger, before: Ledger, paused: AbstractSet[VirtualServerKey]) -> Ledger:
    """Return `ledger` with what `before` has of those that are `paused`: nothing of them was written, nor is known."""
    return part.joined(ledger, part.only(before, paused), paused) if paused else ledger


def _misses(observed: Observed, ledger: Ledger) -> bool:
    """Tell whether anything that we wrote is not in `observed`."""
    for key, entry in ledger.items():
        if entry.written is None:
            continue
        there = observed.table.get(key)
        if there is None or not entry.written.real_servers.keys() <= there.real_servers.keys():
            return True
    return False

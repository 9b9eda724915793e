"""One cycle: read the live table, ask the core, write the ledger, apply.

Level-triggered: nothing is decided from the event that woke the loop. Blocking; the daemon runs it in a thread and
never two at once. `look` never writes anything; `cycle` is the only writer of the kernel in the whole program. A cycle
may be about some virtual servers only (`core.part`): with thousands of them, one that changes should not wait for all.
"""

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Final, Protocol

import attrs

from lvsctl.apply import Done, Refusals, Target, apply, refusals_after, target_of
from lvsctl.config import Config
from lvsctl.core import part
from lvsctl.core.addresses import AddressMoves, address_moves
from lvsctl.core.candidates import Questions, Refusal, queries_elsewhere, queries_to_ask, questions_of
from lvsctl.core.decision import Decision, Step, decide
from lvsctl.core.discovery import Discovered, discover
from lvsctl.core.expectation import expected
from lvsctl.core.instance import Answers, Query
from lvsctl.core.override import NO_OVERRIDES, Overrides
from lvsctl.core.ownership import Ledger
from lvsctl.core.remembrance import ledger_ahead, ledger_settled
from lvsctl.errors import StateError
from lvsctl.store import Store
from netlink import settings
from netlink.client import Client
from netlink.errors import NetlinkError
from netlink.requests import AddVirtualServer
from netlink.types import Address, Observed, VirtualServerKey

OWNER: Final = "lvsctl"  # the alias that marks our dummy interface


class Addresses(Protocol):
    """Virtual addresses on an interface, as `netlink.addresses.Addresses` offers them."""

    def local_addresses(self) -> frozenset[Address]:
        """Return every address of this machine."""
        ...

    def ensure_interface(self, name: str, *, owner: str) -> None:
        """Create the dummy interface `name` marked as `owner`'s, or check that it is that already."""
        ...

    def interface_addresses(self, name: str) -> frozenset[Address]:
        """Return the addresses on interface `name`, none when it does not exist."""
        ...

    def add_address(self, name: str, address: Address) -> None:
        """Put `address` on interface `name`."""
        ...

    def remove_address(self, name: str, address: Address) -> None:
        """Take `address` off interface `name`."""
        ...

    def owned_interfaces(self, owner: str) -> tuple[str, ...]:
        """Return the names of all interfaces that are `owner`'s."""
        ...

    def remove_interface(self, name: str, *, owner: str) -> None:
        """Remove `owner`'s interface `name` with its addresses."""
        ...


@attrs.frozen(kw_only=True)
class Look:
    """What is, and what would be done about it."""

    config: Config  # with what was discovered
    refusals: tuple[Refusal, ...] = ()  # declarations that do not count
    observed: Observed
    local: frozenset[Address]
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
    ) -> None:
        self._kernel = kernel
        self._setting = setting
        self._interface = ""  # the one that held our addresses in the last cycle
        self._addresses = addresses
        self._store = store
        self._clock = clock
        self._ledger: Ledger | None = None
        self._decision: Decision | None = None  # the last one
        self._decided_by: Config | None = None  # its configuration
        self._discovered: Discovered | None = None  # what became of that
        self._unsaved = False  # the ledger on disk is older than the one in memory
        self._address_error = ""  # of the last cycle about everything
        self.refusals: Refusals = {}

    def questions(self, config: Config, candidates: AbstractSet[str]) -> Questions:
        """Return what has to be asked of Consul; `candidates` may declare virtual servers themselves."""
        if config.discovery is None:
            return questions_of(config)
        discovered = self._discovered.config if self._discovered and self._decided_by is config else config
        ledger = self._known_ledger()
        return questions_of(discovered, queries_to_ask(config, candidates, ledger), queries_elsewhere(config, ledger))

    def expected(self, config: Config, *, writes: bool) -> Mapping[Query, int]:
        """Return how many real servers were in place before us for each query; `writes`: we are the writer."""
        return expected(config, self._own_ledger() if writes else self._known_ledger())

    def look(
        self,
        config: Config,
        answers: Answers,
        *,
        overrides: Overrides = NO_OVERRIDES,
        candidates: AbstractSet[str] = frozenset(),
        ledger: Ledger | None = None,
    ) -> Look:
        """Return what would be done now, without doing it. Reads the ledger from disk where we are not the writer."""
        if ledger is None:
            ledger = self._known_ledger()
        local = self._addresses.local_addresses()
        there = self._addresses.interface_addresses(config.vip.interface) if config.vip else frozenset()
        discovered = discover(
            config,
            candidates,
            answers,
            ledger,
            own_addresses=local - there if config.vip else frozenset(),  # without it all may be virtual addresses
            before=self._discovered,
        )
        self._discovered, self._decided_by, config = discovered, config, discovered.config
        observed = self._observe(ledger)
        decision = decide(
            config,
            answers,
            observed,
            ledger,
            own_addresses=local,
            templates_expire=bool(self._setting("expire_quiescent_template")),
            now=self._clock(),
            before=self._decision,
            overrides=overrides,
        )
        self._decision = decision
        moves = None
        if config.vip is not None:
            moves = address_moves(decision, config.vip.interface, there, self._absent(observed))
        return Look(
            config=config,
            refusals=discovered.refusals,
            observed=observed,
            local=local,
            decision=decision,
            moves=moves,
        )

    @staticmethod
    def _has_moved(config: Config, key: VirtualServerKey, name: str) -> bool:
        """Tell whether the virtual server that was at `key` is to be at another one: what becomes of both is one."""
        return name in config.virtual_servers and config.virtual_servers[name].key != key

    def _known_ledger(self) -> Ledger:
        return self._store.load(set_aside_damage=False) if self._ledger is None else self._ledger

    def look_at(
        self,
        config: Config,
        answers: Answers,
        only: frozenset[VirtualServerKey],
        *,
        overrides: Overrides = NO_OVERRIDES,
    ) -> Look | None:
        """Return what would be done now about the virtual servers at `only`; None where it takes a look at everything.

        Reads nothing but them: everything else is as the last look at everything found it.
        """
        whole = self._decision
        if whole is None or self._decided_by is not config or self._ledger is None or config.discovery is not None:
            return None  # a declaration concerns others: who has an address
        ledger = part.only(self._ledger, only)
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
            now=self._clock(),
            before=part.decision_of(whole, only),
            limits=whole.limits,
            overrides=overrides,
        )
        if not part.stands_for_itself(decision, whole):
            return None
        self._decision = part.decision_joined(whole, decision, only)
        return Look(config=config, observed=observed, local=frozenset(), decision=decision)

    def cycle(
        self,
        config: Config,
        answers: Answers,
        only: frozenset[VirtualServerKey] | None = None,
        *,
        overrides: Overrides = NO_OVERRIDES,
        candidates: AbstractSet[str] = frozenset(),
    ) -> Cycle:
        """Make the kernel what `look` says it should be, and return what was done.

        With `only` the cycle is about those virtual servers, where it can be; see `Cycle.only` of what is returned.
        Needs the lock (`store.locked`). Raises NetlinkError or StateError when nothing more can be done now; what was
        done until then is found again by the next cycle. A ledger that cannot be written stops what would be new in it
        and nothing else: a full disk must not keep a failing instance in the table.
        """
        before = self._own_ledger()
        look = None if only is None else self.look_at(config, answers, only, overrides=overrides)
        if look is None or only is None:
            look, only = self.look(config, answers, overrides=overrides, candidates=candidates, ledger=before), None
        else:
            before = part.only(before, only)
        waiting = self._waiting()
        ledger = ledger_ahead(look.decision, before, look.observed)
        unsent = [step for step in look.decision.steps if target_of(step) in waiting]
        ledger = _without(ledger, _to_create(unsent) - before.keys())
        new = ledger.keys() - before.keys()
        error = self._keep(ledger, only, durable=ledger.keys() != before.keys())
        if error and new:
            ledger = _without(ledger, new)
            self._ledger = self._joined(ledger, only)
            waiting |= {(key, None) for key in new}
        done = tuple(apply(self._kernel, look.decision, waiting))
        self.refusals = refusals_after(done, self._still_refused(look.decision, only), self._clock())
        error = self._settle(look.decision, done, only, ledger=ledger, before=before) or error
        cycle = Cycle(look=look, done=done, refusals=self.refusals, ledger_error=error, only=only)
        if only is not None:
            return attrs.evolve(cycle, address_error=self._address_error)
        cycle = self._move_addresses(cycle)
        self._address_error = cycle.address_error
        return cycle

    def _settle(
        self,
        decision: Decision,
        done: tuple[Done, ...],
        only: frozenset[VirtualServerKey] | None,
        *,
        ledger: Ledger,
        before: Ledger,
    ) -> str:
        """Write down what was done, and forget what we could not create: whoever creates it now is somebody else.

        Return why that is not on disk; empty when it is.
        """
        carried_out = {each.step.request for each in done if each.refused is None}
        failed = [step for step in decision.steps if step.request not in carried_out]
        settled = ledger_settled(decision, ledger, {step.key for step in failed})
        settled = _without(settled, _to_create(failed) - before.keys())
        return self._keep(settled, only, durable=settled.keys() != ledger.keys())

    def _own_ledger(self) -> Ledger:
        if self._ledger is None:
            self._ledger = self._store.load(set_aside_damage=True)
        return self._ledger

    def _joined(self, ledger: Ledger, only: frozenset[VirtualServerKey] | None) -> Ledger:
        """Return the whole ledger with `ledger` for the virtual servers at `only`."""
        return ledger if only is None or self._ledger is None else part.joined(self._ledger, ledger, only)

    def _keep(self, ledger: Ledger, only: frozenset[VirtualServerKey] | None, *, durable: bool) -> str:
        """Have `ledger` in memory and, where it is not there yet, on disk; return why it is not, empty when it is.

        It is the ledger of the virtual servers at `only`, or the whole.
        """
        ledger = self._joined(ledger, only)
        if ledger != self._ledger or self._unsaved:
            durable = durable or self._unsaved
            self._ledger, self._unsaved = ledger, True
            try:
                self._store.save(ledger, durable=durable)
            except StateError as error:
                return str(error)
            self._unsaved = False
        return ""

    def _observe(self, ledger: Ledger, only: frozenset[VirtualServerKey] | None = None) -> Observed:
        """Return the live table, read twice when something of ours seems to be missing: a dump is no snapshot."""
        observed = self._kernel.observe(only)
        return self._kernel.observe(only) if _misses(observed, ledger) else observed

    def _waiting(self) -> frozenset[Target]:
        """Return the targets that are not to be tried yet, because the kernel refused them a moment ago."""
        now = self._clock()
        return frozenset(target for target, refusal in self.refusals.items() if refusal.retry_at > now)

    def _still_refused(self, decision: Decision, only: frozenset[VirtualServerKey] | None) -> Refusals:
        wrong = {target_of(step) for step in decision.steps}
        return {
            target: refusal
            for target, refusal in self.refusals.items()
            if target in wrong or (only is not None and target[0] not in only)
        }

    def _move_addresses(self, cycle: Cycle) -> Cycle:
        """Keep exactly the virtual addresses that are needed on our interface; return `cycle` with the moves.

        One address that cannot be moved hinders no other. An interface of ours that another took the place of goes
        once the addresses are on the new one.
        """
        if cycle.look.moves is None:
            return cycle
        name = cycle.look.moves.interface
        try:
            there = self._addresses.interface_addresses(name)
            moves = address_moves(cycle.look.decision, name, there, self._absent(cycle.look.observed))
            if moves.missing or there:
                self._addresses.ensure_interface(name, owner=OWNER)  # refuses one that is not ours
        except NetlinkError as error:
            return attrs.evolve(cycle, address_error=str(error))
        added, errors = _each(moves.missing, lambda address: self._addresses.add_address(name, address))
        gone, others = _each(moves.superfluous, lambda address: self._addresses.remove_address(name, address))
        errors += others
        if self._interface != name and not errors:
            errors += self._remove_others(name)
        return attrs.evolve(cycle, added_addresses=added, removed_addresses=gone, address_error="; ".join(errors))

    def _remove_others(self, name: str) -> tuple[str, ...]:
        """Remove every interface of ours but `name`; return what went wrong."""
        try:
            for other in self._addresses.owned_interfaces(OWNER):
                if other != name:
                    self._addresses.remove_interface(other, owner=OWNER)
        except NetlinkError as error:
            return (str(error),)
        self._interface = name
        return ()

    def _absent(self, observed: Observed) -> frozenset[VirtualServerKey]:
        """Return the virtual servers that the kernel refused to create."""
        return frozenset(key for key, server in self.refusals if server is None and key not in observed.table)


def _to_create(steps: Iterable[Step]) -> frozenset[VirtualServerKey]:
    """Return the virtual servers that `steps` were to create."""
    return frozenset(step.key for step in steps if isinstance(step.request, AddVirtualServer))


def _without(ledger: Ledger, keys: AbstractSet[VirtualServerKey]) -> Ledger:
    return {key: entry for key, entry in ledger.items() if key not in keys}


def _each(
    addresses: AbstractSet[Address], move: Callable[[Address], None]
) -> tuple[tuple[Address, ...], tuple[str, ...]]:
    """Call `move` for each of `addresses` in order; return those that it moved, and the errors of the others."""
    moved: list[Address] = []
    errors: list[str] = []
    for address in sorted(addresses, key=_address_order):
        try:
            move(address)
        except NetlinkError as error:
            errors.append(str(error))
        else:
            moved.append(address)
    return tuple(moved), tuple(errors)


def _misses(observed: Observed, ledger: Ledger) -> bool:
    """Tell whether anything that we wrote is not in `observed`."""
    for key, entry in ledger.items():
        if entry.written is None:
            continue
        there = observed.table.get(key)
        if there is None or not entry.written.real_servers.keys() <= there.real_servers.keys():
            return True
    return False


def _address_order(address: Address) -> tuple[int, int]:
    return (address.version, int(address))

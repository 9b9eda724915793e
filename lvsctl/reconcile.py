"""One cycle: read the live table, ask the core, write the ledger, apply.

Level-triggered: nothing is decided from the event that woke the loop. Blocking; the daemon runs it in a thread and
never two at once. `look` never writes anything; `cycle` is the only writer of the kernel in the whole program.
"""

from collections.abc import Callable, Mapping
from typing import Final, Protocol

import attrs

from lvsctl.apply import Done, Refusal, apply, refusals_after
from lvsctl.config import Config
from lvsctl.core.decision import Decision, decide, ledger_after, ledger_settled
from lvsctl.core.instance import Answers
from lvsctl.core.ownership import Ledger
from lvsctl.store import Store
from netlink.client import Client
from netlink.errors import NetlinkError
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


@attrs.frozen(kw_only=True)
class Look:
    """What is, and what would be done about it."""

    observed: Observed
    local: frozenset[Address]
    decision: Decision


@attrs.frozen(kw_only=True)
class Cycle:
    """What one pass saw and did."""

    look: Look
    done: tuple[Done, ...] = ()
    refusals: Mapping[VirtualServerKey, Refusal] = attrs.field(factory=dict)
    added_addresses: tuple[Address, ...] = ()
    removed_addresses: tuple[Address, ...] = ()
    address_error: str = ""  # why the virtual addresses are not as wanted; empty when they are

    @property
    def undone(self) -> bool:
        """Tell whether the kernel is not yet as it was decided."""
        return len(self.done) < len(self.look.decision.steps) or bool(self.refusals or self.address_error)


class Reconciler:
    """Owns the kernel, the ledger and the virtual addresses; remembers refusals between cycles."""

    def __init__(self, kernel: Client, addresses: Addresses, store: Store, clock: Callable[[], float]) -> None:
        self._kernel = kernel
        self._addresses = addresses
        self._store = store
        self._clock = clock
        self._ledger: Ledger | None = None
        self.refusals: Mapping[VirtualServerKey, Refusal] = {}

    def look(self, config: Config, answers: Answers, *, ledger: Ledger | None = None) -> Look:
        """Return what would be done now, without doing it. Reads the ledger from disk where we are not the writer."""
        if ledger is None:
            ledger = self._store.load(set_aside_damage=False) if self._ledger is None else self._ledger
        local = self._addresses.local_addresses()
        observed = self._observe(ledger)
        decision = decide(config, answers, observed, ledger, own_addresses=local, now=self._clock())
        return Look(observed=observed, local=local, decision=decision)

    def cycle(self, config: Config, answers: Answers) -> Cycle:
        """Make the kernel what `look` says it should be, and return what was done.

        Needs the lock (`store.locked`). Raises NetlinkError or StateError when nothing more can be done now; what was
        done until then is found again by the next cycle.
        """
        before = self._own_ledger()
        look = self.look(config, answers, ledger=before)
        due = self._due(look.decision)
        ledger = ledger_after(look.decision, before, look.observed)
        if ledger != before:
            self._save(ledger, durable=ledger.keys() != before.keys())
        done = tuple(apply(self._kernel, [step for step in look.decision.steps if step.key in due]))
        self.refusals = refusals_after(done, self._still_refused(look.decision), self._clock())
        settled = ledger_settled(look.decision, ledger, self.refusals.keys())
        if settled != ledger:
            self._save(settled, durable=False)
        cycle = Cycle(look=look, done=done, refusals=self.refusals)
        try:
            added, removed = self._move_addresses(config, look)
        except NetlinkError as error:
            return attrs.evolve(cycle, address_error=str(error))
        return attrs.evolve(cycle, added_addresses=added, removed_addresses=removed)

    def _own_ledger(self) -> Ledger:
        if self._ledger is None:
            self._ledger = self._store.load(set_aside_damage=True)
        return self._ledger

    def _save(self, ledger: Ledger, *, durable: bool) -> None:
        self._store.save(ledger, durable=durable)
        self._ledger = ledger

    def _observe(self, ledger: Ledger) -> Observed:
        """Return the live table, read twice when something of ours seems to be missing: a dump is no snapshot."""
        observed = self._kernel.observe()
        return self._kernel.observe() if _misses(observed, ledger) else observed

    def _due(self, decision: Decision) -> frozenset[VirtualServerKey]:
        """Return the virtual servers that may be written now: all but those that wait after a refusal."""
        now = self._clock()
        waiting = {key for key, refusal in self.refusals.items() if refusal.retry_at > now}
        return frozenset(decision.virtual_servers.keys() - waiting)

    def _still_refused(self, decision: Decision) -> Mapping[VirtualServerKey, Refusal]:
        wrong = {step.key for step in decision.steps}
        return {key: refusal for key, refusal in self.refusals.items() if key in wrong}

    def _move_addresses(self, config: Config, look: Look) -> tuple[tuple[Address, ...], tuple[Address, ...]]:
        """Keep exactly the virtual addresses that are needed on the dummy interface; return what came and went."""
        if config.vip is None:
            return (), ()
        name = config.vip.interface
        wanted = look.decision.addresses - self._missing_addresses(look)
        there = self._addresses.interface_addresses(name)
        if wanted or there:
            self._addresses.ensure_interface(name, owner=OWNER)  # refuses one that is not ours
        added = tuple(sorted(wanted - there, key=_address_order))
        in_use = {key.address for key in look.decision.foreign}  # ours once, when a ledger was lost: they still serve
        removed = tuple(sorted(there - wanted - in_use, key=_address_order))
        for address in added:
            self._addresses.add_address(name, address)
        for address in removed:
            self._addresses.remove_address(name, address)
        return added, removed

    def _missing_addresses(self, look: Look) -> frozenset[Address]:
        """Return the addresses whose every virtual server was refused before it ever existed."""
        absent = {key.address for key in self.refusals if key.address is not None and key not in look.observed.table}
        present = {
            key.address
            for key, each in look.decision.virtual_servers.items()
            if each.intended is not None and (key in look.observed.table or key not in self.refusals)
        }
        return frozenset(absent - present)


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

"""The ledger in memory, and how far the one on disk is behind it.

Whoever writes the kernel owns the ledger: it is read once, and what is in memory counts from then on. Whoever only
looks reads it from disk each time.
"""

from lvsctl.core import part
from lvsctl.core.ownership import Ledger
from lvsctl.errors import StateError
from lvsctl.store import Store
from netlink.types import VirtualServerKey


class KeptLedger:
    """The ledger of one reconciler."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ledger: Ledger | None = None  # None: nobody has asked for it as its owner
        self._unsaved = False  # the one on disk is older

    @property
    def is_own(self) -> bool:
        """Tell whether it is in memory."""
        return self._ledger is not None

    @property
    def is_saved(self) -> bool:
        """Tell whether the one on disk is no older."""
        return not self._unsaved

    def own(self) -> Ledger:
        """Return the ledger as the writer has it; a damaged one is set aside.

        Raises StateError where it cannot be read.
        """
        if self._ledger is None:
            self._ledger = self._store.load(set_aside_damage=True)
        return self._ledger

    def known(self) -> Ledger:
        """Return the ledger, from disk where we are not the writer. Raises StateError where it cannot be read."""
        return self._store.load(set_aside_damage=False) if self._ledger is None else self._ledger

    def use(self, ledger: Ledger, only: frozenset[VirtualServerKey] | None) -> None:
        """Have `ledger` in memory alone. It is that of the virtual servers at `only`, or the whole."""
        self._ledger = self._joined(ledger, only)

    def keep(self, ledger: Ledger, only: frozenset[VirtualServerKey] | None, *, durable: bool) -> str:
        """Have `ledger` in memory and, where it is not there yet, on disk; return why it is not, empty when it is.

        It is that of the virtual servers at `only`, or the whole.
        """
        ledger = self._joined(ledger, only)
        before, self._ledger = self._ledger, ledger
        if ledger != before or self._unsaved:
            durable = durable or self._unsaved
            self._unsaved = True
            try:
                self._store.save(ledger, durable=durable)
            except StateError as error:
                return str(error)
            self._unsaved = False
        return ""

    def _joined(self, ledger: Ledger, only: frozenset[VirtualServerKey] | None) -> Ledger:
        """Return the whole ledger with `ledger` for the virtual servers at `only`."""
        return ledger if only is None or self._ledger is None else part.joined(self._ledger, ledger, only)

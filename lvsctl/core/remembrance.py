"""What the ledger has to say before the steps of a decision, and after them.

Pure. `store` writes it. Before: what is about to be ours, so that a crash leaves a line about nothing rather than a
virtual server that nobody owns. After: what was written, so that the next difference can tell a hand from a wish.
"""

from collections.abc import Set as AbstractSet

import attrs

from lvsctl.core.decision import Decision
from lvsctl.core.ownership import Ledger, LedgerEntry, Owner
from netlink.types import Observed, VirtualServerKey


def ledger_ahead(decision: Decision, ledger: Ledger, observed: Observed) -> Ledger:
    """Return the ledger to write before the steps of `decision`: ours with their drains, as they stood until now.

    What is removed stays in the ledger until the kernel has been seen without it.
    """
    kept = {
        key: entry
        for key, entry in ledger.items()
        if key in decision.virtual_servers or key in observed.table or entry.name in decision.waiting
        if key not in decision.disowned
    }
    for key, each in decision.virtual_servers.items():
        if each.owner is Owner.FOREIGN:
            continue
        before = ledger.get(key)
        kept[key] = LedgerEntry(
            name=each.name,
            drain_timeout=each.drain_timeout,
            written=before.written if before else (each.observed if each.owner is Owner.ADOPTED else None),
            draining={server: state.since for server, state in each.draining.items()},
        )
    return kept


def ledger_settled(decision: Decision, ledger: Ledger, failed: AbstractSet[VirtualServerKey]) -> Ledger:
    """Return `ledger` once the steps of `decision` are done, all but those of the virtual servers in `failed`."""
    done = {
        key: each.intended
        for key, each in decision.virtual_servers.items()
        if key in ledger and key not in failed and each.owner is not Owner.FOREIGN
    }
    return {key: attrs.evolve(entry, written=done[key]) if key in done else entry for key, entry in ledger.items()}

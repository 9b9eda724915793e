"""Which virtual addresses come and go on our interface.

Pure. `netlink.addresses` moves them, once the real servers behind them are in.
"""

from collections.abc import Set as AbstractSet

import attrs

from lvsctl.core.decision import Decision
from netlink.types import Address, VirtualServerKey


@attrs.frozen(kw_only=True)
class AddressMoves:
    """What is to become of the virtual addresses on our interface."""

    interface: str
    missing: frozenset[Address] = frozenset()
    superfluous: frozenset[Address] = frozenset()

    def __len__(self) -> int:
        """Return how many addresses move."""
        return len(self.missing) + len(self.superfluous)


def address_moves(
    decision: Decision, interface: str, there: AbstractSet[Address], absent: AbstractSet[VirtualServerKey] = frozenset()
) -> AddressMoves:
    """Return how the addresses `there` on `interface` become exactly those that are needed.

    `absent` are virtual servers that could not be created. The address of a foreign virtual server stays where it is:
    it was ours once, when a ledger was lost, and still serves.
    """
    unserved = {key.address for key in absent} - {
        key.address for key, each in decision.virtual_servers.items() if each.intended and key not in absent
    }
    wanted = decision.addresses - unserved
    in_use = {key.address for key in decision.foreign}
    return AddressMoves(interface=interface, missing=wanted - there, superfluous=frozenset(there - wanted - in_use))

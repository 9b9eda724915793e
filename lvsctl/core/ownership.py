"""Which virtual servers of the live table are ours; the rest is foreign and never touched.

Pure. Ours is an allow-list: the ledger, which `store` keeps on disk and which is written before the kernel is.
A virtual server that is not in it but stands exactly as wanted is adopted, which writes nothing to the kernel.
"""

import enum
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

import attrs

from netlink.types import RealServerKey, Table, TableEntry, VirtualServerKey


@attrs.frozen(kw_only=True)
class LedgerEntry:
    """What we remember of one virtual server of ours."""

    name: str  # in the configuration, when it was last there
    drain_timeout: float  # seconds, for when it is no longer there
    written: TableEntry | None = None  # as we last left it in the kernel; None before the first write
    draining: Mapping[RealServerKey, float] = attrs.field(factory=dict)  # when each was quiesced, Unix seconds


Ledger = Mapping[VirtualServerKey, LedgerEntry]
"""Every virtual server that we created or adopted, and nothing else."""


class Owner(enum.Enum):
    """Whose a virtual server is."""

    OURS = "ours"
    ADOPTED = "adopted"  # ours from now on
    FOREIGN = "foreign"


def owner_of(wanted: TableEntry, observed: TableEntry | None, ledger: Ledger) -> Owner:
    """Return whose the virtual server at the key of `wanted` is; a key that nobody has yet is ours."""
    if observed is None or wanted.virtual_server.key in ledger:
        return Owner.OURS
    return Owner.ADOPTED if _stands_as(observed, wanted) else Owner.FOREIGN


def foreign(table: Table, ours: AbstractSet[VirtualServerKey]) -> frozenset[VirtualServerKey]:
    """Return the virtual servers of `table` that are not among `ours`."""
    return frozenset(table.keys() - ours)


def _stands_as(observed: TableEntry, wanted: TableEntry) -> bool:
    """Tell whether `observed` is `wanted`, apart from quiesced real servers on their way out."""
    staying = {
        key: real_server
        for key, real_server in observed.real_servers.items()
        if real_server.weight > 0 or key in wanted.real_servers
    }
    return observed.virtual_server == wanted.virtual_server and staying == wanted.real_servers

"""Which virtual servers of the live table are ours; the rest is foreign and never touched.

Pure. Ours is an allow-list: the ledger, which `store` keeps on disk and which is written before the kernel is.
A virtual server that is not in it but stands exactly as wanted is adopted, which writes nothing to the kernel.
"""

import enum
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

import attrs

from lvsctl.config import Declaration
from lvsctl.core.nothing import NOTHING
from lvsctl.core.peak import NO_PEAKS, Peaks
from lvsctl.core.provenance import UNKNOWN, Provenance
from lvsctl.core.served import NEVER, Served
from netlink.types import RealServerKey, Table, TableEntry, VirtualServerKey


@attrs.frozen(kw_only=True)
class LedgerEntry:
    """What we remember of one virtual server of ours."""

    name: str  # in the configuration, when it was last there
    drain_timeout: float  # seconds, for when it is no longer there
    written: TableEntry | None = None  # as we last left it in the kernel; None before the first write
    draining: Mapping[RealServerKey, float] = NOTHING  # when each was quiesced, Unix seconds
    failed_over: str = ""  # the datacenter that serves in place of the first; empty: the first
    peaks: Peaks = NO_PEAKS  # with how many the datacenters of a failover list served
    served: Served = NEVER  # with how many real servers it served lately
    declaration: Declaration | None = None  # what a Consul service declared; None: it was in the file
    provenance: Provenance = UNKNOWN  # of what was written
    fallback: RealServerKey | None = None  # what of it is no instance, but was there because nothing else served


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
    return Owner.ADOPTED if observed == wanted else Owner.FOREIGN


def is_still_ours(observed: TableEntry, entry: LedgerEntry) -> bool:
    """Tell whether `observed` is the virtual server that `entry` remembers, and not just one at its address.

    The kernel may have lost ours (a reboot, `ipvsadm -C`) and somebody else may have created one with the same key
    since. It is ours when it still has our configuration or one of our real servers.
    """
    if entry.written is None:
        return True
    in_common = observed.real_servers.keys() & entry.written.real_servers.keys()
    return bool(in_common) or observed.virtual_server == entry.written.virtual_server


def foreign(table: Table, ours: AbstractSet[VirtualServerKey]) -> frozenset[VirtualServerKey]:
    """Return the virtual servers of `table` that are not among `ours`."""
    return frozenset(table.keys() - ours)

"""Which virtual servers of the live table are ours; the rest is foreign and never touched.

Pure. Ours is an allow-list: the ledger, which `store` keeps on disk and which is written before the kernel is.
A virtual server that is not in it but stands exactly as wanted is adopted, which writes nothing to the kernel. An
operator may move the border (`Border`): one that is foreign is taken over as it stands, one of ours becomes foreign as
it stands, and the ledger remembers that, for otherwise it would be adopted at once.
"""

import enum
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import attrs

from lvsctl.config import Declaration
from lvsctl.core.damping import Flapping
from lvsctl.core.nothing import NOBODY, NOTHING
from lvsctl.core.peak import NO_PEAKS, Peaks
from lvsctl.core.provenance import UNKNOWN, Provenance
from lvsctl.core.ramp import NO_RAMPS, Ramps
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
    ramps: Ramps = NO_RAMPS  # who has a slow start, and how far each is
    flapping: Flapping = NOTHING  # who comes and goes
    disowned: bool = False  # it is foreign, by an operator's word, until another one has it adopted
    fallback: RealServerKey | None = None  # what of it is no instance, but was there because nothing else served


Ledger = Mapping[VirtualServerKey, LedgerEntry]
"""Every virtual server that we created or adopted, and those that an operator has disowned since."""


@attrs.frozen(kw_only=True)
class Border:
    """What operators have just said of whose virtual servers are."""

    adopted: AbstractSet[VirtualServerKey] = NOBODY
    disowned: AbstractSet[VirtualServerKey] = NOBODY


NO_WORD: Final = Border()


class Owner(enum.Enum):
    """Whose a virtual server is."""

    OURS = "ours"
    ADOPTED = "adopted"  # ours from now on
    FOREIGN = "foreign"


def owner_of(wanted: TableEntry, observed: TableEntry | None, ledger: Ledger, border: Border = NO_WORD) -> Owner:
    """Return whose the virtual server at the key of `wanted` is; a key that nobody has yet is ours."""
    key = wanted.virtual_server.key
    disowned = key in ledger and ledger[key].disowned
    if key in border.disowned or (disowned and key not in border.adopted):
        return Owner.FOREIGN
    if observed is None or (key in ledger and not disowned):
        return Owner.OURS
    return Owner.ADOPTED if observed == wanted or key in border.adopted else Owner.FOREIGN


def ours_in(ledger: Ledger) -> AbstractSet[VirtualServerKey]:
    """Return the virtual servers of `ledger` that no operator has disowned."""
    return {key for key, entry in ledger.items() if not entry.disowned}


def is_still_ours(observed: TableEntry, entry: LedgerEntry) -> bool:
    """Tell whether `observed` is the virtual server that `entry` remembers, and not just one at its address.

    The kernel may have lost ours (a reboot, `ipvsadm -C`) and somebody else may have created one with the same key
    since. It is ours when it still has our configuration or one of our real servers.
    """
    if entry.disowned or entry.written is None:
        return not entry.disowned
    in_common = observed.real_servers.keys() & entry.written.real_servers.keys()
    return bool(in_common) or observed.virtual_server == entry.written.virtual_server


def foreign(table: Table, ours: AbstractSet[VirtualServerKey]) -> frozenset[VirtualServerKey]:
    """Return the virtual servers of `table` that are not among `ours`."""
    return frozenset(table.keys() - ours)

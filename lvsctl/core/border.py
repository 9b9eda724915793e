"""Moving the border between ours and foreign, when an operator says so: a virtual server more in the ledger, or less.

Pure. Nothing is written to the kernel by it. What is taken over is as if we had written none of it yet: the next cycle
makes it what the file says in place, and real servers that Consul does not know are drained.
"""

from lvsctl.config import Config
from lvsctl.core.ownership import Ledger, LedgerEntry, is_still_ours
from netlink.types import Table, VirtualServerKey


class Stays(Exception):  # it is an answer
    """The border stays where it is, and why."""


def adopted(name: str, config: Config, ledger: Ledger, table: Table) -> tuple[VirtualServerKey, Ledger]:
    """Return the ledger with the virtual server that stands where the file wants `name`; raises Stays."""
    wanted = config.virtual_servers.get(name)
    if wanted is None:
        raise Stays(f"'{name}' is not in the file: write it there first, as it shall be")
    key = wanted.key
    if key not in table:
        raise Stays(f"'{name}': the kernel has no {key}, so there is nothing to take over; lvsctl run creates it")
    if key in ledger and is_still_ours(table[key], ledger[key]):
        raise Stays(f"'{name}': {key} is ours already, as {ledger[key].name!r}")
    return key, {**ledger, key: LedgerEntry(name=name, drain_timeout=wanted.drain_timeout)}


def disowned(name: str, config: Config, ledger: Ledger) -> tuple[VirtualServerKey, Ledger]:
    """Return the ledger without what it calls `name`, or has at such a key; raises Stays."""
    keys = [key for key, entry in ledger.items() if name in {entry.name, str(key)}]
    wanted = {each.key for each in config.virtual_servers.values()}
    left = [key for key in keys if key not in wanted]
    if not keys:
        raise Stays(f"nothing called '{name}' is ours")
    if not left:
        raise Stays(f"'{name}' is in the file, so lvsctl run would want it back: take it out there first")
    if len(left) > 1:
        raise Stays(f"'{name}' is more than one: {', '.join(map(str, sorted(left)))}; write which")
    return left[0], {key: entry for key, entry in ledger.items() if key != left[0]}

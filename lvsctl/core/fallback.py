"""The fallback ("sorry") server of a virtual server: what serves where nothing else does.

Pure. It is the operator's own word: no instance, under no floor, and never held. It comes where neither an instance nor
anything that the guard holds serves, and leaves as any real server does once something serves again. The ledger says
which real server was there as the fallback, so that one which the file names no longer is told from an instance.
"""

from collections.abc import Set as AbstractSet
from typing import Final

from lvsctl.config import VirtualServerConfig
from lvsctl.core.desired import Wanted
from lvsctl.core.ownership import LedgerEntry
from netlink.types import RealServer, RealServerKey, RealServers

WEIGHT: Final = 1  # it is alone


def fallback_of(config: VirtualServerConfig, real_servers: RealServers) -> RealServer | None:
    """Return what is to serve because none of `real_servers` does; None where one does, or where none is named."""
    if config.fallback is None or any(each.weight > 0 for each in real_servers.values()):
        return None
    return RealServer(key=config.fallback, forwarding=config.forwarding, weight=WEIGHT)


def with_fallback(config: VirtualServerConfig, real_servers: RealServers) -> RealServers:
    """Return `real_servers` and, where none of them serves, the fallback."""
    fallback = fallback_of(config, real_servers)
    return {**real_servers, fallback.key: fallback} if fallback else real_servers


def fallbacks(wanted: Wanted, entry: LedgerEntry | None) -> AbstractSet[RealServerKey]:
    """Return which real servers are no instance of `wanted`: its fallback, and the one that `entry` remembers."""
    former = entry.fallback if entry and entry.fallback not in wanted.by_key else None
    return {key for key in (wanted.config.fallback, former) if key is not None}


def without(real_servers: RealServers, keys: AbstractSet[RealServerKey]) -> RealServers:
    """Return `real_servers` without those at `keys`."""
    if keys.isdisjoint(real_servers):
        return real_servers
    return {key: each for key, each in real_servers.items() if key not in keys}

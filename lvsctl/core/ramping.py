"""The slow starts of one virtual server: what `ramp` makes of its real servers, its ledger entry and what is held.

Pure. What is held, and how much of a weight that is, is reckoned with whole weights; ramps come after it.
"""

from collections.abc import Set as AbstractSet

import attrs

from lvsctl.core.desired import Wanted
from lvsctl.core.guard import Hold
from lvsctl.core.ownership import LedgerEntry
from lvsctl.core.ramp import NO_RAMPS, Ramps, after, next_step, ramped, unramped
from lvsctl.core.served import Counts, floor_of
from netlink.types import RealServerKey, RealServers


@attrs.frozen(kw_only=True)
class Ramping:
    """The real servers of a virtual server as they are to be now."""

    real_servers: RealServers  # those that are wanted, and those held
    hold: Hold  # with the weights that they have meanwhile
    ramps: Ramps = NO_RAMPS
    next_step: float | None = None  # Unix seconds; None where nobody ramps


def whole(entry: LedgerEntry | None) -> LedgerEntry | None:
    """Return `entry` with what was written as it would have been without ramps."""
    if entry is None or entry.written is None or not entry.ramps.of:
        return entry
    real_servers = unramped(entry.written.real_servers, entry.ramps)
    return attrs.evolve(entry, written=attrs.evolve(entry.written, real_servers=real_servers))


def ramping(
    wanted: Wanted,
    hold: Hold,
    counts: Counts,
    observed: RealServers,
    entry: LedgerEntry | None,
    *,
    absent: AbstractSet[RealServerKey],
    now: float,
) -> Ramping:
    """Return the real servers of `wanted` and `hold` with the weights that they have at `now`.

    `observed` are those in the kernel, `entry` is what the ledger has. Where it has nothing they are only taken over.
    Those `absent` the kernel refuses.
    """
    real_servers = (
        {**wanted.entry.real_servers, **hold.real_servers} if hold.real_servers else wanted.entry.real_servers
    )
    slow_start = wanted.config.slow_start
    if not slow_start or entry is None or entry.written is None:
        return Ramping(real_servers=real_servers, hold=hold)
    ramps = after(
        entry.ramps,
        real_servers,
        observed,
        entry.written.real_servers,
        slow_start=slow_start,
        most=floor_of(counts.before, 0, now).most,
        held=hold.real_servers.keys(),
        absent=absent,
        now=now,
    )
    if not ramps.of:
        return Ramping(real_servers=real_servers, hold=hold)
    real_servers = ramped(real_servers, ramps)
    return Ramping(
        real_servers=real_servers,
        hold=attrs.evolve(hold, real_servers={key: real_servers[key] for key in hold.real_servers}),
        ramps=ramps,
        next_step=next_step(ramps, slow_start),
    )

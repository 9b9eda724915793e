"""The virtual server that is wanted without the real servers that are damped: `damping` applied to instances.

Pure. One that is damped is left out like one whose check fails, before weights are shared out and before the guard
looks, so that everything else is as if it were not there, and status says why it is not.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from lvsctl.core.admission import Excluded, Reason
from lvsctl.core.damping import NOT_DAMPED, Damped, Flapping, after, let_in, words
from lvsctl.core.desired import Wanted, left_out
from lvsctl.core.fallback import fallbacks
from lvsctl.core.ownership import LedgerEntry
from lvsctl.core.served import floor_of
from lvsctl.core.words import instant
from netlink.types import RealServerKey, RealServers


def damped(
    wanted: Wanted,
    entry: LedgerEntry | None,
    *,
    absent: AbstractSet[RealServerKey],
    now: float,
    released: bool = False,
) -> tuple[Wanted, Damped]:
    """Return `wanted` without who is damped at `now`, and who flaps; `wanted` itself where nobody is.

    `entry` is what the ledger has of it; those `absent` the kernel refuses. Nobody is where an operator has just
    `released` it.
    """
    if not wanted.config.damping or entry is None or entry.written is None:
        return wanted, NOT_DAMPED
    served = _serving(entry.written.real_servers) - fallbacks(wanted, entry)
    serving = _serving(wanted.entry.real_servers)
    leaving = served - serving
    if not leaving and not entry.flapping:
        return wanted, NOT_DAMPED
    floor = floor_of(entry.served, wanted.config.floor, now)
    found = after(
        {key: flaps for key, flaps in entry.flapping.items() if not _is_out_by_word(wanted, key)},
        served=served,
        wanted=serving,
        failed=frozenset(key for key in leaving if _has_failed(wanted, key)),
        least=max(floor.least, -(-floor.most // 2)),
        absent=absent,
        now=now,
    )
    if released:
        found = let_in(found)
    if not found.waiting:
        return wanted, found
    return left_out(wanted, _verdicts(found.flapping, found.waiting)), found


def _is_out_by_word(wanted: Wanted, key: RealServerKey) -> bool:
    """Tell whether somebody took `key` out on purpose: who does that puts it back when it is well."""
    return key in wanted.by_key and wanted.by_key[key].is_in_maintenance


def _verdicts(flapping: Flapping, until: Mapping[RealServerKey, float]) -> dict[RealServerKey, Excluded]:
    return {
        key: Excluded(
            reason=Reason.DAMPED, text=f"passes, but is damped until {instant(end)}: {words(flapping[key])}", key=key
        )
        for key, end in until.items()
    }


def _has_failed(wanted: Wanted, key: RealServerKey) -> bool:
    """Tell whether what serves leaves because its checks fail or it is registered no more."""
    member = wanted.by_key.get(key)
    if member is None:
        return not wanted.doubt
    verdict = member.verdict
    return isinstance(verdict, Excluded) and verdict.reason in {Reason.CRITICAL, Reason.WARNING}


def _serving(real_servers: RealServers) -> AbstractSet[RealServerKey]:
    return {key for key, each in real_servers.items() if each.weight > 0}

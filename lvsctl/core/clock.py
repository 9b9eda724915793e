"""The clock was set: the times that the ledger has go with it.

Pure. What lasts some seconds (a drain, a slow start, the counts behind the floor, what is damped) is kept by the time
of day, for a restart has to know it. Set forward by an hour, all of it would be over at once: connections cut that had
their time, a floor forgotten. `reconcile` notices (`clock_watch`), and has it all last as long as it was to. What an
operator ordered until a time of day ends at that time, whatever the clock did.
"""

import attrs

from lvsctl.core.damping import Flaps
from lvsctl.core.nothing import NOTHING
from lvsctl.core.ownership import Ledger, LedgerEntry
from lvsctl.core.peak import Peak
from lvsctl.core.ramp import Ramp
from lvsctl.core.served import Served


def moved(ledger: Ledger, seconds: float) -> Ledger:
    """Return `ledger` as it would be had the clock always been `seconds` later; entries without times are the same."""
    return {key: _entry(entry, seconds) for key, entry in ledger.items()}


def _entry(entry: LedgerEntry, seconds: float) -> LedgerEntry:
    if not (entry.draining or entry.peaks or entry.served.earlier or entry.ramps.of or entry.flapping):
        return entry
    ramps = {key: _ramp(ramp, seconds) for key, ramp in entry.ramps.of.items()} or NOTHING
    return attrs.evolve(
        entry,
        draining={key: since + seconds for key, since in entry.draining.items()} or NOTHING,
        peaks={name: _peak(peak, seconds) for name, peak in entry.peaks.items()},
        served=_served(entry.served, seconds),
        ramps=attrs.evolve(entry.ramps, of=ramps),
        flapping={key: _flaps(flaps, seconds) for key, flaps in entry.flapping.items()} or NOTHING,
    )


def _ramp(ramp: Ramp, seconds: float) -> Ramp:
    return attrs.evolve(ramp, began=ramp.began + seconds)


def _peak(peak: Peak, seconds: float) -> Peak:
    return attrs.evolve(peak, fewer_since=_later(peak.fewer_since, seconds))


def _served(served: Served, seconds: float) -> Served:
    return attrs.evolve(served, earlier=tuple((count, until + seconds) for count, until in served.earlier))


def _flaps(flaps: Flaps, seconds: float) -> Flaps:
    return attrs.evolve(
        flaps,
        left=flaps.left + seconds,
        returned=_later(flaps.returned, seconds),
        passing=_later(flaps.passing, seconds),
    )


def _later(time: float | None, seconds: float) -> float | None:
    return None if time is None else time + seconds

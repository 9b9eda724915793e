"""How many instances a datacenter served with, so that the first that comes back is not taken for all there are.

Pure. What Consul lists no more cannot be counted in its answer, so the ledger remembers a number for each datacenter of
a failover list that serves, and for those before it: the most it could serve with. Where fewer may serve, and some do,
for `SETTLED` seconds, those are all there are from then on: the datacenter is a smaller one now. While none may, the
time stands still, so the length of an outage changes nothing. Times are Unix seconds.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import attrs

SETTLED: Final = 600.0  # seconds; to start twenty, one after the other, takes less


@attrs.frozen(kw_only=True)
class Peak:
    """The most that a datacenter could serve with."""

    count: int
    fewer_since: float | None = None  # since when it has been fewer, and some


Peaks = Mapping[str, Peak]
"""By datacenter; the agent's own is the empty string."""

NO_PEAKS: Final[Peaks] = {}


def after(peaks: Peaks, datacenters: Sequence[str], able: Sequence[int | None], serving: int, now: float) -> Peaks:
    """Return `peaks` after so many real servers could serve in each datacenter, None where that is not known.

    Those up to `serving` in the list are remembered, without its last one, to which nothing returns. After the same
    again it is the same, until `hold` no longer holds.
    """
    found = {}
    for place in range(min(serving + 1, len(datacenters) - 1)):
        name = datacenters[place]
        peak = _after(peaks.get(name), able[place], now, serves=place == serving)
        if peak is not None:
            found[name] = peak
    return found


def hold(peaks: Peaks, now: float) -> bool:
    """Tell whether no time has come at which `peaks` become others by themselves."""
    times = [peak.fewer_since for peak in peaks.values() if peak.fewer_since is not None]
    return all(since <= now < since + SETTLED for since in times)


def next_end(peaks: Peaks) -> float | None:
    """Return when `peaks` become others by themselves, Unix seconds; None where they do not."""
    return min((each.fewer_since + SETTLED for each in peaks.values() if each.fewer_since is not None), default=None)


def _after(peak: Peak | None, able: int | None, now: float, *, serves: bool) -> Peak | None:
    if able is None:
        return peak
    if peak is None:
        return Peak(count=able) if able and serves else None
    if able == 0:
        return Peak(count=peak.count)
    if able >= peak.count:
        return Peak(count=able)
    since = now if peak.fewer_since is None else min(peak.fewer_since, now)  # a clock that was set back
    return Peak(count=able) if now >= since + SETTLED else Peak(count=peak.count, fewer_since=since)

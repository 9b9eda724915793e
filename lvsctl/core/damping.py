"""Damping: a real server that comes and goes stays out for a while, if it can be spared.

Pure. Each time one that serves fails, clients notice before its check does. One that comes back and fails again within
`QUICK` has flapped; after `FREE` returns in a row the next one waits until its checks have passed for a while without a
break: half a minute, doubled each time it flaps again, up to four minutes. It is forgiven once it has served for as
long as that, and no less than `QUICK`. So one change, and the few of a deploy, go through at once.

Only returning is delayed, never leaving, and nobody waits who is needed: at least the floor, and half of the most that
served lately, serve without those that wait. Where there are too few the one that flapped least comes back at once.
What counts is a check that fails and a registration that goes; what an operator takes out or gives the weight 0 does
not flap. The ledger has who flapped, so a restart neither forgets it nor begins anew. Times are Unix seconds; a clock
that is set back makes somebody wait for longer, by no more than what it waits for anyway.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import attrs

from lvsctl.core.nothing import NOBODY, NOTHING
from netlink.types import RealServerKey

FREE: Final = 3  # returns in a row that go through at once
QUICK: Final = 120.0  # seconds within which one that comes back and leaves again has flapped
FIRST: Final = 30.0  # seconds that its checks have to pass after that
LONGEST: Final = 240.0
FORGOTTEN: Final = 600.0  # seconds out of the table after which it begins anew
MOST: Final = 256  # real servers of one virtual server that are remembered, those that left last


@attrs.frozen(kw_only=True)
class Flaps:
    """What one real server did lately. It is out where `returned` is None."""

    count: int  # times in a row that it left, all but the first within QUICK or what it waited for
    left: float
    returned: float | None = None  # when it came back
    passing: float | None = None  # since when it could, while it waits


Flapping = Mapping[RealServerKey, Flaps]


@attrs.frozen(kw_only=True)
class Damped:
    """Who flaps, and who of them waits until when."""

    flapping: Flapping = NOTHING
    waiting: Mapping[RealServerKey, float] = NOTHING
    let_in: AbstractSet[RealServerKey] = NOBODY  # who would wait, but that an operator has just let it in


NOT_DAMPED: Final = Damped()


def after(
    flapping: Flapping,
    *,
    served: AbstractSet[RealServerKey],
    wanted: AbstractSet[RealServerKey],
    failed: AbstractSet[RealServerKey],
    least: int,
    absent: AbstractSet[RealServerKey] = NOBODY,
    now: float,
) -> Damped:
    """Return who flaps at `now`, and who waits.

    `served` are the real servers that served until now, `wanted` those that are to, would nobody be damped, `failed`
    those that leave because they fail or are gone. At least `least` have to serve; those `absent` cannot.
    """
    found: dict[RealServerKey, Flaps] = {}
    for key in flapping.keys() | (served & failed):
        flaps = _after(
            flapping.get(key), serves=key in served, is_wanted=key in wanted, has_failed=key in failed, now=now
        )
        if flaps is not None:
            found[key] = flaps
    asking = {key: end for key in found.keys() & wanted if (end := _until(found[key])) is not None and end > now}
    spared = max(0, len(wanted - absent) - max(1, least))
    order = sorted(asking, key=lambda key: (-found[key].count, key))
    waiting = {key: asking[key] for key in order[:spared]}
    for key in found.keys() & wanted:
        if key not in waiting and found[key].returned is None:
            found[key] = attrs.evolve(found[key], returned=now, passing=None)
    if len(found) > MOST:
        latest = sorted(found, key=lambda key: (key not in waiting, -found[key].left, key))
        found = {key: found[key] for key in latest[: max(MOST, len(waiting))]}
    return Damped(flapping=found or NOTHING, waiting=waiting or NOTHING)


def let_in(found: Damped) -> Damped:
    """Return `found` without those that wait: an operator lets them in, and what they did is forgotten."""
    flapping = {key: flaps for key, flaps in found.flapping.items() if key not in found.waiting}
    return Damped(flapping=flapping or NOTHING, let_in=frozenset(found.waiting))


def back_off(count: int) -> float:
    """Return how long the checks have to pass of one that left so many times; 0 where it comes back at once."""
    return 0.0 if count <= FREE else min(LONGEST, FIRST * 2.0 ** min(count - FREE - 1, 10))


def words(flaps: Flaps) -> str:
    """Return `it left 5 times soon after it had come`."""
    return f"it left {flaps.count} times in a row soon after it had come"


def _after(flaps: Flaps | None, *, serves: bool, is_wanted: bool, has_failed: bool, now: float) -> Flaps | None:
    """Return what is known of one real server, but for its return; None where there is nothing to know."""
    if flaps is None:
        return Flaps(count=1, left=now)
    if flaps.returned is None:
        return _after_it_left(flaps, serves=serves, is_wanted=is_wanted, now=now)
    returned = min(flaps.returned, now)
    is_quick = now - returned < max(QUICK, back_off(flaps.count))
    if is_wanted:
        return attrs.evolve(flaps, returned=returned) if is_quick or not serves else None
    if not serves or not has_failed:
        return Flaps(count=flaps.count, left=now)
    return Flaps(count=flaps.count + 1 if is_quick else 1, left=now)


def _after_it_left(flaps: Flaps, *, serves: bool, is_wanted: bool, now: float) -> Flaps | None:
    left = min(flaps.left, now)
    if serves:  # it was to leave and never did: it is held, or the kernel did not let it go
        if not is_wanted and now - left >= FORGOTTEN:
            return Flaps(count=flaps.count, left=now)  # it may go now: not to be forgotten in the same moment
        return attrs.evolve(flaps, left=left, returned=now if is_wanted else None, passing=None)
    if flaps.passing is None and now - left >= FORGOTTEN:
        return None
    if not is_wanted:
        return Flaps(count=flaps.count, left=left if flaps.passing is None else now)
    return attrs.evolve(flaps, left=left, passing=now if flaps.passing is None else min(flaps.passing, now))


def _until(flaps: Flaps) -> float | None:
    """Return when one that is out and could come back may; None for one that is not out."""
    if flaps.returned is not None or flaps.passing is None:
        return None
    return flaps.passing + back_off(flaps.count)

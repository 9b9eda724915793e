"""Slow start: the weight of a real server that begins to serve rises to what it is to be, in steps.

Pure. One that has just started is slow: its caches are cold, its code is not compiled yet. With the weight of the
others it would have as many new connections as they at once, by wlc even all of them for a moment. So over `slow_start`
it has a sixteenth of its weight, then two, and so on. The ledger keeps when it began and how far it came, so a restart
goes on where it was, and a clock that is set back takes nothing away.

Who ramps: a real server that did not serve by the ledger nor in the kernel, and is to. Who was quiesced, by whatever,
did not serve. What was there before us, what a hand deleted, what a reboot or `ipvsadm -C` took, is put back as it was.

While there are too few others nobody ramps: those that come would only leave them the load. As many as are half of the
most that served lately have to serve with their full weight, in the kernel, and not because they are held; those that
ramp meanwhile do not count, however many they are. Where that is not so any more every ramp is over: whoever serves
carries what there is.

Weights are whole numbers and often 1. So while somebody ramps all weights of that virtual server are multiplied by the
least number that makes the smallest of them fine enough; afterwards they are what they were.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import attrs

from lvsctl.core.nothing import NOBODY, NOTHING
from lvsctl.core.share import LARGEST
from netlink.types import RealServer, RealServerKey, RealServers

PARTS: Final = 16  # of a weight; a ramp begins with one of them and has as many steps but one


@attrs.frozen(kw_only=True)
class Ramp:
    """How far one real server has come."""

    began: float  # Unix seconds
    part: int  # of PARTS of its weight that it has
    weight: int  # that it is to have, without `Ramps.times`


@attrs.frozen(kw_only=True)
class Ramps:
    """The real servers of one virtual server that ramp, and what all its weights are multiplied by for that."""

    of: Mapping[RealServerKey, Ramp] = NOTHING
    times: int = 1
    most: int = 0  # how many served with their full weight at most, since before the first of them began


NO_RAMPS: Final = Ramps()


def after(
    ramps: Ramps,
    intended: RealServers,
    observed: RealServers,
    written: RealServers,
    *,
    slow_start: float,
    most: int,
    held: AbstractSet[RealServerKey],
    absent: AbstractSet[RealServerKey] = NOBODY,
    now: float,
) -> Ramps:
    """Return who ramps from `now` on, and how far they are.

    `ramps` are those until now, `intended` the real servers as they are to be in the end, `observed` those in the
    kernel, `written` those that we last wrote; `slow_start` is in seconds, 0 for none. `most` is how many served at
    most lately, `held` who stays although Consul wants it out. Those `absent` the kernel has refused: no weight is
    multiplied for them, and one that it takes at last has its own at once.
    """
    if not slow_start:
        return NO_RAMPS
    serving = {key for key, each in intended.items() if each.weight > 0}
    there = {key for key in serving & observed.keys() if observed[key].weight > 0}
    before = {key for key in serving & written.keys() if written[key].weight > 0}
    going_on = {key: _gone_on(ramps.of[key], slow_start, now) for key in there & ramps.of.keys()}
    ramping = {key: each for key, each in going_on.items() if each.part < PARTS}
    carried = before - ramping.keys() - held  # what a hand took of them is put back as it was
    established = carried & there
    most = max(ramps.most if ramps.of else most, len(carried))  # without those that ramp, who serve, too
    if not established or 2 * len(established) < most:
        return NO_RAMPS
    beginning = (serving - there - absent) & (ramps.of.keys() | (serving - before))
    ramping |= {key: Ramp(began=now, part=1, weight=0) for key in beginning}
    if not ramping:
        return NO_RAMPS
    weights = [intended[key].weight for key in serving]
    return Ramps(
        of={key: attrs.evolve(ramping[key], weight=intended[key].weight) for key in sorted(ramping)},
        times=max(1, min(-(-PARTS // min(weights)), LARGEST // max(weights))),
        most=most,
    )


def ramped(real_servers: RealServers, ramps: Ramps) -> RealServers:
    """Return `real_servers` with the weights that they have meanwhile: none that is above 0 becomes 0."""
    if not ramps.of:
        return real_servers
    return {key: attrs.evolve(each, weight=_weight(each, ramps)) for key, each in real_servers.items()}


def unramped(real_servers: RealServers, ramps: Ramps) -> RealServers:
    """Return `real_servers`, written while `ramps` were, with the weights that they were to have in the end."""
    if not ramps.of:
        return real_servers
    return {key: _without(each, ramps) for key, each in real_servers.items()}


def next_step(ramps: Ramps, slow_start: float) -> float | None:
    """Return when the next weight rises, Unix seconds; None where nobody ramps."""
    return min((_reaches(each.began, slow_start, each.part + 1) for each in ramps.of.values()), default=None)


def percent_of(ramp: Ramp) -> int:
    """Return how much of its weight a real server has."""
    return 100 * ramp.part // PARTS


def end_of(ramp: Ramp, slow_start: float) -> float:
    """Return when a real server has its whole weight, Unix seconds."""
    return _reaches(ramp.began, slow_start, PARTS)


def ramp_words(ramp: Ramp, slow_start: float, now: float) -> str:
    """Return `40% of weight 10, 12 s left`."""
    left = max(0.0, end_of(ramp, slow_start) - now)
    return f"{percent_of(ramp)}% of weight {ramp.weight}, {left:.0f} s left"


def _gone_on(ramp: Ramp, slow_start: float, now: float) -> Ramp:
    """Return `ramp` at `now`; after a clock was set back it goes on from where it was."""
    began = ramp.began
    if began > now:
        began = now - slow_start * (ramp.part - 1) / (PARTS - 1)
    reached = 1 + sum(_reaches(began, slow_start, part) <= now for part in range(2, PARTS + 1))
    return attrs.evolve(ramp, began=began, part=max(ramp.part, reached))


def _reaches(began: float, slow_start: float, part: int) -> float:
    return began + slow_start * (part - 1) / (PARTS - 1)


def _weight(real_server: RealServer, ramps: Ramps) -> int:
    whole = real_server.weight * ramps.times
    ramp = ramps.of.get(real_server.key)
    if ramp is None or not whole:
        return whole
    return max(1, whole * ramp.part // PARTS)


def _without(real_server: RealServer, ramps: Ramps) -> RealServer:
    if not real_server.weight:
        return real_server
    ramp = ramps.of.get(real_server.key)
    weight = ramp.weight if ramp else max(1, real_server.weight // ramps.times)
    return attrs.evolve(real_server, weight=weight)

"""Integer weights that give groups of real servers their parts of the whole.

Pure arithmetic. Inside a group weights keep their proportions, no weight that was above 0 becomes 0, and the outcome
depends on nothing but what is given, so every director computes the same. One group stands for the others: all its
weights are multiplied by a number that the parts decide and not its members, so that of a virtual server where one
instance comes or goes the others' weights stay as they are. Of 5 % the others have 19 times their own weight, and the
canary a nineteenth of their sum.

Numbers are kept small: wrr serves in cycles as long as the sum of the weights, in which the lighter ones come last.
The hash schedulers hand out the slots of a table in runs as long as a weight (ip_vs_sh.c: 256 slots, ip_vs_mh.c: 4093),
so for sh the sum is the table, and for mh it is far smaller.
"""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from statistics import median_low
from typing import Final

import attrs

from netlink.types import RealServerKey, RealServers

LARGEST: Final = 65535  # weight
FINE: Final = 8  # the mean weight of a group that is fine enough where it cannot be shared out exactly
SLOTS: Final = {"sh": 256}  # schedulers for which the sum of the weights has to be the size of their table
MOST: Final = {"mh": 256}  # and those for which it may not be larger; what is left of 4093 slots goes to the first ones

Weights = Mapping[RealServerKey, int]


@attrs.frozen(kw_only=True)
class Group:
    """Real servers with their weights, all above 0, and how much of the whole they shall have together."""

    part: int  # above 0, in whatever unit all parts are
    weights: Weights


def share_out(groups: Sequence[Group], scheduler: str) -> Weights:
    """Return the weights that give each of `groups` its part of the whole; those of a single group are its own.

    The first group is the one whose weights are multiplied.
    """
    if len(groups) == 1:
        return groups[0].weights
    whole = sum(group.part for group in groups)
    if scheduler in SLOTS:
        totals = apportioned(SLOTS[scheduler], [group.part for group in groups])
        return {
            key: weight
            for group, total in zip(groups, totals, strict=True)
            for key, weight in _inside(total, group.weights).items()
        }
    first, *others = groups
    factor = _factor(groups, Fraction(MOST[scheduler], whole) if scheduler in MOST else None)
    found = {key: max(1, min(LARGEST, round(weight * factor))) for key, weight in first.weights.items()}
    there = sum(found.values())
    for group in others:
        found |= _inside(round(Fraction(there * group.part, first.part)), group.weights)
    return found


def apportioned(total: int, parts: Sequence[int]) -> list[int]:
    """Return whole numbers in the proportion of `parts` whose sum is `total`, by largest remainder.

    None is below 1 or above LARGEST, so the sum is another where that cannot be.
    """
    whole = sum(parts)
    found = [max(1, total * part // whole) for part in parts]
    by_remainder = sorted(
        range(len(parts)), key=lambda at: (total * parts[at] < whole, -(total * parts[at] % whole), at)
    )
    missing = total - sum(found)
    for at in by_remainder[: max(0, missing)]:
        found[at] += 1
    while missing < 0 and max(found) > 1:  # to those that would have had nothing something was given
        at = max(range(len(found)), key=lambda at: (found[at], -at))
        found[at] -= 1
        missing += 1
    return [min(LARGEST, number) for number in found]


def in_proportion(held: RealServers, now: RealServers, before: RealServers) -> RealServers:
    """Return the real servers that are `held` with weights that are to those of `now` as they were to those `before`.

    When overrides begin or end, all weights of a virtual server are multiplied; what is held has to go with them: with
    most of them, and rather with less, for it may be gone.
    """
    both = [key for key in now.keys() & before.keys() if now[key].weight > 0 and before[key].weight > 0]
    if not held or not both:
        return held
    factor = median_low(Fraction(now[key].weight, before[key].weight) for key in both)
    if factor == 1:
        return held
    return {
        key: attrs.evolve(each, weight=max(1, min(LARGEST, round(each.weight * factor)))) if each.weight else each
        for key, each in held.items()
    }


def _factor(groups: Sequence[Group], most: Fraction | None) -> Fraction:
    """Return what the weights of the first group are multiplied by; `most` bounds the sum for each unit of a part."""
    common = math.gcd(*(group.part for group in groups))
    first = groups[0]
    unit, total = first.part // common, sum(first.weights.values())
    bounds = [Fraction(LARGEST, max(first.weights.values()))]
    bounds += [
        Fraction(LARGEST * first.part * sum(each.weights.values()), total * each.part * max(each.weights.values()))
        for each in groups[1:]
    ]
    if most is not None:
        bounds.append(most * first.part / total)
    bound = min(bounds)
    if unit > bound:
        return bound
    factor = unit
    while 2 * factor <= bound and not all(_is_fine(total * factor, first.part, each) for each in groups[1:]):
        factor *= 2
    return Fraction(factor)


def _is_fine(total: int, part: int, group: Group) -> bool:
    """Tell whether `group` can be shared out well beside one with `part` of the whole that weighs `total`."""
    weight = Fraction(total * group.part, part)
    if weight >= FINE * len(group.weights):
        return True
    whole = sum(group.weights.values())
    return all((weight * each / whole).denominator == 1 for each in group.weights.values())


def _inside(total: int, weights: Weights) -> dict[RealServerKey, int]:
    keys = sorted(weights)
    return dict(zip(keys, apportioned(total, [weights[key] for key in keys]), strict=True))

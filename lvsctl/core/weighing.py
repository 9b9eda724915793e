"""The weight of each real server of a virtual server: its instance's own, and what overrides make of it.

Pure. An override counts before the instance's own weight (`admission`: its metadata where the operator opened that,
else Consul's `Weights`). The rules between several, the same on every director:
1. the older one (by Consul's index) counts first: an instance that two select is the older one's, and percentages
   that are more than 100 together leave out the younger;
2. a fixed weight is as good as a registered one; then those with a percentage have it of the sum of all weights;
3. an instance whose own weight is 0 stays quiesced, for that is its owner's word;
4. where nobody but those of a percentage may serve, they serve alone; where nobody would serve, no override counts.
"""

import enum
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from lvsctl.core.instance import Instance
from lvsctl.core.nothing import NOTHING
from lvsctl.core.override import WHOLE, Fixed, Override, Percent, Share, matches
from lvsctl.core.share import Group, Weights, share_out
from lvsctl.core.words import moment
from netlink.types import RealServerKey

# What a scheduler does with weights other than 0, where that is not to give each real server its share.
_NO_WEIGHTS: Final = "ignores weights other than 0"
NO_SHARES: Final = {
    "rr": _NO_WEIGHTS,
    "lc": _NO_WEIGHTS,
    "dh": _NO_WEIGHTS,
    "fo": "sends everything to the largest weight",
    "ovf": "fills the largest weight first",
    "nq": "sends to whoever is idle, whatever its weight",
    "lblc": "keeps an address at one real server",
    "lblcr": "keeps an address at a few real servers",
}
NO_EFFECT: Final = frozenset({"rr", "lc", "dh"})  # those for which a fixed weight is one like any other


class Outcome(enum.Enum):
    """Whether an override does what it says; the value is a constant word."""

    EFFECTIVE = "effective"
    ALONE = "alone"  # nobody else may serve, so a percentage is of what those of percentages have
    NOBODY = "nobody"  # no instance that may serve is its
    UNFIT = "unfit"  # the scheduler cannot do it
    TOO_MUCH = "too-much"  # more than 100 % with those before it
    EMPTYING = "emptying"  # nothing would serve, so none counts
    QUIESCED = "quiesced"  # every instance that is its has weight 0 of its own, which it does not raise


Refusals = Mapping[Override, tuple[Outcome, str]]


@attrs.frozen(kw_only=True)
class Effect:
    """What became of an override."""

    override: Override
    matching: int = 0  # instances that may serve and are its
    smallest: int = 0  # of their weights
    largest: int = 0
    outcome: Outcome = Outcome.EFFECTIVE
    why_not: str = ""  # why it does not do what it says; empty when it does


@attrs.frozen(kw_only=True)
class Weighed:
    """The weights of a virtual server's real servers, and why they are not the instances' own."""

    weights: Weights
    by: Mapping[RealServerKey, Override] = NOTHING  # the override whose a real server is
    scaled_for: Override | None = None  # the first whose percentage changes the weights of others, too
    effects: tuple[Effect, ...] = ()


UNWEIGHED: Final = Weighed(weights={})


def why_weighed(weighed: Weighed, key: RealServerKey) -> str:
    """Return which override gave real server `key` its weight, in words; empty when that is its own."""
    override = weighed.by.get(key)
    if override is not None:
        return override_words(override)
    return override_words(weighed.scaled_for) if weighed.scaled_for else ""


def override_words(override: Override) -> str:
    """Return `override 'v2' 5% of 'alice@admin1' until 2026-11-23 14:00 UTC ('canary')`."""
    by = f" of {override.by!r}" if override.by else ""
    until = f" until {moment(override.until)}" if override.until is not None else ""
    reason = f" ({override.reason!r})" if override.reason else ""
    return f"override {override.selector!r} {override.share}{by}{until}{reason}"


def unfit(share: Share, scheduler: str) -> str:
    """Return why `scheduler` cannot give anybody this `share`; empty when it can."""
    match share:
        case Percent(hundredths) if hundredths not in (0, WHOLE) and scheduler in NO_SHARES:
            return f"scheduler {scheduler} {NO_SHARES[scheduler]}"
        case Fixed(weight) if weight != 0 and scheduler in NO_EFFECT:
            return f"scheduler {scheduler} {_NO_WEIGHTS}"
        case _:
            return ""


def weigh(
    own: Weights, instances: Mapping[RealServerKey, Instance], overrides: Sequence[Override], scheduler: str
) -> Weighed:
    """Return the weights of real servers with these `own` weights, in the order of `own`.

    `instances` are those behind them, `overrides` are of this virtual server, in their order, and none is over.
    """
    if not overrides:
        return Weighed(weights=own)
    counting, refused = _counting(overrides, scheduler)
    by = {
        key: found
        for key, instance in instances.items()
        if (found := next((each for each in counting if matches(each.selector, instance)), None))
    }
    base = {key: _base(weight, by.get(key)) for key, weight in own.items()}
    shared = _shared(base, by, counting, scheduler)
    weights = {key: shared.get(key, 0) for key in own}
    if any(own.values()) and not any(weights.values()):
        reasons = {
            **dict.fromkeys(counting, (Outcome.EMPTYING, "nothing would serve, so it does not count")),
            **refused,
        }
        return Weighed(weights=own, effects=tuple(_effect(each, by, own, reasons) for each in overrides))
    scaling = [
        each for each in counting if isinstance(each.share, Percent) and weights != base and each.share.hundredths
    ]
    return Weighed(
        weights=weights,
        by={key: each for key, each in by.items() if own[key] > 0} or NOTHING,
        scaled_for=next((each for each in scaling if each in by.values()), None),
        effects=tuple(
            _effect(each, by, weights, {**_alone(base, by, counting), **_unraised(own, by, counting), **refused})
            for each in overrides
        ),
    )


def _counting(overrides: Sequence[Override], scheduler: str) -> tuple[list[Override], Refusals]:
    """Return the overrides that count, in their order, and why the others do not."""
    counting: list[Override] = []
    refused: dict[Override, tuple[Outcome, str]] = {}
    given = 0
    for each in overrides:
        part = each.share.hundredths if isinstance(each.share, Percent) else 0
        why = unfit(each.share, scheduler)
        if why:
            refused[each] = Outcome.UNFIT, why
        elif given + part > WHOLE:
            refused[each] = (
                Outcome.TOO_MUCH,
                f"more than 100% with those before it, which leave {Percent(WHOLE - given)}",
            )
        else:
            counting.append(each)
            given += part
    return counting, refused


def _base(own: int, override: Override | None) -> int:
    """Return the weight before percentages: an override's, where it says one and the instance is not quiesced."""
    if override is None or own == 0:
        return own
    match override.share:
        case Fixed(weight):
            return weight
        case Percent(0):
            return 0
        case Percent():
            return own


def _shared(
    base: Weights, by: Mapping[RealServerKey, Override], counting: Sequence[Override], scheduler: str
) -> Weights:
    """Return the weights above 0 after percentages."""
    serving = {key: weight for key, weight in base.items() if weight > 0}
    rest = {key: weight for key, weight in serving.items() if not _is_percent(by.get(key))}
    groups: list[Group] = []
    for each in counting:
        weights = {key: weight for key, weight in serving.items() if by.get(key) is each}
        if isinstance(each.share, Percent) and weights:
            groups.append(Group(part=each.share.hundredths, weights=weights))
    if not groups:
        return rest
    left = WHOLE - sum(group.part for group in groups)
    if rest and left:
        groups.insert(0, Group(part=left, weights=rest))
    return share_out(groups, scheduler)


def _alone(base: Weights, by: Mapping[RealServerKey, Override], counting: Sequence[Override]) -> Refusals:
    """Return why percentages are not what they say: nobody else is there to have the rest."""
    percents = {
        each for key, each in by.items() if base[key] > 0 and isinstance(each.share, Percent) and each.share.hundredths
    }
    rest = any(weight > 0 and not _is_percent(by.get(key)) for key, weight in base.items())
    served = [each for each in counting if each in percents]
    if rest or sum(each.share.hundredths for each in served if isinstance(each.share, Percent)) == WHOLE:
        return {}
    return dict.fromkeys(served, (Outcome.ALONE, "nobody else may serve, so they have it all"))


def _unraised(own: Weights, by: Mapping[RealServerKey, Override], counting: Sequence[Override]) -> Refusals:
    """Return why overrides do not do what they say where instances have weight 0 of their own, which stays."""
    found: dict[Override, tuple[Outcome, str]] = {}
    for each in counting:
        its = [own[key] for key, override in by.items() if override is each]
        quiesced = its.count(0)
        if not quiesced or each.share in (Percent(0), Fixed(0)):
            continue
        if quiesced == len(its):
            found[each] = Outcome.QUIESCED, "the instances' own weight is 0, which no override raises"
        elif isinstance(each.share, Fixed):
            found[each] = Outcome.EFFECTIVE, f"{quiesced} of them stay at 0, their own weight, which no override raises"
    return found


def _is_percent(override: Override | None) -> bool:
    return override is not None and isinstance(override.share, Percent)


def _effect(override: Override, by: Mapping[RealServerKey, Override], weights: Weights, reasons: Refusals) -> Effect:
    its = [weights[key] for key, each in by.items() if each is override]
    nobody = Outcome.NOBODY, "no instance that may serve matches"
    outcome, why_not = reasons.get(override, (Outcome.EFFECTIVE, "") if its else nobody)
    return Effect(
        override=override,
        matching=len(its),
        smallest=min(its, default=0),
        largest=max(its, default=0),
        outcome=outcome,
        why_not=why_not,
    )

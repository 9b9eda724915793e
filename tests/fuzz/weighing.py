"""The target for overrides and weights: whatever Consul has of either, each real server has a weight in range."""

import json
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Final

import attrs

from lvsctl.consul.override_keys import MAX_KEY, decode_overrides, folder_of, key_of, unwritable
from lvsctl.core.instance import Instance
from lvsctl.core.override import (
    MAX_SELECTOR,
    MAX_WORDS,
    NO_OVERRIDES,
    WHOLE,
    Fixed,
    Override,
    Overrides,
    Percent,
    matches,
    next_end,
    standing,
)
from lvsctl.core.share import LARGEST, in_proportion
from lvsctl.core.weighing import Outcome, Weighed, override_words, weigh, why_weighed
from lvsctl.errors import ConsulError
from netlink.types import RealServerKey
from tests.fuzz.draw import Draw
from tests.values import NOW, instance, real, real_key

PREFIX: Final = "lvsctl"
SCHEDULERS: Final = ("wrr", "wlc", "sh", "mh", "rr", "sed", "nq", "fo", "ovf")
WEIGHTS: Final = (1, 0, 2, 3, 7, 100, 255, 256, 4093, 32767, LARGEST)
SHARES: Final = ("5%", "0%", "100%", "0.01%", "99.99%", "50%", "33.33%", "0", "1", "65535", "300")
SELECTORS: Final = ("v1", "v2", "zone=a", "zone=b", "%", "../x", "é", "v" * MAX_SELECTOR)
WILD: Final[tuple[Any, ...]] = (
    None, True, -1, 1e999, 10**400, "", "NaN", "-5%", "1000%", "٣%", "5 %", "5%\n", "1e3", [], {}, "\ud800", "\x1b[2J",
    "x" * 5000, {"share": {"share": "5%"}}, 0.1, NOW, NOW - 1, NOW + 1,
)  # fmt: skip
MOST: Final = 12  # instances, and overrides


def weights_target(data: bytes) -> None:
    """Read what the bytes make of the overrides in Consul's KV; weigh what they make of instances by them."""
    draw = Draw(data)
    scheduler, pool = draw.choice(SCHEDULERS), _pool(draw)
    words, overrides = "", NO_OVERRIDES
    try:
        overrides = decode_overrides(_body(draw), PREFIX)
    except ConsulError as error:
        words = str(error)
    assert len(words) < 400
    check_read(overrides)
    for entries in standing(overrides, NOW).values():
        check_weighed(pool, entries, scheduler)
    assert (next_end(overrides, NOW) or NOW + 1) > NOW


def check_read(overrides: Overrides) -> None:
    """Check that what was read is within its bounds, can be shown, and would be read again as it is."""
    for ignored in overrides.ignored:
        assert 0 < len(ignored.why) < 300
        assert len(ignored.key.encode()) <= 4 * MAX_KEY
    for each in overrides.entries:
        match each.share:
            case Percent(hundredths):
                assert 0 <= hundredths <= WHOLE
            case Fixed(weight):
                assert 0 <= weight <= LARGEST
        assert 1 <= len(each.selector) <= MAX_SELECTOR
        assert max(len(each.by), len(each.reason)) <= MAX_WORDS
        override_words(each).encode()
        assert unwritable(each, PREFIX) == ""


def check_weighed(pool: Mapping[RealServerKey, Instance], entries: tuple[Override, ...], scheduler: str) -> None:
    """Check that weights are in range, that nobody is emptied or revived, and that an order changes nothing."""
    own = {key: each.weight for key, each in pool.items()}
    weighed = weigh(own, pool, entries, scheduler)
    assert list(weighed.weights) == list(own)
    assert all(type(weight) is int and 0 <= weight <= LARGEST for weight in weighed.weights.values())
    assert all(weighed.weights[key] == 0 for key, weight in own.items() if weight == 0)
    assert any(weighed.weights.values()) == any(own.values()), "an override emptied it"
    upside_down = weigh(dict(reversed(own.items())), dict(reversed(list(pool.items()))), entries, scheduler)
    assert upside_down.weights == weighed.weights
    _check_words(pool, entries, weighed)
    before = {key: real(1, weight, key=key) for key, weight in own.items()}
    now = {key: real(1, weight, key=key) for key, weight in weighed.weights.items()}
    for key, each in in_proportion(before, now, before).items():
        assert 0 <= each.weight <= LARGEST
        assert (each.weight > 0) == (own[key] > 0)


def _check_words(pool: Mapping[RealServerKey, Instance], entries: tuple[Override, ...], weighed: Weighed) -> None:
    assert tuple(effect.override for effect in weighed.effects) == entries
    for effect in weighed.effects:
        assert effect.why_not or effect.outcome is Outcome.EFFECTIVE
        assert 0 <= effect.smallest <= effect.largest <= LARGEST
    for key, override in weighed.by.items():
        assert matches(override.selector, pool[key])
        assert why_weighed(weighed, key)


def _pool(draw: Draw) -> dict[RealServerKey, Instance]:
    found = {}
    for number in range(1, 1 + draw.below(MOST)):
        weight = draw.choice(WEIGHTS) if draw.below(4) else draw.number(2)
        tags = tuple(each for each in SELECTORS if draw.below(2))
        meta = {"zone": "a"} if draw.below(2) else {}
        found[real_key(number)] = attrs.evolve(instance(number, tags=tags, meta=meta), weight=weight)
    return found


def _body(draw: Draw) -> bytes:
    """Return a list of keys as Consul has it, with values replaced, and then bytes changed."""
    entries = [_entry(draw, number) for number in range(draw.below(MOST))]
    body = bytearray(json.dumps(entries).encode())
    while draw.more and body and draw.below(8) == 0:
        place = draw.number(3) % len(body)
        body[place : place + draw.below(4)] = draw.octets(draw.below(4))
    return bytes(body)


def _entry(draw: Draw, number: int) -> Any:  # noqa: ANN401  JSON
    selector = draw.choice(SELECTORS)
    share = draw.choice(SHARES) if draw.below(4) else f"{draw.number(2) % 101}.{draw.below(100):02}%"
    value: Any = {"share": share, "until": (None, NOW + 9, NOW - 9)[draw.below(3)]}
    entry: Any = {
        "Key": key_of(PREFIX, draw.choice(("reco", "shop")), selector),
        "CreateIndex": draw.below(99) + number,
    }
    match draw.below(12):
        case 1:
            value[draw.choice(("share", "by", "reason", "until", "written", "unknown"))] = draw.choice(WILD)
        case 2:
            value = draw.choice(WILD)
        case 3:
            entry[draw.choice(("Key", "CreateIndex", "ModifyIndex"))] = draw.choice(WILD)
        case 4:
            entry["Key"] = folder_of(PREFIX) + draw.octets(draw.below(40)).decode("latin-1")
        case 5:
            return draw.choice(WILD)
    text = json.dumps(value).encode()
    if draw.below(16) == 1:
        text = draw.octets(draw.below(60))
    entry["Value"] = b64encode(text).decode() if draw.below(16) != 1 else draw.choice(WILD)
    return entry

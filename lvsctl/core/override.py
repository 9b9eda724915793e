"""An override: an operator's word on the weight of some instances of a virtual server, as a value.

Pure. `consul.override_keys` reads them from Consul's KV, `weighing` says what they do. A selector is a tag, or
`KEY=VALUE`: that pair of the service's metadata, or a tag that is spelled so.
"""

import re
from collections.abc import Mapping
from typing import Final

import attrs

from lvsctl.core.instance import Instance

WHOLE: Final = 10_000  # hundredths of a percent
MAX_WEIGHT: Final = 65535
MAX_SELECTOR: Final = 255  # characters
MAX_WORDS: Final = 200  # characters of a reason, or of who wrote it

_PERCENT: Final = re.compile(r"([0-9]{1,3})(?:\.([0-9]{1,2}))?%", re.ASCII)
_WEIGHT: Final = re.compile(r"0|[1-9][0-9]{0,4}", re.ASCII)


@attrs.frozen
class Percent:
    """The instances together have so much of the virtual server's weight."""

    hundredths: int  # of a percent, 0 to WHOLE

    def __str__(self) -> str:
        """Return `5%`, `0.25%`."""
        whole, part = divmod(self.hundredths, 100)
        return f"{whole}.{part:02}".rstrip("0") + "%" if part else f"{whole}%"


@attrs.frozen
class Fixed:
    """Each of the instances has this weight, as if it were registered with it."""

    weight: int  # 0 to MAX_WEIGHT

    def __str__(self) -> str:
        """Return `10`."""
        return str(self.weight)


Share = Percent | Fixed


def parse_share(text: str) -> Share:
    """Return the share that `text` spells, `5%` or `10`; ValueError says what would be right."""
    percent = _PERCENT.fullmatch(text)
    if percent:
        hundredths = int(percent[1]) * 100 + int((percent[2] or "0").ljust(2, "0"))
        if hundredths <= WHOLE:
            return Percent(hundredths)
    elif _WEIGHT.fullmatch(text) and int(text) <= MAX_WEIGHT:
        return Fixed(int(text))
    raise ValueError(f"it is not a share: 0% to 100% with two decimals at most, or a weight from 0 to {MAX_WEIGHT}")


@attrs.frozen(kw_only=True)
class Override:
    """One override, as it stands in Consul's KV. Its texts are from there and unescaped."""

    virtual_server: str
    selector: str
    share: Share
    by: str = ""  # who wrote it; empty where it does not say
    reason: str = ""
    until: float | None = None  # Unix seconds; None: until it is cleared
    written: float | None = None  # Unix seconds, by the clock of who wrote it
    created: int = 0  # Consul's CreateIndex: the order in which they count, the same for every director
    modified: int = 0  # Consul's ModifyIndex, for who changes it


@attrs.frozen(kw_only=True)
class Ignored:
    """A key among the overrides that is none; the others count."""

    key: str
    why: str
    modified: int = 0


@attrs.frozen(kw_only=True)
class Overrides:
    """All overrides, in the order in which they count, and what is none of them."""

    entries: tuple[Override, ...] = ()
    ignored: tuple[Ignored, ...] = ()


NO_OVERRIDES: Final = Overrides()


def matches(selector: str, instance: Instance) -> bool:
    """Tell whether `instance` is one that `selector` means."""
    name, equals, value = selector.partition("=")
    return selector in instance.tags or (bool(equals) and instance.meta.get(name) == value)


def standing(overrides: Overrides, now: float) -> Mapping[str, tuple[Override, ...]]:
    """Return the overrides that are not over at `now`, Unix seconds, by virtual server and in their order."""
    found: dict[str, tuple[Override, ...]] = {}
    for each in overrides.entries:
        if each.until is None or each.until > now:
            found[each.virtual_server] = (*found.get(each.virtual_server, ()), each)
    return found


def next_end(overrides: Overrides, now: float) -> float | None:
    """Return when the next override is over, Unix seconds; None where none that stands ever is."""
    return min((each.until for each in overrides.entries if each.until is not None and each.until > now), default=None)

"""The same event of very many queries at one time: the first are told one by one, the rest as a number.

Pure. When an agent goes away all its queries fail within a moment, and thousands of lines that say the same would hide
the one that says something else. Nothing is left out of `status`, which has every query on its own.
"""

import re
from typing import Final

import attrs

WINDOW: Final = 5.0  # seconds from the first event until the rest is summed up
LONGEST: Final = 30.0  # the same while there always is more to be summed up: it doubles each time
AT_ONCE: Final = 3  # events of one text that are told as they come
TEXTS: Final = 20  # different texts of which that is so; those of the next are summed up too


def kind_of(text: str) -> str:
    """Return `text` without its seconds, for queries that wait for different times fail of the same, and without the
    ports that the agent connects from (`10.0.0.1:40312->10.0.0.2:8300`), another one each time.
    """  # noqa: D205  two lines of summary
    return re.sub(r"\b[0-9]+(\.[0-9]+)? s\b|:[0-9]+(?=->)", "", text)


@attrs.frozen
class Rest:
    """What was not told one by one."""

    queries: int
    text: str  # of the last of them


@attrs.define
class Burst:
    """Events of one name, from the first until nothing is left to be summed up."""

    _told: dict[str, int] = attrs.field(factory=dict)
    _rest: int = 0
    _text: str = ""
    _sums: int = 0

    @property
    def is_open(self) -> bool:
        """Tell whether `sum_up` is still to come."""
        return bool(self._told)

    def pause(self, window: float = WINDOW) -> float:
        """Return seconds until the next `sum_up`."""
        return min(max(window, LONGEST), window * 2.0 ** min(self._sums, 10))

    def take(self, text: str, kind: str = "") -> bool:
        """Take an event; return whether it is to be told at once. `kind`: what other texts say it, too."""
        kind = kind or kind_of(text)
        told = self._told.get(kind, 0)
        if told < AT_ONCE and (told or len(self._told) < TEXTS):
            self._told[kind] = told + 1
            return True
        self._rest, self._text = self._rest + 1, text
        return False

    def sum_up(self) -> Rest | None:
        """Return what was not told since it was asked last; None where that is nothing, and the burst is over."""
        if not self._rest:
            self._told.clear()
            self._sums = 0
            return None
        rest, self._rest = Rest(self._rest, self._text), 0
        self._sums += 1
        return rest

"""Text in aligned columns: quiet, readable without colour, safe to show whatever it says.

Pure, but for the time zone. Cells are made visible here, so no string from Consul reaches a terminal raw.
"""

import time
from collections.abc import Sequence
from typing import Final

from lvsctl.cli.cells import fit, to_the_left, to_the_right, width
from lvsctl.text import visible

GAP: Final = "  "
WIDEST: Final = 48  # of a cell that is not the last
SOON: Final = 43_200.0  # seconds within which a clock without a date says enough


def columns(
    rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset(), whole: frozenset[int] = frozenset()
) -> list[str]:
    """Return one line a row, cells aligned, those of columns `right` to the right; a row may be shorter than others.

    A cell that is too wide is cut with an ellipsis, but for those of columns `whole` and the last of a row.
    """
    shown = [
        [
            fit(visible(cell), None if number in whole or number == len(row) - 1 else WIDEST)
            for number, cell in enumerate(row)
        ]
        for row in rows
    ]
    count = max((len(row) for row in shown), default=0)
    widths = [max((width(row[number]) for row in shown if number < len(row)), default=0) for number in range(count)]
    return [
        GAP.join(
            to_the_right(cell, widths[number]) if number in right else to_the_left(cell, widths[number])
            for number, cell in enumerate(row)
        ).rstrip()
        for row in shown
    ]


def count(number: int, thing: str) -> str:
    """Return `1 difference`, `2 differences`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def span(seconds: float) -> str:
    """Return a length of time in its two largest units: `4 s`, `3 min 12 s`, `2 h 14 min`, `5 d 3 h`."""
    whole = max(0, round(seconds))
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part} {smaller}"
    return f"{whole} s"


def clock(moment: float, now: float) -> str:
    """Return `14:00` by the clock of this machine, with the date when that is not near."""
    return time.strftime("%H:%M" if abs(moment - now) < SOON else "%Y-%m-%d %H:%M", time.localtime(moment))

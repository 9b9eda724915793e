"""Text in aligned columns: quiet, readable without colour, safe to show whatever it says.

Pure, but for the time zone. Cells are made visible here, so no string from Consul reaches a terminal raw.
"""

import time
from collections.abc import Sequence
from typing import Final

from lvsctl.text import visible

GAP: Final = "  "
WIDEST: Final = 48  # characters of a cell that is not the last
SOON: Final = 43_200.0  # seconds within which a clock without a date says enough


def columns(
    rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset(), width: int | None = None
) -> list[str]:
    """Return one line a row, cells aligned, those of columns `right` to the right; lines are cut to `width`.

    The last column takes what is left and is cut with an ellipsis; a row may be shorter than the others.
    """
    shown = [
        [visible(cell, WIDEST if number < len(row) - 1 else None) for number, cell in enumerate(row)] for row in rows
    ]
    count = max((len(row) for row in shown), default=0)
    widths = [max((len(row[number]) for row in shown if number < len(row)), default=0) for number in range(count)]
    lines = []
    for row in shown:
        cells = [
            cell.rjust(widths[number]) if number in right else cell.ljust(widths[number])
            for number, cell in enumerate(row)
        ]
        line = GAP.join(cells).rstrip()
        lines.append(visible(line, width) if width else line)
    return lines


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

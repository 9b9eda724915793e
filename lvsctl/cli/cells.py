"""How many cells of a terminal a text takes, which is not how many characters it has.

Pure. For text that `lvsctl.text.visible` has made safe: what joins characters or turns their direction is written out
there, so what is left is one character after the other. The tables are those of Python's `unicodedata`; a library for
this would be one more thing that a root daemon installs, for the sequences that cannot come here.
"""

import unicodedata
from typing import Final

ELLIPSIS: Final = "…"
MARKS: Final = 4  # characters for each cell at most: more is no word of any script, and paints over other lines
_JOINED: Final = (range(0x1160, 0x1200), range(0xD7B0, 0xD800))  # vowels and finals of Hangul, drawn into the initial


def width(text: str) -> int:
    """Return how many cells `text` takes: none for what is drawn over another character, two for wide ones."""
    return len(text) if text.isascii() else sum(map(_width, text))


def _width(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me"} or any(ord(character) in joined for joined in _JOINED):
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def fit(text: str, cells: int | None) -> str:
    """Return `text` with an ellipsis where it is cut to `cells`; as it is for None."""
    if cells is None or (width(text) <= cells and len(text) <= MARKS * cells):
        return text
    left = cells - 1
    kept = ""
    for character in text[: MARKS * cells]:
        left -= _width(character)
        if left < 0:
            break
        kept += character
    return kept + ELLIPSIS


def to_the_left(text: str, cells: int) -> str:
    """Return `text` with blanks behind it, `cells` wide together."""
    return text + " " * (cells - width(text))


def to_the_right(text: str, cells: int) -> str:
    """Return `text` with blanks before it, `cells` wide together."""
    return " " * (cells - width(text)) + text

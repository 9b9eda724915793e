"""Text from elsewhere made safe to show: every control byte visible, one event on one line.

Pure. Consul's strings are written by whoever may register an instance; a terminal would obey their escape sequences.
"""

import difflib
import unicodedata
from collections.abc import Iterable
from typing import Final

# Cc control, Cf format (bidirectional overrides, zero width), Cs surrogate, Co private, Zl and Zp line separators
HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
MOST_LISTED: Final = 20  # names in an error
LONGEST_WANTED: Final = 60  # characters of a name that others are compared with


def visible(text: str, limit: int | None = None) -> str:
    r"""Return `text` with everything a terminal would act on written out (`\x1b`), cut to `limit` characters."""
    if not (text.isascii() and text.isprintable()):
        text = "".join(
            character.encode("unicode_escape").decode("ascii")
            if unicodedata.category(character) in HIDDEN
            else character
            for character in text
        )
    if limit is not None and len(text) > limit:
        return text[: limit - 1] + "…"
    return text


def listed(names: Iterable[str], wanted: str) -> str:
    """Return `names` in order; of very many the ones most like `wanted`, and how many there are."""
    known = sorted(names)
    if len(known) <= MOST_LISTED:
        return visible(", ".join(known)) or "none"
    near = difflib.get_close_matches(wanted.lower()[:LONGEST_WANTED], known, n=5, cutoff=0.5)
    return f"{visible(', '.join(near or known[:5]))} and {len(known) - len(near or known[:5])} more"

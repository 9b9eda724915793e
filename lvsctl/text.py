"""Text from elsewhere made safe to show: every control byte visible, one event on one line.

Pure. Consul's strings are written by whoever may register an instance; a terminal would obey their escape sequences.
"""

import unicodedata
from typing import Final

# Cc control, Cf format (bidirectional overrides, zero width), Cs surrogate, Co private, Zl and Zp line separators
HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


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

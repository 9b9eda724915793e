"""What an operator asks of the daemon about its configuration, and what became of that: values on the control socket.

Pure. `reloading` answers, `lvsctl reload` asks and shows. Times are Unix seconds. Texts may come from Consul and are
unescaped; whoever shows them escapes them.
"""

import enum
from typing import Final

import attrs

SHORTEST: Final = 5.0  # seconds to confirm in
LONGEST: Final = 3600.0


class Ask(enum.Enum):
    """What is asked."""

    RELOAD = "reload"  # read the file again and use it
    KEEP = "keep"  # what is to be confirmed is confirmed
    REVERT = "revert"  # what is to be confirmed is taken back now


@attrs.frozen(kw_only=True)
class Order:
    """What an operator asks."""

    ask: Ask = Ask.RELOAD
    file: str = ""  # the file that is meant, absolute; empty: whichever the daemon has
    allow_remove: bool = False
    dry_run: bool = False
    confirm: float | None = None  # seconds within which it has to be confirmed; None: it has not
    of: float | None = None  # Reloaded.until of what is meant to be kept or reverted; None: whatever is pending


class Became(enum.Enum):
    """What became of it."""

    USED = "used"
    PLANNED = "planned"  # it was only to be shown
    INVALID = "invalid"  # the file has problems
    REFUSED = "refused"  # it would take too much away, or what it would do is not known
    CONFIRMED = "confirmed"
    REVERTED = "reverted"


@attrs.frozen(kw_only=True)
class PlannedLine:
    """One line of `lvsctl diff`, in the words of its JSON."""

    sign: str  # add, change, remove, note
    name: str
    virtual_server: str
    real_server: str | None
    what: str
    cause: str
    why: str
    differs: bool


@attrs.frozen(kw_only=True)
class Reloaded:
    """What became of an order."""

    became: Became
    config: str  # the daemon's file
    why: str = ""  # why it was, or would be, refused; why it was reverted
    problems: tuple[str, ...] = ()  # of the file: each with file, line and key
    lines: tuple[PlannedLine, ...] = ()  # the live table against the file, as `lvsctl diff` has it
    virtual_servers: int = 0  # that the file makes
    real_servers: int = 0
    complete: bool = True  # False: Consul did not answer for everything, the rest is in `lines`
    notes: tuple[str, ...] = ()  # what should be known besides
    until: float | None = None  # when it is taken back unless it is confirmed; None: it is not

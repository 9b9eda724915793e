"""Errors that nobody expected, which are errors of lvsctl itself: told once, and then a failure like any other.

What comes from outside may find one at any time. It must not end the daemon: whoever calls this goes on with the rest,
and tries again after a back-off.
"""

import traceback
from pathlib import Path
from typing import Final

import structlog

from lvsctl.errors import LvsctlError
from netlink.errors import NetlinkError

MAX_TEXT: Final = 500  # characters kept of an error's text, which may quote what came from outside
MOST_TOLD: Final = 1000

log = structlog.get_logger()

_told: Final[set[str]] = set()


def in_words(error: Exception, task: str) -> str:
    """Return what went wrong in `task`; log it, the first time, where it is none of the errors raised on purpose."""
    if isinstance(error, (LvsctlError, NetlinkError)):
        return str(error)
    words = place_of(error)
    if words not in _told and len(_told) < MOST_TOLD:
        _told.add(words)
        log.error("unexpected", task=task, error=words, kept="what there was; it is tried again")
    return words


def place_of(error: Exception) -> str:
    """Return what `error`, one of lvsctl's own, is and where it is."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "nowhere"
    return f"error in lvsctl itself, please report it: {type(error).__name__} at {place}: {str(error)[:MAX_TEXT]}"


def told() -> frozenset[str]:
    """Return what was logged since the start."""
    return frozenset(_told)

"""The one way to wait in tests: on a condition, with a deadline, and with words when it passes."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(condition: Callable[[], T], *, within: float = 10.0, every: float = 0.05) -> T:
    """Return the first true answer of `condition`, asked every `every` seconds for `within` seconds.

    A failed assertion or connection inside `condition` counts as "not yet"; the last one is the reason given when
    the deadline passes.
    """
    deadline = time.monotonic() + within
    reason: object = "it never was true"
    while True:
        try:
            answer = condition()
            if answer:
                return answer
            reason = f"the last answer was {answer!r}"
        except (AssertionError, OSError) as error:
            reason = error
        if time.monotonic() > deadline:
            what = getattr(condition, "__qualname__", repr(condition))
            raise AssertionError(f"{what}: not within {within:g} s: {reason}")
        time.sleep(every)

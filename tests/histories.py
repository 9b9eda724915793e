"""Properties over random histories, of which `make histories` tries thousands each and `make test` a few.

Those few are the same each time: a change is judged by what it does to them, and `make histories` looks for new ones.
"""

import os
from collections.abc import Callable
from typing import Final, ParamSpec

import pytest
from hypothesis import HealthCheck, settings

P = ParamSpec("P")

EACH: Final = int(os.environ.get("LVSCTL_HISTORIES", "0"))  # of each property; 0: as many as the property says


def histories(usual: int = 60) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Return the decorator of a property that is tried with `usual` histories, or with as many as are asked for."""

    def mark(test: Callable[P, None]) -> Callable[P, None]:
        # One that shows a promise counts over all its histories what it has as a fixture (tests/showing.py).
        counting = [HealthCheck.function_scoped_fixture]
        usually = settings(
            deadline=None, max_examples=EACH or usual, derandomize=not EACH, suppress_health_check=counting
        )
        return pytest.mark.histories(usually(test))

    return mark

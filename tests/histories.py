"""Properties over random histories, of which `make histories` tries thousands each and `make test` a few."""

import os
from collections.abc import Callable
from typing import Final, ParamSpec

import pytest
from hypothesis import settings

P = ParamSpec("P")

EACH: Final = int(os.environ.get("LVSCTL_HISTORIES", "0"))  # of each property; 0: as many as the property says


def histories(usual: int = 60) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Return the decorator of a property that is tried with `usual` histories, or with as many as are asked for."""

    def mark(test: Callable[P, None]) -> Callable[P, None]:
        return pytest.mark.histories(settings(deadline=None, max_examples=EACH or usual)(test))

    return mark

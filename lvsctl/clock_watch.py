"""Notices that somebody set the clock, by another one that nobody sets.

Does no I/O; both clocks are passed in. A clock that is slewed, as NTP does as a rule, is not set: the other one is
slewed with it. A machine that was suspended has a clock that was set: what it lasted did not pass for anybody here.
"""

from collections.abc import Callable
from typing import Final

STEP: Final = 1.0  # seconds; less harms nobody
AT_ONCE: Final = 0.1  # seconds that both clocks are read in, or they are read again
LOOKS: Final = 5


class ClockWatch:
    """Compares the time of day with a clock that is never set."""

    def __init__(self, clock: Callable[[], float], steady: Callable[[], float]) -> None:
        self._clock = clock
        self._steady = steady
        self._ahead = self._now_ahead()

    def set_by(self) -> float:
        """Return by how many seconds the clock was set since this was last asked; 0 where it was not."""
        ahead = self._now_ahead()
        before, self._ahead = self._ahead, ahead
        return ahead - before if abs(ahead - before) >= STEP else 0.0

    def _now_ahead(self) -> float:
        for _ in range(LOOKS):
            steady = self._steady()
            ahead = self._clock() - steady
            if self._steady() - steady < AT_ONCE:  # else we were stopped in between
                break
        return ahead

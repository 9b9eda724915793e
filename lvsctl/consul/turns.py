"""Asking about every Consul service in turn, while a list that would signal what has changed cannot be read.

A list of the catalogue may be too large, broken or refused while everything else is answered. No signal comes then, and
nothing may have to wait for the sweep. So all are asked about, one after the other, in rounds of a length that Consul
is not in want of: a change is seen a round later at most.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

ROUND: Final = 5.0  # seconds until the first is asked about again
MOST_A_SECOND: Final = 200  # questions; with more Consul services than fit, a round is longer
STEP: Final = 0.05  # seconds between two handfuls
TROUBLED: Final = 16  # Consul services whose own questions fail, from which on no other is asked about: Consul is away


def round_of(queries: int) -> float:
    """Return the seconds of a round of so many."""
    return max(ROUND, queries / MOST_A_SECOND)


async def take_turns(
    needed: asyncio.Event, ready: Callable[[], Sequence[asyncio.Event]], troubled: Callable[[], bool]
) -> None:
    """Set each event that is `ready`, round by round, as long as turns are `needed` and Consul is not `troubled`."""
    while True:
        await needed.wait()
        events = list(ready())
        steps = max(1, int(round_of(len(events)) / STEP))
        for step in range(steps):
            if not needed.is_set():
                break
            if not troubled():
                for event in events[len(events) * step // steps : len(events) * (step + 1) // steps]:
                    event.set()
            await asyncio.sleep(STEP)

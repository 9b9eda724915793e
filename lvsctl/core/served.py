"""With how many real servers a virtual server served lately, and how many have to stay.

Pure. The floor is a part (`floor`, half where nobody says otherwise) of the most that served in the last `WINDOW`. It
falls by itself, then: who scales down and waits gets there in halves, who loses instances has that long to be told.
The ledger keeps the counts, so a restart forgets none of them. Times are Unix seconds.
"""

from typing import Final

import attrs

WINDOW: Final = 900.0  # seconds that a count is remembered after it was last reached
MOST_STEPS: Final = 16  # earlier counts that are kept; of more, neighbours are taken for the larger


@attrs.frozen(kw_only=True)
class Served:
    """How many real servers serve, and the larger counts before: how many, and until when; the largest is the first."""

    count: int
    earlier: tuple[tuple[int, float], ...] = ()


NEVER: Final = Served(count=0)


@attrs.frozen(kw_only=True)
class Counts:
    """The counts of one cycle, and how many have to stay for that."""

    before: Served = NEVER  # with what served until now; nothing where the count begins anew
    after: Served = NEVER  # once its steps are done, but for what the kernel has refused before
    whole: Served = NEVER  # once it has taken that, too
    least: int = 0

    @property
    def loss(self) -> int:
        """Return how many fewer serve once its steps are done."""
        return max(0, self.before.count - self.after.count)


NO_COUNTS: Final = Counts()


@attrs.frozen(kw_only=True)
class Floor:
    """How many real servers of a virtual server have to stay, of how many; `until` is when that is less by itself."""

    least: int
    most: int
    until: float | None = None
    why: str = ""  # where another rule than the part of `most` asks for it

    def holds(self, now: float) -> bool:
        """Tell whether it is the same at `now`; a clock that was set back has it measured again."""
        return self.until is None or self.until - WINDOW <= now < self.until


NO_FLOOR: Final = Floor(least=0, most=0)


def after(served: Served, count: int, now: float) -> Served:
    """Return `served` once `count` real servers serve at `now`."""
    ended = served.earlier if served.count <= count else (*served.earlier, (served.count, now))
    earlier = tuple((many, min(until, now)) for many, until in ended if many > count and until + WINDOW > now)
    while len(earlier) > MOST_STEPS:
        at = min(range(1, len(earlier)), key=lambda at: earlier[at][1] - earlier[at - 1][1])
        earlier = (*earlier[: at - 1], (earlier[at - 1][0], earlier[at][1]), *earlier[at + 1 :])
    return Served(count=count, earlier=earlier)


def floor_of(served: Served, percent: int, now: float) -> Floor:
    """Return the floor at `now`: `percent` of the most that served lately, rounded up."""
    lately = [each for each in served.earlier if each[1] + WINDOW > now]
    most, until = lately[0] if lately else (served.count, None)
    return Floor(least=-(-most * percent // 100), most=most, until=None if until is None else min(until, now) + WINDOW)

"""How a query, or whatever else asks Consul again and again, stands with it.

Pure but for the clock. Times are Unix seconds.
"""

import time
from typing import Final

import attrs

from lvsctl.consul.burst import kind_of

MOST_KINDS: Final = 20  # different errors of one failure that are remembered; those of the next are no news either


@attrs.frozen(kw_only=True)
class Contact:
    """How one query stands with Consul."""

    last: float | None = None  # when the last complete answer came
    failing_since: float | None = None
    error: str = ""
    kinds: frozenset[str] = frozenset()  # of the errors since then

    def failed(self, error: str) -> "Contact":
        """Return how it stands after a failure now."""
        kinds = self.kinds if self.knows(error) else self.kinds | {kind_of(error)}
        return attrs.evolve(self, failing_since=self.failing_since or time.time(), error=error, kinds=kinds)

    def knows(self, error: str) -> bool:
        """Tell whether it failed like this before, since it fails: two errors that take turns are news once each."""
        return kind_of(error) in self.kinds or len(self.kinds) >= MOST_KINDS

    def beside(self, other: "Contact", *, fresh: float) -> "Contact":
        """Return how a query stands that rests on another one's word, too: the later answer and the worse failure.

        What was heard itself within `fresh` seconds, and since the other one failed, does not need its word.
        """
        if other.failing_since and self.last and self.last > max(other.failing_since, time.time() - fresh):
            return self
        lasts = [each.last for each in (self, other) if each.last is not None]
        failing = other if self.failing_since is None else self
        return Contact(last=max(lasts, default=None), failing_since=failing.failing_since, error=failing.error)

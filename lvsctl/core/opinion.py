"""What the director found when it knocked at real servers itself, beside what Consul says of them.

Pure; `probing` knocks. It is asked only where the guard has to hold something, and then says of all that Consul would
have go who is alive and who is dead. Whether a knock that fails says anything is told by others that are knocked at in
the same round: a director that reaches none of them knows nothing, for its own network may be what is broken.
"""

from collections.abc import Mapping
from typing import Final

import attrs

from lvsctl.core.nothing import NOBODY
from netlink.types import RealServerKey, VirtualServerKey

ENOUGH: Final = 5  # knocks in a row that fail, until a real server counts as dead
ALONE: Final = 10  # the same where nobody serves whose answers would tell that the director reaches anybody


@attrs.frozen(kw_only=True)
class Knocks:
    """How one real server took them so far."""

    answered: bool = False  # any of them
    failed: int = 0  # in a row
    counted: int = 0  # of those, in rounds in which others answered

    def after(self, answers: bool, *, counts: bool) -> "Knocks":  # noqa: FBT001  # what a knock returns
        """Return them after one more; `counts` tells whether others answered in this round."""
        if answers:
            return Knocks(answered=True)
        return attrs.evolve(self, failed=self.failed + 1, counted=self.counted + counts)


@attrs.frozen(kw_only=True)
class Opinion:
    """Which real servers are alive, which dead, and of which nothing can be found; of others it is not known yet."""

    alive: frozenset[RealServerKey] = NOBODY
    dead: frozenset[RealServerKey] = NOBODY
    unknowable: frozenset[RealServerKey] = NOBODY


NO_OPINION: Final = Opinion()
Opinions = Mapping[VirtualServerKey, Opinion]


def opinion_of(knocks: Mapping[RealServerKey, Knocks], *, enough: int = ENOUGH) -> Opinion:
    """Return the opinion after these knocks.

    Who has answered is alive until it is dead: a director that reaches nobody for a while forgets nothing.
    """
    dead = frozenset(key for key, each in knocks.items() if each.counted >= enough)
    alive = frozenset(key for key, each in knocks.items() if each.answered) - dead
    vain = frozenset(key for key, each in knocks.items() if each.failed >= enough)
    return Opinion(alive=alive, dead=dead, unknowable=vain - dead - alive)

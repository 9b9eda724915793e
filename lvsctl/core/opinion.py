"""What the director found when it knocked at real servers itself, beside what Consul says of them.

Pure. `probing` knocks. It is asked only where the guard has to hold something, and then says who of those that Consul
would have go is alive and who is dead. That a program is not there is told by a refusal, within a moment; silence may
be a lost packet, and takes many. Whether a knock that fails says anything at all is told by others that are knocked at
then (`means_something`): a director that reaches none of them knows nothing, for its own network may be what is broken.
"""

import enum
from collections.abc import Collection, Mapping
from typing import Final

import attrs

from lvsctl.core.nothing import NOBODY
from netlink.types import RealServerKey, VirtualServerKey

REFUSALS: Final = 3  # knocks in a row that are refused, until a real server counts as dead; one may be a full queue
ENOUGH: Final = 5  # knocks in a row that fail, however they do
ALONE: Final = 10  # the same where nobody serves whose answers would tell that the director reaches anybody


class Found(enum.Enum):
    """What came of one knock."""

    OPEN = enum.auto()
    REFUSED = enum.auto()  # it was answered that nobody is there, as clients are
    SILENT = enum.auto()


@attrs.frozen(kw_only=True)
class Knocks:
    """How one real server took them so far."""

    answered: bool = False  # any of them
    failed: int = 0  # in a row
    counted: int = 0  # of those, which mean something
    refused: int = 0  # the last in a row that mean something and were refusals

    def after(self, found: Found, *, counts: bool) -> "Knocks":
        """Return them after one more; `counts` tells whether it means something where it failed."""
        if found is Found.OPEN:
            return Knocks(answered=True)
        return attrs.evolve(
            self,
            failed=self.failed + 1,
            counted=self.counted + counts,
            refused=self.refused + 1 if counts and found is Found.REFUSED else 0,
        )

    def is_dead(self, *, alone: bool) -> bool:
        """Tell whether nobody is there; `alone` where nobody serves. Who has answered before needs no others for it."""
        if self.refused >= REFUSALS and (self.answered or not alone):
            return True
        return self.counted >= (ALONE if alone else ENOUGH)


@attrs.frozen(kw_only=True)
class Opinion:
    """Which real servers are alive, which dead, and of which nothing can be found; of others it is not known yet."""

    alive: frozenset[RealServerKey] = NOBODY
    dead: frozenset[RealServerKey] = NOBODY
    unknowable: frozenset[RealServerKey] = NOBODY


NO_OPINION: Final = Opinion()
Opinions = Mapping[VirtualServerKey, Opinion]


def means_something(others: Collection[Found | None], *, answered: bool, careful: bool, serving: bool) -> bool:
    """Tell whether a knock that failed says anything of its real server, by what came of knocks at `others` then.

    That one of them opens is enough, but where one is to be `careful` about a real server that has never `answered`
    the director: that may be because it cannot be reached from here at all, as behind a firewall that refuses, or where
    it listens at the virtual address alone. Then `others` have to be instances that are `serving`, and all open.
    """
    opened = [found is Found.OPEN for found in others]
    return any(opened) and (answered or not careful or (serving and all(opened)))


def opinion_of(knocks: Mapping[RealServerKey, Knocks], *, alone: bool = False) -> Opinion:
    """Return the opinion after these knocks; `alone` where nobody serves.

    Who has answered is alive until it is dead: a director that reaches nobody for a while forgets nothing.
    """
    enough = ALONE if alone else ENOUGH
    dead = frozenset(key for key, each in knocks.items() if each.is_dead(alone=alone))
    alive = frozenset(key for key, each in knocks.items() if each.answered) - dead
    vain = frozenset(key for key, each in knocks.items() if each.failed >= enough)
    return Opinion(alive=alive, dead=dead, unknowable=vain - dead - alive)

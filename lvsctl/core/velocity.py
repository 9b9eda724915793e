"""How much may leave of the whole table in a minute, whatever each virtual server's floor allows.

Pure. A floor looks at one virtual server. A catalogue that goes wrong slowly or everywhere stays above every one of
them, so of all real servers that served within the last `MINUTE` no more than a part (`safety.max_removals`) leave in
it; the rest waits for its turn. Where not all can leave, those virtual servers go first that lose the smallest part of
theirs: one real server of eight is everyday life. The counts are those of `served`, so no restart forgets them.
"""

from collections.abc import Mapping
from typing import Final

import attrs

from lvsctl.core.served import Floor, Served
from netlink.types import VirtualServerKey

MINUTE: Final = 60.0  # seconds
FEW: Final = 16  # real servers that may leave in any case: small tables have their floors


@attrs.frozen
class Loss:
    """With how many real servers a virtual server served until now, and with how many it would now."""

    before: Served
    count: int

    @property
    def size(self) -> int:
        """Return how many more would leave."""
        return max(0, self.before.count - self.count)


def limits_of_table(
    losses: Mapping[VirtualServerKey, Loss], others: Mapping[VirtualServerKey, Served], percent: int, now: float
) -> Mapping[VirtualServerKey, Floor]:
    """Return a floor for each virtual server of which less may leave now than would, by all that serve.

    `losses` are those that are decided about, `others` the counts of the rest.
    """
    losing = {key: loss for key, loss in losses.items() if loss.size}
    if not losing or percent >= 100:
        return {}
    known = [loss.before for loss in losses.values()] + [each for key, each in others.items() if key not in losses]
    most = sum(_most(each, now) for each in known)
    gone = sum(_most(each, now) - each.count for each in known)
    may_leave = max(FEW, most * percent // 100)
    room = may_leave - gone
    if sum(loss.size for loss in losing.values()) <= room:
        return {}
    until = min((end for each in known if (end := _end(each, now)) is not None), default=now) + MINUTE
    why = f"more than {may_leave} of the {most} of all virtual servers would leave within a minute"
    found = {}
    for key, loss in sorted(losing.items(), key=lambda pair: (pair[1].size / pair[1].before.count, pair[0])):
        may = max(0, min(room, loss.size))
        room -= may
        if may < loss.size:
            found[key] = Floor(least=loss.before.count - may, most=loss.before.count, until=until, why=why)
    return found


def _most(served: Served, now: float) -> int:
    """Return the most that served within the last minute."""
    return max((many for many, until in served.earlier if until + MINUTE > now), default=served.count)


def _end(served: Served, now: float) -> float | None:
    """Return when the first of what left within the last minute did; None where nothing left."""
    return min((until for _, until in served.earlier if until + MINUTE > now), default=None)

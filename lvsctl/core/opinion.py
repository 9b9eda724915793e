"""What the director found when it knocked at real servers itself, beside what Consul says of them.

Pure; `probing` knocks. It is asked only where the guard has to hold something, and then decides who stays of all that
Consul would have go: who answers does, who is silent goes, even below the floor, and until that is known nobody goes. A
director that reaches nobody knows nothing: its own network may be what is broken, or a firewall in between, and the
guard holds what it would hold without it.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from lvsctl.core.nothing import NOBODY
from netlink.types import RealServerKey, VirtualServerKey

ENOUGH: Final = 3  # knocks in a row that fail, until a real server counts as silent


@attrs.frozen(kw_only=True)
class Opinion:
    """Which real servers answered the last knock, and which have not answered for `ENOUGH` of them."""

    answering: frozenset[RealServerKey] = NOBODY
    silent: frozenset[RealServerKey] = NOBODY

    @property
    def counts(self) -> bool:
        """Tell whether the director reaches anybody."""
        return bool(self.answering)

    @property
    def dead(self) -> frozenset[RealServerKey]:
        """Return who need not be held."""
        return self.silent if self.counts else NOBODY


NO_OPINION: Final = Opinion()
Opinions = Mapping[VirtualServerKey, Opinion]


def opinion_of(failures: Iterable[tuple[RealServerKey, int]]) -> Opinion:
    """Return the opinion after knocks of which so many in a row have failed at each real server."""
    found = dict(failures)
    return Opinion(
        answering=frozenset(key for key, failed in found.items() if failed == 0),
        silent=frozenset(key for key, failed in found.items() if failed >= ENOUGH),
    )

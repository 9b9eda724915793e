"""One real server's way out: serving, draining, drained.

Pure. Leaving is quiescing first (weight 0: connections go on, new ones go elsewhere), then deleting when the
connections are gone or the deadline has come. Deleting at once would drop live packets silently. A real server that
returns meanwhile is raised in place, for its weight is all that changed.
"""

from typing import Final

import attrs

from netlink.types import RealServer, RealServerUsage

NO_USAGE: Final = RealServerUsage()  # of a real server that is not in the table


@attrs.frozen(kw_only=True)
class Draining:
    """Still in the table with weight 0, since `since` (Unix seconds)."""

    since: float
    active: int  # connections in use
    closing: int  # connections being set up or taken down


@attrs.frozen(kw_only=True)
class Drained:
    """To be deleted; it has no connections unless the deadline came first."""

    since: float
    active: int
    closing: int


def drain(
    observed: RealServer, usage: RealServerUsage, *, since: float | None, timeout: float, now: float
) -> Draining | Drained:
    """Return where a leaving real server stands.

    `since` is when it was quiesced, None when it was not yet; `timeout` is in seconds, 0 deletes without draining.
    One that serves although it was to be quiesced starts over: the write was refused or never sent, or undone by hand.
    Connections that are closing count too: the client may still wait for the rest of an answer.
    A clock that was set back only lengthens a drain, by no more than its timeout.
    """
    quiesced = since if observed.weight == 0 else None
    started = now if quiesced is None else min(quiesced, now)
    unused = usage.active == 0 and usage.inactive == 0
    if now - started >= timeout or (quiesced is not None and unused):
        return Drained(since=started, active=usage.active, closing=usage.inactive)
    return Draining(since=started, active=usage.active, closing=usage.inactive)

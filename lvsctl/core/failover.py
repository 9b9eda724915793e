"""Which of several Consul datacenters serves a virtual server.

Pure. `desired` judges the instances of each datacenter and asks here; the ledger remembers the outcome, so a restart
changes nothing. The rule, in the order of the list:
1. An earlier datacenter takes over from the one that serves when at least half of its instances there may serve, and
   half of as many as it served with before (`peak`). One of twenty that comes back first must not get the load of all.
2. Else the one that serves goes on, as long as one of its instances may serve.
3. Else the first takes over that has an instance that may serve. When none has, nothing changes, and the guard holds.

Neither a doubt nor a failure changes anything. An answer in doubt may lack instances, so it neither ends a datacenter's
turn nor gives it back. One that serves and fails to answer goes on by its last answer, for nobody can tell a dead link
between datacenters from dead instances. One that fails to answer takes nothing over, for the same reason; while one
that serves was never heard, its virtual server is left as it is.
"""

from collections.abc import Sequence

import attrs

from lvsctl.core.peak import SETTLED


@attrs.frozen(kw_only=True)
class Standing:
    """How one datacenter stands, for one virtual server."""

    able: int  # real servers that its instances would make and that would get new connections
    meant: int  # those, and the instances that only their checks or a maintenance keep out
    doubt: str = ""  # why its answer may lack instances, in words; empty when it is believed
    silent: bool = False  # it does not answer now; this is how it stood when it last did
    peak: int = 0  # the most that it served with before another one did; 0 where that does not matter

    @property
    def may_return(self) -> bool:
        """Tell whether enough of it is there to take over from one that serves."""
        return self.may_take_over and self.able >= self.needed and not self.doubt

    @property
    def needed(self) -> int:
        """Return how many must be able to serve for that."""
        return -(-max(self.meant, self.peak) // 2)

    @property
    def may_take_over(self) -> bool:
        """Tell whether it can serve where nothing else can."""
        return self.able > 0 and not self.silent


def choose(standings: Sequence[Standing | None], serving: int) -> int | None:
    """Return which datacenter serves from now on; None while that cannot be known.

    `standings` are in the order of the list, None for one that was never heard. `serving` is the one that served until
    now. With the outcome as `serving` the outcome is the same.
    """
    for place, standing in enumerate(standings[:serving]):
        if standing is not None and standing.may_return:
            return place
    now = standings[serving]
    if now is None:
        return None
    if now.able or now.doubt:
        return serving
    return next((place for place, standing in enumerate(standings) if standing and standing.may_take_over), serving)


def why_not(standing: Standing, serving: str, *, returning: bool) -> str:
    """Return why what may serve in one datacenter does not while `serving` does, in words.

    `returning`: it comes before `serving` in the list.
    """
    words = f"may serve, but {named(serving)} does"
    if standing.silent:
        return f"{words}; Consul does not answer for this one now"
    if not returning:
        return f"{words}, which comes first"
    if standing.doubt:
        return f"{words} while Consul's answer is in doubt ({standing.doubt})"
    return f"{words} until {_enough(standing, 'here')}"


def why_failed_over(standings: Sequence[Standing | None], datacenters: Sequence[str], serving: str) -> str:
    """Return in words that `serving` serves in place of the first, and what the first lacks."""
    first = standings[0]
    said = f"failed over to {named(serving)}"
    if first is None:
        return f"{said}; {named(datacenters[0])} has not answered"
    if first.silent:
        return f"{said}; Consul does not answer for {named(datacenters[0])} now"
    if first.doubt:
        return f"{said}; Consul's answer for {named(datacenters[0])} is in doubt ({first.doubt})"
    if not first.able:
        return f"{said}; no instance in {named(datacenters[0])} may serve"
    return f"{said} until {_enough(first, f'instances in {named(datacenters[0])}', 'may serve')}"


def _enough(standing: Standing, which: str, may: str = "may") -> str:
    if standing.peak <= standing.meant:
        return f"{standing.needed} of {standing.meant} {which} {may} ({standing.able} now)"
    before = f"{standing.able} now; that {standing.peak} served before counts for {SETTLED / 60:.0f} minutes"
    return f"{standing.needed} {which} {may} ({before})"


def named(datacenter: str) -> str:
    """Return a datacenter in words; the agent's own has no name here."""
    return f"datacenter {datacenter!r}" if datacenter else "the agent's own datacenter"

"""How much of what serves another configuration would take away, and whether that is too much to do unasked.

Pure. A file that is empty but for one table, was half written, or names the wrong Consul service everywhere is a valid
file; what gives it away is what it would do. The rule: a reload may take away half of the virtual servers that serve
now, and half of the real servers that serve now, and no more, unless an operator says so. What leaves anyway, because
Consul wants it out or an earlier reload did, is none of the reload's doing and is not counted. A fallback server is no
service: it counts as nothing, whether it serves now or would then. Where Consul answers for what serves now, but not
for what the other configuration asks in its place, nobody can say what would become of it: it may go, so it counts.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

import attrs

from lvsctl.config import Config
from lvsctl.core.decision import Decision, VirtualServerDecision
from lvsctl.core.guard import serves
from lvsctl.core.ownership import Ledger
from netlink.types import RealServerKey, Table, VirtualServerKey

MOST_NAMED: Final = 5
ALLOW: Final = "lvsctl reload --allow-remove"

Serving = Mapping[VirtualServerKey, AbstractSet[RealServerKey]]


@attrs.frozen(kw_only=True)
class Removal:
    """What would go of all that serves."""

    virtual_servers: int = 0  # that serve now
    emptied: tuple[str, ...] = ()  # names of those of them in which nothing would serve any more
    real_servers: int = 0  # that serve now, counted in each virtual server
    leaving: int = 0  # of them
    unknown: tuple[str, ...] = ()  # names of those of them of which nobody knows what would become
    in_unknown: int = 0  # real servers that serve in those now

    @property
    def is_mass(self) -> bool:
        """Tell whether that is, or may be, more than a reload may take away unasked."""
        virtual_servers, real_servers = len(self.emptied) + len(self.unknown), self.leaving + self.in_unknown
        return 2 * virtual_servers > self.virtual_servers or 2 * real_servers > self.real_servers

    @property
    def words(self) -> str:
        """Return `it would take away 3 of 4 virtual servers (a, b, c) and 9 of 10 real servers now serving`."""
        parts = []
        if self.emptied:
            parts.append(_of(len(self.emptied), self.virtual_servers, "virtual server") + _named(self.emptied))
        if self.leaving or not self.unknown:
            parts.append(_of(self.leaving, self.real_servers, "real server"))
        gone = f"it would take away {' and '.join(parts)} now serving" if parts else ""
        if not self.unknown:
            return gone
        of = _of(len(self.unknown), self.virtual_servers, "virtual server") + _named(self.unknown)
        unknown = f"what becomes of {of} is not known, for Consul does not answer for it"
        return f"{gone}, and {unknown}" if gone else unknown


def removal(table: Table, now: Decision, then: Decision, config: Config) -> Removal:
    """Return what of `table` would go if `then` were decided in place of `now`, by the configuration in use: `config`.

    Where Consul has not answered for a virtual server of the one in use, it is left as it is, and so it stays.
    """
    names = {each.key: each.name for each in config.virtual_servers.values()}
    names |= {key: each.name for key, each in now.virtual_servers.items()}
    before = {key: staying for key, staying in _staying(table, now).items() if staying}
    after = _staying(table, then)
    emptied = (key for key in before if key not in then.foreign and not _will_serve(key, then, after))
    unknown = [
        key
        for key in before
        if key in now.virtual_servers and key in then.left_alone and key not in then.virtual_servers
    ]
    return Removal(
        virtual_servers=len(before),
        emptied=tuple(sorted(names.get(key, str(key)) for key in emptied)),
        real_servers=sum(map(len, before.values())),
        leaving=sum(len(keys - after.get(key, keys)) for key, keys in before.items()),
        unknown=tuple(sorted(names.get(key, str(key)) for key in unknown)),
        in_unknown=sum(len(before[key]) for key in unknown),
    )


def left_out(ledger: Ledger, config: Config) -> Removal:
    """Return what `config` lacks of all that served last, by the `ledger`: all that is known at a start.

    What a Consul service declared counts as there where the configuration lets any declare themselves.
    """
    keys = {each.key for each in config.virtual_servers.values()}
    served = {
        key: sum(serves(each) for server, each in entry.written.real_servers.items() if server != entry.fallback)
        for key, entry in ledger.items()
        if entry.written
    }
    serving = {key: count for key, count in served.items() if count}
    gone = [
        key
        for key in serving
        if key not in keys
        and ledger[key].name not in config.virtual_servers
        and (ledger[key].declaration is None or config.discovery is None)
    ]
    return Removal(
        virtual_servers=len(serving),
        emptied=tuple(sorted(ledger[key].name for key in gone)),
        real_servers=sum(serving.values()),
        leaving=sum(serving[key] for key in gone),
    )


def _staying(table: Table, decision: Decision) -> Serving:
    """Return what of ours serves in `table` and goes on to, by `decision`."""
    found = {}
    for key, entry in table.items():
        if key in decision.foreign:
            continue
        there = frozenset(server for server, each in entry.real_servers.items() if serves(each))
        decided = decision.virtual_servers.get(key)
        if decided is not None:
            there &= _intended(decided)
        elif key not in decision.left_alone:
            there = frozenset()  # nobody wants it any more; it goes as soon as Consul answers for anything
        found[key] = there
    return found


def _will_serve(key: VirtualServerKey, decision: Decision, staying: Serving) -> bool:
    """Tell whether anything serves at `key` by `decision`, what stays or what comes."""
    decided = decision.virtual_servers.get(key)
    return bool(staying.get(key) or (decided and _intended(decided)))


def _intended(decided: VirtualServerDecision) -> AbstractSet[RealServerKey]:
    """Return what is to serve, but for a fallback."""
    intended = decided.intended.real_servers if decided.intended else {}
    return {server for server, each in intended.items() if serves(each) and server != decided.fallback}


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f" ({', '.join(names[:MOST_NAMED])}{more})"


def _of(some: int, every: int, thing: str) -> str:
    return f"{some} of {every} {thing}{'' if every == 1 else 's'}"

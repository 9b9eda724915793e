"""How each virtual server stands, in numbers: what metrics say of it, and nothing that grows with its real servers.

Pure. `status` makes the rows that an operator reads of the same decision; a property test holds the two together. A
decision that is still the same object has the same standing, so with thousands of virtual servers little is made anew.
"""

from collections import Counter
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import attrs

from lvsctl.config import Config
from lvsctl.core.admission import Reason, Rejected
from lvsctl.core.condition import damped_of, state_of
from lvsctl.core.decision import Decision, VirtualServerDecision
from lvsctl.core.desired import Wanted
from lvsctl.core.fingerprint import fingerprint
from lvsctl.core.guard import serves
from lvsctl.core.nothing import NOTHING
from lvsctl.core.ownership import Owner
from lvsctl.core.status import State
from lvsctl.text import visible
from netlink.types import Observed, TableEntry, VirtualServerKey

LONGEST_LABEL: Final = 128  # characters; a configured name has at most 63, an address with its protocol fewer

Label = tuple[str, str]
"""Name and address: after a move to another address the name alone is there twice, until the old one is gone."""


@attrs.frozen(kw_only=True)
class Standing:
    """How one virtual server stands."""

    label: Label
    state: State
    serving: int  # real servers that get new connections, those held among them
    wanted: int  # instances that Consul has for it, tags and meta considered
    held: int = 0
    draining: int = 0
    ramping: int = 0
    damped: int = 0  # instances
    rejected: Mapping[Reason, int] = NOTHING  # instances
    wanted_print: int = 0  # fingerprints, 0 for what is not there
    kernel_print: int = 0
    # Of what it was made: where they are the same again, it is, too.
    decision: VirtualServerDecision | None = attrs.field(default=None, eq=False, repr=False)
    refused: bool = attrs.field(default=False, eq=False, repr=False)


Standings = Mapping[VirtualServerKey, Standing]


def standings(
    config: Config,
    decision: Decision,
    observed: Observed,
    *,
    refused: AbstractSet[VirtualServerKey],
    before: Standings | None = None,
) -> Standings:
    """Return how every virtual server stands that is configured or ours; `before` are earlier ones, and spare work."""
    before = before or {}
    found = {}
    for key, each in decision.virtual_servers.items():
        known = before.get(key)
        same = known is not None and known.decision is each and known.refused == (key in refused)
        found[key] = known if known and same else _decided(each, refused=key in refused)
    for name in decision.waiting:
        key = config.virtual_servers[name].key
        entry = observed.table.get(key)
        ours = entry if key not in decision.foreign else None
        found[key] = attrs.evolve(_bare(name, key, entry, State.WAITING), kernel_print=_fingerprint(ours))
    return found


def label_of(name: str, key: VirtualServerKey) -> Label:
    """Return what tells a virtual server from all others."""
    return visible(name, LONGEST_LABEL), visible(str(key), LONGEST_LABEL)


def _bare(name: str, key: VirtualServerKey, entry: TableEntry | None, state: State) -> Standing:
    """Return what the kernel alone says."""
    real_servers = entry.real_servers if entry else {}
    return Standing(
        label=label_of(name, key),
        state=state,
        serving=sum(map(serves, real_servers.values())),
        wanted=len(real_servers),
    )


def _decided(each: VirtualServerDecision, *, refused: bool) -> Standing:
    if each.owner is Owner.FOREIGN:
        standing = _bare(each.name, each.key, each.observed, State.FOREIGN)
    else:
        there = each.observed.real_servers if each.observed else {}
        apart = each.leaving.keys() | {each.fallback}
        serving = sum(key in each.held or (key not in apart and serves(server)) for key, server in there.items())
        wanted = sum(not member.is_filtered for member in each.wanted.members) if each.wanted else 0
        standing = Standing(
            label=label_of(each.name, each.key),
            state=state_of(each, serving=serving, wanted=wanted, refused=refused),
            serving=serving,
            wanted=wanted,
            held=len(each.held.keys() & there.keys()),
            draining=len((each.leaving.keys() - each.held.keys()) & there.keys()),
            ramping=len(each.ramps.of),
            damped=damped_of(each),
            kernel_print=_fingerprint(each.observed),
        )
    return attrs.evolve(
        standing,
        rejected=_rejected(each.wanted),
        wanted_print=_fingerprint(each.wanted.entry if each.wanted else None),
        decision=each,
        refused=refused,
    )


def _rejected(wanted: Wanted | None) -> Mapping[Reason, int]:
    verdicts = [member.verdict for member in wanted.members] if wanted else []
    return Counter(verdict.reason for verdict in verdicts if isinstance(verdict, Rejected)) or NOTHING


def _fingerprint(entry: TableEntry | None) -> int:
    return fingerprint(entry) if entry else 0

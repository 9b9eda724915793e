"""A few virtual servers out of all: what a cycle decides that is about them alone, and how it joins the rest.

Pure. Each virtual server is decided on its own, so deciding some of them is deciding with a configuration, a ledger and
a table that have no others. What spans them all (the instances' limits, what is foreign, virtual addresses) stays as
the last cycle over everything found it; a decision that would change any of that is not one for a part.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Final, TypeVar

import attrs

from lvsctl.config import Config
from lvsctl.core.decision import Decision
from lvsctl.core.desired import queries_of
from lvsctl.core.instance import Query
from lvsctl.core.ownership import Owner
from netlink.requests import AddVirtualServer, DeleteVirtualServer
from netlink.types import VirtualServerKey

MOST: Final = 500  # virtual servers; to look at more of them costs as much as to look at everything

Value = TypeVar("Value")


def only(
    values: Mapping[VirtualServerKey, Value], keys: AbstractSet[VirtualServerKey]
) -> dict[VirtualServerKey, Value]:
    """Return of `values` those at `keys`."""
    return {key: values[key] for key in keys if key in values}


def joined(
    whole: Mapping[VirtualServerKey, Value],
    part: Mapping[VirtualServerKey, Value],
    keys: AbstractSet[VirtualServerKey],
) -> dict[VirtualServerKey, Value]:
    """Return `whole` with what `part` has at `keys`, or has not."""
    values = dict(whole)
    for key in keys - part.keys():
        values.pop(key, None)
    values.update(part)
    return values


def config_of(config: Config, keys: AbstractSet[VirtualServerKey]) -> Config:
    """Return `config` with those virtual servers alone."""
    chosen = {name: each for name, each in config.virtual_servers.items() if each.key in keys}
    return attrs.evolve(config, virtual_servers=chosen)


def decision_of(decision: Decision, keys: AbstractSet[VirtualServerKey]) -> Decision:
    """Return `decision` about those virtual servers alone."""
    return attrs.evolve(decision, virtual_servers=only(decision.virtual_servers, keys))


def decision_joined(whole: Decision, part: Decision, keys: AbstractSet[VirtualServerKey]) -> Decision:
    """Return `whole` as `part`, a decision about the virtual servers at `keys`, leaves it."""
    ends = [end for end in (whole.next_end, part.next_end) if end is not None]
    return attrs.evolve(
        whole,
        virtual_servers=joined(whole.virtual_servers, part.virtual_servers, keys),
        next_end=min(ends, default=None),
    )


def stands_for_itself(part: Decision, whole: Decision, keys: AbstractSet[VirtualServerKey]) -> bool:
    """Tell whether `part` changes nothing but real servers, and options, of virtual servers that `whole` knew as ours.

    One of `keys` that comes or goes, or is not ours any more, moves virtual addresses and what is foreign.
    """
    gone = keys & whole.virtual_servers.keys() - part.virtual_servers.keys()
    return not (part.disowned or gone) and all(
        key in whole.virtual_servers
        and each.owner is whole.virtual_servers[key].owner is Owner.OURS
        and not any(isinstance(step.request, AddVirtualServer | DeleteVirtualServer) for step in each.steps)
        for key, each in part.virtual_servers.items()
    )


def concerned(config: Config) -> Mapping[Query, frozenset[VirtualServerKey]]:
    """Return which virtual servers each query is asked for."""
    found: dict[Query, set[VirtualServerKey]] = {}
    for name, each in config.virtual_servers.items():
        for query in queries_of(attrs.evolve(config, virtual_servers={name: each})):
            found.setdefault(query, set()).add(each.key)
    return {query: frozenset(keys) for query, keys in found.items()}

"""The rows of `lvsctl status`: every virtual server of a decision, and the declarations that became none.

Pure. `condition` says how each stands, `real_server_status` what is behind it.
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

import attrs

from lvsctl.config import Config, VirtualServerConfig
from lvsctl.core.candidates import Refusal
from lvsctl.core.condition import note_on, state_of
from lvsctl.core.decision import Decision, VirtualServerDecision
from lvsctl.core.desired import deciding_queries
from lvsctl.core.difference import ipvsadm_delete, why_foreign
from lvsctl.core.guard import serves
from lvsctl.core.instance import Query
from lvsctl.core.nothing import NOTHING
from lvsctl.core.override_status import override_status
from lvsctl.core.ownership import Owner
from lvsctl.core.real_server_status import real_servers, row_of
from lvsctl.core.status import NO_TRAFFIC, Place, RefusedDeclaration, State, VirtualServerStatus
from lvsctl.core.subject import Subject
from lvsctl.core.words import virtual_server_words, word
from netlink.types import Address, Observed, RealServerKey, VirtualServerKey


def virtual_servers(
    config: Config,
    decision: Decision,
    observed: Observed,
    *,
    refused: Mapping[tuple[VirtualServerKey, RealServerKey | None], str],
    local: AbstractSet[Address],
    ages: Mapping[Query, float],
    about: Subject | None = None,
) -> tuple[VirtualServerStatus, ...]:
    """Return a row for every virtual server that is configured or ours.

    `refused` is what the kernel refused of them and of their real servers, `local` are the director's addresses, `ages`
    the seconds since each query was last answered; `about` as in `real_servers`.
    """
    refusals: dict[VirtualServerKey, dict[RealServerKey | None, str]] = {}
    for (key, server), error in refused.items():
        refusals.setdefault(key, {})[server] = error
    rows = [
        _decided(each, observed, refused=refusals.get(each.key, NOTHING), local=local, about=about)
        for each in decision.virtual_servers.values()
    ]
    rows += [unheard(config.virtual_servers[name], observed) for name in decision.waiting]
    rows = [
        attrs.evolve(row, data_age=_data_age(config.virtual_servers[row.name], row.datacenter, ages))
        if row.name in config.virtual_servers
        else row
        for row in rows
    ]
    return tuple(sorted(rows, key=lambda row: (row.name, row.address)))


def _data_age(virtual_server: VirtualServerConfig, serving: str, ages: Mapping[Query, float]) -> float | None:
    """Return the age of the oldest answer that decides: of the datacenter that serves, or of one before it."""
    deciding = [ages.get(query) for query in deciding_queries(virtual_server, serving)]
    known = [age for age in deciding if age is not None]
    return max(known, default=None) if deciding[-1] is not None else None


def refused_declarations(refusals: Iterable[Refusal]) -> tuple[RefusedDeclaration, ...]:
    """Return what is shown of `refusals`."""
    return tuple(
        RefusedDeclaration(
            consul_service=each.service, name=each.name, kept=str(each.kept) if each.kept else "", why=each.text
        )
        for each in refusals
    )


def bare_virtual_servers(observed: Observed, names: Mapping[VirtualServerKey, str]) -> tuple[VirtualServerStatus, ...]:
    """Return a row for every virtual server of the kernel, for when there is no daemon to ask."""
    return tuple(
        _bare(observed, key, name=names.get(key, ""), consul_service="", state=None) for key in sorted(observed.table)
    )


def _decided(
    each: VirtualServerDecision,
    observed: Observed,
    *,
    refused: Mapping[RealServerKey | None, str],
    local: AbstractSet[Address],
    about: Subject | None,
) -> VirtualServerStatus:
    if each.owner is Owner.FOREIGN:
        delete = f"{ipvsadm_delete(each)} lets lvsctl create its own"
        note = f"a foreign virtual server is in the way: lvsctl adopt {each.name} takes it over, {delete}"
        if each.disowned:
            note = why_foreign(each)
        return attrs.evolve(_of_observed(each, observed), state=State.FOREIGN, note=note)
    of_real_servers = {server: error for server, error in refused.items() if server is not None}
    rows = real_servers(each, observed, refused=of_real_servers, about=about)
    error = refused.get(None) or next(iter(refused.values()), "")
    serving = sum(row.place in (Place.SERVING, Place.HELD) for row in rows)
    if each.ordered.pause:  # what is to leave serves on
        serving = sum(bool(row.weight) for row in rows if row.place is not Place.FALLBACK)
    wanted = sum(not member.is_filtered for member in each.wanted.members) if each.wanted else 0
    state = state_of(each, serving=serving, wanted=wanted, refused=bool(error))
    return attrs.evolve(
        _of_observed(each, observed),
        serving=serving,
        wanted=wanted,
        state=state,
        note=error or note_on(each, state, local),
        real_servers=rows,
        overrides=tuple(override_status(effect) for effect in each.wanted.weighed.effects) if each.wanted else (),
        doubt=each.wanted.doubt if each.wanted else "",
    )


def _of_observed(each: VirtualServerDecision, observed: Observed) -> VirtualServerStatus:
    row = _bare(
        observed,
        each.key,
        name=each.name,
        consul_service=each.wanted.config.consul_service if each.wanted else "",
        state=State.OK,
    )
    if each.wanted is None:
        return row
    virtual_server = each.wanted.entry.virtual_server
    return attrs.evolve(
        row,
        scheduler=virtual_server_words(virtual_server),
        forwarding=word(each.wanted.config.forwarding),
        datacenter=each.wanted.datacenter,
        failed_over=bool(each.wanted.failed_over),
    )


def unheard(config: VirtualServerConfig, observed: Observed) -> VirtualServerStatus:
    """Return the row of a virtual server of which Consul has said nothing yet."""
    row = _bare(observed, config.key, name=config.name, consul_service=config.consul_service, state=State.WAITING)
    return attrs.evolve(
        row,
        scheduler=row.scheduler or config.scheduler,
        forwarding=word(config.forwarding),
        datacenter=config.datacenter or "",
        note="Consul has not answered yet; left as it is",
    )


def _bare(
    observed: Observed, key: VirtualServerKey, *, name: str, consul_service: str, state: State | None
) -> VirtualServerStatus:
    """Return what the kernel alone says about a virtual server; zeros when it is not there."""
    entry = observed.table.get(key)
    there = entry.real_servers if entry else {}
    usage = observed.usage.get(key, {})
    serving = sum(serves(real_server) for real_server in there.values())
    forwardings = sorted({word(real_server.forwarding) for real_server in there.values()})
    return VirtualServerStatus(
        name=name,
        consul_service=consul_service,
        address=str(key),
        scheduler=virtual_server_words(entry.virtual_server) if entry else "",
        forwarding=", ".join(forwardings),
        serving=serving,
        wanted=len(there),
        state=state or (State.OK if serving else State.EMPTY),
        note="",
        active=sum(each.active for each in usage.values()),
        inactive=sum(each.inactive for each in usage.values()),
        rate=observed.traffic.get(key, NO_TRAFFIC).connection_rate,
        real_servers=tuple(
            row_of(None, observed, key, server, Place.SERVING if serves(each) else Place.QUIESCED)
            for server, each in sorted(there.items(), key=lambda pair: pair[0])
        ),
    )

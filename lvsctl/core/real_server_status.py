"""The rows of `lvsctl status NAME`: the real servers of a virtual server, and the instances that are none.

Pure.
"""

from collections.abc import Mapping

import attrs

from lvsctl.core.admission import Admitted, Rejected
from lvsctl.core.cause import cause_of_disappearance, cause_of_fallback
from lvsctl.core.decision import VirtualServerDecision
from lvsctl.core.desired import Member
from lvsctl.core.drain import NO_USAGE, Draining
from lvsctl.core.instance import Health, Instance
from lvsctl.core.nothing import NOTHING
from lvsctl.core.ramp import end_of, percent_of
from lvsctl.core.status import Place, RealServerStatus, SlowStart
from lvsctl.core.subject import Subject
from lvsctl.core.weighing import why_weighed
from netlink.types import Observed, RealServerKey, VirtualServerKey


def real_servers(
    each: VirtualServerDecision,
    observed: Observed,
    *,
    refused: Mapping[RealServerKey, str] = NOTHING,
    about: Subject | None = None,
) -> tuple[RealServerStatus, ...]:
    """Return a row for each real server in the kernel, then for each instance that is none, in Consul's order.

    `refused` is what the kernel said to the last try. Instances that are not meant for it are left out, but for those
    that somebody asks `about`.
    """
    there = each.observed.real_servers if each.observed else {}
    by_key = each.wanted.by_key if each.wanted else {}
    rows = []
    for key in sorted(there):
        place, why = place_of(each, key, by_key.get(key))
        row = row_of(by_key.get(key), observed, each.key, key, place, _with_refusal(why, refused.get(key)))
        row = attrs.evolve(row, slow_start=_slow_start(each, key))
        rows.append(attrs.evolve(row, until=_deadline(each, key)) if place is Place.DRAINING else row)
    shown = {id(by_key[key]) for key in there if key in by_key}
    for member in each.wanted.members if each.wanted else ():
        if id(member) in shown or (member.is_filtered and not _is_meant(about, member)):
            continue
        place, why = _absent(member)
        why = _with_refusal(why, refused.get(member.key) if member.key and member.key not in there else None)
        row = row_of(member, observed, each.key, None if member.key in there else member.key, place, why)
        rows.append(attrs.evolve(row, filtered=True) if member.is_filtered else row)
    return tuple(rows)


def _with_refusal(why: str, refused: str | None) -> str:
    return "; ".join(filter(None, (f"the kernel refuses it: {refused}" if refused else "", why)))


def _is_meant(about: Subject | None, member: Member) -> bool:
    return about is not None and about.is_real_server(str(member.key or ""), member.source.instance_id)


def _deadline(each: VirtualServerDecision, key: RealServerKey) -> float | None:
    """Return when what drains is deleted at the latest, Unix seconds."""
    state = each.leaving.get(key)
    return state.since + each.drain_timeout if isinstance(state, Draining) else None


def _slow_start(each: VirtualServerDecision, key: RealServerKey) -> SlowStart | None:
    ramp = each.ramps.of.get(key)
    if ramp is None or each.wanted is None:
        return None
    return SlowStart(percent=percent_of(ramp), weight=ramp.weight, until=end_of(ramp, each.wanted.config.slow_start))


def place_of(each: VirtualServerDecision, key: RealServerKey, member: Member | None) -> tuple[Place, str]:
    """Return where the real server at `key` in the kernel stands, and why; `member` is the one behind it."""
    if key in each.held:
        why = _why_out(member) if member else cause_of_disappearance(each.why_unasked(key)).text
        return Place.HELD, f"kept, for {each.hold.why}: {why}"
    if key == each.fallback:
        return Place.FALLBACK, cause_of_fallback(named=True, needed=True).text
    if key in each.leaving:
        why = each.leaving_causes[key].text if member is None else _absent(member)[1]
        return Place.DRAINING, why
    weight = each.observed.real_servers[key].weight if each.observed else 0
    return (Place.SERVING if weight > 0 else Place.QUIESCED), _why_this_weight(each, key, member)


def _why_this_weight(each: VirtualServerDecision, key: RealServerKey, member: Member | None) -> str:
    """Return why the weight of a real server is not its instance's own; empty when it is."""
    if each.wanted is None or member is None or not isinstance(member.verdict, Admitted):
        return ""
    weighed = each.wanted.weighed
    touched = key in weighed.by or weighed.weights.get(key) != member.verdict.weight
    why = why_weighed(weighed, key) if touched else "" if member.verdict.weight else "its own weight is 0"
    return "; ".join(filter(None, (why, member.verdict.note)))


def _why_out(member: Member) -> str:
    """Return why what is held was to go: of one that passes only its weight can be the reason."""
    return "its own weight is 0" if isinstance(member.verdict, Admitted) else _absent(member)[1]


def _absent(member: Member) -> tuple[Place, str]:
    match member.verdict:
        case Admitted():
            return Place.PENDING, "passing, not in the kernel yet"
        case Rejected():
            return Place.REJECTED, member.verdict.text
        case _:
            return Place.OUT, member.verdict.text


def row_of(  # noqa: PLR0917  # a row has its columns
    member: Member | None,
    observed: Observed,
    virtual_server: VirtualServerKey,
    key: RealServerKey | None,
    place: Place,
    why: str = "",
) -> RealServerStatus:
    """Return the row of real server `key`; None for an instance that is none."""
    usage = observed.usage.get(virtual_server, {}).get(key, NO_USAGE) if key else NO_USAGE
    source = member.source if member else None
    check = source.health.word if isinstance(source, Instance) else ("" if source is None else Health.CRITICAL.word)
    entry = observed.table.get(virtual_server)
    return RealServerStatus(
        real_server=str(key or ""),
        node=source.node if source else "",
        instance=source.instance_id if source else "",
        check=check,
        place=place,
        weight=entry.real_servers[key].weight if entry and key and key in entry.real_servers else None,
        active=usage.active,
        inactive=usage.inactive,
        rate=usage.traffic.connection_rate,
        why=why,
        datacenter=member.datacenter if member else "",
    )

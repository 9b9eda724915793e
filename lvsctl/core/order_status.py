"""What became of operators' orders: what each takes out, holds or keeps from being written, as it stands.

Pure.
"""

from collections.abc import Iterator, Mapping

import attrs

from lvsctl.core.admission import parse_address
from lvsctl.core.decision import Decision, VirtualServerDecision
from lvsctl.core.desired import Member
from lvsctl.core.drain import NO_USAGE, Draining
from lvsctl.core.instance import Instance
from lvsctl.core.nothing import NOTHING
from lvsctl.core.order import KINDS, Drain, Drains, Hold, Order, Orders, Pause, What, in_force, target_of
from lvsctl.core.ownership import Owner
from lvsctl.core.real_server_status import place_of
from lvsctl.core.status import OrderedRealServer, OrderStatus, Place
from netlink.types import Observed, RealServerKey


def orders_status(orders: Orders, decision: Decision, observed: Observed, now: float) -> tuple[OrderStatus, ...]:
    """Return how each of `orders` that stands at `now` stands, by a `decision` that knew them."""
    standing = orders.standing(now)
    drains = in_force(standing, now).drains
    found: dict[What, list[OrderedRealServer]] = {}
    changes: dict[str, int] = {}
    for each in decision.virtual_servers.values():
        for order, row in _drained(each, observed, drains):
            if each.owner is not Owner.FOREIGN or row.place is not Place.OUT:
                found.setdefault(order.what, []).append(row)
        if each.owner is Owner.FOREIGN:
            continue
        if each.hold.order is not None:
            found.setdefault(each.hold.order.what, []).extend(_held(each, observed))
        changes[each.name] = changes.get(each.name, 0) + len(each.steps)
    return tuple(
        attrs.evolve(
            order_status(order), real_servers=tuple(found.get(order.what, ())), changes=_waiting(order, changes)
        )
        for order in standing.entries
    )


def order_status(order: Order) -> OrderStatus:
    """Return `order` as it is shown, without what became of it."""
    return OrderStatus(
        order=KINDS[type(order.what)],
        target=target_of(order.what),
        by=order.by,
        reason=order.reason,
        written=order.written,
        until=order.until,
    )


def _waiting(order: Order, changes: Mapping[str, int]) -> int:
    match order.what:
        case Pause(virtual_server=""):
            return sum(changes.values())
        case Pause(virtual_server=name):
            return changes.get(name, 0)
        case Drain() | Hold():
            return 0


def _drained(
    each: VirtualServerDecision, observed: Observed, drains: Drains
) -> Iterator[tuple[Order, OrderedRealServer]]:
    """Yield each instance that a drain is about, and what is in the table without one, with each order about it.

    What Consul has no instance of any more is about that which was behind it, as long as that is known.
    """
    if not drains.entries:
        return
    members = each.wanted.members if each.wanted else ()
    for member in members:
        if member.is_drained:
            row = _of(member, _row(each, observed, member.key))
            yield from ((order, row) for order in _orders_about(member, drains))
    known = {member.key for member in members}
    for key in sorted(each.observed.real_servers if each.observed else ()):
        if key not in known:
            row, behind = _row(each, observed, key), each.behind.get(key)
            orders = list(drains.every_at(key))
            if behind is not None:
                row = _of(behind, row)
                orders += [order for order in _orders_about(behind, drains) if order not in orders]
            yield from ((order, row) for order in orders)


def _orders_about(member: Member, drains: Drains) -> Iterator[Order]:
    if isinstance(member.source, Instance):
        yield from drains.every(member.source, parse_address(member.source.address), member.key)


def _of(member: Member, row: OrderedRealServer) -> OrderedRealServer:
    return attrs.evolve(row, node=member.source.node, instance=member.source.instance_id)


def _held(each: VirtualServerDecision, observed: Observed) -> Iterator[OrderedRealServer]:
    by_key = each.wanted.by_key if each.wanted else {}
    for key in sorted(each.held):
        row, member = _row(each, observed, key), by_key.get(key)
        source = member.source if member else None
        yield attrs.evolve(row, node=source.node, instance=source.instance_id) if source else row


def _row(each: VirtualServerDecision, observed: Observed, key: RealServerKey | None) -> OrderedRealServer:
    there = each.observed.real_servers if each.observed else NOTHING
    member = each.wanted.by_key.get(key) if each.wanted and key else None
    place, why = Place.OUT, ""
    if key is not None and key in there:
        place, why = place_of(each, key, member)
    elif each.wanted and key in each.wanted.entry.real_servers:
        place = Place.PENDING
    if each.owner is Owner.FOREIGN:
        place, why = (place if key in there else Place.OUT), f"{each.name} is foreign, so lvsctl does not touch it"
    elif place in (Place.SERVING, Place.QUIESCED, Place.PENDING) and member is not None:
        why = f"instance {member.source.instance_id!r} on node {member.source.node!r} is there, too"
    usage = observed.usage.get(each.key, {}).get(key, NO_USAGE) if key else NO_USAGE
    state = each.leaving.get(key) if key else None
    return OrderedRealServer(
        virtual_server=each.name,
        real_server=str(key or ""),
        place=place,
        active=usage.active,
        inactive=usage.inactive,
        until=state.since + each.drain_timeout if isinstance(state, Draining) else None,
        paused=each.ordered.pause.words if each.ordered.pause and key in there else "",
        why=why,
    )

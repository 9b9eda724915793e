"""Operators' orders as a table, the same in `status` and where an order is given.

Pure, but for the time zone.
"""

from collections.abc import Sequence
from typing import Final

from lvsctl.cli.columns import clock, columns, count, span
from lvsctl.core.status import OrderStatus, Place

ENDED_BY: Final = {"drain": "undrained", "hold": "released", "pause": "resumed"}


def order_rows(orders: Sequence[OrderStatus], now: float, indent: str = "") -> list[str]:
    """Return `orders` as a table."""
    head = [f"{indent}ORDER", "TARGET", "UNTIL", "BY", "EFFECT", "REASON"]
    cells = [
        [
            f"{indent}{'fleet ' if each.fleet else ''}{each.order}",
            each.target,
            ENDED_BY[each.order] if each.until is None else f"{clock(each.until, now)} ({span(each.until - now)})",
            each.by,
            effect(each),
            each.reason,
        ]
        for each in orders
    ]
    return columns([head, *cells], whole=frozenset({1}))


def effect(order: OrderStatus) -> str:
    """Return what an order does now, in a few words."""
    if order.order == "pause":
        return f"{count(order.changes, 'change')} wait{'s' if order.changes == 1 else ''}"
    if order.order == "hold":
        return f"{len(order.real_servers)} kept"
    places = [each.place for each in order.real_servers]
    if not places:
        return "matches nothing"
    found = {
        "out": places.count(Place.OUT),
        "draining": places.count(Place.DRAINING),
        "kept": places.count(Place.HELD),
        "served by others": len([each for each in places if each not in (Place.OUT, Place.DRAINING, Place.HELD)]),
    }
    return ", ".join(f"{number} {word}" for word, number in found.items() if number)

"""Orders for the fleet before they are written: what one means, and what it would do on this director.

The command that asks writes it into Consul's KV itself, with the operator's own token: the daemon's need not be able
to. So nothing counts here that Consul has not said. As with this director's own orders, what one would do is what the
next cycle would decide with it, and one by which nothing would serve is refused unless it is forced; on another
director, where nobody asks, the last ones are held then.
"""

import time
from collections.abc import Callable

import attrs

from lvsctl.consul.order_keys import key_of, unwritable
from lvsctl.core.fleet import together
from lvsctl.core.order import Drain, Order, Orders, Pause, Wish
from lvsctl.core.status import FleetPlan
from lvsctl.errors import OrderRefused
from lvsctl.reconcile import Look
from lvsctl.text import visible
from lvsctl.wishes import (
    Preview,
    ended_of,
    given_of,
    is_foreign,
    left_of,
    look_under,
    meant,
    pause_of,
    reason_of,
    refuse_emptying,
    until_of,
)

CLOSED = (
    'the configuration in use opens no orders for the fleet; write [overrides] with kv_prefix = "lvsctl" and reload'
)
AHEAD = "that is what this director knows; --ahead, with --as for a name, orders it for those that have it"


class FleetDesk:
    """Who is asked what an order for the fleet means; `own` and `fleet` are the orders that count."""

    def __init__(self, preview: Preview, own: Callable[[], Orders], fleet: Callable[[], Orders]) -> None:
        self._preview = preview
        self._own = own
        self._fleet = fleet

    async def plan(self, wish: Wish, by: str, prefix: str | None) -> FleetPlan:
        """Return the order that `wish` comes to, for `by`, and what it would do here; raises OrderRefused."""
        where = _demand(prefix)
        now = time.time()
        look = await self._look(self._fleet())
        try:
            what = meant(wish, look)
        except OrderRefused as refused:
            if wish.order != "drain" or wish.ahead:
                raise
            raise OrderRefused(f"{refused}; {AHEAD}", unknown=True) from None
        order = Order(what=what, by=by, reason=reason_of(wish), written=now, until=until_of(wish, now), fleet=True)
        if why := unwritable(order, where):
            raise OrderRefused(f"no director could read this order: {visible(why)}", unknown=True)
        look = await self._look(self._fleet().having(order))
        given = given_of(order, Orders((order,)), look)
        if isinstance(what, Drain) and not wish.force:
            refuse_emptying(given)
        paused = look.decision.paused or (pause_of(look, given) if isinstance(what, Drain) else None)
        if paused and not isinstance(what, Pause):
            given = attrs.evolve(given, paused=paused.words)
        given = attrs.evolve(given, foreign=is_foreign(what, look))
        return FleetPlan(given=given, prefix=where, key=key_of(where, what))

    async def plan_end(self, wish: Wish, prefix: str | None) -> FleetPlan:
        """Return the order for the fleet that `wish` is to end, and what stays so here; raises OrderRefused."""
        where = _demand(prefix)
        now = time.time()
        look = await self._look(self._fleet())
        standing = self._fleet().standing(now)
        order = ended_of(wish, standing, self._own().standing(now), look)
        before = given_of(order, Orders((order,)), look)
        after = together(self._own(), standing.without(order.what))
        left = left_of(before, order.what, after, await look_under(after, self._preview), now)
        pause = look.decision.paused
        paused = pause.words if pause and pause.what != order.what else ""
        given = attrs.evolve(before, left=left, paused=paused)
        return FleetPlan(given=given, prefix=where, key=key_of(where, order.what))

    async def _look(self, fleet: Orders) -> Look:
        return await look_under(together(self._own(), fleet), self._preview)


def _demand(prefix: str | None) -> str:
    if prefix is None:
        raise OrderRefused(CLOSED)
    return prefix

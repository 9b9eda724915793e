"""The orders for the fleet on this director: which of them count, and what is told of them.

They come from Consul's KV (`sources`), and are told to the log and the journal as this director's own are (`orders`):
when one is given, changed, taken back, or over by this director's clock. How they travel and who wins: `core.fleet`.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet

import attrs
import structlog

from lvsctl.core.event import Event
from lvsctl.core.fleet import FleetOrders
from lvsctl.core.order import KINDS, NO_ORDERS, Drain, Order, Orders, What, next_end
from lvsctl.core.order_status import order_status
from lvsctl.core.words import moment
from lvsctl.wishes import LOST, is_lost

TAKEN_BACK = "taken back in Consul's KV"
OVER = "its time is over"

log = structlog.get_logger()


class Fleet:
    """The last known orders for the fleet, with those that ended lately, so that what follows from it has its cause."""

    def __init__(self, tell: Callable[[Event], None]) -> None:
        self._tell = tell
        self._heard = asyncio.Event()  # there are others than before
        self._looked = 0.0  # Unix seconds until which all ends are known
        self._over: frozenset[Order] = frozenset()  # those that are known to be, and told
        self._lost: frozenset[Order] = frozenset()  # pauses that do not count here any more
        self._at_start: tuple[AbstractSet[str], bool] | None = None  # what the kernel had lost, before Consul is heard
        self.orders: Orders = NO_ORDERS

    def recall(self, found: FleetOrders) -> None:
        """Have `found` count, which was known before the start; nothing of it is news."""
        now = time.time()
        self.orders = found.orders
        self._over = frozenset(each for each in found.orders.entries if not each.stands(now))

    def hear(self, found: FleetOrders) -> None:
        """Have `found` count, and tell what is other than before."""
        now = time.time()
        before: Mapping[What, Order] = {each.what: each for each in self.orders.entries if each.stands(now)}
        heard, self._at_start = self._without_lost(found.orders), None
        for each in heard.entries:
            if each.stands(now) and each != before.get(each.what):
                self._given(each)
            elif not each.stands(now) and each.what not in before:
                self._over |= {each}  # it came too late, or was told already
        whats = {each.what for each in heard.entries}
        gone = tuple(attrs.evolve(each, until=now, ended=True) for what, each in before.items() if what not in whats)
        for each in gone:
            self._told_over(each, TAKEN_BACK)
        lately = (each for each in self.orders.entries if each.ended and each.ended_lately(now))
        self._over |= frozenset(gone)
        self.orders = Orders((*lately, *gone, *heard.entries))
        self._heard.set()

    def end_lost(self, lost: AbstractSet[str], *, everything: bool) -> None:
        """Have the pauses of virtual servers that the kernel has `lost` while we were away, or of everything, end here.

        On the other directors they stand. The same of those that Consul tells first: they were given meanwhile.
        """
        self._at_start = lost, everything
        self.orders = self._without_lost(self.orders)

    def _without_lost(self, orders: Orders) -> Orders:
        """Return those of `orders` that were not over at the start, and tell of the others."""
        if self._at_start is not None:
            lost, everything = self._at_start
            over = {each for each in orders.entries if is_lost(each.what, lost, everything=everything)}
            for each in over - self._lost:
                self._told_over(each, LOST)
            self._lost |= over
        return Orders(tuple(each for each in orders.entries if each not in self._lost)) if self._lost else orders

    def counts(self) -> Mapping[str, int]:
        """Return how many orders stand, by kind."""
        return Counter(KINDS[type(each.what)] for each in self.orders.standing(time.time()).entries)

    async def run(self) -> None:
        """Tell which are over by the clock, until cancelled; what counts is decided by the clock in any case."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._until_next_end()):
                    await self._heard.wait()
            self._heard.clear()
            self._expire(time.time())

    def _until_next_end(self) -> float:
        """Return seconds until an order is over, at most a minute: the clock may be set."""
        end = next_end(self.orders, self._looked)
        return 60.0 if end is None else min(60.0, max(0.05, end - time.time()))

    def _expire(self, now: float) -> None:
        self._looked = now
        over = frozenset(each for each in self.orders.entries if not each.stands(now))
        for each in over - self._over:
            self._told_over(each, OVER)
        # What is over stays among them as long as its key does: another hearing of it is no news.
        kept = tuple(each for each in self.orders.entries if not each.ended or each.ended_lately(now))
        self._over = over & frozenset(kept)
        self.orders = Orders(kept) if len(kept) < len(self.orders.entries) else self.orders

    def _given(self, order: Order) -> None:
        about = order_status(order)
        until = "ended" if order.until is None else moment(order.until)
        said = {"order": about.order, "target": about.target, "by": order.by, "reason": order.reason}
        log.warning("order", **said, until=until, fleet=True)
        until = f" until {moment(order.until)}" if order.until is not None else ""
        self._note("order", order, what=f"{order.what} for the fleet{until}", by=order.by, why=order.reason)

    def _told_over(self, order: Order, why: str) -> None:
        about = order_status(order)
        log.warning("order_over", order=about.order, target=about.target, by=order.by, why=why, fleet=True)
        self._note("order_over", order, what=f"{order.what} for the fleet", by="", why=f"{why}; it was by {order.by}")

    def _note(self, event: str, order: Order, *, what: str, by: str, why: str) -> None:
        name = "" if isinstance(order.what, Drain) else order.what.virtual_server
        self._tell(Event(time=time.time(), event=event, name=name, what=what, by=by, why=why))

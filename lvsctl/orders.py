"""Operators' orders in the daemon: each is looked at before it counts, is on disk before it is answered, and ends.

What an order would do is what the next cycle would decide with it, so nothing is promised that a cycle does not keep.
One at a time: two operators who speak at once see each other's.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Final

import attrs
import structlog

from lvsctl.core.event import Event
from lvsctl.core.order import (
    KINDS,
    MAX_BY,
    MAX_ORDERS,
    MAX_WORDS,
    NO_ORDERS,
    Drain,
    Hold,
    Order,
    Orders,
    Pause,
    What,
    Wish,
    next_end,
)
from lvsctl.core.order_status import order_status, orders_status
from lvsctl.core.order_target import Unresolved, known_of, resolve, resolve_ordered
from lvsctl.core.ownership import Owner
from lvsctl.core.status import OrderGiven, OrderStatus, Place
from lvsctl.core.words import moment
from lvsctl.errors import OrderRefused, StateError
from lvsctl.order_file import OrderFile
from lvsctl.reconcile import Look
from lvsctl.text import listed, visible
from netlink.errors import NetlinkError

LONGEST: Final = 366 * 86400.0  # seconds
LONGEST_PAUSE: Final = 86400.0  # seconds; nobody is to find out next week that nothing was written
LOST: Final = "the kernel lost what was paused while lvsctl was away (a reboot?), and paused it would stay lost"
PAUSE: Final = 3600.0  # seconds, where nobody says how long

Tell = Callable[[Event], None]
"""Who else is told what happened: the journal."""

Preview = Callable[[Orders], Awaitable[Look]]
"""What a cycle under these orders would do."""

log = structlog.get_logger()


class OrderDesk:
    """The orders of this director, on disk and in memory."""

    def __init__(self, directory: Path, preview: Preview, changed: Callable[[], None], tell: Tell) -> None:
        self._file = OrderFile(directory)
        self._preview = preview
        self._changed = changed
        self._tell = tell
        self._turn = asyncio.Lock()
        self._given = asyncio.Event()  # there are others than before
        self._unread = False  # the file is there and cannot be read: it is not to be replaced
        self._error = ""
        self._looked = 0.0  # Unix seconds until which all ends are known
        self._over_told: frozenset[Order] = frozenset()  # of those that are over and still known
        self.orders: Orders = NO_ORDERS

    async def recall(self, *, writes: bool) -> None:
        """Have the orders count that are on disk; where they cannot be read, `error` says so. Raises nothing."""
        try:
            found = await asyncio.to_thread(self._file.load, set_aside_damage=writes)
        except StateError as error:
            self._unread = not self._file.left_aside()
            self._fail(str(error))
            return
        self._error, self._unread = "", False
        if found != self.orders:
            self.orders = found
            self._given.set()
            self._changed()

    def _fail(self, error: str) -> None:
        if error != self._error:
            self._error = error
            log.error("orders_failed", error=error, follows="no order counts that was on disk")
            self._tell(Event(time=time.time(), event="orders_failed", error=error))

    @property
    def error(self) -> str:
        """Return why orders do not count, or are not on disk; empty where all is well."""
        return self._error if self._unread else self._file.left_aside() or self._error

    def status(self, look: Look) -> tuple[OrderStatus, ...]:
        """Return how the orders stand, by a look that knew them."""
        return orders_status(self.orders, look.decision, look.observed, time.time())

    def counts(self) -> Mapping[str, int]:
        """Return how many orders stand, by kind."""
        return Counter(KINDS[type(each.what)] for each in self.orders.standing(time.time()).entries)

    async def give(self, wish: Wish, by: str) -> OrderGiven:
        """Have an order stand, for `by`, and return what it does; raises OrderRefused."""
        async with self._turn:
            await self._read_again()
            now = time.time()
            look = await self._look(self.orders)
            what = self._meant(wish, look)
            order = Order(
                what=what,
                by=by[:MAX_BY],
                reason=_reason(wish),
                written=now,
                until=_until(wish, now),
            )
            standing = self.orders.standing(now)
            before = standing.of(what)
            after = self.orders.known(now).having(order)
            if len(after.standing(now).entries) > MAX_ORDERS:
                raise OrderRefused(f"there are {MAX_ORDERS} orders, and no more are kept; end some")
            look = await self._look(after)
            given = _given(order, after, look)
            if isinstance(what, Drain) and not wish.force:
                _refuse_emptying(given)
            await self._save(after)
            said = {"order": KINDS[type(what)], "target": given.order.target, "by": by, "reason": order.reason}
            until = "ended" if order.until is None else moment(order.until)
            log.warning("order", **said, until=until)
            self._note("order", order, by=by, why=order.reason)
            paused = look.decision.paused or (_pause_of(look, given) if isinstance(what, Drain) else None)
            return attrs.evolve(
                given,
                replaced=order_status(before) if before else None,
                paused=paused.words if paused and not isinstance(what, Pause) else "",
                foreign=_is_foreign(what, look),
            )

    async def end(self, wish: Wish, by: str) -> OrderGiven:
        """End an order, for `by`, and return what there was; raises OrderRefused."""
        async with self._turn:
            await self._read_again()
            now = time.time()
            standing = self.orders.standing(now)
            look = await self._look(self.orders)
            what = self._ended(wish, standing, look)
            order = standing.of(what)
            if order is None:
                raise OrderRefused(_no_such(what, standing), unknown=True)
            before = _given(order, standing, look)
            after = standing.without(what)
            left = _left(before, orders_status(after, (await self._look(after)).decision, look.observed, now))
            await self._end(order, now, by)
            return attrs.evolve(before, left=left, paused=look.decision.paused.words if look.decision.paused else "")

    async def end_lost(self, lost: AbstractSet[str], *, everything: bool) -> None:
        """End the pauses of virtual servers that the kernel has `lost` while we were away, or of everything."""
        async with self._turn:
            standing = self.orders.standing(time.time())
            over = [each for each in standing.entries if _is_lost(each.what, lost, everything=everything)]
            if not over:
                return
            kept = Orders(tuple(each for each in standing.entries if each not in over))
            with contextlib.suppress(OrderRefused):  # until the next start, then
                await self._save(kept)
            self.orders = kept
            for each in over:
                self._over(each, by="", why=LOST)

    async def demand_kept(self) -> None:
        """Raise OrderRefused where orders cannot be written now, before anything is done that ends one."""
        async with self._turn:
            await self._read_again()
            await self._save(self.orders)

    async def end_hold(self, name: str, by: str) -> bool:
        """End the hold of virtual server `name`, for `by`, and return whether there was one; raises OrderRefused."""
        async with self._turn:
            order = self.orders.of(Hold(name))
            if order is None:
                return False
            await self._end(order, time.time(), by)
            return True

    async def _end(self, order: Order, now: float, by: str) -> None:
        """End `order` now; it is known for a while, so that it can be told why what follows happens."""
        ended = attrs.evolve(order, until=now, ended=True)
        await self._save(self.orders.known(now).having(ended))
        self._over_told |= {ended}
        self._over(order, by=by, why=f"ended by {by}")

    async def run(self) -> None:
        """End what is over by the clock, until cancelled; what counts is decided by the clock in any case."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._until_next_end()):
                    await self._given.wait()
            self._given.clear()
            async with self._turn:
                await self._expire(time.time())

    def _until_next_end(self) -> float:
        """Return seconds until an order is over, at most a minute: the clock may be set."""
        now = time.time()
        end = next_end(self.orders, self._looked)
        return 60.0 if end is None else min(60.0, max(0.05, end - now))

    async def _expire(self, now: float) -> None:
        self._looked = now
        over = frozenset(each for each in self.orders.entries if not each.stands(now))
        if not over or self._unread:
            return
        kept = self.orders.known(now)
        told, self._over_told = self._over_told, over & frozenset(kept.entries)
        for each in over - told:
            self._over(each, by="", why="its time is over")
        if over - told or kept != self.orders:
            with contextlib.suppress(OrderRefused):  # on disk they are over as well, by the same clock
                await self._save(kept)
            self.orders = kept

    def _over(self, order: Order, *, by: str, why: str) -> None:
        about = order_status(order)
        log.warning("order_over", order=about.order, target=about.target, by=order.by, why=why)
        self._note("order_over", order, by=by, why="" if by else why)

    def _note(self, event: str, order: Order, *, by: str, why: str) -> None:
        name = "" if isinstance(order.what, Drain) else order.what.virtual_server
        until = f" until {moment(order.until)}" if order.until is not None and event == "order" else ""
        self._tell(Event(time=time.time(), event=event, name=name, what=f"{order.what}{until}", by=by, why=why))

    def _meant(self, wish: Wish, look: Look) -> What:
        names = look.config.virtual_servers.keys()
        if wish.order == "drain":
            try:
                return Drain(resolve(wish.target, known_of(look.decision, names), kind=wish.kind, ahead=wish.ahead))
            except Unresolved as unresolved:
                raise OrderRefused(str(unresolved), unknown=True) from None
        there = names | {each.name for each in look.decision.virtual_servers.values()}
        if wish.target not in there and (wish.target or wish.order == "hold"):
            raise OrderRefused(
                f"no virtual server '{visible(wish.target)}'; there are: {listed(there, wish.target)}", unknown=True
            )
        return Hold(wish.target) if wish.order == "hold" else Pause(wish.target)

    @staticmethod
    def _ended(wish: Wish, standing: Orders, look: Look) -> What:
        if wish.order == "hold":
            return Hold(wish.target)
        if wish.order == "pause":
            return Pause(wish.target)
        known = known_of(look.decision, look.config.virtual_servers)
        try:
            return Drain(resolve_ordered(wish.target, known, standing.entries, kind=wish.kind))
        except Unresolved as unresolved:
            raise OrderRefused(str(unresolved), unknown=True) from None

    async def _look(self, orders: Orders) -> Look:
        """Return what a cycle under `orders` would do; raises OrderRefused where nothing can be seen now."""
        try:
            return await self._preview(orders)
        except (NetlinkError, StateError) as error:
            raise OrderRefused(f"{error}; nothing was changed") from error

    async def _read_again(self) -> None:
        """Read the file where it could not be read before; raises OrderRefused while that is so."""
        if self._unread:
            await self.recall(writes=True)
        if self._unread:
            raise OrderRefused(f"{self._error}; nothing was changed")

    async def _save(self, orders: Orders) -> None:
        try:
            await asyncio.to_thread(self._file.save, orders.standing(time.time()))
        except StateError as error:
            raise OrderRefused(f"{error}; nothing was changed") from error
        self._error, self.orders = "", orders
        self._given.set()
        self._changed()


def _is_lost(what: What, lost: AbstractSet[str], *, everything: bool) -> bool:
    return isinstance(what, Pause) and (what.virtual_server in lost if what.virtual_server else everything)


def _reason(wish: Wish) -> str:
    if len(wish.reason) > MAX_WORDS:
        raise OrderRefused(f"a reason has {MAX_WORDS} characters at most", unknown=True)
    return wish.reason


def _until(wish: Wish, now: float) -> float | None:
    """Return when the order ends; a pause always does. Raises OrderRefused for a length of time that is none."""
    longest = LONGEST_PAUSE if wish.order == "pause" else LONGEST
    seconds = PAUSE if wish.seconds is None and wish.order == "pause" else wish.seconds
    if seconds is None:
        return None
    if not 1 <= seconds <= longest:
        raise OrderRefused(f"a {wish.order} lasts for 1 s to {longest / 3600:g} h", unknown=True)
    return now + seconds


def _given(order: Order, orders: Orders, look: Look) -> OrderGiven:
    found = orders_status(orders, look.decision, look.observed, order.written)
    its = order_status(order)
    return OrderGiven(order=next(each for each in found if (each.order, each.target) == (its.order, its.target)))


def _refuse_emptying(given: OrderGiven) -> None:
    held = [each for each in given.order.real_servers if each.place is Place.HELD]
    if held:
        where = ", ".join(f"{visible(each.virtual_server)} ({each.real_server})" for each in held[:10])
        more = f" and {len(held) - 10} more" if len(held) > 10 else ""
        raise OrderRefused(f"nothing else would serve: {where}{more}", empties=True)


def _pause_of(look: Look, given: OrderGiven) -> Order | None:
    names = {each.virtual_server for each in given.order.real_servers}
    pauses = [each.ordered.pause for each in look.decision.virtual_servers.values() if each.name in names]
    return next((pause for pause in pauses if pause), None)


def _is_foreign(what: What, look: Look) -> bool:
    """Tell whether `what` is to be held or paused is somebody else's, and nothing of that name is ours."""
    if isinstance(what, Drain) or not what.virtual_server:
        return False
    owners = [each.owner for each in look.decision.virtual_servers.values() if each.name == what.virtual_server]
    return bool(owners) and set(owners) == {Owner.FOREIGN}


def _left(before: OrderGiven, after: Sequence[OrderStatus]) -> tuple[str, ...]:
    """Return the targets of the drains by which something that was out by this order is still out."""
    its = {(each.virtual_server, each.real_server, each.instance) for each in before.order.real_servers}
    return tuple(
        each.target
        for each in after
        if each.order == "drain"
        and any((row.virtual_server, row.real_server, row.instance) in its for row in each.real_servers)
    )


def _no_such(what: What, standing: Orders) -> str:
    same = [each for each in standing.entries if type(each.what) is type(what)]
    there = ", ".join(visible(order_status(each).target) for each in same) or "nothing"
    done = {"hold": "held by an order", "pause": "paused"}.get(KINDS[type(what)], "drained")
    return f"{visible(str(what).rpartition(' of ')[2])} is not {done}; {done}: {there}"

"""What an operator's wish comes to: the order that is meant, what it would do, or which one it ends.

The same for the orders of this director (`orders`) and for those of the fleet (`fleet_desk`).
"""

from collections.abc import Awaitable, Callable
from collections.abc import Set as AbstractSet
from typing import Final

from lvsctl.core.fleet import ended_by
from lvsctl.core.order import (
    FOR_THE_FLEET,
    KINDS,
    LONGEST_PAUSE,
    MAX_WORDS,
    Drain,
    Hold,
    Order,
    Orders,
    Pause,
    What,
    Wish,
)
from lvsctl.core.order_status import order_status, orders_status
from lvsctl.core.order_target import Unresolved, known_of, resolve, resolve_ordered
from lvsctl.core.ownership import Owner
from lvsctl.core.status import OrderGiven, Place
from lvsctl.errors import OrderRefused, StateError
from lvsctl.reconcile import Look
from lvsctl.text import listed, visible
from netlink.errors import NetlinkError

LONGEST: Final = 366 * 86400.0  # seconds
LOST: Final = "the kernel lost what was paused while lvsctl was away (a reboot?), and paused it would stay lost"
PAUSE: Final = 3600.0  # seconds, where nobody says how long

Preview = Callable[[Orders], Awaitable[Look]]
"""What a cycle under these orders would do."""


def meant(wish: Wish, look: Look) -> What:
    """Return what is to be ordered by `wish`; raises OrderRefused where that is nothing, or not one thing."""
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


async def look_under(orders: Orders, preview: Preview) -> Look:
    """Return what a cycle under `orders` would do; raises OrderRefused where nothing can be seen now."""
    try:
        return await preview(orders)
    except (NetlinkError, StateError) as error:
        raise OrderRefused(f"{error}; nothing was changed") from error


def ended_of(wish: Wish, standing: Orders, others: Orders, look: Look) -> Order:
    """Return which order of `standing` is to be ended by `wish`; raises OrderRefused, which says if `others` have it.

    Those are the fleet's where it is about this director's own, and the other way round.
    """
    try:
        what = _ended(wish, standing, look)
    except OrderRefused as refused:
        raise OrderRefused(f"{refused}{_elsewhere(wish, others, look)}", unknown=True) from None
    order = standing.of(what)
    if order is None:
        raise OrderRefused(_no_such(what, standing) + _elsewhere(wish, others, look), unknown=True)
    return order


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


def _elsewhere(wish: Wish, others: Orders, look: Look) -> str:
    """Return that one of `others` is what `wish` is to end, and what would, in words; empty where none is."""
    try:
        order = others.of(_ended(wish, others, look))
    except OrderRefused:
        return ""
    return f"; but it is {visible(order.words)}: {visible(ended_by(order))} ends that" if order else ""


def reason_of(wish: Wish) -> str:
    """Return why it is ordered; raises OrderRefused where that is too long to keep."""
    if len(wish.reason) > MAX_WORDS:
        raise OrderRefused(f"a reason has {MAX_WORDS} characters at most", unknown=True)
    return wish.reason


def until_of(wish: Wish, now: float) -> float | None:
    """Return when the order ends; a pause always does. Raises OrderRefused for a length of time that is none."""
    longest = LONGEST_PAUSE if wish.order == "pause" else LONGEST
    seconds = PAUSE if wish.seconds is None and wish.order == "pause" else wish.seconds
    if seconds is None:
        return None
    if not 1 <= seconds <= longest:
        raise OrderRefused(f"a {wish.order} lasts for 1 s to {longest / 3600:g} h", unknown=True)
    return now + seconds


def given_of(order: Order, orders: Orders, look: Look) -> OrderGiven:
    """Return what `order`, which is one of `orders`, does by a look under them."""
    found = orders_status(orders, look.decision, look.observed, order.written)
    its = order_status(order)
    return OrderGiven(order=next(each for each in found if (each.order, each.target) == (its.order, its.target)))


def refuse_emptying(given: OrderGiven) -> None:
    """Raise OrderRefused where the last ones would have to be held."""
    held = [each for each in given.order.real_servers if each.place is Place.HELD]
    if held:
        where = ", ".join(f"{visible(each.virtual_server)} ({each.real_server})" for each in held[:10])
        more = f" and {len(held) - 10} more" if len(held) > 10 else ""
        raise OrderRefused(f"nothing else would serve: {where}{more}", empties=True)


def pause_of(look: Look, given: OrderGiven) -> Order | None:
    """Return by whose pause a drain does nothing yet; None where there is none."""
    names = {each.virtual_server for each in given.order.real_servers}
    pauses = [each.ordered.pause for each in look.decision.virtual_servers.values() if each.name in names]
    return next((pause for pause in pauses if pause), None)


def is_foreign(what: What, look: Look) -> bool:
    """Tell whether `what` is to be held or paused is somebody else's, and nothing of that name is ours."""
    if isinstance(what, Drain) or not what.virtual_server:
        return False
    owners = [each.owner for each in look.decision.virtual_servers.values() if each.name == what.virtual_server]
    return bool(owners) and set(owners) == {Owner.FOREIGN}


def is_lost(what: What, lost: AbstractSet[str], *, everything: bool) -> bool:
    """Tell whether `what` is a pause of a virtual server that is `lost`, or of everything where that is."""
    return isinstance(what, Pause) and (what.virtual_server in lost if what.virtual_server else everything)


def left_of(before: OrderGiven, what: What, after: Orders, look: Look, now: float) -> tuple[str, ...]:
    """Return by which orders of `after` something of what was ordered stays so; `before` is the one that was ended.

    Those of the other side, this director's own or the fleet's, have the command that ends them.
    """
    its = {(each.virtual_server, each.real_server, each.instance) for each in before.order.real_servers}
    standing = after.standing(now)
    found = []
    for order, each in zip(standing.entries, orders_status(standing, look.decision, look.observed, now), strict=True):
        rows = {(row.virtual_server, row.real_server, row.instance) for row in each.real_servers}
        if order.what == what or (isinstance(what, Drain) and isinstance(order.what, Drain) and its & rows):
            whose = FOR_THE_FLEET if order.fleet else " by this director's own order"
            other = order.fleet != before.order.fleet
            found.append(f"{each.target}{whose} ({ended_by(order)})" if other else each.target)
    return tuple(found)


def _no_such(what: What, standing: Orders) -> str:
    same = [each for each in standing.entries if type(each.what) is type(what)]
    there = ", ".join(visible(order_status(each).target) for each in same) or "nothing"
    done = {"hold": "held by an order", "pause": "paused"}.get(KINDS[type(what)], "drained")
    return f"{visible(str(what).rpartition(' of ')[2])} is not {done}; {done}: {there}"

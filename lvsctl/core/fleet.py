"""Orders for the fleet: the same orders, given to every director by way of Consul's KV.

How one travels: `lvsctl drain app1 --fleet` asks this director's daemon what the order means and would do here, and
writes it, with the operator's own token, under a key of its own (`consul.order_keys`). Every director with the same
kv_prefix watches those keys and decides with what it finds there as with its own orders: `together` is all there is to
it.

- Where Consul does not answer, the last known ones stand, over a restart too: they are on disk (`key_file`).
- What a director has of its own and what the fleet has add up: any drain drains, any hold holds, any pause pauses.
  Nobody ends on one side what stands on the other; who tries is told which it is, and what ends it (`ended_by`).
- An order ends by each director's own clock.
- A key that a director cannot use, such as one of an order that its version does not know, is ignored there alone, with
  the reason; one about what a director does not have does nothing there.

Pure.
"""

from typing import Final

import attrs

from lvsctl.core.order import Drain, Hold, Order, Orders, Pause
from lvsctl.core.order_target import as_typed
from lvsctl.core.override import Ignored
from lvsctl.core.status import FleetStatus


@attrs.frozen(kw_only=True)
class FleetOrder:
    """One order as it stands in Consul's KV. Its texts are from there and unescaped."""

    order: Order  # of the fleet
    created: int = 0  # Consul's CreateIndex
    modified: int = 0  # Consul's ModifyIndex, for who changes it


@attrs.frozen(kw_only=True)
class FleetOrders:
    """All of them, from the oldest key to the youngest, and what is among the keys without being one."""

    entries: tuple[FleetOrder, ...] = ()
    ignored: tuple[Ignored, ...] = ()

    @property
    def orders(self) -> Orders:
        """Return the orders themselves."""
        return Orders(tuple(each.order for each in self.entries))


NO_FLEET_ORDERS: Final = FleetOrders()


def fleet_status(orders: FleetOrders, *, prefix: str, data_age: float | None, error: str) -> FleetStatus:
    """Return how it stands with the keys of `orders`, which were last heard `data_age` seconds ago."""
    ignored = {each.key: each.why for each in orders.ignored}
    return FleetStatus(kv_prefix=prefix, data_age=data_age, error=error, ignored=ignored)


def together(own: Orders, fleet: Orders) -> Orders:
    """Return the orders that count on a director with `own` ones: all of both.

    About the same thing both may have one, and both are shown. What it does is the same, and is said to be the fleet's,
    which takes more to end.
    """
    return Orders((*own.entries, *fleet.entries)) if fleet.entries else own


def own_of(orders: Orders) -> Orders:
    """Return those of `orders` that are this director's own."""
    return Orders(tuple(each for each in orders.entries if not each.fleet))


def ended_by(order: Order) -> str:
    """Return the command that ends an order: `lvsctl undrain app1 --as node --fleet`."""
    match order.what:
        case Drain(target=target):
            command = f"lvsctl undrain {as_typed(target)}"
        case Hold(virtual_server=name):
            command = f"lvsctl release {name}"
        case Pause(virtual_server=name):
            command = f"lvsctl resume {name}".rstrip()
    return f"{command} --fleet" if order.fleet else command

"""The orders for the fleet in Consul's KV: read and written once, and watched; all of it as `key_watch` says."""

from typing import Final

import attrs

from lvsctl.consul.client import Client
from lvsctl.consul.folder import Events, Folder
from lvsctl.consul.key_watch import delete_key, read_folder, write_key
from lvsctl.consul.order_keys import MAX_KEYS, decode_orders, encode_orders, folder_of, key_of
from lvsctl.core.fleet import NO_FLEET_ORDERS, FleetOrders


def _keys(orders: FleetOrders, prefix: str) -> frozenset[str]:
    return frozenset(key_of(prefix, each.order.what) for each in orders.entries)


def _joined(found: FleetOrders, before: FleetOrders, _prefix: str) -> FleetOrders:
    there = {each.order.what for each in found.entries}
    gone = [each for each in before.entries if each.order.what not in there]
    return attrs.evolve(found, entries=tuple(sorted((*found.entries, *gone), key=lambda each: each.created)))


FLEET_ORDERS: Final = Folder(
    words="fleet orders",
    events=Events(
        ignored="fleet_order_ignored",
        doubted="fleet_orders_doubted",
        failed="fleet_orders_failed",
        back="fleet_orders_back",
        file_ignored="fleet_orders_file_ignored",
        file_failed="fleet_orders_file_failed",
    ),
    nothing=NO_FLEET_ORDERS,
    most=MAX_KEYS,
    path=folder_of,
    decode=decode_orders,
    encode=encode_orders,
    keys=_keys,
    ignored=lambda orders: orders.ignored,
    index=lambda orders: max((each.modified for each in orders.entries), default=0),
    joined=_joined,
)


async def read(client: Client, prefix: str) -> FleetOrders:
    """Return all fleet orders.

    Raises ConsulRefused when the token may not read them, ConsulError when there is no complete answer.
    """
    return (await read_folder(FLEET_ORDERS, client, prefix, NO_FLEET_ORDERS)).value


async def write(client: Client, prefix: str, key: str, value: str, *, modified: int) -> bool:
    """Write the order at `key` where that is still as it was at ModifyIndex `modified`, 0: not there; return whether.

    Raises ConsulRefused when the token may not write it.
    """
    return await write_key(FLEET_ORDERS, client, prefix, key, value, modified=modified)


async def clear(client: Client, prefix: str, key: str, *, modified: int) -> bool:
    """Delete the order at `key` where that is still as it was at ModifyIndex `modified`; return whether."""
    return await delete_key(FLEET_ORDERS, client, prefix, key, modified=modified)

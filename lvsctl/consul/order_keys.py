"""Fleet orders as keys of Consul's KV, both ways: one key for each thing that is ordered, its value JSON.

Pure. Below `PREFIX/orders/` there are `drain/address/10.0.0.1`, `drain/address/10.0.0.1:80`, `drain/node/NODE`,
`drain/instance/NODE/ID`, `hold/VIRTUAL_SERVER`, `pause/VIRTUAL_SERVER` and, for everything, `pause`. Their value is
`{"by": …, "reason": …, "until": …, "written": …}`, of which nothing has to be there but for a pause, which has to end.
A key that cannot be used is ignored alone, with the reason (`kv_values`), and so is one of a later version's order.
"""

import json
import re
from typing import Any, Final, assert_never

from lvsctl.config import NAME_PATTERN
from lvsctl.consul.budget import Body
from lvsctl.consul.kv_values import (
    Unusable,
    document_in,
    each_of,
    in_order,
    index_in,
    listed,
    plain_of,
    text_of,
    time_in,
    words_in,
)
from lvsctl.core.fleet import FleetOrder, FleetOrders
from lvsctl.core.order import (
    LONGEST_PAUSE,
    MAX_BY,
    MAX_ORDERS,
    MAX_TARGET,
    MAX_WORDS,
    AtAddress,
    AtPort,
    Drain,
    Hold,
    OneInstance,
    OnNode,
    Order,
    Pause,
    Target,
    What,
)
from lvsctl.core.order_target import spelled
from lvsctl.core.override import Ignored

MAX_KEYS: Final = 2 * MAX_ORDERS
ROUNDED: Final = 0.5  # seconds; a sum of times that was written is not exact
MAX_KEY: Final = 4096  # characters of a key; the longest names of a node and an instance fit, spelled with !XX

_NAME: Final = re.compile(NAME_PATTERN)
_SAYS: Final = frozenset({"by", "reason", "until", "written"})


def folder_of(prefix: str) -> str:
    """Return what the keys of all fleet orders begin with, and the prefix that an ACL policy has to name."""
    return f"{prefix}/orders/"


def key_of(prefix: str, what: What) -> str:
    """Return the key of the order about `what`."""
    match what:
        case Drain(target=target):
            path = f"drain/{_path_of(target)}"
        case Hold(virtual_server=name):
            path = f"hold/{name}"
        case Pause(virtual_server=name):
            path = f"pause/{name}" if name else "pause"
        case _:
            assert_never(what)
    return folder_of(prefix) + path


def _path_of(target: Target) -> str:
    match target:
        case AtAddress() | AtPort():
            return f"address/{plain_of(str(target))}"
        case OnNode(node=node):
            return f"node/{plain_of(node)}"
        case OneInstance(node=node, instance=instance):
            return f"instance/{plain_of(node)}/{plain_of(instance)}"
        case _:
            assert_never(target)


def value_of(order: Order) -> str:
    """Return the value of the key of `order`."""
    return value(by=order.by, reason=order.reason, until=order.until, written=order.written)


def value(*, by: str, reason: str, until: float | None, written: float) -> str:
    """Return the value of a key with these; `written` is 0 where nobody knows."""
    return json.dumps({"by": by, "reason": reason, "until": until, "written": written or None})


def encode_orders(orders: FleetOrders, prefix: str) -> bytes:
    """Return the orders as Consul would list them; what is ignored is left out."""
    return json.dumps([
        listed(key_of(prefix, each.order.what), value_of(each.order), created=each.created, modified=each.modified)
        for each in orders.entries
    ]).encode()  # fmt: skip


def unwritable(order: Order, prefix: str) -> str:
    """Return why no director would obey `order` if it was written, in words; empty when all would."""
    read = decode_orders(encode_orders(FleetOrders(entries=(FleetOrder(order=order),)), prefix), prefix)
    if [each.order for each in read.entries] == [order]:
        return ""
    return read.ignored[0].why if read.ignored else "it would be read as another one"


def decode_orders(body: Body, prefix: str) -> FleetOrders:
    """Return the orders in `body`, Consul's JSON list of the keys below `folder_of(prefix)`.

    More than MAX_ORDERS of them do not count: the youngest keys are ignored. Raises ConsulError when the body as a
    whole is no such list, or has more than MAX_KEYS entries.
    """
    found, ignored = each_of(
        body, folder_of(prefix), lambda entry, rest: _order(entry, rest, prefix), most=MAX_KEYS, longest=MAX_KEY
    )
    by_what: dict[What, FleetOrder] = {}
    for each in sorted(found, key=lambda each: (each.created, key_of(prefix, each.order.what))):
        key = key_of(prefix, each.order.what)
        if each.order.what in by_what:
            ignored.append(Ignored(key=key, why="it is there twice", modified=each.modified))
        elif len(by_what) == MAX_ORDERS:
            full = f"there are {MAX_ORDERS} older orders, and no more count"
            ignored.append(Ignored(key=key, why=full, modified=each.modified))
        else:
            by_what[each.order.what] = each
    return FleetOrders(entries=tuple(by_what.values()), ignored=in_order(ignored))


def _order(entry: dict[str, Any], rest: str, prefix: str) -> FleetOrder:
    what = _what(rest.split("/"))
    if key_of(prefix, what) != folder_of(prefix) + rest:
        raise Unusable("its name is not spelled as lvsctl spells it")
    document = document_in(entry, _SAYS)
    until, written = time_in(document, "until"), time_in(document, "written") or 0.0
    if isinstance(what, Pause) and (until is None or until - written > LONGEST_PAUSE + ROUNDED):
        raise Unusable(f"a pause has to end (until) {LONGEST_PAUSE / 3600:g} h after it was written, or before")
    order = Order(
        what=what,
        by=words_in(document, "by", MAX_BY) or "somebody",
        reason=words_in(document, "reason", MAX_WORDS),
        written=written,
        until=until,
        fleet=True,
    )
    return FleetOrder(order=order, created=index_in(entry, "CreateIndex"), modified=index_in(entry, "ModifyIndex"))


def _what(path: list[str]) -> What:
    match path:
        case ["drain", "address", plain]:
            target = spelled(text_of(plain, "address", MAX_TARGET))
            if target is None:
                raise Unusable("its address is none; 10.0.0.1, 10.0.0.1:80, fd00::1 and !5Bfd00::1!5D:80 are")
            return Drain(target)
        case ["drain", "node", plain]:
            return Drain(OnNode(text_of(plain, "node", MAX_TARGET)))
        case ["drain", "instance", node, instance]:
            return Drain(OneInstance(text_of(node, "node", MAX_TARGET), text_of(instance, "instance", MAX_TARGET)))
        case ["drain", *_]:
            raise Unusable("its name is not PREFIX/orders/drain/ with address/ADDRESS, node/NODE or instance/NODE/ID")
        case ["hold", name] if _NAME.fullmatch(name):
            return Hold(name)
        case ["pause", name] if _NAME.fullmatch(name):
            return Pause(name)
        case ["pause"]:
            return Pause()
        case ["hold" | "pause" as kind, *_]:
            raise Unusable(f"its name is not PREFIX/orders/{kind}/VIRTUAL_SERVER")
        case _:
            raise Unusable(f"this version of lvsctl knows no order {path[0]!r:.60}")

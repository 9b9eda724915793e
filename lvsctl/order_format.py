"""Operators' orders as bytes: what the file that keeps them has, both ways.

Pure. `order_file` reads and writes it. The first line names the format and has the checksum of the rest, which is JSON.
Nothing of a file counts that is not whole: half of the orders would be orders that nobody gave.
"""

import hashlib
import json
import math
from ipaddress import ip_address
from typing import Any, Final, assert_never

from lvsctl.core.order import (
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
    Orders,
    Pause,
    Target,
    What,
)

MAGIC: Final = b"lvsctl-orders 1"
MAX_SIZE: Final = 16 << 20  # bytes; MAX_ORDERS of the longest have fewer
LATEST: Final = 253_402_300_800.0  # Unix seconds of the year 10000, which no clock shows


class UnreadableOrdersError(ValueError):
    """The bytes are no orders as lvsctl writes them; the text says why."""


def encode_orders(orders: Orders) -> bytes:
    """Return the file that has `orders`."""
    body = json.dumps([_encode(each) for each in orders.entries], separators=(",", ":")).encode("ascii")
    return _head(body) + b"\n" + body + b"\n"


def decode_orders(content: bytes) -> Orders:
    """Return the orders in a file; raises UnreadableOrdersError."""
    head, _, rest = content.partition(b"\n")
    body = rest.removesuffix(b"\n")
    if not head.startswith(MAGIC.partition(b" ")[0]):
        raise UnreadableOrdersError("it is no file of orders")
    if not head.startswith(MAGIC + b" "):
        raise UnreadableOrdersError("another version of lvsctl wrote it")
    if head != _head(body) or rest != body + b"\n":
        raise UnreadableOrdersError("it is damaged: its checksum is wrong")
    try:
        entries = tuple(_decode(each) for each in _list(json.loads(body)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UnreadableOrdersError(f"it says what no lvsctl of this version writes ({error})") from error
    if len(entries) > MAX_ORDERS or len({each.what for each in entries}) < len(entries):
        raise UnreadableOrdersError("it has too many orders, or two about the same")
    return Orders(entries)


def _head(body: bytes) -> bytes:
    return MAGIC + b" " + hashlib.sha256(body).hexdigest().encode("ascii")


def _encode(order: Order) -> dict[str, Any]:
    shown: dict[str, Any] = _encode_what(order.what)
    shown |= {"by": order.by, "reason": order.reason, "written": order.written, "until": order.until}
    return shown


def _encode_what(what: What) -> dict[str, Any]:
    match what:
        case Drain(target=target):
            return {"order": "drain"} | _encode_target(target)
        case Hold(virtual_server=name):
            return {"order": "hold", "virtual_server": name}
        case Pause(virtual_server=name):
            return {"order": "pause", "virtual_server": name}
        case _:
            assert_never(what)


def _encode_target(target: Target) -> dict[str, Any]:
    match target:
        case AtAddress(address=address):
            return {"address": str(address)}
        case AtPort(address=address, port=port):
            return {"address": str(address), "port": port}
        case OnNode(node=node):
            return {"node": node}
        case OneInstance(node=node, instance=instance):
            return {"node": node, "instance": instance}
        case _:
            assert_never(target)


def _decode(read: Any) -> Order:
    until = read["until"]
    return Order(
        what=_decode_what(read),
        by=_text(read["by"], MAX_BY),
        reason=_text(read["reason"], MAX_WORDS),
        written=_time(read["written"]),
        until=None if until is None else _time(until),
    )


def _decode_what(read: Any) -> What:
    words = {"by", "reason", "written", "until", "order"}
    keys = read.keys() - words
    match read["order"]:
        case "drain":
            return Drain(_decode_target(read, keys))
        case "hold" if keys == {"virtual_server"}:
            return Hold(_text(read["virtual_server"], MAX_TARGET))
        case "pause" if keys == {"virtual_server"}:
            return Pause(_text(read["virtual_server"], MAX_TARGET))
        case other:
            raise ValueError(f"order {other!r:.40}")


def _decode_target(read: Any, keys: Any) -> Target:
    match sorted(keys):
        case ["address"]:
            return AtAddress(ip_address(_text(read["address"], MAX_TARGET)))
        case ["address", "port"]:
            port = read["port"]
            if type(port) is not int or not 0 <= port <= 65535:
                raise ValueError(f"port {port!r:.40}")
            return AtPort(ip_address(_text(read["address"], MAX_TARGET)), port)
        case ["node"]:
            return OnNode(_text(read["node"], MAX_TARGET))
        case ["instance", "node"]:
            return OneInstance(_text(read["node"], MAX_TARGET), _text(read["instance"], MAX_TARGET))
        case other:
            raise ValueError(f"a drain of {other!r:.80}")


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("no list")
    return value


def _text(value: Any, longest: int) -> str:
    if not isinstance(value, str) or len(value) > longest:
        raise ValueError(f"text {value!r:.40}")
    return value


def _time(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"time {value!r:.40}")
    if not 0 <= value < LATEST:
        raise ValueError(f"time {value!r:.40}")
    return float(value)

"""An answer of `/v1/health/service/:service` as instances.

Pure. Nothing in an answer is trusted. An entry that cannot be read is left out alone, with a reason; a body that is
not a list of entries is no answer at all. Source: Consul HTTP API, Health; Consul's `structs.CheckServiceNode`.
"""

import json
from typing import Any, Final

from lvsctl.core.instance import MAINTENANCE_CHECKS, Answer, Check, Health, Instance, Malformed
from lvsctl.errors import ConsulError

MAX_TEXT: Final = 4096  # characters kept of a check's output; scripts print pages
HEALTH: Final = {"passing": Health.PASSING, "warning": Health.WARNING, "critical": Health.CRITICAL}


class _Unreadable(Exception):
    """One entry is not what the API describes; the text says where."""


def decode_answer(body: bytes, *, index: int) -> Answer:
    """Return the instances in `body`, a JSON list, read at X-Consul-Index `index`.

    Raises ConsulError when the body as a whole is not a complete answer.
    """
    try:
        entries = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ConsulError(f"answer is not JSON ({type(error).__name__})") from error
    if not isinstance(entries, list):
        raise ConsulError(f"answer is a JSON {type(entries).__name__}, expected a list")
    decoded = [_decode(entry) for entry in entries]
    return Answer(
        instances=tuple(entry for entry in decoded if isinstance(entry, Instance)),
        malformed=tuple(entry for entry in decoded if isinstance(entry, Malformed)),
        index=index,
    )


def _decode(entry: Any) -> Instance | Malformed:
    try:
        return _instance(entry)
    except _Unreadable as error:
        return Malformed(
            node=_name(entry, "Node", "Node"), instance_id=_name(entry, "Service", "ID"), reason=str(error)
        )


def _instance(entry: Any) -> Instance:
    node, service = _of(dict, entry, "Node"), _of(dict, entry, "Service")
    weights = _of(dict, service, "Weights", default={"Passing": 1, "Warning": 1})
    instance_id = _of(str, service, "ID")
    return Instance(
        node=_of(str, node, "Node"),
        instance_id=instance_id,
        address=_of(str, service, "Address", default="") or _of(str, node, "Address"),
        port=_number(service, "Port", 65535, default=0),
        weight=_number(weights, "Passing", 65535),
        warning_weight=_number(weights, "Warning", 65535),
        tags=_texts(_of(list, service, "Tags", default=[]), "Tags"),
        meta=_pairs(_of(dict, service, "Meta", default={})),
        checks=tuple(_check(check) for check in _of(list, entry, "Checks", default=[])),
    )


def _check(check: Any) -> Check:
    check_id, status = _of(str, check, "CheckID"), _of(str, check, "Status")
    maintenance = check_id.split(":", 1)[0] in MAINTENANCE_CHECKS and status == "critical"
    output = _of(str, check, "Notes" if maintenance else "Output", default="")
    return Check(
        check_id=check_id,
        name=_of(str, check, "Name", default=""),
        health=Health.MAINTENANCE if maintenance else HEALTH.get(status, Health.CRITICAL),
        output=output.strip()[:MAX_TEXT],
    )


def _of(kind: type, entry: Any, key: str, *, default: Any = None) -> Any:
    """Return `entry[key]`, an instance of `kind`; `default` where it is absent or null and there is one."""
    if not isinstance(entry, dict):
        raise _Unreadable(f"a JSON {type(entry).__name__} where an object with {key!r} was expected")
    value = entry.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, kind):
        raise _Unreadable(f"{key} is {_shown(value)}, expected a {kind.__name__}")
    return value


def _number(entry: dict[str, Any], key: str, largest: int, *, default: int | None = None) -> int:
    value = _of(int, entry, key, default=default)
    if isinstance(value, bool) or not 0 <= value <= largest:
        raise _Unreadable(f"{key} is {_shown(value)}, expected 0 to {largest}")
    return int(value)


def _texts(values: list[Any], key: str) -> tuple[str, ...]:
    if not all(isinstance(value, str) for value in values):
        raise _Unreadable(f"{key} has an entry that is not a string")
    return tuple(values)


def _pairs(values: dict[str, Any]) -> dict[str, str]:
    if not all(isinstance(value, str) for value in values.values()):
        raise _Unreadable("Meta has a value that is not a string")
    return values


def _shown(value: Any) -> str:
    return "absent" if value is None else repr(value)[:40]


def _name(entry: Any, outer: str, key: str) -> str:
    """Return a name for messages, as much of one as there is."""
    inner = entry.get(outer) if isinstance(entry, dict) else None
    name = inner.get(key) if isinstance(inner, dict) else None
    return name if isinstance(name, str) else ""

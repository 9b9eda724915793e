"""An answer of `/v1/health/service/:service` as instances.

Pure. Nothing in an answer is trusted. An entry that cannot be read is left out alone, with a reason that names the
field; a body that is not a list of entries is no answer at all, and neither is one with more of them than allowed: it
would not be complete. Nor is one of which all entries are another Consul service's: a proxy mixed up two answers.
Bounds are far from what Consul sends. Control characters are no fault: they are made visible where text is shown.
Source: Consul HTTP API, Health; Consul's `structs.CheckServiceNode`.
"""

import re
import sys
from collections.abc import Collection, Mapping
from sys import intern  # the same few names are in every answer: each is kept once
from typing import Any, Final, NoReturn

from lvsctl.consul.budget import Body
from lvsctl.consul.entries import Unread, entries_beside
from lvsctl.consul.pieces import Piece, Pieces
from lvsctl.core.instance import MAINTENANCE_CHECKS, Answer, Check, Health, Instance, Malformed, Query
from lvsctl.errors import ConsulError, ConsulUnreadable

MAX_INSTANCES: Final = 10_000  # where no configuration says otherwise
MAX_SIZE: Final = 32 << 20  # bytes of memory that the instances of an answer take; 10,000 take 10 to 20 MB
MAX_TEXT: Final = 512  # characters kept of what only people read, a check's output; scripts print pages
MAX_NAME: Final = 1024  # characters of what identifies: node, instance, check, address
MAX_LABEL: Final = 4096  # characters of a tag, of a key or value of Meta
MAX_LIST: Final = 1024  # tags, keys of Meta, or checks, of one instance
PLAIN: Final = 400  # bytes of memory that an instance takes without what it has several of
CHECK: Final = 80  # of a check without its strings
PLACE: Final = 40  # of a string's places in tuples and dicts
NO_META: Final[Mapping[str, str]] = {}
HEALTH: Final = {"passing": Health.PASSING, "warning": Health.WARNING, "critical": Health.CRITICAL}

_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")  # half of a character, which cannot be written anywhere


class _Unreadable(Exception):
    """One entry is not what the API describes; the text says where."""


def decode_answer(
    body: Body,
    *,
    index: int,
    max_instances: int = MAX_INSTANCES,
    query: Query | None = None,
    pieces: Pieces | None = None,
) -> Answer:
    """Return the instances in `body`, a JSON list, read at X-Consul-Index `index`; `query` is what was asked.

    Of what `pieces` has of the last answer to that, nothing is read again. Raises ConsulError when the body as a whole
    is not a complete answer, or has more than `max_instances` entries.
    """
    pieces = pieces or Pieces()
    pieces.begin()
    decoded: Instance | Malformed
    instances: dict[tuple[str, str], Instance] = {}
    malformed: list[Malformed] = []
    strange = size = 0
    try:
        for number, (entry, start, end) in enumerate(entries_beside(body, pieces), 1):
            if number > max_instances:
                raise ConsulUnreadable(
                    f"answer lists more than the {max_instances} instances of safety.max_instances; "
                    "the last complete one stays"
                )
            piece = entry if isinstance(entry, Piece) else None
            other = _other(entry, query) if query and not piece else ""
            strange += bool(other)
            if piece is not None:
                decoded = piece.instance
            else:
                decoded = _malformed(entry, other) if other else _decode(entry, number)
            if isinstance(decoded, Instance) and decoded.identity in instances:
                decoded = _twice(decoded)
            if isinstance(decoded, Instance):
                instances[decoded.identity] = decoded
                piece = piece or pieces.read(bytes(body[start:end]), decoded, _size(decoded))
                pieces.add(piece)
                size += piece.size
            else:
                malformed.append(decoded)
                size += PLAIN + _weight((decoded.node, decoded.instance_id, decoded.reason))
            if size > MAX_SIZE:
                raise ConsulUnreadable(
                    f"answer would take more than {MAX_SIZE >> 20} MiB of memory, with long lists of tags and Meta; "
                    "the last complete one stays"
                )
    except (ValueError, RecursionError) as error:
        raise ConsulError(f"answer is not a JSON list: {error}") from error
    if strange and strange == len(malformed) and not instances:
        raise ConsulError(f"answer is none to this question: {malformed[0].reason}; is there a proxy in between?")
    pieces.end()
    return Answer(instances=tuple(instances.values()), malformed=tuple(malformed), index=index, size=size)


def _size(instance: Instance) -> int:
    """Return about how many bytes of memory an instance takes, each of its strings as if no other had it, too."""
    texts = [instance.node, instance.instance_id, instance.address, *instance.tags, *instance.meta]
    texts += instance.meta.values()
    texts += [text for check in instance.checks for text in (check.check_id, check.name, check.output)]
    return PLAIN + CHECK * len(instance.checks) + _weight(texts)


def _weight(texts: Collection[str]) -> int:
    return sum(map(sys.getsizeof, texts)) + PLACE * len(texts)  # a character may take four bytes


def _other(entry: Any, query: Query) -> str:
    """Return whose an entry is that is not of what `query` asks, in words; to Consul `Reco` and `reco` are the same."""
    service, datacenter = _name(entry, "Service", "Service"), _name(entry, "Node", "Datacenter")
    if service and service.lower() != query.service.lower():
        return f"it is of Consul service {_shown(service)}"
    if datacenter and query.datacenter and datacenter.lower() != query.datacenter.lower():
        return f"it is of datacenter {_shown(datacenter)}"
    return ""


def _decode(entry: Any, number: int) -> Instance | Malformed:
    if isinstance(entry, Unread):
        return Malformed(node="", instance_id="", reason=f"entry {number} of the answer {entry.reason}")
    try:
        return _instance(entry)
    except _Unreadable as error:
        return _malformed(entry, str(error))


def _twice(instance: Instance) -> Malformed:
    node, instance_id = _readable(instance.node), _readable(instance.instance_id)
    return Malformed(node=node, instance_id=instance_id, reason="Node and ID are those of an entry before it")


def _malformed(entry: Any, reason: str) -> Malformed:
    return Malformed(node=_name(entry, "Node", "Node"), instance_id=_name(entry, "Service", "ID"), reason=reason)


def _instance(entry: Any) -> Instance:
    node, service = _of(dict, entry, "Node"), _of(dict, entry, "Service")
    weights = _of(dict, service, "Weights", default={"Passing": 1, "Warning": 1})
    return Instance(
        node=intern(_identifying(node, "Node")),
        instance_id=_identifying(service, "ID"),
        address=intern(_text(service, "Address", default="") or _text(node, "Address")),
        port=_port(service),
        weight=_number(weights, "Passing", 65535),
        warning_weight=_number(weights, "Warning", 65535),
        tags=tuple(intern(_label(tag, "Tags")) for tag in _list(service, "Tags")),
        meta=_meta(_of(dict, service, "Meta", default={})),
        checks=tuple(_check(check) for check in _list(entry, "Checks")),
    )


def _port(service: dict[str, Any]) -> int:
    """Return the port; of one that has several, by name (from Consul 1.22 on), the one that is its default.

    Consul 1.22.7 writes that one as Port, too.
    """
    port = _number(service, "Port", 65535, default=0)
    if port or not isinstance(several := service.get("Ports"), list):
        return port
    defaults = [each for each in several[:MAX_LIST] if isinstance(each, dict) and each.get("Default") is True]
    return _number(defaults[0], "Port", 65535) if len(defaults) == 1 else 0


def _check(check: Any) -> Check:
    check_id, status = _text(check, "CheckID", default=""), _of(str, check, "Status", default="critical")
    maintenance = check_id.split(":", 1)[0] in MAINTENANCE_CHECKS and status == "critical"
    said = _of(str, check, "Notes" if maintenance else "Output", default="")
    return Check(
        check_id=check_id,
        name=intern(_readable(_of(str, check, "Name", default=""))),
        health=Health.MAINTENANCE if maintenance else HEALTH.get(status, Health.CRITICAL),
        output="" if status == "passing" else _readable(said),  # nobody asks why it passes
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


def _text(entry: Any, key: str, *, default: str | None = None) -> str:
    return _bounded(_of(str, entry, key, default=default), key, MAX_NAME)


def _identifying(entry: Any, key: str) -> str:
    return _text(entry, key) or _refuse(f"{key} is empty")


def _list(entry: Any, key: str) -> list[Any]:
    values: list[Any] = _of(list, entry, key, default=[])
    return (
        values if len(values) <= MAX_LIST else _refuse(f"{key} has {len(values)} entries, expected {MAX_LIST} at most")
    )


def _label(value: Any, key: str) -> str:
    if not isinstance(value, str):
        _refuse(f"{key} has an entry that is not a string")
    return _bounded(value, f"an entry of {key}", MAX_LABEL)


def _meta(values: dict[str, Any]) -> Mapping[str, str]:
    if len(values) > MAX_LIST:
        _refuse(f"Meta has {len(values)} entries, expected {MAX_LIST} at most")
    return {intern(_label(key, "Meta")): intern(_label(value, "Meta")) for key, value in values.items()} or NO_META


def _bounded(text: str, what: str, longest: int) -> str:
    if len(text) > longest:
        _refuse(f"{what} has {len(text)} characters, expected {longest} at most")
    if not text.isascii() and _SURROGATE.search(text):
        _refuse(f"{what} has half of a surrogate pair")
    return text


def _refuse(reason: str) -> NoReturn:
    raise _Unreadable(reason)


def _readable(text: str) -> str:
    """Return as much of a text that only people read as is kept."""
    kept = text.strip()[:MAX_TEXT]
    return kept if kept.isascii() else _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", kept)


def _shown(value: Any) -> str:
    """Return a value in a few words: neither a large nor a deep one is written out."""
    match value:
        case None:
            return "absent"
        case str():
            return repr(value[:40])
        case list() | dict() if value:
            return f"a {type(value).__name__} of {len(value)}"
        case _:
            return repr(value)[:40]


def _name(entry: Any, outer: str, key: str) -> str:
    """Return a name for messages, as much of one as there is."""
    inner = entry.get(outer) if isinstance(entry, dict) else None
    name = inner.get(key) if isinstance(inner, dict) else None
    return _readable(name)[:MAX_NAME] if isinstance(name, str) else ""

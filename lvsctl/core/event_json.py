"""Events as lines of JSON, and back: ASCII alone, so that whoever looks at the file with `cat` is safe, too.

Pure. Each line ends with a checksum of what is before it, so that of a file that was cut or changed the lines that are
whole are read, and no others. What a later lvsctl may add to a line is no damage.
"""

import json
import re
import zlib
from typing import Any, Final

import attrs

from lvsctl.core.event import Event, Evidence

LONGEST: Final = 1000  # characters of one text; the output of a check has 512 at most
LATEST: Final = 253_402_300_800.0  # Unix seconds of the year 10000, which no clock shows
LARGEST: Final = 1 << 64
CONSUL: Final = "consul"  # the key of the evidence

_NAME: Final = re.compile(r"[a-z][a-z_]{0,63}", re.ASCII)
_TAIL: Final = re.compile(rb',"crc":"([0-9a-f]{8})"\}\Z')
_TAIL_SIZE: Final = len(',"crc":"01234567"}')
_SEPARATORS: Final = (",", ":")

_EVENT: Final = {field.name: field.type for field in attrs.fields(Event) if field.name not in ("time", "evidence")}
_EVIDENCE: Final = {field.name: field.type for field in attrs.fields(Evidence)}


def encode(event: Event) -> bytes:
    """Return `event` as a line, with its newline. A text that is too long is cut."""
    body = json.dumps(as_json(event), separators=_SEPARATORS).encode("ascii")
    return b'%b,"crc":"%08x"}\n' % (body[:-1], zlib.crc32(body))


def as_json(event: Event) -> dict[str, Any]:
    """Return `event` as what json.dumps takes, without what is empty."""
    found = {"time": event.time} | _filled(event, _EVENT)
    return found | ({CONSUL: _filled(event.evidence, _EVIDENCE)} if event.evidence else {})


def decode(line: bytes) -> Event | None:
    """Return the event that `line`, without a newline, stands for; None for what no lvsctl wrote so."""
    tail = _TAIL.search(line[-_TAIL_SIZE:])
    body = line[:-_TAIL_SIZE] + b"}"
    if tail is None or zlib.crc32(body) != int(tail[1], 16):
        return None
    try:
        read = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(read, dict):
        return None
    time, event = read.get("time"), _texts(read, _EVENT)
    evidence = _texts(read[CONSUL], _EVIDENCE) if CONSUL in read else {}
    if not isinstance(time, int | float) or isinstance(time, bool) or not 0 <= time < LATEST:  # nor is it not a number
        return None
    if event is None or evidence is None or not _NAME.fullmatch(event.get("event", "")):
        return None
    return Event(time=time, evidence=Evidence(**{"service": "", **evidence}) if CONSUL in read else None, **event)


def _filled(value: attrs.AttrsInstance, fields: dict[str, Any]) -> dict[str, Any]:
    found = {name: getattr(value, name) for name in fields}
    return {name: _cut(each) for name, each in found.items() if each}


def _cut(value: str | int) -> str | int:
    return value[: LONGEST - 1] + "…" if isinstance(value, str) and len(value) > LONGEST else value


def _texts(read: object, fields: dict[str, Any]) -> dict[str, Any] | None:
    """Return what `read` has of `fields`; None where it, or one of them, is of another type."""
    if not isinstance(read, dict):
        return None
    found = {name: read[name] for name in fields if name in read}
    for name, value in found.items():
        if type(value) is not fields[name] or (isinstance(value, int) and not 0 <= value < LARGEST):
            return None
    return found

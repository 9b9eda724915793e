"""Virtual servers, real servers and requests as bytes, and back, by the rows of `layout`.

Pure: `framing` knows netlink itself, `ipvs` does the talking. What the kernel would take silently as garbage
(ip_vs_ctl.c checks little) is refused here with ValueError. Bytes that do not fit raise Malformed and nothing else.
Values that only another tool can have put into the table, such as an unknown flag, decode to something that equals
nothing this package would write; they never make the rest unreadable. Source: include/uapi/linux/ip_vs.h.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Final

import attrs

from netlink import framing, wire
from netlink.errors import Malformed
from netlink.layout import DESTINATION, SERVICE, Row, Value, key_problem, real_server_problem, virtual_server_problem
from netlink.requests import (
    AddRealServer,
    AddVirtualServer,
    DeleteRealServer,
    DeleteVirtualServer,
    Request,
    SetRealServer,
    SetVirtualServer,
)
from netlink.types import (
    Info,
    RealServer,
    RealServerKey,
    RealServerUsage,
    Traffic,
    VirtualServer,
    VirtualServerKey,
)
from netlink.wire import Raw

FAMILY_NAME: Final = "IPVS"
VERSION: Final = 1

NEW_SERVICE, SET_SERVICE, DEL_SERVICE, GET_SERVICE = 1, 2, 3, 4
NEW_DEST, SET_DEST, DEL_DEST, GET_DEST = 5, 6, 7, 8
GET_INFO: Final = 15

_CMD_SERVICE, _CMD_DEST = 1, 2  # IPVS_CMD_ATTR_*: what is nested in a message


def _admissible(kind: str, who: object, row: Row[Value], plain: wire.Plain) -> wire.Plain:
    """Return `plain`, or raise ValueError that names object and field."""
    if isinstance(plain, int) and row.high is not None and not 0 <= plain <= row.high:
        problem: str | None = f"is not in 0..{row.high}"
    else:
        problem = row.form.problem(plain)
    if problem is not None:
        raise ValueError(f"{kind} {who}: {row.name} {plain!r} {problem}")
    return plain


def _encode(kind: str, rows: tuple[Row[Value], ...], value: Value, *, identity_only: bool) -> bytes:
    return b"".join(
        row.form.attribute(row.number, _admissible(kind, value.key, row, plain))
        for row in rows
        if (row.identity or not identity_only) and (plain := row.take(value)) is not None
    )


def _decode(kind: str, rows: tuple[Row[Value], ...], found: Mapping[int, bytes]) -> dict[str, object]:
    plain = {row.name: row.form.unpack(kind, row.name, found[row.number]) for row in rows if row.number in found}
    raw = Raw(kind, plain)
    fields: dict[str, object] = {}
    for row in rows:
        if row.fills is not None:
            fields.update(row.fills(raw))
    return fields


def _differences(rows: tuple[Row[Value], ...], one: Value, other: Value) -> tuple[str, ...]:
    return tuple(row.name for row in rows if row.take(one) != row.take(other))


def differences(one: Value, other: Value) -> tuple[str, ...]:
    """Return the names of the attributes in which two objects of one kind differ for the kernel; () when equal.

    Two spellings of one thing (a prefix of None and of 32) do not differ.
    """
    if isinstance(one, VirtualServer):
        return _differences(SERVICE, one, other)
    return _differences(DESTINATION, one, other)


def _service(virtual_server: VirtualServer) -> bytes:
    problem = virtual_server_problem(virtual_server)
    if problem is not None:
        raise ValueError(f"virtual server {virtual_server.key}: {problem}")
    body = _encode("virtual server", SERVICE, virtual_server, identity_only=False)
    return framing.attribute(_CMD_SERVICE, body, nested=True)


def encode_key(key: VirtualServerKey) -> bytes:
    """Return the attribute that names a virtual server in a request."""
    problem = key_problem(key)
    if problem is not None:
        raise ValueError(f"virtual server {key}: {problem}")
    body = _encode("virtual server", SERVICE, VirtualServer(key=key), identity_only=True)
    return framing.attribute(_CMD_SERVICE, body, nested=True)


def _destination(real_server: RealServer) -> bytes:
    problem = real_server_problem(real_server)
    if problem is not None:
        raise ValueError(f"real server {real_server.key}: {problem}")
    body = _encode("real server", DESTINATION, real_server, identity_only=False)
    return framing.attribute(_CMD_DEST, body, nested=True)


def _destination_key(key: RealServerKey) -> bytes:
    body = _encode("real server", DESTINATION, RealServer(key=key), identity_only=True)
    return framing.attribute(_CMD_DEST, body, nested=True)


def encode_request(request: Request) -> tuple[int, bytes]:
    """Return the command and the attributes that ask for `request`; ValueError where no kernel should get it."""
    match request:
        case AddVirtualServer(virtual_server=virtual_server):
            return NEW_SERVICE, _service(virtual_server)
        case SetVirtualServer(virtual_server=virtual_server):
            return SET_SERVICE, _service(virtual_server)
        case DeleteVirtualServer(key=virtual_server_key):
            return DEL_SERVICE, encode_key(virtual_server_key)
        case AddRealServer(virtual_server=parent, real_server=real_server):
            return NEW_DEST, encode_key(parent) + _destination(real_server)
        case SetRealServer(virtual_server=parent, real_server=real_server):
            return SET_DEST, encode_key(parent) + _destination(real_server)
        case DeleteRealServer(virtual_server=parent, key=real_server_key):
            return DEL_DEST, encode_key(parent) + _destination_key(real_server_key)


# ---- answers

# Callables of any arguments, for the rows decide which fields there are.
_virtual_server: Final[Callable[..., VirtualServer]] = VirtualServer
_real_server: Final[Callable[..., RealServer]] = RealServer

_SERVICE_STATS, _SERVICE_STATS64 = 10, 12
_DEST_STATS, _DEST_STATS64 = 10, 12
_ACTIVE, _INACTIVE, _PERSISTENT_TEMPLATES = 7, 8, 9


def _counter(kind: str, name: str, payload: bytes | None) -> int:
    """Return a counter of 4 or 8 bytes, whichever the kernel sent; 0 when it sent none."""
    if payload is None:
        return 0
    if len(payload) not in (4, 8):
        raise Malformed("read", kind, f"its {name} has {len(payload)} bytes")
    return int.from_bytes(payload, sys.byteorder)


def _traffic(kind: str, nested: bytes | None) -> Traffic:
    found = {} if nested is None else framing.attributes(nested)
    names = (field.name for field in attrs.fields(Traffic))  # in the order of IPVS_STATS_ATTR_*, from 1
    return Traffic(**{name: _counter(kind, name, found.get(number)) for number, name in enumerate(names, 1)})


def decode_virtual_server(message: framing.Message) -> tuple[VirtualServer, Traffic]:
    """Return the virtual server, with its counters, of one message of a GET_SERVICE dump."""
    nested = framing.generic_attributes(message).get(_CMD_SERVICE)
    if nested is None:
        raise Malformed("read", "virtual server", "the message has none")
    found = framing.attributes(nested)
    fields = _decode("virtual server", SERVICE, found)
    traffic = _traffic("virtual server", found.get(_SERVICE_STATS64, found.get(_SERVICE_STATS)))
    return _virtual_server(**fields), traffic


def decode_real_server(message: framing.Message) -> tuple[RealServer, RealServerUsage]:
    """Return the real server, with what it carries, of one message of a GET_DEST dump."""
    nested = framing.generic_attributes(message).get(_CMD_DEST)
    if nested is None:
        raise Malformed("read", "real server", "the message has none")
    found = framing.attributes(nested)
    usage = RealServerUsage(
        active=_counter("real server", "active connections", found.get(_ACTIVE)),
        inactive=_counter("real server", "inactive connections", found.get(_INACTIVE)),
        persistent=_counter("real server", "persistence templates", found.get(_PERSISTENT_TEMPLATES)),
        traffic=_traffic("real server", found.get(_DEST_STATS64, found.get(_DEST_STATS))),
    )
    return _real_server(**_decode("real server", DESTINATION, found)), usage


def decode_info(message: framing.Message) -> Info:
    """Return what GET_INFO answers: IPVS_INFO_ATTR_VERSION and IPVS_INFO_ATTR_CONN_TAB_SIZE."""
    found = framing.generic_attributes(message)
    version, size = (wire.U32.unpack("IPVS information", f"attribute {n}", found.get(n, b"")) for n in (1, 2))
    if not isinstance(version, int) or not isinstance(size, int):
        raise Malformed("read", "IPVS information", "version or size is no number")
    return Info(version=(version >> 16 & 0xFF, version >> 8 & 0xFF, version & 0xFF), connection_table_size=size)


def as_read_back(virtual_server: VirtualServer) -> VirtualServer:
    """Return `virtual_server` as a dump would give it after it was written: one spelling of each thing."""
    sent = framing.Message(0, 0, 0, bytes(4) + _service(virtual_server))
    return decode_virtual_server(sent)[0]


# ---- finding the family (include/uapi/linux/genetlink.h)

CONTROL_FAMILY: Final = 0x10  # GENL_ID_CTRL
GET_FAMILY: Final = 3  # CTRL_CMD_GETFAMILY
_FAMILY_ID, _FAMILY_NAME = 1, 2


def encode_family_name() -> bytes:
    """Return the attribute that asks the controller for the family IPVS."""
    return wire.NAME.attribute(_FAMILY_NAME, FAMILY_NAME)


def decode_family(message: framing.Message) -> int:
    """Return the number that the kernel gave to the family IPVS."""
    payload = framing.generic_attributes(message).get(_FAMILY_ID, b"")
    number = wire.U16.unpack("generic netlink family", "number", payload)
    if not isinstance(number, int):
        raise Malformed("read", "generic netlink family", "its number is no number")
    return number

"""Requests and answers of IPVS's generic netlink interface as bytes, by the rows of `layout`.

Pure: `framing` knows netlink itself, `ipvs` does the talking. What the kernel would take silently as garbage
(ip_vs_ctl.c checks little) is refused here with ValueError. Bytes that do not fit raise Malformed and nothing else.
Values that only another tool can have put into the table, such as an unknown flag, decode to something that equals
nothing this package would write; they never make the rest unreadable. Source: include/uapi/linux/ip_vs.h.
"""

from collections.abc import Sequence
from typing import Any, Final, assert_never

from netlink import framing, wire
from netlink.bulk import Counters, Decoder
from netlink.compiler import REFUSED, Pack, packer, problem_of
from netlink.errors import Malformed
from netlink.layout import DAEMON, DESTINATION, INFORMATION, SERVICE, TIMEOUTS, Layout, key_problem
from netlink.requests import (
    AddRealServer,
    AddVirtualServer,
    DeleteRealServer,
    DeleteVirtualServer,
    Flush,
    OtherRequest,
    Request,
    SetRealServer,
    SetTimeouts,
    SetVirtualServer,
    StartSyncDaemon,
    StopSyncDaemon,
    ZeroCounters,
)
from netlink.types import (
    Info,
    RealServer,
    RealServerKey,
    RealServerUsage,
    SyncDaemon,
    Timeouts,
    Traffic,
    VirtualServer,
    VirtualServerKey,
)

FAMILY_NAME: Final = "IPVS"
VERSION: Final = 1

NEW_SERVICE, SET_SERVICE, DEL_SERVICE, GET_SERVICE = 1, 2, 3, 4
NEW_DEST, SET_DEST, DEL_DEST, GET_DEST = 5, 6, 7, 8
NEW_DAEMON, DEL_DAEMON, GET_DAEMON = 9, 10, 11
SET_CONFIG, GET_CONFIG, GET_INFO, ZERO, FLUSH = 12, 13, 15, 16, 17

_CMD_SERVICE, _CMD_DEST, _CMD_DAEMON = 1, 2, 3  # IPVS_CMD_ATTR_*: what is nested in a message

# ---- requests

_pack_address_key: Final = packer(
    SERVICE.named("family", "protocol", "address", "port"), of_key=True, nested=_CMD_SERVICE
)
_pack_mark_key: Final = packer(SERVICE.named("family", "mark"), of_key=True, nested=_CMD_SERVICE)
_pack_service: Final = packer(SERVICE.configuration)
_pack_destination_key: Final = packer(DESTINATION.identity, of_key=True, nested=_CMD_DEST)
_pack_destination: Final = packer(DESTINATION.rows, nested=_CMD_DEST)
_pack_daemon: Final = packer(DAEMON.rows)
_pack_role: Final = packer(DAEMON.named("role"), nested=_CMD_DAEMON)
_pack_timeouts: Final = packer(TIMEOUTS.rows)


def _packed(layout: Layout, pack: Pack, value: Any, who: object) -> bytes:
    """Return attributes of `value`, or raise ValueError that names object and field."""
    problem = layout.problem(value)
    if problem is None:
        try:
            return pack(value)
        except REFUSED as error:
            problem = problem_of(layout, value) or str(error)
    raise ValueError(f"{layout.kind} {who}: {problem}")


def encode_key(key: VirtualServerKey) -> bytes:
    """Return the attribute that names a virtual server in a request."""
    problem = key_problem(key)
    if problem is None:
        try:
            return _pack_mark_key(key) if key.mark else _pack_address_key(key)
        except REFUSED as error:
            problem = problem_of(SERVICE, VirtualServer(key=key)) or str(error)
    raise ValueError(f"virtual server {key}: {problem}")


class Encoder:
    """Turns requests into a command and attributes. It keeps the key that it packed last.

    Requests mostly come by virtual server, whose key is in each of them.
    """

    def __init__(self) -> None:
        self._key: VirtualServerKey | None = None
        self._packed_key = b""

    def encode(self, request: Request) -> tuple[int, bytes]:
        """Return command and attributes of `request`; ValueError where no kernel should get it."""
        if isinstance(request, AddRealServer):  # by far the most are these two
            return NEW_DEST, self._parent(request.virtual_server) + _destination(request.real_server)
        if isinstance(request, SetRealServer):
            return SET_DEST, self._parent(request.virtual_server) + _destination(request.real_server)
        match request:
            case AddVirtualServer(virtual_server=virtual_server):
                return NEW_SERVICE, self._service(virtual_server)
            case SetVirtualServer(virtual_server=virtual_server):
                return SET_SERVICE, self._service(virtual_server)
            case DeleteVirtualServer(key=key):
                return DEL_SERVICE, self._parent(key)
            case DeleteRealServer(virtual_server=parent, key=server):
                return DEL_DEST, self._parent(parent) + _destination_key(server)
            case _:
                return _encode_other(request)

    def _parent(self, key: VirtualServerKey) -> bytes:
        if key is not self._key:
            self._packed_key = encode_key(key)
            self._key = key
        return self._packed_key

    def _service(self, virtual_server: VirtualServer) -> bytes:
        key = self._parent(virtual_server.key)[framing.ATTRIBUTE_HEADER :]
        configuration = _packed(SERVICE, _pack_service, virtual_server, virtual_server.key)
        return framing.attribute(_CMD_SERVICE, key + configuration, nested=True)


def _destination(real_server: RealServer) -> bytes:
    if not real_server.tunnel_type:  # the rows see all that can be wrong but for a tunnel
        try:
            return _pack_destination(real_server)
        except REFUSED:
            pass
    return _packed(DESTINATION, _pack_destination, real_server, real_server.key)


def _destination_key(key: RealServerKey) -> bytes:
    return _packed(DESTINATION, lambda real_server: _pack_destination_key(real_server.key), RealServer(key=key), key)


def _encode_other(request: OtherRequest) -> tuple[int, bytes]:
    match request:
        case ZeroCounters(key=key):
            return ZERO, b"" if key is None else encode_key(key)
        case SetTimeouts(timeouts=timeouts):
            return SET_CONFIG, _packed(TIMEOUTS, _pack_timeouts, timeouts, request.target)
        case StartSyncDaemon(daemon=daemon):
            body = _packed(DAEMON, _pack_daemon, daemon, request.target)
            return NEW_DAEMON, framing.attribute(_CMD_DAEMON, body, nested=True)
        case StopSyncDaemon(role=role):
            named = SyncDaemon(role=role, interface="lo")  # its role is all that is sent
            return DEL_DAEMON, _packed(DAEMON, _pack_role, named, request.target)
        case Flush():
            return FLUSH, b""
        case _:
            assert_never(request)


def encode_request(request: Request) -> tuple[int, bytes]:
    """Return command and attributes of `request`; ValueError where no kernel should get it."""
    return Encoder().encode(request)


def encode_batch(requests: Sequence[Request], family: int, first: int) -> bytes:
    """Return `requests` as messages numbered from `first` on, of which the last asks for an acknowledgement.

    `family` is the number that the kernel gave to IPVS. ValueError where no kernel should get one of them.
    """
    encode = Encoder().encode
    packed_head = framing.Head(family, VERSION).packed
    parts: list[bytes] = []
    command, body, sequence = 0, b"", first
    for sequence, request in enumerate(requests, first):
        command, body = encode(request)
        parts.append(packed_head(command, sequence, len(body)))
        parts.append(body)
    if parts:
        parts[-2] = packed_head(command, sequence, len(body), acknowledge=True)
    return b"".join(parts)


# ---- answers


def service_decoder() -> Decoder:
    """Return a decoder of the messages of a GET_SERVICE dump; one for each reader, for it learns as it reads."""
    return Decoder(SERVICE, _CMD_SERVICE)


def destination_decoder() -> Decoder:
    """Return a decoder of the messages of a GET_DEST dump."""
    return Decoder(DESTINATION, _CMD_DEST)


def daemon_decoder() -> Decoder:
    """Return a decoder of the messages of a GET_DAEMON dump."""
    return Decoder(DAEMON, _CMD_DAEMON)


_new: Final = tuple.__new__  # what _make of a named tuple calls, after counting again what a decoder has counted


def traffic(counters: Counters) -> Traffic:
    """Return the counters of a virtual server."""
    return _new(Traffic, counters)


def usage(counters: Counters) -> RealServerUsage:
    """Return the counters of a real server."""
    return _new(RealServerUsage, counters)


_information: Final = Decoder(INFORMATION, 0)
_timeouts: Final = Decoder(TIMEOUTS, 0)


def decode_info(message: framing.Message) -> Info:
    """Return what GET_INFO answers."""
    info: Info = _information.build(framing.generic_attributes(message))
    return info


def decode_timeouts(message: framing.Message) -> Timeouts:
    """Return what GET_CONFIG answers."""
    timeouts: Timeouts = _timeouts.build(framing.generic_attributes(message))
    return timeouts


def differences(one: VirtualServer | RealServer, other: VirtualServer | RealServer) -> tuple[str, ...]:
    """Return the names of the attributes in which two objects of one kind differ for the kernel; () when equal."""
    rows = (SERVICE if isinstance(one, VirtualServer) else DESTINATION).rows
    return tuple(row.name for row in rows if row.value_of(one) != row.value_of(other))


def as_read_back(virtual_server: VirtualServer) -> VirtualServer:
    """Return `virtual_server` as a dump would give it after it was written: one spelling of each thing."""
    (nested,) = framing.attributes(encode_request(AddVirtualServer(virtual_server=virtual_server))[1]).values()
    read: VirtualServer = service_decoder().build(framing.attributes(nested))
    return read


# ---- finding the family (include/uapi/linux/genetlink.h)

CONTROL_FAMILY: Final = 0x10  # GENL_ID_CTRL
GET_FAMILY: Final = 3  # CTRL_CMD_GETFAMILY
_FAMILY_ID, _FAMILY_NAME = 1, 2


def encode_family_name() -> bytes:
    """Return the attribute that asks the controller for the family IPVS."""
    return framing.attribute(_FAMILY_NAME, FAMILY_NAME.encode() + b"\0")


def decode_family(message: framing.Message) -> int:
    """Return the number that the kernel gave to the family IPVS."""
    payload = framing.generic_attributes(message).get(_FAMILY_ID, b"")
    number = wire.U16.unpack("generic netlink family", "number", payload)
    if not isinstance(number, int):
        raise Malformed("read", "generic netlink family", "its number is no number")
    return number

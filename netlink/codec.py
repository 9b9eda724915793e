"""Requests and answers of IPVS's generic netlink interface as bytes, by the rows of `layout`.

Pure: `framing` knows netlink itself, `ipvs` does the talking. What the kernel would take silently as garbage
(ip_vs_ctl.c checks little) is refused here with ValueError. Bytes that do not fit raise Malformed and nothing else.
Values that only another tool can have put into the table, such as an unknown flag, decode to something that equals
nothing this package would write; they never make the rest unreadable. Source: include/uapi/linux/ip_vs.h.
"""

from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address
from typing import Any, Final, NamedTuple

from netlink import framing, wire
from netlink.bulk import Decoder, Piece
from netlink.checks import key_problem, type_problem
from netlink.compiler import REFUSED, packer, problem_of
from netlink.errors import Invalid, Malformed
from netlink.layout import DAEMON, DESTINATION, INFORMATION, SERVICE, TIMEOUTS, Layout
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
    Protocol,
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
    SERVICE, SERVICE.named("family", "protocol", "address", "port"), of_key=True, nested=_CMD_SERVICE
)
_pack_mark_key: Final = packer(SERVICE, SERVICE.named("family", "mark"), of_key=True, nested=_CMD_SERVICE)
_pack_service: Final = packer(SERVICE, SERVICE.configuration)
_pack_destination_key: Final = packer(DESTINATION, DESTINATION.identity, of_key=True, nested=_CMD_DEST)
_pack_destination: Final = packer(DESTINATION, DESTINATION.rows, nested=_CMD_DEST)
_pack_daemon: Final = packer(DAEMON, DAEMON.rows)
_pack_role: Final = packer(DAEMON, DAEMON.named("role"), nested=_CMD_DAEMON)
_pack_timeouts: Final = packer(TIMEOUTS, TIMEOUTS.rows)


def _packed(layout: Layout, pack: Callable[[Any], bytes], value: Any, who: Callable[[], object]) -> bytes:
    """Return attributes of `value`, or raise ValueError that names object and field; `who` returns its name."""
    try:
        problem = layout.problem(value)
        if problem is None:
            return pack(value)
    except REFUSED as error:
        problem = problem_of(layout, value) or str(error)
    raise ValueError(f"{layout.kind} {_text(who)}: {problem}")


def _text(who: Callable[[], object]) -> str:
    """Return what `who` does as text; what is wrong with an object may be that it has none."""
    try:
        return str(who())
    except REFUSED:
        return "without a name"


def encode_key(key: VirtualServerKey) -> bytes:
    """Return the attribute that names a virtual server in a request."""
    try:
        problem = key_problem(key)
        if problem is None:
            return _pack_mark_key(key) if key.mark else _pack_address_key(key)
    except REFUSED as error:
        problem = type_problem(key, VirtualServerKey) or problem_of(SERVICE, VirtualServer(key=key)) or str(error)
    raise ValueError(f"{SERVICE.kind} {_text(lambda: key)}: {problem}")


def encode_question(key: VirtualServerKey) -> bytes:
    """Return the attribute that asks for a virtual server; Invalid where no kernel should be asked."""
    try:
        return encode_key(key)
    except ValueError as error:
        raise Invalid("read", "virtual server", str(error)) from error


def _service(virtual_server: VirtualServer, packed_key: bytes = b"") -> bytes:
    """Return the attribute that is a whole virtual server; `packed_key` is what `encode_key` returns for its key."""
    if not isinstance(virtual_server, VirtualServer):
        problem = type_problem(virtual_server, VirtualServer)
        raise ValueError(f"{SERVICE.kind} without a name: {problem}")  # noqa: TRY004 -- as all that cannot be sent
    key = (packed_key or encode_key(virtual_server.key))[framing.ATTRIBUTE_HEADER :]
    configuration = _packed(SERVICE, _pack_service, virtual_server, lambda: virtual_server.key)
    return framing.attribute(_CMD_SERVICE, key + configuration, nested=True)


def _destination(real_server: RealServer) -> bytes:
    return _packed(DESTINATION, _pack_destination, real_server, lambda: real_server.key)


def _destination_key(key: RealServerKey) -> bytes:
    real_server = RealServer(key=key)
    return _packed(DESTINATION, lambda _: _pack_destination_key(key), real_server, lambda: key)


def encode_request(request: Request) -> tuple[int, bytes]:
    """Return command and attributes of `request`; ValueError where no kernel should get it."""
    match request:
        case AddVirtualServer(virtual_server=virtual_server):
            return NEW_SERVICE, _service(virtual_server)
        case SetVirtualServer(virtual_server=virtual_server):
            return SET_SERVICE, _service(virtual_server)
        case DeleteVirtualServer(key=key):
            return DEL_SERVICE, encode_key(key)
        case AddRealServer(virtual_server=parent, real_server=real_server):
            return NEW_DEST, encode_key(parent) + _destination(real_server)
        case SetRealServer(virtual_server=parent, real_server=real_server):
            return SET_DEST, encode_key(parent) + _destination(real_server)
        case DeleteRealServer(virtual_server=parent, key=server):
            return DEL_DEST, encode_key(parent) + _destination_key(server)
        case _:
            return _encode_other(request)


def _encode_other(request: OtherRequest) -> tuple[int, bytes]:
    match request:
        case ZeroCounters(key=key):
            return ZERO, b"" if key is None else encode_key(key)
        case SetTimeouts(timeouts=timeouts):
            return SET_CONFIG, _packed(TIMEOUTS, _pack_timeouts, timeouts, lambda: request.target)
        case StartSyncDaemon(daemon=daemon):
            body = _packed(DAEMON, _pack_daemon, daemon, lambda: request.target)
            return NEW_DAEMON, framing.attribute(_CMD_DAEMON, body, nested=True)
        case StopSyncDaemon(role=role):
            named = SyncDaemon(role=role, interface="lo")  # its role is all that is sent
            return DEL_DAEMON, _packed(DAEMON, _pack_role, named, lambda: request.target)
        case Flush():
            return FLUSH, b""
        case _:
            raise ValueError(f"{type(request).__name__} is no request")


# For a real server there is a function that packs a whole message: netlink's header in four parts, then the virtual
# server's key, packed, then the real server. A key has one of two lengths.


def _whole_packer(key: VirtualServerKey) -> Callable[..., bytes]:
    before = ("I", "4s", "I", "8s", f"{len(encode_key(key))}s")
    return packer(DESTINATION, DESTINATION.rows, nested=_CMD_DEST, before=before)


_MARK: Final = VirtualServerKey.by_mark(1)
_ADDRESS: Final = VirtualServerKey.by_address(Protocol.TCP, IPv4Address(0), 1)
_pack_mark_whole: Final = _whole_packer(_MARK)
_pack_address_whole: Final = _whole_packer(_ADDRESS)
_MARK_KEY_LENGTH: Final = len(encode_key(_MARK))
_ADDRESS_KEY_LENGTH: Final = len(encode_key(_ADDRESS))
_DESTINATION_LENGTH: Final = len(_destination(RealServer(key=RealServerKey(address=IPv4Address(0), port=0))))
_MARK_LENGTH: Final = framing.REQUEST_HEADER + _MARK_KEY_LENGTH + _DESTINATION_LENGTH
_ADDRESS_LENGTH: Final = framing.REQUEST_HEADER + _ADDRESS_KEY_LENGTH + _DESTINATION_LENGTH

_Parent = tuple[VirtualServerKey, bytes, Callable[..., bytes], int]
"""The key of a virtual server, the same packed, what packs a message with a real server of it, that message's length"""


def _parent(key: VirtualServerKey) -> _Parent:
    packed = encode_key(key)
    if len(packed) == _ADDRESS_KEY_LENGTH:
        return key, packed, _pack_address_whole, _ADDRESS_LENGTH
    return key, packed, _pack_mark_whole, _MARK_LENGTH


_SILENT: Final = Traffic()  # many have no traffic: one value does for all of them
_IDLE: Final = RealServerUsage()
_new: Final = tuple.__new__  # a named tuple's own way takes thrice the time, for it has names to look at


class Batch(NamedTuple):
    """Some requests, packed to be sent together."""

    packed: bytes  # empty where none is to be sent
    last: int  # sequence number of the last that is sent, which asks for an acknowledgement
    end: int  # the place after the last request that is in it
    invalid: Sequence[tuple[int, Invalid]]  # those that are not sent, by their places


class Encoder:
    """Packs requests to IPVS; `family` is the kernel's number for it. It keeps the key that it has packed last.

    Writing real servers is nearly all there is to do, and they come by virtual server.
    """

    def __init__(self, family: int) -> None:
        self._head = framing.Head(family, VERSION)
        self._parent = _parent(_MARK)

    def encode(self, requests: Sequence[Request], start: int, most: int, first: int) -> Batch:
        """Return the next `most` requests from `start` on, numbered from `first` on.

        They are fewer where a request must be the last: the kernel says nothing of a daemon that it could not stop
        unless it is asked for an acknowledgement.
        """
        head = self._head
        starts, ends = head.start, head.ends
        key, packed_key, pack_whole, length = self._parent
        parts: list[bytes] = []
        invalid: list[tuple[int, Invalid]] = []
        end = min(start + most, len(requests))
        last = first
        add, change = ends[NEW_DEST], ends[SET_DEST]
        for sequence, request in enumerate(requests[start:end], first):
            try:
                if type(request) is AddRealServer or type(request) is SetRealServer:
                    if request.virtual_server is not key:
                        self._parent = key, packed_key, pack_whole, length = _parent(request.virtual_server)
                    command = add if type(request) is AddRealServer else change
                    parts.append(pack_whole(request.real_server, length, starts, sequence, command, packed_key))
                elif type(request) is AddVirtualServer and type(request.virtual_server) is VirtualServer:
                    # its real servers come next
                    self._parent = key, packed_key, pack_whole, length = _parent(request.virtual_server.key)
                    if SERVICE.problem(request.virtual_server) is not None:
                        raise ValueError
                    nested = packed_key[framing.ATTRIBUTE_HEADER :] + _pack_service(request.virtual_server)
                    parts.append(head.nested(sequence, NEW_SERVICE, _CMD_SERVICE, nested))
                else:
                    parts.append(head.message(sequence, *encode_request(request)))
                last = sequence
            except REFUSED:
                refused = unsent(request)
                if refused is None:
                    raise  # what cannot be packed in one way cannot in the other
                invalid.append((start + sequence - first, refused))
            if type(request) is StopSyncDaemon:
                end = start + sequence - first + 1
                break
        if parts:
            parts[-1] = head.acknowledged(parts[-1])
        return _new(Batch, (b"".join(parts), last, end, invalid))


def unsent(request: Request) -> Invalid | None:
    """Return why no kernel should get `request`, None when one may."""
    try:
        encode_request(request)
    except ValueError as error:
        return Invalid(getattr(request, "operation", "send"), _text(lambda: request.target), str(error))
    return None


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


def traffic(pieces: Iterable[Piece]) -> list[Traffic]:
    """Return the counters of virtual servers."""
    return [_SILENT if counters == _SILENT else _new(Traffic, counters) for _, counters in pieces]


def usage(pieces: Iterable[Piece]) -> list[RealServerUsage]:
    """Return the counters of real servers."""
    return [_IDLE if counters == _IDLE else _new(RealServerUsage, counters) for _, counters in pieces]


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

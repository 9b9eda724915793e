"""The target for what writes bytes: a request is sent as it is meant, or refused in words, whatever its fields hold."""

from typing import Final, assert_never

import attrs

from netlink import codec, framing
from netlink.layout import DESTINATION as DESTINATION_LAYOUT
from netlink.layout import LAYOUTS, Layout
from netlink.layout import SERVICE as SERVICE_LAYOUT
from netlink.requests import (
    AddRealServer,
    AddVirtualServer,
    DeleteRealServer,
    DeleteVirtualServer,
    Flush,
    Request,
    SetRealServer,
    SetTimeouts,
    SetVirtualServer,
    StartSyncDaemon,
    StopSyncDaemon,
    ZeroCounters,
)
from netlink.types import (
    RealServer,
    RealServerKey,
    SyncDaemon,
    SyncRole,
    Timeouts,
    VirtualServer,
    VirtualServerKey,
)
from tests.fuzz.draw import Draw
from tests.fuzz.recorded import single_messages
from tests.fuzz.wild import field, key, request

FAMILY: Final = 28
MOST: Final = 4  # requests in a batch
MOST_REQUESTS: Final = 7
KINDS: Final = tuple(f"{layout.kind} " for layout in LAYOUTS)
CLASSES: Final = (VirtualServerKey, VirtualServer, RealServerKey, RealServer, SyncDaemon, Timeouts)
FIELDS: Final = frozenset(
    {each.name for cls in CLASSES for each in attrs.fields(cls)} | {row.name for each in LAYOUTS for row in each.rows}
)


def encoder_target(data: bytes) -> None:
    """Encode requests one by one and in batches; read back what comes out."""
    requests = _requests(Draw(data))
    bodies = [_encoded(each) for each in requests]
    for each, encoded in zip(requests, bodies, strict=True):
        if encoded is not None:
            found, meant = read_back(*encoded), meaning(each)
            assert found == meant, f"{each!r} was sent as {found}"
            assert str(each), "what was sent can be named"
    encoder = codec.Encoder(FAMILY)
    start = 0
    while start < len(requests):
        batch = encoder.encode(requests, start, MOST, 1)
        assert start < batch.end <= len(requests)
        _check_batch(batch, bodies[start : batch.end], start)
        start = batch.end


def _check_batch(batch: codec.Batch, bodies: list[tuple[int, bytes] | None], start: int) -> None:
    """Check that a batch has all that is sent alone, and what is refused alone is refused in it."""
    assert [place - start for place, _ in batch.invalid] == [n for n, body in enumerate(bodies) if body is None]
    for _, refused in batch.invalid:
        _check_words(refused.meaning)
    messages = list(framing.messages(batch.packed))
    sent = [(number, body) for number, body in enumerate(bodies, 1) if body is not None]
    assert [(each.sequence, (each.payload[0], each.payload[4:])) for each in messages] == sent
    assert not sent or batch.last == sent[-1][0]
    assert {message.kind for message in messages} <= {FAMILY}
    flags = [framing.NLM_F_REQUEST] * (len(messages) - 1) + [framing.NLM_F_REQUEST | framing.NLM_F_ACK]
    assert [message.flags for message in messages] == flags[len(flags) - len(messages) :]


def _requests(draw: Draw) -> list[Request]:
    """Return requests, of which neighbours often have one virtual server."""
    requests: list[Request] = []
    parent = None
    while not requests or (draw.more and len(requests) < MOST_REQUESTS):
        try:
            if parent is None or draw.below(3) == 2:
                parent = field(draw, lambda: key(draw))
            requests.append(request(draw, parent))
        except (AttributeError, TypeError):  # a VirtualServer without a key is no value
            if not draw.more:
                break
    return requests


def _encoded(one: Request) -> tuple[int, bytes] | None:
    """Return command and attributes of a request, None when it is refused as it should be."""
    try:
        return codec.encode_request(one)
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        _check_words(str(error))
        return None


def _check_words(words: str) -> None:
    """Check that an error names object and field."""
    assert words.startswith(KINDS), words
    assert any(f": {name} " in words for name in FIELDS) or ": it is no " in words, words


def meaning(one: Request) -> object:
    """Return what the kernel shall be told."""
    match one:
        case AddVirtualServer(virtual_server=virtual_server) | SetVirtualServer(virtual_server=virtual_server):
            return one.operation, virtual_server
        case DeleteVirtualServer(key=parent) | ZeroCounters(key=parent):
            return one.operation, parent
        case (
            AddRealServer(virtual_server=parent, real_server=real_server)
            | SetRealServer(virtual_server=parent, real_server=real_server)
        ):
            return one.operation, parent, real_server
        case DeleteRealServer(virtual_server=parent, key=real_server_key):
            return one.operation, parent, real_server_key
        case SetTimeouts(timeouts=timeouts):
            return one.operation, timeouts
        case StartSyncDaemon(daemon=daemon):
            return one.operation, daemon
        case StopSyncDaemon(role=role):
            return one.operation, role
        case Flush():
            return one.operation
        case _:
            assert_never(one)


OPERATIONS: Final = {
    codec.NEW_SERVICE: AddVirtualServer.operation,
    codec.SET_SERVICE: SetVirtualServer.operation,
    codec.DEL_SERVICE: DeleteVirtualServer.operation,
    codec.NEW_DEST: AddRealServer.operation,
    codec.SET_DEST: SetRealServer.operation,
    codec.DEL_DEST: DeleteRealServer.operation,
    codec.NEW_DAEMON: StartSyncDaemon.operation,
    codec.DEL_DAEMON: StopSyncDaemon.operation,
    codec.SET_CONFIG: SetTimeouts.operation,
    codec.ZERO: ZeroCounters.operation,
    codec.FLUSH: Flush.operation,
}
SERVICE, DEST, DAEMON = 1, 2, 3


def _configuration(layout: Layout, name: str, nested: int) -> dict[int, bytes]:
    """Return the attributes of a recorded object without those that are its key."""
    found = framing.attributes(framing.attributes(single_messages(name)[0][20:])[nested])
    return {row.number: found[row.number] for row in layout.configuration if row.number in found}


VIRTUAL_SERVER: Final = _configuration(SERVICE_LAYOUT, "virtual-servers", SERVICE)
REAL_SERVER: Final = _configuration(DESTINATION_LAYOUT, "real-servers-of-two-families", DEST)


def read_back(command: int, body: bytes) -> object:
    """Return what the kernel is told, read by the decoders of what it sends."""
    operation = OPERATIONS[command]
    if command == codec.SET_CONFIG:
        return operation, codec.decode_timeouts(framing.Message(FAMILY, 0, 1, bytes(4) + body))
    objects = {number: framing.attributes(payload) for number, payload in framing.attributes(body).items()}
    match command:
        case codec.NEW_SERVICE | codec.SET_SERVICE:
            return operation, codec.service_decoder().build(objects[SERVICE])
        case codec.DEL_SERVICE | codec.ZERO:
            return operation, _key(objects[SERVICE]) if objects else None
        case codec.NEW_DEST | codec.SET_DEST:
            return operation, _key(objects[SERVICE]), codec.destination_decoder().build(objects[DEST])
        case codec.DEL_DEST:
            return operation, _key(objects[SERVICE]), _real_server_key(objects[DEST])
        case codec.NEW_DAEMON:
            return operation, codec.daemon_decoder().build(objects[DAEMON])
        case codec.DEL_DAEMON:
            return operation, SyncRole(int.from_bytes(objects[DAEMON][1], "little"))
        case _:
            return operation


def _key(found: dict[int, bytes]) -> object:
    """Return the key of the virtual server whose attributes are `found`."""
    return codec.service_decoder().build(VIRTUAL_SERVER | found).key


def _real_server_key(found: dict[int, bytes]) -> object:
    return codec.destination_decoder().build(REAL_SERVER | found).key

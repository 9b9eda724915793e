"""The targets for what a listener sends over HTTP/2: the fields of one block, and whatever a connection hears.

Fields are read as hpack reads them, or refused where it refuses them. A connection may be lost by what it hears, never
by an error of its own: then every request has ended, in an answer or in our words, and nothing of it is left.
"""

import asyncio
import ssl
from collections.abc import Iterable
from typing import Any, Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes
from hpack import Decoder, Encoder
from hpack.exceptions import HPACKError

from lvsctl.consul import http2
from lvsctl.consul.compression import QuickDecoder
from lvsctl.consul.pool import Request, RequestFailed, Response

REQUESTS: Final = 3
PIECE: Final = 5_000  # bytes that come at a time, from the second on
TURNS: Final = 12  # of the loop, in which all that has come is taken
LISTENER: Final = http2.Listener(
    host="127.0.0.1",
    port=8501,
    authority="127.0.0.1:8501",
    tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
    connect_timeout=1.0,
)
_LOOP: Final = asyncio.new_event_loop()


def fields_target(data: bytes) -> None:
    """Raise AssertionError when a block is read as hpack does not."""
    ours, theirs = QuickDecoder(), Decoder()
    cut = data[0] if data else 0
    for block in (data[1 : 1 + cut], data[1 + cut :]):  # two, for the first one fills the table
        found, expected = (_fields(decoder, block) for decoder in (ours, theirs))
        assert found == expected, (found, expected)
        if found is None:
            return


def _fields(decoder: Decoder, block: bytes) -> list[tuple[bytes, bytes]] | None:
    try:
        return [(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)]
    except (HPACKError, IndexError):
        return None


class _Transport(asyncio.Transport):
    """Takes what is sent, and keeps nothing."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__({"ssl_object": self})
        self._protocol = protocol
        self._closed = False

    def selected_alpn_protocol(self) -> str:
        """Return what was chosen."""
        return "h2"

    def write(self, data: Any) -> None:  # noqa: ANN401  # as asyncio has it
        """Send."""

    def get_write_buffer_size(self) -> int:
        """Return 0: the listener reads."""
        return 0

    def pause_reading(self) -> None:
        """Do nothing: there are no more than a few pieces."""

    def resume_reading(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Have the protocol know, once."""
        if not self._closed:
            self._closed = True
            _LOOP.call_soon(self._protocol.connection_lost, None)

    abort = close


def connection_target(data: bytes) -> None:
    """Raise what a connection lets through, AssertionError when something of it is left."""
    _LOOP.run_until_complete(_hear(data))


async def _hear(data: bytes) -> None:
    before = asyncio.all_tasks()
    connection = http2.Connection(LISTENER)
    transport = _Transport(connection)
    connection.connection_made(transport)
    asked = [asyncio.create_task(connection.request(_request(number))) for number in range(REQUESTS)]
    await asyncio.sleep(0)
    for piece in (data[:PIECE], data[PIECE:]):
        connection.data_received(piece)
        for _ in range(TURNS):
            await asyncio.sleep(0)
    transport.close()
    async with asyncio.timeout(10):
        ended = await asyncio.gather(*asked, return_exceptions=True)
        await connection.close()
    assert all(isinstance(each, Response | RequestFailed) for each in ended), ended
    assert connection.room == 0
    assert connection.closed
    assert asyncio.all_tasks() == before


def _request(number: int) -> Request:
    return Request(method="GET", target=f"/v1/health/service/{number}", headers={}, most_bytes=1 << 16)


def connection_seeds() -> Iterable[bytes]:
    """Yield what Consul might send: settings, answers, what ends a stream or the connection, windows, pings."""
    for answer in range(8):
        client, server = H2Connection(H2Configuration()), H2Connection(H2Configuration(client_side=False))
        client.initiate_connection()
        for number in range(REQUESTS):
            client.send_headers(
                2 * number + 1,
                [(":method", "GET"), (":path", "/"), (":scheme", "https"), (":authority", "a")],
                end_stream=True,
            )
        server.initiate_connection()
        server.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 250})
        server.receive_data(client.data_to_send())
        server.ping(b"01234567")
        for number in (1, 3, 5)[: answer % 4]:
            server.send_headers(number, [(":status", "200"), ("x-consul-index", "7"), ("content-type", "json")])
            server.send_data(number, b"[" + b" " * 20 * answer + b"]", end_stream=number != 5)
        if answer > 3:
            server.reset_stream(5, 2)
        if answer > 5:
            server.close_connection()
        yield server.data_to_send()


def fields_seeds() -> Iterable[bytes]:
    """Yield two blocks each: with Huffman's code and without, of fields that a table keeps and may not keep."""
    for huffman in (False, True):
        encoder = Encoder()
        blocks = [
            encoder.encode([(":status", "200"), ("x-consul-index", str(index)), ("vary", "a" * index)], huffman=huffman)
            for index in (7, 8)
        ]
        yield bytes([len(blocks[0])]) + b"".join(blocks)
    yield b"\x03\x20\x82\x88\x82\x88"
    yield b"\x05\x10\x01x\x01y\x00\x01x\x01y"

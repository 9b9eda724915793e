"""One HTTP/2 connection to Consul's TLS listener (RFC 9113), each request a `stream` of it.

The package `h2` knows frames, streams and windows and does no I/O; it is optional, so import this module late. Here
bytes go to it and its events to the requests. A blocking query is silent for most of its time and a half-open
connection for all of it, so silence is answered with a PING, and no answer to that ends the connection.

A peer may be broken, or worse. What it sends is taken frame by frame, in portions between which others get their turn.
An answer that breaks the connection is told from those that only were on it (BrokeConnection). Frames that bring
nothing are counted, what it does not read is not piled up, and a connection without requests ends whatever it sends.

h2 reads nothing after a GOAWAY, so all requests of that connection fail, those the listener meant to answer too.
"""

import asyncio
import contextlib
import ssl
from typing import Final

import attrs
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings

from lvsctl.consul.frames import Frame, Frames
from lvsctl.consul.pool import BrokeConnection, NotOffered, Request, RequestFailed, Response
from lvsctl.consul.stream import Stream, fields_of, word
from lvsctl.memory import without_frames

MOST_STREAMS: Final = 240  # Consul takes 250, and may count one that has just ended
SILENCE: Final = 10.0  # seconds without a frame, until a PING; an idle connection is closed instead
PATIENCE: Final = 10.0  # seconds for anything to come after it
FAREWELL: Final = 1.0  # seconds for the end of TLS, which a peer that is gone does not answer
READ: Final = 1 << 18  # bytes
STREAM_WINDOW: Final = 1 << 20  # bytes on their way in one answer
CONNECTION_WINDOW: Final = 1 << 24  # and in all of a connection
PORTION: Final = 128  # frames that are taken at a time; each takes some 20 microseconds
MOST_IDLE: Final = 5_000  # frames that bring nothing, within SILENCE
MOST_UNREAD: Final = 1 << 20  # bytes that the peer has not read yet
LAST_STREAM: Final = 1 << 30  # half of what there are; a connection that came this far takes no new ones
MOST_ENDED: Final = 512  # streams whose end is remembered, for frames that were on their way when we reset them


@attrs.frozen(kw_only=True)
class Listener:
    """Where to connect, and the patience with it; durations in seconds."""

    host: str
    port: int
    authority: str  # host and port as in the URL
    server_name: str | None = None  # that the certificate is for; None: the host
    tls: ssl.SSLContext  # offers h2 by ALPN
    connect_timeout: float
    silence: float = SILENCE
    patience: float = PATIENCE
    most_streams: int = MOST_STREAMS


async def connect(listener: Listener) -> "Connection":
    """Return a connection with room.

    Raises NotOffered when the listener chose another protocol, OSError (SSLError and TimeoutError are such) when there
    is no connection, RequestFailed when it is of no use.
    """
    async with asyncio.timeout(listener.connect_timeout):
        reader, writer = await asyncio.open_connection(
            listener.host,
            listener.port,
            ssl=listener.tls,
            server_hostname=listener.server_name,
            ssl_shutdown_timeout=FAREWELL,
            limit=READ,
        )
        tls = writer.get_extra_info("ssl_object")
        if tls.selected_alpn_protocol() != "h2":
            await _close(writer)
            raise NotOffered
        connection = Connection(reader, writer, listener)
        try:
            await connection.ready()
        except BaseException:
            await connection.close()
            raise
        return connection


class _LongLived(H2Connection):
    """h2's connection for thousands of requests an hour: it keeps little of those that have ended.

    h2 remembers 65,536 ended streams, 9 MB for each connection, and looks at all open ones before it opens another.
    """

    MAX_CLOSED_STREAMS = MOST_ENDED

    def forget(self, number: int) -> None:
        """Keep of stream `number` no more than how it ended, if it has."""
        stream = self.streams.get(number)
        if stream is not None and stream.closed:
            self._closed_streams[number] = self.streams.pop(number).closed_by

    def end(self) -> None:
        """Have it go as soon as nobody needs it: its table of its own methods would wait for the collector."""
        self._frame_dispatch_table = {}

    @property
    def open_outbound_streams(self) -> int:
        """Return how many streams are open; those that ended without `forget` are found where there is no room."""
        there = len(self.streams)
        return there if there < self.remote_settings.max_concurrent_streams else super().open_outbound_streams


class Connection:
    """Requests over one connection; `connect` makes one, and it is usable after `ready`.

    One task reads. It ends with the connection, whatever ends that, and then every request has failed.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener: Listener) -> None:
        self._reader = reader
        self._writer = writer
        self._listener = listener
        self._streams: dict[int, Stream] = {}
        self._lost = ""  # why the connection is
        self._ready = asyncio.Event()  # the listener's settings are here, or nothing will be
        self._moved = asyncio.Event()  # a window may have opened
        self._frames = Frames()
        self._culprit = 0  # the stream whose frame is taken now
        self._unused_since = asyncio.get_running_loop().time()  # as long as there are no streams
        self._window = self._unused_since  # when the idle frames were begun to be counted
        self._idle = 0
        self._h2 = _LongLived(
            H2Configuration(
                client_side=True,
                header_encoding=None,
                validate_outbound_headers=False,  # `fields_of` makes them as they shall be
                normalize_outbound_headers=False,
            )
        )
        self._h2.local_settings = Settings(
            client=True, initial_values={SettingCodes.ENABLE_PUSH: 0, SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW}
        )
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(CONNECTION_WINDOW - self._h2.inbound_flow_control_window)
        self._flush()
        self._task = asyncio.create_task(self._run(), name="http2 connection")

    async def ready(self) -> None:
        """Return when requests may begin; raises RequestFailed when none ever may."""
        await self._ready.wait()
        if self._lost:
            raise RequestFailed(self._lost)
        if not self.room:
            raise RequestFailed("its HTTP/2 allows no request (MAX_CONCURRENT_STREAMS is 0)")

    @property
    def room(self) -> int:
        """Return how many more requests may begin now; 0 when the connection is lost."""
        if self._lost or self._h2.highest_outbound_stream_id >= LAST_STREAM:
            return 0
        return max(0, self.most_streams - len(self._streams))

    @property
    def most_streams(self) -> int:
        """Return how many requests it carries at a time."""
        return min(self._listener.most_streams, self._h2.remote_settings.max_concurrent_streams)

    @property
    def closed(self) -> bool:
        """Tell whether nothing of it is left, no task and no socket."""
        return self._task.done()

    async def request(self, request: Request) -> Response:
        """Return the answer; raises RequestFailed. Left early, by cancellation too, the stream is reset."""
        fields = list(fields_of(request, self._listener.authority))
        number = self._h2.get_next_available_stream_id()
        answer = asyncio.get_running_loop().create_future()
        stream = Stream(most_bytes=request.most_bytes, body=request.share, answer=answer)
        self._streams[number] = stream
        try:
            self._h2.send_headers(number, fields, end_stream=not request.body)
            fields.clear()  # thousands of requests wait
            self._flush()
            stream.sent = not request.body
            await self._send(number, stream, request.body)
            return await stream.answer
        except H2Error:
            raise RequestFailed("the request does not fit HTTP/2") from None  # h2 would tell what is in it
        finally:
            del self._streams[number]
            self._unused_since = asyncio.get_running_loop().time()
            if not (stream.sent and stream.ended):
                self._reset(number)
            self._h2.forget(number)
            del stream, answer  # an error that is raised here keeps this frame: they would keep the error

    async def close(self) -> None:
        """Close it; what is being asked fails."""
        if not self._lost:  # else it is closing, which takes a moment
            self._lose("closed")
            self._task.cancel()
        await asyncio.wait([self._task])

    async def _send(self, number: int, stream: Stream, body: bytes) -> None:
        """Send the body as the windows allow, unless the answer comes before its end."""
        rest = memoryview(body)
        while rest and not stream.answer.done():
            size = min(len(rest), self._h2.local_flow_control_window(number), self._h2.max_outbound_frame_size)
            if size > 0:
                stream.sent = size == len(rest)
                self._h2.send_data(number, bytes(rest[:size]), end_stream=stream.sent)
                self._flush()
                rest = rest[size:]
            else:
                self._moved.clear()
                await self._moved.wait()

    def _reset(self, number: int) -> None:
        """Give the stream up, so that the listener frees its place at once."""
        if not self._lost:
            with contextlib.suppress(H2Error):  # the listener was faster
                self._h2.reset_stream(number, ErrorCodes.CANCEL)
            self._flush()

    def _flush(self) -> None:
        if data := self._h2.data_to_send():
            self._writer.write(data)

    async def _run(self) -> None:
        """Read until the end."""
        try:
            while data := await self._read():
                await self._take_all(data)
            self._lose("the listener closed the connection")
        except asyncio.CancelledError:  # by `close` alone; raised on, it would keep this frame, and that the connection
            pass
        except H2Error as error:
            self._lose(f"its HTTP/2 is wrong: {error}")
        except RequestFailed as error:
            self._lose(str(error))
        except OSError as error:
            without_frames(error)
            self._lose((error.strerror or str(error)).lower() or type(error).__name__)
        except Exception as error:  # noqa: BLE001  # whatever a peer finds that h2 or we did not think of
            self._lose(f"its HTTP/2 is wrong ({type(error).__name__})")
        finally:
            self._lose("closed")
            self._h2.end()
            await _close(self._writer)

    async def _take_all(self, data: bytes) -> None:
        """Take every frame that is complete, and let others have their turn now and then."""
        for number, frame in enumerate(self._frames.cut(data), 1):
            self._culprit = frame.stream
            self._count(frame)
            for event in self._h2.receive_data(frame.content):
                self._take(event)
            self._culprit = 0
            if number % PORTION == 0:
                self._flush()
                await asyncio.sleep(0)
        self._flush()
        self._moved.set()
        if self._writer.transport.get_write_buffer_size() > MOST_UNREAD:
            raise RequestFailed("the listener does not read what it is sent")

    def _count(self, frame: Frame) -> None:
        """Raise RequestFailed when too many frames came that bring nothing."""
        now = asyncio.get_running_loop().time()
        if now - self._window > self._listener.silence:
            self._window, self._idle = now, 0
        self._idle += frame.is_idle or frame.stream not in self._streams
        if self._idle > MOST_IDLE:
            raise RequestFailed("the listener floods the connection with frames that bring nothing")

    async def _read(self) -> bytes:
        """Return what comes next; nothing at the end, and when the connection is idle."""
        data = b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._listener.silence):
                data = await self._reader.read(READ)
                if not data:
                    return data
        unused = asyncio.get_running_loop().time() - self._unused_since
        if self._ready.is_set() and not self._streams and (unused >= self._listener.silence or not data):
            return b""
        if data:
            return data
        self._h2.ping(b"liveness")
        self._flush()
        try:
            async with asyncio.timeout(self._listener.patience):
                return await self._reader.read(READ)
        except TimeoutError:
            silent = self._listener.silence + self._listener.patience
            raise RequestFailed(
                f"the connection is dead: nothing came for {silent:g} s, not even after a PING"
            ) from None

    def _take(self, event: Event) -> None:
        match event:
            case RemoteSettingsChanged():
                if not self._ready.is_set():  # nobody could use it before
                    self._unused_since = asyncio.get_running_loop().time()
                self._ready.set()
            case ConnectionTerminated():
                raise RequestFailed(f"the listener ends the connection (GOAWAY, {word(event.error_code)})")
            case DataReceived():
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                stream = self._streams.get(event.stream_id)
                if stream and not stream.take_data(event.data):
                    self._reset(event.stream_id)
            case ResponseReceived() | StreamEnded() | StreamReset():
                if stream := self._streams.get(event.stream_id):
                    stream.take(event)
            case _:
                pass  # PING, windows, trailers: h2 has done what there is to do

    def _lose(self, why: str) -> None:
        """Fail every request and take no more; only the first reason counts."""
        if self._lost:
            return
        self._lost = why
        with contextlib.suppress(H2Error):
            self._h2.close_connection()
            self._flush()
        for number, stream in self._streams.items():
            stream.fail(BrokeConnection(why) if number == self._culprit else RequestFailed(why))
        self._ready.set()
        self._moved.set()


async def _close(writer: asyncio.StreamWriter) -> None:
    """Close the connection, politely where the peer is there."""
    writer.close()
    try:
        await writer.wait_closed()
    except OSError as error:  # the reader keeps it
        without_frames(error)

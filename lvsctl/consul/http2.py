"""One HTTP/2 connection to Consul's TLS listener (RFC 9113), each request a `stream` of it.

The package `h2` knows frames, streams and windows and does no I/O; it is optional, so import this module late. Here
bytes go to it, as asyncio brings them and without a task between, and its events to the requests. A blocking query is
silent for most of its time and a half-open connection for all of it, so silence is answered with a PING, and no answer
to that ends the connection.

A peer may be broken, or worse. What it sends is taken frame by frame, in portions between which others get their turn.
An answer that breaks the connection is told from those that only were on it (BrokeConnection). Frames that bring
nothing are counted, what it does not read is not piled up, and a connection without requests ends whatever it sends.

h2 reads nothing after a GOAWAY, so all requests of that connection fail, those the listener meant to answer too.
"""

import asyncio
import contextlib
import itertools
import ssl
from collections.abc import Iterator
from typing import Final

import attrs
import hyperframe.frame
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

from lvsctl.consul.compression import PlainEncoder, QuickDecoder
from lvsctl.consul.frames import Frame, Frames
from lvsctl.consul.pool import BrokeConnection, NotOffered, Request, RequestFailed, Response
from lvsctl.consul.stream import Stream, fields_of, word
from lvsctl.memory import without_frames

# h2 writes each frame down for a log that it does not keep here: of an answer's body twice its bytes, in hexadecimal.
hyperframe.frame.Frame.__repr__ = object.__repr__  # type: ignore[method-assign]

MOST_STREAMS: Final = 240  # Consul takes 250, and may count one that has just ended
SILENCE: Final = 10.0  # seconds without a frame, until a PING; an idle connection is closed instead
PATIENCE: Final = 10.0  # seconds for anything to come after it
FAREWELL: Final = 1.0  # seconds for the end of TLS, which a peer that is gone does not answer
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
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(listener),
            listener.host,
            listener.port,
            ssl=listener.tls,
            server_hostname=listener.server_name,
            ssl_shutdown_timeout=FAREWELL,
        )
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

    def __init__(self, config: H2Configuration) -> None:
        super().__init__(config)
        most = self.decoder.max_header_list_size
        self.encoder, self.decoder = PlainEncoder(), QuickDecoder(most)

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


def _wrong(error: H2Error) -> str:
    """Return what h2 says is wrong, which may be no more than the number of a stream."""
    said = str(error)
    return f"{type(error).__name__} {said}" if said.isdigit() else said


class Connection(asyncio.Protocol):
    """Requests over one connection; `connect` makes one, and it is usable after `ready`.

    What comes is taken as it comes. One task looks after the connection; it ends with that, whatever ends it, and then
    every request has failed.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._streams: dict[int, Stream] = {}
        self._most_streams = listener.most_streams
        self._lost = ""  # why the connection is
        self._is_h2 = True
        self._ready = asyncio.Event()  # the listener's settings are here, or nothing will be
        self._moved = asyncio.Event()  # a window may have opened
        self._over = asyncio.Event()  # the task is to close the connection
        self._gone = asyncio.Event()  # there is no socket any more
        self._frames = Frames()
        self._coming: Iterator[Frame] | None = None  # frames that are here and not taken yet
        self._ended = ""  # why nothing comes after those
        self._culprit = 0  # the stream whose frame is taken now
        self._heard = self._unused_since = self._loop.time()  # the second as long as there are no streams
        self._pinged = False  # since it was heard
        self._answered = self._heard  # the last request that was
        self._stuck = False  # it may answer to PING, and answers no request
        self._window = self._heard  # when the idle frames were begun to be counted
        self._idle = 0
        self._h2 = _LongLived(
            H2Configuration(
                client_side=True,
                header_encoding=None,
                validate_outbound_headers=False,  # `fields_of` makes them as they shall be
                normalize_outbound_headers=False,
                validate_inbound_headers=False,  # `stream` looks at them
                normalize_inbound_headers=False,
            )
        )
        self._h2.local_settings = Settings(
            client=True, initial_values={SettingCodes.ENABLE_PUSH: 0, SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW}
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to speak."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  for mypy
        self._transport = transport
        tls = transport.get_extra_info("ssl_object")
        if tls.selected_alpn_protocol() == "h2":
            self._h2.initiate_connection()
            self._h2.increment_flow_control_window(CONNECTION_WINDOW - self._h2.inbound_flow_control_window)
            self._flush()
        else:
            self._is_h2 = False
            self._end("not HTTP/2")
        self._task = self._loop.create_task(self._run(), name="http2 connection")

    def data_received(self, data: bytes) -> None:
        """Take what came, or its first part."""
        if self._lost:
            return
        self._heard, self._pinged = self._loop.time(), False
        frames = self._frames.cut(data)
        if self._coming is None:
            self._coming = frames
            self._take_some()
        else:
            self._coming = itertools.chain(self._coming, frames)

    def connection_lost(self, error: Exception | None) -> None:
        """End, once what came before is taken."""
        self._gone.set()
        self._ended = "the listener closed the connection" if error is None else _words(error)
        if self._coming is None:
            self._end(self._ended)

    async def ready(self) -> None:
        """Return when requests may begin; raises NotOffered or RequestFailed when none ever may."""
        await self._ready.wait()
        if not self._is_h2:
            raise NotOffered
        if self._lost:
            raise RequestFailed(self._lost)
        if not self.room:
            raise RequestFailed("its HTTP/2 allows no request (MAX_CONCURRENT_STREAMS is 0)")

    @property
    def room(self) -> int:
        """Return how many more requests may begin now; 0 when the connection is lost."""
        if self._lost or self._ended or self._stuck or self._h2.highest_outbound_stream_id >= LAST_STREAM:
            return 0
        return max(0, self._most_streams - len(self._streams))

    @property
    def most_streams(self) -> int:
        """Return how many requests it carries at a time."""
        return self._most_streams

    @property
    def closed(self) -> bool:
        """Tell whether nothing of it is left, no task and no socket."""
        return self._task.done()

    async def request(self, request: Request) -> Response:
        """Return the answer; raises RequestFailed. Left early, by cancellation too, the stream is reset.

        Where a request is given up that had `silence` and more to be answered, and meanwhile no other was either, the
        connection gets no new ones: its other end may answer to PING, but what is behind it does not answer.
        """
        began = self._loop.time()
        fields = list(fields_of(request, self._listener.authority))
        number = self._h2.get_next_available_stream_id()
        answer = self._loop.create_future()
        stream = Stream(most_bytes=request.most_bytes, body=request.share, answer=answer)
        self._streams[number] = stream
        try:
            self._h2.send_headers(number, fields, end_stream=not request.body)
            fields.clear()  # thousands of requests wait
            self._flush()
            stream.sent = not request.body
            await self._send(number, stream, request.body)
            response = await stream.answer
        except H2Error:
            raise RequestFailed("the request does not fit HTTP/2") from None  # h2 would tell what is in it
        except asyncio.CancelledError:
            self._stuck |= self._loop.time() - began >= self._listener.silence and self._answered < began
            raise
        else:
            self._answered = self._loop.time()
            return response
        finally:
            del self._streams[number]
            self._unused_since = self._loop.time()
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
        if (data := self._h2.data_to_send()) and not self._gone.is_set():
            self._transport.write(data)

    async def _run(self) -> None:
        """Look after it until the end, and close it."""
        try:
            await self._attend()
        except asyncio.CancelledError:  # by `close` alone; raised on, it would keep this frame, and that the connection
            pass
        finally:
            self._lose("closed")
            self._coming = None
            self._h2.end()
            self._transport.close()
            await self._gone.wait()

    async def _attend(self) -> None:
        """Return when it is over, nobody uses it, or the listener is silent even after a PING."""
        silence, patience = self._listener.silence, self._listener.patience
        while not self._over.is_set():
            now = self._loop.time()
            is_unused = self._ready.is_set() and not self._streams
            due = self._heard + silence + (patience if self._pinged else 0.0)
            if is_unused and now >= self._unused_since + silence:
                self._lose("nobody used the connection")
                return
            if now >= due and self._pinged:
                self._lose(f"the connection is dead: nothing came for {silence + patience:g} s, not even after a PING")
                return
            if now >= due:
                self._pinged = True
                self._h2.ping(b"liveness")
                self._flush()
                continue
            with contextlib.suppress(TimeoutError):
                next_look = min(due, now + silence)  # whoever is heard meanwhile may fall silent again
                async with asyncio.timeout_at(min(next_look, self._unused_since + silence) if is_unused else next_look):
                    await self._over.wait()

    def _take_some(self) -> None:
        """Take frames that are here, as many as one may before others have their turn, and see to the rest later."""
        if self._lost:
            self._coming = None
            return
        try:
            more = self._take_portion()
        except H2Error as error:
            self._end(f"its HTTP/2 is wrong: {_wrong(error)}")
        except RequestFailed as error:
            self._end(str(error))
        except Exception as error:  # noqa: BLE001  # whatever a peer finds that h2 or we did not think of
            self._end(f"its HTTP/2 is wrong ({type(error).__name__})")
        else:
            if more:
                self._transport.pause_reading()
                self._loop.call_soon(self._take_some)
                return
            self._coming = None
            if self._ended:
                self._end(self._ended)
            self._transport.resume_reading()

    def _take_portion(self) -> bool:
        """Take up to `PORTION` of the frames that are here; return whether there may be more."""
        taken = 0
        for frame in itertools.islice(self._coming or (), PORTION):
            self._culprit = frame.stream
            self._count(frame)
            for event in self._h2.receive_data(frame.content):
                self._take(event)
            self._culprit = 0
            taken += 1
        self._flush()
        self._moved.set()
        if self._transport.get_write_buffer_size() > MOST_UNREAD:
            raise RequestFailed("the listener does not read what it is sent")
        return taken == PORTION

    def _count(self, frame: Frame) -> None:
        """Raise RequestFailed when too many frames came that bring nothing."""
        if self._heard - self._window > self._listener.silence:
            self._window, self._idle = self._heard, 0
        self._idle += frame.is_idle or frame.stream not in self._streams
        if self._idle > MOST_IDLE:
            raise RequestFailed("the listener floods the connection with frames that bring nothing")

    def _take(self, event: Event) -> None:
        match event:
            case RemoteSettingsChanged():
                if not self._ready.is_set():  # nobody could use it before
                    self._unused_since = self._loop.time()
                self._most_streams = min(self._listener.most_streams, self._h2.remote_settings.max_concurrent_streams)
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

    def _end(self, why: str) -> None:
        """Lose the connection and have it closed."""
        self._lose(why)
        self._over.set()

    def _lose(self, why: str) -> None:
        """Fail every request and take no more; only the first reason counts."""
        if self._lost:
            return
        self._lost = why
        if self._is_h2:
            with contextlib.suppress(H2Error):
                self._h2.close_connection()
                self._flush()
        for number, stream in self._streams.items():
            stream.fail(BrokeConnection(why) if number == self._culprit else RequestFailed(why))
        self._ready.set()
        self._moved.set()


def _words(error: Exception) -> str:
    """Return what went wrong with the socket; `error` keeps nothing that took part in it."""
    without_frames(error)
    return ((error.strerror if isinstance(error, OSError) else "") or str(error)).lower() or type(error).__name__

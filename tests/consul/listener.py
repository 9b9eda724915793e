"""A TLS listener on 127.0.0.1 that speaks HTTP/2 as a test tells it to, wrongly too."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Self

import attrs
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingAckReceived,
    PingReceived,
    RequestReceived,
    StreamEnded,
    StreamReset,
)
from h2.settings import SettingCodes
from hpack import NeverIndexedHeaderTuple

from tests.consul.certificates import Certificates
from tests.consul.server import DEADLINE


@attrs.define(eq=False)
class Asked:
    """One request that came, to be answered at any time, or never."""

    link: "Link"
    number: int
    headers: dict[str, str]
    unindexed: list[str]  # headers that no table of HPACK may keep
    body: bytes = b""
    reset: bool = False  # by who asked

    def begin(self, *, status: int = 200, **headers: str) -> None:
        """Send the headers of an answer."""
        fields = [(name.replace("_", "-"), value) for name, value in headers.items()]
        self.link.h2.send_headers(self.number, [(":status", str(status)), *fields])
        self.link.flush()

    def answer(self, body: bytes = b"[]", *, status: int = 200, **headers: str) -> None:
        """Send an answer that fits into the windows."""
        self.begin(status=status, **headers)
        self.link.h2.send_data(self.number, body, end_stream=True)
        self.link.flush()

    async def pour(self, size: int) -> int:
        """Send a body of `size` bytes as the windows allow; return how much went before a reset."""
        left = size
        while left and not self.reset:
            fits = min(left, self.link.h2.local_flow_control_window(self.number), 1 << 14)
            if fits > 0:
                left -= fits
                self.link.h2.send_data(self.number, b" " * fits, end_stream=not left)
                self.link.flush()
            else:
                await self.link.changed()
        return size - left

    def refuse(self) -> None:
        """Send RST_STREAM."""
        self.link.h2.reset_stream(self.number, ErrorCodes.REFUSED_STREAM)
        self.link.flush()


@attrs.define(eq=False)
class Link:
    """One connection, seen from the listener."""

    listener: "Listener"
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    h2: H2Connection
    asked: dict[int, Asked] = attrs.field(factory=dict)
    pings: int = 0
    farewell: bool = False  # the client sent GOAWAY
    frozen: bool = False  # reads no more
    gone_away: bool = False  # we sent GOAWAY

    def flush(self) -> None:
        """Send what h2 has ready."""
        self.writer.write(self.h2.data_to_send())

    async def changed(self) -> None:
        """Return after the next thing that comes to the listener."""
        async with self.listener.came:
            await self.listener.came.wait()

    def go_away(self) -> None:
        """Send GOAWAY, as a server does that stops."""
        self.h2.close_connection()
        self.flush()
        self.gone_away = True

    def cut(self) -> None:
        """Lose the connection."""
        self.writer.transport.abort()

    @property
    def held(self) -> list[Asked]:
        """Return the streams that the listener holds open."""
        open_now = {number for number, stream in self.h2.streams.items() if stream.open}
        return [asked for number, asked in self.asked.items() if number in open_now]

    async def run(self) -> None:
        """Serve until the end."""
        if self.listener.late:
            await asyncio.sleep(self.listener.late)
        self.h2.initiate_connection()
        if self.listener.most_streams is not None:
            self.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: self.listener.most_streams})
        self.flush()
        while data := await self.reader.read(1 << 16):
            if self.frozen or self.gone_away:  # h2 takes nothing after a GOAWAY
                return
            complete = [asked for event in self.h2.receive_data(data) if (asked := self.take(event))]
            self.flush()
            for asked in complete:
                if not asked.reset:
                    self.listener.answering(asked)
            async with self.listener.came:
                self.listener.came.notify_all()

    def take(self, event: Event) -> Asked | None:
        """Take note of what came; return a request that is complete now."""
        match event:
            case RequestReceived():
                headers = {name.decode(): value.decode() for name, value in event.headers}
                unindexed = [field[0].decode() for field in event.headers if isinstance(field, NeverIndexedHeaderTuple)]
                self.asked[event.stream_id] = Asked(self, event.stream_id, headers, unindexed)
            case DataReceived():
                self.asked[event.stream_id].body += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case StreamEnded():
                return self.asked[event.stream_id]
            case StreamReset():
                self.asked[event.stream_id].reset = True
            case PingReceived() | PingAckReceived():
                self.pings += 1
            case ConnectionTerminated():
                self.farewell = True
        return None


@attrs.define(eq=False)
class Listener:
    """The listener; `answering` gets every complete request and may be replaced at any time."""

    answering: Callable[[Asked], None]
    most_streams: int | None = None  # None: says nothing
    late: float = 0.0  # seconds from the end of the handshake to its settings
    links: list[Link] = attrs.field(factory=list)
    open: set[Link] = attrs.field(factory=set)
    came: asyncio.Condition = attrs.field(factory=asyncio.Condition)
    port: int = 0

    @property
    def asked(self) -> list[Asked]:
        """Return all that came, connection by connection."""
        return [asked for link in self.links for asked in link.asked.values()]

    @property
    def held(self) -> list[Asked]:
        """Return what the listener holds open."""
        return [asked for link in self.open for asked in link.held]

    async def until(self, happened: Callable[[], bool]) -> None:
        """Return when something that comes makes it so that it `happened`."""
        async with asyncio.timeout(DEADLINE), self.came:
            await self.came.wait_for(happened)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        config = H2Configuration(client_side=False, header_encoding=None)
        link = Link(self, reader, writer, H2Connection(config))
        self.links.append(link)
        self.open.add(link)
        with contextlib.suppress(OSError):
            await link.run()
        if link.frozen:
            await self.until(lambda: not link.frozen)
        self.open.discard(link)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        async with self.came:
            self.came.notify_all()

    async def thaw(self) -> None:
        """Let go of the frozen connections."""
        for link in self.links:
            link.frozen = False
        async with self.came:
            self.came.notify_all()

    @classmethod
    @contextlib.asynccontextmanager
    async def serving(
        cls,
        certificates: Certificates,
        answering: Callable[[Asked], None],
        *,
        most_streams: int | None = None,
        port: int = 0,
    ) -> AsyncIterator[Self]:
        """Serve on a free port, or a given one, while the context lasts."""
        listener = cls(answering=answering, most_streams=most_streams)
        tls = certificates.server
        tls.set_alpn_protocols(["h2"])
        tasks: set[asyncio.Task[None]] = set()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.add(asyncio.create_task(listener.serve(reader, writer), name="listener"))

        server = await asyncio.start_server(connected, "127.0.0.1", port, ssl=tls, ssl_shutdown_timeout=0.2)
        listener.port = server.sockets[0].getsockname()[1]
        try:
            yield listener
        finally:
            server.close()
            await listener.thaw()
            for link in list(listener.open):
                link.cut()
            await asyncio.gather(*tasks)


def never(_asked: Asked) -> None:
    """Answer nothing."""


def at_once(asked: Asked) -> None:
    """Answer with nothing found."""
    asked.answer(x_consul_index="7")


def client_tls(certificates: Certificates) -> ssl.SSLContext:
    """Return what a client of ours uses that offers HTTP/2."""
    context = ssl.create_default_context(cafile=certificates.ca)
    context.load_cert_chain(certificates.client, certificates.client_key)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context

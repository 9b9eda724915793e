"""Connections that carry many requests each: who gets which, when another is opened, and what a request is.

Knows nothing of a protocol: `http2` makes the connections, `client` says where to. A request goes to the first
connection that has room, so that those opened for a rush run empty afterwards and close themselves.

An answer that breaks a connection fails all requests on it, and the next one of its kind would again. So what was asked
for then goes over connections apart from the others until it was answered well a few times.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Final, Protocol

import attrs
from multidict import MultiMapping

from lvsctl.consul.budget import Body, Budget, Share

MOST: Final = 90  # connections where nobody says otherwise: of Consul's 200, as `choice` has it
FORGIVEN_AFTER: Final = 10  # good answers in which what broke a connection may share one again


@attrs.frozen(kw_only=True)
class Request:
    """One HTTP request; `target` is path and query as they are sent."""

    method: str
    target: str
    headers: Mapping[str, str] = attrs.field(repr=False)  # the token is among them
    body: bytes = b""
    most_bytes: int  # of the answer's body; a longer one is TooLarge
    share: Share = attrs.field(factory=lambda: Budget().share(), eq=False, repr=False)  # where the body is gathered


@attrs.frozen(kw_only=True)
class Response:
    """One complete HTTP answer, as the callbacks of python-consul2 get it."""

    status: int
    headers: MultiMapping[str]  # by name in any case
    body: Body


class RequestFailed(Exception):
    """There is no complete answer; the text says why."""


class TooLarge(RequestFailed):
    """The answer's body is longer than allowed; the other requests of the connection go on."""


class BrokeConnection(RequestFailed):
    """The answer was so wrong that the connection is lost, and every other request of it has failed, too."""


class NotOffered(Exception):
    """The listener answers, but does not speak the protocol of the pool."""


class Connection(Protocol):
    """What the pool wants of a connection."""

    @property
    def room(self) -> int:
        """Return how many more requests may begin now; 0 when the connection is lost."""

    @property
    def most_streams(self) -> int:
        """Return how many requests it carries at a time."""

    @property
    def closed(self) -> bool:
        """Tell whether nothing of it is left, no task and no socket."""

    async def request(self, request: Request) -> Response:
        """Return the answer; raises RequestFailed. Room is taken before anything is waited for."""

    async def close(self) -> None:
        """Close it; what is being asked fails."""


class Pool:
    """Connections for all requests: those that share, and those that spoil it. `close` it at the end.

    `connect` returns a new connection with room, or raises RequestFailed or NotOffered within a time of its own.
    """

    def __init__(self, connect: Callable[[], Coroutine[None, None, Connection]], *, most: int = MOST) -> None:
        self.most = most  # connections; may be changed at any time
        self._shared = _Lane(connect)
        self._apart = _Lane(connect)
        self._strikes: dict[str, int] = {}  # good answers that are needed until it may share again, by path

    @property
    def connections(self) -> int:
        """Return how many connections are open, or still closing."""
        return self._shared.connections + self._apart.connections

    @property
    def streams(self) -> int | None:
        """Return how many requests a connection takes; None where none is open."""
        return self._shared.streams

    async def request(self, request: Request, *, timeout: float) -> Response:
        """Return the answer; raises TimeoutError after `timeout` seconds, RequestFailed or NotOffered."""
        path = request.target.partition("?")[0]
        lane = self._apart if path in self._strikes else self._shared
        try:
            async with asyncio.timeout(timeout):
                response = await lane.request(request, self._may_open)
        except BrokeConnection:
            self._strikes[path] = FORGIVEN_AFTER
            raise
        if path in self._strikes:
            self._strikes[path] -= 1
            if not self._strikes[path]:
                del self._strikes[path]
        return response

    def _may_open(self) -> None:
        """Raise RequestFailed when no more connections may be opened."""
        if self.connections >= self.most:
            raise RequestFailed(
                f"its HTTP/2 takes so few requests on a connection ({self.streams}) that {self.most} connections, all "
                "that may be opened, are full"
            )

    async def close(self) -> None:
        """Close every connection; what is being asked fails."""
        await self._shared.close()
        await self._apart.close()


class _Lane:
    """As many connections as the requests at hand need."""

    def __init__(self, connect: Callable[[], Coroutine[None, None, Connection]]) -> None:
        self._connect = connect
        self._connections: list[Connection] = []
        self._opening: asyncio.Task[Connection] | None = None
        self._closed = False

    @property
    def connections(self) -> int:
        """Return how many connections are open, or still closing."""
        self._forget_closed()
        return len(self._connections)

    @property
    def streams(self) -> int | None:
        """Return how many requests a connection takes; None where none is open."""
        return min((each.most_streams for each in self._connections if not each.closed), default=None)

    def request(self, request: Request, may_open: Callable[[], None]) -> Awaitable[Response]:
        """Return the answer; raises RequestFailed, what `may_open` raises before another connection, or NotOffered.

        Thousands of these wait at a time, so where there is room nothing waits but the connection's own.
        """
        connection = self._with_room()
        return self._when_open(request, may_open) if connection is None else connection.request(request)

    async def _when_open(self, request: Request, may_open: Callable[[], None]) -> Response:
        """Return the answer, over a connection that is to be opened first."""
        while (connection := self._with_room()) is None:
            if self._opening is None:
                may_open()
            await self._another()
        return await connection.request(request)

    async def close(self) -> None:
        """Close every connection; what is being asked fails."""
        self._closed = True
        if self._opening:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        await asyncio.gather(*(each.close() for each in self._connections))
        self._forget_closed()

    def _with_room(self) -> Connection | None:
        for each in self._connections:  # one that is closed has no room
            if each.room > 0:
                return each
        return None

    def _forget_closed(self) -> None:
        self._connections = [each for each in self._connections if not each.closed]

    async def _another(self) -> None:
        """Return when one more connection is open: the same for all that wait, and it outlives the first of them."""
        if self._closed:
            raise RequestFailed("closed")
        if self._opening is None:
            self._opening = asyncio.create_task(self._connect(), name="consul connect")
            self._opening.add_done_callback(self._opened)  # the first callback: whoever waits finds it done
        opening = self._opening
        await asyncio.wait([opening])
        if opening.cancelled():
            raise RequestFailed("closed")
        match opening.exception():  # each raises its own: a shared one would collect the traceback of all
            case None:
                return
            case NotOffered() as error:
                raise NotOffered from error
            case RequestFailed() as error:
                raise RequestFailed(str(error)) from error
            case error:
                raise error

    def _opened(self, opening: asyncio.Task[Connection]) -> None:
        self._opening = None
        if not opening.cancelled() and opening.exception() is None:
            self._forget_closed()
            self._connections.append(opening.result())

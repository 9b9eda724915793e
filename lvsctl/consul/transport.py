"""HTTP requests to Consul: python-consul2's transport, over our own pool of connections.

Its asyncio transport opens a session for every request, drops client certificates and hides response headers. This one
puts the token into the X-Consul-Token header only, has TLS with client certificates, Unix sockets, a deadline and a
size cap for every answer, follows no redirect and takes no compression.
Where the listener offers HTTP/2 that is `pool` and `http2`, else an aiohttp session: a Consul agent has 200 connections
for each address, and one of HTTP/1.1 is one blocking query. Every error leaves here as ConsulError.
"""

import contextlib
import enum
import functools
import importlib.util
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import attrs

from lvsctl.config import ConsulConfig
from lvsctl.consul import pool
from lvsctl.consul.budget import Body, Budget, Share, TooMuch
from lvsctl.consul.pool import Connection, NotOffered, Pool, Request, RequestFailed, Response, TooLarge
from lvsctl.consul.tls import Tls, reason, tls_context
from lvsctl.consul.token import HEADER, Token, body_without, without
from lvsctl.consul.upstream import base
from lvsctl.errors import ConsulError, ConsulUnreadable
from lvsctl.memory import without_frames

CONNECT_TIMEOUT: Final = 5.0
ANSWER_TIMEOUT: Final = 10.0  # for an answer that does not block, and on top of `wait` for one that does
_NO_SHARE: Final = contextlib.nullcontext()
MAX_BODY: Final = 32 * 1024 * 1024  # bytes; 10,000 instances take about 15 MB


class Protocol(enum.Enum):
    """What requests are sent over, and why."""

    UNDECIDED = ("none yet", "")
    HTTP2 = ("HTTP/2", "")
    PLAIN = ("HTTP/1.1", "")
    NOT_OFFERED = ("HTTP/1.1", "an https consul.address whose listener offers it, as Consul's own does")
    NOT_INSTALLED = ("HTTP/1.1", "install the extra lvsctl[http2] (package h2) and start again")

    def __init__(self, version: str, needs: str) -> None:
        self.version = version
        self.needs = needs  # what HTTP/2 takes where little is missing


class Transport(base.HTTPClient):  # type: ignore[misc]  # python-consul2 is untyped
    """HTTP requests over pooled connections."""

    def __init__(self, config: ConsulConfig) -> None:
        self._config = config
        self._token = Token(config)
        self._base, self._socket = _base_url(config.address)
        self._tls = Tls(config) if config.address.startswith("https") else None
        self._tls_http2 = Tls(config, "h2", "http/1.1")
        self.budget = Budget()
        self._session: aiohttp.ClientSession | None = None
        self._pool: Pool | None = None
        self._closed = False
        self._most_connections = pool.MOST
        self._protocol = _protocol_without_asking(config.address)
        self._headers: dict[str, str] = {}  # of the last request

    @property
    def protocol(self) -> Protocol:
        """Return what requests go over; the first request, and the first after lost connections, finds out."""
        return self._protocol

    @property
    def streams(self) -> int | None:
        """Return how many requests a connection of HTTP/2 takes; None where that is not known."""
        return self._pool.streams if self._pool else None

    def allow(self, connections: int) -> None:
        """Have no more than so many connections of HTTP/2."""
        self._most_connections = connections
        if self._pool:
            self._pool.most = connections

    def get(
        self,
        callback: Callable[[Response], Any],
        path: str,
        params: Any = None,
        headers: Any = None,
        *,
        timeout: float = ANSWER_TIMEOUT,
        share: Share | None = None,
        most_bytes: int | None = None,
    ) -> Awaitable[Any]:
        """Return `callback(response)`; `timeout` is for the whole answer, in seconds, `most_bytes` its body.

        The body is counted in `share` until whoever made that ends it, else until here. Thousands of these wait at a
        time, so what they were called with is not kept meanwhile.
        """
        own = self.budget.share() if share is None else None
        request = self._made("GET", path, params, headers, share=share or own, most_bytes=most_bytes)
        return self._answered(callback, request, timeout, own=own)

    async def put(
        self, callback: Callable[[Response], Any], path: str, params: Any = None, data: Any = "", headers: Any = None
    ) -> Any:
        """Return `callback(response)`."""
        return await self._answered(callback, self._made("PUT", path, params, headers, data=data))

    async def delete(
        self, callback: Callable[[Response], Any], path: str, params: Any = None, data: Any = "", headers: Any = None
    ) -> Any:
        """Return `callback(response)`."""
        return await self._answered(callback, self._made("DELETE", path, params, headers, data=data))

    async def post(
        self, callback: Callable[[Response], Any], path: str, params: Any = None, data: Any = "", headers: Any = None
    ) -> Any:
        """Return `callback(response)`."""
        return await self._answered(callback, self._made("POST", path, params, headers, data=data))

    async def close(self) -> None:
        """Close the pooled connections; what is being asked fails, and so does what is asked from now on."""
        self._closed = True  # whoever asks on would open a session that nobody closes
        session, self._session = self._session, None
        opened, self._pool = self._pool, None
        if session is not None:
            await session.close()
        if opened is not None:
            await opened.close()

    def check(self) -> None:
        """Raise ConsulError for a token or certificate file that cannot be used."""
        self._token.header()
        if self._config.address.startswith("https"):
            tls_context(self._config)

    def _made(
        self,
        method: str,
        path: str,
        params: Any,
        headers: Any,
        *,
        data: Any = None,
        share: Share | None = None,
        most_bytes: int | None = None,
    ) -> Request:
        fields = {"Accept-Encoding": "identity", **(headers or {}), **self._token.header()}
        if fields != self._headers:  # those that wait have the same ones, once
            self._headers = fields
        return Request(
            method=method,
            target=quote(path, safe="/:") + (f"?{_encoded(params)}" if params else ""),
            headers=self._headers,
            body=data.encode() if isinstance(data, str) else data or b"",
            most_bytes=MAX_BODY if most_bytes is None else most_bytes,
            share=Budget().share() if share is None else share,
        )

    async def _answered(
        self,
        callback: Callable[[Response], Any],
        request: Request,
        timeout: float = ANSWER_TIMEOUT,
        *,
        own: Share | None = None,
    ) -> Any:
        """Return `callback(response)`, and end the share that is its own."""
        token, response = request.headers.get(HEADER, ""), None
        with _NO_SHARE if own is None else own:
            try:
                if self._protocol in (Protocol.UNDECIDED, Protocol.HTTP2):
                    with contextlib.suppress(NotOffered):  # `_connect` has taken note
                        response = await self._over_http2(request, timeout)
                if response is None:
                    response = await self._over_http1(request, timeout)
            except TimeoutError as error:
                without_frames(error)
                raise ConsulError(f"no answer from {self._config.address} within {timeout:.3g} s") from error
            except TooLarge as error:
                without_frames(error)
                raise ConsulUnreadable(f"answer is larger than {request.most_bytes >> 20} MiB") from error
            except (aiohttp.ClientError, OSError, ValueError, RequestFailed) as error:
                without_frames(error)
                if self._protocol is Protocol.NOT_OFFERED:
                    self._protocol = Protocol.UNDECIDED  # who answers next may be another
                why = without(reason(error), token) + self._with_files()
                raise ConsulError(f"cannot reach {self._config.address}: {why}") from None
            return callback(_discreet(response, token))

    def _with_files(self) -> str:
        """Return that the certificates in use are older than their files, where that may be why."""
        tls = self._tls_http2 if self._protocol in (Protocol.UNDECIDED, Protocol.HTTP2) else self._tls
        return f"; {tls.unusable}, so those read before are used" if tls and tls.unusable else ""

    async def _over_http1(self, request: Request, timeout: float) -> Response:
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_TIMEOUT)
        async with self._open().request(
            request.method,
            self._base + request.target,
            data=request.body or None,
            headers=request.headers,
            timeout=limits,
            allow_redirects=False,  # whoever it leads to would get the token
            ssl=self._tls.context() if self._tls else True,  # another context is never given an older connection
            server_hostname=self._config.server_name,
        ) as response:
            return Response(status=response.status, headers=response.headers, body=await _body(response, request))

    def _over_http2(self, request: Request, timeout: float) -> Awaitable[Response]:
        if self._closed:
            raise RequestFailed("closed")
        if self._pool is None:
            from lvsctl.consul import http2

            parts = urlsplit(self._base)
            tls = self._tls_http2
            listener = http2.Listener(
                host=parts.hostname or "",
                port=parts.port or 8501,
                authority=parts.netloc,
                server_name=self._config.server_name,
                tls=tls.context(),
                connect_timeout=CONNECT_TIMEOUT,
            )

            def connect() -> Awaitable[Connection]:
                return http2.connect(attrs.evolve(listener, tls=tls.context()))

            self._pool = Pool(functools.partial(self._connect, connect), most=self._most_connections)
        return self._pool.request(request, timeout=timeout)

    async def _connect(self, connect: Callable[[], Awaitable[Connection]]) -> Connection:
        """Return a connection for the pool, and take note of what the listener offers."""
        try:
            connection = await connect()
        except NotOffered:
            self._protocol = Protocol.NOT_OFFERED
            raise
        except TimeoutError as error:
            raise RequestFailed(f"no connection within {CONNECT_TIMEOUT:g} s") from error
        except OSError as error:
            raise RequestFailed(reason(error)) from error
        self._protocol = Protocol.HTTP2
        return connection

    def _open(self) -> aiohttp.ClientSession:
        if self._closed:
            raise RequestFailed("closed")
        if self._session is None:
            connector: aiohttp.BaseConnector
            if self._socket:
                connector = aiohttp.UnixConnector(path=self._socket, limit=0)
            else:
                connector = aiohttp.TCPConnector(limit=0)
            self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False, trust_env=False)
        return self._session


def _encoded(params: Sequence[tuple[str, str]] | Mapping[str, str]) -> str:
    """Return `params` as urllib's urlencode does, which takes five times as long for what needs no encoding."""
    pairs = params.items() if isinstance(params, Mapping) else params
    if all(text.isascii() and text.isalnum() for pair in pairs for text in pair):
        return "&".join([f"{name}={value}" for name, value in pairs])
    return urlencode(params)


def _discreet(response: Response, token: str) -> Response:
    """Return the response without the token where its body may be shown: some repeat in a refusal what was asked."""
    if response.status == 200 and response.body[:1] == b"[":
        return response
    return attrs.evolve(response, body=body_without(response.body, token))


async def _body(response: aiohttp.ClientResponse, request: Request) -> Body:
    share = request.share
    if (response.content_length or 0) > request.most_bytes:
        raise TooLarge
    async for chunk in response.content.iter_any():
        try:
            share.add(chunk)
        except TooMuch as error:
            raise RequestFailed(str(error)) from error
        if len(share) > request.most_bytes:
            raise TooLarge
    try:
        return share.take()
    except TooMuch as error:
        raise RequestFailed(str(error)) from error


def _base_url(address: str) -> tuple[str, str]:
    """Return the URL that paths are added to, and the path of a Unix socket or an empty string."""
    parts = urlsplit(address)
    if parts.scheme == "unix":
        return "http://localhost", parts.path
    default_port = 8501 if parts.scheme == "https" else 8500
    netloc = parts.netloc if parts.port else f"{parts.netloc}:{default_port}"
    return f"{parts.scheme}://{netloc}", ""


def _protocol_without_asking(address: str) -> Protocol:
    if not address.startswith("https"):
        return Protocol.PLAIN
    return Protocol.UNDECIDED if importlib.util.find_spec("h2") else Protocol.NOT_INSTALLED

"""The Consul API with our own transport: the only importer of `consul` (python-consul2).

python-consul2 brings the API; its asyncio transport opens a session for every request, drops client certificates and
hides response headers, and its constructor lets environment variables override arguments. So the API classes are set
up by hand here, and requests go over our own pool of connections: token in the X-Consul-Token header only, TLS with
client certificates, Unix sockets, a deadline and a size cap for every answer, no redirects, no compression.
Where the listener offers HTTP/2 that is `pool` and `http2`, else an aiohttp session: a Consul agent has 200 connections
for each address, and one of HTTP/1.1 is one blocking query. Every error leaves here as ConsulError.
"""

import enum
import functools
import importlib.util
import os
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import attrs
from consul import base

from lvsctl.config import ConsulConfig
from lvsctl.consul.decode import decode_answer
from lvsctl.consul.pool import Connection, NotOffered, Pool, Request, RequestFailed, Response, TooLarge
from lvsctl.core.instance import Answer, Query
from lvsctl.errors import ConsulError, ConsulRefused

WAIT: Final = 25  # seconds; times 17/16 of jitter stays below the 30 s at which Consul 1.22 cuts a request
CONNECT_TIMEOUT: Final = 5.0
ANSWER_TIMEOUT: Final = 10.0  # for an answer that does not block, and on top of `wait` for one that does
MAX_BODY: Final = 64 * 1024 * 1024  # bytes; 10,000 instances take about 15 MB
MAX_REFUSAL: Final = 300  # characters kept of the text of a refusal


class Protocol(enum.Enum):
    """What requests are sent over, and why."""

    UNDECIDED = ("none yet", "the listener was not reached")
    HTTP2 = ("HTTP/2", "the TLS listener offers it")
    PLAIN = ("HTTP/1.1", "plain HTTP has none")
    NOT_OFFERED = ("HTTP/1.1", "the listener does not offer it")
    NOT_INSTALLED = ("HTTP/1.1", "package h2 is not installed")

    def __init__(self, version: str, why: str) -> None:
        self.version = version
        self.why = why  # of HTTP/2 or its lack


class Transport(base.HTTPClient):  # type: ignore[misc]  # python-consul2 is untyped
    """HTTP requests over pooled connections."""

    def __init__(self, config: ConsulConfig) -> None:
        self._config = config
        self._token = _Token(config.token_file)
        self._base, self._socket = _base_url(config.address)
        self._session: aiohttp.ClientSession | None = None
        self._pool: Pool | None = None
        self._protocol = _protocol_without_asking(config.address)

    @property
    def protocol(self) -> Protocol:
        """Return what requests go over; the first request, and the first after lost connections, finds out."""
        return self._protocol

    async def get(
        self,
        callback: Callable[[Response], Any],
        path: str,
        params: Any = None,
        headers: Any = None,
        *,
        timeout: float = ANSWER_TIMEOUT,
    ) -> Any:
        """Return `callback(response)`; `timeout` is for the whole answer, in seconds."""
        return callback(await self._request("GET", path, params, headers, data=None, timeout=timeout))

    async def put(
        self, callback: Callable[[Response], Any], path: str, params: Any = None, data: Any = "", headers: Any = None
    ) -> Any:
        """Return `callback(response)`."""
        return callback(await self._request("PUT", path, params, headers, data=data, timeout=ANSWER_TIMEOUT))

    async def delete(
        self, callback: Callable[[Response], Any], path: str, params: Any = None, data: Any = "", headers: Any = None
    ) -> Any:
        """Return `callback(response)`."""
        return callback(await self._request("DELETE", path, params, headers, data=data, timeout=ANSWER_TIMEOUT))

    async def post(
        self, callback: Callable[[Response], Any], path: str, params: Any = None, data: Any = "", headers: Any = None
    ) -> Any:
        """Return `callback(response)`."""
        return callback(await self._request("POST", path, params, headers, data=data, timeout=ANSWER_TIMEOUT))

    async def close(self) -> None:
        """Close the pooled connections; what is being asked fails."""
        session, self._session = self._session, None
        pool, self._pool = self._pool, None
        if session is not None:
            await session.close()
        if pool is not None:
            await pool.close()

    def check(self) -> None:
        """Raise ConsulError for a token or certificate file that cannot be used."""
        self._token.header()
        if self._config.address.startswith("https"):
            _tls(self._config)

    async def _request(
        self, method: str, path: str, params: Any, headers: Any, *, data: Any, timeout: float
    ) -> Response:
        request = Request(
            method=method,
            target=quote(path, safe="/:") + (f"?{urlencode(params)}" if params else ""),
            headers={"Accept-Encoding": "identity", **(headers or {}), **self._token.header()},
            body=data.encode() if isinstance(data, str) else data or b"",
            most_bytes=MAX_BODY,
        )
        try:
            if self._protocol in (Protocol.UNDECIDED, Protocol.HTTP2):
                try:
                    return await self._over_http2(request, timeout)
                except NotOffered:
                    pass  # `_connect` has taken note
            return await self._over_http1(request, timeout)
        except TimeoutError as error:
            raise ConsulError(f"no answer from {self._config.address} within {timeout:g} s") from error
        except TooLarge as error:
            raise ConsulError(f"answer is larger than {MAX_BODY >> 20} MiB") from error
        except (aiohttp.ClientError, OSError, ValueError, RequestFailed) as error:
            if self._protocol is Protocol.NOT_OFFERED:
                self._protocol = Protocol.UNDECIDED  # who answers next may be another
            raise ConsulError(f"cannot reach {self._config.address}: {_reason(error)}") from error

    async def _over_http1(self, request: Request, timeout: float) -> Response:
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_TIMEOUT)
        async with self._open().request(
            request.method,
            self._base + request.target,
            data=request.body or None,
            headers=request.headers,
            timeout=limits,
            allow_redirects=False,
        ) as response:
            return Response(status=response.status, headers=response.headers, body=await _body(response))

    async def _over_http2(self, request: Request, timeout: float) -> Response:
        if self._pool is None:
            from lvsctl.consul import http2

            parts = urlsplit(self._base)
            listener = http2.Listener(
                host=parts.hostname or "",
                port=parts.port or 8501,
                authority=parts.netloc,
                tls=_tls(self._config, "h2", "http/1.1"),
                connect_timeout=CONNECT_TIMEOUT,
            )
            self._pool = Pool(functools.partial(self._connect, functools.partial(http2.connect, listener)))
        return await self._pool.request(request, timeout=timeout)

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
            raise RequestFailed(_reason(error)) from error
        self._protocol = Protocol.HTTP2
        return connection

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector: aiohttp.BaseConnector
            if self._socket:
                connector = aiohttp.UnixConnector(path=self._socket, limit=0)
            else:
                tls = _tls(self._config) if self._config.address.startswith("https") else True
                connector = aiohttp.TCPConnector(limit=0, ssl=tls)
            self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False, trust_env=False)
        return self._session


class _API(base.Consul):  # type: ignore[misc]  # python-consul2 is untyped
    """The parts of python-consul2 that are used, without its constructor, which obeys CONSUL_HTTP_* over arguments."""

    def __init__(self, transport: Transport) -> None:
        self.http = transport
        self.token = None  # the transport adds it, read afresh from its file
        self.dc = None
        self.scheme = "http"
        self.consistency = "default"
        self.health = base.Consul.Health(self)
        self.agent = base.Consul.Agent(self)
        self.status = base.Consul.Status(self)


class Client:
    """What lvsctl asks of Consul. Use as an async context manager."""

    def __init__(self, config: ConsulConfig) -> None:
        self._transport = Transport(config)
        self._api = _API(self._transport)

    async def __aenter__(self) -> Self:
        """Return the client; nothing is asked yet."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close the connections; what is being asked fails."""
        await self._transport.close()

    @property
    def protocol(self) -> Protocol:
        """Return what requests go over, and why."""
        return self._transport.protocol

    def check(self) -> None:
        """Raise ConsulError now for a token or certificate file that cannot be used."""
        self._transport.check()

    async def instances(self, query: Query, *, index: int = 0, wait: float = WAIT, consistent: bool = False) -> Answer:
        """Return the instances of a Consul service, failing ones included.

        With `index` above 0 Consul holds the answer back until something newer is there, at most `wait` seconds and
        a sixteenth. The answer's index is 0 when Consul sent none that could be used. With `consistent` the leader asks
        its followers first whether it still is the leader.
        Raises ConsulRefused for every status but 200, ConsulError when there is no complete answer.
        """
        params = [("dc", query.datacenter), ("near", query.near)]
        timeout = ANSWER_TIMEOUT
        if index > 0:
            params += [("index", str(index)), ("wait", f"{wait:g}s")]
            timeout += wait * 17 / 16
        answer: Answer = await self._api.http.get(
            _answer,
            f"/v1/health/service/{query.service}",  # quoted by the transport, as all paths of python-consul2
            [(name, value) for name, value in params if value] + ([("consistent", "")] if consistent else []),
            timeout=timeout,
        )
        return answer


def _answer(response: Response) -> Answer:
    if response.status != 200:
        text = response.body[:MAX_REFUSAL].decode("utf-8", "replace").strip() or "no text"
        raise ConsulRefused(response.status, text + _advice(response.status))
    header = response.headers.get
    return attrs.evolve(
        decode_answer(response.body, index=_number(header("X-Consul-Index", ""))),
        filtered=header("X-Consul-Results-Filtered-By-ACLs", "").lower() == "true",
        leader=header("X-Consul-KnownLeader", "").lower() != "false",
        last_contact=_number(header("X-Consul-LastContact", "")) / 1000,
    )


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0


def _advice(status: int) -> str:
    if status == 403:
        return "; the token needs node:read and service:read (consul.token_file)"
    return ""


async def _body(response: aiohttp.ClientResponse) -> bytes:
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > MAX_BODY:
            raise ConsulError(f"answer is larger than {MAX_BODY >> 20} MiB")
        chunks.append(chunk)
    return b"".join(chunks)


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


def _tls(config: ConsulConfig, *protocols: str) -> ssl.SSLContext:
    """Return what an https address is reached with; `protocols` are offered by ALPN, the best first."""
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
        if config.certificate_file and config.key_file:
            context.load_cert_chain(config.certificate_file, config.key_file)
    except OSError as error:
        raise ConsulError(f"consul.ca_file, certificate_file or key_file cannot be used: {_reason(error)}") from error
    if protocols:
        context.set_alpn_protocols(protocols)
    return context


def _reason(error: Exception) -> str:
    """Return an error's own words, without the addresses and objects that aiohttp wraps around them."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return _reason(error.certificate_error)
    if isinstance(error, aiohttp.ClientConnectorError):
        return _reason(error.os_error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error}"
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        if error.errno and error.errno > 0:
            return os.strerror(error.errno).lower()
        if error.strerror:
            return error.strerror.lower()
    return str(error) or type(error).__name__


class _Token:
    """The ACL token, read from its file again whenever the file changes."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._version: tuple[int, int] | None = None
        self._value = ""

    def header(self) -> dict[str, str]:
        """Return the header that carries the token, none for the anonymous one."""
        if self._path is None:
            return {}
        try:
            status = self._path.stat()
            if (status.st_mtime_ns, status.st_ino) != self._version:
                self._value = self._path.read_text("ascii").strip()
                self._version = (status.st_mtime_ns, status.st_ino)
        except (OSError, UnicodeDecodeError) as error:
            raise ConsulError(
                f"consul.token_file {self._path}: {_token_reason(error)}; "
                "make it a text file with one token that the user of lvsctl may read, or take the key out"
            ) from None
        if not self._value or any(character.isspace() for character in self._value):
            raise ConsulError(f"consul.token_file {self._path} does not hold exactly one token")
        return {"X-Consul-Token": self._value}


def _token_reason(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or "cannot be read").lower() if isinstance(error, OSError) else "is not plain text"

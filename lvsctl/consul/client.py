"""The Consul API with our own transport: the only importer of `consul` (python-consul2).

python-consul2 brings the API; its asyncio transport opens a session for every request, drops client certificates and
hides response headers, and its constructor lets environment variables override arguments. So the API classes are set
up by hand here, and requests go over our own pool of connections: token in the X-Consul-Token header only, TLS with
client certificates, Unix sockets, a deadline and a size cap for every answer, no redirects, no compression.
Where the listener offers HTTP/2 that is `pool` and `http2`, else an aiohttp session: a Consul agent has 200 connections
for each address, and one of HTTP/1.1 is one blocking query. Every error leaves here as ConsulError.
"""

import asyncio
import contextlib
import enum
import functools
import importlib.util
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import attrs
from consul import base

from lvsctl.config import ConsulConfig
from lvsctl.consul import pool
from lvsctl.consul.budget import Budget, Share, TooMuch
from lvsctl.consul.decode import MAX_INSTANCES, decode_answer
from lvsctl.consul.pace import LARGEST_INDEX, WAIT
from lvsctl.consul.pool import Connection, NotOffered, Pool, Request, RequestFailed, Response, TooLarge
from lvsctl.consul.tls import Tls, reason, tls_context
from lvsctl.consul.token import HEADER, Token, body_without, without
from lvsctl.core.instance import Answer, Query
from lvsctl.errors import ConsulError, ConsulRefused, ConsulUnreadable

CONNECT_TIMEOUT: Final = 5.0
ANSWER_TIMEOUT: Final = 10.0  # for an answer that does not block, and on top of `wait` for one that does
MAX_BODY: Final = 32 * 1024 * 1024  # bytes; 10,000 instances take about 15 MB
LARGE: Final = 256 * 1024  # bytes of a body from which on it is decoded beside the loop, which others wait for
MAX_AGENT: Final = 1024 * 1024  # bytes of what the agent says of itself; it says about 20 KiB
MAX_REFUSAL: Final = 300  # characters kept of the text of a refusal
MOST_READS: Final = 32  # answers that do not block, at one time, of each of the first two datacenters
READS_ELSEWHERE: Final = 8  # of each other one: with eight of them all take less than Consul's limit of 200 connections


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


@attrs.frozen(kw_only=True)
class Capacity:
    """How many queries Consul may be asked at a time."""

    http2: bool  # queries share connections
    limit: int | None  # connections from one address, 0 for any number; None where the agent does not tell us
    http2_needs: str = ""  # what is missing for HTTP/2 although consul.address is https
    streams: int | None = None  # queries that a connection of HTTP/2 takes; None where that is not known


class Transport(base.HTTPClient):  # type: ignore[misc]  # python-consul2 is untyped
    """HTTP requests over pooled connections."""

    def __init__(self, config: ConsulConfig) -> None:
        self._config = config
        self._token = Token(config)
        self._base, self._socket = _base_url(config.address)
        self._tls = Tls(config) if config.address.startswith("https") else None
        self.budget = Budget()
        self._session: aiohttp.ClientSession | None = None
        self._pool: Pool | None = None
        self._most_connections = pool.MOST
        self._protocol = _protocol_without_asking(config.address)

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

    async def get(
        self,
        callback: Callable[[Response], Any],
        path: str,
        params: Any = None,
        headers: Any = None,
        *,
        timeout: float = ANSWER_TIMEOUT,
        share: Share | None = None,
        most_bytes: int | None = None,
    ) -> Any:
        """Return `callback(response)`; `timeout` is for the whole answer, in seconds, `most_bytes` its body.

        The body is counted in `share` until whoever made that ends it, else until here.
        """
        with contextlib.ExitStack() as stack:
            if share is None:
                share = stack.enter_context(self.budget.share())
            return callback(
                await self._request(
                    "GET", path, params, headers, data=None, timeout=timeout, share=share, most_bytes=most_bytes
                )
            )

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

    async def _request(
        self,
        method: str,
        path: str,
        params: Any,
        headers: Any,
        *,
        data: Any,
        timeout: float,
        share: Share | None = None,
        most_bytes: int | None = None,
    ) -> Response:
        header = self._token.header()
        token = header.get(HEADER, "")
        request = Request(
            method=method,
            target=quote(path, safe="/:") + (f"?{urlencode(params)}" if params else ""),
            headers={"Accept-Encoding": "identity", **(headers or {}), **header},
            body=data.encode() if isinstance(data, str) else data or b"",
            most_bytes=MAX_BODY if most_bytes is None else most_bytes,
            share=share or Budget().share(),
        )
        try:
            if self._protocol in (Protocol.UNDECIDED, Protocol.HTTP2):
                try:
                    return _discreet(await self._over_http2(request, timeout), token)
                except NotOffered:
                    pass  # `_connect` has taken note
            return _discreet(await self._over_http1(request, timeout), token)
        except TimeoutError as error:
            raise ConsulError(f"no answer from {self._config.address} within {timeout:g} s") from error
        except TooLarge as error:
            raise ConsulUnreadable(f"answer is larger than {request.most_bytes >> 20} MiB") from error
        except (aiohttp.ClientError, OSError, ValueError, RequestFailed) as error:
            if self._protocol is Protocol.NOT_OFFERED:
                self._protocol = Protocol.UNDECIDED  # who answers next may be another
            raise ConsulError(f"cannot reach {self._config.address}: {without(reason(error), token)}") from None

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

    async def _over_http2(self, request: Request, timeout: float) -> Response:
        if self._pool is None:
            from lvsctl.consul import http2

            parts = urlsplit(self._base)
            tls = Tls(self._config, "h2", "http/1.1")
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
            raise RequestFailed(reason(error)) from error
        self._protocol = Protocol.HTTP2
        return connection

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector: aiohttp.BaseConnector
            if self._socket:
                connector = aiohttp.UnixConnector(path=self._socket, limit=0)
            else:
                connector = aiohttp.TCPConnector(limit=0)
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

    def __init__(self, config: ConsulConfig, *, max_instances: int = MAX_INSTANCES) -> None:
        self.address = config.address
        self._transport = Transport(config)
        self._api = _API(self._transport)
        self._max_instances = max_instances
        self._large = ThreadPoolExecutor(1, "decode")  # one, so that large answers are taken apart one by one
        # Who came first is served first, which a connection pool is not. A datacenter that is dead holds its requests
        # until they time out: those of the others must not wait behind them.
        self._reads: dict[str, asyncio.Semaphore] = {}

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
        self._large.shutdown(wait=False)
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
        with self._transport.budget.share() as share:  # until it is decoded
            response = await self._ask(
                f"/v1/health/service/{query.service}",  # quoted by the transport, as all paths of python-consul2
                [(name, value) for name, value in params if value] + ([("consistent", "")] if consistent else []),
                index=index,
                wait=wait,
                share=share,
            )
            if len(response.body) < LARGE:
                return _answer(response, self._max_instances, query)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._large, _answer, response, self._max_instances, query)

    def share(self) -> Share:
        """Return a part of the budget of all bodies, for `listing`; a context, until the body is decoded."""
        return self._transport.budget.share()

    async def listing(
        self, path: str, datacenter: str = "", *, share: Share, index: int = 0, wait: float = WAIT
    ) -> tuple[int, bytes]:
        """Return X-Consul-Index and body of a list of the catalogue, as `instances` does; `path` is below /v1."""
        params = [("dc", datacenter)] if datacenter else []
        response = await self._ask(f"/v1/{path}", params, index=index, wait=wait, share=share)
        return _index(response), response.body

    async def keys(self, folder: str, *, index: int = 0, wait: float = WAIT) -> tuple[int, bytes]:
        """Return X-Consul-Index and the JSON list of the keys that begin with `folder`, as `instances` does.

        Keys that the token may not read are not listed, and Consul does not say so.
        """
        response = await self._ask(f"/v1/kv/{folder}", [("recurse", "")], index=index, wait=wait, complete=_of_key)
        return _index(response), response.body or b"[]"

    async def has_key(self, key: str) -> bool:
        """Tell whether there is a key; raises ConsulRefused (403) when the token may not read it."""
        return bool((await self._ask(f"/v1/kv/{key}", [], complete=_of_key)).body)

    async def write_key(self, key: str, value: str, *, modified: int) -> bool:
        """Write a key where its ModifyIndex is still `modified`, 0 where it is not there; return whether it was."""
        return bool(await self._api.http.put(_is_done, f"/v1/kv/{key}", [("cas", str(modified))], value))

    async def delete_key(self, key: str, *, modified: int) -> bool:
        """Delete a key where its ModifyIndex is still `modified`; return whether it was."""
        return bool(await self._api.http.delete(_is_done, f"/v1/kv/{key}", [("cas", str(modified))]))

    async def capacity(self) -> Capacity | None:
        """Return how much Consul may be asked at a time; None when it does not answer."""
        try:
            limit = _limit(await self._ask("/v1/agent/self", [], most_bytes=MAX_AGENT))
        except (ConsulRefused, ConsulUnreadable):  # it takes agent:read, which is not needed for anything else
            limit = None
        except ConsulError:
            return None
        return Capacity(
            http2=self.protocol is Protocol.HTTP2,
            limit=limit,
            http2_needs=self.protocol.needs,
            streams=self._transport.streams,
        )

    def allow(self, connections: int) -> None:
        """Have no more than so many connections of HTTP/2."""
        self._transport.allow(connections)

    async def _ask(
        self,
        path: str,
        params: list[tuple[str, str]],
        *,
        index: int = 0,
        wait: float = WAIT,
        share: Share | None = None,
        complete: Callable[[Response], Response] | None = None,
        most_bytes: int | None = None,
    ) -> Response:
        """Return a complete answer; what does not block waits its turn behind others that do not."""
        blocking = [("index", str(index)), ("wait", f"{wait:g}s")] if index > 0 else []
        timeout = ANSWER_TIMEOUT + (wait * 17 / 16 if blocking else 0.0)
        async with contextlib.nullcontext() if blocking else self._turn(dict(params).get("dc", "")):
            response: Response = await self._api.http.get(
                complete or _complete,
                path,
                params + blocking,
                timeout=timeout,
                share=share,
                most_bytes=most_bytes,
            )
        return response

    def _turn(self, datacenter: str) -> asyncio.Semaphore:
        """Return what those wait for that ask about `datacenter`."""
        if datacenter not in self._reads:
            self._reads[datacenter] = asyncio.Semaphore(MOST_READS if len(self._reads) < 2 else READS_ELSEWHERE)
        return self._reads[datacenter]


def _complete(response: Response) -> Response:
    """Return the response of a request that was answered."""
    if response.status != 200:
        wait = _number(response.headers.get("Retry-After", ""))  # seconds; a date counts as none
        raise ConsulRefused(response.status, _text(response) + _advice(response.status), retry_after=wait)
    return response


def _of_key(response: Response) -> Response:
    """Return the response to a question for keys; without a body where there are none, which is an answer too."""
    if response.status == 404 and "X-Consul-Index" in response.headers:
        return attrs.evolve(response, body=b"")
    if response.status != 200:
        raise ConsulRefused(response.status, _text(response))
    return response


def _is_done(response: Response) -> bool:
    """Return what Consul says of a write that had a condition."""
    if response.status != 200:
        raise ConsulRefused(response.status, _text(response))
    return response.body.strip() == b"true"


def _text(response: Response) -> str:
    return response.body[:MAX_REFUSAL].decode("utf-8", "replace").strip() or "no text"


def _discreet(response: Response, token: str) -> Response:
    """Return the response without the token where its body may be shown: some repeat in a refusal what was asked."""
    if response.status == 200 and response.body[:1] == b"[":
        return response
    return attrs.evolve(response, body=body_without(response.body, token))


def _answer(response: Response, max_instances: int, query: Query) -> Answer:
    header = response.headers.get
    # A blocking query of health is answered from the agent's own copy from 1.10 on, and says that it knows no leader.
    streamed = header("X-Consul-Query-Backend", "") == "streaming"
    return attrs.evolve(
        decode_answer(response.body, index=_index(response), max_instances=max_instances, query=query),
        filtered=header("X-Consul-Results-Filtered-By-ACLs", "").lower() == "true",
        leader=streamed or header("X-Consul-KnownLeader", "").lower() != "false",
        last_contact=_number(header("X-Consul-LastContact", "")) / 1000,
        streamed=streamed,
    )


def _limit(response: Response) -> int | None:
    """Return the limit of connections that `/v1/agent/self` tells; None where it does not, as before Consul 1.6.3."""
    try:
        limit = json.loads(response.body)["DebugConfig"]["HTTPMaxConnsPerClient"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return limit if isinstance(limit, int) and not isinstance(limit, bool) and limit >= 0 else None


def _index(response: Response) -> int:
    """Return X-Consul-Index; 0 where it is none, or so large that a query with it would be blind to all that comes."""
    index = _number(response.headers.get("X-Consul-Index", ""))
    return index if index <= LARGEST_INDEX else 0


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0


def _advice(status: int) -> str:
    if status == 403:
        return "; the token needs node:read and service:read (consul.token_file)"
    return ""


async def _body(response: aiohttp.ClientResponse, request: Request) -> bytes:
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

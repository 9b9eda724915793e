"""What lvsctl asks of the Consul API, by python-consul2's classes and our `transport`.

python-consul2's constructor lets environment variables override arguments, so its classes are set up by hand here.
Every error leaves here as ConsulError.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self

import attrs

from lvsctl.config import ConsulConfig
from lvsctl.consul.budget import Body, Share
from lvsctl.consul.decode import MAX_INSTANCES, decode_answer
from lvsctl.consul.known import Known, digest_of
from lvsctl.consul.pace import LARGEST_INDEX, WAIT
from lvsctl.consul.pieces import Kept, Pieces
from lvsctl.consul.pool import Response
from lvsctl.consul.transport import ANSWER_TIMEOUT, Protocol, Transport
from lvsctl.consul.upstream import base
from lvsctl.core.instance import Answer, Query
from lvsctl.errors import ConsulError, ConsulRefused, ConsulUnreadable

LARGE: Final = 256 * 1024  # bytes of a body from which on it is decoded beside the loop, which others wait for
MAX_AGENT: Final = 1024 * 1024  # bytes of what the agent says of itself; it says about 20 KiB
MAX_REFUSAL: Final = 300  # characters kept of the text of a refusal
MOST_READS: Final = 32  # answers that do not block, at one time, of each of the first two datacenters
READS_ELSEWHERE: Final = 8  # of each other one: with eight of them all take less than Consul's limit of 200 connections


@attrs.frozen(kw_only=True)
class Capacity:
    """How many queries Consul may be asked at a time."""

    http2: bool  # queries share connections
    limit: int | None  # connections from one address, 0 for any number; None where the agent does not tell us
    http2_needs: str = ""  # what is missing for HTTP/2 although consul.address is https
    streams: int | None = None  # queries that a connection of HTTP/2 takes; None where that is not known


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
        self._kept = Kept()  # of those, by that thread alone
        # Who came first is served first, which a connection pool is not. A datacenter that is dead holds its requests
        # until they time out: those of the others must not wait behind them.
        self._reads: dict[str, asyncio.Semaphore] = {}
        self._most_reads = MOST_READS

    async def __aenter__(self) -> Self:
        """Return the client; nothing is asked yet."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close the connections; what is being asked fails, and so does what is asked from now on."""
        self._large.shutdown(wait=False)
        await self._transport.close()

    @property
    def protocol(self) -> Protocol:
        """Return what requests go over, and why."""
        return self._transport.protocol

    def check(self) -> None:
        """Raise ConsulError now for a token or certificate file that cannot be used."""
        self._transport.check()

    async def instances(
        self,
        query: Query,
        *,
        index: int = 0,
        wait: float = WAIT,
        consistent: bool = False,
        known: Known | None = None,
    ) -> Answer:
        """Return the instances of a Consul service, failing ones included.

        With `index` above 0 Consul holds the answer back until something newer is there, at most `wait` seconds and
        a sixteenth. The answer's index is 0 when Consul sent none that could be used. With `consistent` the leader asks
        its followers first whether it still is the leader. What is `known` is not decoded again.
        Raises ConsulRefused for every status but 200, ConsulError when there is no complete answer.
        """
        with self._transport.budget.share() as share:  # until it is decoded
            response = await self._ask(
                f"/v1/health/service/{query.service}",  # quoted by the transport, as all paths of python-consul2
                _parameters(query, consistent=consistent),
                index=index,
                wait=wait,
                share=share,
            )
            if len(response.body) < LARGE:
                return _answer(response, self._max_instances, query, known)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._large, self._large_answer, response, query, known)

    def _large_answer(self, response: Response, query: Query, known: Known | None) -> Answer:
        try:
            return _answer(response, self._max_instances, query, known, self._kept.of(query))
        finally:
            self._kept.tidy()

    def share(self) -> Share:
        """Return a part of the budget of all bodies, for `listing`; a context, until the body is decoded."""
        return self._transport.budget.share()

    async def listing(
        self, path: str, datacenter: str = "", *, share: Share, index: int = 0, wait: float = WAIT
    ) -> tuple[int, Body]:
        """Return X-Consul-Index and body of a list of the catalogue, as `instances` does; `path` is below /v1."""
        params = [("dc", datacenter)] if datacenter else []
        response = await self._ask(f"/v1/{path}", params, index=index, wait=wait, share=share)
        return _index(response), response.body

    async def keys(self, folder: str, *, index: int = 0, wait: float = WAIT) -> tuple[int, Body]:
        """Return X-Consul-Index and the JSON list of the keys that begin with `folder`, as `instances` does.

        Keys that the token may not read are not listed, and Consul does not say so.
        """
        response = await self._ask(f"/v1/kv/{folder}", [("recurse", "")], index=index, wait=wait, complete=_of_key)
        return _index(response), response.body or b"[]"

    async def key_index(self, key: str) -> int:
        """Return the index of a key, that of the whole KV where it is not there: no loss of data raises that one.

        Raises ConsulRefused (403) when the token may not read it.
        """
        return _index(await self._ask(f"/v1/kv/{key}", [], complete=_of_key))

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
        """Have no more connections of HTTP/2 than so many; of HTTP/1.1 half as many for what does not block."""
        self._transport.allow(connections)
        most = MOST_READS if self.protocol is Protocol.HTTP2 else max(1, min(MOST_READS, connections // 2))
        if most != self._most_reads:
            self._most_reads = most
            self._reads = {}  # who waits for a turn of before gets it

    def _ask(
        self,
        path: str,
        params: list[tuple[str, str]],
        *,
        index: int = 0,
        wait: float = WAIT,
        share: Share | None = None,
        complete: Callable[[Response], Response] | None = None,
        most_bytes: int | None = None,
    ) -> Awaitable[Response]:
        """Return a complete answer; what does not block waits its turn behind others that do not."""
        blocking = index > 0

        def asked() -> Awaitable[Response]:
            answer: Awaitable[Response] = self._api.http.get(
                complete or _complete,
                path,
                params + _blocking(index, wait) if blocking else params,
                timeout=ANSWER_TIMEOUT + (wait * 17 / 16 if blocking else 0.0),
                share=share,
                most_bytes=most_bytes,
            )
            return answer

        return asked() if blocking else self._in_turn(dict(params).get("dc", ""), asked)

    async def _in_turn(self, datacenter: str, asked: Callable[[], Awaitable[Response]]) -> Response:
        async with self._turn(datacenter):
            return await asked()

    def _turn(self, datacenter: str) -> asyncio.Semaphore:
        """Return what those wait for that ask about `datacenter`."""
        if datacenter not in self._reads:
            most = self._most_reads if len(self._reads) < 2 else min(self._most_reads, READS_ELSEWHERE)
            self._reads[datacenter] = asyncio.Semaphore(most)
        return self._reads[datacenter]


def _parameters(query: Query, *, consistent: bool) -> list[tuple[str, str]]:
    named = [("dc", query.datacenter), ("near", query.near)]
    return [(name, value) for name, value in named if value] + ([("consistent", "")] if consistent else [])


def _blocking(index: int, wait: float) -> list[tuple[str, str]]:
    return [("index", str(index)), ("wait", f"{wait:g}s")]


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


def _answer(
    response: Response, max_instances: int, query: Query, known: Known | None, pieces: Pieces | None = None
) -> Answer:
    header, known = response.headers.get, known or Known()
    digest = digest_of(response.body)
    said = known.answer(digest)
    if said is None:
        said = decode_answer(response.body, index=0, max_instances=max_instances, query=query, pieces=pieces)
        known.learn(digest, said)
    # A blocking query of health is answered from the agent's own copy from 1.10 on, and says that it knows no leader.
    streamed = header("X-Consul-Query-Backend", "") == "streaming"
    return Answer(
        instances=said.instances,
        malformed=said.malformed,
        size=said.size,
        index=_index(response),
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

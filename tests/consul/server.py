"""A Consul that misbehaves on purpose: a real HTTP server on 127.0.0.1 that answers what a test tells it to."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import attrs
from aiohttp import web

from lvsctl.core.instance import Instance

Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]
DEADLINE = 10.0  # seconds a test waits for what must come


def entry_of(instance: Instance) -> dict[str, object]:
    """Return an instance as Consul writes it."""
    checks = [
        {"CheckID": check.check_id, "Name": check.name, "Status": check.health.word, "Output": check.output}
        for check in instance.checks
    ]
    return {
        "Node": {"Node": instance.node, "Address": instance.address},
        "Service": {
            "ID": instance.instance_id,
            "Address": instance.address,
            "Port": instance.port,
            "Tags": list(instance.tags),
            "Meta": dict(instance.meta),
        },
        "Checks": checks,
    }


def answer(*instances: Instance, index: str | None = "7") -> web.Response:
    """Return a complete answer of Consul."""
    headers = {} if index is None else {"X-Consul-Index": index}
    return web.json_response([entry_of(each) for each in instances], headers=headers)


@attrs.define
class Consul:
    """The server; `answering` may be replaced at any time, `requests` has all that came but questions to the agent.

    `limit` is how many connections the agent says that it takes; None: it does not say.
    """

    answering: Answering
    address: str = ""
    limit: int | None = 200
    told: int = 0  # how often the agent was asked for it
    requests: list[web.Request] = attrs.field(factory=list)
    _came: asyncio.Condition = attrs.field(factory=asyncio.Condition)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        if request.path == "/v1/agent/self":
            self.told += 1
            if self.limit is None:
                return web.Response(status=403, text="Permission denied")
            return web.json_response({"DebugConfig": {"HTTPMaxConnsPerClient": self.limit}})
        async with self._came:
            self.requests.append(request)
            self._came.notify_all()
        return await self.answering(request)

    async def came(self, number: int) -> web.Request:
        """Return request `number`, from 1, when it has come."""
        async with asyncio.timeout(DEADLINE), self._came:
            await self._came.wait_for(lambda: len(self.requests) >= number)
        return self.requests[number - 1]

    def indexes(self) -> list[str | None]:
        """Return the index of each request, None for one that does not block."""
        return [request.query.get("index") for request in self.requests]


@contextlib.asynccontextmanager
async def consul(
    answering: Answering, *, tls: ssl.SSLContext | None = None, unix: Path | None = None, port: int = 0
) -> AsyncIterator[Consul]:
    """Serve on 127.0.0.1, on a free port unless one is given, or on a Unix socket, while the context lasts."""
    server = Consul(answering=answering)
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        if unix:
            await web.UnixSite(runner, str(unix)).start()
            server.address = f"unix://{unix}"
        else:
            await web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls).start()
            host, port = runner.addresses[0][:2]
            server.address = f"{'https' if tls else 'http'}://{host}:{port}"
        yield server
    finally:
        await runner.cleanup()


def always(*instances: Instance, index: str | None = "7") -> Answering:
    """Return what answers every request alike, at once."""

    async def answering(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0)
        return answer(*instances, index=index)

    return answering


def refusing(status: int, text: str = "") -> Answering:
    """Return what answers every request with an error that carries an index."""

    async def answering(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0)
        return web.Response(status=status, text=text, headers={"X-Consul-Index": "999"})

    return answering


@attrs.define
class Blocking:
    """Answers as Consul does: at once to a request without the current index, else when something new is there."""

    instances: tuple[Instance, ...]
    index: int = 10
    _changed: asyncio.Condition = attrs.field(factory=asyncio.Condition)

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        async with self._changed:
            await self._changed.wait_for(lambda: int(request.query.get("index", 0)) != self.index)
        return answer(*self.instances, index=str(self.index))

    async def change(self, *instances: Instance, index: int | None = None) -> None:
        """Have something new, at the next index or a given one."""
        async with self._changed:
            self.instances = instances
            self.index = self.index + 1 if index is None else index
            self._changed.notify_all()


def to_json(*instances: Instance) -> bytes:
    """Return the body of a complete answer."""
    return json.dumps([entry_of(each) for each in instances]).encode()

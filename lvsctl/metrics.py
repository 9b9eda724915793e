"""The metrics endpoint: `/metrics` for Prometheus, `/livez` and `/readyz` for whoever restarts us or sends traffic.

`core.measures` says which metrics there are; here they are rendered, with a registry of our own, and served over HTTP.
Nobody who asks can hurt: no request reads the kernel's table (the last cycle's reading is shown); what is rendered
serves every request of the next half second, or of as long as it took; a connection gets one answer and `LONGEST`
seconds in all, and beyond `MOST` at a time they are closed.

Source: Prometheus exposition formats, text format 0.0.4; metric and label naming.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Sequence
from itertools import accumulate
from typing import Final, Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from lvsctl.config_addresses import Endpoint
from lvsctl.core.measures import METRICS, Histogram, Metric, Seen, counted
from lvsctl.core.standing import Standings
from lvsctl.core.tally import BUCKETS
from lvsctl.errors import StateError
from netlink.types import endpoint

REUSED: Final = 0.5  # seconds for which what was rendered serves others, too
MOST: Final = 32  # connections at a time
LONGEST: Final = 10.0  # seconds that a connection may last
PIECE: Final = 1 << 16  # bytes of a page that are given to the socket at a time
LONGEST_LINE: Final = 2048  # bytes of the request line, and of a header


class Source(Protocol):
    """Who knows what is served; nothing here waits for Consul or the kernel."""

    def seen(self) -> Seen:
        """Return all that the metrics show, as it is now, but the standings."""
        ...

    def why_not_alive(self) -> str:
        """Return why this process should be restarted, in a line; empty when it should not."""
        ...

    def why_not_ready(self) -> str:
        """Return why this director should get no traffic yet, in a line; empty when it may."""
        ...


@contextlib.asynccontextmanager
async def serving(listen: Endpoint, source: Source) -> AsyncIterator[None]:
    """Serve what `source` knows on `listen` while the context lasts; raises StateError where that cannot be had."""
    page = _Page(source)

    async def metrics(request: web.Request) -> web.StreamResponse:
        return await _sent(request, await page.parts())

    async def livez(_request: web.Request) -> web.StreamResponse:
        return _closing(_probe("alive", source.why_not_alive()))

    async def readyz(_request: web.Request) -> web.StreamResponse:
        return _closing(_probe("ready", source.why_not_ready()))

    application = web.Application()
    application.router.add_get("/metrics", metrics)
    application.router.add_get("/livez", livez)
    application.router.add_get("/readyz", readyz)
    runner = web.AppRunner(
        application,
        access_log=None,
        shutdown_timeout=1.0,
        lingering_time=0,
        max_line_size=LONGEST_LINE,
        max_field_size=LONGEST_LINE,
    )
    await runner.setup()
    try:
        server = await _listening(listen, runner)
        closing = asyncio.create_task(_close_old(runner), name="metrics connections")
        try:
            yield
        finally:
            closing.cancel()
            server.close()
    finally:
        page.close()
        await runner.cleanup()


async def _listening(listen: Endpoint, runner: web.AppRunner) -> asyncio.Server:
    """Return a server that hands every connection to `runner`, up to `MOST` at a time."""
    server = _server(runner)

    def connection() -> asyncio.Protocol:
        return _Refusal() if len(server.connections) >= MOST else server()

    try:
        return await asyncio.get_running_loop().create_server(connection, str(listen.address), listen.port)
    except OSError as error:
        reason = (os.strerror(error.errno) if error.errno else str(error)).lower()  # asyncio's words are a sentence
        where = endpoint(listen.address, listen.port)
        raise StateError(
            f"metrics.listen {where}: {reason}; write an address of this machine and a free port"
        ) from error


async def _close_old(runner: web.AppRunner) -> None:
    """Close every connection that has lasted for `LONGEST` seconds, whatever it does; none is remembered longer."""
    since: dict[web.RequestHandler, float] = {}
    while True:
        await asyncio.sleep(LONGEST / 10)
        now = time.monotonic()
        since = {each: since.get(each, now) for each in _server(runner).connections}
        for each, began in since.items():
            if now - began >= LONGEST:
                each.force_close()


def _server(runner: web.AppRunner) -> web.Server:
    assert runner.server is not None  # noqa: S101  for mypy: it has been set up
    return runner.server


class _Refusal(asyncio.Protocol):
    """Closes a connection as soon as it is made."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _closing(response: web.StreamResponse) -> web.StreamResponse:
    """Return `response` as the only one of its connection: one that lasts would keep a place from others."""
    response.force_close()
    return response


def _probe(word: str, why_not: str) -> web.Response:
    return web.Response(status=503 if why_not else 200, text=f"{f'not {word}: {why_not}' if why_not else word}\n")


async def _sent(request: web.Request, parts: Sequence[bytes]) -> web.StreamResponse:
    """Send `parts` as they are taken: of a page for thousands of virtual servers nothing is in memory twice."""
    response = web.StreamResponse(headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
    response.content_length = sum(map(len, parts))
    _closing(response)
    await response.prepare(request)
    for part in parts if request.method != "HEAD" else ():
        for start in range(0, len(part), PIECE):
            await response.write(part[start : start + PIECE])
    await response.write_eof()
    return response


class _Page:
    """What `/metrics` shows: rendered once for all who ask within `REUSED` seconds, beside the loop."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._rendering: asyncio.Task[Sequence[bytes]] | None = None
        self._forgetting: asyncio.TimerHandle | None = None
        self._standings: Standings = {}  # when it was last rendered

    async def parts(self) -> Sequence[bytes]:
        """Return the page, in parts."""
        if self._rendering is None:
            self._rendering = asyncio.create_task(self._render(), name="metrics")
        return await asyncio.shield(self._rendering)  # one who goes away does not take it from the others

    def close(self) -> None:
        """Render no more."""
        if self._forgetting:
            self._forgetting.cancel()
        if self._rendering:
            self._rendering.cancel()

    async def _render(self) -> Sequence[bytes]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            seen = await asyncio.to_thread(counted, self._source.seen(), self._standings)
            self._standings = seen.standings
            return await asyncio.to_thread(render, seen)
        finally:
            self._forgetting = loop.call_later(max(REUSED, loop.time() - began), self._forget)

    def _forget(self) -> None:
        self._rendering = None


def render(seen: Seen) -> Sequence[bytes]:
    """Return the page in Prometheus's text format, in parts: what was seen, and what the kernel says of this process.

    One family after the other: of all lines at a time, with thousands of virtual servers, 20 MB would be in memory.
    """
    process = CollectorRegistry()
    ProcessCollector(registry=process)
    return (*(_rendered(_family(metric, seen)) for metric in METRICS), generate_latest(process))


def _rendered(family: Family) -> bytes:
    registry = CollectorRegistry()
    registry.register(_Collected(family))
    return generate_latest(registry)


class _Collected(Collector):
    """One metric with its values, as prometheus_client takes it."""

    def __init__(self, family: Family) -> None:
        self._family = family

    def collect(self) -> tuple[Family]:
        """Return it."""
        return (self._family,)

    def describe(self) -> tuple[Family, ...]:
        """Return nothing: the names are our own, and a test sees to it that none is there twice."""
        return ()


def _family(metric: Metric | Histogram, seen: Seen) -> Family:
    if isinstance(metric, Histogram):
        durations = metric.durations(seen)
        bounds = [*map(str, BUCKETS), "+Inf"]
        buckets = list(zip(bounds, accumulate(durations.counts), strict=True))
        return HistogramMetricFamily(metric.name, metric.doc, buckets=buckets, sum_value=durations.total)
    family = (CounterMetricFamily if metric.only_grows else GaugeMetricFamily)(
        metric.name, metric.doc, labels=metric.labels
    )
    for labels, value in metric.values(seen):
        family.add_metric(labels, value)
    return family

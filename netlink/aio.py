"""The IPVS client for asyncio: `client.Client` with every method awaited.

    async with AsyncIPVS() as ipvs:
        print((await ipvs.observe()).table)

The kernel answers inside a system call, so there is nothing that an event loop could wait for: a large table just takes
its milliseconds. They pass in a thread of the client's own, one request after the other. Hence any number of tasks may
use one client, and a task that is cancelled leaves it usable: what has not begun is never done, and what has begun is
done to its end, with nobody to hear of it.

Shell around `ipvs`. The package does not import it: asyncio takes its time.
"""

import asyncio
import concurrent.futures
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Final, ParamSpec, Self, TypeVar

from netlink.client import Client
from netlink.errors import Refused
from netlink.glance import Glance
from netlink.ipvs import IPVS
from netlink.namespace import Namespace
from netlink.requests import Request
from netlink.types import Connection, Info, Lacking, Observed, SyncDaemon, Timeouts, VirtualServerKey

Given = ParamSpec("Given")
Answer = TypeVar("Answer")

_AT_ONCE: Final = 1000  # connections read in one go


class AsyncIPVS:
    """The IPVS table of a network namespace, for any number of tasks of one event loop.

    An asynchronous context manager, or `open` and `close`. `open_client`, called in the client's thread, is for who
    wants another client behind it than an `IPVS` of `namespace`.
    """

    def __init__(self, namespace: Namespace | None = None, *, open_client: Callable[[], Client] | None = None) -> None:
        self._open_client = partial(IPVS, namespace) if open_client is None else open_client
        self._client: Client | None = None
        self._closed = False
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="netlink")

    async def open(self) -> None:
        """Open the client; Unavailable where IPVS is not there or not permitted."""
        if self._closed:
            raise RuntimeError("this client is closed")
        await self._in_thread(self._open)

    async def close(self) -> None:
        """Close the client after what it is doing; a second call does nothing. Cancelled or not, it will be closed."""
        if not self._closed:
            self._closed = True
            closing = self._thread.submit(self._close)
            self._thread.shutdown(wait=False)
            await asyncio.shield(asyncio.wrap_future(closing))

    async def __aenter__(self) -> Self:
        """Return the client, opened."""
        try:
            await self.open()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client."""
        await self.close()

    # ---- Client, awaited

    async def observe(self, only: Iterable[VirtualServerKey] | None = None) -> Observed:
        """Return the table with its counters, or of it `only` some virtual servers: see `IPVS.observe`."""
        return await self._in_thread(self._opened().observe, None if only is None else tuple(only))

    async def glance(self) -> Glance:
        """Return what the table looks like, cheaply: see `IPVS.glance`."""
        return await self._in_thread(self._opened().glance)

    async def census(self) -> Mapping[VirtualServerKey, int]:
        """Return how many real servers each virtual server of IPv4 has: see `IPVS.census`."""
        return await self._in_thread(self._opened().census)

    async def forget(self) -> None:
        """Give back memory: see `IPVS.forget`."""
        await self._in_thread(self._opened().forget)

    async def connections(self) -> AsyncGenerator[Connection, None]:
        """Yield the connections that the kernel keeps: see `IPVS.connections`.

        They are read a thousand at a time. Who does not go on to the end closes it, by `contextlib.aclosing`.
        """
        connections = self._opened().connections()
        try:
            while some := await self._in_thread(_some, connections):
                for connection in some:
                    yield connection
        finally:
            if not self._closed:
                self._thread.submit(connections.close)

    async def lacking(self, *, schedulers: Iterable[str] = (), persistence_engines: Iterable[str] = ()) -> Lacking:
        """Return which of these the kernel does not have: see `IPVS.lacking`."""
        wanted = partial(
            self._opened().lacking, schedulers=tuple(schedulers), persistence_engines=tuple(persistence_engines)
        )
        return await self._in_thread(wanted)

    async def timeouts(self) -> Timeouts:
        """Return the timeouts of idle connections."""
        return await self._in_thread(self._opened().timeouts)

    async def sync_daemons(self) -> tuple[SyncDaemon, ...]:
        """Return the synchronisation daemons that run, at most one of each role."""
        return await self._in_thread(self._opened().sync_daemons)

    async def info(self) -> Info:
        """Return the version and connection table size of the kernel's IPVS."""
        return await self._in_thread(self._opened().info)

    async def apply(self, requests: Sequence[Request]) -> list[Refused | None]:
        """Send `requests` in order; return one result each: see `IPVS.apply`.

        When this is cancelled, all of them are sent or none.
        """
        return await self._in_thread(self._opened().apply, tuple(requests))

    # ---- the thread

    async def _in_thread(self, function: Callable[Given, Answer], *given: Given.args, **named: Given.kwargs) -> Answer:
        future = self._thread.submit(function, *given, **named)
        return await asyncio.wrap_future(future)

    def _opened(self) -> Client:
        if self._client is None or self._closed:
            raise RuntimeError("this client is not open")
        return self._client

    def _open(self) -> None:
        if self._client is None:
            self._client = self._open_client()

    def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()


def _some(connections: Generator[Connection, None, None]) -> list[Connection]:
    return list(islice(connections, _AT_ONCE))

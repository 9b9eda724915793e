"""What a client does and sees: short HTTP connections, held connections, UDP requests.

All in the lab's event loop on sockets of the client's host, so that one processor is enough for the client, the
servers and the kernel between them. Counts are by the name the server answered with.
"""

import asyncio
import contextlib
import itertools
import os
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Self

import attrs

from tests.lab.hosts import Host

FIRST_PORT: Final = 10_000  # of those that we choose, below those that the kernel draws
PORTS: Final = 20_000

_ports = itertools.count()


@attrs.frozen(kw_only=True)
class Failure:
    """One request without an answer."""

    after: float  # seconds since the traffic began
    reason: str


@attrs.frozen(kw_only=True)
class Report:
    """What the client saw."""

    answers: Mapping[str, int]  # by server name
    failures: tuple[Failure, ...]
    seconds: float
    slowest: float  # seconds the slowest answer took

    @property
    def requests(self) -> int:
        return sum(self.answers.values()) + len(self.failures)

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        """Return one line, and one for each of the first failures."""
        shares = ", ".join(f"{name} {count}" for name, count in sorted(self.answers.items()))
        counts = f"{self.requests} requests in {self.seconds:.1f} s ({self.rate:.0f}/s), {len(self.failures)} failed"
        lines = [f"{counts}, slowest {self.slowest * 1000:.0f} ms: {shares or 'no answer'}"]
        lines += [f"  failed after {each.after:.2f} s: {each.reason}" for each in self.failures[:10]]
        return "\n".join(lines)


class Traffic:
    """Requests at a steady rate from a host until told to stop; a context manager that begins and stops.

    `rate` is what is aimed at, per second; at most `concurrency` requests run at once, and a request that finds no
    room waits for it. Every request is a new connection (UDP: a new source port) with a deadline of `patience` seconds.
    The kernel draws the source ports of TCP, and within minutes some again; with `new_ports` none comes twice in
    `PORTS` requests.
    """

    def __init__(
        self,
        host: Host,
        address: str,
        port: int,
        *,
        udp: bool = False,
        path: str = "/",
        rate: float = 50.0,
        concurrency: int = 8,
        patience: float = 3.0,
        new_ports: bool = False,
    ) -> None:
        self.host = host
        self.rate = rate
        self.concurrency = concurrency
        self.patience = patience

        def ask() -> Awaitable[str]:
            if udp:
                return _ask_udp(host, address, port, path)
            return _ask_http(host, address, port, path, source=_next_port() if new_ports else 0)

        self._ask: Callable[[], Awaitable[str]] = ask
        self._answers: Counter[str] = Counter()
        self._failures: list[Failure] = []
        self._slowest = 0.0
        self._began = self._ended = 0.0
        self._running = False

    def __enter__(self) -> Self:
        """Begin to ask."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop asking."""
        self.stop()

    def start(self) -> None:
        """Begin to ask."""
        self._running = True
        self._began = time.monotonic()
        self._done = self.host.lab.begin(self._run())

    def stop(self) -> Report:
        """Return the report after the last request was answered or given up."""
        self._running = False
        self._done.result(self.patience + 10)
        return self.report()

    def count(self, requests: int) -> Report:
        """Return the report of exactly `requests` requests, asked one after the other."""

        async def ask() -> None:
            for _ in range(requests):
                await self._one()

        self._began = time.monotonic()
        self.host.lab.wait_for(ask(), requests * self.patience + 10)
        self._ended = time.monotonic()
        return self.report()

    def report(self) -> Report:
        """Return what was seen so far."""
        end = self._ended or time.monotonic()
        return Report(
            answers=dict(self._answers),
            failures=tuple(self._failures),
            seconds=end - self._began,
            slowest=self._slowest,
        )

    async def _run(self) -> None:
        room = asyncio.Semaphore(self.concurrency)
        tasks: set[asyncio.Task[None]] = set()
        asked = 0

        def finished(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            room.release()

        while self._running:
            await room.acquire()
            task = asyncio.create_task(self._one(), name="request")
            tasks.add(task)
            task.add_done_callback(finished)
            asked += 1
            # By the clock and not by pauses, so that a slow moment is made up for; yield in any case.
            await asyncio.sleep(max(0.0, self._began + asked / self.rate - time.monotonic()))
        if tasks:
            await asyncio.wait(tasks)
        self._ended = time.monotonic()

    async def _one(self) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(self.patience):
                name = await self._ask()
        except TimeoutError:
            self._fail(began, f"no answer in {self.patience:g} s")
        except (OSError, ValueError) as error:
            self._fail(began, _words(error))
        else:
            self._answers[name] += 1
            self._slowest = max(self._slowest, time.monotonic() - began)

    def _fail(self, began: float, reason: str) -> None:
        self._failures.append(Failure(after=began - self._began, reason=reason))


class HeldConnections:
    """Connections that stay open and exchange a byte every `every` seconds; says which broke, and why."""

    def __init__(self, host: Host, address: str, port: int, *, count: int = 1, every: float = 0.2) -> None:
        self.host = host
        self.every = every
        self.patience = 3.0
        self.names: list[str] = []  # of the servers, in the order opened
        self.broken: dict[int, Failure] = {}  # by position in `names`
        self.exchanged = 0
        self._target = (address, port)
        self._count = count
        self._tasks: list[asyncio.Task[None]] = []

    def __enter__(self) -> Self:
        """Open them, one after the other."""
        self.host.lab.wait_for(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        """Close those that live."""
        self.close()

    def close(self) -> None:
        """Close those that live."""
        self.host.lab.wait_for(self._close())

    async def _open(self) -> None:
        self._began = time.monotonic()
        for position in range(self._count):
            connection = await _connected(self.host, *self._target)
            name = await _hold(connection)
            self.names.append(name)
            self._tasks.append(asyncio.create_task(self._keep(position, connection), name=f"held {position}"))

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep(self, position: int, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with connection:
            try:
                while True:
                    async with asyncio.timeout(self.patience):
                        await loop.sock_sendall(connection, b".")
                        if not await loop.sock_recv(connection, 1):
                            raise ConnectionError("closed by the server")
                    self.exchanged += 1
                    await asyncio.sleep(self.every)
            except OSError as error:  # TimeoutError is one
                reason = f"no answer in {self.patience:g} s" if isinstance(error, TimeoutError) else _words(error)
                self.broken[position] = Failure(after=time.monotonic() - self._began, reason=reason)


def _words(error: Exception) -> str:
    """Return the kernel's words where there are some: asyncio says "Connect call failed" for all of them."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__


def _next_port() -> int:
    """Return a source port that had its last turn `PORTS` requests ago."""
    return FIRST_PORT + next(_ports) % PORTS


async def _connected(host: Host, address: str, port: int, *, source: int = 0) -> socket.socket:
    """Return a connection from port `source`, one that the kernel draws when that is 0."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = host.socket(family, socket.SOCK_STREAM)
    try:
        if source:
            made.bind(("", source))
        await asyncio.get_running_loop().sock_connect(made, (address, port))
    except BaseException:
        made.close()
        raise
    return made


async def _ask_http(host: Host, address: str, port: int, path: str, *, source: int) -> str:
    """Return the server's name; ValueError for an answer that is not a whole 200."""
    loop = asyncio.get_running_loop()
    with await _connected(host, address, port, source=source) as connection:
        await loop.sock_sendall(connection, f"GET {path} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while data := await loop.sock_recv(connection, 4096):
            answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 ") or not body.endswith(b"\n"):
        raise ValueError(f"bad answer: {answer[:60]!r}")
    return body.decode().strip()


async def _hold(connection: socket.socket) -> str:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, b"GET /hold HTTP/1.1\r\nHost: lab\r\n\r\n")
    answer = b""
    while not answer.partition(b"\r\n\r\n")[2].endswith(b"\n"):
        data = await loop.sock_recv(connection, 4096)
        if not data:
            raise ConnectionError("closed before it was held")
        answer += data
    return answer.partition(b"\r\n\r\n")[2].decode().strip()


async def _ask_udp(host: Host, address: str, port: int, path: str) -> str:
    """Return the server's name."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.closing(host.socket(family, socket.SOCK_DGRAM)) as made:
        # Not one that the kernel draws: IPVS sends a port that was used a moment ago to the real server of that time.
        made.bind(("", _next_port()))
        await loop.sock_connect(made, (address, port))
        await loop.sock_sendall(made, path.encode())
        return (await loop.sock_recv(made, 2048)).decode()

"""Real-server programs, run in the lab's event loop on their host's sockets.

They say who they are, so that a client can count. Not of production quality: requests are small and well-formed.
"""

import asyncio
import socket
import struct
from collections.abc import Sequence

from tests.lab.hosts import Host

IP_PKTINFO = 8  # linux/in.h; Python has the IPv6 one only
ANY = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}  # noqa: S104 - inside a network namespace
FAMILIES = tuple(ANY)


class HttpServer:
    """An HTTP server that answers with its name, over IPv4 and IPv6, on each of its ports.

    `GET /` 200 and the name; `GET /health` 200, or 503 when `healthy` is False; `GET /hold` the name, and then the
    connection stays and every byte comes back; `GET /slow` the name after `delay` seconds.
    """

    def __init__(self, host: Host, *, ports: Sequence[int] = (80,), name: str = "", delay: float = 1.0) -> None:
        self.host = host
        self.ports = tuple(ports)
        self.name = name or host.name
        self.healthy = True
        self.delay = delay
        self.requests = 0
        self.connections: set[_HttpConnection] = set()
        self._listening: list[asyncio.Server] = []

    def start(self) -> None:
        """Listen; the ports are open when it returns."""
        self.host.lab.wait_for(self._start())
        self.host.lab.at_exit(self.kill)

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        for port in self.ports:
            for family in FAMILIES:
                server = await loop.create_server(
                    lambda: _HttpConnection(self),
                    sock=_bound(self.host, family, socket.SOCK_STREAM, port),
                    backlog=1024,
                )
                self._listening.append(server)

    def stop(self, within: float = 10.0) -> None:
        """Stop gracefully: no new connections, what runs is finished; cut what is left after `within` seconds."""
        self.host.lab.wait_for(self._stop(within), within + 5)

    async def _stop(self, within: float) -> None:
        await self._close_listeners()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        for connection in tuple(self.connections):
            connection.close_when_idle()
        while self.connections and loop.time() < deadline:
            await asyncio.wait([each.lost for each in self.connections], timeout=deadline - loop.time())
        await self._kill()

    def kill(self) -> None:
        """Stop abruptly: every connection is reset."""
        self.host.lab.wait_for(self._kill())

    async def _kill(self) -> None:
        await self._close_listeners()
        for connection in tuple(self.connections):
            connection.transport.abort()

    async def _close_listeners(self) -> None:
        """Accept nothing more, then close: asyncio loses a connection that it accepts while the server closes."""
        loop = asyncio.get_running_loop()
        closing, self._listening = self._listening, []
        for server in closing:
            for each in server.sockets:
                loop.remove_reader(each.fileno())
        for _ in range(3):  # turns of the loop in which what was accepted gets its transport
            await asyncio.sleep(0)
        for server in closing:
            server.close()


class _HttpConnection(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, server: HttpServer) -> None:
        self.server = server
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._received = b""
        self._held = False
        self._busy = False
        self._last = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.server.connections.discard(self)
        if not self.lost.done():
            self.lost.set_result(None)

    @property
    def _free(self) -> bool:
        """Say whether it may answer the next request."""
        return not (self._busy or self._held)

    def close_when_idle(self) -> None:
        """Close now when no request runs, else after it."""
        self._last = True
        if self._free and not self._received:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self._held:
            self.transport.write(data)
            return
        self._received += data
        while b"\r\n\r\n" in self._received and self._free:
            head, self._received = self._received.split(b"\r\n\r\n", 1)
            self._last |= b"connection: close" in head.lower()
            self.server.requests += 1
            self._answer(head.split(b" ", 2)[1].decode())

    def _answer(self, path: str) -> None:
        name = self.server.name
        match path:
            case "/":
                self._send("200 OK", name)
            case "/health" if self.server.healthy:
                self._send("200 OK", "healthy")
            case "/health":
                self._send("503 Service Unavailable", "switched off")
            case "/hold":
                self._held = True
                self.transport.write(f"HTTP/1.1 200 OK\r\n\r\n{name}\n".encode())
            case "/slow":
                self._busy = True
                asyncio.get_running_loop().call_later(self.server.delay, self._send, "200 OK", name)
            case _:
                self._send("404 Not Found", path)

    def _send(self, status: str, text: str) -> None:
        self._busy = False
        closing = "Connection: close\r\n" if self._last else ""
        self.transport.write(f"HTTP/1.1 {status}\r\n{closing}Content-Length: {len(text) + 1}\r\n\r\n{text}\n".encode())
        if self._last:
            self.transport.close()


class UdpServer:
    """A UDP server that answers every datagram with its name, from the address that was asked.

    In direct-route and tunnel that address is the virtual one, and the kernel would answer from another.
    """

    def __init__(self, host: Host, *, ports: Sequence[int] = (53,), name: str = "") -> None:
        self.host = host
        self.ports = tuple(ports)
        self.name = name or host.name
        self.requests = 0
        self._sockets: list[socket.socket] = []

    def start(self) -> None:
        """Listen; the ports are open when it returns."""
        self.host.lab.wait_for(self._start())
        self.host.lab.at_exit(self.stop)

    async def _start(self) -> None:
        for port in self.ports:
            for family in FAMILIES:
                made = _bound(self.host, family, socket.SOCK_DGRAM, port)
                if family == socket.AF_INET:
                    made.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
                else:
                    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
                self._sockets.append(made)
                asyncio.get_running_loop().add_reader(made, self._answer, made)

    def stop(self) -> None:
        """Close the sockets."""
        self.host.lab.wait_for(self._stop())

    async def _stop(self) -> None:
        for each in self._sockets:
            asyncio.get_running_loop().remove_reader(each)
            each.close()
        self._sockets.clear()

    def _answer(self, asked: socket.socket) -> None:
        _, controls, _, client = asked.recvmsg(2048, 256)
        self.requests += 1
        back = []
        for level, kind, data in controls:
            if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
                _, _, destination = struct.unpack("=I4s4s", data)  # interface, local address, address asked
                back.append((level, kind, struct.pack("=I4s4s", 0, destination, destination)))
            elif (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
                back.append((level, kind, data[:16] + struct.pack("=I", 0)))
        asked.sendmsg([self.name.encode()], back, 0, client)


def _bound(host: Host, family: int, kind: int, port: int) -> socket.socket:
    made = host.socket(family, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.bind((ANY[socket.AddressFamily(family)], port))
    return made

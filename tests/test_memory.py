"""What this process keeps."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvsctl import memory
from tests.consul.certificates import Certificates
from tests.consul.listener import client_tls


@pytest.fixture
def given_back() -> Iterator[None]:
    before = asyncio.sslproto.SSLProtocol.max_size
    memory.give_back()
    yield
    asyncio.sslproto.SSLProtocol.max_size = before


@pytest.mark.usefixtures("given_back")
async def test_a_connection_with_tls_keeps_little_and_carries_much(tmp_path: Path) -> None:
    certificates = Certificates.make(tmp_path)
    much = b"x" * 1_000_000

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(much)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=certificates.server) as server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_tls(certificates))
        kept = writer.transport._ssl_protocol._ssl_buffer  # type: ignore[attr-defined]  # noqa: SLF001  # asyncio's own
        assert len(kept) == memory.TLS_BUFFER
        assert await reader.read(-1) == much
        writer.close()

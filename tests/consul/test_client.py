"""The transport against a Consul that misbehaves: token, TLS, limits, and one clear error for everything else."""

import asyncio
import gzip
import os
import ssl
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

import attrs
import pytest
from aiohttp import web

from lvsctl.config import ConsulConfig
from lvsctl.consul import client as client_module
from lvsctl.consul import transport as transport_module
from lvsctl.consul.client import Capacity, Client
from lvsctl.consul.pool import Response
from lvsctl.consul.tls import tls_context
from lvsctl.consul.transport import Transport
from lvsctl.core.instance import Query
from lvsctl.errors import ConsulError, ConsulRefused
from tests.consul.certificates import Certificates
from tests.consul.server import DEADLINE, Answering, always, answer, consul, refusing, to_json
from tests.values import instance

TOKEN = "canary-5f0c2b1e-token"  # noqa: S105  looked for where it must not be
RECO = Query(service="reco")


def told(error: BaseException) -> str:
    """Return all that anybody could print of an error."""
    return "".join(traceback.format_exception(error)) + repr(error) + str(error)


async def failure(config: ConsulConfig, query: Query = RECO) -> ConsulError:
    async with Client(config) as client:
        with pytest.raises(ConsulError) as caught:
            await client.instances(query)
    return caught.value


async def failure_of(answering: Answering) -> ConsulError:
    async with consul(answering) as server:
        return await failure(ConsulConfig(address=server.address))


def raw(body: bytes, **headers: str) -> Answering:
    """Return what answers with these bytes as they are."""

    async def answering(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0)
        return web.Response(body=body, headers={name.replace("_", "-"): value for name, value in headers.items()})

    return answering


# --- what is asked --------------------------------------------------------------------------------------------------


async def test_one_question() -> None:
    async with consul(always(instance(1))) as server, Client(ConsulConfig(address=server.address)) as client:
        found = await client.instances(Query(service="reco", datacenter="dc2", near="_agent"))
        (request,) = server.requests
    assert found.instances == (instance(1),)
    assert found.index == 7
    assert (request.method, request.path) == ("GET", "/v1/health/service/reco")
    assert dict(request.query) == {"dc": "dc2", "near": "_agent"}
    assert request.headers["Accept-Encoding"] == "identity"
    assert "X-Consul-Token" not in request.headers


async def test_a_question_that_blocks() -> None:
    async with consul(always()) as server, Client(ConsulConfig(address=server.address)) as client:
        await client.instances(RECO, index=41, wait=2.5)
        assert dict(server.requests[0].query) == {"index": "41", "wait": "2.5s"}


@pytest.mark.parametrize("name", ["reco", "a?b", "a#b", "a%20b", "a+b", "räksmörgås", "a;b=c", "a&b", "a:b@c"])
async def test_any_name_arrives_as_it_is(name: str) -> None:
    async with consul(always()) as server, Client(ConsulConfig(address=server.address)) as client:
        await client.instances(Query(service=name, datacenter="d c&x=1"))
        (request,) = server.requests
    assert request.path == f"/v1/health/service/{name}"
    assert dict(request.query) == {"dc": "d c&x=1"}


async def test_the_environment_is_not_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "CONSUL_HTTP_ADDR": "http://127.0.0.1:1",
        "CONSUL_HTTP_TOKEN": TOKEN,
        "CONSUL_HTTP_SSL": "true",
        "CONSUL_HTTP_SSL_VERIFY": "false",
        "HTTP_PROXY": "http://127.0.0.1:1",
        "http_proxy": "http://127.0.0.1:1",
        "ALL_PROXY": "http://127.0.0.1:1",
    }.items():
        monkeypatch.setenv(name, value)
    async with consul(always(instance(1))) as server, Client(ConsulConfig(address=server.address)) as client:
        assert (await client.instances(RECO)).instances == (instance(1),)
        assert TOKEN not in str(server.requests[0].headers)


@pytest.mark.parametrize(
    ("header", "index"),
    [
        ("7", 7),
        ("0", 0),
        (None, 0),
        ("", 0),
        ("-7", 0),
        ("7.5", 0),
        ("x", 0),
        ("²", 0),
        ("9" * 20, 0),
        ("1" * 15, int("1" * 15)),
        ("1" * 19, 0),
    ],
)
async def test_an_index_that_is_none_counts_as_0(header: str | None, index: int) -> None:
    async with consul(always(index=header)) as server, Client(ConsulConfig(address=server.address)) as client:
        assert (await client.instances(RECO)).index == index


# --- the token ------------------------------------------------------------------------------------------------------


async def test_the_token_is_in_its_header_alone_and_read_again_when_its_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    async with consul(always()) as server:
        async with Client(ConsulConfig(address=server.address, token_file=file)) as client:
            client.check()
            await client.instances(RECO)
            file.with_suffix(".new").write_text("second")
            file.with_suffix(".new").replace(file)
            await client.instances(RECO)
        first, second = server.requests
    assert first.headers["X-Consul-Token"] == TOKEN
    assert second.headers["X-Consul-Token"] == "second"
    assert TOKEN not in first.path_qs
    others = [value for name, value in first.headers.items() if name != "X-Consul-Token"]
    assert not any(TOKEN in value for value in others)


@pytest.mark.parametrize(
    "answering", [refusing(403, "Permission denied"), refusing(500), raw(b"["), raw(b"{}"), raw(b"x" * 100)]
)
async def test_the_token_is_in_no_error(tmp_path: Path, answering: Answering) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    async with consul(answering) as server:
        assert TOKEN not in told(await failure(ConsulConfig(address=server.address, token_file=file)))
        https = server.address.replace("http:", "https:")  # where nobody speaks TLS
        assert TOKEN not in told(await failure(ConsulConfig(address=https, token_file=file)))
    assert TOKEN not in told(await failure(ConsulConfig(address=server.address, token_file=file)))  # nobody there


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "does not hold exactly one token"),
        (b" \n", "does not hold exactly one token"),
        (f"{TOKEN} {TOKEN}".encode(), "does not hold exactly one token"),
        (f"{TOKEN}\n{TOKEN}\n".encode(), "does not hold exactly one token"),
        (f"{TOKEN}é".encode(), "is not plain text"),
        (b"\xff\xfe", "is not plain text"),
    ],
)
async def test_a_token_file_that_is_none(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    async with consul(always()) as server:
        config = ConsulConfig(address=server.address, token_file=file)
        with pytest.raises(ConsulError, match=words):
            Client(config).check()
        error = await failure(config)
        assert server.requests == []
    assert str(file) in str(error)
    assert words in str(error)
    assert TOKEN not in told(error)


async def test_a_token_that_no_header_may_carry_is_not_told(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(f"{TOKEN}\0\x7f".encode())
    async with consul(always()) as server:
        assert TOKEN not in told(await failure(ConsulConfig(address=server.address, token_file=file)))
        assert server.requests == []


@pytest.mark.parametrize(("make", "words"), [(None, "no such file"), (Path.mkdir, "is a directory")])
async def test_a_token_file_that_cannot_be_read(tmp_path: Path, make: object, words: str) -> None:
    file = tmp_path / "token"
    if make:
        file.mkdir()
    error = await failure(ConsulConfig(address="http://127.0.0.1:1", token_file=file))
    assert str(error).startswith(f"consul.token_file {file}: {words}")
    assert "make it a text file with one token" in str(error)


# --- what may go wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "text", "words"),
    [
        (
            403,
            "Permission denied",
            "Consul answered 403: Permission denied; the token needs node:read and service:read",
        ),
        (500, "No cluster leader", "Consul answered 500: No cluster leader"),
        (429, "", "Consul answered 429: no text"),
        (404, "x" * 1000, "Consul answered 404: " + "x" * 300),
        (503, "", "Consul answered 503: no text"),
    ],
)
async def test_every_status_but_200_is_a_refusal(status: int, text: str, words: str) -> None:
    error = await failure_of(refusing(status, text))
    assert isinstance(error, ConsulRefused)
    assert error.status == status
    assert str(error).startswith(words)
    assert len(str(error)) < 420


async def test_no_redirect_is_followed() -> None:
    async def elsewhere(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0)
        return web.Response(status=302, headers={"Location": f"http://{request.host}/elsewhere"})

    async with consul(elsewhere) as server:
        error = await failure(ConsulConfig(address=server.address))
        assert [request.path for request in server.requests] == ["/v1/health/service/reco"]
    assert isinstance(error, ConsulRefused)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_does_not_carry_the_token_to_another_server(tmp_path: Path, status: int) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)

    async def elsewhere(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0)
        return web.Response(status=status, headers={"Location": f"{thief.address}/v1/health/service/reco"})

    async with consul(always(instance(1))) as thief, consul(elsewhere) as server:
        error = await failure(ConsulConfig(address=server.address, token_file=file))
        assert server.requests[0].headers["X-Consul-Token"] == TOKEN
        assert thief.requests == []
    assert isinstance(error, ConsulRefused)
    assert TOKEN not in told(error)


@pytest.mark.parametrize("status", [201, 204, 206])
async def test_a_success_that_is_not_200_is_no_answer(status: int) -> None:
    assert isinstance(await failure_of(refusing(status)), ConsulRefused)


async def test_a_body_without_end_is_cut_off() -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        piece = b" " * (1 << 20)
        while sent < 4 * transport_module.MAX_BODY:
            await response.write(piece)
            sent += len(piece)
        return response

    error = await failure_of(endless)
    assert str(error) == "answer is larger than 32 MiB"
    assert sent < 2 * transport_module.MAX_BODY


async def test_an_answer_that_trickles_meets_its_deadline() -> None:
    stop = asyncio.Event()

    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while not stop.is_set():
            await response.write(b" ")
            await asyncio.sleep(0.01)
        return response

    async with consul(trickle) as server:
        transport = Transport(ConsulConfig(address=server.address))
        try:
            with pytest.raises(ConsulError) as caught:
                async with asyncio.timeout(DEADLINE):
                    await transport.get(lambda response: response, "/v1/status/leader", timeout=0.2)
        finally:
            stop.set()
            await transport.close()
    assert str(caught.value) == f"no answer from {server.address} within 0.2 s"


async def test_an_answer_that_never_begins_meets_its_deadline() -> None:
    stop = asyncio.Event()

    async def silent(_request: web.Request) -> web.StreamResponse:
        await stop.wait()
        return web.Response()

    async with consul(silent) as server:
        transport = Transport(ConsulConfig(address=server.address))
        with pytest.raises(ConsulError, match=r"within 0\.1 s"):
            await transport.get(lambda response: response, "/v1/status/leader", timeout=0.1)
        stop.set()
        await transport.close()


async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with less than was promised."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nX-Consul-Index: 7\r\n\r\n[]")
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def junk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with what is not HTTP."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"\x00\x01\x02 no HTTP\r\n\r\n")
    await writer.drain()
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("speaking", [half, junk])
async def test_half_an_answer_and_no_http_are_errors(speaking: object) -> None:
    server = await asyncio.start_server(speaking, "127.0.0.1", 0)  # type: ignore[arg-type]
    async with server:
        port = server.sockets[0].getsockname()[1]
        error = await failure(ConsulConfig(address=f"http://127.0.0.1:{port}"))
    assert str(error).startswith(f"cannot reach http://127.0.0.1:{port}: ")


async def test_a_body_that_says_it_is_too_large_is_not_read() -> None:
    async def promising(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n[")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(promising, "127.0.0.1", 0)
    async with server:
        error = await failure(ConsulConfig(address=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    assert str(error) == "answer is larger than 32 MiB"


async def test_a_large_answer_is_decoded_beside_the_loop() -> None:
    many = tuple(instance(1, instance_id=f"reco-{number}") for number in range(10_000))
    async with consul(raw(to_json(*many), X_Consul_Index="7")) as server:
        async with Client(ConsulConfig(address=server.address)) as client:
            found = await client.instances(RECO)
            assert (len(found.instances), found.index) == (10_000, 7)
            assert found.instances[:2] == many[:2]
        async with Client(ConsulConfig(address=server.address), max_instances=9_999) as client:
            with pytest.raises(ConsulError, match=r"more than the 9999 instances of safety\.max_instances"):
                await client.instances(RECO)


@pytest.mark.parametrize("body", [b"not JSON", b"{}", b'"x"', b"", b"[" * 10**5, b"\xff"])
async def test_what_is_not_a_list_is_no_answer(body: bytes) -> None:
    assert "answer is " in str(await failure_of(raw(body)))


async def test_a_compressed_answer_is_not_unpacked() -> None:
    error = await failure_of(raw(gzip.compress(b"[" + b" " * (1 << 28) + b"]", 1), Content_Encoding="gzip"))
    assert "answer is not a JSON list: it begins with b'\\x1f\\x8b" in str(error)


async def test_nobody_there() -> None:
    error = await failure(ConsulConfig(address="http://127.0.0.1:1"))
    assert str(error) == "cannot reach http://127.0.0.1:1: connection refused"
    assert error.exit_code == 4


async def test_a_name_that_is_no_address() -> None:
    error = await failure(ConsulConfig(address="http://consul.invalid:8500"))
    assert str(error).startswith("cannot reach http://consul.invalid:8500: ")


async def test_one_connection_serves_many_questions() -> None:
    async with consul(always()) as server, Client(ConsulConfig(address=server.address)) as client:
        for _ in range(5):
            await client.instances(RECO)
        assert len({request.transport for request in server.requests}) == 1


async def test_the_other_methods_of_the_api_go_the_same_way() -> None:
    async def echo(request: web.Request) -> web.StreamResponse:
        return web.Response(text=f"{request.method} {request.path_qs} {(await request.read()).decode()}")

    def text(response: Response) -> str:
        assert isinstance(response.body, bytes)
        return response.body.decode()

    async with consul(echo) as server:
        transport = Transport(ConsulConfig(address=server.address))
        assert await transport.put(text, "/v1/a b", {"x": "1"}, data="body") == "PUT /v1/a%20b?x=1 body"
        assert await transport.post(text, "/v1/c", data="body") == "POST /v1/c body"
        assert await transport.delete(text, "/v1/d") == "DELETE /v1/d "
        await transport.close()


def spoken(answer: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Return what serves a connection with these bytes, where TOKEN is what was sent as token."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    return serve


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "its answer is not HTTP: bad status line"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "its answer is not HTTP: bad status line"),
        (b"HTTP/1.1 200 OK\r\nXYZ\r\n\r\n", "its answer is not HTTP: invalid header token"),
        (b"HTTP/1.1 200 OK\r\n" + b"a" * 20000, "its answer is not HTTP: got more than 8190 bytes when reading"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "its answer is not HTTP: invalid character"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[", "its answer is not complete: not enough data"),
        (b"", "server disconnected"),
    ],
)
async def test_what_is_no_http_does_not_read_as_a_refusal_of_consul(answer: bytes, words: str) -> None:
    async with await asyncio.start_server(spoken(answer), "127.0.0.1", 0) as server:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        text = str(await failure(ConsulConfig(address=address)))
    assert text.lower().startswith(f"cannot reach {address}: {words}".lower())
    assert text.isprintable()
    assert len(text) < 200
    assert "400" not in text.removeprefix(f"cannot reach {address}")  # its port may be 40012


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 403 F\r\nContent-Length: 300\r\n\r\n" + f"denied for {TOKEN}".encode().ljust(300),
        b"HTTP/1.1 403 F\r\nContent-Length: 400\r\n\r\n" + TOKEN.encode().rjust(305).ljust(400),  # as it is cut
        b"HTTP/1.1 200 F\r\nContent-Length: 90\r\n\r\n" + f"denied for the {TOKEN}".encode().ljust(90),
        b'HTTP/1.1 200 F\r\nContent-Length: 90\r\n\r\n{"error": "' + TOKEN.encode().ljust(79),
        f"HTTP/1.1 200 OK\r\n{TOKEN}\r\n\r\n".encode(),
        f"{TOKEN}\r\n\r\n".encode(),
    ],
)
async def test_a_token_that_is_sent_back_is_not_shown(tmp_path: Path, answer: bytes) -> None:
    (tmp_path / "token").write_text(TOKEN)
    async with await asyncio.start_server(spoken(answer), "127.0.0.1", 0) as server:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        error = await failure(ConsulConfig(address=address, token_file=tmp_path / "token"))
    assert TOKEN[:6] not in str(error)
    assert TOKEN not in told(error)


# --- other ways to it -----------------------------------------------------------------------------------------------


async def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "consul.sock"
    async with consul(always(instance(1)), unix=path) as server, Client(ConsulConfig(address=server.address)) as client:
        assert (await client.instances(RECO)).instances == (instance(1),)
    assert "no such file" in str(await failure(ConsulConfig(address=f"unix://{tmp_path}/none.sock")))


def trusting(certificates: Certificates, address: str) -> ConsulConfig:
    """Return a configuration that trusts our authority and shows our client certificate."""
    return ConsulConfig(
        address=address,
        ca_file=certificates.ca,
        certificate_file=certificates.client,
        key_file=certificates.client_key,
    )


async def test_https_with_an_authority_and_a_client_certificate(certificates: Certificates) -> None:
    async with consul(always(instance(1)), tls=certificates.server) as server:
        full = trusting(certificates, server.address)
        async with Client(full) as client:
            client.check()
            assert (await client.instances(RECO)).instances == (instance(1),)
        untrusted = await failure(attrs.evolve(full, ca_file=None))
        anonymous = await failure(attrs.evolve(full, certificate_file=None, key_file=None))
        assert len(server.requests) == 1
    assert str(untrusted).startswith(f"cannot reach {server.address}: its certificate is not trusted: ")
    assert str(anonymous).startswith(f"cannot reach {server.address}: ")


@pytest.mark.parametrize("name", ["ca_file", "certificate_file", "key_file"])
def test_a_certificate_file_that_cannot_be_used(certificates: Certificates, tmp_path: Path, name: str) -> None:
    config = trusting(certificates, "https://127.0.0.1:8501")
    Client(config).check()
    (tmp_path / "bad.pem").write_text("nothing")
    for path in (tmp_path / "none.pem", tmp_path / "bad.pem", Path(os.devnull)):
        with pytest.raises(ConsulError) as caught:
            Client(attrs.evolve(config, **{name: path})).check()  # type: ignore[arg-type]
        text = str(caught.value)
        if name == "key_file" and path.name != "none.pem":  # a certificate and a key may only fail together
            assert text.startswith(f"consul.certificate_file {config.certificate_file} cannot be used: ")
        else:
            assert text.startswith(f"consul.{name} {path} cannot be used: ")


def test_a_key_with_a_passphrase_is_an_error_and_no_question_on_the_terminal(certificates: Certificates) -> None:
    config = attrs.evolve(trusting(certificates, "https://h"), key_file=certificates.encrypted_key)
    with pytest.raises(ConsulError, match="the private key is encrypted, and nobody is there to type its passphrase"):
        Client(config).check()


async def test_the_name_that_a_server_must_prove(certificates: Certificates, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    sent: list[str | None] = []
    named = certificates.named
    named.sni_callback = lambda _socket, name, _context: sent.append(name)
    async with consul(always(instance(1)), tls=named) as server:
        plain = attrs.evolve(trusting(certificates, server.address), token_file=tmp_path / "token")
        async with Client(attrs.evolve(plain, server_name="server.dc1.consul")) as client:
            assert (await client.instances(RECO)).instances == (instance(1),)
        assert set(sent) == {"server.dc1.consul"}, "over HTTP/2 and over HTTP/1.1"
        by_address = await failure(plain)
        by_another = await failure(attrs.evolve(plain, server_name="server.dc2.consul"))
        assert len(server.requests) == 1
    for error in (by_address, by_another):
        assert str(error).startswith(f"cannot reach {server.address}: its certificate is not trusted: ")
        assert TOKEN not in told(error)


async def test_a_directory_of_authorities(certificates: Certificates, tmp_path: Path) -> None:
    (tmp_path / "any-name.crt").write_bytes(certificates.ca.read_bytes())
    config = attrs.evolve(
        trusting(certificates, "https://127.0.0.1:8501"),
        ca_file=None,
        ca_directory=tmp_path,
        from_environment=("CONSUL_HTTP_TOKEN", "CONSUL_CAPATH"),
    )
    async with (
        consul(always(instance(1)), tls=certificates.server) as server,
        Client(attrs.evolve(config, address=server.address)) as client,
    ):
        assert (await client.instances(RECO)).instances == (instance(1),)
    (tmp_path / "second.pem").write_text("nothing")
    Client(config).check()
    (tmp_path / "readme").write_text("Zertifikat für\n", "latin-1")
    (tmp_path / "more").mkdir()
    Client(config).check()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("", b"", ": there is no certificate of an authority in it, so no server could be trusted"),
        ("readme", b"Zertifikat f\xfcr\n", ": there is no certificate of an authority in it, so no"),
        ("broken.pem", b"-----BEGIN CERTIFICATE-----\n\xff\n-----END CERTIFICATE-----\n", "/broken.pem: "),
    ],
)
def test_a_directory_without_an_authority_trusts_nobody(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    """Not the system's authorities either: whoever has a certificate of one would get the token."""
    config = ConsulConfig(address="https://h", ca_directory=tmp_path, from_environment=("CONSUL_CAPATH",))
    if name:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConsulError) as caught:
        Client(config).check()
    place, _, why = words.partition(": ")
    assert str(caught.value).startswith(f"CONSUL_CAPATH {tmp_path}{place} cannot be used: {why}")


def test_only_configured_authorities_are_trusted(certificates: Certificates, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(certificates.ca.read_bytes())
    for config in (ConsulConfig(ca_file=certificates.ca), ConsulConfig(ca_directory=tmp_path)):
        context = tls_context(config)
        assert context.cert_store_stats()["x509"] == 1
        assert context.check_hostname
        assert context.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize("declared", [True, False])
async def test_what_the_agent_says_of_itself_has_a_bound_of_its_own(*, declared: bool) -> None:
    """`[],[],…` takes twenty times its size when it is decoded."""
    sent = 0

    async def bomb(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        piece = b"[]," * (1 << 18)
        response = web.StreamResponse(headers={"Content-Length": str(40 * len(piece))} if declared else {})
        await response.prepare(request)
        for _ in range(40):
            await response.write(piece)
            sent += len(piece)
        return response

    async with consul(bomb) as server, Client(ConsulConfig(address=server.address)) as client:
        server.agent = bomb
        assert await client.capacity() == Capacity(http2=False, limit=None)
        assert sent < 10 << 20


async def test_a_datacenter_that_does_not_answer_keeps_no_other_waiting() -> None:
    never, waiting = asyncio.Event(), 0

    async def hanging(request: web.Request) -> web.StreamResponse:
        nonlocal waiting
        if "dc" in request.query:
            waiting += 1
            await never.wait()
        return answer(instance(1))

    async with consul(hanging) as server, Client(ConsulConfig(address=server.address)) as client:
        asking = [
            asyncio.create_task(client.instances(Query(service=f"reco-{number}", datacenter=datacenter)))
            for datacenter in ("dc2", "dc3")
            for number in range(2 * client_module.MOST_READS)
        ]
        async with asyncio.timeout(DEADLINE):
            await server.came(client_module.MOST_READS + client_module.READS_ELSEWHERE)
            assert (await client.instances(RECO)).instances == (instance(1),)
        assert waiting <= 2 * client_module.MOST_READS
        never.set()
        assert len(await asyncio.gather(*asking)) == 4 * client_module.MOST_READS


async def test_an_answer_in_pieces_is_whole() -> None:
    body = to_json(*(instance(number) for number in range(1, 200)))

    async def pieces(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"X-Consul-Index": "3"})
        await response.prepare(request)
        for start in range(0, len(body), 1000):
            await response.write(body[start : start + 1000])
        return response

    async with consul(pieces) as server, Client(ConsulConfig(address=server.address)) as client:
        found = await client.instances(RECO)
    assert len(found.instances) == 199
    assert answer().status == 200

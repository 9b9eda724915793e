"""What real Consuls 1.20.6 and 1.22.7 answered, header for header, and the same as a later one might: all understood.

The recordings are of a server alone with ACLs and the policy `deny`, some with `use_streaming_backend`: status line,
headers and body, the body as JSON of one length where it came in chunks. Of what the agent says of itself there are the
plain values of Config and DebugConfig, and its directory is /consul. Instances with several ports are of 1.22.7 alone:
1.20.6 has none.
"""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lvsctl.config import ConsulConfig
from lvsctl.consul.changes import Listing, decode_listing
from lvsctl.consul.client import Client
from lvsctl.consul.override_keys import decode_overrides
from lvsctl.core.instance import Answer, Query
from lvsctl.errors import ConsulRefused

RECORDED = Path(__file__).parent / "recorded"
INDEXES = {"1.20.6": 25, "1.22.7": 29}  # of the catalogue, with each version
NEWEST = "1.22.7"
RECO = Query(service="reco")
NAMES = {"reco-1", "reco-2", "reco-3", "reco-5", "reco-6"}


@pytest.fixture(params=INDEXES)
def version(request: pytest.FixtureRequest) -> str:
    """Return whose answers there are."""
    return str(request.param)


def recorded(version: str, name: str) -> bytes:
    return (RECORDED / version / f"{name}.http").read_bytes()


@contextlib.asynccontextmanager
async def answering(said: bytes) -> AsyncIterator[Client]:
    """Answer every question with these bytes while the context lasts."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(said)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(serve(reader, writer), name="serve"))

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        async with Client(ConsulConfig(address=f"http://{host}:{port}")) as client:
            yield client
        await asyncio.gather(*tasks)


async def instances(said: bytes) -> Answer:
    async with answering(said) as client:
        return await client.instances(RECO)


def ids(answer: Answer) -> set[str]:
    return {each.instance_id for each in answer.instances}


@pytest.mark.parametrize(
    ("name", "streamed"),
    [
        ("health", False),
        ("health-blocking", False),
        ("health-waited", False),
        ("health-consistent", False),
        ("health-streamed", True),
        ("health-streamed-waited", True),
    ],
)
async def test_instances(version: str, name: str, streamed: bool) -> None:  # noqa: FBT001  one of the cases
    answer = await instances(recorded(version, name))
    assert ids(answer) == NAMES
    assert [each.instance_id for each in answer.malformed] == ["reco-4"]
    assert (answer.index, answer.streamed, answer.leader) == (INDEXES[version], streamed, True)
    assert (answer.last_contact, answer.filtered) == (0.0, False)


async def test_what_the_token_may_not_read_is_said_but_not_where_it_is_streamed(version: str) -> None:
    filtered, streamed = (
        await instances(recorded(version, "health-filtered")),
        await instances(recorded(version, "health-streamed-filtered")),
    )
    assert ids(filtered) == ids(streamed) == {"reco-1", "reco-2", "reco-5"}
    assert (filtered.filtered, streamed.filtered) == (True, False)


async def test_nobody_is_an_answer(version: str) -> None:
    assert await instances(recorded(version, "health-nobody")) == Answer(index=INDEXES[version])


@pytest.mark.parametrize(("name", "streamed"), [("health-ports", False), ("health-ports-streamed", True)])
async def test_of_several_ports_the_default_one_counts(name: str, streamed: bool) -> None:  # noqa: FBT001  as above
    """Consul 1.22 writes it as Port, too, and leaves out a Port that is 0."""
    async with answering(recorded(NEWEST, name)) as client:
        answer = await client.instances(Query(service="shop"))
    ports = {each.instance_id: each.port for each in answer.instances}
    assert ports == {"shop-1": 8080, "shop-2": 8081, "shop-4": 0}
    assert [each.reason for each in answer.malformed] == ["Port is 70000, expected 0 to 65535"]
    assert answer.streamed is streamed


@pytest.mark.parametrize(("name", "status"), [("health-unknown-token", 403), ("health-unknown-datacenter", 500)])
async def test_a_refusal(version: str, name: str, status: int) -> None:
    with pytest.raises(ConsulRefused) as caught:
        await instances(recorded(version, name))
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("name", "listing", "number"),
    [("services", Listing.SERVICES, 2), ("nodes", Listing.NODES, 3), ("checks", Listing.CHECKS, 5)],
)
async def test_lists(version: str, name: str, listing: Listing, number: int) -> None:
    async with answering(recorded(version, name)) as client:
        with client.share() as share:
            index, body = await client.listing(listing.value, share=share)
    assert index == INDEXES[version]
    assert len(decode_listing(listing, body)) == number


async def test_keys(version: str) -> None:
    async with answering(recorded(version, "keys")) as client:
        index, body = await client.keys("lvsctl/weights/")
    assert index > 0
    (override,) = decode_overrides(body, "lvsctl").entries
    assert (override.virtual_server, override.selector, str(override.share)) == ("reco", "v2", "5%")
    async with answering(recorded(version, "no-keys")) as client:
        assert (await client.keys("none/"))[1] == b"[]"
    async with answering(recorded(version, "keys-refused")) as client:
        with pytest.raises(ConsulRefused):
            await client.key_index("lvsctl/weights/reco/v2")


async def test_a_key_of_a_name_that_is_refused_is_no_missing_key() -> None:
    async with answering(recorded(NEWEST, "key-refused-for-its-name")) as client:
        with pytest.raises(ConsulRefused, match="invalid key name"):
            await client.key_index("lvsctl/weights/reco/a%20b")


@pytest.mark.parametrize(("name", "limit"), [("agent", 200), ("agent-refused", None)])
async def test_the_agents_limit(version: str, name: str, limit: int | None) -> None:
    async with answering(recorded(version, name)) as client:
        told = await client.capacity()
    assert told is not None
    assert told.limit == limit


# --- what a later one might do otherwise ------------------------------------------------------------------------------


def other(version: str, name: str, *, head: list[tuple[bytes, bytes]], body: bytes | None = None) -> bytes:
    """Return a recording with what these patterns find in its headers replaced, and another body."""
    headers, _, said = recorded(version, name).partition(b"\r\n\r\n")
    for pattern, replacement in head:
        assert re.search(pattern, headers)
        headers = replacement.join(re.split(pattern, headers))
    if body is not None:
        headers = re.sub(rb"Content-Length: \d+", b"Content-Length: %d" % len(body), headers)
    return headers + b"\r\n\r\n" + (said if body is None else body)


MUCH = b"".join(b"X-New-%d: %b\r\n" % (number, b"x" * 2000) for number in range(12))
HEADERS = {
    "no reason in its first line": [(rb"200 OK", b"200 ")],
    "small letters": [(rb"X-Consul-Index", b"x-consul-index")],
    "large letters": [(rb"X-Consul-Index", b"X-CONSUL-INDEX")],
    "another type": [(rb"application/json", b"application/vnd.consul.v2+json; charset=utf-8")],
    "no type": [(rb"Content-Type: [^\r]*\r\n", b"")],
    "no leader and no contact": [(rb"X-Consul-Knownleader: [^\r]*\r\n", b""), (rb"X-Consul-Lastcontact: 0\r\n", b"")],
    "a contact that is no number": [(rb"X-Consul-Lastcontact: 0", b"X-Consul-Lastcontact: 12ms")],
    "another policy": [(rb"X-Consul-Default-Acl-Policy: deny", b"X-Consul-Default-ACL-Policy: extend-cache")],
    "a back end nobody knows": [(rb"blocking-query", b"materialized-view")],
    "a consistency nobody knows": [(rb"Consistency: leader", b"Consistency: bounded")],
    "twenty thousand bytes more": [(rb"Date: ", MUCH + b"Date: ")],
    "a cookie, and a hint": [(rb"Date: ", b"Set-Cookie: a=b\r\nLink: </x>; rel=preload\r\nDate: ")],
    "no keep-alive": [(rb"Date: ", b"Connection: close\r\nDate: ")],
    "a warning": [(rb"Date: ", b'Warning: 299 - "deprecated"\r\nDeprecation: true\r\nDate: ')],
    "HTTP/1.0": [(rb"HTTP/1.1", b"HTTP/1.0")],
}


@pytest.mark.parametrize("name", HEADERS)
async def test_other_headers(version: str, name: str) -> None:
    said = other(version, "health", head=HEADERS[name])
    answer = await instances(said)
    assert ids(answer) == NAMES
    assert (answer.index, answer.leader, answer.filtered, answer.last_contact) == (INDEXES[version], True, False, 0.0)


async def test_an_answer_after_an_interim_one() -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    assert ids(await instances(interim + recorded(NEWEST, "health"))) == NAMES


async def test_in_chunks() -> None:
    headers, _, body = recorded(NEWEST, "health").partition(b"\r\n\r\n")
    chunks = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:]))
    headers = re.sub(rb"Content-Length: \d+", b"Transfer-Encoding: chunked", headers)
    assert ids(await instances(headers + b"\r\n\r\n" + chunks + b"0\r\nX-Trailer: 1\r\n\r\n")) == NAMES


async def test_fields_that_nobody_knows_anywhere() -> None:
    def more(value: object) -> object:
        if isinstance(value, dict):
            known = {name: inner if name == "Meta" else more(inner) for name, inner in value.items()}
            return {**known, "New": {"a": [1, 2.5, None, {"b": True}]}} if "Meta" in value or "Node" in value else known
        return [more(inner) for inner in value] if isinstance(value, list) else value

    _, _, body = recorded(NEWEST, "health").partition(b"\r\n\r\n")
    answer = await instances(
        other(NEWEST, "health", head=[], body=json.dumps(more(json.loads(body)), indent=2).encode())
    )
    assert ids(answer) == NAMES


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 405 Method Not Allowed\r\nAllow: POST\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 410 Gone\r\nContent-Length: 4\r\n\r\ngone",
        b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b'HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n{"DebugConfig": null}\n',
        b'HTTP/1.1 200 OK\r\nContent-Length: 48\r\n\r\n{"DebugConfig": {"HTTPMaxConnsPerClient": "99"}}',
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ],
)
async def test_an_agent_that_does_not_tell_its_limit_any_more_answers_all_the_same(said: bytes) -> None:
    async with answering(said) as client:
        told = await client.capacity()
    assert told is not None
    assert told.limit is None

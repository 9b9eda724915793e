"""HTTP/2 against a listener that misbehaves: places, windows, silence, and that a request ends whatever happens."""

import asyncio
import contextlib
import functools
import gc
import random
import socket
from collections.abc import AsyncIterator, Callable

import attrs
import pytest
from h2.connection import H2Connection
from h2.settings import SettingCodes

from lvsctl.consul import http2
from lvsctl.consul.pool import FORGIVEN_AFTER, BrokeConnection, Pool, Request, RequestFailed, Response, TooLarge
from tests.consul.certificates import Certificates
from tests.consul.listener import Asked, Listener, at_once, client_tls, never
from tests.consul.server import DEADLINE

TOKEN = "canary-5f0c2b1e-token"  # noqa: S105  looked for where it must not be
DATA_OF_NO_STREAM = bytes.fromhex("000001 00 00 00000000 00")
GOAWAY_ENHANCE_YOUR_CALM = bytes.fromhex("000008 07 00 00000000 00000000 0000000b")


def request(target: str = "/v1/status/leader", *, body: bytes = b"", most_bytes: int = 1 << 20) -> Request:
    return Request(method="GET", target=target, headers={"X-Consul-Token": TOKEN}, body=body, most_bytes=most_bytes)


@attrs.define
class Asking:
    """A listener, a pool that asks it, and requests under way."""

    listener: Listener
    pool: Pool
    tasks: list[asyncio.Task[Response]] = attrs.field(factory=list)

    async def ask(self, question: Request | None = None, *, timeout: float = DEADLINE) -> Response:  # noqa: ASYNC109  as Pool has it
        return await self.pool.request(question or request(), timeout=timeout)

    async def hold(self, count: int) -> list[asyncio.Task[Response]]:
        """Ask `count` more that the listener holds; return them when it does."""
        before = len(self.listener.held)
        new = [asyncio.create_task(self.ask()) for _ in range(count)]
        self.tasks += new
        await self.listener.until(lambda: len(self.listener.held) == before + count)
        return new


@contextlib.asynccontextmanager
async def asking(
    certificates: Certificates,
    answering: Callable[[Asked], None],
    *,
    most_streams: int | None = None,
    silence: float = DEADLINE,
    patience: float = DEADLINE,
) -> AsyncIterator[Asking]:
    """Serve and have a pool while the context lasts; nothing of it is left afterwards."""
    before = asyncio.all_tasks()
    async with Listener.serving(certificates, answering, most_streams=most_streams) as listener:
        to = http2.Listener(
            host="127.0.0.1",
            port=listener.port,
            authority=f"127.0.0.1:{listener.port}",
            tls=client_tls(certificates),
            connect_timeout=DEADLINE,
            silence=silence,
            patience=patience,
        )
        pool = Pool(functools.partial(http2.connect, to))
        all_of_it = Asking(listener, pool)
        try:
            yield all_of_it
        finally:
            for task in all_of_it.tasks:
                task.cancel()
            await asyncio.gather(*all_of_it.tasks, return_exceptions=True)
            await pool.close()
            assert pool.connections == 0
    assert asyncio.all_tasks() == before


async def failure(task: asyncio.Task[Response]) -> str:
    with pytest.raises(RequestFailed) as caught:
        async with asyncio.timeout(DEADLINE):
            await task
    return str(caught.value)


# --- one request ----------------------------------------------------------------------------------------------------


async def test_one_question_and_its_answer(certificates: Certificates) -> None:
    async with asking(certificates, at_once) as here:
        answer = await here.ask(request("/v1/health/service/reco?index=7"))
        (asked,) = here.listener.asked
    assert answer.status == 200
    assert answer.body == b"[]"
    assert answer.headers.get("X-Consul-Index", "") == "7"
    assert answer.headers.get("X-Consul-KnownLeader", "") == ""
    assert not any(name.startswith(":") for name in answer.headers)
    assert asked.headers == {
        ":method": "GET",
        ":scheme": "https",
        ":authority": f"127.0.0.1:{here.listener.port}",
        ":path": "/v1/health/service/reco?index=7",
        "x-consul-token": TOKEN,
    }
    assert asked.unindexed == ["x-consul-token"]


async def test_the_token_is_not_shown(certificates: Certificates) -> None:
    assert TOKEN not in repr(request())
    async with asking(certificates, at_once) as here:
        bad = attrs.evolve(request(), headers={"X-Consul-Token": f"{TOKEN}\0"})
        with pytest.raises(RequestFailed) as caught:
            await here.ask(bad)
        assert here.listener.asked == []
        assert (await here.ask()).status == 200  # and nothing is broken
        assert here.pool.connections == 1
    assert str(caught.value) == "the header x-consul-token has a character that none may have"


async def test_bodies_larger_than_every_window(certificates: Certificates) -> None:
    size = http2.CONNECTION_WINDOW + 12345
    pouring: list[asyncio.Task[int]] = []

    def pour(asked: Asked) -> None:
        asked.begin()
        pouring.append(asyncio.create_task(asked.pour(size)))

    async with asking(certificates, pour) as here:
        sent = random.Random(1).randbytes(300_000)
        answer = await here.ask(request(body=sent, most_bytes=size))
        assert len(answer.body) == size
        assert await pouring[0] == size
        assert here.listener.asked[0].body == sent
        assert here.listener.asked[0].headers["content-length"] == "300000"


async def test_an_answer_before_the_body_was_taken_ends_the_request(certificates: Certificates) -> None:
    async with asking(certificates, never) as here:
        await here.hold(1)
        (link,) = here.listener.links
        link.h2.acknowledge_received_data = lambda *_: None  # type: ignore[method-assign]  # opens no window
        task = asyncio.create_task(here.ask(request(body=bytes(300_000))))
        await here.listener.until(lambda: len(link.held) == 2 and len(link.held[1].body) == 65535)
        link.held[1].answer(status=413)
        assert (await task).status == 413
        await here.listener.until(lambda: here.listener.asked[1].reset)
        assert here.pool.connections == 1


async def test_too_large_a_body_kills_its_stream_alone(certificates: Certificates) -> None:
    most = 3 << 20
    pouring: list[asyncio.Task[int]] = []

    def pour(asked: Asked) -> None:
        if asked.headers[":path"] == "/endless":
            asked.begin()
            pouring.append(asyncio.create_task(asked.pour(1 << 30)))

    async with asking(certificates, pour) as here:
        (other,) = await here.hold(1)
        with pytest.raises(TooLarge):
            await here.ask(request("/endless", most_bytes=most))
        assert all(most <= poured <= most + 2 * http2.STREAM_WINDOW for poured in await asyncio.gather(*pouring))
        here.listener.asked[0].answer(b"whole")
        assert (await other).body == b"whole"
        assert here.pool.connections == 1


async def test_what_is_thrown_away_does_not_use_up_the_window_of_the_connection(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http2, "CONNECTION_WINDOW", 1 << 18)

    def in_one_go(asked: Asked) -> None:
        asked.begin()
        for _ in range(32):
            asked.link.h2.send_data(asked.number, bytes(1 << 10))  # raises when the window is used up
        asked.link.h2.end_stream(asked.number)
        asked.link.flush()

    async with asking(certificates, in_one_go) as here:
        for _ in range(20):
            with pytest.raises(TooLarge):
                await here.ask(request(most_bytes=0))
        assert len((await here.ask(request(most_bytes=1 << 15))).body) == 1 << 15
        assert len(here.listener.links) == 1


async def test_a_connection_that_is_lost_ends_a_request_that_waits_to_send(certificates: Certificates) -> None:
    async with asking(certificates, never) as here:
        await here.hold(1)
        (link,) = here.listener.links
        link.h2.acknowledge_received_data = lambda *_: None  # type: ignore[method-assign]  # opens no window
        task = asyncio.create_task(here.ask(request(body=bytes(300_000))))
        await here.listener.until(lambda: len(link.held) == 2 and len(link.held[1].body) == 65535)
        link.cut()
        assert "closed" in await failure(task)


async def test_a_body_as_large_as_allowed_is_not_too_large(certificates: Certificates) -> None:
    async with asking(certificates, lambda asked: asked.answer(b"12345")) as here:
        assert (await here.ask(request(most_bytes=5))).body == b"12345"
        with pytest.raises(TooLarge):
            await here.ask(request(most_bytes=4))


# --- places ---------------------------------------------------------------------------------------------------------


async def test_a_request_that_is_left_frees_its_place_at_once(certificates: Certificates) -> None:
    async with asking(certificates, never, most_streams=1) as here:
        (cancelled,) = await here.hold(1)
        cancelled.cancel()
        await here.listener.until(lambda: here.listener.asked[0].reset)
        with pytest.raises(TimeoutError):
            await here.ask(timeout=0.05)
        await here.listener.until(lambda: here.listener.asked[1].reset)
        here.listener.answering = at_once
        assert (await here.ask()).status == 200
        assert len(here.listener.links) == 1


async def test_another_connection_opens_only_when_all_are_full(certificates: Certificates) -> None:
    async with asking(certificates, never, most_streams=3) as here:
        await here.hold(10)
        assert [len(link.held) for link in here.listener.links] == [3, 3, 3, 1]
        here.listener.links[0].held[0].answer()
        await here.tasks[0]
        await here.hold(1)
        assert [len(link.held) for link in here.listener.links] == [3, 3, 3, 1]


async def test_settings_that_change_count(certificates: Certificates) -> None:
    async with asking(certificates, never, most_streams=5) as here:
        await here.hold(2)
        (link,) = here.listener.links
        link.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 2})
        link.flush()
        await here.listener.until(lambda: link.h2.local_settings.max_concurrent_streams == 2)  # acknowledged
        await here.hold(1)
        assert [len(link.held) for link in here.listener.links] == [2, 1]


async def test_a_listener_that_allows_no_request(certificates: Certificates) -> None:
    async with asking(certificates, never, most_streams=0) as here:
        with pytest.raises(RequestFailed, match="allows no request"):
            await here.ask()
        assert here.pool.connections == 0


async def test_a_thousand_at_once(certificates: Certificates) -> None:
    async with asking(certificates, never, most_streams=250) as here:
        await here.hold(1000)
        assert [len(link.held) for link in here.listener.links] == [240, 240, 240, 240, 40]
        for asked in here.listener.held:
            asked.answer()
        assert {(await task).status for task in here.tasks} == {200}


async def test_connections_have_an_upper_bound(certificates: Certificates) -> None:
    async with asking(certificates, never, most_streams=2) as here:
        here.pool.most = 3
        await here.hold(6)
        assert here.pool.streams == 2
        with pytest.raises(RequestFailed, match=r"so few requests on a connection \(2\) that 3 connections, all"):
            await here.ask()
        here.listener.held[0].answer()
        await asyncio.wait(here.tasks, return_when=asyncio.FIRST_COMPLETED, timeout=DEADLINE)
        await here.hold(1)
        assert len(here.listener.links) == 3


async def test_idle_connections_close(certificates: Certificates) -> None:
    async with asking(certificates, never, most_streams=1, silence=0.1) as here:
        _, second, third = await here.hold(3)
        second.cancel()
        third.cancel()
        await here.listener.until(lambda: len(here.listener.open) == 1)
        assert [link.farewell for link in here.listener.links] == [False, True, True]
        (first,) = here.listener.held
        first.answer()
        assert (await here.tasks[0]).status == 200


async def test_whoever_waits_for_a_connection_gets_it_when_the_first_leaves(certificates: Certificates) -> None:
    async with asking(certificates, at_once) as here:
        tasks = [asyncio.create_task(here.ask()) for _ in range(3)]
        await asyncio.sleep(0)  # they wait now
        tasks[0].cancel()
        assert {(await task).status for task in tasks[1:]} == {200}
        assert len(here.listener.links) == 1


@pytest.mark.parametrize("seed", range(4))
async def test_after_any_mixture_of_ends_every_place_is_free(certificates: Certificates, seed: int) -> None:
    chance = random.Random(seed)

    def answering(asked: Asked) -> None:
        match chance.randrange(4):
            case 0:
                asked.answer()
            case 1:
                asked.refuse()
            case 2:
                asked.begin()

    async with asking(certificates, answering, most_streams=50) as here:
        for _ in range(10):
            tasks = [asyncio.create_task(here.ask(timeout=chance.uniform(0.01, 0.1))) for _ in range(50)]
            for task in chance.sample(tasks, 20):
                await asyncio.sleep(0)
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            kinds = (Response, TimeoutError, asyncio.CancelledError, RequestFailed)
            assert all(isinstance(result, kinds) for result in results)
        here.listener.answering = at_once
        assert (await here.ask()).status == 200
        assert here.listener.held == []
        assert len(here.listener.links) == 1


async def test_of_requests_that_ended_little_is_kept(certificates: Certificates) -> None:
    async with asking(certificates, at_once, most_streams=50) as here:
        for _ in range(2 * http2.MOST_ENDED // 50):
            await asyncio.gather(*(here.ask() for _ in range(50)))
        gc.collect()  # those of other tests
        both = (each for each in gc.get_objects() if isinstance(each, H2Connection))
        (ours,) = (each for each in both if each.config.client_side)
        assert len(here.listener.links) == 1
    assert not ours.streams
    assert max(len(each) for each in vars(ours).values() if isinstance(each, dict)) <= http2.MOST_ENDED


async def test_what_failed_needs_no_collector(certificates: Certificates) -> None:
    gc.collect()
    async with asking(certificates, lambda asked: asked.link.cut()) as here:
        gc.disable()
        try:
            for _ in range(20):
                with contextlib.suppress(RequestFailed):
                    await here.ask()
            kept = [each for each in gc.get_objects() if isinstance(each, http2.Connection | H2Connection)]
        finally:
            gc.enable()
    assert len(here.listener.links) == 20
    ours = [each for each in kept if isinstance(each, http2.Connection) or each.config.client_side]
    assert len(ours) <= 2, "the last one, which may not have closed yet"


# --- what ends a request --------------------------------------------------------------------------------------------


async def test_a_reset_ends_one_request(certificates: Certificates) -> None:
    async with asking(certificates, never) as here:
        first, second = await here.hold(2)
        here.listener.asked[0].refuse()
        assert await failure(first) == "the listener reset the request (RST_STREAM, REFUSED_STREAM)"
        here.listener.asked[1].answer()
        assert (await second).status == 200
        assert here.pool.connections == 1


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (lambda link: link.go_away(), "the listener ends the connection (GOAWAY, NO_ERROR)"),
        (lambda link: link.writer.close(), "the listener closed the connection"),
        (lambda link: link.cut(), ""),
        (
            lambda link: link.writer.write(bytes.fromhex("000001 00 00 00000000 00")),
            "its HTTP/2 is wrong: ",
        ),  # DATA on 0
        (lambda link: link.writer.write(GOAWAY_ENHANCE_YOUR_CALM), "GOAWAY, ENHANCE_YOUR_CALM)"),
    ],
)
async def test_the_end_of_a_connection_ends_its_requests(
    certificates: Certificates, end: Callable[[object], None], words: str
) -> None:
    async with asking(certificates, never, most_streams=2) as here:
        first, second, third = await here.hold(3)
        here.listener.asked[0].begin()  # half an answer is none
        end(here.listener.links[0])
        assert words in await failure(first)
        assert words in await failure(second)
        here.listener.asked[2].answer()
        assert (await third).status == 200
        here.listener.answering = at_once
        assert [(await here.ask()).status for _ in range(3)] == [200, 200, 200]


async def test_a_silent_peer_is_found(certificates: Certificates) -> None:
    async with asking(certificates, never, silence=0.1, patience=0.1) as here:
        (task,) = await here.hold(1)
        here.listener.links[0].frozen = True
        began = asyncio.get_running_loop().time()
        words = "the connection is dead: nothing came for 0.2 s, not even after a PING"
        assert await failure(task) == words
        assert asyncio.get_running_loop().time() - began < 1
        here.listener.answering = at_once
        assert (await here.ask()).status == 200
        assert len(here.listener.links) == 2


async def test_a_connection_is_not_idle_before_it_can_be_used(certificates: Certificates) -> None:
    async with asking(certificates, at_once, silence=0.2) as here:
        here.listener.late = 0.5
        assert (await here.ask()).status == 200


async def test_a_peer_that_answers_to_ping_is_alive(certificates: Certificates) -> None:
    async with asking(certificates, never, silence=0.1) as here:
        (task,) = await here.hold(1)
        (link,) = here.listener.links
        await here.listener.until(lambda: link.pings >= 5)
        here.listener.asked[0].answer()
        assert (await task).status == 200
        assert len(here.listener.links) == 1


async def test_a_peer_that_answers_to_ping_alone_gets_no_new_requests(certificates: Certificates) -> None:
    """A listener whose agent hangs, or a proxy that has lost it, would be asked for ever."""
    async with asking(certificates, never, silence=0.1) as here:
        (early,) = await here.hold(1)
        with pytest.raises(TimeoutError):
            await here.pool.request(request(), timeout=0.05)  # who goes so soon says nothing of it
        assert len(here.listener.links) == 1
        with pytest.raises(TimeoutError):
            await here.pool.request(request(), timeout=0.2)
        here.listener.answering = at_once
        assert (await here.ask()).status == 200
        assert len(here.listener.links) == 2
        here.listener.asked[0].answer()
        assert (await early).status == 200  # what it was asked before may still be answered
        await here.listener.until(lambda: here.listener.links[0].farewell)


async def test_a_peer_that_answers_others_meanwhile_is_asked_again(certificates: Certificates) -> None:
    async with asking(certificates, never, silence=0.1) as here:
        waiting = asyncio.create_task(here.pool.request(request(), timeout=0.2))
        await here.listener.until(lambda: len(here.listener.asked) == 1)
        here.listener.answering = at_once
        assert (await here.ask()).status == 200
        with pytest.raises(TimeoutError):
            await waiting
        assert (await here.ask()).status == 200
        assert len(here.listener.links) == 1


async def test_closing_ends_what_is_asked_and_what_waits(certificates: Certificates) -> None:
    async with asking(certificates, never, most_streams=1) as here:
        (held,) = await here.hold(1)
        waiting = asyncio.create_task(here.ask())
        await asyncio.sleep(0)
        await here.pool.close()
        assert await failure(held) == "closed"
        assert await failure(waiting) == "closed"
        with pytest.raises(RequestFailed, match="closed"):
            await here.ask()
        await here.listener.until(lambda: not here.listener.open)
        assert here.listener.links[0].farewell


# --- answers and peers that are broken on purpose -------------------------------------------------------------------


def lying(asked: Asked) -> None:
    """Answer shorter than announced where a liar is asked for; others not at all."""
    if asked.headers[":path"].startswith("/liar"):
        asked.answer(b"short", content_length="99")


async def test_an_answer_that_breaks_a_connection_hurts_the_others_once(certificates: Certificates) -> None:
    async with asking(certificates, lying) as here:
        (hurt,) = await here.hold(1)
        liar = asyncio.create_task(here.ask(request("/liar?index=1")))
        assert "its HTTP/2 is wrong" in await failure(liar)
        assert "its HTTP/2 is wrong" in await failure(hurt)
        await here.listener.until(lambda: not here.listener.open)
        (spared,) = await here.hold(1)
        for index in range(5):
            with pytest.raises(BrokeConnection):
                await here.ask(request(f"/liar?index={index}"))
        assert not spared.done()
        here.listener.answering = at_once
        for _ in range(FORGIVEN_AFTER):
            await here.ask(request("/liar"))
        await here.listener.until(lambda: len(here.listener.open) == 2)
        before = len(here.listener.links[1].asked)
        await here.ask(request("/liar"))
        assert len(here.listener.links[1].asked) == before + 1, "it shares a connection again"


@pytest.mark.parametrize("status", ["9" * 5000, "0200", "²00", "abc", "-20", "20"])
async def test_a_status_that_is_none_hurts_nobody(certificates: Certificates, status: str) -> None:
    def answering(asked: Asked) -> None:
        asked.link.h2.config.validate_outbound_headers = False
        if asked.headers[":path"] == "/odd":
            asked.link.h2.send_headers(asked.number, [(b":status", status.encode())], end_stream=True)
            asked.link.flush()

    async with asking(certificates, answering) as here:
        (other,) = await here.hold(1)
        with contextlib.suppress(RequestFailed):
            assert (await here.ask(request("/odd"))).status == 0
        assert not other.done()
        assert here.pool.connections == 1


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [(b"x-consul-index", b"7"), (b":status", b"200")],
        [(b":status", b"200"), (b":status", b"200")],
        [(b":status", b"200"), (b"X-Consul-Index", b"7")],
        [(b":status", b"200"), (b"x-consul-index", b"7\r\nx: y")],
        [(b":status", b"200"), (b"connection", b"close")],
    ],
)
async def test_headers_that_none_may_have_hurt_their_request_alone(
    certificates: Certificates, fields: list[tuple[bytes, bytes]]
) -> None:
    def answering(asked: Asked) -> None:
        asked.link.h2.config.validate_outbound_headers = False
        asked.link.h2.config.normalize_outbound_headers = False
        if asked.headers[":path"] == "/odd":
            asked.link.h2.send_headers(asked.number, fields or [(b"x-consul-index", b"7")])
            asked.link.flush()

    async with asking(certificates, answering) as here:
        (other,) = await here.hold(1)
        odd = asyncio.create_task(here.ask(request("/odd")))
        assert await failure(odd) in {
            "its answer does not begin with a status",
            "its answer has a header that none may have",
        }
        await here.listener.until(lambda: here.listener.asked[1].reset)
        assert not other.done()
        assert here.pool.connections == 1


async def test_whatever_goes_wrong_in_reading_is_a_failure_of_the_connection(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with asking(certificates, never) as here:
        (task,) = await here.hold(1)
        monkeypatch.setattr(http2.Connection, "_take", lambda *_: int("x"))  # as h2 might
        here.listener.asked[0].answer()
        assert await failure(task) == "its HTTP/2 is wrong (ValueError)"


PING = bytes.fromhex("000008 06 00 00000000 6162636465666768")
EMPTY_DATA = bytes.fromhex("000000 00 00 00000001")
WINDOW_UPDATE = bytes.fromhex("000004 08 00 00000000 00000001")
SETTINGS = bytes.fromhex("000000 04 00 00000000")
UNKNOWN = bytes.fromhex("000000 f0 00 00000000")


@pytest.mark.parametrize("frame", [PING, EMPTY_DATA, WINDOW_UPDATE, SETTINGS, UNKNOWN])
async def test_a_flood_ends_the_connection(certificates: Certificates, frame: bytes) -> None:
    async with asking(certificates, never) as here:
        (task,) = await here.hold(1)
        here.listener.asked[0].begin()
        here.listener.links[0].writer.write(frame * (http2.MOST_IDLE + 1000))
        assert "floods the connection" in await failure(task)


async def test_a_connection_without_requests_ends_although_something_comes(certificates: Certificates) -> None:
    async with asking(certificates, at_once, silence=0.3) as here:
        await here.ask()
        (link,) = here.listener.links
        async with asyncio.timeout(DEADLINE):
            while not link.farewell:
                with contextlib.suppress(OSError):
                    link.writer.write(PING)
                await asyncio.sleep(0.02)


async def test_what_a_peer_does_not_read_is_not_piled_up(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http2, "MOST_IDLE", 1 << 30)
    monkeypatch.setattr(http2, "MOST_UNREAD", 1 << 12)
    async with asking(certificates, never) as here:
        (task,) = await here.hold(1)
        (link,) = here.listener.links
        link.frozen = True
        (ours,) = here.pool._shared._connections  # noqa: SLF001  # the kernel's buffers take megabytes
        assert isinstance(ours, http2.Connection)
        ours._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # noqa: SLF001
        link.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

        async def flood() -> None:
            while not task.done():
                link.writer.write(PING * 2000)
                await link.writer.drain()

        flooding = asyncio.create_task(flood())
        assert await failure(task) == "the listener does not read what it is sent"
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)


async def test_a_flood_leaves_others_their_turns(certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2, "MOST_IDLE", 1 << 30)
    async with asking(certificates, never) as here:
        await here.hold(1)
        here.listener.links[0].writer.write(UNKNOWN * 20_000)
        turns, pings = 0, here.listener.links[0].pings
        here.listener.links[0].writer.write(PING)
        async with asyncio.timeout(DEADLINE):
            while here.listener.links[0].pings == pings:
                turns += 1
                await asyncio.sleep(0)
        assert turns > 20_000 / http2.PORTION / 2


@pytest.mark.parametrize("handshake", [True, False])
async def test_a_listener_that_says_nothing_is_no_connection(certificates: Certificates, *, handshake: bool) -> None:
    tls = certificates.server if handshake else None
    if tls:
        tls.set_alpn_protocols(["h2"])
    over, ended = asyncio.Event(), asyncio.Event()

    async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.transport.abort()
        ended.set()

    async with await asyncio.start_server(silent, "127.0.0.1", 0, ssl=tls) as server:
        to = http2.Listener(
            host="127.0.0.1",
            port=server.sockets[0].getsockname()[1],
            authority="x",
            tls=client_tls(certificates),
            connect_timeout=0.2,
        )
        with pytest.raises(TimeoutError):
            await http2.connect(to)
        assert not any(task.get_name() == "http2 connection" for task in asyncio.all_tasks())
        over.set()
        await ended.wait()


async def test_what_came_before_the_end_is_answered_however_much_it_is(certificates: Certificates) -> None:
    async with asking(certificates, never) as here:
        (first, second) = await here.hold(2)
        (link,) = here.listener.links
        link.writer.write(UNKNOWN * 3 * http2.PORTION)
        here.listener.asked[0].answer(b"whole")
        link.writer.close()
        assert (await first).body == b"whole"
        assert await failure(second) == "the listener closed the connection"

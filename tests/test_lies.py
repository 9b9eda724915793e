"""A whole daemon, on a kernel in memory, whose Consul lies about one Consul service and not about another.

Of every lie the same is asked: nothing that serves leaves the table, the other Consul service goes on meanwhile, the
liar is asked a bounded number of times, status says what is wrong, and the truth counts as soon as it is told again.
Our own small server tells what a real Consul cannot be made to tell, by hand where aiohttp would not lie.
"""

import asyncio
import contextlib
import gzip
import json
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from lvsctl import control
from lvsctl.configfile import load
from lvsctl.core.instance import Instance
from lvsctl.core.status import Place, State, Status
from lvsctl.daemon import Daemon
from lvsctl.reconcile import Reconciler
from lvsctl.store import Store
from netlink.fake import FakeIPVS
from tests.addresses import FakeAddresses
from tests.consul.server import DEADLINE, Answering, Blocking, Consul, consul, entry_of, to_json
from tests.lab.waiting import eventually
from tests.showing import Figure
from tests.values import failing, instance

MANY: Final = tuple(instance(number) for number in range(1, 11))
FEW: Final = MANY[:1]  # one of ten
HALF: Final = MANY[:5]
OTHERS: Final = 2.0  # seconds in which another Consul service's news are in the table, whatever this one sends
RESUMED: Final = 5.0  # seconds from the truth to the table
CANARY: Final = "canary-71b0-token"


@attrs.define
class TwoFaced:
    """Consul for `reco`, which may lie, and for `shop`, which does not."""

    reco: Blocking
    shop: Blocking
    lie: Answering | None = None
    told: list[float] = attrs.field(factory=list)  # when the lie was
    _turned: asyncio.Event = attrs.field(factory=asyncio.Event)

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Answer one request; one that waits is answered with the lie as soon as there is one."""
        if not request.path.endswith("/reco"):
            return await self.shop(request)
        if self.lie is None:
            truth = asyncio.ensure_future(self.reco(request))
            turned = asyncio.ensure_future(self._turned.wait())
            await asyncio.wait([truth, turned], return_when=asyncio.FIRST_COMPLETED)
            turned.cancel()
            if truth.done() or self.lie is None:
                return await truth
            truth.cancel()
        self.told.append(time.monotonic())
        return await self.lie(request)

    def begin(self, lie: Answering) -> None:
        """Lie from now on."""
        self.lie = lie
        self._turned.set()

    def end(self) -> None:
        """Tell the truth again."""
        self.lie = None
        self._turned.clear()


@attrs.define
class Lied:
    """A daemon that runs, and who lies to it."""

    consul: TwoFaced
    server: Consul
    kernel: FakeIPVS
    directory: Path
    logs: Sequence[Mapping[str, object]]

    def serving(self, port: int) -> set[str]:
        """Return the addresses that get new connections at 10.9.0.100, by the kernel."""
        for key, each in self.kernel.observe().table.items():
            if key.port == port:
                return {str(found.key.address) for found in each.real_servers.values() if found.weight > 0}
        return set()

    async def until_serving(self, port: int, expected: set[str], within: float) -> None:
        """Return when exactly these serve."""
        await asyncio.to_thread(eventually, lambda: self.serving(port) == expected, within=within)

    async def status(self) -> Status:
        """Return what `lvsctl status` would show."""
        return await asyncio.to_thread(control.ask, self.directory / "control.sock")

    async def until_status(self, wanted: Callable[[Status], bool]) -> Status:
        """Return the first status that is as `wanted`."""
        ends = time.monotonic() + DEADLINE
        while not wanted(status := await self.status()):
            assert time.monotonic() < ends, status
        return status


def addresses(*numbers: int) -> set[str]:
    return {f"10.0.0.{number}" for number in numbers}


RECO_PORT, SHOP_PORT = 80, 81
TEN: Final = addresses(*range(1, 11))


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Put the signal handlers back that the daemon replaced."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@contextlib.asynccontextmanager
async def lied_to(directory: Path) -> AsyncIterator[Lied]:
    """Run a daemon that serves ten instances of `reco` and one of `shop`."""
    two_faced = TwoFaced(reco=Blocking(MANY, index=50), shop=Blocking((instance(21),)))
    (directory / "token").write_text(CANARY)
    (directory / "token").chmod(0o600)
    kernel = FakeIPVS()
    async with consul(two_faced) as server:
        file = directory / "lvsctl.toml"
        file.write_text(
            f'[consul]\naddress = "{server.address}"\ntoken_file = "{directory}/token"\n'
            f'[daemon]\nstate_directory = "{directory}"\ncontrol_socket = "{directory}/control.sock"\n'
            f'[virtual_server.reco]\naddress = "10.9.0.100:{RECO_PORT}"\n'
            f'[virtual_server.shop]\naddress = "10.9.0.100:{SHOP_PORT}"\n'
        )
        reconciler = Reconciler(kernel, FakeAddresses(), Store(directory), time.time)
        with capture_logs() as logs:
            task = asyncio.create_task(Daemon(file, load(file), reconciler, dry_run=False).run(), name="daemon")
            found = Lied(consul=two_faced, server=server, kernel=kernel, directory=directory, logs=logs)
            await found.until_serving(RECO_PORT, TEN, DEADLINE)
            await found.until_serving(SHOP_PORT, addresses(21), DEADLINE)
            yield found
            os.kill(os.getpid(), signal.SIGTERM)
            async with asyncio.timeout(DEADLINE):
                await task
    assert CANARY not in str(logs)


async def others_go_on(daemon: Lied) -> float:
    """Have `shop` change, and return the seconds until it arrived."""
    began = time.monotonic()
    await daemon.consul.shop.change(instance(21), instance(22))
    await daemon.until_serving(SHOP_PORT, addresses(21, 22), OTHERS)
    return time.monotonic() - began


async def the_truth_counts(daemon: Lied) -> None:
    """Have `reco` be truthful again with one more, and see it arrive."""
    daemon.consul.end()
    await daemon.consul.reco.change(*MANY, instance(11))
    await daemon.until_serving(RECO_PORT, TEN | addresses(11), RESUMED)


# --- answers that are none ------------------------------------------------------------------------------------------


def said(body: bytes, *, status: int = 200, **headers: str) -> Answering:
    """Return what answers with this, under an index that is new."""
    fields = {"X-Consul-Index": "51"} | {name.replace("_", "-"): value for name, value in headers.items()}

    async def answering(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0)
        return web.Response(status=status, body=body, headers=fields)

    return answering


def by_hand(
    head: bytes, pieces: Callable[[], Iterator[bytes]], *, stay: bool = False, reset: bool = False
) -> Answering:
    """Return what sends these bytes, and then hangs up, or resets the connection, unless it is to stay."""

    async def answering(request: web.Request) -> web.StreamResponse:
        transport = request.transport
        assert isinstance(transport, asyncio.Transport)
        with contextlib.suppress(ConnectionError):
            transport.write(head)
            for piece in pieces():
                transport.write(piece)
                await asyncio.sleep(0.001)
        if stay:
            await asyncio.sleep(3600)
        if reset:
            transport.abort()
        transport.close()
        return web.Response()

    return answering


def bomb() -> bytes:
    """Return 64 MiB, more than a body may have, in 300 KiB."""
    return gzip.compress(b"[" + b" " * (1 << 26) + b"]", 1)


def another() -> bytes:
    """Return what Consul would have answered about another Consul service: a proxy mixed up two answers."""
    entries = [entry_of(instance(number)) for number in (31, 32)]
    return json.dumps([each | {"Service": {**each["Service"], "Service": "shop"}} for each in entries]).encode()  # type: ignore[dict-item]


WHOLE: Final = to_json(*MANY)
OK: Final = b"HTTP/1.1 200 OK\r\nX-Consul-Index: 51\r\n"
CHUNKED: Final = OK + b"Transfer-Encoding: chunked\r\n\r\n"
NO_ANSWERS: Final[Mapping[str, Callable[[], Answering]]] = {
    "500": lambda: said(b"No cluster leader", status=500),
    "403 with a list": lambda: said(b"[]", status=403),
    "404": lambda: said(b"", status=404),
    "204": lambda: said(b"", status=204),
    "206, a part": lambda: said(WHOLE[:100], status=206),
    "304": lambda: said(b"", status=304),
    "301": lambda: said(b"", status=301, Location="http://127.0.0.1:1/v1/health/service/reco"),
    "307": lambda: said(b"", status=307, Location="/v1/health/service/shop"),
    "a page for people": lambda: said(b"<html><body>please log in</body></html>", Content_Type="text/html"),
    "nothing": lambda: said(b""),
    "null": lambda: said(b"null"),
    "an object": lambda: said(b'{"Nodes": []}'),
    "two lists": lambda: said(b"[][]"),
    "half a list": lambda: said(WHOLE[: len(WHOLE) // 2]),
    "10^5 deep": lambda: said(b"[" * 10**5),
    "an object 10^5 deep": lambda: said(b'{"a":' * 10**5 + b"0" + b"}" * 10**5),
    "UTF-16": lambda: said(WHOLE.decode().encode("utf-16"), Content_Type="application/json; charset=utf-16"),
    "NUL": lambda: said(b"\0" * 1000),
    "more instances than allowed": lambda: said(b"[" + b"{}," * 100_000 + b"{}]"),
    "gzip that nobody asked for": lambda: said(bomb(), Content_Encoding="gzip"),
    "more than it promised": lambda: by_hand(OK + b"Content-Length: 2\r\n\r\n", lambda: iter((b"[]", WHOLE))),
    "less than it promised": lambda: by_hand(OK + b"Content-Length: 100000\r\n\r\n", lambda: iter((WHOLE,))),
    "a chunk cut short": lambda: by_hand(CHUNKED, lambda: iter((b"2\r\n[]\r\nff\r\n[",))),
    "a chunk of a size that is none": lambda: by_hand(CHUNKED, lambda: iter((b"zz\r\n[]\r\n0\r\n\r\n",))),
    "HTTP/1.0, cut short": lambda: by_hand(
        b"HTTP/1.0 200 OK\r\nX-Consul-Index: 51\r\n\r\n", lambda: iter((WHOLE[:900],))
    ),
    "another protocol": lambda: by_hand(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n", lambda: iter(())),
    "interim answers without end": lambda: by_hand(b"", lambda: iter([b"HTTP/1.1 102 Processing\r\n\r\n" * 99] * 99)),
    "two lengths": lambda: by_hand(OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n", lambda: iter((b"[] ",))),
    "the answer to another question": lambda: said(another()),
    "a reset at once": lambda: by_hand(b"", lambda: iter(()), reset=True),
    "a reset among the headers": lambda: by_hand(OK, lambda: iter(()), reset=True),
    "a reset in the list": lambda: by_hand(
        CHUNKED, lambda: iter((b"%x\r\n%b" % (len(WHOLE), WHOLE[:200]),)), reset=True
    ),
    "no HTTP": lambda: by_hand(b"\0\x01\x02\r\n\r\n", lambda: iter(())),
    "headers without end": lambda: by_hand(OK, lambda: iter([b"X-A: " + b"a" * 4096 + b"\r\n"] * 1000)),
}


CONFIRMED_BY_NOBODY = {"more than it promised"}


@pytest.mark.promise(1, case="5xx, 403, half a list, a reset, no HTTP", target="10 of 10 serve; resumed")
@pytest.mark.promise(15, case="a gigabyte, 10^5 deep, endless headers: others meanwhile", target=f"in {OTHERS:g} s")
@pytest.mark.parametrize("name", NO_ANSWERS)
async def test_what_is_no_answer_changes_nothing(tmp_path: Path, name: str, figure: Figure) -> None:
    lie = NO_ANSWERS[name]()
    async with lied_to(tmp_path) as daemon:
        began = time.monotonic()
        daemon.consul.begin(lie)
        if name in CONFIRMED_BY_NOBODY:  # a whole answer, and then nothing that could be one
            await daemon.until_status(
                lambda status: any("no leader confirms it" in row for row in map(str, status.virtual_servers))
            )
        else:
            status = await daemon.until_status(lambda status: bool(status.consul and status.consul.failing))
            assert status.consul is not None
            assert status.consul.error
        figure(await others_go_on(daemon), "s until another Consul service's change was in")
        figure(len(TEN - daemon.serving(RECO_PORT)), "removed")
        assert daemon.serving(RECO_PORT) == TEN
        assert len(daemon.consul.told) <= 4 + 8 * (time.monotonic() - began), "it is asked again and again"
        await the_truth_counts(daemon)


@pytest.mark.promise(15, case="an answer that trickles: others meanwhile", target=f"in {OTHERS:g} s")
@pytest.mark.parametrize("stay", [True, False])
async def test_an_answer_that_trickles_keeps_nobody_waiting(
    tmp_path: Path,
    stay: bool,  # noqa: FBT001
    figure: Figure,
) -> None:
    """What meets its deadline is in tests/consul/test_client.py; here it never ends while others are served."""

    def drops() -> Iterator[bytes]:
        yield from (bytes([each]) for each in WHOLE[:200])

    lie = by_hand(OK + b"Content-Length: 100000\r\n\r\n", drops, stay=stay)
    async with lied_to(tmp_path) as daemon:
        daemon.consul.begin(lie)
        figure(await others_go_on(daemon), "s until another Consul service's change was in")
        assert daemon.serving(RECO_PORT) == TEN


# --- too many requests ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", ["", "1", "Wed, 21 Oct 2026 07:28:00 GMT", "-1", "NaN"])
async def test_a_429_changes_nothing_and_is_waited_for(tmp_path: Path, after: str) -> None:
    headers = {"Retry_After": after} if after else {}
    async with lied_to(tmp_path) as daemon:
        began = time.monotonic()
        daemon.consul.begin(said(b"", status=429, **headers))
        await daemon.until_status(lambda status: bool(status.consul and status.consul.failing))
        await others_go_on(daemon)
        if after == "1":
            await asyncio.to_thread(eventually, lambda: len(daemon.consul.told) >= 2)
            assert daemon.consul.told[1] - daemon.consul.told[0] >= 1.0
        assert daemon.serving(RECO_PORT) == TEN
        assert len(daemon.consul.told) <= 4 + 8 * (time.monotonic() - began)
        await the_truth_counts(daemon)


# --- answers that may not be true -----------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Doubtful:
    """A list that a real Consul could have sent, and why it may be wrong."""

    instances: tuple[Instance, ...]
    headers: Mapping[str, str]
    why: str


FILTERED: Final = {"X-Consul-Results-Filtered-By-ACLs": "true"}
DOUBTFUL: Final = {
    "nothing, at index 1": Doubtful(instances=(), headers={"X-Consul-Index": "1"}, why="index went back from 50 to 1"),
    "one of ten, same index": Doubtful(instances=FEW, headers={"X-Consul-Index": "50"}, why="index stayed at 50"),
    "one of ten, no index": Doubtful(instances=FEW, headers={}, why="no usable index"),
    **{
        f"nine of ten, index {index}": Doubtful(
            instances=MANY[:9], headers={"X-Consul-Index": index}, why="no usable index"
        )
        for index in (
            "0",
            "-1",
            "18446744073709551616",
            "1e3",
            "0x33",
            "NaN",
            "51 52",
        )
    },
    "half, the others not readable": Doubtful(
        instances=HALF, headers={"X-Consul-Index": "51", **FILTERED}, why="the token may not read"
    ),
    "half, without a leader": Doubtful(
        instances=HALF, headers={"X-Consul-Index": "51", "X-Consul-KnownLeader": "false"}, why="knows no leader"
    ),
    "nothing, a minute behind": Doubtful(
        instances=(), headers={"X-Consul-Index": "51", "X-Consul-LastContact": "60000"}, why="60 s ago"
    ),
}


@pytest.mark.promise(2, case="lists that a real Consul could send, in doubt: 13 kinds", target="0 removed")
@pytest.mark.parametrize("name", DOUBTFUL)
async def test_what_is_in_doubt_adds_and_takes_nothing_away(tmp_path: Path, name: str, figure: Figure) -> None:
    case = DOUBTFUL[name]
    new = instance(12)

    async def lie(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0)
        listed = [entry_of(each) for each in (*case.instances, *((new,) if case.instances else ()))]
        return web.json_response(listed, headers=case.headers)

    async with lied_to(tmp_path) as daemon:
        began = time.monotonic()
        daemon.consul.begin(lie)
        status = await daemon.until_status(lambda status: State.HELD in {row.state for row in status.virtual_servers})
        (row,) = (each for each in status.virtual_servers if each.name == "reco")
        assert case.why in str(row), row
        if case.instances:
            await daemon.until_serving(RECO_PORT, TEN | addresses(12), OTHERS)
        await others_go_on(daemon)
        figure(len(TEN - daemon.serving(RECO_PORT)), "removed")
        assert daemon.serving(RECO_PORT) >= TEN
        assert len(daemon.consul.told) <= 4 + 8 * (time.monotonic() - began)
        daemon.consul.end()
        await daemon.consul.reco.change(*MANY, instance(11), index=60)
        await daemon.until_serving(RECO_PORT, TEN | addresses(11), RESUMED)


def doubtful(case: Doubtful) -> Answering:
    async def lie(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0)
        return web.json_response([entry_of(each) for each in case.instances], headers=case.headers)

    return lie


LIES: Final[Mapping[str, Callable[[], Answering]]] = {
    **NO_ANSWERS,
    **{name: partial(doubtful, case) for name, case in DOUBTFUL.items()},
}


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_lies_follow_each_other_around_reloads_and_new_tokens_nothing_leaves(
    tmp_path: Path, seed: int
) -> None:
    draw = random.Random(seed)
    async with lied_to(tmp_path) as daemon:
        for step in range(4):
            what = draw.choice(("lie", "lie", "lie", "lie", "reload", "token", "truth"))
            if what == "lie":
                daemon.consul.begin(LIES[draw.choice(list(LIES))]())
            elif what == "truth":
                daemon.consul.end()
            elif what == "token":
                (tmp_path / "token").write_text(f"{CANARY}-{step}")
            else:
                file = tmp_path / "lvsctl.toml"
                more = f'[virtual_server.more-{step}]\naddress = "10.9.0.100:{90 + step}"\nconsul_service = "shop"\n'
                file.write_text(file.read_text() + more)
                os.kill(os.getpid(), signal.SIGHUP)
                await daemon.until_serving(90 + step, addresses(21), OTHERS)
            ends = time.monotonic() + draw.choice((0.05, 0.3, 1.2))
            while time.monotonic() < ends:
                assert daemon.serving(RECO_PORT) >= TEN
                await asyncio.sleep(0.02)
        daemon.consul.end()
        await daemon.consul.reco.change(*MANY, instance(11), index=1000)
        await daemon.until_serving(RECO_PORT, TEN | addresses(11), RESUMED + OTHERS)


async def test_what_is_still_registered_and_fails_is_no_lie(tmp_path: Path) -> None:
    async with lied_to(tmp_path) as daemon:
        await daemon.consul.reco.change(*MANY[:5], *(failing(number) for number in range(6, 11)))
        await daemon.until_serving(RECO_PORT, addresses(1, 2, 3, 4, 5), OTHERS)


async def test_a_slow_leak_never_takes_more_than_half(tmp_path: Path) -> None:
    """One in ten goes with every answer, at an index that rises: each alone is believable."""
    async with lied_to(tmp_path) as daemon:
        for left in range(9, 4, -1):
            await daemon.consul.reco.change(*MANY[:left])
            await daemon.until_serving(RECO_PORT, addresses(*range(1, left + 1)), OTHERS)
        for left in range(4, -1, -1):
            await daemon.consul.reco.change(*MANY[:left])
            await daemon.until_status(partial(_holds, 5 - left))
            assert daemon.serving(RECO_PORT) == addresses(1, 2, 3, 4, 5)


async def test_nine_of_ten_that_go_at_once_and_for_good_leave_half(tmp_path: Path) -> None:
    """The consistent read that confirms it changes nothing: the floor is not a matter of belief."""
    async with lied_to(tmp_path) as daemon:
        await daemon.consul.reco.change(MANY[0])
        await daemon.until_status(partial(_holds, 4))
        assert daemon.serving(RECO_PORT) == addresses(1, 2, 3, 4, 5)


def _holds(many: int, status: Status) -> bool:
    """Tell whether so many real servers of reco are held, and why is said."""
    (row,) = (each for each in status.virtual_servers if each.name == "reco")
    held = [each for each in row.real_servers if each.place is Place.HELD]
    return len(held) == many and row.state is State.HELD and bool(row.note)


# --- bad instances among good ones ----------------------------------------------------------------------------------


def spoilt(number: int, **service: object) -> bytes:
    """Return an entry of the answer with these in place of what was."""
    entry = entry_of(instance(number))
    assert isinstance(entry["Service"], dict)
    entry["Service"] |= service
    return json.dumps(entry).encode()


SPOILT: Final = {
    "a port that is no number": spoilt(1, Port=float("nan")),
    "a port of 400 digits": spoilt(1).replace(b"8080", b"9" * 400),
    "a port beyond all numbers": spoilt(1).replace(b"8080", b"1e400"),
    "a weight below 0": spoilt(1, Weights={"Passing": -1, "Warning": 1}),
    "a loopback address": spoilt(1, Address="127.0.0.1"),
    "an address with NUL": spoilt(1, Address="10.0.0.1\0"),
    "a name for an address": spoilt(1, Address="localhost"),
    "half a character": spoilt(1, Address="10.0.0.1").replace(b'"10.0.0.1"', b'"\xff"'),
    "10^5 deep": spoilt(1).replace(b"8080", b"[" * 10**5 + b"]" * 10**5),
    "null": b"null",
}


def list_of(*entries: bytes) -> Answering:
    """Return what answers with these entries, under an index that is new, and then holds the next request."""
    told = said(b"[" + b",".join(entries) + b"]")

    async def answering(request: web.Request) -> web.StreamResponse:
        if request.query.get("index") == "51":
            await asyncio.sleep(3600)
        return await told(request)

    return answering


@pytest.mark.promise(8, case="one bad among 250, in 10 kinds of bad", target="249 serve in each")
@pytest.mark.parametrize("name", SPOILT)
async def test_one_bad_instance_of_250_goes_alone(tmp_path: Path, name: str, figure: Figure) -> None:
    good = [spoilt(number) for number in range(2, 251)]
    async with lied_to(tmp_path) as daemon:
        daemon.consul.begin(list_of(SPOILT[name], *good))
        await daemon.until_serving(RECO_PORT, addresses(*range(2, 251)), OTHERS)
        (row,) = (each for each in (await daemon.status()).virtual_servers if each.name == "reco")
        figure(250 - row.serving, "rejected")
        figure(row.serving, "serve")
        assert row.serving == 249
        assert [each["event"] for each in daemon.logs].count("instance_rejected") == 1


@pytest.mark.parametrize("name", SPOILT)
async def test_ten_bad_instances_of_ten_take_nothing_away(tmp_path: Path, name: str) -> None:
    async with lied_to(tmp_path) as daemon:
        daemon.consul.begin(list_of(*[SPOILT[name]] * 10))
        await daemon.until_status(lambda status: State.HELD in {row.state for row in status.virtual_servers})
        await others_go_on(daemon)
        assert daemon.serving(RECO_PORT)

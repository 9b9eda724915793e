"""Bounded memory whatever Consul sends, to how many queries ever, and the others are served as if nothing was (P15).

What is measured is lvsctl, not the stand-in for Consul: that one sends everything in pieces and gives its other answers
their turn between any two. Written in one go, five stalled answers of 32 MB kept it from answering anything for up to
3 s where the processor was shared.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from itertools import chain, repeat

import pytest
from aiohttp import web

from lvsctl.consul.transport import MAX_BODY
from tests.consul.server import Blocking, consul
from tests.showing import Figure
from tests.values import instance

GOOD = [f"good-{number}" for number in range(20)]
CONVERGED = 2.0  # seconds from a change in Consul to the news, whatever it sends to others
MEMORY = 256  # MiB
PIECE = 1 << 18
BLANK = b" " * PIECE
INDEX = {"X-Consul-Index": "7"}

Sending = Callable[[web.StreamResponse], Awaitable[None]]


async def send(response: web.StreamResponse, pieces: Iterable[bytes]) -> None:
    """Send the pieces as fast as they are taken."""
    for piece in pieces:
        await response.write(piece)
        await asyncio.sleep(0)  # write() itself waits for others only when the socket is full


async def bomb(response: web.StreamResponse) -> None:
    """Send a gigabyte."""
    await send(response, repeat(BLANK, (1 << 30) // PIECE))


async def deep(response: web.StreamResponse) -> None:
    await response.write(b"[" * 10**5 + b"]" * 10**5)


async def trickle(response: web.StreamResponse) -> None:
    """Send a byte now and then."""
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.05)


async def stalled(response: web.StreamResponse) -> None:
    """Send much, and then nothing more."""
    await send(response, chain([b"["], repeat(BLANK, MAX_BODY // PIECE - 1), [BLANK[1024:]]))
    await asyncio.sleep(3600)


def entries(number: int, padding: int) -> Sending:
    """Return what sends so many instances with so long an output each."""
    check = {"CheckID": "c", "Name": "c", "Status": "passing", "Output": "x" * padding}
    service = {"Address": "10.0.0.1", "Port": 80}
    texts = [
        json.dumps(
            {"Node": {"Node": "n", "Address": "10.0.0.1"}, "Service": {"ID": str(at), **service}, "Checks": [check]}
        )
        for at in range(number)
    ]
    body = f"[{','.join(texts)}]".encode()
    pieces = [body[start : start + PIECE] for start in range(0, len(body), PIECE)]

    async def sending(response: web.StreamResponse) -> None:
        await send(response, pieces)

    return sending


def tags(first: int) -> Sending:
    """Return what sends 32 MB of tags, no two of them the same, in eight such lists."""
    one = {"Node": {"Node": "n", "Address": "10.0.0.1"}, "Checks": []}
    service = {"Address": "10.0.0.1", "Port": 80}

    def entry(at: int) -> bytes:
        names = [f"{number:x}" for number in range(at * 1000, (at + 1) * 1000)]
        return json.dumps(one | {"Service": {"ID": str(at), "Tags": names, **service}}).encode()

    async def sending(response: web.StreamResponse) -> None:
        each = (entry(first * 3000 + at) + b"," for at in range(3000))
        await send(response, chain([b"["], each, [b"{}]"]))

    return sending


LIES: dict[str, dict[str, Sending]] = {
    "10,000 instances": {"many": entries(10_000, 1_000)},
    "a gigabyte": {"bomb": bomb},
    "deep JSON": {"deep": deep},
    "a trickle": {"trickle": trickle},
    "large, eight times": {f"large-{number}": entries(10_000, 2_500) for number in range(8)},
    "tags, eight times": {f"tagged-{number}": tags(number) for number in range(8)},
    "all at once": {
        "many": entries(10_000, 1_000),
        "deep": deep,
        **{f"bomb-{number}": bomb for number in range(5)},
        **{f"trickle-{number}": trickle for number in range(5)},
        **{f"stalled-{number}": stalled for number in range(5)},
        **{f"large-{number}": entries(10_000, 2_500) for number in range(5)},
    },
}


@pytest.mark.promise(
    15,
    case="a gigabyte, 10^5 deep, a trickle, 10,000 instances, all at once",
    target=f"others in {CONVERGED:g} s, at most {MEMORY} MiB",
)
@pytest.mark.parametrize("name", LIES)
async def test_memory_is_bounded_and_the_others_are_served(name: str, figure: Figure) -> None:
    blocking, lies, asked = Blocking((instance(1),)), LIES[name], set()

    async def answering(request: web.Request) -> web.StreamResponse:
        service = request.path.rpartition("/")[2]
        if service not in lies:
            return await blocking(request)
        response = web.StreamResponse(headers=INDEX)
        await response.prepare(request)
        asked.add(service)
        await lies[service](response)
        return response

    async with consul(answering) as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.consul.watcher", server.address, *GOOD, *lies),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            await heard(process.stdout, blocking.index)
            async with asyncio.timeout(30):
                while asked != lies.keys():  # noqa: ASYNC110 -- of every lie
                    await asyncio.sleep(0.05)
            slowest = 0.0
            for number in range(2, 10):
                began = time.monotonic()
                await blocking.change(instance(number))
                await heard(process.stdout, blocking.index)
                slowest = max(slowest, time.monotonic() - began)
                await asyncio.sleep(0.3)
            process.stdin.close()
            async with asyncio.timeout(60):
                peak = int((await process.stdout.read()).split()[-1])
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
    print(f"{name}: {peak} MiB, {slowest:.2f} s")
    figure(float(peak), "MiB at most")
    figure(slowest, "s until the others' change was in")
    assert peak <= MEMORY
    assert slowest <= CONVERGED


async def heard(output: asyncio.StreamReader, index: int) -> None:
    """Return when every good Consul service was heard at that index."""
    missing = set(GOOD)
    async with asyncio.timeout(60):
        while missing:
            service, at = (await output.readline()).decode().split()
            if int(at) == index:
                missing.discard(service)

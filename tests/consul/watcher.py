"""Watches in a process of their own, so that the most memory they ever had can be told.

    python -m tests.consul.watcher ADDRESS SERVICE...

Prints a line for each answer that is news, its Consul service and its index. At the end of its input it prints its peak
of memory in MiB and ends.
"""

import asyncio
import sys
from pathlib import Path

import lvsctl.daemon  # noqa: F401  # for the memory: all that the daemon imports
from lvsctl.config import ConsulConfig
from lvsctl.consul.client import Client
from lvsctl.consul.watch import Watches
from lvsctl.core.instance import Query
from lvsctl.logs import configure
from lvsctl.memory import give_back, seldom


async def main(address: str, *services: str) -> None:
    """Watch until the input ends."""
    configure(level="error")
    give_back()
    seldom()  # as `lvsctl run` does
    woken = asyncio.Event()
    async with Client(ConsulConfig(address=address)) as client:
        watches = Watches(client, woken.set)
        watches.watch(Query(service=service) for service in services)
        ended = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read))
        watching = asyncio.ensure_future(watches.run())
        while not ended.done():
            news = asyncio.ensure_future(woken.wait())
            await asyncio.wait({news, ended}, return_when=asyncio.FIRST_COMPLETED)
            news.cancel()
            woken.clear()
            for query in sorted(watches.heard.take_news()):
                print(query.service, watches.heard.answers[query].index, flush=True)
        watching.cancel()
        await asyncio.wait({watching})
    status = Path("/proc/self/status").read_text("ascii")  # noqa: ASYNC240  # once
    print("peak", int(status.split("VmHWM:")[1].split()[0]) // 1024)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

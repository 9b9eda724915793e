"""Runs every story with all balancers, in one lab, and prints the table of docs/comparison.md.

    python -m tests.compare [--timeout S] [-k WORD] [--forwarding F]

Runs itself in the lab's kernel. Writes build/comparison.json. The exit status is 0 when every story ran: it is a
measurement and no test.
"""

import argparse
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs

import lvsctl
from tests.compare.balancers import BALANCERS
from tests.compare.stories import FIRST, STORIES, Seen, Site
from tests.kernel.director import Director
from tests.lab.consul import ConsulAgent, version
from tests.lab.kernels import CHECKOUT
from tests.lab.scene import VIP4, Forwarding, Scene, scene

RESULT: Final = CHECKOUT / "build/comparison.json"
FORWARDINGS: Final[tuple[Forwarding, ...]] = ("masquerade", "direct-route")
PORT: Final = 8001  # the first; every story has its own, for the kernel remembers connections for minutes

Row = dict[str, Any]


@contextmanager
def site(forwarding: Forwarding) -> Iterator[Scene]:
    """Yield the usual scene with an address for each balancer, and a Consul whose catalogue outlives it."""
    with scene(forwarding, real_servers=2 * FIRST, consul=False) as made:
        consul = ConsulAgent(made.consul_host, kind="server", node="server")
        consul.start()
        for number, each in enumerate(BALANCERS[1:], 3):
            made.lab.host(each.client, front=[f"10.1.0.{number}/24"])
        own = [f"{each.address}/32" for each in BALANCERS if each.address != VIP4]
        made.director.add_address("front", *own)
        if forwarding == "direct-route":
            for real_server in made.real_servers:
                real_server.host.add_address("lo", *own)
        yield attrs.evolve(made, consul=consul)


def measure(forwardings: Sequence[Forwarding], word: str) -> Iterator[Row]:
    """Yield what the client saw, story by story."""
    port = PORT
    for forwarding in forwardings:
        with site(forwarding) as made:
            made.director.sysctl({"net.ipv4.vs.expire_nodest_conn": 1})  # as all three recommend
            director = Director(made)
            for story, act in STORIES.items():
                if word not in story:
                    continue
                port += 1
                try:
                    found = Site(director, forwarding, port).run(act)
                except Exception:  # noqa: BLE001 - one story that cannot be told must not cost all others
                    print(f"{forwarding}, {story}: could not be run\n{traceback.format_exc()}", flush=True)
                    continue
                for balancer, seen in found.items():
                    row = as_row(forwarding, story, balancer, seen)
                    print(f"{forwarding}, {story}, {balancer}: {seen.report}", flush=True)
                    print(f"  {row['broken']} of {row['held']} broken, right at the end: {row['right']}", flush=True)
                    yield row


def as_row(forwarding: str, story: str, balancer: str, seen: Seen) -> Row:
    """Return the numbers as JSON has them."""
    return {
        "forwarding": forwarding,
        "story": story,
        "balancer": balancer,
        "requests": seen.report.requests,
        "failed": len(seen.report.failures),
        "slowest_ms": round(seen.report.slowest * 1000),
        "held": seen.held,
        "broken": seen.broken,
        "right": seen.right,
    }


def versions() -> dict[str, str]:
    """Return what ran, as each says it of itself."""

    def first(*command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return (done.stdout or done.stderr).splitlines()[0].strip()

    return {
        "lvsctl": lvsctl.__version__,
        "ipvsadm": first("ipvsadm", "--version"),
        "keepalived": first("keepalived", "--version"),
        "Consul": ".".join(map(str, version())),
        "Linux": os.uname().release,
    }


def table(rows: Iterable[Row]) -> Iterator[str]:
    """Yield the table as Markdown: for each story a line, for each balancer requests, failed and broken."""
    by_story: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        by_story.setdefault((row["forwarding"], row["story"]), {})[row["balancer"]] = row
    names = [each.name for each in BALANCERS]
    yield f"| forwarding | story | {' | '.join(names)} |"
    yield "|---|---|" + "---|" * len(names)
    for (forwarding, story), found in by_story.items():
        cells = [cell(found[name]) for name in names]
        yield f"| {forwarding} | {story} | {' | '.join(cells)} |"
    totals = []
    for name in names:
        mine = [found[name] for found in by_story.values()]
        failed, requests, broken = (sum(row[key] for row in mine) for key in ("failed", "requests", "broken"))
        totals.append(f"{failed:,} of {requests:,}, {broken} broken")
    yield f"| | all | {' | '.join(totals)} |"


def cell(row: Row) -> str:
    """Return `0 of 512, 0 broken`, and a word where the table was not right at the end."""
    text = f"{row['failed']} of {row['requests']}, {row['broken']} broken"
    return text if row["right"] else f"{text}, table wrong"


def main() -> int:
    """Return 0 when every story ran."""
    parser = argparse.ArgumentParser(prog="python -m tests.compare", description="Compare the balancers.")
    parser.add_argument("--timeout", type=float, default=3600.0, help="seconds until the kernel is ended")
    parser.add_argument("-k", dest="word", default="", help="only stories with this word")
    parser.add_argument("--forwarding", choices=FORWARDINGS, help="only this one")
    given = parser.parse_args()
    if not os.environ.get("LVSCTL_LAB"):
        kernel = [sys.executable, "-m", "tests.lab.kernel", "--timeout", f"{given.timeout:g}", "--"]
        return subprocess.run([*kernel, sys.executable, "-m", "tests.compare", *sys.argv[1:]], check=False).returncode
    forwardings = (given.forwarding,) if given.forwarding else FORWARDINGS
    rows = []
    for row in measure(forwardings, given.word):
        rows.append(row)
        Path(RESULT).write_text(json.dumps({"versions": versions(), "rows": rows}, indent=2) + "\n", encoding="utf-8")
    print("", *table(rows), "", ", ".join(f"{name} {text}" for name, text in versions().items()), sep="\n")
    stories = len(forwardings) * sum(given.word in story for story in STORIES)
    return 0 if len(rows) == stories * len(BALANCERS) else 1


if __name__ == "__main__":
    sys.exit(main())

"""A small template-style updater, the usual alternative: what Consul says is rendered into a file and applied.

    python -m tests.compare.updater CONSUL SERVICE ADDRESS:PORT FORWARDING FILE ipvsadm
    python -m tests.compare.updater CONSUL SERVICE ADDRESS:PORT FORWARDING FILE keepalived PIDFILE

It works as such programs commonly do, in the better of their forms: a blocking query for the passing instances, of
which the last answer is kept while Consul fails; a file that is replaced at once; something applied only when the file
changed. With `ipvsadm` what differs from the live table is applied by one `ipvsadm --restore` of -a, -e and -d lines,
what comes before what goes (the other common form, clear and restore, cuts every connection). With `keepalived` the
file is its configuration, and SIGHUP tells it. There is no floor, no drain and no look at the table in between.
"""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

WAIT: Final = 60  # seconds, as consul-template has it
RETRY: Final = (0.25, 60.0)  # the first pause and the longest, doubled each time

Instances = dict[str, int]  # weight by address:port


def passing(consul: str, service: str, index: int) -> tuple[Instances, int]:
    """Return the passing instances when they differ from those at `index`, or when the wait is over."""
    url = f"{consul}/v1/health/service/{service}?passing=1&stale=&index={index}&wait={WAIT}s"
    with urllib.request.urlopen(url, timeout=WAIT * 17 / 16 + 10) as answer:
        entries: list[dict[str, Any]] = json.load(answer)
        now = int(answer.headers["X-Consul-Index"])
    found = {
        f"{each['Service']['Address'] or each['Node']['Address']}:{each['Service']['Port']}": int(
            each["Service"]["Weights"]["Passing"]
        )
        for each in entries
    }
    return found, now if now >= index else 0


def ipvsadm_text(virtual_server: str, forwarding: str, instances: Instances) -> str:
    """Return the table as `ipvsadm -Sn` would print it."""
    option = {"masquerade": "-m", "direct-route": "-g"}[forwarding]
    lines = [f"-A -t {virtual_server} -s wrr"]
    lines += [f"-a -t {virtual_server} -r {key} {option} -w {weight}" for key, weight in sorted(instances.items())]
    return "\n".join(lines) + "\n"


def keepalived_text(virtual_server: str, forwarding: str, instances: Instances) -> str:
    """Return keepalived's configuration."""
    kind = {"masquerade": "NAT", "direct-route": "DR"}[forwarding]
    real_servers = [
        f"    real_server {key.replace(':', ' ')} {{\n        weight {weight}\n    }}"
        for key, weight in sorted(instances.items())
    ]
    head = f"virtual_server {virtual_server.replace(':', ' ')} {{"
    return "\n".join([head, "    lb_algo wrr", f"    lb_kind {kind}", "    protocol TCP", *real_servers, "}", ""])


def by_line(text: str) -> dict[str, str]:
    """Return the weight of each line, empty for a virtual server's."""
    found = (line.partition(" -w ") for line in text.splitlines())
    return {line: weight for line, _, weight in found}


def changes(wanted: str, live: str) -> str:
    """Return the lines that turn the live table into the wanted one: what comes first, what goes last."""
    want, have = by_line(wanted), by_line(live)
    added = [f"{line} -w {weight}" if weight else line for line, weight in want.items() if line not in have]
    edited = [
        f"-e{line[2:]} -w {weight}" for line, weight in want.items() if line in have and weight and have[line] != weight
    ]
    gone = [
        f"-d {line[3:].partition(' -m')[0].partition(' -g')[0]}"
        for line in have
        if line.startswith("-a") and line not in want
    ]
    return "".join(f"{line}\n" for line in (*added, *edited, *gone))


def apply_with_ipvsadm(virtual_server: str, wanted: str) -> None:
    """Apply what differs from the live table, with one ipvsadm."""
    saved = subprocess.run(["ipvsadm", "-Sn"], capture_output=True, text=True, check=True).stdout
    live = "".join(f"{line.strip()}\n" for line in saved.splitlines() if f" {virtual_server} " in line)
    subprocess.run(["ipvsadm", "--restore"], input=changes(wanted, live), text=True, check=False)


def main(arguments: Sequence[str]) -> None:
    """Follow Consul for ever."""
    consul, service, virtual_server, forwarding, path, tool, *pids = arguments
    file = Path(path)
    render = ipvsadm_text if tool == "ipvsadm" else keepalived_text
    index, pause = 0, RETRY[0]
    while True:
        try:
            instances, index = passing(consul, service, index)
        except (OSError, ValueError, http.client.HTTPException) as error:
            print(f"{error}; again in {pause:g} s", flush=True)
            time.sleep(pause)
            pause = min(2 * pause, RETRY[1])
            continue
        pause = RETRY[0]
        text = render(virtual_server, forwarding, instances)
        if file.exists() and file.read_text("ascii") == text:
            continue
        new = file.with_suffix(".new")
        new.write_text(text, "ascii")
        new.replace(file)
        print(f"{len(instances)} instances", flush=True)
        if tool == "ipvsadm":
            apply_with_ipvsadm(virtual_server, text)
        else:
            for each in pids:
                if Path(each).exists():
                    os.kill(int(Path(each).read_text("ascii")), signal.SIGHUP)


if __name__ == "__main__":
    main(sys.argv[1:])

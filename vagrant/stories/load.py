"""Traffic from the client while something happens, and what became of each request."""

import contextlib
import dataclasses
import json
import shlex
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from vagrant.stories import guests


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came of one request: who answered, or why nobody did. `at` is the host's monotonic clock."""

    at: float
    instance: str = ""
    release: str = ""
    error: str = ""
    seconds: float = 0.0


class Load:
    """The answers so far, in the order in which they came."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = lines
        self._answers: list[Answer] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._lines:
            with contextlib.suppress(ValueError):
                said = json.loads(line)
                known = {key: said[key] for key in ("instance", "release", "error", "seconds") if key in said}
                self._answers.append(Answer(at=time.monotonic(), **known))

    def finish(self) -> None:
        """Wait for the last answers."""
        self._reader.join(60)

    def mark(self) -> int:
        """Return how many answers there are, for `since`."""
        return len(self._answers)

    def since(self, mark: int = 0) -> list[Answer]:
        """Return the answers after a mark."""
        return self._answers[mark:]

    def failed(self, mark: int = 0) -> list[Answer]:
        """Return the requests since a mark that were not answered."""
        return [each for each in self.since(mark) if each.error]

    def shares(self, mark: int = 0) -> Counter[str]:
        """Return how many answers since a mark each instance gave."""
        return Counter(each.instance for each in self.since(mark) if not each.error)


def summary(answers: list[Answer]) -> str:
    """Return a sentence: how many, how many failed and why, who answered how often."""
    bad = [each for each in answers if each.error]
    shares = Counter(each.instance for each in answers if not each.error)
    text = f"{len(answers)} requests, {len(bad)} failed"
    text += (
        f" ({', '.join(f'{times} {why}' for why, times in Counter(each.error for each in bad).items())})" if bad else ""
    )
    return text + "".join(f"\n          {who:12} {times:5}" for who, times in sorted(shares.items()))


def arguments(server: dict[str, Any], path: str = "/") -> str:
    """Return the first arguments of lab-load for a virtual server."""
    return f"{server['protocol']} {server['vip']} {server['port']} {shlex.quote(path)}"


@contextlib.contextmanager
def traffic(client: str, server: dict[str, Any], rate: float = 5, path: str = "/") -> Iterator[Load]:
    """Ask a virtual server `rate` times a second while the context lasts; begins with the first good answer."""
    with guests.process(client, f"lab-load {arguments(server, path)} {rate}") as running:
        load = Load(running.stdout or ())
        begin = time.monotonic()
        while not any(not each.error for each in load.since()):
            if time.monotonic() - begin > 60 or running.poll() is not None:
                raise guests.Failed(f"{client}: no answer from {server['vip']}:{server['port']}: {load.since()[:3]}")
            time.sleep(0.2)
        yield load
        if running.stdin is not None:
            running.stdin.close()
        load.finish()


def wait(what: str, ready: Callable[[], bool], patience: float = 90.0, every: float = 1.0) -> float:
    """Return after how many seconds `ready` was true; raises Failed after `patience`."""
    begin = time.monotonic()
    while not ready():
        if time.monotonic() - begin > patience:
            raise guests.Failed(f"waited {patience:.0f} s in vain: {what}")
        time.sleep(every)
    return time.monotonic() - begin

"""Notices at once that somebody else adds or removes what is in the table, `ipvsadm -C` above all.

The kernel tells nobody, and an audit is seconds away. But to count costs next to nothing: so that is done all the time,
and where a count is not what we left, there is an audit now. What only changes a weight or a scheduler, or is of IPv6,
waits for the next one.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from statistics import fmean
from typing import Final

from netlink.errors import NetlinkError, Unavailable
from netlink.requests import AddRealServer, AddVirtualServer, DeleteRealServer, DeleteVirtualServer, Request
from netlink.types import Family, VirtualServerKey

BEAT: Final = 0.05  # seconds between two counts
SHARE: Final = 200  # of the processor, the reciprocal: counts that take long are less frequent
LAST: Final = 20  # counts whose mean that is taken of: a clock that goes in steps of 10 ms tells little of one
REST: Final = 1.0  # seconds between two audits for one reason: another writer is no reason to do nothing else

Census = Mapping[VirtualServerKey, int]


class Pulse:
    """Compares what `count` returns, how many real servers each virtual server of IPv4 has, with what we left.

    What `is_ours` is told of at once, however busy others are with theirs.
    """

    def __init__(self, count: Callable[[], Census], is_ours: Callable[[VirtualServerKey], bool]) -> None:
        self._count = count
        self._is_ours = is_ours
        self._left: Census | None = None
        self._rest: dict[VirtualServerKey | None, float] = {}  # until when; all that is not ours has one, at None

    def wrote(self, requests: Iterable[Request]) -> None:
        """Take note of what the kernel did for us since the last beat."""
        if self._left is None:
            return
        left: dict[VirtualServerKey, int] | None = None
        for request in requests:
            key, change = _counted(request)
            if key is None or key.family is not Family.IPV4:
                continue
            left = {**self._left} if left is None else left
            if change is None:
                left.pop(key, None)
            else:
                left[key] = left.get(key, 0) + change if change else 0
        self._left = self._left if left is None else left

    def beat(self, now: float) -> bool:
        """Count; return whether somebody else has changed something. `now` is of a clock that never goes back.

        A change that comes too soon after another is told later. Raises NetlinkError where nothing can be counted.
        """
        seen = self._count()
        before, self._left = self._left, seen
        if before is None or seen is before or seen == before:
            return False
        others = {key for key, _ in before.items() ^ seen.items()}
        reasons = {key if self._is_ours(key) else None for key in others}
        self._rest = {reason: until for reason, until in self._rest.items() if until > now}
        if reasons <= self._rest.keys():
            self._left = before
            return False
        self._rest |= dict.fromkeys(reasons, now + REST)
        return True

    async def run(self, changed: Callable[[], None], *, is_busy: Callable[[], bool]) -> None:
        """Beat until cancelled, or for as long as this kernel can be asked; call `changed` where something has.

        While `is_busy` we may be changing the table ourselves, and nothing is counted.
        """
        pause, took = BEAT, deque[float](maxlen=LAST)
        while True:
            await asyncio.sleep(pause)
            if is_busy():
                continue
            began = time.thread_time()
            try:
                if self.beat(time.monotonic()):
                    changed()
            except Unavailable:
                return
            except NetlinkError:
                continue
            took.append(time.thread_time() - began)
            pause = max(BEAT, SHARE * fmean(took))


def _counted(request: Request) -> tuple[VirtualServerKey | None, int | None]:
    """Return whose count `request` changes, and by how much; 0 for one that begins at 0, None for one that ends."""
    match request:
        case AddVirtualServer(virtual_server=virtual_server):
            return virtual_server.key, 0
        case DeleteVirtualServer(key=key):
            return key, None
        case AddRealServer(virtual_server=key):
            return key, 1
        case DeleteRealServer(virtual_server=key):
            return key, -1
    return None, 0

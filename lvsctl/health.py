"""How the daemon itself is: in sync or not, alive, ready; and the watchdog of systemd, which is fed by that."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Final

from lvsctl import systemd
from lvsctl.core.status import ConsulStatus, KernelStatus
from lvsctl.text import visible

STALLED: Final = 60.0  # seconds in one cycle after which the watchdog is no longer fed


class Health:
    """What is known of it; the reconcile loop tells it how its cycles end."""

    def __init__(self) -> None:
        self.in_sync_since: float | None = None  # Unix seconds
        self.trouble = ""  # with the ledger, the virtual addresses or a setting, in the last cycle
        self.error = ""  # why the last cycle was not finished; empty when it was
        self._began: float | None = None  # when the cycle did that is under way
        self._reconciled = False  # a cycle was finished
        self._informed = False  # Consul, the snapshot or the table itself has said what is to be served

    @contextlib.contextmanager
    def in_cycle(self) -> Iterator[None]:
        """Count the context as a cycle: one that lasts too long is stuck."""
        self._began = time.monotonic()
        try:
            yield
        finally:
            self._began = None

    def inform(self, *, informed: bool) -> None:
        """Take note that it is known what is to be served, where it is."""
        self._informed = self._informed or informed

    def succeed(self) -> bool:
        """Take note of a cycle that was finished; return whether it was the first."""
        first, self._reconciled, self.error = not self._reconciled, True, ""
        return first

    def fail(self, error: str) -> None:
        """Take note of a cycle that was not finished."""
        self.in_sync_since, self.error = None, error

    def kernel_status(self, pending: int) -> KernelStatus:
        """Return how the table stands of which `pending` steps are to be done."""
        return KernelStatus(
            in_sync_since=self.in_sync_since if not pending else None,
            pending=pending,
            error=self.error or self.trouble,
        )

    def why_not_alive(self) -> str:
        """Return why we should be restarted; empty when we should not. Consul has no say in it."""
        if self._began is None or time.monotonic() - self._began < STALLED:
            return ""
        return f"a cycle has been stuck for {time.monotonic() - self._began:.0f} s"

    def why_not_ready(self, consul: ConsulStatus) -> str:
        """Return why this director should get no traffic yet; once it may, it may for good."""
        if not self._reconciled:
            return visible(self.in_words(consul), 500)
        return "" if self._informed else "Consul has not answered yet, and the table has no real server"

    def in_words(self, consul: ConsulStatus) -> str:
        """Return how everything stands, in a line."""
        if self.error:
            return f"cannot reconcile: {self.error}"
        if consul.data_age is None or not consul.reachable:
            return "Consul does not answer, the table is left as it is" if consul.failing else "waiting for Consul"
        return "in sync" if self.in_sync_since else "reconciling"

    async def feed_watchdog(self) -> None:
        """Tell systemd that we live, as long as no cycle is stuck; until cancelled, or at once without a watchdog."""
        interval = systemd.watchdog_interval()
        if interval is None:
            return
        while True:
            if not self.why_not_alive():
                systemd.notify("WATCHDOG=1")
            await asyncio.sleep(interval)

"""`lvsctl run` on netlink/fake.py, for machines without IPVS: python -m tests.bench.pretending -c FILE.

What the table takes of memory and time is that of the fake.
"""

import asyncio
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from lvsctl import logs, memory
from lvsctl.configfile import load
from lvsctl.daemon import Daemon
from lvsctl.reconcile import Reconciler
from lvsctl.store import Store
from netlink.errors import Refused
from netlink.fake import FakeIPVS
from netlink.requests import Request
from netlink.types import Observed, VirtualServerKey
from tests.addresses import FakeAddresses


class Remembering(FakeIPVS):
    """A fake that gives the same answer again where nothing was written, as the real client does."""

    def __init__(self) -> None:
        super().__init__()
        self._observed: Observed | None = None

    def observe(self, only: Iterable[VirtualServerKey] | None = None) -> Observed:
        """Return the table."""
        if only is not None:
            return super().observe(only)
        if self._observed is None:
            self._observed = super().observe()
        return self._observed

    def apply(self, requests: Sequence[Request]) -> list[Refused | None]:
        """Keep no record of what was written: it would be most of the memory."""
        self._observed = None
        try:
            return super().apply(requests)
        finally:
            self.writes.clear()


def main() -> None:
    """Run until SIGTERM."""
    path = Path(sys.argv[2])
    logs.configure(as_json=True)
    memory.give_back()
    config = load(path)
    reconciler = Reconciler(Remembering(), FakeAddresses(), Store(config.daemon.state_directory), time.time)
    asyncio.run(Daemon(path, config, reconciler, dry_run=False).run())


if __name__ == "__main__":
    main()

"""`lvsctl run` on netlink/fake.py, for machines without IPVS: python -m tests.bench.pretending -c FILE.

What the table takes of memory and time is that of the fake.
"""

import asyncio
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from lvsctl import logs, memory
from lvsctl.configfile import load
from lvsctl.daemon import Daemon
from lvsctl.reconcile import Reconciler
from lvsctl.store import Store
from netlink.errors import Refused
from netlink.fake import FakeIPVS
from netlink.requests import AddRealServer, DeleteRealServer, Request, SetRealServer
from netlink.types import Observed, VirtualServerKey
from tests.addresses import FakeAddresses

FEW: Final = 50  # requests
OF_REAL_SERVERS: Final = (AddRealServer, SetRealServer, DeleteRealServer)


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

    def forget(self) -> None:
        """Keep no more than the real client does."""
        self._observed = None

    def apply(self, requests: Sequence[Request]) -> list[Refused | None]:
        """Keep no record of what was written, it would be most of the memory; of a few, read what they changed."""
        results = super().apply(requests)
        self.writes.clear()
        before, self._observed = self._observed, None
        keys = {each.virtual_server for each in requests if isinstance(each, OF_REAL_SERVERS)}
        if before is not None and len(requests) <= FEW and all(isinstance(each, OF_REAL_SERVERS) for each in requests):
            now = super().observe(keys)
            self._observed = Observed(
                table={**before.table, **now.table}, traffic=before.traffic, usage={**before.usage, **now.usage}
            )
        return results


def main() -> None:
    """Run until SIGTERM."""
    path = Path(sys.argv[2])
    logs.configure(as_json=True)
    memory.give_back()
    memory.seldom()
    config = load(path)
    reconciler = Reconciler(Remembering(), FakeAddresses(), Store(config.daemon.state_directory), time.time)
    asyncio.run(Daemon(path, config, reconciler, dry_run=False).run())


if __name__ == "__main__":
    main()

"""What an IPVS client offers, kept by the real one (`ipvs.IPVS`) and by the in-memory one (`fake.FakeIPVS`).

One contract suite, tests/netlink/test_contract.py, runs over both.
"""

from collections.abc import Generator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

from netlink.errors import Refused
from netlink.glance import Glance
from netlink.requests import Request
from netlink.types import Connection, Info, Lacking, Observed, SyncDaemon, Timeouts, VirtualServerKey


class Client(Protocol):
    """Reads and changes one IPVS table. Blocks; not safe for two threads at once."""

    def observe(self, only: Iterable[VirtualServerKey] | None = None) -> Observed:
        """Return the table with its counters, or of it `only` some virtual servers; those not there are left out.

        Raises Interrupted when other writers disturbed every attempt, NetlinkError otherwise.
        """
        ...

    def glance(self) -> Glance:
        """Return what the table looks like, cheaply, to be compared with another glance: equal means unchanged.

        Counters do not count, and the tunnel options of a real server that no tunnel leads to need not. Which virtual
        servers are not as they were, `changed` says. Raises what `observe` does.
        """
        ...

    def census(self) -> Mapping[VirtualServerKey, int]:
        """Return how many real servers each virtual server of IPv4 has; the same object where that has not changed.

        May be called while another thread uses the client. Raises Unavailable where the kernel cannot be asked so.
        """
        ...

    def forget(self) -> None:
        """Give back the memory that makes the next `observe` of the whole table cheap; that one makes all anew."""
        ...

    def connections(self) -> Generator[Connection, None, None]:
        """Yield the connections and templates that the kernel keeps, as they are read; no snapshot.

        Raises NetlinkError or Malformed, from the first `next` on.
        """
        ...

    def lacking(self, *, schedulers: Iterable[str] = (), persistence_engines: Iterable[str] = ()) -> Lacking:
        """Return which of these the kernel does not have, found by trying, without touching the table.

        Raises Unavailable where it may not be tried.
        """
        ...

    def timeouts(self) -> Timeouts:
        """Return the timeouts of idle connections."""
        ...

    def sync_daemons(self) -> tuple[SyncDaemon, ...]:
        """Return the synchronisation daemons that run, at most one of each role."""
        ...

    def info(self) -> Info:
        """Return the version and connection table size of the kernel's IPVS."""
        ...

    def apply(self, requests: Sequence[Request]) -> list[Refused | None]:
        """Send `requests` in order; return one result each, None where the kernel did it.

        A refused request does not stop those after it, and neither does one that no kernel should get: that is Invalid
        and not sent. Nothing is retried. NetlinkError means that the outcome is unknown: observe again.
        """
        ...

    def close(self) -> None:
        """Give up the connection; a second call does nothing."""
        ...

    def __enter__(self) -> Self:
        """Return the client."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        ...

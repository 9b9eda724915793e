"""The table as /proc/net/ip_vs prints it: enough to see that nothing has changed, for a fraction of a dump's cost.

Pure but for `read`. The file shows every virtual server (protocol, address, port or mark, scheduler, persistence) and
every real server (address, port, forwarding, weight). It shows neither thresholds, tunnels, persistence engines, the
scheduler's flags, the family of a firewall mark nor a prefix without persistence: a reader
who must see an edit of those takes a full dump now and then.

It may show less than the table has. Seen on 5.10, 6.1 and 6.12, not on 7.2: while other network namespaces of the same
kernel have virtual servers too, a table that fills more than a page (some 80 virtual servers) lacks some, for the
kernel counts the others' when it walks on and not when it finds its place again. Equal glances then say nothing of what
both leave out. So a reader compares `virtual_servers` and `real_servers` with a dump once, when it takes the glance to
remember, and does without where they differ.

Glances that differ are no proof of a change: 7.2 orders its table anew when it grows or shrinks.
Source: ip_vs_info_seq_show in net/netfilter/ipvs/ip_vs_ctl.c.
"""

import os
from typing import Final

PATH: Final = "/proc/thread-self/net/ip_vs"  # of the network namespace that this thread is in
HEADING: Final = (
    b"IP Virtual Server version 1.2.1 (size=4096)\n"
    b"Prot LocalAddress:Port Scheduler Flags\n"
    b"  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n"
)
_HEADINGS: Final = HEADING.count(b"\n")
_REAL_SERVER: Final = b"  ->"
_READ: Final = 1 << 20  # bytes; the kernel gives a page or the longest entry at a time


class Glance:
    """What the table looked like. Equal glances: nothing that the file shows has changed; connections do not count.

    The file may leave out virtual servers while other network namespaces have some: compare `virtual_servers` and
    `real_servers` with the table before you trust it.
    """

    __slots__ = ("_raw", "_table")

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._table: list[bytes] | None = None

    @property
    def virtual_servers(self) -> int:
        """Return how many virtual servers it shows."""
        return max(0, self._raw.count(b"\n") - _HEADINGS) - self.real_servers

    @property
    def real_servers(self) -> int:
        """Return how many real servers it shows."""
        return max(0, self._raw.count(b"\n" + _REAL_SERVER) - 1)  # one is in the heading

    def __eq__(self, other: object) -> bool:
        """Tell whether `other` shows the same table."""
        if not isinstance(other, Glance):
            return NotImplemented
        return self._raw == other._raw or self._lines() == other._lines()

    def __hash__(self) -> int:
        """Return a hash of the table."""
        return hash(tuple(self._lines()))

    def __repr__(self) -> str:
        """Return how much there is."""
        return f"<Glance at {self.virtual_servers} virtual servers, {self.real_servers} real servers>"

    def _lines(self) -> list[bytes]:
        """Return the lines of the table without the connection counts."""
        if self._table is None:
            self._table = [
                line.rsplit(None, 2)[0] if line.startswith(_REAL_SERVER) else line
                for line in self._raw.splitlines()[_HEADINGS:]
            ]
        return self._table


def read(descriptor: int) -> Glance:
    """Return what the open file `descriptor` shows now."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    parts = []
    while part := os.read(descriptor, _READ):
        parts.append(part)
    return Glance(b"".join(parts))

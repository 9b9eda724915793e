"""One number for a whole table, to be compared between directors: equal where the tables are.

Pure. Configuration counts, traffic does not, and neither does the order in which anything is listed. The number has 48
bits, so that it is exact where numbers are floating point, as in Prometheus. It finds differences, not forgers.
"""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

from netlink.types import TableEntry

BITS: Final = 48


def fingerprint(entry: TableEntry) -> int:
    """Return the fingerprint of one virtual server with its real servers."""
    server = entry.virtual_server
    options = (
        *(server.key, server.scheduler, int(server.scheduler_flags), server.one_packet),
        *(server.persistence, server.persistence_prefix, server.persistence_engine),
    )
    parts = ["|".join(map(str, options))]
    parts += sorted(
        f"{each.key}|{each.forwarding:d}|{each.weight}|{each.upper_threshold}|{each.lower_threshold}|"
        f"{each.tunnel_type:d}|{each.tunnel_port}|{each.tunnel_flags:d}"
        for each in entry.real_servers.values()
    )
    return int.from_bytes(blake2b("\n".join(parts).encode(), digest_size=BITS // 8).digest(), "big")


def combined(fingerprints: Iterable[int]) -> int:
    """Return the fingerprint of a table, from those of its virtual servers; 0 for an empty one."""
    return sum(fingerprints) % (1 << BITS)

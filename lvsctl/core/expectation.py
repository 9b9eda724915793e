"""How many instances each answer has at least, by what the ledger says that we wrote last.

Pure. It is what a first answer of Consul is compared with where no snapshot says what Consul said before (`doubt`).
What was leaving anyway counts for nothing.
"""

from collections.abc import Mapping

from lvsctl.config import Config
from lvsctl.core.candidates import query_for
from lvsctl.core.desired import query_of
from lvsctl.core.instance import Query
from lvsctl.core.ownership import Ledger, LedgerEntry
from netlink.types import VirtualServerKey


def expected(config: Config, ledger: Ledger) -> Mapping[Query, int]:
    """Return for each query how many real servers the largest of its virtual servers was left with."""
    by_key = {virtual_server.key: query_of(virtual_server) for virtual_server in config.virtual_servers.values()}
    found: dict[Query, int] = {}
    for key, entry in ledger.items():
        query = _query(config, by_key, key, entry)
        if query is not None and entry.written is not None:
            staying = entry.written.real_servers.keys() - entry.draining.keys()
            found[query] = max(found.get(query, 0), len(staying))
    return found


def _query(
    config: Config, by_key: Mapping[VirtualServerKey, Query], key: VirtualServerKey, entry: LedgerEntry
) -> Query | None:
    """Return whose answer made the real servers of `entry`; None where nobody is asked any more."""
    query = by_key.get(key)
    if query is None and config.discovery is not None and entry.declaration is not None:
        query = query_for(entry.declaration.service, config.discovery)
    if query is None or not entry.failed_over:
        return query
    return Query(service=query.service, datacenter=entry.failed_over)

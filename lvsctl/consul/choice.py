"""How news of many Consul services are waited for, and why so.

Pure. Consul's agent takes only so many connections from one address, all programs of the host together, and a blocking
query keeps one busy. Where HTTP/2 is spoken, hundreds share a connection, and every Consul service has its own query.
Over HTTP/1.1 so has each as long as they fit into a share of the limit that leaves room for a crash and a restart:
Consul keeps the connections of abandoned queries until their wait ends. Beyond that a few queries signal that something
has changed anywhere, and what changed is read. Source: Consul's agent configuration, limits.http_max_conns_per_client.
"""

import enum
from typing import Final

import attrs

DEFAULT_LIMIT: Final = 200  # Consul's own default, where the agent does not say
SHARE: Final = 0.45  # of the limit; twice that and the control calls stay below it


class Way(enum.Enum):
    """A way to wait for news; the value is what screens show."""

    STREAMS = "HTTP/2"  # one query for each Consul service
    POLLS = "HTTP/1.1"  # the same
    SIGNALS = "HTTP/1.1 with signals"  # a few queries, and reading what changed


class Reason(enum.Enum):
    """Why a way was chosen, in the constant word of metrics."""

    HTTP2 = "http2-offered"
    NO_LIMIT = "no-limit"
    WITHIN_LIMIT = "within-limit"
    BEYOND_LIMIT = "beyond-limit"


@attrs.frozen(kw_only=True)
class Choice:
    """The way that was chosen."""

    way: Way
    reason: Reason
    why: str  # the same in a sentence
    remedy: str = ""  # what an operator can do for a better way


def choose(*, queries: int, http2: bool, limit: int | None) -> Choice:
    """Return how to wait for news of `queries` queries; `limit` is the agent's own word, None where it gave none."""
    if http2:
        why = "the TLS listener speaks HTTP/2, where queries share connections"
        return Choice(way=Way.STREAMS, reason=Reason.HTTP2, why=why)
    most = max(1, int((limit or DEFAULT_LIMIT) * SHARE))
    limited = f"the agent's limit of {limit} connections" if limit else f"Consul's usual limit of {DEFAULT_LIMIT}"
    if limit == 0:  # Consul's word for none
        return Choice(way=Way.POLLS, reason=Reason.NO_LIMIT, why="the agent limits no connections")
    if queries <= most:
        why = f"{queries} fit into the {most} that {limited} leaves us"
        return Choice(way=Way.POLLS, reason=Reason.WITHIN_LIMIT, why=why)
    needed = -(-queries * 100 // int(100 * SHARE))
    return Choice(
        way=Way.SIGNALS,
        reason=Reason.BEYOND_LIMIT,
        why=f"{queries} do not fit into the {most} that {limited} leaves us",
        remedy=f"set limits {{ http_max_conns_per_client = {needed} }} in the Consul agent's configuration and run "
        "`consul reload`, or use HTTP/2: an https consul.address and the extra lvsctl[http2]",
    )

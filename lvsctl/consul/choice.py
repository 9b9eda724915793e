"""How news of many Consul services are waited for, and why so.

Pure. Consul's agent takes only so many connections from one address, all programs of the host together, and a blocking
query keeps one busy. Where HTTP/2 is spoken, hundreds share a connection, and every Consul service has its own query.
Over HTTP/1.1 so has each as long as they fit into a share of the limit that leaves room for a crash and a restart:
Consul keeps the connections of abandoned queries until their wait ends. Beyond that a few queries signal that something
has changed anywhere, and what changed is read. So it is where HTTP/2 is spoken but shares too
little. Source: Consul's agent configuration, limits.http_max_conns_per_client.
"""

import enum
from typing import Final

import attrs

DEFAULT_LIMIT: Final = 200  # Consul's own default, where the agent does not say
SHARE: Final = 0.45  # of the limit; twice that and the control calls stay below it
SPARE_FILES: Final = 200  # open files that are not queries: everything else the daemon does, with room


class Way(enum.Enum):
    """A way to wait for news; the value is what screens show."""

    STREAMS = "HTTP/2"  # one query for each Consul service
    POLLS = "HTTP/1.1"  # the same
    SIGNALS = "HTTP/1.1 with signals"  # a few queries, and reading what changed
    STREAM_SIGNALS = "HTTP/2 with signals"  # the same

    @property
    def signalled(self) -> bool:
        """Tell whether a few queries stand for all."""
        return self in (Way.SIGNALS, Way.STREAM_SIGNALS)


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


def most_connections(*, limit: int | None, files: int) -> tuple[int, str]:
    """Return how many connections may be taken, and what leaves no more; as for `choose`."""
    limited = f"the agent's limit of {limit} connections" if limit else f"Consul's usual limit of {DEFAULT_LIMIT}"
    most = max(1, int((limit or DEFAULT_LIMIT) * SHARE))
    if limit == 0 or max(1, files - SPARE_FILES) < most:
        limited, most = f"our own limit of {files} open files", max(1, files - SPARE_FILES)
    return most, limited


def choose(
    *, queries: int, http2: bool, limit: int | None, files: int, http2_needs: str = "", streams: int | None = None
) -> Choice:
    """Return how to wait for news of `queries` queries.

    `limit` is the agent's own word, 0 for none, None where it gave none; `files` is how many this process may have
    open; `http2_needs` is what is missing for HTTP/2 where little is; `streams` is how many queries a connection of
    HTTP/2 takes, None where that is not known.
    """
    most, limited = most_connections(limit=limit, files=files)
    if http2:
        return _over_http2(queries, streams, most, limited)
    if queries <= most:
        if limit == 0:  # Consul's word for none
            return Choice(way=Way.POLLS, reason=Reason.NO_LIMIT, why="the agent limits no connections")
        why = f"{queries} fit into the {most} that {limited} leaves us"
        return Choice(way=Way.POLLS, reason=Reason.WITHIN_LIMIT, why=why)
    needed = -(-queries * 100 // int(100 * SHARE))
    remedies = []
    if limit != 0 and needed > (limit or DEFAULT_LIMIT):
        remedies.append(
            f"set limits {{ http_max_conns_per_client = {needed} }} in the Consul agent's configuration and run "
            "`consul reload`"
        )
    if queries + SPARE_FILES > files:
        remedies.append(f"let lvsctl have {queries + SPARE_FILES} files open (LimitNOFILE in its systemd service)")
    http2_needs = http2_needs or "an https consul.address and the extra lvsctl[http2]"
    return Choice(
        way=Way.SIGNALS,
        reason=Reason.BEYOND_LIMIT,
        why=f"{queries} do not fit into the {most} that {limited} leaves us",
        remedy=f"{' and '.join(remedies)}, or use HTTP/2: {http2_needs}",
    )


def _over_http2(queries: int, streams: int | None, most: int, limited: str) -> Choice:
    if streams is None:
        why = "the TLS listener speaks HTTP/2, where queries share connections"
        return Choice(way=Way.STREAMS, reason=Reason.HTTP2, why=why)
    connections = -(-queries // max(1, streams))
    if connections <= most:
        why = f"the TLS listener speaks HTTP/2, where {streams} queries share a connection"
        return Choice(way=Way.STREAMS, reason=Reason.HTTP2, why=why)
    return Choice(
        way=Way.STREAM_SIGNALS,
        reason=Reason.BEYOND_LIMIT,
        why=(
            f"{queries} queries, {streams} on a connection, take {connections} connections, "
            f"and {limited} leaves us {most}"
        ),
        remedy=(
            "have the TLS listener take more streams on a connection (HTTP/2's MAX_CONCURRENT_STREAMS; Consul's own "
            "takes 250, a proxy before it may take fewer)"
        ),
    )

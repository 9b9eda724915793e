"""When to ask Consul again, and at which index.

Pure but for jitter. Source: Consul HTTP API, Blocking Queries.
"""

import random
from typing import Final

from lvsctl.errors import ConsulRefused, ConsulUnreadable

WAIT: Final = 25  # seconds; times 17/16 of jitter stays below the 30 s at which Consul 1.22 cuts a request
FIRST_BACK_OFF: Final = 0.25  # seconds
LONGEST_BACK_OFF: Final = 2.5  # seconds; with 2 s to the next SYN of a lost connection, work resumes within 5 s
LONGEST_LIMITED: Final = 30.0  # seconds, after a 429: whoever has too many requests gets fewer
SHORTEST_POLL: Final = 0.02  # seconds; a changed answer this quick is Consul catching up
IDLE_POLL: Final = 1.0  # seconds between answers without news that came at once, doubled for each further one
LONGEST_IDLE: Final = 5.0
LARGEST_INDEX: Final = 1 << 53  # a Consul that writes ten thousand times a second takes 28,000 years to get there
LEAP: Final = 1 << 32  # an index that rises by more at a time is asked for again; 49 days of a thousand writes a second
FIRST_LEAP: Final = 1 << 40  # the same of the first one; a thousand writes a second for 35 years
SHORTEST_DOUBTED: Final = 5.0  # seconds that a query waits whose last answer is in doubt
MOST_DOUBTED: Final = 100  # such queries that end in a second; each may be asked twice then
SWEEP: Final = 300.0  # seconds between two answers that no index decides about


def next_index(sent: int, received: int, seen: int) -> int:
    """Return the index for the next request: 0, which does not block, when it went back, leapt or was unusable.

    `seen` is that of the last answer that had one, 0 before. A request at an index from the future is blind until its
    wait ends, so one that leapt is blocked on only when the next answer has it, too.
    """
    leapt = received > seen + (LEAP if seen else FIRST_LEAP)
    return received if received >= max(sent, 1) and not leapt else 0


def back_off(failures: int, error: Exception | None = None) -> float:
    """Return seconds to wait after so many failures in a row: full jitter under a doubling bound.

    After a 429 the bound grows further, and what Retry-After says is waited for, with jitter on top of it. It also does
    after an answer that is too large: the next one is likely to be, and is read as a whole.
    """
    limited = isinstance(error, ConsulUnreadable) or (isinstance(error, ConsulRefused) and error.status == 429)
    bound = min(LONGEST_LIMITED if limited else LONGEST_BACK_OFF, FIRST_BACK_OFF * 2 ** min(failures, 10))
    asked_for = min(error.retry_after, LONGEST_LIMITED) if isinstance(error, ConsulRefused) else 0.0
    return asked_for + random.uniform(FIRST_BACK_OFF / 2, bound)  # noqa: S311  # jitter, no secret


def rest(*, news: bool, index: int, quiet: int) -> float:
    """Return the least seconds from one request to the next.

    `index` is that of the next one. `quiet` counts the answers in a row that came at once and said nothing new: Consul
    holds such answers back, so whoever sends them is broken, and four requests in ten seconds are enough for it.
    """
    if news and index:
        return SHORTEST_POLL
    return min(LONGEST_IDLE, IDLE_POLL * 2.0 ** min(max(quiet - 1, 0), 10))


def wait_after(sent: int) -> float:
    """Return seconds that a blocking query may wait which follows one for index `sent`.

    After one that did not block, a random part of WAIT: thousands that begin together, at a start or when an agent is
    back, would else all end together for ever, and news that come in those seconds would wait behind them.
    """
    return WAIT if sent else round(WAIT * random.uniform(0.1, 1.0), 1)  # noqa: S311  # jitter, no secret


def wait_in_doubt(doubted: int) -> float:
    """Return seconds that a blocking query may wait whose last answer is in doubt, as those of `doubted` queries are.

    What ends a doubt, a permission that is given back, may move no index: it is heard when a query ends.
    """
    return min(WAIT, max(SHORTEST_DOUBTED, doubted / MOST_DOUBTED))


def until_sweep() -> float:
    """Return seconds until the next sweep, another time for every caller."""
    return SWEEP * random.uniform(0.8, 1.2)  # noqa: S311  # jitter, no secret

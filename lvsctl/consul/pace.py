"""When to ask Consul again, and at which index.

Pure but for jitter. Source: Consul HTTP API, Blocking Queries.
"""

import random
from typing import Final

WAIT: Final = 25  # seconds; times 17/16 of jitter stays below the 30 s at which Consul 1.22 cuts a request
FIRST_BACK_OFF: Final = 0.25  # seconds
LONGEST_BACK_OFF: Final = 2.5  # seconds; with 2 s to the next SYN of a lost connection, work resumes within 5 s
SWEEP: Final = 300.0  # seconds between two answers that no index decides about


def next_index(sent: int, received: int) -> int:
    """Return the index for the next request: 0, which does not block, when it went back or was unusable."""
    return received if received >= max(sent, 1) else 0


def back_off(failures: int) -> float:
    """Return seconds to wait after so many failures in a row: full jitter under a doubling bound."""
    bound = min(LONGEST_BACK_OFF, FIRST_BACK_OFF * 2 ** min(failures, 10))
    return random.uniform(FIRST_BACK_OFF / 2, bound)  # noqa: S311  # jitter, no secret


def wait_after(sent: int) -> float:
    """Return seconds that a blocking query may wait which follows one for index `sent`.

    After one that did not block, a random part of WAIT: thousands that begin together, at a start or when an agent is
    back, would else all end together for ever, and news that come in those seconds would wait behind them.
    """
    return WAIT if sent else round(WAIT * random.uniform(0.1, 1.0), 1)  # noqa: S311  # jitter, no secret


def until_sweep() -> float:
    """Return seconds until the next sweep, another time for every caller."""
    return SWEEP * random.uniform(0.8, 1.2)  # noqa: S311  # jitter, no secret

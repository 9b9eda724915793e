"""One Consul service instance, as Consul registered it: address, port, health, weight, and why.

Pure. `consul.decode` makes these from JSON; `admission` decides what they may become. Nothing here is trusted:
the address is still text, because a registrant may write a host name into it.
Source: Consul HTTP API, Health, List Nodes for Service (`/v1/health/service/:service`).
"""

import enum
from collections.abc import Mapping
from typing import Final

import attrs

NODE_MAINTENANCE: Final = "_node_maintenance"
MAINTENANCE_CHECKS: Final = ("_service_maintenance", NODE_MAINTENANCE)


class Health(enum.IntEnum):
    """How well an instance is, by its worst check; the greater the worse."""

    PASSING = 0
    WARNING = 1
    CRITICAL = 2
    MAINTENANCE = 3

    @property
    def word(self) -> str:
        """Return the word Consul uses."""
        return self.name.lower()


@attrs.frozen(kw_only=True)
class Check:
    """One health check of an instance or of its node."""

    check_id: str
    name: str
    health: Health
    output: str = ""  # what the check printed, unless it passes; for maintenance the operator's reason


@attrs.frozen(kw_only=True)
class Instance:
    """One registration of a Consul service on a node."""

    node: str
    instance_id: str  # ServiceID, unique on its node
    address: str  # the service's address, else its node's, exactly as registered
    port: int  # 0..65535; 0 where none was registered
    weight: int = 1  # Weights.Passing
    warning_weight: int = 1  # Weights.Warning
    tags: tuple[str, ...] = ()
    meta: Mapping[str, str] = attrs.field(factory=dict)
    checks: tuple[Check, ...] = ()  # of the instance and of its node

    @property
    def health(self) -> Health:
        """Return the health of the worst check; an instance without checks is passing, as Consul has it."""
        return max((check.health for check in self.checks), default=Health.PASSING)

    @property
    def worst_check(self) -> Check | None:
        """Return the check that decides `health`; None when all pass."""
        failing = [check for check in self.checks if check.health is not Health.PASSING]
        return max(failing, key=lambda check: check.health, default=None)

    @property
    def identity(self) -> tuple[str, str]:
        """Return what tells this instance from every other of its Consul service."""
        return (self.node, self.instance_id)


@attrs.frozen(kw_only=True)
class Malformed:
    """One entry of an answer that could not be read; the others of that answer serve."""

    node: str
    instance_id: str
    reason: str


@attrs.frozen(kw_only=True, order=True, cache_hash=True)
class Query:
    """What is asked of Consul: one Consul service, where, and sorted from where."""

    service: str
    datacenter: str = ""  # empty: the agent's own
    near: str = ""  # node to sort by round-trip time from; empty: unsorted

    @property
    def place(self) -> str:
        """Return where it is asked, to begin an error with; empty for the agent's own datacenter."""
        return f"datacenter {self.datacenter!r}: " if self.datacenter else ""


@attrs.frozen(kw_only=True)
class Answer:
    """The last complete answer to a query."""

    instances: tuple[Instance, ...] = ()
    malformed: tuple[Malformed, ...] = ()
    index: int = 0  # X-Consul-Index
    filtered: bool = False  # Consul left out what the token may not read; says so from 1.11 on
    leader: bool = True  # the server that answered knows a leader, or does not say
    last_contact: float = 0.0  # seconds since it heard its leader; 0 where it does not say
    streamed: bool = False  # from the agent's own copy, which says neither whether it is filtered nor of a leader
    doubt: str = ""  # why it may list too few instances, in words; empty when it is believed
    snapshot: float | None = None  # Unix seconds when Consul said it, from the snapshot on disk; None: since the start
    size: int = attrs.field(default=0, eq=False)  # bytes of memory that it takes, about; 0 where nobody knows
    silent: bool = False  # Consul fails to answer since; told where it matters, for virtual servers that can fail over


Answers = Mapping[Query, Answer]
"""The last complete answer to each query; a query that was never answered is absent, which is not an empty answer.

Until Consul answers, what it said before the start stands in where there is a snapshot (`Answer.snapshot`).
"""

"""Every metric: its name, what it says, and how it is taken from what was seen.

Pure. `metrics` renders and serves them, docs/metrics.md is generated from them. Labels are bounded: names and addresses
of virtual servers of ours, and constant words; no instance and no node is ever one, and of what a registrant wrote
nothing but the name and address of a virtual server that was declared.

What happened at a moment is a timestamp, for that cannot get stuck; what may be nothing at all is an age, 0 for none.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Final, TypeVar

import attrs

from lvsctl.config import Config
from lvsctl.core.admission import Reason
from lvsctl.core.cause import EXCLUSIONS
from lvsctl.core.decision import Decision
from lvsctl.core.desired import deciding_queries
from lvsctl.core.fingerprint import combined
from lvsctl.core.instance import Query
from lvsctl.core.order import KINDS
from lvsctl.core.standing import Standing, Standings, label_of, standings
from lvsctl.core.status import NO_TRAFFIC, ConsulStatus, FleetStatus, KernelStatus, State
from lvsctl.core.tally import Durations, Tally
from netlink.types import Observed, Traffic, VirtualServerKey

T = TypeVar("T")

REASONS: Final = tuple(reason for reason in Reason if reason not in EXCLUSIONS)  # why an instance is rejected

Values = Iterable[tuple[tuple[str, ...], float]]
"""The values of a metric, each with those of its labels."""


@attrs.frozen(kw_only=True)
class Reading:
    """The table as the last cycle read it, and what that cycle decided, by which configuration."""

    config: Config
    decision: Decision
    observed: Observed
    refused: AbstractSet[VirtualServerKey]
    time: float  # Unix seconds when the whole table was read

    def with_part(self, part: "Reading", only: AbstractSet[VirtualServerKey]) -> "Reading":
        """Return this reading with what a cycle about the virtual servers at `only` read and decided of them."""
        mine, theirs = self.decision, part.decision
        names = {name for name, each in self.config.virtual_servers.items() if each.key in only}
        decision = attrs.evolve(
            mine,
            virtual_servers=_joined(mine.virtual_servers, theirs.virtual_servers, only),
            waiting=(mine.waiting - names) | theirs.waiting,
        )
        observed = Observed(
            table=_joined(self.observed.table, part.observed.table, only),
            traffic=_joined(self.observed.traffic, part.observed.traffic, only),
            usage=_joined(self.observed.usage, part.observed.usage, only),
        )
        return attrs.evolve(self, decision=decision, observed=observed, refused=part.refused)


def _joined(
    whole: Mapping[VirtualServerKey, T], part: Mapping[VirtualServerKey, T], only: AbstractSet[VirtualServerKey]
) -> Mapping[VirtualServerKey, T]:
    return {key: each for key, each in whole.items() if key not in only} | dict(part)


@attrs.frozen(kw_only=True)
class Consul:
    """How it stands with Consul."""

    status: ConsulStatus  # as `lvsctl status` has it
    reason: str = ""  # why its transport is in use, in a constant word; empty before that is known
    queries: int = 0
    doubted: int = 0  # answers that are in doubt
    heard: Mapping[Query, float | None] = attrs.field(factory=dict)  # Unix seconds of the last answer; None: none yet


@attrs.frozen(kw_only=True)
class Seen:
    """All that a scrape shows."""

    version: str
    config: Config
    config_error: str
    consul: Consul
    kernel: KernelStatus  # as `lvsctl status` has it
    reading: Reading | None  # None before the first cycle
    tally: Tally
    waiting: float  # seconds for which the change that waits longest has waited; 0: none waits
    orders: Mapping[str, int] = attrs.field(factory=dict)  # operators' orders of this director that stand, by kind
    fleet_orders: Mapping[str, int] = attrs.field(factory=dict)  # and those for the fleet
    orders_error: str = ""  # why orders of before do not count; empty when all do
    fleet: FleetStatus | None = None  # None: the configuration opens none for the fleet
    standings: Standings = attrs.field(factory=dict)  # see `counted`


def counted(seen: Seen, before: Standings | None = None) -> Seen:
    """Return `seen` with its standings, made of its reading; `before` are earlier ones, and spare work."""
    found = seen.reading
    if found is None:
        return seen
    made = standings(found.config, found.decision, found.observed, refused=found.refused, before=before)
    return attrs.evolve(seen, standings=made)


@attrs.frozen(kw_only=True)
class Metric:
    """A value that goes up and down or, where the name ends in `_total`, only grows."""

    name: str
    doc: str
    values: Callable[[Seen], Values]
    labels: tuple[str, ...] = ()

    @property
    def only_grows(self) -> bool:
        """Tell whether it is a counter."""
        return self.name.endswith("_total")


@attrs.frozen(kw_only=True)
class Histogram:
    """How often something took how long; `name` gets `_bucket`, `_sum` and `_count`."""

    name: str
    doc: str
    durations: Callable[[Seen], Durations]
    labels: tuple[str, ...] = ()


# --- lvsctl as a whole ----------------------------------------------------------------------------------------------


def _one(name: str, doc: str, value: Callable[[Seen], float]) -> Metric:
    """Return a metric that is one number."""
    return Metric(name=name, doc=doc, values=lambda seen: [((), value(seen))])


def _transport(seen: Seen) -> Values:
    transport = seen.consul.status.transport
    return [((transport, seen.consul.reason), 1)] if transport else []


def _heard(seen: Seen) -> Values:
    config, decided = (
        (seen.reading.config, seen.reading.decision.virtual_servers) if seen.reading else (seen.config, {})
    )
    for name, each in config.virtual_servers.items():
        known, wanted = seen.standings.get(each.key), decided[each.key].wanted if each.key in decided else None
        queries = deciding_queries(each, wanted.datacenter if wanted else each.datacenter or "")
        times = [seen.consul.heard.get(query) or 0 for query in queries]
        yield (
            known.label if known else label_of(name, each.key),
            min(filter(None, times), default=0) if times[-1] else 0,
        )


def _states(seen: Seen) -> Values:
    found = Counter(each.state for each in seen.standings.values())
    return [((state.value,), found[state]) for state in State]


def _rejections(seen: Seen) -> Values:
    found: Counter[Reason] = Counter()
    for each in seen.standings.values():
        found.update(each.rejected)
    return [((reason.value,), found[reason]) for reason in REASONS]


def _fingerprints(seen: Seen) -> Values:
    if seen.reading is None:
        return []
    every = seen.standings.values()
    return [
        (("wanted",), combined(each.wanted_print for each in every)),
        (("kernel",), combined(each.kernel_print for each in every)),
    ]


# --- each virtual server --------------------------------------------------------------------------------------------

_OURS: Final = ("virtual_server", "address")


def _each(name: str, doc: str, value: Callable[[Standing], float]) -> Metric:
    """Return a metric that is one number for each virtual server."""
    return Metric(
        name=name,
        doc=doc,
        labels=_OURS,
        values=lambda seen: [(each.label, value(each)) for each in seen.standings.values()],
    )


def _connections(name: str, doc: str, what: str) -> Metric:
    """Return a metric that is the sum of what the kernel counts at the real servers of each virtual server."""

    def values(seen: Seen) -> Values:
        usage = seen.reading.observed.usage if seen.reading else {}
        return [
            (each.label, sum(getattr(server, what) for server in usage.get(key, {}).values()))
            for key, each in seen.standings.items()
        ]

    return Metric(name=name, doc=doc, labels=_OURS, values=values)


def _traffic(name: str, doc: str, value: Callable[[Traffic], int]) -> Metric:
    """Return a metric that the kernel counts for each virtual server."""

    def values(seen: Seen) -> Values:
        traffic = seen.reading.observed.traffic if seen.reading else {}
        return [(each.label, value(traffic.get(key, NO_TRAFFIC))) for key, each in seen.standings.items()]

    return Metric(name=name, doc=doc, labels=_OURS, values=values)


METRICS: Final[tuple[Metric | Histogram, ...]] = (
    Metric(
        name="lvsctl_info",
        doc="Always 1; the label says which lvsctl this is.",
        labels=("version",),
        values=lambda seen: [((seen.version,), 1)],
    ),
    _one(
        "lvsctl_config_last_reload_successful",
        "1: the configuration in use is that of the last reload. 0: that was refused or taken back.",
        lambda seen: not seen.config_error,
    ),
    # Consul
    _one(
        "lvsctl_consul_reachable",
        "1: not every query fails now. 0: all do, and the table is left as it is.",
        lambda seen: seen.consul.status.reachable,
    ),
    Metric(
        name="lvsctl_consul_transport_info",
        doc="Always 1; the labels say how news are waited for, and why so. Absent before that is known.",
        labels=("transport", "why"),
        values=_transport,
    ),
    _one("lvsctl_consul_queries", "Queries, one for each Consul service.", lambda seen: seen.consul.queries),
    _one(
        "lvsctl_consul_failing_queries",
        "Those of them to which Consul gives no complete answer now.",
        lambda seen: seen.consul.status.failing,
    ),
    _one(
        "lvsctl_consul_doubted_answers",
        "Answers that may list too few instances; what is gone from them stays until that is confirmed.",
        lambda seen: seen.consul.doubted,
    ),
    _one(
        "lvsctl_consul_snapshot_age_seconds",
        "How old the oldest is that the snapshot on disk stands in for. 0: it stands in for nothing.",
        lambda seen: seen.consul.status.snapshot_age or 0,
    ),
    Metric(
        name="lvsctl_consul_last_contact_timestamp_seconds",
        doc="When Consul was last heard about a configured virtual server: the age of its data. 0: never.",
        labels=_OURS,
        values=_heard,
    ),
    # The kernel
    _one(
        "lvsctl_in_sync",
        "1: the kernel is as wanted. 0: changes are pending, or it is not known what is wanted.",
        lambda seen: seen.kernel.in_sync_since is not None,
    ),
    _one(
        "lvsctl_trouble",
        "1: the kernel, the ledger or the virtual addresses cannot be used, or a setting in [kernel] cannot be set; "
        "`status` says which and why. 0: all is well with them.",
        lambda seen: bool(seen.kernel.error),
    ),
    _one(
        "lvsctl_pending_changes",
        "Changes that the last cycle wanted and did not make: refused by the kernel, waiting after a refusal, or kept "
        "back by a pause.",
        lambda seen: seen.kernel.pending,
    ),
    _one(
        "lvsctl_oldest_pending_change_seconds",
        "For how long the oldest of them is wanted, or cycles fail. 0: nothing is pending.",
        lambda seen: seen.waiting,
    ),
    _one(
        "lvsctl_table_read_timestamp_seconds",
        "When a cycle last read the kernel's whole table; what is shown here is not older. 0: not yet.",
        lambda seen: seen.reading.time if seen.reading else 0,
    ),
    Metric(
        name="lvsctl_table_fingerprint",
        doc="A number made of all virtual servers that are configured or ours, with their real servers and weights, "
        "without their traffic: of what is `wanted`, and of what the `kernel` has. Equal on directors that agree.",
        labels=("of",),
        values=_fingerprints,
    ),
    _one(
        "lvsctl_foreign_virtual_servers",
        "Virtual servers in the kernel that are not ours, and never touched.",
        lambda seen: len(seen.reading.decision.foreign) if seen.reading else 0,
    ),
    # Operators' orders
    Metric(
        name="lvsctl_orders",
        doc="Orders of operators that stand, by kind, of this `director` and of the `fleet`; with a pause something, "
        "or everything, is not written.",
        labels=("order", "of"),
        values=lambda seen: [
            ((kind, of), orders.get(kind, 0))
            for kind in KINDS.values()
            for of, orders in (("director", seen.orders), ("fleet", seen.fleet_orders))
        ],
    ),
    _one(
        "lvsctl_orders_trouble",
        "1: orders of before do not count, or are not on disk; `status` says why. 0: all do and are.",
        lambda seen: bool(seen.orders_error),
    ),
    _one(
        "lvsctl_fleet_orders_trouble",
        "1: orders for the fleet cannot be read, so the last known ones count, or a key among them is not used; "
        "`status` says why. 0: all is well, or there is no `[overrides]`.",
        lambda seen: bool(seen.fleet and (seen.fleet.error or seen.fleet.ignored)),
    ),
    # What was done
    Metric(
        name="lvsctl_writes_total",
        doc="Changes made to the kernel, by the event that the log has for them.",
        labels=("kind",),
        values=lambda seen: [((kind,), count) for kind, count in seen.tally.writes.items()],
    ),
    _one(
        "lvsctl_drift_repairs_total",
        "Those of them that undid what somebody else did to the table: a hand, or a reboot.",
        lambda seen: seen.tally.drift_repairs,
    ),
    _one("lvsctl_kernel_refusals_total", "Changes that the kernel refused.", lambda seen: seen.tally.refusals),
    Histogram(
        name="lvsctl_cycle_duration_seconds",
        doc="How long cycles took that could be finished: read the table, decide, write.",
        durations=lambda seen: seen.tally.durations,
    ),
    _one("lvsctl_cycle_failures_total", "Cycles that could not be finished.", lambda seen: seen.tally.failures),
    # All virtual servers
    Metric(
        name="lvsctl_virtual_servers",
        doc="Virtual servers that are configured or ours, by state.",
        labels=("state",),
        values=_states,
    ),
    Metric(
        name="lvsctl_rejected_instances",
        doc="Instances that may not become real servers, by reason.",
        labels=("reason",),
        values=_rejections,
    ),
    # Each virtual server
    Metric(
        name="lvsctl_virtual_server_state",
        doc="Always 1; the label says the state. Only the present one is there.",
        labels=(*_OURS, "state"),
        values=lambda seen: [((*each.label, each.state.value), 1) for each in seen.standings.values()],
    ),
    _each(
        "lvsctl_virtual_server_wanted_instances",
        "Instances that Consul has for it, tags and meta considered, passing or not.",
        lambda each: each.wanted,
    ),
    _each(
        "lvsctl_virtual_server_serving_real_servers",
        "Real servers that get new connections, those that are held among them.",
        lambda each: each.serving,
    ),
    _each(
        "lvsctl_virtual_server_held_real_servers",
        "Real servers that stay although Consul does not want them, for the guard or an operator holds them.",
        lambda each: each.held,
    ),
    _each(
        "lvsctl_virtual_server_draining_real_servers",
        "Real servers that get no new connections and leave when they have none.",
        lambda each: each.draining,
    ),
    _each(
        "lvsctl_virtual_server_ramping_real_servers",
        "Real servers with a slow start, whose weight is not yet what it is to be.",
        lambda each: each.ramping,
    ),
    _each(
        "lvsctl_virtual_server_damped_instances",
        "Instances that pass and stay out for a while, for they come and go.",
        lambda each: each.damped,
    ),
    Metric(
        name="lvsctl_virtual_server_rejected_instances",
        doc="Instances that may not become its real servers, by reason. Absent where there are none.",
        labels=(*_OURS, "reason"),
        values=lambda seen: [
            ((*each.label, reason.value), number)
            for each in seen.standings.values()
            for reason, number in each.rejected.items()
        ],
    ),
    _connections(
        "lvsctl_virtual_server_active_connections",
        "Connections in use, as the kernel has it: established, for TCP.",
        "active",
    ),
    _connections(
        "lvsctl_virtual_server_inactive_connections",
        "Connections that open or close, and all of UDP.",
        "inactive",
    ),
    _traffic(
        "lvsctl_virtual_server_connections_total",
        "Connections that the kernel scheduled.",
        lambda traffic: traffic.connections,
    ),
    _traffic(
        "lvsctl_virtual_server_incoming_bytes_total",
        "Bytes from clients.",
        lambda traffic: traffic.in_bytes,
    ),
    _traffic(
        "lvsctl_virtual_server_outgoing_bytes_total",
        "Bytes to clients, with masquerading; with the other ways of forwarding they do not come by here.",
        lambda traffic: traffic.out_bytes,
    ),
)
"""Every metric, in the order in which they are documented and served."""

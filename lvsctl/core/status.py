"""What `lvsctl status` shows, as values: the daemon computes them, the socket carries them, the terminal draws them.

Pure. `virtual_server_status` and `override_status` make them of a decision. Text in here may come from Consul and is
unescaped; whoever shows it escapes it. Times are Unix seconds.
"""

import enum
from collections.abc import Mapping
from typing import Final

import attrs

from netlink.types import Traffic

SCHEMA: Final = "lvsctl.status/1"
NO_TRAFFIC: Final = Traffic()


class State(enum.Enum):
    """How a virtual server stands; the value is what screens and JSON show."""

    OK = "ok"
    DEGRADED = "degraded"  # some instances do not serve, or another datacenter's do
    EMPTY = "empty"  # nothing serves
    FALLBACK = "fallback"  # nothing serves but the fallback
    HELD = "held"  # Consul wants more out than may leave; they stay
    PAUSED = "paused"  # nothing is written for it, by an operator's order
    LEAVING = "leaving"  # no longer configured, draining
    WAITING = "waiting"  # Consul has not answered for it yet; left as it is
    REFUSED = "refused"  # the kernel refused something
    FOREIGN = "foreign"  # somebody else's virtual server has its address


class Place(enum.Enum):
    """Where a real server or an instance stands."""

    SERVING = "serving"
    QUIESCED = "quiesced"  # wanted with weight 0
    DRAINING = "draining"
    HELD = "held"
    FALLBACK = "fallback"  # serves because nothing else does
    PENDING = "pending"  # wanted, not in the kernel yet
    OUT = "out"  # not wanted now
    REJECTED = "rejected"


@attrs.frozen(kw_only=True)
class SlowStart:
    """How far the weight of a real server has come."""

    percent: int
    weight: int  # that it is to have
    until: float  # when it has that


@attrs.frozen(kw_only=True)
class RealServerStatus:
    """One real server, or one instance that is none."""

    real_server: str  # address and port; empty where an instance has none
    node: str
    instance: str
    check: str  # passing, warning, critical, maintenance; empty where Consul does not know it
    place: Place
    weight: int | None  # in the kernel; None when it is not there
    active: int
    inactive: int
    rate: int  # new connections a second
    why: str
    datacenter: str = ""  # where the instance is; empty: the agent's own, or not in Consul
    until: float | None = None  # when it is deleted at the latest, while it drains; else None
    filtered: bool = False  # an instance that is not meant for this virtual server
    slow_start: SlowStart | None = None  # None: its weight is what it is to be


@attrs.frozen(kw_only=True)
class OverrideStatus:
    """One override of a virtual server's weights."""

    selector: str
    share: str  # `5%`, `10`
    by: str
    reason: str
    until: float | None  # None: until it is cleared
    written: float | None
    matching: int  # instances that may serve and are its
    smallest: int  # of their weights
    largest: int
    why_not: str  # why it does nothing, or not what it says; empty when it does


@attrs.frozen(kw_only=True)
class OrderedRealServer:
    """One real server that an order takes out or holds."""

    virtual_server: str
    real_server: str  # address and port; empty where an instance has none
    node: str = ""  # of its instance; empty where Consul has none
    instance: str = ""
    place: Place  # draining, out, held; or as it serves because another instance is there, too
    active: int
    inactive: int
    until: float | None = None  # when it is deleted at the latest, while it drains; else None
    paused: str = ""  # whose order it is that nothing is written for it; empty where there is none
    why: str = ""


@attrs.frozen(kw_only=True)
class OrderStatus:
    """One order of an operator that stands."""

    order: str  # drain, hold, pause
    target: str  # `10.0.0.1:80`, `node app1`, `instance app1/reco-1`; a virtual server; `everything`
    by: str
    reason: str
    written: float
    until: float | None  # None: until somebody ends it
    real_servers: tuple[OrderedRealServer, ...] = ()  # that it takes out, or holds now
    changes: int = 0  # of a pause: what would be written but for it


@attrs.frozen(kw_only=True)
class OrderGiven:
    """What became of an operator's word: of an order that was given, or ended."""

    order: OrderStatus
    replaced: OrderStatus | None = None  # the one about the same that it took the place of
    paused: str = ""  # whose order it is that nothing is written, so that it does nothing yet; empty where none is
    foreign: bool = False  # what is to be held or paused is somebody else's, so it does nothing
    left: tuple[str, ...] = ()  # where it was ended: by which other drains something of it is still out


@attrs.frozen(kw_only=True)
class VirtualServerStatus:
    """One virtual server."""

    name: str
    consul_service: str
    address: str  # `tcp 10.9.0.100:80` or `mark 7`
    scheduler: str
    forwarding: str
    serving: int
    wanted: int  # instances that Consul has for it, tags and meta considered
    state: State
    note: str
    active: int
    inactive: int
    rate: int  # new connections a second
    real_servers: tuple[RealServerStatus, ...] = ()
    data_age: float | None = None  # seconds since Consul was last heard about it; None: never, or it is leaving
    datacenter: str = ""  # whose instances serve; empty: the agent's own
    failed_over: bool = False  # it is not the first of its list
    overrides: tuple[OverrideStatus, ...] = ()  # that stand, in the order in which they count
    doubt: str = ""  # why Consul may list too few instances of it; empty when it is believed


@attrs.frozen(kw_only=True)
class Released:
    """What became of an operator's `lvsctl release`."""

    name: str
    real_servers: tuple[str, ...]  # that were held, and leave
    serving: int  # real servers that are left
    refused: str = ""  # why the kernel did not let them go
    order: str = ""  # the operator's order to hold that this ended, in words; empty where there was none
    let_in: tuple[str, ...] = ()  # that were damped, and come back


@attrs.frozen(kw_only=True)
class Moved:
    """What became of an operator's `lvsctl adopt` or `disown`."""

    name: str
    address: str  # `tcp 10.9.0.100:80`
    changed: bool  # it was not so before
    done: tuple[str, ...] = ()  # what was done to the kernel for it, a line each
    refused: str = ""  # what the kernel refused of that


@attrs.frozen(kw_only=True)
class ConsulStatus:
    """How the daemon stands with Consul."""

    address: str
    reachable: bool
    data_age: float | None  # seconds since the oldest of the last answers was confirmed; None: never answered
    failing_since: float | None = None
    failing: int = 0  # queries that fail now
    error: str = ""
    transport: str = ""  # how news are waited for; empty before that is known
    transport_why: str = ""
    transport_remedy: str = ""  # what an operator can do for a better one; empty where it is good
    snapshot_age: float | None = (
        None  # seconds since Consul said the oldest of what a snapshot stands in for; None: none
    )


@attrs.frozen(kw_only=True)
class OverridesStatus:
    """How the daemon stands with the overrides in Consul's KV."""

    kv_prefix: str
    data_age: float | None  # seconds since Consul was last heard about them; None: not since the start
    error: str  # why they cannot be read now; empty when they can
    ignored: Mapping[str, str]  # keys that are no overrides, and why
    elsewhere: tuple[str, ...]  # virtual servers that have some, and are not in this configuration


@attrs.frozen(kw_only=True)
class KernelStatus:
    """How the kernel stands against what is wanted."""

    in_sync_since: float | None  # None: not in sync
    pending: int  # steps to be taken
    error: str = ""


@attrs.frozen(kw_only=True)
class RefusedDeclaration:
    """What a Consul service declares and does not get, by `[discovery]`."""

    consul_service: str
    name: str  # of the virtual server that it has or would have
    kept: str  # what it declared before and keeps: `tcp 10.9.0.120:80`; empty where it has nothing
    why: str


@attrs.frozen(kw_only=True)
class Status:
    """The whole answer to `lvsctl status`."""

    schema: str = SCHEMA
    version: str
    host: str
    role: str  # active, dry-run; `no daemon` when read from the kernel alone
    time: float
    started: float | None
    config: str  # path of the file
    config_error: str  # why the file is not what is in use: refused or rolled back; empty where it is
    consul: ConsulStatus | None
    kernel: KernelStatus
    foreign: tuple[str, ...]
    virtual_servers: tuple[VirtualServerStatus, ...]
    refused_declarations: tuple[RefusedDeclaration, ...] = ()
    rolled_back: bool = False  # it was in use and was taken back: nobody confirmed it
    confirm_until: float | None = None  # when what is in use is taken back unless it is confirmed; None: it is
    overrides: OverridesStatus | None = None  # None: the configuration has none, or no daemon answers
    orders: tuple[OrderStatus, ...] = ()  # operators', in the order in which they were given
    orders_error: str = ""  # why orders of before do not count, or are not kept; empty when all do and are

"""A director with everything switched on, and what holds of it whatever happens; `test_together` says what does.

Several virtual servers share instances, and beside them stands a foreign one. After each cycle it is checked, from what
the kernel in memory was sent and from what was decided:
- nothing foreign is touched, and what is paused is not either;
- what serves is not deleted without its drain, and what drains with connections has all of its time;
- who serves before and after a cycle serves all the while, and never do fewer than the smaller of the two;
- no virtual server is left empty on Consul's word;
- whoever is to serve does, with the weight it is to have, and nobody else; nothing leaves that an operator holds.
"""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import attrs

from lvsctl.config import Config, SafetyConfig, VirtualServerConfig
from lvsctl.core.admission import Reason, Rejected
from lvsctl.core.decision import Decision, VirtualServerDecision
from lvsctl.core.instance import Answer, Answers, Instance, Query
from lvsctl.core.opinion import Opinion
from lvsctl.core.order import NO_ORDERS, Orders, in_force
from lvsctl.core.override import NO_OVERRIDES, Overrides
from lvsctl.core.ownership import NO_WORD, Border, Ledger, Owner
from lvsctl.core.ramp import PARTS
from lvsctl.errors import StateError
from lvsctl.reconcile import Cycle, Reconciler
from lvsctl.store import Store
from netlink.errors import NetlinkError, Refused
from netlink.requests import DeleteRealServer, DeleteVirtualServer, Request
from netlink.types import (
    Protocol,
    RealServer,
    RealServerKey,
    RealServerUsage,
    TableEntry,
    VirtualServer,
    VirtualServerKey,
)
from tests.addresses import FakeAddresses
from tests.test_reconcile import Killed, Mortal, World
from tests.values import VIP, real_key, requests_for

NAMES: Final = ("a", "b", "c", "six")
KEYS: Final = {
    "a": VirtualServerKey.by_address(Protocol.TCP, VIP, 80),
    "b": VirtualServerKey.by_mark(7),
    "c": VirtualServerKey.by_address(Protocol.UDP, VIP, 80),
    "six": VirtualServerKey.by_address(Protocol.TCP, ip_address("fd00:9::1"), 80),
}
SERVICES: Final = {"a": "reco", "b": "reco", "c": "shop", "six": "six"}  # those of reco and shop are the same machines
FOREIGN: Final = TableEntry(
    virtual_server=VirtualServer(key=VirtualServerKey.by_mark(99), scheduler="rr"),
    real_servers={real_key(1): RealServer(key=real_key(1), weight=3), real_key(2): RealServer(key=real_key(2))},
)
PERIODS: Final = (
    1.0,
    31.0,
    1.0,
    *(900.0, 61.0, 31.0, 1.0) * 6,
    3600.0,
    1.0,
    1.0,
)  # what is to be over by itself is over after them

Place = tuple[VirtualServerKey, RealServerKey]
Serving = Mapping[VirtualServerKey, AbstractSet[RealServerKey]]


@attrs.frozen
class Deleted:
    """A real server that was deleted, as it was just before."""

    place: Place
    served: bool
    active: int


class Hostile(Mortal):
    """A kernel that its writer is killed under, that refuses, and that loses answers; it remembers who served."""

    lost: int | None = None  # requests until an answer is lost
    idle: frozenset[RealServerKey] = frozenset()  # those that serve and have no connections, of all others

    def __init__(self) -> None:
        super().__init__()
        self.forget_all()

    def forget_all(self) -> None:
        self.deleted: list[Deleted] = []
        self.passed: list[Serving] = []

    def harmless(self) -> None:
        """Refuse and lose nothing that it was to."""
        self.left = self.lost = None
        self._failures.clear()
        self.readable()

    def readable(self) -> None:
        """Have no reading fail that was to."""
        self._observe_failures.clear()

    def apply(self, requests: Sequence[Request]) -> list[Refused | None]:
        done: list[Refused | None] = []
        for request in requests:
            going = self._going(request)
            done += super().apply([request])
            if done[-1] is None:
                self.deleted += going
            self.passed.append(self.serving())
            for key, servers in self.passed[-1].items():
                for server in servers - self.idle:
                    self.set_usage(key, server, RealServerUsage(active=5))
            if self.lost is not None:
                self.lost -= 1
                if self.lost < 0:
                    self.lost = None
                    raise NetlinkError("apply", "a batch", "the answer was lost")
        return done

    def _going(self, request: Request) -> list[Deleted]:
        match request:
            case DeleteRealServer(virtual_server=key, key=server):
                going = [server] if server in self._real_servers.get(key, {}) else []
            case DeleteVirtualServer(key=key):
                going = [*self._real_servers.get(key, {})]
            case _:
                return []
        usage = self.observe([key]).usage.get(key, {})
        return [
            Deleted((key, server), self._real_servers[key][server].weight > 0, usage[server].active) for server in going
        ]

    def serving(self) -> Serving:
        return {
            key: {server for server, found in servers.items() if found.weight}
            for key, servers in self._real_servers.items()
        }


class Disk(Store):
    """A state directory that can be full."""

    is_full = False

    def save(self, ledger: Ledger, *, durable: bool) -> None:
        if self.is_full:
            raise StateError("no space left on device")
        super().save(ledger, durable=durable)


@attrs.define
class Machine(World):
    """A world with the other clock of its machine, too, which nobody sets, and a disk that can be full."""

    steady: float = 0.0
    disk: Disk = attrs.field(init=False)

    def restart(self) -> None:
        self.disk = Disk(self.state)
        self.reconciler = Reconciler(
            self.kernel, self.addresses, self.disk, lambda: self.now, steady=lambda: self.steady
        )

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.steady += seconds


@attrs.define
class Director:
    """What it works on, what it is told, and what is known of its real servers."""

    world: Machine
    kernel: Hostile
    said: dict[tuple[str, str], dict[int, Instance | None]]  # by Consul service and datacenter
    doubtful: set[str] = attrs.field(factory=set)  # Consul services
    unheard: dict[str, str] = attrs.field(
        factory=dict
    )  # how the others' answers are there: not, by snapshot, or silent
    options: dict[str, dict[str, Any]] = attrs.field(factory=lambda: {name: {} for name in NAMES})
    absent: frozenset[str] = frozenset()  # from the file
    max_removals: int = 40
    overrides: Overrides = NO_OVERRIDES
    orders: Orders = NO_ORDERS
    opinions: dict[VirtualServerKey, Opinion] = attrs.field(factory=dict)
    released: frozenset[str] = frozenset()
    config: Config = attrs.field(factory=Config)
    was_set: bool = False  # the clock, since the last cycle
    touched: set[Place] = attrs.field(factory=set)  # by hand, since then
    quiesced: dict[Place, float] = attrs.field(factory=dict)  # since when, by the clock that nobody sets
    fallbacks: dict[VirtualServerKey, RealServerKey | None] = attrs.field(factory=dict)  # until now

    @classmethod
    def starting(cls, state: Path) -> "Director":
        kernel = Hostile()
        kernel.apply(requests_for({FOREIGN.virtual_server.key: FOREIGN}))
        said: dict[tuple[str, str], dict[int, Instance | None]] = {
            (service, datacenter): {} for service in SERVICES.values() for datacenter in ("", "dc2")
        }
        return cls(world=Machine(state=state, kernel=kernel), kernel=kernel, said=said)

    def reload(self) -> None:
        """Have another configuration; a virtual server that is the same is the same object, as in a reload."""
        known, found = self.config.virtual_servers, {}
        for name in NAMES:
            if name not in self.absent:
                made = VirtualServerConfig(
                    name=name, key=KEYS[name], consul_service=SERVICES[name], **self.options[name]
                )
                found[name] = known[name] if known.get(name) == made else made
        self.config = Config(virtual_servers=found, safety=SafetyConfig(max_removals=self.max_removals))

    def machines(self) -> Iterator[RealServerKey]:
        """Yield every real server that there may be."""
        for each in self.world.table.values():
            yield from each.real_servers
        for numbers in self.said.values():
            for found in numbers.values():
                if found is not None:
                    yield RealServerKey(address=ip_address(found.address), port=found.port)

    def answers(self) -> Answers:
        """Return what Consul says, or what is known of what it said."""
        found = {
            Query(service=service, datacenter=datacenter): Answer(
                instances=tuple(filter(None, numbers.values())),
                index=1,
                doubt="x" if service in self.doubtful and not datacenter else "",
                snapshot=self.world.now - 60.0 if self.unheard.get(service) == "snapshot" else None,
                silent=self.unheard.get(service) == "silent",
            )
            for (service, datacenter), numbers in self.said.items()
        }
        return {query: answer for query, answer in found.items() if self.unheard.get(query.service) != "not"}

    def cycle(self, only: frozenset[VirtualServerKey] | None = None, border: Border = NO_WORD) -> Cycle | None:
        """Reconcile once and check what was done; None where it was killed, or does not know what it did."""
        world, released, before = self.world, self.released, self.kernel.serving()
        self.released = frozenset()
        self.kernel.forget_all()
        world.reconciler.orders, world.reconciler.opinions = self.orders, self.opinions
        cycle = None
        try:
            cycle = world.reconciler.cycle(
                self.config,
                self.answers(),
                only,
                overrides=self.overrides,
                released=frozenset(KEYS[name] for name in released),
                border=border,
            )
        except Killed:
            world.restart()
        except NetlinkError:
            pass
        self.kernel.readable()
        self._check_ways(before)
        if cycle is not None:
            decision = cycle.look.decision
            self._check_deletions(decision)
            for name in decision.waiting:
                assert before.get(KEYS[name]) == self.kernel.serving().get(KEYS[name]), "who waits is left as it is"
            for key, each in decision.virtual_servers.items():
                self._check_whole(each, before.get(key, set()), is_released=each.name in released)
                if not cycle.undone and (cycle.only is None or key in cycle.only):
                    self._check_done(each, before.get(key, set()), is_released=each.name in released)
            self.fallbacks = {key: each.fallback for key, each in decision.virtual_servers.items()}
        self._note_quiesced()
        self.touched.clear()
        self.was_set = False
        return cycle

    def _check_ways(self, before: Serving) -> None:
        assert self.world.table[FOREIGN.virtual_server.key] == FOREIGN
        after = self.kernel.serving()
        for key in before.keys() & after.keys():
            passed = [now[key] for now in self.kernel.passed]
            assert all(before[key] & after[key] <= now for now in passed), (
                "who serves before and after serves all along"
            )
            assert all(len(now) >= min(len(before[key]), len(after[key])) for now in passed), "never fewer on the way"

    def _check_deletions(self, decision: Decision) -> None:
        for each in self.kernel.deleted:
            key, server = each.place
            decided = decision.virtual_servers[key]
            if server in decided.undrained or not decided.drain_timeout:
                continue
            assert not each.served, "what serves is not deleted without its drain"
            if each.active and each.place in self.quiesced:
                lasted = self.world.steady - self.quiesced[each.place]
                assert lasted >= decided.drain_timeout, "a drain has its time"

    def _check_whole(
        self, each: VirtualServerDecision, before: AbstractSet[RealServerKey], *, is_released: bool
    ) -> None:
        after = self.kernel.serving().get(each.key, set())
        if each.owner is Owner.FOREIGN or each.ordered.pause:
            assert before == after
        elif each.wanted is not None and not is_released and not after:
            assert all(is_rejected(each, server) for server in before), "never empty on Consul's word"

    def _check_done(
        self, each: VirtualServerDecision, before: AbstractSet[RealServerKey], *, is_released: bool
    ) -> None:
        """Check what the kernel has of one virtual server of which everything was done."""
        if each.owner is Owner.FOREIGN or each.ordered.pause or each.wanted is None:
            return
        there = self.world.table[each.key].real_servers
        now = {server: found.weight for server, found in there.items() if found.weight}
        meant = {server: found.weight for server, found in meant_by(each).items() if found.weight}
        assert now.keys() == meant.keys()
        ramps, ordered = each.ramps.of, in_force(self.orders, self.world.now)
        for server, weight in now.items():
            if server in ramps:
                assert 1 <= weight <= max(1, meant[server] * each.ramps.times * ramps[server].part / PARTS)
            elif server not in each.held and server != each.fallback:
                assert weight == meant[server] * each.ramps.times
            assert server in each.held or server == each.fallback or not ordered.drains.at(server)
        assert not ramps or 2 * len(now.keys() - ramps.keys()) >= len(now.keys() - ramps.keys() - each.held.keys())
        if each.name in ordered.holds and not is_released:
            by_word = {server for server, member in each.wanted.by_key.items() if member.is_drained}
            by_word |= {server for server in before if ordered.drains.at(server)}
            by_word |= {server for server in each.wanted.weighed.by if not each.wanted.weighed.weights[server]}
            by_word |= {self.fallbacks.get(each.key), each.wanted.config.fallback} - {None}  # type: ignore[arg-type]
            by_word |= {server for key, server in self.touched if key == each.key}
            assert all(is_rejected(each, server) for server in before - now.keys() - by_word), "a hold holds"

    def _note_quiesced(self) -> None:
        table = self.world.table
        zero = {
            (key, server)
            for key, each in table.items()
            for server, found in each.real_servers.items()
            if not found.weight
        }
        steady = self.world.steady
        self.quiesced = {place: self.quiesced.get(place, steady) for place in zero}

    def is_steady(self) -> None:
        """Check that the same again changes nothing, and that who knows nothing decides the same."""
        world = self.world
        self.kernel.harmless()
        look = world.reconciler.look(self.config, self.answers(), overrides=self.overrides)
        stranger = Reconciler(world.kernel, FakeAddresses(), Store(world.state), lambda: world.now)
        stranger.orders, stranger.opinions = self.orders, self.opinions
        assert stranger.look(self.config, self.answers(), overrides=self.overrides).decision == look.decision
        if look.decision.steps:
            return
        writes = len(self.kernel.writes)
        self.cycle()  # it may remember who serves now, having seen it
        ledger = files(world.state)
        self.cycle()
        assert (len(self.kernel.writes), files(world.state)) == (writes, ledger)

    def settles(self) -> None:
        """Check what the table is after hours in which nothing happens; what is foreign by then is adopted."""
        self.kernel.harmless()
        self.world.disk.is_full = False
        self.doubtful.clear()
        self.unheard.clear()
        nobody = Opinion(unknowable=frozenset(self.machines()))
        self.opinions = dict.fromkeys(KEYS.values(), nobody)
        ours = frozenset(KEYS.values()) & self.world.table.keys()
        self.cycle(border=Border(adopted=ours))
        for seconds in PERIODS:
            last = self.cycle()
            self.world.wait(seconds)
        assert last is not None
        assert not last.done
        assert not last.undone
        writes = len(self.kernel.writes)
        self.world.restart()
        cycle = self.cycle()
        self.cycle(frozenset(each.key for each in self.config.virtual_servers.values()))
        assert cycle is not None
        assert len(self.kernel.writes) == writes
        for key, each in cycle.look.decision.virtual_servers.items():
            assert each.wanted is not None
            assert (each.owner, each.next_look, each.undamped) == (Owner.OURS, None, None)
            assert self.world.table[key].real_servers == meant_by(each)
            if each.held and each.hold.order is None and any(map(serves, each.wanted.entry.real_servers.values())):
                assert each.hold.floor.least == each.hold.floor.most, "above 50 % the last few stay"


def serves(real_server: RealServer) -> bool:
    return real_server.weight > 0


def meant_by(each: VirtualServerDecision) -> Mapping[RealServerKey, RealServer]:
    """Return the real servers as they are to be in the end."""
    assert each.wanted is not None
    meant = {**each.wanted.entry.real_servers, **each.held}
    if each.fallback is not None:
        assert not any(map(serves, meant.values()))
        meant[each.fallback] = RealServer(key=each.fallback, forwarding=each.wanted.config.forwarding, weight=1)
    return meant


def is_rejected(each: VirtualServerDecision, server: RealServerKey) -> bool:
    verdicts = [member.verdict for member in each.wanted.members if member.key == server] if each.wanted else []
    return any(isinstance(verdict, Rejected) and verdict.reason is not Reason.DUPLICATE for verdict in verdicts)


def files(state: Path) -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in state.iterdir() if path.name != "lock"}

"""Whatever happens to a virtual server, and in whatever order: no more leaves than the floor allows, and no less.

Histories of an hour or two on a kernel in memory, through the real `Reconciler`: instances that come, fail, change and
go, doubt, another datacenter, overrides, hands in the kernel, refusals, deaths, restarts, reloads, releases and a clock
that also goes back. The floor is reckoned a second time, from nothing but what the kernel had after each cycle.
"""

import contextlib
import errno
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.config import Config, Probe, SafetyConfig
from lvsctl.core.admission import Reason, Rejected
from lvsctl.core.decision import VirtualServerDecision
from lvsctl.core.fallback import fallbacks, with_fallback
from lvsctl.core.instance import Answer, Answers, Health, Instance, Query
from lvsctl.core.opinion import NO_OPINION, Opinion
from lvsctl.core.override import NO_OVERRIDES, Fixed, Override, Overrides, Percent
from lvsctl.core.provenance import filters_of
from lvsctl.core.served import WINDOW
from lvsctl.reconcile import Cycle, Reconciler
from lvsctl.store import Store
from netlink.errors import Refused
from netlink.requests import AddRealServer, DeleteRealServer, Request, SetRealServer, SetVirtualServer
from netlink.types import RealServerKey, RealServers
from tests.addresses import FakeAddresses
from tests.histories import histories
from tests.test_reconcile import Killed, Mortal, World
from tests.values import KEY, config_of, configured, failing, instance, most_lately, real_key

HERE, THERE = Query(service="reco"), Query(service="reco", datacenter="dc2")
NUMBERS = range(1, 7)
ALLOWED = {
    True: (ip_network("10.0.0.0/8"),),
    False: (ip_network("10.0.0.0/30"),),  # 10.0.0.3 is its broadcast address
}


class Picky(Mortal):
    """A kernel that refuses some real servers for ever, and some schedulers."""

    never: frozenset[RealServerKey] = frozenset()

    def apply(self, requests: Sequence[Request]) -> list[Refused | None]:
        done: list[Refused | None] = []
        for request in requests:
            if isinstance(request, AddRealServer) and request.real_server.key in self.never:
                self.fail_next(AddRealServer, errno.EINVAL)
            if isinstance(request, SetVirtualServer) and request.virtual_server.scheduler == "mh":
                self.fail_next(SetVirtualServer, errno.ENOENT)
            done += super().apply([request])
        return done


@attrs.define
class Director:
    """A director, what it hears, and what served by its kernel."""

    world: World
    kernel: Picky
    tags: dict[int, tuple[str, ...]] = attrs.field(factory=lambda: dict.fromkeys(NUMBERS, ("v1",)))
    there: dict[int, Instance | None] = attrs.field(factory=lambda: {number: instance(number) for number in NUMBERS})
    elsewhere: int = 0  # instances in the other datacenter
    twice: bool = False  # the first is registered on another node, too
    doubt: str = ""
    floor: int = 50
    asked: tuple[str, ...] = ()
    failover: bool = False
    allowed: bool = True
    drain_timeout: float = 30.0
    scheduler: str = "wlc"
    slow_start: float = 0.0
    damping: bool = False
    overrides: Overrides = NO_OVERRIDES
    released: bool = False
    never: int | None = None  # the kernel does not take it
    probe: Probe = Probe.NOBODY
    opinion: Opinion = NO_OPINION
    fallback: RealServerKey | None = None
    history: list[tuple[float, int]] = attrs.field(factory=list)
    config: Config = attrs.field(factory=config_of)

    def reload(self) -> None:
        """Have another configuration, as a reload makes one."""
        self.config = config_of(
            configured(
                floor=self.floor,
                tags=self.asked,
                failover=("dc2",) if self.failover else (),
                drain_timeout=self.drain_timeout,
                scheduler=self.scheduler,
                slow_start=self.slow_start,
                damping=self.damping,
                probe=self.probe,
                fallback=self.fallback,
            ),
            safety=SafetyConfig(allowed_networks=ALLOWED[self.allowed]),
        )
        self.kernel.never = frozenset() if self.never is None else frozenset({real_key(self.never)})

    def answers(self) -> Answers:
        """Return what Consul says."""
        here = [attrs.evolve(each, tags=self.tags[number]) for number, each in self.there.items() if each]
        if self.twice and here:
            here.append(attrs.evolve(here[0], node="app9"))
        others = tuple(instance(10 + number) for number in range(self.elsewhere))
        return {
            HERE: Answer(instances=tuple(here), index=1, doubt=self.doubt),
            THERE: Answer(instances=others, index=1),
        }

    def real_servers(self) -> RealServers:
        """Return what the kernel has."""
        entry = self.world.table.get(KEY)
        return entry.real_servers if entry else {}

    def cycle(self) -> Cycle | None:
        """Reconcile once and check what was done; None where the process was killed."""
        world, answers = self.world, self.answers()
        before = Store(world.state).load(set_aside_damage=False).get(KEY)
        ours = before.written.real_servers if before and before.written else {}
        served = {key for key, each in self.real_servers().items() if each.weight and key in ours and ours[key].weight}
        released, self.released = self.released, False
        world.reconciler.opinions = {KEY: self.opinion}
        try:
            cycle = world.reconciler.cycle(
                self.config,
                answers,
                overrides=self.overrides,
                released=frozenset({KEY}) if released else frozenset(),
            )
        except Killed:
            world.restart()
            return None
        each = cycle.look.decision.virtual_servers[KEY]
        assert each.wanted is not None
        now = self.real_servers()
        if self.fallback is not None and not cycle.undone:
            others = any(found.weight for key, found in now.items() if key != each.fallback)
            assert (each.fallback is None) is others, "it serves where nothing else does, and only there"
            assert each.fallback in {None, self.fallback}
        apart = fallbacks(each.wanted, before)
        served, now = served - apart, {key: found for key, found in now.items() if key not in apart}
        counted = {key for key, found in now.items() if found.weight or is_quiesced(each, key)}
        counted |= {key for key, member in each.wanted.by_key.items() if member.is_in_maintenance}
        source = None if before is None else (before.provenance.datacenter, before.provenance.filters)
        if released or source != (each.wanted.datacenter, filters_of(self.config.virtual_servers["reco"])):
            self.history.clear()
        else:
            asked = self.probe is not Probe.NOBODY
            dead = self.opinion.dead if self.probe is not Probe.NOBODY else frozenset()
            lost = {key for key in served - counted if not is_rejected(each, key)}
            left = lost - dead if self.fallback else lost
            assert not left or any(found.weight for found in now.values()), "never empty on Consul's word"
            assert not asked or not lost & self.opinion.alive & each.hold.suspects, "who lives stays"
            lost -= dead
            least = -(-most_lately(self.history, world.now, WINDOW) * self.floor // 100) if self.history else 0
            assert not lost or len(counted) >= least
        known = len(counted - each.hold.by_opinion)  # the floor is of what would serve without an opinion
        history = [*((min(time, world.now), count) for time, count in self.history), (world.now, known)]
        over = [at for at, (time, _) in enumerate(history[1:]) if time + WINDOW <= world.now]  # those before ended then
        self.history = history[over[-1] + 1 :] if over else history
        return cycle

    def is_steady(self) -> None:
        """Check that the same again changes nothing, and that who knows nothing decides the same."""
        world = self.world
        look = world.reconciler.look(self.config, self.answers(), overrides=self.overrides)
        stranger = Reconciler(world.kernel, FakeAddresses(), Store(world.state), lambda: world.now)
        stranger.opinions = world.reconciler.opinions
        assert stranger.look(self.config, self.answers(), overrides=self.overrides).decision == look.decision
        if look.decision.steps:
            return
        writes, ledger = len(self.kernel.writes), files(world.state)
        self.cycle()
        assert (len(self.kernel.writes), files(world.state)) == (writes, ledger)

    def serving(self) -> set[int]:
        """Return the numbers of those that serve."""
        return {int(key.address) & 255 for key, each in self.real_servers().items() if each.weight}

    def settles(self) -> VirtualServerDecision:
        """Return what is decided after hours in which nothing happens, no override ends, and nobody answers a knock."""
        self.world.now = max([self.world.now, *(each.until for each in self.overrides.entries if each.until)])
        self.opinion = Opinion(unknowable=frozenset(map(real_key, range(20))))
        for pause in (1.0, 31.0, 1.0, *(WINDOW, 31.0, 1.0) * 4):
            cycle = self.cycle()
            self.world.now += pause
        assert cycle is not None
        assert not cycle.done or self.never
        return cycle.look.decision.virtual_servers[KEY]


def files(state: Path) -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in state.iterdir() if path.name != "lock"}


def is_quiesced(each: VirtualServerDecision, key: RealServerKey) -> bool:
    return each.wanted is not None and key in each.wanted.weighed.by and each.wanted.weighed.weights[key] == 0


def is_rejected(each: VirtualServerDecision, key: RealServerKey) -> bool:
    verdicts = [member.verdict for member in each.wanted.members if member.key == key] if each.wanted else []
    return any(isinstance(verdict, Rejected) and verdict.reason is not Reason.DUPLICATE for verdict in verdicts)


Event = Callable[[Director], None]


def set_instances(numbers: list[int], make: Callable[[int], Instance | None]) -> Event:
    def happen(director: Director) -> None:
        for number in numbers:
            director.there[number] = make(number)

    return happen


def tag(numbers: list[int], name: str) -> Event:
    return lambda director: director.tags.update(dict.fromkeys(numbers, (name,)))


def change(**attributes: object) -> Event:
    def happen(director: Director) -> None:
        for name, value in attributes.items():
            setattr(director, name, value)
        director.reload()

    return happen


def hand(number: int, weight: int | None) -> Event:
    def happen(director: Director) -> None:
        key = real_key(number)
        found = director.real_servers().get(key)
        if found is not None:
            changed = None if weight is None else attrs.evolve(found, weight=weight)
            director.kernel.left = None
            director.kernel.apply(
                [DeleteRealServer(virtual_server=KEY, key=key)]
                if changed is None
                else [SetRealServer(virtual_server=KEY, real_server=changed)]
            )

    return happen


def refuse(number: int) -> Event:
    """Have the kernel refuse one of the next requests."""
    return lambda director: setattr(director.kernel, "refuses", frozenset({len(director.kernel.writes) + number}))


def die(after: int) -> Event:
    return lambda director: setattr(director.kernel, "left", after)


def restart(director: Director) -> None:
    director.world.restart()


some = st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=6, unique=True)
makers = st.sampled_from(
    (
        instance,
        failing,
        lambda _: None,
        lambda number: failing(number, Health.MAINTENANCE),
        lambda number: instance(number, weight=0),
        lambda number: instance(number, weight=4),
        lambda number: instance(number, address="127.0.0.1"),
    )
)
standing = st.builds(
    Override,
    virtual_server=st.just("reco"),
    selector=st.sampled_from(("v1", "v2")),
    share=st.sampled_from((Fixed(0), Percent(0), Percent(2000), Fixed(9))),
    until=st.sampled_from((None, 1_000_500.0, 1_002_000.0)),
)
overriding = st.lists(standing, max_size=2, unique_by=lambda each: each.selector).map(
    lambda found: Overrides(entries=tuple(found))
)
opinions = st.dictionaries(st.sampled_from(NUMBERS), st.sampled_from(("alive", "dead", "unknowable"))).map(
    lambda found: Opinion(
        **{
            word: frozenset(real_key(number) for number, said in found.items() if said == word)
            for word in ("alive", "dead", "unknowable")
        }
    )
)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(set_instances, some, makers),
    st.builds(set_instances, some, makers),
    st.builds(set_instances, some, makers),
    st.builds(tag, some, st.sampled_from(("v1", "v2"))),
    st.builds(lambda found: change(overrides=found), overriding),
    st.builds(lambda found: change(doubt=found), st.sampled_from(("", "x"))),
    st.builds(lambda found: change(twice=found), st.booleans()),
    st.builds(lambda found: change(elsewhere=found), st.integers(0, 3)),
    st.builds(lambda found: change(failover=found), st.booleans()),
    st.builds(lambda found: change(asked=found), st.sampled_from(((), ("v1",)))),
    st.builds(lambda found: change(allowed=found), st.booleans()),
    st.builds(lambda found: change(floor=found), st.sampled_from((0, 34, 50, 75, 100))),
    st.builds(lambda found: change(drain_timeout=found), st.sampled_from((0.0, 30.0))),
    st.builds(hand, st.sampled_from(NUMBERS), st.sampled_from((None, 0, 7))),
    st.builds(refuse, st.integers(0, 3)),
    st.builds(die, st.integers(0, 4)),
    st.just(restart),
    st.builds(lambda number: change(never=number), st.sampled_from((None, *NUMBERS))),
    st.builds(lambda: change(released=True)),
    st.builds(lambda found: change(probe=found), st.sampled_from(Probe)),
    st.builds(lambda found: change(fallback=found), st.sampled_from((None, real_key(99), real_key(98), real_key(1)))),
    st.builds(lambda found: change(opinion=found), opinions),
    st.builds(lambda found: change(opinion=found), opinions),
)
pauses = st.sampled_from((0.0, 0.0, 1.0, 31.0, 300.0, 899.0, 900.0, 1200.0, -3600.0))


@contextlib.contextmanager
def directing() -> Iterator[Director]:
    with tempfile.TemporaryDirectory() as state:
        kernel = Picky()
        director = Director(world=World(state=Path(state), kernel=kernel), kernel=kernel)
        director.reload()
        director.cycle()
        yield director


@histories()
@given(history=st.lists(st.tuples(st.lists(events, max_size=3), pauses), max_size=12))
def test_no_history_takes_more_than_the_floor_allows(history: list[tuple[list[Event], float]]) -> None:
    with directing() as director:
        for happens, pause in history:
            for happen in happens:
                happen(director)
            cycle = director.cycle()
            director.kernel.left, director.kernel.refuses = None, frozenset()
            if cycle is not None and not cycle.undone:
                director.is_steady()
            director.world.now += pause
        each = director.settles()
        wanted = each.wanted
        assert wanted is not None
        if each.held and not wanted.doubt and any(found.weight for found in wanted.entry.real_servers.values()):
            assert each.hold.floor.least == each.hold.floor.most, "above 50 % the last few stay"
        if director.never is None:
            assert director.real_servers() == with_fallback(wanted.config, {**wanted.entry.real_servers, **each.held})


def test_what_the_kernel_takes_at_last_is_counted_at_once() -> None:
    with directing() as director:
        hand(3, None)(director)
        change(never=3)(director)
        director.cycle()
        change(never=None)(director)
        director.world.now += 1
        cycle = director.cycle()
        assert cycle is not None
        assert len(cycle.done) == 1
        assert not cycle.undone
        director.is_steady()


TROUBLES: Final[tuple[tuple[dict[str, Any], set[int]], ...]] = (({"never": 1}, {2}), ({"scheduler": "mh"}, {1, 2}))


@contextlib.contextmanager
def refusing(trouble: Mapping[str, Any]) -> Iterator[Director]:
    """Give one of whose six real servers two serve, were it not for the floor and what the kernel refuses for ever."""
    with directing() as director:
        set_instances([1], lambda _: None)(director)
        for _ in range(2):
            director.cycle()
            director.world.now += 31
        change(**trouble)(director)
        set_instances([1], instance)(director)
        set_instances([3, 4, 5, 6], failing)(director)
        director.cycle()
        yield director


@pytest.mark.parametrize(("trouble", "left"), TROUBLES)
def test_what_the_kernel_refuses_for_ever_takes_nothing_from_the_floor_nor_from_its_end(
    trouble: Mapping[str, Any], left: set[int]
) -> None:
    with refusing(trouble) as director:
        began = director.world.now
        while director.world.now < began + WINDOW:
            director.cycle()
            assert len(director.serving()) == 3
            director.world.now += 1 if director.world.now < began + 10 else 100
        for _ in range(2):
            director.world.now += 10
            director.cycle()
        assert director.serving() == left | ({3} if 1 not in left else set())


@pytest.mark.parametrize(("trouble", "left"), TROUBLES)
def test_what_the_kernel_refuses_for_ever_undoes_no_release(trouble: Mapping[str, Any], left: set[int]) -> None:
    with refusing(trouble) as director:
        assert len(director.serving()) == 3
        director.released = True
        for _ in range(5):
            director.cycle()
            assert director.serving() == left
            director.world.now += 10


@pytest.mark.parametrize("trouble", [trouble for trouble, _ in TROUBLES])
def test_while_the_kernel_refuses_nothing_is_written_but_when_it_is_tried_again(trouble: Mapping[str, Any]) -> None:
    with refusing(trouble) as director:
        for _ in range(8):  # the drains end, and it is tried ever more rarely
            director.world.now += 40
            director.cycle()
        ledger, writes = files(director.world.state), len(director.kernel.writes)
        for _ in range(20):
            director.world.now += 1
            director.cycle()
        assert files(director.world.state) == ledger
        assert len(director.kernel.writes) <= writes + 1

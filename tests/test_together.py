"""Everything at once: every feature, on virtual servers that share instances, under every mischief there is.

Other histories look at one feature closely (`test_floor`, `test_slow_start`, `test_flapping`, `test_velocity`); here
they meet. What is checked is in `together`.
"""

import errno
import tempfile
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import attrs
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.config import OnCritical
from lvsctl.core.instance import Health, Instance
from lvsctl.core.opinion import Opinion
from lvsctl.core.order import AtAddress, AtPort, Drain, Hold, OnNode, Order, Orders, Pause, What
from lvsctl.core.override import Fixed, Override, Overrides, Percent
from netlink.errors import Interrupted
from netlink.requests import (
    AddRealServer,
    AddVirtualServer,
    DeleteRealServer,
    DeleteVirtualServer,
    Request,
    SetRealServer,
    SetVirtualServer,
)
from netlink.types import Forwarding, RealServerKey, RealServerUsage, VirtualServerKey
from tests.histories import histories
from tests.together import KEYS, NAMES, SERVICES, Director
from tests.values import failing, instance

NUMBERS: Final = range(1, 7)
ERRORS: Final = (errno.EEXIST, errno.ENOENT, errno.EBUSY, errno.ENOMEM, errno.ESRCH)
REQUESTS: Final = (
    AddRealServer,
    SetRealServer,
    DeleteRealServer,
    AddVirtualServer,
    SetVirtualServer,
    DeleteVirtualServer,
)
YEAR: Final = 365 * 86400.0

Event = Callable[[Director], None]


def address(service: str, number: int, datacenter: str = "") -> str:
    if service == "six":
        return f"fd00::{number}"
    return f"10.0.{1 if datacenter and number > 2 else 0}.{number}"  # the first two are the same everywhere


def real_server(name: str, number: int) -> RealServerKey:
    return RealServerKey(address=ip_address(address(SERVICES[name], number)), port=80)


def made(kind: str, service: str, datacenter: str, number: int) -> Instance | None:
    at: dict[str, Any] = {"address": address(service, number, datacenter), "port": 80}
    match kind:
        case "passing":
            return instance(number, **at)
        case "grey":
            return instance(number, tags=("v2",), **at)
        case "another":
            return instance(number, node=f"other{number}", instance_id=f"new-{number}", **at)
        case "critical":
            return failing(number, **at)
        case "maintenance":
            return failing(number, Health.MAINTENANCE, **at)
        case "rejected":
            return instance(number, address="127.0.0.1", port=80)
        case "0" | "7" | "65535":
            return instance(number, weight=int(kind), **at)
    return None


@attrs.frozen
class Says:
    """Consul has other instances."""

    service: str
    numbers: tuple[int, ...]
    kind: str
    datacenter: str = ""

    def __call__(self, director: Director) -> None:
        for number in self.numbers:
            found = made(self.kind, self.service, self.datacenter, number)
            director.said[self.service, self.datacenter][number] = found


@attrs.frozen
class Replaced:
    """All go in the answer in which as many others come."""

    service: str

    def __call__(self, director: Director) -> None:
        there = director.said[self.service, ""]
        new = range(30, 34) if there.get(20) else range(20, 24)
        there.clear()
        Says(self.service, tuple(new), "passing")(director)


@attrs.frozen
class Flaps:
    """One fails and passes again, so many times."""

    service: str
    number: int
    times: int

    def __call__(self, director: Director) -> None:
        for _ in range(self.times):
            for kind in ("critical", "passing"):
                Says(self.service, (self.number,), kind)(director)
                director.cycle()
                director.world.wait(2.0)


@attrs.frozen
class Sets:
    """Somebody changes the file, an override, or whatever `attribute` is."""

    attribute: str
    value: Any

    def __call__(self, director: Director) -> None:
        setattr(director, self.attribute, self.value)
        director.reload()


@attrs.frozen
class Options:
    """Somebody changes a virtual server in the file."""

    name: str
    options: tuple[tuple[str, Any], ...]

    def __call__(self, director: Director) -> None:
        director.options[self.name].update(self.options)
        director.reload()


@attrs.frozen
class Doubts:
    """Consul's answer is in doubt, or no longer."""

    service: str

    def __call__(self, director: Director) -> None:
        director.doubtful ^= {self.service}


@attrs.frozen
class Hears:
    """Consul does not answer for a Consul service since a start, only a snapshot does, or it does no longer."""

    service: str
    how: str

    def __call__(self, director: Director) -> None:
        if self.how in {"not", "snapshot"}:
            director.world.restart()
        director.unheard[self.service] = self.how


@attrs.frozen
class Ordering:
    """An operator orders something, or ends it."""

    what: What
    seconds: float | None
    ends: bool

    def __call__(self, director: Director) -> None:
        now, known = director.world.now, director.orders.of(self.what)
        until = None if self.seconds is None else now + self.seconds
        order = Order(what=self.what, by="alice", written=now, until=until)
        if self.ends and known is not None:
            order = attrs.evolve(known, until=now, ended=True)
        if known is not None or not self.ends:
            director.orders = director.orders.having(order)


@attrs.frozen
class ByHand:
    """Somebody changes a weight in the kernel, deletes a real server (None), or a whole virtual server (-1)."""

    name: str
    number: int
    weight: int | None

    def __call__(self, director: Director) -> None:
        director.kernel.harmless()
        key, server = KEYS[self.name], real_server(self.name, self.number)
        entry = director.world.table.get(key)
        if entry is None or server not in entry.real_servers:
            return
        changed = attrs.evolve(entry.real_servers[server], weight=max(0, self.weight or 0))
        requests: dict[int | None, Request] = {
            None: DeleteRealServer(virtual_server=key, key=server),
            -1: DeleteVirtualServer(key=key),
        }
        director.kernel.apply([requests.get(self.weight) or SetRealServer(virtual_server=key, real_server=changed)])
        director.touched |= {(key, found) for found in (entry.real_servers if self.weight == -1 else {server})}


@attrs.frozen
class Refuses:
    """The kernel refuses the next such request."""

    request: type[Request]
    error: int

    def __call__(self, director: Director) -> None:
        director.kernel.fail_next(self.request, self.error)


@attrs.frozen
class Breaks:
    """The process is killed (`left`) or an answer lost (`lost`) after so many requests."""

    how: str
    after: int

    def __call__(self, director: Director) -> None:
        setattr(director.kernel, self.how, self.after)


@attrs.frozen
class Finds:
    """The director has knocked at some real servers itself."""

    name: str
    found: tuple[tuple[int, str], ...]

    def __call__(self, director: Director) -> None:
        by = {
            word: frozenset(real_server(self.name, number) for number, found in self.found if found == word)
            for word in ("alive", "dead", "unknowable")
        }
        director.opinions[KEYS[self.name]] = Opinion(**by)


@attrs.frozen
class Fills:
    """The disk is full, or no longer."""

    is_full: bool

    def __call__(self, director: Director) -> None:
        director.world.disk.is_full = self.is_full


@attrs.frozen
class Carries:
    """A real server has other connections."""

    name: str
    number: int
    active: int

    def __call__(self, director: Director) -> None:
        server = real_server(self.name, self.number)
        director.kernel.set_usage(KEYS[self.name], server, RealServerUsage(active=self.active))
        director.kernel.idle = director.kernel.idle - {server} if self.active else director.kernel.idle | {server}


@attrs.frozen
class Clock:
    """Somebody sets the clock."""

    seconds: float

    def __call__(self, director: Director) -> None:
        director.world.now += self.seconds
        director.was_set = True


@attrs.frozen
class Restarts:
    """The process starts anew, with the state on disk, or without."""

    state: str

    def __call__(self, director: Director) -> None:
        for path in director.world.state.iterdir():
            if self.state == "lost" and path.name != "lock":
                path.unlink()
            if self.state == "damaged" and path.name == "ledger.json":
                path.write_bytes(path.read_bytes()[:-7])
        director.world.restart()
        if director.was_set:  # that cannot be noticed
            director.quiesced.clear()


def options(name: str) -> dict[str, st.SearchStrategy[Any]]:
    """Return what may be set for virtual server `name`; sorry servers are also real servers of others."""
    sorry = ("fd00::99", "fd00::1") if name == "six" else ("10.0.0.99", "10.0.0.1")
    fallbacks = [RealServerKey(address=ip_address(each), port=80) for each in sorry]
    return {
        "slow_start": st.sampled_from((0.0, 30.0, 30.0, 900.0)),
        "damping": st.booleans(),
        "floor": st.sampled_from((0, 34, 50, 75, 100)),
        "fallback": st.sampled_from((None, *fallbacks)),
        "drain_timeout": st.sampled_from((0.0, 5.0, 30.0, 3600.0)),
        "scheduler": st.sampled_from(("wlc", "wrr", "sh", "mh", "dh")),
        "forwarding": st.sampled_from((Forwarding.MASQUERADE, Forwarding.DIRECT_ROUTE)),
        "persistence": st.sampled_from((None, 300)),
        "on_critical": st.sampled_from(OnCritical),
        "failover": st.sampled_from(((), ("dc2",))),
        "upper_threshold": st.sampled_from((0, 9)),
        **({"one_packet": st.booleans()} if name == "c" else {"probe": st.booleans()}),
    }


@st.composite
def starts(draw: st.DrawFn) -> list[Options]:
    """Draw the options of all virtual servers."""
    return [Options(name, tuple((key, draw(each)) for key, each in options(name).items())) for name in NAMES]


@st.composite
def changes(draw: st.DrawFn) -> Options:
    """Draw another value for one option."""
    name = draw(names)
    key = draw(st.sampled_from(sorted(options(name))))
    return Options(name, ((key, draw(options(name)[key])),))


services, names = st.sampled_from(("reco", "reco", "shop", "six")), st.sampled_from(NAMES)
numbers = st.sampled_from(NUMBERS)
some = st.lists(numbers, min_size=1, max_size=6, unique=True).map(tuple)
kinds = st.sampled_from(
    ("passing", "grey", "another", "critical", "maintenance", "rejected", "0", "7", "65535", "gone")
)
standing = st.builds(
    Override,
    virtual_server=names,
    selector=st.just("v2"),
    share=st.sampled_from((Fixed(0), Percent(0), Percent(1), Percent(2000), Fixed(9), Fixed(65535))),
    until=st.sampled_from((None, 1_000_500.0)),
)
overrides = st.lists(standing, max_size=2, unique_by=lambda each: each.virtual_server).map(
    lambda found: Overrides(entries=tuple(found))
)
at = numbers.map(lambda number: ip_address(f"10.0.0.{number}"))
whats: st.SearchStrategy[What] = st.one_of(
    st.builds(Drain, st.builds(AtAddress, at) | st.builds(AtPort, at, st.just(80))),
    st.builds(Drain, st.builds(OnNode, numbers.map(lambda number: f"app{number}"))),
    st.builds(Hold, names),
    st.builds(Pause, st.sampled_from(("", "a"))),
)
found = st.dictionaries(numbers, st.sampled_from(("alive", "dead", "unknowable"))).map(
    lambda found: tuple(found.items())
)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(Says, services, some, kinds),
    st.builds(Says, services, some, kinds),
    st.builds(Says, services, some, st.sampled_from(("passing", "critical"))),
    st.builds(Says, services, some, st.sampled_from(("passing", "critical")), st.just("dc2")),
    st.builds(
        Says, services, st.just(tuple(NUMBERS)), st.sampled_from(("critical", "gone", "maintenance", "rejected"))
    ),
    st.builds(Replaced, services),
    st.builds(Flaps, services, numbers, st.integers(1, 6)),
    changes(),
    changes(),
    st.builds(Sets, st.just("absent"), st.sampled_from((frozenset(), frozenset({"a"})))),
    st.builds(Sets, st.just("max_removals"), st.sampled_from((0, 40, 100))),
    st.builds(Sets, st.just("overrides"), overrides),
    st.builds(Sets, st.just("released"), names.map(lambda name: frozenset({name}))),
    st.builds(Doubts, services),
    st.builds(Hears, services, st.sampled_from(("not", "snapshot", "silent", "", ""))),
    st.builds(Ordering, whats, st.sampled_from((None, 20.0, 600.0)), st.booleans()),
    st.builds(ByHand, names, numbers, st.sampled_from((None, 0, 7, -1))),
    st.builds(Refuses, st.sampled_from(REQUESTS), st.sampled_from(ERRORS)),
    st.builds(Breaks, st.sampled_from(("left", "lost")), st.integers(0, 6)),
    st.just(lambda director: director.kernel.fail_next_observe(Interrupted("read", "the table", "it changed"))),
    st.builds(Fills, st.booleans()),
    st.builds(Finds, names, found),
    st.builds(Carries, names, numbers, st.sampled_from((0, 5, 5))),
    st.builds(Clock, st.sampled_from((-3600.0, 3600.0, -YEAR, YEAR))),
    st.builds(Restarts, st.sampled_from(("kept", "kept", "kept", "lost", "damaged"))),
)
pauses = st.sampled_from((0.0, 0.0, 1.0, 2.0, 2.0, 7.0, 31.0, 61.0, 300.0, 901.0))
parts: st.SearchStrategy[frozenset[VirtualServerKey] | None] = st.none() | st.frozensets(
    st.sampled_from(sorted(KEYS.values())), min_size=1
)
Step = tuple[list[Event], float, frozenset[VirtualServerKey] | None]
steps = st.lists(st.tuples(st.lists(events, max_size=4), pauses, parts), min_size=4, max_size=25)


def play(start: list[Options], history: list[Step]) -> None:
    """Have a director live through `history`."""
    with tempfile.TemporaryDirectory() as state:
        director = Director.starting(Path(state))
        for each in start:
            each(director)
        for service in SERVICES.values():
            Says(service, (1, 2, 3, 4), "passing")(director)
        director.cycle()
        for happens, seconds, only in history:
            for happen in happens:
                happen(director)
            cycle = director.cycle(only)
            if cycle is not None and not cycle.undone and cycle.only is None:
                director.is_steady()
            director.world.wait(seconds)
        unpaused = (each for each in director.orders.entries if not isinstance(each.what, Pause))
        director.orders = Orders(tuple(unpaused))
        director.settles()


@histories(usual=20)
@given(start=starts(), history=steps)
def test_whatever_happens_together(start: list[Options], history: list[Step]) -> None:
    play(start, history)

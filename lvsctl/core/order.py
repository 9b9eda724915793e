"""An operator's order as a value: a drain, a hold or a pause, with whose it is, why, and until when.

Pure. `order_target` finds what a typed word means, `order_format` writes and reads the file that keeps orders,
`order_status` says what became of each. A drain names real servers by what an operator knows them by, and is looked up
anew for every instance in every cycle: registering again does not undo it.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Literal, assert_never

import attrs

from lvsctl.core.instance import Instance
from lvsctl.core.nothing import NOBODY, NOTHING
from lvsctl.core.words import moment
from netlink.types import Address, RealServerKey, endpoint

MAX_ORDERS: Final = 500
MAX_TARGET: Final = 600  # characters; Consul's names have no more, nor has an instance's id behind its node's
MAX_WORDS: Final = 200  # characters of a reason
MAX_BY: Final = 100  # characters of who gave it
LATELY: Final = 5.0  # seconds for which one that is over is known, so that what follows from its end is told as that


@attrs.frozen
class AtAddress:
    """Whatever is at this address, on any port."""

    address: Address

    def __str__(self) -> str:
        """Return `10.0.0.1`."""
        return str(self.address)


@attrs.frozen
class AtPort:
    """The real server at this address and port."""

    address: Address
    port: int

    def __str__(self) -> str:
        """Return `10.0.0.1:80`, `[fd00::1]:80`."""
        return endpoint(self.address, self.port)


@attrs.frozen
class OnNode:
    """All instances of one Consul agent's machine."""

    node: str

    def __str__(self) -> str:
        """Return `node app1`."""
        return f"node {self.node}"


@attrs.frozen
class OneInstance:
    """The instance of this id on this node, wherever it listens."""

    node: str
    instance: str

    def __str__(self) -> str:
        """Return `instance app1/reco-1`."""
        return f"instance {self.node}/{self.instance}"


Target = AtAddress | AtPort | OnNode | OneInstance


@attrs.frozen
class Drain:
    """What is meant gets no new connections in any virtual server, and leaves when it has none."""

    target: Target

    def __str__(self) -> str:
        """Return `drain of node app1`."""
        return f"drain of {self.target}"


@attrs.frozen
class Hold:
    """Nothing that serves leaves this virtual server on Consul's word."""

    virtual_server: str

    def __str__(self) -> str:
        """Return `hold of reco`."""
        return f"hold of {self.virtual_server}"


@attrs.frozen
class Pause:
    """Nothing is written for this virtual server; for none where it has no name."""

    virtual_server: str = ""

    def __str__(self) -> str:
        """Return `pause of reco`, `pause of everything`."""
        return f"pause of {self.virtual_server or 'everything'}"


What = Drain | Hold | Pause

KINDS: Final[Mapping[type[What], str]] = {Drain: "drain", Hold: "hold", Pause: "pause"}
DONE: Final[Mapping[type[What], str]] = {Drain: "drained", Hold: "held", Pause: "paused"}


def target_of(what: What) -> str:
    """Return what an order is about, as screens show it: `10.0.0.1:80`, `node app1`, `reco`, `everything`."""
    match what:
        case Drain():
            return str(what.target)
        case Hold():
            return what.virtual_server
        case Pause():
            return what.virtual_server or "everything"
        case _:
            assert_never(what)


@attrs.frozen(kw_only=True)
class Order:
    """One order. There is one at most for the same thing; a new one takes the place of the old. Texts are unescaped."""

    what: What
    by: str  # who gave it
    reason: str = ""
    written: float  # Unix seconds, by the director's clock
    until: float | None = None  # Unix seconds; None: until somebody ends it
    ended: bool = False  # somebody did, at `until`, and no clock that is set back undoes it

    @property
    def words(self) -> str:
        """Return `drained by alice until 2026-11-23 14:00 UTC: kernel upgrade`."""
        return self._words(f" until {moment(self.until)}" if self.until is not None else "")

    @property
    def words_after(self) -> str:
        """Return `drained by alice: kernel upgrade`, for when it is over."""
        return self._words("")

    def _words(self, until: str) -> str:
        return f"{DONE[type(self.what)]} by {self.by}{until}{f': {self.reason}' if self.reason else ''}"

    def stands(self, now: float) -> bool:
        """Tell whether its time is not over at `now`, Unix seconds."""
        return not self.ended and (self.until is None or self.until > now)

    def ended_lately(self, now: float) -> bool:
        """Tell whether its time is over, and was not for long."""
        return self.until is not None and 0 <= now - self.until < LATELY


@attrs.frozen
class Orders:
    """All orders, in the order in which they were given."""

    entries: tuple[Order, ...] = ()

    def of(self, what: What) -> Order | None:
        """Return the order about just this; None where there is none."""
        return next((each for each in self.entries if each.what == what), None)

    def having(self, order: Order) -> "Orders":
        """Return these with `order` behind them, in the place of another about the same."""
        return Orders((*self.without(order.what).entries, order))

    def without(self, what: What) -> "Orders":
        """Return these but for the one about `what`."""
        return Orders(tuple(each for each in self.entries if each.what != what))

    def standing(self, now: float) -> "Orders":
        """Return those that are not over at `now`; the same object where none is."""
        entries = tuple(each for each in self.entries if each.stands(now))
        return self if len(entries) == len(self.entries) else Orders(entries)

    def known(self, now: float) -> "Orders":
        """Return those that are not over at `now`, or have not been for long."""
        return Orders(tuple(each for each in self.entries if each.stands(now) or each.ended_lately(now)))


NO_ORDERS: Final = Orders()


@attrs.frozen(kw_only=True)
class Wish:
    """What an operator asks for, as the control socket carries it."""

    order: Literal["drain", "hold", "pause"]
    target: str = ""  # as typed; empty for a pause of everything
    kind: Literal["", "address", "node", "instance"] = ""  # of a drain's target, where the operator says
    reason: str = ""
    seconds: float | None = None  # for which it stands; None: until it is ended
    ahead: bool = False  # although it matches nothing yet
    force: bool = False  # although nothing would be left that serves
    user: str = ""  # behind sudo, by its word


def next_end(orders: Orders, now: float) -> float | None:
    """Return when the next order is over, or is no longer known to be, Unix seconds; None where none ever is."""
    ends = (each.until for each in orders.entries if each.until is not None)
    return min((end for until in ends for end in (until, until + LATELY) if end > now), default=None)


Place = tuple[Instance, Address | None, RealServerKey | None]
"""An instance, the address at which it is registered, where that is one, and the real server that it would be.

With direct routing that may have another port than the instance, and a drain of either means it.
"""


@attrs.frozen
class Drains:
    """The drains that stand, found by what they are about, and those that ended lately. Of the same orders equal."""

    entries: tuple[Order, ...] = ()
    ended: tuple[Order, ...] = ()
    _standing: Mapping[Target, Order] = attrs.field(init=False, eq=False, repr=False)
    _ended: Mapping[Target, Order] = attrs.field(init=False, eq=False, repr=False)

    @_standing.default
    def _index_standing(self) -> Mapping[Target, Order]:
        return _by_target(self.entries)

    @_ended.default
    def _index_ended(self) -> Mapping[Target, Order]:
        return _by_target(self.ended)

    def of(self, instance: Instance, address: Address | None, key: RealServerKey | None) -> Order | None:
        """Return the order that takes an instance out, the narrowest where several do; None where none does."""
        return _narrowest(self._standing, (instance, address, key))

    def ended_of(self, instance: Instance, address: Address | None, key: RealServerKey | None) -> Order | None:
        """Return the order that took an instance out until lately; None where none did."""
        return _narrowest(self._ended, (instance, address, key))

    def every(self, instance: Instance, address: Address | None, key: RealServerKey | None) -> Iterator[Order]:
        """Yield all orders that take an instance out, the narrowest first."""
        return _matching(self._standing, (instance, address, key))

    def at(self, key: RealServerKey) -> Order | None:
        """Return the order that takes out whatever is at `key`, registered or not; None where none does."""
        return next(self.every_at(key), None)

    def every_at(self, key: RealServerKey) -> Iterator[Order]:
        """Yield all orders that take out whatever is at `key`, registered or not, the narrowest first."""
        return _found(self._standing, (AtPort(key.address, key.port), AtAddress(key.address)))

    def among(self, places: Iterable[Place]) -> "Drains":
        """Return those of which it matters to the instances at `places` whether they stand."""
        if not self.entries and not self.ended:
            return NO_DRAINS
        found = {order for place in places for order in (self.of(*place), self.ended_of(*place)) if order}
        if not found:
            return NO_DRAINS
        return Drains(
            tuple(each for each in self.entries if each in found), tuple(each for each in self.ended if each in found)
        )


def _by_target(orders: Iterable[Order]) -> Mapping[Target, Order]:
    return {each.what.target: each for each in orders if isinstance(each.what, Drain)} or NOTHING


def _narrowest(orders: Mapping[Target, Order], place: Place) -> Order | None:
    return next(_matching(orders, place), None)


def _matching(orders: Mapping[Target, Order], place: Place) -> Iterator[Order]:
    if not orders:
        return iter(())
    instance, address, key = place
    targets: list[Target] = [OneInstance(instance.node, instance.instance_id)]
    if address is not None:
        targets.append(AtPort(address, instance.port))
    if key is not None and (key.address, key.port) != (address, instance.port):
        targets.append(AtPort(key.address, key.port))
    if address is not None:
        targets.append(AtAddress(address))
    return _found(orders, (*targets, OnNode(instance.node)))


def _found(orders: Mapping[Target, Order], targets: Iterable[Target]) -> Iterator[Order]:
    return (orders[target] for target in targets if target in orders)


NO_DRAINS: Final = Drains()


@attrs.frozen(kw_only=True)
class Ordered:
    """What is ordered of one virtual server."""

    hold: Order | None = None
    pause: Order | None = None  # its own, or that of everything
    drained: frozenset[RealServerKey] = NOBODY  # of what is in the table, by its address: registered or not


NOT_ORDERED: Final = Ordered()


@attrs.frozen(kw_only=True)
class InForce:
    """The orders that stand at one moment, by what they are about."""

    drains: Drains = NO_DRAINS
    holds: Mapping[str, Order] = NOTHING  # by virtual server
    pauses: Mapping[str, Order] = NOTHING

    def on(self, name: str, there: Iterable[RealServerKey] = ()) -> Ordered:
        """Return what is ordered of virtual server `name`, and of the real servers that are `there`."""
        hold, pause = self.holds.get(name), self.everything or self.pauses.get(name)
        drained = frozenset(key for key in there if self.drains.at(key)) if self.drains.entries else NOBODY
        return Ordered(hold=hold, pause=pause, drained=drained) if hold or pause or drained else NOT_ORDERED

    @property
    def everything(self) -> Order | None:
        """Return the pause of everything; None where there is none."""
        return self.pauses.get("")


NOTHING_IN_FORCE: Final = InForce()


def in_force(orders: Orders, now: float) -> InForce:
    """Return what `orders` say at `now`, Unix seconds."""
    if not orders.entries:
        return NOTHING_IN_FORCE
    drains: list[Order] = []
    ended = tuple(each for each in orders.entries if isinstance(each.what, Drain) and each.ended_lately(now))
    holds: dict[str, Order] = {}
    pauses: dict[str, Order] = {}
    for each in _standing(orders, now):
        match each.what:
            case Drain():
                drains.append(each)
            case Hold(virtual_server=name):
                holds[name] = each
            case Pause(virtual_server=name):
                pauses[name] = each
            case _:
                assert_never(each.what)
    return InForce(drains=Drains(tuple(drains), ended), holds=holds, pauses=pauses)


def _standing(orders: Orders, now: float) -> Iterable[Order]:
    return (each for each in orders.entries if each.stands(now))

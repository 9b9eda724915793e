"""Orders for the fleet beside a director's own: both count, and what is said to end one ends it."""

import shlex

import attrs
from hypothesis import assume, given, reject
from hypothesis import strategies as st

from lvsctl.config import NAME_PATTERN, Config
from lvsctl.core.admission import parse_address
from lvsctl.core.decide import decide
from lvsctl.core.fleet import ended_by, own_of, together
from lvsctl.core.instance import Instance
from lvsctl.core.order import NO_ORDERS, Drain, Hold, Order, Orders, Pause, What, in_force
from lvsctl.core.order_target import Known, resolve_ordered
from netlink.types import Table
from tests.core.test_order import instances, names, orders, times, whats
from tests.strategies import answers_for, configs, ledgers, some_orders, tables
from tests.values import NOW, OWN, kernel_with, real_key

virtual_servers = st.from_regex(NAME_PATTERN, fullmatch=True)
pauses = st.builds(Pause, virtual_servers | st.just(""))
NOBODY_KNOWN = Known(names=frozenset(), members=(), real_servers=frozenset())


def of_fleet(given: Orders) -> Orders:
    return Orders(tuple(attrs.evolve(each, fleet=True) for each in given.entries))


@given(own=orders, fleet=orders.map(of_fleet), each=instances, name=names, now=times)
def test_any_drain_drains_any_hold_holds_and_any_pause_pauses(
    own: Orders, fleet: Orders, each: Instance, name: str, now: float
) -> None:
    both, one, other = (in_force(orders, now) for orders in (together(own, fleet), own, fleet))
    place = (each, parse_address(each.address), None)
    assert bool(both.drains.of(*place)) == bool(one.drains.of(*place) or other.drains.of(*place))
    assert bool(both.drains.at(real_key(1))) == bool(one.drains.at(real_key(1)) or other.drains.at(real_key(1)))
    for kind in ("hold", "pause"):
        assert bool(getattr(both.on(name), kind)) == any(getattr(force.on(name), kind) for force in (one, other))


@given(own=orders, fleet=orders.map(of_fleet))
def test_each_knows_its_own(own: Orders, fleet: Orders) -> None:
    assert own_of(together(own, fleet)) == own
    assert together(own, NO_ORDERS) is own


@given(what=whats)
def test_about_the_same_thing_the_fleets_is_named(what: What) -> None:
    own = Order(what=what, by="root", written=NOW)
    fleet = attrs.evolve(own, by="alice@adm1", fleet=True)
    force = in_force(together(Orders((own,)), Orders((fleet,))), NOW)
    match what:
        case Drain(target=target):
            assert force.drains._standing[target] == fleet  # noqa: SLF001  # looked up by every way at once
        case Hold(virtual_server=name) | Pause(virtual_server=name):
            assert fleet in (force.on(name).hold, force.on(name).pause)


@given(what=whats.filter(lambda what: isinstance(what, Drain)) | st.builds(Hold, virtual_servers) | pauses)
def test_what_is_said_to_end_an_order_ends_it(what: What) -> None:
    order = Order(what=what, by="root", written=NOW)
    fleet = ended_by(attrs.evolve(order, fleet=True))
    assert fleet == f"{ended_by(order)} --fleet"
    try:
        words = shlex.split(ended_by(order))
    except ValueError:
        reject()  # a name with a quote in it is shown as it is
    assume(" ".join(words) == ended_by(order))
    assert words[0] == "lvsctl"
    match what:
        case Drain(target=target):
            kind = words[words.index("--as") + 1] if "--as" in words else ""
            assume(len(words) == 3 + 2 * bool(kind))
            assume(words[1] == "undrain")
            assert resolve_ordered(words[2], NOBODY_KNOWN, (order,), kind=kind) == target
        case Hold(virtual_server=name):
            assert words[1:] == ["release", *filter(None, [name])]
        case Pause(virtual_server=name):
            assert words[1:] == ["resume", *filter(None, [name])]


def test_the_words_say_whose_it_is() -> None:
    order = Order(what=Hold("reco"), by="alice@adm1", reason="why", written=NOW, fleet=True)
    assert order.words == "held for the fleet by alice@adm1: why"
    assert attrs.evolve(order, fleet=False).words == "held by alice@adm1: why"


@given(data=st.data(), config=configs(), table=tables(), given=some_orders)
def test_a_director_does_the_same_by_whichever_way_it_was_ordered(
    data: st.DataObject, config: Config, table: Table, given: Orders
) -> None:
    """So what holds for its own orders, such as that a drain never takes the last one, holds for the fleet's."""
    answers, ledger = data.draw(answers_for(config)), data.draw(ledgers(table))
    observed = kernel_with(table).observe()
    by_fleet = data.draw(st.lists(st.booleans(), min_size=len(given.entries), max_size=len(given.entries)))
    pairs = list(zip(given.entries, by_fleet, strict=True))
    own, fleet = (Orders(tuple(order for order, by in pairs if by is side)) for side in (False, True))

    def requests(orders: Orders) -> list[object]:
        decision = decide(
            config, answers, observed, ledger, own_addresses=OWN, templates_expire=False, now=NOW, orders=orders
        )
        return [each.request for each in decision.steps]

    wanted = requests(given)
    assert requests(together(own, of_fleet(fleet))) == wanted
    assert requests(together(given, of_fleet(given))) == wanted

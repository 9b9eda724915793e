"""What must not leave: the last ones that serve stay, whatever Consul says, but for those that may not be there."""

from ipaddress import ip_network
from typing import Final

import attrs
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.config import Probe, SafetyConfig
from lvsctl.core.desired import Wanted, desired
from lvsctl.core.guard import guard, hold
from lvsctl.core.instance import Health, Instance
from lvsctl.core.opinion import Opinion
from lvsctl.core.override import Fixed, Override
from lvsctl.core.ownership import LedgerEntry
from lvsctl.core.provenance import Provenance, filters_of
from lvsctl.core.served import NO_FLOOR, WINDOW, Floor, Served
from netlink.types import Forwarding, RealServer, RealServerKey, RealServers, TableEntry
from tests import strategies
from tests.values import (
    KEY,
    NOW,
    Cycles,
    answers_of,
    config_of,
    configured,
    entry,
    failing,
    instance,
    kernel_with,
    limits,
    most_lately,
    real,
    real_key,
    table_of,
)


def wanted(*instances: Instance, tags: tuple[str, ...] = (), doubt: str = "") -> Wanted:
    config = config_of(configured(tags=tags))
    answers = {query: attrs.evolve(answer, doubt=doubt) for query, answer in answers_of(config, *instances).items()}
    return desired(config, answers, limits(config))["reco"]


def stays(found: Wanted, *real_servers: RealServer) -> set[RealServerKey]:
    return set(held(found, entry(*real_servers).real_servers, {}))


def held(found: Wanted, observed: RealServers, written: RealServers) -> RealServers:
    return hold(found, observed, written, NO_FLOOR).real_servers


def test_nothing_is_held_while_one_passes() -> None:
    assert stays(wanted(instance(1), failing(2)), real(1), real(2), real(3)) == set()


def test_an_empty_answer_leaves_all_that_serve() -> None:
    assert stays(wanted(), real(1), real(2, 0), real(3, 5)) == {real_key(1), real_key(3)}


def test_while_an_answer_is_in_doubt_what_is_gone_stays_and_what_fails_does_not() -> None:
    found = wanted(instance(1), failing(2), doubt="the index went back")
    assert stays(found, real(1), real(2), real(3), real(4, 0)) == {real_key(3)}
    assert (
        hold(found, entry(real(3)).real_servers, {}, NO_FLOOR).why
        == "Consul's answer is in doubt (the index went back)"
    )
    assert stays(wanted(instance(1), failing(2)), real(1), real(2), real(3)) == set()


def test_while_an_answer_is_in_doubt_the_last_that_serves_stays_too() -> None:
    assert stays(wanted(failing(1), doubt="x"), real(1)) == {real_key(1)}
    assert stays(wanted(failing(1), doubt="x"), real(1), real(2)) == {real_key(1), real_key(2)}, "2 may be gone"
    assert stays(wanted(failing(1), instance(3), doubt="x"), real(1), real(2), real(3)) == {real_key(2)}
    assert stays(wanted(doubt="x"), real(1), real(2)) == {real_key(1), real_key(2)}


def test_registered_ones_are_kept_rather_than_ones_that_are_gone() -> None:
    assert stays(wanted(failing(1)), real(1), real(2)) == {real_key(1)}


def test_maintenance_of_all_is_held_too() -> None:
    assert stays(wanted(failing(1, Health.MAINTENANCE)), real(1)) == {real_key(1)}


def test_a_new_weight_of_0_for_the_last_one_is_held() -> None:
    assert stays(wanted(instance(1, weight=0)), real(1, 3)) == {real_key(1)}


def test_another_tag_on_all_of_them_is_held() -> None:
    assert stays(wanted(instance(1, tags=("v1",)), tags=("v2",)), real(1)) == {real_key(1)}


def test_what_admission_rejects_is_never_held() -> None:
    config = config_of(safety=SafetyConfig(allowed_networks=(ip_network("10.1.0.0/16"),)))
    found = desired(config, answers_of(config, instance(1)), limits(config))["reco"]
    assert stays(found, real(1)) == set()


def test_another_registration_at_the_same_address_does_not_make_it_allowed() -> None:
    config = config_of(configured(tags=("v1",)), safety=SafetyConfig(allowed_networks=(ip_network("10.1.0.0/16"),)))
    twice = (instance(1, tags=("v1",)), instance(1, node="app9"))  # rejected, and not meant for this virtual server
    found = desired(config, answers_of(config, *twice), limits(config))["reco"]
    assert stays(found, real(1)) == set()


def test_two_of_weight_0_at_one_address_are_held_as_one() -> None:
    assert stays(wanted(instance(1, weight=0), instance(1, weight=0, node="app9")), real(1)) == {real_key(1)}


def test_a_rejected_one_does_not_stand_in_for_one_that_is_gone() -> None:
    config = config_of(safety=SafetyConfig(allowed_networks=(ip_network("10.0.0.2/32"),)))
    found = desired(config, answers_of(config, instance(1)), limits(config))["reco"]
    assert stays(found, real(1), real(2)) == {real_key(2)}


def test_held_ones_are_as_we_wrote_them_whatever_a_hand_did_since() -> None:
    written = entry(real(1, 3), real(2, 3), real(3, 3)).real_servers
    by_hand = entry(real(1, 9, forwarding=Forwarding.DIRECT_ROUTE), real(2, 0)).real_servers  # and 3 deleted
    assert held(wanted(failing(1), failing(2), failing(3)), by_hand, written) == written


def test_one_that_is_gone_from_consul_and_from_the_kernel_stays_gone() -> None:
    written = entry(real(1), real(2)).real_servers
    assert held(wanted(), {}, written) == {}
    assert set(held(wanted(), entry(real(1)).real_servers, written)) == {real_key(1)}


def test_one_that_was_drained_before_is_not_brought_back() -> None:
    written = entry(real(1), real(2, 0)).real_servers
    assert set(held(wanted(failing(1), failing(2)), entry(real(1)).real_servers, written)) == {real_key(1)}


# --- the floor ------------------------------------------------------------------------------------------------------


def floored(
    found: Wanted, *there: RealServer, served: Served | None = None, provenance: Provenance | None = None
) -> tuple[set[RealServerKey], Served]:
    """Return what is held of those that served until now, and what is to be remembered."""
    remembered = LedgerEntry(
        name="reco",
        drain_timeout=30.0,
        written=entry(*there),
        provenance=provenance or Provenance(service="reco", filters=filters_of(found.config)),
        served=served or Served(count=len(there)),
    )
    kept, after = guard(found, entry(*there).real_servers, remembered, now=NOW)
    return set(kept.real_servers), after.after


EIGHT: Final = tuple(real(number) for number in range(1, 9))


def keys(*numbers: int) -> set[RealServerKey]:
    return {real_key(number) for number in numbers}


def test_half_may_leave_at_once_and_no_more() -> None:
    assert floored(wanted(*(instance(number) for number in (1, 2, 3, 4))), *EIGHT)[0] == set()
    assert floored(wanted(instance(7), instance(8)), *EIGHT)[0] == keys(1, 2)
    assert floored(wanted(instance(1)), *EIGHT[:3])[0] == keys(2), "half of three is two"
    assert floored(wanted(instance(1)), *EIGHT[:2])[0] == set()


def test_what_is_registered_is_kept_rather_than_what_is_gone() -> None:
    found = wanted(instance(1), failing(6), failing(8))
    assert floored(found, *EIGHT)[0] == keys(6, 8, 2)


def test_why_says_how_many_and_until_when() -> None:
    remembered = LedgerEntry(
        name="reco", drain_timeout=30.0, written=entry(*EIGHT), provenance=Provenance(service="reco")
    )
    kept, after = guard(wanted(instance(1), instance(2)), entry(*EIGHT).real_servers, remembered, now=NOW)
    assert kept.why == "fewer than 4 of the 8 that served would be left"
    assert kept.floor == Floor(least=4, most=8, until=NOW + WINDOW)
    assert after.after == Served(count=4, earlier=((8, NOW),))


def test_the_floor_falls_when_the_time_is_over() -> None:
    served = Served(count=4, earlier=((8, NOW - WINDOW),))
    assert floored(wanted(instance(1)), *EIGHT[:4], served=attrs.evolve(served, earlier=((8, NOW - 1),)))[0] == keys(
        2, 3, 4
    )
    kept, after = floored(wanted(instance(1)), *EIGHT[:4], served=served)
    assert kept == keys(2)
    assert after == Served(count=2, earlier=((4, NOW),))


def test_what_is_rejected_is_not_kept_for_the_floor() -> None:
    config = config_of(safety=SafetyConfig(allowed_networks=(ip_network("10.0.0.1/32"),)))
    found = desired(config, answers_of(config, *(instance(number) for number in range(1, 9))), limits(config))["reco"]
    assert floored(found, *EIGHT)[0] == set()


def test_other_instances_than_those_that_served_are_counted_anew() -> None:
    found = wanted(instance(9))
    assert floored(found, *EIGHT)[0] == keys(1, 2, 3)
    for elsewhere in (
        Provenance(service="shop"),
        Provenance(service="reco", datacenter="dc2"),
        Provenance(service="reco", filters='[true, ["v1"], []]'),
    ):
        assert floored(found, *EIGHT, provenance=elsewhere) == (set(), Served(count=1))


def test_another_tag_on_most_of_them_is_under_the_floor_and_another_filter_is_not() -> None:
    tagged = [instance(1, tags=("v2",)), *(instance(number, tags=("v1",)) for number in range(2, 9))]
    assert floored(wanted(*tagged, tags=("v2",)), *EIGHT)[0] == keys(2, 3, 4)
    assert floored(wanted(*tagged, tags=("v2",)), *EIGHT, provenance=Provenance(service="reco"))[0] == set()


def test_a_virtual_server_may_have_another_floor() -> None:
    for floor, kept in ((0, set()), (25, keys(2)), (100, keys(2, 3, 4, 5, 6, 7, 8))):
        config = config_of(configured(floor=floor))
        found = desired(config, answers_of(config, instance(1)), limits(config))["reco"]
        assert floored(found, *EIGHT)[0] == kept


def test_what_an_override_quiesces_is_no_loss_and_leaves_no_debt() -> None:
    config = config_of()
    own = [instance(number, tags=("v1",) if number < 7 else ("v2",)) for number in range(1, 9)]
    overrides = {"reco": (Override(virtual_server="reco", selector="v1", share=Fixed(0)),)}
    found = desired(config, answers_of(config, *own), limits(config), overrides=overrides)["reco"]
    kept, after = floored(found, *EIGHT)
    assert kept == set()
    assert after == Served(count=8)
    left = desired(config, answers_of(config, *own[:7]), limits(config), overrides=overrides)["reco"]
    assert floored(left, *(attrs.evolve(each, weight=int(each.key > real_key(6))) for each in EIGHT))[0] == set()


def test_maintenance_is_somebodys_word_and_leaves_no_debt() -> None:
    out = [failing(number, Health.MAINTENANCE) for number in range(1, 7)]
    assert floored(wanted(*out, instance(7), instance(8)), *EIGHT) == (set(), Served(count=8))
    assert floored(wanted(*out, instance(7), failing(8)), *EIGHT[6:], served=Served(count=8)) == (
        set(),
        Served(count=7, earlier=((8, NOW),)),
    )
    assert floored(wanted(*out, failing(7), failing(8)), *EIGHT[6:], served=Served(count=8))[0] == keys(7, 8)


def test_what_is_released_leaves_and_is_counted_no_more() -> None:
    remembered = LedgerEntry(
        name="reco",
        drain_timeout=30.0,
        written=entry(*EIGHT),
        provenance=Provenance(service="reco"),
        served=Served(count=8, earlier=((10, NOW),)),
    )
    for found in (wanted(instance(1)), wanted(), wanted(instance(1), doubt="x")):
        kept, after = guard(found, entry(*EIGHT).real_servers, remembered, now=NOW, released=True)
        assert kept.real_servers == {}
        assert after.after == Served(count=len(found.entry.real_servers))


@given(
    histories=st.lists(
        st.tuples(st.lists(st.integers(1, 8), unique=True), st.sampled_from([0, 1, 60, 400, 899, 900, 2000])),
        max_size=12,
    ),
    floor=st.sampled_from([0, 34, 50, 100]),
)
def test_whatever_is_registered_and_when_no_fewer_serve_than_the_floor_of_the_last_fifteen_minutes(
    histories: list[tuple[list[int], int]], floor: int
) -> None:
    config = config_of(configured(floor=floor))
    remembered: LedgerEntry | None = None
    now, history = NOW, [(NOW, 0)]
    for registered, pause in histories:
        found = desired(config, answers_of(config, *map(instance, registered)), limits(config))["reco"]
        there = remembered.written.real_servers if remembered and remembered.written else {}
        least = -(-most_lately(history, now, WINDOW) * floor // 100)
        kept, counts = guard(found, there, remembered, now=now)
        table = {**found.entry.real_servers, **kept.real_servers}
        assert len(table) >= min(least, len(there.keys() | found.entry.real_servers.keys()))
        if len(found.entry.real_servers) >= max(1, least):
            assert kept.real_servers == {}, "nothing is held that need not be"
        remembered = LedgerEntry(
            name="reco",
            drain_timeout=0.0,
            written=attrs.evolve(found.entry, real_servers=table),
            provenance=Provenance(service="reco"),
            served=counts.after,
        )
        history.append((now, len(table)))
        now += pause


@given(instances=st.lists(strategies.instances(), max_size=5), found=strategies.entries(strategies.KEYS[0]))
def test_held_ones_serve_are_observed_as_they_are_and_only_when_nothing_wanted_serves(
    instances: list[Instance], found: TableEntry
) -> None:
    observed = found.real_servers
    want = wanted(*instances)
    kept = held(want, observed, {})
    assert all(observed[key] == each and each.weight > 0 for key, each in kept.items())
    if any(each.weight > 0 for each in want.entry.real_servers.values()):
        assert kept == {}


def test_who_is_put_into_maintenance_first_may_leave_in_any_number() -> None:
    """To scale from eight to two at once: maintenance is somebody's word, and what has left is no loss any more."""
    config = config_of(configured(drain_timeout=5.0))
    eight = [instance(number) for number in range(1, 9)]
    world = Cycles(config=config, answers=answers_of(config, *eight), kernel=kernel_with({}), ledger={})
    world.until_quiet(9)
    resting = [failing(number, Health.MAINTENANCE) for number in range(3, 9)]
    for instances in ([*eight[:2], *resting], eight[:2]):
        world.answers = answers_of(config, *instances)
        for _ in range(9):
            assert world.once().virtual_servers[KEY].held == {}
    assert world.kernel.observe().table == table_of(entry(real(1), real(2)))


numbers = st.frozensets(st.integers(1, 6))
some_instances = st.dictionaries(
    st.integers(1, 6),
    st.sampled_from([instance, failing, lambda number: failing(number, Health.MAINTENANCE)]),
).map(lambda found: [make(number) for number, make in found.items()])


@given(
    instances=some_instances,
    served=numbers,
    dead=numbers,
    alive=numbers,
    least=st.integers(0, 6),
    fallback=st.booleans(),
    doubt=st.sampled_from(("", "x")),
)
def test_by_default_what_is_held_is_that_without_the_dead_and_nothing_that_lives_goes_for_them(
    *,
    instances: list[Instance],
    served: frozenset[int],
    dead: frozenset[int],
    alive: frozenset[int],
    least: int,
    fallback: bool,
    doubt: str,
) -> None:
    config = config_of(configured(probe=Probe.HELD, fallback=real_key(99) if fallback else None))
    answers = {query: attrs.evolve(answer, doubt=doubt) for query, answer in answers_of(config, *instances).items()}
    found = desired(config, answers, limits(config))["reco"]
    there = entry(*map(real, sorted(served))).real_servers
    floor = Floor(least=least, most=6)
    opinion = Opinion(dead=frozenset(map(real_key, dead)), alive=frozenset(map(real_key, alive - dead)))
    without = hold(found, there, there, floor)
    asked = hold(found, there, there, floor, opinion=opinion)
    kept = asked.real_servers.keys()
    assert without.real_servers.keys() - opinion.dead <= kept
    assert len(kept) <= len(without.real_servers)
    serving = {key for key, each in found.entry.real_servers.items() if each.weight}
    assert fallback or bool(serving | kept) is bool(serving | without.real_servers.keys()), "never the last"
    doubted = {key for key in kept if doubt and key not in found.by_key}
    if kept & opinion.dead - doubted:
        assert not fallback
        assert not serving
        assert kept <= opinion.dead, "the last ones, and none of them lives"
    assert kept - doubted <= asked.suspects <= without.real_servers.keys() | kept | opinion.dead
    assert not asked.by_opinion


@given(instances=some_instances, served=numbers, alive=numbers, least=st.integers(0, 6))
def test_by_default_nothing_goes_of_which_nothing_is_found(
    instances: list[Instance], served: frozenset[int], alive: frozenset[int], least: int
) -> None:
    found, there = wanted(*instances), entry(*map(real, sorted(served))).real_servers
    floor = Floor(least=least, most=6)
    opinion = Opinion(alive=frozenset(map(real_key, alive)), unknowable=frozenset(map(real_key, served - alive)))
    without = hold(found, there, there, floor)
    assert hold(found, there, there, floor, opinion=opinion).real_servers == without.real_servers

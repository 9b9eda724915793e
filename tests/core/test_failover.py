"""Which datacenter serves: the order is kept, nothing flaps, and neither a doubt nor a failure changes anything."""

from collections.abc import Sequence

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.config import Config, VirtualServerConfig
from lvsctl.core.admission import Rejected, admit
from lvsctl.core.cause import Kind
from lvsctl.core.decision import Decision
from lvsctl.core.desired import desired, first_queries_of, limits_of, queries_in_order, queries_of
from lvsctl.core.difference import difference
from lvsctl.core.failover import Standing, choose
from lvsctl.core.instance import Answer, Answers, Instance, Query
from lvsctl.core.ownership import Ledger, LedgerEntry, Owner
from lvsctl.core.peak import SETTLED, Peak, Peaks, after, hold
from lvsctl.core.provenance import Provenance
from lvsctl.core.status import Place, State, VirtualServerStatus
from lvsctl.core.virtual_server_status import virtual_servers
from netlink.fake import FakeIPVS
from netlink.types import Observed, Table
from tests import strategies
from tests.histories import histories
from tests.values import (
    KEY,
    NOW,
    OWN,
    VIP,
    Cycles,
    answers_of,
    config_of,
    configured,
    entry,
    failing,
    instance,
    kernel_with,
    lasting,
    limits,
    real,
    real_key,
    table_of,
)

# --- the rule by itself ---------------------------------------------------------------------------------------------

standing = st.builds(
    lambda able, kept_out, peak, doubt, silent: Standing(
        able=able, meant=able + kept_out, peak=peak, doubt=doubt, silent=silent
    ),
    st.integers(0, 3),
    st.integers(0, 4),
    st.sampled_from((0, 0, 2, 5)),
    st.sampled_from(("", "", "", "some")),
    st.sampled_from((False, False, True)),
)
lists = st.lists(st.none() | standing, min_size=1, max_size=4)


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Standing | None], int]:
    """Draw how the datacenters stand, and which of them served until now."""
    standings = draw(lists)
    return standings, draw(st.integers(0, len(standings) - 1))


def able(standing: Standing | None) -> int:
    """Return how many it could take over with."""
    return standing.able if standing and not standing.silent else 0


def half_of_all(standing: Standing) -> float:
    """Return half of those that are there, or were."""
    return max(standing.meant, standing.peak) / 2


@given(situations())
def test_it_is_never_empty_while_any_may_serve_unless_what_served_is_unheard_or_in_doubt(
    situation: tuple[list[Standing | None], int],
) -> None:
    standings, serving = situation
    until_now, chosen = standings[serving], choose(standings, serving)
    if until_now is not None and not until_now.doubt and any(map(able, standings)):
        assert chosen is not None
        assert able(standings[chosen]) or (chosen == serving and until_now.able)


@given(situations())
def test_the_same_again_is_the_same(situation: tuple[list[Standing | None], int]) -> None:
    standings, serving = situation
    chosen = choose(standings, serving)
    assert chosen is None or choose(standings, chosen) == chosen


@given(situations())
def test_what_serves_goes_on_but_for_an_earlier_one_with_half_of_its_own(
    situation: tuple[list[Standing | None], int],
) -> None:
    standings, serving = situation
    chosen = choose(standings, serving)
    until_now = standings[serving]
    if until_now and until_now.able:
        assert chosen is not None
        assert chosen <= serving
        for earlier in standings[:chosen]:
            assert not earlier or earlier.doubt or earlier.able < half_of_all(earlier) or not able(earlier)
        if chosen != serving:
            back = standings[chosen]
            assert back
            assert not back.doubt
            assert not back.silent
            assert back.able >= half_of_all(back)


@given(situations())
def test_of_those_that_may_take_over_it_is_the_first(situation: tuple[list[Standing | None], int]) -> None:
    standings, serving = situation
    until_now, chosen = standings[serving], choose(standings, serving)
    if until_now and not until_now.able and not until_now.doubt and any(map(able, standings)):
        assert chosen is not None
        assert chosen == min(place for place, each in enumerate(standings) if able(each)) or chosen < serving


@given(situations(), st.data())
def test_a_doubt_never_changes_who_serves(situation: tuple[list[Standing | None], int], data: st.DataObject) -> None:
    """Of a datacenter that serves, whatever else its answer says; of one before it, however many come back."""
    standings, serving = situation
    chosen = choose(standings, serving)
    if chosen is None:
        return
    doubted: list[Standing | None] = [
        attrs.evolve(data.draw(standing, "says"), doubt="some") if place <= chosen else each
        for place, each in enumerate(standings)
    ]
    assert choose(doubted, chosen) == chosen


@given(situations(), st.data())
def test_a_failure_never_changes_who_serves(situation: tuple[list[Standing | None], int], data: st.DataObject) -> None:
    standings, serving = situation
    chosen = choose(standings, serving)
    failing_now = data.draw(st.sets(st.sampled_from(range(len(standings)))))
    if chosen is not None:
        silent = [
            attrs.evolve(each, silent=True) if each and place in failing_now else each
            for place, each in enumerate(standings)
        ]
        assert choose(silent, chosen) == chosen


@given(situations())
def test_what_was_never_heard_takes_over_nothing(situation: tuple[list[Standing | None], int]) -> None:
    standings, serving = situation
    chosen = choose(standings, serving)
    if standings[serving] is None:
        assert chosen is None or chosen < serving
    if chosen is not None:
        assert standings[chosen] is not None


@pytest.mark.parametrize(
    ("standings", "serving", "chosen"),
    [
        ([(5, 5), (5, 5)], 0, 0),
        ([(1, 20), (9, 9)], 0, 0),  # what serves, serves
        ([(0, 20), (9, 9)], 0, 1),
        ([(0, 20), None, (1, 9)], 0, 2),
        ([(0, 20), None], 0, 0),
        ([None, (9, 9)], 0, None),
        ([None, (9, 9)], 1, 1),
        ([(9, 9), None], 1, 0),
        ([(4, 9), None], 1, None),
        ([(9, 20), (9, 9)], 1, 1),
        ([(10, 20), (9, 9)], 1, 0),
        ([(1, 1), (9, 9)], 1, 0),
        ([(1, 20), (0, 9)], 1, 0),  # nothing else is there
        ([(0, 0), (0, 9)], 1, 1),  # held where it served
        ([(1, 9), (0, 9), (5, 5)], 1, 0),
    ],
)
def test_the_rule_by_example(standings: Sequence[tuple[int, int] | None], serving: int, chosen: int | None) -> None:
    found = [None if each is None else Standing(able=each[0], meant=each[1]) for each in standings]
    assert choose(found, serving) == chosen


# --- with how many it served ------------------------------------------------------------------------------------------

LIST = ("", "dc2", "dc3")
counts = st.lists(st.none() | st.integers(0, 4), min_size=3, max_size=3)
peaks_before = st.dictionaries(
    st.sampled_from((*LIST, "gone")),
    st.builds(
        Peak, count=st.integers(1, 4), fewer_since=st.sampled_from((None, NOW - 2 * SETTLED, NOW - 9, NOW, NOW + 9))
    ),
)


@given(peaks_before, counts, st.integers(0, 2), st.floats(0, SETTLED / 2))
def test_the_same_again_is_remembered_the_same_until_it_says_so(
    peaks: Peaks, able: list[int | None], serving: int, later: float
) -> None:
    once = after(peaks, LIST, able, serving, NOW)
    if all(each is not None for each in able):
        assert hold(once, NOW)
        assert all(peak.count >= (able[LIST.index(name)] or 0) for name, peak in once.items())
    if hold(once, NOW + later):
        assert after(once, LIST, able, serving, NOW + later) == once
    assert once.keys() <= set(LIST[: serving + 1][:2])


@given(st.lists(st.tuples(st.floats(0, SETTLED / 20), st.integers(0, 9)), max_size=10), st.integers(0, 1))
def test_within_its_time_the_most_is_remembered(changes: list[tuple[float, int]], serving: int) -> None:
    peaks, now, most = after({}, LIST, [5, 5, 5], 0, NOW), NOW, 5
    for seconds, able in changes:
        now, most = now + seconds, max(most, able)
        peaks = after(peaks, LIST, [able, 0, 5], serving, now)
    assert peaks[""].count == most


def test_a_smaller_one_is_what_there_is_after_a_while_but_none_is_nothing_at_any_time() -> None:
    peaks = after({}, LIST, [20, 5, 5], 0, NOW)
    peaks = after(peaks, LIST, [0, 5, 5], 1, NOW + 10)
    peaks = after(peaks, LIST, [0, 5, 5], 1, NOW + 1e6)
    peaks = after(peaks, LIST, [1, 5, 5], 1, NOW + 1e6)
    assert peaks[""] == Peak(count=20, fewer_since=NOW + 1e6)
    assert after(peaks, LIST, [9, 5, 5], 1, NOW + 1e6 + SETTLED - 1)[""] == peaks[""]
    assert after(peaks, LIST, [3, 5, 5], 1, NOW + 1e6 + SETTLED)[""] == Peak(count=3)
    set_back = after(peaks, LIST, [1, 5, 5], 1, NOW)
    assert not hold(peaks, NOW)
    assert set_back[""] == Peak(count=20, fewer_since=NOW)


# --- in whole cycles ------------------------------------------------------------------------------------------------


@st.composite
def worlds(draw: st.DrawFn) -> Cycles:
    """Draw everything a start may find, with failover, doubts and snapshots."""
    config = draw(strategies.failing_over(draw(strategies.configs())))
    table = draw(strategies.tables())
    answers = {
        query: attrs.evolve(answer, doubt=draw(st.sampled_from(("", "", "", "some"))))
        for query, answer in draw(strategies.answers_for(config)).items()
    }
    return Cycles(config=config, answers=answers, kernel=kernel_with(table), ledger=draw(strategies.ledgers(table)))


def heard(config: VirtualServerConfig, answers: Answers) -> list[Instance]:
    return [each for query in queries_in_order(config) if query in answers for each in answers[query].instances]


def test_what_waits_under_another_name_is_not_forgotten() -> None:
    """A restart after a reboot and a rename, and the datacenter that served has not answered yet."""
    virtual_server = attrs.evolve(configured("vs0"), failover=("dc2",))
    known = LedgerEntry(name="vs1", drain_timeout=0.0, failed_over="dc2")
    world = Cycles(
        config=config_of(virtual_server),
        answers={queries_in_order(virtual_server)[0]: Answer(index=1)},
        kernel=FakeIPVS(),
        ledger={virtual_server.key: known},
    )
    for _ in range(3):
        assert world.once().waiting == {"vs0"}
    assert world.kernel.writes == []
    assert world.ledger == {virtual_server.key: known}


@histories()
@given(world=worlds())
def test_it_arrives_rests_and_owes_nothing_to_the_decision_before(world: Cycles) -> None:
    world.until_quiet(4)
    table, ledger = world.kernel.observe().table, world.ledger
    world.kernel.writes.clear()
    for _ in range(3):
        world.once()
    assert world.kernel.writes == []
    assert (world.kernel.observe().table, world.ledger) == (table, ledger)
    again = attrs.evolve(world, ledger=dict(ledger), now=world.now + SETTLED / 2, last=None)
    again.once()
    assert world.kernel.writes == []
    assert lasting(again.ledger, again.now) == lasting(ledger, again.now)


@histories()
@given(world=worlds(), data=st.data())
def test_a_decision_owes_nothing_to_the_one_before(world: Cycles, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 4), "cycles")):
        world.once()  # compares with a decision that knows of none
        if data.draw(st.booleans(), "other answers"):
            world.answers = {**world.answers, **data.draw(strategies.answers_for(world.config))}
        if data.draw(st.booleans(), "another ledger"):
            failed_over = data.draw(st.sampled_from(("", "dc2", "dc3")))
            world.ledger = {key: attrs.evolve(each, failed_over=failed_over) for key, each in world.ledger.items()}
    world.once()


@histories()
@given(world=worlds())
def test_a_virtual_server_that_serves_is_never_emptied(world: Cycles) -> None:
    def check(decision: Decision, _ledger: Ledger, observed: Observed) -> None:
        for each in decision.virtual_servers.values():
            if each.wanted is None or each.owner is Owner.FOREIGN or each.key not in observed.table:
                continue
            judged = [
                admit(one, each.wanted.config, limits(world.config)) for one in heard(each.wanted.config, world.answers)
            ]
            rejected = {one.key for one in judged if isinstance(one, Rejected)}
            there = observed.table[each.key].real_servers
            if any(found.weight > 0 and key not in rejected for key, found in there.items()):
                assert each.intended is not None
                assert any(found.weight > 0 for found in each.intended.real_servers.values())

    world.on_decision = check
    world.until_quiet()


@histories()
@given(world=worlds(), data=st.data())
def test_killed_after_any_step_it_arrives_where_it_would_have(world: Cycles, data: st.DataObject) -> None:
    unharmed = attrs.evolve(world, kernel=kernel_with(world.kernel.observe().table))
    unharmed.until_quiet()
    unharmed.until_quiet()  # a line of the ledger about nothing is forgotten, and with it who served
    for _ in range(data.draw(st.integers(1, 3), label="deaths")):
        world.once(steps=data.draw(st.integers(0, 4), label="steps done"))
    world.until_quiet()
    world.until_quiet()
    assert world.kernel.observe().table == unharmed.kernel.observe().table


def test_killed_before_the_ledger_is_settled_what_was_written_is_still_from_where_it_was() -> None:
    """No step was needed, for a hand had been there; what was written was not all of it, and from elsewhere."""
    elsewhere = Provenance(service="shop")
    known = LedgerEntry(name="reco", drain_timeout=30.0, written=entry(real(1), real(2)), provenance=elsewhere)
    world = Cycles(
        config=config_of(),
        answers=answers_of(config_of(), instance(1), instance(2, weight=0)),
        kernel=kernel_with(table_of(entry(real(1), real(2, weight=0)))),
        ledger={KEY: known},
    )
    assert not world.once(steps=0).steps
    assert (world.ledger[KEY].written, world.ledger[KEY].provenance) == (known.written, elsewhere)
    world.once()
    assert (world.ledger[KEY].written, world.ledger[KEY].provenance.service) == (
        entry(real(1), real(2, weight=0)),
        "reco",
    )


@histories()
@given(world=worlds())
def test_only_one_datacenter_serves(world: Cycles) -> None:
    names = desired(world.config, world.answers, limits_of(world.config, OWN))
    for wanted in names.values():
        for key in wanted.entry.real_servers:
            assert wanted.by_key[key].datacenter == wanted.datacenter


@histories()
@given(world=worlds())
def test_without_a_list_all_is_as_before(world: Cycles) -> None:
    plain = attrs.evolve(
        world.config,
        virtual_servers={name: attrs.evolve(each, failover=()) for name, each in world.config.virtual_servers.items()},
    )
    firsts = {query: answer for query, answer in world.answers.items() if query in queries_of(plain)}
    assert first_queries_of(world.config) == queries_of(plain)
    failed_over = dict.fromkeys((each.key for each in plain.virtual_servers.values()), "dc2")
    one = desired(plain, firsts, limits(plain))
    other = desired(plain, world.answers, limits(plain), failed_over=failed_over)
    assert one == other
    assert all(not each.failed_over for each in one.values())


# --- by example -----------------------------------------------------------------------------------------------------

TWO = config_of(configured(failover=("dc2",)))
THERE = (instance(11), instance(12))
STANDING = entry(real(1), real(2), real(3), real(4))


def asked(config: Config = TWO, **of: Sequence[Instance] | Answer | None) -> Answers:
    """Return answers of the first datacenter (`own`) and of others by name; None: it was never heard."""
    found = {}
    for name, said in of.items():
        if said is not None:
            query = Query(service="reco", datacenter="" if name == "own" else name)
            found[query] = said if isinstance(said, Answer) else Answer(instances=tuple(said), index=1)
    assert found.keys() <= queries_of(config)
    return found


def ours(written: Table | None = None, failed_over: str = "") -> Ledger:
    there = (written or table_of(STANDING))[KEY]
    return {KEY: LedgerEntry(name="reco", drain_timeout=30.0, written=there, failed_over=failed_over)}


def world_of(answers: Answers, *, standing: Table | None = None, failed_over: str = "", config: Config = TWO) -> Cycles:
    """Return cycles of a virtual server with four real servers, or others."""
    table = table_of(STANDING) if standing is None else standing
    return Cycles(config=config, answers=answers, kernel=kernel_with(table), ledger=ours(table, failed_over))


def table(world: Cycles) -> Table:
    return world.kernel.observe().table


def row(world: Cycles) -> VirtualServerStatus:
    decision, observed = world.decide(world.kernel.observe()), world.kernel.observe()
    ages = {Query(service="reco"): 3.0, Query(service="reco", datacenter="dc2"): 5.0}
    (found,) = virtual_servers(world.config, decision, observed, refused={}, local=frozenset({VIP}), ages=ages)
    return found


ALL_BAD = [failing(number) for number in range(1, 5)]
ALL_GOOD = [instance(number) for number in range(1, 5)]


def test_all_critical_fails_over_and_half_of_them_come_back() -> None:
    world = world_of(asked(own=ALL_BAD, dc2=THERE))
    first = world.once()
    assert [type(step.request).__name__ for step in first.steps] == ["AddRealServer"] * 2 + ["SetRealServer"] * 4
    assert {step.cause.kind for step in first.steps} == {Kind.NEW, Kind.CHECK}
    world.until_quiet()
    assert table(world) == table_of(entry(real(11), real(12)))
    assert world.ledger[KEY].failed_over == "dc2"

    world.answers = asked(own=[instance(1), *ALL_BAD[1:]], dc2=THERE)
    world.until_quiet()
    assert table(world) == table_of(entry(real(11), real(12)))

    world.answers = asked(own=[*ALL_GOOD[:2], *ALL_BAD[2:]], dc2=THERE)
    back = world.once()
    leaving = [line for line in difference(back) if line.real_server == "10.0.0.11:8080"]
    why = "may serve, but the agent's own datacenter does, which comes first"
    assert [(line.cause.kind, line.cause.text) for line in leaving] == [
        (Kind.FAILOVER, f"instance 'reco-11' on node 'app11' in datacenter 'dc2': {why}")
    ]
    world.until_quiet()
    assert table(world) == table_of(entry(real(1), real(2)))
    assert world.ledger[KEY].failed_over == ""

    world.answers = asked(own=[*ALL_GOOD[:1], *ALL_BAD[1:]], dc2=THERE)
    world.until_quiet()
    assert table(world) == table_of(entry(real(1)))


def test_a_restart_changes_nothing() -> None:
    world = world_of(
        asked(own=[instance(1), *ALL_BAD[1:]], dc2=THERE),
        standing=table_of(entry(real(11), real(12))),
        failed_over="dc2",
    )
    assert world.once().steps == []
    assert world.ledger[KEY].failed_over == "dc2"


def test_those_that_deregistered_and_come_back_one_by_one_are_waited_for() -> None:
    world = world_of(asked(own=ALL_GOOD, dc2=THERE))
    world.until_quiet()
    for left in range(3, -1, -1):  # as fast as a person stops them
        world.answers = asked(own=ALL_GOOD[:left], dc2=THERE)
        world.until_quiet()
    away = table_of(entry(real(11), real(12)))
    assert table(world) == away

    world.now += 86400.0  # a day without any: as if it were a minute
    world.answers = asked(own=ALL_GOOD[:1], dc2=THERE)
    world.until_quiet()
    assert table(world) == away
    counted = "(1 now; that 4 served before counts for 10 minutes)"
    assert row(world).note == (
        f"failed over to datacenter 'dc2' until 2 instances in the agent's own datacenter may serve {counted}"
    )
    assert [each.why for each in row(world).real_servers if each.instance == "reco-1"] == [
        f"may serve, but datacenter 'dc2' does until 2 here may {counted}"
    ]
    restarted = attrs.evolve(world, last=None)
    restarted.until_quiet()
    assert table(restarted) == away

    world.answers = asked(own=ALL_GOOD[:2], dc2=THERE)
    world.until_quiet()
    assert table(world) == table_of(entry(real(1), real(2)))


def test_a_datacenter_that_became_smaller_is_waited_for_ten_minutes_and_no_longer() -> None:
    world = world_of(asked(own=ALL_GOOD, dc2=THERE))
    world.until_quiet()
    world.answers = asked(own=[], dc2=THERE)
    world.until_quiet()
    world.answers = asked(own=ALL_GOOD[:1], dc2=THERE)
    world.until_quiet()
    began = world.now
    while table(world) != table_of(entry(real(1))):
        world.now += 10.0  # an audit
        world.until_quiet()
        assert world.now <= began + SETTLED + 30
    assert world.now >= began + SETTLED - 30
    assert world.ledger[KEY].failed_over == ""


def test_a_list_without_a_second_one_leaves_no_number() -> None:
    config = config_of()
    world = world_of(asked(config, own=ALL_GOOD), config=config)
    world.until_quiet()
    assert not world.ledger[KEY].peaks


def test_where_the_table_is_lost_the_ledger_knows() -> None:
    world = world_of(
        asked(own=[instance(1), *ALL_BAD[1:]], dc2=THERE),
        standing=table_of(entry(real(11), real(12))),
        failed_over="dc2",
    )
    world.kernel = kernel_with({})
    world.once()
    assert table(world) == table_of(entry(real(11), real(12)))


def test_where_none_may_serve_the_last_that_did_stay_whoever_they_are() -> None:
    standing = table_of(entry(real(11), real(12)))
    bad = [failing(11), failing(12)]
    world = world_of(asked(own=ALL_BAD, dc2=bad), standing=standing, failed_over="dc2")
    world.until_quiet()
    assert table(world) == standing
    shown = row(world)
    assert (shown.state, shown.datacenter, shown.failed_over) == (State.HELD, "dc2", True)
    assert {each.real_server for each in shown.real_servers if each.place is Place.HELD} == {
        "10.0.0.11:8080",
        "10.0.0.12:8080",
    }
    world.answers = asked(own=[instance(1), *ALL_BAD[1:]], dc2=bad)
    world.until_quiet()
    assert table(world) == table_of(entry(real(1)))


def test_in_the_first_datacenter_too() -> None:
    world = world_of(asked(own=ALL_BAD, dc2=[failing(11)]))
    world.until_quiet()
    assert table(world) == table_of(STANDING)
    shown = row(world)
    assert (shown.state, shown.datacenter, shown.failed_over) == (State.HELD, "", False)
    assert len(shown.real_servers) == 5  # why not the other one is shown, too


@pytest.mark.parametrize("says", [[], ALL_BAD[:1]])
def test_a_doubt_fails_over_to_nobody_and_holds(says: list[Instance]) -> None:
    world = world_of(asked(own=Answer(instances=tuple(says), doubt="the index went back"), dc2=THERE))
    world.until_quiet()
    there = table(world)[KEY].real_servers
    assert {key for key, each in there.items() if each.weight} >= {real_key(2), real_key(3), real_key(4)}
    assert real_key(11) not in there
    assert row(world).datacenter == ""


def test_an_empty_answer_that_is_believed_fails_over() -> None:
    world = world_of(asked(own=[], dc2=THERE))
    world.until_quiet()
    assert table(world) == table_of(entry(real(11), real(12)))
    shown = row(world)
    assert (shown.state, shown.serving, shown.wanted) == (State.DEGRADED, 2, 2)


def test_a_doubt_about_the_one_that_takes_over_keeps_nobody_of_the_first() -> None:
    world = world_of(asked(own=ALL_GOOD, dc2=THERE))
    world.until_quiet()
    world.answers = asked(own=[], dc2=Answer(instances=THERE, doubt="no leader"))
    world.until_quiet()
    assert table(world) == table_of(entry(real(11), real(12)))
    world.answers = asked(own=[], dc2=Answer(instances=THERE[:1], doubt="no leader"))
    world.until_quiet()
    assert table(world) == table_of(entry(real(11), real(12))), "of its own it does"


def test_a_doubt_about_another_consul_service_keeps_nobody_of_the_one_before() -> None:
    config = config_of(configured())
    world = Cycles(config=config, answers=answers_of(config, *ALL_GOOD), kernel=kernel_with({}), ledger={})
    world.until_quiet()
    world.config = config_of(configured(consul_service="shop"))
    world.answers = {Query(service="shop"): Answer(instances=THERE, doubt="no leader")}
    world.until_quiet()
    assert table(world) == table_of(entry(real(11), real(12)))


def test_a_doubt_about_the_other_one_does_not_give_it_back_to_a_few() -> None:
    standing = table_of(entry(real(11), real(12)))
    answers = asked(own=[instance(1), *ALL_BAD[1:]], dc2=Answer(doubt="the index went back"))
    world = world_of(answers, standing=standing, failed_over="dc2")
    world.until_quiet()
    assert table(world) == standing
    assert row(world).state is State.HELD


def test_a_doubt_about_the_first_does_not_give_it_back_and_the_other_one_goes_on() -> None:
    standing = table_of(entry(real(11), real(12)))
    answers = asked(own=Answer(instances=(instance(1),), doubt="the index went back"), dc2=[*THERE, instance(13)])
    world = world_of(answers, standing=standing, failed_over="dc2")
    world.until_quiet()
    assert table(world) == table_of(entry(real(11), real(12), real(13)))
    assert "in doubt (the index went back)" in row(world).note


def test_what_was_never_heard_takes_over_nothing_and_keeps_nobody_waiting() -> None:
    world = world_of(asked(own=ALL_GOOD))
    assert world.once().steps == []
    world.answers = asked(own=ALL_BAD)
    world.until_quiet()
    assert table(world) == table_of(STANDING)
    note = "no instance passes, datacenter 'dc2' does not answer; the last serving real servers stay"
    assert row(world).note == note


def test_what_does_not_answer_now_takes_nothing_over_but_goes_on_where_it_serves() -> None:
    world = world_of(asked(own=ALL_BAD, dc2=Answer(instances=THERE, silent=True)))
    world.until_quiet()
    assert table(world) == table_of(STANDING)
    assert "datacenter 'dc2' does not answer" in row(world).note
    world.answers = asked(own=ALL_BAD, dc2=THERE)
    world.until_quiet()
    world.answers = asked(own=Answer(instances=tuple(ALL_GOOD), silent=True), dc2=Answer(instances=THERE, silent=True))
    world.until_quiet()
    assert table(world) == table_of(entry(real(11), real(12)))
    assert "Consul does not answer for the agent's own datacenter now" in row(world).note


def test_while_the_one_that_serves_is_unheard_it_is_left_as_it_is_unless_the_first_is_whole_again() -> None:
    standing = table_of(entry(real(11), real(12)))
    world = world_of(asked(own=[instance(1), *ALL_BAD[1:]]), standing=standing, failed_over="dc2")
    decision = world.once()
    assert (set(decision.waiting), list(decision.steps)) == ({"reco"}, [])
    assert world.ledger[KEY].failed_over == "dc2"
    world.answers = asked(own=ALL_GOOD)
    world.until_quiet()
    assert table(world) == table_of(STANDING)


def test_a_snapshot_counts_for_what_is_empty_alone() -> None:
    recalled = Answer(instances=THERE, snapshot=NOW - 60)
    world = world_of(asked(own=ALL_BAD, dc2=recalled))
    world.until_quiet()
    assert table(world) == table_of(STANDING)  # held: what a file says of dc2 is older than what serves
    world = world_of(asked(own=ALL_BAD, dc2=recalled), standing=table_of(entry()))
    world.once()
    assert table(world) == table_of(entry(real(11), real(12)))
    assert world.once().waiting == {"reco"}


def test_weight_0_does_not_serve() -> None:
    world = world_of(asked(own=[instance(1, weight=0)], dc2=THERE), standing=table_of(entry(real(1))))
    world.until_quiet()
    assert table(world) == table_of(entry(real(11), real(12)))


def test_those_of_other_tags_and_the_rejected_do_not_count_for_a_return() -> None:
    config = config_of(configured(failover=("dc2",), tags=("v2",)))
    mine = {"tags": ("v2",)}
    answers = asked(
        config,
        own=[instance(1, **mine), *ALL_GOOD[1:], instance(5, address="127.0.0.1", **mine)],
        dc2=[instance(11, **mine)],
    )
    world = world_of(answers, standing=table_of(entry(real(11))), failed_over="dc2", config=config)
    world.until_quiet()
    assert table(world) == table_of(entry(real(1)))


def test_a_list_that_left_the_file_leaves_the_ledger() -> None:
    standing = table_of(entry(real(11), real(12)))
    config = config_of()
    world = world_of(asked(config, own=ALL_GOOD), standing=standing, failed_over="dc2", config=config)
    world.until_quiet()
    assert table(world) == table_of(STANDING)
    assert world.ledger[KEY].failed_over == ""


def test_an_instance_in_both_is_one_real_server() -> None:
    world = world_of(asked(own=[failing(1)], dc2=[instance(1), instance(2)]), standing=table_of(entry(real(1))))
    assert [type(step.request).__name__ for step in world.once().steps] == ["AddRealServer"]
    assert table(world) == table_of(entry(real(1), real(2)))


def test_what_status_says() -> None:
    world = world_of(asked(own=ALL_BAD, dc2=THERE))
    world.until_quiet()
    shown = row(world)
    assert (shown.state, shown.serving, shown.wanted) == (State.DEGRADED, 2, 6)
    assert (shown.datacenter, shown.failed_over, shown.data_age) == ("dc2", True, 5.0)
    assert shown.note == "failed over to datacenter 'dc2'; no instance in the agent's own datacenter may serve"
    assert [(each.datacenter, each.instance, each.place, each.why) for each in shown.real_servers[1:3]] == [
        ("dc2", "reco-12", Place.SERVING, ""),
        ("", "reco-1", Place.OUT, "check 'HTTP' is critical: no answer"),
    ]
    world.answers = asked(own=[instance(1), *ALL_BAD[1:]], dc2=THERE)
    shown = row(world)
    assert shown.note == (
        "failed over to datacenter 'dc2' until 2 of 4 instances in the agent's own datacenter may serve (1 now)"
    )
    assert shown.real_servers[2].why == "may serve, but datacenter 'dc2' does until 2 of 4 here may (1 now)"
    world.answers = asked(own=ALL_GOOD, dc2=THERE)
    world.until_quiet()
    shown = row(world)
    assert (shown.state, shown.serving, shown.wanted, shown.note) == (State.OK, 4, 4, "")
    assert (shown.datacenter, shown.failed_over, shown.data_age) == ("", False, 3.0)

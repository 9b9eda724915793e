"""A cycle about some virtual servers does to them what a cycle about everything would, and to the others nothing."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import attrs
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.agenda import Agenda
from lvsctl.config import Config
from lvsctl.core.desired import queries_of
from lvsctl.core.instance import Answer, Answers, Query
from lvsctl.core.override import Overrides
from lvsctl.core.part import concerned
from lvsctl.core.served import WINDOW
from lvsctl.reconcile import Reconciler
from lvsctl.store import Store
from netlink.fake import FakeIPVS
from netlink.requests import Flush, SetRealServer
from netlink.types import VirtualServerKey
from tests import strategies
from tests.addresses import FakeAddresses
from tests.histories import histories
from tests.values import KEY, NOW, answers_of, config_of, configured, entry, failing, instance, lasting, real

OTHER = VirtualServerKey.by_mark(7)
BOTH = config_of(configured(), configured("other", OTHER))
AT_ONCE = config_of(configured(drain_timeout=0.0), configured("other", OTHER, drain_timeout=0.0))


@attrs.frozen
class World:
    """A reconciler on a kernel of its own."""

    directory: Path
    kernel: FakeIPVS
    reconciler: Reconciler

    @classmethod
    def fresh(cls, directory: Path, clock: Callable[[], float] = lambda: NOW) -> "World":
        """Return one where nothing has happened."""
        directory.mkdir()
        kernel = FakeIPVS()
        store = Store(directory, large=0)
        return cls(directory, kernel, Reconciler(kernel, FakeAddresses(), store, clock))

    def outcome(self) -> tuple[object, ...]:
        """Return all that lasts."""
        return self.kernel.observe().table, Store(self.directory).load(set_aside_damage=False), self.reconciler.refusals


@histories(25)
@given(
    data=st.data(), config=strategies.configs().flatmap(strategies.failing_over), overrides=strategies.some_overrides
)
def test_the_parts_that_news_concern_end_as_the_whole(
    data: st.DataObject, config: Config, overrides: Overrides
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        whole, parts = World.fresh(Path(directory, "whole")), World.fresh(Path(directory, "parts"))
        answers: Answers = {}
        due: set[VirtualServerKey] = set()  # as the agenda has it
        keys_of = concerned(config)
        for number in range(data.draw(st.integers(1, 4))):
            news = data.draw(strategies.answers_for(config))
            changed = {query for query in news if query not in answers or data.draw(st.booleans())}
            answers = {**answers, **{query: news[query] for query in changed}}
            whole.reconciler.cycle(config, answers, overrides=overrides)
            only = frozenset[VirtualServerKey]().union(due, *(keys_of[query] for query in changed))
            cycle = parts.reconciler.cycle(config, answers, only, overrides=overrides)
            assert cycle.only in ((only, None) if number else (None,))
            assert parts.outcome() == whole.outcome()
            decided = cycle.look.decision.virtual_servers
            due = {key for key, each in decided.items() if each.draining} | {done.step.key for done in cycle.done}


def remains(world: World, now: float) -> tuple[object, ...]:
    """Return the table, and what lasts of the ledger at `now`."""
    return world.outcome()[0], lasting(Store(world.directory).load(set_aside_damage=False), now)


registered = st.tuples(*[st.lists(st.integers(1, 5), unique=True)] * 2)
waits = st.sampled_from((0.5, 40.0, 400.0, WINDOW))


@histories(30)
@given(rounds=st.lists(st.tuples(registered, waits, st.frozensets(st.sampled_from((KEY, OTHER)))), max_size=4))
def test_what_a_floor_holds_in_parts_ends_as_in_the_whole_and_when_its_time_is_over(
    rounds: list[tuple[tuple[list[int], ...], float, frozenset[VirtualServerKey]]],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        now = NOW
        whole, parts = (World.fresh(Path(directory, name), lambda: now) for name in ("whole", "parts"))
        agenda = Agenda()
        answers: Answers = {}
        keys_of = concerned(AT_ONCE)
        for (first, second), wait, some in rounds:
            said = {Query(service="reco"): first, Query(service="other"): second}
            news = {query: Answer(instances=tuple(map(instance, its)), index=1) for query, its in said.items()}
            changed = {query for query in news if news[query] != answers.get(query)}
            answers = {**answers, **{query: news[query] for query in changed}}
            released, news_of = some, some.union(*(keys_of[query] for query in changed))
            end = now + wait
            while now < end:
                due = agenda.due(news_of, now)
                expected = whole.reconciler.cycle(AT_ONCE, answers, released=released)
                held = [each.hold for each in expected.look.decision.virtual_servers.values()]
                if due:
                    cycle = parts.reconciler.cycle(AT_ONCE, answers, due.keys, audit=due.audit, released=released)
                    agenda.note(cycle, now=now, clock=now, audit_interval=200.0, dry_run=False)
                assert remains(parts, now) == remains(whole, now)
                news_of = released = frozenset()
                ends = [hold.floor.until for hold in held if hold.floor.until is not None]
                assert now + agenda.pause(now) <= min([*ends, now + 200.0]) + 0.1
                now += min(agenda.pause(now), end - now)


def test_nothing_else_is_read_or_written(tmp_path: Path) -> None:
    world = World.fresh(tmp_path / "state")
    world.reconciler.cycle(BOTH, answers_of(BOTH, instance(1), instance(2)))
    hand = SetRealServer(virtual_server=OTHER, real_server=real(1, 77))
    world.kernel.apply([hand])
    world.kernel.writes.clear()
    answers = answers_of(BOTH, instance(1), failing(2))
    cycle = world.reconciler.cycle(BOTH, answers, frozenset({KEY}))
    assert cycle.only == frozenset({KEY})
    assert {each.virtual_server for each in world.kernel.writes if isinstance(each, SetRealServer)} == {KEY}
    assert cycle.look.observed.table.keys() == {KEY}
    assert world.kernel.observe().table[OTHER].real_servers[hand.real_server.key].weight == 77
    assert world.reconciler.cycle(BOTH, answers).only is None
    assert world.kernel.observe().table[OTHER].real_servers[hand.real_server.key].weight == 1


def test_what_concerns_more_than_a_part_is_a_cycle_about_everything(tmp_path: Path) -> None:
    world = World.fresh(tmp_path / "state")
    answers, only = answers_of(BOTH, instance(1)), frozenset({KEY})
    assert world.reconciler.cycle(BOTH, answers, only).only is None  # the first
    assert world.reconciler.cycle(BOTH, answers, only).only == only
    assert world.reconciler.cycle(config_of(), answers, only).only is None  # another configuration
    world.kernel.apply([Flush()])
    assert world.reconciler.cycle(config_of(), answers, only).only is None
    assert world.kernel.observe().table[KEY] == entry(real(1))


def test_a_query_concerns_every_virtual_server_that_asks_it() -> None:
    config = config_of(configured(), configured("other", OTHER, consul_service="reco"))
    assert concerned(config) == {query: frozenset({KEY, OTHER}) for query in queries_of(config)}

"""What is looked at next: everything when it is time, else what there is a reason for."""

from pathlib import Path

import attrs
import pytest

from lvsctl.agenda import EVERYTHING, LARGE, MOMENT, SOONEST, VERIFY, Agenda, Due
from lvsctl.apply import Refusal
from lvsctl.core.decide import DRAIN_POLL
from lvsctl.core.desired import queries_of
from lvsctl.core.instance import Answer
from lvsctl.core.part import MOST
from lvsctl.reconcile import Cycle, Reconciler
from lvsctl.store import Store
from netlink.fake import FakeIPVS
from netlink.types import RealServerUsage, VirtualServerKey
from tests.addresses import FakeAddresses
from tests.values import KEY, NOW, answers_of, config_of, configured, failing, instance, real_key

AUDIT = 10.0
OTHER = VirtualServerKey.by_mark(7)


@attrs.define
class World:
    """An agenda and what makes its cycles."""

    reconciler: Reconciler
    kernel: FakeIPVS
    agenda: Agenda = attrs.field(factory=Agenda)
    now: float = 0.0  # of the clock that never goes back; the other one is NOW then

    def note(self, cycle: Cycle) -> None:
        """Take note of a cycle that has ended now."""
        self.agenda.note(cycle, now=self.now, clock=NOW + self.now, audit_interval=AUDIT, dry_run=False)


@pytest.fixture
def world(tmp_path: Path) -> World:
    kernel = FakeIPVS()
    return World(reconciler=Reconciler(kernel, FakeAddresses(), Store(tmp_path), lambda: NOW), kernel=kernel)


def test_everything_comes_first_and_at_every_audit(world: World) -> None:
    config = config_of()
    assert world.agenda.due(frozenset(), 0.0) == Due(None)
    world.reconciler.cycle(config, answers_of(config, instance(1)))
    world.note(world.reconciler.cycle(config, answers_of(config, instance(1))))
    assert world.agenda.due(frozenset(), 9.9) == Due()
    assert world.agenda.pause(4.0) == pytest.approx(6.0)
    assert world.agenda.due(frozenset({KEY}), 9.9) == Due(frozenset({KEY}))
    assert world.agenda.due(frozenset({KEY}), 10.0) == Due(frozenset({KEY}), audit=True)
    assert world.agenda.pause(11.0) == SOONEST
    world.now = 10.0
    world.note(world.reconciler.cycle(config, answers_of(config, instance(1)), frozenset(), audit=True))
    assert world.agenda.due(frozenset(), 19.9) == Due()
    assert world.agenda.due(frozenset(), 20.0) == Due(audit=True)
    assert world.agenda.due(frozenset(), EVERYTHING * AUDIT) == Due(None)
    world.agenda.everything()
    assert world.agenda.due(frozenset(), 1.0) == Due(None)


def test_others_come_before_a_large_one_and_only_once(world: World) -> None:
    config = config_of(configured(drain_timeout=0.0), configured("other", key=OTHER))
    many = tuple(instance(number, address=f"10.0.{number >> 8}.{number & 255}") for number in range(1, LARGE + 9))
    answers = {query: Answer(instances=many if query.service == "reco" else many[:2]) for query in queries_of(config)}
    world.note(world.reconciler.cycle(config, answers))
    world.note(world.reconciler.cycle(config, answers, frozenset({KEY, OTHER})))
    both, now = frozenset({KEY, OTHER}), 0.5
    assert world.agenda.due(both, now, at_once=frozenset({KEY})) == Due(both)
    assert world.agenda.due(frozenset({KEY}), now) == Due(), "others may be on their way"
    assert world.agenda.pause(now) == pytest.approx(MOMENT)
    assert world.agenda.due(both, now + MOMENT / 2) == Due(frozenset({OTHER}))
    now += MOMENT
    assert world.agenda.due(frozenset({KEY}), now) == Due(frozenset({KEY})), "news do not make it wait for longer"
    assert world.agenda.due(frozenset({OTHER}), now) == Due(frozenset({OTHER}))
    world.note(world.reconciler.cycle(config, answers, frozenset({OTHER})))
    assert world.agenda.pause(now) == SOONEST
    assert world.agenda.due(frozenset({OTHER}), now) == Due(both), "it has waited once"
    world.note(world.reconciler.cycle(config, answers, both))
    assert world.agenda.due(frozenset(), now) == Due()
    later = now + AUDIT
    assert world.agenda.due(frozenset({OTHER}), later) == Due(frozenset({OTHER})), "before the audit"
    world.note(world.reconciler.cycle(config, answers, frozenset({OTHER})))
    assert world.agenda.due(frozenset({OTHER}), later) == Due(frozenset({OTHER}), audit=True), "it has waited once"
    small = {query: Answer(instances=many[:2], index=2) for query in answers}
    world.note(world.reconciler.cycle(config, small, both, released=both))
    assert world.agenda.due(both, now) == Due(both), "it is not large any more"


def test_what_was_written_is_looked_at_again_once(world: World) -> None:
    config, answers = config_of(), answers_of(config_of(), instance(1))
    world.note(world.reconciler.cycle(config, answers))
    assert world.agenda.due(frozenset(), 0.9) == Due()
    assert world.agenda.pause(0.0) == pytest.approx(VERIFY)
    world.now = 1.0
    due = world.agenda.due(frozenset(), world.now)
    assert due == Due(frozenset({KEY}))
    world.note(world.reconciler.cycle(config, answers, due.keys))
    assert world.agenda.due(frozenset(), 9.9) == Due()
    assert world.agenda.due(frozenset(), 10.0).audit  # a look at some is no audit


def test_what_drains_is_looked_at_every_second(world: World) -> None:
    config = config_of()
    world.reconciler.cycle(config, answers_of(config, instance(1), instance(2)))
    world.kernel.set_usage(KEY, real_key(2), RealServerUsage(active=1))
    world.note(world.reconciler.cycle(config, answers_of(config, instance(1), failing(2))))
    world.now = 1.0
    for _ in range(3):
        assert world.agenda.due(frozenset(), world.now + 0.9 * DRAIN_POLL - 1.0) == Due()
        assert world.agenda.due(frozenset(), world.now).keys == frozenset({KEY})
        cycle = world.reconciler.cycle(config, answers_of(config, instance(1), failing(2)), frozenset({KEY}))
        world.agenda.note(cycle, now=world.now, clock=NOW, audit_interval=AUDIT, dry_run=False)
        world.now += DRAIN_POLL


def test_what_was_refused_is_looked_at_when_it_may_be_tried(world: World) -> None:
    config = config_of()
    world.reconciler.cycle(config, answers_of(config, instance(1)))
    cycle = world.reconciler.cycle(config, answers_of(config, instance(1)))
    refusal = Refusal(error="no", attempts=3, retry_at=NOW + 4.0)
    world.note(attrs.evolve(cycle, refusals={(OTHER, None): refusal}))
    assert world.agenda.due(frozenset(), 3.9) == Due()
    assert world.agenda.pause(0.0) == pytest.approx(4.0)
    assert world.agenda.due(frozenset(), 4.0) == Due(frozenset({OTHER}))


def test_news_of_very_many_are_news_of_everything(world: World) -> None:
    config = config_of()
    world.note(world.reconciler.cycle(config, answers_of(config, instance(1))))
    keys = [VirtualServerKey.by_mark(mark) for mark in range(1, MOST + 2)]
    assert world.agenda.due(frozenset(keys[:MOST]), 0.5) == Due(frozenset(keys[:MOST]))
    assert world.agenda.due(frozenset(keys), 0.5) == Due(None)


def test_a_clock_that_is_set_back_puts_off_no_second_attempt(world: World) -> None:
    config = config_of()
    cycle = world.reconciler.cycle(config, answers_of(config, instance(1)))
    refused = Refusal(error="no", attempts=1, retry_at=NOW + 3600.0)
    world.note(attrs.evolve(cycle, done=(), refusals={(KEY, real_key(1)): refused}))
    assert world.agenda.due(frozenset(), AUDIT) == Due(frozenset({KEY}), audit=True)


def test_a_refusal_whose_time_is_past_is_no_reason_to_hurry(world: World) -> None:
    config = config_of()
    cycle = world.reconciler.cycle(config, answers_of(config, instance(1)))
    refused = Refusal(error="no", attempts=1, retry_at=NOW - 5.0)
    world.note(attrs.evolve(cycle, done=(), refusals={(KEY, real_key(1)): refused}))
    assert world.agenda.pause(0.0) == pytest.approx(AUDIT)
    assert world.agenda.due(frozenset(), AUDIT) == Due(frozenset({KEY}), audit=True), "and is no reason to wait longer"

"""What is logged of a cycle: every write once, every trouble when it begins and when it ends."""

import errno
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import attrs
import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from lvsctl.announce import Announcer
from lvsctl.core.candidates import Refusal
from lvsctl.core.event import Event, Evidence
from lvsctl.core.instance import Answer, Instance, Query
from lvsctl.reconcile import Cycle, Reconciler
from lvsctl.record import Record
from lvsctl.store import Store
from netlink.errors import NetlinkError, Refused, Unavailable
from netlink.fake import FakeIPVS
from netlink.requests import AddRealServer, AddVirtualServer, DeleteRealServer, Request
from netlink.types import RealServerUsage, VirtualServerKey
from tests.addresses import FakeAddresses
from tests.values import (
    KEY,
    NOW,
    answers_of,
    config_of,
    configured,
    entry,
    failing,
    instance,
    kernel_with,
    real,
    table_of,
)


@attrs.define
class World:
    """A reconciler that is announced."""

    state: Path
    kernel: FakeIPVS
    now: float = NOW
    events: list[Event] = attrs.field(factory=list)
    announcer: Announcer = attrs.field(init=False)
    reconciler: Reconciler = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Start."""
        self.announcer = Announcer(self.events.append)
        self.reconciler = Reconciler(self.kernel, FakeAddresses(), Store(self.state), lambda: self.now)

    def told(self, *instances: Instance) -> list[Event]:
        """Run a cycle; return what the journal is told."""
        self.events.clear()
        self.said(*instances)
        return list(self.events)

    def said(self, *instances: Instance) -> list[str]:
        """Run a cycle; return the names of what was logged, and of whom."""
        with capture_logs() as logs:
            self.announcer.cycle(self.reconciler.cycle(config_of(), answers_of(config_of(), *instances)))
        self.now += 1
        return [f"{each['log_level']} {each['event']} {each.get('real_server', each['name'])}" for each in logs]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(state=tmp_path, kernel=FakeIPVS())


def test_every_write_is_said_once(world: World) -> None:
    assert world.said(instance(1), instance(2)) == [
        "info virtual_server_added reco",
        "info real_server_added 10.0.0.1:8080",
        "info real_server_added 10.0.0.2:8080",
    ]
    assert world.said(instance(1), instance(2)) == []
    assert world.said(instance(1, weight=5), failing(2)) == [
        "info real_server_changed 10.0.0.1:8080",
        "info real_server_quiesced 10.0.0.2:8080",
    ]
    assert world.said(instance(1, weight=5), failing(2)) == ["info real_server_deleted 10.0.0.2:8080"]
    assert world.said(instance(1, weight=5), failing(2)) == []


def test_a_write_says_what_and_why(world: World) -> None:
    with capture_logs() as logs:
        world.announcer.cycle(world.reconciler.cycle(config_of(), answers_of(config_of(), instance(1))))
    assert logs[1] == {
        "event": "real_server_added",
        "log_level": "info",
        "name": "reco",
        "virtual_server": "tcp 10.9.0.100:80",
        "real_server": "10.0.0.1:8080",
        "what": "masquerade, weight 1",
        "cause": "new",
        "why": "passing in Consul: instance 'reco-1' on node 'app1'",
    }


def test_a_hold_begins_and_ends(world: World) -> None:
    world.said(instance(1))
    assert world.said() == ["warning hold reco"]
    held = world.events[-1]
    assert (held.event, held.what) == ("hold", "10.0.0.1:8080")
    assert world.said() == []
    assert world.said(instance(1)) == ["info trouble_over reco"]


def test_a_rejected_instance_is_told_until_it_is_gone(world: World) -> None:
    bad = instance(2, address="127.0.0.1")
    world.said(instance(1))
    assert world.said(instance(1), bad) == ["warning instance_rejected reco: reco-2 on app2"]
    assert world.said(instance(1), bad) == []
    assert world.said(instance(1)) == ["info trouble_over reco: reco-2 on app2"]


def test_a_foreign_one_in_the_way_is_told(tmp_path: Path) -> None:
    world = World(state=tmp_path, kernel=kernel_with(table_of(entry(real(9), scheduler="rr"))))
    assert world.said(instance(1)) == ["warning foreign_in_the_way reco"]
    assert world.said(instance(1)) == []


def test_a_refusal_is_an_error_each_time(world: World) -> None:
    world.kernel.fail_next(AddRealServer, errno.EINVAL)
    assert world.said(instance(1)) == ["info virtual_server_added reco", "error kernel_refused 10.0.0.1:8080"]


def test_what_follows_from_a_refused_virtual_server_is_not_told(world: World) -> None:
    world.kernel.fail_next(AddVirtualServer, errno.ENOMEM)
    assert world.said(*(instance(number) for number in range(1, 100))) == ["error kernel_refused reco"]


def test_a_plan_is_told_when_it_is_new(world: World) -> None:
    config = config_of()
    look = world.reconciler.look(config, answers_of(config, instance(1)))
    with capture_logs() as logs:
        world.announcer.cycle(Cycle(look=look), planned=True)
        world.announcer.cycle(Cycle(look=look), planned=True)
    assert [each["event"] for each in logs] == ["would_change", "would_change"]


def test_a_failover_is_said_when_it_begins_and_when_it_ends(world: World) -> None:
    config = config_of(configured(failover=("dc2",), drain_timeout=0.0))
    there = Answer(instances=(instance(11), instance(12)), index=1)

    def said(*here: Instance) -> list[EventDict]:
        answers = {
            Query(service="reco"): Answer(instances=here, index=1),
            Query(service="reco", datacenter="dc2"): there,
        }
        with capture_logs() as logs:
            world.announcer.cycle(world.reconciler.cycle(config, answers))
        return [each for each in logs if not each["event"].startswith("real_server_")]

    said(instance(1), instance(2), instance(3))
    why = "datacenter 'dc2' serves in place of the agent's own datacenter"
    assert said(failing(1), failing(2), failing(3)) == [
        {"event": "failed_over", "log_level": "warning", "name": "reco", "why": why}
    ]
    assert said(instance(1), failing(2), failing(3)) == []
    assert said(instance(1), instance(2), failing(3)) == [
        {"event": "trouble_over", "log_level": "info", "name": "reco", "trouble": "failed_over"}
    ]


@pytest.mark.parametrize("only", [frozenset(), frozenset({KEY})])
def test_what_is_refused_is_no_matter_of_a_cycle_about_a_part(world: World, only: frozenset[VirtualServerKey]) -> None:
    """A declaration that does not count is said once, and not again with each look at everything."""
    cycle = world.reconciler.cycle(config_of(), answers_of(config_of(), instance(1)))
    refusal = Refusal(service="shop", name="shop", text="lvs-address: outside")
    whole = attrs.evolve(cycle, done=(), look=attrs.evolve(cycle.look, refusals=(refusal,)))
    with capture_logs() as logs:
        for _ in range(3):
            world.announcer.cycle(whole)
            world.announcer.cycle(attrs.evolve(cycle, done=(), only=only))
        world.announcer.cycle(attrs.evolve(cycle, done=()))
    assert [each["event"] for each in logs] == ["declaration_refused", "trouble_over"]


# ---- what the journal is told


def test_the_journal_is_told_which_answer_instance_and_check_decided_it(world: World) -> None:
    added, *_ = [each for each in world.told(instance(1), instance(2)) if each.real_server]
    passing = Evidence(service="reco", index=1, node="app1", instance="reco-1", health="passing")
    assert added == Event(
        time=added.time,
        event="real_server_added",
        name="reco",
        virtual_server=str(KEY),
        real_server="10.0.0.1:8080",
        what="masquerade, weight 1",
        cause="new",
        why="passing in Consul: instance 'reco-1' on node 'app1'",
        evidence=passing,
    )
    (quiesced,) = world.told(failing(1), instance(2))
    assert (quiesced.event, quiesced.cause, quiesced.what) == ("real_server_quiesced", "check", "weight 1 -> 0")
    assert quiesced.evidence == attrs.evolve(passing, health="critical", check="HTTP")
    (deleted,) = world.told(failing(1), instance(2))
    assert (deleted.event, deleted.cause, deleted.evidence) == ("real_server_deleted", "drain", quiesced.evidence)


def test_of_what_is_deregistered_it_is_told_in_which_answer_it_lacks(world: World) -> None:
    world.said(*map(instance, (1, 2, 3)))
    for event in (*world.told(instance(1), instance(2)), *world.told(instance(1), instance(2))):
        assert event.real_server == "10.0.0.3:8080"
        assert event.evidence == Evidence(service="reco", index=1, node="app3", instance="reco-3")


def test_what_a_hand_added_is_no_answers_doing(world: World) -> None:
    world.said(instance(1))
    assert world.kernel.apply([AddRealServer(virtual_server=KEY, real_server=real(9))]) == [None]
    (told,) = world.told(instance(1))
    assert (told.event, told.cause, told.evidence) == ("real_server_quiesced", "drift", None)


def test_a_hold_and_its_end_are_told(world: World) -> None:
    world.said(instance(1))
    (began,) = world.told(failing(1))
    assert (began.event, began.name, began.virtual_server) == ("hold", "reco", str(KEY))
    assert "nothing else would serve" in began.why
    assert world.told(failing(1)) == []
    (ended,) = world.told(instance(1))
    assert ended == attrs.evolve(began, time=ended.time, event="trouble_over", of="hold", why="")


def test_a_rejection_is_told_with_its_instance_and_its_end(world: World) -> None:
    bad = instance(2, address="127.0.0.1")
    world.said(instance(1))
    (began,) = world.told(instance(1), bad)
    assert (began.event, began.cause, began.real_server) == ("instance_rejected", "rejected", "127.0.0.1:8080")
    assert began.evidence is not None
    assert (began.evidence.instance, began.name) == ("reco-2", "reco")
    (ended,) = world.told(instance(1))
    assert (ended.event, ended.of, ended.evidence) == ("trouble_over", "instance_rejected", began.evidence)


def test_a_refusal_that_lasts_is_told_less_and_less(world: World) -> None:
    attempts = []
    for _ in range(70):
        world.kernel.fail_next(AddRealServer, errno.ENOMEM)
        told = world.told(instance(1))
        attempts += [(each.attempt, each.of) for each in told if each.event == "kernel_refused"]
        world.now += 60
    assert attempts == [(each, "real_server_added") for each in (1, 2, 4, 8, 16, 32, 64)]


def test_a_thousand_rejected_at_once_are_told_in_no_time(world: World) -> None:
    """Each of them is looked up, and not among all the others each time."""
    told = world.told(*(instance(1, instance_id=f"x{number}", address="127.0.0.1") for number in range(3000)))
    assert sum(each.event == "instance_rejected" for each in told) == 3000


@attrs.define(eq=False)
class Mute(FakeIPVS):
    """A kernel whose answer is lost after so many requests, each time that is asked for."""

    silences: list[int] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        """Begin with an empty table."""
        super().__init__()

    def apply(self, requests: Sequence[Request]) -> list[Refused | None]:
        """Carry out some of `requests`, and say nothing of any."""
        if not self.silences:
            return super().apply(requests)
        super().apply(requests[: self.silences.pop(0)])
        raise Unavailable("apply", "requests", "no answer")


@pytest.mark.parametrize("silences", [*([number] for number in range(6)), [1, 0, 2, 1], [2, 2, 2, 2]])
def test_what_was_done_before_the_answer_was_lost_is_told_by_the_next_cycle(
    tmp_path: Path, silences: list[int]
) -> None:
    kernel = Mute()
    world = World(state=tmp_path, kernel=kernel)
    world.said(instance(1), instance(2), instance(3), instance(4))
    assert not any(FakeIPVS.apply(kernel, [DeleteRealServer(virtual_server=KEY, key=real(4).key)]))
    kernel.set_usage(KEY, real(2).key, RealServerUsage(active=1))
    kernel.writes.clear()
    record, found = Record(keep=False), [instance(1, weight=2), instance(3), failing(2), instance(4), instance(5)]
    kernel.silences = list(silences)
    told: list[Event] = []
    for _ in range(len(silences) + 1):
        with suppress(NetlinkError):
            cycle = world.reconciler.cycle(config_of(), answers_of(config_of(), *found))
            world.events.clear()
            with capture_logs():
                world.announcer.cycle(cycle)
            record.cycle(config_of(), cycle, seconds=0.1)
            told += world.events
    kinds = sorted((each.event, each.real_server, each.cause) for each in told)
    assert kinds == [
        ("real_server_added", "10.0.0.4:8080", "drift"),
        ("real_server_added", "10.0.0.5:8080", "new"),
        ("real_server_changed", "10.0.0.1:8080", "weight"),
        ("real_server_quiesced", "10.0.0.2:8080", "check"),
    ]
    assert len(kernel.writes) == len(told), "each once"
    written = {kind: count for kind, count in record.tally.writes.items() if count}
    assert written == {"real_server_added": 2, "real_server_changed": 1, "real_server_quiesced": 1}
    assert record.tally.drift_repairs == 1
    assert world.told(*found) == [], "and not again"

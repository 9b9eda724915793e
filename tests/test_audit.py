"""An audit by a glance ends as a look at everything does, and reads nothing where nothing has changed."""

import tempfile
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.config import Config, DiscoveryConfig, MetricsConfig, VipConfig
from lvsctl.core.instance import Answers
from lvsctl.core.override import Fixed, Override, Overrides
from lvsctl.core.part import MOST, concerned
from lvsctl.core.plan import plan_virtual_server
from lvsctl.reconcile import Reconciler
from lvsctl.store import Store
from netlink.fake import FakeIPVS
from netlink.requests import AddVirtualServer, DeleteRealServer, DeleteVirtualServer, SetRealServer
from netlink.types import Observed, RealServerUsage, VirtualServer, VirtualServerKey
from tests import strategies
from tests.addresses import FakeAddresses
from tests.histories import histories
from tests.values import KEY, NOW, answers_of, config_of, configured, entry, instance, real

OTHER = VirtualServerKey.by_mark(7)
FOREIGN = VirtualServerKey.by_mark(8)
BOTH = config_of(configured(), configured("other", OTHER))
NOBODY: frozenset[VirtualServerKey] = frozenset()


class Kernel(FakeIPVS):
    """A kernel that counts what is read of it."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[object] = []

    def observe(self, only: object = None) -> Observed:
        """Return the table, or a part of it."""
        self.read.append("everything" if only is None else only)
        return super().observe(only)  # type: ignore[arg-type] # as it came


@attrs.frozen
class World:
    """A reconciler on a kernel of its own."""

    directory: Path
    kernel: Kernel
    addresses: FakeAddresses
    reconciler: Reconciler

    @classmethod
    def fresh(cls, directory: Path, *, clock: Callable[[], float] = lambda: NOW) -> "World":
        """Return one where nothing has happened."""
        directory.mkdir()
        kernel, addresses, store = Kernel(), FakeAddresses(), Store(directory, large=0)
        return cls(directory, kernel, addresses, Reconciler(kernel, addresses, store, clock))

    def outcome(self) -> tuple[object, ...]:
        """Return all that lasts."""
        ledger = Store(self.directory).load(set_aside_damage=False)
        return self.kernel.observe().table, ledger, self.reconciler.refusals, self.addresses.on


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World.fresh(tmp_path / "state")
    for _ in range(2):  # the second finds everything as the first left it
        world.reconciler.cycle(BOTH, answers_of(BOTH, instance(1), instance(2)))
    world.kernel.read.clear()
    world.kernel.writes.clear()
    return world


@histories(40)
@given(
    data=st.data(), config=strategies.configs().flatmap(strategies.failing_over), overrides=strategies.some_overrides
)
def test_an_audit_ends_as_a_look_at_everything(data: st.DataObject, config: Config, overrides: Overrides) -> None:
    config = attrs.evolve(config, vip=data.draw(st.sampled_from((None, VipConfig(interface="lvs0")))))
    with tempfile.TemporaryDirectory() as directory:
        worlds = whole, audited = World.fresh(Path(directory, "whole")), World.fresh(Path(directory, "audited"))
        answers: Answers = {}
        leaving = NOBODY  # what drains is looked at each second
        keys_of = concerned(config)
        for _ in range(data.draw(st.integers(2, 5))):
            news = data.draw(strategies.answers_for(config))
            changed = {query for query in news if query not in answers or data.draw(st.booleans())}
            answers = {**answers, **{query: news[query] for query in changed}}
            table = whole.kernel.observe().table
            for key, drawn in data.draw(strategies.tables()).items():
                if data.draw(st.booleans()):
                    wanted = data.draw(st.sampled_from((None, drawn)))
                    requests = [*plan_virtual_server(wanted, table.get(key))]
                    for world in worlds:
                        world.kernel.apply(requests)
            if data.draw(st.booleans()):
                for world in worlds:
                    world.addresses.on.get("lvs0", set()).clear()
            whole.reconciler.cycle(config, answers, overrides=overrides)
            concerns = leaving.union(*(keys_of[query] for query in changed))
            cycle = audited.reconciler.cycle(config, answers, concerns, audit=True, overrides=overrides)
            assert audited.outcome() == whole.outcome()
            decided = cycle.look.decision.virtual_servers
            leaving = frozenset(key for key, each in decided.items() if each.draining)


def test_where_nothing_has_changed_nothing_is_read(world: World) -> None:
    for _ in range(2):
        cycle = world.reconciler.cycle(BOTH, answers_of(BOTH, instance(1), instance(2)), NOBODY, audit=True)
        assert (cycle.only, cycle.audit) == (frozenset(), True)
    assert not world.kernel.read
    assert not world.kernel.writes


def test_with_discovery_too(world: World) -> None:
    config = attrs.evolve(BOTH, discovery=DiscoveryConfig(addresses=(ip_network("10.9.1.0/24"),)))
    answers = answers_of(config, instance(1), instance(2))
    assert world.reconciler.cycle(config, answers, NOBODY, audit=True).only is None, "it is another configuration"
    world.kernel.read.clear()
    assert world.reconciler.cycle(config, answers, NOBODY, audit=True).only == frozenset()
    assert not world.kernel.read
    world.kernel.apply([DeleteRealServer(virtual_server=OTHER, key=real(1).key)])
    assert world.reconciler.cycle(config, answers, NOBODY, audit=True).only is None, "who has an address concerns all"


def test_what_a_hand_changed_is_looked_at_alone_and_mended(world: World) -> None:
    answers = answers_of(BOTH, instance(1), instance(2))
    world.kernel.apply([DeleteRealServer(virtual_server=OTHER, key=real(1).key)])
    cycle = world.reconciler.cycle(BOTH, answers, NOBODY, audit=True)
    assert cycle.only == frozenset({OTHER})
    assert world.kernel.observe().table[OTHER] == entry(real(1), real(2), key=OTHER)
    again = world.reconciler.cycle(BOTH, answers, NOBODY, audit=True)  # of what we wrote, once
    assert (again.only, again.done) == (frozenset({OTHER}), ())
    assert world.reconciler.cycle(BOTH, answers, NOBODY, audit=True).only == frozenset()


@pytest.mark.parametrize("gone", [True, False])
def test_a_virtual_server_that_comes_or_goes_is_a_look_at_everything(world: World, *, gone: bool) -> None:
    foreign = AddVirtualServer(virtual_server=VirtualServer(key=FOREIGN))
    world.kernel.apply([DeleteVirtualServer(key=OTHER) if gone else foreign])
    answers = answers_of(BOTH, instance(1), instance(2))
    cycle = world.reconciler.cycle(BOTH, answers, NOBODY, audit=True)
    assert cycle.only is None
    assert world.kernel.observe().table.keys() == {KEY, OTHER} | (set() if gone else {FOREIGN})
    assert cycle.look.decision.foreign == (frozenset() if gone else {FOREIGN})


def test_another_address_of_the_machine_is_a_look_at_everything(world: World) -> None:
    world.addresses.on["eth1"] = {real(1).key.address}
    cycle = world.reconciler.cycle(BOTH, answers_of(BOTH, instance(1), instance(2)), NOBODY, audit=True)
    assert cycle.only is None


@pytest.mark.parametrize(("later", "everything"), [(0, False), (14, False), (15, True), (1000, True), (-1, True)])
def test_with_metrics_everything_is_read_now_and_then_for_its_counters(
    tmp_path: Path, later: int, *, everything: bool
) -> None:
    config = attrs.evolve(BOTH, metrics=MetricsConfig())
    now = [NOW]
    world = World.fresh(tmp_path / "state", clock=lambda: now[0])
    answers = answers_of(config, instance(1))
    for _ in range(2):
        world.reconciler.cycle(config, answers)
    now[0] += later
    assert (world.reconciler.cycle(config, answers, NOBODY, audit=True).only is None) == everything


def test_what_a_full_disk_put_off_is_done_by_the_next_audit_after_it(
    world: World,
) -> None:
    third = VirtualServerKey.by_mark(9)
    more = config_of(configured(), configured("other", OTHER), configured("third", third))
    answers = answers_of(more, instance(1), instance(2))
    full = world.directory / "ledger.new"
    full.mkdir()
    (world.directory / "ledger.journal").unlink()  # so that the whole is written
    assert world.reconciler.cycle(more, answers).ledger_error
    assert third not in world.kernel.observe().table
    full.rmdir()
    fewer = answers_of(more, instance(1))
    assert world.reconciler.cycle(more, fewer, frozenset({KEY, OTHER})).only is not None
    assert not world.reconciler.cycle(more, fewer, NOBODY, audit=True).ledger_error
    assert third in world.kernel.observe().table


def test_very_many_changes_are_a_look_at_everything(tmp_path: Path) -> None:
    keys = [VirtualServerKey.by_mark(mark) for mark in range(1, MOST + 2)]
    config = config_of(*(configured(f"vs{key.mark}", key) for key in keys))
    world, answers = World.fresh(tmp_path / "state"), answers_of(config, instance(1))
    for _ in range(2):
        world.reconciler.cycle(config, answers)
    hands = [SetRealServer(virtual_server=key, real_server=real(1, 77)) for key in keys]
    world.kernel.apply(hands)
    assert world.reconciler.cycle(config, answers, NOBODY, audit=True).only is None
    assert world.reconciler.cycle(config, answers, NOBODY, audit=True).only is None, "what we wrote is as many"
    world.kernel.apply(hands[1:])
    assert world.reconciler.cycle(config, answers, NOBODY, audit=True).only == frozenset(keys[1:])


@pytest.mark.parametrize("audit", [True, False])
def test_what_we_wrote_and_a_hand_undid_is_seen(world: World, *, audit: bool) -> None:
    """The table is then as it was at an audit, but that was before we wrote."""
    answers = answers_of(BOTH, instance(1), instance(2))
    hand = SetRealServer(virtual_server=OTHER, real_server=real(1, 77))
    world.kernel.apply([hand])
    world.reconciler.cycle(BOTH, answers, NOBODY if audit else frozenset({OTHER}), audit=True)
    for _ in range(3):
        world.kernel.apply([hand])
        cycle = world.reconciler.cycle(BOTH, answers, NOBODY, audit=True)
        assert [each.step.key for each in cycle.done] == [OTHER]


def test_an_end_by_the_clock_is_seen_although_the_clock_was_set(tmp_path: Path) -> None:
    clock, kernel = [NOW], Kernel()
    reconciler = Reconciler(kernel, FakeAddresses(), Store(tmp_path), lambda: clock[0])
    until = Override(virtual_server="reco", selector="v2", share=Fixed(weight=7), until=NOW + 7200)
    overrides, answers = Overrides(entries=(until,)), answers_of(BOTH, instance(1, tags=("v2",)))
    for _ in range(2):
        reconciler.cycle(BOTH, answers, overrides=overrides)
    assert kernel.observe().table[KEY].real_servers[real(1).key].weight == 7
    clock[0] += 7201
    reconciler.cycle(BOTH, answers, NOBODY, audit=True, overrides=overrides)
    assert kernel.observe().table[KEY].real_servers[real(1).key].weight == 1


def test_an_address_goes_with_a_virtual_server_that_a_hand_deletes_while_it_drains(tmp_path: Path) -> None:
    world = World.fresh(tmp_path / "state")
    config = attrs.evolve(config_of(configured(drain_timeout=30.0)), vip=VipConfig(interface="lvs0"))
    for _ in range(2):
        world.reconciler.cycle(config, answers_of(config, instance(1)))
    world.kernel.set_usage(KEY, real(1).key, RealServerUsage(active=1))
    gone = attrs.evolve(config, virtual_servers={})
    assert world.reconciler.cycle(gone, answers_of(config, instance(1))).look.decision.virtual_servers[KEY].draining
    world.kernel.apply([DeleteVirtualServer(key=KEY)])
    world.reconciler.cycle(gone, answers_of(config, instance(1)), frozenset({KEY}), audit=True)
    assert world.addresses.on["lvs0"] == set()


def test_addresses_that_an_audit_moved_and_a_hand_moved_back_are_moved_again(tmp_path: Path) -> None:
    world = World.fresh(tmp_path / "state")
    config = attrs.evolve(config_of(), vip=VipConfig(interface="lvs0"))
    answers = answers_of(config, instance(1))
    world.kernel.apply([AddVirtualServer(virtual_server=VirtualServer(key=KEY, scheduler="sh"))])
    for _ in range(2):
        world.reconciler.cycle(config, answers)
    assert not world.addresses.on.get("lvs0")
    world.kernel.apply([DeleteVirtualServer(key=KEY)])
    for _ in range(3):
        world.reconciler.cycle(config, answers, NOBODY, audit=True)
        assert world.addresses.on["lvs0"] == {KEY.address}
        world.addresses.on["lvs0"].clear()

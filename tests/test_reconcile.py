"""One cycle on a kernel in memory: the order of its writes, and that one trouble stays one trouble."""

import contextlib
import errno
import tempfile
from collections.abc import Iterable, Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.config import Config, SafetyConfig, VipConfig
from lvsctl.core.addresses import AddressMoves
from lvsctl.core.decision import Decision
from lvsctl.core.desired import queries_of
from lvsctl.core.difference import difference
from lvsctl.core.instance import Answer, Answers, Instance, Query
from lvsctl.core.ownership import Ledger, LedgerEntry
from lvsctl.core.plan import plan_virtual_server
from lvsctl.core.provenance import Provenance
from lvsctl.core.served import Served
from lvsctl.reconcile import Cycle, Reconciler
from lvsctl.store import Store
from netlink.errors import Interrupted, Refused
from netlink.fake import FakeIPVS
from netlink.requests import (
    AddRealServer,
    AddVirtualServer,
    DeleteRealServer,
    DeleteVirtualServer,
    Request,
    SetRealServer,
)
from netlink.types import Observed, Protocol, RealServerUsage, Table, VirtualServerKey
from tests import strategies
from tests.addresses import FakeAddresses
from tests.histories import histories
from tests.values import (
    KEY,
    NOW,
    VIP,
    answers_of,
    config_of,
    configured,
    entry,
    failing,
    instance,
    kernel_with,
    real,
    real_key,
    table_of,
)

OTHER = VirtualServerKey.by_mark(7)
BOTH = config_of(configured(), configured("other", OTHER))
WITH_VIP = config_of(vip=VipConfig(interface="lvs0"))
OTHER_VIP = ip_address("10.9.0.101")
SECOND = VirtualServerKey.by_address(Protocol.TCP, OTHER_VIP, 80)


class Journal(FakeIPVS):
    """A kernel that tells, in one list with others, what was written, and what the ledger on disk said then."""

    def __init__(self, journal: list[object], state: Path) -> None:
        super().__init__()
        self._journal = journal
        self._state = state
        self.ledgers: list[set[VirtualServerKey]] = []

    def apply(self, requests: Sequence[Request]) -> list[Refused | None]:
        """Write into the journal first."""
        self._journal += requests
        self.ledgers.append(set(Store(self._state).load(set_aside_damage=False)))
        return super().apply(requests)


@attrs.define
class World:
    """A reconciler with all it works on, and a clock that a test moves."""

    state: Path
    kernel: FakeIPVS
    addresses: FakeAddresses = attrs.field(factory=FakeAddresses)
    now: float = NOW
    reconciler: Reconciler = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Start."""
        self.restart()

    def restart(self) -> None:
        """Forget everything that is not on disk or in the kernel."""
        self.reconciler = Reconciler(self.kernel, self.addresses, Store(self.state), lambda: self.now)

    def cycle(self, config: Config, *instances: Instance, answers: Answers | None = None) -> Cycle:
        return self.reconciler.cycle(config, answers_of(config, *instances) if answers is None else answers)

    @property
    def table(self) -> Table:
        return self.kernel.observe().table


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(state=tmp_path, kernel=FakeIPVS())


def deciding(world: World) -> tuple[Decision, AddressMoves | None]:
    look = world.reconciler.look(WITH_VIP, answers_of(WITH_VIP, instance(1)))
    return look.decision, look.moves


def is_quiet(cycle: Cycle) -> bool:
    """Tell whether nothing was written and nothing is left to do or to wait for."""
    moved = cycle.added_addresses or cycle.removed_addresses
    decision = cycle.look.decision
    waits = decision.steps or decision.look_again or cycle.refusals or cycle.address_error
    waits = waits or any(each.next_look is not None for each in decision.virtual_servers.values())
    return not (cycle.done or moved or waits)


def kept(world: World) -> set[VirtualServerKey]:
    return set(Store(world.state).load(set_aside_damage=False))


def test_from_nothing_to_what_is_wanted_and_then_quiet(world: World) -> None:
    first = world.cycle(config_of(), instance(1))
    assert world.table == table_of(entry(real(1)))
    assert len(first.done) == 2
    assert not is_quiet(first)
    world.kernel.writes.clear()
    second = world.cycle(config_of(), instance(1))
    assert is_quiet(second)
    assert world.kernel.writes == []


def test_the_ledger_is_on_disk_before_the_kernel_hears_of_it(tmp_path: Path) -> None:
    journal: list[object] = []
    kernel = Journal(journal, tmp_path)
    world = World(state=tmp_path, kernel=kernel)
    world.cycle(BOTH, instance(1))
    assert kernel.ledgers[0] == {KEY, OTHER}


def test_without_a_ledger_nothing_new_is_written(world: World) -> None:
    (world.state / "ledger.new").mkdir()  # where its draft would be
    cycle = world.cycle(config_of(), instance(1))
    assert "is a directory" in cycle.ledger_error
    assert world.kernel.writes == []
    (world.state / "ledger.new").rmdir()
    assert world.cycle(config_of(), instance(1)).ledger_error == ""
    assert world.table == table_of(entry(real(1)))
    assert kept(world) == {KEY}


def test_without_a_ledger_what_is_there_is_looked_after(tmp_path: Path) -> None:
    state = tmp_path / "state"
    world = World(state=state, kernel=FakeIPVS())
    world.cycle(config_of(), instance(1), instance(2))
    (state / "ledger.json").unlink()
    state.rmdir()
    state.touch()
    cycle = world.cycle(BOTH, instance(1), failing(2))
    assert cycle.ledger_error
    assert world.table == table_of(entry(real(1), real(2, 0)))  # and no other virtual server
    state.unlink()
    assert world.cycle(BOTH, instance(1), failing(2)).ledger_error == ""
    assert world.table.keys() == kept(world) == {KEY, OTHER}


def test_a_second_start_with_nothing_changed_writes_nothing(world: World) -> None:
    for _ in range(3):
        world.cycle(BOTH, instance(1), failing(2))
    world.kernel.writes.clear()
    before = (world.state / "ledger.json").stat().st_mtime_ns
    world.now += 1e6
    world.restart()
    assert is_quiet(world.cycle(BOTH, instance(1), failing(2)))
    assert world.kernel.writes == []
    assert (world.state / "ledger.json").stat().st_mtime_ns == before


def test_look_writes_nothing_at_all(world: World) -> None:
    config = WITH_VIP
    look = world.reconciler.look(config, answers_of(config, instance(1)))
    assert len(look.decision.steps) == 2
    assert world.kernel.writes == []
    assert world.addresses.journal == []
    assert list(world.state.iterdir()) == []


def test_a_refused_virtual_server_leaves_the_others_and_is_tried_again_ever_later(world: World) -> None:
    def is_it(request: Request) -> bool:
        return isinstance(request, AddVirtualServer) and request.virtual_server.key == KEY

    for _ in range(3):
        world.kernel.fail_next(is_it, errno.ENOMEM)
    first = world.cycle(BOTH, instance(1))
    assert world.table == table_of(entry(real(1), key=OTHER))
    assert first.refusals.keys() == {(KEY, None)}
    assert "the kernel is out of memory (ENOMEM)" in first.refusals[KEY, None].error
    tries = []
    for second in range(1, 9):
        world.now = NOW + second
        cycle = world.cycle(BOTH, instance(1))
        if cycle.done:
            tries.append(second)
        if not cycle.refusals:
            break
    assert tries == [1, 3, 7]
    assert world.table.keys() == {KEY, OTHER}
    assert is_quiet(world.cycle(BOTH, instance(1)))


def test_a_clock_that_is_set_back_lets_nothing_that_was_refused_wait_for_it(world: World) -> None:
    world.kernel.fail_next(AddRealServer, errno.ENOMEM)
    assert world.cycle(config_of(), instance(1)).refusals
    world.now -= 3600
    world.cycle(config_of(), instance(1))
    assert world.table == table_of(entry(real(1)))


def test_a_refusal_ends_when_it_is_no_longer_wanted(world: World) -> None:
    world.cycle(config_of(), instance(1))
    world.kernel.fail_next(AddRealServer, errno.EINVAL)
    assert world.cycle(config_of(), instance(1), instance(2)).refusals
    assert world.cycle(config_of(), instance(1)).refusals == {}


def test_a_refused_real_server_holds_up_no_other_step_of_its_virtual_server(world: World) -> None:
    world.cycle(config_of(), instance(1), instance(2))
    world.kernel.fail_next(AddRealServer, errno.EINVAL)
    cycle = world.cycle(config_of(), instance(1), failing(2), instance(3))
    assert cycle.refusals.keys() == {(KEY, real(3).key)}
    assert world.table == table_of(entry(real(1), real(2, weight=0)))
    world.now += 0.5  # before the refused one is tried again
    assert [each.step.request for each in world.cycle(config_of(), failing(1), instance(2), instance(3)).done] == [
        SetRealServer(virtual_server=KEY, real_server=real(2)),
        SetRealServer(virtual_server=KEY, real_server=real(1, weight=0)),
    ]


def test_a_virtual_server_with_a_refused_real_server_stays_ours_however_much_changes(world: World) -> None:
    def is_3(request: Request) -> bool:
        return isinstance(request, AddRealServer) and request.real_server.key == real(3).key

    world.cycle(config_of(), instance(1))
    changed = config_of(configured(scheduler="rr", drain_timeout=0.0))
    for _ in range(2):
        world.kernel.fail_next(is_3, errno.EINVAL)
        assert world.cycle(changed, instance(2), instance(3)).refusals.keys() == {(KEY, real(3).key)}
        world.now += 1
    assert world.table == table_of(entry(real(2), scheduler="rr"))  # nothing that the first cycle wrote
    for _ in range(2):
        world.cycle(config_of(configured("other", OTHER)), answers={})
    assert world.table == {}
    assert kept(world) == set()


def test_a_ledger_that_could_not_be_encoded_is_written_before_the_kernel_hears_of_it(tmp_path: Path) -> None:
    class Failing(Store):
        attempts = 0

        def save(self, ledger: Ledger, *, durable: bool) -> None:
            self.attempts += 1
            if self.attempts == 1:
                raise MemoryError
            super().save(ledger, durable=durable)

    kernel = FakeIPVS()
    reconciler = Reconciler(kernel, FakeAddresses(), Failing(tmp_path), lambda: NOW)
    config = config_of()
    with pytest.raises(MemoryError):
        reconciler.cycle(config, answers_of(config, instance(1)))
    assert kernel.writes == []
    reconciler.cycle(config, answers_of(config, instance(1)))
    assert kernel.observe().table.keys() == Store(tmp_path).load(set_aside_damage=False).keys() == {KEY}


def test_what_left_the_file_and_came_back_is_served_by_who_served_it(tmp_path: Path) -> None:
    kernel, (here, there) = FakeIPVS(), (Query(service="reco", datacenter=name) for name in ("", "dc2"))
    reconciler = Reconciler(kernel, FakeAddresses(), Store(tmp_path), lambda: NOW)
    both = config_of(configured(failover=("dc2",), drain_timeout=60.0))
    dc2 = Answer(instances=(instance(5),), index=1)
    reconciler.cycle(both, {here: Answer(index=1), there: dc2})
    kernel.set_usage(KEY, real_key(5), RealServerUsage(active=3))
    reconciler.cycle(Config(virtual_servers={}), {there: dc2})
    assert kernel.observe().table[KEY].real_servers[real_key(5)].weight == 0
    reconciler.cycle(both, {there: dc2})  # the first datacenter does not answer now
    assert kernel.observe().table[KEY].real_servers[real_key(5)].weight == 1


def test_what_serves_stays_until_what_takes_over_is_there(world: World) -> None:
    world.cycle(config_of(), instance(1))
    for _ in range(2):
        world.kernel.fail_next(AddRealServer, errno.ENOMEM)
    for second in (0, 0.5, 1):  # refused, waiting, refused again
        world.now = NOW + second
        cycle = world.cycle(config_of(), failing(1), instance(2))
        assert cycle.undone
        assert world.table == table_of(entry(real(1)))
    for second in (3, 4):  # taken, seen
        world.now = NOW + second
        world.cycle(config_of(), failing(1), instance(2))
    assert world.table == table_of(entry(real(1, weight=0), real(2)))


def test_what_may_not_be_in_the_table_leaves_although_nobody_takes_over(world: World) -> None:
    world.cycle(config_of(), instance(9), instance(1))
    narrow = config_of(safety=SafetyConfig(allowed_networks=(ip_network("10.0.0.0/29"),)))  # without 10.0.0.9
    world.kernel.fail_next(AddRealServer, errno.ENOMEM)
    world.cycle(narrow, instance(9), failing(1), instance(2))
    assert world.table == table_of(entry(real(1), real(9, weight=0)))


def test_a_virtual_server_that_somebody_else_creates_meanwhile_is_foreign(tmp_path: Path) -> None:
    class Raced(FakeIPVS):
        def apply(self, requests: Sequence[Request]) -> list[Refused | None]:
            if requests and not self.observe().table:
                super().apply([AddVirtualServer(virtual_server=entry(scheduler="rr").virtual_server)])
            return super().apply(requests)

    world = World(state=tmp_path, kernel=Raced())
    cycle = world.cycle(config_of(), instance(1))
    assert [each.step.request.operation for each in cycle.done] == ["add virtual server"]
    assert world.table == table_of(entry(scheduler="rr"))
    assert kept(world) == set()
    world.now += 100
    assert world.cycle(config_of(), instance(1)).done == ()
    assert world.table == table_of(entry(scheduler="rr"))


def test_a_quiescing_that_was_refused_is_not_taken_for_done(world: World) -> None:
    world.cycle(config_of(), instance(1), instance(2))
    world.kernel.fail_next(SetRealServer, errno.ENOMEM)
    world.cycle(config_of(), instance(1))
    world.now += 1000
    world.cycle(config_of(), instance(1))
    assert world.table[KEY].real_servers[real(2).key].weight == 0  # and not deleted


def test_a_deletion_that_was_refused_is_tried_again_and_not_drained_again(world: World) -> None:
    world.cycle(config_of(), instance(1), instance(2))
    world.kernel.set_usage(KEY, real(2).key, RealServerUsage(active=3))
    world.cycle(config_of(), instance(1))
    world.now += 31
    world.kernel.fail_next(DeleteRealServer, errno.ENOMEM)
    assert world.cycle(config_of(), instance(1)).refusals
    world.now += 1
    world.cycle(config_of(), instance(1))
    assert world.table == table_of(entry(real(1)))


def test_an_unknown_outcome_is_found_again(world: World) -> None:
    class Deaf(FakeIPVS):
        def apply(self, requests: Sequence[Request]) -> list[Refused | None]:
            super().apply(requests)
            raise Interrupted("apply", "", "the answers were lost")

    kernel = Deaf()
    world.kernel = kernel
    world.restart()
    for _ in ("the virtual server", "its real server"):
        with pytest.raises(Interrupted):
            world.cycle(config_of(), instance(1))
        assert kept(world) == {KEY}
    kernel.writes.clear()
    assert world.cycle(config_of(), instance(1)).done == ()
    assert kernel.writes == []


# --- killed and refused ---------------------------------------------------------------------------------------------


class Killed(Exception):
    """The process ends here."""


class Mortal(FakeIPVS):
    """A kernel under a process that is killed after so many requests; it refuses some, counted from the first."""

    left: int | None = None  # requests until the process is killed; None: it lives
    refuses: frozenset[int] = frozenset()

    def apply(self, requests: Sequence[Request]) -> list[Refused | None]:
        done: list[Refused | None] = []
        for request in requests:
            if self.left == 0:
                raise Killed
            self.left = None if self.left is None else self.left - 1
            if len(self.writes) in self.refuses:
                self.fail_next(lambda _: True, errno.ENOMEM)
            done += super().apply([request])
        return done


@attrs.frozen(kw_only=True)
class Start:
    """Everything that a start may find."""

    config: Config
    answers: Answers
    table: Table
    ledger: Ledger

    def ends(self, deaths: Sequence[tuple[int, float]], refuses: frozenset[int]) -> tuple[Table, Ledger]:
        """Return the table and the ledger on disk when all is quiet, after `deaths`: requests sent, seconds dead."""
        with tempfile.TemporaryDirectory() as state:
            Store(Path(state)).save(self.ledger, durable=False)
            kernel = Mortal()
            kernel.apply([request for each in self.table.values() for request in plan_virtual_server(each, None)])
            kernel.writes.clear()
            kernel.refuses = refuses
            world = World(state=Path(state), kernel=kernel)
            for kernel.left, seconds in deaths:
                with contextlib.suppress(Killed):
                    world.cycle(self.config, answers=self.answers)
                world.restart()
                world.now += seconds
            kernel.left = None
            for _ in range(20):
                cycle = world.cycle(self.config, answers=self.answers)
                world.now += 1
                if is_quiet(cycle):
                    return world.table, without_times(Store(Path(state)).load(set_aside_damage=False))
        raise AssertionError("not quiet after 20 cycles")


def without_times(ledger: Ledger) -> Ledger:
    """Return `ledger` without the counts of before: those that were killed were later."""
    return {key: attrs.evolve(each, served=attrs.evolve(each.served, earlier=())) for key, each in ledger.items()}


@st.composite
def starts(draw: st.DrawFn) -> Start:
    config, table = draw(strategies.configs()), draw(strategies.tables())
    answers = {query: draw(strategies.answers) for query in sorted(queries_of(config))}
    return Start(config=config, answers=answers, table=table, ledger=draw(strategies.ledgers(table)))


later_deaths = st.lists(st.tuples(st.integers(0, 4), st.sampled_from((0.0, 1000.0, -1000.0))), max_size=2)


@histories()
@given(start=starts(), deaths=later_deaths, refuses=st.frozensets(st.integers(0, 9), max_size=3))
def test_killed_after_any_request_and_refused_any_it_ends_as_it_would_have(
    start: Start, deaths: list[tuple[int, float]], refuses: frozenset[int]
) -> None:
    quiet = start.ends((), frozenset())
    for sent in range(9):
        assert start.ends(((sent, 0.0), *deaths), refuses) == quiet


# --- what a dump may miss -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seen", [{}, table_of(entry()), table_of(entry(real(1)))])
def test_a_dump_that_misses_something_is_read_twice_and_leads_to_no_write(tmp_path: Path, seen: Table) -> None:
    class Racy(FakeIPVS):
        reads = 0
        partial: Table | None = None

        def observe(self, only: Iterable[VirtualServerKey] | None = None) -> Observed:
            self.reads += 1
            whole = super().observe(only)
            partial, self.partial = self.partial, None
            return whole if partial is None else attrs.evolve(whole, table=partial)

    kernel = Racy()
    world = World(state=tmp_path, kernel=kernel)
    world.cycle(config_of(), instance(1), instance(2))
    kernel.writes.clear()
    kernel.reads, kernel.partial = 0, seen
    assert is_quiet(world.cycle(config_of(), instance(1), instance(2)))
    assert kernel.reads == 2
    assert kernel.writes == []


def test_a_table_that_is_really_gone_is_put_back(world: World) -> None:
    world.cycle(config_of(), instance(1))
    world.kernel.apply([DeleteVirtualServer(key=KEY)])
    assert len(world.cycle(config_of(), instance(1)).done) == 2
    assert world.table == table_of(entry(real(1)))


def test_a_hold_is_put_back_too(world: World) -> None:
    world.cycle(config_of(), instance(1), instance(2))
    world.cycle(config_of(), failing(1), failing(2))
    world.kernel.apply([DeleteVirtualServer(key=KEY)])
    world.restart()
    look = world.reconciler.look(config_of(), answers_of(config_of(), failing(1), failing(2)))
    assert [line.differs for line in difference(look.decision, look.moves)].count(True) > 0
    world.cycle(config_of(), failing(1), failing(2))
    assert world.table == table_of(entry(real(1), real(2)))


def test_a_hold_is_put_back_although_the_kernel_refuses_it_at_first(world: World) -> None:
    world.cycle(config_of(), instance(1), instance(2))
    world.kernel.apply([DeleteVirtualServer(key=KEY)])
    world.kernel.fail_next(AddVirtualServer, errno.ENOMEM)
    for _ in ("refused", "done"):
        world.cycle(config_of(), failing(1), failing(2))
        world.now += 1
    assert world.table == table_of(entry(real(1), real(2)))


# --- virtual addresses ----------------------------------------------------------------------------------------------


def test_an_address_comes_after_its_real_servers_and_goes_with_its_virtual_server(tmp_path: Path) -> None:
    journal: list[object] = []
    world = World(state=tmp_path, kernel=Journal(journal, tmp_path), addresses=FakeAddresses(journal=journal))
    first = world.cycle(WITH_VIP, instance(1))
    assert first.added_addresses == (VIP,)
    assert [type(each) for each in journal] == [AddVirtualServer, AddRealServer, tuple]
    journal.clear()
    moved = config_of(configured("other", OTHER), vip=VipConfig(interface="lvs0"))
    while not is_quiet(world.cycle(moved, instance(1))):
        world.now += 1
    assert ("remove", VIP) in journal
    assert DeleteVirtualServer(key=KEY) in journal
    assert world.addresses.on == {"lvs0": set()}


def test_an_address_stays_while_its_virtual_server_drains(world: World) -> None:
    world.cycle(WITH_VIP, instance(1))
    moved = config_of(configured("other", OTHER), vip=VipConfig(interface="lvs0"))
    world.cycle(moved, instance(1))
    assert world.table[KEY].real_servers[real(1).key].weight == 0
    assert world.addresses.on == {"lvs0": {VIP}}


def test_without_the_vip_table_addresses_are_left_alone(world: World) -> None:
    world.addresses.on["lvs0"] = {VIP}
    world.cycle(config_of(), instance(1))
    assert world.addresses.journal == []


def test_an_interface_that_is_not_ours_hurts_nothing_else(world: World) -> None:
    world.addresses.owners["lvs0"] = "somebody"
    cycle = world.cycle(WITH_VIP, instance(1))
    assert cycle.address_error == "use interface lvs0: it is not lvsctl's"
    assert not is_quiet(cycle)
    assert world.table == table_of(entry(real(1)))
    assert world.addresses.journal == []


def test_no_address_for_a_virtual_server_that_was_refused(world: World) -> None:
    world.kernel.fail_next(AddVirtualServer, errno.ENOMEM)
    assert world.cycle(WITH_VIP, instance(1)).added_addresses == ()
    world.now += 1
    assert world.cycle(WITH_VIP, instance(1)).added_addresses == (VIP,)


def test_an_unanswered_virtual_server_keeps_its_address(world: World) -> None:
    world.cycle(WITH_VIP, instance(1))
    world.restart()
    cycle = world.cycle(WITH_VIP, answers={})
    assert (cycle.added_addresses, cycle.removed_addresses) == ((), ())


def test_an_address_that_is_to_move_is_a_difference(world: World) -> None:
    world.cycle(WITH_VIP, instance(1))
    world.addresses.on["lvs0"] = {OTHER_VIP}
    look = world.reconciler.look(WITH_VIP, answers_of(WITH_VIP, instance(1)))
    lines = difference(look.decision, look.moves)
    assert [(line.sign.value, line.name, line.virtual_server, line.real_server) for line in lines] == [
        ("+", "lvs0", "virtual addresses", str(VIP)),
        ("-", "lvs0", "virtual addresses", str(OTHER_VIP)),
    ]
    world.cycle(WITH_VIP, instance(1))
    assert world.addresses.on == {"lvs0": {VIP}}
    assert difference(*deciding(world)) == []


def test_one_address_that_cannot_be_moved_hinders_no_other(world: World) -> None:
    two = config_of(configured(), configured("other", SECOND), vip=VipConfig(interface="lvs0"))
    world.addresses.refused = frozenset({VIP})
    cycle = world.cycle(two, instance(1))
    assert cycle.added_addresses == (OTHER_VIP,)
    assert cycle.address_error == f"add {VIP}: no"


def test_another_interface_takes_the_addresses_over_and_the_old_one_goes(world: World) -> None:
    world.cycle(WITH_VIP, instance(1))
    world.addresses.journal.clear()
    for _ in range(2):  # with the memory of the old one, and after a restart
        moved = config_of(vip=VipConfig(interface="lvs1"))
        world.cycle(moved, instance(1))
        assert world.addresses.on == {"lvs1": {VIP}}
        assert world.addresses.journal == [("add", VIP), ("remove interface", "lvs0")]
        world.addresses.ensure_interface("lvs0", owner="lvsctl")
        world.addresses.on["lvs0"].add(VIP)
        world.addresses.on["lvs1"].clear()
        world.addresses.journal.clear()
        world.restart()


@pytest.mark.parametrize("answered", [True, False])
def test_a_lost_ledger_takes_no_address_from_what_still_serves(world: World, *, answered: bool) -> None:
    world.cycle(WITH_VIP, instance(1), instance(2))
    (world.state / "ledger.json").unlink()
    world.restart()
    answers = answers_of(WITH_VIP, instance(1)) if answered else {}  # not as it stands, so not adopted
    cycle = world.cycle(WITH_VIP, answers=answers)
    assert cycle.removed_addresses == ()
    assert world.addresses.on == {"lvs0": {VIP}}


# --- what is not ours -----------------------------------------------------------------------------------------------


def test_a_foreign_virtual_server_is_never_written(tmp_path: Path) -> None:
    foreign = entry(real(9, 7), scheduler="rr")
    kernel = kernel_with(table_of(foreign))
    world = World(state=tmp_path, kernel=kernel)
    for _ in range(3):
        world.cycle(BOTH, instance(1))
    assert {key: each for key, each in world.table.items() if key == KEY} == table_of(foreign)
    assert KEY not in kept(world)


def test_who_takes_the_place_of_one_that_we_deleted_is_foreign(world: World) -> None:
    moved = config_of(configured("other", OTHER))
    world.cycle(config_of(configured(drain_timeout=0.0)), instance(1))
    world.cycle(moved, instance(1))
    assert KEY not in world.table
    theirs = entry(real(1), real(9), scheduler="rr")
    world.kernel.apply([AddVirtualServer(virtual_server=theirs.virtual_server)])
    for each in theirs.real_servers.values():
        world.kernel.apply([AddRealServer(virtual_server=KEY, real_server=each)])
    for _ in range(3):
        world.cycle(moved, instance(1))
        world.now += 100
    assert world.table[KEY] == theirs


@pytest.mark.parametrize("restarted", [True, False])
def test_who_creates_what_the_kernel_refused_us_is_foreign(world: World, *, restarted: bool) -> None:
    world.kernel.fail_next(AddVirtualServer, errno.ENOMEM)
    world.cycle(config_of(), instance(1))
    theirs = entry(real(9), scheduler="rr")
    world.kernel.apply([AddVirtualServer(virtual_server=theirs.virtual_server)])
    world.kernel.apply([AddRealServer(virtual_server=KEY, real_server=real(9))])
    if restarted:
        world.restart()
    for _ in range(3):
        world.cycle(config_of(), instance(1))
        world.now += 100
    assert world.table == table_of(theirs)
    assert kept(world) == set()


def test_a_damaged_ledger_is_set_aside_and_what_stands_is_adopted(world: World) -> None:
    world.cycle(config_of(), instance(1))
    (world.state / "ledger.json").write_text("{")
    world.kernel.writes.clear()
    world.restart()
    world.cycle(config_of(), instance(1))
    assert world.kernel.writes == []
    assert Store(world.state).load(set_aside_damage=False) == {
        KEY: LedgerEntry(
            name="reco",
            drain_timeout=30.0,
            written=entry(real(1)),
            provenance=Provenance(service="reco"),
            served=Served(count=1),
        )
    }

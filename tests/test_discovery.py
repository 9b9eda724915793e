"""What is discovered, cycle after cycle on a kernel in memory: nothing but a believed word takes it out again."""

import tempfile
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.config import Config, DefaultsTable, DiscoveryConfig, VipConfig
from lvsctl.core.candidates import remembered
from lvsctl.core.difference import difference
from lvsctl.core.instance import Answer, Instance, Query
from lvsctl.core.status import State
from lvsctl.core.virtual_server_status import refused_declarations, virtual_servers
from lvsctl.reconcile import Cycle, Reconciler
from lvsctl.store import Store
from netlink.fake import FakeIPVS
from netlink.types import Protocol, RealServerUsage, Table, VirtualServerKey
from tests.addresses import FakeAddresses
from tests.values import KEY, NOW, configured, entry, failing, instance, kernel_with, real, table_of

VIP = ip_address("10.9.1.20")
HERE = VirtualServerKey.by_address(Protocol.TCP, VIP, 80)
THERE = VirtualServerKey.by_address(Protocol.TCP, ip_address("10.9.1.21"), 80)
SHOP, BLOG, FILE = Query(service="shop"), Query(service="blog"), Query(service="reco")

OPEN = DiscoveryConfig(addresses=(ip_network("10.9.1.0/24"),), defaults=DefaultsTable(drain_timeout=0.0))
CONFIG = Config(discovery=OPEN, virtual_servers={"reco": configured(drain_timeout=0.0)})
IN_FILE = entry(real(1))  # what the file's virtual server has


def declaring(number: int, address: str = "10.9.1.20:80", *tags: str) -> Instance:
    return instance(number, tags=(f"lvs-address={address}", *tags))


def served(*numbers: int, key: VirtualServerKey = HERE) -> Table:
    """Return the table in which these instances serve at `key`, and the file's virtual server is there too."""
    return table_of(IN_FILE, entry(*(real(number) for number in numbers), key=key))


def said(*instances: Instance, doubt: str = "", snapshot: float | None = None) -> Answer:
    return Answer(instances=instances, index=5, doubt=doubt, snapshot=snapshot)


@attrs.define
class World:
    """A reconciler with its files, its kernel, and what Consul says."""

    state: Path
    kernel: FakeIPVS = attrs.field(factory=FakeIPVS)
    addresses: FakeAddresses = attrs.field(factory=FakeAddresses)
    config: Config = CONFIG
    now: float = NOW
    reconciler: Reconciler = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Start."""
        self.restart()

    def restart(self) -> None:
        """Forget everything that is not on disk or in the kernel."""
        self.reconciler = Reconciler(self.kernel, self.addresses, Store(self.state), lambda: self.now)

    def cycle(self, answers: Mapping[Query, Answer], *candidates: str) -> Cycle:
        """Do one pass; the file's virtual server has its instance, unless `answers` say otherwise."""
        self.now += 1.0
        answers = {FILE: said(instance(1)), **answers}
        return self.reconciler.cycle(self.config, answers, candidates=frozenset(candidates))

    @property
    def table(self) -> Table:
        return self.kernel.observe().table

    @property
    def owners(self) -> dict[str, VirtualServerKey]:
        """Return who has declared what, by the ledger on disk."""
        ledger = Store(self.state).load(set_aside_damage=False)
        return {service: key for service, (key, _) in remembered(ledger).items()}


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a world in which shop has declared HERE, and two of its instances serve there."""
    made = World(state=tmp_path)
    made.cycle({SHOP: said(declaring(1), declaring(2))}, "shop")
    assert made.table == served(1, 2)
    assert made.owners == {"shop": HERE}
    made.kernel.writes.clear()
    return made


NO_WORD = {
    "not asked yet": {},
    "empty": {SHOP: said()},
    "without it, in doubt": {SHOP: said(instance(3), doubt="why not")},
    "with another, in doubt": {SHOP: said(declaring(3, "10.9.1.21:80"), doubt="why not")},
}


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("answers", NO_WORD.values(), ids=NO_WORD.keys())
def test_without_a_believed_word_what_is_declared_stays_and_is_ours(
    world: World, answers: Mapping[Query, Answer], *, restarted: bool
) -> None:
    if restarted:
        world.restart()
    asked = world.reconciler.questions(CONFIG, frozenset()).queries
    assert SHOP in asked, "it is asked about, whatever the catalogue lists"
    for _ in range(3):
        cycle = world.cycle(answers)
    there = world.table[HERE].real_servers
    assert {real(1).key, real(2).key} <= there.keys()
    assert all(there[each.key].weight for each in (real(1), real(2)))
    assert cycle.look.decision.foreign == frozenset()
    assert world.owners == {"shop": HERE}


def test_what_is_declared_fails_over_like_what_is_in_the_file(tmp_path: Path) -> None:
    assert CONFIG.discovery is not None
    defaults = attrs.evolve(CONFIG.discovery.defaults, failover=("dc2",))
    config = attrs.evolve(CONFIG, discovery=attrs.evolve(CONFIG.discovery, defaults=defaults))
    world = World(state=tmp_path, config=config)
    there = attrs.evolve(SHOP, datacenter="dc2")
    assert there not in world.reconciler.questions(config, frozenset({"shop"})).queries
    world.cycle({SHOP: said(declaring(1))}, "shop")
    questions = world.reconciler.questions(config, frozenset({"shop"}))
    assert there in questions.queries & questions.contested
    assert there not in questions.first
    ill = attrs.evolve(declaring(1), checks=failing(1).checks)
    world.cycle({SHOP: said(ill), there: said(declaring(5))}, "shop")
    assert world.table[HERE].real_servers[real(5).key].weight == 1


@pytest.fixture
def failed_over(tmp_path: Path) -> World:
    """Return a world in which dc2 serves what shop has declared."""
    assert CONFIG.discovery is not None
    defaults = attrs.evolve(CONFIG.discovery.defaults, failover=("dc2",))
    config = attrs.evolve(CONFIG, discovery=attrs.evolve(CONFIG.discovery, defaults=defaults))
    made = World(state=tmp_path, config=config)
    made.cycle({SHOP: said(declaring(1))}, "shop")
    ill = attrs.evolve(declaring(1), checks=failing(1).checks)
    made.cycle({SHOP: said(ill), attrs.evolve(SHOP, datacenter="dc2"): said(declaring(5))}, "shop")
    assert made.table[HERE].real_servers[real(5).key].weight == 1
    return made


def test_who_may_serve_what_is_remembered_is_asked_after_a_start_and_a_reload(failed_over: World) -> None:
    there = attrs.evolve(SHOP, datacenter="dc2")
    reloaded = attrs.evolve(failed_over.config)
    assert there in failed_over.reconciler.questions(reloaded, frozenset()).queries
    failed_over.restart()
    questions = failed_over.reconciler.questions(reloaded, frozenset())
    assert there in questions.queries & questions.contested
    assert there not in questions.first


def test_what_another_datacenter_serves_is_not_withdrawn_by_the_first(failed_over: World) -> None:
    there = attrs.evolve(SHOP, datacenter="dc2")
    bare = attrs.evolve(failing(2), meta={}, tags=())
    for _ in range(3):
        failed_over.cycle({SHOP: said(bare), there: said(declaring(5))}, "shop")
    assert failed_over.table[HERE].real_servers[real(5).key].weight == 1


def test_a_start_without_consul_writes_nothing(world: World) -> None:
    world.restart()
    cycle = world.cycle({})
    assert world.kernel.writes == []
    assert cycle.look.decision.waiting == {"shop"}
    world.cycle({SHOP: said(declaring(1), declaring(2))})
    assert world.kernel.writes == []


def test_after_a_reboot_it_is_remembered_until_consul_answers(world: World) -> None:
    world.kernel = FakeIPVS()
    world.restart()
    world.cycle({})
    assert world.table == table_of(IN_FILE)
    assert world.owners == {"shop": HERE}
    world.cycle({SHOP: said(declaring(1), declaring(2), snapshot=NOW)})
    assert world.table == served(1, 2)


def test_all_instances_gone_are_held_and_shown(world: World) -> None:
    look = world.cycle({SHOP: said()}).look
    rows = virtual_servers(look.config, look.decision, look.observed, refused={}, local=frozenset({VIP}), ages={})
    assert [(row.name, row.state, row.serving) for row in rows if row.consul_service == "shop"] == [
        ("shop", State.HELD, 2)
    ]


def test_a_withdrawn_one_drains_goes_and_frees_its_address(world: World) -> None:
    world.config = attrs.evolve(CONFIG, discovery=attrs.evolve(OPEN, defaults=DefaultsTable(drain_timeout=30.0)))
    both = {SHOP: said(declaring(1), declaring(2)), BLOG: said(declaring(4))}
    cycle = world.cycle(both, "shop", "blog")
    assert [each.service for each in cycle.look.refusals] == ["blog"]
    assert world.owners == {"shop": HERE}
    world.kernel.set_usage(HERE, real(1).key, RealServerUsage(active=1))
    withdrawn = both | {SHOP: said(instance(1), instance(2))}
    cycle = world.cycle(withdrawn, "blog")
    assert {line.cause.text for line in difference(cycle.look.decision) if line.differs} >= {
        "its virtual server is no longer declared in Consul, or not allowed by [discovery]"
    }
    world.cycle(withdrawn, "blog")
    assert world.owners == {"blog": HERE}
    assert world.table[HERE].real_servers[real(4).key].weight == 1
    assert world.table[HERE].real_servers[real(1).key].weight == 0, "it still drains"


def test_it_moves_when_all_say_so_and_the_old_one_goes(world: World) -> None:
    world.cycle({SHOP: said(declaring(1), declaring(2, "10.9.1.21:80"))}, "shop")
    assert world.table == served(1, 2), "they disagree"
    moved = {SHOP: said(declaring(1, "10.9.1.21:80"), declaring(2, "10.9.1.21:80"))}
    world.cycle(moved, "shop")
    world.restart()
    world.cycle(moved, "shop")
    assert world.table == served(1, 2, key=THERE)
    assert world.owners == {"shop": THERE}


@pytest.mark.parametrize("discovery", [None, attrs.evolve(OPEN, exclude=("shop",))], ids=["off", "excluded"])
def test_what_the_operator_closes_goes_without_consul_s_word(world: World, discovery: DiscoveryConfig | None) -> None:
    world.config = attrs.evolve(CONFIG, discovery=discovery)
    cycle = world.cycle({})
    assert world.table == table_of(IN_FILE)
    text = next(done.step.cause.text for done in cycle.done if done.step.key == HERE)
    assert "no longer declared in Consul, or not allowed by [discovery]" in text


def test_the_file_takes_an_address_over_in_place(world: World) -> None:
    mine = configured("mine", HERE, consul_service="mine", drain_timeout=0.0)
    world.config = attrs.evolve(CONFIG, virtual_servers={**CONFIG.virtual_servers, "mine": mine})
    answers = {SHOP: said(declaring(1)), Query(service="mine"): said(instance(1), instance(2))}
    cycle = world.cycle(answers, "shop")
    assert world.kernel.writes == []
    assert world.owners == {}
    assert [each.name for each in refused_declarations(cycle.look.refusals)] == ["shop"]


def test_a_clash_is_a_note_of_the_difference(world: World) -> None:
    cycle = world.cycle({SHOP: said(declaring(1), declaring(2)), BLOG: said(declaring(4))}, "shop", "blog")
    (line,) = difference(cycle.look.decision, cycle.look.moves, cycle.look.refusals)
    assert (line.name, line.what, line.differs) == ("blog", "declaration refused", False)
    assert "belongs to Consul service 'shop', which had it first" in line.cause.text


def test_a_foreign_virtual_server_at_a_declared_address_is_never_touched(tmp_path: Path) -> None:
    world = World(state=tmp_path)
    theirs = entry(real(9), key=HERE)
    world.kernel = kernel_with(table_of(theirs))
    world.restart()
    for _ in range(2):
        cycle = world.cycle({SHOP: said(declaring(1))}, "shop")
    assert world.table[HERE] == theirs
    assert world.owners == {}
    (line,) = difference(cycle.look.decision)
    assert "name Consul service 'shop' in discovery.exclude" in line.cause.text


def test_no_one_gets_the_director_s_own_address_and_its_virtual_ones_are_not_that(tmp_path: Path) -> None:
    world = World(state=tmp_path, config=attrs.evolve(CONFIG, vip=VipConfig(interface="lvs0")))
    world.addresses.on["eth0"] = {ip_address("10.9.1.21")}
    answers = {SHOP: said(declaring(1)), BLOG: said(declaring(4, "10.9.1.21:22"))}
    for _ in range(2):
        cycle = world.cycle(answers, "shop", "blog")
    assert world.owners == {"shop": HERE}
    assert VIP in world.addresses.interface_addresses("lvs0")
    assert [each.text for each in cycle.look.refusals] == [
        "10.9.1.21 is the director's own address; declare an address of its own"
    ]


def test_a_virtual_address_does_not_push_a_real_server_out(world: World) -> None:
    """An address that an instance has would be rejected as a virtual one: declaring it is no way to silence others."""
    theirs = {SHOP: said(declaring(1), declaring(2)), FILE: said(instance(1, address="10.9.1.30"))}
    world.cycle(theirs, "shop")
    before = world.table
    cycle = world.cycle(theirs | {BLOG: said(declaring(4, "10.9.1.30:81"))}, "shop", "blog")
    assert world.table == before
    assert before[KEY].real_servers
    assert "is the address of instance 'reco-1'" in cycle.look.refusals[0].text


# Whatever comes, in whatever order

words = st.sampled_from(tuple(NO_WORD.values())) | st.builds(
    lambda answer: {SHOP: answer},
    st.sampled_from(
        (
            said(declaring(1)),
            said(declaring(1, "10.9.1.21:80"), declaring(2)),
            said(declaring(1, "10.8.0.1:80")),
            said(declaring(1, "$(x)"), instance(2)),
            said(declaring(1, "10.9.1.20:80", "lvs-near=x")),
            said(instance(1, tags=("lvs",))),
        )
    ),
)


@given(
    happening=st.lists(
        st.tuples(words, st.sampled_from(("", "shop", "blog")), st.booleans(), st.booleans()), min_size=1, max_size=6
    )
)
def test_its_virtual_server_outlives_everything_but_a_withdrawal(
    happening: list[tuple[Mapping[Query, Answer], str, bool, bool]],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        world = World(state=Path(directory))
        world.cycle({SHOP: said(declaring(1), declaring(2))}, "shop")
        for answers, candidate, restarted, clashing in happening:
            if restarted:
                world.restart()
            others = {BLOG: said(declaring(4))} if clashing else {}
            world.cycle({**answers, **others}, candidate)
            assert world.owners == {"shop": HERE}
            assert any(each.weight for each in world.table[HERE].real_servers.values())
            assert real(4).key not in world.table[HERE].real_servers

"""No more leaves the table in a minute than `safety.max_removals` allows, and all that is to leave does in the end."""

from collections.abc import Iterator

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.config import SafetyConfig
from lvsctl.core import velocity
from lvsctl.core.decision import Decision
from lvsctl.core.desired import query_of
from lvsctl.core.instance import Answer, Instance
from lvsctl.core.served import Served
from lvsctl.core.velocity import MINUTE, Loss, limits_of_table
from netlink.types import VirtualServerKey
from tests.histories import histories
from tests.values import NOW, Cycles, config_of, configured, failing, instance, kernel_with, most_lately

NAMES = ("a", "b", "c")
EACH = range(1, 9)
MAKE = {"passing": instance, "failing": failing}


@pytest.fixture(autouse=True, scope="module")
def _small_tables_count() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(velocity, "FEW", 2)
        yield


def started(percent: int = 40, floor: int = 0) -> Cycles:
    """Return a director of three virtual servers with eight real servers each."""
    config = config_of(
        *(
            configured(name, VirtualServerKey.by_mark(number), floor=floor, drain_timeout=1.0)
            for number, name in enumerate(NAMES, 1)
        ),
        safety=SafetyConfig(max_removals=percent),
    )
    world = Cycles(config=config, answers={}, kernel=kernel_with({}), ledger={})
    for name in NAMES:
        says(world, name, [instance(number) for number in EACH])
    world.until_quiet()
    return world


def says(world: Cycles, name: str, instances: list[Instance]) -> None:
    """Have Consul have these instances of one virtual server."""
    query = query_of(world.config.virtual_servers[name])
    world.answers = {**world.answers, query: Answer(instances=tuple(instances), index=1)}


def serving(world: Cycles, name: str) -> int:
    """Return how many real servers serve."""
    table = world.kernel.observe().table
    return sum(found.weight > 0 for found in table[world.config.virtual_servers[name].key].real_servers.values())


def why(decision: Decision, name: str) -> str:
    return next(each.hold.why for each in decision.virtual_servers.values() if each.name == name)


states = st.lists(st.sampled_from(("passing", "passing", "failing", "gone")), min_size=8, max_size=8)
events = st.dictionaries(st.sampled_from(NAMES), states, max_size=3)


@histories()
@given(
    history=st.lists(st.tuples(events, st.sampled_from((0.0, 5.0, 29.0, 61.0))), max_size=8),
    percent=st.sampled_from((0, 25, 40)),
)
def test_no_minute_takes_more_than_is_allowed(history: list[tuple[dict[str, list[str]], float]], percent: int) -> None:
    world = started(percent)
    counts = {name: [(world.now - 1.0, len(EACH))] for name in NAMES}
    for change, pause in history:
        for name, found in change.items():
            says(world, name, [MAKE[state](number) for number, state in zip(EACH, found, strict=True) if state in MAKE])
        now = world.now
        before = {name: most_lately(counts[name], now, MINUTE) for name in NAMES}
        world.once()
        after = {name: serving(world, name) for name in NAMES}
        lost = sum(max(before[name], after[name]) - after[name] for name in NAMES)
        less = any(after[name] < counts[name][-1][1] for name in NAMES)
        assert not less or lost <= max(2, sum(before.values()) * percent // 100)
        for name in NAMES:
            counts[name].append((now, after[name]))
        world.now += pause
    said = {name: world.answers[query_of(world.config.virtual_servers[name])].instances for name in NAMES}
    wanted = {name: sum(not each.checks for each in said[name]) for name in NAMES}
    for _ in range(30):
        world.now += MINUTE
        world.once()
    for name in NAMES:
        assert serving(world, name) == wanted[name] or wanted[name] == 0


def test_what_loses_little_goes_first_and_the_rest_a_minute_later() -> None:
    world = started()
    says(world, "a", [failing(1), *map(instance, range(2, 9))])
    says(world, "b", [*map(failing, range(1, 7)), instance(7), instance(8)])
    says(world, "c", [*map(instance, range(1, 5))])
    began = world.now
    decision = world.once()
    assert [serving(world, name) for name in NAMES] == [7, 4, 4]
    assert why(decision, "b") == "more than 9 of the 24 of all virtual servers would leave within a minute"
    assert not why(decision, "a")
    world.now = began + MINUTE - 1.0
    assert world.once().next_end == began + MINUTE
    assert serving(world, "b") == 4
    world.once()
    assert serving(world, "b") == 2


def test_all_may_leave_where_the_operator_says_so() -> None:
    world = started(100)
    for name in NAMES:
        says(world, name, [instance(1)])
    world.once()
    assert [serving(world, name) for name in NAMES] == [1, 1, 1]


KEY, OTHER = VirtualServerKey.by_mark(1), VirtualServerKey.by_mark(2)


def test_few_always_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(velocity, "FEW", 16)
    twenty = Loss(Served(count=20), 4)
    assert limits_of_table({KEY: twenty}, {}, 40, NOW) == {}
    limit = limits_of_table({KEY: attrs.evolve(twenty, count=3)}, {}, 40, NOW)[KEY]
    assert (limit.least, limit.most, limit.until) == (4, 20, NOW + MINUTE)
    assert limits_of_table({KEY: attrs.evolve(twenty, count=3)}, {OTHER: Served(count=100)}, 40, NOW) == {}


def test_what_left_before_counts_until_its_minute_is_over() -> None:
    others = {OTHER: Served(count=10, earlier=((15, NOW - 20.0),))}
    limit = limits_of_table({KEY: Loss(Served(count=10), 2)}, others, 40, NOW)[KEY]
    assert (limit.least, limit.until) == (5, NOW - 20.0 + MINUTE)
    assert limits_of_table({KEY: Loss(Served(count=10), 2)}, others, 40, NOW + 41.0) == {}

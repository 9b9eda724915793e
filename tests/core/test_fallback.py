"""The fallback server: it serves where nothing else does, and nowhere else; histories of it are in test_floor."""

from typing import Any

import attrs
import pytest

from lvsctl.config import OnCritical, Probe
from lvsctl.core.cause import Kind
from lvsctl.core.decide import decide
from lvsctl.core.decision import Decision
from lvsctl.core.fallback import fallback_of
from lvsctl.core.instance import Health, Instance
from lvsctl.core.opinion import Opinion
from lvsctl.core.ownership import LedgerEntry, Owner
from lvsctl.core.status import Place, State
from lvsctl.core.virtual_server_status import virtual_servers
from netlink.requests import AddRealServer, DeleteRealServer, SetRealServer
from netlink.types import Forwarding, RealServerKey, RealServers
from tests.values import (
    KEY,
    NOW,
    OWN,
    VIP,
    Cycles,
    answers_of,
    config_of,
    configured,
    decided,
    entry,
    failing,
    instance,
    kernel_with,
    observed_of,
    real,
    real_key,
    table_of,
)

SORRY = real_key(99, 8099)
FALLBACK = real(99, key=SORRY)
CONFIG = config_of(configured(fallback=SORRY, drain_timeout=5.0))


def started(*instances: Instance, fallback: RealServerKey | None = SORRY) -> Cycles:
    """Return a director that serves with these instances."""
    config = config_of(configured(fallback=fallback, drain_timeout=5.0))
    world = Cycles(config=config, answers=answers_of(config, *instances), kernel=kernel_with({}), ledger={})
    world.until_quiet()
    return world


def says(world: Cycles, *instances: Instance) -> Decision:
    """Have Consul say so, and return what was decided once it is quiet."""
    world.answers = answers_of(world.config, *instances)
    world.until_quiet(9)
    return world.once()


def table(world: Cycles) -> RealServers:
    return world.kernel.observe().table[KEY].real_servers


def place_of(world: Cycles, decision: Decision) -> tuple[State, str, int, list[Place]]:
    observed = world.kernel.observe()
    row = virtual_servers(world.config, decision, observed, refused={}, local=frozenset({VIP}), ages={})[0]
    return row.state, row.note, row.serving, [each.place for each in row.real_servers]


def test_it_serves_until_the_first_instance_comes() -> None:
    world = started()
    assert table(world) == {SORRY: FALLBACK}
    state = State.FALLBACK, f"Consul has no instance of it; the fallback {SORRY} serves", 0, [Place.FALLBACK]
    assert place_of(world, world.once()) == state
    decision = says(world, instance(1))
    assert table(world) == {real_key(1): real(1)}
    assert place_of(world, decision)[0] is State.OK
    assert world.ledger[KEY].fallback is None


def test_it_leaves_as_any_real_server_does_and_says_why() -> None:
    world = started()
    world.answers = answers_of(world.config, instance(1))
    added, quiesced = world.once().steps
    assert (added.cause.kind, quiesced.cause.kind) == (Kind.NEW, Kind.FALLBACK)
    assert quiesced.cause.text == "the fallback is not needed: others serve"
    assert table(world)[SORRY].weight == 0
    assert world.ledger[KEY].fallback == SORRY
    (deleted,) = world.once().steps
    assert deleted.cause.text == "drained in 1 s; the fallback is not needed: others serve"
    assert world.ledger[KEY].fallback is None


def test_on_consuls_word_alone_the_last_ones_stay() -> None:
    world = started(instance(1), instance(2))
    decision = says(world, failing(1), failing(2))
    assert set(table(world)) == {real_key(1), real_key(2)}
    assert place_of(world, decision)[0] is State.HELD
    decision = says(world)
    assert set(table(world)) == {real_key(1), real_key(2)}
    assert decision.virtual_servers[KEY].fallback is None


def test_what_is_in_maintenance_makes_way_for_it() -> None:
    world = started(instance(1), instance(2))
    resting = [failing(number, Health.MAINTENANCE) for number in (1, 2)]
    decision = says(world, *resting)
    assert table(world) == {SORRY: FALLBACK}
    assert place_of(world, decision)[0] is State.FALLBACK
    assert set(table(started_without_one(*resting))) == {real_key(1), real_key(2)}


def started_without_one(*instances: Instance) -> Cycles:
    world = started(instance(1), instance(2), fallback=None)
    says(world, *instances)
    return world


def test_one_that_only_fails_is_kept_beside_those_in_maintenance() -> None:
    world = started(instance(1), instance(2))
    says(world, failing(1, Health.MAINTENANCE), failing(2))
    assert set(table(world)) == {real_key(2)}


def asked(*instances: Instance, opinion: Opinion, fallback: RealServerKey | None = SORRY) -> Decision:
    """Return what is decided of two that served, once Consul has `instances` and the director this opinion."""
    config = config_of(configured(probe=Probe.ALL, fallback=fallback))
    ours = LedgerEntry(name="reco", drain_timeout=30.0, written=entry(real(1), real(2)))
    return decide(
        config,
        answers_of(config, *instances),
        observed_of(entry(real(1), real(2))),
        {KEY: ours},
        own_addresses=OWN,
        templates_expire=False,
        now=NOW,
        opinions={KEY: opinion},
    )


def test_where_all_are_dead_by_the_directors_own_word_it_takes_over() -> None:
    both = frozenset({real_key(1), real_key(2)})
    decision = asked(failing(1), failing(2), opinion=Opinion(dead=both)).virtual_servers[KEY]
    assert decision.fallback == SORRY
    assert set(decision.draining) == both
    decision = asked(failing(1), failing(2), opinion=Opinion(dead=both), fallback=None).virtual_servers[KEY]
    assert set(decision.held) == both
    one = Opinion(dead=frozenset({real_key(1)}), alive=frozenset({real_key(2)}))
    decision = asked(failing(1), failing(2), opinion=one).virtual_servers[KEY]
    assert set(decision.held) == {real_key(2)}
    assert decision.fallback is None
    decision = asked(failing(1), failing(2), opinion=Opinion(unknowable=both)).virtual_servers[KEY]
    assert set(decision.held) == both


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, ""),
        ({"on_critical": OnCritical.DELETE}, ""),
        ({"persistence": 300}, "persistence would keep its clients"),
        ({"scheduler": "dh"}, "dh would refuse its clients"),
        ({"scheduler": "sh", "on_critical": OnCritical.DELETE}, "sh would refuse its clients"),
    ],
)
def test_it_goes_at_once_where_its_clients_would_only_wait(options: dict[str, Any], why: str) -> None:
    config = config_of(configured(fallback=SORRY, **options))
    world = Cycles(config=config, answers=answers_of(config), kernel=kernel_with({}), ledger={})
    world.until_quiet()
    world.answers = answers_of(config, instance(1))
    added, leaves = world.once().steps
    assert isinstance(added.request, AddRealServer)
    if why:
        assert leaves.request == DeleteRealServer(virtual_server=KEY, key=SORRY)
        assert leaves.cause.text == f"not drained, {why}; the fallback is not needed: others serve"
    else:
        assert leaves.request == SetRealServer(virtual_server=KEY, real_server=attrs.evolve(FALLBACK, weight=0))


def test_another_one_in_the_file_takes_over_from_it() -> None:
    world = started()
    other = real_key(98, 8099)
    world.config = config_of(configured(fallback=other, drain_timeout=5.0))
    world.answers = answers_of(world.config)
    _, quiesced = world.once().steps
    assert quiesced.cause.text == "no longer the fallback in the configuration"
    world.until_quiet(9)
    assert set(table(world)) == {other}
    world.config = config_of(configured(drain_timeout=5.0))
    world.answers = answers_of(world.config)
    world.until_quiet(9)
    assert table(world) == {}


def test_it_is_known_again_without_a_ledger() -> None:
    decision = decided(observed_of(entry(FALLBACK)), config=CONFIG)
    assert decision.virtual_servers[KEY].owner is Owner.ADOPTED
    assert decision.steps == []
    assert not decision.foreign


def test_a_hand_that_takes_it_away_is_put_right() -> None:
    world = started()
    world.kernel = kernel_with(table_of(entry()))
    (added,) = world.once().steps
    assert added.cause.text == "nothing else serves: the fallback"
    assert table(world) == {SORRY: FALLBACK}


@pytest.mark.parametrize("weight", [0, 1])
def test_it_is_wanted_only_beside_nobody_who_serves(weight: int) -> None:
    config = configured(fallback=SORRY, forwarding=Forwarding.TUNNEL)
    found = fallback_of(config, {real_key(1): real(1, weight)})
    assert found == (None if weight else attrs.evolve(FALLBACK, forwarding=Forwarding.TUNNEL))

"""What a reload would take away: what is foretold is what then happens, and no more than half goes unasked."""

from collections.abc import Mapping, Sequence
from ipaddress import ip_network

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.config import Config, Declaration, SafetyConfig, VirtualServerConfig
from lvsctl.core.desired import queries_of
from lvsctl.core.guard import serves
from lvsctl.core.instance import Answer, Answers, Instance
from lvsctl.core.ownership import LedgerEntry
from lvsctl.core.removal import Removal, left_out, removal
from netlink.fake import FakeIPVS
from netlink.types import Protocol, RealServerKey, VirtualServerKey
from tests.core.test_discovery import OPEN
from tests.values import (
    VIP,
    Cycles,
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

SERVICES = 4


def key_of(number: int) -> VirtualServerKey:
    return VirtualServerKey.by_address(Protocol.TCP, VIP, 8000 + number)


def virtual_server(number: int, service: str = "") -> VirtualServerConfig:
    return configured(f"s{number}", key_of(number), consul_service=service or f"s{number}")


def registered(number: int, count: int, *, sick: int = 0) -> tuple[Instance, ...]:
    """Return `count` instances of service `sN`, of which `sick` fail; every other one has the tag v1."""
    return tuple(
        (failing if each < sick else instance)(10 * number + each + 1, tags=("v1",) if each % 2 else ())
        for each in range(count)
    )


def answers_of(config: Config, services: Mapping[str, tuple[Instance, ...]]) -> Answers:
    return {each: Answer(instances=services.get(each.service, ()), index=1) for each in queries_of(config)}


def world(config: Config, services: Mapping[str, tuple[Instance, ...]], before: Cycles | None = None) -> Cycles:
    """Return a world that came to rest with `config`, from where `before` is."""
    cycles = Cycles(
        config=config,
        answers=answers_of(config, services),
        kernel=kernel_with(before.kernel.observe().table) if before else FakeIPVS(),
        ledger=before.ledger if before else {},
        now=before.now if before else 1_000_000.0,
    )
    cycles.until_quiet(20)
    return cycles


def serving(cycles: Cycles) -> set[tuple[VirtualServerKey, RealServerKey]]:
    table = cycles.kernel.observe().table
    return {(key, server.key) for key, each in table.items() for server in each.real_servers.values() if serves(server)}


def foretold(cycles: Cycles, config: Config, services: Mapping[str, tuple[Instance, ...]]) -> Removal:
    observed = cycles.kernel.observe()
    now = cycles.decide(observed)
    other = attrs.evolve(cycles, config=config, answers=answers_of(config, services), last=None)
    return removal(observed.table, now, other.decide(observed), cycles.config)


@st.composite
def changes(draw: st.DrawFn) -> tuple[VirtualServerConfig, ...]:
    """Draw what a file makes of `SERVICES` virtual servers: left out, as they are, or of others or fewer instances."""
    made = []
    for number in range(SERVICES):
        match draw(st.sampled_from(("kept", "kept", "gone", "another", "tagged", "moved"))):
            case "kept":
                made.append(virtual_server(number))
            case "another":
                made.append(virtual_server(number, f"s{(number + 1) % SERVICES}"))
            case "tagged":
                made.append(attrs.evolve(virtual_server(number), tags=("v1",)))
            case "moved":
                made.append(attrs.evolve(virtual_server(number), key=key_of(number + 100)))
    return tuple(made) or (virtual_server(9),)


@given(
    counts=st.lists(st.integers(0, 4), min_size=SERVICES, max_size=SERVICES),
    sick=st.lists(st.integers(0, 2), min_size=SERVICES, max_size=SERVICES),
    other=changes(),
)
def test_what_is_foretold_happens(
    counts: Sequence[int], sick: Sequence[int], other: Sequence[VirtualServerConfig]
) -> None:
    config, then = config_of(*map(virtual_server, range(SERVICES))), config_of(*other)
    well = {f"s{number}": registered(number, count) for number, count in enumerate(counts)}
    services = {f"s{number}": registered(number, count, sick=sick[number]) for number, count in enumerate(counts)}
    before = world(config, well)
    before.answers = answers_of(config, services)  # some fail in the moment of the reload
    said = foretold(before, then, services)
    stayed, reloaded = world(config, services, before), world(then, services, before)
    at_rest = serving(before) & serving(stayed)  # who leaves anyway is not the reload's
    assert said.real_servers == len(at_rest)
    assert said.leaving == len(at_rest - serving(reloaded))
    served, serve = {key for key, _ in at_rest}, {key for key, _ in serving(reloaded)}
    assert said.virtual_servers == len(served)
    assert said.emptied == tuple(sorted(f"s{key.port - 8000}" for key in served - serve))
    assert said.is_mass == (2 * said.leaving > said.real_servers or 2 * len(said.emptied) > said.virtual_servers)


@given(counts=st.lists(st.integers(0, 4), min_size=SERVICES, max_size=SERVICES))
def test_the_same_file_takes_nothing_away(counts: Sequence[int]) -> None:
    config = config_of(*map(virtual_server, range(SERVICES)))
    services = {f"s{number}": registered(number, count) for number, count in enumerate(counts)}
    said = foretold(world(config, services), config, services)
    assert (said.emptied, said.leaving, said.is_mass) == ((), 0, False)
    assert said.real_servers == sum(counts)


@given(
    counts=st.lists(st.integers(0, 4), min_size=SERVICES, max_size=SERVICES),
    kept=st.sets(st.integers(0, SERVICES - 1)),
)
def test_a_start_sees_by_the_ledger_what_a_reload_sees_by_the_table(counts: Sequence[int], kept: set[int]) -> None:
    config = config_of(*map(virtual_server, range(SERVICES)))
    services = {f"s{number}": registered(number, count) for number, count in enumerate(counts)}
    cycles = world(config, services)
    then = config_of(*(virtual_server(number) for number in sorted(kept)) if kept else (virtual_server(9),))
    assert left_out(cycles.ledger, then) == foretold(cycles, then, services)


WHOLE = {f"s{number}": registered(number, 4) for number in range(SERVICES)}
FOUR = config_of(*map(virtual_server, range(SERVICES)))


@pytest.mark.parametrize(
    ("then", "words", "mass"),
    [
        (
            config_of(virtual_server(0), virtual_server(1)),
            "2 of 4 virtual servers (s2, s3) and 8 of 16 real servers",
            False,
        ),
        (config_of(virtual_server(0)), "3 of 4 virtual servers (s1, s2, s3) and 12 of 16 real servers", True),
        (config_of(virtual_server(9)), "4 of 4 virtual servers (s0, s1, s2, s3) and 16 of 16 real servers", True),
        (config_of(*(virtual_server(each, "s0") for each in range(SERVICES))), "12 of 16 real servers", True),
        (
            attrs.evolve(FOUR, safety=SafetyConfig(allowed_networks=(ip_network("10.0.0.0/29"),))),
            "3 of 4 virtual servers (s1, s2, s3) and 12 of 16 real servers",
            True,
        ),
        (attrs.evolve(FOUR, safety=SafetyConfig(max_weight=1)), "0 of 16 real servers", False),
    ],
)
def test_in_words(then: Config, words: str, *, mass: bool) -> None:
    said = foretold(world(FOUR, WHOLE), then, WHOLE)
    assert said.words == f"it would take away {words} now serving"
    assert said.is_mass is mass


def test_many_names_are_not_all_said() -> None:
    said = Removal(virtual_servers=7, emptied=tuple("abcdefg"), real_servers=9, leaving=9)
    assert said.words.startswith("it would take away 7 of 7 virtual servers (a, b, c, d, e and 2 more) and 9 of 9 real")


def test_tags_that_nobody_has_take_nothing_away_for_the_guard_holds_it() -> None:
    then = config_of(*(attrs.evolve(virtual_server(each), tags=("nobody",)) for each in range(SERVICES)))
    assert foretold(world(FOUR, WHOLE), then, WHOLE).leaving == 0


def test_what_consul_does_not_answer_for_stays() -> None:
    cycles = world(FOUR, WHOLE)
    then = config_of(*(virtual_server(each, "unheard") for each in range(SERVICES)))
    observed = cycles.kernel.observe()
    unheard = attrs.evolve(cycles, config=then, answers={}, last=None)
    assert removal(observed.table, cycles.decide(observed), unheard.decide(observed), FOUR).leaving == 0
    empty = attrs.evolve(cycles, config=config_of(virtual_server(9)), answers={}, last=None)
    silent = attrs.evolve(cycles, answers={}, last=None)  # Consul has said nothing since the start
    assert removal(observed.table, silent.decide(observed), empty.decide(observed), FOUR).leaving == 16


@pytest.mark.parametrize(
    ("changed", "mass"),
    [({1}, False), ({1, 2}, False), ({1, 2, 3}, True)],
)
def test_what_consul_answers_for_now_and_not_then_may_go(changed: set[int], *, mass: bool) -> None:
    cycles = world(FOUR, WHOLE)
    then = config_of(*(virtual_server(each, "unheard" if each in changed else "") for each in range(SERVICES)))
    observed = cycles.kernel.observe()
    heard = {each: answer for each, answer in answers_of(then, WHOLE).items() if each.service != "unheard"}
    other = attrs.evolve(cycles, config=then, answers=heard, last=None)
    said = removal(observed.table, cycles.decide(observed), other.decide(observed), FOUR)
    names = ", ".join(f"s{each}" for each in sorted(changed))
    words = (
        f"what becomes of {len(changed)} of 4 virtual servers ({names}) is not known, for Consul does not answer for it"
    )
    assert (said.words, said.leaving, said.is_mass) == (words, 0, mass)
    gone = config_of(virtual_server(1, "unheard"), virtual_server(0))
    said = removal(observed.table, cycles.decide(observed), attrs.evolve(other, config=gone).decide(observed), FOUR)
    assert said.words.startswith("it would take away 2 of 4 virtual servers (s2, s3) and 8 of 16 real servers now ")
    assert said.words.endswith(
        "serving, and what becomes of 1 of 4 virtual servers (s1) is not known, for Consul does not answer for it"
    )
    assert said.is_mass


def test_a_fallback_stands_in_for_nobody() -> None:
    sorry = [attrs.evolve(virtual_server(each), fallback=real_key(99)) for each in range(SERVICES)]
    config = config_of(*sorry)
    cycles = world(config, {**WHOLE, "s3": ()})
    assert serving(cycles) >= {(key_of(3), real_key(99))}
    closed = attrs.evolve(config, safety=SafetyConfig(allowed_networks=(ip_network("10.0.0.0/29"),)))
    said = foretold(cycles, closed, {**WHOLE, "s3": ()})
    assert said == Removal(virtual_servers=3, emptied=("s1", "s2"), real_servers=12, leaving=8)
    assert left_out(cycles.ledger, config_of(virtual_server(3))).real_servers == 12
    back = foretold(cycles, config, WHOLE)  # the fallback leaves, for others serve again
    assert (back.leaving, back.real_servers) == (0, 12)


def test_foreign_virtual_servers_are_nobodys_loss() -> None:
    cycles = world(FOUR, WHOLE)
    foreign = table_of(entry(real(1), real(2), key=key_of(50)))
    cycles.kernel = kernel_with({**cycles.kernel.observe().table, **foreign})
    assert foretold(cycles, config_of(virtual_server(9)), WHOLE).virtual_servers == 4


def test_a_foreign_one_in_the_way_is_nobodys_loss_either() -> None:
    table = table_of(entry(real(1), key=key_of(0)))
    cycles = Cycles(config=FOUR, answers=answers_of(FOUR, WHOLE), kernel=kernel_with(table), ledger={})
    cycles.until_quiet(5)
    said = foretold(cycles, config_of(virtual_server(9)), WHOLE)
    assert said == Removal(virtual_servers=3, emptied=("s1", "s2", "s3"), real_servers=12, leaving=12)


def test_what_was_about_to_be_adopted_stays_whoever_it_is_of_then() -> None:
    table = world(FOUR, WHOLE).kernel.observe().table
    cycles = Cycles(config=FOUR, answers=answers_of(FOUR, WHOLE), kernel=kernel_with(table), ledger={})
    said = foretold(cycles, config_of(virtual_server(9)), WHOLE)
    assert said == Removal(virtual_servers=4, real_servers=16)


def test_what_was_declared_is_there_at_a_start_as_long_as_any_may_be() -> None:
    declaration = Declaration(service="reco", values=())
    written = entry(real(1), real(2))
    ledger = {
        written.virtual_server.key: LedgerEntry(
            name="reco", drain_timeout=1.0, written=written, declaration=declaration
        )
    }
    assert left_out(ledger, config_of(virtual_server(9))).emptied == ("reco",)
    assert left_out(ledger, config_of(virtual_server(9), discovery=OPEN)).emptied == ()

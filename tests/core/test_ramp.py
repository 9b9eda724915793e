"""How a weight rises: never down, never 0, never above what it is to be, and that in the end."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.core.ramp import (
    NO_RAMPS,
    PARTS,
    Ramp,
    Ramps,
    after,
    end_of,
    next_step,
    percent_of,
    ramp_words,
    ramped,
    unramped,
)
from lvsctl.core.share import LARGEST
from netlink.types import RealServerKey, RealServers
from tests.values import NOW, real, real_key

SLOW_START = 30.0
NOBODY: frozenset[RealServerKey] = frozenset()


def servers(weights: Mapping[int, int]) -> RealServers:
    return {real_key(number): real(number, weight=weight) for number, weight in weights.items()}


def beginning(
    intended: RealServers,
    served: RealServers,
    *,
    ramps: Ramps = NO_RAMPS,
    slow_start: float = SLOW_START,
    most: int | None = None,
    held: frozenset[RealServerKey] = NOBODY,
    now: float = NOW,
) -> Ramps:
    """Return the ramps where `served` are in the kernel and were written."""
    most = len(served) if most is None else most
    return after(ramps, intended, served, served, slow_start=slow_start, most=most, held=held, now=now)


def test_who_comes_begins_with_a_sixteenth_and_the_others_keep_theirs() -> None:
    ramps = beginning(servers({1: 1, 2: 1, 3: 1}), servers({1: 1, 2: 1}))
    assert ramps == Ramps(of={real_key(3): Ramp(began=NOW, part=1, weight=1)}, times=16, most=2)
    assert ramped(servers({1: 1, 2: 1, 3: 1}), ramps) == servers({1: 16, 2: 16, 3: 1})
    assert next_step(ramps, SLOW_START) == NOW + 2


def test_weights_that_are_fine_enough_are_not_multiplied() -> None:
    ramps = beginning(servers({1: 100, 2: 100}), servers({1: 100}))
    assert ramps.times == 1
    assert ramped(servers({1: 100, 2: 100}), ramps) == servers({1: 100, 2: 6})


@pytest.mark.parametrize(
    ("intended", "served", "most"),
    [
        ({1: 1, 2: 1}, {}, 0),  # all come at once
        ({3: 1, 4: 1}, {1: 1, 2: 1}, 2),  # others take over
        ({1: 1, 2: 1, 3: 1, 4: 1, 5: 1}, {1: 1}, 4),  # fewer than half of those that served are left
        ({1: 1, 2: 0}, {1: 1}, 1),  # it is not to serve
    ],
)
def test_nobody_ramps(intended: dict[int, int], served: dict[int, int], most: int) -> None:
    assert beginning(servers(intended), servers(served), most=most) == NO_RAMPS


def test_half_of_those_that_served_are_enough() -> None:
    assert beginning(servers({1: 1, 2: 1, 3: 1}), servers({1: 1, 2: 1}), most=4).of.keys() == {real_key(3)}


def test_without_slow_start_nobody_ramps_and_who_did_has_it_all() -> None:
    ramps = Ramps(of={real_key(2): Ramp(began=NOW, part=3, weight=1)}, times=16)
    assert beginning(servers({1: 1, 2: 1}), servers({1: 16, 2: 3}), ramps=ramps, slow_start=0.0) == NO_RAMPS


def test_what_is_put_back_does_not_ramp() -> None:
    intended, written = servers({1: 1, 2: 1, 3: 1}), servers({1: 1, 2: 1, 3: 1})
    for observed in (servers({1: 1, 2: 1}), servers({1: 1, 2: 1, 3: 0}), {}):  # a hand, a hand, a reboot
        found = after(NO_RAMPS, intended, observed, written, slow_start=SLOW_START, most=3, held=NOBODY, now=NOW)
        assert found == NO_RAMPS


def test_what_is_put_back_while_another_comes_counts_from_the_first_moment_on() -> None:
    """Else the next cycle counted more, and wrote the ledger although nothing had happened."""
    intended, written = servers({1: 1, 2: 1, 3: 1, 4: 1}), servers({1: 1, 2: 1, 3: 1})
    ramps = after(
        NO_RAMPS, intended, servers({1: 1, 2: 1}), written, slow_start=SLOW_START, most=0, held=NOBODY, now=NOW
    )
    assert ramps == Ramps(of={real_key(4): Ramp(began=NOW, part=1, weight=1)}, times=16, most=3)
    there = ramped(intended, ramps)
    assert beginning(intended, there, ramps=ramps) == ramps


def test_what_was_there_before_us_does_not_ramp() -> None:
    intended, written = servers({1: 1, 2: 1, 3: 1}), servers({1: 1, 2: 1})
    found = after(NO_RAMPS, intended, intended, written, slow_start=SLOW_START, most=3, held=NOBODY, now=NOW)
    assert found == NO_RAMPS


def test_who_is_held_does_not_carry_anybody() -> None:
    assert beginning(servers({1: 1, 2: 1}), servers({1: 1}), held=frozenset({real_key(1)})) == NO_RAMPS


def test_where_the_others_fail_every_ramp_is_over() -> None:
    intended = servers({1: 1, 2: 1, 3: 1, 4: 1})
    ramps = beginning(intended, servers({1: 1, 2: 1}))
    assert ramps.of.keys() == {real_key(3), real_key(4)}
    there = ramped(intended, ramps)
    left = servers({3: 1, 4: 1})
    found = after(ramps, left, there, there, slow_start=SLOW_START, most=4, held=NOBODY, now=NOW + 5)
    assert found == NO_RAMPS


def test_who_is_not_there_yet_starts_over() -> None:
    intended, written = servers({1: 1, 2: 1}), servers({1: 16, 2: 9})
    ramps = Ramps(of={real_key(2): Ramp(began=NOW - 20, part=9, weight=1)}, times=16)
    for observed in (servers({1: 16}), servers({1: 16, 2: 0})):
        found = after(ramps, intended, observed, written, slow_start=SLOW_START, most=2, held=NOBODY, now=NOW)
        assert found.of[real_key(2)] == Ramp(began=NOW, part=1, weight=1)


def test_another_weight_is_ramped_to_from_where_it_is() -> None:
    ramps = Ramps(of={real_key(2): Ramp(began=NOW - 14, part=8, weight=100)}, times=1)
    found = beginning(servers({1: 100, 2: 40}), servers({1: 100, 2: 50}), ramps=ramps)
    assert found.of[real_key(2)] == Ramp(began=NOW - 14, part=8, weight=40)
    assert ramped(servers({1: 100, 2: 40}), found)[real_key(2)].weight == 20


def test_words() -> None:
    ramp = Ramp(began=NOW - 12, part=7, weight=10)
    assert percent_of(ramp) == 43
    assert end_of(ramp, SLOW_START) == NOW + 18
    assert ramp_words(ramp, SLOW_START, NOW) == "43% of weight 10, 18 s left"


weights = st.integers(1, 40) | st.sampled_from((1, 1, 1000, LARGEST))
times = st.lists(st.sampled_from((0.0, 0.5, 2.0, 3.0, 7.0, 30.0, 3600.0, -1.0, -15.0, -3600.0)), max_size=20)


@given(
    st.dictionaries(st.integers(1, 5), weights, min_size=1),
    st.dictionaries(st.integers(6, 9), weights, min_size=1),
    st.sampled_from((1.0, 30.0, 900.0)),
    times,
)
def test_a_ramp_rises_to_its_end_whatever_the_clock_does(
    there: dict[int, int], new: dict[int, int], slow_start: float, pauses: list[float]
) -> None:
    intended, served, now = servers({**there, **new}), servers(there), NOW
    ramps, before, seen = NO_RAMPS, dict.fromkeys(map(real_key, new), 0), set()
    for pause in (*pauses, *([slow_start / 20] * 20), slow_start):
        ramps = beginning(intended, served, ramps=ramps, slow_start=slow_start, most=len(there), now=now)
        again = beginning(intended, served, ramps=ramps, slow_start=slow_start, most=len(there), now=now)
        served = ramped(intended, ramps)
        if ramps != NO_RAMPS:
            assert again == ramps, "the same again is the same"
            step = next_step(ramps, slow_start)
            assert step is not None
            assert now < step <= now + slow_start
        if not ramps.of:
            assert served == intended, "in the end it is what it is to be"
            return
        for key, each in served.items():
            whole = intended[key].weight * ramps.times
            assert 1 <= each.weight <= whole <= LARGEST
            if key in ramps.of:
                assert ramps.of[key].part >= before[key], "never down"
                before[key] = ramps.of[key].part
            else:
                assert each.weight == whole
        seen.add(ramps.times)
        assert len(seen) == 1, "what the others have stays as it is"
        assert unramped(served, ramps) == intended
        now += pause
    final = beginning(intended, served, ramps=ramps, slow_start=slow_start, most=len(there), now=now)
    assert final == NO_RAMPS
    assert all(part <= PARTS for part in before.values())

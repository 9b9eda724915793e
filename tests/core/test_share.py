"""Weights that give groups their parts: as near to what was asked as whole numbers can be, and never somebody's end."""

from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lvsctl.core.share import LARGEST, Group, apportioned, in_proportion, share_out
from netlink.types import RealServerKey
from tests.values import real, real_key

SCHEDULERS = ("wrr", "wlc", "sed", "twos", "sh", "mh")


@st.composite
def groups(draw: st.DrawFn, most: int = 12, heaviest: int = LARGEST) -> tuple[Group, ...]:
    """Draw one to four groups of real servers that are all different."""
    sizes = draw(st.lists(st.integers(1, most), min_size=1, max_size=4))
    weight = draw(st.sampled_from((st.just(1), st.integers(1, 10), st.integers(1, heaviest))))
    found, number = [], 0
    for size in sizes:
        keys = [real_key(1, 1000 + number + at) for at in range(size)]
        number += size
        found.append(Group(part=draw(st.integers(1, 10_000)), weights={key: draw(weight) for key in keys}))
    return tuple(found)


def weight_of(group: Group, weights: dict[RealServerKey, int]) -> int:
    return sum(weights[key] for key in group.weights)


@given(chosen=groups(), scheduler=st.sampled_from(SCHEDULERS))
def test_everybody_keeps_a_weight_that_the_kernel_takes(chosen: tuple[Group, ...], scheduler: str) -> None:
    weights = share_out(chosen, scheduler)
    assert weights.keys() == {key for group in chosen for key in group.weights}
    assert all(type(weight) is int for weight in weights.values())
    assert all(1 <= weight <= LARGEST for weight in weights.values())


@given(chosen=groups(), scheduler=st.sampled_from(SCHEDULERS))
def test_a_group_has_its_part_to_two_roundings_for_each_real_server(chosen: tuple[Group, ...], scheduler: str) -> None:
    assume(len(chosen) > 1)
    weights = dict(share_out(chosen, scheduler))
    assume(max(weights.values()) < LARGEST)  # beyond it the kernel has no weight: nine of 0.01 % beside one of the rest
    total, whole = sum(weights.values()), sum(group.part for group in chosen)
    for group in chosen:
        error = abs(Fraction(weight_of(group, weights), total) - Fraction(group.part, whole))
        assert error <= Fraction(2 * len(weights), total), (weights, group)


@given(chosen=groups(most=6, heaviest=20), percent=st.integers(1, 50))
def test_of_whole_percents_the_part_is_exact(chosen: tuple[Group, ...], percent: int) -> None:
    """Where weights are what people write, and enough of them for every instance."""
    assume(len(chosen) > 1)
    rest, canary = Group(part=100 - percent, weights=chosen[0].weights), Group(part=percent, weights=chosen[1].weights)
    weights = dict(share_out((rest, canary), "wrr"))
    got = Fraction(weight_of(canary, weights), sum(weights.values()))
    assert got == Fraction(percent, 100)


@given(chosen=groups(), scheduler=st.sampled_from(SCHEDULERS), data=st.data())
def test_the_order_of_real_servers_does_not_matter(
    chosen: tuple[Group, ...], scheduler: str, data: st.DataObject
) -> None:
    shuffled = tuple(
        Group(part=group.part, weights=dict(data.draw(st.permutations(list(group.weights.items())))))
        for group in chosen
    )
    assert share_out(shuffled, scheduler) == share_out(chosen, scheduler)


@given(chosen=groups(most=8, heaviest=100), percent=st.integers(1, 50), data=st.data())
def test_when_one_of_the_others_goes_the_rest_of_them_change_all_alike_or_not_at_all(
    chosen: tuple[Group, ...], percent: int, data: st.DataObject
) -> None:
    assume(len(chosen) > 1 and len(chosen[0].weights) > 1)
    canary = Group(part=percent, weights=chosen[1].weights)
    gone = data.draw(st.sampled_from(sorted(chosen[0].weights)))
    left = {key: weight for key, weight in chosen[0].weights.items() if key != gone}
    before = share_out((Group(part=100 - percent, weights=chosen[0].weights), canary), "wrr")
    after = share_out((Group(part=100 - percent, weights=left), canary), "wrr")
    factors = {Fraction(after[key], before[key]) for key in left}
    assert len(factors) == 1
    factor = factors.pop()
    assert factor.numerator.bit_count() == factor.denominator.bit_count() == 1, "a power of two, mostly 1"


def test_when_one_of_the_others_goes_the_rest_of_them_stay_as_they_are() -> None:
    canary = Group(part=5, weights={real_key(9): 1})
    eight, seven = ({real_key(number): 1 for number in range(1, 1 + size)} for size in (8, 7))
    before = share_out((Group(part=95, weights=eight), canary), "wrr")
    after = share_out((Group(part=95, weights=seven), canary), "wrr")
    assert before == {**dict.fromkeys(eight, 19), real_key(9): 8}
    assert after == {**dict.fromkeys(seven, 19), real_key(9): 7}


def test_two_canaries_of_three_others_are_shared_out_evenly() -> None:
    rest = Group(part=95, weights={real_key(number): 1 for number in (1, 2, 3)})
    canary = Group(part=5, weights={real_key(8): 1, real_key(9): 1})
    assert share_out((rest, canary), "wlc") == {
        **dict.fromkeys(rest.weights, 38), real_key(8): 3, real_key(9): 3,
    }  # fmt: skip


def test_inside_a_group_weights_keep_their_proportion() -> None:
    rest = Group(part=90, weights={real_key(1): 2, real_key(2): 1})
    canary = Group(part=10, weights={real_key(8): 1, real_key(9): 2})
    weights = share_out((rest, canary), "wrr")
    assert weights == {real_key(1): 18, real_key(2): 9, real_key(8): 1, real_key(9): 2}


def test_a_single_group_is_left_alone() -> None:
    assert share_out((Group(part=5, weights={real_key(1): 7}),), "wrr") == {real_key(1): 7}


def test_for_sh_the_weights_are_the_slots_of_its_table() -> None:
    rest = Group(part=95, weights={real_key(number): 100 for number in (1, 2, 3)})
    weights = share_out((rest, Group(part=5, weights={real_key(9): 1})), "sh")
    assert sum(weights.values()) == 256
    assert weights[real_key(9)] == 13


@given(chosen=groups(most=30), percent=st.integers(1, 50))
def test_for_mh_the_sum_is_small_beside_its_table(chosen: tuple[Group, ...], percent: int) -> None:
    assume(len(chosen) > 1)
    rest, canary = Group(part=100 - percent, weights=chosen[0].weights), Group(part=percent, weights=chosen[1].weights)
    weights = share_out((rest, canary), "mh")
    assert sum(weights.values()) <= 256 + 2 * len(weights)


@pytest.mark.parametrize(
    ("total", "parts", "expected"),
    [
        (10, [1, 1], [5, 5]),
        (10, [1, 1, 1], [4, 3, 3]),
        (2, [100, 1], [1, 1]),
        (1, [1, 1, 1], [1, 1, 1]),
        (3, [98, 1, 1], [1, 1, 1]),
    ],
)
def test_apportioned(total: int, parts: list[int], expected: list[int]) -> None:
    assert apportioned(total, parts) == expected


@given(total=st.integers(1, LARGEST), parts=st.lists(st.integers(1, 10**9), min_size=1, max_size=50))
def test_what_is_apportioned_adds_up_where_it_can(total: int, parts: list[int]) -> None:
    found = apportioned(total, parts)
    assert sum(found) == max(total, len(parts))
    exact = [Fraction(total * part, sum(parts)) for part in parts]
    assert all(each > 1 or exact[at] < 2 or total < 2 * len(parts) for at, each in enumerate(found))


def test_what_is_held_goes_with_the_weights_of_the_others() -> None:
    held = {real_key(3): real(3, 4)}
    before = {real_key(1): real(1, 1), real_key(2): real(2, 1), real_key(3): real(3, 4)}
    after = {real_key(1): real(1, 19), real_key(2): real(2, 2)}
    more = {**after, real_key(2): real(2, 19)}
    assert in_proportion(held, more, before) == {real_key(3): real(3, 76)}
    assert in_proportion(in_proportion(held, more, before), before, {**more, real_key(3): real(3, 76)}) == held
    assert in_proportion(held, {}, before) == held
    assert in_proportion(held, more, {}) == held
    assert in_proportion({real_key(3): real(3, 0)}, more, before) == {real_key(3): real(3, 0)}

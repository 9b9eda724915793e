"""All bodies together stay within the budget, and one alone always fits."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from lvsctl.consul.budget import Budget, Share, TooMuch


def test_the_largest_is_given_up_and_the_others_go_on() -> None:
    budget = Budget(100)
    large, small = budget.share(), budget.share()
    large.add(b"x" * 70)
    small.add(b"y" * 30)
    assert budget.used == 100
    small.add(b"y")
    assert budget.used == 31
    for trial in (lambda: large.add(b"x"), large.take):
        with contextlib.suppress(TooMuch):
            trial()
            raise AssertionError("it goes on")
    with small:
        assert small.take() == b"y" * 31
        assert budget.used == 31  # until it is decoded
    assert budget.used == 0


def test_one_that_is_too_large_itself_is_given_up() -> None:
    budget = Budget(100)
    share = budget.share()
    share.add(b"x" * 100)
    with contextlib.suppress(TooMuch):
        share.add(b"x")
        raise AssertionError("it goes on")
    assert (budget.used, len(share)) == (0, 0)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 60), st.booleans()), max_size=60))
def test_whatever_comes_the_sum_is_right_and_within_the_budget(events: list[tuple[int, int, bool]]) -> None:
    budget = Budget(100)
    shares: dict[int, Share] = {}
    for number, size, ends in events:
        share = shares.setdefault(number, budget.share())
        with contextlib.suppress(TooMuch):
            share.add(b"x" * size)
        if ends:
            with shares.pop(number):
                pass
        assert budget.used == sum(len(each) for each in shares.values()) <= 100

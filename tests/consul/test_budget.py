"""All bodies together stay within the budget, and one alone always fits."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from lvsctl.consul.budget import Body, Budget, Share, TooMuch


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


def test_what_is_being_decoded_is_not_given_up_for_others() -> None:
    """Its bytes would be there all the same, and counted no more: three times the budget was in memory so."""
    budget = Budget(100)
    large, other = budget.share(), budget.share()
    large.add(b"x" * 70)
    body = large.take()
    with contextlib.suppress(TooMuch):
        other.add(b"y" * 40)
        raise AssertionError("it goes on")
    assert (len(body), budget.used) == (70, 70)
    with large:
        pass
    assert budget.used == 0


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 60), st.sampled_from(("", "taken", "over"))), max_size=60))
def test_whatever_comes_the_sum_is_right_and_within_the_budget(events: list[tuple[int, int, str]]) -> None:
    budget = Budget(100)
    shares: dict[int, Share] = {}
    bodies: dict[int, Body] = {}
    for number, size, then in events:
        share = shares.setdefault(number, budget.share())
        with contextlib.suppress(TooMuch):
            if number not in bodies:
                share.add(b"x" * size)
            if then == "taken" and number not in bodies:
                bodies[number] = share.take()
        if then == "over":
            with shares.pop(number):
                bodies.pop(number, None)
        assert budget.used == sum(len(each) for each in shares.values()) <= 100
        assert sum(map(len, bodies.values())) <= budget.used

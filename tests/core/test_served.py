"""The counts of what served lately are those of a sliding window, and they stay few."""

from hypothesis import given
from hypothesis import strategies as st

from lvsctl.core.served import MOST_STEPS, NEVER, WINDOW, Floor, Served, after, floor_of
from tests.values import NOW, most_lately

CHANGES = st.lists(st.tuples(st.integers(0, 40), st.sampled_from([0.0, 1.0, 59.0, 300.0, 899.0, 901.0])), max_size=40)


@given(changes=CHANGES)
def test_the_floor_is_that_of_a_sliding_window_but_where_there_are_many_steps(
    changes: list[tuple[int, float]],
) -> None:
    served, now, history = NEVER, NOW, [(NOW, 0)]
    for count, pause in changes:
        served = after(served, count, now)
        history.append((now, count))
        now += pause
        most, largest = floor_of(served, 100, now).least, most_lately(history, now, WINDOW)
        assert most >= largest
        if len({each for _, each in history}) <= MOST_STEPS:
            assert most == largest
        assert len(served.earlier) <= MOST_STEPS
        assert after(served, count, now).count == count


def test_a_count_that_is_the_same_changes_nothing() -> None:
    served = Served(count=4, earlier=((8, NOW),))
    assert after(served, 4, NOW + 1) == served
    assert after(served, 8, NOW + 1) == Served(count=8)
    assert after(served, 4, NOW + WINDOW) == Served(count=4)


def test_a_part_is_rounded_up_and_ends_at_a_known_time() -> None:
    served = Served(count=2, earlier=((9, NOW), (5, NOW + 60)))
    assert floor_of(served, 50, NOW + 60) == Floor(least=5, most=9, until=NOW + WINDOW)
    assert floor_of(served, 50, NOW + WINDOW) == Floor(least=3, most=5, until=NOW + 60 + WINDOW)
    assert floor_of(served, 50, NOW + 60 + WINDOW) == Floor(least=1, most=2)
    assert floor_of(served, 0, NOW).least == 0


def test_a_clock_that_went_back_lengthens_it_by_no_more_than_the_window() -> None:
    served = Served(count=2, earlier=((8, NOW),))
    floor = floor_of(served, 50, NOW - 3600)
    assert floor.until == NOW - 3600 + WINDOW
    assert not floor_of(served, 50, NOW).holds(NOW - 3600)
    assert after(served, 2, NOW - 3600).earlier == ((8, NOW - 3600),)

"""Many events at one time are a few lines, and their number is right."""

from hypothesis import given
from hypothesis import strategies as st

from lvsctl.consul.burst import AT_ONCE, LONGEST, TEXTS, WINDOW, Burst, Rest


def test_the_first_are_told_and_the_rest_is_a_number() -> None:
    burst = Burst()
    assert not burst.is_open
    assert [burst.take("refused") for _ in range(1000)].count(True) == AT_ONCE
    assert burst.take("reset")  # something else is news
    assert burst.is_open
    assert burst.sum_up() == Rest(1000 - AT_ONCE, "refused")
    assert not burst.take("refused")  # it goes on
    assert burst.sum_up() == Rest(1, "refused")
    assert burst.is_open
    assert burst.sum_up() is None
    assert not burst.is_open
    assert burst.take("refused")


@given(st.lists(st.integers(0, 40).map(str) | st.none()))
def test_every_event_is_told_or_counted_and_lines_are_few(events: list[str | None]) -> None:
    burst, told, counted, lines = Burst(), 0, 0, 0
    for event in [*events, None]:
        if event is not None:
            at_once = burst.take(event)
            told, lines = told + at_once, lines + at_once
            assert lines <= AT_ONCE * TEXTS
        elif (rest := burst.sum_up()) is not None:
            counted += rest.queries
        else:
            lines = 0
    assert told + counted == sum(event is not None for event in events)


def test_seconds_make_no_other_text() -> None:
    burst = Burst()
    texts = [f"no answer from https://10.0.0.1:8501 within {seconds:g} s" for seconds in (20.7, 18.2875, 36, 19)]
    assert [burst.take(text) for text in texts].count(True) == AT_ONCE
    assert burst.take("no answer from https://10.0.0.2:8501 within 36 s")


def test_the_port_that_an_agent_connects_from_makes_no_other_text() -> None:
    burst = Burst()
    texts = [f"read tcp 127.0.0.1:{port}->127.0.0.1:8300: connection reset" for port in range(40_000, 40_010)]
    assert [burst.take(text) for text in texts].count(True) == AT_ONCE
    assert burst.take("read tcp 127.0.0.1:40000->127.0.0.1:8301: connection reset")


def test_what_goes_on_all_day_is_summed_up_less_and_less_often() -> None:
    burst, pauses = Burst(), []
    for _ in range(8):
        for _ in range(AT_ONCE + 1):
            burst.take("refused")
        pauses.append(burst.pause())
        assert burst.sum_up()
    assert pauses == [WINDOW * factor for factor in (1, 2, 4)] + [LONGEST] * 5
    assert burst.sum_up() is None
    assert burst.pause() == WINDOW

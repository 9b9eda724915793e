"""How often a Consul is asked that answers at once, with nothing new, or that has too many requests."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.consul.pace import IDLE_POLL, LONGEST_BACK_OFF, LONGEST_IDLE, LONGEST_LIMITED, back_off, rest
from lvsctl.errors import ConsulError, ConsulRefused


@pytest.mark.parametrize("index", [0, 7])
def test_whoever_answers_at_once_without_news_is_asked_four_times_in_ten_seconds(index: int) -> None:
    rests = (rest(news=False, index=index, quiet=quiet) for quiet in itertools.count(1))
    asked = list(itertools.takewhile(lambda time: time < 10.0, itertools.accumulate(rests, initial=0.0)))
    assert len(asked) == 4, asked


@given(news=st.booleans(), index=st.integers(0, 2**64), quiet=st.integers(0, 10**9))
def test_a_rest_has_bounds(news: bool, index: int, quiet: int) -> None:  # noqa: FBT001  hypothesis draws it
    pause = rest(news=news, index=index, quiet=quiet)
    assert pause > 0
    assert pause <= LONGEST_IDLE
    if not (news and index):
        assert pause >= IDLE_POLL


@given(failures=st.integers(1, 10**9), status=st.sampled_from((301, 403, 429, 500)), after=st.integers(0, 10**19))
def test_only_too_many_requests_are_a_reason_to_stay_away_for_long(failures: int, status: int, after: int) -> None:
    pause = back_off(failures, ConsulRefused(status, "", retry_after=after))
    assert pause > min(after, LONGEST_LIMITED)
    assert pause <= LONGEST_LIMITED * 2
    assert back_off(failures, ConsulRefused(500, "")) <= LONGEST_BACK_OFF
    assert back_off(failures, ConsulError("cannot reach it")) <= LONGEST_BACK_OFF


def test_a_429_without_a_time_is_waited_for_longer_each_time() -> None:
    longest = [max(back_off(failures, ConsulRefused(429, "")) for _ in range(200)) for failures in (1, 4, 10)]
    assert longest == sorted(longest)
    assert LONGEST_BACK_OFF < longest[-1] <= LONGEST_LIMITED

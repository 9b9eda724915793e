"""A real server's way out: every boundary of it, and clocks that are wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.core.drain import Drained, Draining, drain
from netlink.types import RealServerUsage
from tests.values import NOW, real

IDLE = RealServerUsage()
BUSY = RealServerUsage(active=3)
times = st.floats(-1e6, 1e6)


def stand(
    *, weight: int = 0, usage: RealServerUsage = BUSY, since: float | None, timeout: float = 30.0, now: float = NOW
) -> Draining | Drained:
    return drain(real(weight=weight), usage, since=since, timeout=timeout, now=now)


def test_who_serves_is_quiesced_first_even_without_connections() -> None:
    state = stand(weight=1, usage=IDLE, since=None)
    assert isinstance(state, Draining)
    assert state.since == NOW


def test_who_was_found_quiesced_still_gets_its_own_drain() -> None:
    assert isinstance(stand(weight=0, usage=IDLE, since=None), Draining)


@pytest.mark.parametrize("passed", [0.0, 0.001, 29.999])
def test_connections_keep_it_until_the_deadline(passed: float) -> None:
    state = stand(since=NOW - passed)
    assert isinstance(state, Draining)
    assert state.since == NOW - passed


@pytest.mark.parametrize("passed", [30.0, 30.001, 1e6])
def test_the_deadline_ends_it_with_connections(passed: float) -> None:
    state = stand(since=NOW - passed)
    assert isinstance(state, Drained)
    assert state.since == NOW - passed


@pytest.mark.parametrize("usage", [RealServerUsage(active=1), RealServerUsage(inactive=1)])
def test_a_connection_that_closes_counts_too(usage: RealServerUsage) -> None:
    assert isinstance(stand(usage=usage, since=NOW), Draining)


def test_without_connections_it_is_over_at_once() -> None:
    assert isinstance(stand(usage=IDLE, since=NOW), Drained)


@pytest.mark.parametrize("weight", [0, 1])
@pytest.mark.parametrize("since", [None, NOW - 1, NOW, NOW + 1000])
def test_no_timeout_deletes_without_draining(weight: int, since: float | None) -> None:
    assert isinstance(stand(weight=weight, since=since, timeout=0.0), Drained)


def test_who_serves_again_by_hand_drains_again() -> None:
    """Also one whose quiescing was refused, or never sent because lvsctl was killed, and started again much later."""
    state = stand(weight=1, since=NOW - 1000)
    assert isinstance(state, Draining)
    assert state.since == NOW


def test_a_clock_that_was_set_back_starts_the_drain_over() -> None:
    state = stand(since=NOW + 1e6)
    assert isinstance(state, Draining)
    assert state.since == NOW
    assert isinstance(stand(since=state.since, now=NOW + 30), Drained)


@given(
    since=st.none() | times, now=times, timeout=st.floats(0, 1e5), weight=st.integers(0, 2), active=st.integers(0, 2)
)
def test_never_longer_than_the_timeout_and_never_cut_while_serving(
    since: float | None, now: float, timeout: float, weight: int, active: int
) -> None:
    usage = RealServerUsage(active=active)
    state = stand(weight=weight, usage=usage, since=since, timeout=timeout, now=now)
    assert state.since <= now
    if isinstance(state, Drained):
        assert timeout == 0 or weight == 0
    else:
        after = stand(weight=0, usage=usage, since=state.since, timeout=timeout, now=state.since + timeout)
        assert isinstance(after, Drained) or (state.since + timeout) - state.since < timeout  # rounding of floats

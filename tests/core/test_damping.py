"""Who comes and goes waits, longer each time; who is needed does not, nor who does so now and then."""

from collections.abc import Sequence

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.core.damping import (
    FIRST,
    FORGOTTEN,
    FREE,
    LONGEST,
    MOST,
    NOT_DAMPED,
    QUICK,
    Damped,
    Flaps,
    after,
    back_off,
)
from netlink.types import RealServerKey
from tests.values import NOW, real_key

ONE, TWO, THREE = real_key(1), real_key(2), real_key(3)
OTHERS = frozenset({TWO, THREE})


@attrs.define
class Pool:
    """Three real servers; what serves is what is wanted and does not wait, as the daemon would have it."""

    now: float = NOW
    least: int = 2
    damped: Damped = NOT_DAMPED
    serving: frozenset[RealServerKey] = frozenset({ONE, TWO, THREE})

    def see(self, *passing: RealServerKey, quiesced: Sequence[RealServerKey] = ()) -> bool:
        """Have these pass now, and tell whether the first one serves."""
        wanted = frozenset(passing)
        failed = self.serving - wanted - set(quiesced)
        for _ in range(2):
            before = self.damped
            self.damped = after(
                before.flapping, served=self.serving, wanted=wanted, failed=failed, least=self.least, now=self.now
            )
            self.serving = wanted - self.damped.waiting.keys()
        assert self.damped == before, "the same again changes nothing"
        return ONE in self.serving

    def flaps(self, times: int, every: float = 10.0) -> list[bool]:
        """Have the first one fail and pass again so often; return whether it served each time."""
        found = []
        for _ in range(times):
            self.see(TWO, THREE)
            self.now += every
            found.append(self.see(ONE, TWO, THREE))
            self.now += every
        return found


def test_three_returns_go_through_at_once_and_the_next_one_waits() -> None:
    pool = Pool()
    assert pool.flaps(3) == [True, True, True]
    assert pool.flaps(1, every=0.0) == [False]
    assert pool.damped.waiting == {ONE: pool.now + FIRST}
    pool.now += FIRST - 0.1
    assert not pool.see(ONE, TWO, THREE)
    pool.now += 0.1
    assert pool.see(ONE, TWO, THREE)


def test_a_deploy_every_few_minutes_is_never_damped() -> None:
    pool = Pool()
    assert all(pool.flaps(20, every=QUICK))


def test_the_checks_have_to_pass_without_a_break() -> None:
    pool = Pool()
    pool.flaps(4, every=0.0)
    for _ in range(30):
        pool.now += FIRST - 1
        assert not pool.see(ONE, TWO, THREE)
        pool.see(TWO, THREE)
    pool.see(ONE, TWO, THREE)
    pool.now += FIRST
    assert pool.see(ONE, TWO, THREE)


def test_each_time_is_twice_as_long_up_to_the_longest() -> None:
    pool = Pool()
    pool.flaps(3)
    waits = []
    for _ in range(6):
        pool.see(TWO, THREE)
        pool.see(ONE, TWO, THREE)
        waits.append(pool.damped.waiting[ONE] - pool.now)
        pool.now += waits[-1]
        assert pool.see(ONE, TWO, THREE)
        pool.now += 5
    assert waits == [30.0, 60.0, 120.0, 240.0, 240.0, 240.0]
    assert back_off(FREE) == 0.0
    assert back_off(10_000) == LONGEST


def test_it_is_forgiven_when_it_has_served_for_long_enough() -> None:
    pool = Pool()
    pool.flaps(4)
    pool.now += FIRST
    assert pool.see(ONE, TWO, THREE)
    pool.now += QUICK
    pool.see(ONE, TWO, THREE)
    assert pool.damped == NOT_DAMPED
    assert pool.flaps(3) == [True, True, True]


def test_out_for_long_it_begins_anew() -> None:
    pool = Pool()
    pool.flaps(4)
    pool.see(TWO, THREE)
    pool.now += FORGOTTEN
    assert pool.see(ONE, TWO, THREE)
    assert pool.damped == NOT_DAMPED


def test_who_is_needed_comes_back_at_once() -> None:
    pool = Pool(least=3)
    assert all(pool.flaps(10))
    pool = Pool(least=0)
    pool.flaps(4)
    assert pool.see(ONE), "nothing else serves"


def test_where_others_fail_the_wait_is_over() -> None:
    pool = Pool()
    assert not pool.flaps(4)[-1]
    assert pool.see(ONE, TWO)


def test_who_is_refused_by_the_kernel_does_not_serve_in_its_place() -> None:
    flapping = {ONE: Flaps(count=4, left=NOW - 1)}
    wanted = frozenset({ONE, TWO, THREE})
    found = after(flapping, served=OTHERS, wanted=wanted, failed=frozenset(), least=2, now=NOW)
    assert found.waiting.keys() == {ONE}
    found = after(flapping, served=OTHERS, wanted=wanted, failed=frozenset(), least=2, absent=frozenset({TWO}), now=NOW)
    assert not found.waiting


def test_of_several_the_worst_waits() -> None:
    flapping = {ONE: Flaps(count=4, left=NOW - 1), TWO: Flaps(count=5, left=NOW - 1)}
    wanted = frozenset({ONE, TWO, THREE})
    found = after(flapping, served=frozenset({THREE}), wanted=wanted, failed=frozenset(), least=2, now=NOW)
    assert found.waiting.keys() == {TWO}
    assert found.flapping[ONE].returned == NOW


def test_what_an_operator_quiesces_does_not_flap() -> None:
    pool = Pool()
    for _ in range(10):
        pool.see(TWO, THREE, quiesced=[ONE])
        assert pool.see(ONE, TWO, THREE)
    assert pool.damped == NOT_DAMPED


def test_a_refused_departure_is_counted_once() -> None:
    flapping = {ONE: Flaps(count=2, left=NOW - 1)}
    again = after(flapping, served=OTHERS | {ONE}, wanted=OTHERS, failed=frozenset({ONE}), least=0, now=NOW)
    assert again.flapping == flapping
    later = after(flapping, served=OTHERS | {ONE}, wanted=OTHERS, failed=frozenset({ONE}), least=0, now=NOW + FORGOTTEN)
    assert later.flapping == {ONE: Flaps(count=2, left=NOW + FORGOTTEN)}, "it is held, and may go now"
    back = after(flapping, served=OTHERS | {ONE}, wanted=OTHERS | {ONE}, failed=frozenset(), least=0, now=NOW)
    assert back.flapping[ONE].returned == NOW
    assert not back.waiting


def test_not_more_are_remembered_than_there_is_room_for() -> None:
    many = [real_key(1, port) for port in range(1, 2 * MOST)]
    flapping = {key: Flaps(count=1, left=NOW - place % 7) for place, key in enumerate(many)}
    found = after(flapping, served=frozenset(), wanted=frozenset(), failed=frozenset(), least=0, now=NOW)
    assert len(found.flapping) == MOST
    assert {each.left for each in found.flapping.values()} <= {NOW, NOW - 1, NOW - 2, NOW - 3}


keys = st.sampled_from([real_key(number) for number in range(1, 6)])
moments = st.tuples(
    st.frozensets(keys), st.sampled_from((0.0, 1.0, 10.0, 10.0, 29.0, 31.0, 121.0, 241.0, 700.0, -60.0, -3600.0))
)


@given(st.lists(moments, max_size=60), st.integers(0, 5))
def test_whatever_happens_enough_serve_and_nobody_waits_for_ever(
    history: list[tuple[frozenset[RealServerKey], float]], least: int
) -> None:
    now, damped, serving = NOW, NOT_DAMPED, frozenset[RealServerKey]()
    for wanted, pause in history:
        damped = after(damped.flapping, served=serving, wanted=wanted, failed=serving - wanted, least=least, now=now)
        serving = wanted - damped.waiting.keys()
        assert damped.waiting.keys() <= wanted
        assert all(now < end <= now + LONGEST for end in damped.waiting.values())
        assert all(damped.flapping[key].count > FREE for key in damped.waiting)
        assert len(serving) >= min(len(wanted), max(1, least) if wanted else 0)
        same = after(damped.flapping, served=serving, wanted=wanted, failed=serving - wanted, least=least, now=now)
        assert same == damped
        now += pause
    wanted = frozenset(real_key(number) for number in range(1, 6))
    for pause in (0.0, LONGEST, LONGEST, 0.0):
        now += pause
        damped = after(damped.flapping, served=serving, wanted=wanted, failed=frozenset(), least=least, now=now)
        serving = wanted - damped.waiting.keys()
    assert serving == wanted
    assert damped == NOT_DAMPED, "and all is forgotten"


@pytest.mark.parametrize("seconds", [-1e9, 1e9])
def test_a_clock_that_jumps_makes_nobody_wait_for_longer(seconds: float) -> None:
    pool = Pool()
    pool.flaps(4)
    pool.now += seconds
    pool.see(ONE, TWO, THREE)
    pool.now += LONGEST
    assert pool.see(ONE, TWO, THREE)

"""Which answers are believed: what they add always, that something is gone only when nothing speaks against it."""

from typing import Any

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lvsctl.consul.doubt import HOLD, SETTLING, STALE, Belief, Doubt, believe, recalled
from lvsctl.core.instance import Answer, Malformed
from tests.values import NOW, failing, instance


def answer(*numbers: int, index: int = 10, **changes: Any) -> Answer:  # noqa: ANN401 - whatever it takes
    return Answer(instances=tuple(instance(number) for number in numbers), index=index, **changes)


def believed(*numbers: int, index: int = 10, **changes: Any) -> Belief:  # noqa: ANN401 - whatever it takes
    belief = believe(None, answer(*numbers, index=index, **changes), NOW)
    assert belief.doubt is None
    return belief


numbers = st.lists(st.integers(1, 6), max_size=6, unique=True)
answers = st.builds(
    lambda numbers, index, filtered, leader, age: answer(
        *numbers, index=index, filtered=filtered, leader=leader, last_contact=age
    ),
    numbers,
    st.integers(0, 12),
    st.booleans(),
    st.sampled_from((True, True, False)),
    st.sampled_from((0.0, 0.0, STALE, STALE + 1)),
)
readings = st.lists(st.tuples(answers, st.sampled_from((0.0, 1.0, HOLD)), st.booleans(), st.booleans()), max_size=8)


@given(readings=readings)
def test_whatever_comes_the_content_is_consuls_and_a_doubt_has_words(
    readings: list[tuple[Answer, float, bool, bool]],
) -> None:
    belief, known, now = None, None, NOW
    for read, pause, refused, consistent in readings:
        now += pause
        belief = believe(belief, read, now, refused=refused, consistent=consistent)
        assert attrs.evolve(belief.answer, doubt="") == read
        assert bool(belief.answer.doubt) == (belief.doubt is not None)
        listed = {each.identity for each in read.instances}
        assert belief.known == (known if belief.doubt and known is not None else listed)
        known = belief.known


def copied(read: Answer) -> Answer:
    """Return an equal answer of other objects, as one is that was decoded again."""
    return attrs.evolve(read, instances=(*read.instances,), malformed=(*read.malformed,))


@given(readings=readings, served=st.integers(0, 6), first=numbers)
@example(readings=[(answer(1), 0.0, False, False)], served=6, first=[1])
def test_what_is_known_already_is_believed_as_if_it_were_not(
    readings: list[tuple[Answer, float, bool, bool]], served: int, first: list[int]
) -> None:
    known = believe(None, answer(*first), NOW, served=served)
    decoded, now = known, NOW
    for read, pause, refused, consistent in readings:
        for each in (attrs.evolve(read, instances=known.trusted.instances), read):
            now += pause
            known = believe(known, each, now, refused=refused, consistent=consistent)
            decoded = believe(decoded, copied(each), now, refused=refused, consistent=consistent)
            assert known == decoded


@given(readings=readings)
def test_whatever_comes_between_a_contradiction_is_held_in_full(
    readings: list[tuple[Answer, float, bool, bool]],
) -> None:
    """From the first answer that contradicts, none without all that was known is believed before the hold is over."""
    belief, now, since = believed(1, 2, 3, 4, index=12), NOW, None
    known = belief.known
    for read, pause, refused, consistent in readings:
        now += pause / 4
        found = {each.identity for each in read.instances}
        belief = believe(belief, read, now, refused=refused, consistent=consistent)
        if since is None and known - found and read.index <= 12:
            since = now
        if since is not None and now - since < HOLD and known - found:
            assert belief.doubt is not None
        if belief.doubt is None:
            return


@given(readings=readings)
def test_once_the_index_went_back_no_rising_one_ends_the_hold(
    readings: list[tuple[Answer, float, bool, bool]],
) -> None:
    belief, now = believed(1, 2, 3, 4, 5, 6, index=100), NOW
    belief = believe(belief, answer(index=8), now)
    for number, (read, pause, refused, consistent) in enumerate(readings):
        now += pause / 4
        rising = attrs.evolve(read, index=100 + number)
        belief = believe(belief, rising, now, refused=refused, consistent=consistent)
        if now - NOW >= HOLD or len(read.instances) == 6:
            return
        assert belief.doubt is not None


@pytest.mark.parametrize("mask", [{"filtered": True}, {"leader": False}, {"last_contact": STALE + 1}])
def test_another_doubt_before_or_in_between_takes_nothing_from_a_hold(mask: dict[str, Any]) -> None:
    full = believed(*range(1, 7), index=100)
    masked = answer(index=8, **mask)
    one = answer(1, index=9)
    before = believe(believe(full, masked, NOW), one, NOW + 2)
    assert before.doubt is Doubt.CONTRADICTED
    between = believe(believe(believe(full, answer(index=7), NOW), masked, NOW + 1), one, NOW + 2)
    for belief in (before, between):
        for pause in (3.0, HOLD - 1):
            assert believe(belief, attrs.evolve(one, index=101), NOW + pause, consistent=True).doubt is (
                Doubt.CONTRADICTED
            )
        assert believe(belief, one, NOW + HOLD, consistent=True).doubt is None
    back = believe(between, answer(*range(1, 7), index=10), NOW + 3)
    assert back.begun == {}
    assert back.contradiction == ""


@pytest.mark.parametrize("mask", [{"leader": False}, {"last_contact": STALE + 1}])
def test_another_doubt_in_between_takes_nothing_from_the_doubt_about_a_permission_at_the_start(
    mask: dict[str, Any],
) -> None:
    first, masked = answer(1, 2, index=11, filtered=True), answer(1, 2, index=11, filtered=True, **mask)
    for answers in ((first, masked), (masked, masked)):
        belief = None
        for read in answers:
            belief = believe(belief, read, NOW)
        assert believe(belief, first, NOW + HOLD - 1).doubt is Doubt.FILTERED
        assert believe(belief, first, NOW + HOLD).doubt is None


def test_data_that_is_lost_twice_is_held_for_from_the_second_time() -> None:
    belief = believe(believed(*range(1, 7), index=100), answer(index=8), NOW)
    belief = believe(belief, answer(1, 2, 3, index=20), NOW + HOLD - 1)
    belief = believe(belief, answer(1, index=5), NOW + HOLD)
    assert belief.doubt is Doubt.CONTRADICTED
    assert "from 20 to 5" in belief.answer.doubt
    assert believe(belief, answer(1, index=6), NOW + 2 * HOLD - 1, consistent=True).doubt is Doubt.CONTRADICTED
    assert believe(belief, answer(1, index=6), NOW + 2 * HOLD, consistent=True).doubt is None


@given(readings=readings, numbers=numbers)
def test_a_doubt_ends_with_all_that_was_known_or_with_time(
    readings: list[tuple[Answer, float, bool, bool]], numbers: list[int]
) -> None:
    belief = None
    for read, _, refused, consistent in readings:
        belief = believe(belief, read, NOW, refused=refused, consistent=consistent)
    everything = answer(1, 2, 3, 4, 5, 6, index=13)
    assert believe(belief, everything, NOW).doubt is None
    assert believe(belief, answer(*numbers, index=13), NOW + HOLD, consistent=True).doubt is None


@given(before=numbers, now=numbers)
def test_the_loss_of_half_is_believed_at_once_and_of_more_when_a_leader_confirms_it(
    before: list[int], now: list[int]
) -> None:
    lost = set(before) - set(now)
    read = answer(*now, index=11)
    belief = believe(believed(*before), read, NOW)
    if lost and (len(lost) * 2 > len(before) or not now):
        assert belief.doubt is Doubt.UNCONFIRMED
        assert f"lists {len(now)} of {len(before)} instances" in belief.answer.doubt
        assert believe(belief, read, NOW, consistent=True).doubt is None
    else:
        assert belief.doubt is None


def test_a_consul_that_has_just_come_back_may_not_know_all_yet() -> None:
    """Servers that start take the nodes out that they have not heard of, and put them back."""
    returned = believe(believed(1, 2, 3, 4), answer(4, index=20), NOW, failed=True)
    assert returned.doubt is Doubt.RETURNED
    assert returned.answer.doubt == "Consul has just come back, and lists 1 of 4 instances"
    assert believe(returned, answer(1, 2, 3, 4, index=21), NOW + 1).doubt is None
    later = believe(returned, answer(4, index=21), NOW + SETTLING - 1, consistent=True)
    assert later.doubt is Doubt.RETURNED
    unsure = believe(later, answer(4, index=22), NOW + SETTLING)
    assert unsure.doubt is Doubt.UNCONFIRMED
    assert believe(unsure, answer(4, index=22), NOW + SETTLING, consistent=True).doubt is None
    assert believe(believed(1, 2, 3, 4), answer(3, 4, index=20), NOW, failed=True).doubt is None, "half may go"


@pytest.mark.parametrize("before", [0, 10])
def test_that_instances_went_is_not_believed_without_an_index_even_when_it_is_repeated(before: int) -> None:
    known = range(1, 11)
    belief = believe(believed(*known, index=before), answer(1, index=0), NOW)
    assert belief.answer.doubt == "instances went, and Consul's answer has no usable index"
    belief = believe(belief, answer(1, index=0), NOW + 1, consistent=True)
    assert belief.doubt is Doubt.CONTRADICTED
    assert believe(belief, answer(*known, index=0), NOW + 2).doubt is None
    assert believe(belief, answer(1, index=0), NOW + HOLD, consistent=True).doubt is None


def test_a_loss_in_a_streamed_answer_which_does_not_say_what_was_left_out_is_asked_for_again() -> None:
    first, streamed = believed(1, 2, 3, 4), answer(1, 2, 3, index=11, streamed=True)
    belief = believe(first, streamed, NOW)
    assert belief.doubt is Doubt.UNCONFIRMED
    assert believe(belief, attrs.evolve(streamed, streamed=False), NOW, consistent=True).doubt is None
    left_out = believe(belief, attrs.evolve(streamed, streamed=False, filtered=True), NOW, consistent=True)
    assert left_out.doubt is Doubt.FILTERED
    again = believe(left_out, streamed, NOW + HOLD)
    assert again.doubt is Doubt.UNCONFIRMED
    assert believe(again, attrs.evolve(streamed, streamed=False, filtered=True), NOW, consistent=True).doubt is (
        Doubt.FILTERED
    )
    assert believe(first, answer(1, 2, 3, 4, 5, index=11, streamed=True), NOW).doubt is None


def test_what_only_a_doubted_answer_had_is_no_loss() -> None:
    belief = believe(believed(1, 2, 3, index=10), answer(9, index=5), NOW)
    assert belief.doubt is Doubt.CONTRADICTED
    assert believe(belief, answer(1, 2, 3, index=11), NOW + 1).doubt is None
    assert believe(belief, answer(1, 2, index=11), NOW + 1).doubt is Doubt.CONTRADICTED


def test_a_failing_instance_is_not_gone() -> None:
    read = attrs.evolve(answer(index=3), instances=(failing(1), failing(2)))
    assert believe(believed(1, 2), read, NOW).doubt is None


def test_an_unreadable_instance_is_not_gone() -> None:
    one = instance(1)
    broken = Malformed(node=one.node, instance_id=one.instance_id, reason="Port is 'x'")
    assert believe(believed(1), Answer(malformed=(broken,), index=3), NOW).doubt is None


def test_after_a_loss_of_data_nothing_is_gone_until_all_are_back_or_the_hold_is_over() -> None:
    belief = believe(believed(1, 2, 3, 4, index=81), answer(1, 2, 3, index=8), NOW)
    assert belief.doubt is Doubt.CONTRADICTED
    assert "index went back from 81 to 8" in belief.answer.doubt
    belief = believe(belief, answer(index=9), NOW + 20, consistent=True)
    assert belief.doubt is Doubt.CONTRADICTED, "a leader that lost its data confirms that it has none"
    belief = believe(belief, answer(1, 2, 5, index=12), NOW + 90)
    assert belief.doubt is Doubt.CONTRADICTED
    assert belief.begun == {Doubt.CONTRADICTED: NOW}
    assert believe(belief, answer(1, 2, 3, 4, 5, index=13), NOW + 91).doubt is None
    late = believe(belief, answer(1, 2, 5, index=13), NOW + HOLD)
    assert late.doubt is Doubt.UNCONFIRMED
    assert believe(late, answer(1, 2, 5, index=13), NOW + HOLD, consistent=True).doubt is None


def test_what_goes_under_an_unchanged_index_is_not_gone() -> None:
    belief = believe(believed(1, 2, 3), answer(1, 2), NOW)
    assert belief.doubt is Doubt.CONTRADICTED
    assert "stayed at 10" in belief.answer.doubt
    assert believe(belief, answer(1, 2), NOW + 30, consistent=True).doubt is Doubt.CONTRADICTED


def test_most_of_them_missing_after_a_refused_token_are_not_gone() -> None:
    belief = believe(believed(1, 2, 3), answer(1, index=11), NOW, refused=True)
    assert belief.doubt is Doubt.CONTRADICTED
    assert "refused the token" in belief.answer.doubt
    assert believe(belief, answer(1, index=12), NOW, consistent=True).doubt is Doubt.CONTRADICTED
    assert believe(believed(1, 2, 3), answer(1, 2, index=11), NOW, refused=True).doubt is None


def test_a_permission_that_is_lost_is_doubted_for_as_long_as_it_is() -> None:
    belief = believe(believed(1, 2, 3), answer(1, index=11, filtered=True), NOW)
    for pause in (1.0, HOLD, 10 * HOLD):
        belief = believe(belief, answer(1, index=11, filtered=True), NOW + pause, consistent=True)
        assert belief.doubt is Doubt.FILTERED
        assert "node:read and service:read" in belief.answer.doubt
    assert believe(belief, answer(1, 2, 3, index=12), NOW + 1).doubt is None


@pytest.mark.parametrize("refused", [False, True])
def test_a_permission_that_consul_says_is_lost_contradicts_nothing_and_is_over_when_it_is_back(
    refused: bool,  # noqa: FBT001  one of the cases
) -> None:
    belief = believe(believed(1, 2, 3), answer(filtered=True), NOW, refused=refused)
    assert belief.doubt is Doubt.FILTERED
    belief = believe(belief, answer(filtered=True), NOW + 1)
    assert believe(belief, answer(1, 2, index=11), NOW + 2).doubt is Doubt.UNCONFIRMED
    assert believe(belief, answer(1, 2, index=11), NOW + 2, consistent=True).doubt is None
    assert believe(belief, answer(1, 2, index=10), NOW + 2, consistent=True).doubt is Doubt.CONTRADICTED


def test_a_permission_that_is_lost_hides_no_loss_of_data() -> None:
    belief = believe(believed(1, 2, 3), answer(index=9, filtered=True), NOW)
    assert believe(belief, answer(1, 2, index=11), NOW + 2, consistent=True).doubt is Doubt.CONTRADICTED


def test_a_token_that_never_could_read_it_all_is_doubted_at_the_start_only() -> None:
    belief = believe(None, answer(1, 2, index=11, filtered=True), NOW)
    assert belief.doubt is Doubt.FILTERED
    assert believe(belief, answer(1, 2, index=11, filtered=True), NOW + HOLD - 1).doubt is Doubt.FILTERED
    belief = believe(belief, answer(1, 2, index=11, filtered=True), NOW + HOLD)
    assert belief.doubt is None
    assert believe(belief, answer(1, index=12, filtered=True), NOW + HOLD).doubt is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"leader": False}, "knows no leader"), ({"last_contact": STALE + 1}, "heard its leader 11 s ago")],
)
def test_a_server_without_a_leader_is_doubted_while_it_has_none(changes: dict[str, Any], words: str) -> None:
    belief = believe(believed(1, 2), answer(1, **changes), NOW)
    assert belief.doubt is Doubt.STALE
    assert words in belief.answer.doubt
    assert believe(belief, answer(1, **changes), NOW + 10 * HOLD, consistent=True).doubt is Doubt.STALE
    assert believe(belief, answer(1, 2, index=11), NOW + 1).doubt is None


def test_a_loss_of_data_is_held_in_full_after_a_long_doubt_of_another_kind() -> None:
    belief = believe(believed(1, 2, 3), answer(index=11), NOW)
    assert belief.doubt is Doubt.UNCONFIRMED, "and no leader answers for long"
    late = NOW + 10 * HOLD
    belief = believe(belief, answer(index=3), late, consistent=True)
    assert belief.doubt is Doubt.CONTRADICTED
    assert believe(belief, answer(index=4), late + HOLD - 1, consistent=True).doubt is Doubt.CONTRADICTED
    assert believe(belief, answer(index=4), late + HOLD, consistent=True).doubt is None


def test_what_a_snapshot_says_is_what_the_first_answer_is_compared_with() -> None:
    before = recalled(answer(1, 2, 3, snapshot=NOW - 60))
    assert before.doubt is None
    empty = believe(before, answer(index=11), NOW)
    assert empty.doubt is Doubt.UNCONFIRMED
    assert empty.answer.snapshot is None
    assert believe(before, answer(1, 2, index=3), NOW).doubt is Doubt.CONTRADICTED
    assert believe(before, answer(1, 2, index=11), NOW).doubt is None


def test_a_token_that_never_could_read_it_all_is_known_from_the_snapshot() -> None:
    before = recalled(answer(1, 2, index=11, filtered=True, snapshot=NOW - 60))
    assert believe(before, answer(1, 2, index=11, filtered=True), NOW).doubt is None


def test_a_first_answer_of_less_than_half_of_what_served_is_held_until_all_are_there_or_the_hold_is_over() -> None:
    belief = believe(None, answer(1, index=8), NOW, served=6)
    assert belief.doubt is Doubt.CONTRADICTED
    assert belief.answer.doubt == "it lists 1 of the 6 or more instances that served before the start"
    five = answer(*range(1, 6), index=12)
    for pause in (1.0, HOLD - 1):
        assert believe(belief, five, NOW + pause, consistent=True).doubt is Doubt.CONTRADICTED
    assert believe(belief, answer(*range(1, 7), index=13), NOW + 2).doubt is None
    late = believe(belief, five, NOW + HOLD)
    assert late.doubt is Doubt.UNCONFIRMED
    assert "lists 5 of 6 instances" in late.answer.doubt
    settled = believe(late, five, NOW + HOLD, consistent=True)
    assert settled.doubt is None
    assert believe(settled, five, NOW + HOLD + 1).doubt is None


@pytest.mark.parametrize("mask", [{"filtered": True}, {"leader": False}])
def test_what_served_before_the_start_is_remembered_through_other_doubts(mask: dict[str, Any]) -> None:
    belief = believe(None, answer(index=8, **mask), NOW, served=6)
    assert believe(belief, answer(1, index=9), NOW + HOLD - 1, consistent=True).doubt is Doubt.CONTRADICTED


@given(numbers=numbers, served=st.integers(0, 12))
def test_a_first_answer_of_half_of_what_served_is_believed(numbers: list[int], served: int) -> None:
    doubted = believe(None, answer(*numbers), NOW, served=served).doubt is not None
    assert doubted is (2 * len(numbers) < served)

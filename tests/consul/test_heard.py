"""What was heard, and what of it is news to whoever decides."""

import time

import pytest

from lvsctl.consul.doubt import believe
from lvsctl.consul.heard import MOST, SMALL, Heard
from lvsctl.core.instance import Answer, Query
from lvsctl.errors import ConsulUnreadable
from tests.values import instance

RECO = Query(service="reco")


async def test_a_silence_that_somebody_else_has_read_of_is_news_all_the_same() -> None:
    """`status` reads the answers as well, between a datacenter's silence and the cycle that is to decide by it."""
    woken: list[bool] = []
    heard = Heard(lambda: woken.append(True), {})
    heard.want(first=frozenset({RECO}), contested=frozenset({RECO}))
    heard.begin(RECO)
    answer = Answer(instances=(instance(1),), index=1)
    heard.believe(RECO, believe(None, answer, time.monotonic()))
    assert heard.take_news() == {RECO}
    heard.fail(RECO, "no answer")
    for _ in range(2):  # whoever reads it
        assert heard.answers[RECO].silent
    assert heard.take_news() == {RECO}
    heard.believe(RECO, believe(heard.belief(RECO), answer, time.monotonic()))
    for _ in range(2):
        assert not heard.answers[RECO].silent
    assert heard.take_news() == {RECO}
    woken.clear()
    assert heard.answers
    assert not heard.take_news()
    assert not woken


async def test_of_large_answers_no_more_is_kept_than_there_is_room_for_and_small_ones_always() -> None:
    heard = Heard(lambda: None, {})
    queries = [Query(service=f"large-{number}") for number in range(4)]
    large = Answer(instances=(instance(1),), index=1, size=MOST // 3)

    def hear(query: Query, answer: Answer) -> None:
        heard.begin(query)
        heard.check_room(query, answer)
        heard.believe(query, believe(None, answer, time.monotonic()))

    for query in queries[:3]:
        hear(query, large)
    with pytest.raises(ConsulUnreadable, match=r"answer would take 21 MiB of memory, .* the last complete one stays"):
        hear(queries[3], large)
    hear(queries[3], Answer(index=1, size=SMALL))
    hear(queries[0], Answer(instances=(instance(2),), index=2, size=MOST // 3))  # in place of its last one
    hear(queries[0], Answer(instances=(instance(2), instance(3)), index=3, size=SMALL))
    hear(queries[3], Answer(instances=(instance(2),), index=2, size=MOST // 3))
    hear(queries[3], Answer(instances=(instance(2, weight=2),), index=3, size=MOST // 3))
    heard.forget(queries[1])
    hear(queries[0], Answer(instances=(instance(2),), index=4, size=MOST // 3))

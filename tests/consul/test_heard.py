"""What was heard, and what of it is news to whoever decides."""

import time

from lvsctl.consul.doubt import believe
from lvsctl.consul.heard import Heard
from lvsctl.core.instance import Answer, Query
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

"""What a body said before is not decoded again, and nothing else is taken for it."""

import json

import attrs
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.consul.decode import decode_answer
from lvsctl.consul.known import Known, digest_of
from lvsctl.core.instance import Answer, Instance
from tests.strategies import instances


def test_nothing_is_known_at_first() -> None:
    assert Known().answer(digest_of(b"[]")) is None


@given(st.lists(st.binary(max_size=3), max_size=8))
def test_only_the_last_body_is_known(bodies: list[bytes]) -> None:
    known = Known()
    for number, body in enumerate(bodies):
        said = Answer(index=number)
        known.learn(digest_of(body), said)
        assert {each for each in (*bodies, b"another") if known.answer(digest_of(each)) is said} == {body}


@given(st.lists(instances(), max_size=3).map(tuple))
def test_what_is_kept_elsewhere_is_kept_once(found: tuple[Instance, ...]) -> None:
    known, before, now = Known(), Answer(instances=found, index=1), Answer(instances=(*found,), index=2)
    known.learn(b"digest", now)
    known.keep(before)
    assert known.answer(b"digest") is before


def test_what_is_kept_elsewhere_and_says_something_else_is_not_taken_for_it() -> None:
    body = json.dumps([{"Node": {"Node": "n", "Address": "10.0.0.1"}, "Service": {"ID": "i", "Port": 80}}]).encode()
    known, answer = Known(), decode_answer(body, index=7)
    known.learn(digest_of(body), answer)
    known.keep(attrs.evolve(answer, instances=()))  # a second answer, which was asked for because this one is in doubt
    assert known.answer(digest_of(body)) is None

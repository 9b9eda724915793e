"""What the director makes of knocks at real servers: who is dead, after how many, and when it cannot know."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.core.opinion import (
    ALONE,
    ENOUGH,
    REFUSALS,
    Found,
    Knocks,
    Opinion,
    means_something,
    opinion_of,
)
from tests.values import real_key

ONE = real_key(1)
founds = st.sampled_from(Found)
histories = st.lists(st.tuples(founds, st.booleans()), max_size=30)


def after(history: Sequence[tuple[Found, bool]]) -> Knocks:
    knocks = Knocks()
    for found, counts in history:
        knocks = knocks.after(found, counts=counts)
    return knocks


def opinion(*history: tuple[Found, bool], alone: bool = False) -> Opinion:
    return opinion_of({ONE: after(history)}, alone=alone)


@given(history=histories, alone=st.booleans())
def test_who_opened_last_is_alive_and_who_never_did_is_not(*, history: list[tuple[Found, bool]], alone: bool) -> None:
    opened = [found is Found.OPEN for found, _ in history]
    found = opinion(*history, alone=alone)
    assert ONE not in found.dead or not opened[-1]
    assert ONE not in found.alive or any(opened)
    assert len(found.alive & {ONE}) + len(found.dead & {ONE}) + len(found.unknowable & {ONE}) <= 1


@given(history=histories, alone=st.booleans())
def test_who_is_dead_failed_often_enough_while_others_opened(*, history: list[tuple[Found, bool]], alone: bool) -> None:
    if ONE not in opinion(*history, alone=alone).dead:
        return
    since = max((at for at, (found, _) in enumerate(history) if found is Found.OPEN), default=-1) + 1
    told = [found for found, counts in history[since:] if counts]
    refused = history[-REFUSALS:] == [(Found.REFUSED, True)] * REFUSALS and (since > 0 or not alone)
    assert len(told) >= (REFUSALS if refused else ALONE if alone else ENOUGH)


@given(found=founds, before=histories)
def test_what_means_nothing_makes_nobody_dead(found: Found, before: list[tuple[Found, bool]]) -> None:
    history = [(each, False) for each, _ in before]
    assert opinion(*history, *[(found, False)] * 2 * ALONE).dead == frozenset()


@pytest.mark.parametrize(
    ("answered", "alone", "refusals", "silences"),
    [
        (False, False, REFUSALS, ENOUGH),
        (True, False, REFUSALS, ENOUGH),
        (True, True, REFUSALS, ALONE),
        (False, True, ALONE, ALONE),
    ],
)
def test_a_refusal_is_believed_sooner_than_silence(
    *, answered: bool, alone: bool, refusals: int, silences: int
) -> None:
    before = [(Found.OPEN, False)] if answered else []
    for found, needed in ((Found.REFUSED, refusals), (Found.SILENT, silences)):
        assert ONE not in opinion(*before, *[(found, True)] * (needed - 1), alone=alone).dead
        assert ONE in opinion(*before, *[(found, True)] * needed, alone=alone).dead


def test_one_refusal_among_silences_is_not_the_beginning_of_the_next() -> None:
    refused, silent = (Found.REFUSED, True), (Found.SILENT, True)
    assert opinion(refused, refused, silent, refused).dead == frozenset()
    assert opinion(refused, refused, (Found.REFUSED, False), refused).dead == frozenset()


@given(
    others=st.lists(st.one_of(st.none(), founds), max_size=3),
    answered=st.booleans(),
    careful=st.booleans(),
    serving=st.booleans(),
)
def test_a_failure_means_something_where_others_open_and_who_never_answered_needs_all(
    *, others: list[Found | None], answered: bool, careful: bool, serving: bool
) -> None:
    means = means_something(others, answered=answered, careful=careful, serving=serving)
    if Found.OPEN not in others:
        assert not means, "the director reaches nobody"
    elif answered or not careful:
        assert means
    else:
        assert means is (serving and set(others) == {Found.OPEN})

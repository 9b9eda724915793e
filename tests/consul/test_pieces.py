"""What is the same bytes as the last time is not read again, and what is decoded is what it would be without that."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvsctl.consul import decode
from lvsctl.consul.decode import decode_answer
from lvsctl.consul.pieces import Kept, Pieces
from lvsctl.core.instance import Answer, Query
from lvsctl.errors import ConsulError

QUERY = Query(service="reco")


def entry(number: int, tag: str = "", service: str = "reco") -> dict[str, Any]:
    """Return what Consul sends of one instance."""
    return {
        "Node": {"Node": f"app{number}", "Address": f"10.0.0.{number}"},
        "Service": {"ID": f"reco-{number}", "Service": service, "Port": 80, "Tags": [tag]},
        "Checks": [],
    }


good = st.builds(entry, st.integers(1, 9), st.sampled_from(("", "v1", "v2", "\N{GRINNING FACE}")))
bad = st.sampled_from((7, [], {}, "reco", entry(3, service="search"), {"Node": {"Node": "app1"}}))
bodies = st.builds(
    lambda entries, blank, cut: blank.join(json.dumps(entries)[:cut]).encode(),
    st.lists(st.one_of(good, good, good, bad), max_size=8),
    st.just(""),
    st.sampled_from((None, None, None, None, -1, -20)),
)


def said(body: bytes, pieces: Pieces | None) -> Answer | str:
    """Return what `body` says, or why it says nothing."""
    try:
        return decode_answer(body, index=7, query=QUERY, pieces=pieces)
    except ConsulError as error:
        return str(error)


@settings(max_examples=400, deadline=None)
@given(told=st.lists(bodies, max_size=6))
def test_every_answer_is_what_it_would_be_without_the_one_before(told: list[bytes]) -> None:
    pieces = Pieces()
    for body in told:
        assert said(body, pieces) == said(body, None)


numbers = st.lists(st.integers(1, 30), unique=True).map(sorted)  # Consul's order stays as it is


@given(before=numbers, now=numbers, changed=st.frozensets(st.integers(1, 30)))
def test_what_is_at_its_place_is_not_read(before: list[int], now: list[int], changed: frozenset[int]) -> None:
    pieces, read = Pieces(), set()
    decode_answer(json.dumps([entry(number) for number in before]).encode(), index=1, pieces=pieces)
    second = json.dumps([entry(number, "v2" if number in changed else "") for number in now]).encode()
    with pytest.MonkeyPatch.context() as patched:

        def counted(value: object, number: int) -> object:
            read.add(now[number - 1])
            return plain(value, number)

        plain = decode._decode  # noqa: SLF001  # what it does is to be counted
        patched.setattr(decode, "_decode", counted)
        decode_answer(second, index=2, pieces=pieces)
    same = {number for number in now if number in before and number not in changed}
    in_step = {number for number in same if before.index(number) == 0 or before[before.index(number) - 1] in same}
    assert not read & in_step, "read anew is at most the first behind some that went or changed"


def test_bytes_that_only_begin_as_an_entry_did_are_read() -> None:
    pieces = Pieces()
    decode_answer(b"[" + json.dumps(entry(1)).encode() + b"]", index=1, pieces=pieces)
    with contextlib.suppress(ConsulError):
        decode_answer(b"[" + json.dumps(entry(1)).encode() + b"1]", index=1, pieces=pieces)
        raise AssertionError("what stands behind it was not seen")


def test_an_answer_that_breaks_off_is_not_the_last_one() -> None:
    pieces, whole = Pieces(), json.dumps([entry(1), entry(2)]).encode()
    decode_answer(whole, index=1, pieces=pieces)
    size = pieces.size
    assert size == len(json.dumps(entry(1))) + len(json.dumps(entry(2)))
    with pytest.raises(ConsulError):
        decode_answer(whole[:-3], index=1, pieces=pieces)
    assert pieces.size == size
    assert len(decode_answer(whole, index=1, pieces=pieces).instances) == 2


def test_no_more_is_kept_than_is_allowed_and_the_oldest_goes_first() -> None:
    body = json.dumps([entry(1)]).encode()
    each = len(body) - 2
    kept = Kept(most=2 * each)
    queries = [Query(service=name) for name in ("feature", "search", "reco")]
    for query in (*queries[:2], queries[0], queries[2]):
        decode_answer(body, index=1, pieces=kept.of(query))
        kept.tidy()
    assert [kept.of(query).size for query in queries] == [each, 0, each]
    lone = Kept(most=each - 1)
    decode_answer(body, index=1, pieces=lone.of(QUERY))
    lone.tidy()
    assert lone.of(QUERY).size == 0

"""The snapshot as bytes: what goes in comes out, and nothing else ever does."""

import hashlib
import json
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.core.instance import Answer, Answers, Query
from lvsctl.snapshot_format import MAGIC, MAX_OUTPUT, VERSION, Unusable, decode, encode, shortened
from tests.strategies import answers
from tests.values import failing, instance

HERE = "http://127.0.0.1:8500"
RECO = Query(service="reco")
texts = st.text(max_size=12)
snapshots = st.dictionaries(
    st.builds(Query, service=texts, datacenter=texts, near=texts),
    st.builds(
        lambda answer, said, filtered: attrs.evolve(answer, snapshot=said, filtered=filtered),
        answers,
        st.floats(0, 1e10),
        st.booleans(),
    ),
    max_size=3,
)
SMALL = encode(HERE, {RECO: Answer(instances=(failing(1, meta={"a": "ö"}),), index=7, snapshot=1.5)})[0]


def signed(body: bytes, *, version: int = VERSION) -> bytes:
    """Return `body` below a first line that is right."""
    return b"%s %d %s\n%s" % (MAGIC, version, hashlib.sha256(body).hexdigest().encode(), body)


@given(snapshot=snapshots)
def test_what_goes_in_comes_out(snapshot: Answers) -> None:
    content, known = encode(HERE, snapshot)
    assert decode(content, HERE) == snapshot
    assert encode(HERE, snapshot, known)[0] == content


@given(before=snapshots, after=snapshots)
def test_what_is_remembered_of_an_earlier_snapshot_changes_nothing(before: Answers, after: Answers) -> None:
    _, known = encode(HERE, before)
    assert encode(HERE, after, known)[0] == encode(HERE, after)[0]


@given(content=st.binary(max_size=200))
def test_any_bytes_are_unusable(content: bytes) -> None:
    with pytest.raises(Unusable):
        decode(content, HERE)


def test_a_snapshot_cut_anywhere_is_unusable() -> None:
    for length in range(len(SMALL)):
        with pytest.raises(Unusable):
            decode(SMALL[:length], HERE)


def test_a_snapshot_with_any_byte_changed_is_unusable() -> None:
    for place in range(len(SMALL)):
        for flip in (0x01, 0x20, 0x80, 0xFF):
            with pytest.raises(Unusable):
                decode(SMALL[:place] + bytes([SMALL[place] ^ flip]) + SMALL[place + 1 :], HERE)


def test_a_snapshot_with_something_behind_it_is_unusable() -> None:
    with pytest.raises(Unusable, match="checksum"):
        decode(SMALL + b"\n", HERE)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(data=st.data(), value=plain)
def test_a_wrong_value_anywhere_is_unusable_or_read_as_what_it_is(data: st.DataObject, value: object) -> None:
    """Whoever can sign it can write what he likes; it must not become a value of another type, nor an exception."""
    document = json.loads(SMALL.partition(b"\n")[2])
    holder: Any = document
    while True:
        place = data.draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder))))
        if not isinstance(holder[place], dict | list) or not holder[place] or data.draw(st.booleans()):
            holder[place] = value
            break
        holder = holder[place]
    try:
        found = decode(signed(json.dumps(document).encode()), HERE)
    except Unusable:
        return
    assert decode(encode(HERE, found)[0], HERE) == {query: shortened(answer) for query, answer in found.items()}
    for answer in found.values():
        assert all(0 <= each.port <= 65535 and 0 <= each.weight <= 65535 for each in answer.instances)


@pytest.mark.parametrize("body", [b"", b"3", b"[]", b"null", b"{}", b"[" * 10**5, b"\xff", b'{"consul": 3}'])
def test_a_signed_body_of_something_else_is_unusable(body: bytes) -> None:
    with pytest.raises(Unusable, match="damaged"):
        decode(signed(body), HERE)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a snapshot of lvsctl, or it is damaged"),
        (b'{"version": 1}', "not a snapshot of lvsctl, or it is damaged"),
        (signed(b"{}", version=2), "it has format 2, of a newer lvsctl; this one reads 1"),
        (signed(b"{}", version=0), "it has format 0, of an older lvsctl; this one reads 1"),
        (SMALL[:-1], "its checksum is wrong"),
        (
            encode("http://10.0.0.1:8500", {})[0],
            r"of another Consul \(http://10.0.0.1:8500\); consul.address is http://",
        ),
    ],
)
def test_the_reason_is_said(content: bytes, reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        decode(content, HERE)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"port":8080', b'"port":65536'),
        (b'"port":8080', b'"port":-1'),
        (b'"port":8080', b'"port":true'),
        (b'"port":8080', b'"port":"80"'),
        (b'"weight":1', b'"weight":65536'),
        (b'"warning_weight":1', b'"warning_weight":-1'),
        (b'"said":1.5', b'"said":NaN'),
        (b'"said":1.5', b'"said":null'),
        (b'"health":"critical"', b'"health":"well"'),
    ],
)
def test_a_signed_value_that_consul_could_not_have_given_spoils_it_all(before: bytes, after: bytes) -> None:
    body = SMALL.partition(b"\n")[2]
    assert before in body
    with pytest.raises(Unusable, match="damaged"):
        decode(signed(body.replace(before, after, 1)), HERE)


def test_of_what_a_check_prints_the_first_words_are_kept() -> None:
    answer = Answer(instances=(failing(1, output="x" * 5000), instance(2)), snapshot=1.0)
    (found,) = decode(encode(HERE, {RECO: answer})[0], HERE).values()
    assert found.instances[0].checks[0].output == "x" * MAX_OUTPUT
    assert found == shortened(answer)


def test_a_file_of_another_machine_is_foreign_where_both_are_known() -> None:
    answers = {RECO: Answer(instances=(failing(1),), snapshot=1.5)}
    content, _ = encode(HERE, answers, machine="1" * 32)
    assert decode(content, HERE, machine="1" * 32) == decode(content, HERE) != {}
    with pytest.raises(Unusable, match="it is of another machine"):
        decode(content, HERE, machine="2" * 32)
    unknown, _ = encode(HERE, answers)
    assert decode(unknown, HERE, machine="2" * 32) == decode(content, HERE)

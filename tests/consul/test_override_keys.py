"""Overrides in Consul's KV: whatever stands there, only what is one counts, and the rest is ignored with its reason."""

import json
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.consul.override_keys import (
    MAX_KEYS,
    MAX_VALUE,
    decode_overrides,
    encode_overrides,
    folder_of,
    key_of,
    value_of,
)
from lvsctl.core.override import MAX_SELECTOR, MAX_WORDS, WHOLE, Fixed, Override, Overrides, Percent
from lvsctl.errors import ConsulError

texts = st.text(st.characters(codec="utf-8"), max_size=MAX_WORDS)
times = st.none() | st.floats(1, 1e10) | st.integers(1, 10**10).map(float)
overrides = st.builds(
    Override,
    virtual_server=st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}", fullmatch=True),
    selector=st.text(st.characters(codec="utf-8"), min_size=1, max_size=MAX_SELECTOR),
    share=st.builds(Percent, st.integers(0, WHOLE)) | st.builds(Fixed, st.integers(0, 65535)),
    by=texts,
    reason=texts,
    until=times,
    written=times,
    created=st.integers(1, 2**63),
    modified=st.integers(1, 2**63),
)


def listed(value: object, key: str = "lvsctl/weights/reco/v2", **more: Any) -> dict[str, Any]:  # noqa: ANN401  JSON
    """Return an entry as Consul lists it; a text is the value as it is, all else becomes JSON."""
    raw = value if isinstance(value, bytes) else (value if isinstance(value, str) else json.dumps(value)).encode()
    return {"Key": key, "Value": b64encode(raw).decode(), "CreateIndex": 5, "ModifyIndex": 7, "Flags": 0, **more}


def decoded(*entries: object) -> Overrides:
    return decode_overrides(json.dumps(entries).encode(), "lvsctl")


def why(entry: object) -> str:
    """Return why the only entry is ignored; the one beside it counts."""
    found = decoded(entry, listed({"share": "10"}, "lvsctl/weights/shop/v3"))
    assert [each.virtual_server for each in found.entries] == ["shop"]
    (ignored,) = found.ignored
    assert len(ignored.why) < 400
    return ignored.why


@given(each=overrides)
def test_what_is_written_is_read(each: Override) -> None:
    assert decode_overrides(encode_overrides(Overrides(entries=(each,)), "a/b"), "a/b") == Overrides(entries=(each,))


@given(first=overrides, second=overrides)
def test_two_selectors_never_share_a_key(first: Override, second: Override) -> None:
    one, other = (key_of("lvsctl", each.virtual_server, each.selector) for each in (first, second))
    same = (first.virtual_server, first.selector) == (second.virtual_server, second.selector)
    assert (one == other) == same
    assert one.isascii()
    assert one.count("/") == 3


@given(body=st.binary(max_size=300))
def test_any_bytes_are_read_or_are_no_answer(body: bytes) -> None:
    try:
        decode_overrides(body, "lvsctl")
    except ConsulError as error:
        assert len(str(error)) < 300  # noqa: PT017  most bytes are no list, and some are


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(("share", "until", "by", "x")), inner),
    max_leaves=6,
)


@given(value=json_values | st.binary(max_size=40))
def test_whatever_is_in_a_value_nothing_else_suffers(value: object) -> None:
    other = listed({"share": "10"}, "lvsctl/weights/shop/v3")
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    found = decoded(listed(raw), other)
    assert "shop" in {each.virtual_server for each in found.entries}
    assert len(found.entries) + len(found.ignored) == 2


@given(entry=json_values)
def test_whatever_is_in_the_list_nothing_else_suffers(entry: object) -> None:
    found = decoded(entry, listed({"share": "10"}, "lvsctl/weights/shop/v3"))
    assert [each.virtual_server for each in found.entries] == ["shop"]
    assert len(found.ignored) == 1


def test_a_person_may_write_one_by_hand() -> None:
    (found,) = decoded(listed({"share": "5%"})).entries
    assert found == Override(
        virtual_server="reco", selector="v2", share=Percent(500), by="", reason="", created=5, modified=7
    )


def test_they_count_in_the_order_in_which_they_were_made() -> None:
    made = [listed({"share": "1%"}, f"lvsctl/weights/reco/v{number}", CreateIndex=9 - number) for number in range(5)]
    assert [each.selector for each in decoded(*made).entries] == ["v4", "v3", "v2", "v1", "v0"]
    assert decoded(*made) == decoded(*reversed(made))


def test_the_folder_itself_is_nothing() -> None:
    assert decoded({"Key": "lvsctl/weights/", "Value": None, "CreateIndex": 1, "ModifyIndex": 1}) == Overrides()
    assert decode_overrides(b"[]", "lvsctl") == Overrides()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"share": "101%"}, "share is '101%': it is not a share"),
        ({"share": "\u0665%"}, "share is '\u0665%': it is not a share"),
        ({"share": 5}, "share is no text"),
        ({}, "share is None: it is not a share"),
        ({"share": "5%", "until": -1}, "until is no time in Unix seconds"),
        ({"share": "5%", "until": "14:00"}, "until is no time in Unix seconds"),
        ({"share": "5%", "until": True}, "until is no time in Unix seconds"),
        ({"share": "5%", "until": 1e11}, "until is no time in Unix seconds"),
        ('{"share": "5%", "until": 1e999}', "until is no time in Unix seconds"),
        ({"share": "5%", "until": 10**400}, "until is no time in Unix seconds"),
        ({"share": "5%", "written": -(10**400)}, "written is no time in Unix seconds"),
        ('{"share": "5%", "until": NaN}', "its value is not JSON"),
        ('{"share": "5%", "share": "100%"}', "its value is not JSON"),
        ({"share": "5%", "untill": 1}, "its value says 'untill', which is not known here"),
        ({"share": "5%", "by": "x" * (MAX_WORDS + 1)}, "by is no text of at most 200 characters"),
        ({"share": "5%", "reason": ["x"]}, "reason is no text of at most 200 characters"),
        ('{"share": "5%", "by": "\\ud800"}', "by is no text of at most 200 characters"),
        ("[" * 3000, "its value is not JSON"),
        ("5%", "its value is not JSON"),
        ("null", "its value is not a JSON object"),
        (b"\xff", "its value is not JSON"),
        ({"share": "5%", "reason": "x" * MAX_VALUE}, f"it has no value, or one of more than {MAX_VALUE} bytes"),
    ],
)
def test_a_value_that_is_none_is_ignored_alone_with_the_reason(value: object, reason: str) -> None:
    assert why(listed(value)).startswith(reason)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("lvsctl/weights/reco", "its name is not PREFIX/weights/VIRTUAL_SERVER/SELECTOR"),
        ("lvsctl/weights/re co/v2", "its name is not PREFIX/weights/VIRTUAL_SERVER/SELECTOR"),
        ("lvsctl/weights//v2", "its name is not PREFIX/weights/VIRTUAL_SERVER/SELECTOR"),
        ("lvsctl/weights/reco/", "its selector has 0 characters"),
        ("lvsctl/weights/reco/a/b", "its selector is not spelled as lvsctl spells it"),
        ("lvsctl/weights/reco/!76", "its selector is not spelled as lvsctl spells it"),
        ("lvsctl/weights/reco/a%20b", "its selector is not spelled as lvsctl spells it"),
        ("lvsctl/weights/reco/!FF", "its selector is not UTF-8"),
        ("lvsctl/weights/reco/a b", "its selector is not spelled as lvsctl spells it"),
        ("lvsctl/weights/reco/" + "x" * 256, "its selector has 256 characters"),
        ("other/weights/reco/v2", "it is no key below lvsctl/weights/"),
        ("", "it is no key below lvsctl/weights/"),
        ("lvsctl/weights/reco/\ud800", "its selector is not spelled as lvsctl spells it"),
    ],
)
def test_a_key_that_is_none_is_ignored_alone_with_the_reason(key: str, reason: str) -> None:
    assert why(listed({"share": "5%"}, key)).startswith(reason)


@pytest.mark.parametrize("value", [None, 5, "***", "=", {}])
def test_a_value_that_consul_would_not_send_is_ignored_alone(value: object) -> None:
    assert why({**listed("x"), "Value": value})


def test_more_keys_than_anybody_writes_are_no_answer() -> None:
    entry = json.dumps(listed({"share": "5%"})).encode()
    with pytest.raises(ConsulError, match="more than 1000 keys below lvsctl/weights/"):
        decode_overrides(b"[" + b",".join([entry] * (MAX_KEYS + 1)) + b"]", "lvsctl")


@pytest.mark.parametrize("body", [b"", b"{}", b"[", b"null", b'[{"Key":'])
def test_what_is_no_list_is_no_answer(body: bytes) -> None:
    with pytest.raises(ConsulError, match="answer is not a JSON list"):
        decode_overrides(body, "lvsctl")


def test_the_key_is_one_that_a_person_can_read() -> None:
    assert key_of("lvsctl", "reco", "v2") == "lvsctl/weights/reco/v2"
    assert key_of("a/b", "reco", "version=2") == "a/b/weights/reco/version=2"
    assert key_of("lvsctl", "reco", "a/b c%") == "lvsctl/weights/reco/a!2Fb!20c!25"
    assert folder_of("lvsctl") == "lvsctl/weights/"
    assert json.loads(value_of(Override(virtual_server="reco", selector="v2", share=Percent(500)))) == {
        "share": "5%", "by": "", "reason": "", "until": None, "written": None,
    }  # fmt: skip

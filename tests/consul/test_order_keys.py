"""Fleet orders in Consul's KV: whatever stands there, only what is one counts, and the rest is ignored, and why."""

import json
from base64 import b64encode
from ipaddress import ip_address
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.consul.kv_values import MAX_VALUE
from lvsctl.consul.order_keys import (
    MAX_KEYS,
    decode_orders,
    encode_orders,
    folder_of,
    key_of,
    unwritable,
    value_of,
)
from lvsctl.core.fleet import NO_FLEET_ORDERS, FleetOrder, FleetOrders
from lvsctl.core.order import (
    LONGEST_PAUSE,
    MAX_BY,
    MAX_ORDERS,
    MAX_TARGET,
    MAX_WORDS,
    AtAddress,
    AtPort,
    Drain,
    Hold,
    OneInstance,
    OnNode,
    Order,
    Pause,
    Target,
    What,
)
from lvsctl.errors import ConsulError
from tests.values import NOW

characters = st.characters(codec="utf-8")
names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}", fullmatch=True)
words = st.sampled_from(["app1", "a/b", "..", ".", "%2F", "!2F", " ", "\N{SNOWMAN}"]) | st.text(
    characters, min_size=1, max_size=20
)
addresses = st.ip_addresses().filter(lambda each: each.version == 4 or not (each.ipv4_mapped or each.scope_id))
targets: st.SearchStrategy[Target] = st.one_of(
    st.builds(AtAddress, addresses),
    st.builds(AtPort, addresses, st.integers(0, 65535)),
    st.builds(OnNode, words),
    st.builds(OneInstance, words, words),
)
whats: st.SearchStrategy[What] = st.one_of(
    st.builds(Drain, targets), st.builds(Hold, names), st.builds(Pause, names | st.just(""))
)
times = st.floats(1, 1e10) | st.integers(1, 10**10).map(float)


@st.composite
def fleet_orders(draw: st.DrawFn) -> FleetOrder:
    what, written = draw(whats), draw(times)
    until = draw(times | st.none())
    if isinstance(what, Pause):
        until = written + draw(st.floats(1, LONGEST_PAUSE) | st.just(LONGEST_PAUSE))
    by, reason = draw(st.text(characters, min_size=1, max_size=MAX_BY)), draw(st.text(characters, max_size=MAX_WORDS))
    order = Order(what=what, by=by, reason=reason, written=written, until=until, fleet=True)
    return FleetOrder(order=order, created=draw(st.integers(1, 2**63)), modified=draw(st.integers(1, 2**63)))


def listed(value: object, key: str = "lvsctl/orders/drain/node/app1", **more: Any) -> dict[str, Any]:  # noqa: ANN401  JSON
    """Return an entry as Consul lists it; a text is the value as it is, all else becomes JSON."""
    raw = value if isinstance(value, bytes) else (value if isinstance(value, str) else json.dumps(value)).encode()
    return {"Key": key, "Value": b64encode(raw).decode(), "CreateIndex": 5, "ModifyIndex": 7, "Flags": 0, **more}


OTHER = listed({}, "lvsctl/orders/hold/shop")


def decoded(*entries: object) -> FleetOrders:
    return decode_orders(json.dumps(entries).encode(), "lvsctl")


def why(entry: object) -> str:
    """Return why the only entry is ignored; the one beside it counts."""
    found = decoded(entry, OTHER)
    assert [each.order.what for each in found.entries] == [Hold("shop")]
    (ignored,) = found.ignored
    assert len(ignored.why) < 400
    return ignored.why


@given(each=fleet_orders())
def test_what_is_written_is_read(each: FleetOrder) -> None:
    assert decode_orders(encode_orders(FleetOrders(entries=(each,)), "a/b"), "a/b") == FleetOrders(entries=(each,))
    assert unwritable(each.order, "a/b") == ""


@given(first=whats, second=whats)
def test_two_orders_never_share_a_key(first: What, second: What) -> None:
    one, other = key_of("lvsctl", first), key_of("lvsctl", second)
    assert (one == other) == (first == second)
    assert one.isascii()
    assert "//" not in one


@given(body=st.binary(max_size=300))
def test_any_bytes_are_read_or_are_no_answer(body: bytes) -> None:
    try:
        decode_orders(body, "lvsctl")
    except ConsulError as error:
        assert len(str(error)) < 300  # noqa: PT017  most bytes are no list, and some are


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(("by", "until", "reason", "x")), inner),
    max_leaves=6,
)
paths = st.lists(
    st.sampled_from(
        ["drain", "hold", "pause", "address", "node", "instance", "10.0.0.1", "app1", "", "!zz", "..", "x"]
    ),
    max_size=5,
)


@given(value=json_values | st.binary(max_size=40), path=paths)
def test_whatever_is_in_a_key_nothing_else_suffers(value: object, path: list[str]) -> None:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    key = "lvsctl/orders/" + "/".join(path)
    found = decoded(listed(raw, key), OTHER)
    assert Hold("shop") in {each.order.what for each in found.entries}
    assert len(found.entries) + len(found.ignored) == 2 - (key == "lvsctl/orders/")
    assert all(each.order.fleet and unwritable(each.order, "lvsctl") == "" for each in found.entries)


@given(entry=json_values)
def test_whatever_is_in_the_list_nothing_else_suffers(entry: object) -> None:
    found = decoded(entry, OTHER)
    assert [each.order.what for each in found.entries] == [Hold("shop")]
    assert len(found.ignored) == 1


@given(each=fleet_orders(), cut=st.data())
def test_half_of_a_value_is_no_order(each: FleetOrder, cut: st.DataObject) -> None:
    value = value_of(each.order)
    half = value[: cut.draw(st.integers(0, len(value) - 1))]
    found = decoded(listed(half, key_of("lvsctl", each.order.what)))
    assert found.entries == ()
    assert len(found.ignored) == 1


def test_a_person_may_write_one_by_hand() -> None:
    (found,) = decoded(listed({})).entries
    order = Order(what=Drain(OnNode("app1")), by="somebody", reason="", written=0.0, until=None, fleet=True)
    assert found == FleetOrder(order=order, created=5, modified=7)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"until": -1}, "until is no time in Unix seconds"),
        ({"until": "14:00"}, "until is no time in Unix seconds"),
        ({"until": True}, "until is no time in Unix seconds"),
        ({"until": 10**400}, "until is no time in Unix seconds"),
        ('{"until": 1e999}', "until is no time in Unix seconds"),
        ('{"until": NaN}', "its value is not JSON"),
        ('{"by": "a", "by": "b"}', "its value is not JSON"),
        ({"untill": 1}, "its value says 'untill', which is not known here"),
        ({"by": "x" * (MAX_BY + 1)}, "by is no text of at most 100 characters"),
        ({"reason": ["x"]}, "reason is no text of at most 200 characters"),
        ('{"reason": "\\ud800"}', "reason is no text of at most 200 characters"),
        ("[" * 3000, "its value is not JSON"),
        ("", "its value is not JSON"),
        ("null", "its value is not a JSON object"),
        (b"\xff", "its value is not JSON"),
        ({"reason": "x" * MAX_VALUE}, f"it has no value, or one of more than {MAX_VALUE} bytes"),
    ],
)
def test_a_value_that_is_none_is_ignored_alone_with_the_reason(value: object, reason: str) -> None:
    assert why(listed(value)).startswith(reason)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("quarantine/node/app1", "this version of lvsctl knows no order 'quarantine'"),
        ("drain", "its name is not PREFIX/orders/drain/ with address/ADDRESS, node/NODE or instance/NODE/ID"),
        ("drain/rack/7", "its name is not PREFIX/orders/drain/ with"),
        ("drain/node/a/b", "its name is not PREFIX/orders/drain/ with"),
        ("drain/node/", "its node has 0 characters, expected 1 to 600"),
        ("drain/node/" + "x" * (MAX_TARGET + 1), "its node has 601 characters"),
        ("drain/node/!61", "its name is not spelled as lvsctl spells it"),
        ("drain/node/a b", "its name is not spelled as lvsctl spells it"),
        ("drain/node/!FF", "its node is not UTF-8"),
        ("drain/address/reco.example", "its address is none"),
        ("drain/address/10.0.0.1:99999", "its address is none"),
        ("drain/address/::ffff:10.0.0.1", "its name is not spelled as lvsctl spells it"),
        ("drain/address/FD00::1", "its name is not spelled as lvsctl spells it"),
        ("hold", "its name is not PREFIX/orders/hold/VIRTUAL_SERVER"),
        ("hold/", "its name is not PREFIX/orders/hold/VIRTUAL_SERVER"),
        ("hold/re co", "its name is not PREFIX/orders/hold/VIRTUAL_SERVER"),
        ("pause/a/b", "its name is not PREFIX/orders/pause/VIRTUAL_SERVER"),
        ("\ud800", "this version of lvsctl knows no order"),
    ],
)
def test_a_key_that_is_none_is_ignored_alone_with_the_reason(path: str, reason: str) -> None:
    assert why(listed({}, f"lvsctl/orders/{path}")).startswith(reason)


@pytest.mark.parametrize("key", ["other/orders/hold/reco", "lvsctl/order", ""])
def test_a_key_from_elsewhere_is_ignored(key: str) -> None:
    assert why(listed({}, key)) == "it is no key below lvsctl/orders/"


@pytest.mark.parametrize("path", ["pause", "pause/reco"])
@pytest.mark.parametrize(
    ("value", "counts"),
    [
        ({}, False),
        ({"until": NOW}, False),
        ({"written": NOW}, False),
        ({"written": NOW, "until": NOW + LONGEST_PAUSE + 1}, False),
        ({"written": NOW, "until": NOW + LONGEST_PAUSE}, True),
        ({"written": 180404.840987, "until": 180404.840987 + LONGEST_PAUSE}, True),  # the difference is a little more
    ],
)
def test_a_pause_always_ends(path: str, value: object, *, counts: bool) -> None:
    entry = listed(value, f"lvsctl/orders/{path}")
    if counts:
        assert len(decoded(entry).entries) == 1
    else:
        assert why(entry) == "a pause has to end (until) 24 h after it was written, or before"


@pytest.mark.parametrize("value", [None, 5, "***", "=", {}])
def test_a_value_that_consul_would_not_send_is_ignored_alone(value: object) -> None:
    assert why({**listed("x"), "Value": value})


def test_no_more_orders_count_than_there_may_be_the_oldest_do() -> None:
    made = [
        listed({}, f"lvsctl/orders/drain/node/app{number}", CreateIndex=2 * MAX_ORDERS - number)
        for number in range(MAX_ORDERS + 2)
    ]
    found = decoded(*made)
    assert len(found.entries) == MAX_ORDERS
    assert {each.key.rpartition("/")[2]: each.why for each in found.ignored} == dict.fromkeys(
        ("app0", "app1"), "there are 500 older orders, and no more count"
    )
    assert decoded(*reversed(made)) == found


def test_more_keys_than_anybody_writes_are_no_answer() -> None:
    entry = json.dumps(OTHER).encode()
    with pytest.raises(ConsulError, match="more than 1000 keys below lvsctl/orders/; the last ones count"):
        decode_orders(b"[" + b",".join([entry] * (MAX_KEYS + 1)) + b"]", "lvsctl")


def test_a_key_that_is_there_twice_counts_once() -> None:
    found = decoded(OTHER, OTHER)
    assert [each.why for each in found.ignored] == ["it is there twice"]
    assert len(found.entries) == 1


@pytest.mark.parametrize("body", [b"", b"{}", b"[", b"null", b'[{"Key":'])
def test_what_is_no_list_is_no_answer(body: bytes) -> None:
    with pytest.raises(ConsulError, match="answer is not a JSON list"):
        decode_orders(body, "lvsctl")


def test_the_folder_itself_is_nothing() -> None:
    assert decoded({"Key": "lvsctl/orders/", "Value": None, "CreateIndex": 1, "ModifyIndex": 1}) == NO_FLEET_ORDERS
    assert decode_orders(b"[]", "lvsctl") == NO_FLEET_ORDERS


@pytest.mark.parametrize(
    ("what", "key"),
    [
        (Drain(AtAddress(ip_address("10.0.0.1"))), "drain/address/10.0.0.1"),
        (Drain(AtPort(ip_address("10.0.0.1"), 80)), "drain/address/10.0.0.1:80"),
        (Drain(AtPort(ip_address("fd00::1"), 80)), "drain/address/!5Bfd00::1!5D:80"),
        (Drain(OnNode("app1")), "drain/node/app1"),
        (Drain(OneInstance("app1", "reco/1")), "drain/instance/app1/reco!2F1"),
        (Hold("reco"), "hold/reco"),
        (Pause("reco"), "pause/reco"),
        (Pause(), "pause"),
    ],
)
def test_the_key_is_one_that_a_person_can_read(what: What, key: str) -> None:
    assert key_of("lvsctl", what) == folder_of("lvsctl") + key == f"lvsctl/orders/{key}"


def test_what_no_director_could_read_is_not_written() -> None:
    order = Order(what=Hold("reco"), by="alice@adm1", written=NOW, fleet=True)
    assert unwritable(order, "lvsctl") == ""
    surrogate = attrs.evolve(order, what=Drain(OnNode("\ud800")))
    assert unwritable(surrogate, "lvsctl") == "it would be read as another one"
    assert unwritable(attrs.evolve(order, reason="\ud800"), "lvsctl").startswith("reason is no text")
    assert unwritable(attrs.evolve(order, what=Pause()), "lvsctl").startswith("a pause has to end")
    assert unwritable(attrs.evolve(order, fleet=False), "lvsctl") == "it would be read as another one"

"""Orders as values: what a drain means, which orders stand, and the bytes that keep them."""

import contextlib
import hashlib
from ipaddress import ip_address

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.core.admission import Admitted, parse_address
from lvsctl.core.desired import Member
from lvsctl.core.instance import Instance
from lvsctl.core.order import (
    LATELY,
    MAX_BY,
    MAX_ORDERS,
    MAX_TARGET,
    MAX_WORDS,
    NO_ORDERS,
    NOT_ORDERED,
    AtAddress,
    AtPort,
    Drain,
    Drains,
    Hold,
    OneInstance,
    OnNode,
    Order,
    Orders,
    Pause,
    Target,
    What,
    in_force,
    next_end,
    target_of,
)
from lvsctl.core.order_target import Known, Unresolved, resolve, resolve_ordered, spelled
from lvsctl.order_format import MAX_SIZE, UnreadableOrdersError, decode_orders, encode_orders
from netlink.types import RealServerKey
from tests.values import NOW, instance, real_key

addresses = st.sampled_from([ip_address(text) for text in ("10.0.0.1", "10.0.0.2", "fd00::1", "fd00::1:80")])
ports = st.sampled_from([0, 80, 8080])
names = st.sampled_from(["app1", "app2", "reco-1", "a/b", "1", "\ud800", ""]) | st.text(max_size=8)
targets: st.SearchStrategy[Target] = st.one_of(
    st.builds(AtAddress, addresses),
    st.builds(AtPort, addresses, ports),
    st.builds(OnNode, names),
    st.builds(OneInstance, names, names),
)
whats: st.SearchStrategy[What] = st.one_of(st.builds(Drain, targets), st.builds(Hold, names), st.builds(Pause, names))
times = st.floats(0, 4e9)
orders = st.builds(
    Orders,
    st.lists(
        st.builds(Order, what=whats, by=names, reason=st.text(max_size=20), written=times, until=st.none() | times),
        max_size=6,
        unique_by=lambda order: order.what,
    ).map(tuple),
)
instances = st.builds(
    instance,
    address=st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1", "::ffff:10.0.0.1", "reco.example"]),
    port=st.sampled_from([80, 8080]),
    node=st.sampled_from(["app1", "app2"]),
    instance_id=st.sampled_from(["reco-1", "app1", "1"]),
)


@given(orders=orders)
def test_what_is_written_is_read_again(orders: Orders) -> None:
    assert decode_orders(encode_orders(orders)) == orders


@given(orders=orders, data=st.data())
def test_a_file_that_is_not_whole_is_never_taken_for_fewer_orders(orders: Orders, data: st.DataObject) -> None:
    content = bytearray(encode_orders(orders))
    at = data.draw(st.integers(0, len(content) - 1))
    match data.draw(st.sampled_from(["cut", "changed", "more"])):
        case "cut":
            content = content[:at]
        case "changed":
            content[at] ^= data.draw(st.integers(1, 255))
        case _:
            content += b"\n"
    with pytest.raises(UnreadableOrdersError):
        decode_orders(bytes(content))


@given(content=st.binary(max_size=200))
def test_any_bytes_are_orders_or_our_error(content: bytes) -> None:
    with pytest.raises(UnreadableOrdersError):
        decode_orders(content)


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b"{}",
        b"[[]]",
        b"[" * 100_000,
        b'[{"order":"drain","by":"a","reason":"","written":1,"until":null}]',
        b'[{"order":"drain","node":"a","port":1,"by":"a","reason":"","written":1,"until":null}]',
        b'[{"order":"drain","address":"x","by":"a","reason":"","written":1,"until":null}]',
        b'[{"order":"drain","address":"10.0.0.1","port":65536,"by":"a","reason":"","written":1,"until":null}]',
        b'[{"order":"drain","address":"10.0.0.1","port":true,"by":"a","reason":"","written":1,"until":null}]',
        b'[{"order":"hold","by":"a","reason":"","written":1,"until":null}]',
        b'[{"order":"hold","virtual_server":7,"by":"a","reason":"","written":1,"until":null}]',
        b'[{"order":"rest","virtual_server":"a","by":"a","reason":"","written":1,"until":null}]',
        b'[{"order":"hold","virtual_server":"a","by":"a","reason":"","written":NaN,"until":null}]',
        b'[{"order":"hold","virtual_server":"a","by":"a","reason":"","written":1,"until":1e300}]',
        b'[{"order":"hold","virtual_server":"a","by":"a","reason":"","written":true,"until":null}]',
    ],
)
def test_what_is_whole_and_says_something_else_is_no_order(body: bytes) -> None:
    head = b"lvsctl-orders 1 " + hashlib.sha256(body).hexdigest().encode()
    with pytest.raises(UnreadableOrdersError, match="says what no lvsctl of this version writes"):
        decode_orders(head + b"\n" + body + b"\n")


def test_a_file_of_a_later_version_is_said_to_be_one() -> None:
    later = encode_orders(NO_ORDERS).replace(b"lvsctl-orders 1", b"lvsctl-orders 2")
    with pytest.raises(UnreadableOrdersError, match="another version of lvsctl wrote it"):
        decode_orders(later)


# --- what stands ----------------------------------------------------------------------------------------------------


@given(orders=orders, now=times)
def test_what_stands_is_what_is_not_over_and_the_next_end_is_when_that_changes(orders: Orders, now: float) -> None:
    standing = orders.standing(now)
    assert {each.what for each in standing.entries} == {
        each.what for each in orders.entries if each.until is None or each.until > now
    }
    end = next_end(orders, now)
    if end is None:
        assert in_force(orders, 5e9) == in_force(orders, now)
    else:
        assert end > now
        before = (end + now) / 2
        assert before == end or in_force(orders, before) == in_force(orders, now)


def test_one_that_ended_is_known_for_a_moment_and_no_clock_that_is_set_back_brings_it_back() -> None:
    order = Order(what=Drain(OnNode("app1")), by="alice", written=NOW, until=NOW)
    by_somebody = attrs.evolve(order, ended=True)
    for each in (order, by_somebody):
        assert in_force(Orders((each,)), NOW).drains == Drains((), (each,))
        assert in_force(Orders((each,)), NOW + LATELY).drains == Drains()
        assert next_end(Orders((each,)), NOW) == NOW + LATELY
    assert in_force(Orders((order,)), NOW - 10).drains == Drains((order,))
    assert in_force(Orders((by_somebody,)), NOW - 10).drains == Drains()


@given(orders=orders, what=whats)
def test_there_is_one_order_about_a_thing(orders: Orders, what: What) -> None:
    order = Order(what=what, by="alice", written=NOW)
    having = orders.having(order)
    assert having.of(what) == order
    assert having.entries[-1] == order
    assert having.without(what) == orders.without(what)
    assert orders.without(what).of(what) is None


@given(orders=orders, now=times, name=names)
def test_each_virtual_server_has_its_hold_and_the_wider_pause(orders: Orders, now: float, name: str) -> None:
    ordered = in_force(orders, now).on(name)
    standing = orders.standing(now)
    assert ordered.hold == standing.of(Hold(name))
    assert ordered.pause == (standing.of(Pause()) or standing.of(Pause(name)))
    assert (ordered is NOT_ORDERED) == (ordered.hold is None and ordered.pause is None)


def means(target: Target, each: Instance, key: RealServerKey | None) -> bool:
    """Tell whether `target` means the instance; written apart from the index that is under test."""
    address = parse_address(each.address)
    match target:
        case AtAddress():
            return address == target.address
        case AtPort():
            there = {(address, each.port)} | ({(key.address, key.port)} if key else set())
            return (target.address, target.port) in there
        case OnNode():
            return each.node == target.node
        case OneInstance():
            return (each.node, each.instance_id) == (target.node, target.instance)


@given(orders=orders, each=instances, kept=st.booleans())
def test_a_drain_is_found_for_just_the_instances_that_it_means(orders: Orders, each: Instance, *, kept: bool) -> None:
    address = parse_address(each.address)
    key = RealServerKey(address=address, port=each.port if kept else 80) if address else None
    drains = in_force(orders, -1.0).drains
    found = drains.of(each, address, key)
    meaning = [one for one in orders.entries if isinstance(one.what, Drain) and means(one.what.target, each, key)]
    assert (found in meaning) if meaning else found is None
    if key is not None:
        at = drains.at(key)
        assert at is None or at in meaning


@given(what=whats)
def test_words_name_it(what: What) -> None:
    assert str(what).endswith(target_of(what))
    order = Order(what=what, by="alice", reason="why not", written=NOW, until=NOW)
    assert order.words.endswith(" by alice until 1970-01-12 13:46 UTC: why not")


# --- what a word means ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("10.0.0.1", AtAddress(ip_address("10.0.0.1"))),
        ("10.0.0.1:80", AtPort(ip_address("10.0.0.1"), 80)),
        ("10.0.0.1:0", AtPort(ip_address("10.0.0.1"), 0)),
        ("::ffff:10.0.0.1", AtAddress(ip_address("10.0.0.1"))),
        ("fd00::1", AtAddress(ip_address("fd00::1"))),
        ("[fd00::1]", AtAddress(ip_address("fd00::1"))),
        ("[fd00::1]:80", AtPort(ip_address("fd00::1"), 80)),
        ("FD00::0:1", AtAddress(ip_address("fd00::1"))),
        ("fd00::1:80", AtAddress(ip_address("fd00::1:80"))),
        ("1:2:3:4:5:6:7:8:80", None),
        ("[10.0.0.1]:80", None),
        ("10.0.0.1:65536", None),
        ("10.0.0.1:", None),
        ("10.0.0.1:+1", None),
        ("10.0.0.1:٣", None),
        ("10.0.0.01", None),
        ("10.0.0", None),
        ("fe80::1%eth0", None),
        ("app1", None),
        ("app1:80", None),
        ("", None),
        (":80", None),
    ],
)
def test_addresses_are_read_as_people_write_them(word: str, meant: Target | None) -> None:
    assert spelled(word) == meant


def known(*these: Instance, names: frozenset[str] = frozenset({"reco"})) -> Known:
    members = tuple(
        Member(
            source=each, verdict=Admitted(key=RealServerKey(address=ip_address(each.address), port=each.port), weight=1)
        )
        for each in these
    )
    return Known(names=names, members=members, real_servers=frozenset({real_key(9)}))


@given(word=st.text(max_size=12) | st.sampled_from(["app1", "reco-1", "10.0.0.1", "10.0.0.9:8080", "app1/reco-1"]))
def test_a_word_means_something_that_is_there_or_is_refused(word: str) -> None:
    there = known(instance(1), instance(2), instance(3, node="app1", instance_id="app2"))
    with contextlib.suppress(Unresolved):
        target = resolve(word, there)
        drains = Drains((Order(what=Drain(target), by="", written=NOW),))
        of = [drains.of(each, ip_address(each.address), None) for each in there.instances]
        assert any(of) or drains.at(real_key(9))


def test_what_two_things_are_called_is_neither_unless_it_is_said_which() -> None:
    there = known(instance(1, node="both"), instance(2, instance_id="both"))
    with pytest.raises(Unresolved, match="'both' is 2 things; write which: app2/both, both --as node"):
        resolve("both", there)
    assert resolve("both", there, kind="node") == OnNode("both")
    assert resolve("both", there, kind="instance") == OneInstance("app2", "both")
    assert resolve("app2/both", there) == OneInstance("app2", "both")


def test_what_is_to_come_is_taken_ahead_where_it_says_what_it_is() -> None:
    there = known(instance(1))
    assert resolve("10.9.9.9:1", there, ahead=True) == AtPort(ip_address("10.9.9.9"), 1)
    assert resolve("app9", there, kind="node", ahead=True) == OnNode("app9")
    assert resolve("app9/x/y", there, kind="instance", ahead=True) == OneInstance("app9", "x/y")
    assert resolve("app1", there, ahead=True) == OnNode("app1"), "what is there needs no words"
    for word, kind in (("app9", ""), ("app9", "instance"), ("a/b", "node"), ("/x", "instance"), ("x/", "instance")):
        with pytest.raises(Unresolved):
            resolve(word, there, kind=kind, ahead=True)


def test_before_consul_has_answered_nobody_knows() -> None:
    silent = attrs.evolve(known(), answered=False, real_servers=frozenset())
    for word in ("app1", "10.0.0.1"):
        with pytest.raises(Unresolved, match="Consul has not answered yet"):
            resolve(word, silent)


def test_only_what_is_drained_is_undrained() -> None:
    there = known(instance(1), instance(2))
    entries = tuple(
        Order(what=Drain(target), by="alice", written=NOW)
        for target in (OnNode("app1"), AtAddress(ip_address("10.0.0.2")), OneInstance("app7", "gone"), OnNode("gone"))
    )
    assert resolve_ordered("app1", there, entries) == OnNode("app1")
    assert resolve_ordered("10.0.0.2", there, entries) == AtAddress(ip_address("10.0.0.2"))
    assert resolve_ordered("app7/gone", there, entries) == OneInstance("app7", "gone")
    assert resolve_ordered("gone", there, entries, kind="node") == OnNode("gone")
    for word, said in (
        ("gone", "'gone' is 2 drains; write which: app7/gone, gone --as node"),
        ("reco-2", r"'reco-2' is out by another drain: lvsctl undrain 10\.0\.0\.2"),
        ("10.0.0.1:8080", "is out by another drain: lvsctl undrain app1 --as node"),
        ("app2", r"is out by another drain: lvsctl undrain 10\.0\.0\.2"),
        ("app3", r"'app3' is not drained; drained: node app1, 10\.0\.0\.2, instance app7/gone, node gone"),
    ):
        with pytest.raises(Unresolved, match=said):
            resolve_ordered(word, there, entries)


def test_the_longest_orders_fit_into_the_file() -> None:
    longest = Order(
        what=Drain(OneInstance("\U0010ffff" * MAX_TARGET, "\U0010ffff" * MAX_TARGET)),
        by="\U0010ffff" * MAX_BY,
        reason="\U0010ffff" * MAX_WORDS,
        written=NOW + 0.123456,
        until=NOW + 0.123456,
    )
    assert MAX_ORDERS * len(encode_orders(Orders((longest,)))) < MAX_SIZE

"""What three lists of the catalogue say of what has changed."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.consul.changes import EVERYTHING, UNREAD, Changes, Listing, changes, decode_listing
from lvsctl.errors import ConsulError, ConsulUnreadable


def check(node: str, check_id: str, service: str = "", index: int = 1) -> dict[str, object]:
    return {"Node": node, "CheckID": check_id, "ServiceName": service, "ModifyIndex": index, "Status": "passing"}


CHECKS = [
    check("a", "serfHealth"),
    check("a", "reco-1", "reco"),
    check("b", "reco-2", "reco"),
    check("b", "shop", "shop"),
]
NODES = [{"Node": "a", "Address": "10.0.0.1", "ModifyIndex": 1}, {"Node": "b", "Address": "10.0.0.2", "ModifyIndex": 2}]
SERVICES = {"consul": [], "reco": ["v1"], "shop": []}


def changed(listing: Listing, before: object, now: object) -> Changes:
    was, is_now = (decode_listing(listing, json.dumps(each).encode()) for each in (before, now))
    return changes(listing, was, is_now)


@pytest.mark.parametrize(
    ("listing", "before", "now", "services", "nodes"),
    [
        (Listing.CHECKS, CHECKS, [*CHECKS[:3], check("b", "shop", "shop", 9)], {"shop"}, set()),
        (Listing.CHECKS, CHECKS, [check("a", "serfHealth", index=9), *CHECKS[1:]], set(), {"a"}),
        (Listing.CHECKS, CHECKS, CHECKS[:-1], {"shop"}, set()),
        (Listing.CHECKS, CHECKS, [*CHECKS, check("c", "mail", "mail")], {"mail"}, set()),
        (Listing.CHECKS, CHECKS, [*CHECKS[:3], check("b", "shop", "mail")], {"shop", "mail"}, set()),
        (Listing.CHECKS, CHECKS, [], {"reco", "shop"}, {"a"}),
        (Listing.CHECKS, CHECKS, CHECKS[::-1], set(), set()),
        (Listing.SERVICES, SERVICES, {**SERVICES, "reco": ["v2"]}, {"reco"}, set()),
        (Listing.SERVICES, SERVICES, {**SERVICES, "mail": []}, {"mail"}, set()),
        (Listing.SERVICES, SERVICES, {"consul": [], "reco": ["v1"]}, {"shop"}, set()),
        (Listing.NODES, NODES, [NODES[0], {**NODES[1], "ModifyIndex": 3}], set(), {"b"}),
        (Listing.NODES, NODES, NODES[1:], set(), {"a"}),
        (Listing.NODES, NODES, NODES, set(), set()),
    ],
)
def test_what_has_changed(listing: Listing, before: object, now: object, services: set[str], nodes: set[str]) -> None:
    everything = listing is Listing.SERVICES  # in the same moment a weight of another may have changed
    assert changed(listing, before, now) == Changes(frozenset(services), frozenset(nodes), everything)


@pytest.mark.parametrize("now", [["v1", "a b"], ["a b", "v1"]])
def test_services_that_moved_without_a_difference_are_everything(now: list[str]) -> None:
    """A weight, metadata, or one of several instances: none is listed. Tags have no order."""
    services = {**SERVICES, "reco": ["v1", "a b"]}
    assert changed(Listing.SERVICES, services, {**services, "reco": now}) == EVERYTHING


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda each: (
        st.lists(each, max_size=3)
        | st.dictionaries(st.sampled_from(["Node", "CheckID", "ServiceName", "ModifyIndex", "x"]), each, max_size=4)
    ),
    max_leaves=20,
)


@given(listing=st.sampled_from(Listing), one=anything, other=anything)
def test_any_json_is_read_or_refused(listing: Listing, one: object, other: object) -> None:
    with contextlib.suppress(ConsulError):
        found = changed(listing, one, one)
        assert found in (Changes(), EVERYTHING)
        changed(listing, one, other)


@pytest.mark.parametrize(
    ("listing", "good", "bad"),
    [
        (Listing.CHECKS, b'[{"Node":"a","CheckID":"c","ServiceName":"s"},%s]', b'{"Node":"\xff"}'),
        (Listing.CHECKS, b'[%s,{"Node":"a","CheckID":"c","ServiceName":"s"}]', b"[" * 5000 + b"]" * 5000),
        (Listing.NODES, b'[{"Node":"a"},%s]', b'{"Node":"' + b"n" * (1 << 20) + b'"}'),
        (Listing.SERVICES, b'{"s":[],%s}', b'"x":["\xff"]'),
        (Listing.SERVICES, b'{%s, "s" : [ ] }', b'"\xff":[]'),
        (Listing.SERVICES, b'{%s,"s":[]}', b'"x":' + b"[" * 5000 + b"]" * 5000),
    ],
)
def test_one_bad_entry_hides_no_other_and_may_have_changed(listing: Listing, good: bytes, bad: bytes) -> None:
    found = decode_listing(listing, good % bad)
    assert len(found) == 2
    assert UNREAD in found
    assert changes(listing, found, found) == EVERYTHING


@given(st.dictionaries(st.text(max_size=9), st.lists(st.text(max_size=9), max_size=3), max_size=9), st.booleans())
def test_services_are_those_that_json_has(services: dict[str, list[str]], ascii_only: bool) -> None:  # noqa: FBT001  drawn
    body = json.dumps(services, ensure_ascii=ascii_only, indent=1).encode("utf-8", "surrogatepass")
    found = decode_listing(Listing.SERVICES, body)
    assert found.keys() == {(name,) for name in services}
    again = json.dumps({name: tags[::-1] for name, tags in services.items()}).encode("utf-8", "surrogatepass")
    assert decode_listing(Listing.SERVICES, again) == found
    more = json.dumps({name: [*tags, ""] for name, tags in services.items()}).encode("utf-8", "surrogatepass")
    assert not services or decode_listing(Listing.SERVICES, more) != found


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b"3"])
@pytest.mark.parametrize("listing", Listing)
def test_what_is_no_list_is_an_error(listing: Listing, body: bytes) -> None:
    with pytest.raises(ConsulUnreadable, match="answer is not a JSON "):
        decode_listing(listing, body)

"""Glances, as values."""

from collections.abc import Hashable, Sequence

import pytest

from netlink.glance import Glance
from netlink.types import VirtualServer, VirtualServerKey

MARKS = {"web": 1, "dns": 2, "mail": 3, "tcp 80": 1, "udp 53": 2, "udp 54": 4}


def key_of(name: str) -> VirtualServerKey:
    return VirtualServerKey.by_mark(MARKS[name.removesuffix("!")])


def glance(
    virtual_servers: Sequence[str], names: Sequence[Hashable], real_servers: Sequence[Sequence[Hashable]]
) -> Glance:
    values = [VirtualServer(key=key_of(name)) for name in virtual_servers]
    return Glance(virtual_servers, names, real_servers, values=values, key_of=key_of)


NAMES = ("tcp 80", "udp 53")
ONE = glance(["web", "dns"], NAMES, [["a", "b"], ["c"]])
NONE = glance([], [], [])


@pytest.mark.parametrize(
    "other",
    [
        glance(("web", "dns"), [*NAMES], (("a", "b"), ("c",))),
        glance(["dns", "web"], NAMES[::-1], [["c"], ["a", "b"]]),
        glance(["dns", "web"], NAMES, [["a", "b"], ["c"]]),
    ],
)
def test_equal_tables_are_equal(other: Glance) -> None:
    assert other == ONE
    assert hash(other) == hash(ONE)


@pytest.mark.parametrize(
    "other",
    [
        glance(["web", "mail"], NAMES, [["a", "b"], ["c"]]),
        glance(["web", "dns"], NAMES, [["a", "b"], ["d"]]),
        glance(["web", "dns"], NAMES, [["b", "a"], ["c"]]),
        glance(["web", "dns"], NAMES, [["a"], ["b", "c"]]),
        glance(["web", "dns"], NAMES, [["c"], ["a", "b"]]),
        glance(["web", "dns"], ("tcp 80", "udp 54"), [["a", "b"], ["c"]]),
        glance(["web"], NAMES[:1], [["a", "b"]]),
        NONE,
        "a string",
    ],
)
def test_others_are_not(other: object) -> None:
    assert other != ONE


def test_it_is_counted() -> None:
    assert (ONE.virtual_servers, ONE.real_servers) == (2, 3)
    assert repr(ONE) == "<Glance at 2 virtual servers, 3 real servers>"
    assert (NONE.virtual_servers, NONE.real_servers) == (0, 0)


@pytest.mark.parametrize(
    ("other", "changed"),
    [
        (ONE, []),
        (glance(["dns", "web"], NAMES[::-1], [["c"], ["a", "b"]]), []),
        (glance(["web!", "dns"], NAMES, [["a", "b"], ["c"]]), ["web"]),
        (glance(["web", "dns"], NAMES, [["a", "b"], ["d"]]), ["dns"]),
        (glance(["web"], NAMES[:1], [["a", "b"]]), ["dns"]),
        (glance(["web", "dns", "mail"], [*NAMES, "mail"], [["a", "b"], ["c"], []]), ["mail"]),
        (glance(["web", "mail"], ["tcp 80", "mail"], [["a"], ["c"]]), ["web", "dns", "mail"]),
        (NONE, ["web", "dns"]),
    ],
)
def test_what_changed_is_named(other: Glance, changed: list[str]) -> None:
    assert other.changed(ONE) == ONE.changed(other) == {key_of(name) for name in changed}

"""Glances, as values."""

import pytest

from netlink.glance import Glance

NAMES = ("tcp 80", "udp 53")
ONE = Glance(["web", "dns"], NAMES, [["a", "b"], ["c"]])


@pytest.mark.parametrize(
    "other",
    [
        Glance(("web", "dns"), [*NAMES], (("a", "b"), ("c",))),
        Glance(["dns", "web"], NAMES[::-1], [["c"], ["a", "b"]]),
        Glance(["dns", "web"], NAMES, [["a", "b"], ["c"]]),
    ],
)
def test_equal_tables_are_equal(other: Glance) -> None:
    assert other == ONE
    assert hash(other) == hash(ONE)


@pytest.mark.parametrize(
    "other",
    [
        Glance(["web", "mail"], NAMES, [["a", "b"], ["c"]]),
        Glance(["web", "dns"], NAMES, [["a", "b"], ["d"]]),
        Glance(["web", "dns"], NAMES, [["b", "a"], ["c"]]),
        Glance(["web", "dns"], NAMES, [["a"], ["b", "c"]]),
        Glance(["web", "dns"], NAMES, [["c"], ["a", "b"]]),
        Glance(["web", "dns"], ("tcp 80", "udp 54"), [["a", "b"], ["c"]]),
        Glance(["web"], NAMES[:1], [["a", "b"]]),
        Glance([], [], []),
        "a string",
    ],
)
def test_others_are_not(other: object) -> None:
    assert other != ONE


def test_it_is_counted() -> None:
    assert (ONE.virtual_servers, ONE.real_servers) == (2, 3)
    assert repr(ONE) == "<Glance at 2 virtual servers, 3 real servers>"
    assert (Glance([], [], []).virtual_servers, Glance([], [], []).real_servers) == (0, 0)

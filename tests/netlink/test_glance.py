"""Glances, as values."""

import pytest

from netlink.glance import Glance

ONE = Glance(["web", "dns"], [["a", "b"], ["c"]])


def test_equal_tables_are_equal() -> None:
    other = Glance(("web", "dns"), (("a", "b"), ("c",)))
    assert other == ONE
    assert hash(ONE) == hash(other)


@pytest.mark.parametrize(
    "other",
    [
        Glance(["web", "mail"], [["a", "b"], ["c"]]),
        Glance(["web", "dns"], [["a", "b"], ["d"]]),
        Glance(["web", "dns"], [["a"], ["b", "c"]]),
        Glance(["web", "dns"], [["a", "b"]]),
        Glance([], []),
        "a string",
    ],
)
def test_others_are_not(other: object) -> None:
    assert other != ONE


def test_it_is_counted() -> None:
    assert (ONE.virtual_servers, ONE.real_servers) == (2, 3)
    assert repr(ONE) == "<Glance at 2 virtual servers, 3 real servers>"
    assert (Glance([], []).virtual_servers, Glance([], []).real_servers) == (0, 0)

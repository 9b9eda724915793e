"""Aligned columns, whatever is in them, and lengths of time."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.cli.cells import width
from lvsctl.cli.columns import GAP, WIDEST, columns, count, span
from lvsctl.text import HIDDEN
from tests.test_text import HOSTILE

cells = st.text(st.characters(), max_size=8) | st.sampled_from([*HOSTILE, "x" * 100])


def test_cells_stand_below_each_other_and_numbers_to_the_right() -> None:
    assert columns([["NAME", "N", "WHY"], ["reco", "5", ""], ["a-longer", "1234", "yes"]], right=frozenset({1})) == [
        "NAME         N  WHY",
        "reco         5",
        "a-longer  1234  yes",
    ]


def test_nothing_and_short_rows() -> None:
    assert columns([]) == []
    assert columns([["a"], ["b", "c"]]) == ["a", "b  c"]


def test_a_wide_cell_is_cut_but_for_the_last() -> None:
    long = "x" * 100
    assert columns([[long, long], ["a", "b"]]) == [
        "x" * (WIDEST - 1) + "…" + GAP + long,
        "a" + " " * (WIDEST - 1) + GAP + "b",
    ]


def test_a_cell_is_whole_where_its_column_is() -> None:
    assert columns([["x" * 100, "b"]], whole=frozenset({0})) == ["x" * 100 + GAP + "b"]


@given(rows=st.lists(st.lists(cells, min_size=3, max_size=3), max_size=5))
def test_any_cells_stay_aligned_and_none_comes_out_raw(rows: list[list[str]]) -> None:
    lines = columns([[*row, "|"] for row in rows])
    assert len(lines) == len(rows)
    assert len({width(line) for line in lines}) <= 1
    for line in lines:
        assert line.endswith("|")
        assert len(line.splitlines()) == 1
        assert not [character for character in line if unicodedata.category(character) in HIDDEN]


def test_markup_of_a_terminal_library_is_text() -> None:
    assert columns([["[/x]", "[red]"]]) == ["[/x]  [red]"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (0.4, "0 s"),
        (1, "1 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (60, "1 min 0 s"),
        (192, "3 min 12 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 0 min"),
        (3600, "1 h 0 min"),
        (8059, "2 h 14 min"),
        (86399, "23 h 59 min"),
        (86400, "1 d 0 h"),
        (442800, "5 d 3 h"),
    ],
)
def test_a_length_of_time(seconds: float, words: str) -> None:
    assert span(seconds) == words


def test_counts() -> None:
    assert [count(number, "change") for number in (0, 1, 2)] == ["0 changes", "1 change", "2 changes"]

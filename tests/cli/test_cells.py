"""Widths of text in a terminal: of characters whose width is known, put together in any order."""

from hypothesis import given
from hypothesis import strategies as st

from lvsctl.cli.cells import ELLIPSIS, MARKS, fit, to_the_left, to_the_right, width
from lvsctl.cli.columns import GAP, WIDEST, columns

KNOWN = {
    **dict.fromkeys("aZ9-_ é\u03a9\u0416\u05d0·", 1),  # Latin, Greek, Cyrillic, Hebrew: narrow
    **dict.fromkeys("漢字かナ한ＡＢ😀🚀", 2),  # East Asian, full width, emoji
    **dict.fromkeys("\u0301\u0308\u20dd\u0e34\u0941\u1161\u11a8", 0),  # accents, circles, vowels, Hangul finals
}

pieces = st.lists(st.sampled_from(sorted(KNOWN)), max_size=60)


def joined(text: list[str]) -> tuple[str, int]:
    return "".join(text), sum(KNOWN[each] for each in text)


@given(text=pieces)
def test_the_width_is_that_of_its_characters(text: list[str]) -> None:
    whole, cells = joined(text)
    assert width(whole) == cells


@given(text=pieces, cells=st.integers(1, 50))
def test_what_is_cut_fits_and_ends_with_an_ellipsis(text: list[str], cells: int) -> None:
    whole, _ = joined(text)
    found = fit(whole, cells)
    assert width(found) <= cells
    assert len(found) <= MARKS * cells + 1
    assert found == whole or (found.endswith(ELLIPSIS) and whole.startswith(found[:-1]))
    assert fit(found, cells) == found or len(found) > MARKS * cells
    assert fit(whole, None) == whole


@given(text=pieces)
def test_blanks_fill_up_to_the_width(text: list[str]) -> None:
    whole, cells = joined(text)
    for padded in (to_the_left(whole, cells + 3), to_the_right(whole, cells + 3)):
        assert width(padded) == cells + 3
        assert whole in padded


@given(rows=st.lists(st.tuples(pieces, pieces), min_size=1, max_size=5), right=st.booleans())
def test_columns_begin_in_the_same_cell_whatever_is_in_them(
    rows: list[tuple[list[str], list[str]]], *, right: bool
) -> None:
    lines = columns([["".join(one), "".join(two), "|"] for one, two in rows], right=frozenset({0} if right else ()))
    ends = {width(line) for line in lines}
    assert len(ends) == 1
    assert ends.pop() <= 2 * (WIDEST + len(GAP)) + 1


def test_a_tower_of_accents_is_cut() -> None:
    tower = "a" + "\u0301" * 1000
    assert len(fit(tower, 10)) <= 10 * MARKS + 1

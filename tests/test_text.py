"""Strings of strangers, made safe to show."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.text import HIDDEN, listed, visible

HOSTILE = {
    "\x1b[31mred": r"\x1b[31mred",
    "\x1b]0;title\x07": r"\x1b]0;title\x07",
    "a\r\nb": r"a\r\nb",
    "nul\0": r"nul\x00",
    "\u202egnp.exe": r"\u202egnp.exe",
    "\u2066x\u2069": r"\u2066x\u2069",
    "\u200bzero": r"\u200bzero",
    "\x9b2J": r"\x9b2J",
    "\x7f": r"\x7f",
    "\x85": r"\x85",
    "\u2028\u2029": r"\u2028\u2029",
    "\ud800": r"\ud800",
    "\ue000": r"\ue000",
    "\U000e0041": r"\U000e0041",
    "\ufeff": r"\ufeff",
    "\t": r"\t",
}


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_terminal_would_obey_is_written_out(text: str) -> None:
    assert visible(text) == HOSTILE[text]


@pytest.mark.parametrize("text", ["", "plain", "räksmörgås", "日本", "[/x]", "<script>", "a b"])
def test_the_rest_is_as_it_is(text: str) -> None:
    assert visible(text) == text


@given(text=st.text(st.characters(), max_size=40) | st.text(st.sampled_from("".join(HOSTILE)), max_size=9))
def test_nothing_hidden_is_left_and_one_line_stays_one(text: str) -> None:
    shown = visible(text)
    assert not [character for character in shown if unicodedata.category(character) in HIDDEN]
    assert len(shown.splitlines()) <= 1
    assert visible(shown) == shown
    shown.encode()


@given(text=st.text(max_size=40), limit=st.integers(1, 20))
def test_a_limit_holds_after_writing_out(text: str, limit: int) -> None:
    shown = visible(text, limit)
    assert len(shown) <= limit
    if shown != visible(text):
        assert shown.endswith("…")


def test_few_names_are_listed_and_of_many_the_nearest() -> None:
    assert listed(["shop", "reco"], "rec") == "reco, shop"
    assert listed([], "rec") == "none"
    many = [f"service-{number}" for number in range(300)] + ["reco"]
    assert listed(many, "RECCO") == "reco and 300 more"
    assert listed(many, "zzz") == "reco, service-0, service-1, service-10, service-100 and 296 more"
    assert listed([*many, "a\x1b"], "a").count("\x1b") == 0

"""The targets of the fuzzer with what a kernel sent, what once failed, and what hypothesis makes of bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.__main__ import NAMES
from tests.fuzz.recorded import FINDS, finds
from tests.fuzz.targets import TARGETS

EVERY_FIND = [(target, name) for target in TARGETS for name in finds(target)]


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name: str) -> None:
    for seed in TARGETS[name].seeds:
        TARGETS[name].run(seed)


@pytest.mark.parametrize(("target", "name"), EVERY_FIND)
def test_what_once_failed(target: str, name: str) -> None:
    TARGETS[target].run(finds(target)[name])


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.binary(max_size=600))
def test_any_bytes(name: str, data: bytes) -> None:
    TARGETS[name].run(data)


@st.composite
def mutated(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """Draw a seed with some bytes changed, a piece put in and one left out."""
    changed = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 8))):
        changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
    place = draw(st.integers(0, len(changed)))
    changed[place:place] = draw(st.binary(max_size=8))
    start = draw(st.integers(0, len(changed)))
    del changed[start : start + draw(st.integers(0, 8))]
    return bytes(changed)


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
def test_mutated_seeds(name: str, data: st.DataObject) -> None:
    TARGETS[name].run(data.draw(mutated(TARGETS[name].seeds)))


def test_the_command_line_knows_every_target() -> None:
    assert set(NAMES) == TARGETS.keys()
    assert {path.name for path in FINDS.iterdir()} <= TARGETS.keys()

"""Bytes cut into HTTP/2 frames: nothing lost, wherever they were torn, and which frames bring nothing."""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.consul.frames import LARGEST, Frame, Frames


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


whole = st.builds(frame, st.integers(0, 255), st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=40))


@given(frames=st.lists(whole), cuts=st.lists(st.integers(0, 300)))
def test_frames_are_whole_wherever_they_were_torn(frames: list[bytes], cuts: list[int]) -> None:
    data, cutter, found = b"".join(frames), Frames(), []
    places = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    for start, end in itertools.pairwise(places):
        found += [each.content for each in cutter.cut(data[start:end])]
    assert found == frames


@given(st.binary())
def test_any_bytes_are_cut_and_a_rest_is_kept(data: bytes) -> None:
    cutter = Frames()
    found = b"".join(each.content for each in cutter.cut(data))
    assert data.startswith(found)
    assert len(data) - len(found) < 9 + LARGEST


def test_of_a_frame_that_is_too_large_the_header_is_passed_on_at_once() -> None:
    header = frame(0, stream=7, payload=bytes(LARGEST + 1))[:9]
    (found,) = Frames().cut(header)
    assert (found.content, found.stream) == (header, 7)


@pytest.mark.parametrize(
    ("content", "idle"),
    [
        (frame(0, 0, 1, b"x"), False),
        (frame(0, 1, 1), False),  # Consul ends an answer like this
        (frame(0, 0, 1), True),
        (frame(1, 4, 1, b"x"), False),
        (frame(3, 0, 1, bytes(4)), False),
        (frame(4), True),
        (frame(6, 0, 0, bytes(8)), True),
        (frame(7, 0, 0, bytes(8)), False),
        (frame(8, 0, 1, bytes(4)), True),
        (frame(9, 4, 1), False),
        (frame(0xF0), True),
    ],
)
def test_which_bring_nothing(content: bytes, idle: object) -> None:
    assert Frame(content).is_idle is idle


def test_the_reserved_bit_is_no_part_of_the_stream() -> None:
    assert Frame(frame(0, stream=2**31 + 5)).stream == 5

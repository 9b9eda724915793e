"""The journal on disk: bounded, readable whatever became of it, and never waited for."""

import errno
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from lvsctl.core.event import Event
from lvsctl.core.event_json import encode
from lvsctl.errors import StateError
from lvsctl.journal import DIRECTORY, MOST_FAILING, Journal, Reader, numbers, path_of
from tests.core.test_event import EVENTS, QUIESCED

LARGE = 250_000  # bytes; the longest line that there can be is shorter


def event(number: int) -> Event:
    return attrs.evolve(QUIESCED, time=float(number), what=f"weight {number} -> 0")


def write(directory: Path, *events: Event, size: int = LARGE, files: int = 3) -> None:
    with Journal(directory, size=size, files=files) as journal:
        for each in events:
            journal.note(each)


def read(directory: Path) -> list[Event]:
    return list(Reader(directory).read())


def files(directory: Path) -> list[Path]:
    return [path_of(directory / DIRECTORY, number) for number in numbers(directory / DIRECTORY)]


def test_it_has_what_was_noted_in_order_over_restarts(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path, event(2 * number), event(2 * number + 1))
    assert read(tmp_path) == [event(number) for number in range(6)]
    (file,) = files(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_full_file_is_followed_by_the_next_and_the_oldest_goes(tmp_path: Path) -> None:
    size = 10 * len(encode(event(10)))
    write(tmp_path, *(event(number) for number in range(10, 75)), size=size, files=3)
    assert [path.name for path in files(tmp_path)] == ["00000005.jsonl", "00000006.jsonl", "00000007.jsonl"]
    assert read(tmp_path) == [event(number) for number in range(50, 75)]
    write(tmp_path, event(75), size=size, files=2)
    assert read(tmp_path) == [event(number) for number in range(60, 76)], "a lower bound counts at once"


@settings(max_examples=30, deadline=None)
@given(runs=st.lists(st.lists(EVENTS, max_size=40), max_size=4), many=st.integers(1, 4))
def test_the_bound_holds_whatever_is_written_and_the_newest_are_there(
    tmp_path_factory: pytest.TempPathFactory, runs: list[list[Event]], many: int
) -> None:
    directory, size, before = tmp_path_factory.mktemp("journal"), 40_000, list[Event]()
    for noted in runs:
        write(directory, *noted, size=size, files=many)
        before += noted
        sizes = [path.stat().st_size for path in files(directory)] if noted else []
        assert len(sizes) <= many
        assert all(each <= size for each in sizes)
    if before:
        kept = read(directory)
        assert kept == before[len(before) - len(kept) :]
        assert kept[-1] == before[-1]
        lines = [len(encode(each)) for each in before]
        assert sum(lines[len(before) - len(kept) :]) >= min(sum(lines), (many - 1) * (size - max(lines))), (
            "room is used"
        )


@settings(max_examples=50, deadline=None)
@given(noted=st.lists(EVENTS, min_size=1, max_size=8), data=st.data())
def test_of_a_damaged_file_the_good_lines_are_read(
    tmp_path_factory: pytest.TempPathFactory, noted: list[Event], data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("journal")
    write(directory, *noted)
    (file,) = files(directory)
    lines = file.read_bytes().splitlines(keepends=True)
    assert len(lines) == len(noted)
    rubbish = st.binary(max_size=60).map(lambda content: content.replace(b"\n", b" ") + b"\n")
    content, expected = b"", list[Event]()
    for line, each in zip(lines, noted, strict=True):
        match data.draw(st.sampled_from(["good", "cut", "zeros", "behind rubbish"])):
            case "good":
                content, expected = content + line, [*expected, each]
            case "cut":
                content += line[: data.draw(st.integers(0, len(line) - 2))] + b"\n"
            case "zeros":
                content += b"\0" * len(line) + b"\n"
            case _:
                content, expected = content + data.draw(rubbish) + line, [*expected, each]
    file.write_bytes(content)
    assert read(directory) == expected


@pytest.mark.parametrize("left", [b"\0", b'{"time":1', encode(event(1))[:-1], encode(event(1))[:-2], b"\n"])
def test_an_unfinished_line_is_no_event_and_spoils_none(tmp_path: Path, left: bytes) -> None:
    write(tmp_path, event(0))
    with files(tmp_path)[0].open("ab") as file:
        file.write(left)
    assert read(tmp_path) == [event(0)]
    write(tmp_path, event(2))
    whole = [event(1)] if left == encode(event(1))[:-1] else []  # all of it but for the newline: it is whole
    assert read(tmp_path) == [event(0), *whole, event(2)]


def test_it_is_followed_over_changes_of_files(tmp_path: Path) -> None:
    size = 3 * len(encode(event(10)))
    write(tmp_path, event(10), size=size)
    reader = Reader(tmp_path)
    assert list(reader.read()) == [event(10)]
    assert list(reader.read()) == []
    file = files(tmp_path)[0]
    with file.open("ab") as out:
        out.write(encode(event(11))[:20])
        out.flush()
        assert list(reader.read()) == [], "half a line is no event yet"
        out.write(encode(event(11))[20:])
    assert list(reader.read()) == [event(11)]
    write(tmp_path, *(event(number) for number in range(12, 18)), size=size)
    assert list(reader.read()) == [event(number) for number in range(12, 18)]
    write(tmp_path, *(event(number) for number in range(18, 60)), size=size)
    assert list(reader.read()) == read(tmp_path), "what it never saw and is gone is left out"
    for path in files(tmp_path):
        path.unlink()
    write(tmp_path, event(60), size=size)
    assert list(reader.read()) == [event(60)], "it was deleted, and begun anew"
    files(tmp_path)[0].write_bytes(encode(event(61))[:-1] + b"\n")
    files(tmp_path)[0].write_bytes(b"")
    assert list(reader.read()) == []
    write(tmp_path, event(62), size=size)
    assert list(reader.read()) == [event(62)], "somebody emptied the file"
    shutil.rmtree(tmp_path / DIRECTORY)
    write(tmp_path, *(event(number) for number in range(63, 68)))
    assert list(reader.read()) == [event(number) for number in range(63, 68)], "the new one is longer already"


def test_what_is_no_file_of_it_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path, event(1))
    others = [tmp_path / DIRECTORY / name for name in ("1.jsonl", "x00000009.jsonl", "00000009.json", "notes")]
    for path in others:
        path.write_text("precious")
    write(tmp_path, *(event(number) for number in range(2, 200)), size=1000, files=1)
    assert [path.read_text() for path in others] == ["precious"] * 4
    assert len(files(tmp_path)) == 1


@pytest.mark.parametrize("made", ["nothing", "state", "journal"])
def test_without_a_journal_that_is_said(tmp_path: Path, made: str) -> None:
    state = tmp_path / "state"
    if made != "nothing":
        (state / DIRECTORY if made == "journal" else state).mkdir(parents=True)
    with pytest.raises(StateError, match=r"there is no journal yet; `lvsctl run` begins it"):
        read(state)


class Full:
    """A disk that has room for some more bytes, or none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room: int | None = None  # None: enough
        self.tried = threading.Event()
        self._write = os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, file: int, content: bytes) -> int:
        """Write what there is room for."""
        if self.room is None:
            return self._write(file, content)
        room, self.room = self.room, 0
        self.tried.set()
        if room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._write(file, content[:room])


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Full:
    return Full(monkeypatch)


@pytest.fixture
def logs() -> Iterator[Callable[[], list[str]]]:
    with capture_logs() as found:
        yield lambda: [each["event"] for each in found]


@pytest.mark.parametrize("room", [0, 1, 500])
def test_a_full_disk_is_said_once_and_written_to_when_there_is_room(
    tmp_path: Path, full: Full, logs: Callable[[], list[str]], room: int
) -> None:
    with Journal(tmp_path, retry=0.01) as journal:
        full.room = room
        for number in range(5):
            journal.note(event(number))
        for _ in range(4):  # it is tried again and again
            full.tried.clear()
            assert full.tried.wait(10)
        full.room = None
        journal.note(event(5))
    assert read(tmp_path) == [event(number) for number in range(6)], "and no line is torn, or there twice"
    assert files(tmp_path)[0].read_bytes().count(b"\n") == 6
    assert logs() == ["journal_failed", "journal_back"]


def test_what_a_disk_that_stays_full_costs_is_bounded_and_told(tmp_path: Path, full: Full) -> None:
    full.room = 0
    with Journal(tmp_path, retry=0.01) as journal:
        journal.note(event(0))
        assert full.tried.wait(10)
        for number in range(1, 3 * MOST_FAILING):
            journal.note(event(number))
        full.tried.clear()
        assert full.tried.wait(10)
        full.room = None
    kept = read(tmp_path)
    lost = sum(each.lost for each in kept)
    assert [each for each in kept if not each.lost] == [event(number) for number in range(lost, 3 * MOST_FAILING)]
    assert lost >= 2 * MOST_FAILING
    assert kept[0].event == "journal_lost"


def test_a_disk_that_is_full_at_the_stop_keeps_nobody_waiting(tmp_path: Path, full: Full) -> None:
    full.room = 0
    with Journal(tmp_path) as journal:
        journal.note(event(0))
    full.room = None
    assert read(tmp_path) == []

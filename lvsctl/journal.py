"""The journal: what happened to the table, on disk, in few and small files.

One JSON object a line (`core.event_json`) in files with ascending numbers, `00000001.jsonl`; a full one is followed by
the next, and the oldest goes. The daemon notes events and goes on; a thread of its own writes them, so neither a slow
disk nor a full one is ever waited for. Nothing is synchronised: what is written survives the end of the process, and a
power cut may take what the kernel had not written back yet. A line that a crash cut short is no event, nor is anything
else that is damaged, and the lines around it are.
"""

import errno
import os
import re
import stat
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import structlog

from lvsctl.core.event import Event
from lvsctl.core.event_json import decode, encode
from lvsctl.durable import why
from lvsctl.errors import StateError
from lvsctl.unexpected import in_words

DIRECTORY: Final = "journal"
SIZE: Final = 2 * 1024 * 1024  # bytes of a file at most
FILES: Final = 8
BATCH: Final = 256  # events written at once
MOST_WAITING: Final = 50_000  # more than the files have room for
MOST_FAILING: Final = 2_000  # that are kept while nothing can be written
RETRY: Final = 5.0  # seconds after which a disk that failed is tried again
PATIENCE: Final = 2.0  # seconds that a stop waits for what is still to be written
LARGEST: Final = 16 * SIZE  # bytes that are read of a file at once; ours are smaller

_FILE: Final = re.compile(r"([0-9]{8,15})\.jsonl", re.ASCII)

log = structlog.get_logger()


class Journal:
    """The writer; there is one, for it needs the lock of the state directory. `note` while the context lasts."""

    def __init__(self, state_directory: Path, *, size: int = SIZE, files: int = FILES, retry: float = RETRY) -> None:
        self._directory = state_directory / DIRECTORY
        self._size = size
        self._files = files
        self._retry = retry
        self._waiting: deque[Event] = deque()
        self._lost = 0  # that had to make room since the last one that was written
        self._failing = False
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    def __enter__(self) -> Self:
        """Begin to write."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is left, as far as that can be done in a moment."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(PATIENCE)

    def note(self, event: Event) -> None:
        """Have `event` written soon. Returns at once, never fails, may be called from any thread."""
        with self._changed:
            self._waiting.append(event)
            self._make_room()
            if not self._failing:
                self._changed.notify()

    def _make_room(self) -> None:
        """Forget the oldest of what waits where that is too much."""
        most = MOST_FAILING if self._failing else MOST_WAITING
        while len(self._waiting) > most:
            self._lost += max(self._waiting.popleft().lost, 1)

    def _run(self) -> None:
        """Write until there is nothing more to come."""
        closing = False
        while not closing and (batch := self._next()):
            last = self._closing  # this is the last try then
            try:
                written, error = self._write(batch)
            except Exception as unexpected:  # noqa: BLE001  # what is wrong with it stays wrong: it is left out
                in_words(unexpected, "journal")
                with self._changed:
                    self._lost += sum(max(event.lost, 1) for event in batch)
                continue
            with self._changed:
                self._waiting.extendleft(reversed(batch[written:]))
                was_failing, self._failing = self._failing, error is not None
                self._make_room()
            closing = last and error is not None
            if error is not None and not was_failing:
                follows = "the kernel is looked after as ever; what happens meanwhile is kept in memory, in bounds"
                log.warning("journal_failed", path=str(self._directory), error=why(error), follows=follows)
            if error is None and was_failing:
                log.info("journal_back", path=str(self._directory), lost=sum(event.lost for event in batch))

    def _next(self) -> list[Event]:
        """Return what is to be written now, in order; nothing at the end."""
        with self._changed:
            if self._failing and not self._closing:
                self._changed.wait_for(lambda: self._closing, self._retry)
            self._changed.wait_for(lambda: self._waiting or self._closing)
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            if self._lost and batch:
                batch.insert(0, Event(time=batch[0].time, event="journal_lost", lost=self._lost))
                self._lost = 0
            return batch

    def _write(self, batch: list[Event]) -> tuple[int, OSError | None]:
        """Return how many of `batch` were written, and why not more."""
        lines = [encode(event) for event in batch]
        written = 0
        try:
            number = max(self._have_directory(), 1)
            while written < len(lines):
                count = self._append(number, lines[written:])
                written += count
                if not count:
                    number += 1
                    self._keep(self._files - 1)
        except OSError as error:
            return written, error
        return written, None

    def _have_directory(self) -> int:
        """Return the number of the newest file, 0 where there is none; make the directory, keep no file too many."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return max(self._keep(self._files), default=0)

    def _keep(self, files: int) -> list[int]:
        """Remove all but the newest `files`; return the numbers of those."""
        there = numbers(self._directory)
        for number in there[: max(0, len(there) - files)]:
            path_of(self._directory, number).unlink(missing_ok=True)
        return there[max(0, len(there) - files) :]

    def _append(self, number: int, lines: list[bytes]) -> int:
        """Return how many of `lines` file `number` had room for; they are in it, whole."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.open(path_of(self._directory, number), flags, 0o600)
        try:
            found = os.fstat(file)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "a file of it is no ordinary file")
            before = found.st_size
            torn = before > 0 and os.pread(file, 1, before - 1) != b"\n"  # a crash: the rest of that line never comes
            content, count = b"\n" if torn else b"", 0
            for line in lines:
                if before + len(content) + len(line) > self._size and before + count:
                    break
                content += line
                count += 1
            if count and os.write(file, content) != len(content):
                os.ftruncate(file, before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return count
        finally:
            os.close(file)


def numbers(directory: Path) -> list[int]:
    """Return the numbers of the journal's files, the newest last; raises OSError."""
    found = (_FILE.fullmatch(name) for name in os.listdir(directory))  # noqa: PTH208  # names are all it takes
    return sorted(int(name[1]) for name in found if name)


def path_of(directory: Path, number: int) -> Path:
    """Return where file `number` is."""
    return directory / f"{number:08}.jsonl"


class Reader:
    """Reads the journal, and what comes to it later, over any change of files. Needs no daemon."""

    def __init__(self, state_directory: Path) -> None:
        self._directory = state_directory / DIRECTORY
        self._number = 0  # of the file that is read
        self._offset = 0  # bytes of it that were read, up to the end of a line
        self._last = b""  # that line, for who deletes a file has one of the same number written anew

    def read(self) -> Iterator[Event]:
        """Yield what is in the journal and was not read yet, the newest last; raises StateError."""
        try:
            yield from self._new()
        except FileNotFoundError:
            raise StateError(
                f"{self._directory}: there is no journal yet; `lvsctl run` begins it, in daemon.state_directory"
            ) from None
        except PermissionError as error:
            raise StateError(f"{self._directory}: {why(error)}; the journal is root's alone, ask as root") from error
        except OSError as error:
            raise StateError(f"{self._directory}: {why(error)}") from error

    def _new(self) -> Iterator[Event]:
        """Yield what was not read yet; raises FileNotFoundError where there is no file at all."""
        there = numbers(self._directory)
        if not there:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if there[-1] < self._number:
            self._number, self._offset, self._last = 0, 0, b""  # it was deleted, and begun anew
        for number in there:
            if number < self._number:
                continue
            if number > self._number:
                self._number, self._offset, self._last = number, 0, b""
            for line in self._lines(number):
                event = decode(line)
                if event is not None:
                    yield event

    def _lines(self, number: int) -> list[bytes]:
        """Return the lines of file `number` that were not read yet; the last one only when it is whole."""
        try:
            with open(
                path_of(self._directory, number), "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)
            ) as file:
                file.seek(max(0, self._offset - len(self._last)))
                if file.read(len(self._last)) != self._last:
                    file.seek(0)  # somebody cut it, or began it anew
                    self._offset, self._last = 0, b""
                content = file.read(LARGEST)
        except FileNotFoundError:  # it was the oldest
            return []
        lines, newline, _ = content.rpartition(b"\n")
        self._offset += len(lines) + len(newline)
        if newline:
            self._last = lines[lines.rfind(b"\n") + 1 :] + newline
        return lines.split(b"\n") if newline else []


def now() -> float:
    """Return the time as events have it: Unix seconds, to the millisecond."""
    return round(time.time(), 3)

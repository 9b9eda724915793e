"""What survives a restart: the ledger of what is ours, and the lock that makes us the only writer.

The ledger is one JSON file, replaced atomically, with a checksum. A large one has a journal beside it: writing
megabytes for one real server would be most of a cycle, so what changes is appended there (`ledger_format`), until that
is as large as the file and both are replaced by a new one. A new key is on disk (fsync) before the kernel hears of it,
so a crash in between leaves a line about nothing rather than a virtual server that nobody owns. A damaged ledger is set
aside: what stands in the kernel exactly as wanted is then adopted again, the rest is foreign.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs
import structlog

from lvsctl.core.ownership import Ledger
from lvsctl.durable import append, replace, why
from lvsctl.errors import AlreadyRunning, StateError
from lvsctl.ledger_format import UNREADABLE, decode, encode, encode_change, encode_one, head, replay
from lvsctl.text import visible
from netlink.types import VirtualServerKey

LEDGER: Final = "ledger.json"
JOURNAL: Final = "ledger.journal"
LARGE: Final = 256 * 1024  # bytes of a ledger from which on its changes are journalled
MANY: Final = 500  # virtual servers that have all changed
LOCK: Final = "lock"
NAMESPACE: Final = Path("/proc/self/ns/net")
LOCKS: Final = Path("/proc/locks")
PROCESSES: Final = Path("/proc")

log = structlog.get_logger()


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Be the only writer of this network namespace's table, and of the ledger in `directory`, while the context lasts.

    There is one IPVS table in a network namespace, whatever the configurations of two daemons say, so the namespace
    itself is locked: that takes no privilege and no place to write, and daemons of different users see each other.
    Raises AlreadyRunning, naming the other process, or StateError. The locks are the kernel's (flock): they end with
    the process, however that ends.
    """
    with _lock_namespace(), _lock(directory / LOCK):
        yield


@contextlib.contextmanager
def _lock_namespace() -> Iterator[None]:
    try:
        file = NAMESPACE.open("rb")
    except OSError as error:
        raise StateError(f"{NAMESPACE}: {why(error)}; lvsctl must be able to lock its network namespace") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise _already_running(_owner(os.fstat(file.fileno()).st_ino)) from None
        yield


def _owner(inode: int) -> str:
    """Return which process has the flock of the namespace `inode`, shared or not; empty where that cannot be seen."""
    with contextlib.suppress(OSError, ValueError):
        for line in LOCKS.read_text("ascii").splitlines():
            match line.split():
                case [_, "FLOCK", _, _, pid, place, *_] if place.endswith(f":{inode}") and int(pid) > 0:
                    return pid
    return ""


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        file = path.open("a+", encoding="ascii")
    except OSError as error:
        raise StateError(f"{path}: {why(error)}; lvsctl must be able to write daemon.state_directory") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            written = file.read().strip()
            raise _already_running(written if written.isdecimal() else "") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _already_running(owner: str) -> AlreadyRunning:
    """Return the error that names who has the lock; anybody who is here may, so it says whether that is an lvsctl."""
    program, ours = _program(owner)
    if ours:
        return AlreadyRunning(
            f"another lvsctl (pid {owner}) is the writer of this table; nothing was written. "
            "Ask it with `lvsctl status`, or stop it first"
        )
    who = f"pid {owner} ({program or 'its name cannot be seen'})" if owner else "a process that cannot be seen"
    kind = "is no lvsctl by its name" if program else "may be another lvsctl"
    return AlreadyRunning(
        f"{who} has the lock of this table's writer and {kind}; nothing was written. "
        "Ask `lvsctl status`, or end that process first"
    )


def _program(pid: str) -> tuple[str, bool]:
    """Return the name of a process, empty where that cannot be seen, and whether it was started as lvsctl."""
    try:
        name = (PROCESSES / pid / "comm").read_text("utf-8", "replace").strip()
        words = (PROCESSES / pid / "cmdline").read_text("utf-8", "replace").split("\0")
    except OSError:
        return "", False
    return visible(name), any(word.rpartition("/")[2] == "lvsctl" for word in words)


@attrs.define
class _Written:
    """What is on disk: the file as it was written, and how far its journal goes."""

    ledger: Ledger
    checksum: str
    size: int
    inode: int
    last_line: bytes
    journal: int  # bytes


class Store:
    """The ledger in a state directory; one of `large` bytes or more has a journal."""

    def __init__(self, directory: Path, *, large: int = LARGE) -> None:
        self._path = directory / LEDGER
        self._journal = directory / JOURNAL
        self._large = large
        self._written: _Written | None = None  # None: the next time all of it is written

    def load(self, *, set_aside_damage: bool) -> Ledger:
        """Return the ledger, empty when there is none yet.

        A damaged one counts as empty, with a warning; the writer also sets it aside (`set_aside_damage`).
        """
        try:
            ledger, whole = self._decoded()
        except UNREADABLE as error:
            aside = self._path.with_suffix(".damaged")
            if set_aside_damage:
                self._path.replace(aside)
            follows = {"set_aside": str(aside)} if set_aside_damage else {"follows": "it counts as empty here"}
            log.warning("ledger_damaged", path=str(self._path), error=type(error).__name__, **follows)
            return {}
        if not whole:
            lost = "what was written after that is forgotten"
            log.warning("ledger_damaged", path=str(self._journal), error="a line is wrong", lost=lost)
        return ledger

    def load_whole(self) -> Ledger:
        """Return the ledger, empty when there is none; raises StateError where damage hides what is ours."""
        try:
            ledger, whole = self._decoded()
        except UNREADABLE as error:
            raise StateError(
                f"{self._path}: it is damaged ({type(error).__name__}), so it is not known what is ours"
            ) from error
        if not whole:
            raise StateError(f"{self._journal}: a line is wrong, so it is not known what else is ours")
        return ledger

    def _decoded(self) -> tuple[Ledger, bool]:
        """Return the ledger, and whether all of its journal could be read; raises StateError, or one of UNREADABLE."""
        try:
            content, journal = self._read()
        except FileNotFoundError:
            return {}, True
        except OSError as error:
            raise StateError(f"{self._path}: {why(error)}; lvsctl must be able to read its own ledger") from error
        ledger, checksum = decode(content)
        return replay(ledger, checksum, journal)

    def _read(self) -> tuple[bytes, bytes]:
        """Return the file and its journal, which may be of another file; a reader's may be replaced between the two."""
        content = self._path.read_bytes()
        while True:
            try:
                journal = self._journal.read_bytes()
            except FileNotFoundError:
                journal = b""
            content, before = self._path.read_bytes(), content
            if content == before:
                return content, journal

    def save(self, ledger: Ledger, *, durable: bool) -> None:
        """Have `ledger` on disk; `durable` returns only when it would survive a power cut.

        A state directory that is gone is made again: the ledger in memory is still true, so nothing has to wait.
        """
        written, self._written = self._written, None  # until it is known what is there
        texts: dict[VirtualServerKey, str] = {}
        try:
            if written is None or not self._append(written, ledger, texts, durable=durable):
                written = self._replace(ledger, texts, durable=durable)
        except OSError as error:
            remedy = "make daemon.state_directory writable; until then nothing new is written to the kernel"
            raise StateError(f"{self._path}: {why(error)}; {remedy}") from error
        self._written = written

    def _replace(self, ledger: Ledger, texts: Mapping[VirtualServerKey, str], *, durable: bool) -> _Written | None:
        """Replace the file; its journal, if any, is of another one from then on. Return it where it may have one.

        Of some entries there are `texts` already.
        """
        content, checksum = encode(texts.get(key) or encode_one(key, entry) for key, entry in ledger.items())
        journalled = len(content) >= self._large
        replace(self._path, content, durable=durable or journalled)  # a journal that is safe needs a file that is
        if not journalled:
            return None
        first = head(checksum)
        replace(self._journal, first, durable=True)
        inode = self._path.stat().st_ino
        return _Written(
            ledger=ledger, checksum=checksum, size=len(content), inode=inode, last_line=first, journal=len(first)
        )

    def _append(self, written: _Written, ledger: Ledger, texts: dict[VirtualServerKey, str], *, durable: bool) -> bool:
        """Write what changed; False where all is to be written: the journal is long, or the files are not there.

        The `texts` of what changed are then those entries.
        """
        before = written.ledger
        changed = [(key, entry) for key, entry in ledger.items() if before.get(key) is not entry]
        gone = before.keys() - ledger.keys()
        if len(changed) > max(MANY, len(ledger) // 2):  # the line would be as long as the file
            return False
        texts |= {key: encode_one(key, entry) for key, entry in changed}
        line = encode_change(texts.values(), sorted(gone), written.last_line)
        if written.journal + len(line) > written.size:
            return False
        try:
            if self._path.stat().st_ino != written.inode:
                return False
            append(self._journal, line, durable=durable)
        except FileNotFoundError:
            return False
        written.ledger, written.last_line, written.journal = ledger, line, written.journal + len(line)
        return True

"""The text of the configuration in use on disk, beside the file that it came from: what there is to go back to.

An operator's file may have another text meanwhile, one that was refused, or that waits to be confirmed. Whichever text
of the file was not taken is remembered by its digest, so that a restart does not take it either. A file that cannot be
used is ignored with a warning: then the operator's file is all there is. Blocking: the daemon calls it in a thread.
"""

import contextlib
import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Final

import attrs
import cattrs
import structlog

from lvsctl.durable import replace, why

FILE: Final = "configuration.kept"
MAGIC: Final = b"lvsctl-configuration 1"
MAX_SIZE: Final = 32 << 20  # bytes; a text of 4 MiB with all of it escaped

log = structlog.get_logger()


@attrs.frozen(kw_only=True)
class NotTaken:
    """A valid text of the file that is not used, although it is there."""

    digest: str
    why: str
    rolled_back: bool  # it was in use until nobody confirmed it; else it was refused


@attrs.frozen(kw_only=True)
class Kept:
    """What is on disk."""

    text: str  # of the configuration in use, or of the one before that while it waits to be confirmed
    not_taken: NotTaken | None = None
    file: str = ""  # where it came from, absolute; empty where that is not known


class ConfigurationKept:
    """The file in a state directory; with none nothing is kept, but in memory. What is taken comes from `file`."""

    def __init__(self, directory: Path | None, file: Path | None = None) -> None:
        self._file = str(file.absolute()) if file else ""
        self._path = directory / FILE if directory else None
        self.kept: Kept | None = None  # as it should be on disk; None: what is in use is not known as a text

    def load(self) -> Kept | None:
        """Return what was kept; None where nothing was, or it cannot be used."""
        if self._path is None:
            return None
        try:
            self.kept = cattrs.structure(json.loads(_body(_read(self._path))), Kept)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, RecursionError, cattrs.BaseValidationError) as error:
            said = why(error) if isinstance(error, OSError) else str(error)
            log.warning("configuration_kept_ignored", path=str(self._path), why=said)
        return self.kept

    def take(self, text: str, *, anyway: bool = True) -> str:
        """Have `text` as what is in use; return why it is not on disk, empty when it is.

        It is what is in use `anyway`, or only where it could be written.
        """
        before, failed = self.kept, self._write(Kept(text=text, file=self._file))
        if failed and not anyway:
            self.kept = before
        return failed

    def leave(self, text: str, why: str, *, rolled_back: bool) -> str:
        """Have `text` as what is not taken, and why; return why that is not on disk, empty when it is."""
        if self.kept is None:
            return "what is in use is not known as a text"
        not_taken = NotTaken(digest=digest_of(text), why=why, rolled_back=rolled_back)
        return self._write(attrs.evolve(self.kept, not_taken=not_taken))

    def forget(self) -> None:
        """Have nothing on disk: there is nothing to go back to. What cannot be removed stays."""
        self.kept = None
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _write(self, kept: Kept) -> str:
        self.kept = kept
        if self._path is None:
            return ""
        body = json.dumps(attrs.asdict(kept)).encode("ascii")
        try:
            replace(self._path, _head(body) + b"\n" + body, durable=True, mode=0o600)
        except OSError as error:
            failed = f"{self._path}: {why(error)}"
            log.warning("configuration_kept_failed", error=failed)
            return failed
        return ""


def digest_of(text: str) -> str:
    """Return what tells `text` from every other one."""
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: Path) -> bytes:
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is no ordinary file")
        content = file.read(MAX_SIZE + 1)
    if len(content) > MAX_SIZE:
        raise ValueError(f"it is larger than {MAX_SIZE} bytes")
    return content


def _body(content: bytes) -> bytes:
    """Return what is below the first line; ValueError unless that is whole."""
    head, _, body = content.partition(b"\n")
    if head != _head(body):
        raise ValueError("it is damaged, or of another lvsctl")
    return body


def _head(body: bytes) -> bytes:
    return MAGIC + b" " + hashlib.sha256(body).hexdigest().encode()

"""The text of the configuration in use on disk, beside the file that it came from: what there is to go back to.

An operator's file may have another text meanwhile, one that was refused, or that waits to be confirmed. Whichever text
of the file was not taken is remembered by its digest, so that a restart does not take it either. A file that cannot be
used is ignored with a warning: then the operator's file is all there is. Blocking: the daemon calls it in a thread.
"""

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


class ConfigurationKept:
    """The file in a state directory."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE

    def load(self) -> Kept | None:
        """Return what was kept; None where nothing was, or it cannot be used."""
        try:
            return cattrs.structure(json.loads(_body(_read(self._path))), Kept)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, RecursionError, cattrs.BaseValidationError) as error:
            said = why(error) if isinstance(error, OSError) else str(error)
            log.warning("configuration_kept_ignored", path=str(self._path), why=said)
            return None

    def keep(self, kept: Kept) -> str:
        """Have exactly `kept` on disk; return why it is not, empty when it is, also after a power cut."""
        body = json.dumps(attrs.asdict(kept)).encode("ascii")
        try:
            replace(self._path, _head(body) + b"\n" + body, durable=True, mode=0o600)
        except OSError as error:
            return f"{self._path}: {why(error)}"
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

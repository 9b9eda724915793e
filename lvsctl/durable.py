"""Files that are replaced as a whole: a crash at any instruction leaves the old one or the new one. And appending.

What a new one needs on disk before anybody relies on it (fsync of the file, and of the directory that names it) is
here and nowhere else.
"""

import errno
import os
from pathlib import Path


def replace(path: Path, content: bytes, *, durable: bool, mode: int = 0o644) -> None:
    """Have exactly `content` in the file `path`; `durable` returns only when it would survive a power cut.

    A directory that is gone is made again. Raises OSError.
    """
    draft = path.with_suffix(".new")
    _have_directory(path.parent)
    draft.unlink(missing_ok=True)  # what a crash left, or somebody put there: a link, a FIFO
    with open(draft, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    draft.replace(path)
    if durable:
        _sync_directory(path.parent)


def append(path: Path, content: bytes, *, durable: bool) -> None:
    """Write `content` behind what is in the file `path`; `durable` returns only when it would survive a power cut.

    A crash may leave the first part of it. Raises OSError, FileNotFoundError where there is no such file.
    """
    with open(path, "ab", buffering=0, opener=lambda name, _: os.open(name, os.O_WRONLY | os.O_APPEND)) as file:
        if file.write(content) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if durable:
            os.fsync(file.fileno())


def why(error: OSError) -> str:
    """Return the kernel's own words for `error`, as part of a sentence."""
    return (error.strerror or str(error)).lower()


def _have_directory(path: Path) -> None:
    """Make the directory `path`, and those above it, where they are missing; each is on disk on return."""
    if path.exists():  # where it is no directory, opening a file in it says so better than we could
        return
    _have_directory(path.parent)
    path.mkdir(mode=0o755, exist_ok=True)
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""The ACL token: from its file, read again whenever that changes, or as the environment gave it.

The value goes into one header and nowhere else: no error, log or repr has it. A file that cannot be used now is an
error now, never the anonymous token, for with that Consul would answer an empty list.
"""

import os
import re
import stat
from pathlib import Path
from typing import Final

import structlog

from lvsctl.config import ConsulConfig
from lvsctl.config_environment import TOKEN_PATTERN
from lvsctl.consul.budget import Body
from lvsctl.errors import ConsulError

HEADER: Final = "X-Consul-Token"
SHOWN: Final = "(token)"
MAX_FILE: Final = 8192  # bytes; a token has 36

log = structlog.get_logger()

Version = tuple[int, int, int, int]


class Token:
    """The token of a configuration."""

    def __init__(self, config: ConsulConfig) -> None:
        self._path = config.token_file
        self._name = config.token_name
        self._value = config.token.reveal if config.token else ""
        self._version: Version | None = None

    def header(self) -> dict[str, str]:
        """Return the header that carries the token, none for the anonymous one; ConsulError for a file without one."""
        if self._path is not None:
            self._read(self._path)
        return {HEADER: self._value} if self._value else {}

    def _read(self, path: Path) -> None:
        """Take the token out of its file, if it is another one than the last time."""
        try:
            if version_of(path.stat()) == self._version:
                return
            content, status = _content(path)
        except OSError as error:
            raise self._unusable(path, (error.strerror or "it cannot be read").lower()) from None
        if len(content) > MAX_FILE:
            raise self._unusable(path, f"it has more than {MAX_FILE} bytes")
        if not content.isascii():
            raise self._unusable(path, "is not plain text")
        value = content.decode("ascii").strip()
        if not re.fullmatch(TOKEN_PATTERN, value):
            raise ConsulError(f"{self._name} {path} does not hold exactly one token")
        self._value, self._version = value, version_of(status)
        if status.st_mode & stat.S_IROTH:
            log.warning(
                "token_readable", file=str(path), why="every user of this machine may read it", remedy="chmod o-r"
            )

    def _unusable(self, path: Path, reason: str) -> ConsulError:
        return ConsulError(
            f"{self._name} {path}: {reason}; "
            "make it a text file with one token that the user of lvsctl may read, or take the key out"
        )


def without(text: str, token: str) -> str:
    """Return `text`, which Consul or somebody before it wrote, as it may be shown: without the token that was sent."""
    return text.replace(token, SHOWN) if token else text


def body_without(body: Body, token: str) -> Body:
    """Return the same of a body: of one that is no JSON list or object, the beginning is shown as what it is."""
    return body.replace(token.encode(), SHOWN.encode()) if token else body


def _content(path: Path) -> tuple[bytes, os.stat_result]:
    """Return what a regular file holds, a byte more than allowed at most; opening anything else waits for nobody."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(0, "is a directory")
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "it is not a regular file")
        return file.read(MAX_FILE + 1), status


def version_of(status: os.stat_result) -> Version:
    """Return what differs when a file was changed or replaced."""
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size

"""The last known overrides on disk: a director that starts without Consul still gives a canary no more than its share.

What is in the file is what Consul would list, below a line with the version of the format and the checksum of the rest;
it is decoded as Consul's answers are. A file that cannot be used is ignored with a warning and replaced by Consul's
next answer. Blocking: the daemon calls it in a thread.
"""

import hashlib
import json
import os
import stat
import threading
from pathlib import Path
from typing import Final

import structlog

from lvsctl.consul.override_keys import MAX_KEYS, MAX_VALUE, decode_overrides, encode_overrides
from lvsctl.core.override import NO_OVERRIDES, Overrides
from lvsctl.durable import replace, why
from lvsctl.errors import ConsulError

FILE: Final = "overrides.json"
MAGIC: Final = b"lvsctl-overrides 1"
MAX_SIZE: Final = MAX_KEYS * MAX_VALUE * 2

log = structlog.get_logger()


class OverrideFile:
    """The file in a state directory."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE
        self._kept: bytes | None = None
        self._writing = threading.Lock()

    def load(self, address: str, prefix: str) -> Overrides:
        """Return what the Consul at `address` had below `prefix` last; nothing where that is not known."""
        try:
            content = _read(self._path)
            overrides = decode_overrides(_listing(content, _whose(address, prefix)), prefix)
        except FileNotFoundError:
            return NO_OVERRIDES
        except (OSError, ValueError, ConsulError) as error:
            said = why(error) if isinstance(error, OSError) else str(error)
            log.warning("overrides_file_ignored", path=str(self._path), why=said)
            return NO_OVERRIDES
        self._kept = content
        return overrides

    def keep(self, overrides: Overrides, address: str, prefix: str) -> None:
        """Write down what the Consul at `address` has below `prefix`, where it is something else than the file has."""
        body = _whose(address, prefix) + b"\n" + encode_overrides(overrides, prefix)
        content = _head(body) + b"\n" + body
        with self._writing:
            if content == self._kept or (not overrides.entries and not self._path.exists()):
                return
            try:
                replace(self._path, content, durable=True, mode=0o600)
                self._kept = content
            except OSError as error:
                log.warning("overrides_file_failed", path=str(self._path), error=why(error))


def _read(path: Path) -> bytes:
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is no ordinary file")
        content = file.read(MAX_SIZE + 1)
    if len(content) > MAX_SIZE:
        raise ValueError(f"it is larger than {MAX_SIZE} bytes")
    return content


def _listing(content: bytes, whose: bytes) -> bytes:
    """Return what Consul listed; ValueError unless `content` is whole and of the Consul and prefix of `whose`."""
    head, _, body = content.partition(b"\n")
    if head != _head(body):
        raise ValueError("it is damaged, or of another lvsctl")
    found, _, listing = body.partition(b"\n")
    if found != whose:
        raise ValueError("it is of another Consul, or of another kv_prefix")
    return listing


def _head(body: bytes) -> bytes:
    return MAGIC + b" " + hashlib.sha256(body).hexdigest().encode()


def _whose(address: str, prefix: str) -> bytes:
    return json.dumps([address, prefix]).encode()

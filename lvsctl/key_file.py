"""What a folder of Consul's KV had last, on disk, for a director that starts without Consul.

A canary still gets no more than its share there, and what the fleet drained stays out.

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
from typing import Final, Generic, TypeVar

import structlog

from lvsctl.consul.fleet_orders import FLEET_ORDERS
from lvsctl.consul.folder import Folder
from lvsctl.consul.kv_values import MAX_VALUE
from lvsctl.core.fleet import FleetOrders
from lvsctl.durable import replace, why
from lvsctl.errors import ConsulError

V = TypeVar("V")

FLEET_FILE: Final = "fleet-orders.json"

log = structlog.get_logger()


class KeyFile(Generic[V]):
    """The file of one folder; the first line of its format begins with `magic`."""

    def __init__(self, folder: Folder[V], path: Path, magic: bytes) -> None:
        self._folder = folder
        self._path = path
        self._magic = magic
        self._most = folder.most * MAX_VALUE * 2
        self._kept: bytes | None = None
        self._writing = threading.Lock()

    def load(self, address: str, prefix: str) -> V:
        """Return what the Consul at `address` had below `prefix` last; nothing where that is not known."""
        try:
            content = _read(self._path, self._most)
            value = self._folder.decode(self._listing(content, _whose(address, prefix)), prefix)
        except FileNotFoundError:
            return self._folder.nothing
        except (OSError, ValueError, ConsulError) as error:
            said = why(error) if isinstance(error, OSError) else str(error)
            log.warning(self._folder.events.file_ignored, path=str(self._path), why=said)
            return self._folder.nothing
        self._kept = content
        return value

    def keep(self, value: V, address: str, prefix: str) -> None:
        """Write down what the Consul at `address` has below `prefix`, where it is something else than the file has."""
        body = _whose(address, prefix) + b"\n" + self._folder.encode(value, prefix)
        content = self._head(body) + b"\n" + body
        with self._writing:
            if content == self._kept or (not self._folder.keys(value, prefix) and not self._path.exists()):
                return
            try:
                replace(self._path, content, durable=True, mode=0o600)
                self._kept = content
            except OSError as error:
                log.warning(self._folder.events.file_failed, path=str(self._path), error=why(error))

    def _listing(self, content: bytes, whose: bytes) -> bytes:
        """Return what Consul listed; ValueError unless `content` is whole and of the Consul and prefix of `whose`."""
        head, _, body = content.partition(b"\n")
        if head != self._head(body):
            raise ValueError("it is damaged, or of another lvsctl")
        found, _, listing = body.partition(b"\n")
        if found != whose:
            raise ValueError("it is of another Consul, or of another kv_prefix")
        return listing

    def _head(self, body: bytes) -> bytes:
        return self._magic + b" " + hashlib.sha256(body).hexdigest().encode()


def fleet_order_file(directory: Path) -> KeyFile[FleetOrders]:
    """Return the file of fleet orders in a state directory."""
    return KeyFile(FLEET_ORDERS, directory / FLEET_FILE, b"lvsctl-fleet-orders 1")


def _read(path: Path, most: int) -> bytes:
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is no ordinary file")
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it is larger than {most} bytes")
    return content


def _whose(address: str, prefix: str) -> bytes:
    return json.dumps([address, prefix]).encode()

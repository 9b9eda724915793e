"""What survives a restart: the ledger of what is ours, and the lock that makes us the only writer.

The ledger is one JSON file, replaced atomically, with a checksum. A new key is on disk (fsync) before the kernel
hears of it, so a crash in between leaves a line about nothing rather than a virtual server that nobody owns. A
damaged ledger is set aside: what stands in the kernel exactly as wanted is then adopted again, the rest is foreign.
"""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, Final

import structlog
from cattrs import BaseValidationError, Converter

from lvsctl.config import Declaration
from lvsctl.core.ownership import Ledger, LedgerEntry
from lvsctl.durable import replace, why
from lvsctl.errors import AlreadyRunning, StateError
from netlink.types import Address, RealServer, RealServerKey, TableEntry, VirtualServer, VirtualServerKey

VERSION: Final = 1
LEDGER: Final = "ledger.json"
LOCK: Final = "lock"
RUN: Final = Path("/run")
NAMESPACE: Final = Path("/proc/self/ns/net")

log = structlog.get_logger()

_converter = Converter()
_converter.register_unstructure_hook(IPv4Address, str)
_converter.register_unstructure_hook(IPv6Address, str)
_converter.register_structure_hook(Address, lambda text, _: ip_address(text))
_converter.register_structure_hook(Address | None, lambda text, _: None if text is None else ip_address(text))


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Be the only writer of this network namespace's table, and of the ledger in `directory`, while the context lasts.

    There is one IPVS table in a network namespace, whatever the configurations of two daemons say: the lock in /run
    carries the namespace's number. Raises AlreadyRunning, naming the other process, or StateError. The locks are the
    kernel's (flock): they end with the process, however that ends.
    """
    namespace = NAMESPACE.stat().st_ino
    with (
        _lock(RUN / f"lvsctl.{namespace}.lock", "run as root, for lvsctl must be able to write there"),
        _lock(directory / LOCK, "lvsctl must be able to write daemon.state_directory"),
    ):
        yield


@contextlib.contextmanager
def _lock(path: Path, remedy: str) -> Iterator[None]:
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        file = path.open("a+", encoding="ascii")
    except OSError as error:
        raise StateError(f"{path}: {why(error)}; {remedy}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise AlreadyRunning(
                f"another lvsctl (pid {owner}) is the writer of this table; nothing was written. "
                "Ask it with `lvsctl status`, or stop it first"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


class Store:
    """The ledger in a state directory."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / LEDGER
        self._encoded: dict[VirtualServerKey, tuple[LedgerEntry, str]] = {}  # of the ledger saved last

    def load(self, *, set_aside_damage: bool) -> Ledger:
        """Return the ledger, empty when there is none yet.

        A damaged one counts as empty, with a warning; the writer also sets it aside (`set_aside_damage`).
        """
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StateError(f"{self._path}: {why(error)}; lvsctl must be able to read its own ledger") from error
        try:
            return _decode(content.decode())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, BaseValidationError) as error:
            aside = self._path.with_suffix(".damaged")
            if set_aside_damage:
                self._path.replace(aside)
            log.warning("ledger_damaged", path=str(self._path), set_aside=str(aside), error=type(error).__name__)
            return {}

    def save(self, ledger: Ledger, *, durable: bool) -> None:
        """Replace the ledger on disk; `durable` returns only when it would survive a power cut.

        A state directory that is gone is made again: the ledger in memory is still true, so nothing has to wait.
        """
        try:
            replace(self._path, self._encode(ledger).encode(), durable=durable)
        except OSError as error:
            remedy = "make daemon.state_directory writable; until then nothing new is written to the kernel"
            raise StateError(f"{self._path}: {why(error)}; {remedy}") from error

    def _encode(self, ledger: Ledger) -> str:
        """Return the file's text; most entries are the same objects as the last time, and so is their text."""
        before, self._encoded = self._encoded, {}
        for key, entry in ledger.items():
            known = before.get(key)
            same = known is not None and known[0] is entry
            self._encoded[key] = known if known is not None and same else (entry, _encode_one(key, entry))
        body = f"[{','.join(text for _, text in self._encoded.values())}]"
        return json.dumps({"version": VERSION, "sha256": _checksum(body), "virtual_servers": body}) + "\n"


def _encode_one(key: VirtualServerKey, entry: LedgerEntry) -> str:
    encoded = {
        "key": _converter.unstructure(key),
        "name": entry.name,
        "drain_timeout": entry.drain_timeout,
        "written": _encode_entry(entry.written) if entry.written else None,
        "draining": [[str(server.address), server.port, since] for server, since in entry.draining.items()],
    }
    if entry.declaration is not None:
        encoded["declaration"] = [entry.declaration.service, entry.declaration.values]
    return json.dumps(encoded, separators=(",", ":"))


def _encode_entry(entry: TableEntry) -> dict[str, Any]:
    return {
        "virtual_server": _converter.unstructure(entry.virtual_server),
        "real_servers": [_converter.unstructure(real_server) for real_server in entry.real_servers.values()],
    }


def _decode(text: str) -> Ledger:
    document = json.loads(text)
    body = document["virtual_servers"]
    if document["version"] != VERSION or document["sha256"] != _checksum(body):
        raise ValueError("another version, or a wrong checksum")
    return {
        _converter.structure(entry["key"], VirtualServerKey): LedgerEntry(
            name=entry["name"],
            drain_timeout=float(entry["drain_timeout"]),
            written=_decode_entry(entry["written"]) if entry["written"] else None,
            draining={
                RealServerKey(address=ip_address(address), port=port): since
                for address, port, since in entry["draining"]
            },
            declaration=_decode_declaration(entry["declaration"]) if "declaration" in entry else None,
        )
        for entry in json.loads(body)
    }


def _decode_declaration(encoded: Any) -> Declaration:
    service, values = encoded
    if not all(isinstance(text, str) for text in (service, *(text for pair in values for text in pair))):
        raise TypeError("a declaration that is no text")
    return Declaration(service=service, values=tuple((key, value) for key, value in values))


def _decode_entry(entry: Any) -> TableEntry:
    real_servers = [_converter.structure(each, RealServer) for each in entry["real_servers"]]
    return TableEntry(
        virtual_server=_converter.structure(entry["virtual_server"], VirtualServer),
        real_servers={real_server.key: real_server for real_server in real_servers},
    )


def _checksum(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()

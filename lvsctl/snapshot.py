"""The last good snapshot of Consul's answers on disk, for a start without Consul.

Only what was believed is kept (`Watches.believed`): while an answer is in doubt, the one before it stays. A file that
cannot be used is ignored with one warning and replaced when Consul answers; one that cannot be written costs no more
than a warning. Blocking: the daemon calls it in a thread. `core.restoration` says what a snapshot may do,
`snapshot_format` what the bytes mean.

It is of another Consul, and ignored, when `consul.address` has changed since, or the machine it was written on. What
else may change in the configuration needs no such care: an answer is found by what is asked now, and judged by the
rules of now.
"""

import os
import re
import stat
import threading
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Final

import structlog

from lvsctl.core.instance import Answers, Query
from lvsctl.durable import replace, why
from lvsctl.snapshot_format import Texts, Unusable, decode, encode, same_content

FILE: Final = "snapshot.json"
MACHINE_ID: Final = Path("/etc/machine-id")
MAX_SIZE: Final = 64 * 1024 * 1024  # bytes, written or read; 10,000 instances take about 5 MB

log = structlog.get_logger()


class Snapshot:
    """The file in a state directory, and what is in it."""

    def __init__(self, directory: Path, *, max_size: int = MAX_SIZE, machine_id: Path = MACHINE_ID) -> None:
        self._path = directory / FILE
        self._max_size = max_size
        self._machine = _machine(machine_id)
        self._address = ""  # of the Consul whose answers these are
        self._answers: Answers = {}
        self._texts: Texts = {}
        self._trouble = ""
        self._writing = threading.Lock()  # a task that is cancelled leaves its thread behind

    def load(self, address: str, queries: AbstractSet[Query]) -> Answers:
        """Return what the Consul at `address` said last to `queries`; what cannot be used is ignored with a warning."""
        try:
            answers = decode(_read(self._path, self._max_size), address, machine=self._machine)
        except FileNotFoundError:
            return {}
        except (OSError, Unusable) as error:
            log.warning(
                "snapshot_ignored",
                path=str(self._path),
                why=why(error) if isinstance(error, OSError) else str(error),
                follows="without Consul nothing is restored; the next answers of Consul replace the file",
            )
            return {}
        self._address, self._answers = address, _only(answers, queries)
        return self._answers

    def keep(self, address: str, queries: AbstractSet[Query], believed: Answers, *, renew: bool) -> bool:
        """Write down what the Consul at `address` said, where it is something else than the file has.

        Of `queries` without a believed answer the last one stays. `renew` also writes that the same was said again.
        Return whether the file has it.
        """
        with self._writing:
            before = self._answers if address == self._address else {}
            after = _only({**before, **believed}, queries)
            if not after or (address == self._address and _is_kept(before, after, times=renew)):
                return True
            content, self._texts = encode(address, after, self._texts, machine=self._machine)
            written = self._write(content)
            if written:
                self._address, self._answers = address, after
                log.debug("snapshot_saved", path=str(self._path), size=len(content), consul_services=len(after))
            return written

    def _write(self, content: bytes) -> bool:
        """Return whether `content` is on disk now; a lasting trouble is said once."""
        trouble = ""
        if len(content) > self._max_size:
            trouble = f"it would be larger than {self._max_size} bytes"
        else:
            try:
                replace(self._path, content, durable=True, mode=0o600)
            except OSError as error:
                trouble = f"{why(error)}; make daemon.state_directory writable"
        if trouble and trouble != self._trouble:
            kept = "the older file; a start without Consul restores no more than that"
            log.warning("snapshot_failed", path=str(self._path), error=trouble, kept=kept)
        self._trouble = trouble
        return not trouble


def _machine(path: Path) -> str:
    """Return what the machine is known by; empty where it is not. Source: machine-id(5)."""
    try:
        text = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return text if re.fullmatch("[0-9a-f]{32}", text) else ""


def _read(path: Path, max_size: int) -> bytes:
    """Return what is in the ordinary file `path`; raises OSError, or Unusable for what no snapshot can be."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise Unusable("it is no ordinary file")
        content = file.read(max_size + 1)
    if len(content) > max_size:
        raise Unusable(f"it is larger than {max_size} bytes")
    return content


def _only(answers: Answers, queries: AbstractSet[Query]) -> Answers:
    return {query: answer for query, answer in answers.items() if query in queries}


def _is_kept(before: Answers, after: Answers, *, times: bool) -> bool:
    """Tell whether `before` says all of `after`, and when it was said, where `times` matter."""
    return before.keys() == after.keys() and all(
        same_content(before[query], answer) and not (times and before[query].snapshot != answer.snapshot)
        for query, answer in after.items()
    )

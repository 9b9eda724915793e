"""Network namespaces: where a socket is opened and which /proc/net is seen.

IPVS has one table in each network namespace. A namespace is named as `ip netns` does, by the path of its file, or by a
process that is in it. Going anywhere takes CAP_SYS_ADMIN. Source: setns(2), network_namespaces(7).
"""

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from netlink.errors import Unavailable

Namespace = str | Path | int
"""A name of `ip netns`, the path of a namespace's file, or the number of a process."""

_CLONE_NEWNET: Final = 0x40000000
_NAMED: Final = Path("/run/netns")
_OWN: Final = "/proc/thread-self/ns/net"
_READ_ONLY: Final = os.O_RDONLY | os.O_CLOEXEC


def path_of(namespace: Namespace) -> Path:
    """Return the file that stands for `namespace`."""
    if isinstance(namespace, int):
        return Path(f"/proc/{namespace}/ns/net")
    return Path(namespace) if "/" in str(namespace) else _NAMED / namespace


class Pinned:
    """One network namespace, the same one whatever becomes of its name, its process or the thread that asked.

    Holds a descriptor, and with that the namespace, until it is closed. None is the one that the thread is in now.
    Raises Unavailable.
    """

    def __init__(self, namespace: Namespace | None = None) -> None:
        self._namespace = namespace
        with self._explained():
            self._descriptor = os.open(_OWN if namespace is None else path_of(namespace), _READ_ONLY)

    def close(self) -> None:
        """Let go of it; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Be in it while the context lasts, with this thread alone; nothing is done where the thread is there already.

        What is opened there stays there: a socket, a file below /proc/thread-self/net. Do not await or start threads
        inside.
        """
        with contextlib.ExitStack() as opened:
            with self._explained():
                own = os.open(_OWN, _READ_ONLY)
                opened.callback(os.close, own)
                there = os.path.sameopenfile(own, self._descriptor)
                if not there:
                    _call("setns", self._descriptor, _CLONE_NEWNET)
            try:
                yield
            finally:
                if not there:
                    _call("setns", own, _CLONE_NEWNET)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            if self._namespace is None:
                reason = f"{_OWN}: {_words(error)}; IPVS needs Linux with network namespaces and /proc"
                raise Unavailable("open", "IPVS", reason) from error
            raise Unavailable(
                "enter", f"network namespace {self._namespace}", _reason(self._namespace, error)
            ) from error


def _call(name: str, *arguments: int) -> None:
    """Call the C library's `name`, which Python has not before 3.12; OSError when it fails."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _reason(namespace: Namespace, error: OSError | ValueError) -> str:
    reason = f"{path_of(namespace)}: {_words(error)}"
    if isinstance(error, OSError) and error.errno in (errno.EPERM, errno.EACCES):
        return f"{reason}; going to another network namespace takes CAP_SYS_ADMIN"
    if isinstance(error, OSError) and error.errno == errno.ENOENT:
        return reason + ("; no such process" if isinstance(namespace, int) else "; `ip netns list` shows the names")
    return f"{reason}; it stands for no network namespace"


def _words(error: OSError | ValueError) -> str:
    return ((isinstance(error, OSError) and error.strerror) or str(error)).lower()

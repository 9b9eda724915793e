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


@contextlib.contextmanager
def entered(namespace: Namespace | None) -> Iterator[None]:
    """Be in `namespace` while the context lasts, with this thread alone; None is to stay.

    What is opened there stays there: a socket, a file below /proc/thread-self/net. Raises Unavailable. Do not await or
    start threads inside.
    """
    if namespace is None:
        yield
        return
    with contextlib.ExitStack() as opened:
        try:
            own = os.open(_OWN, _READ_ONLY)
            opened.callback(os.close, own)
            other = os.open(path_of(namespace), _READ_ONLY)
            opened.callback(os.close, other)
            _call("setns", other, _CLONE_NEWNET)
        except (OSError, ValueError) as error:
            raise Unavailable("enter", f"network namespace {namespace}", _reason(namespace, error)) from error
        try:
            yield
        finally:
            _call("setns", own, _CLONE_NEWNET)


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

"""Network namespaces: where a socket is opened and which /proc/net is seen.

IPVS has one table in each network namespace. A namespace is named as `ip netns` does, by the path of its file, or by a
process that is in it. Source: setns(2), network_namespaces(7).
"""

import contextlib
import ctypes
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
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(descriptor: int) -> None:
        if libc.setns(descriptor, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    path = path_of(namespace)
    own = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            other = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                enter(other)
            finally:
                os.close(other)
        except OSError as error:
            reason = f"{path}: {(error.strerror or str(error)).lower()}; `ip netns list` shows the names there are"
            raise Unavailable("enter", f"network namespace {namespace}", reason) from error
        try:
            yield
        finally:
            enter(own)
    finally:
        os.close(own)

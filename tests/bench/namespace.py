"""A fresh network namespace for each measured run, so that all start from the same empty table.

Emptying a table would not do: deleted real servers stay for two minutes in a list that every later addition walks. It
is emptied all the same before its namespace is left: the kernel frees it in the background, and while other namespaces
have virtual servers /proc/net/ip_vs leaves out some of ours (ip_vs_info_seq_next skips them but counts them).
"""

import ctypes
import fcntl
import os
import socket
import struct
import time
from pathlib import Path
from typing import Final

from netlink import IPVS
from netlink.requests import Flush

CLONE_NEWNET: Final = 0x40000000  # linux/sched.h
SIOCSIFFLAGS: Final = 0x8914  # linux/sockios.h
IFF_UP: Final = 1
LOOK: Final = 0.05  # seconds
LONGEST: Final = 1.0  # seconds that `settle` takes on a machine that has other work

_libc = ctypes.CDLL(None, use_errno=True)
_ours: set[int] = set()  # the namespaces made here: no other's table is emptied


def fresh(*, beside: bool = False) -> None:
    """Put this process, and what it starts from now on, into a new network namespace; the old one goes.

    `beside` leaves the table of the old one as it is, for who has a client there. `lo` is brought up: without it there
    is no routing table, and the kernel takes no real server's address for good.
    """
    own = Path("/proc/self/ns/net").stat().st_ino
    if own in _ours and not beside:
        with IPVS() as ipvs:
            ipvs.apply([Flush()])
    if _libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "no new network namespace")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))
    _ours.add(Path("/proc/self/ns/net").stat().st_ino)
    settle()


def settle() -> None:
    """Return when the processor is idle: the kernel frees an abandoned table in the background."""
    ends = time.monotonic() + LONGEST
    wanted = 0.8 * LOOK * os.sysconf("SC_CLK_TCK")
    while time.monotonic() < ends:
        before = _idle_ticks()
        time.sleep(LOOK)
        if _idle_ticks() - before >= wanted:
            return


def _idle_ticks() -> int:
    return int(Path("/proc/stat").read_text("ascii").split(maxsplit=5)[4])

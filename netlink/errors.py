"""Errors of the netlink layer: each names the operation, its target and the kernel's own refusal.

NetlinkError
├── Refused        the kernel answered with an errno
│   └── Invalid    it would have answered so or worse, and was not asked
├── Unavailable    IPVS is not there: no module, no permission, no netlink
├── Interrupted    a dump stayed inconsistent however often it was taken
└── Malformed      bytes that are not what the kernel sends
"""

import errno as errno_module
import os


class NetlinkError(Exception):
    """An operation on the kernel did not succeed; nothing is known to have changed."""

    def __init__(self, operation: str, target: str, reason: str) -> None:
        super().__init__(f"{operation} {target}: {reason}" if target else f"{operation}: {reason}")
        self.operation = operation
        self.target = target
        self.reason = reason


class Refused(NetlinkError):
    """The kernel refused one request; `errno` is positive, `meaning` says what it means for this operation."""

    def __init__(self, operation: str, target: str, errno: int, meaning: str | None = None) -> None:
        name = errno_module.errorcode.get(errno, f"errno {errno}")
        self.errno = errno
        self.meaning = meaning or os.strerror(errno)
        super().__init__(operation, target, f"{self.meaning} ({name})")


class Invalid(Refused):
    """A request that no kernel should get: it would refuse the value, or take it and keep another."""

    def __init__(self, operation: str, target: str, problem: str) -> None:
        super().__init__(operation, target, errno_module.EINVAL, f"{problem}; not sent")


class Unavailable(NetlinkError):
    """IPVS cannot be used from here; the text says what is missing and what to do."""


class Interrupted(NetlinkError):
    """A dump was cut or raced by another writer, every time it was tried."""


class Malformed(NetlinkError):
    """An answer is not what the IPVS interface defines."""

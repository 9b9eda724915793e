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
from collections.abc import Sequence
from typing import Any


class NetlinkError(Exception):
    """An operation on the kernel did not succeed.

    Of `apply`, which could not go on, `results` has those of the requests that were answered, in their order.
    """

    def __init__(self, operation: str, target: str, reason: str) -> None:
        super().__init__(f"{operation} {target}: {reason}" if target else f"{operation}: {reason}")
        self.operation = operation
        self.target = target
        self.reason = reason
        self.results: Sequence[Refused | None] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to make it again: what is above goes to other processes, too."""
        return _again, (type(self), self.args, self.__dict__)


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
    """A dump was raced by other writers, every time it was tried."""


class Malformed(NetlinkError):
    """An answer is not what the IPVS interface defines."""


def _again(cls: type[NetlinkError], args: tuple[Any, ...], state: dict[str, Any]) -> NetlinkError:
    made = cls.__new__(cls, *args)
    made.__dict__.update(state)
    return made

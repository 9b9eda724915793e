"""Every error lvsctl raises on purpose; the exit code is the class's.

LvsctlError (1 is kept for "differs", 2 for wrong usage)
├── ConfigError            3  the configuration file: every problem, each with file, line and key
├── ConsulError            4  Consul gave no complete answer
│   ├── ConsulRefused      4  Consul answered, and said no (status, its own words)
│   └── ConsulUnreadable   4  Consul answered, with what is too large or no such answer
├── KernelError            5  IPVS is missing, refused, or may not be used
├── AlreadyRunning         6  another daemon holds the lock
├── StateError             7  the ledger or the state directory
└── DaemonError            8  the daemon did not answer on its socket
    └── OrderRefused       8  it did, and does not take this order
"""

from pathlib import Path
from typing import ClassVar

import attrs


class LvsctlError(Exception):
    """Something went wrong that an operator can do something about; the text says what."""

    exit_code: ClassVar[int] = 9


@attrs.frozen(kw_only=True)
class Problem:
    """One thing wrong in a configuration file, or in the environment variables that complete it."""

    line: int | None  # from 1; None where the whole file is meant
    key: str  # dotted, as written: virtual_server.reco.scheduler; empty for the whole file; a variable's name
    wrong: str  # what is wrong, with the value
    remedy: str  # what would be right
    in_environment: bool = False

    def at(self, path: Path) -> str:
        """Return the problem as one line: file, line, key, what is wrong, what would be right."""
        place = f"{path}:{self.line}" if self.line else "environment" if self.in_environment else str(path)
        return f"{place}: {self.key + ': ' if self.key else ''}{self.wrong}; {self.remedy}"


class ConfigError(LvsctlError):
    """The configuration file cannot be used; `problems` has all of them, in the file's order."""

    exit_code = 3

    def __init__(self, path: Path, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(problem.at(path) for problem in problems))
        self.path = path
        self.problems = problems


class ConsulError(LvsctlError):
    """Consul gave no complete answer: unreachable, too slow, cut short or not understood."""

    exit_code = 4


class ConsulRefused(ConsulError):
    """Consul answered with a status other than 200."""

    def __init__(self, status: int, text: str, *, retry_after: float = 0.0) -> None:
        super().__init__(f"Consul answered {status}: {text}")
        self.status = status
        self.retry_after = retry_after  # seconds that it asks for; 0 when it does not
        self.text = text


class ConsulUnreadable(ConsulError):
    """The answer came and is of no use: too large, or not what was asked for. The next one is likely to be the same."""


class KernelError(LvsctlError):
    """IPVS or the network interface cannot be used from here."""

    exit_code = 5


class AlreadyRunning(LvsctlError):
    """Another lvsctl holds the lock; nothing was written."""

    exit_code = 6


class StateError(LvsctlError):
    """The state directory or the ledger in it cannot be read or written."""

    exit_code = 7


class DaemonError(LvsctlError):
    """The daemon did not answer on its control socket."""

    exit_code = 8


class OrderRefused(DaemonError):
    """The daemon does not take an operator's order: what it is about is `unknown`, or nothing would serve (`empties`).

    Where it is neither, something keeps it from taking any.
    """

    def __init__(self, text: str, *, unknown: bool = False, empties: bool = False) -> None:
        super().__init__(text)
        self.unknown = unknown
        self.empties = empties

"""How much of Consul's answers is in memory at one time, whatever is sent and by how many.

Pure. Every body has a limit of its own, but thousands of queries wait at once, and any of them may get a large one. So
what all of them have received, and what is not decoded yet, is counted together. Where that is too much, the largest
body that is still coming is given up: at once, so that the others need not wait for it, not even where it only trickles
in. Its query fails and asks again. Of bodies that are all large some come through, for one alone always fits.
"""

from types import TracebackType
from typing import Final, Self

MOST: Final = 40 * 1024 * 1024  # bytes of all bodies; more than the largest one that is read
Body = bytes | bytearray
COPIED: Final = 1 << 20  # bytes of a body up to which it is copied, so that nothing is kept that it grew into


class TooMuch(Exception):
    """The body was given up, for all of them together were too large."""


class Budget:
    """What all bodies share."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._used = 0
        self._shares: set[Share] = set()

    @property
    def used(self) -> int:
        """Return the bytes of all bodies."""
        return self._used

    def share(self) -> "Share":
        """Return the part of one body; a context, which ends when nothing of the body is needed any more."""
        return Share(self)

    def _take(self, share: "Share", size: int) -> None:
        self._shares.add(share)
        self._used += size
        if self._used > self._most:
            max((each for each in self._shares if not each.taken), key=len).give_up()

    def _release(self, share: "Share", size: int) -> None:
        self._shares.discard(share)
        self._used -= size


class Share:
    """One body as it is received; thousands wait for theirs."""

    __slots__ = ("_body", "_budget", "_given_up", "_size", "taken")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._body = bytearray()
        self._size = 0
        self._given_up = False
        self.taken = False  # whoever decodes it has it: giving it up would free nothing

    def __len__(self) -> int:
        """Return the bytes received, and not given up."""
        return self._size

    def __bool__(self) -> bool:
        """Tell that it is one, empty or not."""
        return True

    def add(self, data: bytes) -> None:
        """Take what comes next; raises TooMuch for a body that was given up, now or before."""
        if not self._given_up:
            self._body += data
            self._size += len(data)
            self._budget._take(self, len(data))  # noqa: SLF001  # the two are one thing
        if self._given_up:
            raise TooMuch("all answers of this moment together are too large")

    def give_up(self) -> None:
        """Forget what was received; who adds to it, or takes it, finds out."""
        self._given_up = True
        self._close()

    def take(self) -> Body:
        """Return the whole body, which counts until the context ends; raises TooMuch.

        A large one is handed over as it is, a bytearray: as a copy it would be in memory twice.
        """
        if self._given_up:
            raise TooMuch("all answers of this moment together are too large")
        self.taken = True
        body, self._body = self._body, bytearray()
        return body if len(body) > COPIED else bytes(body)

    def _close(self) -> None:
        size, self._size = self._size, 0
        self._body = bytearray()
        self._budget._release(self, size)  # noqa: SLF001  # the two are one thing

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Count it no more."""
        self._close()

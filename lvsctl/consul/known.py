"""The last answer to a query by the bytes it came as: the same bytes need not be decoded again.

Pure. A blocking query that ends without news brings the body that was read before. With thousands of them the decoding
of what is known would be most of what a daemon does while nothing happens. The digest is kept and not the body; whoever
writes bodies cannot choose two with one digest.
"""

import hashlib

import attrs

from lvsctl.consul.budget import Body
from lvsctl.core.instance import Answer

DIGEST = 16  # bytes


def digest_of(body: Body) -> bytes:
    """Return what stands for `body`."""
    return hashlib.blake2b(body, digest_size=DIGEST).digest()


@attrs.define
class Known:
    """The last answer to one query, and what its body was; nothing before the first."""

    _digest: bytes = b""
    _answer: Answer | None = None

    def answer(self, digest: bytes) -> Answer | None:
        """Return what a body of this digest says; None where it has to be decoded."""
        return self._answer if digest == self._digest else None

    def learn(self, digest: bytes, answer: Answer) -> None:
        """Take note of what a body says."""
        self._digest, self._answer = digest, answer

    def forget(self) -> None:
        """Know nothing any more."""
        self._digest, self._answer = b"", None

    def keep(self, answer: Answer) -> None:
        """Have what is known be the one that is kept elsewhere, where it says the same: nothing is kept twice."""
        known = self._answer
        if known is None or (known.instances, known.malformed) != (answer.instances, answer.malformed):
            self.forget()
        else:
            self._answer = answer

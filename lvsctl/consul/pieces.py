"""The entries of a large answer that are the same bytes as in the one before: they need not be read again.

Pure. Of ten thousand instances one changes, and Consul sends all of them anew. To read them all takes a quarter of a
second of processor, in which others wait; to see that they are the same bytes, at the places where they are expected,
takes a hundredth of that. So the bytes of each entry that became an instance are kept, of no more than some answers.
"""

from collections import OrderedDict
from typing import Final

import attrs

from lvsctl.consul.budget import Body
from lvsctl.core.instance import Instance, Query

MOST: Final = 16 << 20  # bytes of the entries of all answers that are kept


@attrs.frozen
class Piece:
    """One entry: what was sent, a JSON object, and what it became."""

    raw: bytes
    instance: Instance
    size: int  # bytes of memory that the instance takes


class Pieces:
    """The entries of the last answer to one query, in order, and those of the one that is being read."""

    def __init__(self) -> None:
        self._last: list[Piece] = []
        self._now: list[Piece] = []
        self._next = 0  # which of the last is expected
        self._numbers: dict[tuple[str, str], int] | None = None  # of the last, by identity; made where one has changed
        self.size = 0  # bytes of the last

    def begin(self) -> None:
        """Begin with another answer."""
        self._now, self._next, self._numbers = [], 0, None

    def at(self, body: Body, start: int) -> Piece | None:
        """Return the entry of the last answer whose bytes are at `start` in `body`; None where it has to be read."""
        for number in (self._next, self._next + 1):  # the one before may have gone
            if number < len(self._last) and body.startswith((piece := self._last[number]).raw, start):
                self._next = number + 1
                return piece
        return None

    def add(self, piece: Piece) -> None:
        """Take note of the next entry, which was at its place or was read."""
        self._now.append(piece)

    def read(self, raw: bytes, instance: Instance, size: int) -> Piece:
        """Return what was read, a piece; expected is now what came behind this instance the last time.

        Behind a new one it is what was expected before it.
        """
        if self._numbers is None:
            self._numbers = {piece.instance.identity: number for number, piece in enumerate(self._last)}
        self._next = self._numbers.get(instance.identity, self._next - 1) + 1
        return Piece(raw, instance, size)

    def end(self) -> None:
        """Have the answer that was read be the last one: it was complete."""
        self._last, self._now, self._numbers = self._now, [], None
        self.size = sum(len(piece.raw) for piece in self._last)


class Kept:
    """The pieces of the answers to several queries; those that were not asked for longest go first."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._of: OrderedDict[Query, Pieces] = OrderedDict()

    def of(self, query: Query) -> Pieces:
        """Return what is kept of the answers to `query`, to be read with."""
        pieces = self._of.setdefault(query, Pieces())
        self._of.move_to_end(query)
        return pieces

    def tidy(self) -> None:
        """Forget as much as there is too much."""
        while sum(each.size for each in self._of.values()) > self._most:
            self._of.popitem(last=False)

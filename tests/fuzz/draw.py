"""Choices drawn from bytes: what a fuzzer changes in the bytes, it changes in what a target does."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draw:
    """Takes choices off the front of `data`; behind its end every choice is the first."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = 0

    @property
    def more(self) -> bool:
        """Tell whether there is something left."""
        return self._offset < len(self._data)

    def octets(self, length: int) -> bytes:
        """Return the next `length` bytes, fewer at the end."""
        taken = self._data[self._offset : self._offset + length]
        self._offset += length
        return taken

    def number(self, size: int = 1) -> int:
        """Return a number of `size` bytes."""
        return int.from_bytes(self.octets(size), "little")

    def below(self, limit: int) -> int:
        """Return a number from 0 to `limit`, which itself is left out."""
        return self.number(1 if limit <= 256 else 4) % limit

    def choice(self, options: Sequence[T]) -> T:
        """Return one of `options`."""
        return options[self.below(len(options))]

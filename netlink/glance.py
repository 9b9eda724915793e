"""A look at the whole table that is cheap, to be compared with another one.

Pure. It holds what the kernel sent, not what that means: see `reader` for how it is taken.
"""

from collections.abc import Hashable, Sequence


class Glance:
    """What the table looked like. Equal glances: nothing was changed between them; counters do not count.

    `virtual_servers` stand for their configuration, and `real_servers` for that of each one's, at its name in `names`.
    The order of virtual servers does not count, for 7.2 orders its table anew when it grows or shrinks.
    """

    __slots__ = ("_names", "_real_servers", "_virtual_servers")

    def __init__(
        self,
        virtual_servers: Sequence[Hashable],
        names: Sequence[Hashable],
        real_servers: Sequence[Sequence[Hashable]],
    ) -> None:
        self._virtual_servers = tuple(virtual_servers)
        self._names = tuple(names)
        self._real_servers = tuple(map(tuple, real_servers))

    @property
    def virtual_servers(self) -> int:
        """Return how many virtual servers there were."""
        return len(self._virtual_servers)

    @property
    def real_servers(self) -> int:
        """Return how many real servers they had."""
        return sum(map(len, self._real_servers))

    def __eq__(self, other: object) -> bool:
        """Tell whether `other` is of the same table."""
        if not isinstance(other, Glance):
            return NotImplemented
        return self._in_order() == other._in_order() or self._in_any_order() == other._in_any_order()

    def __hash__(self) -> int:
        """Return a hash of the table."""
        return hash(self._in_any_order())

    def __repr__(self) -> str:
        """Return how much there was."""
        return f"<Glance at {self.virtual_servers} virtual servers, {self.real_servers} real servers>"

    def _in_order(self) -> tuple[object, ...]:
        return self._virtual_servers, self._names, self._real_servers

    def _in_any_order(self) -> tuple[frozenset[object], ...]:
        return frozenset(self._virtual_servers), frozenset(zip(self._names, self._real_servers, strict=True))

"""A look at the whole table that is cheap, to be compared with another one.

Pure. It holds what the kernel sent, not what that means: see `reader` for how it is taken.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from netlink.types import VirtualServer, VirtualServerKey


class Glance:
    """What the table looked like. Equal glances: nothing was changed between them; counters do not count.

    `virtual_servers` stand for the configuration of the `values`, and `real_servers` for that of each one's, at its
    name in `names`, of which `key_of` makes a key. The order of virtual servers does not count, for 7.2 orders its
    table anew when it grows or shrinks.
    """

    __slots__ = ("_key_of", "_names", "_real_servers", "_values", "_virtual_servers")

    def __init__(
        self,
        virtual_servers: Sequence[Hashable],
        names: Sequence[Hashable],
        real_servers: Sequence[Sequence[Hashable]],
        *,
        values: Sequence[VirtualServer],
        key_of: Callable[[Any], VirtualServerKey],
    ) -> None:
        self._virtual_servers = tuple(virtual_servers)
        self._values = values
        self._names = tuple(names)
        self._key_of = key_of
        self._real_servers = tuple(map(tuple, real_servers))

    @property
    def virtual_servers(self) -> int:
        """Return how many virtual servers there were."""
        return len(self._virtual_servers)

    @property
    def real_servers(self) -> int:
        """Return how many real servers they had."""
        return sum(map(len, self._real_servers))

    def changed(self, before: "Glance") -> frozenset[VirtualServerKey]:
        """Return the virtual servers that came, went or were changed since `before`, they or their real servers."""
        return frozenset(self._changed_virtual_servers(before) | self._changed_real_servers(before))

    def _changed_virtual_servers(self, before: "Glance") -> set[VirtualServerKey]:
        if self._virtual_servers == before._virtual_servers:
            return set()
        return _different(self._by_key(), before._by_key())

    def _changed_real_servers(self, before: "Glance") -> set[VirtualServerKey]:
        if self._names == before._names:  # as nearly always: hashing them would be most of the work
            lists = zip(self._names, self._real_servers, before._real_servers, strict=True)
            return {self._key_of(name) for name, now, then in lists if now != then}
        return {self._key_of(name) for name in _different(self._by_name(), before._by_name())}

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

    def _by_key(self) -> dict[VirtualServerKey, Hashable]:
        return {each.key: bare for each, bare in zip(self._values, self._virtual_servers, strict=True)}

    def _by_name(self) -> dict[Hashable, Hashable]:
        return dict(zip(self._names, self._real_servers, strict=True))

    def _in_any_order(self) -> tuple[frozenset[object], ...]:
        return frozenset(self._virtual_servers), frozenset(zip(self._names, self._real_servers, strict=True))


def _different(one: Mapping[Any, Hashable], other: Mapping[Any, Hashable]) -> set[Any]:
    """Return the keys at which the two are not the same."""
    return {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}

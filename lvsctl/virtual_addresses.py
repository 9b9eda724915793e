"""The virtual addresses on our dummy interface: there before packets come for them, gone when none is wanted.

Which ones is decided by `core.addresses`. One address that cannot be moved hinders no other.
"""

import functools
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, Protocol

import attrs

from lvsctl.core.addresses import AddressMoves
from netlink.errors import NetlinkError
from netlink.types import Address

OWNER: Final = "lvsctl"  # the alias that marks our dummy interface
_TOLD: Final = 5  # errors in words; thousands of addresses mostly fail for one reason


class Addresses(Protocol):
    """Virtual addresses on an interface, as `netlink.addresses.Addresses` offers them."""

    def local_addresses(self) -> frozenset[Address]:
        """Return every address of this machine."""
        ...

    def ensure_interface(self, name: str, *, owner: str) -> None:
        """Create the dummy interface `name` marked as `owner`'s, or check that it is that already."""
        ...

    def interface_addresses(self, name: str) -> frozenset[Address]:
        """Return the addresses on interface `name`, none when it does not exist."""
        ...

    def add_addresses(self, name: str, addresses: Sequence[Address]) -> Sequence[NetlinkError | None]:
        """Put `addresses` on interface `name`; return for each None or why it could not be."""
        ...

    def remove_addresses(self, name: str, addresses: Sequence[Address]) -> Sequence[NetlinkError | None]:
        """Take `addresses` off interface `name`; return for each None or why it could not be."""
        ...

    def owned_interfaces(self, owner: str) -> tuple[str, ...]:
        """Return the names of all interfaces that are `owner`'s."""
        ...

    def remove_interface(self, name: str, *, owner: str) -> None:
        """Remove `owner`'s interface `name` with its addresses."""
        ...


@attrs.frozen(kw_only=True)
class Moved:
    """What came and went on the interface."""

    added: tuple[Address, ...] = ()
    removed: tuple[Address, ...] = ()
    error: str = ""  # why the addresses are not as wanted; empty when they are


class VirtualAddresses:
    """Owns our interface; remembers which one it was."""

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses
        self._interface = ""  # the one that held our addresses when they were moved last

    def local(self) -> frozenset[Address]:
        """Return every address of this machine."""
        return self._addresses.local_addresses()

    def there(self, interface: str) -> frozenset[Address]:
        """Return the addresses on `interface`, none when it does not exist."""
        return self._addresses.interface_addresses(interface)

    def is_up(self, name: str) -> bool:
        """Tell whether interface `name` is ours and up; one of ours that is down is brought up."""
        try:
            self._addresses.ensure_interface(name, owner=OWNER)
        except NetlinkError:
            return False
        return True

    def keep(self, name: str, moves_from: Callable[[frozenset[Address]], AddressMoves]) -> Moved:
        """Keep on interface `name` exactly the addresses that `moves_from` those that are there leaves.

        An interface of ours that another took the place of goes once the addresses are on the new one.
        """
        try:
            there = self.there(name)
            moves = moves_from(there)
            if moves.missing or there:
                self._addresses.ensure_interface(name, owner=OWNER)  # refuses one that is not ours
        except NetlinkError as error:
            return Moved(error=str(error))
        added, errors = _each(moves.missing, functools.partial(self._addresses.add_addresses, name))
        removed, others = _each(moves.superfluous, functools.partial(self._addresses.remove_addresses, name))
        errors += others
        if self._interface != name and not errors:
            errors += self._remove_others(name)
        return Moved(added=added, removed=removed, error=_told(errors))

    def _remove_others(self, name: str) -> tuple[str, ...]:
        """Remove every interface of ours but `name`; return what went wrong."""
        try:
            for other in self._addresses.owned_interfaces(OWNER):
                if other != name:
                    self._addresses.remove_interface(other, owner=OWNER)
        except NetlinkError as error:
            return (str(error),)
        self._interface = name
        return ()


def _each(
    addresses: AbstractSet[Address], move: Callable[[Sequence[Address]], Sequence[NetlinkError | None]]
) -> tuple[tuple[Address, ...], tuple[str, ...]]:
    """Have `move` move `addresses` in order; return those that it moved, and the errors of the others."""
    ordered = sorted(addresses, key=_address_order)
    if not ordered:
        return (), ()
    try:
        errors = move(ordered)
    except NetlinkError as error:
        return (), (str(error),)
    moved = tuple(address for address, error in zip(ordered, errors, strict=True) if error is None)
    return moved, tuple(str(error) for error in errors if error is not None)


def _told(errors: Sequence[str]) -> str:
    more = len(errors) - _TOLD
    return "; ".join([*errors[:_TOLD], *([f"and {more} more"] if more > 0 else [])])


def _address_order(address: Address) -> tuple[int, int]:
    return (address.version, int(address))

"""The machine's addresses in memory, for tests that need no kernel; tells everything that was done, in order."""

from collections.abc import Sequence

import attrs

from netlink.errors import NetlinkError
from netlink.types import Address
from tests.values import OWN


@attrs.define
class FakeAddresses:
    """Interfaces with their owners and addresses; `journal` may be shared with others that write."""

    owners: dict[str, str] = attrs.field(factory=dict)
    on: dict[str, set[Address]] = attrs.field(factory=dict)
    journal: list[object] = attrs.field(factory=list)
    refused: frozenset[Address] = frozenset()

    def local_addresses(self) -> frozenset[Address]:
        """Return every address of this machine."""
        return OWN.union(*self.on.values())

    def owned_interfaces(self, owner: str) -> tuple[str, ...]:
        """Return the names of the interfaces that are `owner`'s."""
        return tuple(sorted(name for name, its in self.owners.items() if its == owner))

    def ensure_interface(self, name: str, *, owner: str) -> None:
        """Create `name`, or check that it is `owner`'s."""
        if self.owners.setdefault(name, owner) != owner:
            raise NetlinkError("use", f"interface {name}", "it is not lvsctl's")
        self.on.setdefault(name, set())

    def remove_interface(self, name: str, *, owner: str) -> None:
        """Remove `name` with its addresses."""
        self.ensure_interface(name, owner=owner)
        self.journal.append(("remove interface", name))
        del self.owners[name], self.on[name]

    def interface_addresses(self, name: str) -> frozenset[Address]:
        """Return the addresses on `name`."""
        return frozenset(self.on.get(name, ()))

    def add_addresses(self, name: str, addresses: Sequence[Address]) -> list[NetlinkError | None]:
        """Put `addresses` on `name`, but for those that are to be refused."""
        results: list[NetlinkError | None] = []
        for address in addresses:
            if address in self.refused:
                results.append(NetlinkError("add", str(address), "no"))
                continue
            self.journal.append(("add", address))
            self.on[name].add(address)
            results.append(None)
        return results

    def remove_addresses(self, name: str, addresses: Sequence[Address]) -> list[NetlinkError | None]:
        """Take `addresses` off `name`."""
        for address in addresses:
            self.journal.append(("remove", address))
            self.on[name].remove(address)
        return [None] * len(addresses)

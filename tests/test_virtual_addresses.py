"""Virtual addresses moved on an interface in memory: what hinders what, and what is told of it."""

from collections.abc import Sequence
from ipaddress import ip_address

import attrs

from lvsctl.core.addresses import AddressMoves
from lvsctl.virtual_addresses import Moved, VirtualAddresses
from netlink.errors import NetlinkError
from netlink.types import Address
from tests.addresses import FakeAddresses

NAME = "lvs0"
OLD = frozenset({ip_address("10.9.0.1"), ip_address("10.9.0.2")})
NEW = frozenset({ip_address(f"10.9.1.{last}") for last in range(1, 9)})


def keep(addresses: FakeAddresses) -> Moved:
    """Move from OLD to NEW."""
    moves = AddressMoves(interface=NAME, missing=NEW, superfluous=OLD)
    return VirtualAddresses(addresses).keep(NAME, lambda _: moves)


def addresses_with_old() -> FakeAddresses:
    return FakeAddresses(owners={NAME: "lvsctl"}, on={NAME: set(OLD)})


def test_all_move_in_order() -> None:
    addresses = addresses_with_old()
    moved = keep(addresses)
    assert moved == Moved(added=tuple(sorted(NEW, key=int)), removed=tuple(sorted(OLD, key=int)))
    assert addresses.on == {NAME: set(NEW)}


def test_few_refusals_are_told_whole() -> None:
    addresses = addresses_with_old()
    addresses.refused = frozenset({ip_address("10.9.1.1"), ip_address("10.9.1.3")})
    moved = keep(addresses)
    assert moved.error == "add 10.9.1.1: no; add 10.9.1.3: no"
    assert addresses.on == {NAME: set(NEW - addresses.refused)}


def test_of_many_refusals_the_first_are_told_and_the_others_counted() -> None:
    addresses = addresses_with_old()
    addresses.refused = NEW
    assert keep(addresses).error == "; ".join([*(f"add 10.9.1.{last}: no" for last in range(1, 6)), "and 3 more"])


@attrs.define
class Unreachable(FakeAddresses):
    """Adds nothing: there is no connection for it."""

    def add_addresses(self, name: str, addresses: Sequence[Address]) -> list[NetlinkError | None]:
        raise NetlinkError("add", f"{len(addresses)} to interface {name}", "no connection")


def test_when_none_can_be_added_the_others_go_nevertheless() -> None:
    addresses = Unreachable(owners={NAME: "lvsctl"}, on={NAME: set(OLD)})
    moved = keep(addresses)
    assert (moved.added, moved.removed) == ((), tuple(sorted(OLD, key=int)))
    assert moved.error == "add 8 to interface lvs0: no connection"

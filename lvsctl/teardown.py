"""Taking away what is ours: what there is of it, and its removal. Used by `lvsctl teardown` alone."""

from collections.abc import Callable
from typing import Final

import attrs

from lvsctl.core.event import Event
from lvsctl.core.ownership import Ledger, is_still_ours
from lvsctl.errors import StateError
from lvsctl.journal import now
from lvsctl.store import Store
from lvsctl.virtual_addresses import OWNER
from netlink.addresses import Addresses
from netlink.client import Client
from netlink.errors import Refused
from netlink.requests import DeleteVirtualServer
from netlink.types import Address, Table, VirtualServerKey

TORN_DOWN: Final = "lvsctl teardown"


@attrs.frozen(kw_only=True)
class Leftover:
    """One virtual server of ours in the kernel."""

    name: str
    key: VirtualServerKey
    real_servers: int


@attrs.frozen(kw_only=True)
class Interface:
    """One interface of ours, with the virtual addresses on it."""

    name: str
    addresses: tuple[Address, ...]


@attrs.frozen(kw_only=True)
class Leftovers:
    """Everything of ours that the machine has, whatever the present configuration says."""

    virtual_servers: tuple[Leftover, ...]
    interfaces: tuple[Interface, ...]

    @property
    def empty(self) -> bool:
        """Tell whether there is nothing to remove."""
        return not self.virtual_servers and not self.interfaces


def known(store: Store, kernel: Client) -> Ledger:
    """Return what is ours by the ledger; raises StateError, with what can be done, where that is damaged."""
    try:
        return store.load_whole()
    except StateError as error:
        number = len(kernel.observe().table)
        raise StateError(
            f"{error}; nothing was removed, the kernel has {number} virtual server{'' if number == 1 else 's'}. "
            "`lvsctl run --once` takes as ours what stands as the file wants it, then tear down again; "
            "what else is ours is for you to delete (ipvsadm -D)"
        ) from error


def find(kernel: Client, addresses: Addresses, ledger: Ledger) -> Leftovers:
    """Return what of ours is there."""
    table = kernel.observe().table
    return Leftovers(
        virtual_servers=tuple(
            Leftover(name=ledger[key].name, key=key, real_servers=len(table[key].real_servers))
            for key in sorted(_still_ours(ledger, table))
        ),
        interfaces=tuple(
            Interface(name=name, addresses=tuple(sorted(addresses.interface_addresses(name), key=_order)))
            for name in addresses.owned_interfaces(OWNER)
        ),
    )


def remove(
    leftovers: Leftovers,
    kernel: Client,
    addresses: Addresses,
    store: Store,
    tell: Callable[[Event], None] = lambda _: None,
    *,
    by: str = "",
) -> None:
    """Remove `leftovers` and forget what is gone; the addresses go first, so that clients see no refusal in between.

    What became somebody else's since it was found stays. The journal is to `tell`, and that it was done `by` somebody.
    Raises NetlinkError for the first thing that cannot be removed; the ledger then still has what remains.
    """
    for interface in leftovers.interfaces:
        addresses.remove_interface(interface.name, owner=OWNER)
        for address in interface.addresses:
            tell(Event(time=now(), event="virtual_address_removed", address=str(address), by=by, why=TORN_DOWN))
    ledger = store.load(set_aside_damage=True)
    ours = _still_ours(ledger, kernel.observe().table)
    keys = [each.key for each in leftovers.virtual_servers if each.key in ours]
    results = kernel.apply([DeleteVirtualServer(key=key) for key in keys])
    refused = [result for result in results if isinstance(result, Refused)]
    for key, result in zip(keys, results, strict=True):
        tell(_deletion(ledger[key].name, key, result, by=by))
    store.save(_still_ours(ledger, kernel.observe().table), durable=True)
    if refused:
        raise refused[0]


def _deletion(name: str, key: VirtualServerKey, result: Refused | None, *, by: str) -> Event:
    deleted = "virtual_server_deleted"
    event = Event(time=now(), event=deleted, name=name, virtual_server=str(key), by=by, why=TORN_DOWN)
    if result is None:
        return event
    return attrs.evolve(event, event="kernel_refused", of=deleted, error=str(result), attempt=1)


def _still_ours(ledger: Ledger, table: Table) -> Ledger:
    """Return the part of `ledger` that is in `table` and has not become somebody else's under the same key."""
    return {key: entry for key, entry in ledger.items() if key in table and is_still_ours(table[key], entry)}


def _order(address: Address) -> tuple[int, int]:
    return address.version, int(address)

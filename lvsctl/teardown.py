"""Taking away what is ours: what there is of it, and its removal. Used by `lvsctl teardown` alone."""

from pathlib import Path

import attrs

from lvsctl.config import Config
from lvsctl.core.ownership import Ledger
from lvsctl.reconcile import OWNER
from lvsctl.store import Store
from netlink.addresses import Addresses
from netlink.client import Client
from netlink.errors import Refused
from netlink.requests import DeleteVirtualServer
from netlink.types import Address, VirtualServerKey


@attrs.frozen(kw_only=True)
class Leftover:
    """One virtual server of ours in the kernel."""

    name: str
    key: VirtualServerKey
    real_servers: int


@attrs.frozen(kw_only=True)
class Leftovers:
    """Everything of ours that the machine has."""

    virtual_servers: tuple[Leftover, ...]
    interface: str  # of the virtual addresses; empty when there is none
    addresses: frozenset[Address]

    @property
    def empty(self) -> bool:
        """Tell whether there is nothing to remove."""
        return not self.virtual_servers and not self.interface


def find(config: Config, kernel: Client, addresses: Addresses, ledger: Ledger) -> Leftovers:
    """Return what of ours is there."""
    table = kernel.observe().table
    interface = config.vip.interface if config.vip and Path("/sys/class/net", config.vip.interface).exists() else ""
    return Leftovers(
        virtual_servers=tuple(
            Leftover(name=ledger[key].name, key=key, real_servers=len(table[key].real_servers))
            for key in sorted(ledger.keys() & table.keys())
        ),
        interface=interface,
        addresses=addresses.interface_addresses(interface) if interface else frozenset(),
    )


def remove(leftovers: Leftovers, kernel: Client, addresses: Addresses, store: Store) -> None:
    """Remove `leftovers` and forget what is gone; the addresses go first, so that clients see no refusal in between.

    Raises NetlinkError for the first thing that cannot be removed; the ledger then still has what remains.
    """
    if leftovers.interface:
        addresses.remove_interface(leftovers.interface, owner=OWNER)
    keys = [each.key for each in leftovers.virtual_servers]
    results = kernel.apply([DeleteVirtualServer(key=key) for key in keys])
    refused = [result for result in results if isinstance(result, Refused)]
    left = kernel.observe().table
    ledger = store.load(set_aside_damage=True)
    store.save({key: entry for key, entry in ledger.items() if key in left}, durable=True)
    if refused:
        raise refused[0]

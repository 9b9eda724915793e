"""What must hold between `[discovery]` and `[defaults]`, so that a Consul service can declare anything at all.

Pure. A declaration is judged when it is made, by `core.declaration`; a file that makes every one of them wrong is wrong
itself, and who writes it should hear of it before any Consul service does.
"""

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Final

import attrs

from lvsctl.config import DefaultsTable, DiscoveryTable, Network, VirtualServerTable
from lvsctl.config_rules import Merged, Read, failover, thresholds
from lvsctl.config_types import Wrong, quoted

THRESHOLDS: Final = ("lower_threshold", "upper_threshold")
_UNUSABLE: Final = tuple(
    (kind, ip_network(block))
    for kind, blocks in (
        ("loopback", ("127.0.0.0/8", "::1/128")),
        ("link-local", ("169.254.0.0/16", "fe80::/10")),
        ("multicast", ("224.0.0.0/4", "ff00::/8")),
        ("reserved", ("0.0.0.0/8", "240.0.0.0/4", "::/128")),
    )
    for block in blocks
)  # as `config_addresses` judges a single one


def discovery_rules(discovery: Read[DiscoveryTable], defaults: Read[DefaultsTable]) -> Iterator[Wrong]:
    """Yield what no declaration could be right with: defaults that contradict each other, networks without addresses.

    A contradiction is none where a key of it is opened, for a declaration can then say what fits.
    """
    declared = Merged(name="", own=Read(table=VirtualServerTable()), defaults=defaults)
    opened = discovery.table.keys
    if "keys" not in discovery.refused and not set(THRESHOLDS) & set(opened):
        for wrong in thresholds(declared):
            at = next(key for key in THRESHOLDS if key in defaults.written)
            yield attrs.evolve(wrong, at=("defaults", at))
    for wrong in failover(declared):
        yield attrs.evolve(wrong, at=("defaults", "failover"))
    if "addresses" in discovery.refused:
        return
    for index, network in enumerate(discovery.table.addresses):
        if kind := _kind(network):
            remedy = "write a network whose addresses are routed to this director, or remove it"
            said = f"every address in {quoted(str(network))} is one that no virtual server can have: {kind}"
            yield Wrong(said, remedy, ("discovery", "addresses", index))


def _kind(network: Network) -> str:
    """Return what all addresses of `network` are that no virtual server can have; empty where one may be another."""
    return next((kind for kind, block in _UNUSABLE if _is_inside(network, block)), "")


def _is_inside(network: Network, block: Network) -> bool:
    return network.version == block.version and network.prefixlen >= block.prefixlen and network[0] in block

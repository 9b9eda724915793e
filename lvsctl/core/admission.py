"""May this instance become a real server of this virtual server? The reason when it may not.

Pure. Three verdicts: it serves (`Admitted`), it is fine but not wanted now (`Excluded`: a failing check, maintenance,
another tag), or something is wrong with it (`Rejected`: an address that must never reach the kernel). Order matters:
an instance that the filters leave out is nobody's problem here, and health is looked at last. Whatever the verdict, it
has the key of the real server that the instance is or was: that is how it is known in the table.
Names are never resolved: a registrant who controls a DNS name would control the table.
"""

import enum
import functools
import re
from collections.abc import Set as AbstractSet
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

import attrs

from lvsctl.config import Network, VirtualServerConfig
from lvsctl.core.instance import NODE_MAINTENANCE, Check, Health, Instance
from lvsctl.core.words import word
from netlink.types import Address, Forwarding, RealServerKey, family_of

LARGEST_WEIGHT: Final = 65535
_WEIGHT: Final = re.compile(r"0|[1-9][0-9]{0,4}", re.ASCII)
METADATA_ADDRESSES: Final[frozenset[Address]] = frozenset(
    ip_address(address) for address in ("fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")
)  # clouds' metadata and wire servers that are not link-local


class Reason(enum.Enum):
    """Why an instance does not serve; the value is the constant word of logs, metrics and JSON."""

    CRITICAL = "critical"
    WARNING = "warning"
    MAINTENANCE = "maintenance"
    DRAINED = "drained"  # by an operator's order
    TAGS = "tags"
    META = "meta"
    DATACENTER = "datacenter"
    DAMPED = "damped"
    NOT_AN_ADDRESS = "not-an-address"
    FORBIDDEN_ADDRESS = "forbidden-address"
    OUTSIDE_ALLOWED_NETWORKS = "outside-allowed-networks"
    VIRTUAL_ADDRESS = "virtual-address"
    OWN_ADDRESS = "own-address"
    FAMILY = "address-family"
    PORT = "port"
    PORT_DIFFERS = "port-differs"
    FALLBACK = "fallback"
    DUPLICATE = "duplicate"
    MALFORMED = "malformed"


@attrs.frozen(kw_only=True)
class Admitted:
    """The instance serves as real server `key` with `weight`."""

    key: RealServerKey
    weight: int  # its own; an override may count before it
    note: str = ""  # why it is not the one that was registered for this virtual server; empty when it is


@attrs.frozen(kw_only=True)
class Excluded:
    """The instance is in order but not wanted now; `key` is the real server it would be, where known."""

    reason: Reason
    text: str
    key: RealServerKey | None = None
    check: Check | None = None


@attrs.frozen(kw_only=True)
class Rejected:
    """Something is wrong with the instance; `key` is the real server it would be, where there is one."""

    reason: Reason
    text: str
    key: RealServerKey | None = None


Verdict = Admitted | Excluded | Rejected


@attrs.frozen(kw_only=True)
class Limits:
    """What no instance may claim, whatever Consul says."""

    allowed_networks: tuple[Network, ...]
    max_weight: int
    virtual_addresses: AbstractSet[Address] = frozenset()
    own_addresses: AbstractSet[Address] = frozenset()  # the director's


def admit(instance: Instance, virtual_server: VirtualServerConfig, limits: Limits) -> Verdict:
    """Return the verdict on `instance` as a real server of `virtual_server`."""
    address = parse_address(instance.address)
    key = _key(address, instance.port, virtual_server)
    filtered = _filtered(instance, virtual_server)
    if filtered is not None:
        return attrs.evolve(filtered, key=key)
    if address is None:
        return Rejected(
            reason=Reason.NOT_AN_ADDRESS,
            text=f"registered with {instance.address!r}, which is not an IP address; names are not resolved",
        )
    misplaced = _misplaced(address, virtual_server, limits)
    if misplaced is not None:
        return attrs.evolve(misplaced, key=key)
    if not 1 <= instance.port <= 65535:
        return Rejected(reason=Reason.PORT, text=f"registered with port {instance.port}; 1 to 65535 can serve")
    if key is None:
        return Rejected(
            reason=Reason.PORT_DIFFERS,
            text=f"listens on port {instance.port}, but {word(virtual_server.forwarding)} leaves the port as it is: "
            f'only port {virtual_server.key.port} can work; use forwarding = "masquerade" or move the instance',
        )
    if key == virtual_server.fallback:
        text = f"{key} is the fallback, which serves where no instance does"
        return Rejected(reason=Reason.FALLBACK, text=text, key=key)
    return _by_health(instance, key, virtual_server, max_weight=limits.max_weight)


def parse_address(text: str) -> Address | None:
    """Return the address that `text` spells, IPv4 for an IPv4-mapped one; None when it is none, or has a scope."""
    try:
        address = _parsed(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address
    return address


def real_server_port(port: int, virtual_server: VirtualServerConfig) -> int:
    """Return the port the kernel's real server has: only masquerading can change the port of a packet."""
    return port if virtual_server.forwarding is Forwarding.MASQUERADE else virtual_server.key.port


def _key(address: Address | None, port: int, virtual_server: VirtualServerConfig) -> RealServerKey | None:
    """Return the real server at `address` and `port`; None where no packet would get there."""
    if address is None or not 1 <= port <= 65535:
        return None
    kept = real_server_port(port, virtual_server)
    if virtual_server.key.address is not None and kept != port:
        return None
    return RealServerKey(address=address, port=kept)


def _filtered(instance: Instance, virtual_server: VirtualServerConfig) -> Excluded | None:
    missing = [tag for tag in virtual_server.tags if tag not in instance.tags]
    if missing:
        return Excluded(reason=Reason.TAGS, text=f"has no tag {', '.join(map(repr, missing))}")
    for name, wanted in virtual_server.meta.items():
        if instance.meta.get(name) != wanted:
            found = repr(instance.meta[name]) if name in instance.meta else "absent"
            return Excluded(reason=Reason.META, text=f"meta {name!r} is {found}, wanted {wanted!r}")
    return None


def _misplaced(address: Address, virtual_server: VirtualServerConfig, limits: Limits) -> Rejected | None:
    kind = _forbidden_kind(address, limits.allowed_networks)
    if kind:
        return Rejected(reason=Reason.FORBIDDEN_ADDRESS, text=f"{address} is {kind}")
    if address in limits.virtual_addresses:
        return Rejected(
            reason=Reason.VIRTUAL_ADDRESS, text=f"{address} is a virtual address; behind itself it would loop"
        )
    if address in limits.own_addresses:
        return Rejected(reason=Reason.OWN_ADDRESS, text=f"{address} is the director's own address")
    if not any(address in network for network in limits.allowed_networks):
        return Rejected(reason=Reason.OUTSIDE_ALLOWED_NETWORKS, text=f"{address} is outside safety.allowed_networks")
    family = family_of(address)
    if family is not virtual_server.key.family:
        return Rejected(
            reason=Reason.FAMILY,
            text=f"{address} is IPv{address.version}, the virtual server is IPv{6 if address.version == 4 else 4}",
        )
    return None


def _forbidden_kind(address: Address, networks: tuple[Network, ...]) -> str:
    """Return what makes `address` one that never serves, in words; empty when nothing does."""
    kinds = {
        "the unspecified address": address.is_unspecified,
        "a loopback address": address.is_loopback,
        "a link-local address": address.is_link_local,
        "a multicast address": address.is_multicast,
        "a cloud's metadata address": address in METADATA_ADDRESSES,
        "a broadcast address": _is_broadcast(address, networks),
        "a reserved address": address.is_reserved or (isinstance(address, IPv4Address) and int(address) < 1 << 24),
    }
    return next((kind for kind, is_it in kinds.items() if is_it), "")


def _is_broadcast(address: Address, networks: tuple[Network, ...]) -> bool:
    if isinstance(address, IPv6Address):
        return False
    return address in _broadcast_addresses(networks)


@functools.lru_cache(maxsize=16)
def _broadcast_addresses(networks: tuple[Network, ...]) -> frozenset[Address]:
    """Return the first and the last address of each network, which are those of all its hosts."""
    wide = [network for network in networks if network.version == 4 and network.prefixlen < 31]
    ends = [end for network in wide for end in (network.network_address, network.broadcast_address)]
    return frozenset([IPv4Address("255.255.255.255"), *ends])


@functools.lru_cache(maxsize=4096)
def _parsed(text: str) -> Address:
    """Return the address; a node has many instances, and theirs is kept once."""
    return ip_address(text)


def _by_health(
    instance: Instance, key: RealServerKey, virtual_server: VirtualServerConfig, *, max_weight: int
) -> Verdict:
    check = instance.worst_check
    match instance.health:
        case Health.PASSING:
            weight, note = _passing_weight(instance, virtual_server.weight_meta)
            return _admitted(key, weight, note, max_weight)
        case Health.WARNING if not virtual_server.only_passing:
            return _admitted(key, instance.warning_weight, "", max_weight)
        case Health.WARNING:
            reason = Reason.WARNING
        case Health.CRITICAL:
            reason = Reason.CRITICAL
        case Health.MAINTENANCE:
            reason = Reason.MAINTENANCE
    return Excluded(reason=reason, text=failing_text(check), key=key, check=check)


def _admitted(key: RealServerKey, weight: int, note: str, most: int) -> Admitted:
    if weight > most:
        note = "; ".join(filter(None, (note, f"its own weight, {weight}, is cut to safety.max_weight, {most}")))
    return Admitted(key=key, weight=min(weight, most), note=note)


def _passing_weight(instance: Instance, weight_meta: str) -> tuple[int, str]:
    """Return the weight while all checks pass, and why its metadata does not say it where it should.

    Whoever registers the instance writes metadata, so only a plain number that a weight can be is one: other spellings
    of a number (` 5`, `1e3`, `+1`, `05`, digits of other scripts) are somebody's mistake, or a trial.
    """
    written = instance.meta.get(weight_meta) if weight_meta else None
    if written is None:
        return instance.weight, ""
    if _WEIGHT.fullmatch(written) and int(written) <= LARGEST_WEIGHT:
        return int(written), ""
    shown = repr(written[:40])
    return (
        instance.weight,
        f"meta {weight_meta!r} is {shown}, no weight from 0 to {LARGEST_WEIGHT}: Weights.Passing counts",
    )


def failing_text(check: Check | None) -> str:
    """Return what `check` says, which does not pass; of maintenance whose it is."""
    if check is None:
        return "failing"
    if check.health is Health.MAINTENANCE:
        place = "its node is in maintenance" if check.check_id == NODE_MAINTENANCE else "in maintenance"
        return f"{place}: {check.output}" if check.output else place
    said = f": {check.output}" if check.output else ""
    return f"check {check.name or check.check_id!r} is {check.health.word}{said}"

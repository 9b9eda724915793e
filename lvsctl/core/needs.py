"""What a configuration asks of the kernel: forwarding, schedulers, protocols; and which settings it has lvsctl set.

Pure. `preflight` judges the kernel by it. What Consul services may declare counts like what is written.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

from lvsctl.config import Config, DiscoveryConfig, KernelConfig, VirtualServerConfig
from netlink.types import Family, Forwarding, Protocol

HASHING: Final = frozenset({"sh", "mh", "dh"})  # directors with these choose alike
BY_MARK: Final = frozenset({Protocol.TCP, Protocol.UDP})  # what a firewall marks is not told
PAST_THE_DIRECTOR: Final = frozenset({Forwarding.DIRECT_ROUTE, Forwarding.TUNNEL})  # real servers answer themselves


@attrs.frozen(kw_only=True)
class Needs:
    """What the virtual servers of a configuration have, all together."""

    forwarding: frozenset[tuple[Forwarding, Family]]
    protocols: frozenset[Protocol]
    schedulers: frozenset[str]
    persistent: bool
    families: frozenset[Family]  # of addresses; a firewall mark has none
    hashing: bool  # every TCP virtual server has a scheduler of HASHING

    def masquerades(self, family: Family) -> bool:
        """Tell whether anything of `family` is masqueraded."""
        return (Forwarding.MASQUERADE, family) in self.forwarding

    def has(self, family: Family) -> bool:
        """Tell whether anything is of `family`."""
        return any(each is family for _, each in self.forwarding)

    def goes_past_the_director(self, family: Family) -> bool:
        """Tell whether real servers of `family` answer clients themselves."""
        return any(forwarding in PAST_THE_DIRECTOR and each is family for forwarding, each in self.forwarding)

    @property
    def past_the_director(self) -> bool:
        """Tell whether real servers answer clients themselves."""
        return any(forwarding in PAST_THE_DIRECTOR for forwarding, _ in self.forwarding)

    @property
    def tunnels(self) -> bool:
        """Tell whether anything goes through a tunnel."""
        return any(forwarding is Forwarding.TUNNEL for forwarding, _ in self.forwarding)


@attrs.frozen(kw_only=True)
class _One:
    forwarding: Forwarding
    family: Family
    protocols: frozenset[Protocol]
    scheduler: str
    persistent: bool
    by_address: bool


def needs_of(config: Config) -> Needs:
    """Return what `config` asks of the kernel."""
    every = [_written(each) for each in config.virtual_servers.values()]
    if config.discovery is not None:
        every += _declared(config.discovery)
    return Needs(
        forwarding=frozenset((each.forwarding, each.family) for each in every),
        protocols=frozenset(protocol for each in every for protocol in each.protocols),
        schedulers=frozenset(each.scheduler for each in every),
        persistent=any(each.persistent for each in every),
        families=frozenset(each.family for each in every if each.by_address),
        hashing=all(each.scheduler in HASHING for each in every if Protocol.TCP in each.protocols),
    )


def _written(each: VirtualServerConfig) -> _One:
    return _One(
        forwarding=each.forwarding,
        family=each.key.family,
        protocols=BY_MARK if each.key.protocol is None else frozenset({each.key.protocol}),
        scheduler=each.scheduler,
        persistent=bool(each.persistence),
        by_address=each.key.address is not None,
    )


def _declared(discovery: DiscoveryConfig) -> Iterator[_One]:
    """Yield what Consul services may declare; of schedulers the one that counts where they name none."""
    usual: Any = attrs.fields_dict(VirtualServerConfig)
    written = discovery.defaults.forwarding
    own: Forwarding = usual["forwarding"].default if written is None else written
    scheduler: str = discovery.defaults.scheduler or usual["scheduler"].default
    opened = {own, Forwarding.MASQUERADE, *PAST_THE_DIRECTOR} if "forwarding" in discovery.keys else {own}
    for family in {Family.IPV4 if network.version == 4 else Family.IPV6 for network in discovery.addresses}:
        for each in opened:
            yield _One(
                forwarding=each,
                family=family,
                protocols=frozenset(discovery.protocols),
                scheduler=scheduler,
                persistent=bool(discovery.defaults.persistence) or "persistence" in discovery.keys,
                by_address=True,
            )


def wished(kernel: KernelConfig) -> Mapping[str, int]:
    """Return the settings of net.ipv4.vs that are written in `[kernel]`, and what they shall be."""
    written = attrs.asdict(kernel).items()
    return {name: int(value) for name, value in written if value is not None}


def is_as_wished(name: str, number: int, wanted: int) -> bool:
    """Tell whether setting `name` does what was wished: of those that are on or off any number but 0 is on."""
    return number == wanted if name == "conn_reuse_mode" else bool(number) == bool(wanted)

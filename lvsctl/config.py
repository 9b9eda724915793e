"""The configuration as frozen values: every key, default, unit and range of the TOML file.

Pure. `configfile` reads and checks a file into these. Each attribute carries its documentation in its metadata;
`docs/configuration.md` is generated from it, so a key cannot exist without its description.
"""

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Final

import attrs

from netlink.types import Forwarding, SchedulerFlag, VirtualServerKey

Network = IPv4Network | IPv6Network

SCHEDULERS: Final = (
    "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq", "fo", "ovf", "twos",
)  # fmt: skip
WEIGHTLESS_SCHEDULERS: Final = frozenset({"rr", "lc", "dh"})  # these look at weight only to skip 0

PRIVATE_NETWORKS: Final = tuple(
    ip_network(network) for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fd00::/8")
)


def _key(doc: str, example: str, *, unit: str = "", between: str = "", **kwargs: Any) -> Any:
    """Return an attrs field that documents one key of the file: `between` is its range in words."""
    return attrs.field(metadata={"doc": doc, "example": example, "unit": unit, "range": between}, **kwargs)


@attrs.frozen(kw_only=True)
class ConsulConfig:
    """How to reach Consul: `[consul]`."""

    address: str = _key(
        "Where the Consul agent answers. `unix://` takes the path of its socket.",
        '"http://127.0.0.1:8500"',
        between="http://HOST[:PORT], https://HOST[:PORT] or unix:///PATH",
        default="http://127.0.0.1:8500",
    )
    token_file: Path | None = _key(
        "File that holds the ACL token, read again when it changes. Without one the token is empty (anonymous).",
        '"/etc/lvsctl/consul.token"',
        between="absolute path of a readable file",
        default=None,
    )
    ca_file: Path | None = _key(
        "Certificates of the authorities that an https address is checked against. Default: the system's.",
        '"/etc/lvsctl/ca.pem"',
        between="absolute path of a readable file",
        default=None,
    )
    certificate_file: Path | None = _key(
        "Client certificate shown to an https address.",
        '"/etc/lvsctl/client.pem"',
        between="absolute path of a readable file; needs key_file",
        default=None,
    )
    key_file: Path | None = _key(
        "Private key of the client certificate.",
        '"/etc/lvsctl/client.key"',
        between="absolute path of a readable file; needs certificate_file",
        default=None,
    )


@attrs.frozen(kw_only=True)
class SafetyConfig:
    """What Consul may never do to the table: `[safety]`."""

    allowed_networks: tuple[Network, ...] = _key(
        "Networks that real servers must be in; an instance outside is rejected, the others serve.",
        '["10.0.0.0/8", "fd00::/8"]',
        between="one or more networks in CIDR form",
        default=PRIVATE_NETWORKS,
    )
    max_weight: int = _key(
        "Largest weight an instance may claim; a larger one is cut to this.",
        "1000",
        between="1 to 65535",
        default=65535,
    )


@attrs.frozen(kw_only=True)
class VipConfig:
    """Virtual addresses on this director: `[vip]`. Without this table lvsctl leaves addresses alone."""

    interface: str = _key(
        "Dummy interface that lvsctl creates and keeps the virtual addresses on, exactly those it needs.",
        '"lvs0"',
        between="1 to 15 characters, no spaces or slashes",
    )


@attrs.frozen(kw_only=True)
class DaemonConfig:
    """The daemon itself: `[daemon]`."""

    state_directory: Path = _key(
        "Where the ledger of what lvsctl created and the lock are kept.",
        '"/var/lib/lvsctl"',
        between="absolute path",
        default=Path("/var/lib/lvsctl"),
    )
    control_socket: Path = _key(
        "Unix socket that `lvsctl status` asks; mode 0660, group lvsctl where that group exists.",
        '"/run/lvsctl/control.sock"',
        between="absolute path",
        default=Path("/run/lvsctl/control.sock"),
    )
    audit_interval: float = _key(
        "How often the live table is read and compared when nothing else happens.",
        '"10s"',
        unit="duration",
        between="1s to 1h",
        default=10.0,
    )


@attrs.frozen(kw_only=True)
class VirtualServerConfig:
    """One virtual server: `[virtual_server.NAME]`. Keys marked so take their default from `[defaults]`."""

    name: str
    key: VirtualServerKey
    consul_service: str
    tags: tuple[str, ...] = ()
    meta: Mapping[str, str] = attrs.field(factory=dict)
    datacenter: str | None = None
    near: str | None = None
    only_passing: bool = True
    scheduler: str = "wlc"
    scheduler_flags: SchedulerFlag = SchedulerFlag.NONE
    one_packet: bool = False
    forwarding: Forwarding = Forwarding.MASQUERADE
    persistence: int | None = None
    persistence_prefix: int | None = None
    upper_threshold: int = 0
    lower_threshold: int = 0
    drain_timeout: float = 30.0


@attrs.frozen(kw_only=True)
class Config:
    """One valid configuration file."""

    consul: ConsulConfig = ConsulConfig()
    safety: SafetyConfig = SafetyConfig()
    vip: VipConfig | None = None
    daemon: DaemonConfig = DaemonConfig()
    virtual_servers: Mapping[str, VirtualServerConfig] = attrs.field(factory=dict)

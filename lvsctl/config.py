"""The configuration as frozen values: every key, default, unit and range of the TOML file.

Pure. `configfile` reads and checks a file into these. Each attribute carries its documentation and its type
(`config_types`: how it is read, its range in words) in its metadata; `docs/configuration.md` is generated from it, so
a key cannot exist without its description.

`Config` and what it holds is what the rest of lvsctl sees. Most tables of the file are these very classes; a virtual
server is written as `VirtualServerTable`, whose keys `config_rules` turns into one `VirtualServerConfig`.
"""

import enum
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Final

import attrs

from lvsctl.config_addresses import (
    ClientPrefix,
    Endpoint,
    PortRange,
    client_prefix,
    consul_address,
    listening_address,
    network,
    port_range,
    real_server_address,
    virtual_address,
)
from lvsctl.config_types import (
    AnyKeyType,
    absolute_path,
    boolean,
    boolean_or,
    choice,
    duration,
    integer,
    list_of,
    percentage,
    table_of_strings,
    text,
)
from netlink.types import (
    MAX_PERSISTENCE,
    Family,
    Forwarding,
    Protocol,
    RealServerKey,
    SchedulerFlag,
    VirtualServerKey,
)

Network = IPv4Network | IPv6Network

SCHEDULERS: Final = (
    "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq", "fo", "ovf", "twos",
)  # fmt: skip

# Those by which a real server's share of new connections follows its weight, at once and for every client. The hash
# schedulers `sh` and `mh` are not among them: by them each change of a weight moves clients from one real server to
# another, and `sh` has a table of 256 slots for all weights together.
RAMPING: Final = ("wrr", "wlc", "sed", "twos")

PRIVATE_NETWORKS: Final = tuple(
    ip_network(network) for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fd00::/8")
)


class OnCritical(enum.Enum):
    """What becomes of a real server whose check is critical."""

    QUIESCE = "quiesce"
    DELETE = "delete"


class Probe(enum.Enum):
    """Whom the director connects to itself, where something is to be held."""

    NOBODY = False
    HELD = "held"
    ALL = True


FORWARDING: Final = {
    "masquerade": Forwarding.MASQUERADE,
    "direct-route": Forwarding.DIRECT_ROUTE,
    "tunnel": Forwarding.TUNNEL,
}
FORWARDING_ELSEWHERE: Final = {
    "nat": "masquerade", "masq": "masquerade", "masquerading": "masquerade", "-m": "masquerade",
    "dr": "direct-route", "gate": "direct-route", "gatewaying": "direct-route", "direct": "direct-route",
    "route": "direct-route", "-g": "direct-route",
    "ipip": "tunnel", "tun": "tunnel", "tunneling": "tunnel", "-i": "tunnel",
}  # fmt: skip
ON_CRITICAL: Final = {each.value: each for each in OnCritical}
ON_CRITICAL_ELSEWHERE: Final = {"drain": "quiesce", "remove": "delete"}
PROTOCOLS: Final = {"tcp": Protocol.TCP, "udp": Protocol.UDP, "sctp": Protocol.SCTP}
PROBE: Final = {Probe.HELD.value: Probe.HELD}
FAMILIES: Final = {"ipv4": Family.IPV4, "ipv6": Family.IPV6}
SCHEDULER_FLAGS: Final = {
    "sh-fallback": SchedulerFlag.FLAG_1, "sh-port": SchedulerFlag.FLAG_2,
    "mh-fallback": SchedulerFlag.FLAG_1, "mh-port": SchedulerFlag.FLAG_2,
    "flag-1": SchedulerFlag.FLAG_1, "flag-2": SchedulerFlag.FLAG_2, "flag-3": SchedulerFlag.FLAG_3,
}  # fmt: skip
# What counts where scheduler_flags is not written. Both keep the hash slots of a quiesced real server, and without
# fallback refuse the clients in them: every drain would be an outage for some (ip_vs_sh.c, ip_vs_mh.c).
DEFAULT_SCHEDULER_FLAGS: Final[Mapping[str, tuple[str, ...]]] = {"sh": ("sh-fallback",), "mh": ("mh-fallback",)}

NAME_PATTERN: Final = (
    r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}"  # of a virtual server: typed at the command line, shown in a column
)


# ruff: noqa: RUF009  _key returns an attrs field, which is not shared between instances


def _key(
    doc: str,
    example: str,
    key_type: AnyKeyType,
    *,
    default_words: str = "",
    **kwargs: Any,  # noqa: ANN401  attrs.field's own
) -> Any:  # noqa: ANN401  the same
    """Return an attrs field that documents one key of the file; `default_words` stand in for a default of None."""
    metadata = {"doc": doc, "example": example, "type": key_type, "default": default_words}
    return attrs.field(metadata=metadata, **kwargs)


@attrs.frozen(kw_only=True)
class ConsulTable:
    """How to reach Consul as it is written: `[consul]`."""

    address: str = _key(
        "Where the Consul agent answers. `unix://` takes the path of its socket.",
        '"http://127.0.0.1:8500"',
        consul_address(),
        default="http://127.0.0.1:8500",
    )
    token_file: Path | None = _key(
        "File that holds the ACL token, read again when it changes. Without one the token is empty (anonymous).",
        '"/etc/lvsctl/consul.token"',
        absolute_path("/etc/lvsctl/consul.token", secret=True),
        default=None,
    )
    ca_file: Path | None = _key(
        "Certificates of the authorities that an https address is checked against.",
        '"/etc/lvsctl/ca.pem"',
        absolute_path("/etc/lvsctl/ca.pem", also="; only with https"),
        default=None,
        default_words="the system's",
    )
    certificate_file: Path | None = _key(
        "Client certificate shown to an https address; read again when it changes, as the key and `ca_file` are.",
        '"/etc/lvsctl/client.pem"',
        absolute_path("/etc/lvsctl/client.pem", also="; only with https, needs key_file"),
        default=None,
    )
    key_file: Path | None = _key(
        "Private key of the client certificate.",
        '"/etc/lvsctl/client.key"',
        absolute_path("/etc/lvsctl/client.key", also="; only with https, needs certificate_file"),
        default=None,
    )
    server_name: str | None = _key(
        "Name that an https address must prove to have, instead of its host; it is sent too (SNI). Consul's "
        "servers are `server.DATACENTER.DOMAIN`.",
        '"server.dc1.consul"',
        text(
            r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", "a host name; only with https", "server.dc1.consul"
        ),
        default=None,
        default_words="the address's host",
    )


@attrs.frozen(repr=False)
class Secret:
    """Text that shows itself to nobody who does not ask for it by name."""

    reveal: str

    def __repr__(self) -> str:
        """Return that there is one."""
        return "Secret(…)"


@attrs.frozen(kw_only=True)
class ConsulConfig(ConsulTable):
    """How to reach Consul: what is written, completed from the environment (`config_environment`)."""

    token: Secret | None = None  # counts where there is no token_file
    token_name: str = "consul.token_file"  # noqa: S105  what named the token, for messages
    ca_directory: Path | None = None  # of certificates like those of ca_file, which counts first
    from_environment: tuple[str, ...] = ()  # the variables and credentials that were used


@attrs.frozen(kw_only=True)
class SafetyConfig:
    """What Consul may never do to the table: `[safety]`."""

    allowed_networks: tuple[Network, ...] = _key(
        "Networks that real servers must be in; an instance outside is rejected, the others serve.",
        '["10.0.0.0/8", "fd00::/8"]',
        list_of(network(), least=1),
        default=PRIVATE_NETWORKS,
    )
    max_weight: int = _key(
        "Largest weight an instance may claim; a larger one is cut to this.",
        "1000",
        integer(1, 65535, 1000),
        default=65535,
    )
    max_removals: int = _key(
        "How many of all real servers that served within the last minute may leave in it on Consul's word, taken over "
        "all virtual servers; 16 always may. What is more is held until the minute is over. `floor` limits one "
        'virtual server; `"100%"` is no limit. See [operations](operations.md#what-is-held).',
        '"25%"',
        percentage("40%"),
        default=40,
    )
    max_instances: int = _key(
        "Instances that one answer of Consul may list, passing or not. One that lists more is no answer: the last one "
        "counts, the table stays as it is, and status and log say so.",
        "1000",
        integer(1, 100_000, 1000),
        default=10_000,
    )


@attrs.frozen(kw_only=True)
class VipConfig:
    """Virtual addresses on this director: `[vip]`. Without this table lvsctl leaves addresses alone."""

    interface: str = _key(
        "Dummy interface that lvsctl creates and keeps the virtual addresses on, exactly those it needs.",
        '"lvs0"',
        text(r"(?!lo$)[A-Za-z0-9][A-Za-z0-9_.-]{0,14}", "1 to 15 of A-Z a-z 0-9 _ . -, not lo", "lvs0"),
    )


@attrs.frozen(kw_only=True)
class OverridesConfig:
    """Operators' overrides and orders in Consul's KV: `[overrides]`. Without this table nothing there is read."""

    kv_prefix: str = _key(
        "Where in Consul's KV `lvsctl weight` keeps its overrides, below `PREFIX/weights/`, and `lvsctl drain --fleet` "
        "and the like their orders, below `PREFIX/orders/`; every director with the same prefix obeys them. The token "
        "needs `key_prefix` with `read` of both, an operator's with `write`.",
        '"lvsctl"',
        text(
            r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}){0,7}",
            "1 to 8 names of A-Z a-z 0-9 _ . - with slashes between them",
            "lvsctl",
        ),
    )


@attrs.frozen(kw_only=True)
class DaemonConfig:
    """The daemon itself: `[daemon]`."""

    state_directory: Path = _key(
        "Where the ledger of what lvsctl created, the snapshot of Consul's answers and the lock are kept.",
        '"/var/lib/lvsctl"',
        absolute_path("/var/lib/lvsctl"),
        default=Path("/var/lib/lvsctl"),
    )
    control_socket: Path = _key(
        "Unix socket that `lvsctl status` and `release` ask; mode 0660, group lvsctl where that group exists.",
        '"/run/lvsctl/control.sock"',
        absolute_path("/run/lvsctl/control.sock", socket=True),
        default=Path("/run/lvsctl/control.sock"),
    )
    audit_interval: float = _key(
        "How often the live table is compared with what it should be when nothing else happens. What somebody else "
        "adds to its IPv4 part or takes out is found within a tenth of a second, whatever this says.",
        '"10s"',
        duration(1, 3600, "10s"),
        default=10.0,
    )


@attrs.frozen(kw_only=True)
class KernelConfig:
    """Settings of the kernel's IPVS that lvsctl sets: `[kernel]`. One that is not written is never touched."""

    expire_nodest_conn: bool | None = _key(
        "Whether a connection ends with the first packet after its real server was deleted: a TCP client gets a reset, "
        "a UDP client another real server. Otherwise its packets are dropped until the connection expires. "
        "Recommended: `true`.",
        "true",
        boolean(),
        default=None,
        default_words="none, it is not touched",
    )
    expire_quiescent_template: bool | None = _key(
        "Whether persistence ends while a real server is quiesced: its clients get another one with their next "
        "connection, and one whose check is critical can be drained. Recommended with persistence: `true`.",
        "true",
        boolean(),
        default=None,
        default_words="none, it is not touched",
    )
    conn_reuse_mode: int | None = _key(
        "What becomes of a client that uses a source port again before the kernel has forgotten the connection. 0: it "
        "gets the same real server. 1: another one may be chosen once the connection was closed. 2 or 3: the same with "
        "`direct-route` and `tunnel`, where the director sees a half of the closing only.",
        "1",
        integer(0, 3, 1),
        default=None,
        default_words="none, it is not touched",
    )
    conntrack: bool | None = _key(
        "Whether netfilter's connection tracking knows balanced connections. Needed where firewall rules ask for their "
        "state or rewrite their addresses; it costs memory and time for each.",
        "false",
        boolean(),
        default=None,
        default_words="none, it is not touched",
    )
    sloppy_tcp: bool | None = _key(
        "Whether a TCP packet of a connection that the kernel does not know makes one, as if it were the first. For "
        "directors that take over from each other: with `sh` or `mh`, or with a synchronisation daemon.",
        "false",
        boolean(),
        default=None,
        default_words="none, it is not touched",
    )


METRICS_PORT: Final = 9105


@attrs.frozen(kw_only=True)
class MetricsConfig:
    """The metrics endpoint: `[metrics]`. Without this table there is none."""

    listen: Endpoint = _key(
        "Where `/metrics`, `/livez` and `/readyz` are served, over plain HTTP and to whoever asks. An address that is "
        "not loopback shows names, addresses and traffic of virtual servers to everybody who reaches it: let a "
        "firewall choose who does.",
        f'"[::1]:{METRICS_PORT}"',
        listening_address(METRICS_PORT),
        default=Endpoint(IPv4Address("127.0.0.1"), METRICS_PORT),
    )


_NAMED: Final = r"[^\s/]{1,255}"
_DATACENTER: Final = r"[A-Za-z0-9_-]{1,64}"


@attrs.frozen(kw_only=True)
class DefaultsTable:
    """What virtual servers have in common: `[defaults]`. Every key may be set again in `[virtual_server.NAME]`.

    None: not written. The defaults themselves are those of VirtualServerConfig.
    """

    scheduler: str | None = _key(
        "How the kernel picks the real server of a new connection. `rr`, `lc` and `dh` ignore weights other than 0. "
        "`dh` has no fallback (see `scheduler_flags`): the clients of a real server are refused while it drains, so "
        "one that fails is deleted at once; for those that leave on purpose give it a short `drain_timeout`.",
        '"wrr"',
        choice({name: name for name in SCHEDULERS}),
        default=None,
    )
    forwarding: Forwarding | None = _key(
        "How packets reach the real servers. With `direct-route` and `tunnel` the kernel keeps the port: an instance "
        "on another port than the virtual server's is rejected.",
        '"direct-route"',
        choice(FORWARDING, FORWARDING_ELSEWHERE),
        default=None,
    )
    drain_timeout: float | None = _key(
        "How long a leaving real server keeps its connections, at weight 0, before it is deleted. `0s`: at once.",
        '"1m"',
        duration(0, 86_400, "30s"),
        default=None,
    )
    on_critical: OnCritical | None = _key(
        "How a real server leaves whose check is critical: `quiesce` drains it like any other, unless its clients "
        "would only wait, `delete` takes it out at once, and its connections with it. One that is deregistered, in "
        "maintenance or filtered out is drained either way. See [operations](operations.md#how-a-real-server-leaves).",
        '"delete"',
        choice(ON_CRITICAL, ON_CRITICAL_ELSEWHERE),
        default=None,
    )
    slow_start: float | None = _key(
        "How long the weight of a real server that begins to serve rises to what it is to be. `0s`: at once. Needs a "
        "scheduler by which weights give shares: `wrr`, `wlc`, `sed` or `twos`; where another one is named, what "
        "`[defaults]` says counts as `0s`. The rule is in [operations](operations.md#slow-start).",
        '"30s"',
        duration(1, 3600, "30s", also_zero=True),
        default=None,
    )
    damping: bool | None = _key(
        "Keep out for a while a real server that comes and goes: after three returns in a row, each of which lasted "
        "less than 2 minutes, its checks have to pass for 30 s first, longer each time, up to 4 minutes. One that is "
        "needed is not kept out. The rule is in [operations](operations.md#instances-that-flap).",
        "true",
        boolean(),
        default=None,
    )
    floor: int | None = _key(
        "How many real servers stay whatever Consul says, as a part of the most that served in the last 15 minutes. "
        "What would be fewer is held, seen in `lvsctl status`, and let go by `lvsctl release NAME`. The last ones that "
        'serve are held with `"0%"` too; above `"50%"` the last few leave by a release alone. The rule is in '
        "[operations](operations.md#what-is-held).",
        '"60%"',
        percentage("50%"),
        default=None,
    )
    probe: Probe | None = _key(
        "Take a second opinion where something is to be held: the director connects to it. What does not take the "
        'connection goes, even below the floor. `"held"` asks what the floor holds and nobody else; `true` asks all '
        "that Consul calls bad or gone then, and all of those that answer stay; `false` asks nobody. See "
        "[operations](operations.md#a-second-opinion). For TCP only; for everything else it is `false`.",
        "true",
        boolean_or(PROBE, yes=Probe.ALL, no=Probe.NOBODY),
        default=None,
    )
    only_passing: bool | None = _key(
        "Admit only instances whose checks all pass. `false` admits warning instances too, with `Weights.Warning`.",
        "false",
        boolean(),
        default=None,
    )
    weight_meta: str | None = _key(
        "Key of the service's metadata that may say an instance's weight instead of `Weights.Passing`: a plain number "
        "from 0 (quiesced) to 65535, cut to `safety.max_weight`. Anything else is not used, and `lvsctl status NAME` "
        'says so. Whoever registers an instance writes it, so it is closed unless it is named here. `""` closes what '
        "`[defaults]` opened.",
        '"lvs-weight"',
        text(r"[A-Za-z0-9_-]{0,128}", "1 to 128 of A-Z a-z 0-9 _ -, or nothing for none", "lvs-weight"),
        default=None,
    )
    persistence: float | None = _key(
        "How long a client stays with its real server after its last connection. `0s` switches off what `[defaults]` "
        "switched on.",
        '"5m"',
        duration(1, MAX_PERSISTENCE, "5m", whole=True, also_zero=True),
        default=None,
    )
    upper_threshold: int | None = _key(
        "Connections above which a real server gets no new ones. 0: no limit.",
        "1000",
        integer(0, 2**31 - 1, 1000),
        default=None,
    )
    lower_threshold: int | None = _key(
        "Connections below which a real server that reached upper_threshold gets new ones again; not more than "
        "upper_threshold. 0: three quarters of it.",
        "800",
        integer(0, 2**31 - 1, 800),
        default=None,
    )
    datacenter: str | None = _key(
        "Consul datacenter that is asked for instances.",
        '"dc2"',
        text(_DATACENTER, "1 to 64 of A-Z a-z 0-9 _ -", "dc2"),
        default=None,
        default_words="the Consul agent's own",
    )
    failover: tuple[str, ...] | None = _key(
        "Consul datacenters that serve when no instance of `datacenter` may, in this order. They must not name "
        "`datacenter` again; to name the agent's own where that is not written changes nothing. The real servers must "
        "be reachable with `forwarding`, and inside `safety.allowed_networks`. `[]` switches off what `[defaults]` "
        "switched on. The rule is in [operations](operations.md#another-datacenter-takes-over).",
        '["dc2", "dc3"]',
        list_of(text(_DATACENTER, "1 to 64 of A-Z a-z 0-9 _ -", "dc2"), most=8),
        default=None,
        default_words="`[]`, no other",
    )
    near: str | None = _key(
        "Node that Consul measures distance from when it orders its answer; `_agent` is the agent that is asked.",
        '"_agent"',
        text(_NAMED, "1 to 255 characters, no spaces or slashes", "_agent"),
        default=None,
        default_words="none, no order",
    )


@attrs.frozen(kw_only=True)
class VirtualServerTable(DefaultsTable):
    """One virtual server as it is written: `[virtual_server.NAME]`."""

    address: Endpoint | None = _key(
        "Virtual address and port. Exactly one of address and firewall_mark is needed.",
        '"10.9.0.100:80"',
        virtual_address(),
        default=None,
    )
    protocol: Protocol | None = _key(
        "Transport protocol of address; a firewall mark covers whatever its firewall rule marks.",
        '"udp"',
        choice(PROTOCOLS),
        default=None,
        default_words='`"tcp"`',
    )
    firewall_mark: int | None = _key(
        "Balance the packets that carry this mark (nftables `meta mark set`) instead of an address.",
        "7",
        integer(1, 2**32 - 1, 7),
        default=None,
    )
    family: Family | None = _key(
        "Address family that firewall_mark is balanced in; an address says its own.",
        '"ipv6"',
        choice(FAMILIES),
        default=None,
        default_words='`"ipv4"`',
    )
    consul_service: str | None = _key(
        "Consul service whose instances become the real servers.",
        '"reco"',
        text(_NAMED, "1 to 255 characters, no spaces or slashes", "reco"),
        default=None,
        default_words="the table's NAME",
    )
    tags: tuple[str, ...] = _key(
        "Only instances that have every one of these tags.",
        '["v2", "blue"]',
        list_of(text(r".{1,255}", "1 to 255 characters", "v2")),
        default=(),
    )
    meta: Mapping[str, str] = _key(
        "Only instances whose service metadata has every one of these values.",
        '{ version = "2", zone = "a" }',
        table_of_strings(),
        factory=dict,
        default_words="none",
    )
    scheduler_flags: tuple[str, ...] = _key(
        "Options of the scheduler. The sh- and mh- words need that scheduler. Fallback passes over a quiesced or "
        "overloaded real server; without it the clients that hash to one are refused while it drains. Port hashes the "
        "client's port too. A list that is written replaces the default as a whole, so name fallback in it; `[]` is "
        "neither.",
        '["sh-port", "sh-fallback"]',
        list_of(choice({word: word for word in SCHEDULER_FLAGS})),
        default=(),
        default_words='`["sh-fallback"]` for `sh`, `["mh-fallback"]` for `mh`, `[]` for the others',
    )
    one_packet: bool = _key(
        "Schedule every datagram anew, without a connection entry. Only with udp or a firewall mark.",
        "true",
        boolean(),
        default=False,
    )
    fallback: Endpoint | None = _key(
        "Real server that serves where nothing else does, an apology page for instance. It is yours: Consul need not "
        "know it. It is reached by `forwarding`. When it comes and when it goes is in "
        "[operations](operations.md#when-nothing-serves).",
        '"10.2.0.99:80"',
        real_server_address(),
        default=None,
        default_words="none",
    )
    persistence_netmask: ClientPrefix | None = _key(
        "Clients that are equal under this mask count as one for persistence. Needs persistence.",
        '"255.255.255.0"',
        client_prefix(),
        default=None,
        default_words="every client by itself",
    )


_PATTERN: Final = text(r"[^\s/]{1,255}", "1 to 255 characters, no spaces or slashes, * for any of them", "shop-*")

DECLARABLE: Final = (
    "scheduler", "scheduler_flags", "forwarding", "persistence", "drain_timeout", "upper_threshold", "lower_threshold",
)  # fmt: skip  # keys of a virtual server that an operator may leave to Consul services


@attrs.frozen(kw_only=True)
class DiscoveryTable:
    """What Consul services may declare themselves: `[discovery]`. Without this table none may declare anything."""

    addresses: tuple[Network, ...] = _key(
        "Networks that a declared virtual address must be in. Whoever may register a Consul service may claim any "
        "address in them, so write networks that hold nothing but such virtual addresses. The first and the last "
        "address of an IPv4 network are not given away.",
        '["10.9.1.0/24"]',
        list_of(network(), least=1),
    )
    ports: tuple[PortRange, ...] = _key(
        "Ports that a declared virtual server may have.",
        '[80, 443, "8000-8999"]',
        list_of(port_range()),
        default=(),
        default_words="every port",
    )
    protocols: tuple[Protocol, ...] = _key(
        "Protocols that a declared virtual server may have. `tcp` where `protocol` is not declared.",
        '["tcp", "udp"]',
        list_of(choice(PROTOCOLS), least=1),
        default=(Protocol.TCP,),
    )
    keys: tuple[str, ...] = _key(
        "Keys beside `address` and `protocol` that may be declared, with the values that they may have in "
        "`[virtual_server.NAME]`. A declaration of any other key is refused; `[defaults]` say what counts for it.",
        '["scheduler", "persistence"]',
        list_of(choice({name: name for name in DECLARABLE})),
        default=(),
    )
    tag: str = _key(
        "Tag of a Consul service that declares itself by metadata, and what the names of declared keys begin with: "
        "`lvs-address`.",
        '"lvs_internal"',
        text(r"[A-Za-z0-9_]{1,32}", "1 to 32 of A-Z a-z 0-9 _", "lvs"),
        default="lvs",
    )
    services: tuple[str, ...] = _key(
        "Consul services that may declare themselves; `*` stands for any characters. Others are passed over.",
        '["shop-*", "reco"]',
        list_of(_PATTERN, least=1),
        default=("*",),
    )
    exclude: tuple[str, ...] = _key(
        "Consul services that may not, although `services` has them. A virtual server that one of them declared "
        "is drained and deleted.",
        '["shop-old"]',
        list_of(_PATTERN),
        default=(),
    )
    max_virtual_servers: int = _key(
        "Consul services that may declare themselves at one time, the known ones first. The rest is passed over.",
        "500",
        integer(1, 10_000, 500),
        default=100,
    )


@attrs.frozen(kw_only=True)
class DiscoveryConfig(DiscoveryTable):
    """What may be declared, and what counts for the keys that are not: `[discovery]` and `[defaults]`."""

    defaults: DefaultsTable = DefaultsTable()


@attrs.frozen(kw_only=True)
class Declaration:
    """What the instances of a Consul service say of the virtual server that they want, as they wrote it."""

    service: str
    values: tuple[tuple[str, str], ...]  # each declared key with its text, by key; none where it was withdrawn


@attrs.frozen(kw_only=True)
class VirtualServerConfig:
    """One virtual server, with the defaults filled in; what each key means is told at VirtualServerTable."""

    name: str
    key: VirtualServerKey
    consul_service: str
    tags: tuple[str, ...] = ()
    meta: Mapping[str, str] = attrs.field(factory=dict)
    datacenter: str | None = None
    failover: tuple[str, ...] = ()
    near: str | None = None
    only_passing: bool = True
    weight_meta: str = ""  # empty: closed
    scheduler: str = "wlc"
    scheduler_flags: SchedulerFlag = SchedulerFlag.NONE
    one_packet: bool = False
    forwarding: Forwarding = Forwarding.MASQUERADE
    persistence: int | None = None
    persistence_prefix: int | None = None
    upper_threshold: int = 0
    lower_threshold: int = 0
    drain_timeout: float = 30.0
    on_critical: OnCritical = OnCritical.QUIESCE
    slow_start: float = 0.0
    damping: bool = False
    floor: int = 50  # percent
    probe: Probe = Probe.HELD
    fallback: RealServerKey | None = None
    declaration: Declaration | None = None  # None: it is in the file


@attrs.frozen(kw_only=True)
class Config:
    """One valid configuration file."""

    consul: ConsulConfig = ConsulConfig()
    safety: SafetyConfig = SafetyConfig()
    vip: VipConfig | None = None
    daemon: DaemonConfig = DaemonConfig()
    kernel: KernelConfig = KernelConfig()
    metrics: MetricsConfig | None = None
    overrides: OverridesConfig | None = None
    discovery: DiscoveryConfig | None = None
    virtual_servers: Mapping[str, VirtualServerConfig] = attrs.field(factory=dict)

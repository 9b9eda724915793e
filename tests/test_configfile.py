"""Every kind of mistake in a configuration file: its line, its key, the words; and what a valid file means."""

import tomllib
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.config import (
    SCHEDULERS,
    Config,
    ConsulConfig,
    DefaultsTable,
    DiscoveryConfig,
    OnCritical,
    Probe,
    VirtualServerConfig,
    VirtualServerTable,
)
from lvsctl.config_addresses import PortRange
from lvsctl.config_types import quoted
from lvsctl.configfile import MAX_BYTES, TABLES, load, parse
from lvsctl.errors import ConfigError, Problem
from netlink.types import MAX_PERSISTENCE, Family, Forwarding, Protocol, SchedulerFlag, VirtualServerKey, endpoint

FILE = Path("lvsctl.toml")

SERVER = '[virtual_server.reco]\naddress = "10.9.0.100:80"\n'  # two lines that are a valid file


def problems(text: str) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        parse(text, FILE)
    return caught.value.problems


def only(text: str) -> Problem:
    found = problems(text)
    assert len(found) == 1, "\n".join(problem.at(FILE) for problem in found)
    return found[0]


def server(text: str) -> VirtualServerConfig:
    return parse(text, FILE).virtual_servers["reco"]


def key(text: str) -> VirtualServerKey:
    return server(f"[virtual_server.reco]\n{text}").key


# --- what a valid file means ----------------------------------------------------------------------------------------


def test_the_smallest_file_has_every_default() -> None:
    assert parse(SERVER, FILE) == Config(
        virtual_servers={
            "reco": VirtualServerConfig(
                name="reco",
                key=VirtualServerKey.by_address(Protocol.TCP, ip_address("10.9.0.100"), 80),
                consul_service="reco",
            )
        }
    )


def test_every_key_of_every_table_arrives() -> None:
    config = parse(
        """
[consul]
address = "https://consul.example"
token_file = "/t"
ca_file = "/ca"
certificate_file = "/c"
key_file = "/k"
[safety]
allowed_networks = ["10.0.0.0/8", "fd00::/8"]
max_weight = 1000
[vip]
interface = "lvs0"
[daemon]
state_directory = "/s"
control_socket = "/run/s"
audit_interval = "1m"
[virtual_server.reco]
address = "[fd00::1]:53"
protocol = "udp"
consul_service = "dns"
tags = ["v2", "blue"]
meta = { zone = "a" }
datacenter = "dc2"
failover = ["dc3", "dc1"]
near = "_agent"
only_passing = false
scheduler = "sh"
scheduler_flags = ["sh-port", "sh-fallback", "flag-3"]
one_packet = true
forwarding = "tunnel"
persistence = "5m"
persistence_netmask = 64
upper_threshold = 100
lower_threshold = 80
drain_timeout = "250ms"
""",
        FILE,
    )
    assert config.consul == ConsulConfig(
        address="https://consul.example:8501",
        token_file=Path("/t"),
        ca_file=Path("/ca"),
        certificate_file=Path("/c"),
        key_file=Path("/k"),
    )
    assert config.safety.allowed_networks == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    assert config.safety.max_weight == 1000
    assert config.vip
    assert config.vip.interface == "lvs0"
    assert (config.daemon.state_directory, config.daemon.control_socket) == (Path("/s"), Path("/run/s"))
    assert config.daemon.audit_interval == 60.0
    assert config.virtual_servers == {
        "reco": VirtualServerConfig(
            name="reco",
            key=VirtualServerKey.by_address(Protocol.UDP, ip_address("fd00::1"), 53),
            consul_service="dns",
            tags=("v2", "blue"),
            meta={"zone": "a"},
            datacenter="dc2",
            failover=("dc3", "dc1"),
            near="_agent",
            only_passing=False,
            scheduler="sh",
            scheduler_flags=SchedulerFlag.FLAG_1 | SchedulerFlag.FLAG_2 | SchedulerFlag.FLAG_3,
            one_packet=True,
            forwarding=Forwarding.TUNNEL,
            persistence=300,
            persistence_prefix=64,
            upper_threshold=100,
            lower_threshold=80,
            drain_timeout=0.25,
            probe=Probe.NOBODY,
        )
    }
    assert type(config.virtual_servers["reco"].persistence) is int


def test_discovery_arrives_with_the_defaults_and_needs_no_virtual_server() -> None:
    written = 'addresses = ["10.9.1.0/24"]\nports = [80, "8000-8999"]\nprotocols = ["udp"]\nkeys = ["scheduler"]\n'
    rest = 'tag = "lvs_x"\nservices = ["shop-*"]\nexclude = ["shop-old"]\nmax_virtual_servers = 5\n'
    config = parse(f'[discovery]\n{written}{rest}[defaults]\nscheduler = "rr"\n', FILE)
    assert config.discovery == DiscoveryConfig(
        addresses=(ip_network("10.9.1.0/24"),),
        ports=(PortRange(80, 80), PortRange(8000, 8999)),
        protocols=(Protocol.UDP,),
        keys=("scheduler",),
        tag="lvs_x",
        services=("shop-*",),
        exclude=("shop-old",),
        max_virtual_servers=5,
        defaults=DefaultsTable(scheduler="rr"),
    )
    assert config.virtual_servers == {}
    assert parse(SERVER, FILE).discovery is None, "off by default"


@pytest.mark.parametrize(
    ("line", "expected"),
    [("", Probe.HELD), ('probe = "held"', Probe.HELD), ("probe = true", Probe.ALL), ("probe = false", Probe.NOBODY)],
)
def test_whom_the_director_asks_itself_is_a_word_or_none_or_all(line: str, expected: Probe) -> None:
    config = parse(f'[virtual_server.reco]\naddress = "10.9.0.1:80"\n{line}\n', FILE)
    assert config.virtual_servers["reco"].probe is expected


def test_defaults_reach_every_virtual_server_and_yield_to_its_own_keys() -> None:
    config = parse(
        """
[virtual_server.own]
address = "10.9.0.1:80"
scheduler = "rr"
forwarding = "masquerade"
drain_timeout = "0s"
only_passing = true
persistence = "0s"
upper_threshold = 0
lower_threshold = 0
datacenter = "dc1"
failover = []
near = "here"
weight_meta = ""
floor = "0%"
probe = false
on_critical = "quiesce"
slow_start = "0s"
damping = false
[virtual_server.inherits]
address = "10.9.0.2:80"
[defaults]
scheduler = "sed"
forwarding = "direct-route"
drain_timeout = "1h"
only_passing = false
persistence = "1m"
upper_threshold = 9
lower_threshold = 8
datacenter = "dc2"
failover = ["dc1"]
near = "there"
weight_meta = "lvs-weight"
floor = "75%"
probe = true
on_critical = "delete"
slow_start = "45s"
damping = true
[virtual_server.datagrams]
address = "10.9.0.2:53"
protocol = "udp"
[virtual_server.marked]
firewall_mark = 7
""",
        FILE,
    )
    own, inherits = config.virtual_servers["own"], config.virtual_servers["inherits"]

    def values(one: VirtualServerConfig) -> list[Any]:
        return [getattr(one, name) for name in attrs.fields_dict(DefaultsTable)]

    assert values(own) == [
        "rr", Forwarding.MASQUERADE, 0.0, OnCritical.QUIESCE, 0.0, False, 0, Probe.NOBODY, True, "", None, 0, 0,
        "dc1", (), "here",
    ]  # fmt: skip
    assert values(inherits) == [
        "sed", Forwarding.DIRECT_ROUTE, 3600.0, OnCritical.DELETE, 45.0, True, 75, Probe.ALL, False, "lvs-weight", 60,
        9, 8, "dc2", ("dc1",), "there",
    ]  # fmt: skip
    assert config.virtual_servers["datagrams"].probe is Probe.NOBODY, "for TCP only"
    assert config.virtual_servers["marked"].probe is Probe.NOBODY


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('address = "10.9.0.1:65535"', VirtualServerKey.by_address(Protocol.TCP, ip_address("10.9.0.1"), 65535)),
        (
            'address = "[fd00::1]:80"\nprotocol = "sctp"',
            VirtualServerKey.by_address(Protocol.SCTP, ip_address("fd00::1"), 80),
        ),
        ("firewall_mark = 4294967295", VirtualServerKey.by_mark(2**32 - 1)),
        ('firewall_mark = 7\nfamily = "ipv6"', VirtualServerKey.by_mark(7, Family.IPV6)),
        ('firewall_mark = 7\nforwarding = "tunnel"\none_packet = true', VirtualServerKey.by_mark(7)),
    ],
)
def test_identity(text: str, expected: VirtualServerKey) -> None:
    assert key(text) == expected


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("http://127.0.0.1", "http://127.0.0.1:8500"),
        ("http://consul/", "http://consul:8500"),
        ("https://consul.example", "https://consul.example:8501"),
        ("https://consul:443", "https://consul:443"),
        ("http://[::1]", "http://[::1]:8500"),
        ("unix:///run/consul.sock", "unix:///run/consul.sock"),
    ],
)
def test_the_consul_address_gets_its_default_port(written: str, normal: str) -> None:
    assert parse(f'[consul]\naddress = "{written}"\n{SERVER}', FILE).consul.address == normal


@pytest.mark.parametrize(
    ("written", "prefix"),
    [('"255.255.255.0"', 24), ("24", 24), ("1", 1), ('"255.255.255.255"', 32), ('"128.0.0.0"', 1)],
)
def test_persistence_netmask_of_ipv4(written: str, prefix: int) -> None:
    assert server(f'{SERVER}persistence = "5m"\npersistence_netmask = {written}').persistence_prefix == prefix


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("30s", 30.0), ("5m", 300.0), ("1h", 3600.0), ("250ms", 0.25), ("1.5m", 90.0), ("0s", 0.0), ("24h", 86400.0)],
)
def test_durations(written: str, seconds: float) -> None:
    assert server(f'{SERVER}drain_timeout = "{written}"').drain_timeout == seconds


# --- one mistake ----------------------------------------------------------------------------------------------------

# (keys of the virtual server below its address, key, wrong, remedy); the mistake is in the file's third line.
IN_SERVER = [
    ('scheduler = "wllc"', "scheduler", '"wllc" is not known', 'did you mean "wlc"? It is one of rr, wrr, lc, wlc'),
    ('scheduler = "x"', "scheduler", '"x" is not known', "write one of rr, wrr"),
    ("scheduler = 7", "scheduler", "7 is not a string", 'write it in quotes, like "rr"'),
    ('schedular = "rr"', "schedular", "there is no such key", "did you mean scheduler?"),
    ('zzz = "rr"', "zzz", "there is no such key", "the keys here are scheduler, forwarding"),
    ('interface = "lvs0"', "interface", "there is no such key", "it belongs in [vip]"),
    ('protocol = "http"', "protocol", '"http" is not known', "tcp, udp, sctp"),
    ('forwarding = "nat"', "forwarding", '"nat" is not known', 'did you mean "masquerade"?'),
    ('forwarding = "masq"', "forwarding", '"masq" is not known', 'did you mean "masquerade"?'),
    ('forwarding = "DR"', "forwarding", '"DR" is not known', 'did you mean "direct-route"?'),
    ('forwarding = "gate"', "forwarding", '"gate" is not known', 'did you mean "direct-route"?'),
    ('forwarding = "ipip"', "forwarding", '"ipip" is not known', 'did you mean "tunnel"?'),
    ('scheduler_flags = ["sh-port"]', "scheduler_flags[0]", 'does not fit the scheduler "wlc"', 'scheduler = "sh"'),
    ('scheduler_flags = ["sh-prot"]', "scheduler_flags[0]", '"sh-prot" is not known', 'did you mean "sh-port"?'),
    ('scheduler_flags = "flag-1"', "scheduler_flags", "is not a list", 'write it in square brackets: ["flag-1"]'),
    ("one_packet = true", "one_packet", "does not work with tcp", 'write protocol = "udp"'),
    ('probe = true\nprotocol = "udp"', "probe", "probe connects by TCP", 'protocol = "tcp"'),
    ('probe = "held"\nprotocol = "udp"', "probe", "probe connects by TCP", "remove this key"),
    ('probe = "true"', "probe", '"true" is neither true, false nor "held"', 'without quotes, or "held"'),
    ("probe = 1", "probe", '1 is neither true, false nor "held"', 'without quotes, or "held"'),
    ("one_packet = 1", "one_packet", "1 is neither true nor false", "without quotes"),
    ('only_passing = "true"', "only_passing", '"true" is neither true nor false', "without quotes"),
    ("persistence = 300", "persistence", "300 has no unit", 'write "300s"'),
    ('persistence = "300"', "persistence", '"300" is no duration', "a number and a unit"),
    ('persistence = "1.5s"', "persistence", "is not in whole seconds", "1s to 744h in whole seconds"),
    ('persistence = "250ms"', "persistence", "is out of range", "1s to 744h"),
    (f'persistence = "{MAX_PERSISTENCE + 1}s"', "persistence", "is out of range", "1s to 744h"),
    ('persistence = "-5m"', "persistence", "is no duration", "a number and a unit"),
    ("persistence = true", "persistence", "true has no unit", '"5m"'),
    ("persistence_netmask = 24", "persistence_netmask", "without persistence", 'write persistence = "5m" too'),
    ('drain_timeout = "25h"', "drain_timeout", '"25h" is out of range', "0s to 24h"),
    ("drain_timeout = 30", "drain_timeout", "30 has no unit", 'write "30s"'),
    ('floor = "101%"', "floor", '"101%" is out of range', "0% to 100%"),
    ('floor = "50"', "floor", '"50" is no percentage', 'like "50%"'),
    ("floor = 50", "floor", "50 is not a percentage", 'write "50%", in quotes'),
    ("floor = 0.5", "floor", "0.5 is not a percentage", 'write "50%", in quotes'),
    ("floor = true", "floor", "true is not a string", "in quotes"),
    ('floor = "\u0665%"', "floor", "is no percentage", "a whole number"),
    ("upper_threshold = -1", "upper_threshold", "-1 is out of range", "0 to 2147483647"),
    ("upper_threshold = 2147483648", "upper_threshold", "is out of range", "0 to 2147483647, like 1000"),
    ('upper_threshold = "10"', "upper_threshold", '"10" is not a whole number', "without quotes, like 10"),
    ("upper_threshold = true", "upper_threshold", "true is not a whole number", "like 1000"),
    ("upper_threshold = 1.0", "upper_threshold", "1.0 is not a whole number", "like 1000"),
    ("lower_threshold = 5", "lower_threshold", "above upper_threshold 0 (no limit)", "upper_threshold"),
    ("firewall_mark = 7", "firewall_mark", "exclude each other", "remove one"),
    ('family = "ipv4"', "family", "says its own family", "remove it"),
    ('consul_service = ""', "consul_service", '"" cannot be used here', "1 to 255 characters, no spaces or slashes"),
    ('consul_service = "a/b"', "consul_service", '"a/b" cannot be used here', "no spaces or slashes"),
    ('consul_service = "a b"', "consul_service", '"a b" cannot be used here', "no spaces or slashes"),
    (r'consul_service = "a\u001b[31m"', "consul_service", r'"a\u001b[31m" cannot be used here', "no spaces"),
    (r'consul_service = "a\u202eb"', "consul_service", r'"a\u202eb" cannot be used here', "no spaces"),
    ('tags = "v2"', "tags", '"v2" is not a list', '["v2"]'),
    ('tags = [""]', "tags[0]", '"" cannot be used here', "1 to 255 characters"),
    ('tags = ["a", "b", "a"]', "tags[2]", '"a" is in the list twice', "remove one"),
    ("tags = [{}]", "tags[0]", "an empty table is not a string", "in quotes"),
    ("meta = []", "meta", "an empty list is not a table", "in braces"),
    ("meta = { a = 1 }", "meta.a", "1 is not a string", 'a = "value"'),
    (r'meta = { a = "\u0000" }', "meta.a", r'"\u0000" has control characters', "printable"),
    ('datacenter = "a/b"', "datacenter", '"a/b" cannot be used here', "1 to 64"),
    ('failover = "dc2"', "failover", '"dc2" is not a list', '["dc2"]'),
    ('failover = ["dc2", "a/b"]', "failover[1]", '"a/b" cannot be used here', "1 to 64"),
    ('failover = ["dc2", "dc3", "dc2"]', "failover[2]", '"dc2" is in the list twice', "remove one"),
    (f"failover = {[f'dc{number}' for number in range(9)]}", "failover", "has 9 elements", "8 at most"),
    ('failover = ["dc2", "dc1", "dc3"]\ndatacenter = "dc1"', "failover[1]", "its own", 'failover = ["dc2", "dc3"]'),
    ('near = ""', "near", '"" cannot be used here', "1 to 255"),
    ('weight_meta = "lvs weight"', "weight_meta", '"lvs weight" cannot be used here', "1 to 128"),
    ("near = 2020-01-01", "near", "2020-01-01 is not a string", "in quotes"),
]


@pytest.mark.parametrize(("text", "at", "wrong", "remedy"), IN_SERVER, ids=[row[0] for row in IN_SERVER])
def test_one_mistake_in_a_virtual_server(text: str, at: str, wrong: str, remedy: str) -> None:
    problem = only(f"{SERVER}{text}\n# end")
    assert (problem.line, problem.key) == (3, f"virtual_server.reco.{at}")
    assert wrong in problem.wrong
    assert remedy in problem.remedy


ADDRESSES = [
    ("10.9.0.100", "has no port", '"10.9.0.100:80"'),
    ("10.9.0.100:", "has no port", '"10.9.0.100:80"'),
    ("10.9.0.100:0", "has port 0", "for every port use a firewall mark"),
    ("10.9.0.100:65536", "has no port from 1 to 65535", '"10.9.0.100:80"'),
    ("10.9.0.100:http", "has no port from 1 to 65535", '"10.9.0.100:80"'),
    ("10.9.0.100:+80", "has no port from 1 to 65535", '"10.9.0.100:80"'),
    ("10.9.0.100:٨٠", "has no port from 1 to 65535", '"10.9.0.100:80"'),
    ("reco.example:80", "is not an IP address and a port", "10.9.0.100:80"),
    ("", "is not an IP address and a port", "[fd00::1]:80"),
    ("fd00::1", "lacks its brackets", 'write "[fd00::1]:80"'),
    (
        "fd00::1:81",
        "lacks its brackets",
        'write "[fd00::1]:81" if its end is the port, or "[fd00::1:81]:80" if all of it is the address',
    ),
    ("fd00::1:0", "lacks its brackets", 'write "[fd00::1:0]:80"'),
    ("fd00::1:8ab", "lacks its brackets", 'write "[fd00::1:8ab]:80"'),
    ("fd00:0:0:0:0:0:0:1:81", "is not an IP address and a port", 'write "[fd00::1]:81"'),
    ("10.9.0.1:81:82", "is not an IP address and a port", "write them like"),
    ("[fd00::1]", "has no port", '"[fd00::1]:80"'),
    ("[fd00::1]:", "has no port", '"[fd00::1]:80"'),
    ("[10.9.0.1]:81", "has brackets where none belong", '"10.9.0.1:81"'),
    ("[fd00::1%eth0]:80", "is not an IP address and a port", "[fd00::1]:80"),
    ("010.9.0.1:80", "is not an IP address and a port", "10.9.0.100:80"),
    ("[::ffff:10.9.0.1]:80", "is an IPv4 address written as IPv6", '"10.9.0.1:80"'),
    ("127.0.0.1:80", "is a loopback address", "routed to this director"),
    ("[::1]:80", "is a loopback address", "routed"),
    ("224.0.0.1:80", "is a multicast address", "routed"),
    ("[ff02::1]:80", "is a multicast address", "routed"),
    ("169.254.0.1:80", "is a link-local address", "routed"),
    ("[fe80::1]:80", "is a link-local address", "routed"),
    ("0.0.0.0:80", "is the unspecified address", "routed"),
    ("[::]:80", "is the unspecified address", "routed"),
    ("255.255.255.255:80", "is the broadcast address", "routed"),
    ("240.0.0.1:80", "is a reserved address", "routed"),
    ("0.1.2.3:80", "is a reserved address", "routed"),
]


@pytest.mark.parametrize(("written", "wrong", "remedy"), ADDRESSES, ids=[row[0] or "empty" for row in ADDRESSES])
def test_addresses_that_no_virtual_server_can_have(written: str, wrong: str, remedy: str) -> None:
    problem = only(f'[virtual_server.reco]\naddress = "{written}"')
    assert (problem.line, problem.key) == (2, "virtual_server.reco.address")
    assert problem.wrong == f'"{written}" {wrong}'
    assert remedy in problem.remedy


# (the file's first two lines, key, wrong, remedy); the mistake is in its second line, a valid virtual server follows.
IN_TABLE = [
    ('[consul]\naddress = "127.0.0.1:8500"', "consul.address", "is not http, https or unix", "http://127.0.0.1:8500"),
    ('[consul]\naddress = "ftp://x"', "consul.address", '"ftp://x" is not http, https or unix', "https://"),
    ('[consul]\naddress = "http://"', "consul.address", "has no host", "http://127.0.0.1:8500"),
    ('[consul]\naddress = "http://:80"', "consul.address", "has no host", "http://127.0.0.1:8500"),
    ('[consul]\naddress = "http://a_b c"', "consul.address", "has spaces", "http://127.0.0.1:8500"),
    ('[consul]\naddress = "http://h:0"', "consul.address", "has port 0", "http://127.0.0.1:8500"),
    ('[consul]\naddress = "http://h:99999"', "consul.address", "is no URL with a port from 1 to 65535", "http://"),
    ('[consul]\naddress = "http://[::1"', "consul.address", "is no URL", "http://"),
    ('[consul]\naddress = "http://h/v1"', "consul.address", "has a path", 'write it without: "http://h"'),
    ('[consul]\naddress = "unix://run/x"', "consul.address", "is not an absolute path", '"unix:///PATH"'),
    ('[consul]\naddress = "unix:run/x"', "consul.address", "is not an absolute path", "unix:///run/consul/http.sock"),
    (f'[consul]\naddress = "unix:///{"x" * 107}"', "consul.address", "too long for a socket", "at most 107 bytes"),
    ("[consul]\naddress = 1", "consul.address", "1 is not a string", "in quotes"),
    ('[consul]\ntoken_file = "token"', "consul.token_file", "is not an absolute path", "/etc/lvsctl/consul.token"),
    ('[consul]\ntoken_file = "/a/"', "consul.token_file", "ends in a slash", "/etc/lvsctl/consul.token"),
    ('[consul]\ntoken_file = "/\\u0000"', "consul.token_file", "what is written has control characters", "path"),
    ('[consul]\nca_file = "/ca"', "consul.ca_file", "address is http, which uses no certificates", "https://"),
    ('[consul]\ntoken = "s"', "consul.token", "there is no such key", "did you mean token_file?"),
    ("[safety]\nallowed_networks = []", "safety.allowed_networks", "the list is empty", "one element or more"),
    (
        '[safety]\nallowed_networks = ["10.1.2.3/8"]',
        "safety.allowed_networks[0]",
        '"10.1.2.3/8" has bits set after its prefix',
        '"10.0.0.0/8" for the network or "10.1.2.3/32"',
    ),
    ('[safety]\nallowed_networks = ["10.0.0.0"]', "safety.allowed_networks[0]", "has no prefix", '"10.0.0.0/32"'),
    ('[safety]\nallowed_networks = ["10.0.0.0/33"]', "safety.allowed_networks[0]", "from 0 to 32", '"10.0.0.0/32"'),
    ('[safety]\nallowed_networks = ["10.0.0.0/255.0.0.0"]', "safety.allowed_networks[0]", "from 0 to 32", "/32"),
    ('[safety]\nallowed_networks = ["lan"]', "safety.allowed_networks[0]", '"lan" is no network', "CIDR"),
    ('[safety]\nallowed_networks = ["::ffff:10.0.0.0/104"]', "safety.allowed_networks[0]", "IPv4", '"10.0.0.0/8"'),
    ("[safety]\nmax_weight = 0", "safety.max_weight", "0 is out of range", "1 to 65535, like 1000"),
    ("[safety]\nmax_weight = 65536", "safety.max_weight", "65536 is out of range", "1 to 65535"),
    ('[vip]\ninterface = "lo"', "vip.interface", '"lo" cannot be used here', "not lo"),
    ('[vip]\ninterface = "a23456789012345x"', "vip.interface", "cannot be used here", "1 to 15"),
    ('[vip]\ninterface = "lvs%d"', "vip.interface", "cannot be used here", "1 to 15"),
    ('[daemon]\nstate_directory = "x"', "daemon.state_directory", "is not an absolute path", "/var/lib/lvsctl"),
    (f'[daemon]\ncontrol_socket = "/{"é" * 54}"', "daemon.control_socket", "too long for a socket", "107 bytes"),
    ('[daemon]\naudit_interval = "999ms"', "daemon.audit_interval", "is out of range", '1s to 1h, like "10s"'),
    ('[daemon]\naudit_interval = "2h"', "daemon.audit_interval", "is out of range", "1s to 1h"),
    ("[daemon]\naudit_interval = 2.5", "daemon.audit_interval", "2.5 has no unit", '"2.5s"'),
    ("[metrics]\nlisten = 9105", "metrics.listen", "9105 is not a string", '"127.0.0.1:9105"'),
    ('[metrics]\nlisten = ":9105"', "metrics.listen", "is not an IP address and a port", '"[::1]:9105"'),
    ('[metrics]\nlisten = "localhost:9105"', "metrics.listen", "is not an IP address", '"127.0.0.1:9105"'),
    ('[metrics]\nlisten = "127.0.0.1"', "metrics.listen", "has no port", '"127.0.0.1:9105"'),
    ('[metrics]\nlisten = "127.0.0.1:0"', "metrics.listen", "has port 0", "the port that is scraped"),
    ('[metrics]\nlisten = "127.0.0.1:65536"', "metrics.listen", "no port from 1 to 65535", '"127.0.0.1:9105"'),
    ('[metrics]\nlisten = "::1:9105"', "metrics.listen", "lacks its brackets", "write"),
    ('[metrics]\nlisten = "[::ffff:127.0.0.1]:1"', "metrics.listen", "IPv4 address written as", '"127.0.0.1:1"'),
    ('[metrics]\nlisten = "224.0.0.1:9105"', "metrics.listen", "no address to listen on", '"[::1]:9105"'),
    ('[metrics]\nlisten = "[fe80::1]:9105"', "metrics.listen", "no address to listen on", '"127.0.0.1:9105"'),
    ("[metrics]\nport = 9105", "metrics.port", "there is no such key", "listen"),
    ('[defaults]\nscheduler = "wlcc"', "defaults.scheduler", '"wlcc" is not known', 'did you mean "wlc"?'),
    ('[defaults]\ntags = ["x"]', "defaults.tags", "there is no such key", "it belongs in [virtual_server.NAME]"),
    (
        "[defaults]\nlower_threshold = 5\nupper_threshold = 4",
        "defaults.lower_threshold",
        "above upper",
        "write an upper",
    ),
    ("\n[consol]", "consol", "there is no such table", "did you mean consul?"),
    (
        "\n[zzz]",
        "zzz",
        "there is no such table",
        "consul, safety, vip, daemon, kernel, metrics, overrides, discovery, defaults, virtual_server",
    ),
    ('\nscheduler = "rr"', "scheduler", "there is no such table", "it belongs in [defaults] or [virtual_server.NAME]"),
    ("\nconsul = 1", "consul", "1 where a table belongs", "write [consul]"),
    ("\n[[consul]]", "consul", "a list where a table belongs", "write [consul]"),
    ("\n[overrides]", "overrides", "kv_prefix is missing", 'write kv_prefix = "lvsctl"'),
    ('[overrides]\nkv_prefix = "/x"', "overrides.kv_prefix", '"/x" cannot be used here', "1 to 8 names"),
    ('[overrides]\nkv_prefix = "a/../b"', "overrides.kv_prefix", '"a/../b" cannot be used here', "1 to 8 names"),
    ('[overrides]\nkv_prefix = "x/"', "overrides.kv_prefix", '"x/" cannot be used here', "1 to 8 names"),
    ("\n[vip]", "vip", "interface is missing", 'write interface = "lvs0"'),
    ('[virtual_server]\naddress = "10.9.0.1:80"', "virtual_server.address", "table belongs", "[virtual_server.NAME]"),
    ('\n[virtual_server."a b"]\nfirewall_mark = 1', 'virtual_server."a b"', "cannot name", "1 to 63"),
    ('\n[virtual_server.""]\nfirewall_mark = 1', 'virtual_server.""', "cannot name", "1 to 63"),
    ("\n[virtual_server.-x]\nfirewall_mark = 1", "virtual_server.-x", "cannot name", "beginning with a letter"),
    (f"\n[virtual_server.{'x' * 64}]\nfirewall_mark = 1", f'virtual_server."{"x" * 60}…"', "cannot name", "1 to 63"),
    ("\n[discovery]", "discovery", "addresses is missing", 'write addresses = ["10.9.1.0/24"]'),
    *(
        (f'[discovery]\n{key} = {value}\naddresses = ["10.9.1.0/24"]', f"discovery.{key}{at}", wrong, remedy)
        for key, value, at, wrong, remedy in (
            ("keys", '["near"]', "[0]", '"near" is not known', "write one of scheduler, scheduler_flags"),
            ("keys", '["address"]', "[0]", '"address" is not known', "write one of"),
            ("ports", "[0]", "[0]", "0 is out of range", '"8000-8999"'),
            ("ports", '["90-80"]', "[0]", '"90-80" is no port', '"8000-8999"'),
            ("ports", '["80"]', "[0]", '"80" is no port', "write a port"),
            ("ports", "[true]", "[0]", "true is no port", "write a port"),
            ("protocols", "[]", "", "the list is empty", "write one element or more"),
            ("tag", '"lvs-x"', "", "cannot be used here", "1 to 32 of A-Z a-z 0-9 _"),
            ("services", '["a b"]', "[0]", "cannot be used here", "* for any of them"),
            ("max_virtual_servers", "0", "", "0 is out of range", "1 to 10000"),
            ("max_virtual_server", "1", "", "there is no such key", "did you mean max_virtual_servers?"),
        )
    ),
    ("\n[virtual_server.x]", "virtual_server.x", "neither address nor firewall_mark", "firewall_mark = 7"),
]


@pytest.mark.parametrize(("text", "at", "wrong", "remedy"), IN_TABLE, ids=[row[0].strip() for row in IN_TABLE])
def test_one_mistake_in_another_table(text: str, at: str, wrong: str, remedy: str) -> None:
    problem = only(f"{text}\n{SERVER}")
    assert (problem.line, problem.key) == (2, at)
    assert wrong in problem.wrong
    assert remedy in problem.remedy


@pytest.mark.parametrize(
    "address", ["http://me:hunter2@h", "http://h?token=hunter2", "http://h/#hunter2", "http://hunter2@"]
)
def test_what_may_be_a_secret_is_not_repeated(address: str) -> None:
    problem = only(f'[consul]\naddress = "{address}"\n{SERVER}')
    assert "has credentials, a query or a fragment" in problem.wrong
    assert "token_file" in problem.remedy
    assert "hunter2" not in problem.at(FILE)


# --- keys that do not fit together ----------------------------------------------------------------------------------


def test_a_certificate_needs_its_key_and_the_other_way_round() -> None:
    head = '[consul]\naddress = "https://h"\n'
    one = only(f'{head}certificate_file = "/c"\n{SERVER}')
    assert (one.line, one.key, one.wrong) == (3, "consul.certificate_file", "certificate_file without key_file")
    other = only(f'{head}key_file = "/k"\n{SERVER}')
    assert (other.line, other.key, other.wrong) == (3, "consul.key_file", "key_file without certificate_file")


def test_certificates_are_not_judged_by_an_address_that_was_refused() -> None:
    assert only(f'[consul]\naddress = "https://h/v1"\nca_file = "/ca"\n{SERVER}').key == "consul.address"


def test_a_firewall_mark_has_no_protocol() -> None:
    problem = only('[virtual_server.reco]\nfirewall_mark = 7\nprotocol = "tcp"')
    assert (problem.line, problem.key) == (3, "virtual_server.reco.protocol")
    assert "the firewall rule that sets the mark" in problem.remedy


@pytest.mark.parametrize("mark", ["0", "4294967296", "-1", str(2**80), "0x" + "f" * 9000])
def test_firewall_marks_out_of_range(mark: str) -> None:
    problem = only(f"[virtual_server.reco]\nfirewall_mark = {mark}")
    assert (problem.line, problem.key) == (2, "virtual_server.reco.firewall_mark")
    assert problem.remedy == "write 1 to 4294967295, like 7"
    assert len(problem.wrong) < 80


@pytest.mark.parametrize(
    ("one", "other", "shown"),
    [
        ('address = "10.9.0.1:80"', 'protocol = "tcp"\naddress = "10.9.0.1:80"', "tcp 10.9.0.1:80"),
        ('address = "[fd00::1]:80"', 'tags = []\naddress = "[fd00:0::1]:80"', "tcp [fd00::1]:80"),
        ("firewall_mark = 7", 'family = "ipv4"\nfirewall_mark = 0x7', "mark 7"),
        ('firewall_mark = 7\nfamily = "ipv6"', 'family = "ipv6"\nfirewall_mark = 7', "mark 7 ipv6"),
    ],
)
def test_two_virtual_servers_cannot_be_the_same(one: str, other: str, shown: str) -> None:
    text = f"[virtual_server.a]\n{one}\n[virtual_server.b]\n{other}"
    problem = only(text)
    assert problem.line == len(text.split("\n"))
    assert problem.key == f"virtual_server.b.{'firewall_mark' if 'mark' in shown else 'address'}"
    assert problem.wrong == f"{shown} is also virtual_server.a (line 1)"


def test_a_fallback_is_at_no_virtual_address() -> None:
    text = """[virtual_server.a]
address = "10.9.0.100:80"
[virtual_server.b]
firewall_mark = 7
fallback = "10.9.0.100:8080"
"""
    problem = only(text)
    assert (problem.line, problem.key) == (5, "virtual_server.b.fallback")
    assert problem.wrong == "the fallback is at the virtual address of virtual_server.a"
    assert only(text.replace("firewall_mark = 7", 'address = "10.9.0.100:81"')).wrong == (
        "the fallback is at the virtual address itself"
    )


def test_what_differs_in_protocol_port_or_family_is_not_the_same() -> None:
    text = """
[virtual_server.a]
address = "10.9.0.1:53"
[virtual_server.b]
address = "10.9.0.1:53"
protocol = "udp"
[virtual_server.c]
address = "10.9.0.1:54"
[virtual_server.d]
firewall_mark = 7
[virtual_server.e]
firewall_mark = 7
family = "ipv6"
"""
    assert list(parse(text, FILE).virtual_servers) == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("identity", "netmask", "wrong"),
    [
        ('address = "[fd00::1]:80"', '"255.255.255.0"', "a dotted mask is for IPv4"),
        ('firewall_mark = 7\nfamily = "ipv6"', '"255.255.255.0"', "a dotted mask is for IPv4"),
        ('address = "10.9.0.1:80"', "33", "33 is too long for IPv4"),
        ("firewall_mark = 7", "64", "64 is too long for IPv4"),
        ('address = "10.9.0.1:80"', "0", "0 is out of range"),
        ('address = "[fd00::1]:80"', "129", "129 is out of range"),
        ('address = "10.9.0.1:80"', '"255.0.255.0"', '"255.0.255.0" is no netmask'),
        ('address = "10.9.0.1:80"', '"0.0.0.0"', '"0.0.0.0" is no netmask'),
        ('address = "10.9.0.1:80"', '"0.0.0.255"', '"0.0.0.255" is no netmask'),
        ('address = "10.9.0.1:80"', "true", "true is no netmask"),
    ],
)
def test_a_netmask_fits_the_family(identity: str, netmask: str, wrong: str) -> None:
    text = f'[virtual_server.reco]\npersistence = "5m"\npersistence_netmask = {netmask}\n{identity}'
    problem = only(text)
    assert (problem.line, problem.key) == (3, "virtual_server.reco.persistence_netmask")
    assert problem.wrong.startswith(wrong)


@pytest.mark.parametrize("scheduler", ["sh", "mh"])
def test_hashing_passes_over_a_quiesced_real_server_unless_the_flags_are_written(scheduler: str) -> None:
    text = f'{SERVER}scheduler = "{scheduler}"\n'
    assert server(text).scheduler_flags is SchedulerFlag.FLAG_1
    assert server(f'{SERVER}[defaults]\nscheduler = "{scheduler}"').scheduler_flags is SchedulerFlag.FLAG_1
    assert server(f"{text}scheduler_flags = []").scheduler_flags is SchedulerFlag.NONE
    assert server(f'{text}scheduler_flags = ["{scheduler}-port"]').scheduler_flags is SchedulerFlag.FLAG_2


@pytest.mark.parametrize("scheduler", [name for name in SCHEDULERS if name not in {"sh", "mh"}])
def test_other_schedulers_have_no_flags_unless_they_are_written(scheduler: str) -> None:
    assert server(f'{SERVER}scheduler = "{scheduler}"').scheduler_flags is SchedulerFlag.NONE


def test_a_flag_is_compared_with_the_inherited_scheduler() -> None:
    text = SERVER + 'scheduler_flags = ["mh-port"]\n[defaults]\nscheduler = '
    assert server(text + '"mh"').scheduler_flags is SchedulerFlag.FLAG_2
    assert only(text + '"sh"').wrong == '"mh-port" does not fit the scheduler "sh"'
    assert only(text + '"xx"').key == "defaults.scheduler"  # and nothing about the flag


def test_a_datacenter_is_compared_with_the_inherited_list() -> None:
    problem = only(f'[defaults]\nfailover = ["dc2", "dc3"]\n{SERVER}datacenter = "dc2"')
    assert problem.key == "virtual_server.reco.datacenter"
    assert problem.remedy == 'write failover = ["dc3"]'


def test_a_threshold_is_compared_with_the_inherited_one() -> None:
    below = only(f"[defaults]\nlower_threshold = 5\nupper_threshold = 9\n{SERVER}upper_threshold = 4")
    assert (below.line, below.key) == (6, "virtual_server.reco.upper_threshold")
    alone = only(f"[defaults]\nlower_threshold = 5\n{SERVER}")
    assert (alone.line, alone.key) == (3, "virtual_server.reco")
    once = only(f"[defaults]\nlower_threshold = 5\nupper_threshold = 4\n{SERVER}[virtual_server.b]\nfirewall_mark = 1")
    assert once.key == "defaults.lower_threshold"


def test_slow_start_needs_weights_that_give_shares() -> None:
    for scheduler in ("rr", "lc", "sh", "mh", "nq", "fo"):
        wrong = only(f'{SERVER}slow_start = "30s"\nscheduler = "{scheduler}"')
        assert wrong.key == "virtual_server.reco.slow_start"
        assert f'does nothing with the scheduler "{scheduler}"' in wrong.wrong
        assert 'scheduler = "wrr" or scheduler = "wlc"' in wrong.remedy
    for scheduler in ("wrr", "wlc", "sed", "twos"):
        config = parse(f'{SERVER}slow_start = "30s"\nscheduler = "{scheduler}"', FILE)
        assert config.virtual_servers["reco"].slow_start == 30.0
    assert not parse(f'{SERVER}slow_start = "0s"\nscheduler = "rr"', FILE).virtual_servers["reco"].slow_start


def test_slow_start_of_all_is_for_those_that_name_no_other_scheduler() -> None:
    config = parse(
        f'[defaults]\nslow_start = "30s"\n{SERVER}[virtual_server.b]\nfirewall_mark = 1\nscheduler = "sh"', FILE
    )
    assert [each.slow_start for each in config.virtual_servers.values()] == [30.0, 0.0]
    once = only(f'[defaults]\nslow_start = "30s"\nscheduler = "rr"\n{SERVER}[virtual_server.b]\nfirewall_mark = 1\n')
    assert once.key == "defaults.slow_start"


# --- the whole file -------------------------------------------------------------------------------------------------


def test_ten_mistakes_are_told_in_one_go_in_the_files_order() -> None:
    text = """\
[virtual_server.b]                        # 1
address = "10.9.0.100:80"
forwarding = "nat"                        # 3
persistance = "5m"
[consul]
address = "http://127.0.0.1:8500/v1"      # 6
[virtual_server.a]
address = "10.9.0.100:80"                 # 8
drain_timeout = 30
tags = [
  "a",
  "",                                     # 12
  "a",
]
upper_threshold = 10
lower_threshold = 11                      # 16
[safety]
allowed_networks = ["10.0.0.1/8"]         # 18
[defaults]
scheduler = "wlcc"                        # 20
"""
    assert [(problem.line, problem.key) for problem in problems(text)] == [
        (3, "virtual_server.b.forwarding"),
        (4, "virtual_server.b.persistance"),
        (6, "consul.address"),
        (8, "virtual_server.a.address"),
        (9, "virtual_server.a.drain_timeout"),
        (12, "virtual_server.a.tags[1]"),
        (13, "virtual_server.a.tags[2]"),
        (16, "virtual_server.a.lower_threshold"),
        (18, "safety.allowed_networks[0]"),
        (20, "defaults.scheduler"),
    ]


@pytest.mark.parametrize(
    ("text", "line", "wrong"),
    [
        ("", None, "the file is empty"),
        ("\n \n", None, "the file is empty"),
        ("# nothing", None, "no virtual server is configured"),
        ("[virtual_server]", 1, "no virtual server is configured"),
        ("\n[[virtual_server]]", 2, "a list where tables belong"),
        ("\nvirtual_server = 1", 2, "1 where tables belong"),
        ("\nwhat is this", 2, "not valid TOML: a key without an equals sign"),
        ("\na = b", 2, "not valid TOML: the value cannot be understood"),
        ("\na = ", 2, "not valid TOML: the value cannot be understood"),
        ("a = 1\n= 2\n", 2, "not valid TOML: "),
        ("a = 1\na = 2\n", 2, "not valid TOML: this key is here for the second time"),
        ("[a]\n[a]\n", 2, "not valid TOML: this table is here for the second time"),
        ("a = {}\n[a.b]\n", 2, "not valid TOML: "),
        ("a = [1,\n2\n", 2, "not valid TOML: a list is not closed"),
        ("a = {b = 1, b = 2}\n", 1, "not valid TOML: this key is here for the second time"),
        ("a = {b = 1\n}", 1, "not valid TOML: an inline table is not closed"),
        ("[a\nb = 1", 1, "not valid TOML: a table header is not closed"),
        ('a = "b\nc = 1', 1, "not valid TOML: a string is not closed"),
        ('a = "b', 1, "not valid TOML: a string is not closed"),
        ("a = 'b", 1, "not valid TOML: a string is not closed"),
        ('a = """b', 1, "not valid TOML: a string is not closed"),
        ("a = '''b", 1, "not valid TOML: a string is not closed"),
        (r'a = "\q"', 1, "not valid TOML: a backslash in a string"),
        (r'a = "\ud800"', 1, "not valid TOML: an escape that is no character"),
        (r'a = "\uzzzz"', 1, "not valid TOML: an escape that is no character"),
        ("a = 1 2", 1, "not valid TOML: there is more after the value"),
        ("a = 2020-13-01", 1, "not valid TOML: "),
        ("a = \x00", 1, "not valid TOML: "),
        ("# \x00", 1, "not valid TOML: a control character"),
        ("a = " + "9" * 5000, None, "not valid TOML: a number has too many digits"),
        ("a = " + "[" * 20000 + "]" * 20000, None, "its lists and tables are nested too deep"),
        ("a" + ".a" * 300 + " = 1\n" + SERVER, 1, "there is no such table"),
    ],
)
def test_a_file_that_is_not_a_configuration(text: str, line: int | None, wrong: str) -> None:
    problem = only(text)
    assert problem.line == line
    assert problem.wrong.startswith(wrong)
    assert problem.remedy


def test_a_long_value_is_shortened() -> None:
    problem = only(f'{SERVER}scheduler = "{"x" * 5000}"')
    assert problem.wrong == f'"{"x" * 60}…" is not known'


def test_a_valid_file_loads(tmp_path: Path) -> None:
    path = tmp_path / "lvsctl.toml"
    path.write_bytes(SERVER.replace("\n", "\r\n").encode())
    assert load(path) == parse(SERVER, path)


@pytest.mark.parametrize(
    ("content", "line", "wrong"),
    [
        (b"", None, "the file is empty"),
        (b"a = 1\nb = '\xff'\n", 2, "byte 0xff is not UTF-8"),
        (b"\xef\xbb\xbf" + SERVER.encode(), 1, "it begins with a byte order mark"),
        (b" " * (MAX_BYTES + 1), None, f"it has more than {MAX_BYTES} bytes"),
    ],
)
def test_bytes_that_are_no_text(tmp_path: Path, content: bytes, line: int | None, wrong: str) -> None:
    path = tmp_path / "lvsctl.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(path)
    (problem,) = caught.value.problems
    assert (problem.line, problem.key, problem.wrong) == (line, "", wrong)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path, wrong in (
        (tmp_path / "none", "there is no such file"),
        (tmp_path, "this is a directory"),
        (loop, "it cannot be read: Too many levels of symbolic links"),
        (tmp_path / ("x" * 300), "it cannot be read: File name too long"),
        (Path("\0"), "it cannot be read: embedded null byte"),
        (tmp_path / "none" / "x", "there is no such file"),
    ):
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert [problem.wrong for problem in caught.value.problems] == [wrong]


# --- properties -----------------------------------------------------------------------------------------------------

KNOWN = sorted({name for table in TABLES.values() for name in attrs.fields_dict(table)} | TABLES.keys())
EXAMPLES = sorted({field.metadata["example"] for table in TABLES.values() for field in attrs.fields(table)})


def toml_key(text: str) -> str:
    return '"' + "".join(c if c.isalnum() and c.isascii() else f"\\U{ord(c):08x}" for c in text) + '"'


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
names = st.sampled_from(KNOWN) | texts
leaves = (
    st.sampled_from(EXAMPLES)
    | texts.map(toml_key)
    | st.text("0123456789.:/[]msh%", max_size=12).map(toml_key)
    | st.integers(-(2**70), 2**70).map(str)
    | st.floats(allow_nan=False, allow_infinity=False).map(lambda number: f"{number:.3f}")
    | st.sampled_from(["nan", "-inf", "true", "false", "1979-05-27", "07:32:00", "1979-05-27T07:32:00Z"])
)


def inline(pairs: dict[str, str]) -> str:
    return "{" + ", ".join(f"{toml_key(name)} = {value}" for name, value in pairs.items()) + "}"


values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: "[" + ", ".join(items) + "]")
        | st.dictionaries(names, inner, max_size=4).map(inline)
    ),
    max_leaves=8,
)
tables = st.sampled_from(sorted(TABLES)).flatmap(
    lambda name: st.dictionaries(st.sampled_from(sorted(attrs.fields_dict(TABLES[name]))) | names, values, max_size=6)
)
roots = st.dictionaries(
    st.sampled_from(sorted(TABLES)) | names,
    values | tables.map(inline) | st.dictionaries(names, tables.map(inline), max_size=3).map(inline),
    max_size=5,
)


def attempt(text: str) -> tuple[Problem, ...]:
    try:
        parse(text, FILE)
    except ConfigError as error:
        return error.problems
    return ()


@given(roots)
def test_whatever_is_written_gives_a_config_or_problems_on_lines(root: dict[str, str]) -> None:
    text = "\n".join(f"{toml_key(name)} = {value}" for name, value in root.items())
    found = attempt(text)
    for problem in found:
        assert problem.wrong
        assert problem.remedy
        assert problem.at(FILE).isprintable()
        assert problem.line is None or 1 <= problem.line <= len(root)
        assert "not valid TOML" not in problem.wrong  # it is valid, or this test tests little
    at = [problem.line for problem in found if problem.line]
    assert at == sorted(at)


@given(st.text(st.characters(exclude_categories=["Cs"])) | st.text("ab=[]{}\"'\n.,1#\\"))
def test_any_text_gives_a_config_or_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, FILE)
    assert all(problem.at(FILE).isprintable() for problem in caught.value.problems)


whole_seconds = st.integers(1, MAX_PERSISTENCE).map(float)
KEY_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "scheduler": st.sampled_from(SCHEDULERS),
    "forwarding": st.sampled_from([Forwarding.MASQUERADE, Forwarding.DIRECT_ROUTE, Forwarding.TUNNEL]),
    "drain_timeout": st.integers(0, 86_400_000).map(lambda milliseconds: milliseconds / 1000),
    "floor": st.integers(0, 100),
    "only_passing": st.booleans(),
    "persistence": whole_seconds,
    "upper_threshold": st.integers(0, 2**31 - 1),
    "datacenter": st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True),
    "failover": st.lists(st.sampled_from(["elsewhere-1", "elsewhere-2", "elsewhere-3"]), unique=True).map(tuple),
    "near": st.just("_agent"),
    "weight_meta": st.from_regex(r"[A-Za-z0-9_-]{0,128}", fullmatch=True),
    "consul_service": st.text(st.characters(categories=["L", "N", "P"], exclude_characters="/"), min_size=1),
    "tags": st.lists(st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1), unique=True).map(tuple),
    "meta": st.dictionaries(st.text("abc", min_size=1), st.text("abc\"\\'")),
}


@given(st.fixed_dictionaries({}, optional=KEY_VALUES), st.booleans())
def test_what_is_written_is_what_is_read(chosen: dict[str, Any], inherit: bool) -> None:  # noqa: FBT001  given's
    fields = attrs.fields_dict(VirtualServerTable)
    own = ["scheduler_flags = []"]  # not written, they would follow the scheduler
    defaults: list[str] = []
    for name, value in chosen.items():
        to_defaults = inherit and name in attrs.fields_dict(DefaultsTable)
        (defaults if to_defaults else own).append(f"{name} = {fields[name].metadata['type'].write(value)}")
    text = "\n".join([SERVER, *own, "[defaults]", *defaults])
    assert server(text) == attrs.evolve(server(SERVER), **chosen)


@given(texts)
def test_quoted_text_is_printable_and_reads_back(text: str) -> None:
    assert quoted(text).isprintable()
    assert tomllib.loads(f"a = {quoted(text)}") == {"a": text}


@pytest.mark.parametrize(
    ("lines", "listen"),
    [
        ("[metrics]", "127.0.0.1:9105"),
        ('[metrics]\nlisten = "[::1]:9105"', "[::1]:9105"),
        ('[metrics]\nlisten = "0.0.0.0:1"', "0.0.0.0:1"),
        ('[metrics]\nlisten = "[::]:65535"', "[::]:65535"),
        ('[metrics]\nlisten = "192.0.2.1:80"', "192.0.2.1:80"),
    ],
)
def test_metrics_listen_where_it_is_written(lines: str, listen: str) -> None:
    config = parse(f"{lines}\n[virtual_server.x]\nfirewall_mark = 7\n", FILE)
    assert config.metrics
    assert endpoint(config.metrics.listen.address, config.metrics.listen.port) == listen


def test_metrics_are_off_where_nothing_is_written() -> None:
    assert parse("[virtual_server.x]\nfirewall_mark = 7\n", FILE).metrics is None


# --- defaults that no declaration could be right with ---------------------------------------------------------------

OPENED = '[discovery]\naddresses = ["10.9.1.0/24"]\n'  # two lines


@pytest.mark.parametrize("servers", ["", SERVER])
def test_defaults_that_make_every_declaration_wrong_are_named(servers: str) -> None:
    lower = "[defaults]\nlower_threshold = 10\n"
    for text, line, wrong in (
        (lower, 4, "lower_threshold 10 is above upper_threshold 0 (no limit)"),
        (f"{lower}upper_threshold = 5\n", 4, "lower_threshold 10 is above upper_threshold 5"),
    ):
        found = problems(OPENED + text + servers)[0]
        assert (found.line, found.key, found.wrong) == (line, "defaults.lower_threshold", wrong)
    found = problems(f'{OPENED}[defaults]\nfailover = ["dc2", "dc3"]\ndatacenter = "dc3"\n{servers}')[0]
    assert (found.line, found.key) == (4, "defaults.failover")
    assert found.wrong == '"dc3" is its own datacenter, it cannot fail over to it'


def test_defaults_that_a_declaration_can_mend_are_right() -> None:
    text = "[defaults]\nlower_threshold = 10\n"
    for opened in ("upper_threshold", "lower_threshold"):
        parse(f'{OPENED}keys = ["{opened}"]\n{text}', FILE)
    parse(f"{OPENED}{text}upper_threshold = 10\n", FILE)
    parse(text + SERVER + "upper_threshold = 20\n", FILE)
    assert "keys" in only(f'{OPENED}keys = ["nothing"]\n{text}').key, "one mistake is told once"


@pytest.mark.parametrize(
    ("network", "kind"),
    [
        ("127.0.0.0/8", "loopback"),
        ("127.1.0.0/16", "loopback"),
        ("224.0.0.0/4", "multicast"),
        ("255.255.255.255/32", "reserved"),
        ("0.0.0.0/8", "reserved"),
        ("fe80::/64", "link-local"),
        ("::1/128", "loopback"),
        ("ff02::/16", "multicast"),
    ],
)
def test_a_network_without_an_address_for_a_virtual_server_is_named(network: str, kind: str) -> None:
    found = only(f'[discovery]\naddresses = ["10.9.1.0/24", "{network}"]\n')
    assert (found.line, found.key) == (2, "discovery.addresses[1]")
    assert found.wrong.endswith(f"one that no virtual server can have: {kind}")


@pytest.mark.parametrize("network", ["0.0.0.0/0", "::/0", "10.9.1.7/32", "fd00::/8", "126.0.0.0/7"])
def test_a_network_with_one_is_right(network: str) -> None:
    parse(f'[discovery]\naddresses = ["{network}"]\n', FILE)

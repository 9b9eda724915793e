"""A small world for property tests: few addresses and names, so that things meet, and every kind of mischief.

Tables, answers, configurations and ledgers are drawn independently of each other: whatever can be found at start is
found here, from a table of somebody else to a ledger about another one.
"""

from ipaddress import ip_address, ip_network

import attrs
from hypothesis import strategies as st

from lvsctl.config import Config, OnCritical, SafetyConfig, VirtualServerConfig
from lvsctl.core.desired import queries_of
from lvsctl.core.instance import Answer, Answers, Check, Health, Instance, Malformed
from lvsctl.core.order import AtAddress, AtPort, Drain, Hold, OneInstance, OnNode, Order, Orders, Target, What
from lvsctl.core.override import Fixed, Override, Overrides, Percent
from lvsctl.core.ownership import Ledger, LedgerEntry
from lvsctl.core.peak import Peak, Peaks
from lvsctl.core.provenance import UNKNOWN, Provenance
from lvsctl.core.served import NEVER, Served
from netlink.types import (
    Family,
    Forwarding,
    Protocol,
    RealServer,
    RealServerKey,
    SchedulerFlag,
    Table,
    TableEntry,
    VirtualServer,
    VirtualServerKey,
)
from tests.values import NOW

KEYS = (
    VirtualServerKey.by_address(Protocol.TCP, ip_address("10.9.0.100"), 80),
    VirtualServerKey.by_address(Protocol.UDP, ip_address("10.9.0.100"), 80),
    VirtualServerKey.by_address(Protocol.TCP, ip_address("fd00:9::1"), 80),
    VirtualServerKey.by_mark(7),
    VirtualServerKey.by_mark(7, Family.IPV6),
)
NEVER_CONFIGURED = VirtualServerKey.by_address(Protocol.TCP, ip_address("10.9.0.222"), 22)

FORBIDDEN = (
    "127.0.0.1", "169.254.169.254", "224.0.0.1", "255.255.255.255", "0.0.0.0", "10.9.0.100", "10.0.0.254",  # noqa: S104  it is refused
    "::ffff:127.0.0.1", "8.8.8.8", "app1.example", "", "010.0.0.1", "10.0.0.1 ", "fe80::1%lo", "167772161",
)  # fmt: skip
IPV4 = ("10.0.0.1", "10.0.0.2", "10.0.0.3")
IPV6 = ("fd00::1", "fd00::2")
PORTS = (80, 8080)

healths = st.sampled_from((Health.PASSING, Health.PASSING, Health.WARNING, Health.CRITICAL, Health.MAINTENANCE))
checks = st.builds(
    Check,
    check_id=st.just("http"),
    name=st.sampled_from(("HTTP", "")),
    health=healths,
    output=st.sampled_from(("", "x")),
)
tags = st.lists(st.sampled_from(("v1", "v2")), max_size=2, unique=True).map(tuple)


@st.composite
def instances(draw: st.DrawFn) -> Instance:
    """Draw one registration, one in six of them with something wrong."""
    address = draw(st.sampled_from((*IPV4, *IPV4, *IPV6, *IPV6, draw(st.sampled_from(FORBIDDEN)))))
    return Instance(
        node=draw(st.sampled_from(("app1", "app2"))),
        instance_id=draw(st.sampled_from(("a", "b", "c"))),
        address=address,
        port=draw(st.sampled_from((*PORTS, *PORTS, 0))),
        weight=draw(st.integers(0, 3)),
        warning_weight=draw(st.integers(0, 3)),
        tags=draw(tags),
        meta=draw(st.sampled_from(({}, {"zone": "a"}))),
        checks=tuple(draw(st.lists(checks, max_size=2))),
    )


malformed = st.builds(Malformed, node=st.just("app9"), instance_id=st.just("z"), reason=st.just("Port is 'x'"))
answers = st.builds(
    Answer,
    instances=st.lists(instances(), max_size=6, unique_by=lambda each: each.identity).map(tuple),
    malformed=st.lists(malformed, max_size=1).map(tuple),
    index=st.integers(1, 9),
)


@st.composite
def configured(draw: st.DrawFn, name: str, key: VirtualServerKey) -> VirtualServerConfig:
    """Draw a virtual server of the configuration."""
    upper = draw(st.sampled_from((0, 0, 9)))
    forwarding = draw(st.sampled_from((Forwarding.MASQUERADE, Forwarding.DIRECT_ROUTE, Forwarding.TUNNEL)))
    sorry = ip_address("10.0.0.99" if key.family is Family.IPV4 else "fd00::99")
    port = 8099 if forwarding is Forwarding.MASQUERADE else key.port
    return VirtualServerConfig(
        name=name,
        key=key,
        consul_service=draw(st.sampled_from(("reco", "shop"))),
        tags=draw(st.sampled_from(((), (), ("v1",)))),
        meta=draw(st.sampled_from(({}, {}, {"zone": "a"}))),
        only_passing=draw(st.booleans()),
        scheduler=draw(st.sampled_from(("wlc", "rr", "sh"))),
        scheduler_flags=draw(st.sampled_from((SchedulerFlag.NONE, SchedulerFlag.FLAG_1))),
        one_packet=key.protocol is Protocol.UDP and draw(st.booleans()),
        forwarding=forwarding,
        persistence=draw(st.sampled_from((None, 300))),
        persistence_prefix=draw(st.sampled_from((None, 24, 32 if key.family is Family.IPV4 else 128))),
        upper_threshold=upper,
        lower_threshold=min(upper, draw(st.sampled_from((0, 3)))),
        drain_timeout=draw(st.sampled_from((0.0, 0.5, 30.0))),
        on_critical=draw(st.sampled_from(OnCritical)),
        slow_start=draw(st.sampled_from((0.0, 0.0, 1.0))),
        fallback=draw(st.sampled_from((None, None, RealServerKey(address=sorry, port=port)))),
        floor=0,  # it goes by the clock, which tests of what a death changes set; test_floor has it
    )


@st.composite
def failing_over(draw: st.DrawFn, config: Config) -> Config:
    """Draw other datacenters for each virtual server of `config`, or none."""
    several = {
        name: attrs.evolve(each, failover=draw(st.sampled_from(((), ("dc2",), ("dc2", "dc3")))))
        for name, each in config.virtual_servers.items()
    }
    return attrs.evolve(config, virtual_servers=several)


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """Draw a valid configuration of one to four virtual servers."""
    keys = draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=4, unique=True))
    return Config(
        safety=SafetyConfig(
            allowed_networks=draw(
                st.sampled_from(
                    (
                        (ip_network("10.0.0.0/8"), ip_network("fd00::/8")),
                        (ip_network("10.0.0.0/29"), ip_network("fd00::/8")),
                        (ip_network("0.0.0.0/0"), ip_network("::/0")),
                        (ip_network("10.0.0.2/32"), ip_network("fd00::2/128")),
                    )
                )
            ),
            max_weight=draw(st.sampled_from((2, 65535))),
        ),
        virtual_servers={f"vs{number}": draw(configured(f"vs{number}", key)) for number, key in enumerate(keys)},
    )


@st.composite
def answers_for(draw: st.DrawFn, config: Config) -> Answers:
    """Draw answers to some of the queries of `config`."""
    found = {query: draw(st.none() | answers) for query in sorted(queries_of(config))}
    return {query: answer for query, answer in found.items() if answer is not None}


@st.composite
def entries(draw: st.DrawFn, key: VirtualServerKey) -> TableEntry:
    """Draw a virtual server as some hand may have left it in the kernel."""
    addresses = IPV4 if key.family is Family.IPV4 else IPV6
    keys = draw(st.lists(st.tuples(st.sampled_from(addresses), st.sampled_from(PORTS)), max_size=4, unique=True))
    return TableEntry(
        virtual_server=VirtualServer(
            key=key,
            scheduler=draw(st.sampled_from(("wlc", "rr"))),
            scheduler_flags=draw(st.sampled_from((SchedulerFlag.NONE, SchedulerFlag.FLAG_1))),
            persistence=draw(st.sampled_from((None, None, 300))),
        ),
        real_servers={
            real_server.key: real_server
            for real_server in (
                RealServer(
                    key=RealServerKey(address=ip_address(address), port=port),
                    forwarding=draw(st.sampled_from((Forwarding.MASQUERADE, Forwarding.DIRECT_ROUTE))),
                    weight=draw(st.integers(0, 2)),
                    upper_threshold=draw(st.sampled_from((0, 0, 9))),
                )
                for address, port in keys
            )
        },
    )


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Draw a whole table; the last key is never configured."""
    keys = draw(st.lists(st.sampled_from((*KEYS, NEVER_CONFIGURED)), max_size=5, unique=True))
    return {key: draw(entries(key)) for key in keys}


peaks: st.SearchStrategy[Peaks] = st.just({}) | st.dictionaries(
    st.sampled_from(("", "dc2", "gone")),
    st.builds(Peak, count=st.integers(1, 4), fewer_since=st.sampled_from((None, NOW - 1e6, NOW - 9, NOW, NOW + 9))),
)
counts = st.just(NEVER) | st.builds(
    Served,
    count=st.integers(0, 4),
    earlier=st.sampled_from(((), ((5, NOW - 1e6),), ((9, NOW - 800), (5, NOW)), ((6, NOW + 9),))),
)
provenances = st.just(UNKNOWN) | st.builds(
    Provenance,
    service=st.sampled_from(("reco", "shop", "gone")),
    datacenter=st.sampled_from(("", "dc2", "gone")),
    filters=st.sampled_from(("", "", '[false, ["v1"], []]')),
)


@st.composite
def ledgers(draw: st.DrawFn, table: Table | None = None) -> Ledger:
    """Draw a ledger that remembers the table, something else, or nothing; drains began before or after now."""
    ledger = {}
    for key in draw(st.lists(st.sampled_from(KEYS), max_size=4, unique=True)):
        there = (table or {}).get(key)
        written = draw(st.sampled_from((None, there)) | entries(key))
        known = [*(there.real_servers if there else ()), *(written.real_servers if written else ())]
        draining = draw(st.lists(st.sampled_from(known), unique=True)) if known else []
        ledger[key] = LedgerEntry(
            name=draw(st.sampled_from(("vs0", "vs1", "gone"))),
            drain_timeout=draw(st.sampled_from((0.0, 30.0))),
            provenance=draw(provenances),
            written=written,
            draining={server: NOW + draw(st.sampled_from((-1000.0, -10.0, 0.0, 10.0, 1000.0))) for server in draining},
            failed_over=draw(st.sampled_from(("", "", "dc2", "dc3", "gone"))),
            peaks=draw(peaks),
            served=draw(counts),
        )
    return ledger


some_overrides = st.lists(
    st.builds(
        Override,
        virtual_server=st.sampled_from(("vs0", "vs1")),
        selector=st.sampled_from(("v1", "v2", "zone=a")),
        share=st.builds(Percent, st.sampled_from((0, 500, 5000, 10_000))) | st.builds(Fixed, st.integers(0, 9)),
        until=st.sampled_from((None, NOW - 1, NOW + 1)),
    ),
    max_size=4,
    unique_by=lambda each: (each.virtual_server, each.selector),
).map(lambda found: Overrides(entries=tuple(found)))

drained: st.SearchStrategy[Target] = st.one_of(
    st.builds(AtAddress, st.sampled_from([ip_address(text) for text in IPV4 + IPV6])),
    st.builds(AtPort, st.sampled_from([ip_address(text) for text in IPV4 + IPV6]), st.sampled_from(PORTS)),
    st.builds(OnNode, st.sampled_from(("app1", "app2"))),
    st.builds(OneInstance, st.sampled_from(("app1", "app2")), st.sampled_from(("a", "b", "c"))),
)
whats: st.SearchStrategy[What] = st.builds(Drain, drained) | st.builds(Hold, st.sampled_from(("vs0", "vs1", "gone")))
some_orders = st.lists(
    st.builds(Order, what=whats, by=st.just("alice"), reason=st.sampled_from(("", "upgrade")), written=st.just(NOW)),
    max_size=3,
    unique_by=lambda each: each.what,
).map(lambda found: Orders(tuple(found)))
"""Drains and holds without an end; nothing is written in a pause, so with one nothing arrives."""

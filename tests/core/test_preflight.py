"""What is said of kernel settings follows from the configuration, and nothing is said without a reason."""

# ruff: noqa: ANN401 -- changes are attributes of whatever is built
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.config import (
    FORWARDING,
    SCHEDULERS,
    Config,
    DefaultsTable,
    DiscoveryConfig,
    KernelConfig,
    VipConfig,
    VirtualServerConfig,
)
from lvsctl.core.facts import FORWARD4, FORWARD6, MOST_TRACKED, OF_IPVS, TRACKED, Facts, Grade, Module, Row, Unread
from lvsctl.core.needs import is_as_wished, needs_of, wished
from lvsctl.core.preflight import preflight
from netlink.types import Family, Forwarding, Protocol, SyncRole, VirtualServerKey
from tests.values import config_of, configured

GOOD: Mapping[str, int | str] = {
    **{f"{OF_IPVS}{name}": 1 for name in ("expire_nodest_conn", "expire_quiescent_template", "conn_reuse_mode")},
    **{f"{OF_IPVS}{name}": 0 for name in ("conntrack", "sloppy_tcp", "drop_packet", "drop_entry", "backup_only")},
    **{f"{OF_IPVS}{name}": 1 for name in ("run_estimation", "pmtu_disc", "sync_version")},
    f"{OF_IPVS}sync_persist_mode": 0,
    f"{OF_IPVS}sync_threshold": "3\t50",
    f"{OF_IPVS}am_droprate": 10,
    FORWARD4: 1,
    FORWARD6: 1,
    TRACKED: 5,
    MOST_TRACKED: 65536,
    "kernel.modules_disabled": 0,
    **{
        f"net.ipv4.conf.{interface}.{name}": 0
        for interface in ("all", "eth0", "eth1")
        for name in ("rp_filter", "send_redirects", "arp_ignore")
    },
}
"""A kernel that is set up for everything."""

IPV6_KEY = VirtualServerKey.by_address(Protocol.UDP, ip_address("fd00::53"), 53)


def facts(changes: Mapping[str, Any] | None = None, **others: Any) -> Facts:
    """Return a kernel like GOOD but for `changes` of settings; those that become None are not there."""
    settings = {**GOOD, **(changes or {})}
    modules = {"ip_vs": Module.LOADED, "ip_vs_wlc": Module.LOADED}
    values: dict[str, Any] = {
        "modules": modules,
        "interfaces": ("eth0", "eth1"),
        "slots": 4096,
        "connections": 7,
        **others,
    }
    return Facts(settings={name: value for name, value in settings.items() if value is not None}, **values)


def found(config: Config, kernel: Facts) -> dict[str, Row]:
    """Return what is said that is not fine, by setting."""
    rows = preflight(config, kernel)
    assert len({row.setting for row in rows}) == len(rows)
    for row in rows:
        assert (row.grade is Grade.FINE) or (row.why and row.relevant), row
    return {row.setting: row for row in rows if row.grade is not Grade.FINE}


def shown(config: Config, kernel: Facts) -> set[str]:
    """Return the settings that matter."""
    return {row.setting for row in preflight(config, kernel) if row.relevant}


PERSISTENT = config_of(configured(persistence=300))


def test_of_a_kernel_that_is_set_up_nothing_is_said() -> None:
    assert found(PERSISTENT, facts()) == {}
    assert shown(PERSISTENT, facts()) == {
        "module ip_vs",
        "module ip_vs_wlc",
        "net.ipv4.vs.expire_nodest_conn",
        "net.ipv4.vs.expire_quiescent_template",
        "net.ipv4.vs.conn_reuse_mode",
        "net.ipv4.vs.run_estimation",
        "connections",
        "net.ipv4.ip_forward",
        "net.ipv4.conf.*.send_redirects",
    }


@pytest.mark.parametrize(
    ("config", "setting", "number", "should", "words"),
    [
        (config_of(), "net.ipv4.vs.expire_nodest_conn", 0, "1", "clients of a deleted real server hang"),
        (PERSISTENT, "net.ipv4.vs.expire_quiescent_template", 0, "1", "persistence goes on sending clients"),
        (config_of(), "net.ipv4.vs.conn_reuse_mode", 0, "1", "uses a source port again"),
        (config_of(), "net.ipv4.vs.run_estimation", 0, "1", "no rates"),
        (config_of(), "net.ipv4.vs.drop_packet", 3, "0", "one packet in 10 is dropped"),
        (config_of(), "net.ipv4.vs.drop_packet", 2, "0", "memory is short"),
        (config_of(), "net.ipv4.vs.drop_entry", 3, "0", "forgotten at random"),
        (config_of(), "net.ipv4.ip_forward", 0, "1", "with masquerade"),
        (config_of(configured(key=IPV6_KEY)), "net.ipv6.conf.all.forwarding", 0, "1", "with masquerade"),
    ],
)
def test_a_setting_that_costs_clients_is_a_finding(
    config: Config, setting: str, number: int, should: str, words: str
) -> None:
    rows = found(config, facts({setting: number}))
    assert rows.keys() == {setting}
    row = rows[setting]
    assert (row.value, row.should, row.grade, row.by_lvsctl) == (str(number), should, Grade.FINDING, False)
    assert words in row.why


@pytest.mark.parametrize(
    ("config", "setting", "number"),
    [
        (config_of(), "net.ipv4.vs.expire_quiescent_template", 0),  # no persistence
        (config_of(configured(key=IPV6_KEY)), "net.ipv4.vs.conn_reuse_mode", 0),  # UDP has none
        (config_of(configured(key=IPV6_KEY, forwarding=Forwarding.DIRECT_ROUTE)), "net.ipv6.conf.all.forwarding", 0),
        (config_of(), "net.ipv6.conf.all.forwarding", 0),
        (config_of(), "net.ipv4.ip_forward", 2),  # on is on
        (config_of(), "net.ipv4.conf.eth0.rp_filter", 1),  # the director answers clients itself
        (config_of(), "net.ipv4.conf.all.arp_ignore", 1),  # addresses are not ours
        (config_of(), "net.ipv4.vs.drop_packet", 1),
        (config_of(), "net.ipv4.vs.pmtu_disc", 0),
        (config_of(), "net.ipv4.vs.backup_only", 1),
    ],
)
def test_what_is_no_matter_to_this_configuration_is_not_said(config: Config, setting: str, number: int) -> None:
    assert found(config, facts({setting: number})) == {}


DIRECT = config_of(configured(forwarding=Forwarding.DIRECT_ROUTE))
TUNNEL = config_of(configured(forwarding=Forwarding.TUNNEL))


@pytest.mark.parametrize(
    ("config", "changes", "setting", "value", "words"),
    [
        (DIRECT, {}, "net.ipv4.vs.conn_reuse_mode", "1", "2 chooses anew"),
        (config_of(), {"net.ipv4.vs.conntrack": 1}, "net.ipv4.vs.conntrack", "1", "netfilter tracks"),
        (config_of(), {"net.ipv4.vs.sloppy_tcp": 1}, "net.ipv4.vs.sloppy_tcp", "1", "unknown TCP connection"),
        (
            config_of(),
            {"net.ipv4.conf.eth1.send_redirects": 1},
            "net.ipv4.conf.*.send_redirects",
            "0 (eth0), 1 (eth1)",
            "behind the same interface",
        ),
        (
            config_of(configured(scheduler="wlc", forwarding=Forwarding.DIRECT_ROUTE)),
            {"net.ipv4.conf.all.rp_filter": 1, "net.ipv4.conf.eth1.rp_filter": 2, "net.ipv4.vs.conn_reuse_mode": 2},
            "net.ipv4.conf.*.rp_filter",
            "1 (eth0), 2 (eth1)",
            "do not come in where",
        ),
    ],
)
def test_what_may_be_wanted_so_is_a_note(
    config: Config, changes: Mapping[str, Any], setting: str, value: str, words: str
) -> None:
    rows = found(config, facts(changes))
    assert rows.keys() == {setting}
    assert (rows[setting].value, rows[setting].grade) == (value, Grade.NOTE)
    assert words in rows[setting].why


def test_sloppy_tcp_is_fine_where_directors_choose_alike_or_one_is_a_backup() -> None:
    sloppy = {"net.ipv4.vs.sloppy_tcp": 1}
    assert found(config_of(configured(scheduler="mh")), facts(sloppy)) == {}
    assert found(config_of(), facts(sloppy, sync=frozenset({SyncRole.BACKUP}))) == {}
    two = config_of(configured(scheduler="mh"), configured("shop", VirtualServerKey.by_mark(7)))
    assert "net.ipv4.vs.sloppy_tcp" in found(two, facts(sloppy))


def test_the_settings_of_synchronisation_matter_where_it_runs() -> None:
    bad = {"net.ipv4.vs.sync_version": 0, "net.ipv4.vs.sync_persist_mode": 1}
    assert found(PERSISTENT, facts(bad)) == {}
    rows = found(PERSISTENT, facts(bad, sync=frozenset({SyncRole.MASTER})))
    assert {name: row.grade for name, row in rows.items()} == {
        "net.ipv4.vs.sync_version": Grade.FINDING,
        "net.ipv4.vs.sync_persist_mode": Grade.NOTE,
    }
    master = facts(sync=frozenset({SyncRole.MASTER}))
    assert {"net.ipv4.vs.sync_threshold", "synchronisation daemon"} <= shown(PERSISTENT, master)
    unseen = found(config_of(), facts(sync=Unread("not permitted")))
    assert [(row.grade, row.why) for row in unseen.values()] == [(Grade.NOTE, "it cannot be read: not permitted")]
    backup = found(DIRECT, facts({"net.ipv4.vs.conn_reuse_mode": 3}, sync=frozenset({SyncRole.BACKUP})))
    assert backup.keys() == {"net.ipv4.vs.backup_only"}


def test_behind_one_interface_redirects_are_a_finding_and_reverse_paths_are_none() -> None:
    one = facts(
        {"net.ipv4.conf.all.send_redirects": 1, "net.ipv4.conf.all.rp_filter": 1, "net.ipv4.vs.conn_reuse_mode": 2},
        interfaces=("eth0",),
    )
    row = found(config_of(), one)["net.ipv4.conf.*.send_redirects"]
    assert (row.value, row.should, row.grade) == ("1 (eth0)", "0", Grade.FINDING)
    assert row.names == ("net.ipv4.conf.all.send_redirects", "net.ipv4.conf.eth0.send_redirects")
    assert found(DIRECT, one) == {}


@pytest.mark.parametrize(("number", "bad"), [(0, False), (1, True), (2, True), (3, False), (8, True)])
def test_arp_has_to_be_answered_for_virtual_addresses_that_are_ours(number: int, *, bad: bool) -> None:
    config = attrs.evolve(config_of(), vip=VipConfig(interface="lvs0"))
    rows = found(config, facts({"net.ipv4.conf.eth1.arp_ignore": number}))
    assert rows.keys() == ({"net.ipv4.conf.*.arp_ignore"} if bad else set())
    assert all("lvs0" in row.why for row in rows.values())


# ---- modules, and what there is no IPVS without


@pytest.mark.parametrize(
    ("state", "grade", "words"),
    [
        (Module.MISSING, Grade.FINDING, "this kernel has no IPVS: it has no module ip_vs"),
        (Module.LOADABLE, Grade.FINDING, "modprobe ip_vs"),
        (Unread("/lib/modules: none"), Grade.FINDING, "modprobe ip_vs; lvsctl run does that, too; whether it can"),
    ],
)
def test_without_ipvs_that_is_said_and_nothing_of_its_settings(
    state: Module | Unread, grade: Grade, words: str
) -> None:
    others = {name: value for name, value in GOOD.items() if not name.startswith(OF_IPVS)}
    config = attrs.evolve(PERSISTENT, kernel=KernelConfig(expire_nodest_conn=True))
    kernel = Facts(modules={"ip_vs": state, "ip_vs_wlc": state}, settings=others, interfaces=("eth0", "eth1"))
    rows = preflight(config, kernel)
    assert not any(row.setting.startswith(OF_IPVS) for row in rows)
    (row,) = (row for row in rows if row.setting == "module ip_vs")
    assert (row.grade, words in row.why) == (grade, True)
    assert "net.ipv4.ip_forward" in {row.setting for row in rows}


@pytest.mark.parametrize(
    ("state", "disabled", "grade"),
    [
        (Module.LOADED, 1, None),
        (Module.LOADABLE, 0, None),
        (Module.LOADABLE, 1, Grade.FINDING),
        (Module.MISSING, 0, Grade.FINDING),
        (Unread("no such file"), 0, Grade.NOTE),
    ],
)
def test_a_scheduler_needs_its_module(state: Module | Unread, disabled: int, grade: Grade | None) -> None:
    modules = {"ip_vs": Module.LOADED, "ip_vs_mh": state}
    rows = found(config_of(), facts({"kernel.modules_disabled": disabled}, modules=modules))
    assert {name: row.grade for name, row in rows.items()} == ({"module ip_vs_mh": grade} if grade else {})


def test_settings_that_are_hidden_are_not_taken_for_good_ones() -> None:
    """In a user namespace IPVS is loaded, and the kernel shows none of its settings."""
    others = dict.fromkeys(name for name in GOOD if name.startswith(OF_IPVS))
    rows = found(PERSISTENT, facts(others))
    assert {name: row.grade for name, row in rows.items()} == {"net.ipv4.vs.*": Grade.FINDING}


DIRECT6 = config_of(configured(key=IPV6_KEY, forwarding=Forwarding.DIRECT_ROUTE))


def test_ipv6_that_is_off_is_a_finding_where_it_is_asked_for() -> None:
    off = {f"net.ipv6.conf.{interface}.disable_ipv6": 1 for interface in ("eth0", "eth1/7")}
    assert found(config_of(), facts(off)) == {}
    row = found(DIRECT6, facts(off))["net.ipv6.conf.*.disable_ipv6"]
    assert (row.value, row.should, row.grade) == ("1 (eth0, eth1/7)", "0", Grade.FINDING)
    assert row.names == tuple(f"net.ipv6.conf.{each}.disable_ipv6" for each in ("all", "eth0", "eth1/7"))
    assert found(DIRECT6, facts({**off, "net.ipv6.conf.eth0.disable_ipv6": 0})) == {}, "one of them has it"
    none = {FORWARD6: None}
    assert found(config_of(), facts(none)) == {}
    assert found(DIRECT6, facts(none))["IPv6"].grade is Grade.FINDING


def test_reverse_paths_are_a_matter_of_ipv4() -> None:
    assert found(DIRECT6, facts({"net.ipv4.conf.all.rp_filter": 1})) == {}


def test_another_network_namespace_is_named() -> None:
    assert (
        found(config_of(), facts(namespace="the daemon's, pid 7"))["network namespace"].value == "the daemon's, pid 7"
    )
    assert (
        "permission denied" in found(config_of(), facts(namespace=Unread("permission denied")))["network namespace"].why
    )


# ---- how much there is


@pytest.mark.parametrize(
    ("connections", "changes", "should"),
    [
        (8 * 4096, {}, None),
        (8 * 4096 + 1, {}, "65536 slots"),
        (10**7, {}, "1048576 slots"),
        (10**7, {"net.ipv4.vs.conn_lfactor": -4}, None),  # it grows
        (79, {"net.ipv4.vs.conn_lfactor": -4, "net.ipv4.vs.conn_max": 100}, None),
        (80, {"net.ipv4.vs.conn_lfactor": -4, "net.ipv4.vs.conn_max": 100}, ""),
    ],
)
def test_the_connection_table(connections: int, changes: Mapping[str, Any], should: str | None) -> None:
    rows = found(config_of(), facts(changes, connections=connections))
    assert [row.should for row in rows.values()] == ([] if should is None else [should])


@pytest.mark.parametrize(("there", "full"), [(79, False), (80, True), (100, True)])
def test_tracked_connections_matter_where_ipvs_has_them_tracked(there: int, *, full: bool) -> None:
    changes = {TRACKED: there, MOST_TRACKED: 100}
    assert found(config_of(), facts(changes)) == {}
    tracked = found(config_of(), facts({**changes, "net.ipv4.vs.conntrack": 1}))
    assert (TRACKED in tracked) is full


# ---- what could not be read


@pytest.mark.parametrize("reading", [Unread("permission denied"), "x"])
@pytest.mark.parametrize("name", ["net.ipv4.vs.expire_nodest_conn", "net.ipv4.ip_forward"])
def test_what_matters_and_cannot_be_read_is_a_finding(name: str, reading: object) -> None:
    row = found(config_of(), facts({name: reading}))[name]
    assert (row.value, row.grade) == ("", Grade.FINDING)
    assert "permission denied" in row.why or "'x', no number" in row.why


def test_what_does_not_matter_and_cannot_be_read_is_none() -> None:
    assert found(config_of(), facts({FORWARD6: Unread("permission denied"), "net.ipv4.vs.new_one": Unread("no")})) == {}


# ---- what lvsctl sets


def with_kernel(**written: Any) -> Config:
    return attrs.evolve(config_of(), kernel=KernelConfig(**written))


def test_a_setting_that_lvsctl_sets_is_said_to_be_so_and_what_is_wished_counts() -> None:
    name = "net.ipv4.vs.expire_nodest_conn"
    rows = {row.setting: row for row in preflight(with_kernel(expire_nodest_conn=True), facts())}
    assert (rows[name].why, rows[name].grade, rows[name].by_lvsctl) == ("set by lvsctl ([kernel])", Grade.FINE, True)
    before = found(with_kernel(expire_nodest_conn=True), facts({name: 0}))[name]
    assert (before.value, before.should, before.grade, before.by_lvsctl) == ("0", "1", Grade.NOTE, True)
    assert before.why == "lvsctl run sets it ([kernel])"
    stuck = found(with_kernel(expire_nodest_conn=True), facts({name: 0}, read_only=True))[name]
    assert (stuck.grade, "/proc/sys is read-only" in stuck.why) == (Grade.FINDING, True)
    assert not found(with_kernel(expire_nodest_conn=True), facts(read_only=True)), "it is as it should be"
    running = found(with_kernel(expire_nodest_conn=True), facts({name: 0}, daemon=True))[name]
    assert (running.grade, "setting_failed" in running.why) == (Grade.FINDING, True)
    against = found(with_kernel(expire_nodest_conn=False), facts({name: 0}))[name]
    assert (against.should, against.grade) == ("0", Grade.NOTE)
    assert against.why.startswith("set by lvsctl ([kernel]); but clients of a deleted")


def test_one_that_does_not_matter_is_shown_where_lvsctl_sets_it_and_a_missing_one_is_a_finding() -> None:
    config = with_kernel(expire_quiescent_template=True, conntrack=False)
    assert {"net.ipv4.vs.expire_quiescent_template", "net.ipv4.vs.conntrack"} <= shown(config, facts())
    rows = found(config, facts({"net.ipv4.vs.conntrack": None}))
    assert rows["net.ipv4.vs.conntrack"].grade is Grade.FINDING
    assert "no such setting" in rows["net.ipv4.vs.conntrack"].why


NUMBERS = st.sampled_from([0, 1, 2, 3, 5, -1])
SETTINGS = st.fixed_dictionaries(
    {name: NUMBERS for name, value in GOOD.items() if isinstance(value, int) and name not in (TRACKED, MOST_TRACKED)}
)
KERNELS = st.builds(
    KernelConfig,
    expire_nodest_conn=st.sampled_from([None, True, False]),
    expire_quiescent_template=st.sampled_from([None, True, False]),
    conn_reuse_mode=st.sampled_from([None, 0, 1, 2, 3]),
    conntrack=st.sampled_from([None, True, False]),
    sloppy_tcp=st.sampled_from([None, True, False]),
)
SERVERS = st.builds(
    configured,
    scheduler=st.sampled_from(SCHEDULERS),
    forwarding=st.sampled_from(list(FORWARDING.values())),
    persistence=st.sampled_from([None, 300]),
    key=st.sampled_from(
        [configured().key, IPV6_KEY, VirtualServerKey.by_mark(7), VirtualServerKey.by_mark(7, Family.IPV6)]
    ),
)


@given(
    server=SERVERS,
    kernel=KERNELS,
    settings=SETTINGS,
    daemon=st.booleans(),
    vip=st.sampled_from([None, VipConfig(interface="lvs0")]),
    interfaces=st.sampled_from([(), ("eth0",), ("eth0", "eth1")]),
)
def test_every_finding_is_mended_by_what_it_says(
    server: VirtualServerConfig,
    kernel: KernelConfig,
    settings: Mapping[str, int],
    *,
    daemon: bool,
    vip: VipConfig | None,
    interfaces: tuple[str, ...],
) -> None:
    """Whatever the settings are: set what should be, and let lvsctl set what it does, and there is no finding left."""
    config = attrs.evolve(config_of(server), kernel=kernel, vip=vip)
    before = facts(settings, daemon=daemon, interfaces=interfaces)
    changes: dict[str, Any] = dict(settings)
    for row in preflight(config, before):
        if row.grade is Grade.FINDING or row.by_lvsctl:
            changes |= dict.fromkeys(row.names or (row.setting,), int(row.should))
    rows = preflight(config, facts(changes, daemon=daemon, interfaces=interfaces))
    assert [row for row in rows if row.grade is Grade.FINDING] == []


@given(server=SERVERS, kernel=KERNELS, settings=SETTINGS)
def test_lvsctl_claims_what_is_named_and_nothing_else(
    server: VirtualServerConfig, kernel: KernelConfig, settings: Mapping[str, int]
) -> None:
    rows = preflight(attrs.evolve(config_of(server), kernel=kernel), facts(settings))
    assert {row.setting for row in rows if row.by_lvsctl} == {f"{OF_IPVS}{name}" for name in wished(kernel)}
    assert len({row.setting for row in rows}) == len(rows)


# ---- what a configuration needs


def test_what_is_declared_counts_like_what_is_written() -> None:
    discovery = DiscoveryConfig(addresses=(ip_network("10.9.1.0/24"), ip_network("fd00::/64")))
    needs = needs_of(Config(discovery=discovery))
    assert needs.forwarding == {(Forwarding.MASQUERADE, Family.IPV4), (Forwarding.MASQUERADE, Family.IPV6)}
    assert (set(needs.schedulers), needs.persistent, set(needs.protocols)) == ({"wlc"}, False, {Protocol.TCP})
    opened = attrs.evolve(
        discovery,
        keys=("forwarding", "persistence"),
        protocols=(Protocol.UDP,),
        defaults=DefaultsTable(scheduler="mh", forwarding=Forwarding.TUNNEL),
    )
    needs = needs_of(Config(discovery=opened))
    assert (len(needs.forwarding), set(needs.schedulers), needs.persistent) == (6, {"mh"}, True)
    assert (set(needs.protocols), set(needs.families)) == ({Protocol.UDP}, {Family.IPV4, Family.IPV6})


def test_a_firewall_mark_may_be_of_any_protocol_and_has_no_address() -> None:
    needs = needs_of(config_of(configured(key=VirtualServerKey.by_mark(7, Family.IPV6))))
    assert (set(needs.protocols), set(needs.families)) == ({Protocol.TCP, Protocol.UDP}, set())
    assert needs.masquerades(Family.IPV6)
    assert not needs.masquerades(Family.IPV4)


@pytest.mark.parametrize(
    ("name", "number", "wanted", "same"),
    [
        ("expire_nodest_conn", 5, 1, True),
        ("expire_nodest_conn", 0, 1, False),
        ("conntrack", 2, 0, False),
        ("conn_reuse_mode", 2, 1, False),
        ("conn_reuse_mode", 2, 2, True),
    ],
)
def test_what_is_on_or_off_is_on_with_any_number(name: str, number: int, wanted: int, *, same: bool) -> None:
    assert is_as_wished(name, number, wanted) is same


def test_nothing_is_wished_that_is_not_written() -> None:
    assert wished(KernelConfig()) == {}
    assert wished(KernelConfig(conntrack=False, conn_reuse_mode=0)) == {"conntrack": 0, "conn_reuse_mode": 0}

"""Whole tables of everything that may be written: the kernel gives back what it got, and ipvsadm sees the same."""

import socket
import subprocess
from ipaddress import IPv4Address

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netlink.codec import differences
from netlink.ipvs import IPVS
from netlink.requests import Flush, Request, SetRealServer, SetVirtualServer, ZeroCounters
from netlink.types import (
    Address,
    Family,
    Forwarding,
    Protocol,
    RealServer,
    RealServerKey,
    SchedulerFlag,
    TableEntry,
    Tunnel,
    TunnelFlag,
    VirtualServer,
    VirtualServerKey,
    family_of,
)
from tests.netlink.strategies import real_addresses_4, real_addresses_6, real_servers, virtual_servers
from tests.netlink.test_contract import additions, done, entry, holds

pytestmark = pytest.mark.kernel
one_kernel = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)

# ---- what may be written


@st.composite
def real_servers_of(draw: st.DrawFn, key: VirtualServerKey, at: RealServerKey | None = None) -> RealServer:
    """Draw a real server that the virtual server `key` may have; the one at `at` where it is given."""
    own = real_addresses_4 if key.family is Family.IPV4 else real_addresses_6
    other = real_addresses_6 if key.family is Family.IPV4 else real_addresses_4
    real_server = draw(real_servers(st.one_of(own, own, own, other)))
    if at is not None:
        real_server = attrs.evolve(real_server, key=at)
    if family_of(real_server.key.address) is not key.family:
        real_server = attrs.evolve(real_server, forwarding=Forwarding.TUNNEL)
    return real_server


@st.composite
def entries(draw: st.DrawFn) -> TableEntry:
    """Draw a virtual server with its real servers."""
    virtual_server = draw(virtual_servers())
    several = st.lists(real_servers_of(virtual_server.key), max_size=6, unique_by=lambda each: each.key)
    return entry(virtual_server, *draw(several))


tables = st.lists(entries(), max_size=6, unique_by=lambda each: each.virtual_server.key)

# ---- what ipvsadm says of it


def place(address: Address, port: int) -> str:
    """Return address and port as the C library writes them: an IPv4 address within one of IPv6 in dotted form."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    text = socket.inet_ntop(family, address.packed)
    return f"[{text}]:{port}" if address.version == 6 else f"{text}:{port}"


def option(key: VirtualServerKey) -> str:
    """Return how ipvsadm -S names a virtual server."""
    if key.protocol is None or key.address is None:
        signed = key.mark - 2**32 if key.mark >= 2**31 else key.mark  # ipvsadm prints an int
        return f"-f {signed}" + (" -6" if key.family is Family.IPV6 else "")
    flags = {Protocol.TCP: "-t", Protocol.UDP: "-u", Protocol.SCTP: "--sctp-service"}
    return f"{flags[key.protocol]} {place(key.address, key.port)}"


def virtual_server_line(virtual_server: VirtualServer) -> str:
    """Return the line of ipvsadm -Sn."""
    words = [f"-A {option(virtual_server.key)} -s {virtual_server.scheduler}"]
    if virtual_server.persistence is not None:
        words.append(f"-p {virtual_server.persistence}")
        prefix = virtual_server.persistence_prefix
        if prefix is not None and virtual_server.key.family is Family.IPV6:
            words.append(f"-M {prefix}")
        elif prefix is not None:
            mask = (0xFFFFFFFF << (32 - prefix)) & 0xFFFFFFFF
            words.append(f"-M {'.'.join(str(octet) for octet in mask.to_bytes(4, 'big'))}")
    if virtual_server.persistence_engine is not None:
        words.append(f"--pe {virtual_server.persistence_engine}")
    if virtual_server.one_packet:
        words.append("-o")
    names = {SchedulerFlag.FLAG_1: "flag-1", SchedulerFlag.FLAG_2: "flag-2", SchedulerFlag.FLAG_3: "flag-3"}
    if (scheduler := virtual_server.scheduler) in ("sh", "mh"):  # the third has no name there, and is not shown
        names = {SchedulerFlag.FLAG_1: f"{scheduler}-fallback", SchedulerFlag.FLAG_2: f"{scheduler}-port"}
    if virtual_server.scheduler_flags:
        flags = [name for flag, name in names.items() if flag in virtual_server.scheduler_flags]
        words.append(f"-b {','.join(flags)}")
    return " ".join(words).rstrip()


def real_server_line(key: VirtualServerKey, real_server: RealServer) -> str:
    """Return the line of ipvsadm -Sn, which leaves out thresholds, and the tunnel where another way is used."""
    way = {
        Forwarding.MASQUERADE: "-m",
        Forwarding.TUNNEL: "-i",
        Forwarding.DIRECT_ROUTE: "-g",
        Forwarding.LOCAL: "-g",  # what it has no option for, it prints as it can
        Forwarding.BYPASS: "(null)",
    }
    where = place(real_server.key.address, real_server.key.port)
    words = [f"-a {option(key)} -r {where} {way[real_server.forwarding]} -w {real_server.weight}"]
    if real_server.forwarding is Forwarding.TUNNEL:
        words.append(f"--tun-type {real_server.tunnel_type.name.lower()}")
        if real_server.tunnel_type is Tunnel.GUE:
            words.append(f"--tun-port {real_server.tunnel_port}")
        if real_server.tunnel_type is not Tunnel.IPIP:
            words.append(
                {
                    TunnelFlag.NONE: "--tun-nocsum",
                    TunnelFlag.CHECKSUM: "--tun-csum",
                    TunnelFlag.REMOTE_CHECKSUM: "--tun-remcsum",
                }.get(real_server.tunnel_flags, "")
            )
    return " ".join(words).rstrip()


def lines(table: list[TableEntry]) -> list[str]:
    """Return what ipvsadm -Sn prints, sorted."""
    printed = [virtual_server_line(each.virtual_server) for each in table]
    for each in table:
        key = each.virtual_server.key
        printed += [real_server_line(key, real_server) for real_server in each.real_servers.values()]
    return sorted(printed)


def ipvsadm_agrees(table: list[TableEntry]) -> bool:
    """Return whether ipvsadm -Sn shows `table`; True where it cannot: 1.31 crashes on a tunnel with both flags."""
    servers = [real_server for each in table for real_server in each.real_servers.values()]
    both = TunnelFlag.CHECKSUM | TunnelFlag.REMOTE_CHECKSUM
    if any(each.forwarding is Forwarding.TUNNEL and each.tunnel_type and each.tunnel_flags == both for each in servers):
        return True
    saved = subprocess.run(["ipvsadm", "-Sn"], check=True, capture_output=True, text=True, timeout=30).stdout
    return sorted(line.rstrip() for line in saved.splitlines()) == lines(table)


# ---- and what becomes of it


@one_kernel
@given(table=tables)
def test_a_table_written_in_one_batch_is_read_back(kernel: IPVS, table: list[TableEntry]) -> None:
    done(kernel, Flush(), *additions(*table))
    assert holds(kernel, *table)
    with IPVS() as fresh:  # which remembers nothing
        assert holds(fresh, *table)
        assert fresh.observe([each.virtual_server.key for each in table]).table == kernel.observe().table
    assert ipvsadm_agrees(table)
    glance = kernel.glance()
    assert glance.virtual_servers == len(table)
    assert glance.real_servers == sum(len(each.real_servers) for each in table)


@one_kernel
@given(data=st.data(), table=tables)
def test_every_field_can_be_edited(kernel: IPVS, data: st.DataObject, table: list[TableEntry]) -> None:
    done(kernel, Flush(), *additions(*table))
    assert holds(kernel, *table)
    for _ in range(2):
        requests: list[Request] = [ZeroCounters()]
        edited: list[TableEntry] = []
        for each in table:
            key = each.virtual_server.key
            virtual_server = data.draw(virtual_servers(st.just(key)))
            servers = [data.draw(real_servers_of(key, at)) for at in each.real_servers]
            requests.append(SetVirtualServer(virtual_server=virtual_server))
            requests += [SetRealServer(virtual_server=key, real_server=server) for server in servers]
            edited.append(entry(virtual_server, *servers))
        before, glance = kernel.observe().table, kernel.glance()
        done(kernel, *requests)
        assert holds(kernel, *edited)
        assert ipvsadm_agrees(edited)
        again = kernel.glance()
        after = kernel.observe().table
        differing = {key for key in before.keys() | after.keys() if in_effect(before[key]) != in_effect(after[key])}
        assert differing <= again.changed(glance) <= {key for key in after if before[key] != after[key]}
        assert again == glance or any(each != before[each.virtual_server.key] for each in edited)
        assert again != glance or all(in_effect(each) == in_effect(before[each.virtual_server.key]) for each in edited)
        for each in edited:  # what differs in bytes differs in values, and the other way round
            was = before[each.virtual_server.key]
            assert (differences(was.virtual_server, each.virtual_server) == ()) == (
                was.virtual_server == each.virtual_server
            )


def in_effect(table_entry: TableEntry) -> TableEntry:
    """Return it without the options of tunnels that are none."""
    return entry(
        table_entry.virtual_server,
        *(
            each
            if each.forwarding is Forwarding.TUNNEL
            else attrs.evolve(each, tunnel_type=Tunnel.IPIP, tunnel_port=0, tunnel_flags=TunnelFlag.NONE)
            for each in table_entry.real_servers.values()
        ),
    )


@pytest.mark.parametrize("field", [field.name for field in attrs.fields(RealServer) if field.name != "key"])
def test_one_field_of_a_real_server_changes_alone(kernel: IPVS, field: str) -> None:
    key = VirtualServerKey.by_mark(1)
    at = RealServerKey(address=IPv4Address("198.51.100.1"), port=80)
    base = RealServer(
        key=at,
        forwarding=Forwarding.TUNNEL,
        weight=5,
        upper_threshold=10,
        lower_threshold=5,
        tunnel_type=Tunnel.GUE,
        tunnel_port=6080,
        tunnel_flags=TunnelFlag.REMOTE_CHECKSUM,
    )
    others: dict[str, object] = {
        "forwarding": Forwarding.DIRECT_ROUTE,
        "weight": 0,
        "upper_threshold": 11,
        "lower_threshold": 6,
        "tunnel_type": Tunnel.GRE,
        "tunnel_port": 1,
        "tunnel_flags": TunnelFlag.CHECKSUM,
    }
    make = attrs.evolve
    if field == "tunnel_type":  # no two take the same port and flags, but for none
        base = make(base, tunnel_type=Tunnel.IPIP, tunnel_port=0, tunnel_flags=TunnelFlag.NONE)
    changed = make(base, **{field: others[field]})
    done(kernel, *additions(entry(VirtualServer(key=key), base)))
    for wanted in (changed, base):
        done(kernel, SetRealServer(virtual_server=key, real_server=wanted))
        assert holds(kernel, entry(VirtualServer(key=key), wanted))
    assert differences(base, changed) == (field,)

"""What both clients promise beside the table: timeouts, synchronisation daemons, zero, flush, parts, glances."""

import errno
from ipaddress import IPv4Address, IPv6Address

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netlink.client import Client
from netlink.errors import Invalid
from netlink.requests import (
    AddRealServer,
    AddVirtualServer,
    DeleteRealServer,
    DeleteVirtualServer,
    Flush,
    Request,
    SetRealServer,
    SetTimeouts,
    SetVirtualServer,
    StartSyncDaemon,
    StopSyncDaemon,
    ZeroCounters,
    fill,
)
from netlink.types import (
    MAX_TIMEOUT,
    Family,
    Forwarding,
    Lacking,
    Protocol,
    SchedulerFlag,
    SyncDaemon,
    SyncRole,
    Timeouts,
    Tunnel,
    VirtualServer,
    VirtualServerKey,
)
from tests.netlink.conftest import empty
from tests.netlink.strategies import timeouts
from tests.netlink.test_contract import (
    KEYS,
    MARK,
    MARK6,
    TCP,
    UDP6,
    additions,
    done,
    entry,
    errno_of,
    holds,
    local_to,
    real,
)

MASTER = SyncDaemon(role=SyncRole.MASTER, interface="lo")
BACKUP = SyncDaemon(role=SyncRole.BACKUP, interface="lo")
one_client = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)

# ---- timeouts


def test_timeouts_are_those_that_a_kernel_starts_with(client: Client) -> None:
    assert client.timeouts() == Timeouts(tcp=900, tcp_fin=120, udp=300)


@one_client
@given(wanted=timeouts)
def test_timeouts_are_read_back_as_they_were_written(client: Client, wanted: Timeouts) -> None:
    done(client, SetTimeouts(timeouts=wanted))
    assert client.timeouts() == wanted


@pytest.mark.parametrize("seconds", [1, MAX_TIMEOUT])
def test_timeouts_have_ends(client: Client, seconds: int) -> None:
    wanted = Timeouts(tcp=seconds, tcp_fin=seconds, udp=seconds)
    done(client, SetTimeouts(timeouts=wanted))
    assert client.timeouts() == wanted


@pytest.mark.parametrize("name", ["tcp", "tcp_fin", "udp"])
@pytest.mark.parametrize("seconds", [-1, 0, MAX_TIMEOUT + 1, 2**31, 2**32])
def test_timeouts_that_the_kernel_would_wrap_or_refuse_are_not_sent(client: Client, name: str, seconds: int) -> None:
    make = attrs.evolve
    (refused,) = client.apply([SetTimeouts(timeouts=make(Timeouts(), **{name: seconds}))])
    assert isinstance(refused, Invalid)
    assert f": {name} {seconds} is not" in str(refused)
    assert client.timeouts() == Timeouts()


# ---- synchronisation daemons

DAEMONS = [
    MASTER,
    BACKUP,
    attrs.evolve(MASTER, sync_id=255, max_length=1, group=IPv4Address("239.1.2.3"), port=1, ttl=255),
    attrs.evolve(MASTER, max_length=65507, port=65535),
    attrs.evolve(BACKUP, sync_id=1, max_length=1024, group=IPv4Address("239.255.255.255")),
    attrs.evolve(BACKUP, max_length=65507),
    attrs.evolve(BACKUP, group=IPv6Address("ff02::81"), port=1, ttl=64, sync_id=77),
    attrs.evolve(BACKUP, group=IPv6Address("ff02::81"), max_length=65487),
]
DECIDED = {(SyncRole.MASTER, 4): 1472, (SyncRole.BACKUP, 4): 65507, (SyncRole.BACKUP, 6): 65487}  # on lo


def test_no_synchronisation_daemon_runs_at_first(client: Client) -> None:
    assert client.sync_daemons() == ()
    for role in SyncRole:
        assert errno_of(client, StopSyncDaemon(role=role)) == errno.ESRCH


@pytest.mark.parametrize("daemon", DAEMONS, ids=str)
def test_a_synchronisation_daemon_is_read_back_as_it_was_started(client: Client, daemon: SyncDaemon) -> None:
    done(client, StartSyncDaemon(daemon=daemon))
    length = daemon.max_length or DECIDED[daemon.role, daemon.group.version]
    expected = attrs.evolve(daemon, max_length=length)
    assert client.sync_daemons() == (expected,)
    assert errno_of(client, StartSyncDaemon(daemon=daemon)) == errno.EEXIST
    other = attrs.evolve(daemon, sync_id=9, port=8849)
    assert errno_of(client, StartSyncDaemon(daemon=other)) == errno.EEXIST
    assert client.sync_daemons() == (expected,)
    done(client, StopSyncDaemon(role=daemon.role))
    assert client.sync_daemons() == ()
    assert errno_of(client, StopSyncDaemon(role=daemon.role)) == errno.ESRCH
    done(client, StartSyncDaemon(daemon=expected))
    assert client.sync_daemons() == (expected,)


def test_both_roles_run_beside_each_other(client: Client) -> None:
    done(client, StartSyncDaemon(daemon=attrs.evolve(BACKUP, sync_id=2)), StartSyncDaemon(daemon=MASTER))
    found = client.sync_daemons()
    assert [(daemon.role, daemon.sync_id) for daemon in found] == [(SyncRole.MASTER, 0), (SyncRole.BACKUP, 2)]
    done(client, StopSyncDaemon(role=SyncRole.MASTER))
    assert [daemon.role for daemon in client.sync_daemons()] == [SyncRole.BACKUP]


def test_a_daemon_stopped_right_after_its_start_is_stopped(client: Client) -> None:
    """The kernel may give no acknowledgement for a thread that never ran."""
    for _ in range(20):
        for daemon in (MASTER, BACKUP):
            done(client, StartSyncDaemon(daemon=daemon), StopSyncDaemon(role=daemon.role))
            assert client.sync_daemons() == ()


def test_a_daemon_needs_an_interface_that_is_there(client: Client) -> None:
    for daemon in (MASTER, BACKUP):
        start = StartSyncDaemon(daemon=attrs.evolve(daemon, interface="nosuch0"))
        (refused,) = client.apply([start])
        assert refused is not None
        assert refused.errno == errno.ENODEV
        assert "there is no interface 'nosuch0'" in str(refused)
    assert client.sync_daemons() == ()


GARBAGE_DAEMONS = {
    "interface '' is not the name of an interface": {"interface": ""},
    "interface '..' is not the name": {"interface": ".."},
    "interface 'a/b' has a letter": {"interface": "a/b"},
    "interface 'a b' has a letter": {"interface": "a b"},
    "interface 'aaaaaaaaaaaaaaaa' is longer than 15": {"interface": "a" * 16},
    "interface 'éééééééé' is longer than 15": {"interface": "é" * 8},
    "sync_id 256 is not in 0..255": {"sync_id": 256},
    "sync_id -1 is not in": {"sync_id": -1},
    "max_length 0 is not in 1..65507": {"max_length": 0},
    "max_length 65508 is not in 1..65507": {"max_length": 65508},
    "max_length 1023 is not in 1024..65507": {"role": SyncRole.BACKUP, "max_length": 1023},
    "max_length 65488 is not in 1..65487": {"group": IPv6Address("ff02::1"), "max_length": 65488},
    "group 10.0.0.1 is no multicast address": {"group": IPv4Address("10.0.0.1")},
    "address ff02::1%lo has a scope": {"group": IPv6Address("ff02::1%lo")},
    "port 0 is not in 1..65535": {"port": 0},
    "port 65536 is not in 1..65535": {"port": 65536},
    "ttl 0 is not in 1..255": {"ttl": 0},
    "ttl 256 is not in 1..255": {"ttl": 256},
}


@pytest.mark.parametrize(("says", "fields"), GARBAGE_DAEMONS.items())
def test_a_garbage_daemon_is_not_started(client: Client, says: str, fields: dict[str, object]) -> None:
    make = attrs.evolve
    (refused,) = client.apply([StartSyncDaemon(daemon=make(MASTER, **fields))])
    assert isinstance(refused, Invalid)
    assert says in str(refused)
    assert client.sync_daemons() == ()


@pytest.mark.parametrize("daemon", [MASTER, BACKUP], ids=str)
def test_daemons_and_mixed_families_exclude_each_other(client: Client, daemon: SyncDaemon) -> None:
    start = StartSyncDaemon(daemon=daemon)
    six = real("2001:db8::1", forwarding=Forwarding.TUNNEL)
    four = real("198.51.100.1", forwarding=Forwarding.TUNNEL)
    done(client, *additions(entry(VirtualServer(key=TCP), four), entry(VirtualServer(key=UDP6), six)), start)
    for key, server in ((TCP, six), (UDP6, four)):
        (refused,) = client.apply([AddRealServer(virtual_server=key, real_server=server)])
        assert refused is not None
        assert refused.errno == errno.EINVAL
        assert "while no synchronisation daemon runs" in str(refused)
    done(client, StopSyncDaemon(role=daemon.role))
    for key, server in ((TCP, six), (UDP6, four)):
        done(client, AddRealServer(virtual_server=key, real_server=server))
        assert errno_of(client, start) == errno.EINVAL
        done(client, SetRealServer(virtual_server=key, real_server=attrs.evolve(server, weight=0)))
        assert errno_of(client, start) == errno.EINVAL
        done(client, DeleteRealServer(virtual_server=key, key=server.key), start, StopSyncDaemon(role=daemon.role))
    done(client, AddRealServer(virtual_server=TCP, real_server=six), DeleteVirtualServer(key=TCP), start)


def test_which_refusal_comes_first(client: Client) -> None:
    done(client, StartSyncDaemon(daemon=MASTER))
    elsewhere = StartSyncDaemon(daemon=attrs.evolve(MASTER, interface="nosuch0"))
    first = errno_of(client, elsewhere)
    done(client, StopSyncDaemon(role=SyncRole.MASTER))
    six = real("2001:db8::1", forwarding=Forwarding.TUNNEL)
    done(client, *additions(entry(VirtualServer(key=TCP), six)))
    assert (first, errno_of(client, elsewhere)) == (errno.ENODEV, errno.EINVAL)


# ---- zero and flush


def test_zero_is_done_to_what_is_there(client: Client) -> None:
    assert errno_of(client, ZeroCounters(key=TCP)) == errno.ESRCH
    done(client, ZeroCounters())
    entries = [entry(VirtualServer(key=key), real(local_to(key))) for key in KEYS]
    done(client, *additions(*entries), ZeroCounters(), *(ZeroCounters(key=key) for key in KEYS))
    assert errno_of(client, ZeroCounters(key=attrs.evolve(TCP, port=81))) == errno.ESRCH
    assert holds(client, *entries)


def test_flush_deletes_everything_and_nothing_else(client: Client) -> None:
    done(client, Flush())
    done(client, *additions(*(entry(VirtualServer(key=key), real(local_to(key))) for key in KEYS)))
    wanted = Timeouts(tcp=77, tcp_fin=78, udp=79)
    done(client, SetTimeouts(timeouts=wanted), StartSyncDaemon(daemon=MASTER))
    done(client, Flush())
    assert holds(client)
    assert client.timeouts() == wanted
    assert len(client.sync_daemons()) == 1
    done(client, *additions(entry(VirtualServer(key=TCP))))
    assert holds(client, entry(VirtualServer(key=TCP)))


def test_every_kind_of_request_goes_with_the_others_in_one_batch(client: Client) -> None:
    requests: list[Request] = [
        StopSyncDaemon(role=SyncRole.BACKUP),
        StartSyncDaemon(daemon=MASTER),
        ZeroCounters(key=TCP),
        StopSyncDaemon(role=SyncRole.MASTER),
        AddVirtualServer(virtual_server=VirtualServer(key=TCP)),
        ZeroCounters(key=TCP),
        StopSyncDaemon(role=SyncRole.MASTER),
        Flush(),
        SetTimeouts(timeouts=Timeouts(tcp=5)),
        DeleteVirtualServer(key=TCP),
    ]
    results = client.apply(requests)
    assert [refused.errno if refused else 0 for refused in results] == [
        errno.ESRCH, 0, errno.ESRCH, 0, 0, 0, errno.ESRCH, 0, 0, errno.ESRCH,
    ]  # fmt: skip
    assert client.timeouts().tcp == 5
    assert client.sync_daemons() == ()


# ---- parts of the table


def test_of_the_table_only_what_is_asked_for_and_there(client: Client) -> None:
    entries = {key: entry(VirtualServer(key=key), real(local_to(key)), real(local_to(key), 81)) for key in KEYS}
    done(client, *additions(*entries.values()))
    absent = [attrs.evolve(TCP, port=81), attrs.evolve(UDP6, port=0), VirtualServerKey.by_mark(8)]
    for wanted in ([], [TCP], [MARK6, UDP6], absent, [absent[0], TCP, absent[1], MARK, absent[2]], [TCP, TCP]):
        observed = client.observe(only=wanted)
        expected = {key: entries[key] for key in wanted if key in entries}
        assert observed.table == expected
        assert set(observed.traffic) == set(observed.usage) == set(expected)
        assert all(set(observed.usage[key]) == set(expected[key].real_servers) for key in expected)
    assert client.observe(only=iter(KEYS)).table == client.observe().table == entries


def test_a_part_is_as_fresh_as_the_whole(client: Client) -> None:
    server = real("198.51.100.1")
    whole = entry(VirtualServer(key=TCP), server)
    done(client, *additions(whole, entry(VirtualServer(key=UDP6))))
    assert client.observe().table[TCP] == whole
    changed = entry(VirtualServer(key=TCP, scheduler="rr"), attrs.evolve(server, weight=9))
    done(
        client,
        SetVirtualServer(virtual_server=changed.virtual_server),
        SetRealServer(virtual_server=TCP, real_server=changed.real_servers[server.key]),
        DeleteVirtualServer(key=UDP6),
    )
    assert client.observe(only=(TCP, UDP6)).table == {TCP: changed}
    assert client.observe().table == {TCP: changed}
    done(client, DeleteVirtualServer(key=TCP), *additions(whole))
    assert client.observe(only=(TCP,)).table == {TCP: whole}


def test_a_key_that_no_kernel_should_get_is_not_asked_for(client: Client) -> None:
    with pytest.raises(Invalid, match="virtual server mark 0: key must be a mark from 1"):
        client.observe(only=[VirtualServerKey.by_mark(0)])


# ---- glances

CHANGES: list[Request] = [
    SetVirtualServer(virtual_server=VirtualServer(key=TCP, scheduler="rr")),
    SetVirtualServer(virtual_server=VirtualServer(key=TCP, persistence=60)),
    SetVirtualServer(virtual_server=VirtualServer(key=TCP, persistence=61)),
    SetVirtualServer(virtual_server=VirtualServer(key=TCP, persistence=61, persistence_prefix=24)),
    SetRealServer(virtual_server=TCP, real_server=real("198.51.100.1", weight=2)),
    SetRealServer(virtual_server=TCP, real_server=real("198.51.100.1", forwarding=Forwarding.TUNNEL)),
    AddRealServer(virtual_server=TCP, real_server=real("198.51.100.2")),
    AddRealServer(virtual_server=TCP, real_server=real("198.51.100.1", 81)),
    DeleteRealServer(virtual_server=TCP, key=real("198.51.100.1").key),
    AddVirtualServer(virtual_server=VirtualServer(key=UDP6)),
    AddVirtualServer(virtual_server=VirtualServer(key=attrs.evolve(TCP, port=81))),
    AddVirtualServer(virtual_server=VirtualServer(key=MARK)),
    AddVirtualServer(virtual_server=VirtualServer(key=MARK6)),
    DeleteVirtualServer(key=MARK),
    AddVirtualServer(virtual_server=VirtualServer(key=MARK)),
    AddRealServer(virtual_server=MARK, real_server=real("198.51.100.1", 0)),
    AddRealServer(virtual_server=MARK6, real_server=real("2001:db8::1", 0)),
    SetRealServer(virtual_server=MARK6, real_server=real("2001:db8::1", 0, weight=2)),
    AddRealServer(virtual_server=UDP6, real_server=real("2001:db8::1", 53)),
    AddRealServer(virtual_server=UDP6, real_server=real("198.51.100.1", 53, forwarding=Forwarding.TUNNEL)),
    AddRealServer(virtual_server=TCP, real_server=real("2001:db8::1", forwarding=Forwarding.TUNNEL)),
    SetRealServer(virtual_server=TCP, real_server=real("2001:db8::1", forwarding=Forwarding.TUNNEL, weight=0)),
    DeleteRealServer(virtual_server=TCP, key=real("2001:db8::1").key),
    SetRealServer(virtual_server=TCP, real_server=real("198.51.100.2", upper_threshold=5)),
    SetRealServer(virtual_server=TCP, real_server=real("198.51.100.2", upper_threshold=5, lower_threshold=3)),
    SetRealServer(virtual_server=TCP, real_server=real("198.51.100.2", forwarding=Forwarding.TUNNEL)),
    SetRealServer(
        virtual_server=TCP,
        real_server=real("198.51.100.2", forwarding=Forwarding.TUNNEL, tunnel_type=Tunnel.GUE, tunnel_port=6080),
    ),
    SetRealServer(virtual_server=TCP, real_server=real("198.51.100.2")),
    SetVirtualServer(virtual_server=VirtualServer(key=TCP, scheduler_flags=SchedulerFlag.FLAG_1)),
    SetVirtualServer(virtual_server=VirtualServer(key=TCP, persistence=60, persistence_engine="sip")),
    DeleteVirtualServer(key=UDP6),
    Flush(),
]
NO_CHANGES: list[Request] = [
    SetTimeouts(timeouts=Timeouts(tcp=5)),
    ZeroCounters(),
    SetRealServer(virtual_server=TCP, real_server=real("198.51.100.1", tunnel_type=1, tunnel_port=6080)),
]


def test_a_glance_changes_with_the_table(client: Client) -> None:
    done(client, *additions(entry(VirtualServer(key=TCP), real("198.51.100.1"))))
    seen = [client.glance()]
    before: frozenset[VirtualServerKey] = frozenset({TCP})
    for request in CHANGES:
        done(client, request)
        assert client.glance() == client.glance()
        assert hash(client.glance()) == hash(client.glance())
        assert client.glance() != seen[-1], request
        of = getattr(request, "virtual_server", getattr(request, "key", None))
        key = of.key if isinstance(of, VirtualServer) else of
        assert client.glance().changed(seen[-1]) == (frozenset({key}) if key else before), request
        before = frozenset(client.observe().table)
        seen.append(client.glance())


def test_a_glance_changes_with_nothing_else(client: Client) -> None:
    done(client, *additions(entry(VirtualServer(key=TCP), real("198.51.100.1"))))
    before = client.glance()
    for request in NO_CHANGES:
        done(client, request)
        assert client.glance() == before, request
        assert client.glance().changed(before) == frozenset()


def test_a_census_counts_the_real_servers_of_ipv4(client: Client) -> None:
    done(client, *additions(entry(VirtualServer(key=TCP), real("198.51.100.1"))))
    before = client.census()
    assert before == {TCP: 1}
    for request in NO_CHANGES + CHANGES:
        done(client, request)
        table, census = client.observe().table, client.census()
        assert census == {key: len(each.real_servers) for key, each in table.items() if key.family is Family.IPV4}
        assert (census is before) is (census == before), request
        assert client.census() is census
        before = census


def test_what_is_read_after_forgetting_is_the_same(client: Client) -> None:
    done(client, *additions(entry(VirtualServer(key=TCP), real("198.51.100.1"), real("198.51.100.2"))))
    before, glance = client.observe(), client.glance()
    client.forget()
    assert client.observe() == before
    assert client.observe([TCP]) == before
    client.forget()
    assert client.glance() == glance


def test_a_long_list_that_is_asked_for_again_is_what_it_is_now(client: Client) -> None:
    many = [real(f"198.51.{number >> 8}.{number & 255}") for number in range(1, 601)]
    done(client, *additions(entry(VirtualServer(key=TCP), *many)))
    assert client.observe([TCP]) == client.observe()
    client.forget()
    changes = (
        SetRealServer(virtual_server=TCP, real_server=attrs.evolve(many[300], weight=77)),
        DeleteRealServer(virtual_server=TCP, key=many[5].key),
        AddRealServer(virtual_server=TCP, real_server=real("198.51.200.1")),
        SetVirtualServer(virtual_server=VirtualServer(key=TCP, scheduler="rr")),
        DeleteVirtualServer(key=TCP),
    )
    for change in changes:
        done(client, change)
        asked = client.observe([TCP])
        assert asked == client.observe([TCP])
        assert asked == client.observe(), change
    assert not client.observe([TCP]).table
    done(client, *additions(entry(VirtualServer(key=TCP), real("198.51.100.1"))))
    assert client.observe([TCP]) == client.observe()


def test_two_tables_that_were_exchanged_are_two(client: Client) -> None:
    """What a kernel shows in two ways is not taken for the other."""
    one, other = real("198.51.100.1"), real("198.51.100.2", forwarding=Forwarding.TUNNEL)
    tables = [
        (entry(VirtualServer(key=TCP), first), entry(VirtualServer(key=attrs.evolve(TCP, port=81)), second))
        for first, second in ((one, other), (other, one))
    ]
    seen = []
    for table in tables:
        done(client, Flush(), *additions(*table))
        seen.append(client.glance())
    assert seen[0] != seen[1]


def test_a_glance_says_how_much_there_is(client: Client) -> None:
    def count() -> tuple[int, int]:
        glance = client.glance()
        return glance.virtual_servers, glance.real_servers

    assert count() == (0, 0)
    assert repr(client.glance()) == "<Glance at 0 virtual servers, 0 real servers>"
    assert client.glance() != "a string"
    done(client, *additions(entry(VirtualServer(key=TCP), real("198.51.100.1"), real("198.51.100.2"))))
    assert count() == (1, 2)
    done(client, *additions(entry(VirtualServer(key=MARK6)), entry(VirtualServer(key=UDP6), real("2001:db8::1"))))
    assert count() == (3, 3)
    many = VirtualServerKey.by_address(Protocol.UDP, IPv4Address("192.0.2.1"), 1)
    servers = [real(f"198.51.100.{last}") for last in range(1, 251)]
    done(client, *additions(entry(VirtualServer(key=many), *servers)))
    done(
        client, *(AddVirtualServer(virtual_server=VirtualServer(key=attrs.evolve(many, port=p))) for p in range(2, 99))
    )
    assert count() == (101, 253)
    done(client, Flush())
    assert count() == (0, 0)


# ---- filling


@pytest.mark.parametrize("key", KEYS, ids=str)
@pytest.mark.parametrize("scheduler", ["mh", "wlc", "none"])
@pytest.mark.parametrize("count", [0, 1, 2, 40])
def test_a_virtual_server_is_filled(client: Client, key: VirtualServerKey, scheduler: str, count: int) -> None:
    wanted = entry(
        VirtualServer(key=key, scheduler=scheduler, scheduler_flags=SchedulerFlag.FLAG_2, persistence=60),
        *(real(local_to(key), port, weight=port) for port in range(1, count + 1)),
    )
    requests = fill(wanted.virtual_server, wanted.real_servers.values())
    done(client, *requests)
    assert holds(client, wanted)
    again = client.apply(requests)
    assert again[0] is not None
    assert again[0].errno == errno.EEXIST
    assert holds(client, wanted)


def test_what_cannot_be_scheduled_is_not_filled(client: Client) -> None:
    requests = fill(VirtualServer(key=TCP, scheduler="nosuch"), [real("198.51.100.1"), real("198.51.100.2")])
    assert [refused.errno if refused else 0 for refused in client.apply(requests)] == [
        errno.ENOENT, errno.ESRCH, errno.ESRCH,
    ]  # fmt: skip
    assert holds(client)


# ---- what a kernel lacks


def test_what_the_kernel_lacks_is_found_without_touching_the_table(client: Client) -> None:
    whole = entry(VirtualServer(key=VirtualServerKey.by_mark(1), scheduler="rr"), real("198.51.100.1"))
    done(client, *additions(whole))
    assert client.lacking() == Lacking()
    assert client.lacking(schedulers=["rr", "mh", "none"], persistence_engines=["sip"]) == Lacking()
    assert client.lacking(schedulers=["rr", "nosuch", "sip"], persistence_engines=["sip", "rr"]) == Lacking(
        schedulers=frozenset({"nosuch", "sip"}), persistence_engines=frozenset({"rr"})
    )
    for names in ({"schedulers": ["rr", "no such"]}, {"persistence_engines": ["../x"]}):
        with pytest.raises(Invalid, match="is not a name of letters"):
            client.lacking(**names)
    assert holds(client, whole)


@pytest.mark.parametrize(
    ("scheduler", "engine", "says"),
    [
        ("nosuch", None, "no scheduler 'nosuch', and"),
        ("nosuch", "sip", "no scheduler 'nosuch', and"),
        ("rr", "nosuch", "no persistence engine 'nosuch', and"),
        ("nosuch", "nosuchpe", "no scheduler 'nosuch' and no persistence engine 'nosuchpe', and"),
    ],
)
def test_an_error_names_what_is_missing(client: Client, scheduler: str, engine: str | None, says: str) -> None:
    done(client, AddVirtualServer(virtual_server=VirtualServer(key=UDP6)))
    unknown = VirtualServer(key=UDP6, scheduler=scheduler, persistence=60, persistence_engine=engine)
    add = AddVirtualServer(virtual_server=attrs.evolve(unknown, key=MARK6))
    for request in (add, SetVirtualServer(virtual_server=unknown)):
        (refused,) = client.apply([request])
        assert refused is not None
        assert str(refused) == f"{request}: the kernel has {says} found no module for it (ENOENT)"
    assert holds(client, entry(VirtualServer(key=UDP6)))


@one_client
@given(data=st.data())
def test_a_part_of_any_size_is_that_part(client: Client, data: st.DataObject) -> None:
    empty(client)
    there = data.draw(st.sets(st.integers(1, 30)))
    asked = data.draw(st.lists(st.integers(1, 30), max_size=10))
    entries = {
        VirtualServerKey.by_mark(mark): entry(VirtualServer(key=VirtualServerKey.by_mark(mark))) for mark in there
    }
    done(client, *additions(*entries.values()))
    found = client.observe(only=[VirtualServerKey.by_mark(mark) for mark in asked]).table
    assert found == {key: each for key, each in entries.items() if key.mark in asked}

"""What both clients promise. The fake passes the very suite that the real kernel passes, or it is wrong."""

import errno
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netlink.client import Client
from netlink.errors import Invalid
from netlink.fake import SCHEDULERS
from netlink.requests import (
    AddRealServer,
    AddVirtualServer,
    DeleteRealServer,
    DeleteVirtualServer,
    Request,
    SetRealServer,
    SetVirtualServer,
)
from netlink.types import (
    MAX_CONNECTIONS,
    MAX_PERSISTENCE,
    MAX_WEIGHT,
    Family,
    Forwarding,
    Protocol,
    RealServer,
    RealServerKey,
    RealServerUsage,
    SchedulerFlag,
    Table,
    TableEntry,
    Traffic,
    VirtualServer,
    VirtualServerKey,
)
from tests.netlink.conftest import empty
from tests.netlink.strategies import real_addresses_4, real_addresses_6, real_servers, virtual_servers

TCP = VirtualServerKey.by_address(Protocol.TCP, IPv4Address("192.0.2.100"), 80)
UDP6 = VirtualServerKey.by_address(Protocol.UDP, IPv6Address("2001:db8::100"), 53)
MARK = VirtualServerKey.by_mark(7)
MARK6 = VirtualServerKey.by_mark(7, Family.IPV6)
KEYS = (TCP, UDP6, MARK, MARK6, VirtualServerKey.by_address(Protocol.SCTP, IPv4Address("192.0.2.100"), 80))


def real(address: str, port: int = 80, **fields: object) -> RealServer:
    """Return a real server at `address`."""
    make = attrs.evolve
    return make(RealServer(key=RealServerKey(address=ip_address(address), port=port)), **fields)


def local_to(key: VirtualServerKey) -> str:
    """Return the address of a real server in the family of `key`."""
    return "198.51.100.1" if key.family is Family.IPV4 else "2001:db8::1"


def entry(virtual_server: VirtualServer, *real_servers: RealServer) -> TableEntry:
    """Return `virtual_server` with `real_servers`."""
    return TableEntry(virtual_server=virtual_server, real_servers={real.key: real for real in real_servers})


def additions(*entries: TableEntry) -> list[Request]:
    """Return the requests that create `entries`."""
    requests: list[Request] = [AddVirtualServer(virtual_server=each.virtual_server) for each in entries]
    for each in entries:
        key = each.virtual_server.key
        requests += [AddRealServer(virtual_server=key, real_server=real) for real in each.real_servers.values()]
    return requests


def done(client: Client, *requests: Request) -> None:
    """Apply `requests`, all of which must be carried out."""
    assert client.apply(requests) == [None] * len(requests)


def errno_of(client: Client, request: Request) -> int:
    """Return the errno with which `request` is refused; 0 when it is not."""
    (refused,) = client.apply([request])
    if refused is None:
        return 0
    assert (refused.operation, refused.target) == (request.operation, request.target)
    assert str(refused).startswith(str(request))
    assert refused.meaning[0].islower(), "an operator reads our words, not strerror's"
    return refused.errno


def holds(client: Client, *entries: TableEntry) -> bool:
    """Return whether the table is exactly `entries`, with counters for each."""
    observed = client.observe()
    table: Table = {each.virtual_server.key: each for each in entries}
    assert observed.traffic == dict.fromkeys(table, Traffic())
    assert {key: set(usage) for key, usage in observed.usage.items()} == {
        key: set(each.real_servers) for key, each in observed.table.items()
    }
    assert all(usage == RealServerUsage() for usages in observed.usage.values() for usage in usages.values())
    return observed.table == table


# ---- reading


def test_an_empty_table_is_a_table(client: Client) -> None:
    assert holds(client)


def test_the_version_is_known(client: Client) -> None:
    assert client.info().version >= (1, 2, 1)


def test_nothing_to_apply_is_nothing_done(client: Client) -> None:
    assert client.apply([]) == []


# ---- virtual servers


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_a_virtual_server_comes_and_goes(client: Client, key: VirtualServerKey) -> None:
    done(client, AddVirtualServer(virtual_server=VirtualServer(key=key)))
    assert holds(client, entry(VirtualServer(key=key)))
    done(client, DeleteVirtualServer(key=key))
    assert holds(client)


def test_keys_that_differ_in_one_thing_are_different(client: Client) -> None:
    others = [
        attrs.evolve(TCP, port=81),
        attrs.evolve(TCP, protocol=Protocol.UDP),
        attrs.evolve(TCP, address=IPv4Address("192.0.2.101")),
        VirtualServerKey.by_mark(8),
        VirtualServerKey.by_mark(2**32 - 1),
    ]
    entries = [entry(VirtualServer(key=key)) for key in (*KEYS, *others)]
    done(client, *additions(*entries))
    assert holds(client, *entries)


@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
def test_every_scheduler_can_be_had_and_changed_to(client: Client, scheduler: str) -> None:
    wanted = VirtualServer(key=TCP, scheduler=scheduler)
    real_servers = (real("198.51.100.1"), real("198.51.100.2"))
    done(client, *additions(entry(wanted, *real_servers)))
    assert holds(client, entry(wanted, *real_servers))
    for each in (attrs.evolve(wanted, scheduler="rr"), wanted):
        done(client, SetVirtualServer(virtual_server=each))
        assert holds(client, entry(each, *real_servers))


@pytest.mark.parametrize("flags", [SchedulerFlag(bits << 3) for bits in range(8)])
def test_scheduler_flags(client: Client, flags: SchedulerFlag) -> None:
    wanted = VirtualServer(key=TCP, scheduler="mh", scheduler_flags=flags)
    done(client, AddVirtualServer(virtual_server=wanted))
    assert holds(client, entry(wanted))


PERSISTENCE = [
    VirtualServer(key=TCP, persistence=1),
    VirtualServer(key=TCP, persistence=MAX_PERSISTENCE),
    VirtualServer(key=TCP, persistence=300, persistence_prefix=24),
    VirtualServer(key=TCP, persistence=300, persistence_prefix=0),
    VirtualServer(key=UDP6, persistence=300, persistence_prefix=64),
    VirtualServer(key=UDP6, persistence=300, persistence_prefix=1),
    VirtualServer(key=UDP6, persistence=300, persistence_engine="sip", one_packet=True),
    VirtualServer(key=MARK6, persistence=300, persistence_prefix=127),
    VirtualServer(key=attrs.evolve(TCP, port=0), persistence=300),
]


@pytest.mark.parametrize("wanted", PERSISTENCE)
def test_persistence(client: Client, wanted: VirtualServer) -> None:
    done(client, AddVirtualServer(virtual_server=wanted))
    assert holds(client, entry(wanted))


def test_a_full_prefix_is_read_back_as_none(client: Client) -> None:
    four = VirtualServer(key=TCP, persistence=300, persistence_prefix=32)
    six = VirtualServer(key=UDP6, persistence=300, persistence_prefix=128)
    done(client, *additions(entry(four), entry(six)))
    assert holds(client, *(entry(attrs.evolve(each, persistence_prefix=None)) for each in (four, six)))


def test_set_replaces_all_of_a_virtual_server(client: Client) -> None:
    rich = VirtualServer(
        key=UDP6,
        scheduler="mh",
        scheduler_flags=SchedulerFlag.FLAG_1 | SchedulerFlag.FLAG_2,
        one_packet=True,
        persistence=60,
        persistence_prefix=48,
        persistence_engine="sip",
    )
    plain = VirtualServer(key=UDP6)
    server = real("2001:db8::1", weight=3)
    done(client, *additions(entry(plain, server)))
    for wanted in (rich, plain, rich):
        done(client, SetVirtualServer(virtual_server=wanted))
        assert holds(client, entry(wanted, server))


@pytest.mark.parametrize("unknown", [{"scheduler": "nosuch"}, {"persistence_engine": "nosuch", "persistence": 1}])
def test_an_unknown_name_is_enoent_and_changes_nothing(client: Client, unknown: dict[str, object]) -> None:
    make = attrs.evolve
    before = VirtualServer(key=TCP)
    wanted = make(before, **unknown)
    assert errno_of(client, AddVirtualServer(virtual_server=wanted)) == errno.ENOENT
    assert holds(client)
    done(client, AddVirtualServer(virtual_server=before))
    assert errno_of(client, SetVirtualServer(virtual_server=wanted)) == errno.ENOENT
    assert holds(client, entry(before))


def test_refusals_of_virtual_servers(client: Client) -> None:
    add = AddVirtualServer(virtual_server=VirtualServer(key=TCP))
    assert errno_of(client, SetVirtualServer(virtual_server=VirtualServer(key=TCP))) == errno.ESRCH
    assert errno_of(client, DeleteVirtualServer(key=TCP)) == errno.ESRCH
    done(client, add)
    assert errno_of(client, add) == errno.EEXIST
    twice_wrong = AddVirtualServer(virtual_server=VirtualServer(key=TCP, scheduler="nosuch"))
    assert errno_of(client, twice_wrong) == errno.EEXIST
    assert holds(client, entry(VirtualServer(key=TCP)))


def test_a_virtual_server_goes_with_its_real_servers(client: Client) -> None:
    whole = entry(VirtualServer(key=TCP), real("198.51.100.1"), real("198.51.100.2"))
    done(client, *additions(whole), DeleteVirtualServer(key=TCP))
    assert holds(client)
    done(client, AddVirtualServer(virtual_server=whole.virtual_server))
    assert holds(client, entry(whole.virtual_server))


# ---- real servers


@pytest.mark.parametrize("key", KEYS, ids=str)
@pytest.mark.parametrize("forwarding", Forwarding)
def test_a_real_server_keeps_its_port_and_forwarding(
    client: Client, key: VirtualServerKey, forwarding: Forwarding
) -> None:
    """It is ipvsadm that forces the port in direct-route and tunnel."""
    servers = [real(local_to(key), port, forwarding=forwarding) for port in (0, 80, 8080)]
    whole = entry(VirtualServer(key=key), *servers)
    done(client, *additions(whole))
    assert holds(client, whole)
    done(client, DeleteRealServer(virtual_server=key, key=servers[1].key))
    assert holds(client, entry(whole.virtual_server, servers[0], servers[2]))


@pytest.mark.parametrize("forwarding", Forwarding)
def test_an_own_address_keeps_its_forwarding(client: Client, forwarding: Forwarding) -> None:
    four = entry(VirtualServer(key=TCP), real("127.0.0.1", 8080, forwarding=forwarding))
    six = entry(VirtualServer(key=UDP6), real("::1", 8080, forwarding=forwarding))
    done(client, *additions(four, six))
    assert holds(client, four, six)


@pytest.mark.parametrize(
    "fields",
    [
        {"weight": 0},
        {"weight": MAX_WEIGHT},
        {"upper_threshold": MAX_CONNECTIONS, "lower_threshold": MAX_CONNECTIONS},
        {"upper_threshold": 10},
        {"upper_threshold": 10, "lower_threshold": 5, "weight": 0},
    ],
)
def test_weights_and_thresholds(client: Client, fields: dict[str, int]) -> None:
    server = real("198.51.100.1", **fields)
    plain = real("198.51.100.1")
    done(client, *additions(entry(VirtualServer(key=TCP), server)))
    assert holds(client, entry(VirtualServer(key=TCP), server))
    for each in (plain, server):
        done(client, SetRealServer(virtual_server=TCP, real_server=each))
        assert holds(client, entry(VirtualServer(key=TCP), each))


def test_set_replaces_all_of_a_real_server(client: Client) -> None:
    rich = real("198.51.100.1", forwarding=Forwarding.TUNNEL, weight=9, upper_threshold=8, lower_threshold=7)
    done(client, *additions(entry(VirtualServer(key=TCP), rich)))
    for wanted in (real("198.51.100.1", forwarding=Forwarding.DIRECT_ROUTE), rich, real("198.51.100.1")):
        done(client, SetRealServer(virtual_server=TCP, real_server=wanted))
        assert holds(client, entry(VirtualServer(key=TCP), wanted))


TUNNELS = [
    {"tunnel_type": 1, "tunnel_port": 6080},
    {"tunnel_type": 1, "tunnel_port": 65535, "tunnel_flags": 2},
    {"tunnel_type": 2},
    {"tunnel_type": 2, "tunnel_flags": 1},
]


@pytest.mark.parametrize("fields", TUNNELS, ids=str)
@pytest.mark.parametrize("forwarding", [Forwarding.TUNNEL, Forwarding.MASQUERADE])
def test_tunnels_are_kept_and_taken_back(client: Client, forwarding: Forwarding, fields: dict[str, int]) -> None:
    """The kernel keeps them whatever the forwarding."""
    tunnel = real("198.51.100.1", forwarding=forwarding, **fields)
    plain = real("198.51.100.1", forwarding=forwarding)
    done(client, *additions(entry(VirtualServer(key=TCP), tunnel)))
    assert holds(client, entry(VirtualServer(key=TCP), tunnel))
    for wanted in (plain, tunnel):
        done(client, SetRealServer(virtual_server=TCP, real_server=wanted))
        assert holds(client, entry(VirtualServer(key=TCP), wanted))


def test_mixed_families_work_with_tunnel_only(client: Client) -> None:
    six = real("2001:db8::1", forwarding=Forwarding.TUNNEL)
    four = real("198.51.100.1", forwarding=Forwarding.TUNNEL)
    entries = (entry(VirtualServer(key=TCP), six, four), entry(VirtualServer(key=UDP6), six, four))
    done(client, *additions(*entries))
    assert holds(client, *entries)
    for forwarding in (Forwarding.MASQUERADE, Forwarding.DIRECT_ROUTE):
        wrong = attrs.evolve(six, forwarding=forwarding)
        assert errno_of(client, SetRealServer(virtual_server=TCP, real_server=wrong)) == errno.EINVAL
        assert errno_of(client, AddRealServer(virtual_server=TCP, real_server=wrong)) == errno.EINVAL
    assert holds(client, *entries)
    done(client, DeleteRealServer(virtual_server=TCP, key=six.key))


def test_refusals_of_real_servers(client: Client) -> None:
    server = real("198.51.100.1")
    crossed = attrs.evolve(server, lower_threshold=1)
    add, change, delete = (
        AddRealServer(virtual_server=TCP, real_server=server),
        SetRealServer(virtual_server=TCP, real_server=server),
        DeleteRealServer(virtual_server=TCP, key=server.key),
    )
    for request in (add, change, delete):
        assert errno_of(client, request) == errno.ESRCH
    done(client, AddVirtualServer(virtual_server=VirtualServer(key=TCP)))
    assert errno_of(client, change) == errno.ENOENT
    assert errno_of(client, delete) == errno.ENOENT
    assert errno_of(client, AddRealServer(virtual_server=TCP, real_server=crossed)) == errno.ERANGE
    assert errno_of(client, SetRealServer(virtual_server=TCP, real_server=crossed)) == errno.ERANGE
    done(client, add)
    assert errno_of(client, add) == errno.EEXIST
    assert errno_of(client, AddRealServer(virtual_server=TCP, real_server=crossed)) == errno.ERANGE
    assert errno_of(client, SetRealServer(virtual_server=TCP, real_server=crossed)) == errno.ERANGE
    other_family = DeleteRealServer(virtual_server=TCP, key=real("2001:db8::1").key)
    assert errno_of(client, other_family) == errno.ENOENT
    assert holds(client, entry(VirtualServer(key=TCP), server))


REFUSED = ["0.0.0.0", "255.255.255.255", "224.0.0.1", "239.255.255.255"]  # noqa: S104 -- nothing is bound
REFUSED += ["::", "ff02::1", "fe80::1", "::ffff:198.51.100.1"]
TAKEN = ["0.1.2.3", "127.0.0.1", "169.254.169.254", "192.0.2.100", "240.0.0.1", "255.255.255.254"]
TAKEN += ["::1", "::1:2", "100::1", "2001:db8::100", "fec0::1", "4000::1"]


@pytest.mark.parametrize(
    ("address", "expected"), [(text, errno.EINVAL) for text in REFUSED] + [(text, 0) for text in TAKEN]
)
def test_addresses_of_real_servers(client: Client, address: str, expected: int) -> None:
    key = TCP if ":" not in address else UDP6
    done(client, AddVirtualServer(virtual_server=VirtualServer(key=key)))
    server = real(address)
    assert errno_of(client, AddRealServer(virtual_server=key, real_server=server)) == expected
    assert holds(client, entry(VirtualServer(key=key), *([] if expected else [server])))


# ---- batches


def test_a_refusal_in_the_middle_stops_nothing(client: Client) -> None:
    servers = [real(f"198.51.100.{last}") for last in range(1, 6)]
    adds: Sequence[Request] = [AddRealServer(virtual_server=TCP, real_server=server) for server in servers]
    missing = SetRealServer(virtual_server=TCP, real_server=real("198.51.100.99"))
    requests = [
        AddVirtualServer(virtual_server=VirtualServer(key=TCP)),
        *adds[:3],
        missing,
        adds[0],
        *adds[3:],
        missing,
    ]
    results = client.apply(requests)
    assert [None if refused is None else refused.errno for refused in results] == [
        *[None] * 4, errno.ENOENT, errno.EEXIST, None, None, errno.ENOENT,
    ]  # fmt: skip
    assert holds(client, entry(VirtualServer(key=TCP), *servers))


def test_many_refusals_all_come_back(client: Client) -> None:
    requests = [DeleteVirtualServer(key=VirtualServerKey.by_mark(mark)) for mark in range(1, 1001)]
    results = client.apply(requests)
    assert [refused.target for refused in results if refused] == [request.target for request in requests]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_request_no_kernel_should_get_is_refused_alone(client: Client, place: int) -> None:
    requests: list[Request] = [
        AddVirtualServer(virtual_server=VirtualServer(key=TCP)),
        AddVirtualServer(virtual_server=VirtualServer(key=TCP)),
    ]
    requests.insert(place, AddRealServer(virtual_server=TCP, real_server=real("198.51.100.1", weight=-1)))
    results = client.apply(requests)
    bad = results.pop(place)
    assert isinstance(bad, Invalid)
    assert str(bad) == (
        "add real server 198.51.100.1:80 to tcp 192.0.2.100:80: "
        "real server 198.51.100.1:80: weight -1 is not in 0..2147483647; not sent (EINVAL)"
    )
    assert [refused and refused.errno for refused in results] == [None, errno.EEXIST]
    assert holds(client, entry(VirtualServer(key=TCP)))


def test_nothing_is_sent_where_all_is_garbage(client: Client) -> None:
    bad = AddRealServer(virtual_server=TCP, real_server=real("198.51.100.1", weight=-1))
    assert [type(refused) for refused in client.apply([bad, bad])] == [Invalid, Invalid]


def test_many_virtual_servers(client: Client) -> None:
    entries = [
        entry(
            VirtualServer(key=VirtualServerKey.by_address(Protocol.TCP, IPv4Address("192.0.2.1"), port)),
            *(real(f"198.51.100.{last}", port, weight=last) for last in range(1, 4)),
        )
        for port in range(1, 301)
    ]
    done(client, *additions(*entries))
    assert holds(client, *entries)


def test_many_real_servers(client: Client) -> None:
    """More than one datagram holds, so that the dump comes in several."""
    whole = entry(VirtualServer(key=TCP), *(real(f"198.51.{n >> 8}.{n & 255}") for n in range(1, 1000)))
    done(client, *additions(whole))
    assert holds(client, whole)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(data=st.data())
def test_what_is_written_is_observed(client: Client, data: st.DataObject) -> None:
    empty(client)
    wanted = []
    for virtual_server in data.draw(st.lists(virtual_servers(), max_size=4, unique_by=lambda each: each.key)):
        addresses = real_addresses_4 if virtual_server.key.family is Family.IPV4 else real_addresses_6
        servers = data.draw(st.lists(real_servers(addresses), max_size=5, unique_by=lambda each: each.key))
        wanted.append(entry(virtual_server, *servers))
    done(client, *additions(*wanted))
    assert holds(client, *wanted)
    for each in wanted:
        change = data.draw(virtual_servers(st.just(each.virtual_server.key)))
        done(client, SetVirtualServer(virtual_server=change))
        assert client.observe().table[change.key] == attrs.evolve(each, virtual_server=change)

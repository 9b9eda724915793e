"""Every virtual server and real server that may be written, spelled as it is read back."""

from ipaddress import IPv4Address, IPv6Address

from hypothesis import strategies as st

from netlink.fake import SCHEDULERS
from netlink.types import (
    MAX_CONNECTIONS,
    MAX_PERSISTENCE,
    MAX_TIMEOUT,
    MAX_WEIGHT,
    Address,
    Family,
    Forwarding,
    Protocol,
    RealServer,
    RealServerKey,
    SchedulerFlag,
    SyncDaemon,
    SyncRole,
    Timeouts,
    Tunnel,
    TunnelFlag,
    VirtualServer,
    VirtualServerKey,
)

ports = st.integers(1, 65535)
addresses: st.SearchStrategy[Address] = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
address_keys = st.builds(VirtualServerKey.by_address, st.sampled_from(list(Protocol)), addresses, ports)
mark_keys = st.builds(VirtualServerKey.by_mark, st.integers(1, 2**32 - 1), st.sampled_from(Family))
keys = st.one_of(address_keys, mark_keys)
scheduler_flags = st.lists(st.sampled_from(list(SchedulerFlag)), max_size=3).map(
    lambda flags: SchedulerFlag(sum(set(flags)))
)

# Addresses that any kernel takes for a real server, whatever its own addresses are: TEST-NET-2, documentation.
real_addresses_4 = st.integers(1, 254).map(lambda last: IPv4Address(f"198.51.100.{last}"))
real_addresses_6 = st.integers(1, 2**64 - 1).map(lambda low: IPv6Address((0x20010DB8 << 96) | low))


@st.composite
def virtual_servers(draw: st.DrawFn, keys: st.SearchStrategy[VirtualServerKey] = keys) -> VirtualServer:
    """Draw a virtual server with every option that goes with its key."""
    key = draw(keys)
    bits = 32 if key.family is Family.IPV4 else 128
    least = 0 if key.family is Family.IPV4 else 1
    may_be_udp = key.protocol in (None, Protocol.UDP)
    return VirtualServer(
        key=key,
        scheduler=draw(st.sampled_from(sorted(SCHEDULERS))),
        scheduler_flags=draw(scheduler_flags),
        one_packet=draw(st.booleans()) if may_be_udp else False,
        persistence=draw(st.none() | st.integers(1, MAX_PERSISTENCE)),
        persistence_prefix=draw(st.none() | st.integers(least, bits - 1)),
        persistence_engine=draw(st.sampled_from((None, "sip"))),
    )


TUNNEL_FLAGS = {Tunnel.IPIP: 0, Tunnel.GRE: 1, Tunnel.GUE: 3}  # the highest that mean something


@st.composite
def real_servers(draw: st.DrawFn, addresses: st.SearchStrategy[Address] = addresses) -> RealServer:
    """Draw a real server."""
    upper = draw(st.integers(0, MAX_CONNECTIONS))
    tunnel_type = draw(st.sampled_from(Tunnel))
    return RealServer(
        key=RealServerKey(address=draw(addresses), port=draw(st.integers(0, 65535))),
        forwarding=draw(st.sampled_from(Forwarding)),
        weight=draw(st.integers(0, MAX_WEIGHT)),
        upper_threshold=upper,
        lower_threshold=draw(st.integers(0, upper)),
        tunnel_type=tunnel_type,
        tunnel_port=draw(st.integers(1, 65535)) if tunnel_type is Tunnel.GUE else 0,
        tunnel_flags=TunnelFlag(draw(st.integers(0, TUNNEL_FLAGS[tunnel_type]))),
    )


timeouts = st.builds(
    Timeouts, tcp=st.integers(1, MAX_TIMEOUT), tcp_fin=st.integers(1, MAX_TIMEOUT), udp=st.integers(1, MAX_TIMEOUT)
)


@st.composite
def sync_daemons(draw: st.DrawFn, role: SyncRole, interface: str = "lo") -> SyncDaemon:
    """Draw a synchronisation daemon that a kernel can start on an interface with addresses of both families."""
    # any group of the interface's own scope, but for those that IPv6 refuses to route or to join
    group = draw(
        st.integers(1, 2**24 - 1).map(lambda low: IPv4Address((239 << 24) | low))
        | st.integers(1, 2**64 - 1).map(lambda low: IPv6Address((0xFF02 << 112) | low))
    )
    overhead = 28 if group.version == 4 else 48
    least = 1024 if role is SyncRole.BACKUP else 1
    return SyncDaemon(
        role=role,
        interface=interface,
        sync_id=draw(st.integers(0, 255)),
        max_length=draw(st.integers(least, 65535 - overhead)),
        group=group,
        port=draw(ports),
        ttl=draw(st.integers(1, 255)),
    )

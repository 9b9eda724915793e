"""An IPVS table in memory that refuses what the kernel refuses, for tests without a kernel.

It goes through `codec` both ways, so it normalises as the kernel does and raises the same ValueError. As the kernel,
it keeps the port and the forwarding it was given, whatever the forwarding and whether the address is its own: it is
ipvsadm that forces the port in direct-route and tunnel (seen on 6.1). The order of its
checks is that of ip_vs_genl_set_cmd and what it calls in net/netfilter/ipvs/ip_vs_ctl.c. It passes
tests/netlink/test_contract.py, the very suite that the real kernel passes.
"""

import errno
import types
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Final, Self, assert_never

import attrs

from netlink import codec
from netlink.errors import NetlinkError, Refused
from netlink.glance import Glance
from netlink.requests import (
    AddRealServer,
    AddVirtualServer,
    DeleteRealServer,
    DeleteVirtualServer,
    Flush,
    OtherRequest,
    Request,
    SetRealServer,
    SetTimeouts,
    SetVirtualServer,
    StartSyncDaemon,
    StopSyncDaemon,
    ZeroCounters,
    refusal,
)
from netlink.types import (
    Address,
    Connection,
    Family,
    Forwarding,
    Info,
    Lacking,
    Observed,
    RealServer,
    RealServerKey,
    RealServerUsage,
    SyncDaemon,
    SyncRole,
    TableEntry,
    Timeouts,
    Traffic,
    VirtualServer,
    VirtualServerKey,
    family_of,
)

SCHEDULERS: Final = frozenset(
    {"none", "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq", "fo", "ovf"}
)
INTERFACES: Final[Mapping[str, int]] = types.MappingProxyType({"lo": 65536})
PERSISTENCE_ENGINES: Final = frozenset({"sip"})

Matches = Callable[[Request], bool]


class FakeIPVS:
    """A table that behaves as the kernel's, with hooks for tests.

    `writes` has every request received, refused ones too, in order. `schedulers` are those its kernel has,
    `interfaces` those of its machine, with the MTU of each.
    """

    def __init__(
        self,
        *,
        schedulers: frozenset[str] = SCHEDULERS,
        interfaces: Mapping[str, int] = INTERFACES,
    ) -> None:
        self.writes: list[Request] = []
        self._schedulers = schedulers
        self._virtual_servers: dict[VirtualServerKey, VirtualServer] = {}
        self._real_servers: dict[VirtualServerKey, dict[RealServerKey, RealServer]] = {}
        self._traffic: dict[VirtualServerKey, Traffic] = {}
        self._usage: dict[tuple[VirtualServerKey, RealServerKey], RealServerUsage] = {}
        self._failures: list[tuple[Matches, int]] = []
        self._observe_failures: list[NetlinkError] = []
        self._interfaces = interfaces
        self._timeouts = Timeouts()
        self._daemons: dict[SyncRole, SyncDaemon] = {}
        self._connections: tuple[Connection, ...] = ()
        self._census: Mapping[VirtualServerKey, int] = {}

    # ---- hooks

    def fail_next(self, matches: type[Request] | Matches, number: int) -> None:
        """Refuse the next request that `matches` (a request class or a predicate) with errno `number`, once."""
        if isinstance(matches, type):
            wanted: type[Request] = matches
            self._failures.append((lambda request: isinstance(request, wanted), number))
        else:
            self._failures.append((matches, number))

    def fail_next_observe(self, error: NetlinkError) -> None:
        """Raise `error` from the next `observe`, once."""
        self._observe_failures.append(error)

    def set_usage(self, virtual_server: VirtualServerKey, real_server: RealServerKey, usage: RealServerUsage) -> None:
        """Say what a real server carries, until it is deleted."""
        self._usage[virtual_server, real_server] = usage

    def set_traffic(self, virtual_server: VirtualServerKey, traffic: Traffic) -> None:
        """Say what a virtual server has carried, until it is deleted."""
        self._traffic[virtual_server] = traffic

    def set_connections(self, *connections: Connection) -> None:
        """Say which connections there are."""
        self._connections = connections

    # ---- Client

    def close(self) -> None:
        """Do nothing; the table stays, as the kernel's does."""

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing."""

    def info(self) -> Info:
        """Return the version that every kernel since 2.6 has, and the usual table size."""
        return Info(version=(1, 2, 1), connection_table_size=4096)

    def timeouts(self) -> Timeouts:
        """Return the timeouts, at first those that a kernel starts with."""
        return self._timeouts

    def sync_daemons(self) -> tuple[SyncDaemon, ...]:
        """Return the synchronisation daemons that were started, a master first."""
        return tuple(self._daemons[role] for role in sorted(self._daemons))

    def observe(self, only: Iterable[VirtualServerKey] | None = None) -> Observed:
        """Return the table, or `only` some of it, with the counters that tests set."""
        if self._observe_failures:
            raise self._observe_failures.pop(0)
        asked = tuple(self._virtual_servers if only is None else only)
        for key in asked:
            codec.encode_question(key)
        keys = [key for key in asked if key in self._virtual_servers]
        return Observed(
            table={
                key: TableEntry(virtual_server=self._virtual_servers[key], real_servers=dict(self._real_servers[key]))
                for key in keys
            },
            traffic={key: self._traffic.get(key, Traffic()) for key in keys},
            usage={
                key: {real: self._usage.get((key, real), RealServerUsage()) for real in self._real_servers[key]}
                for key in keys
            },
        )

    def glance(self) -> Glance:
        """Return the table as it is, without options of tunnels that are none."""
        return Glance(
            tuple(self._virtual_servers.values()),
            tuple(self._virtual_servers),
            [tuple(map(_without_idle_tunnel, self._real_servers[key].values())) for key in self._virtual_servers],
            values=tuple(self._virtual_servers.values()),
            key_of=_same,
        )

    def census(self) -> Mapping[VirtualServerKey, int]:
        """Return how many real servers each virtual server of IPv4 has."""
        now = {key: len(each) for key, each in self._real_servers.items() if key.family is Family.IPV4}
        if now != self._census:
            self._census = now
        return self._census

    def forget(self) -> None:
        """Do nothing: it remembers no reading."""

    def connections(self) -> Generator[Connection, None, None]:
        """Yield the connections that a test set."""
        yield from self._connections

    def lacking(self, *, schedulers: Iterable[str] = (), persistence_engines: Iterable[str] = ()) -> Lacking:
        """Return which of these its kernel does not have."""
        lacking = Lacking(
            schedulers=frozenset(schedulers) - self._schedulers,
            persistence_engines=frozenset(persistence_engines) - PERSISTENCE_ENGINES,
        )
        key = VirtualServerKey.by_mark(1)
        tried = [VirtualServer(key=key, scheduler=name) for name in lacking.schedulers]
        tried += [VirtualServer(key=key, persistence_engine=name) for name in lacking.persistence_engines]
        for each in tried:
            if (invalid := codec.unsent(AddVirtualServer(virtual_server=each))) is not None:
                raise invalid
        return lacking

    def apply(self, requests: Sequence[Request]) -> list[Refused | None]:
        """Carry out `requests` in order; return one result each, None where it was done."""
        return [codec.unsent(request) or self._apply_one(request) for request in requests]

    # ---- the kernel's part

    def _apply_one(self, request: Request) -> Refused | None:
        self.writes.append(request)
        number = self._injected(request) or self._change(request)
        return refusal(request, number, self._lacked_by(request)) if number else None

    def _lacked_by(self, request: Request) -> Lacking:
        if not isinstance(request, AddVirtualServer | SetVirtualServer):
            return Lacking()
        wanted = request.virtual_server
        engine = wanted.persistence_engine
        return self.lacking(schedulers=(wanted.scheduler,), persistence_engines=() if engine is None else (engine,))

    def _injected(self, request: Request) -> int:
        for index, (matches, number) in enumerate(self._failures):
            if matches(request):
                del self._failures[index]
                return number
        return 0

    def _change(self, request: Request) -> int:
        """Return 0 and have it done, or the errno."""
        match request:
            case AddVirtualServer(virtual_server=virtual_server) | SetVirtualServer(virtual_server=virtual_server):
                return self._write_virtual_server(virtual_server, add=isinstance(request, AddVirtualServer))
            case DeleteVirtualServer(key=key):
                if key not in self._virtual_servers:
                    return errno.ESRCH
                for real_server in tuple(self._real_servers[key]):
                    self._forget(key, real_server)
                del self._virtual_servers[key], self._real_servers[key]
                self._traffic.pop(key, None)
                return 0
            case AddRealServer(virtual_server=parent, real_server=real_server):
                return self._write_real_server(parent, real_server, add=True)
            case SetRealServer(virtual_server=parent, real_server=real_server):
                return self._write_real_server(parent, real_server, add=False)
            case DeleteRealServer(virtual_server=parent, key=real_server_key):
                if real_server_key not in self._real_servers.get(parent, {}):
                    return errno.ENOENT if parent in self._virtual_servers else errno.ESRCH
                self._forget(parent, real_server_key)
                return 0
            case _:
                return self._change_other(request)

    def _change_other(self, request: OtherRequest) -> int:
        match request:
            case ZeroCounters(key=key):
                return self._zero(key)
            case SetTimeouts(timeouts=timeouts):
                self._timeouts = timeouts
            case StartSyncDaemon(daemon=daemon):
                return self._start(daemon)
            case StopSyncDaemon(role=role):
                return 0 if self._daemons.pop(role, None) else errno.ESRCH
            case Flush():
                for key in tuple(self._virtual_servers):
                    self._change(DeleteVirtualServer(key=key))
            case _:
                assert_never(request)
        return 0

    def _zero(self, key: VirtualServerKey | None) -> int:
        if key is not None and key not in self._virtual_servers:
            return errno.ESRCH
        for each in self._virtual_servers if key is None else (key,):
            self._traffic.pop(each, None)
            for real_server in self._real_servers[each]:
                if (usage := self._usage.get((each, real_server))) is not None:
                    kept = RealServerUsage(active=usage.active, inactive=usage.inactive, persistent=usage.persistent)
                    self._usage[each, real_server] = kept
        return 0

    def _start(self, daemon: SyncDaemon) -> int:
        mixed = any(
            family_of(real_server.address) is not key.family
            for key, real_servers in self._real_servers.items()
            for real_server in real_servers
        )
        if mixed:
            return errno.EINVAL
        if daemon.interface not in self._interfaces:
            return errno.ENODEV
        if daemon.role in self._daemons:
            return errno.EEXIST
        overhead = 28 if daemon.group.version == 4 else 48  # IP and UDP headers
        mtu = 1500
        if daemon.role is SyncRole.BACKUP:
            mtu = min(max(self._interfaces[daemon.interface], 1500), 65535)
        length = mtu - overhead if daemon.max_length is None else daemon.max_length
        self._daemons[daemon.role] = attrs.evolve(daemon, max_length=length)
        return 0

    def _forget(self, parent: VirtualServerKey, key: RealServerKey) -> None:
        del self._real_servers[parent][key]
        self._usage.pop((parent, key), None)

    def _write_virtual_server(self, virtual_server: VirtualServer, *, add: bool) -> int:
        key = virtual_server.key
        if add and key in self._virtual_servers:
            return errno.EEXIST
        if not add and key not in self._virtual_servers:
            return errno.ESRCH
        if virtual_server.scheduler not in self._schedulers:
            return errno.ENOENT
        if virtual_server.persistence_engine not in (None, *PERSISTENCE_ENGINES):
            return errno.ENOENT
        self._virtual_servers[key] = codec.as_read_back(virtual_server)
        self._real_servers.setdefault(key, {})
        return 0

    def _write_real_server(self, parent: VirtualServerKey, real_server: RealServer, *, add: bool) -> int:
        if parent not in self._virtual_servers:
            return errno.ESRCH
        address = real_server.key.address
        if family_of(address) is not parent.family and (
            real_server.forwarding is not Forwarding.TUNNEL or self._daemons
        ):
            return errno.EINVAL
        if real_server.lower_threshold > real_server.upper_threshold:
            return errno.ERANGE
        siblings = self._real_servers[parent]
        if add and real_server.key in siblings:
            return errno.EEXIST
        if not add and real_server.key not in siblings:
            return errno.ENOENT
        if add and not _may_be_real_server(address):
            return errno.EINVAL
        siblings[real_server.key] = real_server
        return 0


def _may_be_real_server(address: Address) -> bool:
    """Return whether ip_vs_new_dest takes an address; only the kernel knows its interfaces' broadcast addresses."""
    refused = address.is_multicast or address.is_unspecified
    if address.version == 4:
        return not refused and int(address) != 2**32 - 1
    return not refused and not address.is_link_local and address.ipv4_mapped is None


def _same(key: VirtualServerKey) -> VirtualServerKey:
    return key


def _without_idle_tunnel(real_server: RealServer) -> RealServer:
    options = real_server.tunnel_type or real_server.tunnel_port or real_server.tunnel_flags
    if real_server.forwarding is Forwarding.TUNNEL or not options:
        return real_server
    return RealServer(
        key=real_server.key,
        forwarding=real_server.forwarding,
        weight=real_server.weight,
        upper_threshold=real_server.upper_threshold,
        lower_threshold=real_server.lower_threshold,
    )

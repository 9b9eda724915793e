"""Changes of the IPVS table as values, and what each refusal of the kernel means for them.

Pure. `codec` turns a request into bytes, `ipvs` sends it. A set replaces the whole object in the kernel, so requests
carry complete objects and never parts. The meanings follow net/netfilter/ipvs/ip_vs_ctl.c.
"""

import errno
from collections.abc import Iterable, Mapping
from typing import ClassVar, Final

import attrs

from netlink.errors import Refused
from netlink.types import (
    Lacking,
    RealServer,
    RealServerKey,
    SyncDaemon,
    SyncRole,
    Timeouts,
    VirtualServer,
    VirtualServerKey,
)


class _Change:
    """What every request is besides its values: an operation on a target, and so it reads in errors and logs.

    No abstract class: those make `isinstance` slow, and there are thousands of requests to tell apart.
    """

    __slots__ = ()

    operation: ClassVar[str]

    @property
    def target(self) -> str:
        """Return what is changed, as text."""
        raise NotImplementedError

    def __str__(self) -> str:
        """Return `add real server 10.0.0.1:80 to tcp 10.9.0.100:80`."""
        return f"{self.operation} {self.target}"


@attrs.frozen(kw_only=True)
class AddVirtualServer(_Change):
    """Create a virtual server without real servers."""

    operation: ClassVar[str] = "add virtual server"
    virtual_server: VirtualServer

    @property
    def target(self) -> str:
        """Return the virtual server as text."""
        return str(self.virtual_server.key)


@attrs.frozen(kw_only=True)
class SetVirtualServer(_Change):
    """Replace the configuration of a virtual server; its real servers and connections stay."""

    operation: ClassVar[str] = "set virtual server"
    virtual_server: VirtualServer

    @property
    def target(self) -> str:
        """Return the virtual server as text."""
        return str(self.virtual_server.key)


@attrs.frozen(kw_only=True)
class DeleteVirtualServer(_Change):
    """Delete a virtual server with all its real servers."""

    operation: ClassVar[str] = "delete virtual server"
    key: VirtualServerKey

    @property
    def target(self) -> str:
        """Return the virtual server as text."""
        return str(self.key)


@attrs.frozen(kw_only=True)
class AddRealServer(_Change):
    """Add a real server to a virtual server."""

    operation: ClassVar[str] = "add real server"
    virtual_server: VirtualServerKey
    real_server: RealServer

    @property
    def target(self) -> str:
        """Return `10.0.0.1:80 to tcp 10.9.0.100:80`."""
        return f"{self.real_server.key} to {self.virtual_server}"


@attrs.frozen(kw_only=True)
class SetRealServer(_Change):
    """Replace the configuration of a real server; its connections stay."""

    operation: ClassVar[str] = "set real server"
    virtual_server: VirtualServerKey
    real_server: RealServer

    @property
    def target(self) -> str:
        """Return `10.0.0.1:80 of tcp 10.9.0.100:80`."""
        return f"{self.real_server.key} of {self.virtual_server}"


@attrs.frozen(kw_only=True)
class DeleteRealServer(_Change):
    """Delete a real server; packets of its live connections are dropped from then on."""

    operation: ClassVar[str] = "delete real server"
    virtual_server: VirtualServerKey
    key: RealServerKey

    @property
    def target(self) -> str:
        """Return `10.0.0.1:80 from tcp 10.9.0.100:80`."""
        return f"{self.key} from {self.virtual_server}"


@attrs.frozen(kw_only=True)
class ZeroCounters(_Change):
    """Have the counters of one virtual server and its real servers, or of all, start from 0 again."""

    operation: ClassVar[str] = "zero counters"
    key: VirtualServerKey | None = None  # None: of all

    @property
    def target(self) -> str:
        """Return the virtual server as text."""
        return "of all virtual servers" if self.key is None else f"of {self.key}"


@attrs.frozen(kw_only=True)
class SetTimeouts(_Change):
    """Replace the timeouts of idle connections; those there already keep theirs until the next packet."""

    operation: ClassVar[str] = "set timeouts"
    timeouts: Timeouts

    @property
    def target(self) -> str:
        """Return the seconds."""
        return f"tcp {self.timeouts.tcp} tcp-fin {self.timeouts.tcp_fin} udp {self.timeouts.udp}"


@attrs.frozen(kw_only=True)
class StartSyncDaemon(_Change):
    """Start a synchronisation daemon; to change one, stop it first."""

    operation: ClassVar[str] = "start synchronisation daemon"
    daemon: SyncDaemon

    @property
    def target(self) -> str:
        """Return role and interface."""
        return f"{self.daemon.role.name.lower()} on {self.daemon.interface}"


@attrs.frozen(kw_only=True)
class StopSyncDaemon(_Change):
    """Stop the synchronisation daemon of one role."""

    operation: ClassVar[str] = "stop synchronisation daemon"
    role: SyncRole

    @property
    def target(self) -> str:
        """Return the role."""
        return self.role.name.lower()


@attrs.frozen(kw_only=True)
class Flush(_Change):
    """Delete every virtual server of this network namespace, whoever made it; connections stay until they time out.

    To reload a table is no use for it: the kernel keeps deleted real servers for two minutes in a list that every
    addition searches.
    """

    operation: ClassVar[str] = "flush"

    @property
    def target(self) -> str:
        """Return what goes."""
        return "the IPVS table"


VirtualServerRequest = AddVirtualServer | SetVirtualServer | DeleteVirtualServer
RealServerRequest = AddRealServer | SetRealServer | DeleteRealServer
TableRequest = VirtualServerRequest | RealServerRequest
OtherRequest = ZeroCounters | SetTimeouts | StartSyncDaemon | StopSyncDaemon | Flush
Request = TableRequest | OtherRequest

_ANY_REQUEST: Final[Mapping[int, str]] = {
    errno.EPERM: "not permitted: changing IPVS needs CAP_NET_ADMIN in the initial user namespace; run as root",
    errno.ENOMEM: "the kernel is out of memory",
    errno.EINTR: "the kernel gave no answer, so whether it took effect is unknown: read the table again",
    errno.ENOBUFS: "its acknowledgement was lost, so whether it took effect is unknown: read the table again",
    errno.EAFNOSUPPORT: "the kernel's IPVS was built without this address family",
}
NOTHING_KNOWN: Final = Lacking()
_NO_VIRTUAL_SERVER: Final = "there is no such virtual server"
_THRESHOLDS: Final = "the lower threshold is above the upper one"
_ADDRESS: Final = (
    "the address cannot be a real server: it is multicast, broadcast, unspecified or link-local, or no interface is up"
)
_FAMILIES: Final = (
    "the address is not of the virtual server's family, which only tunnel forwarding allows, and only while no "
    "synchronisation daemon runs"
)


def _unknown_name(virtual_server: VirtualServer, lacking: Lacking) -> str:
    scheduler = f"scheduler {virtual_server.scheduler!r}"
    if virtual_server.persistence_engine is None:
        return f"the kernel has no {scheduler}, and found no module for it"
    engine = f"persistence engine {virtual_server.persistence_engine!r}"
    missing = [scheduler] if virtual_server.scheduler in lacking.schedulers else []
    if virtual_server.persistence_engine in lacking.persistence_engines:
        missing.append(engine)
    names = " and no ".join(missing) or f"{scheduler} or {engine}"
    return f"the kernel has no {names}, and found no module for it"


def _meanings(request: Request, lacking: Lacking) -> Mapping[int, str]:
    match request:
        case AddVirtualServer(virtual_server=virtual_server):
            return {
                errno.EEXIST: "this virtual server exists already",
                errno.ENOENT: _unknown_name(virtual_server, lacking),
                errno.EINVAL: "the kernel refuses these values",
            }
        case SetVirtualServer(virtual_server=virtual_server):
            return {
                errno.ESRCH: _NO_VIRTUAL_SERVER,
                errno.ENOENT: _unknown_name(virtual_server, lacking),
                errno.EINVAL: "the kernel refuses these values",
            }
        case DeleteVirtualServer():
            return {errno.ESRCH: _NO_VIRTUAL_SERVER}
        case AddRealServer(virtual_server=key, real_server=real_server):
            return {
                errno.ESRCH: _NO_VIRTUAL_SERVER,
                errno.EEXIST: "this real server exists already in that virtual server",
                errno.EINVAL: _ADDRESS if real_server.key.family == key.family else _FAMILIES,
                errno.ERANGE: _THRESHOLDS,
            }
        case SetRealServer(virtual_server=key, real_server=real_server):
            return {
                errno.ESRCH: _NO_VIRTUAL_SERVER,
                errno.ENOENT: "there is no such real server in that virtual server",
                errno.EINVAL: _ADDRESS if real_server.key.family == key.family else _FAMILIES,
                errno.ERANGE: _THRESHOLDS,
            }
        case DeleteRealServer():
            return {
                errno.ESRCH: _NO_VIRTUAL_SERVER,
                errno.ENOENT: "there is no such real server in that virtual server",
            }
        case _:
            return _other_meanings(request)


def _other_meanings(request: OtherRequest) -> Mapping[int, str]:
    match request:
        case ZeroCounters():
            return {errno.ESRCH: _NO_VIRTUAL_SERVER}
        case SetTimeouts():
            return {errno.EINVAL: "the kernel refuses a timeout of this many seconds"}
        case StartSyncDaemon(daemon=daemon):
            return {
                errno.EEXIST: f"a synchronisation daemon is {daemon.role.name.lower()} already; stop it first",
                errno.ENODEV: f"there is no interface {daemon.interface!r}, or it has no address of the group's family",
                errno.ENETUNREACH: f"interface {daemon.interface!r} has no way to the group {daemon.group}: it is "
                "down, or has no address and no route of that family",
                errno.EADDRINUSE: f"another program listens on UDP port {daemon.port}",
                errno.EINVAL: "the kernel refuses the values, or a real server of another family than its virtual "
                "server is in the table, which excludes synchronisation",
            }
        case StopSyncDaemon(role=role):
            return {
                errno.ESRCH: f"no synchronisation daemon is {role.name.lower()}",
                errno.EINTR: "the kernel gave no answer, so whether it stopped is unknown: read the daemons",
            }
        case Flush():
            return {}


def refusal(request: Request, number: int, lacking: Lacking = NOTHING_KNOWN) -> Refused:
    """Return the kernel's answer `number` (a positive errno) to `request` as an error that says what it means.

    ENOENT may stand for either of two names; `lacking` says which, where somebody has found out.
    """
    meaning = _meanings(request, lacking).get(number) or _ANY_REQUEST.get(number)
    return Refused(request.operation, request.target, number, meaning)


def fill(virtual_server: VirtualServer, real_servers: Iterable[RealServer]) -> tuple[Request, ...]:
    """Return the requests that create `virtual_server` with `real_servers` in the order that the kernel does fastest.

    Maglev hashing (`mh`) builds its whole table anew for every real server. So one of those has no scheduler while it
    is filled, which refuses new connections no longer than it takes to make the others. The scheduler is named first
    too, for a kernel without it then refuses the first request, and with it all. It is for a virtual server that is
    not there yet: of one that is, the first request is refused and the others change what they find.
    """
    key = virtual_server.key
    additions = [AddRealServer(virtual_server=key, real_server=real_server) for real_server in real_servers]
    if virtual_server.scheduler != "mh" or len(additions) < 2:
        return (AddVirtualServer(virtual_server=virtual_server), *additions)
    unscheduled = attrs.evolve(virtual_server, scheduler="none")
    return (
        AddVirtualServer(virtual_server=virtual_server),
        SetVirtualServer(virtual_server=unscheduled),
        *additions,
        SetVirtualServer(virtual_server=virtual_server),
    )

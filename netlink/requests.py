"""Changes of the IPVS table as values, and what each refusal of the kernel means for them.

Pure. `codec` turns a request into bytes, `ipvs` sends it. A set replaces the whole object in the kernel, so requests
carry complete objects and never parts. The meanings follow net/netfilter/ipvs/ip_vs_ctl.c.
"""

import abc
import errno
from collections.abc import Mapping
from typing import ClassVar, Final

import attrs

from netlink.errors import Refused
from netlink.types import RealServer, RealServerKey, VirtualServer, VirtualServerKey


class _Change(abc.ABC):
    """What every request is besides its values: an operation on a target, and so it reads in errors and logs."""

    __slots__ = ()

    operation: ClassVar[str]

    @property
    @abc.abstractmethod
    def target(self) -> str:
        """Return what is changed, as text."""

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


VirtualServerRequest = AddVirtualServer | SetVirtualServer | DeleteVirtualServer
RealServerRequest = AddRealServer | SetRealServer | DeleteRealServer
Request = VirtualServerRequest | RealServerRequest

_ANY_REQUEST: Final[Mapping[int, str]] = {
    errno.EPERM: "not permitted: changing IPVS needs CAP_NET_ADMIN in the initial user namespace; run as root",
    errno.ENOMEM: "the kernel is out of memory",
    errno.ENOBUFS: "its acknowledgement was lost, so whether it took effect is unknown: read the table again",
    errno.EAFNOSUPPORT: "the kernel's IPVS was built without this address family",
}
_NO_VIRTUAL_SERVER: Final = "there is no such virtual server"
_THRESHOLDS: Final = "the lower threshold is above the upper one, or the weight is out of range"
_ADDRESS: Final = (
    "the address cannot be a real server (multicast, broadcast, unspecified or link-local), "
    "or its family differs from the virtual server's, which only tunnel forwarding allows"
)
_PERSISTENCE_PREFIX: Final = "the kernel refuses the values; an IPv6 persistence prefix must be 1 to 128"


def _unknown_name(virtual_server: VirtualServer) -> str:
    names = f"scheduler {virtual_server.scheduler!r}"
    if virtual_server.persistence_engine is not None:
        names += f" or persistence engine {virtual_server.persistence_engine!r}"
    return f"the kernel has no {names}, and found no module for it"


def _meanings(request: Request) -> Mapping[int, str]:
    match request:
        case AddVirtualServer(virtual_server=virtual_server):
            return {
                errno.EEXIST: "this virtual server exists already",
                errno.ENOENT: _unknown_name(virtual_server),
                errno.EINVAL: _PERSISTENCE_PREFIX,
            }
        case SetVirtualServer(virtual_server=virtual_server):
            return {
                errno.ESRCH: _NO_VIRTUAL_SERVER,
                errno.ENOENT: _unknown_name(virtual_server),
                errno.EINVAL: _PERSISTENCE_PREFIX,
            }
        case DeleteVirtualServer():
            return {errno.ESRCH: _NO_VIRTUAL_SERVER}
        case AddRealServer():
            return {
                errno.ESRCH: _NO_VIRTUAL_SERVER,
                errno.EEXIST: "this real server exists already in that virtual server",
                errno.EINVAL: _ADDRESS,
                errno.ERANGE: _THRESHOLDS,
            }
        case SetRealServer():
            return {
                errno.ESRCH: _NO_VIRTUAL_SERVER,
                errno.ENOENT: "there is no such real server in that virtual server",
                errno.EINVAL: _ADDRESS,
                errno.ERANGE: _THRESHOLDS,
            }
        case DeleteRealServer():
            return {
                errno.ESRCH: _NO_VIRTUAL_SERVER,
                errno.ENOENT: "there is no such real server in that virtual server",
            }


def refusal(request: Request, number: int) -> Refused:
    """Return the kernel's answer `number` (a positive errno) to `request` as an error that says what it means."""
    meaning = _meanings(request).get(number) or _ANY_REQUEST.get(number)
    return Refused(request.operation, request.target, number, meaning)

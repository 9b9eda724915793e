"""Finds out which schedulers and persistence engines a kernel lacks: by trying, for there is no list to read.

Pure but for `send`. A kernel loads the module of a name when it is first asked for, so only a request shows what it can
have. What is asked for is a virtual server that no kernel makes: of IPv6, with a persistence prefix of 0 bits. The
kernel looks up the names (ENOENT), then the prefix (EINVAL), and makes something only after that; seen on 5.10 to 7.2.
So no table is touched, and no more permission is needed than for IPVS. Modules that were loaded on the way stay.

Not in a network namespace made for it, which would be the obvious way: one that ends soon after its first virtual
server can stop a kernel's IPVS for good, in every namespace. Seen on 6.12: the end of the namespace holds the lock of
IPVS while it waits for the estimator's thread, and that thread waits for the lock (ip_vs_est_kthread_destroy).
Source: ip_vs_add_service in net/netfilter/ipvs/ip_vs_ctl.c.
"""

import errno
import struct
from collections.abc import Callable, Iterable
from typing import Final

from netlink import codec, framing
from netlink.errors import Invalid, Unavailable
from netlink.requests import AddVirtualServer, DeleteVirtualServer, refusal
from netlink.types import Family, Lacking, VirtualServer, VirtualServerKey

Send = Callable[[int, bytes], int]
"""Sends a command with attributes; returns the positive errno, 0 when it was done."""

_SERVICE, _NETMASK = 1, 9  # IPVS_CMD_ATTR_SERVICE, IPVS_SVC_ATTR_NETMASK
_KEYS: Final = tuple(VirtualServerKey.by_mark(2**32 - n, Family.IPV6) for n in range(1, 9))
_ALWAYS_THERE: Final = "none"  # a scheduler that needs no module


def lacking(send: Send, *, schedulers: Iterable[str] = (), persistence_engines: Iterable[str] = ()) -> Lacking:
    """Return which of these the kernel does not have.

    Raises Invalid for what cannot be a name, Unavailable where the kernel's IPVS has no IPv6, Refused where the kernel
    refuses for another reason.
    """
    return Lacking(
        schedulers=frozenset(name for name in schedulers if _lacks(send, name, None)),
        persistence_engines=frozenset(name for name in persistence_engines if _lacks(send, _ALWAYS_THERE, name)),
    )


def _lacks(send: Send, scheduler: str, engine: str | None) -> bool:
    for key in _KEYS:
        wanted = VirtualServer(key=key, scheduler=scheduler, persistence=1, persistence_engine=engine)
        add = AddVirtualServer(virtual_server=wanted)
        try:
            command, body = codec.encode_request(add)
        except ValueError as error:
            raise Invalid(add.operation, add.target, str(error)) from error
        number = send(command, _without_prefix(body))
        if number == errno.EEXIST:  # somebody has a virtual server of this mark
            continue
        if number == 0:  # a kernel of the future, that takes it
            send(*codec.encode_request(DeleteVirtualServer(key=key)))
        if number in (0, errno.EINVAL, errno.ENOENT):
            return number == errno.ENOENT
        if number == errno.EAFNOSUPPORT:
            raise Unavailable("try", "what the kernel has", "its IPVS was built without IPv6, by which it is tried")
        raise refusal(add, number)
    raise Unavailable("try", "what the kernel has", f"the firewall marks for it, from {_KEYS[-1].mark} on, are taken")


def _without_prefix(body: bytes) -> bytes:
    """Return the attributes with a prefix of 0 bits; of an attribute that comes twice the last counts."""
    service = framing.attributes(body)[_SERVICE] + framing.attribute(_NETMASK, struct.pack("=I", 0))
    return framing.attribute(_SERVICE, service, nested=True)

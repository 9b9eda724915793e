"""Finds out which schedulers and persistence engines a kernel lacks: by trying, for there is no list to read.

A kernel loads the module of a name when it is first asked for, so only a request shows what it can have. Such requests
are made where they touch nobody: in a network namespace that a thread of ours makes for itself, and that ends with the
thread. This takes CAP_SYS_ADMIN, more than IPVS needs. Modules that were loaded on the way stay loaded.
Source: ip_vs_add_service in net/netfilter/ipvs/ip_vs_ctl.c, unshare(2).
"""

import errno
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Final

from netlink.client import Client
from netlink.errors import Unavailable
from netlink.namespace import leave
from netlink.requests import AddVirtualServer, DeleteVirtualServer
from netlink.types import Lacking, VirtualServer, VirtualServerKey

PATIENCE: Final = 10.0  # seconds; the kernel runs modprobe, whose time is not ours to know

OpenClient = Callable[[], AbstractContextManager[Client]]

_KEY: Final = VirtualServerKey.by_mark(1)
NO_SCHEDULER: Final = "none"  # the one that every kernel has


def lacking(
    open_client: OpenClient,
    *,
    schedulers: Iterable[str] = (),
    persistence_engines: Iterable[str] = (),
    within: float = PATIENCE,
) -> Lacking:
    """Return which of these the kernel does not have; `open_client` opens a client of the current network namespace.

    Raises Unavailable where we may not make a network namespace or the kernel takes longer than `within` seconds,
    Invalid for what cannot be a name, Refused where the kernel refuses for another reason.
    """
    by_scheduler = {name: VirtualServer(key=_KEY, scheduler=name) for name in schedulers}
    by_engine = {
        name: VirtualServer(key=_KEY, scheduler=NO_SCHEDULER, persistence=1, persistence_engine=name)
        for name in persistence_engines
    }
    found: list[Lacking | BaseException] = []

    def find() -> None:
        try:
            leave()
            with open_client() as client:
                found.append(
                    Lacking(
                        schedulers=frozenset(name for name, each in by_scheduler.items() if _lacks(client, each)),
                        persistence_engines=frozenset(name for name, each in by_engine.items() if _lacks(client, each)),
                    )
                )
        except BaseException as error:  # noqa: BLE001 -- raised again below, in the caller's thread
            found.append(error)

    thread = threading.Thread(target=find, name="netlink probe", daemon=True)
    thread.start()
    thread.join(within)
    if thread.is_alive():
        reason = f"no answer within {within:g} s; a module may still be loading"
        raise Unavailable("try", "what the kernel has", reason)
    (result,) = found
    if isinstance(result, BaseException):
        raise result
    return result


def _lacks(client: Client, virtual_server: VirtualServer) -> bool:
    # Deleted in the same batch: /proc/net/ip_vs of every namespace is the worse for virtual servers in another.
    refused, _ = client.apply([AddVirtualServer(virtual_server=virtual_server), DeleteVirtualServer(key=_KEY)])
    if refused is not None and refused.errno != errno.ENOENT:
        raise refused
    return refused is not None

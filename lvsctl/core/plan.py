"""Ordered steps from what the kernel has to what we want.

Pure. `apply` sends the steps. Order matters to traffic: what is new comes first and what leaves comes last, so a
virtual server never passes through fewer real servers than both ends have; weights rise before they fall.
Changes are made in place (SET), never by deleting and adding, and equal tables need no step. A `Stage` says what may
only be done once what comes before it is known to have worked.
"""

import enum
from collections.abc import Iterator

from netlink.requests import (
    AddRealServer,
    AddVirtualServer,
    DeleteRealServer,
    DeleteVirtualServer,
    SetRealServer,
    SetVirtualServer,
    TableRequest,
)
from netlink.types import RealServers, TableEntry, VirtualServerKey


class Stage(enum.IntEnum):
    """What a request does to traffic; the stages of all virtual servers are carried out one after the other."""

    PREPARE = 0  # virtual servers that come or change
    BRING = 1  # real servers that come or change
    REMOVE = 2  # real servers that are quiesced or go, virtual servers that go


def stage_of(request: TableRequest) -> Stage:
    """Return the stage that `request` belongs to."""
    match request:
        case AddVirtualServer() | SetVirtualServer():
            return Stage.PREPARE
        case AddRealServer():
            return Stage.BRING
        case SetRealServer(real_server=real_server):
            return Stage.BRING if real_server.weight > 0 else Stage.REMOVE
        case DeleteRealServer() | DeleteVirtualServer():
            return Stage.REMOVE


def plan_virtual_server(intended: TableEntry | None, observed: TableEntry | None) -> Iterator[TableRequest]:
    """Yield the requests that turn `observed` into `intended`; None stands for a virtual server that is not there."""
    if intended is None:
        if observed is not None:
            yield DeleteVirtualServer(key=observed.virtual_server.key)
        return
    key = intended.virtual_server.key
    if observed is None:
        yield AddVirtualServer(virtual_server=intended.virtual_server)
        yield from plan_real_servers(key, intended.real_servers, {})
        return
    if intended.virtual_server != observed.virtual_server:
        yield SetVirtualServer(virtual_server=intended.virtual_server)
    yield from plan_real_servers(key, intended.real_servers, observed.real_servers)


def plan_real_servers(
    virtual_server: VirtualServerKey, intended: RealServers, observed: RealServers
) -> Iterator[TableRequest]:
    """Yield the requests that turn `observed` into `intended`; none when they are equal."""
    for key in sorted(intended.keys() - observed.keys()):
        yield AddRealServer(virtual_server=virtual_server, real_server=intended[key])
    changed = [key for key in intended.keys() & observed.keys() if intended[key] != observed[key]]
    for key in sorted(changed, key=lambda key: (intended[key].weight < observed[key].weight, key)):
        yield SetRealServer(virtual_server=virtual_server, real_server=intended[key])
    for key in sorted(observed.keys() - intended.keys()):
        yield DeleteRealServer(virtual_server=virtual_server, key=key)

"""IPVS (Linux Virtual Server) tables as values, over a raw netlink socket.

    with netlink.IPVS() as ipvs:
        key = netlink.VirtualServerKey.by_address(netlink.Protocol.TCP, IPv4Address("10.9.0.100"), 80)
        add = netlink.AddVirtualServer(virtual_server=netlink.VirtualServer(key=key, scheduler="wrr"))
        for refused in filter(None, ipvs.apply([add])):
            print(refused)
        print(ipvs.observe().table[key])

`types` has the values, `requests` the changes, `ipvs` the client and `fake` one without a kernel. To be imported by
name: `aio` has the client for asyncio, `settings` reads what the kernel's IPVS is set to, and `addresses` (it needs
pyroute2) puts virtual addresses on an interface. All but `aio` blocks.
"""

from netlink.client import Client
from netlink.codec import differences
from netlink.errors import Interrupted, Invalid, Malformed, NetlinkError, Refused, Unavailable
from netlink.fake import FakeIPVS
from netlink.glance import Glance
from netlink.ipvs import IPVS
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
    Address,
    Connection,
    Family,
    Forwarding,
    Info,
    Lacking,
    Observed,
    Protocol,
    RealServer,
    RealServerKey,
    RealServerUsage,
    SchedulerFlag,
    SyncDaemon,
    SyncRole,
    Table,
    TableEntry,
    Timeouts,
    Traffic,
    Tunnel,
    TunnelFlag,
    VirtualServer,
    VirtualServerKey,
)

__all__ = [
    "IPVS",
    "AddRealServer",
    "AddVirtualServer",
    "Address",
    "Client",
    "Connection",
    "DeleteRealServer",
    "DeleteVirtualServer",
    "FakeIPVS",
    "Family",
    "Flush",
    "Forwarding",
    "Glance",
    "Info",
    "Interrupted",
    "Invalid",
    "Lacking",
    "Malformed",
    "NetlinkError",
    "Observed",
    "Protocol",
    "RealServer",
    "RealServerKey",
    "RealServerUsage",
    "Refused",
    "Request",
    "SchedulerFlag",
    "SetRealServer",
    "SetTimeouts",
    "SetVirtualServer",
    "StartSyncDaemon",
    "StopSyncDaemon",
    "SyncDaemon",
    "SyncRole",
    "Table",
    "TableEntry",
    "Timeouts",
    "Traffic",
    "Tunnel",
    "TunnelFlag",
    "Unavailable",
    "VirtualServer",
    "VirtualServerKey",
    "ZeroCounters",
    "differences",
    "fill",
]

"""Clients for tests: one in memory, and the real one; all as a kernel starts it before and after a test."""

from collections.abc import Iterator

import pytest

from netlink.client import Client
from netlink.fake import FakeIPVS
from netlink.ipvs import IPVS
from netlink.requests import DeleteVirtualServer, Request, SetTimeouts, StopSyncDaemon
from netlink.types import Timeouts


def empty(client: Client) -> None:
    """Delete every virtual server."""
    found = client.observe().table
    assert not [refused for refused in client.apply([DeleteVirtualServer(key=key) for key in found]) if refused]


def reset(client: Client) -> None:
    """Have everything as a kernel starts it."""
    empty(client)
    requests: list[Request] = [StopSyncDaemon(role=daemon.role) for daemon in client.sync_daemons()]
    assert not [refused for refused in client.apply([*requests, SetTimeouts(timeouts=Timeouts())]) if refused]


@pytest.fixture
def kernel() -> Iterator[IPVS]:
    """Give the real client."""
    with IPVS() as ipvs:
        reset(ipvs)
        yield ipvs
        reset(ipvs)


@pytest.fixture(params=["fake", pytest.param("kernel", marks=pytest.mark.kernel)])
def client(request: pytest.FixtureRequest) -> Client:
    """Give each client in turn; outside the lab's kernel the real one is skipped."""
    if request.param == "fake":
        return FakeIPVS()
    real: IPVS = request.getfixturevalue("kernel")
    return real

"""Clients for tests: one in memory, and the real one on a table that is empty before and after."""

from collections.abc import Iterator

import pytest

from netlink.client import Client
from netlink.fake import FakeIPVS
from netlink.ipvs import IPVS
from netlink.requests import DeleteVirtualServer


def empty(client: Client) -> None:
    """Delete every virtual server."""
    found = client.observe().table
    assert not [refused for refused in client.apply([DeleteVirtualServer(key=key) for key in found]) if refused]


@pytest.fixture
def kernel() -> Iterator[IPVS]:
    """Give the real client."""
    with IPVS() as ipvs:
        empty(ipvs)
        yield ipvs
        empty(ipvs)


@pytest.fixture(params=["fake", pytest.param("kernel", marks=pytest.mark.kernel)])
def client(request: pytest.FixtureRequest) -> Client:
    """Give each client in turn; outside the lab's kernel the real one is skipped."""
    if request.param == "fake":
        return FakeIPVS()
    real: IPVS = request.getfixturevalue("kernel")
    return real

"""Synchronisation daemons: every attribute there and back, as bytes and through the kernel."""

import errno
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netlink import codec, framing
from netlink.ipvs import IPVS
from netlink.requests import StartSyncDaemon, StopSyncDaemon
from netlink.types import SyncDaemon, SyncRole
from tests.lab.hosts import Host, Lab
from tests.netlink.strategies import sync_daemons
from tests.netlink.test_contract import done

any_daemon = st.sampled_from(SyncRole).flatmap(sync_daemons)


@given(st.lists(any_daemon, min_size=1, max_size=3))
def test_daemons_are_read_back_as_they_were_written(daemons: list[SyncDaemon]) -> None:
    decoder = codec.daemon_decoder()
    bodies = [codec.encode_request(StartSyncDaemon(daemon=each))[1] for each in daemons]
    datagram = b"".join(framing.request(30, 9, version=1, flags=2, sequence=1, body=body) for body in bodies)
    for _ in range(2):  # the second time with what was learned
        found, offset = [], 0
        while offset < len(datagram):
            pieces, offset = decoder.split(datagram, offset)
            found += [decoder.value(settings) for settings, _ in pieces]
        assert found == daemons


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """Give a host with an interface that has addresses of both families."""
    with tempfile.TemporaryDirectory() as directory, Lab(Path(directory)) as lab:
        yield lab.host("director", front=["10.1.0.1/24", "fd00:1::1/64"])


@pytest.mark.kernel
@settings(deadline=None, max_examples=60)
@given(
    master=st.none() | sync_daemons(SyncRole.MASTER, "front"), backup=st.none() | sync_daemons(SyncRole.BACKUP, "front")
)
def test_the_kernel_keeps_every_attribute(host: Host, master: SyncDaemon | None, backup: SyncDaemon | None) -> None:
    wanted = tuple(daemon for daemon in (master, backup) if daemon is not None)
    with IPVS(host.namespace) as ipvs:
        done(ipvs, *(StartSyncDaemon(daemon=daemon) for daemon in wanted))
        try:
            assert ipvs.sync_daemons() == wanted
        finally:
            done(ipvs, *(StopSyncDaemon(role=daemon.role) for daemon in wanted))
        assert ipvs.sync_daemons() == ()


@pytest.mark.kernel
def test_what_the_kernel_decides_fits_the_interface(host: Host) -> None:
    with IPVS(host.namespace) as ipvs:
        for role in SyncRole:
            done(ipvs, StartSyncDaemon(daemon=SyncDaemon(role=role, interface="front")))
        assert [daemon.max_length for daemon in ipvs.sync_daemons()] == [1472, 1472]
        done(ipvs, *(StopSyncDaemon(role=role) for role in SyncRole))


@pytest.mark.kernel
def test_refusals_that_only_a_network_has(host: Host) -> None:
    master = SyncDaemon(role=SyncRole.MASTER, interface="front")
    backup = attrs.evolve(master, role=SyncRole.BACKUP)
    with IPVS(host.namespace) as ipvs, host.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("", 8848))
        (refused,) = ipvs.apply([StartSyncDaemon(daemon=backup)])
        assert refused is not None
        assert refused.errno == errno.EADDRINUSE
        assert "another program listens on UDP port 8848" in str(refused)
        host.ip("link set front down")
        try:
            (refused,) = ipvs.apply([StartSyncDaemon(daemon=master)])
        finally:
            host.ip("link set front up")
        assert refused is not None
        assert refused.errno == errno.ENETUNREACH
        assert "interface 'front' has no way to the group 224.0.0.81: it is down" in str(refused)
        assert ipvs.sync_daemons() == ()

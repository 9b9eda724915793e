"""The real client beyond the contract: ipvsadm as a witness, other writers, lost answers, missing permission."""

import errno
import os
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Address

import attrs
import pytest

from netlink.codec import differences
from netlink.errors import Interrupted, Unavailable
from netlink.ipvs import IPVS
from netlink.requests import (
    AddRealServer,
    AddVirtualServer,
    DeleteRealServer,
    DeleteVirtualServer,
    Request,
    SetRealServer,
)
from netlink.types import (
    IRREGULAR_MASK,
    Forwarding,
    Protocol,
    SchedulerFlag,
    Table,
    TableEntry,
    Tunnel,
    TunnelFlag,
    VirtualServer,
    VirtualServerKey,
)
from tests.netlink.test_contract import MARK6, TCP, UDP6, additions, done, entry, holds, real

pytestmark = pytest.mark.kernel


def ipvsadm(*arguments: str) -> str:
    """Run ipvsadm; return what it prints."""
    return subprocess.run(["ipvsadm", *arguments], check=True, capture_output=True, text=True, timeout=30).stdout


def test_ipvsadm_sees_what_was_written(kernel: IPVS) -> None:
    tcp = VirtualServer(key=TCP, scheduler="wrr", persistence=300, persistence_prefix=24)
    udp = VirtualServer(
        key=UDP6,
        scheduler="sh",
        scheduler_flags=SchedulerFlag.FLAG_1 | SchedulerFlag.FLAG_2,
        one_packet=True,
        persistence=60,
        persistence_prefix=64,
        persistence_engine="sip",
    )
    mark = VirtualServer(key=MARK6)
    servers = (
        real("198.51.100.1", 8080, weight=5, upper_threshold=1000, lower_threshold=500),
        real("198.51.100.2", 80, weight=0, forwarding=Forwarding.DIRECT_ROUTE),
        real("198.51.100.3", 80, weight=2**31 - 1, forwarding=Forwarding.TUNNEL),
    )
    done(kernel, *additions(entry(tcp, *servers), entry(udp, real("2001:db8::1", 53)), entry(mark)))
    assert set(ipvsadm("-Sn").replace(" \n", "\n").splitlines()) == {
        "-A -t 192.0.2.100:80 -s wrr -p 300 -M 255.255.255.0",
        "-a -t 192.0.2.100:80 -r 198.51.100.1:8080 -m -w 5",
        "-a -t 192.0.2.100:80 -r 198.51.100.2:80 -g -w 0",
        "-a -t 192.0.2.100:80 -r 198.51.100.3:80 -i -w 2147483647 --tun-type ipip",
        "-A -u [2001:db8::100]:53 -s sh -p 60 -M 64 --pe sip -o -b sh-fallback,sh-port",
        "-a -u [2001:db8::100]:53 -r [2001:db8::1]:53 -m -w 1",
        "-A -f 7 -6 -s wlc",
    }
    assert "198.51.100.1:8080            1000       500" in ipvsadm("-Ln", "--thresholds")  # -S leaves them out


def test_what_ipvsadm_wrote_is_seen(kernel: IPVS) -> None:
    ipvsadm("-A", "-u", "192.0.2.100:53", "-s", "mh", "-b", "mh-port", "-o", "-p", "50", "-M", "255.255.0.0")
    ipvsadm("-a", "-u", "192.0.2.100:53", "-r", "198.51.100.1:5353", "-g", "-w", "7", "-x", "9", "-y", "3")
    key = VirtualServerKey.by_address(Protocol.UDP, IPv4Address("192.0.2.100"), 53)
    expected = entry(
        VirtualServer(
            key=key,
            scheduler="mh",
            scheduler_flags=SchedulerFlag.FLAG_2,
            one_packet=True,
            persistence=50,
            persistence_prefix=16,
        ),
        # ipvsadm has forced the port
        real("198.51.100.1", 53, forwarding=Forwarding.DIRECT_ROUTE, weight=7, upper_threshold=9, lower_threshold=3),
    )
    assert kernel.observe().table == {key: expected}


def test_a_foreign_mask_that_is_no_prefix_hides_nothing(kernel: IPVS) -> None:
    ipvsadm("-A", "-t", "192.0.2.100:80", "-p", "50", "-M", "255.0.255.0")
    ipvsadm("-A", "-t", "192.0.2.100:81")
    prefixes = {key.port: each.virtual_server.persistence_prefix for key, each in kernel.observe().table.items()}
    assert prefixes == {80: IRREGULAR_MASK, 81: None}


def test_a_set_takes_back_the_tunnel_of_somebody_else(kernel: IPVS) -> None:
    ipvsadm("-A", "-t", "192.0.2.100:80")
    gue = ("--tun-type", "gue", "--tun-port", "6080", "--tun-nocsum")
    ipvsadm("-a", "-t", "192.0.2.100:80", "-r", "198.51.100.1", "-i", *gue)
    assert "--tun-type gue --tun-port 6080" in ipvsadm("-Sn")
    wanted = real("198.51.100.1", forwarding=Forwarding.TUNNEL)
    found = kernel.observe().table[TCP].real_servers[wanted.key]
    assert found == attrs.evolve(wanted, tunnel_type=Tunnel.GUE, tunnel_port=6080)
    assert differences(wanted, found) == ("tunnel_type", "tunnel_port")
    done(kernel, SetRealServer(virtual_server=TCP, real_server=wanted))
    assert "-r 198.51.100.1:80 -i -w 1 --tun-type ipip" in ipvsadm("-Sn")
    assert holds(kernel, entry(VirtualServer(key=TCP), wanted))


def test_an_edit_of_the_tunnel_by_hand_is_seen(kernel: IPVS) -> None:
    wanted = real("198.51.100.1", forwarding=Forwarding.TUNNEL)
    done(kernel, *additions(entry(VirtualServer(key=TCP), wanted)))
    edit = ("-e", "-t", "192.0.2.100:80", "-r", "198.51.100.1", "-i")
    ipvsadm(*edit, "--tun-type", "gue", "--tun-port", "6080", "--tun-remcsum")
    edited = attrs.evolve(wanted, tunnel_type=Tunnel.GUE, tunnel_port=6080, tunnel_flags=TunnelFlag.REMOTE_CHECKSUM)
    assert holds(kernel, entry(VirtualServer(key=TCP), edited))
    ipvsadm(*edit, "--tun-type", "gre", "--tun-csum")
    edited = attrs.evolve(wanted, tunnel_type=Tunnel.GRE, tunnel_flags=TunnelFlag.CHECKSUM)
    assert holds(kernel, entry(VirtualServer(key=TCP), edited))
    quiesced = attrs.evolve(edited, weight=0)  # as a drain does
    done(kernel, SetRealServer(virtual_server=TCP, real_server=quiesced))
    assert "-r 198.51.100.1:80 -i -w 0 --tun-type gre --tun-csum" in ipvsadm("-Sn")
    done(kernel, SetRealServer(virtual_server=TCP, real_server=wanted))
    assert "-r 198.51.100.1:80 -i -w 1 --tun-type ipip" in ipvsadm("-Sn")


def test_a_lost_answer_is_no_success(kernel: IPVS) -> None:
    channel = kernel._channel  # noqa: SLF001 -- only its socket can be made too small
    channel._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # noqa: SLF001 -- as above
    requests: list[Request] = [DeleteVirtualServer(key=VirtualServerKey.by_mark(mark)) for mark in range(1, 201)]
    requests.append(AddVirtualServer(virtual_server=VirtualServer(key=TCP)))
    results = kernel.apply(requests)
    errnos = [refused.errno if refused else 0 for refused in results]
    assert set(errnos) == {errno.ESRCH, errno.ENOBUFS}
    assert errnos[-1] == errno.ENOBUFS
    assert "read the table again" in str(results[-1])
    assert list(kernel.observe().table) == [TCP], "it was done, and only reading says so"
    assert kernel.apply(requests[:-1])[0] is not None, "the client goes on working"


def test_silence_is_no_success() -> None:
    """A message that asks for no acknowledgement gets none, as one that the kernel gave up on."""
    with IPVS() as ipvs:
        channel = ipvs._channel  # noqa: SLF001 -- no public request goes unanswered
        first = channel.reserve(3)
        requests = [DeleteVirtualServer(key=TCP)] * 3
        packed = ipvs._encoder.encode(requests, 0, 3, first).packed  # noqa: SLF001 -- as above
        errors = channel.batch(packed[: len(packed) // 3], first, first + 2, requests)
        assert errors == {first: errno.ESRCH, first + 2: errno.EINTR}
        assert ipvs.observe().table == {}


def test_without_permission_it_says_what_is_missing(kernel: IPVS) -> None:
    assert kernel.observe().table == {}
    os.seteuid(65534)
    try:
        with pytest.raises(Unavailable, match=r"CAP_NET_ADMIN .* run as root"):
            IPVS()
    finally:
        os.seteuid(0)


def observe_while(kernel: IPVS, coming: Sequence[Request], going: Sequence[Request]) -> list[Table]:
    """Return the tables that `kernel` gave while another client did `coming` and `going`, in turn."""
    pauses = [0.01 * 2**n for n in range(8)]  # seconds; the first are too short for any dump, the last for none

    def disturb() -> None:
        with IPVS() as other:
            for pause in pauses:
                done(other, *coming)
                time.sleep(pause)  # paces the writer; no assertion waits for it
                done(other, *going)
                time.sleep(pause)

    writer = threading.Thread(target=disturb, name="disturb")
    writer.start()
    tables = []
    while writer.is_alive():
        with suppress(Interrupted):
            tables.append(kernel.observe().table)
    writer.join()
    assert tables
    return [*tables, kernel.observe().table]


def test_other_writers_hide_no_virtual_server(kernel: IPVS) -> None:
    """Dumps are no snapshots: what stays in the table is in every answer, or there is no answer."""

    def whole(port: int) -> TableEntry:
        key = VirtualServerKey.by_address(Protocol.TCP, IPv4Address("192.0.2.7"), port)
        return entry(VirtualServer(key=key), real("198.51.100.1", port))

    staying = [whole(port) for port in range(1, 301)]
    passing = [whole(port) for port in range(1001, 1101)]
    done(kernel, *additions(*staying))
    going = [DeleteVirtualServer(key=each.virtual_server.key) for each in passing]
    for table in observe_while(kernel, additions(*passing), going):
        assert all(table.get(each.virtual_server.key) == each for each in staying)


def test_other_writers_hide_no_real_server(kernel: IPVS) -> None:
    """The same for a virtual server whose real servers come in several datagrams."""
    passing = [real("198.51.101.1", port) for port in range(1, 301)]
    staying = [real("198.51.100.1", port) for port in range(1, 601)]
    coming: list[Request] = [AddRealServer(virtual_server=TCP, real_server=each) for each in passing]
    going: list[Request] = [DeleteRealServer(virtual_server=TCP, key=each.key) for each in passing]
    # the kernel lists the newest first, so a deletion of those moves the others between two datagrams
    done(kernel, *additions(entry(VirtualServer(key=TCP), *staying)))
    for table in observe_while(kernel, coming, going):
        assert all(table[TCP].real_servers.get(each.key) == each for each in staying)

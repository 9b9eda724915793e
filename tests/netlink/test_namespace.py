"""Clients of other network namespaces: each sees its own table, and the thread that opens one comes back."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from netlink import settings
from netlink.errors import Unavailable
from netlink.ipvs import IPVS
from netlink.namespace import Namespace, Pinned, path_of
from netlink.requests import AddVirtualServer, Flush
from netlink.types import VirtualServer, VirtualServerKey
from tests.lab.hosts import Host, Lab
from tests.netlink.test_contract import TCP, UDP6, done


def own() -> str:
    """Return what stands for the network namespace that this thread is in."""
    return str(Path("/proc/thread-self/ns/net").readlink())


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# ---- anywhere


@pytest.mark.parametrize(
    ("namespace", "path"),
    [
        ("blue", "/run/netns/blue"),
        ("/proc/7/ns/net", "/proc/7/ns/net"),
        (Path("/run/netns/blue"), "/run/netns/blue"),
        (Path("a/b"), "a/b"),
        (42, "/proc/42/ns/net"),
    ],
)
def test_a_namespace_is_a_name_a_path_or_a_process(namespace: Namespace, path: str) -> None:
    assert path_of(namespace) == Path(path)


def test_to_stay_is_no_change() -> None:
    before = own(), descriptors()
    here = Pinned()
    with here.entered():
        assert own() == before[0]
    here.close()
    here.close()
    assert (own(), descriptors()) == before


MISSING = {
    "no-such-namespace": "enter network namespace no-such-namespace: /run/netns/no-such-namespace: no such file or "
    "directory; `ip netns list` shows the names",
    "/no/such/file": "/no/such/file: no such file or directory",
    2**31: "/proc/2147483648/ns/net: no such file or directory; no such process",
    -1: "/proc/-1/ns/net: no such file or directory; no such process",
    "a\0b": "embedded null byte; it stands for no network namespace",
}


@pytest.mark.parametrize(("namespace", "says"), list(MISSING.items()))
def test_a_namespace_that_is_not_there_is_unavailable(namespace: Namespace, says: str) -> None:
    before = own(), descriptors()
    with pytest.raises(Unavailable) as caught:
        IPVS(namespace)
    assert says in str(caught.value)
    with pytest.raises(Unavailable):
        Pinned(namespace)
    assert (own(), descriptors()) == before


# ---- in the lab's kernel


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Host, Host]]:
    """Give two hosts without a network."""
    with tempfile.TemporaryDirectory() as directory, Lab(Path(directory)) as lab:
        yield lab.host("one"), lab.host("two")


def add(ipvs: IPVS, key: VirtualServerKey) -> None:
    done(ipvs, AddVirtualServer(virtual_server=VirtualServer(key=key)))


@pytest.mark.kernel
def test_each_namespace_has_its_own_table(kernel: IPVS, hosts: tuple[Host, Host]) -> None:
    here = own()
    with IPVS(hosts[0].namespace) as one, IPVS(hosts[1].namespace) as two:
        assert own() == here
        add(one, TCP)
        add(two, UDP6)
        for ipvs, keys in ((kernel, []), (one, [TCP]), (two, [UDP6])):
            assert list(ipvs.observe().table) == keys
            assert list(ipvs.observe([TCP, UDP6]).table) == keys
            assert ipvs.glance().virtual_servers == len(keys)
            assert list(ipvs.connections()) == []
        add(kernel, TCP)
        done(one, Flush())
        assert list(kernel.observe().table) == [TCP]
        done(two, Flush())
    assert own() == here


@pytest.mark.kernel
def test_each_namespace_has_its_own_settings(kernel: IPVS, hosts: tuple[Host, Host]) -> None:
    assert kernel.observe().table == {}, "IPVS is there, and its settings with it"
    file, before = settings.DIRECTORY / "conntrack", settings.read("conntrack")
    assert before in (0, 1)
    try:
        file.write_text(str(1 - before))
        assert settings.read("conntrack") == 1 - before
        assert settings.read("conntrack", namespace=hosts[0].namespace) == before
    finally:
        file.write_text(str(before))


@pytest.mark.kernel
def test_a_namespace_can_be_named_in_every_way(hosts: tuple[Host, Host]) -> None:
    host = hosts[0]
    process = host.start(["sleep", "60"])
    file = Path("/run/netns") / host.namespace
    with IPVS(host.namespace) as ipvs:
        add(ipvs, TCP)
    ways: list[Namespace] = [host.namespace, str(file), file, process.pid, f"/proc/{process.pid}/ns/net"]
    for way in ways:
        with IPVS(way) as ipvs:
            assert list(ipvs.observe().table) == [TCP]
            assert ipvs.glance().virtual_servers == 1
    process.kill()
    with IPVS(host.namespace) as ipvs:
        done(ipvs, Flush())


@pytest.mark.kernel
def test_a_client_stays_in_its_namespace_when_an_answer_was_lost(kernel: IPVS, hosts: tuple[Host, Host]) -> None:
    with IPVS(hosts[0].namespace) as ipvs:
        add(ipvs, TCP)
        ipvs._channel._reopen()  # noqa: SLF001 -- as after a lost answer
        assert list(ipvs.observe().table) == [TCP]
        done(ipvs, Flush())
    assert kernel.observe().table == {}


@pytest.mark.kernel
def test_a_client_without_a_namespace_is_where_its_thread_is(hosts: tuple[Host, Host]) -> None:
    with hosts[1].inside(), IPVS() as inside:
        add(inside, TCP)
        with IPVS(hosts[0].namespace) as ipvs:
            assert ipvs.observe().table == {}
    with IPVS(hosts[1].namespace) as ipvs:
        assert list(ipvs.observe().table) == [TCP]
        done(ipvs, Flush())


@pytest.mark.kernel
def test_the_thread_comes_back_and_nothing_stays_open(hosts: tuple[Host, Host]) -> None:
    before = own(), descriptors()
    for _ in range(3):
        with IPVS(hosts[0].namespace) as ipvs:
            ipvs.glance()
            ipvs.glance()
            list(ipvs.connections())
            assert own() == before[0]
        ipvs.close()
    one, two = Pinned(hosts[0].namespace), Pinned(hosts[1].namespace)
    with pytest.raises(ZeroDivisionError), one.entered():
        raise ZeroDivisionError
    with one.entered(), two.entered():
        assert own() != before[0]
    one.close()
    two.close()
    assert (own(), descriptors()) == before


@pytest.mark.kernel
@pytest.mark.parametrize("wrong", ["/proc/self/ns/mnt", "/proc/self/ns/uts", "/etc/hostname", "/run"])
def test_a_file_that_is_no_network_namespace_is_unavailable(wrong: str) -> None:
    before = own(), descriptors()
    with pytest.raises(Unavailable, match="invalid argument; it stands for no network namespace"):
        IPVS(wrong)
    assert (own(), descriptors()) == before


@pytest.mark.kernel
def test_without_permission_it_says_what_is_missing(hosts: tuple[Host, Host]) -> None:
    process = hosts[1].start(["sleep", "60"])
    before = own(), descriptors()
    found: list[str] = []

    def try_it() -> None:
        for namespace in (hosts[0].namespace, process.pid):
            try:
                IPVS(namespace)
            except Unavailable as error:
                found.append(str(error))

    os.seteuid(65534)
    try:
        try_it()
    finally:
        os.seteuid(0)
    assert len(found) == 2
    assert all("takes CAP_SYS_ADMIN" in each for each in found), found
    assert (own(), descriptors()) == before


@pytest.mark.kernel
def test_a_client_stays_in_its_namespace_when_its_name_or_process_is_gone(hosts: tuple[Host, Host]) -> None:
    subprocess.run(["ip", "netns", "add", "passing"], check=True)
    process = hosts[1].start(["sleep", "60"])
    try:
        with IPVS("passing") as named, IPVS(process.pid) as ipvs:
            add(named, TCP)
            add(ipvs, UDP6)
            subprocess.run(["ip", "netns", "delete", "passing"], check=True)
            subprocess.run(["ip", "netns", "add", "passing"], check=True)
            process.kill()
            for client, key in ((named, TCP), (ipvs, UDP6)):
                client._channel._reopen()  # noqa: SLF001 -- as after a lost answer
                assert list(client.observe().table) == [key]
                assert client.glance().virtual_servers == 1
                assert list(client.connections()) == []
                done(client, Flush())
    finally:
        subprocess.run(["ip", "netns", "delete", "passing"], check=True)


@pytest.mark.kernel
def test_a_client_stays_where_its_thread_was_when_it_was_opened(kernel: IPVS, hosts: tuple[Host, Host]) -> None:
    add(kernel, TCP)
    with hosts[0].inside():
        kernel._channel._reopen()  # noqa: SLF001 -- as after a lost answer
        assert list(kernel.observe().table) == [TCP]
        assert kernel.glance().virtual_servers == 1
        with IPVS() as there:
            assert there.observe().table == {}

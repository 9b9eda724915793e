"""The facts that `doctor` judges, read from files like the kernel's."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvsctl import control, machine
from lvsctl.core.facts import Facts, Module, Unread
from lvsctl.errors import DaemonError
from lvsctl.machine import Roots, examine

TABLE = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A010164:0050 wlc persistent 30000 FFFFFFFF
  -> 0A02000B:0050      Masq    1      3          40
  -> 0A02000C:0050      Masq    1      2          0
FWM  00000007 mh
  -> [fd00:0002:0000:0000:0000:0000:0000:000b]:0050      Route    1      1          0
"""


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    """Return a kernel with IPVS, as files."""
    made = Roots(proc=tmp_path / "proc", sys=tmp_path / "sys", modules=tmp_path / "modules")
    for name, text in {
        "proc/sys/net/ipv4/ip_forward": "1\n",
        "proc/sys/net/ipv4/vs/conntrack": "0\n",
        "proc/sys/net/ipv4/vs/sync_threshold": "3\t50\n",
        "proc/sys/net/ipv4/conf/all/rp_filter": "2\n",
        "proc/sys/net/ipv4/conf/lo/rp_filter": "0\n",
        "proc/sys/kernel/modules_disabled": "0\n",
        "proc/thread-self/net/ip_vs": TABLE,
        "sys/module/ip_vs_wlc/refcnt": "1\n",
        "modules/modules.builtin": "kernel/net/netfilter/ipvs/ip_vs_rr.ko\n",
        "modules/modules.dep": "kernel/net/netfilter/ipvs/ip_vs_mh.ko.xz: kernel/net/netfilter/ipvs/ip_vs.ko.xz\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return made


def facts(roots: Roots, *schedulers: str, daemon: int | Unread | None = None) -> Facts:
    return examine(schedulers, daemon, roots)


def test_settings_are_numbers_text_or_not_there(roots: Roots) -> None:
    settings = facts(roots).settings
    assert settings["net.ipv4.ip_forward"] == 1
    assert settings["net.ipv4.vs.conntrack"] == 0
    assert settings["net.ipv4.vs.sync_threshold"] == "3\t50"
    assert settings["net.ipv4.conf.all.rp_filter"] == 2
    assert settings["kernel.modules_disabled"] == 0
    assert settings["net.ipv6.conf.all.forwarding"] is None
    assert "net.ipv4.vs.sloppy_tcp" not in settings


def test_what_cannot_be_read_says_why(roots: Roots) -> None:
    forward = roots.proc / "sys/net/ipv4/ip_forward"
    forward.unlink()
    forward.mkdir()
    (roots.proc / "sys/net/ipv4/vs/conntrack").write_bytes(b"\xff")
    settings = facts(roots).settings
    assert settings["net.ipv4.ip_forward"] == Unread("is a directory")
    assert settings["net.ipv4.vs.conntrack"] == Unread("it is not of ASCII")


def test_modules_are_loaded_loadable_or_missing(roots: Roots) -> None:
    assert facts(roots, "wlc", "rr", "mh", "ovf").modules == {
        "ip_vs": Module.LOADED,
        "ip_vs_mh": Module.LOADABLE,
        "ip_vs_ovf": Module.MISSING,
        "ip_vs_rr": Module.LOADED,
        "ip_vs_wlc": Module.LOADED,
    }
    (roots.modules / "modules.dep").unlink()
    unknown = Unread(f"{roots.modules}/modules.dep: no such file or directory")
    assert facts(roots, "wlc", "mh").modules == {
        "ip_vs": Module.LOADED,
        "ip_vs_mh": unknown,
        "ip_vs_wlc": Module.LOADED,
    }


def test_without_ipvs_there_is_nothing_of_it_and_no_error(roots: Roots) -> None:
    (roots.proc / "thread-self/net/ip_vs").unlink()
    for each in (roots.proc / "sys/net/ipv4/vs").iterdir():
        each.unlink()
    (roots.proc / "sys/net/ipv4/vs").rmdir()
    found = facts(roots)
    assert found.modules == {"ip_vs": Module.MISSING}
    assert not any(name.startswith("net.ipv4.vs.") for name in found.settings)
    assert (found.connections, found.slots, found.sync) == (0, 0, frozenset())


def test_connections_are_those_of_all_real_servers(roots: Roots) -> None:
    found = facts(roots)
    assert (found.connections, found.slots) == (46, 4096)
    (roots.proc / "thread-self/net/ip_vs").write_text("something else\n")
    assert (facts(roots).connections, facts(roots).slots) == (0, 0)


def test_interfaces_that_only_we_use_are_none(roots: Roots) -> None:
    assert facts(roots).interfaces == ()  # lo, and what this machine has not


def test_the_namespace_of_a_daemon_is_ours_another_or_not_to_be_seen(roots: Roots) -> None:
    here, there = (roots.proc / name / "ns" for name in ("thread-self", "7"))
    here.mkdir()
    assert facts(roots, daemon=7).namespace == Unread("no such file or directory")
    there.mkdir(parents=True)
    (here / "net").write_text("")
    (there / "net").hardlink_to(here / "net")
    found = facts(roots, daemon=7)
    assert (found.namespace, found.daemon) == ("", True)
    assert not facts(roots).daemon
    assert facts(roots, daemon=Unread("permission denied")).namespace == Unread("permission denied")


def test_who_listens_on_the_socket_is_told_by_the_kernel(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    assert control.process_of(path) is None
    code = (
        "import socket, sys\n"
        "listening = socket.socket(socket.AF_UNIX)\n"
        "listening.bind(sys.argv[1])\n"
        "listening.listen()\n"
        "print('up', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as listening:
        assert listening.stdout is not None
        assert listening.stdout.readline() == b"up\n"
        assert control.process_of(path) == listening.pid
    assert control.process_of(path) is None  # nobody listens any more


@pytest.fixture
def somebody() -> Iterator[None]:
    """Be a user who is not root."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    os.seteuid(65534)
    yield
    os.seteuid(0)


def test_a_socket_that_is_closed_to_who_asks_is_an_error(request: pytest.FixtureRequest) -> None:
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listening:
        path = Path(directory) / "control.sock"
        path.parent.chmod(0o755)
        listening.bind(str(path))
        listening.listen()
        path.chmod(0o600)
        request.getfixturevalue("somebody")
        with pytest.raises(DaemonError, match="cannot be seen: permission denied"):
            control.process_of(path)
        os.seteuid(0)


def test_this_machine_can_be_examined() -> None:
    found = machine.examine(["wlc"], None)
    assert isinstance(found.settings["net.ipv4.ip_forward"], int)
    assert found.modules.keys() == {"ip_vs", "ip_vs_wlc"}
    assert all(f"net.ipv4.conf.{each.replace('.', '/')}.rp_filter" in found.settings for each in found.interfaces)

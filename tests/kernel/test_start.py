"""A daemon that cannot work says why in one message, exits with an honest status, and has written nothing."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.kernel.director import Director
from tests.lab.scene import HTTP, VIP4
from tests.showing import Figure

pytestmark = pytest.mark.kernel

RECO: Final = f'[virtual_server.reco]\naddress = "{VIP4}:{HTTP}"\n'
THEIRS: Final = ["-A -t 10.9.0.1:80 -s rr", "-a -t 10.9.0.1:80 -r 10.8.0.1:80 -m -w 1"]
TEN_MISTAKES: Final = """
[consul]
adress = "http://127.0.0.1:8500"
token_file = "relative"

[safety]
allowed_networks = ["10.0.0.1/8"]
max_weight = 0

[daemon]
audit_interval = 10

[virtual_server.reco]
address = "10.1.0.100"
scheduler = "round-robin"
forwarding = "nat"

[virtual_server.search]
address = "10.1.0.100:81"
persistence = "5"
drain_timeout = "-1s"
"""


@pytest.fixture
def alone(director: Director) -> Director:
    """Return the director without a daemon, with a foreign virtual server and an instance in Consul."""
    if director.running:
        director.stop()
    director.forget()
    director.ipvsadm("-C")
    director.ipvsadm("-R", text="\n".join(THEIRS) + "\n")
    director.register(director.scene.real_servers[0].registration())
    director.write(RECO)
    return director


def run(director: Director, *before: str, once: bool = False) -> subprocess.CompletedProcess[str]:
    """Return how `lvsctl run` ended; `before` are commands that lead to it."""
    command = [*before, sys.executable, "-m", "lvsctl", "run", "-c", str(director.file), *(["--once"] if once else [])]
    return director.host.run(command, check=False, within=60)


def assert_refused(director: Director, status: int, *words: str, before: tuple[str, ...] = ()) -> str:
    """Return the one message; nothing may have been written."""
    ended = run(director, *before)
    assert (ended.returncode, ended.stdout) == (status, ""), ended
    assert ended.stderr.count("\n") == 1, ended.stderr
    message = ended.stderr.removeprefix("lvsctl: ").strip()
    for word in words:
        assert word in message
    assert director.lines() == THEIRS
    print(message)
    return message


@contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """Have nobody write in `directory`, not even root."""
    directory.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "lab", directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", directory], check=True)


@pytest.mark.promise(
    19, case="ten mistakes in one file, at start", target="10 said with file, line and key; exit code 3"
)
def test_ten_mistakes_are_said_in_one_go(alone: Director, figure: Figure) -> None:
    alone.file.write_text(TEN_MISTAKES, encoding="utf-8")
    ended = run(alone)
    assert (ended.returncode, ended.stdout) == (3, "")
    lines = ended.stderr.splitlines()
    print(ended.stderr)
    figure(len(lines), "said")
    figure(ended.returncode, "is the exit code")
    assert len(lines) == 10
    places = [line.removeprefix(f"lvsctl: {alone.file}:").split(": ")[:2] for line in lines]
    assert [(int(number), key) for number, key in places] == [
        (3, "consul.adress"),
        (4, "consul.token_file"),
        (7, "safety.allowed_networks[0]"),
        (8, "safety.max_weight"),
        (11, "daemon.audit_interval"),
        (14, "virtual_server.reco.address"),
        (15, "virtual_server.reco.scheduler"),
        (16, "virtual_server.reco.forwarding"),
        (20, "virtual_server.search.persistence"),
        (21, "virtual_server.search.drain_timeout"),
    ]
    assert alone.lines() == THEIRS
    assert not alone.state.exists()


def test_a_file_that_is_not_there(alone: Director) -> None:
    alone.file.unlink()
    assert_refused(alone, 3, f"{alone.file}: ")
    assert not alone.state.exists()


def test_a_token_file_that_may_not_be_read(alone: Director, tmp_path: Path) -> None:
    """A command that asks once says so and ends; the daemon goes on as without Consul until the file can be read."""
    file = tmp_path / "token"
    file.write_text("secret-canary\n", encoding="ascii")
    file.chmod(0)
    text = alone.file.read_text(encoding="utf-8")
    alone.file.write_text(text.replace("[consul]", f'[consul]\ntoken_file = "{file}"'), encoding="utf-8")
    ordinary = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")  # root reads everything otherwise
    there = alone.lines()
    refused = run(alone, *ordinary, once=True)
    assert refused.returncode == 4
    assert f"consul.token_file {file}: permission denied; make it " in refused.stderr
    assert "canary" not in refused.stderr
    file.unlink()
    alone.start()
    unusable = alone.wait_for_event("consul_unusable")
    assert unusable["error"].startswith(f"consul.token_file {file}: no such file or directory; make it ")
    assert alone.lines() == there
    file.write_text("12345678-canary\n", encoding="ascii")
    file.chmod(0o600)
    alone.wait_for_event("virtual_server_added", within=15.0)
    assert alone.stop() == 0
    assert "canary" not in alone.log


@pytest.mark.parametrize(
    "without",
    [("setpriv", "--bounding-set", "-net_admin"), ("unshare", "--user", "--map-root-user")],
    ids=["capability", "user-namespace"],
)
def test_no_permission_to_change_the_kernel(alone: Director, without: tuple[str, ...]) -> None:
    if alone.host.run([*without, "true"], check=False).returncode:
        pytest.skip(f"this kernel does not let us {without[0]}")
    assert_refused(alone, 5, "CAP_NET_ADMIN", "run as root", before=without)


def test_a_state_directory_that_cannot_be_written(alone: Director) -> None:
    with read_only(alone.state):
        assert_refused(
            alone,
            7,
            f"{alone.state}/lock: read-only file system; lvsctl must be able to write daemon.state_directory",
        )


def test_a_control_socket_that_cannot_be_made(alone: Director) -> None:
    directory = alone.file.parent / "sockets"
    text = alone.file.read_text(encoding="utf-8")
    alone.file.write_text(text.replace(str(alone.socket), f"{directory}/control.sock"), encoding="utf-8")
    with read_only(directory):
        assert_refused(alone, 7, f"{directory}/control.sock: read-only file system", "daemon.control_socket")


@pytest.mark.promise(
    20, case="a second daemon, beside one that runs and one that is stopped (SIGSTOP)", target="0 changes"
)
@pytest.mark.parametrize("stopped", [False, True], ids=["running", "frozen"])
def test_a_second_daemon_writes_nothing_and_names_the_first(alone: Director, *, stopped: bool, figure: Figure) -> None:
    process = alone.start()
    alone.wait_for_weights(f"-t {VIP4}:{HTTP}", {"10.2.0.11:80": 1})
    ledger = (alone.state / "ledger.json").read_bytes()
    if stopped:
        process.signal(signal.SIGSTOP)
    before = alone.lines()
    second = run(alone)
    assert (second.returncode, second.stdout) == (6, "")
    assert second.stderr == (
        f"lvsctl: another lvsctl (pid {process.pid}) is the writer of this table; nothing was written. "
        "Ask it with `lvsctl status`, or stop it first\n"
    )
    figure(len(set(alone.lines()) ^ set(before)), "lines of the table changed")
    assert alone.lines() == before
    assert (alone.state / "ledger.json").read_bytes() == ledger
    process.signal(signal.SIGCONT)
    assert alone.status().role == "active", "the first one still answers on its socket"


@pytest.mark.first
def test_a_kernel_without_ip_vs(alone: Director) -> None:
    if os.environ["LVSCTL_LAB"] != "uml":
        pytest.skip("only a kernel of our own may have its module taken out")
    alone.ipvsadm("-C")
    with hidden_module():
        ended = run(alone)
        once = alone.lvsctl("status")
    print(ended.stderr, once.stderr)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (5, "", 1), ended
    assert "modprobe ip_vs" in ended.stderr
    assert (once.returncode, once.stdout, once.stderr.count("\n")) == (5, "", 1), once
    assert "modprobe ip_vs" in once.stderr
    assert alone.lines() == []


@contextmanager
def hidden_module() -> Iterator[None]:
    """Take ip_vs out of the kernel, and keep everybody from loading it again meanwhile."""
    modules = Path("/lib/modules", os.uname().release)
    loaded = [line.split()[0] for line in Path("/proc/modules").read_text(encoding="ascii").splitlines()]
    schedulers = [name for name in loaded if name.startswith("ip_vs_")]
    subprocess.run(["rmmod", *schedulers, "ip_vs"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "lab", modules], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", modules], check=True)
        subprocess.run(["modprobe", "-a", "ip_vs", *schedulers], check=True)

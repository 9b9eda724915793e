"""`lvsctl doctor` finds what is set wrong, and `lvsctl run` sets what `[kernel]` names and nothing else."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.director import IDLE, Director
from tests.lab.hosts import Host
from tests.lab.scene import VIP4
from tests.lab.waiting import eventually

pytestmark = pytest.mark.kernel

OURS = "net.ipv4.vs."
DIRECTORY = "/proc/sys/net/ipv4/vs"
OPTED = "[kernel]\nexpire_nodest_conn = true\nexpire_quiescent_template = true\nconn_reuse_mode = 2\n"


def everything(host: Host) -> dict[str, bytes]:
    """Return every setting of the host's network that can be read, but for those that count or are drawn at random."""

    def read() -> dict[str, bytes]:
        found = {}
        for path in sorted(Path("/proc/sys/net").rglob("*")):
            if path.is_file() and not path.name.endswith(("_count", "stable_secret", "fs_uuid", "flush")):
                try:
                    found[str(path)] = path.read_bytes()
                except OSError:
                    continue
        return found

    return host.call(read)


def changed(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> dict[str, tuple[bytes | None, bytes | None]]:
    """Return what is not as it was."""
    names = sorted(before.keys() | after.keys())
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}


@pytest.fixture(autouse=True)
def _settings(director: Director) -> Iterator[None]:
    """Begin with the kernel's own settings, with no daemon, and put back what a test sets on the director."""
    before = {name: value for name, value in everything(director.host).items() if name.startswith(DIRECTORY)}
    director.host.sysctl({f"{OURS}expire_nodest_conn": 0, f"{OURS}expire_quiescent_template": 0})
    yield
    if director.running:
        director.stop()

    def put_back() -> None:
        for name, value in before.items():
            if Path(name).read_bytes() != value:
                Path(name).write_bytes(value)

    director.host.call(put_back)
    director.host.sysctl({"net.ipv4.ip_forward": 1})


def doctor(director: Director, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Return exit code and rows, by setting, of the real command."""
    done = director.lvsctl("doctor", "--json", *arguments)
    assert done.stderr == "", done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "lvsctl.doctor/1"
    return done.returncode, {row["setting"]: row for row in document["rows"]}


def number(director: Director, name: str) -> int:
    """Return what setting of IPVS `name` is on the director."""
    return int(director.host.call(lambda: Path(DIRECTORY, name).read_text("ascii")))


def test_a_setting_that_is_wrong_is_found_with_its_sentence_and_nothing_is_written(director: Director) -> None:
    virtual_server = f'[virtual_server.reco]\naddress = "{VIP4}:{director.port}"\npersistence = "5m"\n'
    director.write(virtual_server)
    director.host.sysctl({"net.ipv4.ip_forward": 0})
    before = everything(director.host)
    code, rows = doctor(director)
    assert changed(before, everything(director.host)) == {}
    findings = {name: (row["is"], row["should_be"]) for name, row in rows.items() if row["grade"] == "finding"}
    assert (code, findings) == (
        1,
        {
            f"{OURS}expire_nodest_conn": ("0", "1"),
            f"{OURS}expire_quiescent_template": ("0", "1"),
            "net.ipv4.ip_forward": ("0", "1"),
        },
    )
    assert "clients of a deleted real server hang" in rows[f"{OURS}expire_nodest_conn"]["why"]
    assert "persistence goes on sending clients" in rows[f"{OURS}expire_quiescent_template"]["why"]
    assert "with masquerade" in rows["net.ipv4.ip_forward"]["why"]
    assert rows["module ip_vs"]["is"] == "loaded"
    assert rows["module ip_vs_wlc"]["is"] in ("loaded", "not loaded")
    assert rows["connections"]["is"].split()[0] == "0"
    director.host.sysctl(dict.fromkeys(findings, 1))
    assert doctor(director)[0] == 0
    text = director.lvsctl("doctor")
    assert (text.returncode, text.stdout.splitlines()[-1]) in [
        (0, "nothing to be done"),
        (0, "nothing to be done, 1 note"),
    ]


def test_it_needs_no_root_and_says_what_it_could_not_see(director: Director) -> None:
    director.write(IDLE)
    for path in (director.file, *director.file.parents[:2]):
        path.chmod(0o755)
    command = [sys.executable, "-m", "lvsctl", "doctor", "-c", str(director.file), "--json"]
    done = director.host.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command], check=False)
    rows = {row["setting"]: row for row in json.loads(done.stdout)["rows"]}
    assert (done.returncode, done.stderr) == (1, "")
    assert rows[f"{OURS}expire_nodest_conn"]["grade"] == "finding"
    assert rows["connections"]["is"]
    unseen = rows["synchronisation daemon"]
    assert (unseen["is"], unseen["grade"]) == (None, "note")
    assert "CAP_NET_ADMIN" in unseen["why"]


def test_what_is_named_is_set_at_start_and_put_right_after_a_hand_and_nothing_else_is_touched(
    director: Director,
) -> None:
    before = everything(director.host)
    director.configure(IDLE, head=OPTED)
    director.wait_for_lines(["-A -t 10.1.0.99:9 -s wlc"])
    wanted = {"expire_nodest_conn": 1, "expire_quiescent_template": 1, "conn_reuse_mode": 2}
    eventually(lambda: {name: number(director, name) for name in wanted} == wanted)
    events = {each["setting"]: (each["was"], each["now"]) for each in director.events("setting_changed")}
    assert events == {
        f"{OURS}expire_nodest_conn": (0, 1),
        f"{OURS}expire_quiescent_template": (0, 1),
        f"{OURS}conn_reuse_mode": (1, 2),
    }
    paths = {f"{DIRECTORY}/{name}" for name in wanted}
    assert changed(before, everything(director.host)).keys() == paths

    code, rows = doctor(director)
    assert (code, {name for name, row in rows.items() if row["by_lvsctl"]}) == (0, {f"{OURS}{name}" for name in wanted})
    assert rows[f"{OURS}conn_reuse_mode"]["why"] == "set by lvsctl ([kernel])"

    director.host.sysctl({f"{OURS}expire_nodest_conn": 0, f"{OURS}conntrack": 1})
    eventually(lambda: number(director, "expire_nodest_conn") == 1, within=5)
    undone = director.wait_for_event("setting_changed", why="changed by hand")
    assert (undone["setting"], undone["was"], undone["now"]) == (f"{OURS}expire_nodest_conn", 0, 1)
    assert number(director, "conntrack") == 1  # not named
    director.host.sysctl({f"{OURS}conntrack": 0})

    director.configure(IDLE, head="[kernel]\nconn_reuse_mode = 0\n")
    eventually(lambda: number(director, "conn_reuse_mode") == 0)
    assert number(director, "expire_nodest_conn") == 1  # named no more: left as it is
    after = everything(director.host)
    assert director.stop() == 0
    assert changed(after, everything(director.host)) == {}
    assert changed(before, after).keys() == paths
    assert len(director.events("setting_changed")) == 5
    assert director.events("setting_failed") == []


def test_without_consul_it_is_set_all_the_same(director: Director) -> None:
    director.write(IDLE, head=OPTED)
    text = director.file.read_text().replace(director.scene.consul.url, "http://127.0.0.1:1")
    director.file.write_text(text)
    director.start()
    eventually(lambda: number(director, "expire_nodest_conn") == 1, within=20)
    assert director.lines() == []


@pytest.mark.parametrize("options", [["--dry-run"], ["--once", "--dry-run"], ["--once"]])
def test_a_dry_run_sets_nothing(director: Director, options: list[str]) -> None:
    director.write(IDLE, head=OPTED)
    before = everything(director.host)
    line = "~ net.ipv4.vs.expire_nodest_conn  0 -> 1  [kernel] in the configuration"
    if options == ["--dry-run"]:
        director.start("--dry-run")
        director.wait_for_event("would_change", setting="expire_nodest_conn")
        director.wait_for_event("would_change", within=20, virtual_server="10.1.0.99")
        director.stop()
    else:
        done = director.lvsctl("run", *options)
        assert (done.returncode, line in done.stdout) == (0, True), done
    differs = {Path(name).name for name in changed(before, everything(director.host))}
    assert differs == (
        {"expire_nodest_conn", "expire_quiescent_template", "conn_reuse_mode"} if options == ["--once"] else set()
    )


def test_what_may_not_be_set_is_a_warning_and_the_table_is_kept(director: Director) -> None:
    """The daemon runs where /proc/sys is read-only, as in many a container."""
    director.write(IDLE, head=OPTED)
    command = [sys.executable, "-m", "lvsctl", "run", "-c", str(director.file), "--log-format", "json"]
    script = 'mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys && exec "$@"'
    process = director.host.start(["unshare", "--mount", "sh", "-c", script, "sh", *command])
    try:
        eventually(lambda: director.lines() == ["-A -t 10.1.0.99:9 -s wlc"], within=60)
        eventually(lambda: process.output.count('"setting_failed"') == 3)
        failed = [json.loads(line) for line in process.output.splitlines() if '"setting_failed"' in line]
        assert {each["level"] for each in failed} == {"warning"}
        assert all("read-only file system" in each["error"] for each in failed)
        eventually(lambda: "read-only file system" in director.status().kernel.error)
        code, rows = doctor(director)
        assert (code, rows[f"{OURS}expire_nodest_conn"]["grade"]) == (1, "finding")
        assert "setting_failed" in rows[f"{OURS}expire_nodest_conn"]["why"]
    finally:
        process.stop()
        director.ipvsadm("-C")
    assert number(director, "expire_nodest_conn") == 0


def test_the_network_namespace_is_the_daemons_whoever_asks_from_where(director: Director) -> None:
    director.configure(IDLE, head=OPTED)
    eventually(lambda: number(director, "conn_reuse_mode") == 2)
    command = [sys.executable, "-m", "lvsctl", "doctor", "-c", str(director.file), "--json"]
    done = director.scene.client.run(command, check=False)
    rows = {row["setting"]: row for row in json.loads(done.stdout)["rows"]}
    assert rows[f"{OURS}conn_reuse_mode"]["is"] == "2"
    assert director.process is not None
    assert rows["network namespace"]["is"] == f"the daemon's, pid {director.process.pid}"
    assert done.returncode == 0


@pytest.mark.first
def test_without_the_module_that_is_the_finding_and_it_stays_out(tmp_path: Path) -> None:
    if os.environ["LVSCTL_LAB"] != "uml":
        pytest.skip("only a kernel of our own may have its module taken out")
    file = tmp_path / "lvsctl.toml"
    file.write_text('[virtual_server.reco]\naddress = "10.9.0.100:80"\n')
    command = [sys.executable, "-m", "lvsctl", "doctor", "-c", str(file), "--json"]
    loaded = [line.split()[0] for line in Path("/proc/modules").read_text("ascii").splitlines()]
    schedulers = [name for name in loaded if name.startswith("ip_vs_")]
    subprocess.run(["rmmod", *schedulers, "ip_vs"], check=True)
    try:
        there = subprocess.run(command, capture_output=True, text=True, check=False)
        assert not Path("/sys/module/ip_vs").exists()
        with hidden_modules():
            hidden = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        subprocess.run(["modprobe", "-a", "ip_vs", *schedulers], check=True)
    for done in (there, hidden):
        assert (done.returncode, done.stderr) == (1, "")
        rows = {row["setting"]: row for row in json.loads(done.stdout)["rows"]}
        assert (rows["module ip_vs"]["is"], rows["module ip_vs"]["grade"]) == ("not loaded", "finding")
        assert "modprobe ip_vs" in rows["module ip_vs"]["why"]
        assert ("it can is not known" in rows["module ip_vs"]["why"]) is (done is hidden)
        assert not any(name.startswith(OURS) for name in rows)


@contextlib.contextmanager
def hidden_modules() -> Iterator[None]:
    """Have no modules to be loaded from."""
    modules = Path("/lib/modules", os.uname().release)
    subprocess.run(["mount", "-t", "tmpfs", "lab", modules], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", modules], check=True)

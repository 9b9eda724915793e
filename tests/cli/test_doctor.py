"""The table and the JSON of `lvsctl doctor`, and how it ends where there is no IPVS to speak of."""

import json
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from lvsctl.cli import doctor
from lvsctl.core.facts import Grade, Row

FORWARD = Row(
    setting="net.ipv4.ip_forward", value="0", should="1", why="answers end here", grade=Grade.FINDING
)  # fmt: skip
EXPIRE = Row(setting="net.ipv4.vs.expire_nodest_conn", value="0", should="1", why="clients hang", grade=Grade.FINDING)
REUSE = Row(setting="net.ipv4.vs.conn_reuse_mode", value="0", should="1", why="so", grade=Grade.FINDING)
REDIRECTS = Row(
    setting="net.ipv4.conf.*.send_redirects",
    value="1 (eth0)",
    should="0",
    why="past us",
    grade=Grade.FINDING,
    names=("net.ipv4.conf.all.send_redirects", "net.ipv4.conf.eth0.send_redirects"),
)
OURS = Row(setting="net.ipv4.vs.conntrack", value="0", should="0", why="set by lvsctl ([kernel])", by_lvsctl=True)
UNREAD = Row(setting="module ip_vs_mh", value="", why="not known", grade=Grade.NOTE)


def test_the_table_is_aligned_and_says_why_only_where_there_is_something_to_say() -> None:
    assert doctor.render([FORWARD, EXPIRE, OURS, UNREAD, Row(setting="module ip_vs", value="loaded")]) == [
        "SETTING                         IS      SHOULD BE  WHY",
        "net.ipv4.ip_forward             0       1          answers end here",
        "net.ipv4.vs.expire_nodest_conn  0       1          clients hang",
        "net.ipv4.vs.conntrack           0       0          set by lvsctl ([kernel])",
        "module ip_vs_mh                 ?       -          not known",
        "module ip_vs                    loaded  -",
    ]


def test_the_end_says_what_sets_what_can_be_set() -> None:
    assert doctor.summary([OURS]) == ["nothing to be done"]
    assert doctor.summary([OURS, UNREAD]) == ["nothing to be done, 1 note"]
    assert doctor.summary([FORWARD, EXPIRE, REUSE, UNREAD]) == [
        "3 findings, 1 note",
        f"now:            sysctl -w net.ipv4.ip_forward=1 {EXPIRE.setting}=1 {REUSE.setting}=1",
        "by lvsctl run:  [kernel] expire_nodest_conn = true, conn_reuse_mode = 1",
    ]
    assert doctor.summary([REDIRECTS]) == [
        "1 finding",
        "now:            sysctl -w net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.eth0.send_redirects=0",
    ]
    assert doctor.summary([attrs.evolve(EXPIRE, by_lvsctl=True)]) == ["1 finding"]  # the daemon sets it, or cannot


def test_what_sets_it_goes_where_the_daemon_is() -> None:
    place = Row(setting="network namespace", value="the daemon's, pid 77", why="it is not yours", grade=Grade.NOTE)
    assert doctor.summary([place, FORWARD])[1] == "now:            nsenter -t 77 -n sysctl -w net.ipv4.ip_forward=1"
    unseen = attrs.evolve(place, value="yours")
    assert doctor.summary([unseen, FORWARD])[1] == "now:            sysctl -w net.ipv4.ip_forward=1"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lvsctl", "doctor", *arguments], capture_output=True, text=True, check=False
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file whose daemon does not run."""
    path = tmp_path / "lvsctl.toml"
    daemon = f'[daemon]\ncontrol_socket = "{tmp_path}/control.sock"\nstate_directory = "{tmp_path}/state"\n'
    path.write_text(f'{daemon}[virtual_server.reco]\naddress = "10.9.0.100:80"\n')
    return path


def test_the_command_says_how_this_machine_is_and_ends_honestly(file: Path) -> None:
    text, as_json, also = run("-c", str(file)), run("-c", str(file), "--json"), run("-c", str(file), "-o", "json")
    document = json.loads(as_json.stdout)
    assert document == json.loads(also.stdout)
    assert document["schema"] == "lvsctl.doctor/1"
    graded = [row for row in document["rows"] if row["grade"] == "finding"]
    assert document["findings"] == len(graded)
    assert {text.returncode, as_json.returncode} == {1 if graded else 0}
    assert {row["setting"] for row in document["rows"]} >= {"module ip_vs", "net.ipv4.ip_forward"}
    lines = text.stdout.splitlines()
    assert lines[0].split() == ["SETTING", "IS", "SHOULD", "BE", "WHY"]
    assert all(any(line.startswith(row["setting"]) for line in lines) for row in document["rows"])
    assert text.stderr == as_json.stderr == ""
    assert not (file.parent / "state").exists()


def test_all_shows_what_does_not_matter_too(file: Path) -> None:
    some, every = (json.loads(run("-c", str(file), "--json", *more).stdout) for more in ([], ["--all"]))
    assert all(row["relevant"] for row in some["rows"])
    hidden = [row["setting"] for row in every["rows"] if not row["relevant"]]
    assert "net.ipv6.conf.all.forwarding" in hidden
    assert every["findings"] == some["findings"]


def test_a_wrong_file_is_code_3(tmp_path: Path) -> None:
    done = run("-c", str(tmp_path / "none.toml"))
    assert (done.returncode, done.stdout) == (3, "")
    assert "there is no such file" in done.stderr

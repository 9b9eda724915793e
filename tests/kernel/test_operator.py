"""What an operator and systemd see of the daemon: status, reload, notifications, refusals, hostile strings, idling."""

import json
import os
import re
import signal
import socket
import stat
import time
import unicodedata
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pytest

from lvsctl.core.status import State
from tests.kernel.director import START, Director, tcp
from tests.kernel.writes import wait_until_in_sync, writes
from tests.lab.scene import HTTP, VIP4
from tests.lab.traffic import HeldConnections, Traffic
from tests.lab.waiting import eventually
from tests.showing import Figure

pytestmark = pytest.mark.kernel

RECO: Final = f'[virtual_server.reco]\naddress = "{VIP4}:{HTTP}"\nscheduler = "rr"\ndrain_timeout = "1s"\n'
OTHER: Final = RECO.replace(".reco]", ".other]").replace(f":{HTTP}", ":81") + 'consul_service = "reco"\n'
FOUR: Final = {f"10.2.0.{number}:80": 1 for number in (11, 12, 13, 14)}
LINES: Final = [f"-A -t {VIP4}:{HTTP} -s rr", *(f"-a -t {VIP4}:{HTTP} -r {key} -m -w 1" for key in FOUR)]


@pytest.fixture
def registered(director: Director) -> Iterator[Director]:
    """Return the director with four instances of `reco` in Consul."""
    director.register(*(each.registration() for each in director.scene.real_servers))
    wanted = {f"reco-{each.name}": "passing" for each in director.scene.real_servers}
    director.scene.consul.wait_for_health("reco", wanted)
    yield director
    director.scene.consul.put("/v1/catalog/deregister", {"Node": "fake"})


# Reload


@pytest.mark.promise(
    19, case="reload of two bad files, then a good one, under load", target="0 writes by the bad, 0 failed"
)
def test_a_reload_uses_a_good_file_and_refuses_a_bad_one(registered: Director, figure: Figure) -> None:
    director = registered
    director.configure(RECO + OTHER)
    director.wait_for_weights(tcp(VIP4, HTTP), FOUR)
    director.wait_for_weights(tcp(VIP4, 81), FOUR)
    client = director.scene.client
    with HeldConnections(client, VIP4, 81) as held, Traffic(client, VIP4, HTTP, rate=20) as traffic:
        # Bad: two mistakes. Everything stays, and it is said.
        good = director.file.read_text(encoding="utf-8")
        director.file.write_text(good.replace('scheduler = "rr"', 'scheduler = "best"'), encoding="utf-8")
        before, written = director.lines(), len(writes(director))
        director.reload()
        refused = director.events("reload_refused")
        assert [event["problem"].split(": ")[1] for event in refused] == [
            "virtual_server.reco.scheduler",
            "virtual_server.other.scheduler",
        ]
        assert {(event["level"], event["kept"]) for event in refused} == {("error", "the old configuration")}
        status = director.status()
        assert status.config_error == "\n".join(event["problem"] for event in refused)
        assert [row.state for row in status.virtual_servers] == [State.OK, State.OK]
        shown = director.lvsctl("status")
        assert shown.returncode == 1
        assert "no daemon" not in shown.stdout
        assert "config   the last reload was refused, the old one is kept: " in shown.stdout
        assert "(and 1 more; lvsctl check shows them)" in shown.stdout
        director.file.write_text(good + "[", encoding="utf-8")  # not even TOML
        director.reload()
        assert director.status().config_error != status.config_error
        shown = director.lvsctl("status")
        assert (shown.returncode, shown.stdout.count("the last reload was refused")) == (1, 1), shown
        assert director.lines() == before
        figure(len(writes(director)) - written, "writes by the bad ones")
        assert len(writes(director)) == written

        # Good: one added, one changed in place, one removed after a drain.
        new = RECO.replace(".reco]", ".new]").replace(f":{HTTP}", ":82") + 'consul_service = "reco"\n'
        director.configure(RECO.replace('"rr"', '"wlc"') + new)
        assert director.status().config_error == ""
        eventually(lambda: director.table()[tcp(VIP4, HTTP)].options == "-s wlc")
        director.wait_for_weights(tcp(VIP4, 82), FOUR)
        exchanged = held.exchanged
        eventually(lambda: tcp(VIP4, 81) not in director.table(), within=5)
        assert held.exchanged >= exchanged
        report = traffic.stop()
    figure.traffic(report)
    assert not report.failures, report
    after = writes(director)[written:]
    assert after.count("virtual_server_added") == 1
    assert after.count("virtual_server_changed") == 1
    assert after.count("virtual_server_deleted") == 1
    assert after.index("virtual_server_deleted") > after.index("real_server_quiesced 10.2.0.11:80"), "drained first"


# systemd


@pytest.fixture
def notifications(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], dict[str, str]]]:
    """Be systemd: return a function that waits for the next notification that has an assignment."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as received:
        received.bind(str(tmp_path / "notify"))
        received.settimeout(START)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "500000")

        def next_with(assignment: str) -> dict[str, str]:
            deadline = time.monotonic() + START
            while time.monotonic() < deadline:
                lines = received.recv(65536).decode().splitlines()
                if assignment in lines:
                    return dict(line.split("=", 1) for line in lines)
            raise AssertionError(f"no {assignment} within {START:g} s")

        yield next_with


@pytest.mark.promise(14, case="systemd's watchdog of 0.5 s", target="fed within it")
def test_systemd_is_told_what_happens(
    registered: Director, notifications: Callable[[str], dict[str, str]], figure: Figure
) -> None:
    director = registered
    if director.running:
        director.stop()
    director.write(RECO)
    process = director.start(wait=False)
    ready = notifications("READY=1")
    assert director.lines() == sorted(LINES), "ready means that the table is as wanted"
    assert ready == {"READY": "1"}
    assert notifications("STATUS=in sync")
    fed = []
    for _ in range(4):
        notifications("WATCHDOG=1")
        fed.append(time.monotonic())
    figure((fed[-1] - fed[0]) / 3, "s between two of four")
    assert fed[-1] - fed[0] < 3 * 0.5, "three times within what systemd allows"
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    process.signal(signal.SIGHUP)
    reloading = notifications("RELOADING=1")
    assert before <= int(reloading["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert "STATUS" in notifications("READY=1")
    process.signal(signal.SIGTERM)
    notifications("STOPPING=1")
    assert process.wait(START) == 0
    assert director.lines() == sorted(LINES)


# A refusal of the kernel


def absent_scheduler() -> str:
    """Return a scheduler that the configuration takes and this kernel does not have."""
    modules = Path("/lib/modules", os.uname().release, "kernel/net/netfilter/ipvs")
    there = {file.name.split(".")[0].removeprefix("ip_vs_") for file in modules.glob("ip_vs_*.ko*")}
    for scheduler in ("twos", "ovf", "fo", "mh"):
        if there and scheduler not in there:
            return scheduler
    pytest.skip(f"this kernel has every scheduler, or its modules are not in {modules}")


def test_what_the_kernel_refuses_is_said_and_tried_again_and_the_others_are_served(registered: Director) -> None:
    director, scheduler = registered, absent_scheduler()
    director.configure(RECO + OTHER.replace('"rr"', f'"{scheduler}"'))
    director.wait_for_lines(LINES)
    refused = director.wait_for_event("kernel_refused")
    assert refused["name"] == "other"
    assert refused["error"] == (
        f"add virtual server tcp {VIP4}:81: the kernel has no scheduler {scheduler!r}, and found no module for it "
        "(ENOENT)"
    )
    row = director.status_of("other")
    assert (row.state, row.note, row.serving) == (State.REFUSED, refused["error"], 0)
    assert director.status_of("reco").state is State.OK

    eventually(lambda: len(director.events("kernel_refused")) >= 3, within=10)
    attempts = director.events("kernel_refused")
    assert [event["attempt"] for event in attempts] == list(range(1, len(attempts) + 1)), "once for each attempt"
    times = [datetime.fromisoformat(event["timestamp"]).timestamp() for event in attempts]
    assert 0.9 <= times[1] - times[0] <= 3.0  # 1 s from one refusal to the next try; a line is written a moment later
    assert 2.0 <= times[2] - times[1] <= 4.0
    shown = director.lvsctl("status")
    assert shown.returncode == 1
    assert refused["error"] in shown.stdout
    assert director.lines() == sorted(LINES)
    director.configure(RECO + OTHER)
    director.wait_for_weights(tcp(VIP4, 81), FOUR)
    eventually(lambda: director.status_of("other").state is State.OK)

    director.stop()
    before = director.lines()
    director.write(RECO.replace('"rr"', '"wlc"') + OTHER.replace('"rr"', f'"{scheduler}"'))
    once = director.lvsctl("run", "--once")
    assert once.returncode == 5
    assert once.stderr == f"lvsctl: set{refused['error'].removeprefix('add')}\n"
    assert director.lines() == sorted(line.replace(":80 -s rr", ":80 -s wlc") for line in before)


# Hostile strings

ESC: Final = "\x1b[31;1mred\x1b]0;owned\x07 \x9b2J"
LINES_AND_DIRECTIONS: Final = "one\r\ntwo\u2028three \u202egnp.exe\u202c \u200b"
HOSTILE: Final = f"{ESC} {LINES_AND_DIRECTIONS} <script> [/x] [bold]"


def harmful(text: str) -> set[str]:
    """Return the characters that a terminal obeys; a line feed ends a line and is none."""
    return {c for c in text if c != "\n" and unicodedata.category(c) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}}


def assert_harmless(text: str) -> None:
    """Fail for a character that a terminal obeys."""
    found = harmful(text)
    assert not found, f"{found} in {text!r}"


def register_hostile(director: Director) -> None:
    """Register on a hostile node: one that fails, one that serves, one outside of the networks, one without address."""
    put = director.scene.consul.put
    node = {"Node": "fake", "Address": "10.3.0.1", "NodeMeta": {"x": HOSTILE}}
    for number, (address, status) in enumerate(
        [("10.3.1.1", "critical"), ("10.3.1.2", "passing"), ("192.0.2.1", "passing"), (f"evil{ESC}", "passing")]
    ):
        service_id = f"evil-{number} {HOSTILE}"
        service = {"ID": service_id, "Service": "evil", "Port": 80, "Address": address, "Tags": [HOSTILE]}
        check = {
            "CheckID": f"check-{number} {HOSTILE}",
            "Name": HOSTILE,
            "Status": status,
            "Output": HOSTILE * 3,
            "ServiceID": service_id,
        }
        put("/v1/catalog/register", node | {"Service": service | {"Meta": {"x": HOSTILE}}, "Check": check})


@pytest.mark.promise(18, case="terminal and log: ESC, OSC, CR LF, RTL, <script>, [/x] in every name", target="0 raw")
def test_strings_from_consul_reach_no_terminal_and_no_log_raw(registered: Director, figure: Figure) -> None:
    director = registered
    register_hostile(director)
    if director.running:
        director.stop()
    director.ipvsadm("-C")
    director.forget()
    director.write('[virtual_server.evil]\naddress = "10.1.0.100:80"\n')
    shown = {}
    for command in ("diff", "diff -o json", "run --once --dry-run"):
        shown[command] = director.lvsctl(*command.split())
    director.start()
    director.wait_for_weights(tcp(VIP4, HTTP), {"10.3.1.2:80": 1})
    director.wait_for_event("instance_rejected", why="192.0.2.1")
    director.wait_for_event("instance_rejected", why="evil")
    for command in ("status", "status evil", "status -o wide", "status -o json evil"):
        shown[command] = director.lvsctl(*command.split())
    shown["status ESC"] = director.lvsctl("status", f"no{HOSTILE}")
    for name, answer in shown.items():
        print(name, answer.returncode, answer.stdout, answer.stderr, sep="\n")
        assert_harmless(answer.stdout)
        assert_harmless(answer.stderr)
    for command in ("status evil", "status -o wide"):
        assert r"evil-1 \x1b[31;1mred\x1b]0;owned\x07 \x9b2J" in shown[command].stdout, command
    for command in ("diff", "run --once --dry-run"):
        assert r"\x1b[31;1mred" in shown[command].stdout, command
    (row,) = json.loads(shown["status -o json evil"].stdout)["virtual_servers"]
    assert {each["instance"] for each in row["real_servers"]} == {f"evil-{number} {HOSTILE}" for number in range(4)}
    assert_harmless(director.log)
    assert "\\u001b[31;1m" in director.log
    director.stop()

    director.ipvsadm("-C")
    process = director.start("--log-format", "text", wait=False)
    eventually(lambda: process.output.count("instance_rejected") == 2, within=START)
    eventually(lambda: "real_server_added" in process.output)
    process.signal(signal.SIGTERM)
    assert process.wait(START) == 0
    assert_harmless(process.output)
    assert r"\x1b[31;1mred" in process.output
    texts = [process.output, *(text for each in shown.values() for text in (each.stdout, each.stderr))]
    figure(len(texts), "outputs looked through")
    figure(sum(len(harmful(text)) for text in texts), "characters that a terminal obeys")
    assert all(re.match(r"\d\d:\d\d:\d\d \w+ +\w", line) for line in process.output.splitlines()), process.output


# Status


@pytest.mark.promise(17, case="the control socket: mode, and who may ask what", target="0660; 404 for what is none")
def test_status_from_the_daemon_over_its_socket(registered: Director, figure: Figure) -> None:
    director = registered
    director.configure(RECO)
    director.wait_for_lines(LINES)
    wait_until_in_sync(director)
    assert stat.S_IMODE(director.socket.stat().st_mode) == 0o660
    figure(int(f"{stat.S_IMODE(director.socket.stat().st_mode):o}"), "is the mode")
    command = ["curl", "-sS", "-i", "--unix-socket", str(director.socket), "http://localhost/v1/status"]
    head, _, body = director.host.run(command).stdout.replace("\r\n", "\n").partition("\n\n")
    assert head.startswith("HTTP/1.1 200 OK\n")
    assert "content-type: application/json" in head.lower()
    by_curl = json.loads(body)
    text, as_json, wide, one = (
        director.lvsctl("status", *options) for options in ((), ("-o", "json"), ("-o", "wide"), ("reco",))
    )
    for answer in (text, as_json, wide, one):
        assert (answer.returncode, answer.stderr) == (0, "")
    timeless = {"time", "consul", "virtual_servers"}
    printed = json.loads(as_json.stdout)
    assert printed["schema"] == "lvsctl.status/1"
    assert printed.keys() == by_curl.keys()
    assert without(printed, timeless) == without(by_curl, timeless)
    assert [row["state"] for row in printed["virtual_servers"]] == ["ok"]
    rows = text.stdout.splitlines()
    assert rows[0].startswith("lvsctl   ")
    assert ", active, up " in rows[0]
    assert rows[1].startswith(f"consul   reachable at {director.scene.consul.url} over HTTP/1.1, data ")
    assert rows[2].startswith("kernel   in sync since ")
    assert rows[3] == "foreign  none"
    assert rows[6].split()[:8] == ["reco", "reco", "tcp", f"{VIP4}:{HTTP}", "rr", "masquerade", "4/4", "ok"]
    for shown in (wide.stdout, one.stdout):
        for each in director.scene.real_servers:
            row = next(line for line in shown.splitlines() if each.host.ipv4 in line)
            assert row.split()[:6] == [f"{each.host.ipv4}:80", "consul", f"reco-{each.name}", "passing", "serving", "1"]
    unknown = director.lvsctl("status", "nobody")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert unknown.stderr.splitlines()[-1] == "Error: no virtual server 'nobody'; there are: reco"
    not_found = director.host.run([*command[:-1], "http://localhost/v1/other"]).stdout
    assert not_found.startswith("HTTP/1.1 404 ")
    figure(int(not_found.split()[1]), "for what there is not")


def without(status: dict[str, Any], keys: set[str]) -> dict[str, Any]:
    return {key: value for key, value in status.items() if key not in keys}


def test_status_without_a_daemon_is_the_kernels_own_table(registered: Director) -> None:
    director = registered
    if director.running:
        director.stop()
    director.write(RECO)
    director.ipvsadm("-C")
    director.ipvsadm("-R", text="\n".join([*LINES, "-A -t 10.9.0.1:80 -s wlc"]) + "\n")
    shown = director.lvsctl("status")
    assert (shown.returncode, shown.stderr) == (8, "")
    rows = shown.stdout.splitlines()
    assert rows[0].endswith(", no daemon")
    assert rows[1].strip() == (
        f"no daemon answers on {director.socket}: no such file or directory; this is the kernel's own table"
    )
    assert [row.split()[:7] for row in rows[4:]] == [
        ["reco", "tcp", f"{VIP4}:{HTTP}", "rr", "masquerade", "4/4", "ok"],
        ["-", "tcp", "10.9.0.1:80", "wlc", "-", "0/0", "empty"],
    ]
    as_json = director.lvsctl("status", "-o", "json", "reco")
    assert as_json.returncode == 8
    status = json.loads(as_json.stdout)
    assert (status["role"], status["consul"]) == ("no daemon", None)
    assert [row["name"] for row in status["virtual_servers"]] == ["reco"]
    assert len(status["virtual_servers"][0]["real_servers"]) == 4


# Idleness


@pytest.mark.promise(12, case="idle, with an audit a second", target="0 writes")
def test_an_idle_daemon_writes_nothing_and_costs_little(registered: Director, figure: Figure) -> None:
    director = registered
    director.configure(RECO)
    director.wait_for_lines(LINES)
    wait_until_in_sync(director)
    before, written, seconds = director.lines(), len(director.events()), 10.0
    wrote = len(writes(director))
    assert director.process is not None
    process = Path("/proc", str(director.process.pid))
    used = cpu_seconds(process)
    time.sleep(seconds)  # ten audits
    used = cpu_seconds(process) - used
    memory = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB", (process / "status").read_text("ascii"), re.MULTILINE))
    figure(len(writes(director)) - wrote, "writes")
    figure(seconds, "s")
    print(f"idle: {used / seconds:.1%} of a processor with an audit a second, {memory} kB")
    assert len(director.events()) == written, director.events()[written:]
    assert director.lines() == before
    assert int(memory["VmHWM"]) < 256 * 1024
    assert used / seconds < 0.25


def cpu_seconds(process: Path) -> float:
    """Return the processor time that the process has used."""
    fields = (process / "stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

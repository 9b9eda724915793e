"""Hands in the kernel, and the commands that stand alone: what differs is said, repaired, and only then written."""

import json
import signal
import time
from typing import Final

import pytest

from tests.kernel.director import START, Director
from tests.kernel.writes import wait_until_in_sync
from tests.lab.scene import HTTP, VIP4
from tests.lab.traffic import Traffic
from tests.showing import Figure

pytestmark = pytest.mark.kernel

RECO: Final = f'[virtual_server.reco]\naddress = "{VIP4}:{HTTP}"\nscheduler = "rr"\ndrain_timeout = "1s"\n'
FOUR: Final = {f"10.2.0.{number}:80": 1 for number in (11, 12, 13, 14)}
LINES: Final = [f"-A -t {VIP4}:{HTTP} -s rr", *(f"-a -t {VIP4}:{HTTP} -r {key} -m -w 1" for key in FOUR)]
AUDIT: Final = 2.0  # seconds
WORK: Final = 1.0  # seconds a cycle may take here, above the time it waits


def register(director: Director) -> None:
    director.register(*(each.registration() for each in director.scene.real_servers))
    wanted = {f"reco-{each.name}": "passing" for each in director.scene.real_servers}
    director.scene.consul.wait_for_health("reco", wanted)


@pytest.fixture
def serving(director: Director) -> Director:
    """Return the director with `reco` served by four real servers and audited every `AUDIT` seconds."""
    register(director)
    director.write(RECO, daemon=f'audit_interval = "{AUDIT:g}s"')
    if director.running:
        director.reload()
    else:
        director.start()
    director.wait_for_lines(LINES)
    wait_until_in_sync(director)  # so that nothing but an audit makes it look again
    return director


@pytest.fixture
def alone(director: Director) -> Director:
    """Return the director with four instances of `reco` in Consul, an empty table and no daemon."""
    if director.running:
        director.stop()
    director.forget()
    director.ipvsadm("-C")
    register(director)
    director.write(RECO)
    return director


@pytest.mark.promise(7, case="ipvsadm -C under load", target=f"back in {WORK:g} s, whatever audit_interval says")
def test_a_table_cleared_by_hand_is_back_at_once(serving: Director, figure: Figure) -> None:
    serving.write(RECO, daemon='audit_interval = "1h"')
    serving.reload()
    wait_until_in_sync(serving)
    with Traffic(serving.scene.client, VIP4, HTTP, rate=40) as traffic:
        cleared = traffic.report().seconds
        serving.ipvsadm("-C")
        serving.wait_for_lines(LINES, within=WORK)
        repaired = traffic.report().seconds
        asked = traffic.report().requests
        while traffic.report().requests < asked + 40:
            serving.lines()
        report = traffic.stop()
    figure(repaired - cleared, "s until it was back")
    figure(len([each for each in report.failures if each.after > repaired]), "failed after that")
    print(f"repaired {repaired - cleared:.2f} s after ipvsadm -C; {report}")
    assert all(cleared - 0.2 <= each.after <= repaired for each in report.failures), report
    causes = {event["cause"] for event in serving.events("virtual_server_added", "real_server_added")[-5:]}
    assert causes == {"drift"}


@pytest.mark.promise(
    7,
    case="by hand: another scheduler, a weight, one removed, one more",
    target=f"repaired in {AUDIT + 1 + 2 * WORK:g} s",
)
def test_edits_by_hand_show_up_in_diff_and_are_repaired_within_an_audit(serving: Director, figure: Figure) -> None:
    assert serving.process is not None
    key = f"{VIP4}:{HTTP}"
    serving.process.signal(signal.SIGSTOP)  # else it would repair before diff has looked
    serving.ipvsadm("-E", "-t", key, "-s", "wlc")
    serving.ipvsadm("-e", "-t", key, "-r", "10.2.0.12:80", "-m", "-w", "7")
    serving.ipvsadm("-d", "-t", key, "-r", "10.2.0.13:80")
    serving.ipvsadm("-a", "-t", key, "-r", "10.2.0.99:80", "-m", "-w", "1")
    diff = serving.lvsctl("diff", "-o", "json")
    text = serving.lvsctl("diff")
    serving.process.signal(signal.SIGCONT)
    resumed = time.monotonic()
    # The one that is too much is drained first, with another look after a second.
    serving.wait_for_lines(LINES, within=AUDIT + 1.0 + 2 * WORK)
    figure(time.monotonic() - resumed, "s until all four were")
    assert (diff.returncode, diff.stderr) == (1, "")
    assert json.loads(diff.stdout) == {
        "schema": "lvsctl.diff/1",
        "equal": False,
        "complete": True,
        "lines": [
            {
                "sign": sign,
                "name": "reco",
                "virtual_server": f"tcp {key}",
                "real_server": real_server,
                "what": what,
                "cause": "drift",
                "why": why,
                "differs": True,
            }
            for sign, real_server, what, why in (
                ("change", None, "scheduler wlc -> rr", "changed by hand: scheduler rr -> wlc"),
                ("add", "10.2.0.13:80", "masquerade, weight 1", "was in the kernel and is gone: deleted by hand"),
                ("change", "10.2.0.12:80", "weight 7 -> 1", "changed by hand: weight 1 -> 7"),
                (
                    "remove",
                    "10.2.0.99:80",
                    "weight 1 -> 0",
                    "added by hand: neither Consul nor lvsctl knows it",
                ),
            )
        ],
    }
    assert text.returncode == 1
    assert text.stdout.endswith("\n4 differences: 1 virtual server, 5 real servers\n")
    found = {(event["event"], event.get("real_server")) for event in serving.events() if event.get("cause") == "drift"}
    assert found >= {
        ("virtual_server_changed", None),
        ("real_server_added", "10.2.0.13:80"),
        ("real_server_changed", "10.2.0.12:80"),
        ("real_server_quiesced", "10.2.0.99:80"),
    }


def test_once_makes_it_so_and_says_what_it_did_and_diff_agrees(alone: Director) -> None:
    before = alone.lvsctl("diff")
    assert before.returncode == 1
    assert before.stdout.endswith("\n5 differences: 1 virtual server, 4 real servers\n")
    once = alone.lvsctl("run", "--once")
    assert (once.returncode, once.stderr) == (0, "")
    heading, *changes, last = once.stdout.splitlines()
    assert heading == f"reco  tcp {VIP4}:{HTTP}"
    assert changes[0].split() == ["+", "virtual", "server", "rr", "new", "in", "the", "configuration"]
    assert [line.split()[:2] for line in changes[1:]] == [["+", key] for key in FOUR]
    assert last == "in sync, 5 changes made"
    alone.wait_for_lines(LINES, within=1)
    after = alone.lvsctl("diff")
    assert (after.returncode, after.stdout) == (0, "in sync: 1 virtual server, 4 real servers\n")
    again = alone.lvsctl("run", "--once")
    assert (again.returncode, again.stdout) == (0, "in sync, 0 changes made\n")

    text = alone.file.read_text(encoding="utf-8")
    away = f'\n[virtual_server.away]\naddress = "{VIP4}:81"\nconsul_service = "reco"\ndatacenter = "nowhere"\n'
    alone.file.write_text(text + away, encoding="utf-8")
    partly = alone.lvsctl("diff")
    assert partly.returncode == 4
    assert partly.stderr == "lvsctl: Consul gave no answer for away; the rest is shown\n"
    heading, line, _, last = partly.stdout.splitlines()
    assert heading == f"away  tcp {VIP4}:81"
    assert line.split()[:5] == ["!", "virtual", "server", "unknown", "Consul"]
    assert "in datacenter 'nowhere'" in line
    assert last == "no difference known, 1 note: 1 virtual server, 4 real servers"
    assert alone.lvsctl("run", "--once").returncode == 4, "what writes wants all of it"

    alone.file.write_text(text.replace(":8500", ":8599"), encoding="utf-8")
    for command in (["diff"], ["run", "--once"]):
        unreachable = alone.lvsctl(*command)
        assert (unreachable.returncode, unreachable.stdout) == (4, ""), command
        assert (
            unreachable.stderr
            == "lvsctl: Consul service 'reco': cannot reach http://10.2.0.5:8599: connection refused\n"
        )
    alone.file.write_text(text.replace('"rr"', '"round-robin"'), encoding="utf-8")
    for command in (["diff"], ["run", "--once"]):
        wrong = alone.lvsctl(*command)
        assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (3, "", 1), command
        assert "virtual_server.reco.scheduler" in wrong.stderr
    assert alone.lines() == sorted(LINES)


def test_a_dry_run_writes_nothing_anywhere(alone: Director) -> None:
    theirs = ["-A -t 10.9.0.1:80 -s rr", "-a -t 10.9.0.1:80 -r 10.8.0.1:80 -m -w 1"]
    alone.ipvsadm("-R", text="\n".join(theirs) + "\n")
    once = alone.lvsctl("run", "--once", "--dry-run")
    assert (once.returncode, once.stderr) == (0, "")
    assert [line.split()[1] for line in once.stdout.splitlines()[2:]] == list(FOUR)
    alone.start("--dry-run")
    eventually_planned = [alone.wait_for_event("would_change", within=START, real_server=key) for key in FOUR]
    assert {event["cause"] for event in eventually_planned} == {"new"}
    assert alone.lines() == theirs
    assert not alone.state.exists(), "a ledger or a lock was made"
    assert not alone.socket.exists()
    assert len(alone.events("would_change")) == 5, "the plan is said once"
    assert alone.stop() == 0
    assert alone.lines() == theirs

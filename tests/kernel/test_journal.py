"""The journal on the real kernel: whatever happens to a real server, `events` has it and `explain` says why."""

import json
import re
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from lvsctl.journal import Reader
from tests.kernel.director import START, Director, tcp
from tests.kernel.test_instances import R1, R2, R3, R4, instance
from tests.lab.scene import VIP4
from tests.lab.waiting import eventually

pytestmark = pytest.mark.kernel

RECO = 'scheduler = "wrr"\ndrain_timeout = "2s"'


@pytest.fixture
def serving(director: Director) -> Director:
    """Return the director with reco served by four real servers, r4 a canary; the journal begins here."""
    director.scene.consul.request("DELETE", "/v1/kv/lvsctl/weights/?recurse")
    if director.running:
        director.stop()
    director.forget()
    director.ipvsadm("-C")
    for name in ("r1", "r2", "r3", "r4"):
        tags = ("v2",) if name == "r4" else ("v1",)
        director.register(instance(director, name, check="http", tags=tags))
    director.write(
        f'[virtual_server.reco]\naddress = "{VIP4}:{director.port}"\n{RECO}', head='[overrides]\nkv_prefix = "lvsctl"'
    )
    director.start()
    director.wait_for_weights(tcp(VIP4, director.port), {R1: 1, R2: 1, R3: 1, R4: 1}, within=START)
    return director


def events(director: Director, *arguments: str) -> list[dict[str, Any]]:
    """Return what `lvsctl events --json` prints."""
    done = director.lvsctl("events", "--json", *arguments)
    assert (done.returncode, done.stderr) == (0, ""), done
    return [json.loads(line) for line in done.stdout.splitlines()]


def story(found: Sequence[dict[str, Any]], real_server: str) -> list[tuple[str, str]]:
    """Return event and cause of what happened to a real server."""
    return [(each["event"], each["cause"]) for each in found if each.get("real_server") == real_server]


def explained(director: Director, subject: str, code: int = 0) -> str:
    """Return the answer of `lvsctl explain`."""
    done = director.lvsctl("explain", subject)
    assert (done.returncode, done.stderr) == (code, ""), done
    return done.stdout


def test_everything_is_listed_with_its_cause_and_explained_and_outlives_sigkill(
    serving: Director, capsys: pytest.CaptureFixture[str]
) -> None:
    director, consul = serving, serving.scene.consul
    virtual_server = tcp(VIP4, director.port)
    key = f"tcp {VIP4}:{director.port}"

    director.scene.real_servers[0].http.healthy = False  # an instance fails
    director.wait_for_weights(virtual_server, {R2: 1, R3: 1, R4: 1}, within=20)
    consul.deregister("reco-r2")  # is deregistered
    director.wait_for_weights(virtual_server, {R3: 1, R4: 1}, within=20)
    done = director.lvsctl("weight", "reco", "v2", "0", "--reason", "bad build")  # is drained by an operator
    assert done.returncode == 0, done
    director.wait_for_weights(virtual_server, {R3: 1, R4: 0})
    director.ipvsadm("-d", *virtual_server.split(), "-r", R3)  # a hand deletes a real server
    director.wait_for_event("real_server_added", real_server=R3, cause="drift")
    director.wait_for_weights(virtual_server, {R3: 1, R4: 0})
    director.wait_for_event("real_server_deleted", real_server=R2)
    eventually(lambda: len(events(director, R3)) == 2)

    found = events(director)
    assert found[0]["event"] == "started"
    assert [(each["event"], each["cause"]) for each in found[1:6]] == [
        ("virtual_server_added", "new"),
        *[("real_server_added", "new")] * 4,
    ]
    assert story(found, R1) == [
        ("real_server_added", "new"),
        ("real_server_quiesced", "check"),
        ("real_server_deleted", "drain"),
    ]
    assert story(found, R2) == [
        ("real_server_added", "new"),
        ("real_server_quiesced", "deregistered"),
        ("real_server_deleted", "drain"),
    ]
    assert story(found, R3) == [("real_server_added", "new"), ("real_server_added", "drift")]
    assert story(found, R4) == [("real_server_added", "new"), ("real_server_changed", "override")]
    (quiesced,) = events(director, R1)[1:2]
    assert quiesced["virtual_server"] == key
    told = quiesced["consul"]
    assert (told["service"], told["node"], told["instance"], told["health"]) == (
        "reco", "consul", "reco-r1", "critical",
    )  # fmt: skip
    assert told["check"]
    (failed,) = consul.get("/v1/health/checks/reco?filter=ServiceID==%22reco-r1%22")
    assert told["index"] >= failed["ModifyIndex"], "the answer in which it was first so"

    first = explained(director, R1)
    assert first.startswith(f"{R1} is out of reco ({key}).\n  Why: check ")
    assert "503 Service Unavailable" in first
    assert "instance 'reco-r1' on node 'consul', critical" in first
    assert f"{R1} was quiesced (weight 1 -> 0): instance 'reco-r1' on node 'consul'" in first
    assert explained(director, "reco-r1") == first
    second = explained(director, R2)
    assert second.startswith(f"{R2} is in no virtual server, and no answer of Consul has it.")
    gone = "instance 'reco-r2' on node 'consul' is no longer registered in Consul"
    assert f"{R2} was quiesced (weight 1 -> 0): {gone} (Consul index " in second
    assert f"{R2} was deleted: drained in " in second
    by_instance = explained(director, "reco-r2")
    assert "no longer registered in Consul" in by_instance
    third = explained(director, R3)
    assert third.startswith(f"{R3} is in reco ({key}) and serves, with weight 1.\n")
    assert "was in the kernel and is gone: deleted by hand" in third
    fourth = explained(director, R4)
    assert fourth.startswith(f"{R4} is in reco ({key}) with weight 0, so it gets no new connections.\n")
    assert "Why this weight: override 'v2' 0 of 'root@" in fourth
    assert "bad build" in fourth
    whole = explained(director, "reco")
    assert whole.startswith(f"reco ({key}, Consul service reco) is degraded: 1 of 3 serve.\n")
    unknown = director.lvsctl("explain", "10.2.0.99:80")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "virtual servers: reco" in unknown.stderr

    shown = director.lvsctl("events").stdout
    with capsys.disabled():
        print(f"\n{shown}\n{first}\n{second}\n{third}\n{fourth}\n{whole}")

    director.kill()
    before = [line.split()[3:] for line in shown.splitlines()]
    assert [line.split()[3:] for line in director.lvsctl("events").stdout.splitlines()] == before
    down = explained(director, R1, code=8)
    assert down.splitlines()[0].startswith("no daemon answers on ")
    assert f"{R1} is out of reco ({key}).\n  Why: check " in down
    assert "503 Service Unavailable" in down
    with capsys.disabled():
        print(down)
    elsewhere = director.file.with_name("without-consul.toml")
    elsewhere.write_text(
        re.sub(r'(?m)^address = "http.*$', 'address = "http://127.0.0.1:1"', director.file.read_text())
    )
    alone = director.lvsctl("explain", R3, "-c", str(elsewhere))
    assert (alone.returncode, alone.stderr) == (8, ""), alone
    assert "cannot reach http://127.0.0.1:1" in alone.stdout.splitlines()[0]
    assert f"{R3} is in reco ({key}) and serves, with weight 1.\n" in alone.stdout
    assert "was in the kernel and is gone: deleted by hand" in alone.stdout
    alone = director.lvsctl("explain", R1, "-c", str(elsewhere))
    assert (
        f"{R1} is in no virtual server, and whether Consul has it is not known. The journal knows it." in alone.stdout
    )
    director.start()
    eventually(lambda: [each["event"] for each in events(director)].count("started") == 2)
    assert [each["event"] for each in events(director)][: len(found)] == [each["event"] for each in found]
    director.scene.consul.request("DELETE", "/v1/kv/lvsctl/weights/?recurse")


def test_what_was_done_a_moment_before_sigkill_is_there(serving: Director) -> None:
    """Each change is in the log and in the journal at the same moment; the kill comes as soon as the log has it."""
    director, consul = serving, serving.scene.consul
    for number in range(5):
        weight = number + 2
        director.register(instance(director, "r1", weight=weight, check="http", tags=("v1",)))
        director.wait_for_event("real_server_changed", real_server=R1, what=f"-> {weight}")
        written = [each.what for each in Reader(director.state).read()]
        director.kill()
        after = [each.what for each in Reader(director.state).read()]
        assert written == after[: len(written)]
        logged = [each["what"] for each in director.events("real_server_changed")]
        missing = [what for what in logged if what not in after]
        assert missing in ([], logged[-1:]), "at most what was being written"
        director.start()
    assert consul.get("/v1/health/service/reco")


def test_it_is_followed_while_things_happen(serving: Director) -> None:
    director = serving
    command = [sys.executable, "-m", "lvsctl", "events", "-c", str(director.file), "-f", R1]
    following = director.host.start(command, environment={"PYTHONUNBUFFERED": "1"})
    eventually(lambda: "added" in following.output, within=START)
    director.ipvsadm("-d", *tcp(VIP4, director.port).split(), "-r", R1)
    eventually(lambda: "deleted by hand" in following.output, within=START)
    following.signal(2)
    assert following.wait(START) == 0
    assert len(following.output.splitlines()) == 2, following.output


def test_a_full_disk_stops_no_change_and_the_journal_goes_on_after_it(serving: Director) -> None:
    director = serving
    journal = director.state / "journal"
    director.host.run(["mount", "-t", "tmpfs", "-o", "size=8k", "none", str(journal)])
    try:
        director.host.run(["sh", "-c", f"head -c 8192 /dev/zero > {journal}/filled || true"])
        director.scene.real_servers[0].http.healthy = False
        virtual_server = tcp(VIP4, director.port)
        director.wait_for_weights(virtual_server, {R2: 1, R3: 1, R4: 1}, within=20)
        director.wait_for_event("journal_failed", error="no space left on device")
        assert director.status().kernel.error == ""
        (journal / "filled").unlink()
        director.wait_for_event("journal_back", within=20)
        assert ("real_server_quiesced", "check") in story(events(director), R1)
        assert len(director.events("journal_failed")) == 1
    finally:
        director.host.run(["umount", str(journal)])

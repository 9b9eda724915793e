"""How verify judges: the kernel's table against Consul's health and the topology, and what it does without a lab."""

import copy
import json
import pathlib
import subprocess
import sys

import pytest

from tests.test_docs import ROOT
from vagrant.stories.load import Answer, summary
from vagrant.stories.table import differences, parse
from vagrant.stories.topology import load

PROFILE = load()["profiles"]["mini"]
METHODS = {"masquerade": "Masq", "direct-route": "Route", "tunnel": "Tunnel"}


def listing(profile: dict = PROFILE) -> str:  # type: ignore[type-arg]
    """Return what `ipvsadm -Ln` prints where everything is right."""
    lines = ["IP Virtual Server version 1.2.1 (size=4096)", "Prot LocalAddress:Port Scheduler Flags"]
    lines += ["  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn"]
    for name, server in profile["virtual_servers"].items():
        lines.append(f"{server['protocol'].upper()}  {server['vip']}:{server['port']} {server['scheduler']}")
        for each in profile["instances"]:
            if each["service"] == name:
                where = f"{profile['guests'][each['guest']]['back']}:{each['port']}"
                lines.append(f"  -> {where:28} {METHODS[server['forwarding']]:7} 1      0          3         ")
    return "\n".join(lines) + "\n"


def health(*failing: str, profile: dict = PROFILE) -> dict[str, str]:  # type: ignore[type-arg]
    """Return Consul's answers for each service, in which some instances fail."""
    answers: dict[str, list[object]] = {each: [] for each in profile["virtual_servers"]}
    for each in profile["instances"]:
        address = profile["guests"][each["guest"]]["back"]
        answers[each["service"]].append(
            {
                "Node": {"Address": address},
                "Service": {"ID": each["id"], "Address": "", "Port": each["port"]},
                "Checks": [{"Status": "passing"}, {"Status": "critical" if each["id"] in failing else "passing"}],
            }
        )
    return {service: json.dumps(entries) for service, entries in answers.items()}


def test_a_table_that_is_as_consul_says_is_right() -> None:
    assert list(differences(PROFILE, listing(), health())) == []


def test_scheduler_method_and_weight_are_read() -> None:
    server = parse(listing())["tcp", "192.168.56.105", 8081]
    assert server.scheduler == "wrr"
    assert server.real_servers["192.168.57.41", 8081] == ("tunnel", 1)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("192.168.57.41:20101 ", "192.168.57.99:20101 ", "reco: reco-1 passes in Consul and is not in the table"),
        ("192.168.57.41:20101 ", "192.168.57.99:20101 ", "reco: 192.168.57.99:20101 is in the table and does not pass"),
        ("Tunnel ", "Masq   ", "archive: 192.168.57.41:8081 is reached by masquerade instead of tunnel"),
        ("101:80 wrr", "101:80 rr", "reco: scheduler rr instead of wrr"),
        ("Masq    1 ", "Masq    0 ", "reco: 192.168.57.41:20101 has the weight 0"),
        ("UDP  192.168.56.106:5300", "UDP  192.168.56.107:5300", "hint: no virtual server udp 192.168.56.106:5300"),
        ("UDP  192.168.56.106:5300", "UDP  192.168.56.107:5300", "udp 192.168.56.107 5300 is in the table and not in"),
    ],
)
def test_what_differs_is_told(old: str, new: str, said: str) -> None:
    changed = listing().replace(old, new)
    assert changed != listing()
    assert any(said in each for each in differences(PROFILE, changed, health()))


def test_an_instance_that_fails_is_told_whether_it_is_in_the_table_or_not() -> None:
    found = list(differences(PROFILE, listing(), health("reco-1")))
    assert "reco: reco-1 does not pass in Consul" in found
    assert "reco: 192.168.57.41:20101 is in the table and does not pass in Consul" in found


def test_an_empty_table_is_not_right() -> None:
    assert len(list(differences(PROFILE, "", health()))) == len(PROFILE["virtual_servers"])


def test_failures_are_counted_with_their_reason() -> None:
    answers = [Answer(at=0, instance="reco-1"), Answer(at=1, error="refused"), Answer(at=2, error="refused")]
    assert summary(answers).startswith("3 requests, 2 failed (2 refused)")


def run(tmp_path: pathlib.Path, command: str, topology: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run verify or story with a topology, and no guest to reach."""
    path = tmp_path / "topology.json"
    path.write_text(json.dumps(topology), encoding="utf-8")
    nobody = tmp_path / "ssh-config"
    nobody.write_text("Host *\n    ProxyCommand false\n", encoding="ascii")
    given = {"LAB_TOPOLOGY": str(path), "LAB_SSH_CONFIG": str(nobody), "PATH": "/usr/bin:/bin", **environment}
    words = [sys.executable, str(ROOT / "vagrant" / command), *(["--wait", "0"] if command == "verify" else ["dies"])]
    return subprocess.run(words, env=given, capture_output=True, text=True, check=False, timeout=100)


def test_a_topology_without_a_role_is_refused_at_once(tmp_path: pathlib.Path) -> None:
    changed = copy.deepcopy(load())
    changed["profiles"]["mini"]["guests"]["app2"]["roles"].remove("application")
    done = run(tmp_path, "verify", changed)
    assert done.returncode == 1
    assert "1 guests are application, expected are 2" in done.stdout


def test_verify_fails_where_no_guest_answers(tmp_path: pathlib.Path) -> None:
    done = run(tmp_path, "verify", load())
    assert done.returncode == 1
    assert "WRONG   director1: its units run\n        cannot be reached" in done.stdout


def test_a_story_fails_where_no_guest_answers(tmp_path: pathlib.Path) -> None:
    done = run(tmp_path, "story", load())
    assert done.returncode == 1
    assert "dies: FAILED" in done.stdout


def test_a_story_for_two_directors_is_refused_where_there_is_one() -> None:
    words = [sys.executable, str(ROOT / "vagrant" / "story"), "failover"]
    done = subprocess.run(words, env={"LAB_PROFILE": "mini"}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "needs two directors" in done.stderr


def test_unknown_profiles_are_told(tmp_path: pathlib.Path) -> None:
    done = run(tmp_path, "verify", load(), LAB_PROFILE="maxi")
    assert done.returncode == 1
    assert "no profile 'maxi'; there are: mini, full" in done.stdout

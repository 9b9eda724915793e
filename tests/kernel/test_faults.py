"""Consul in every kind of trouble, under steady traffic: the table stays as it is, and work resumes by itself.

These break Consul, so they have a scene of their own. Promises: a failure is never emptiness, errors 0, writes 0, the
status and the log say since when, and what changed meanwhile arrives within `RESUMED` of Consul's return.
"""

import json
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from lvsctl.core.status import State
from tests.kernel.director import Director, tcp
from tests.kernel.writes import wait_until_in_sync, writes
from tests.lab.consul import PORT, ConsulAgent, Registration, version
from tests.lab.scene import HTTP, VIP4, Scene, scene
from tests.lab.traffic import Traffic
from tests.lab.waiting import eventually
from tests.showing import Figure

pytestmark = pytest.mark.kernel

RESUMED: Final = 5.0  # seconds from Consul's return to the table
NOTICED: Final = 25 * 17 / 16 + 10  # seconds in which an answer that does not come is missed, see consul/transport.py
UNKNOWN: Final = 15.0  # seconds; a Consul that streams tries an unknown token for up to 9 s before it says 403
RECO: Final = f'[virtual_server.reco]\naddress = "{VIP4}:{HTTP}"\nscheduler = "rr"\ndrain_timeout = "1s"\n'
THREE: Final = {"10.2.0.11:80": 1, "10.2.0.12:80": 1, "10.2.0.13:80": 1}
FOUR: Final = THREE | {"10.2.0.14:80": 1}


@pytest.fixture(scope="module")
def own_director() -> Iterator[Director]:
    with scene(real_servers=4) as made:
        yield Director(made)


@pytest.fixture
def director(own_director: Director) -> Iterator[Director]:
    """Return a director whose daemon serves r1 to r3, registered by file; r4 is there to be registered."""
    consul = own_director.scene.consul
    assert consul.process is not None
    if not consul.process.running:
        consul.start()
    for number in range(50):  # so that an agent that starts anew has a lower index than this one
        consul.put(f"/v1/kv/lab/{number}", number)
    for each in own_director.scene.real_servers[:3]:
        consul.write(each.registration())
    own_director.configure(RECO)
    own_director.wait_for_weights(tcp(VIP4, HTTP), THREE)
    yield own_director
    consul.thaw()
    own_director.scene.consul_host.run(["ip", "route", "del", *SILENCE.split()], check=False)
    if not consul.process.running:
        consul.start()
    own_director.clean()


@attrs.frozen(kw_only=True)
class Fault:
    """A way for Consul to be away."""

    begin: Callable[[Scene], object]
    change: Callable[[Scene], object]  # registers r4 while Consul is away
    end: Callable[[Scene], object]
    noticed: float  # seconds until the daemon must know


def fourth(made: Scene) -> Registration:
    return made.real_servers[3].registration()


def write_only(made: Scene) -> None:
    """Put r4's file in place, for an agent that is not there to be told."""
    path = made.consul.files / "reco-r4.json"
    path.write_text(json.dumps({"service": fourth(made).definition()}), encoding="utf-8")


SILENCE: Final = "blackhole 10.2.0.1/32"  # what Consul sends to the director is lost without a word
FAULTS: Final = {
    "killed": Fault(
        begin=lambda made: made.consul.kill(),
        change=write_only,
        end=lambda made: made.consul.start(),
        noticed=2.0,
    ),
    "frozen": Fault(
        begin=lambda made: made.consul.freeze(),
        change=lambda made: made.consul.write(fourth(made), wait=False),  # it reads the file when it can
        end=lambda made: made.consul.thaw(),
        noticed=NOTICED + 2,
    ),
    "unreachable": Fault(
        begin=lambda made: made.consul_host.ip(f"route add {SILENCE}"),
        change=lambda made: made.consul.register(fourth(made)),
        end=lambda made: made.consul_host.ip(f"route del {SILENCE}"),
        noticed=NOTICED + 2,
    ),
}


@pytest.mark.promise(1, case="the agent is killed, frozen, out of reach", target=f"0 failed, resumed in {RESUMED:g} s")
@pytest.mark.promise(13, case="the agent is killed, frozen, out of reach", target=f"noticed in {NOTICED:.1f} s")
@pytest.mark.parametrize("name", FAULTS)
def test_the_table_stays_while_consul_is_away_and_follows_it_when_it_is_back(
    director: Director, name: str, figure: Figure
) -> None:
    fault, made = FAULTS[name], director.scene
    before, written = director.lines(), len(writes(director))
    with Traffic(made.client, VIP4, HTTP, rate=20) as traffic:
        began = time.time()
        fault.begin(made)
        failed = director.wait_for_event("consul_failed", within=fault.noticed, consul_service="reco")
        noticed = time.time() - began
        assert failed["kept"] == "the last answer"
        assert failed["level"] == "warning"
        fault.change(made)
        status = director.status()
        assert status.consul is not None
        assert not status.consul.reachable
        assert status.consul.failing_since is not None
        assert began <= status.consul.failing_since <= began + fault.noticed
        assert status.consul.data_age is not None
        assert [row.state for row in status.virtual_servers] == [State.OK], "what is served still is"
        shown = director.lvsctl("status")
        assert shown.returncode == 1, shown
        assert "consul   unreachable for " in shown.stdout
        assert "the table is kept" in shown.stdout
        assert director.lines() == before
        assert len(writes(director)) == written
        fault.end(made)
        back = time.monotonic()
        director.wait_for_weights(tcp(VIP4, HTTP), FOUR, within=RESUMED)
        resumed = time.monotonic() - back
        director.wait_for_event("consul_back", within=RESUMED, consul_service="reco")
        report = traffic.stop()
    print(f"{name}: noticed after {noticed:.1f} s, resumed after {resumed:.1f} s; {report}")
    figure.traffic(report)
    figure(noticed, "s until it was noticed")
    figure(resumed, "s to resume")
    assert not report.failures, report
    status = director.status()
    assert status.consul is not None
    assert status.consul.reachable
    assert status.consul.failing == 0


@pytest.mark.promise(6, case="started while Consul is frozen, table populated", target="0 writes, 0 failed")
def test_a_daemon_that_starts_without_consul_leaves_the_table_and_begins_when_it_comes(
    director: Director, figure: Figure
) -> None:
    made = director.scene
    before = director.lines()
    assert director.stop() == 0
    made.consul.freeze()
    with Traffic(made.client, VIP4, HTTP, rate=20) as traffic:
        began = time.time()
        director.start()
        director.wait_for_event("consul_incomplete", within=15)
        status = director.status()
        assert status.consul is not None
        assert status.consul.data_age is None
        assert [(row.name, row.state) for row in status.virtual_servers] == [("reco", State.WAITING)]
        assert status.virtual_servers[0].serving == 3, "the kernel's own real servers are shown"
        director.wait_for_event("consul_failed", within=10, consul_service="reco")
        status = director.status()
        assert status.consul is not None
        assert status.consul.failing_since is not None
        assert status.consul.failing_since >= began
        shown = director.lvsctl("status").stdout
        assert "unreachable for " in shown
        assert "not everything answered yet" in shown
        diff = director.lvsctl("diff")
        assert (diff.returncode, diff.stdout) == (4, "")
        assert diff.stderr == f"lvsctl: Consul service 'reco': no answer from {made.consul.url} within 10 s\n"
        once = director.lvsctl("run", "--once")
        assert once.returncode == 6, "the daemon has the lock, with Consul or without"
        assert director.lines() == before
        figure(len(writes(director)), "writes")
        made.consul.write(fourth(made), wait=False)
        made.consul.thaw()
        director.wait_for_weights(tcp(VIP4, HTTP), FOUR, within=RESUMED)
        report = traffic.stop()
    figure.traffic(report)
    assert not report.failures, report
    assert writes(director) == ["real_server_added 10.2.0.14:80"], "what stood already is not written again"


@pytest.mark.promise(2, case="Consul comes back with an empty catalogue: 200 and []", target="0 writes, 0 failed")
def test_an_agent_that_comes_back_knowing_nothing_empties_no_virtual_server(director: Director, figure: Figure) -> None:
    made = director.scene
    before, written = director.lines(), len(writes(director))
    with Traffic(made.client, VIP4, HTTP, rate=20) as traffic:
        made.consul.kill()
        for file in made.consul.files.glob("reco-*.json"):
            file.unlink()
        shutil.rmtree(made.consul.files.parent / "data")
        made.consul.start()
        assert made.consul.get("/v1/health/service/reco") == []
        hold = director.wait_for_event("hold", within=RESUMED, name="reco")
        assert hold["why"].startswith("Consul's answer is in doubt (Consul's index went back from "), hold
        assert hold["why"].endswith("; 3 real servers that serve are kept"), hold
        row = director.status_of("reco")
        assert (row.state, row.serving) == (State.HELD, 3)
        assert director.lines() == before
        assert len(writes(director)) == written
        made.consul.register(made.real_servers[0].registration())
        made.consul.register(made.real_servers[1].registration())
        director.wait_for_event("hold", within=RESUMED, why="; 1 real server that serves is kept")
        assert director.lines() == before
        made.consul.register(made.real_servers[2].registration())
        director.wait_for_event("consul_believed", within=RESUMED)
        eventually(lambda: director.status_of("reco").state is State.OK, within=RESUMED)
        director.wait_for_event("trouble_over", trouble="hold")
        assert len(writes(director)) == written
        report = traffic.stop()
    figure(len(writes(director)) - written, "writes")
    figure.traffic(report)
    assert not report.failures, report


# The state directory


def test_a_ledger_that_cannot_be_written_stops_what_is_new_and_says_so(director: Director) -> None:
    other = RECO.replace(".reco]", ".other]").replace(f":{HTTP}", ":81") + 'consul_service = "reco"\n'
    assert director.stop() == 0
    before = director.lines()
    director.host.run(["mount", "-t", "tmpfs", "-o", "size=64k", "lab", str(director.state)])
    try:
        director.start()
        wait_until_in_sync(director)  # adopted: the ledger is a new one
        filler = director.state / "filler"
        with pytest.raises(OSError, match="No space left"):
            filler.write_bytes(bytes(1 << 20))
        director.configure(RECO + other)
        failed = director.wait_for_event("ledger_failed")
        assert failed["why"] == (
            f"{director.state}/ledger.json: no space left on device; make daemon.state_directory writable; "
            "until then nothing new is written to the kernel"
        )
        assert director.status().kernel.error == failed["why"]
        shown = director.lvsctl("status")
        assert shown.returncode == 1
        assert f"kernel   cannot be reconciled: {failed['why']}" in shown.stdout
        assert director.lines() == before
        assert writes(director) == []
        director.scene.consul.maintain("reco-r1", enable=True)  # what is in the table is still looked after
        gone = {key: weight for key, weight in THREE.items() if not key.startswith("10.2.0.11:")}
        director.wait_for_weights(tcp(VIP4, HTTP), gone)
        director.scene.consul.maintain("reco-r1", enable=False)
        filler.unlink()
        director.wait_for_weights(tcp(VIP4, 81), THREE)
    finally:
        if director.running:
            director.stop()
        director.host.run(["umount", str(director.state)])


# Access control


class GuardedConsul:
    """A Consul agent that answers nobody without a token."""

    def __init__(self, agent: ConsulAgent) -> None:
        self.agent = agent
        rules = {"acl": {"enabled": True, "default_policy": "deny", "policy_ttl": "1s", "token_ttl": "1s"}}
        (agent.files / "acl.json").write_text(json.dumps(rules), encoding="utf-8")
        agent.start(wait=False)
        self.master = ""
        self.master = eventually(lambda: self.ask("PUT", "/v1/acl/bootstrap")["SecretID"], within=30)
        for kind in ("agent", "default"):
            self.ask("PUT", f"/v1/agent/token/{kind}", {"Token": self.master})

    def ask(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - Consul's JSON
        """Return the decoded answer to a request with the first token."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"X-Consul-Token": self.master} if self.master else {}
        asked = urllib.request.Request(f"http://127.0.0.1:{PORT}{path}", data=data, method=method, headers=headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with self.agent.host.inside(), opener.open(asked, timeout=10) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            error.close()  # it holds the connection
            raise
        return json.loads(text) if text.strip() else None

    def register(self, registration: Registration) -> None:
        self.ask("PUT", "/v1/agent/service/register", registration.definition())

    def deregister(self, instance: str) -> None:
        self.ask("PUT", f"/v1/agent/service/deregister/{instance}")

    def allow(self, name: str, rules: str) -> None:
        """Have the tokens with the policy `name` may do what `rules` say, and nothing else."""
        (policy,) = (each for each in self.ask("GET", "/v1/acl/policies") if each["Name"] == name)
        self.ask("PUT", f"/v1/acl/policy/{policy['ID']}", {"Name": name, "Rules": rules})

    def token(self, name: str, rules: str) -> str:
        """Return a new token that may do what `rules` say."""
        self.ask("PUT", "/v1/acl/policy", {"Name": name, "Rules": rules})
        made: str = self.ask("PUT", "/v1/acl/token", {"Description": name, "Policies": [{"Name": name}]})["SecretID"]
        return made


@pytest.mark.promise(2, case="the token loses a permission: 200 and []", target="0 writes, 0 failed")
def test_a_token_that_loses_a_permission_takes_nothing_out_of_the_table(tmp_path: Path, figure: Figure) -> None:
    """Consul 1.8 answers 200 and an empty list then, under the index that it had."""
    with scene(real_servers=3, consul=False) as made:
        consul = GuardedConsul(made.consul)
        reading = 'node_prefix "" { policy = "read" } service_prefix "" { policy = "read" }'
        file = tmp_path / "token"
        file.write_text(consul.token("lvsctl", reading), encoding="ascii")
        for each in made.real_servers:
            consul.register(each.registration())
        director = Director(made)
        director.write(RECO, consul=f'token_file = "{file}"')
        director.start()
        director.wait_for_weights(tcp(VIP4, HTTP), THREE)
        wait_until_in_sync(director)
        written = len(writes(director))
        with Traffic(made.client, VIP4, HTTP, rate=20) as traffic:
            consul.allow("lvsctl", 'node_prefix "" { policy = "read" } service "other" { policy = "read" }')
            # The request that waits is answered with what it may read when it came; the next one is not.
            director.wait_for_event("consul_doubted", within=2 * NOTICED, consul_service="reco")
            held = director.wait_for_event("hold", name="reco")
            assert "Consul's answer is in doubt (" in held["why"]
            assert "3 real servers that serve are kept" in held["why"]
            row = director.status_of("reco")
            assert (row.state, row.serving) == (State.HELD, 3)
            shown = director.lvsctl("status")
            assert (shown.returncode, "in doubt" in shown.stdout) == (1, True), shown
            print(shown.stdout)
            assert director.weights(tcp(VIP4, HTTP)) == THREE
            assert len(writes(director)) == written
            figure(len(writes(director)) - written, "writes")
            consul.allow("lvsctl", reading)
            consul.register(attrs.evolve(made.real_servers[0].registration(), tags=("again",)))  # ends the request
            director.wait_for_event("consul_believed", within=2 * NOTICED, consul_service="reco")
            director.wait_for_event("trouble_over", name="reco", trouble="hold")
            consul.deregister("reco-r3")
            director.wait_for_event("real_server_quiesced", real_server="10.2.0.13:80")
            report = traffic.stop()
        print(report)
        figure.traffic(report)
        assert not report.failures, report


@pytest.mark.promise(
    16, case="four tokens, good, blind, unknown and Consul's own, looked for in log and diff", target="0 hits"
)
def test_a_token_that_stops_working_keeps_the_table_and_the_next_one_in_the_file_is_used(
    tmp_path: Path, figure: Figure
) -> None:
    with scene(real_servers=3, consul=False) as made:
        consul = GuardedConsul(made.consul)
        reading = 'node_prefix "" { policy = "read" } service_prefix "" { policy = "read" }'
        good = consul.token("lvsctl", reading)
        blind = consul.token("nothing", 'key "nothing" { policy = "read" }')
        wrong = "11111111-2222-3333-4444-555555555555"
        file = tmp_path / "token"
        file.touch(mode=0o600)
        file.write_text(f"{good}\n", encoding="ascii")
        r1, r2, r3 = (each.registration() for each in made.real_servers)
        consul.register(r1)
        consul.register(r2)
        director = Director(made)
        director.write(f'{RECO}floor = "0%"\n')  # what it is about is who leaves after all
        text = director.file.read_text(encoding="utf-8")
        director.file.write_text(text.replace("[consul]", f'[consul]\ntoken_file = "{file}"'), encoding="utf-8")
        director.start()
        two = {"10.2.0.11:80": 1, "10.2.0.12:80": 1}
        director.wait_for_weights(tcp(VIP4, HTTP), two)
        with Traffic(made.client, VIP4, HTTP, rate=20) as traffic:
            # A token nobody knows: Consul answers 403. The request that waits ends with the next change.
            file.write_text(f"{wrong}\n", encoding="ascii")
            consul.register(r3)
            refused = director.wait_for_event("consul_failed", within=UNKNOWN, consul_service="reco")
            assert refused["error"].startswith("Consul answered 403: "), refused
            assert refused["error"].endswith("; the token needs node:read and service:read (consul.token_file)")
            director.wait_for_weights(tcp(VIP4, HTTP), THREE)
            before, written = director.lines(), len(writes(director))
            consul.deregister("reco-r3")
            status = director.status()
            assert status.consul is not None
            assert not status.consul.reachable
            diff = director.lvsctl("diff")
            assert (diff.returncode, diff.stdout, diff.stderr.count("\n")) == (4, "", 1), diff
            assert "403" in diff.stderr
            assert director.lines() == before
            assert len(writes(director)) == written

            file.write_text(f"{good}\n", encoding="ascii")
            director.wait_for_event("consul_back", within=RESUMED, consul_service="reco")
            director.wait_for_event("real_server_quiesced", real_server="10.2.0.13:80")
            consul.deregister("reco-r2")
            director.wait_for_event("real_server_quiesced", real_server="10.2.0.12:80")
            # A token that may read nothing: Consul answers 200 and an empty list.
            file.write_text(f"{blind}\n", encoding="ascii")
            consul.register(r3)  # ends the request that waits; it may be the last that could read
            eventually(lambda: director.weights(tcp(VIP4, HTTP)).get("10.2.0.13:80") or director.events("hold"))
            consul.register(attrs.evolve(r3, tags=("more",)))  # ends the first that may read nothing
            # From 1.10 on a change that may not be read wakes nobody: the query that waits has to end by itself.
            read_again = RESUMED if version() < (1, 10) else 2 * NOTICED
            director.wait_for_event("hold", within=read_again, name="reco")
            row = director.status_of("reco")
            assert row.state is State.HELD
            assert row.serving >= 1
            file.unlink()
            consul.register(attrs.evolve(r3, tags=("again",)))
            missing = director.wait_for_event("consul_failed", within=read_again, error=str(file))
            assert missing["error"].startswith(f"consul.token_file {file}: no such file or directory; make it ")
            file.write_text(f"{good}\n", encoding="ascii")
            director.wait_for_weights(tcp(VIP4, HTTP), {"10.2.0.11:80": 1, "10.2.0.13:80": 1})
            report = traffic.stop()
        assert not report.failures, report
        assert director.stop() == 0
        tokens = (good, blind, wrong, consul.master)
        figure(sum(director.log.count(token) + diff.stderr.count(token) for token in tokens), "hits")
        for token in tokens:
            assert token not in director.log
            assert token not in diff.stderr

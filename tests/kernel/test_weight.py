"""`lvsctl weight` on the real kernel: a canary gets its share of connections, and nobody notices the change."""

import pytest

from tests.kernel.director import Director, tcp
from tests.kernel.test_instances import R1, R2, R3, R4, instance
from tests.lab.scene import VIP4
from tests.lab.traffic import HeldConnections, Traffic
from tests.lab.waiting import eventually

pytestmark = pytest.mark.kernel

OPENED = '[overrides]\nkv_prefix = "lvsctl"'
CYCLES = 10  # of wrr's: 3 others at 19 and the canary at 3


def serve(director: Director, more: str = 'scheduler = "wrr"') -> str:
    """Have v1 on three real servers and v2 on the fourth; return ipvsadm's words for their virtual server."""
    for name in ("r1", "r2", "r3", "r4"):
        director.register(instance(director, name, tags=("v2" if name == "r4" else "v1",), meta={"lvs-weight": "1"}))
    director.configure(f'[virtual_server.reco]\naddress = "{VIP4}:{director.port}"\n{more}', head=OPENED)
    virtual_server = tcp(VIP4, director.port)
    director.wait_for_weights(virtual_server, {R1: 1, R2: 1, R3: 1, R4: 1})
    return virtual_server


@pytest.fixture(autouse=True)
def _clear(director: Director) -> None:
    """Begin without overrides."""
    director.scene.consul.request("DELETE", "/v1/kv/lvsctl/weights/?recurse")


def test_a_canary_gets_its_share_of_connections_and_no_request_fails(
    director: Director, capsys: pytest.CaptureFixture[str]
) -> None:
    virtual_server = serve(director)
    client = director.scene.client
    with HeldConnections(client, VIP4, director.port, count=4) as held, Traffic(client, VIP4, director.port) as traffic:
        done = director.lvsctl("weight", "reco", "v2", "5%", "--for", "1h", "--reason", "canary")
        assert done.returncode == 0, done.stderr
        assert "1 of 4 instances, weight 3, the others 19" in done.stdout
        director.wait_for_weights(virtual_server, {R1: 19, R2: 19, R3: 19, R4: 3})
        changed = director.wait_for_event("real_server_changed", real_server=R4)
        assert (changed["cause"], changed["what"]) == ("override", "weight 1 -> 3")
        before = dict(traffic.report().answers)
        wanted = sum(before.values()) + 60 * CYCLES
        eventually(lambda: sum(traffic.report().answers.values()) >= wanted, within=60)
        answers = traffic.report().answers
        share = (answers["r4"] - before.get("r4", 0)) / (sum(answers.values()) - sum(before.values()))
        row = director.status_of("reco")
        assert [(each.selector, each.share, each.reason, each.matching) for each in row.overrides] == [
            ("v2", "5%", "canary", 1)
        ]
        assert director.lvsctl("diff").returncode == 0, "diff decides as the daemon does"
        shown = director.lvsctl("status", "reco").stdout
        assert "OVERRIDE" in shown
        assert director.lvsctl("weight", "reco", "v2", "--clear").returncode == 0
        director.wait_for_weights(virtual_server, {R1: 1, R2: 1, R3: 1, R4: 1})
        assert director.wait_for_event("override_over", selector="v2")["why"] == "cleared"
        changed = director.wait_for_event("real_server_changed", real_server=R4, what="weight 3 -> 1")
        assert changed["cause"] == "override"
        assert "was cleared" in changed["why"]
        report = traffic.stop()
    with capsys.disabled():
        print(f"\ncanary of 5 %: {100 * share:.2f} % of {60 * CYCLES} connections; {report}")
    assert not report.failures, report
    assert not held.broken, held.broken
    assert not director.events("real_server_deleted", "real_server_quiesced")
    assert abs(share - 0.05) < 0.01


def test_for_sh_the_canary_gets_its_share_of_the_table(director: Director, capsys: pytest.CaptureFixture[str]) -> None:
    virtual_server = serve(director, 'scheduler = "sh"\nscheduler_flags = ["sh-port", "sh-fallback"]')
    assert director.lvsctl("weight", "reco", "v2", "25%").returncode == 0
    eventually(lambda: director.weights(virtual_server)[R4] == 64)
    assert sum(director.weights(virtual_server).values()) == 256
    with Traffic(director.scene.client, VIP4, director.port) as traffic:
        eventually(lambda: traffic.report().requests >= 600, within=60)
        report = traffic.stop()
    share = report.answers["r4"] / report.requests
    with capsys.disabled():
        print(f"\nsh, 25 %: {100 * share:.1f} %; {report}")
    assert not report.failures, report
    assert 0.17 < share < 0.33


def test_an_override_ends_by_itself_and_outlives_a_restart_without_consul(director: Director) -> None:
    virtual_server = serve(director)
    assert director.lvsctl("weight", "reco", "v2", "50%", "--for", "8s").returncode == 0
    director.wait_for_weights(virtual_server, {R1: 1, R2: 1, R3: 1, R4: 3})
    director.wait_for_weights(virtual_server, {R1: 1, R2: 1, R3: 1, R4: 1}, within=20)
    assert director.lvsctl("weight", "reco", "v2", "50%").returncode == 0
    director.wait_for_weights(virtual_server, {R1: 1, R2: 1, R3: 1, R4: 3})
    eventually((director.state / "overrides.json").exists)
    director.stop()
    director.ipvsadm("-C")
    consul = director.scene.consul
    consul.freeze()
    try:
        director.start()
        director.wait_for_weights(virtual_server, {R1: 1, R2: 1, R3: 1, R4: 3}, within=20)
    finally:
        consul.thaw()


def test_a_weight_in_metadata_counts_where_it_is_opened(director: Director) -> None:
    virtual_server = serve(director)
    director.register(instance(director, "r4", tags=("v2",), meta={"lvs-weight": "7"}))
    director.register(instance(director, "r3", tags=("v1",), meta={"lvs-weight": "-7"}))
    text = director.file.read_text().replace('scheduler = "wrr"', 'scheduler = "wrr"\nweight_meta = "lvs-weight"')
    director.file.write_text(text)
    director.reload()
    director.wait_for_weights(virtual_server, {R1: 1, R2: 1, R3: 1, R4: 7})
    (row,) = [each for each in director.status_of("reco").real_servers if each.real_server == R3]
    assert row.why.startswith("meta 'lvs-weight' is '-7', no weight")

"""An instance whose check flaps, on a real Consul and the real kernel: it stays out, unless it is needed."""

import time

import pytest

from tests.kernel.director import Director
from tests.kernel.test_instances import R1, R2, R3, R4, instance, reco, verdict_to_table
from tests.lab.scene import VIP4
from tests.lab.traffic import Traffic
from tests.lab.waiting import eventually

pytestmark = pytest.mark.kernel


def test_a_flapping_instance_is_held_down_until_it_is_needed(
    director: Director, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("r1", "r2", "r3", "r4"):
        director.register(instance(director, name, check="ttl"))
    virtual_server = reco(director, "damping = true")
    director.wait_for_weights(virtual_server, {R1: 1, R2: 1, R3: 1, R4: 1})
    consul = director.scene.consul
    with Traffic(director.scene.client, VIP4, director.port) as traffic:
        took = [
            verdict_to_table(director, verdict, virtual_server)
            for verdict in ("fail", "pass", "fail", "pass", "fail", "pass", "fail")
        ]
        consul.update_ttl("reco-r1", "pass")
        damped = director.wait_for_event("instance_damped", name="reco-r1")
        assert "it left 4 times in a row soon after it had come" in damped["why"]
        time.sleep(2)  # two audits
        assert director.weights(virtual_server).get(R1, 0) == 0
        (row,) = [each for each in director.status_of("reco").real_servers if each.instance == "reco-r1"]
        assert (row.check, row.why) == ("passing", damped["why"])
        consul.update_ttl("reco-r2", "fail")
        eventually(lambda: director.weights(virtual_server).get(R2, 0) == 0)
        assert director.weights(virtual_server).get(R1, 0) == 0, "two of four are half of them"
        consul.update_ttl("reco-r3", "fail")
        director.wait_for_event("trouble_over", name="reco-r1")
        serving = {key for key, weight in director.weights(virtual_server).items() if weight}
        report = traffic.stop()
    assert {R1, R4} <= serving
    with capsys.disabled():
        print(f"\nseven changes before it was damped: slowest {max(took) * 1000:.0f} ms; {report}")
    assert max(took) < 1.0
    assert not report.failures, report

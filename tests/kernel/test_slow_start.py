"""Slow start on the real kernel: the share of a new real server grows with its weight, and no request fails."""

import time

import pytest

from tests.kernel.director import Director
from tests.kernel.test_instances import R1, R2, R3, R4, instance, reco
from tests.lab.scene import VIP4
from tests.lab.traffic import Traffic
from tests.lab.waiting import eventually

pytestmark = pytest.mark.kernel

SECONDS = 12.0
OTHERS = {R1: 16, R2: 16, R3: 16}


def test_the_share_of_a_new_one_grows_to_its_part_and_no_request_fails(
    director: Director, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("r1", "r2", "r3"):
        director.register(instance(director, name))
    virtual_server = reco(director, f'slow_start = "{SECONDS:g}s"')
    director.wait_for_weights(virtual_server, {R1: 1, R2: 1, R3: 1})
    assert not any(event["cause"] == "slow-start" for event in director.events("real_server_added"))
    shares = []
    with Traffic(director.scene.client, VIP4, director.port, rate=100) as traffic:
        director.register(instance(director, "r4"))
        added = director.wait_for_event("real_server_added", real_server=R4)
        assert "slow start, 6% of weight 1" in added["why"]
        director.wait_for_weights(virtual_server, {**OTHERS, R4: 1}, within=0.7)
        began, before = time.monotonic(), dict(traffic.report().answers)
        for third in (1, 2, 3):
            time.sleep(max(0.0, began + third * SECONDS / 3 - time.monotonic()))
            now = dict(traffic.report().answers)
            new = {name: count - before.get(name, 0) for name, count in now.items()}
            shares.append(new.get("r4", 0) / sum(new.values()))
            before = now
            if third == 1:
                (row,) = [each for each in director.status_of("reco").real_servers if each.real_server == R4]
                assert row.slow_start is not None
                assert 25 <= row.slow_start.percent <= 62
                assert "ramping: " in director.lvsctl("status", "reco").stdout
        director.wait_for_weights(virtual_server, {R1: 1, R2: 1, R3: 1, R4: 1})
        report = traffic.stop()
    with capsys.disabled():
        print(f"\nslow start, shares of each third: {', '.join(f'{100 * share:.1f} %' for share in shares)}; {report}")
    assert not report.failures, report
    assert shares == sorted(shares)
    assert shares[0] < 0.12
    assert shares[2] > 0.15
    writes = [event["what"] for event in director.events("real_server_changed") if event["real_server"] == R4]
    assert len(writes) == 15, writes


def test_by_wlc_a_new_one_is_not_sent_everything_at_once(
    director: Director, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has no connections, and without slow start as many new ones in a row as the others have each."""
    for name in ("r1", "r2", "r3"):
        director.register(instance(director, name))
    virtual_server = reco(director, 'slow_start = "6s"', scheduler="wlc")
    director.wait_for_weights(virtual_server, {R1: 1, R2: 1, R3: 1})
    with Traffic(director.scene.client, VIP4, director.port, rate=100) as traffic:
        time.sleep(3)
        director.register(instance(director, "r4"))
        eventually(lambda: R4 in director.weights(virtual_server), within=5)  # its first weight lasts 0.4 s
        began, before = time.monotonic(), dict(traffic.report().answers)
        time.sleep(max(0.0, began + 1 - time.monotonic()))
        now = dict(traffic.report().answers)
        director.wait_for_weights(virtual_server, {R1: 1, R2: 1, R3: 1, R4: 1})
        report = traffic.stop()
    new = {name: count - before.get(name, 0) for name, count in now.items()}
    share = new.get("r4", 0) / sum(new.values())
    with capsys.disabled():
        print(f"\nslow start by wlc, share of the first second: {100 * share:.1f} %; {report}")
    assert not report.failures, report
    assert share < 0.35

"""A daemon with nothing to do, for minutes: it audits, its queries wait and end, and it writes nothing."""

import time
from typing import Final

import pytest

from tests.kernel.director import Director, tcp
from tests.kernel.writes import wait_until_in_sync, writes
from tests.lab.scene import HTTP, VIP4, Forwarding
from tests.lab.traffic import HeldConnections, Traffic
from tests.showing import Figure

pytestmark = [pytest.mark.kernel, pytest.mark.soak]

MINUTES: Final = 2.0  # in which the query of 25 s ends four times
FOUR: Final = {f"10.2.0.{number}:80": 1 for number in (11, 12, 13, 14)}


@pytest.mark.promise(
    12, case="idle under load, an audit a second, both forwardings", target="0 writes, 0 failed, 0 broken"
)
@pytest.mark.parametrize("forwarding", ["masquerade", "direct-route"])
def test_while_nothing_changes_nothing_is_written(director: Director, forwarding: Forwarding, figure: Figure) -> None:
    director.register(*(each.registration() for each in director.scene.real_servers))
    director.configure(
        f'[virtual_server.reco]\naddress = "{VIP4}:{HTTP}"\nscheduler = "rr"\nforwarding = "{forwarding}"\n'
    )
    director.wait_for_weights(tcp(VIP4, HTTP), FOUR)
    wait_until_in_sync(director)
    before, written, said = director.lines(), len(writes(director)), len(director.events())
    client, began = director.scene.client, time.monotonic()
    with HeldConnections(client, VIP4, HTTP, count=8) as held, Traffic(client, VIP4, HTTP, rate=20) as traffic:
        time.sleep(60 * MINUTES)
        report = traffic.stop()
        figure((time.monotonic() - began) / 60, "minutes")
        figure(len(writes(director)) - written, "writes")
        figure.traffic(report, held)
        assert not held.broken, held.broken
    assert not report.failures, report
    assert director.events()[said:] == []
    assert director.lines() == before

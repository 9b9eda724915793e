"""An order for the fleet on two directors and a real Consul: obeyed by both, whoever restarts, and taken back."""

from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import pytest

from lvsctl.core.status import Status
from lvsctl.key_file import FLEET_FILE
from tests.kernel.director import START, Director, tcp
from tests.lab.consul import ConsulAgent
from tests.lab.scene import HTTP, VIP4, scene
from tests.lab.traffic import Traffic
from tests.lab.waiting import eventually
from tests.showing import Figure

pytestmark = pytest.mark.kernel

VIRTUAL_SERVER = tcp(VIP4, HTTP)
R1, R2 = f"10.2.0.11:{HTTP}", f"10.2.0.12:{HTTP}"
BOTH, OTHER = {R1: 1, R2: 1}, {R2: 1}
RECO = f'[virtual_server.reco]\naddress = "{VIP4}:{HTTP}"\nscheduler = "rr"\ndrain_timeout = "1s"\n'


@contextmanager
def two_directors() -> Iterator[tuple[Director, Director]]:
    """Give the scene's director and one beside it, which serve r1 and r2, and a Consul that keeps its keys on disk."""
    with scene(real_servers=2, consul=False) as made:
        agent = ConsulAgent(made.consul_host, kind="server", node="keeper")
        agent.start(wait=False)
        beside = made.lab.host("director2", front=["10.1.0.3/24"], back=["10.2.0.3/24"])
        first = attrs.evolve(made, consul=agent)
        directors = (
            Director(first),
            Director(attrs.evolve(first, director=beside), name="lvsctl2"),
        )
        agent.wait_until_ready()
        for each in made.real_servers:
            agent.register(each.registration())
        for director in directors:
            director.write(RECO, head='[overrides]\nkv_prefix = "lvsctl"')
            director.start(wait=False)
        for director in directors:
            director.wait_for_weights(VIRTUAL_SERVER, BOTH, within=START)
        yield directors


def ordered(status: Status) -> list[tuple[str, str, bool]]:
    return [(each.order, each.target, each.fleet) for each in status.orders]


@pytest.mark.promise(
    11,
    case="a drain with --fleet: a director restarted without Consul, Consul restarted, undrained",
    target="out on both directors all the while, 0 failed",
)
def test_a_drain_for_the_fleet_is_obeyed_by_both_until_it_is_taken_back(figure: Figure) -> None:
    with two_directors() as (one, other):
        consul, drain = one.scene.consul, [("drain", "10.2.0.11", True)]
        with Traffic(one.scene.client, VIP4, HTTP) as traffic:
            given = one.lvsctl("drain", "10.2.0.11", "--fleet", "--reason", "kernel upgrade", "--for", "1h")
            print(given.stdout)
            assert (given.returncode, given.stderr) == (0, "")
            one.wait_for_weights(VIRTUAL_SERVER, OTHER)
            other.wait_for_weights(VIRTUAL_SERVER, OTHER)
            (order,) = other.status().orders
            assert (order.fleet, order.reason) == (True, "kernel upgrade")
            assert order.by.startswith("root@")
            told = other.wait_for_event("real_server_quiesced", real_server=R1)
            assert "drained for the fleet by root@" in told["why"]

            other.stop()
            assert (other.state / FLEET_FILE).exists()
            other.ipvsadm("-C")
            consul.kill()
            other.start()
            other.wait_for_weights(VIRTUAL_SERVER, OTHER, within=START)
            status = other.status()
            assert ordered(status) == drain
            assert status.fleet is not None
            assert status.fleet.error

            consul.start()
            for director in (one, other):
                eventually(lambda at=director: not at.status().fleet.error, within=START)  # type: ignore[misc]
                assert ordered(director.status()) == drain, director.log[-3000:]
                assert director.weights(VIRTUAL_SERVER) == OTHER, director.log[-3000:]
                assert not director.events("order_over"), director.log[-3000:]
            taken = other.lvsctl("undrain", "10.2.0.11", "--fleet")
            assert (taken.returncode, taken.stderr) == (0, "")
            for director in (one, other):
                director.wait_for_weights(VIRTUAL_SERVER, BOTH, within=START)
                assert ordered(director.status()) == []
            report = traffic.stop()
    figure.traffic(report)
    print(f"a drain for the fleet, a director restarted without Consul, Consul restarted, undrained: {report}")
    assert not report.failures, report
    assert report.answers.keys() == {"r1", "r2"}

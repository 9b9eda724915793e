"""A second opinion under traffic: what Consul calls bad and answers stays, and what is dead goes within seconds."""

import time

import pytest

from lvsctl.core.status import Place
from tests.kernel.director import Director
from tests.kernel.test_rolling_restart import real_server_of, serve
from tests.lab.scene import VIP4
from tests.lab.traffic import Traffic
from tests.lab.waiting import eventually
from tests.showing import Figure

pytestmark = pytest.mark.kernel


def held(director: Director) -> set[str]:
    """Return the real servers that status shows as held."""
    return {each.real_server for each in director.status_of("reco").real_servers if each.place is Place.HELD}


@pytest.mark.promise(
    2, case="three of four health pages fail by mistake, probe on; then one dies", target="0 failed before it died"
)
def test_what_answers_stays_and_what_dies_goes_at_once(director: Director, figure: Figure) -> None:
    """Three of four health pages fail by mistake, and all four serve on; then one of the three really dies."""
    programs = director.programs()
    virtual_server = serve(director, programs, "masquerade", drain_timeout="1s", more='floor = "100%"\nprobe = true\n')
    names = [real_server_of(each) for each in programs]
    with Traffic(director.scene.client, VIP4, director.port) as traffic:
        for each in programs[:3]:
            each.healthy = False
        eventually(lambda: held(director) == set(names[:3]), within=20)
        eventually(lambda: "3 kept (3 answer lvsctl)" in director.status_of("reco").note, within=20)
        assert director.weights(virtual_server) == dict.fromkeys(names, 1)
        report = traffic.report()
        figure.traffic(report)
        assert not report.failures, report
        programs[1].kill()
        died = time.monotonic()
        eventually(lambda: director.weights(virtual_server).get(names[1], 0) == 0, within=20)
        seconds = time.monotonic() - died
        failed = len(traffic.report().failures)
        asked = traffic.report().seconds
        eventually(lambda: traffic.report().seconds > asked + 3)
        for each in (programs[0], programs[2]):
            each.healthy = True
        eventually(lambda: held(director) == set(), within=20)
        report = traffic.stop()
    assert director.weights(virtual_server) == {names[0]: 1, names[2]: 1, names[3]: 1}
    assert director.wait_for_event("probed", dead=names[1])
    figure(seconds, "s until the dead one was out")
    print(f"dead, and out after {seconds:.1f} s: {report}")
    assert len(report.failures) <= failed + 1, report  # one may have been on its way

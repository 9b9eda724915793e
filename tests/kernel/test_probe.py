"""A second opinion under traffic: what Consul calls bad and answers stays, and what is dead goes within seconds."""

import time
from datetime import datetime
from typing import Final

import pytest

from lvsctl.core.status import Place
from tests.kernel.director import Director
from tests.kernel.test_rolling_restart import real_server_of, serve
from tests.lab.scene import VIP4
from tests.lab.traffic import Traffic
from tests.lab.waiting import eventually
from tests.showing import Figure

pytestmark = pytest.mark.kernel

BEHIND: Final = "10.2.0.0/24"  # the network of the real servers: the director's own address there, and no client's
AT_ONCE: Final = 1.0  # seconds; 0.2 on a quiet machine


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


@pytest.mark.promise(
    2, case="three of four deregistered, and one that is held stops", target=f"out in {AT_ONCE:g} s, 0 failed before"
)
def test_by_default_what_is_held_goes_at_once_when_its_program_stops(director: Director, figure: Figure) -> None:
    """All four still serve when Consul has lost three: the floor holds one, and it goes when there is nobody."""
    programs = director.programs()
    virtual_server = serve(director, programs, "masquerade", drain_timeout="1s")
    with Traffic(director.scene.client, VIP4, director.port) as traffic:
        for each in programs[:3]:
            director.scene.consul.deregister(f"reco-{each.name}")
        eventually(lambda: len(director.weights(virtual_server)) == 2, within=20)
        eventually(lambda: "1 kept (1 answer lvsctl)" in director.status_of("reco").note, within=20)
        asked = traffic.report().seconds
        eventually(lambda: traffic.report().seconds > asked + 2)
        (name,) = held(director)
        assert director.weights(virtual_server) == {name: 1, real_server_of(programs[3]): 1}, "it lives, so it stays"
        report = traffic.report()
        figure.traffic(report)
        assert not report.failures, report
        (program,) = (each for each in programs if real_server_of(each) == name)
        stopped = time.time()
        program.stop()
        quiesced = director.wait_for_event("real_server_quiesced", real_server=name)
        seconds = datetime.fromisoformat(quiesced["timestamp"]).timestamp() - stopped
        before = traffic.report()
        eventually(lambda: traffic.report().seconds > before.seconds + 2)
        report = traffic.stop()
    figure(seconds, "s until it was out")
    print(f"stopped, and out after {seconds * 1000:.0f} ms: {report}")
    assert seconds < AT_ONCE
    assert len(report.failures) <= len(before.failures) + 1, report  # one may have been on its way
    assert len(report.failures) <= 1 + traffic.rate * AT_ONCE
    assert quiesced["why"].endswith("it takes no connection of lvsctl's either")
    assert director.weights(virtual_server)[real_server_of(programs[3])] == 1


@pytest.mark.promise(2, case="three of four deregistered, all refuse the director", target="2 serve, 0 failed")
def test_by_default_nobody_goes_whom_the_director_cannot_reach(director: Director, figure: Figure) -> None:
    """A firewall refuses what it sends itself, as applications do that listen at the virtual address alone."""
    programs = director.programs()
    virtual_server = serve(director, programs, "masquerade", drain_timeout="1s")
    director.host.run(["modprobe", "-a", "iptable_filter", "xt_tcpudp", "ipt_REJECT"], check=False)
    to_them = ["OUTPUT", "-p", "tcp", "-s", BEHIND, "--dport", f"{director.port}"]
    rule = [*to_them, "-j", "REJECT", "--reject-with", "tcp-reset"]
    director.host.run(["iptables-legacy", "-A", *rule])
    try:
        with Traffic(director.scene.client, VIP4, director.port) as traffic:
            for each in programs[:3]:
                director.scene.consul.deregister(f"reco-{each.name}")
            found = director.wait_for_event("probed", unknowable="10.2.0.")
            asked = traffic.report().seconds
            eventually(lambda: traffic.report().seconds > asked + 3)
            report = traffic.stop()
        (name,) = held(director)
        assert found["unknowable"] == [name]
        assert director.weights(virtual_server) == {name: 1, real_server_of(programs[3]): 1}
    finally:
        director.host.run(["iptables-legacy", "-D", *rule])
    figure(len(held(director)) + 1, "serve")
    figure.traffic(report)
    assert not report.failures, report

"""The fallback server under traffic: it takes over where the director finds all others dead, and makes way for them."""

import pytest

from tests.kernel.director import Director
from tests.kernel.test_rolling_restart import real_server_of, serve
from tests.lab.scene import VIP4
from tests.lab.servers import HttpServer
from tests.lab.traffic import Traffic
from tests.lab.waiting import eventually

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("place", ["apart", "director"])
def test_it_serves_while_all_others_are_dead(director: Director, place: str) -> None:
    """Both instances die: the guard holds them until the director has knocked in vain; then both come back."""
    *programs, sorry = director.programs()[:3]
    if place == "director":
        sorry = HttpServer(director.host, ports=[8099], name="sorry")
        sorry.start()
    virtual_server = serve(
        director,
        programs,
        "masquerade",
        drain_timeout="1s",
        more=f'probe = true\nfallback = "{real_server_of(sorry)}"\n',
    )
    with Traffic(director.scene.client, VIP4, director.port) as traffic:
        for each in programs:
            each.kill()
        director.wait_for_weights(virtual_server, {real_server_of(sorry): 1}, within=30)
        status = director.status_of("reco")
        assert (status.state.value, status.serving) == ("fallback", 0)
        assert status.note == f"no instance passes; the fallback {real_server_of(sorry)} serves"
        eventually(lambda: traffic.report().answers.get(sorry.name, 0) > 0)
        before = len(traffic.report().failures)
        director.forget_log()
        asked = traffic.report().seconds
        eventually(lambda: traffic.report().seconds > asked + 3)  # three audits
        assert not director.events("real_server_added", "real_server_changed", "real_server_quiesced")
        for each in programs:
            each.start()
        director.wait_for_weights(virtual_server, {real_server_of(each): 1 for each in programs}, within=20)
        eventually(lambda: all(traffic.report().answers.get(each.name, 0) for each in programs))
        report = traffic.stop()
    print(f"{place}: {report}")
    assert len(report.failures) == before, report
    assert director.wait_for_event("trouble_over", trouble="fallback")

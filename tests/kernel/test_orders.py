"""An operator takes a node out under traffic, and later works on the table by hand while lvsctl is paused."""

import pytest

from lvsctl.core.status import Place, State
from tests.kernel.director import Director, tcp
from tests.lab.scene import HTTP, VIP4
from tests.lab.traffic import Traffic
from tests.lab.waiting import eventually
from tests.showing import Figure

pytestmark = pytest.mark.kernel

R1, R2, R3, R4 = (f"10.2.0.{10 + number}:{HTTP}" for number in range(1, 5))


def register(director: Director, *, prefix: str = "reco") -> None:
    """Have node app1, which has no agent of its own, register an instance on r1 and one on r2."""
    for each in director.scene.real_servers[:2]:
        instance = f"{prefix}-{each.name}"
        check = {"Name": "HTTP", "Status": "passing", "ServiceID": instance, "CheckID": f"check-{instance}"}
        service = {"ID": instance, "Service": "reco", "Address": each.host.ipv4, "Port": HTTP}
        director.scene.consul.put(
            "/v1/catalog/register",
            {"Node": "app1", "Address": each.host.ipv4, "SkipNodeUpdate": True, "Service": service, "Check": check},
        )


@pytest.mark.promise(
    11, case="a node drained; reload, new registration, SIGKILL, undrained", target="out all the while, 0 failed"
)
def test_a_drained_node_stays_out_whatever_happens_until_it_is_undrained(director: Director, figure: Figure) -> None:
    consul = director.scene.consul
    register(director)
    director.register(*(each.registration() for each in director.scene.real_servers[2:]))
    director.configure(
        f'[virtual_server.reco]\naddress = "{VIP4}:{director.port}"\nscheduler = "rr"\ndrain_timeout = "3s"\n'
    )
    virtual_server, out = tcp(VIP4, director.port), {R3: 1, R4: 1}
    director.wait_for_weights(virtual_server, {R1: 1, R2: 1, **out})
    with Traffic(director.scene.client, VIP4, director.port) as traffic:
        done = director.lvsctl("drain", "app1", "--reason", "kernel upgrade", "--for", "1h", "--wait")
        print(done.stdout)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[-1].startswith("out: node app1 after ")
        assert director.weights(virtual_server) == out
        assert director.wait_for_event("order", target="node app1", by="root")["reason"] == "kernel upgrade"

        assert director.lvsctl("diff").returncode == 0, "it knows the order without the daemon"
        director.reload()
        consul.put("/v1/catalog/deregister", {"Node": "app1"})
        register(director, prefix="anew")
        eventually(
            lambda: {each.instance for each in director.status_of("reco").real_servers} >= {"anew-r1", "anew-r2"}
        )
        assert director.weights(virtual_server) == out
        director.kill()
        director.start()
        eventually(lambda: len(director.status_of("reco").real_servers) == 4, within=10)
        eventually(lambda: director.status().kernel.in_sync_since, within=10)
        (order,) = director.status().orders
        assert [(each.instance, each.place) for each in order.real_servers] == [
            ("anew-r1", Place.OUT), ("anew-r2", Place.OUT),
        ]  # fmt: skip
        assert director.weights(virtual_server) == out

        assert director.lvsctl("undrain", "app1").returncode == 0
        director.wait_for_weights(virtual_server, {R1: 1, R2: 1, **out})
        report = traffic.stop()
    figure.traffic(report)
    print(f"a node drained, a reload, a registration, a SIGKILL, and undrained: {report}")
    assert not report.failures, report
    assert report.answers.keys() == {"r1", "r2", "r3", "r4"}


def test_what_a_hand_does_during_a_pause_is_repaired_after_it(director: Director) -> None:
    director.register(*(each.registration() for each in director.scene.real_servers))
    director.configure(f'[virtual_server.reco]\naddress = "{VIP4}:{director.port}"\nscheduler = "rr"\n')
    virtual_server, all_of_them = tcp(VIP4, director.port), {R1: 1, R2: 1, R3: 1, R4: 1}
    director.wait_for_weights(virtual_server, all_of_them)
    with Traffic(director.scene.client, VIP4, director.port) as traffic:
        assert director.lvsctl("pause", "--reason", "by hand", "--for", "10m").returncode == 0
        for real_server in (R3, R4):
            director.ipvsadm("-e", *virtual_server.split(), "-r", real_server, "-m", "-w", "7")
        director.scene.consul.deregister("reco-r1")
        byhand = {R1: 1, R2: 1, R3: 7, R4: 7}
        eventually(lambda: director.status().kernel.pending == 3, within=10)
        asked = traffic.report().seconds
        eventually(lambda: traffic.report().seconds > asked + 3)  # three audits
        assert director.weights(virtual_server) == byhand
        assert director.status_of("reco").state is State.PAUSED
        assert not director.events("real_server_changed", "real_server_quiesced", "real_server_deleted")
        resumed = director.lvsctl("resume")
        assert (resumed.returncode, resumed.stderr) == (0, "")
        assert resumed.stdout.endswith("(it was by root: by hand): 3 changes to make\n")
        eventually(lambda: {R1: 0, **director.weights(virtual_server)} == {**all_of_them, R1: 0})
        report = traffic.stop()
    print(f"paused, changed by hand, resumed: {report}")
    assert not report.failures, report
    assert {each["cause"] for each in director.events("real_server_changed")} == {"drift"}
    assert director.lvsctl("pause", "--for", "24h").returncode == 0
    director.kill()
    director.ipvsadm("-C")  # as after a reboot
    director.start()
    assert director.wait_for_event("order_over", within=10)["why"].startswith("the kernel lost what was paused")
    eventually(lambda: {R1: 0, **director.weights(virtual_server)} == {**all_of_them, R1: 0}, within=10)

"""A changed file changes the kernel in place, under traffic that does not notice."""

import attrs
import pytest

from lvsctl import control
from lvsctl.core.reload import Order
from tests.kernel.director import IDLE, Director, tcp
from tests.lab.consul import Check, Registration
from tests.lab.scene import HTTP, VIP4
from tests.lab.traffic import HeldConnections, Traffic
from tests.lab.waiting import eventually
from tests.showing import Figure

pytestmark = pytest.mark.kernel

CHANGES = [  # further lines of configuration, the most a weight may be, and what ipvsadm shows
    ('scheduler = "wrr"', 50, "-s wrr"),
    ('scheduler = "sh"\nscheduler_flags = ["sh-port"]', 50, "-s sh -b sh-port"),
    ('scheduler = "wlc"\npersistence = "5m"', 7, "-s wlc -p 300"),
    (
        'scheduler = "wlc"\npersistence = "10m"\npersistence_netmask = "255.255.255.0"',
        7,
        "-s wlc -p 600 -M 255.255.255.0",
    ),
    ('scheduler = "mh"', 3, "-s mh -b mh-fallback"),
    ('scheduler = "rr"\nupper_threshold = 900\nlower_threshold = 800', 100, "-s rr"),
]


def wait_for(director: Director, virtual_server: str, options: str, weights: dict[str, int]) -> None:
    """Return when ipvsadm shows the virtual server with these options and weights."""

    def seen() -> bool:
        line = director.table()[virtual_server]
        assert (line.options, line.weights) == (options, weights)
        return True

    eventually(seen, within=5)


def wait_for_requests(traffic: Traffic, count: int) -> None:
    """Return when `count` more requests were made."""
    before = traffic.report().requests
    eventually(lambda: traffic.report().requests >= before + count, within=10)


@pytest.mark.promise(
    12, case="scheduler, flags, persistence, weights, thresholds changed under load", target="0 failed, 0 broken"
)
def test_everything_that_can_change_is_changed_in_place_without_an_error(
    director: Director, capsys: pytest.CaptureFixture[str], figure: Figure
) -> None:
    for each in director.scene.real_servers:
        address = each.host.ipv4
        check = Check.tcp(address, HTTP)
        director.register(
            Registration(service="reco", id=f"reco-{each.name}", address=address, port=HTTP, weight=20, check=check)
        )
    keys = [f"{each.host.ipv4}:{HTTP}" for each in director.scene.real_servers]
    client, virtual_server = director.scene.client, tcp(VIP4, director.port)
    file = f'[virtual_server.reco]\naddress = "{VIP4}:{director.port}"\n'
    director.configure(file)
    director.wait_for_weights(virtual_server, dict.fromkeys(keys, 20))
    with (
        HeldConnections(client, VIP4, director.port, count=8) as held,
        Traffic(client, VIP4, director.port) as traffic,
    ):
        for lines, max_weight, options in CHANGES:
            director.configure(f"[safety]\nmax_weight = {max_weight}\n{file}{lines}\n")
            wait_for(director, virtual_server, options, dict.fromkeys(keys, min(20, max_weight)))
            wait_for_requests(traffic, 20)
        report = traffic.stop()
        figure.traffic(report, held)
        assert not held.broken
    with capsys.disabled():
        print(f"\n{len(CHANGES)} changes of the file: {report}")
    assert not report.failures, report
    thresholds = director.ipvsadm("-Ln", "--thresholds").splitlines()  # -Sn leaves them out
    assert [line.split()[1:4] for line in thresholds if line.startswith("  -> 10.")] == [
        [key, "900", "800"] for key in keys
    ]
    assert len(director.events("virtual_server_changed")) == len(CHANGES)
    assert len(director.events("real_server_added", "virtual_server_added")) == 1 + len(keys)
    assert not director.events("real_server_quiesced", "real_server_deleted")


def test_a_virtual_server_taken_out_of_the_file_drains_and_goes_and_the_other_stays(director: Director) -> None:
    r1 = director.scene.real_servers[0].host.ipv4
    director.register(Registration(service="reco", id="reco-r1", address=r1, port=HTTP))
    other, leaving = tcp(VIP4, director.port), tcp(VIP4, director.port + 1000)
    one = f'[virtual_server.other]\naddress = "{VIP4}:{director.port}"\nconsul_service = "reco"\n'
    two = f'[virtual_server.reco]\naddress = "{VIP4}:{director.port + 1000}"\ndrain_timeout = "3s"\n'
    director.configure(one + two)
    director.wait_for_weights(leaving, {f"{r1}:{HTTP}": 1})
    with HeldConnections(director.scene.client, VIP4, director.port + 1000) as held:
        director.configure(one)
        director.wait_for_weights(leaving, {f"{r1}:{HTTP}": 0}, within=2)
        assert director.status_of("reco").state.value == "leaving"
        exchanged = held.exchanged
        eventually(lambda: held.exchanged > exchanged + 2)
        assert not held.broken
        director.wait_for_lines([f"-A {other} -s wlc", f"-a {other} -r {r1}:{HTTP} -m -w 1"])
    left = director.wait_for_event("virtual_server_deleted", name="reco")
    assert left["why"] == "no longer in the configuration"


def test_a_file_with_a_mistake_changes_nothing(director: Director) -> None:
    r1 = director.scene.real_servers[0].host.ipv4
    director.register(Registration(service="reco", id="reco-r1", address=r1, port=HTTP))
    virtual_server = tcp(VIP4, director.port)
    director.configure(f'[virtual_server.reco]\naddress = "{VIP4}:{director.port}"\n')
    director.wait_for_weights(virtual_server, {f"{r1}:{HTTP}": 1})
    before = director.lines()
    director.write(f'[virtual_server.reco]\naddress = "{VIP4}:{director.port}"\nscheduler = "wwrr"\nwieght = 3\n')
    director.reload()
    refused = director.wait_for_event("reload_refused", kept="the old configuration")
    problems = [each["problem"] for each in director.events("reload_refused")]
    assert len(problems) == 2, problems
    assert all(str(director.file) in problem for problem in problems)
    assert any("wwrr" in problem for problem in problems)
    assert any("wieght" in problem for problem in problems)
    assert refused["level"] == "error"
    assert "wwrr" in director.status().config_error + str(problems)
    assert director.status().config_error
    assert director.lines() == before


def four(director: Director) -> dict[str, int]:
    """Have four instances registered, two of them with the tag v2; return the weights of their real servers."""
    director.register(
        *(
            attrs.evolve(each.registration(), tags=("v2",) if each.host.name in {"r3", "r4"} else ())
            for each in director.scene.real_servers
        )
    )
    return {f"{each.host.ipv4}:{HTTP}": 1 for each in director.scene.real_servers}


@pytest.mark.promise(19, case="a reload that nobody confirms in 5 s", target="taken back, 0 failed, 0 broken")
def test_what_nobody_confirms_is_taken_back_under_traffic(director: Director, figure: Figure) -> None:
    weights, virtual_server = four(director), tcp(VIP4, director.port)
    file = f'[virtual_server.reco]\naddress = "{VIP4}:{director.port}"\ndrain_timeout = "1m"\n'
    director.configure(file)
    director.wait_for_weights(virtual_server, weights)
    client = director.scene.client
    with (
        HeldConnections(client, VIP4, director.port, count=8) as held,
        Traffic(client, VIP4, director.port) as traffic,
    ):
        director.write(f'{file}scheduler = "wrr"\ntags = ["v2"]\n')
        tried = director.lvsctl("reload", "--confirm", "5s")
        assert (tried.returncode, tried.stderr) == (0, ""), tried
        assert "~ virtual server" in tried.stdout
        assert "in use, and taken back at " in tried.stdout
        director.wait_for_event("virtual_server_changed", name="reco")
        director.wait_for_event("reload_rolled_back", within=10, why="not confirmed within 5 s")
        wait_for(director, virtual_server, "-s wlc", weights)
        status = director.status()
        assert (status.rolled_back, status.confirm_until) == (True, None)
        report = traffic.stop()
        assert not held.broken
    figure.traffic(report, held)
    print(f"a reload that nobody confirmed: {report}")
    assert not report.failures, report
    assert len(director.events("real_server_quiesced")) == 2
    assert len(director.events("real_server_added")) == 4
    assert not director.events("real_server_deleted")


@pytest.mark.promise(
    19, case="a file with everything removed; a kill before the confirmation", target="the table of before, 0 failed"
)
def test_a_mass_removal_is_refused_and_a_kill_takes_back_what_was_not_confirmed(
    director: Director, figure: Figure
) -> None:
    weights, virtual_server = four(director), tcp(VIP4, director.port)
    file = f'[virtual_server.reco]\naddress = "{VIP4}:{director.port}"\n'
    director.configure(file)
    director.wait_for_weights(virtual_server, weights)
    before = director.lines()
    with Traffic(director.scene.client, VIP4, director.port) as traffic:
        director.write(IDLE)
        director.reload()  # SIGHUP
        said = director.wait_for_event("reload_refused", kept="the old configuration")["problem"]
        assert said.startswith("it would take away 1 of 1 virtual server (reco) and 4 of 4 real servers now serving; ")
        refused = director.lvsctl("reload")
        words = f"lvsctl: refused, the configuration before stays in use: {said}\n"
        assert (refused.returncode, refused.stderr) == (1, words)
        assert refused.stdout.count("no longer in the configuration") == 4
        assert (director.status().config_error, director.lines()) == (said, before)
        director.write(f'{file}scheduler = "wrr"\n')
        control.reload(director.socket, Order(confirm=600.0))
        wait_for(director, virtual_server, "-s wrr", weights)
        director.kill()
        director.start()
        wait_for(director, virtual_server, "-s wlc", weights)
        assert director.status().rolled_back
        report = traffic.stop()
    figure.traffic(report)
    print(f"a mass removal, and a kill before the confirmation: {report}")
    assert not report.failures, report
    assert director.lines() == before
    director.configure(IDLE, allow_remove=True)
    director.wait_for_weights(virtual_server, dict.fromkeys(weights, 0))
    assert not director.status().config_error


@pytest.mark.promise(19, case="a restart with other tags in the file", target="the table of before, 0 failed")
def test_a_restart_takes_no_more_away_than_a_reload(director: Director, figure: Figure) -> None:
    director.register(
        *(
            attrs.evolve(each.registration(), tags=("v2",) if each.host.name == "r4" else ())
            for each in director.scene.real_servers
        )
    )
    weights = {f"{each.host.ipv4}:{HTTP}": 1 for each in director.scene.real_servers}
    virtual_server = tcp(VIP4, director.port)
    file = f'[virtual_server.reco]\naddress = "{VIP4}:{director.port}"\n'
    director.configure(file)
    director.wait_for_weights(virtual_server, weights)
    before = director.lines()
    with Traffic(director.scene.client, VIP4, director.port) as traffic:
        director.stop()
        director.write(f'{file}scheduler = "wrr"\ntags = ["v2"]\n')
        once = director.lvsctl("run", "--once")
        assert once.returncode == 1
        assert "refused, nothing was changed: it would take away 3 of 4 real servers now serving" in once.stderr
        director.start()
        said = director.wait_for_event("reload_refused")["problem"]
        assert said.startswith("it would take away 3 of 4 real servers now serving; ")
        eventually(lambda: director.status().kernel.in_sync_since, within=10)
        assert (director.status().config_error, director.lines()) == (said, before)
        wait_for_requests(traffic, 20)
        report = traffic.stop()
    figure.traffic(report)
    print(f"a restart with other tags: {report}")
    assert not report.failures, report
    assert not director.events("real_server_quiesced")
    director.stop()
    director.write(f"{file}wieght = 3\n")
    director.ipvsadm("-C")
    director.start()  # as after a reboot, with a file that nobody has tried
    director.wait_for_weights(virtual_server, weights)
    assert "virtual_server.reco.wieght" in director.status().config_error
    director.configure(file)

"""A virtual server that is a firewall mark: what the firewall marks is balanced, whatever its port."""

from collections.abc import Iterator

import pytest

from tests.kernel.director import Director, endpoint
from tests.lab.consul import Check, Registration
from tests.lab.scene import HTTP, VIP4, VIP6
from tests.lab.traffic import Traffic

pytestmark = pytest.mark.kernel

PORTS = "80:89"  # what the firewall marks


@pytest.fixture
def marking(director: Director) -> Iterator[None]:
    """Have the director's firewall put mark 7 on requests to some ports of the virtual addresses."""
    director.host.run(["modprobe", "-a", "iptable_mangle", "ip6table_mangle", "xt_mark", "xt_tcpudp"], check=False)
    rules = [("iptables-legacy", VIP4), ("ip6tables-legacy", VIP6)]
    rule = ["-p", "tcp", "--dport", PORTS, "-j", "MARK", "--set-mark", "7"]
    for command, vip in rules:
        director.host.run([command, "-t", "mangle", "-A", "PREROUTING", "-d", vip, *rule])
    yield
    for command, vip in rules:
        director.host.run([command, "-t", "mangle", "-D", "PREROUTING", "-d", vip, *rule])


@pytest.mark.usefixtures("marking")
def test_what_the_firewall_marks_reaches_the_instances_in_both_families(director: Director) -> None:
    lines = ["-A -f 7 -s rr", "-A -f 7 -6 -s rr"]
    for each in director.scene.real_servers[:2]:
        for service, address, key in (
            ("mark4", each.host.ipv4, "-f 7"),
            ("mark6", each.host.ipv6, "-f 7 -6"),
        ):
            check = Check.tcp(address, HTTP)
            director.register(
                Registration(service=service, id=f"{service}-{each.name}", address=address, port=HTTP, check=check)
            )
            lines.append(f"-a {key} -r {endpoint(address, HTTP)} -m -w 1")
    director.configure(
        '[defaults]\nscheduler = "rr"\n'
        "[virtual_server.mark4]\nfirewall_mark = 7\n"
        '[virtual_server.mark6]\nfirewall_mark = 7\nfamily = "ipv6"\n'
    )
    director.wait_for_lines(lines)
    for vip in (VIP4, VIP6):
        for port in (80, 89):
            report = Traffic(director.scene.client, vip, port).count(4)
            assert report.answers == {"r1": 2, "r2": 2}, f"{endpoint(vip, port)}: {report}"
        unmarked = Traffic(director.scene.client, vip, 90).count(1)
        assert not unmarked.answers, unmarked
    director.scene.consul.deregister("mark4-r1")
    director.wait_for_weights("-f 7", {f"10.2.0.11:{HTTP}": 0, f"10.2.0.12:{HTTP}": 1})
    assert Traffic(director.scene.client, VIP4, 80).count(4).answers == {"r2": 4}
    assert Traffic(director.scene.client, VIP6, 80).count(4).answers == {"r1": 2, "r2": 2}

"""Instances in Consul become real servers, and a client is answered by each of them through the virtual address.

Every forwarding method, in both address families, for TCP and UDP. What the kernel has is read with ipvsadm.
"""

import pytest

from tests.kernel.director import Director, endpoint
from tests.lab.consul import Check, Registration
from tests.lab.scene import HTTP, UDP, VIP4, VIP6, Forwarding
from tests.lab.traffic import Traffic

pytestmark = pytest.mark.kernel

FLAGS = {"masquerade": "-m", "direct-route": "-g", "tunnel": "-i"}
TAILS = {"masquerade": "", "direct-route": "", "tunnel": " --tun-type ipip"}
FOUR = [
    ("tcp", VIP4, HTTP),
    ("udp", VIP4, UDP),
    ("tcp", VIP6, HTTP),
    ("udp", VIP6, UDP),
]  # every protocol in every family


def service_of(protocol: str, vip: str) -> str:
    return f"{protocol}-{'ipv6' if ':' in vip else 'ipv4'}"


@pytest.mark.parametrize("forwarding", FLAGS)
def test_every_real_server_answers_over_tcp_and_udp_in_both_families(
    director: Director, forwarding: Forwarding
) -> None:
    tables, lines = [f'[defaults]\nscheduler = "rr"\nforwarding = "{forwarding}"'], []
    for protocol, vip, port in FOUR:
        service = service_of(protocol, vip)
        tables.append(f'[virtual_server.{service}]\naddress = "{endpoint(vip, port)}"\nprotocol = "{protocol}"')
        flag = {"tcp": "-t", "udp": "-u"}[protocol]
        lines.append(f"-A {flag} {endpoint(vip, port)} -s rr")
        for each in director.scene.real_servers:
            address = each.host.ipv6 if ":" in vip else each.host.ipv4
            check = Check.tcp(address, HTTP)
            director.register(
                Registration(service=service, id=f"{service}-{each.name}", address=address, port=port, check=check)
            )
            server = f"-r {endpoint(address, port)} {FLAGS[forwarding]} -w 1{TAILS[forwarding]}"
            lines.append(f"-a {flag} {endpoint(vip, port)} {server}")
    director.configure("\n".join(tables))
    director.wait_for_lines(lines, within=20)
    for protocol, vip, port in FOUR:
        report = Traffic(director.scene.client, vip, port, udp=protocol == "udp").count(8)
        assert not report.failures, f"{protocol} to {vip}: {report}"
        assert report.answers == {"r1": 2, "r2": 2, "r3": 2, "r4": 2}, f"{protocol} to {vip}"

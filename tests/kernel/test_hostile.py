"""What registrants may say, said to a real Consul: a good address and a bounded weight is all that the kernel gets."""

from ipaddress import ip_address
from typing import Any, Final

import pytest

from tests.core.test_admission import FORBIDDEN, NAMES, spellings
from tests.kernel import catalogue
from tests.kernel.director import Director, tcp
from tests.lab.scene import VIP4
from tests.lab.waiting import eventually
from tests.showing import Figure

pytestmark = pytest.mark.kernel

GOOD: Final = "10.3.1.1"
BEYOND: Final = [  # weights that no kernel should get, as JSON
    {"Passing": -1, "Warning": 1},
    {"Passing": 2**31, "Warning": 1},
    {"Passing": 2**63, "Warning": 1},
    {"Passing": 65_536, "Warning": 1},
    {"Passing": 65_535, "Warning": 1},
    {"Passing": "NaN", "Warning": 1},
    {"Passing": "7", "Warning": 1},
    {"Passing": 1.5, "Warning": 1},
    {"Passing": None, "Warning": None},
    {"Passing": 0, "Warning": 0},
]
WORDS: Final = {  # what a registrant may like to decide
    "lvs-address": "10.1.0.101:80",
    "lvs-scheduler": "sh",
    "lvs-forwarding": "tunnel",
    "lvs-persistence": "1h",
    "lvs-weight": "9999",
    "weight": "9999",
    "scheduler": "sh",
    "upper_threshold": "1",
    "drain_timeout": "0s",
    "floor": "0%",
}


def instance(number: int, address: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - Consul's JSON
    return {"ID": f"reco-{number}", "Service": "reco", "Address": address, "Port": 80} | more


def serve(director: Director, more: str = "", head: str = "") -> str:
    """Have the daemon serve reco by weights; return ipvsadm's words for it."""
    text = f'[virtual_server.reco]\naddress = "{VIP4}:{director.port}"\nscheduler = "wrr"\n{more}'
    director.configure(text, head=head)
    return tcp(VIP4, director.port)


@pytest.mark.promise(8, case="one bad instance among 250", target="249 serve")
def test_one_bad_instance_of_250_is_rejected_alone(director: Director, figure: Figure) -> None:
    good = [f"10.3.1.{number}" for number in range(1, 250)]
    catalogue.put(
        director.scene.consul, [instance(number, address) for number, address in enumerate([*good, "127.0.0.1"])]
    )
    virtual_server = serve(director)
    director.wait_for_weights(virtual_server, {f"{address}:80": 1 for address in good}, within=20)
    rejected = director.wait_for_event("instance_rejected", name="reco: reco-249 on fake")
    assert "loopback" in rejected["why"]
    figure(director.status_of("reco").serving, "serve")
    figure(len(director.events("instance_rejected")), "rejected, with the reason")
    assert len(director.events("instance_rejected")) == 1


@pytest.mark.promise(
    9, case="every forbidden address in every spelling, and names, in Consul", target="0 in the kernel"
)
def test_no_spelling_of_a_forbidden_address_reaches_the_kernel(director: Director, figure: Figure) -> None:
    own = [VIP4, *(each for each in director.host.addresses if ip_address(each).version == 4)]
    texts = sorted({each for address in [*FORBIDDEN, *own] for each in spellings(address)} | set(NAMES) - {"", " "})
    refused = catalogue.put(director.scene.consul, [instance(number, text) for number, text in enumerate(texts)])
    catalogue.put(director.scene.consul, [instance(10_000, GOOD)])
    virtual_server = serve(director)
    director.wait_for_weights(virtual_server, {f"{GOOD}:80": 1}, within=20)
    listed = director.scene.consul.get("/v1/health/service/reco")
    row = director.status_of("reco")
    figure(len(listed) - 1, "spellings in Consul")
    figure(refused, "more that Consul refused")
    figure(len(director.weights(virtual_server)) - 1, "in the kernel")
    assert len(listed) == len(texts) - refused + 1
    assert len(row.real_servers) == len(listed), "each is said to be rejected"
    assert director.weights(virtual_server) == {f"{GOOD}:80": 1}


@pytest.mark.promise(10, case="hostile weights, tags and metadata, in Consul", target="weights 1 to 100, nothing else")
def test_registrants_decide_health_and_a_bounded_weight(director: Director, figure: Figure) -> None:
    consul = director.scene.consul
    tags = [f"{key}={value}" for key, value in WORDS.items()]
    catalogue.put(consul, [instance(0, GOOD, Tags=tags, Meta=WORDS)])
    refused = sum(
        catalogue.put(consul, [instance(number, f"10.3.1.{number}", Weights=weights, Tags=tags, Meta=WORDS)])
        for number, weights in enumerate(BEYOND, 2)
    )
    taken = {entry["Service"]["Address"] for entry in consul.get("/v1/health/service/reco")}
    virtual_server = serve(director, head="[safety]\nmax_weight = 100")
    eventually(lambda: director.weights(virtual_server).get(f"{GOOD}:80") == 1)
    director.reload()  # a cycle more
    line = director.table()[virtual_server]
    figure(len(taken), "hostile instances in Consul")
    figure(refused, "refused by Consul")
    figure(len(line.real_servers), "serve")
    figure(max(line.weights.values()), "is the largest weight")
    assert len(taken) == 1 + len(BEYOND) - refused
    assert line.options == "-s wrr"
    assert {options.split(" -w ")[0] for options in line.real_servers.values()} == {"-m"}
    assert {key.removesuffix(":80") for key in line.real_servers} <= taken
    assert all(0 <= weight <= 100 for weight in line.weights.values()), line
    assert list(director.table()) == [virtual_server]

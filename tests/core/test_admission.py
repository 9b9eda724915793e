"""Who may become a real server: no forbidden address in any spelling, no weight above the cap, one reason each."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.config import Config, SafetyConfig, VirtualServerConfig
from lvsctl.core.admission import Admitted, Excluded, Reason, Rejected, Verdict, admit, parse_address
from lvsctl.core.instance import Check, Health, Instance
from netlink.types import Family, Forwarding, Protocol, VirtualServerKey
from tests.showing import Figure
from tests.values import KEY, OWN, config_of, configured, failing, instance, limits, real_key

KEY6 = VirtualServerKey.by_address(Protocol.TCP, ip_address("fd00:9::1"), 80)
ANYWHERE = SafetyConfig(allowed_networks=(ip_network("0.0.0.0/0"), ip_network("::/0")))
BOTH = Config(
    safety=ANYWHERE, virtual_servers={each.name: each for each in (configured(), configured("six", KEY6))}
)  # everything is allowed, so that only the rule under test can refuse


def verdict(
    found: Instance, virtual_server: VirtualServerConfig | None = None, config: Config | None = None
) -> Verdict:
    return admit(found, virtual_server or configured(), limits(config))


def reason(found: Instance, virtual_server: VirtualServerConfig | None = None, config: Config | None = None) -> Reason:
    refused = verdict(found, virtual_server, config)
    assert not isinstance(refused, Admitted), refused
    assert refused.text
    return refused.reason


def test_an_instance_in_order_serves_at_its_own_port() -> None:
    assert verdict(instance(1, weight=7)) == Admitted(key=real_key(1), weight=7)


FORBIDDEN = {
    "0.0.0.0": "the unspecified address",  # noqa: S104
    "::": "the unspecified address",
    "0.1.2.3": "a reserved address",
    "127.0.0.1": "a loopback address",
    "127.255.255.254": "a loopback address",
    "::1": "a loopback address",
    "169.254.0.1": "a link-local address",
    "169.254.169.254": "a link-local address",
    "fe80::1": "a link-local address",
    "febf::1": "a link-local address",
    "224.0.0.1": "a multicast address",
    "239.255.255.255": "a multicast address",
    "ff02::1": "a multicast address",
    "ff0e::1": "a multicast address",
    "255.255.255.255": "a broadcast address",
    "240.0.0.1": "a reserved address",
    "fd00:ec2::254": "a cloud's metadata address",
    "100.100.100.200": "a cloud's metadata address",
    "168.63.129.16": "a cloud's metadata address",
    "192.0.0.192": "a cloud's metadata address",
}


def spellings(text: str) -> list[str]:
    """Return ways to write an address that some parser somewhere takes."""
    address = ip_address(text)
    number = int(address)
    if isinstance(address, IPv6Address):
        return [
            text,
            address.exploded,
            address.exploded.upper(),
            f"[{text}]",
            f"{text}%eth0",
            f" {text}",
            f"{text}/128",
        ]
    first, *rest = text.split(".")
    mapped = IPv6Address((0xFFFF << 32) | number)
    return [
        text, f" {text}", f"{text} ", f"{text}\n", f"{text}.", f"{text}/32", f"{text}:80", f"{text}\0",
        ".".join([f"0{first}", *rest]), ".".join([f"00{first}", *rest]), ".".join([hex(int(first)), *rest]),
        ".".join([oct(int(first)).replace("o", ""), *rest]), str(number), hex(number), oct(number), f"0{number:o}",
        f"{first}.{number & 0xFFFFFF}", f"{first}.{int(rest[0])}.{number & 0xFFFF}",
        f"::ffff:{text}", f"::FFFF:{text}", mapped.exploded, str(mapped), f"::ffff:{text}%1", f"[::ffff:{text}]",
        f"::{text}", f"64:ff9b::{text}%1", text.replace(".", "。"),
        text.translate({48 + digit: 0x660 + digit for digit in range(10)}),
    ]  # fmt: skip


@pytest.mark.parametrize("text", FORBIDDEN)
def test_a_forbidden_address_is_refused_by_its_name(text: str) -> None:
    virtual_server = BOTH.virtual_servers["reco" if "." in text else "six"]
    refused = verdict(instance(address=text), virtual_server, BOTH)
    assert isinstance(refused, Rejected)
    assert (refused.reason, refused.text) == (Reason.FORBIDDEN_ADDRESS, f"{text} is {FORBIDDEN[text]}")


@pytest.mark.promise(9, case="every forbidden address, spelling, family and forwarding", target="0 admitted")
@pytest.mark.parametrize("text", [*FORBIDDEN, "10.9.0.100", "fd00:9::1", "10.0.0.254"])
@pytest.mark.parametrize("forwarding", [Forwarding.MASQUERADE, Forwarding.DIRECT_ROUTE, Forwarding.TUNNEL])
def test_no_spelling_of_a_forbidden_address_serves(text: str, forwarding: Forwarding, figure: Figure) -> None:
    for spelling in spellings(text):
        for each in BOTH.virtual_servers.values():
            virtual_server = configured(each.name, each.key, forwarding=forwarding)
            assert isinstance(verdict(instance(address=spelling, port=80), virtual_server, BOTH), Rejected), spelling
            figure(1, "spellings rejected")


NAMES = (
    "",
    " ",
    "localhost",
    "app1.example",
    "10.0.0",
    "10.0.0.1.2",
    "256.0.0.1",
    "-1",
    "1e3",
    "٣.0.0.1",
    "::g",
)


@pytest.mark.parametrize("text", NAMES)
def test_a_name_is_never_resolved(text: str) -> None:
    refused = verdict(instance(address=text))
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.NOT_AN_ADDRESS
    assert refused.text == f"registered with {text!r}, which is not an IP address; names are not resolved"


@given(text=st.text(max_size=40))
def test_any_text_is_an_address_or_none(text: str) -> None:
    address = parse_address(text)
    assert address is None or isinstance(address, IPv4Address | IPv6Address)
    assert isinstance(verdict(instance(address=text), config=BOTH), Admitted | Rejected)


@given(number=st.integers(0, 2**32 - 1))
def test_a_mapped_address_is_judged_and_written_as_ipv4(number: int) -> None:
    plain = verdict(instance(address=str(IPv4Address(number))), config=BOTH)
    assert verdict(instance(address=f"::ffff:{IPv4Address(number)}"), config=BOTH) == plain


@given(
    number=st.integers(0, 2**32 - 1) | st.sampled_from([int(IPv4Address(each)) for each in FORBIDDEN if "." in each])
)
def test_what_serves_is_a_unicast_address_of_nobody_here(number: int) -> None:
    found = verdict(instance(address=str(IPv4Address(number))), config=BOTH)
    if isinstance(found, Admitted):
        address = found.key.address
        special = (address.is_loopback, address.is_link_local, address.is_multicast, address.is_unspecified)
        assert not any(special)
        assert address not in OWN
        assert address != KEY.address


def test_the_ends_of_an_allowed_network_are_broadcast_addresses() -> None:
    safety = SafetyConfig(allowed_networks=(ip_network("10.0.0.0/24"), ip_network("10.1.0.0/31")))
    config = config_of(safety=safety)
    for text in ("10.0.0.0", "10.0.0.255"):
        assert reason(instance(address=text), config=config) is Reason.FORBIDDEN_ADDRESS
    for text in ("10.0.0.1", "10.1.0.0", "10.1.0.1"):
        assert isinstance(verdict(instance(address=text), config=config), Admitted)


def test_the_director_and_its_virtual_addresses_never_serve() -> None:
    assert reason(instance(address="10.9.0.100")) is Reason.VIRTUAL_ADDRESS
    assert reason(instance(address="10.0.0.254")) is Reason.OWN_ADDRESS
    other = config_of(configured(), configured("six", KEY6), safety=ANYWHERE)
    assert reason(instance(address="fd00:9::1"), configured("six", KEY6), other) is Reason.VIRTUAL_ADDRESS


def test_outside_the_allowed_networks_and_of_another_family() -> None:
    assert reason(instance(address="8.8.8.8")) is Reason.OUTSIDE_ALLOWED_NETWORKS
    refused = verdict(instance(address="fd00::7"))
    assert isinstance(refused, Rejected)
    assert (refused.reason, refused.text) == (Reason.FAMILY, "fd00::7 is IPv6, the virtual server is IPv4")
    assert reason(instance(1), configured("six", KEY6)) is Reason.FAMILY


def test_port_0_serves_nowhere() -> None:
    for forwarding in (Forwarding.MASQUERADE, Forwarding.DIRECT_ROUTE, Forwarding.TUNNEL):
        assert reason(instance(port=0), configured(forwarding=forwarding)) is Reason.PORT


@pytest.mark.parametrize(
    ("forwarding", "word"), [(Forwarding.DIRECT_ROUTE, "direct-route"), (Forwarding.TUNNEL, "tunnel")]
)
def test_without_masquerading_the_port_must_be_the_virtual_servers(forwarding: Forwarding, word: str) -> None:
    virtual_server = configured(forwarding=forwarding)
    assert verdict(instance(port=80), virtual_server) == Admitted(key=real_key(1, 80), weight=1)
    refused = verdict(instance(port=8080), virtual_server)
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.PORT_DIFFERS
    assert refused.text == (
        f"listens on port 8080, but {word} leaves the port as it is: only port 80 can work; "
        'use forwarding = "masquerade" or move the instance'
    )


def test_a_firewall_mark_has_no_port_to_differ_from() -> None:
    virtual_server = configured(key=VirtualServerKey.by_mark(7, Family.IPV4), forwarding=Forwarding.DIRECT_ROUTE)
    assert verdict(instance(port=8080), virtual_server) == Admitted(key=real_key(1, 0), weight=1)


@given(weight=st.integers(0, 65535), warning=st.integers(0, 65535), most=st.integers(1, 65535))
def test_no_weight_exceeds_the_cap(weight: int, warning: int, most: int) -> None:
    config = config_of(safety=SafetyConfig(max_weight=most))
    passing = verdict(instance(weight=weight, warning_weight=warning), config=config)
    assert passing == Admitted(key=real_key(), weight=min(weight, most))
    found = failing(health=Health.WARNING, weight=weight, warning_weight=warning)
    warned = verdict(found, configured(only_passing=False), config)
    assert warned == Admitted(key=real_key(), weight=min(warning, most))


@pytest.mark.parametrize(
    ("health", "expected", "text"),
    [
        (Health.WARNING, Reason.WARNING, "check 'HTTP' is warning: no answer"),
        (Health.CRITICAL, Reason.CRITICAL, "check 'HTTP' is critical: no answer"),
        (Health.MAINTENANCE, Reason.MAINTENANCE, "in maintenance: no answer"),
    ],
)
def test_a_failing_instance_keeps_the_key_of_its_real_server(health: Health, expected: Reason, text: str) -> None:
    found = failing(health=health)
    assert verdict(found) == Excluded(reason=expected, text=text, key=real_key(), check=found.checks[0])


def test_the_worst_check_decides_and_a_quiet_one_is_named_by_its_id() -> None:
    checks = (
        Check(check_id="disk", name="", health=Health.WARNING, output="90 %"),
        Check(check_id="http", name="", health=Health.CRITICAL),
    )
    found = verdict(instance(checks=checks))
    assert isinstance(found, Excluded)
    assert found.text == "check 'http' is critical"


def test_tags_and_meta_choose() -> None:
    wants = configured(tags=("v2", "blue"), meta={"zone": "a"})
    assert isinstance(verdict(instance(tags=("blue", "x", "v2"), meta={"zone": "a"}), wants), Admitted)
    for found, expected, text in (
        (instance(tags=("v2",)), Reason.TAGS, "has no tag 'blue'"),
        (instance(tags=("v2", "blue")), Reason.META, "meta 'zone' is absent, wanted 'a'"),
        (instance(tags=("v2", "blue"), meta={"zone": "b"}), Reason.META, "meta 'zone' is 'b', wanted 'a'"),
    ):
        refused = verdict(found, wants)
        assert isinstance(refused, Excluded)
        assert (refused.reason, refused.text, refused.key) == (expected, text, real_key())


def test_what_the_filters_leave_out_is_not_called_wrong() -> None:
    assert reason(instance(address="127.0.0.1"), configured(tags=("v2",))) is Reason.TAGS


@pytest.mark.parametrize("address", ["127.0.0.1", "8.8.8.8", "10.9.0.100", "10.0.0.254", "fd00::7"])
def test_a_rejected_instance_has_the_key_of_the_real_server_that_must_not_be(address: str) -> None:
    refused = verdict(instance(address=address))
    assert isinstance(refused, Rejected)
    assert refused.key is not None
    assert (str(refused.key.address), refused.key.port) == (address, 8080)


@pytest.mark.parametrize("found", [instance(address="app1"), instance(port=0)])
def test_without_address_or_port_there_is_no_key(found: Instance) -> None:
    refused = verdict(found)
    assert isinstance(refused, Rejected)
    assert refused.key is None

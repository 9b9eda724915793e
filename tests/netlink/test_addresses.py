"""Virtual addresses on a real dummy interface."""

import asyncio
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from netlink.addresses import Addresses
from netlink.errors import NetlinkError, Refused
from netlink.types import Address

NAME = "vip-test"
SECOND = "vip-test2"
OWNER = "netlink-test"
FOUR = IPv4Address("192.0.2.100")
SIX = IPv6Address("2001:db8::100")


def ip(*arguments: str) -> str:
    """Run ip; return what it prints."""
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=30).stdout


@pytest.fixture
def addresses() -> Iterator[Addresses]:
    """Give Addresses; the interfaces are gone before and after."""
    for name in (NAME, SECOND):
        subprocess.run(["ip", "link", "del", name], check=False, capture_output=True)
    yield Addresses()
    for name in (NAME, SECOND):
        subprocess.run(["ip", "link", "del", name], check=False, capture_output=True)


def test_the_loop_address_is_local() -> None:
    assert ip_address("127.0.0.1") in Addresses().local_addresses()


def test_an_interface_that_is_not_there_has_no_addresses() -> None:
    assert Addresses().interface_addresses("nosuch0") == frozenset()
    Addresses().remove_address("nosuch0", FOUR)
    Addresses().remove_interface("nosuch0", owner=OWNER)
    with pytest.raises(NetlinkError, match=r"add 192\.0\.2\.100 to interface nosuch0: there is no interface nosuch0"):
        Addresses().add_address("nosuch0", FOUR)
    assert Addresses().remove_addresses("nosuch0", [FOUR, SIX]) == [None, None]
    with pytest.raises(
        NetlinkError, match=r"add 192\.0\.2\.100 and 1 more to interface nosuch0: there is no interface"
    ):
        Addresses().add_addresses("nosuch0", [FOUR, SIX])
    assert Addresses().add_addresses("nosuch0", []) == Addresses().remove_addresses("nosuch0", []) == []


async def test_a_running_loop_is_not_blocked() -> None:
    with pytest.raises(RuntimeError, match=r"asyncio\.to_thread"):
        Addresses().local_addresses()
    assert ip_address("127.0.0.1") in await asyncio.to_thread(Addresses().local_addresses)


@pytest.mark.kernel
def test_an_interface_comes_and_goes(addresses: Addresses) -> None:
    for _ in range(2):  # the second time nothing is left to do
        addresses.ensure_interface(NAME, owner=OWNER)
        shown = ip("-d", "link", "show", "dev", NAME)
        assert "dummy" in shown
        assert f"alias {OWNER}" in shown
        assert "UP" in shown
    for _ in range(2):
        addresses.remove_interface(NAME, owner=OWNER)
        assert NAME not in ip("link")


@pytest.mark.kernel
def test_an_interface_that_is_down_comes_up(addresses: Addresses) -> None:
    addresses.ensure_interface(NAME, owner=OWNER)
    ip("link", "set", NAME, "down")
    addresses.ensure_interface(NAME, owner=OWNER)
    assert ",UP" in ip("link", "show", "dev", NAME)


@pytest.mark.kernel
def test_addresses_come_and_go(addresses: Addresses) -> None:
    addresses.ensure_interface(NAME, owner=OWNER)
    for _ in range(2):
        addresses.add_address(NAME, FOUR)
        addresses.add_address(NAME, SIX)
        assert addresses.interface_addresses(NAME) == {FOUR, SIX}
        assert {FOUR, SIX} < addresses.local_addresses()
    shown = ip("-o", "addr", "show", "dev", NAME)
    assert "192.0.2.100/32" in shown
    assert "2001:db8::100/128" in shown
    assert "tentative" not in next(line for line in shown.splitlines() if str(SIX) in line)
    for _ in range(2):
        addresses.remove_address(NAME, FOUR)
        assert addresses.interface_addresses(NAME) == {SIX}
        addresses.remove_address(NAME, SIX)
        assert addresses.interface_addresses(NAME) == frozenset()
        addresses.add_address(NAME, SIX)


@pytest.mark.kernel
def test_many_addresses_come_and_go_at_once(addresses: Addresses) -> None:
    addresses.ensure_interface(NAME, owner=OWNER)
    addresses.add_address(NAME, FOUR + 7)  # is there already
    addresses.remove_address(NAME, SIX + 7)  # is not there
    wanted: list[Address] = [start + number for start in (FOUR, SIX) for number in range(20)]
    for _ in range(2):
        assert addresses.add_addresses(NAME, wanted) == [None] * 40
        assert addresses.interface_addresses(NAME) == set(wanted)
    for _ in range(2):
        assert addresses.remove_addresses(NAME, wanted[1:]) == [None] * 39
        assert addresses.interface_addresses(NAME) == {FOUR}


@pytest.mark.kernel
def test_one_address_that_is_refused_hinders_no_other(addresses: Addresses) -> None:
    addresses.ensure_interface(NAME, owner=OWNER)
    multicast = IPv6Address("ff02::5")
    first, refused, last = addresses.add_addresses(NAME, [FOUR, multicast, SIX])
    assert (first, last) == (None, None)
    assert isinstance(refused, Refused)
    assert str(refused).startswith(f"add ff02::5 to interface {NAME}: ")
    assert addresses.interface_addresses(NAME) == {FOUR, SIX}
    with pytest.raises(Refused, match=rf"^add ff02::5 to interface {NAME}: "):
        addresses.add_address(NAME, multicast)


@pytest.mark.kernel
def test_an_address_on_another_interface_is_not_ours(addresses: Addresses) -> None:
    addresses.ensure_interface(NAME, owner=OWNER)
    assert ip_address("127.0.0.1") not in addresses.interface_addresses(NAME)


@pytest.mark.kernel
@pytest.mark.parametrize("used", [("link", "set", NAME, "up"), ("address", "add", f"{FOUR}/32", "dev", NAME)])
def test_an_interface_of_nobody_that_is_used_is_left_alone(addresses: Addresses, used: tuple[str, ...]) -> None:
    ip("link", "add", NAME, "type", "dummy")
    ip(*used)
    before = ip("address", "show", "dev", NAME)
    says = (
        rf"use interface {NAME}: it belongs to nobody .* `ip link set {NAME} alias {OWNER}`, else choose another name"
    )
    with pytest.raises(NetlinkError, match=says):
        addresses.ensure_interface(NAME, owner=OWNER)
    assert ip("address", "show", "dev", NAME) == before


@pytest.mark.kernel
def test_an_interface_of_somebody_is_left_alone(addresses: Addresses) -> None:
    ip("link", "add", NAME, "type", "dummy")
    ip("link", "set", NAME, "alias", "other")
    with pytest.raises(NetlinkError, match="it belongs to 'other'"):
        addresses.ensure_interface(NAME, owner=OWNER)
    with pytest.raises(NetlinkError, match="it belongs to 'other'"):
        addresses.remove_interface(NAME, owner=OWNER)
    shown = ip("link", "show", "dev", NAME)
    assert "alias other" in shown
    assert ",UP" not in shown


@pytest.mark.kernel
def test_what_a_kill_between_creation_and_alias_left_is_taken(addresses: Addresses) -> None:
    ip("link", "add", NAME, "type", "dummy")
    with pytest.raises(NetlinkError, match="it belongs to nobody"):
        addresses.remove_interface(NAME, owner=OWNER)
    addresses.ensure_interface(NAME, owner=OWNER)
    shown = ip("link", "show", "dev", NAME)
    assert f"alias {OWNER}" in shown
    assert ",UP" in shown


@pytest.mark.kernel
def test_the_interfaces_of_an_owner(addresses: Addresses) -> None:
    assert addresses.owned_interfaces(OWNER) == ()
    addresses.ensure_interface(SECOND, owner=OWNER)
    addresses.ensure_interface(NAME, owner=OWNER)
    assert addresses.owned_interfaces(OWNER) == (NAME, SECOND)
    assert addresses.owned_interfaces("other") == ()
    ip("link", "set", SECOND, "alias", "other")
    ip("link", "set", "lo", "alias", OWNER)  # not a dummy interface
    try:
        assert addresses.owned_interfaces(OWNER) == (NAME,)
    finally:
        ip("link", "set", "lo", "alias", "")


@pytest.mark.kernel
def test_an_interface_that_is_no_dummy_is_left_alone(addresses: Addresses) -> None:
    with pytest.raises(NetlinkError, match="use interface lo: it is not a dummy interface"):
        addresses.ensure_interface("lo", owner=OWNER)
    ip("link", "add", NAME, "type", "bridge")
    ip("link", "set", NAME, "alias", OWNER)
    with pytest.raises(NetlinkError, match="it is not a dummy interface but bridge"):
        addresses.ensure_interface(NAME, owner=OWNER)


@pytest.mark.kernel
def test_a_name_that_the_kernel_refuses(addresses: Addresses) -> None:
    with pytest.raises(Refused, match="create interface a/b"):
        addresses.ensure_interface("a/b", owner=OWNER)


@pytest.mark.kernel
async def test_threads_under_asyncio(addresses: Addresses) -> None:
    await asyncio.to_thread(addresses.ensure_interface, NAME, owner=OWNER)
    await asyncio.gather(*(asyncio.to_thread(addresses.add_address, NAME, each) for each in (FOUR, SIX)))
    assert await asyncio.to_thread(addresses.interface_addresses, NAME) == {FOUR, SIX}

"""Taking away what is ours, and only that."""

import errno
from ipaddress import ip_address
from pathlib import Path
from typing import cast

import pytest

from lvsctl.core.ownership import LedgerEntry
from lvsctl.errors import StateError
from lvsctl.store import Store
from lvsctl.teardown import Interface, Leftover, find, known, remove
from netlink.addresses import Addresses
from netlink.errors import NetlinkError, Refused
from netlink.requests import AddVirtualServer, DeleteVirtualServer
from tests.addresses import FakeAddresses
from tests.strategies import KEYS, NEVER_CONFIGURED
from tests.values import KEY, VIP, entry, kernel_with, real, table_of

OURS = {key: LedgerEntry(name=f"vs-{number}", drain_timeout=30.0) for number, key in enumerate((KEY, KEYS[3], KEYS[4]))}
TABLE = table_of(entry(real(1), real(2)), entry(key=KEYS[3]), entry(real(9), key=NEVER_CONFIGURED))
VIP6 = ip_address("2001:db8::100")


def given(fake: FakeAddresses) -> Addresses:
    """Return `fake` as what it stands for."""
    return cast("Addresses", fake)


ADDRESSES = given(FakeAddresses())


def test_what_is_there_of_ours() -> None:
    leftovers = find(kernel_with(TABLE), ADDRESSES, OURS)
    assert leftovers.virtual_servers == (
        Leftover(name="vs-1", key=KEYS[3], real_servers=0),
        Leftover(name="vs-0", key=KEY, real_servers=2),
    )
    assert not leftovers.empty
    assert find(kernel_with(TABLE), ADDRESSES, {}).empty


def test_with_a_damaged_ledger_nobody_says_that_nothing_is_ours(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(OURS, durable=False)
    assert known(store, kernel_with(TABLE)) == OURS
    assert known(Store(tmp_path / "none"), kernel_with(TABLE)) == {}
    ledger = tmp_path / "ledger.json"
    ledger.write_bytes(ledger.read_bytes()[:-9])
    with pytest.raises(
        StateError, match=r"is damaged .*nothing was removed, the kernel has 3 virtual servers"
    ) as caught:
        known(store, kernel_with(TABLE))
    assert caught.value.exit_code == 7
    assert ledger.exists(), "it stays for whoever looks into it"


def test_a_journal_with_a_wrong_line_may_hide_what_is_ours(tmp_path: Path) -> None:
    store = Store(tmp_path, large=1)
    store.save(OURS, durable=False)
    store.save({**OURS, KEY: LedgerEntry(name="new", drain_timeout=30.0)}, durable=False)
    journal = tmp_path / "ledger.journal"
    head, change = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(head + change.replace(b"new", b"old"))
    with pytest.raises(StateError, match=r"ledger\.journal: a line is wrong, so it is not known what else is ours"):
        known(store, kernel_with(TABLE))


def test_only_ours_goes_and_is_forgotten(tmp_path: Path) -> None:
    kernel, store = kernel_with(TABLE), Store(tmp_path)
    store.save(OURS, durable=False)
    remove(find(kernel, ADDRESSES, OURS), kernel, ADDRESSES, store)
    assert kernel.observe().table == table_of(entry(real(9), key=NEVER_CONFIGURED))
    assert store.load(set_aside_damage=False) == {}
    assert all(isinstance(each, DeleteVirtualServer) for each in kernel.writes)


def test_what_is_refused_stays_ours(tmp_path: Path) -> None:
    kernel, store = kernel_with(TABLE), Store(tmp_path)
    store.save(OURS, durable=False)
    kernel.fail_next(lambda request: request == DeleteVirtualServer(key=KEY), errno.ENOMEM)
    with pytest.raises(Refused, match="out of memory"):
        remove(find(kernel, ADDRESSES, OURS), kernel, ADDRESSES, store)
    assert store.load(set_aside_damage=False) == {KEY: OURS[KEY]}
    assert KEYS[3] not in kernel.observe().table


# --- the interfaces -------------------------------------------------------------------------------------------------


def two_of_ours() -> FakeAddresses:
    """Return interfaces of which two are ours, as after `vip.interface` was changed in the file."""
    fake = FakeAddresses(owners={"lvs1": "lvsctl", "lvs0": "lvsctl", "dummy0": "other"})
    fake.on = {"lvs1": {VIP6, VIP}, "lvs0": set(), "dummy0": {ip_address("10.9.0.101")}}
    return fake


def test_every_interface_of_ours_is_found_whatever_the_file_names() -> None:
    leftovers = find(kernel_with({}), given(two_of_ours()), {})
    assert leftovers.interfaces == (
        Interface(name="lvs0", addresses=()),
        Interface(name="lvs1", addresses=(VIP, VIP6)),
    )
    assert not leftovers.empty


def test_every_interface_of_ours_goes_and_no_other(tmp_path: Path) -> None:
    fake, kernel = two_of_ours(), kernel_with({})
    remove(find(kernel, given(fake), {}), kernel, given(fake), Store(tmp_path))
    assert fake.owners == {"dummy0": "other"}
    assert find(kernel, given(fake), {}).empty


def test_an_interface_that_went_to_another_owner_meanwhile_stays(tmp_path: Path) -> None:
    fake, kernel = two_of_ours(), kernel_with({})
    leftovers = find(kernel, given(fake), {})
    fake.owners["lvs1"] = "other"
    with pytest.raises(NetlinkError, match="interface lvs1"):
        remove(leftovers, kernel, given(fake), Store(tmp_path))
    assert fake.owners == {"lvs1": "other", "dummy0": "other"}


# --- a virtual server that only has the key of ours -----------------------------------------------------------------

REMEMBERED = {KEY: LedgerEntry(name="reco", drain_timeout=30.0, written=entry(real(1), real(2)))}
SOMEBODYS = table_of(entry(real(8), real(9), scheduler="sh"))


def test_a_virtual_server_that_became_somebody_elses_stays_and_is_forgotten(tmp_path: Path) -> None:
    kernel, store = kernel_with(SOMEBODYS), Store(tmp_path)
    store.save(REMEMBERED, durable=False)
    leftovers = find(kernel, ADDRESSES, REMEMBERED)
    assert leftovers.empty
    remove(leftovers, kernel, ADDRESSES, store)
    assert kernel.observe().table == SOMEBODYS
    assert store.load(set_aside_damage=False) == {}


def test_one_that_was_only_changed_by_hand_is_ours(tmp_path: Path) -> None:
    kernel, store = kernel_with(table_of(entry(real(2), real(9), scheduler="sh"))), Store(tmp_path)
    store.save(REMEMBERED, durable=False)
    remove(find(kernel, ADDRESSES, REMEMBERED), kernel, ADDRESSES, store)
    assert kernel.observe().table == {}


def test_one_that_changed_hands_before_the_answer_stays(tmp_path: Path) -> None:
    kernel, store = kernel_with(table_of(entry(real(1)))), Store(tmp_path)
    store.save(REMEMBERED, durable=False)
    leftovers = find(kernel, ADDRESSES, REMEMBERED)
    assert not leftovers.empty
    theirs = entry(scheduler="sh")
    kernel.apply([DeleteVirtualServer(key=KEY), AddVirtualServer(virtual_server=theirs.virtual_server)])
    remove(leftovers, kernel, ADDRESSES, store)
    assert kernel.observe().table == table_of(theirs)

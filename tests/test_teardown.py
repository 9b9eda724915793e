"""Taking away what is ours, and only that."""

import errno
from pathlib import Path
from typing import cast

import pytest

from lvsctl.core.ownership import LedgerEntry
from lvsctl.store import Store
from lvsctl.teardown import Leftover, find, remove
from netlink.addresses import Addresses
from netlink.errors import Refused
from netlink.requests import DeleteVirtualServer
from tests.addresses import FakeAddresses
from tests.strategies import KEYS, NEVER_CONFIGURED
from tests.values import KEY, config_of, entry, kernel_with, real, table_of

OURS = {key: LedgerEntry(name=f"vs-{number}", drain_timeout=30.0) for number, key in enumerate((KEY, KEYS[3], KEYS[4]))}
TABLE = table_of(entry(real(1), real(2)), entry(key=KEYS[3]), entry(real(9), key=NEVER_CONFIGURED))
ADDRESSES = cast("Addresses", FakeAddresses())


def test_what_is_there_of_ours() -> None:
    leftovers = find(config_of(), kernel_with(TABLE), ADDRESSES, OURS)
    assert leftovers.virtual_servers == (
        Leftover(name="vs-1", key=KEYS[3], real_servers=0),
        Leftover(name="vs-0", key=KEY, real_servers=2),
    )
    assert not leftovers.empty
    assert find(config_of(), kernel_with(TABLE), ADDRESSES, {}).empty


def test_only_ours_goes_and_is_forgotten(tmp_path: Path) -> None:
    kernel, store = kernel_with(TABLE), Store(tmp_path)
    store.save(OURS, durable=False)
    remove(find(config_of(), kernel, ADDRESSES, OURS), kernel, ADDRESSES, store)
    assert kernel.observe().table == table_of(entry(real(9), key=NEVER_CONFIGURED))
    assert store.load(set_aside_damage=False) == {}
    assert all(isinstance(each, DeleteVirtualServer) for each in kernel.writes)


def test_what_is_refused_stays_ours(tmp_path: Path) -> None:
    kernel, store = kernel_with(TABLE), Store(tmp_path)
    store.save(OURS, durable=False)
    kernel.fail_next(lambda request: request == DeleteVirtualServer(key=KEY), errno.ENOMEM)
    with pytest.raises(Refused, match="out of memory"):
        remove(find(config_of(), kernel, ADDRESSES, OURS), kernel, ADDRESSES, store)
    assert store.load(set_aside_damage=False) == {KEY: OURS[KEY]}
    assert KEYS[3] not in kernel.observe().table

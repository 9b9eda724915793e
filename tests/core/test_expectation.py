"""What the ledger lets expect of Consul's first answers."""

from ipaddress import ip_network

from lvsctl.config import Declaration, DiscoveryConfig
from lvsctl.core.expectation import expected
from lvsctl.core.instance import Query
from lvsctl.core.ownership import LedgerEntry
from netlink.types import VirtualServerKey
from tests.values import KEY, NOW, config_of, configured, entry, real, real_key

MARK = VirtualServerKey.by_mark(7)
WRITTEN = entry(real(1), real(2), real(3, weight=0))
THREE = LedgerEntry(name="reco", drain_timeout=0.0, written=WRITTEN)


def test_the_largest_of_the_virtual_servers_that_share_a_query_counts_without_what_drains() -> None:
    config = config_of(configured(), configured("other", MARK, consul_service="reco"))
    two = LedgerEntry(name="other", drain_timeout=0.0, written=WRITTEN, draining={real_key(3): NOW})
    assert expected(config, {KEY: THREE, MARK: two}) == {Query(service="reco"): 3}
    assert expected(config, {MARK: two}) == {Query(service="reco"): 2}


def test_what_failed_over_is_expected_of_the_datacenter_that_served() -> None:
    config = config_of(configured(datacenter="dc1", near="a", failover=("dc2",)))
    away = LedgerEntry(name="reco", drain_timeout=0.0, written=WRITTEN, failed_over="dc2")
    assert expected(config, {KEY: THREE}) == {Query(service="reco", datacenter="dc1", near="a"): 3}
    assert expected(config, {KEY: away}) == {Query(service="reco", datacenter="dc2"): 3}


def test_what_a_consul_service_declared_is_expected_of_it() -> None:
    declared = LedgerEntry(
        name="shop", drain_timeout=0.0, written=WRITTEN, declaration=Declaration(service="shop", values=())
    )
    discovery = DiscoveryConfig(addresses=(ip_network("10.9.1.0/24"),))
    assert expected(config_of(discovery=discovery), {MARK: declared}) == {Query(service="shop"): 3}
    assert expected(config_of(), {MARK: declared}) == {}


def test_nothing_is_expected_where_nothing_was_written() -> None:
    assert expected(config_of(), {KEY: LedgerEntry(name="reco", drain_timeout=0.0)}) == {}

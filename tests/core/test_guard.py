"""What must not leave: the last ones that serve stay, whatever Consul says, but for those that may not be there."""

from ipaddress import ip_network

import attrs
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.config import SafetyConfig
from lvsctl.core.desired import Wanted, desired
from lvsctl.core.guard import held, why_held
from lvsctl.core.instance import Health, Instance
from netlink.types import Forwarding, RealServer, RealServerKey, TableEntry
from tests import strategies
from tests.values import answers_of, config_of, configured, entry, failing, instance, limits, real, real_key


def wanted(*instances: Instance, tags: tuple[str, ...] = (), doubt: str = "") -> Wanted:
    config = config_of(configured(tags=tags))
    answers = {query: attrs.evolve(answer, doubt=doubt) for query, answer in answers_of(config, *instances).items()}
    return desired(config, answers, limits(config))["reco"]


def stays(found: Wanted, *real_servers: RealServer) -> set[RealServerKey]:
    return set(held(found, entry(*real_servers).real_servers, {}))


def test_nothing_is_held_while_one_passes() -> None:
    assert stays(wanted(instance(1), failing(2)), real(1), real(2), real(3)) == set()


def test_an_empty_answer_leaves_all_that_serve() -> None:
    assert stays(wanted(), real(1), real(2, 0), real(3, 5)) == {real_key(1), real_key(3)}


def test_while_an_answer_is_in_doubt_what_is_gone_stays_and_what_fails_does_not() -> None:
    found = wanted(instance(1), failing(2), doubt="the index went back")
    assert stays(found, real(1), real(2), real(3), real(4, 0)) == {real_key(3)}
    assert why_held(found) == "Consul's answer is in doubt (the index went back)"
    assert stays(wanted(instance(1), failing(2)), real(1), real(2), real(3)) == set()


def test_while_an_answer_is_in_doubt_the_last_that_serves_stays_too() -> None:
    assert stays(wanted(failing(1), doubt="x"), real(1)) == {real_key(1)}
    assert stays(wanted(failing(1), doubt="x"), real(1), real(2)) == {real_key(2)}
    assert stays(wanted(doubt="x"), real(1), real(2)) == {real_key(1), real_key(2)}


def test_registered_ones_are_kept_rather_than_ones_that_are_gone() -> None:
    assert stays(wanted(failing(1)), real(1), real(2)) == {real_key(1)}


def test_maintenance_of_all_is_held_too() -> None:
    assert stays(wanted(failing(1, Health.MAINTENANCE)), real(1)) == {real_key(1)}


def test_a_new_weight_of_0_for_the_last_one_is_held() -> None:
    assert stays(wanted(instance(1, weight=0)), real(1, 3)) == {real_key(1)}


def test_another_tag_on_all_of_them_is_held() -> None:
    assert stays(wanted(instance(1, tags=("v1",)), tags=("v2",)), real(1)) == {real_key(1)}


def test_what_admission_rejects_is_never_held() -> None:
    config = config_of(safety=SafetyConfig(allowed_networks=(ip_network("10.1.0.0/16"),)))
    found = desired(config, answers_of(config, instance(1)), limits(config))["reco"]
    assert stays(found, real(1)) == set()


def test_another_registration_at_the_same_address_does_not_make_it_allowed() -> None:
    config = config_of(configured(tags=("v1",)), safety=SafetyConfig(allowed_networks=(ip_network("10.1.0.0/16"),)))
    twice = (instance(1, tags=("v1",)), instance(1, node="app9"))  # rejected, and not meant for this virtual server
    found = desired(config, answers_of(config, *twice), limits(config))["reco"]
    assert stays(found, real(1)) == set()


def test_two_of_weight_0_at_one_address_are_held_as_one() -> None:
    assert stays(wanted(instance(1, weight=0), instance(1, weight=0, node="app9")), real(1)) == {real_key(1)}


def test_a_rejected_one_does_not_stand_in_for_one_that_is_gone() -> None:
    config = config_of(safety=SafetyConfig(allowed_networks=(ip_network("10.0.0.2/32"),)))
    found = desired(config, answers_of(config, instance(1)), limits(config))["reco"]
    assert stays(found, real(1), real(2)) == {real_key(2)}


def test_held_ones_are_as_we_wrote_them_whatever_a_hand_did_since() -> None:
    written = entry(real(1, 3), real(2, 3), real(3, 3)).real_servers
    by_hand = entry(real(1, 9, forwarding=Forwarding.DIRECT_ROUTE), real(2, 0)).real_servers  # and 3 deleted
    assert held(wanted(failing(1), failing(2), failing(3)), by_hand, written) == written


def test_one_that_is_gone_from_consul_and_from_the_kernel_stays_gone() -> None:
    written = entry(real(1), real(2)).real_servers
    assert held(wanted(), {}, written) == {}
    assert set(held(wanted(), entry(real(1)).real_servers, written)) == {real_key(1)}


def test_one_that_was_drained_before_is_not_brought_back() -> None:
    written = entry(real(1), real(2, 0)).real_servers
    assert set(held(wanted(failing(1), failing(2)), entry(real(1)).real_servers, written)) == {real_key(1)}


@given(instances=st.lists(strategies.instances(), max_size=5), found=strategies.entries(strategies.KEYS[0]))
def test_held_ones_serve_are_observed_as_they_are_and_only_when_nothing_wanted_serves(
    instances: list[Instance], found: TableEntry
) -> None:
    observed = found.real_servers
    want = wanted(*instances)
    kept = held(want, observed, {})
    assert all(observed[key] == each and each.weight > 0 for key, each in kept.items())
    if any(each.weight > 0 for each in want.entry.real_servers.values()):
        assert kept == {}

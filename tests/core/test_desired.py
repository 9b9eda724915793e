"""What Consul's answers make of the configuration: nothing silently left out, no order that matters."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.config import Config
from lvsctl.core.admission import Admitted, Reason, Rejected
from lvsctl.core.desired import Wanted, deciding_queries, desired, queries_of, query_of, virtual_server_of
from lvsctl.core.instance import Answer, Instance, Malformed, Query
from netlink.types import Family, VirtualServerKey
from tests import strategies
from tests.values import KEY, answers_of, config_of, configured, entry, failing, instance, limits, real, real_key

BROKEN = Malformed(node="app9", instance_id="reco-9", reason="Port is 'x', expected a int")


@given(config=strategies.configs(), answer=strategies.answers, data=st.data())
def test_the_order_of_an_answer_does_not_matter(config: Config, answer: Answer, data: st.DataObject) -> None:
    shuffled = attrs.evolve(answer, instances=tuple(data.draw(st.permutations(answer.instances))))
    one = desired(config, dict.fromkeys(queries_of(config), answer), limits(config))
    other = desired(config, dict.fromkeys(queries_of(config), shuffled), limits(config))
    for name in config.virtual_servers:
        assert one[name].entry == other[name].entry
        assert one[name].by_key == other[name].by_key
        assert set(map(repr, one[name].members)) == set(map(repr, other[name].members))


@given(config=strategies.configs(), answer=strategies.answers)
def test_every_instance_becomes_a_member_and_every_admitted_one_a_real_server(config: Config, answer: Answer) -> None:
    for wanted in desired(config, dict.fromkeys(queries_of(config), answer), limits(config)).values():
        assert [member.source for member in wanted.members] == [*answer.instances, *answer.malformed]
        admitted = [member.verdict for member in wanted.members if isinstance(member.verdict, Admitted)]
        assert {each.key: each.weight for each in admitted} == {
            key: each.weight for key, each in wanted.entry.real_servers.items()
        }
        assert len(admitted) == len(wanted.entry.real_servers)
        assert all(key == member.key for key, member in wanted.by_key.items())
        assert wanted.entry.real_servers.keys() <= wanted.by_key.keys()


def first_of_each(*instances: Instance) -> tuple[Instance, ...]:
    return tuple({each.identity: each for each in reversed(instances)}.values())


@given(config=strategies.configs(), data=st.data())
def test_what_was_judged_before_changes_nothing(config: Config, data: st.DataObject) -> None:
    before: dict[VirtualServerKey, Wanted] = {}
    failed_over: dict[VirtualServerKey, str] = {}
    bounds = limits(config)
    earlier: tuple[Instance, ...] = ()
    for _ in range(3):
        answers = data.draw(strategies.answers_for(config))
        again = data.draw(st.permutations(earlier)) if earlier else []
        answers = {
            query: attrs.evolve(
                each, instances=tuple({one.identity: one for one in [*each.instances, *again]}.values())
            )
            for query, each in answers.items()
        }
        failed_over = {key: data.draw(st.sampled_from(("", "dc2"))) for key in failed_over}
        afresh = desired(config, answers, bounds, failed_over=failed_over)
        wanted = desired(config, answers, bounds, before, failed_over=failed_over)
        assert wanted == afresh
        assert {name: each.members for name, each in wanted.items()} == {
            name: each.members for name, each in afresh.items()
        }
        before = {each.config.key: each for each in wanted.values()}
        failed_over = dict.fromkeys(before, "")
        earlier = tuple(one for each in answers.values() for one in each.instances)


def test_of_two_at_one_place_the_first_by_name_stays() -> None:
    first = instance(1, node="app1", instance_id="a", weight=3)
    second = instance(1, node="app1", instance_id="b", weight=9)
    for answer in ((first, second), (second, first)):
        wanted = desired(config_of(), answers_of(config_of(), *answer), limits())["reco"]
        assert wanted.entry == entry(real(1, 3))
        refused = next(member for member in wanted.members if isinstance(member.verdict, Rejected))
        assert refused.source is second
        assert refused.verdict == Rejected(
            reason=Reason.DUPLICATE,
            text="is at 10.0.0.1:8080 like instance 'a' on node 'app1', which serves",
            key=real_key(1),
        )
        assert wanted.by_key[real_key(1)].source is first


def test_a_failing_one_never_stands_in_the_way_of_a_passing_one_at_its_place() -> None:
    found = (failing(1, node="aaa"), instance(1, node="bbb"))
    wanted = desired(config_of(), answers_of(config_of(), *found), limits())["reco"]
    assert wanted.entry == entry(real(1))
    assert wanted.by_key[real_key(1)].source == found[1]


def test_one_broken_entry_leaves_the_others() -> None:
    answer = Answer(instances=tuple(instance(number) for number in range(1, 250)), malformed=(BROKEN,))
    wanted = desired(config_of(), {Query(service="reco"): answer}, limits())["reco"]
    assert len(wanted.entry.real_servers) == 249
    assert wanted.members[-1].source == BROKEN
    assert wanted.members[-1].verdict == Rejected(reason=Reason.MALFORMED, text=BROKEN.reason)


def test_without_an_answer_nothing_is_wanted_and_an_empty_one_is_an_answer() -> None:
    config = config_of()
    assert desired(config, {}, limits()) == {}
    assert desired(config, answers_of(config), limits())["reco"].entry == entry()


def test_virtual_servers_share_a_query_only_when_all_of_it_is_equal() -> None:
    servers = [
        configured("a", consul_service="reco"),
        configured("b", consul_service="reco", tags=("v2",)),
        configured("c", consul_service="reco", datacenter="dc2"),
        configured("d", consul_service="reco", near="_agent"),
    ]
    assert [query_of(each) for each in servers] == [
        Query(service="reco"),
        Query(service="reco"),
        Query(service="reco", datacenter="dc2"),
        Query(service="reco", near="_agent"),
    ]
    assert len(queries_of(config_of(*servers))) == 3


def test_a_full_length_persistence_prefix_is_written_as_the_default_it_is() -> None:
    assert virtual_server_of(configured(persistence=300, persistence_prefix=32)).persistence_prefix is None
    assert virtual_server_of(configured(persistence=300, persistence_prefix=24)).persistence_prefix == 24
    six = VirtualServerKey.by_mark(7, Family.IPV6)
    assert virtual_server_of(configured(key=six, persistence=300, persistence_prefix=128)).persistence_prefix is None
    assert virtual_server_of(configured(key=six, persistence=300, persistence_prefix=32)).persistence_prefix == 32


def test_everything_configured_reaches_the_real_server() -> None:
    config = config_of(configured(upper_threshold=9, lower_threshold=3, scheduler="rr", persistence=60))
    wanted = desired(config, answers_of(config, instance(1, weight=5)), limits())["reco"]
    expected = entry(real(1, 5, upper_threshold=9, lower_threshold=3), scheduler="rr", persistence=60)
    assert wanted.entry == expected
    assert wanted.entry.virtual_server.key == KEY
    assert isinstance(wanted.members[0].source, Instance)


@pytest.mark.parametrize(("serving", "asked"), [("dc1", ["dc1"]), ("dc2", ["dc1", "dc2"]), ("elsewhere", ["dc1"])])
def test_the_age_of_data_is_that_of_who_serves_and_of_those_before(serving: str, asked: list[str]) -> None:
    virtual_server = configured(datacenter="dc1", failover=("dc2", "dc3"))
    assert [query.datacenter for query in deciding_queries(virtual_server, serving)] == asked

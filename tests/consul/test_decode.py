"""Consul's answers, and everything else that may come instead of one."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.consul.decode import MAX_TEXT, decode_answer
from lvsctl.core.instance import Answer, Check, Health, Instance, Malformed
from lvsctl.errors import ConsulError

# As /v1/health/service/reco of Consul 1.8 answers (HTTP API, Health, List Nodes for Service).
RECORDED: dict[str, Any] = {
    "Node": {
        "ID": "40e4a748-2192-161a-0510-9bf59fe950b5",
        "Node": "app1",
        "Address": "10.0.0.1",
        "Datacenter": "dc1",
        "TaggedAddresses": {"lan": "10.0.0.1", "wan": "198.51.100.1"},
        "Meta": {"consul-network-segment": ""},
        "CreateIndex": 8,
        "ModifyIndex": 9,
    },
    "Service": {
        "ID": "reco-1",
        "Service": "reco",
        "Tags": ["v2", "blue"],
        "Address": "10.1.0.1",
        "TaggedAddresses": {"lan": {"address": "10.1.0.1", "port": 8000}},
        "Meta": {"zone": "a"},
        "Port": 8080,
        "Weights": {"Passing": 10, "Warning": 1},
        "EnableTagOverride": False,
        "Proxy": {"MeshGateway": {}, "Expose": {}},
        "Connect": {},
        "CreateIndex": 14,
        "ModifyIndex": 14,
    },
    "Checks": [
        {
            "Node": "app1",
            "CheckID": "serfHealth",
            "Name": "Serf Health Status",
            "Status": "passing",
            "Notes": "",
            "Output": "Agent alive and reachable",
            "ServiceID": "",
            "ServiceName": "",
            "ServiceTags": [],
            "Type": "",
            "Definition": {},
            "CreateIndex": 8,
            "ModifyIndex": 8,
        },
        {
            "Node": "app1",
            "CheckID": "service:reco-1",
            "Name": "reco over HTTP",
            "Status": "warning",
            "Notes": "asks /healthz",
            "Output": "429 Too Many Requests\n",
            "ServiceID": "reco-1",
            "ServiceName": "reco",
            "ServiceTags": ["v2", "blue"],
            "Type": "http",
            "Definition": {},
            "CreateIndex": 14,
            "ModifyIndex": 20,
        },
    ],
}


def decode(*entries: object) -> Answer:
    return decode_answer(json.dumps(entries).encode(), index=7)


def changed(**changes: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return RECORDED with `Service__Port=0` and the like changed; None for null, ... for absent."""
    entry = json.loads(json.dumps(RECORDED))
    for path, value in changes.items():
        *outer, key = path.split("__")
        inner = entry
        for name in outer:
            inner = inner[name]
        if value is ...:
            del inner[key]
        else:
            inner[key] = value
    return entry  # type: ignore[no-any-return]


def one(**changes: Any) -> Instance:  # noqa: ANN401
    answer = decode(changed(**changes))
    assert not answer.malformed
    return answer.instances[0]


def reason(entry: object) -> str:
    answer = decode(entry)
    assert not answer.instances
    return answer.malformed[0].reason


def test_a_recorded_answer() -> None:
    assert decode(RECORDED) == Answer(
        instances=(
            Instance(
                node="app1",
                instance_id="reco-1",
                address="10.1.0.1",
                port=8080,
                weight=10,
                warning_weight=1,
                tags=("v2", "blue"),
                meta={"zone": "a"},
                checks=(
                    Check(
                        check_id="serfHealth",
                        name="Serf Health Status",
                        health=Health.PASSING,
                        output="Agent alive and reachable",
                    ),
                    Check(
                        check_id="service:reco-1",
                        name="reco over HTTP",
                        health=Health.WARNING,
                        output="429 Too Many Requests",
                    ),
                ),
            ),
        ),
        index=7,
    )


def test_an_empty_list_is_an_answer() -> None:
    assert decode() == Answer(index=7)


def test_without_its_own_address_an_instance_is_at_its_node() -> None:
    assert one(Service__Address="").address == "10.0.0.1"
    assert one(Service__Address=None).address == "10.0.0.1"
    assert one(Service__Address=...).address == "10.0.0.1"
    assert one(Service__Address="fd00::1").address == "fd00::1"
    assert reason(changed(Service__Address="", Node__Address=...)) == "Address is absent, expected a str"


def test_what_old_consuls_leave_out_has_consuls_own_defaults() -> None:
    found = one(Service__Weights=..., Service__Tags=None, Service__Meta=None, Checks=None, Service__Port=...)
    assert (found.weight, found.warning_weight, found.tags, found.meta, found.checks, found.port) == (
        1, 1, (), {}, (), 0,
    )  # fmt: skip
    assert found.health is Health.PASSING


@pytest.mark.parametrize("check_id", ["_node_maintenance", "_service_maintenance:reco-1"])
def test_maintenance_says_the_operators_reason(check_id: str) -> None:
    notes = {"CheckID": check_id, "Name": "Maintenance", "Status": "critical", "Notes": "new disk", "Output": ""}
    found = one(Checks=[notes])
    assert found.health is Health.MAINTENANCE
    assert found.checks[0].output == "new disk"
    assert one(Checks=[{**notes, "Status": "passing"}]).health is Health.PASSING


def test_a_check_of_the_node_counts() -> None:
    serf = {"CheckID": "serfHealth", "Name": "Serf", "Status": "critical", "Output": "Agent not live or unreachable"}
    found = one(Checks=[RECORDED["Checks"][1], serf])
    assert found.health is Health.CRITICAL
    assert found.worst_check is not None
    assert found.worst_check.check_id == "serfHealth"


def test_a_status_nobody_knows_is_critical() -> None:
    assert one(Checks=[{"CheckID": "x", "Status": "unknown"}]).health is Health.CRITICAL


def test_a_check_may_not_print_without_end() -> None:
    assert len(one(Checks=[{"CheckID": "x", "Status": "critical", "Output": "x" * 10**6}]).checks[0].output) == MAX_TEXT


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (changed(Service__Port="80"), "Port is '80', expected a int"),
        (changed(Service__Port=True), "Port is True, expected 0 to 65535"),
        (changed(Service__Port=-1), "Port is -1, expected 0 to 65535"),
        (changed(Service__Port=65536), "Port is 65536, expected 0 to 65535"),
        (changed(Service__Port=80.0), "Port is 80.0, expected a int"),
        (changed(Service__Weights__Passing=-1), "Passing is -1, expected 0 to 65535"),
        (changed(Service__Weights__Passing=2**31), "Passing is 2147483648, expected 0 to 65535"),
        (changed(Service__Weights__Passing=10**400), f"Passing is 1{'0' * 39}, expected 0 to 65535"),
        (changed(Service__Weights__Passing="NaN"), "Passing is 'NaN', expected a int"),
        (changed(Service__Weights__Passing=float("nan")), "Passing is nan, expected a int"),
        (changed(Service__Weights__Warning=...), "Warning is absent, expected a int"),
        (changed(Service__Weights=[]), "Weights is [], expected a dict"),
        (changed(Service__Tags=[1]), "Tags has an entry that is not a string"),
        (changed(Service__Tags={}), "Tags is {}, expected a list"),
        (changed(Service__Meta={"a": 1}), "Meta has a value that is not a string"),
        (changed(Service__ID=None), "ID is absent, expected a str"),
        (changed(Node__Node=7), "Node is 7, expected a str"),
        (changed(Node=None), "Node is absent, expected a dict"),
        (changed(Service=...), "Service is absent, expected a dict"),
        (changed(Checks={}), "Checks is {}, expected a list"),
        (changed(Checks=[None]), "a JSON NoneType where an object with 'CheckID' was expected"),
        (changed(Checks=[{"CheckID": "x"}]), "Status is absent, expected a str"),
        (None, "a JSON NoneType where an object with 'Node' was expected"),
        ([], "a JSON list where an object with 'Node' was expected"),
        ("reco", "a JSON str where an object with 'Node' was expected"),
    ],
)
def test_a_bad_entry_says_what_is_wrong(entry: object, expected: str) -> None:
    assert reason(entry) == expected


def test_one_bad_entry_of_250_is_left_out_alone() -> None:
    good = [changed(Service__ID=f"reco-{number}") for number in range(249)]
    bad = changed(Service__ID="reco-bad", Service__Port="http")
    answer = decode(*good[:100], bad, *good[100:])
    assert [each.instance_id for each in answer.instances] == [f"reco-{number}" for number in range(249)]
    assert answer.malformed == (
        Malformed(node="app1", instance_id="reco-bad", reason="Port is 'http', expected a int"),
    )


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "answer is not JSON (JSONDecodeError)"),
        (b"[", "answer is not JSON (JSONDecodeError)"),
        (b"rpc error: No cluster leader", "answer is not JSON (JSONDecodeError)"),
        (b"\xff\xfe", "answer is not JSON (JSONDecodeError)"),
        (b'["\xff"]', "answer is not JSON (UnicodeDecodeError)"),
        (b"\x1f\x8b\x08\x00\x00", "answer is not JSON (UnicodeDecodeError)"),
        (b"null", "answer is a JSON NoneType, expected a list"),
        (b"{}", "answer is a JSON dict, expected a list"),
        (b"3", "answer is a JSON int, expected a list"),
        (b"9" * 10**5, "answer is not JSON (ValueError)"),
        (b"[" * 10**5, "answer is not JSON (RecursionError)"),
        (b"[" * 10**5 + b"]" * 10**5, "answer is not JSON (RecursionError)"),
        (b'{"a":' * 10**5, "answer is not JSON (RecursionError)"),
    ],
)
def test_what_is_no_answer_at_all(body: bytes, words: str) -> None:
    with pytest.raises(ConsulError) as caught:
        decode_answer(body, index=7)
    assert str(caught.value) == words


def test_of_duplicate_keys_the_last_counts() -> None:
    body = json.dumps([RECORDED]).replace('"Port": 8080', '"Port": 1, "Port": 2').encode()
    assert decode_answer(body, index=0).instances[0].port == 2


@pytest.mark.parametrize("depth", range(700, 1000, 2))
def test_no_depth_of_a_field_is_too_deep_to_be_shown(depth: int) -> None:
    """What the parser takes must not be too deep for the words about it."""
    body = json.dumps([changed(Service__Port="DEEP")]).replace('"DEEP"', "[" * depth + "]" * depth).encode()
    try:
        answer = decode_answer(body, index=0)
    except ConsulError:
        return
    assert answer.malformed[0].instance_id == "reco-1"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
paths = st.sampled_from(
    ["Node", "Service", "Checks", "Node__Node", "Node__Address", "Service__ID", "Service__Address", "Service__Port",
     "Service__Tags", "Service__Meta", "Service__Weights", "Service__Weights__Passing"]
)  # fmt: skip


@given(body=st.binary(max_size=64))
def test_any_bytes_are_an_answer_or_our_error(body: bytes) -> None:
    with contextlib.suppress(ConsulError):
        assert isinstance(decode_answer(body, index=0), Answer)


@given(value=json_values)
def test_any_json_is_an_answer_or_our_error(value: object) -> None:
    body = json.dumps(value).encode()
    try:
        answer = decode_answer(body, index=0)
    except ConsulError:
        assert not isinstance(value, list)
        return
    assert isinstance(value, list)
    assert len(answer.instances) + len(answer.malformed) == len(value)


@given(path=paths, value=json_values)
def test_any_field_may_hold_anything_and_harms_its_own_entry_alone(path: str, value: object) -> None:
    answer = decode(RECORDED, changed(**{path: value}))
    assert len(answer.instances) + len(answer.malformed) == 2
    assert answer.instances[0] == decode(RECORDED).instances[0]
    for each in answer.instances:
        assert isinstance(each.address, str)
        assert 0 <= each.port <= 65535
        assert 0 <= each.weight <= 65535

"""Consul's answers, and everything else that may come instead of one."""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.consul.decode import MAX_LIST, MAX_SIZE, MAX_TEXT, decode_answer
from lvsctl.consul.entries import MAX_DEPTH, MAX_ENTRY, Unread, entries
from lvsctl.core.instance import Answer, Check, Health, Instance, Malformed, Query
from lvsctl.errors import ConsulError

FOLDER = Path(__file__).with_name("recorded")

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
                        health=Health.PASSING,  # of one that passes nobody asks why
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


def test_what_consul_1_8_7_sent() -> None:
    """An answer of the real one: agents' own and registered in the catalogue, one in maintenance, one a proxy."""
    answer = decode_answer((FOLDER / "1.8.7-health-service.json").read_bytes(), index=18)
    first, second, third, proxy = answer.instances
    assert (first.address, first.port, first.weight, first.health) == ("10.1.0.1", 8080, 10, Health.CRITICAL)
    assert (first.tags, first.meta) == (("v2", "blue"), {"zone": "a", "room": "größe"})
    assert [check.name for check in first.checks] == ["Serf Health Status", "<ttl> & co", "tcp"]
    assert (second.address, second.tags, second.meta) == ("127.0.0.1", (), {})
    assert (third.address, third.health, third.worst_check and third.worst_check.output) == (
        "fd00::3", Health.MAINTENANCE, "new disk",
    )  # fmt: skip
    assert proxy.checks[0].output.endswith("503\n\0\x1b[31m")
    assert answer.malformed == (
        Malformed(node="app2", instance_id="reco-4", reason="Port is 70000, expected 0 to 65535"),
    )


def test_what_newer_consuls_add() -> None:
    """Written by hand, after Consul's pages: partitions, peers, localities, several ports, a socket."""
    http, admin = {"Name": "http", "Port": 8081, "Default": True}, {"Name": "admin", "Port": 9102}
    known = one(
        Node__Partition="default",
        Node__Locality={"Region": "eu", "Zone": "a"},
        Service__Partition="default",
        Service__Namespace="default",
        Service__PeerName="",
        Service__Ports=[admin],
        Tomorrow=[{"is": {"another": "day"}}],
    )
    assert known == one()
    assert one(Service__Port=0, Service__Ports=[admin, http]).port == 8081
    assert one(Service__Port=..., Service__Ports=[http]).port == 8081
    ports: object
    for ports in ([admin], [http, http], [], {}, "8080", [None], [{**http, "Default": 1}]):
        assert one(Service__Port=0, Service__Ports=ports, Service__SocketPath="/run/reco.sock").port == 0
    assert (
        reason(changed(Service__Port=0, Service__Ports=[{**http, "Port": 70000}]))
        == "Port is 70000, expected 0 to 65535"
    )


def test_what_consul_1_20_6_sent() -> None:
    """An answer of the real one: agents' own and registered in the catalogue, one in maintenance, one a proxy."""
    answer = decode_answer((FOLDER / "1.20.6-health-service.json").read_bytes(), index=25, query=Query(service="reco"))
    assert [(each.instance_id, each.address, each.port, each.health) for each in answer.instances] == [
        ("reco-1", "10.1.0.1", 8080, Health.CRITICAL),
        ("reco-2", "127.0.0.1", 8081, Health.PASSING),
        ("reco-5", "127.0.0.1", 8085, Health.PASSING),
        ("reco-3", "fd00::3", 8080, Health.MAINTENANCE),
        ("reco-6", "10.0.0.3", 20000, Health.WARNING),
    ]
    assert answer.instances[0].meta == {"zone": "a", "room": "größe"}
    assert [each.reason for each in answer.malformed] == ["Port is 70000, expected 0 to 65535"]


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


@pytest.mark.parametrize("check", [{"CheckID": "x"}, {"Status": "critical"}, {"CheckID": None, "Status": None}])
def test_a_check_without_an_id_or_a_status_is_critical(check: dict[str, object]) -> None:
    assert one(Checks=[check]).health is Health.CRITICAL


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
        (changed(Service__Meta={"a": 1}), "Meta has an entry that is not a string"),
        (changed(Service__ID=None), "ID is absent, expected a str"),
        (changed(Node__Node=7), "Node is 7, expected a str"),
        (changed(Node=None), "Node is absent, expected a dict"),
        (changed(Service=...), "Service is absent, expected a dict"),
        (changed(Checks={}), "Checks is {}, expected a list"),
        (changed(Checks=[None]), "a JSON NoneType where an object with 'CheckID' was expected"),
        (changed(Checks=[{"CheckID": "x", "Status": 1}]), "Status is 1, expected a str"),
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
        (b"", "it begins with b''"),
        (b"rpc error: No cluster leader", "it begins with b'rpc error: No cluster leader'"),
        (b"<html>" * 10**5, "it begins with b'<html><html><html><html><html><html><htm'"),
        (b"\xff\xfe[\x00]\x00", r"it begins with b'\xff\xfe[\x00]\x00'"),  # UTF-16
        (b"\xef\xbb\xbf[]", r"it begins with b'\xef\xbb\xbf[]'"),  # a byte order mark
        (b"\x1f\x8b\x08\x00\x00", r"it begins with b'\x1f\x8b\x08\x00\x00'"),
        (b"null", "it begins with b'null'"),
        (b"{}", "it begins with b'{}'"),
        (b"3", "it begins with b'3'"),
        (b"[", "the entry at byte 1 is broken or larger than 2097152 bytes"),
        (b"[1,]", "the entry at byte 3 is broken or larger than 2097152 bytes"),
        (b"[1", "it breaks off or goes wrong at byte 2"),
        (b"[1 2]", "it breaks off or goes wrong at byte 3"),
        (b"[1, nul]", "the entry at byte 4 is broken or larger than 2097152 bytes"),
        (b'["\n"]', "the entry at byte 1 is broken or larger than 2097152 bytes"),
        (b"[]]", "there is more behind its end at byte 2"),
        (b"[1] x", "there is more behind its end at byte 3"),
        (b"[" * 10**5, "the entry at byte 1 is broken or larger than 2097152 bytes"),
        (b'[{"a":' * 10**5, "the entry at byte 1 is broken or larger than 2097152 bytes"),
        (b"[[" + b"[]" * (1 << 20), "the entry at byte 1 is broken or larger than 2097152 bytes"),
        (b"[" + b"7" * (1 << 21) + b"]", "the entry at byte 1 is broken or larger than 2097152 bytes"),
        (b'["' + b"x" * (1 << 21) + b'"]', "the entry at byte 1 is broken or larger than 2097152 bytes"),
        (b'["' + b"\\x" * (1 << 19), "the entry at byte 1 is broken or larger than 2097152 bytes"),
    ],
)
def test_what_is_no_answer_at_all(body: bytes, words: str) -> None:
    with pytest.raises(ConsulError) as caught:
        decode_answer(body, index=7)
    assert str(caught.value) == "answer is not a JSON list: " + words


def test_of_duplicate_keys_the_last_counts() -> None:
    body = json.dumps([RECORDED]).replace('"Port": 8080', '"Port": 1, "Port": 2').encode()
    assert decode_answer(body, index=0).instances[0].port == 2


@pytest.mark.parametrize("depth", [2, 28, 29, 30, *range(700, 1000, 2)])
def test_no_depth_of_a_field_is_too_deep_to_be_shown(depth: int) -> None:
    """What the parser takes must not be too deep for the words about it."""
    body = json.dumps([changed(Service__Port="DEEP")]).replace('"DEEP"', "[" * depth + "]" * depth).encode()
    (malformed,) = decode_answer(body, index=0).malformed
    assert malformed.reason in {"Port is a list of 1, expected a int", "entry 1 of the answer is nested deeper than 32"}


@pytest.mark.parametrize(("opens", "closes"), [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize(("depth", "is_read"), [(MAX_DEPTH - 1, True), (MAX_DEPTH, True), (MAX_DEPTH + 1, False)])
@pytest.mark.parametrize("text", ["x", "\u00e9", "[{[{" * 20])
def test_the_deepest_that_is_read(opens: str, closes: str, depth: int, is_read: bool, text: str) -> None:  # noqa: FBT001  one of the cases
    body = "[1," + opens * depth + json.dumps(text, ensure_ascii=False) + closes * depth + ",2]"
    first, deep, last = entries(body.encode())
    assert (first, last) == (1, 2)
    assert (deep == json.loads(body)[1]) is is_read
    assert isinstance(deep, Unread) is not is_read


def test_one_of_many_brackets_that_is_not_deep_is_read() -> None:
    (entry,) = entries(json.dumps([[[{}] * 50] * 50]).encode())
    assert entry == [[{}] * 50] * 50


# --- one bad entry harms nobody else, whatever is bad about it --------------------------------------------------------

DEEP = "[" * 10**5 + "]" * 10**5


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (DEEP.encode(), "entry 2 of the answer is nested deeper than 32"),
        (b'{"Service":{"ID":"x","Proxy":' + DEEP.encode() + b"}}", "entry 2 of the answer is nested deeper than 32"),
        (b'{"Node":"' + b"x" * MAX_ENTRY + b'"}', f"entry 2 of the answer has {MAX_ENTRY} bytes or more"),
        (b"[" + b'"]\\"",' * (MAX_ENTRY // 5) + b"1]", f"entry 2 of the answer has {MAX_ENTRY} bytes or more"),
        (b'{"Node":"a\xffb"}', "entry 2 of the answer is not UTF-8 at its byte 10"),
        (b'{"Node":"\xed\xa0\x80"}', "entry 2 of the answer is not UTF-8 at its byte 9"),
        (b"9" * 10**5, "a JSON int where an object with 'Node' was expected"),
        (b'{"Node":{"Node":' + b"9" * 10**5 + b"}}", "Service is absent, expected a dict"),
        (b"-Infinity", "a JSON float where an object with 'Node' was expected"),
        (b"[]", "a JSON list where an object with 'Node' was expected"),
    ],
)
def test_an_entry_that_cannot_be_read_is_left_out_alone(bad: bytes, why: str) -> None:
    first, last = changed(), changed(Service__ID="reco-2", Service__Tags=["é", "\N{GRINNING FACE}"])
    encoded = [json.dumps(each, ensure_ascii=False).encode() for each in (first, last)]
    answer = decode_answer(b" [ " + encoded[0] + b" ,\n" + bad + b"\t, " + encoded[1] + b"\r\n] ", index=7)
    assert [each.instance_id for each in answer.instances] == ["reco-1", "reco-2"]
    assert answer.instances[1].tags == ("é", "\N{GRINNING FACE}")
    assert [each.reason for each in answer.malformed] == [why]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (changed(Service__ID=""), "ID is empty"),
        (changed(Node__Node=""), "Node is empty"),
        (changed(Node__Node="x" * 1025), "Node has 1025 characters, expected 1024 at most"),
        (changed(Service__ID="x" * 1025), "ID has 1025 characters, expected 1024 at most"),
        (changed(Service__Address="1" * 10**5), "Address has 100000 characters, expected 1024 at most"),
        (changed(Service__Tags=["x" * 4097]), "an entry of Tags has 4097 characters, expected 4096 at most"),
        (changed(Service__Tags=["x"] * 1025), "Tags has 1025 entries, expected 1024 at most"),
        (changed(Service__Meta={"x": "y" * 4097}), "an entry of Meta has 4097 characters, expected 4096 at most"),
        (changed(Service__Meta={"y" * 4097: "x"}), "an entry of Meta has 4097 characters, expected 4096 at most"),
        (changed(Service__Meta={str(n): "" for n in range(1025)}), "Meta has 1025 entries, expected 1024 at most"),
        (changed(Checks=[RECORDED["Checks"][0]] * 1025), "Checks has 1025 entries, expected 1024 at most"),
        (changed(Service__ID="a\ud800"), "ID has half of a surrogate pair"),
        (changed(Service__Tags=["\udfff"]), "an entry of Tags has half of a surrogate pair"),
        (changed(Service__Port=10**5000), f"Port is 1{'0' * 39}, expected 0 to 65535"),
        (changed(Service__Port=-(10**5000)), f"Port is -1{'0' * 38}, expected 0 to 65535"),
        (changed(Service__Port=[[], {}]), "Port is a list of 2, expected a int"),
        (changed(Service__Port="8" * 10**5), f"Port is '{'8' * 40}', expected a int"),
    ],
)
def test_what_is_out_of_bounds_says_so(entry: object, expected: str) -> None:
    with unlimited_digits():
        body = json.dumps([RECORDED, entry]).encode()
    answer = decode_answer(body, index=7)
    assert len(answer.instances) == 1
    assert [each.reason for each in answer.malformed] == [expected]
    for each in answer.malformed:
        f"{each.node} {each.instance_id}".encode()
        assert len(each.instance_id) <= 1024


@contextlib.contextmanager
def unlimited_digits() -> Iterator[None]:
    """Let numbers be written that are longer than Python reads."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        yield
    finally:
        sys.set_int_max_str_digits(before)


def test_control_characters_are_text_like_any_other() -> None:
    text = "a\0\x1b[31m\r\n\u202e"
    found = one(Service__ID=text, Node__Node=text, Service__Tags=[text], Service__Meta={text: text})
    assert (found.node, found.instance_id, found.tags, found.meta) == (text, text, (text,), {text: text})


def test_what_a_check_prints_takes_nobody_out() -> None:
    check = {"CheckID": "x", "Name": "\ud800", "Status": "critical", "Output": "\udfff" * 10**5}
    (found,) = one(Checks=[check]).checks
    assert (found.name, found.output) == ("\N{REPLACEMENT CHARACTER}", "\N{REPLACEMENT CHARACTER}" * MAX_TEXT)


def test_of_two_with_the_same_identity_the_first_counts() -> None:
    twin = changed(Service__Address="10.9.9.9")
    answer = decode(RECORDED, twin, changed(Node__Node="app2"))
    assert [(each.node, each.address) for each in answer.instances] == [("app1", "10.1.0.1"), ("app2", "10.1.0.1")]
    assert answer.malformed == (
        Malformed(node="app1", instance_id="reco-1", reason="Node and ID are those of an entry before it"),
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"Service__Service": "shop\x1b"}, "it is of Consul service 'shop\\x1b'"),
        ({"Node__Datacenter": "dc2"}, "it is of datacenter 'dc2'"),
    ],
)
def test_an_answer_to_another_question_is_none_and_an_entry_of_it_is_left_out(
    changes: dict[str, str], why: str
) -> None:
    query = Query(service="Reco", datacenter="DC1")
    strange = changed(**changes, Service__ID="strange-1")
    mixed = decode_answer(json.dumps([RECORDED, strange]).encode(), index=7, query=query)
    assert [each.instance_id for each in mixed.instances] == ["reco-1"]
    assert [(each.instance_id, each.reason) for each in mixed.malformed] == [("strange-1", why)]
    with pytest.raises(ConsulError) as caught:
        decode_answer(json.dumps([strange, strange]).encode(), index=7, query=query)
    assert str(caught.value).startswith(f"answer is none to this question: {why}")
    assert decode_answer(b"[]", index=7, query=query) == Answer(index=7)
    silent = changed(Service__Service=..., Node__Datacenter=...)
    assert decode_answer(json.dumps([silent]).encode(), index=7, query=query).instances


def test_an_answer_that_would_take_too_much_memory_is_not_complete() -> None:
    """Its body has 2 MB: what takes memory is the number of strings."""

    def listing(entries: int) -> bytes:
        tags = [["t"] * MAX_LIST] * entries
        return json.dumps([changed(Service__ID=str(at), Service__Tags=each) for at, each in enumerate(tags)]).encode()

    found = decode_answer(listing(3), index=7)
    assert 3 * MAX_LIST * 50 < found.size < MAX_SIZE
    with pytest.raises(ConsulError) as caught:
        decode_answer(listing(MAX_SIZE * 3 // found.size + 1), index=7)
    assert str(caught.value) == (
        "answer would take more than 32 MiB of memory, with long lists of tags and Meta; the last complete one stays"
    )


def test_an_answer_with_more_than_allowed_is_not_complete() -> None:
    body = json.dumps([changed(Service__ID=str(number)) for number in range(3)] + [None]).encode()
    assert len(decode_answer(body, index=7, max_instances=4).instances) == 3
    with pytest.raises(ConsulError) as caught:
        decode_answer(body, index=7, max_instances=3)
    assert str(caught.value) == (
        "answer lists more than the 3 instances of safety.max_instances; the last complete one stays"
    )


@pytest.mark.parametrize("size", [MAX_ENTRY - 2, MAX_ENTRY - 1, MAX_ENTRY, MAX_ENTRY + 1])
@pytest.mark.parametrize("then", [b"]", b",123456]", b', "b" ]'])
def test_entries_of_any_size_end_where_they_end(size: int, then: bytes) -> None:
    """Of an entry that ends with the window, of one that crosses it, and of numbers that go on behind it."""
    for first in (b'"' + b"a" * (size - 2) + b'"', b" " * (size - 3) + b"123", b"[" + b" " * (size - 2) + b"]"):
        body = b"[" + first + then
        found, expected = list(entries(body)), json.loads(body)
        assert len(found) == len(expected)
        assert found[1:] == expected[1:]
        is_read = size < MAX_ENTRY or first.startswith(b" ")
        assert found[0] == (expected[0] if is_read else Unread(f"has {MAX_ENTRY} bytes or more"))


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


@given(values=st.lists(json_values, max_size=6), indent=st.sampled_from([None, 0, 2]), ascii_only=st.booleans())
def test_entries_are_what_json_reads(values: list[object], indent: int | None, ascii_only: bool) -> None:  # noqa: FBT001  hypothesis draws it
    body = json.dumps(values, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "replace")
    assert repr(list(entries(body))) == repr(json.loads(body))


@given(cut=st.integers(1, 2000))
def test_half_an_answer_is_no_answer(cut: int) -> None:
    body = json.dumps([RECORDED, changed(Service__ID="reco-2")]).encode()
    with pytest.raises(ConsulError):
        decode_answer(body[:-cut], index=7)


@given(path=paths, value=json_values)
def test_any_field_may_hold_anything_and_harms_its_own_entry_alone(path: str, value: object) -> None:
    answer = decode(RECORDED, changed(**{path: value}))
    assert len(answer.instances) + len(answer.malformed) == 2
    assert answer.instances[0] == decode(RECORDED).instances[0]
    for each in answer.instances:
        assert isinstance(each.address, str)
        assert 0 <= each.port <= 65535
        assert 0 <= each.weight <= 65535


@pytest.mark.parametrize(("opens", "closes"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_an_entry_as_deep_as_can_just_be_read_is_left_out_alone_when_it_cannot_be_read_again(
    opens: bytes, closes: bytes
) -> None:
    """What is not ASCII is read twice, the second time from a stack that is a frame higher."""
    for depth in range(700, 1000):
        deep = opens * depth + '"\u00e9"'.encode() + closes * depth
        body = b"[" + json.dumps(RECORDED).encode() + b"," + deep + b"]"
        decoded = decode_answer(body, index=1)
        assert len(decoded.instances) == 1
        assert len(decoded.malformed) == 1

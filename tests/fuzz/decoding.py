"""The target for Consul's answers: whatever comes is an Answer within its bounds, or ConsulError, in words."""

import json
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

from lvsctl.consul.decode import MAX_LABEL, MAX_LIST, MAX_NAME, MAX_TEXT, decode_answer
from lvsctl.core.admission import Admitted, Limits, admit
from lvsctl.core.instance import Answer, Health, Instance
from lvsctl.errors import ConsulError
from netlink.types import Forwarding
from tests.fuzz.draw import Draw
from tests.values import OWN, VIP, configured

RECORDED: Final = Path(__file__).parents[1] / "consul" / "recorded"
BODIES: Final = tuple(path.read_bytes() for path in sorted(RECORDED.glob("*.json")))
ANSWERS: Final = tuple(json.loads(body) for body in BODIES)
MAX_INSTANCES: Final = 12
MOST_CHANGES: Final = 12

DEEP: Final = "[" * 1500 + "]" * 1500
WILD: Final = (
    "null", "true", "{}", "[]", '""', "0", "-1", "65535", "65536", "80.0", "1e999", "NaN", "-Infinity", "9" * 5000,
    '"127.0.0.1"', '"::ffff:10.0.0.1"', '"fe80::1%lo"', '"10.0.0.254"', '"10.9.0.100"', '"010.0.0.1"', '"app.example"',
    '"\\u0000"', '"\\ud800"', '"\\udfff\\ud800"', '"\\u001b]0;x\\u0007"', '"é"', '"😀"', '"critical"', '"passing"',
    '"_node_maintenance"', '["a","a"]', '{"a":"b"}', '{"a":1}', '{"Passing":0,"Warning":70000}', f'"{"x" * 5000}"',
    DEEP, '{"x":' * 1500 + "1" + "}" * 1500, "[" * 900, "[" + "0," * 1100 + "0]", '"\\', "tru",
)  # fmt: skip
MARK: Final = "\N{SNOWMAN}"
VIRTUAL_SERVERS: Final = (
    configured(),
    configured(forwarding=Forwarding.DIRECT_ROUTE, tags=("v2",), meta={"zone": "a"}, only_passing=False),
)
LIMITS: Final = Limits(
    allowed_networks=(ip_network("10.0.0.0/8"), ip_network("fd00::/8")),
    max_weight=100,
    virtual_addresses=frozenset({VIP}),
    own_addresses=OWN,
)


def decoding_target(data: bytes) -> None:
    """Decode what the bytes make of a recorded answer; judge what comes out as the daemon would."""
    bytes_target(_body(Draw(data)))


def bytes_target(data: bytes) -> None:
    """Decode the bytes as they are."""
    words = ""
    answer = Answer()
    try:
        answer = decode_answer(data, index=7, max_instances=MAX_INSTANCES)
    except ConsulError as error:
        words = str(error)
    assert not words or words.startswith("answer ")
    assert len(words) < 400
    check(answer)


def check(answer: Answer) -> None:
    """Check that everything in an answer is within its bounds, and what of it would reach the kernel."""
    assert len(answer.instances) + len(answer.malformed) <= MAX_INSTANCES
    assert len({each.identity for each in answer.instances}) == len(answer.instances)
    for malformed in answer.malformed:
        assert 0 < len(malformed.reason) < 200
        assert len(_written(malformed.node)) <= 4 * MAX_NAME
        assert len(_written(malformed.instance_id)) <= 4 * MAX_NAME
    for instance in answer.instances:
        _check_instance(instance)
        for virtual_server in VIRTUAL_SERVERS:
            verdict = admit(instance, virtual_server, LIMITS)
            if isinstance(verdict, Admitted):
                assert 0 <= verdict.weight <= LIMITS.max_weight
                assert 1 <= verdict.key.port <= 65535
                assert any(verdict.key.address in network for network in LIMITS.allowed_networks)
                assert verdict.key.address not in LIMITS.virtual_addresses | LIMITS.own_addresses


def _check_instance(instance: Instance) -> None:
    for number in (instance.port, instance.weight, instance.warning_weight):
        assert type(number) is int
        assert 0 <= number <= 65535
    assert instance.node
    assert instance.instance_id
    for text in (instance.node, instance.instance_id, instance.address, *(each.check_id for each in instance.checks)):
        assert len(text) <= MAX_NAME
        _written(text)
    for label in (*instance.tags, *instance.meta, *instance.meta.values()):
        assert len(label) <= MAX_LABEL
        _written(label)
    assert max(len(instance.tags), len(instance.meta), len(instance.checks)) <= MAX_LIST
    for check_ in instance.checks:
        assert len(_written(check_.output)) <= 4 * MAX_TEXT
        assert len(_written(check_.name)) <= 4 * MAX_TEXT
    assert isinstance(instance.health, Health)


def _written(text: str) -> bytes:
    """Return a text as a file or socket takes it, which not every str can be."""
    assert type(text) is str
    return text.encode()


def _body(draw: Draw) -> bytes:
    """Return a recorded answer with values replaced, left out and doubled, and then bytes changed."""
    answer = json.loads(draw.choice(BODIES))
    style = draw.below(4)
    marks: list[str] = []
    for _ in range(draw.below(MOST_CHANGES)):
        _change(draw, answer, marks)
    text = json.dumps(answer, ensure_ascii=bool(style & 1), indent=1 if style & 2 else None)
    for number, wild in enumerate(marks):
        text = text.replace(json.dumps(f"{MARK}{number}", ensure_ascii=bool(style & 1)), wild)
    body = bytearray(text.encode("utf-8", "surrogatepass"))
    while draw.more and body:
        place = draw.number(3) % len(body)
        body[place : place + draw.below(4)] = draw.octets(draw.below(4))
    return bytes(body)


def _change(draw: Draw, answer: list[Any], marks: list[str]) -> None:
    """Change one thing in `answer`; a value that only text can say is put in by its mark, later."""
    place: Any = answer
    key: Any = 0
    for _ in range(1 + draw.below(6)):
        keys = list(range(len(place))) if isinstance(place, list) else list(place)
        if not keys:
            return
        key = draw.choice(keys)
        if not isinstance(place[key], list | dict) or draw.below(4) == 0:
            break
        place = place[key] or place
    if key not in (place if isinstance(place, dict) else range(len(place))):
        return
    match draw.below(4):
        case 0:
            del place[key]
        case 1 if isinstance(place, list):
            place.append(place[key])
        case 1:
            place[f"{key}"] = draw.octets(6).decode("utf-8", "surrogateescape")
        case _:
            place[key] = f"{MARK}{len(marks)}"
            marks.append(draw.choice(WILD))

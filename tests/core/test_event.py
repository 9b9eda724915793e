"""Events as lines and as words: whatever text they have comes back, and whatever is damaged does not."""

import json
import zlib

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lvsctl.core.cause import Kind
from lvsctl.core.event import Event, Evidence
from lvsctl.core.event_json import LATEST, LONGEST, as_json, decode, encode
from lvsctl.core.event_words import OVER, WORDS, about, done, sentence, why
from lvsctl.core.subject import Subject
from lvsctl.text import visible

TEXT = st.text(st.characters(), max_size=40)  # lone surrogates, too: Python reads them from wherever bytes are no text
NUMBER = st.integers(0, 1 << 40)
EVIDENCE = st.builds(
    Evidence, service=TEXT, datacenter=TEXT, index=NUMBER, node=TEXT, instance=TEXT, health=TEXT, check=TEXT
)
EVENTS = st.builds(
    Event,
    time=st.floats(0, LATEST, exclude_max=True, allow_nan=False) | NUMBER.filter(lambda each: each < LATEST),
    event=st.sampled_from(
        [*WORDS, "kernel_refused", "trouble_over", "journal_lost", "override", "not_of_this_version"]
    ),
    of=TEXT | st.sampled_from([*OVER, "real_server_added"]),
    name=TEXT,
    virtual_server=TEXT,
    real_server=TEXT,
    address=TEXT,
    what=TEXT,
    cause=TEXT | st.sampled_from([each.value for each in Kind]),
    why=TEXT,
    by=TEXT,
    error=TEXT,
    attempt=NUMBER,
    lost=NUMBER,
    evidence=st.none() | EVIDENCE,
)
QUIESCED = Event(
    time=1_700_000_000.25,
    event="real_server_quiesced",
    name="reco",
    virtual_server="tcp 10.9.0.100:80",
    real_server="10.0.0.1:8080",
    what="weight 1 -> 0",
    cause="check",
    why="instance 'reco-1' on node 'app1': check 'HTTP' is critical: no answer",
    evidence=Evidence(service="reco", index=42, node="app1", instance="reco-1", health="critical", check="HTTP"),
)


@given(EVENTS)
@example(QUIESCED)
def test_what_is_written_is_read_again(event: Event) -> None:
    line = encode(event)
    assert decode(line.removesuffix(b"\n")) == event
    assert line.count(b"\n") == 1
    assert line.decode("ascii")[:-1].isprintable(), "whoever looks at the file is safe"


@given(EVENTS, st.data())
def test_a_line_that_was_changed_is_no_event(event: Event, data: st.DataObject) -> None:
    line = encode(event).removesuffix(b"\n")
    place = data.draw(st.integers(0, len(line) - 1))
    changed = line[:place] + bytes([line[place] ^ data.draw(st.integers(1, 255))]) + line[place + 1 :]
    assert decode(changed) is None
    assert decode(line[:place]) is None
    assert decode(line[place + 1 :]) is None


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["time", "event", "consul", "attempt"]) | TEXT, inner, max_size=4)
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode())
)
def test_anything_else_is_no_event_either(content: bytes) -> None:
    """Also with a checksum that fits: another version may have written it."""
    assert decode(content) is None
    found = decode(b'%b,"crc":"%08x"}' % (content[:-1], zlib.crc32(content[:-1] + b"}")))
    assert found is None or decode(encode(found)[:-1]) == found


@pytest.mark.parametrize(
    "changes",
    [
        {"time": None},
        {"time": True},
        {"time": -1},
        {"time": 1e18},
        {"time": "1"},
        {"event": ""},
        {"event": "\u001b"},
        {"event": 1},
        {"name": 1},
        {"attempt": "1"},
        {"attempt": -1},
        {"attempt": True},
        {"consul": None},
        {"consul": []},
        {"consul": {"index": "1"}},
    ],
)
def test_a_value_of_another_type_is_damage(changes: dict[str, object]) -> None:
    def read(value: dict[str, object]) -> Event | None:
        body = json.dumps(value).encode()
        return decode(b'%b,"crc":"%08x"}' % (body[:-1], zlib.crc32(body)))

    assert read(as_json(QUIESCED) | changes) is None
    assert read(as_json(QUIESCED) | {"later": [1]}) == QUIESCED, "what a later version adds is none"


@given(st.text(st.characters(), min_size=LONGEST - 2, max_size=LONGEST + 100))
def test_a_text_that_is_too_long_is_cut(text: str) -> None:
    read = decode(encode(attrs.evolve(QUIESCED, why=text))[:-1])
    assert read is not None
    assert read.why == (text if len(text) <= LONGEST else text[: LONGEST - 1] + "…")


@given(EVENTS)
def test_there_are_words_for_every_event(event: Event) -> None:
    assert done(event)
    assert sentence(event)
    assert "\n" not in visible(f"{about(event)} {done(event)} {why(event)} {sentence(event)}")


def test_the_words() -> None:
    deregistered = attrs.evolve(
        QUIESCED,
        cause="deregistered",
        why="no longer registered in Consul",
        evidence=Evidence(service="reco", index=43),
    )
    refused = attrs.evolve(
        QUIESCED,
        event="kernel_refused",
        of="real_server_added",
        what="masquerade, weight 1",
        error="no memory",
        attempt=4,
    )
    held = Event(time=1, event="hold", name="reco", virtual_server="tcp 10.9.0.100:80", why="nothing else would serve")
    over = attrs.evolve(held, event="trouble_over", of="hold", why="")
    drift = attrs.evolve(QUIESCED, cause="drift", event="real_server_added", why="deleted by hand")
    reasons = f"no memory; attempt 4; {QUIESCED.why}"
    assert [sentence(each) for each in (QUIESCED, deregistered, refused, held, over, drift)] == [
        f"10.0.0.1:8080 was quiesced (weight 1 -> 0): {QUIESCED.why} (Consul index 42)",
        "10.0.0.1:8080 was quiesced (weight 1 -> 0): no longer registered in Consul (Consul index 43)",
        f"10.0.0.1:8080 was refused by the kernel to add it (masquerade, weight 1): {reasons} (Consul index 42)",
        "tcp 10.9.0.100:80 was held: nothing else would serve",
        "tcp 10.9.0.100:80 was held no longer",
        "10.0.0.1:8080 was added (weight 1 -> 0): deleted by hand",
    ]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("reco", True),
        ("10.9.0.100:80", True),
        ("tcp 10.9.0.100:80", True),
        ("10.0.0.1:8080", True),
        ("reco-1", True),
        ("rec", False),
        ("app1", True),
        ("10.0.0.1", True),
        ("app2", False),
        ("10.0.0.11", False),
        ("10.0.0.0/8", False),
        ("10.0.0.1:80", False),
        ("udp 10.9.0.100:80", False),
        ("", False),
        (":", False),
        ("10.0.0.1:99999", False),
        ("10.0.0.1:٨٠", False),
    ],
)
def test_what_an_event_is_about(text: str, meant: bool) -> None:  # noqa: FBT001  # a column of the table
    assert Subject(text).is_of(QUIESCED) is meant


@pytest.mark.parametrize("text", ["[fd00:0::1]:80", "fd00::1:80"])
def test_an_address_is_meant_however_it_is_spelled(text: str) -> None:
    assert Subject(text).is_virtual_server("", "udp [fd00::1]:80")
    assert Subject(text).is_real_server("[fd00::1]:80")
    assert not Subject(text).is_real_server("")


@pytest.mark.parametrize("text", ["[fd00:0::1]", "fd00::1"])
def test_an_address_without_a_port_is_all_that_is_there(text: str) -> None:
    for key in ("[fd00::1]:80", "[fd00::1]:81"):
        assert Subject(text).is_real_server(key)
        assert Subject(text).is_virtual_server("", f"udp {key}")
    assert not Subject(text).is_real_server("[fd00::1:80]:80")
    assert not Subject(text).is_virtual_server("", "mark 7")


def test_who_was_rejected_is_the_instance_and_not_who_is_where_it_would_be() -> None:
    rejected = attrs.evolve(
        QUIESCED, event="instance_rejected", cause="rejected", what="", why="is at 10.0.0.1:8080 like another"
    )
    assert sentence(rejected) == "instance 'reco-1' was rejected: is at 10.0.0.1:8080 like another (Consul index 42)"
    over = attrs.evolve(rejected, event="trouble_over", of="instance_rejected", why="")
    assert sentence(over) == "instance 'reco-1' was rejected no longer"


@given(TEXT, EVENTS)
def test_any_text_may_be_asked_about(text: str, event: Event) -> None:
    assert Subject(text).is_of(event) in {True, False}
    assert not Subject(text).is_of(Event(time=0, event="started"))

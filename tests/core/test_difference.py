"""The lines of a diff, exactly: sign, place, what, and whether it is a difference or a note."""

import pytest

from lvsctl.core.decide import decide
from lvsctl.core.decision import Decision
from lvsctl.core.difference import Line, Sign, difference
from lvsctl.core.instance import Answer, Malformed, Query
from lvsctl.core.ownership import LedgerEntry
from lvsctl.core.words import real_server_words, virtual_server_words
from netlink.types import Family, Forwarding, Protocol, SchedulerFlag, VirtualServer, VirtualServerKey
from tests.values import (
    KEY,
    NOW,
    OWN,
    VIP,
    config_of,
    configured,
    decided,
    entry,
    failing,
    instance,
    observed_of,
    real,
    real_key,
)

TWO = entry(real(1), real(2))
LEDGER = {KEY: LedgerEntry(name="reco", drain_timeout=30.0, written=TWO)}


def shown(decision: Decision) -> list[tuple[str, str | None, str, bool]]:
    return [(line.sign.value, line.real_server, line.what, line.differs) for line in difference(decision)]


def test_equal_shows_nothing() -> None:
    assert difference(decided(observed_of(TWO), instance(1), instance(2), ledger=LEDGER)) == []


def test_every_kind_of_step() -> None:
    observed = observed_of(entry(real(1, 4), real(2), real(3, 0), scheduler="rr"))
    ledger = {KEY: LedgerEntry(name="reco", drain_timeout=30.0, draining={real_key(3): NOW - 1})}
    assert shown(decided(observed, instance(1), instance(4), ledger=ledger)) == [
        ("~", None, "scheduler rr -> wlc", True),
        ("+", "10.0.0.4:8080", "masquerade, weight 1", True),
        ("~", "10.0.0.1:8080", "weight 4 -> 1", True),
        ("-", "10.0.0.2:8080", "weight 1 -> 0", True),
        ("-", "10.0.0.3:8080", "masquerade, weight 0", True),
    ]


def test_a_new_virtual_server_and_one_to_remove() -> None:
    config = config_of(configured(scheduler="sh", scheduler_flags=SchedulerFlag.FLAG_1, persistence=300))
    assert shown(decided(observed_of(), instance(1), config=config)) == [
        ("+", None, "sh sh-fallback, persistent 300s", True),
        ("+", "10.0.0.1:8080", "masquerade, weight 1", True),
    ]
    other = config_of(configured("other", VirtualServerKey.by_mark(7)))
    lines = difference(decided(observed_of(entry()), config=other, ledger=LEDGER))
    assert [line.what for line in lines] == ["wlc", "the virtual server and what is left of it"]
    assert [(line.name, line.virtual_server) for line in lines] == [
        ("other", "mark 7"),
        ("reco", "tcp 10.9.0.100:80"),
    ]


def test_draining_and_held_differ_without_a_step() -> None:
    ledger = {KEY: LedgerEntry(name="reco", drain_timeout=30.0, written=TWO, draining={real_key(2): NOW - 5})}
    observed = observed_of(entry(real(1), real(2, 0)), connections={real_key(2): 1}, inactive=2)
    decision = decided(observed, instance(1), failing(2), ledger=ledger)
    assert decision.steps == []
    assert shown(decision) == [("-", "10.0.0.2:8080", "draining: 1 active, 2 closing", True)]
    assert shown(decided(observed_of(TWO), failing(1), failing(2), ledger=LEDGER)) == [
        ("-", "10.0.0.1:8080", "stays with weight 1", True),
        ("-", "10.0.0.2:8080", "stays with weight 1", True),
    ]


def test_rejected_ones_are_notes() -> None:
    bad = (instance(7, address="127.0.0.1"), instance(8, address="app8.example"))
    lines = difference(decided(observed_of(entry(real(1))), instance(1), *bad, ledger=LEDGER))
    assert [(line.sign, line.real_server, line.what, line.differs) for line in lines] == [
        (Sign.NOTE, "127.0.0.1:8080", "rejected", False),
        (Sign.NOTE, "instance 'reco-8' on node 'app8'", "rejected", False),
    ]
    assert [line.cause.text for line in lines] == [
        "instance 'reco-7' on node 'app7': 127.0.0.1 is a loopback address",
        "registered with 'app8.example', which is not an IP address; names are not resolved",
    ]


def test_an_entry_that_could_not_be_read_is_a_note() -> None:
    answer = Answer(
        instances=(instance(1),),
        malformed=(
            Malformed(node="app9", instance_id="reco-9", reason="Port is 'x', expected a int"),
            Malformed(node="", instance_id="", reason="a JSON int where an object with 'Node' was expected"),
        ),
    )
    observed = observed_of(entry(real(1)))
    decision = decide(
        config_of(),
        {Query(service="reco"): answer},
        observed,
        LEDGER,
        own_addresses=OWN,
        templates_expire=False,
        now=NOW,
    )
    assert shown(decision) == [
        ("!", "instance 'reco-9' on node 'app9'", "rejected", False),
        ("!", "an unreadable entry", "rejected", False),
    ]


@pytest.mark.parametrize(
    ("key", "command"),
    [
        (KEY, "ipvsadm -D -t 10.9.0.100:80"),
        (VirtualServerKey.by_address(Protocol.UDP, VIP, 53), "ipvsadm -D -u 10.9.0.100:53"),
        (VirtualServerKey.by_address(Protocol.SCTP, VIP, 53), "ipvsadm -D --sctp-service 10.9.0.100:53"),
        (VirtualServerKey.by_mark(7), "ipvsadm -D -f 7"),
        (VirtualServerKey.by_mark(7, Family.IPV6), "ipvsadm -D -f 7 -6"),
    ],
)
def test_a_foreign_one_in_the_way_says_how_to_be_rid_of_it(key: VirtualServerKey, command: str) -> None:
    observed = observed_of(entry(key=key, scheduler="rr"))
    (line,) = difference(decided(observed, instance(1), config=config_of(configured(key=key))))
    assert isinstance(line, Line)
    assert (line.sign, line.real_server, line.what, line.differs) == (Sign.NOTE, None, "left alone", True)
    assert line.cause.text == (
        "a foreign virtual server holds this address and differs from what is wanted; "
        f"take it over as it stands (lvsctl adopt reco), delete it ({command}), or take 'reco' out of the configuration"
    )


def test_descriptions() -> None:
    key = VirtualServerKey.by_address(Protocol.UDP, VIP, 53)
    assert virtual_server_words(VirtualServer(key=key, scheduler="rr", one_packet=True)) == "rr, one-packet"
    assert real_server_words(real(1, 3, forwarding=Forwarding.DIRECT_ROUTE)) == "direct-route, weight 3"

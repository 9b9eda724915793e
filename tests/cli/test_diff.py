"""The screen and the JSON of `lvsctl diff`, from a decision."""

import json
import re

from lvsctl.cli import diff
from lvsctl.core.difference import difference, unknown_line
from lvsctl.core.instance import Instance
from lvsctl.core.ownership import LedgerEntry
from lvsctl.reconcile import Look, Surroundings
from netlink.types import TableEntry, VirtualServerKey
from tests.values import KEY, OWN, config_of, configured, decided, entry, failing, instance, observed_of, real

TWO = entry(real(1), real(2))
LEDGER = {KEY: LedgerEntry(name="reco", drain_timeout=30.0, written=TWO)}
CONFIG = config_of(configured(), configured("shop", VirtualServerKey.by_mark(7), consul_service="reco"))


def look_at(*entries: TableEntry, instances: tuple[Instance, ...]) -> Look:
    observed = observed_of(*entries)
    decision = decided(observed, *instances, config=CONFIG, ledger=LEDGER)
    return Look(config=CONFIG, observed=observed, surroundings=Surroundings(local=OWN), decision=decision)


VISIBLE = r"check 'HTTP' is critical: \x1b[31mno\x1b[0m\r\nanswer"
HOSTILE = failing(2, output="\x1b[31mno\x1b[0m\r\nanswer")


def test_the_screen() -> None:
    look = look_at(TWO, instances=(instance(1, weight=5), HOSTILE, instance(3, address="app3.example")))
    lines = difference(look.decision)
    shown = [
        re.split(r"\s{2,}", line.strip()) for line in (*diff.render(lines), *diff.summary(lines, look).split("\n"))
    ]
    new, name = "passing in Consul: instance 'reco-1' on node 'app1'", "! instance 'reco-3' on node 'app3'"
    unnamed = "registered with 'app3.example', which is not an IP address; names are not resolved"
    assert shown == [
        ["reco", "tcp 10.9.0.100:80"],
        ["~ 10.0.0.1:8080", "weight 1 -> 5", "weight in Consul is 5, was 1: instance 'reco-1' on node 'app1'"],
        ["- 10.0.0.2:8080", "weight 1 -> 0", f"instance 'reco-2' on node 'app2': {VISIBLE}"],
        [name, "rejected", unnamed],
        [""],
        ["shop", "mark 7"],
        ["+ virtual server", "wlc", "new in the configuration"],
        ["+ 10.0.0.1:8080", "masquerade, weight 5", new],
        [name, "rejected", unnamed],
        [""],
        ["4 differences, 2 notes: 2 virtual servers, 3 real servers"],
    ]


def test_the_screen_is_aligned() -> None:
    look = look_at(TWO, instances=(instance(1, weight=5), instance(2), instance(3)))
    assert diff.render(difference(look.decision)) == [
        "reco  tcp 10.9.0.100:80",
        "  + 10.0.0.3:8080   masquerade, weight 1  passing in Consul: instance 'reco-3' on node 'app3'",
        "  ~ 10.0.0.1:8080   weight 1 -> 5         weight in Consul is 5, was 1: instance 'reco-1' on node 'app1'",
        "",
        "shop  mark 7",
        "  + virtual server  wlc                   new in the configuration",
        "  + 10.0.0.1:8080   masquerade, weight 5  passing in Consul: instance 'reco-1' on node 'app1'",
        "  + 10.0.0.2:8080   masquerade, weight 1  passing in Consul: instance 'reco-2' on node 'app2'",
        "  + 10.0.0.3:8080   masquerade, weight 1  passing in Consul: instance 'reco-3' on node 'app3'",
    ]


def test_in_sync_is_one_line() -> None:
    mark = entry(real(1), real(2), key=VirtualServerKey.by_mark(7))
    look = look_at(TWO, mark, instances=(instance(1), instance(2)))
    assert diff.render(difference(look.decision)) == []
    assert diff.summary([], look) == "in sync: 2 virtual servers, 4 real servers"


def test_notes_alone_are_in_sync() -> None:
    mark = entry(real(1), real(2), key=VirtualServerKey.by_mark(7))
    look = look_at(TWO, mark, instances=(instance(1), instance(2), instance(3, address="127.0.0.1")))
    lines = difference(look.decision)
    assert diff.summary(lines, look) == "\nin sync, 2 notes: 2 virtual servers, 4 real servers"


def test_what_is_not_known_is_neither_equal_nor_different() -> None:
    mark = entry(real(1), real(2), key=VirtualServerKey.by_mark(7))
    look = look_at(TWO, mark, instances=(instance(1), instance(2)))
    lines = [unknown_line(CONFIG.virtual_servers["shop"], "Consul service 'reco': Consul answered 500: a\x1b")]
    assert diff.render(lines) == [
        "shop  mark 7",
        r"  ! virtual server  unknown  Consul service 'reco': Consul answered 500: a\x1b",
    ]
    said = diff.summary(lines, look, complete=False)
    assert said == "\nno difference known, 1 note: 2 virtual servers, 4 real servers"


def test_the_json() -> None:
    lines = difference(look_at(TWO, instances=(instance(1), HOSTILE)).decision)
    text = json.dumps(diff._as_json(lines, equal=False))  # noqa: SLF001  what the command prints
    assert text.isprintable()
    document = json.loads(text)
    assert document.keys() == {"schema", "equal", "complete", "lines"}
    assert (document["schema"], document["equal"]) == ("lvsctl.diff/1", False)
    assert document["lines"][0] == {
        "sign": "remove",
        "name": "reco",
        "virtual_server": "tcp 10.9.0.100:80",
        "real_server": "10.0.0.2:8080",
        "what": "weight 1 -> 0",
        "cause": "check",
        "why": "instance 'reco-2' on node 'app2': check 'HTTP' is critical: \x1b[31mno\x1b[0m\r\nanswer",
        "differs": True,
    }
    assert {line["sign"] for line in document["lines"]} == {"remove", "add"}

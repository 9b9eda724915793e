"""`lvsctl explain`: a sentence for every place that a real server can have, and what happened to it."""

import time
from collections.abc import Sequence
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.cli import lvsctl
from lvsctl.cli.explain import _unheard
from lvsctl.cli.explain_screen import LATELY, answer
from lvsctl.core.decide import decide
from lvsctl.core.event import Event, Evidence
from lvsctl.core.instance import Answer, Query
from lvsctl.core.ownership import LedgerEntry
from lvsctl.core.status import Place, RealServerStatus, State
from lvsctl.core.subject import Subject
from lvsctl.core.virtual_server_status import bare_virtual_servers, virtual_servers
from lvsctl.journal import Journal
from netlink.types import VirtualServerKey
from tests.core.test_event import EVENTS, QUIESCED
from tests.statuses import CONSUL, FULL, RECO, SHOP, TIME, Told, daemon, real_server
from tests.values import KEY, NOW, OWN, VIP, config_of, configured, decided, entry, instance, observed_of, real

FIRST = "10.0.0.1:8080"


def explained(
    each: RealServerStatus,
    events: Sequence[Event] = (),
    subject: str = FIRST,
    *,
    consul: bool = True,
    **changes: object,
) -> list[str]:
    """Return the answer about a real server of reco, as it stands as `each`."""
    row = attrs.evolve(RECO, real_servers=(each, real_server(2)), **changes)  # type: ignore[arg-type]
    status = attrs.evolve(FULL, virtual_servers=(row, SHOP), consul=CONSUL if consul else None)
    return answer(status, Subject(subject), events)


def where(each: RealServerStatus) -> list[str]:
    """Return what is said before Consul and the journal."""
    return [line for line in explained(each) if not line.startswith(("  In Consul", "  The journal"))]


IN_RECO = "reco (tcp 10.9.0.100:80)"


def test_each_place_has_a_sentence_and_its_reason() -> None:
    said = {
        Place.SERVING: f"{FIRST} is in {IN_RECO} and serves, with weight 1.",
        Place.QUIESCED: f"{FIRST} is in {IN_RECO} with weight 0, so it gets no new connections.",
        Place.DRAINING: f"{FIRST} is on its way out of {IN_RECO}, with weight 0.",
        Place.HELD: f"{FIRST} is held in {IN_RECO}, with weight 1, although it is wanted out.",
        Place.FALLBACK: f"{FIRST} is in {IN_RECO} as its fallback and serves, for nothing else does.",
        Place.PENDING: f"{FIRST} is wanted in {IN_RECO} and not in the kernel.",
        Place.OUT: f"{FIRST} is out of {IN_RECO}.",
        Place.REJECTED: f"{FIRST} is rejected, so it is not in {IN_RECO}.",
    }
    assert said.keys() == set(Place)
    for place, sentence in said.items():
        lines = where(attrs.evolve(real_server(1, place, "its reason"), weight=0 if "weight 0" in sentence else 1))
        assert lines[0] == sentence
        why = "Why this weight" if place in {Place.SERVING, Place.QUIESCED} else "Why"
        assert lines[-1] == f"  {why}: its reason."
    assert where(real_server(1)) == [said[Place.SERVING]], "of one that just serves there is nothing to explain"


def test_a_drain_says_until_when() -> None:
    draining = attrs.evolve(real_server(1, Place.DRAINING, "in maintenance"), until=TIME + 60)
    lines = where(draining)
    assert lines[1].startswith("  It is deleted when its connections are gone, at ")
    assert lines[1].endswith(" at the latest: 10 active, 1 closing.")
    assert where(attrs.evolve(draining, until=None))[1] == (
        "  It is deleted when its connections are gone: 10 active, 1 closing."
    )


def test_a_hold_says_until_when() -> None:
    lines = explained(real_server(1, Place.HELD, "kept"), state=State.HELD, note="lvsctl release reco")
    assert "  Until when: lvsctl release reco." in lines


def test_one_that_is_not_meant_for_it_is_told_apart() -> None:
    filtered = attrs.evolve(real_server(1, Place.OUT, "has no tag 'v2'"), filtered=True)
    assert where(filtered) == [f"{FIRST} is not meant for {IN_RECO}.", "  Why: has no tag 'v2'."]


@pytest.mark.parametrize("subject", ["reco-1", FIRST])
def test_an_instance_is_found_by_its_id_in_each_virtual_server(subject: str) -> None:
    shop = attrs.evolve(SHOP, real_servers=(real_server(1, Place.OUT, "has no tag 'v2'"),))
    status = attrs.evolve(FULL, virtual_servers=(RECO, shop))
    lines = answer(status, Subject(subject), [QUIESCED])
    heads = [line for line in lines if not line.startswith(" ") and line]
    assert heads == [
        f"{FIRST} is in {IN_RECO} and serves, with weight 1.",
        f"{FIRST} is out of shop (tcp [fd00:9::1]:443).",
    ]
    assert sum("was quiesced" in line for line in lines) == 1, "what happened in the one did not in the other"


def test_consul_that_does_not_answer_is_told() -> None:
    away = attrs.evolve(CONSUL, reachable=False, failing=1, failing_since=TIME - 60, error="connection refused")
    status = attrs.evolve(FULL, consul=away)
    told = "  Consul does not answer for 1 min 0 s: what is in the table stays (connection refused)."
    assert told in answer(status, Subject(FIRST), [])
    assert told in answer(status, Subject("reco"), [])


def test_a_virtual_server_is_told_with_what_does_not_serve_and_what_happened() -> None:
    row = attrs.evolve(
        RECO,
        state=State.HELD,
        note="1 kept, for doubt",
        doubt="the token lost a permission",
        real_servers=(real_server(1), real_server(2, Place.HELD, "kept")),
    )
    status = attrs.evolve(FULL, virtual_servers=(row, SHOP))
    events = [attrs.evolve(QUIESCED, time=TIME - 60 + number) for number in range(LATELY + 2)]
    lines = answer(status, Subject("reco"), [*events, attrs.evolve(QUIESCED, name="shop", virtual_server=SHOP.address)])
    assert lines[:5] == [
        "reco (tcp 10.9.0.100:80, Consul service reco) is held: 2 of 2 serve.",
        "  1 kept, for doubt.",
        "  Consul's answer is in doubt, so what is gone from it stays: the token lost a permission.",
        "  Not in full service:",
        "    10.0.0.2:8080  held  kept",
    ]
    assert lines[5] == "  Lately (2 more events before: lvsctl events reco):"
    assert len(lines) == 6 + LATELY
    assert answer(status, Subject("10.9.0.100:80"), events) == answer(status, Subject("tcp 10.9.0.100:80"), events)


def test_a_foreign_one_is_told() -> None:
    lines = answer(FULL, Subject("192.0.2.1:22"), [])
    assert lines == ["tcp 192.0.2.1:22 is a virtual server that lvsctl did not create: foreign, never touched."]


def test_a_name_is_the_virtual_servers_before_it_is_an_instances() -> None:
    """Consul gives an instance that was registered without an id the name of its service."""
    same = attrs.evolve(RECO, real_servers=(attrs.evolve(real_server(1), instance="reco"),))
    (head,) = [
        line
        for line in answer(attrs.evolve(FULL, virtual_servers=(same,)), Subject("reco"), [])
        if not line.startswith(" ")
    ]
    assert head.startswith("reco (tcp 10.9.0.100:80, ")


@pytest.mark.parametrize("subject", ["reco-1", FIRST])
def test_what_is_gone_is_told_from_the_journal_alone(subject: str) -> None:
    deleted = attrs.evolve(QUIESCED, event="real_server_deleted", cause="drain", why="drained in 3 s", evidence=None)
    status = attrs.evolve(FULL, virtual_servers=(attrs.evolve(RECO, real_servers=()), SHOP))
    lines = answer(status, Subject(subject), [QUIESCED, deleted])
    assert lines[0] == f"{subject} is in no virtual server, and no answer of Consul has it. The journal knows it."
    assert [line.split("  ")[-1] for line in lines[2:]] == [
        f"{FIRST} was quiesced (weight 1 -> 0): {QUIESCED.why} (Consul index 42).",
        f"{FIRST} was deleted: drained in 3 s.",
    ]


@pytest.mark.parametrize("state", [State.WAITING, State.LEAVING, State.FOREIGN])
def test_what_consul_was_not_asked_it_is_not_said_to_lack(state: State) -> None:
    unknown = attrs.evolve(real_server(1), instance="", node="", check="")
    assert "  Consul service reco has no instance there." in explained(unknown)
    assert not any("no instance there" in line for line in explained(unknown, state=state, note="it waits"))


def test_without_consul_nothing_is_said_of_what_it_has() -> None:
    config = config_of(configured(), configured("shop", VirtualServerKey.by_mark(7)))
    foreign = entry(real(3), key=VirtualServerKey.by_mark(9))
    rows = bare_virtual_servers(observed_of(entry(real(1), real(2, 0)), foreign), {KEY: "reco"})
    status = attrs.evolve(FULL, virtual_servers=_unheard(rows, config), consul=None, foreign=())

    def said(subject: str, *events: Event) -> list[str]:
        return answer(status, Subject(subject), events, heard=False)

    assert said(FIRST)[:2] == [
        f"{FIRST} is in {IN_RECO} and serves, with weight 1.",
        "  Of reco: Consul does not answer; this is what the kernel has.",
    ]
    assert said("10.0.0.2:8080")[0] == f"10.0.0.2:8080 is in {IN_RECO} with weight 0, so it gets no new connections."
    assert said("reco")[0] == "reco (tcp 10.9.0.100:80, Consul service reco) is waiting: 1 of 2 serve."
    assert said("shop")[:2] == [
        "shop (mark 7, Consul service shop) is waiting: 0 of 0 serve.",
        "  Consul does not answer, and the kernel has no such.",
    ]
    assert said("mark 9")[1] == "  The file has none there."
    gone = attrs.evolve(QUIESCED, real_server="10.0.0.5:8080")
    assert said("10.0.0.5:8080", gone)[0] == (
        "10.0.0.5:8080 is in no virtual server, and whether Consul has it is not known. The journal knows it."
    )
    assert said("10.0.0.6:8080", gone) == []


def test_a_virtual_server_that_is_gone_is_told_as_one() -> None:
    deleted = Event(time=TIME, event="virtual_server_deleted", name="old", virtual_server="mark 5", why="not in it")
    assert answer(FULL, Subject("old"), [deleted])[0] == "old is no virtual server now. The journal knows it."


def test_what_keeps_lvsctl_from_writing_is_told() -> None:
    broken = attrs.evolve(FULL, kernel=attrs.evolve(FULL.kernel, error="ledger: no space left on device"))
    told = "  lvsctl cannot do all that it should: ledger: no space left on device."
    assert told in answer(broken, Subject(FIRST), [])
    assert told in answer(broken, Subject("reco"), [])


def test_a_command_that_is_offered_is_safe_to_paste() -> None:
    hostile = attrs.evolve(real_server(1, Place.REJECTED), real_server="", instance="$(reboot); x")
    found = attrs.evolve(
        QUIESCED, real_server="", evidence=Evidence(service="reco", node="app1", instance="$(reboot); x")
    )
    lines = explained(hostile, [found] * (LATELY + 1), "$(reboot); x")
    assert "  Lately (1 more event before: lvsctl events '$(reboot); x'):" in lines


def test_one_that_moved_has_its_whole_story_and_its_old_place_its_own() -> None:
    old, new = attrs.evolve(real_server(1, Place.DRAINING), check=""), attrs.evolve(real_server(2), instance="reco-1")
    new = attrs.evolve(new, node="app1")
    row = attrs.evolve(RECO, real_servers=(old, new))
    evidence = Evidence(service="reco", node="app1", instance="reco-1", index=7)
    added = attrs.evolve(QUIESCED, event="real_server_added", cause="new", what="", why="passing", evidence=evidence)
    events = [
        added,
        attrs.evolve(added, real_server="10.0.0.2:8080", evidence=evidence),
        attrs.evolve(QUIESCED, cause="deregistered", why="it is registered at 10.0.0.2:8080 now", evidence=evidence),
    ]

    def said(subject: str) -> list[str]:
        return answer(attrs.evolve(FULL, virtual_servers=(row,)), Subject(subject), events)

    assert sum("now (Consul index 7)." in line for line in said("reco-1")) == 2, "in both its places"
    assert "  It was instance 'reco-1' on node 'app1'." in said(FIRST)
    assert "  Consul service reco has no instance there." in said(FIRST)
    assert not any("10.0.0.2:8080 was added" in line for line in said(FIRST))
    assert [line for line in said("app1") if not line.startswith(" ")] == [
        line for line in said("reco-1") if not line.startswith(" ")
    ]
    assert said("10.0.0.1")[0] == said(FIRST)[0]


def test_one_that_drains_is_found_by_its_instance_after_a_restart() -> None:
    """The daemon does not know it any more, the journal does."""
    draining = attrs.evolve(real_server(1, Place.DRAINING), instance="", node="", check="")
    for subject in ("reco-1", "app1"):
        told = explained(draining, [QUIESCED], subject)
        assert told[0] == f"{FIRST} is on its way out of {IN_RECO}, with weight 0."
        assert any("was quiesced (weight 1 -> 0)" in line for line in told)
    another = attrs.evolve(QUIESCED, evidence=Evidence(service="reco", node="app9", instance="reco-9"))
    assert explained(draining, [QUIESCED, another], "reco-1")[0].startswith("reco-1 is in no virtual server"), (
        "another one was there since"
    )


def test_what_happened_to_all_of_them_happened_to_it() -> None:
    key, other = RECO.address, "10.0.0.2:8080"
    hold = Event(time=TIME, event="hold", name="reco", virtual_server=key, what=f"{FIRST}, {other}", why="the floor")
    released = Event(time=TIME, event="released", name="reco", what=other, by="root, pid 1")
    over = attrs.evolve(hold, event="trouble_over", of="hold", why="")
    deleted = Event(time=TIME, event="virtual_server_deleted", name="reco", virtual_server=key, why="not in the file")
    lines = explained(real_server(1), [hold, released, over, deleted])
    assert [line.split("  ")[-1] for line in lines[lines.index("  Lately:") + 1 :]] == [
        f"{key} was held ({FIRST}, {other}): the floor.",
        f"{key} was held no longer.",
        f"{key} was deleted: not in the file.",
    ]
    gone = attrs.evolve(FULL, virtual_servers=())
    assert answer(gone, Subject(FIRST), [QUIESCED, deleted])[-1].endswith(f"{key} was deleted: not in the file.")


def test_the_virtual_address_is_part_of_the_story() -> None:
    added = Event(time=TIME, event="virtual_address_added", address="10.9.0.100")
    other = Event(time=TIME, event="virtual_address_added", address="fd00:9::1")
    for subject in ("reco", "10.9.0.100"):
        told = answer(FULL, Subject(subject), [added, other])
        assert told[-1].endswith("10.9.0.100 was added.")
    assert answer(FULL, Subject("shop"), [added, other])[-1].endswith("fd00:9::1 was added.")
    assert not any("was added" in line for line in answer(FULL, Subject(FIRST), [added, other]))


def test_one_that_is_kept_for_a_refusal_is_not_said_to_be_deleted_soon() -> None:
    kept = attrs.evolve(real_server(1, Place.DRAINING, "no longer registered"), weight=1, until=TIME + 60)
    lines = explained(kept, state=State.REFUSED, note="no memory")
    assert lines[1] == "  It stays as it is until the kernel takes who should replace it."
    assert explained(kept)[1].startswith("  It is deleted when its connections are gone, at ")


def test_a_full_journal_is_no_reason_to_wait() -> None:
    """A search of each event among all others took two minutes for the 43,000 that there can be."""
    events = [attrs.evolve(QUIESCED, time=TIME - number) for number in range(40_000)]
    began = time.process_time()
    assert answer(attrs.evolve(FULL, virtual_servers=()), Subject(FIRST), events)
    assert time.process_time() - began < 10


def test_nothing_is_known_of_nobody() -> None:
    assert answer(FULL, Subject("10.99.0.1:80"), [QUIESCED]) == []


@given(each=st.sampled_from(Place), why=st.text(max_size=40), events=st.lists(EVENTS, max_size=4), consul=st.booleans())
def test_whatever_is_said_is_harmless_and_one_line_each(
    each: Place, why: str, events: list[Event], *, consul: bool
) -> None:
    events = [attrs.evolve(event, name="reco", real_server=FIRST, virtual_server=RECO.address) for event in events]
    for subject in (FIRST, "reco"):
        lines = explained(real_server(1, each, why), events, subject, consul=consul)
        assert lines
        assert not any("\n" in line or "\x1b" in line or "\x07" in line for line in lines)


def test_the_daemons_rows_have_what_somebody_asks_about_and_until_when_it_drains() -> None:
    config = config_of(configured(tags=("v1",), drain_timeout=30.0))
    observed = observed_of(entry(real(1), real(2)), connections={real(2).key: 3})
    found = [instance(1, tags=("v1",)), instance(3), instance(4)]
    ledger = {KEY: LedgerEntry(name="reco", drain_timeout=30.0, written=entry(real(1), real(2)))}
    decision = decided(observed, *found, config=config, ledger=ledger)

    def rows(about: str = "") -> dict[str, RealServerStatus]:
        (row,) = virtual_servers(
            config,
            decision,
            observed,
            refused={(KEY, real(1).key): "no memory"},
            local=frozenset({VIP}),
            ages={},
            about=Subject(about) if about else None,
        )
        return {each.real_server: each for each in row.real_servers}

    assert rows().keys() | {"10.0.0.3:8080"} == rows("reco-3").keys() == rows("10.0.0.3:8080").keys()
    filtered = rows("reco-3")["10.0.0.3:8080"]
    assert (filtered.place, filtered.filtered, filtered.why) == (Place.OUT, True, "has no tag 'v1'")
    assert rows()[FIRST].why == "the kernel refuses it: no memory"
    assert rows()[str(real(2).key)].until == NOW + 30
    assert rows()[FIRST].until is None


def test_an_instance_of_a_datacenter_that_does_not_serve_is_explained() -> None:
    config = config_of(configured(failover=("dc2",)))
    answers = {
        Query(service="reco"): Answer(instances=(instance(1),)),
        Query(service="reco", datacenter="dc2"): Answer(instances=(instance(2),)),
    }
    observed = observed_of(entry(real(1)))
    decision = decide(config, answers, observed, {}, own_addresses=OWN, templates_expire=False, now=NOW)
    for about, numbers in (("", {1}), ("reco-2", {1, 2}), ("10.0.0.2:8080", {1, 2}), ("app2", {1, 2})):
        (row,) = virtual_servers(
            config, decision, observed, refused={}, local=frozenset({VIP}), ages={}, about=Subject(about)
        )
        assert {each.real_server for each in row.real_servers} == {f"10.0.0.{number}:8080" for number in numbers}
        assert (row.serving, row.wanted, row.state) == (1, 1, State.OK), "who asks changes nothing"
    (_, standby) = row.real_servers
    assert (standby.place, standby.datacenter) == (Place.OUT, "dc2")
    assert standby.why == "may serve, but the agent's own datacenter does, which comes first"


def run(directory: Path, subject: str, told: Told | None = None) -> Result:
    with daemon(directory, told=told or Told(FULL)) as file:
        text = file.read_text().replace("[daemon]\n", f'[daemon]\nstate_directory = "{directory}"\n')
        file.write_text(text)
        return CliRunner().invoke(lvsctl, ["explain", subject, "-c", str(file)])


def test_it_asks_the_daemon_and_reads_the_journal(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.note(QUIESCED)
    told = Told(FULL)
    result = run(tmp_path, FIRST, told)
    assert (result.exit_code, result.stderr) == (0, "")
    assert told.about == [FIRST]
    assert f"{FIRST} is in {IN_RECO} and serves, with weight 1." in result.stdout
    assert f"{FIRST} was quiesced (weight 1 -> 0): " in result.stdout


def test_without_a_journal_it_answers_what_it_can_and_says_so(tmp_path: Path) -> None:
    result = run(tmp_path, FIRST)
    assert result.exit_code == 7
    assert f"{FIRST} is in {IN_RECO} and serves" in result.stdout
    assert "there is no journal yet" in result.stderr


def test_an_unknown_name_is_told_with_the_nearest(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.note(QUIESCED)
    result = run(tmp_path, "reko\x1b")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "no virtual server, real server or instance 'reko\\x1b'; there are: reco, reco-1" in result.stderr
    result = run(tmp_path, "10.0.0.77:8080")
    assert result.exit_code == 2
    assert "'10.0.0.77:8080' is in no virtual server, in no answer of Consul and not in the journal" in result.stderr


def test_a_refused_reload_is_told_to_who_asks_for_what_is_new_in_the_file(tmp_path: Path) -> None:
    refused = attrs.evolve(FULL, config_error="lvsctl.toml:3: no such key")
    result = run(tmp_path, "fresh", Told(refused))
    assert result.exit_code == 2
    assert "the last reload was refused, and nothing that is new in the file counts" in result.stderr


@pytest.mark.parametrize("subject", ["\udcff\udc80", "x" * 20_000, "\x00", "a/b?c=d&about=reco#e", "\u202e"])
def test_whatever_is_typed_the_daemon_is_asked(tmp_path: Path, subject: str) -> None:
    with Journal(tmp_path) as journal:
        journal.note(QUIESCED)
    told = Told(FULL)
    result = run(tmp_path, subject, told)
    assert (result.exit_code, len(told.about)) == (2, 1), result.stderr

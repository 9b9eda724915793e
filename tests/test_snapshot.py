"""The snapshot on disk: written when there is something to write, read whatever there is, and never in the way."""

import os
import stat
from pathlib import Path

import attrs
import pytest
from structlog.testing import capture_logs

from lvsctl.core.instance import Answer, Answers, Instance, Query
from lvsctl.snapshot import FILE, Snapshot
from tests.values import failing, instance

HERE, THERE = "http://127.0.0.1:8500", "http://10.0.0.1:8500"
RECO, SHOP = Query(service="reco"), Query(service="shop")
BOTH = frozenset({RECO, SHOP})


def said(*instances: Instance, at: float = 1000.0) -> Answer:
    """Return an answer as the watches hand it over."""
    return Answer(instances=instances, index=7, snapshot=at)


def kept(directory: Path, answers: Answers, *, renew: bool = False) -> Snapshot:
    snapshot = Snapshot(directory)
    snapshot.keep(HERE, BOTH, answers, renew=renew)
    return snapshot


def test_what_is_kept_is_found_by_the_next_start(tmp_path: Path) -> None:
    answers = {RECO: said(instance(1), failing(2)), SHOP: said(at=900.0)}
    with capture_logs() as logs:
        kept(tmp_path, answers)
        assert Snapshot(tmp_path).load(HERE, BOTH) == answers
    assert [(each["event"], each["log_level"]) for each in logs] == [("snapshot_saved", "debug")]
    path = tmp_path / FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == [FILE]


def test_what_is_no_longer_asked_is_not_used(tmp_path: Path) -> None:
    kept(tmp_path, {RECO: said(instance(1)), SHOP: said()})
    assert Snapshot(tmp_path).load(HERE, frozenset({SHOP})).keys() == {SHOP}


def test_none_yet_is_nothing_to_speak_of(tmp_path: Path) -> None:
    with capture_logs() as logs:
        assert Snapshot(tmp_path / "none").load(HERE, BOTH) == {}
    assert logs == []


def test_without_an_answer_no_file_is_made(tmp_path: Path) -> None:
    kept(tmp_path, {}, renew=True)
    assert list(tmp_path.iterdir()) == []


def test_it_is_written_only_for_news_or_to_renew_its_age(tmp_path: Path) -> None:
    snapshot = kept(tmp_path, {RECO: said(instance(1))})
    path = tmp_path / FILE

    def is_written(answers: Answers, *, renew: bool = False) -> bool:
        before = path.stat().st_ino
        os.link(path, tmp_path / "held")  # its number is not given to the next file
        snapshot.keep(HERE, BOTH, answers, renew=renew)
        (tmp_path / "held").unlink()
        return path.stat().st_ino != before

    later = {RECO: said(instance(1), at=1100.0)}
    assert not is_written({RECO: said(instance(1))}, renew=True)
    assert not is_written(later)
    assert is_written(later, renew=True)
    assert is_written({RECO: said(instance(2), at=1100.0)})
    assert is_written({SHOP: said(at=1100.0)})
    assert Snapshot(tmp_path).load(HERE, BOTH) == {RECO: said(instance(2), at=1100.0), SHOP: said(at=1100.0)}


def test_an_answer_that_is_missing_now_stays_as_it_was(tmp_path: Path) -> None:
    """It is in doubt, or Consul has not given it since the start."""
    old = {RECO: said(instance(1)), SHOP: said(instance(2))}
    kept(tmp_path, old)
    snapshot = Snapshot(tmp_path)
    snapshot.load(HERE, BOTH)
    snapshot.keep(HERE, BOTH, {SHOP: said(instance(3), at=2000.0)}, renew=False)
    assert Snapshot(tmp_path).load(HERE, BOTH) == {**old, SHOP: said(instance(3), at=2000.0)}


def test_another_consul_begins_a_new_one(tmp_path: Path) -> None:
    snapshot = kept(tmp_path, {RECO: said(instance(1)), SHOP: said(instance(2))})
    snapshot.keep(THERE, BOTH, {}, renew=True)
    assert Snapshot(tmp_path).load(HERE, BOTH).keys() == BOTH, "until the other has answered"
    snapshot.keep(THERE, BOTH, {SHOP: said(instance(3))}, renew=False)
    assert Snapshot(tmp_path).load(THERE, BOTH) == {SHOP: said(instance(3))}


def damaged(path: Path) -> str:
    path.write_bytes(path.read_bytes()[:-1])
    return "damaged: its checksum is wrong"


def empty(path: Path) -> str:
    path.write_bytes(b"")
    return "not a snapshot of lvsctl, or it is damaged"


def newer(path: Path) -> str:
    path.write_bytes(path.read_bytes().replace(b" 1 ", b" 2 ", 1))
    return "format 2, of a newer lvsctl"


def older(path: Path) -> str:
    path.write_bytes(path.read_bytes().replace(b" 1 ", b" 0 ", 1))
    return "format 0, of an older lvsctl"


def foreign(path: Path) -> str:
    Snapshot(path.parent).keep(THERE, BOTH, {RECO: said(instance(9))}, renew=False)
    return f"of another Consul ({THERE})"


def directory(path: Path) -> str:
    path.unlink()
    path.mkdir()
    return "is a directory"


def pipe(path: Path) -> str:
    path.unlink()
    os.mkfifo(path)
    return "no ordinary file"


def huge(path: Path) -> str:
    os.truncate(path, 2**40)
    return "larger than 1000000 bytes"


@pytest.mark.parametrize("spoil", [damaged, empty, newer, older, foreign, directory, pipe, huge])
def test_a_file_that_cannot_be_used_is_ignored_with_one_warning(tmp_path: Path, spoil: object) -> None:
    kept(tmp_path, {RECO: said(instance(1))})
    path = tmp_path / FILE
    assert callable(spoil)
    reason = spoil(path)
    with capture_logs() as logs:
        assert Snapshot(tmp_path, max_size=1_000_000).load(HERE, BOTH) == {}
    assert [(each["event"], each["log_level"], each["path"]) for each in logs] == [
        ("snapshot_ignored", "warning", str(path))
    ]
    assert reason in logs[0]["why"]
    assert "nothing is restored" in logs[0]["follows"]


def test_the_next_answer_replaces_a_file_that_could_not_be_used(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"?")
    snapshot = Snapshot(tmp_path)
    snapshot.load(HERE, BOTH)
    snapshot.keep(HERE, BOTH, {RECO: said(instance(1))}, renew=False)
    assert Snapshot(tmp_path).load(HERE, BOTH) == {RECO: said(instance(1))}


def test_one_that_cannot_be_written_is_said_once_and_again_after_it_could(tmp_path: Path) -> None:
    place = tmp_path / "state"
    place.write_text("in the way")
    snapshot = Snapshot(place)
    with capture_logs() as logs:
        for number in (1, 2):
            snapshot.keep(HERE, BOTH, {RECO: said(instance(number))}, renew=False)
        place.unlink()
        snapshot.keep(HERE, BOTH, {RECO: said(instance(2))}, renew=False)
        (place / FILE).unlink()
        place.rmdir()
        place.write_text("in the way")
        snapshot.keep(HERE, BOTH, {RECO: said(instance(3))}, renew=False)
    assert [each["event"] for each in logs] == ["snapshot_failed", "snapshot_saved", "snapshot_failed"]
    assert logs[0]["error"] == "not a directory; make daemon.state_directory writable"
    assert "the older file" in logs[0]["kept"]


def test_one_that_is_too_large_is_not_written_and_said_once(tmp_path: Path) -> None:
    snapshot = Snapshot(tmp_path, max_size=2000)
    small = {RECO: said(instance(1))}
    snapshot.keep(HERE, BOTH, small, renew=False)
    many = said(*(instance(number) for number in range(20)))
    with capture_logs() as logs:
        for at in (1.0, 2.0):
            snapshot.keep(HERE, BOTH, {RECO: attrs.evolve(many, snapshot=at)}, renew=True)
    assert [each["event"] for each in logs] == ["snapshot_failed"]
    assert "larger than 2000 bytes" in logs[0]["error"]
    assert Snapshot(tmp_path).load(HERE, BOTH) == small


def test_the_machine_is_known_by_its_id(tmp_path: Path) -> None:
    ids = tmp_path / "machine-id"
    ids.write_text("0123456789abcdef" * 2 + "\n")
    answers = {RECO: said(instance(1))}
    assert Snapshot(tmp_path, machine_id=ids).keep(HERE, frozenset({RECO}), answers, renew=True)
    assert Snapshot(tmp_path, machine_id=ids).load(HERE, frozenset({RECO})).keys() == {RECO}
    ids.write_text("f" * 32 + "\n")
    with capture_logs() as logs:
        assert Snapshot(tmp_path, machine_id=ids).load(HERE, frozenset({RECO})) == {}
    assert logs[0]["why"] == "it is of another machine: /etc/machine-id is another one now"


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_what_stands_where_the_draft_will_be_is_replaced_and_not_followed(tmp_path: Path, kind: str) -> None:
    victim, draft = tmp_path / "victim", tmp_path / "snapshot.new"
    victim.write_text("untouched")
    draft.symlink_to(victim) if kind == "link" else os.mkfifo(draft)
    answers = {RECO: said(instance(1))}
    assert Snapshot(tmp_path).keep(HERE, frozenset({RECO}), answers, renew=True)
    assert victim.read_text() == "untouched"
    assert Snapshot(tmp_path).load(HERE, frozenset({RECO})).keys() == {RECO}

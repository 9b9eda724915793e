"""What survives a restart: any ledger, no damage, and one writer."""

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from lvsctl.config import Declaration
from lvsctl.core.ownership import Ledger, LedgerEntry
from lvsctl.core.peak import Peak
from lvsctl.core.provenance import Provenance
from lvsctl.core.served import Served
from lvsctl.errors import AlreadyRunning, StateError
from lvsctl.ledger_format import decode, encode, encode_one
from lvsctl.store import JOURNAL, LEDGER, Store, locked
from netlink.types import VirtualServerKey
from tests.strategies import ledgers
from tests.values import KEY, NOW, entry, real, real_key

BIG = VirtualServerKey.by_mark(4_000_000_000)
OTHER = VirtualServerKey.by_mark(7)
DECLARED = Declaration(service="r\x1b", values=(("address", "10.9.1.20:80"), ("scheduler", "rr")))
ONE: Ledger = {KEY: LedgerEntry(name="reco", drain_timeout=30.0, written=entry(real(1)), draining={real_key(2): NOW})}


@given(ledger=ledgers())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_ledger_comes_back_as_it_was(tmp_path: Path, ledger: Ledger) -> None:
    store = Store(tmp_path)
    store.save(ledger, durable=False)
    assert store.load(set_aside_damage=False) == ledger


@pytest.mark.parametrize("declaration", [DECLARED, attrs.evolve(DECLARED, values=())])
def test_what_was_declared_comes_back_as_it_was(tmp_path: Path, declaration: Declaration) -> None:
    ledger = {KEY: attrs.evolve(ONE[KEY], declaration=declaration)}
    store = Store(tmp_path)
    store.save(ledger, durable=False)
    assert store.load(set_aside_damage=False) == ledger


@pytest.mark.parametrize("declaration", [3, ["reco"], ["reco", [["address"]]], ["reco", [["address", 3]]], [3, []]])
def test_a_declaration_that_is_none_is_damage(tmp_path: Path, declaration: object) -> None:
    from hashlib import sha256  # noqa: PLC0415

    store = Store(tmp_path)
    store.save(ONE, durable=True)
    document = json.loads((tmp_path / LEDGER).read_text())
    body = json.dumps([each | {"declaration": declaration} for each in json.loads(document["virtual_servers"])])
    document |= {"sha256": sha256(body.encode()).hexdigest(), "virtual_servers": body}
    (tmp_path / LEDGER).write_text(json.dumps(document))
    assert store.load(set_aside_damage=False) == {}


def test_none_yet_is_empty(tmp_path: Path) -> None:
    assert Store(tmp_path).load(set_aside_damage=True) == {}
    assert Store(tmp_path / "none").load(set_aside_damage=True) == {}


def reread(**changes: object) -> str:
    """Return a saved ledger with parts of its document changed."""
    body = "[]"
    document = {"version": 1, "sha256": "", "virtual_servers": body, **changes}
    return json.dumps(document)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 4096,
        b"\xff\xfe\x80",
        b"{",
        b"[]",
        b"3",
        b"null",
        b'"x"',
        b"{}",
        b"[" * 10**5,
        b'{"services": []}',
        reread().encode(),
        reread(version=2).encode(),
        reread(virtual_servers=[]).encode(),
        reread(virtual_servers=None).encode(),
        reread(virtual_servers="\ud800").encode(),
    ],
)
def test_damage_counts_as_empty_and_is_set_aside_by_the_writer_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / LEDGER
    path.write_bytes(content)
    with capture_logs() as logs:
        assert Store(tmp_path).load(set_aside_damage=False) == {}
        assert path.read_bytes() == content
        assert Store(tmp_path).load(set_aside_damage=True) == {}
    assert [each["event"] for each in logs] == ["ledger_damaged", "ledger_damaged"]
    assert not path.exists()
    assert (tmp_path / "ledger.damaged").read_bytes() == content


@pytest.mark.parametrize("cut", [1, 10, 100, -2])
def test_a_ledger_cut_short_or_changed_is_damage(tmp_path: Path, cut: int) -> None:
    store = Store(tmp_path)
    store.save(ONE, durable=True)
    whole = (tmp_path / LEDGER).read_text()
    for damaged in (whole[:cut], whole.replace("reco", "rexo"), whole.replace("30.0", "31.0")):
        (tmp_path / LEDGER).write_text(damaged)
        assert store.load(set_aside_damage=False) == {}


def test_what_the_checksum_covers_but_no_ledger_holds_is_damage(tmp_path: Path) -> None:
    from hashlib import sha256  # noqa: PLC0415

    for body in ("[3]", '[{"key": {}}]', "{}", "null", '[{"key": null, "name": "x"}]'):
        document = {"version": 1, "sha256": sha256(body.encode()).hexdigest(), "virtual_servers": body}
        (tmp_path / LEDGER).write_text(json.dumps(document))
        assert Store(tmp_path).load(set_aside_damage=False) == {}


def test_a_ledger_from_before_a_field_was_added_still_loads(tmp_path: Path) -> None:
    from hashlib import sha256  # noqa: PLC0415

    store = Store(tmp_path)
    store.save(ONE, durable=True)
    document = json.loads((tmp_path / LEDGER).read_text())
    entries = json.loads(document["virtual_servers"])
    for field in ("tunnel_type", "tunnel_port", "tunnel_flags"):
        del entries[0]["written"]["real_servers"][0][field]
    body = json.dumps(entries)
    document |= {"sha256": sha256(body.encode()).hexdigest(), "virtual_servers": body}
    (tmp_path / LEDGER).write_text(json.dumps(document))
    assert store.load(set_aside_damage=False) == ONE


def test_what_cannot_be_read_is_an_error_not_an_empty_ledger(tmp_path: Path) -> None:
    (tmp_path / LEDGER).mkdir()
    with pytest.raises(StateError, match=r"ledger\.json: is a directory; lvsctl must be able to read"):
        Store(tmp_path).load(set_aside_damage=True)


@pytest.mark.parametrize("durable", [True, False])
def test_what_cannot_be_written_is_an_error_that_says_what_to_do(tmp_path: Path, *, durable: bool) -> None:
    (tmp_path / "file").write_text("")
    remedy = r"make daemon\.state_directory writable; until then nothing new is written to the kernel$"
    with pytest.raises(StateError, match=rf"file/ledger\.json: not a directory; {remedy}"):
        Store(tmp_path / "file").save(ONE, durable=durable)
    with pytest.raises(StateError, match=rf"state/ledger\.json: not a directory; {remedy}"):
        Store(tmp_path / "file" / "state").save(ONE, durable=durable)


@pytest.mark.parametrize("durable", [True, False])
def test_a_state_directory_deleted_under_the_daemon_is_made_again(tmp_path: Path, *, durable: bool) -> None:
    directory = tmp_path / "lib" / "state"
    store = Store(directory)
    before = os.umask(0)
    try:
        with locked(directory):
            store.save({}, durable=durable)
            shutil.rmtree(tmp_path / "lib")
            store.save(ONE, durable=durable)
    finally:
        os.umask(before)
    assert store.load(set_aside_damage=False) == ONE
    assert [each.stat().st_mode & 0o777 for each in (directory.parent, directory)] == [0o755, 0o755]


def test_a_write_that_fails_leaves_the_old_ledger(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(ONE, durable=True)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))  # as good as a full disk
    try:
        with pytest.raises(StateError, match="file too large"):
            store.save({}, durable=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert store.load(set_aside_damage=False) == ONE


# --- the journal ----------------------------------------------------------------------------------------------------


def journalled(directory: Path, steps: Sequence[Ledger]) -> list[tuple[bytes, Ledger]]:
    """Save each of `steps` with a journal; return what the journal was after each that was appended, and the ledger."""
    store, found = Store(directory, large=0), []
    for ledger in steps:
        store.save(ledger, durable=False)
        found.append(((directory / JOURNAL).read_bytes(), ledger))
    return found


@given(steps=st.lists(ledgers(), min_size=2, max_size=5), data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_journal_cut_anywhere_is_one_of_the_ledgers_that_were_saved(
    tmp_path: Path, steps: Sequence[Ledger], data: st.DataObject
) -> None:
    large: Ledger = {**steps[0], BIG: LedgerEntry(name="x" * 20_000, drain_timeout=1.0)}
    found = journalled(tmp_path, [large, *({**step, BIG: large[BIG]} for step in steps)])
    whole, last = found[-1]
    assert whole.startswith(found[0][0])
    assert Store(tmp_path).load(set_aside_damage=False) == last
    cut = data.draw(st.integers(0, len(whole)))
    (tmp_path / JOURNAL).write_bytes(whole[:cut])
    with capture_logs() as logs:
        expected = [ledger for journal, ledger in found if len(journal) <= cut]
        assert Store(tmp_path).load(set_aside_damage=True) == (expected[-1] if expected else large)
    assert logs == []


@given(steps=st.lists(ledgers(), min_size=2, max_size=5), data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_journal_changed_anywhere_is_one_of_the_ledgers_that_were_saved(
    tmp_path: Path, steps: Sequence[Ledger], data: st.DataObject
) -> None:
    large: Ledger = {**steps[0], BIG: LedgerEntry(name="x" * 20_000, drain_timeout=1.0)}
    found = journalled(tmp_path, [large, *({**step, BIG: large[BIG]} for step in steps)])
    whole, _ = found[-1]
    place = data.draw(st.integers(0, len(whole) - 1))
    changed = bytes([whole[place] ^ data.draw(st.integers(1, 255))])
    (tmp_path / JOURNAL).write_bytes(whole[:place] + changed + whole[place + 1 :])
    with capture_logs():
        loaded = Store(tmp_path).load(set_aside_damage=True)
    assert loaded in [ledger for journal, ledger in found if len(journal) <= place] or loaded == large


def test_only_what_changed_is_written_until_the_journal_is_as_large_as_the_file(tmp_path: Path) -> None:
    store = Store(tmp_path, large=0)
    many = {
        VirtualServerKey.by_mark(mark): LedgerEntry(name=f"name-{mark}", drain_timeout=30.0, written=entry(real(1)))
        for mark in range(1, 300)
    }
    store.save(many, durable=False)
    first = (tmp_path / LEDGER).read_bytes()
    written, sizes = 0, []
    while (tmp_path / LEDGER).read_bytes() == first:
        many = {**many, VirtualServerKey.by_mark(7): LedgerEntry(name=f"name-{written}", drain_timeout=1.0)}
        store.save(many, durable=written == 3)
        written += 1
        sizes.append((tmp_path / JOURNAL).stat().st_size)
    assert Store(tmp_path).load(set_aside_damage=False) == many
    assert sizes[0] < 500
    assert sizes[-2] <= len(first) < sizes[-2] + 500
    assert sizes[-1] < 100  # the new file's own, which is empty


def test_the_journal_of_another_file_is_not_read(tmp_path: Path) -> None:
    store = Store(tmp_path, large=0)
    store.save(ONE, durable=False)
    store.save({**ONE, OTHER: ONE[KEY]}, durable=False)
    journal = (tmp_path / JOURNAL).read_bytes()
    Store(tmp_path, large=0).save({OTHER: ONE[KEY]}, durable=False)
    (tmp_path / JOURNAL).write_bytes(journal)  # killed between the two
    assert Store(tmp_path).load(set_aside_damage=False) == {OTHER: ONE[KEY]}


@pytest.mark.parametrize("lost", [LEDGER, JOURNAL])
def test_a_file_that_is_gone_is_written_again(tmp_path: Path, lost: str) -> None:
    store = Store(tmp_path, large=0)
    store.save(ONE, durable=False)
    (tmp_path / lost).unlink()
    both = {**ONE, OTHER: ONE[KEY]}
    store.save(both, durable=False)
    assert Store(tmp_path).load(set_aside_damage=False) == both


def test_an_append_that_fails_is_followed_by_a_new_file(tmp_path: Path) -> None:
    store = Store(tmp_path, large=0)
    large = {**ONE, BIG: LedgerEntry(name="x" * 5000, drain_timeout=1.0)}
    store.save(large, durable=True)
    journal = (tmp_path / JOURNAL).read_bytes()
    (tmp_path / JOURNAL).unlink()
    (tmp_path / JOURNAL).symlink_to("/dev/full")
    both = {**large, OTHER: ONE[KEY]}
    with pytest.raises(StateError, match="no space left on device"):
        store.save(both, durable=True)
    (tmp_path / JOURNAL).unlink()
    (tmp_path / JOURNAL).write_bytes(journal + b"torn")
    store.save(both, durable=True)
    store.save(large, durable=True)
    assert Store(tmp_path).load(set_aside_damage=False) == large


# --- the lock -------------------------------------------------------------------------------------------------------

HOLD = """
import pathlib, sys
from lvsctl.store import locked
with locked(pathlib.Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""
TAKE = """
import fcntl, sys
with open("/proc/self/ns/net", "rb") as namespace:
    fcntl.flock(namespace, getattr(fcntl, sys.argv[1]))
    print("locked", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def holder(program: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Have a process that holds a lock while the context lasts."""
    with subprocess.Popen(
        [sys.executable, "-c", program, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_second_writer_is_told_who_the_first_is(tmp_path: Path) -> None:
    with holder(HOLD, str(tmp_path / "state"), "lvsctl") as first:
        words = rf"^another lvsctl \(pid {first.pid}\) is the writer of this table; nothing was written\. Ask it"
        with pytest.raises(AlreadyRunning, match=words), locked(tmp_path / "state"):
            pytest.fail("two writers")
    assert AlreadyRunning.exit_code == 6
    with locked(tmp_path / "state"):
        pass


@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_the_lock_ends_with_its_process_however_that_ends(tmp_path: Path, how: str) -> None:
    with holder(HOLD, str(tmp_path)) as process:
        with pytest.raises(AlreadyRunning, match=f"pid {process.pid}"), locked(tmp_path):
            pytest.fail("two writers")
        getattr(process, how)()
        process.wait(10)
        with locked(tmp_path):
            assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_the_lock_is_the_namespaces_and_needs_no_place_to_write(tmp_path: Path) -> None:
    """A daemon with a user of its own, which writes its state directory alone, and root's commands see each other."""
    first, second = tmp_path / "first", tmp_path / "second"
    with locked(first):
        with pytest.raises(AlreadyRunning, match=rf"pid {os.getpid()} "), locked(second):
            pytest.fail("two writers of one table")
        assert not second.exists(), "nothing was written"
    with locked(second):
        pass


@pytest.mark.parametrize("how", ["LOCK_EX", "LOCK_SH"])
def test_who_has_the_lock_and_is_no_lvsctl_is_named(tmp_path: Path, how: str) -> None:
    """Any user of this machine may take it, shared or not."""
    with holder(TAKE, how) as other:
        name = Path(f"/proc/{other.pid}/comm").read_text().strip()
        words = rf"^pid {other.pid} \({name}\) has the lock .* and is no lvsctl by its name; nothing was written\."
        with pytest.raises(AlreadyRunning, match=words), locked(tmp_path / "state"):
            pytest.fail("two writers")
        assert not (tmp_path / "state").exists()


def test_a_holder_whose_name_cannot_be_seen_may_be_an_lvsctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lvsctl.store.PROCESSES", tmp_path)
    with holder(TAKE, "LOCK_SH") as other:
        words = rf"^pid {other.pid} \(its name cannot be seen\) has .* and may be another lvsctl; nothing"
        with pytest.raises(AlreadyRunning, match=words), locked(tmp_path / "state"):
            pytest.fail("two writers")
        monkeypatch.setattr("lvsctl.store.LOCKS", tmp_path / "locks")
        with pytest.raises(AlreadyRunning, match=r"^a process that cannot be seen has"), locked(tmp_path / "state"):
            pytest.fail("two writers")


def test_a_state_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    state = tmp_path / "file" / "state"
    with pytest.raises(StateError, match=r"lvsctl must be able to write daemon\.state_directory"), locked(state):
        pytest.fail("nothing to lock")


def test_what_it_asked_for_survives_and_an_older_version_can_read_the_rest() -> None:
    filtered = LedgerEntry(
        name="reco",
        drain_timeout=30.0,
        provenance=Provenance(service="reco", filters='[true, ["v1"], []]'),
        served=Served(count=2, earlier=((8, NOW),)),
    )
    text = encode_one(KEY, filtered)
    assert decode(encode([text])[0])[0] == {KEY: filtered}
    assert json.loads(text)["provenance"] == ["reco", ""], "as before there were filters"


def test_with_how_many_a_datacenter_served_survives_and_an_older_file_has_none() -> None:
    peaks = {"": Peak(count=20, fewer_since=NOW), "dc2": Peak(count=3)}
    entry_of_now = attrs.evolve(ONE[KEY], failed_over="dc2", peaks=peaks)
    content, _ = encode([encode_one(KEY, entry_of_now)])
    assert decode(content)[0] == {KEY: entry_of_now}
    older = json.loads(encode_one(KEY, entry_of_now))
    del older["peaks"]
    content, _ = encode([json.dumps(older)])
    assert decode(content)[0] == {KEY: attrs.evolve(entry_of_now, peaks={})}

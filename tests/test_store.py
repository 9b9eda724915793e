"""What survives a restart: any ledger, no damage, and one writer."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from structlog.testing import capture_logs

from lvsctl.config import Declaration
from lvsctl.core.ownership import Ledger, LedgerEntry
from lvsctl.errors import AlreadyRunning, StateError
from lvsctl.store import LEDGER, Store, locked
from tests.strategies import ledgers
from tests.values import KEY, NOW, entry, real, real_key

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
    (tmp_path / "ledger.new").symlink_to("/dev/full")  # a full disk
    with pytest.raises(StateError, match="no space left on device"):
        store.save({}, durable=True)
    assert store.load(set_aside_damage=False) == ONE


# --- the lock -------------------------------------------------------------------------------------------------------

HOLD = """
import pathlib, sys
from lvsctl.store import locked
with locked(pathlib.Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_second_writer_is_told_who_the_first_is(tmp_path: Path) -> None:
    with locked(tmp_path / "state"):
        words = rf"another lvsctl \(pid {os.getpid()}\) is the writer of this table; nothing was written"
        with pytest.raises(AlreadyRunning, match=words), locked(tmp_path / "state"):
            pytest.fail("two writers")
    assert AlreadyRunning.exit_code == 6
    with locked(tmp_path / "state"):
        pass


@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_the_lock_ends_with_its_process_however_that_ends(tmp_path: Path, how: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(AlreadyRunning, match=f"pid {process.pid}"), locked(tmp_path):
            pytest.fail("two writers")
        getattr(process, how)()
        process.wait(10)
        with locked(tmp_path):
            assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_state_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    state = tmp_path / "file" / "state"
    with pytest.raises(StateError, match=r"lvsctl must be able to write daemon\.state_directory"), locked(state):
        pytest.fail("nothing to lock")

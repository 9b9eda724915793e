"""What there is to go back to, on disk: what was written is read, and anything else is nothing."""

import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from lvsctl.configuration_kept import FILE, MAX_SIZE, ConfigurationKept, digest_of

texts = st.text(st.characters(codec="utf-8"))  # a file is UTF-8
anything = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@anything
@given(text=texts, other=texts, why=texts, rolled_back=st.booleans())
def test_what_is_kept_is_there_after_a_restart(
    tmp_path: Path, text: str, other: str, why: str, *, rolled_back: bool
) -> None:
    kept = ConfigurationKept(tmp_path)
    assert kept.take(text) == ""
    assert ConfigurationKept(tmp_path).load() == kept.kept
    assert kept.leave(other, why, rolled_back=rolled_back) == ""
    found = ConfigurationKept(tmp_path).load()
    assert found is not None
    assert found.not_taken is not None
    assert (found.text, found.not_taken.digest) == (text, digest_of(other))
    assert (found.not_taken.why, found.not_taken.rolled_back) == (why, rolled_back)
    assert kept.take(other) == ""
    found = ConfigurationKept(tmp_path).load()
    assert found is not None
    assert (found.text, found.not_taken) == (other, None)
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


@anything
@given(at=st.integers(0, 300), flip=st.integers(1, 255), cut=st.booleans())
def test_what_is_damaged_is_ignored_with_a_warning(tmp_path: Path, at: int, flip: int, *, cut: bool) -> None:
    ConfigurationKept(tmp_path).take("[virtual_server.reco]\n" * 10)
    content = bytearray((tmp_path / FILE).read_bytes())
    at %= len(content)
    content[at] ^= flip
    (tmp_path / FILE).write_bytes(content[:at] if cut else content)
    with capture_logs() as logs:
        assert ConfigurationKept(tmp_path).load() is None
    assert [each["event"] for each in logs] == ["configuration_kept_ignored"]


def test_what_is_no_file_of_ours_is_ignored(tmp_path: Path) -> None:
    assert ConfigurationKept(tmp_path).load() is None
    path = tmp_path / FILE
    os.mkfifo(path)
    with capture_logs() as logs:
        assert ConfigurationKept(tmp_path).load() is None
        path.unlink()
        path.write_bytes(b"x" * (MAX_SIZE + 1))
        assert ConfigurationKept(tmp_path).load() is None
    assert ["it is no ordinary file" in str(each) or "larger than" in str(each) for each in logs] == [True, True]


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    kept = ConfigurationKept(tmp_path)
    with capture_logs():
        assert "is a directory" in kept.take("old")
        assert kept.kept is not None
        assert "is a directory" in kept.take("new", anyway=False)
        assert kept.kept.text == "old"
        (tmp_path / FILE).rmdir()
        assert kept.leave("new", "why", rolled_back=True) == ""
    found = ConfigurationKept(tmp_path).load()
    assert found is not None
    assert found.text == "old"


def test_what_is_forgotten_is_not_there_any_more(tmp_path: Path) -> None:
    kept = ConfigurationKept(tmp_path)
    kept.forget()
    kept.take("old")
    kept.forget()
    assert (ConfigurationKept(tmp_path).load(), kept.kept, list(tmp_path.iterdir())) == (None, None, [])


def test_without_a_directory_it_is_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    kept = ConfigurationKept(None)
    assert kept.load() is None
    assert kept.leave("new", "why", rolled_back=True) == "what is in use is not known as a text"
    assert kept.take("old") == ""
    assert kept.leave("new", "why", rolled_back=True) == ""
    kept.forget()
    assert list(tmp_path.iterdir()) == []

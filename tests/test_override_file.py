"""The last known overrides on disk: whatever is there, a start is not kept from its work."""

from pathlib import Path

import attrs
import pytest
from structlog.testing import capture_logs

from lvsctl.core.override import NO_OVERRIDES, Ignored, Override, Overrides, Percent
from lvsctl.override_file import FILE, MAX_SIZE, OverrideFile

ADDRESS, PREFIX = "http://127.0.0.1:8500", "lvsctl"
OVERRIDE = Override(
    virtual_server="reco", selector="v2", share=Percent(500), by="x@y", until=5.0, created=3, modified=4
)
KNOWN = Overrides(entries=(OVERRIDE,))


def loaded(directory: Path, address: str = ADDRESS, prefix: str = PREFIX) -> tuple[Overrides, list[str]]:
    """Return what a start finds, and why it ignores it."""
    with capture_logs() as logs:
        found = OverrideFile(directory).load(address, prefix)
    assert {each["event"] for each in logs} <= {"overrides_file_ignored"}
    return found, [each["why"] for each in logs]


def kept(directory: Path, overrides: Overrides = KNOWN) -> Path:
    OverrideFile(directory).keep(overrides, ADDRESS, PREFIX)
    return directory / FILE


def test_what_is_kept_is_found_after_a_restart(tmp_path: Path) -> None:
    file = kept(tmp_path, attrs.evolve(KNOWN, ignored=(Ignored(key="x", why="y"),)))
    assert loaded(tmp_path) == (KNOWN, [])
    assert file.stat().st_mode & 0o777 == 0o600


def test_without_overrides_no_file_is_made_and_one_that_is_there_is_emptied(tmp_path: Path) -> None:
    assert not kept(tmp_path, NO_OVERRIDES).exists()
    assert loaded(tmp_path) == (NO_OVERRIDES, [])
    kept(tmp_path)
    kept(tmp_path, NO_OVERRIDES)
    assert loaded(tmp_path) == (NO_OVERRIDES, [])


def test_the_same_again_is_not_written_again(tmp_path: Path) -> None:
    file = OverrideFile(tmp_path)
    file.keep(KNOWN, ADDRESS, PREFIX)
    before = (tmp_path / FILE).stat().st_ino
    file.keep(KNOWN, ADDRESS, PREFIX)
    restarted = OverrideFile(tmp_path)
    restarted.load(ADDRESS, PREFIX)
    restarted.keep(KNOWN, ADDRESS, PREFIX)
    assert (tmp_path / FILE).stat().st_ino == before
    file.keep(NO_OVERRIDES, ADDRESS, PREFIX)
    assert (tmp_path / FILE).stat().st_ino != before


@pytest.mark.parametrize(
    ("address", "prefix"), [("http://127.0.0.1:8501", PREFIX), (ADDRESS, "other")], ids=["consul", "prefix"]
)
def test_those_of_another_consul_or_prefix_are_ignored(tmp_path: Path, address: str, prefix: str) -> None:
    kept(tmp_path)
    assert loaded(tmp_path, address, prefix) == (NO_OVERRIDES, ["it is of another Consul, or of another kv_prefix"])


def test_a_file_that_was_changed_or_cut_anywhere_is_ignored(tmp_path: Path) -> None:
    content = kept(tmp_path).read_bytes()
    for at in range(len(content)):
        changed = bytearray(content)
        changed[at] ^= 1
        for each in (bytes(changed), content[:at]):
            (tmp_path / FILE).write_bytes(each)
            assert loaded(tmp_path) == (NO_OVERRIDES, ["it is damaged, or of another lvsctl"])


def test_what_is_no_ordinary_file_is_ignored(tmp_path: Path) -> None:
    (tmp_path / FILE).symlink_to("/dev/zero")
    assert loaded(tmp_path) == (NO_OVERRIDES, ["it is no ordinary file"])
    (tmp_path / FILE).unlink()
    with (tmp_path / FILE).open("wb") as file:
        file.truncate(MAX_SIZE + 1)
    assert loaded(tmp_path) == (NO_OVERRIDES, [f"it is larger than {MAX_SIZE} bytes"])
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).mkdir()
    assert loaded(tmp_path)[0] == NO_OVERRIDES


def test_one_that_cannot_be_written_costs_a_warning(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where a directory belongs")
    with capture_logs() as logs:
        OverrideFile(tmp_path / "state").keep(KNOWN, ADDRESS, PREFIX)
    assert [each["event"] for each in logs] == ["overrides_file_failed"]

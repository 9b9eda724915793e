"""The log: one event a line, in text and in JSON, whatever the fields hold."""

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lvsctl import logs
from tests.test_text import HOSTILE

EVERYTHING_HOSTILE = "".join(HOSTILE)


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Leave structlog as it was found."""
    yield
    structlog.reset_defaults()


def logged(capsys: pytest.CaptureFixture[str], *, as_json: bool | None, level: str = "info", **fields: object) -> str:
    logs.configure(level=level, as_json=as_json)
    structlog.get_logger().info("real_server_added", **fields)
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    line = logged(capsys, as_json=False, name="reco", why="two words", empty="", pair="a=b", quoted='say "x"')
    assert line[8:] == (
        ' info    real_server_added      name=reco why="two words" empty="" pair="a=b" quoted="say \\"x\\""\n'
    )


def test_json_is_chosen_when_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    event = json.loads(logged(capsys, as_json=None, name="reco"))
    assert event.pop("timestamp").endswith("Z")
    assert event == {"event": "real_server_added", "level": "info", "name": "reco"}


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("text", [*HOSTILE, EVERYTHING_HOSTILE, '" level="error', "x" * 10**4])
def test_a_hostile_field_is_one_line_of_plain_characters(
    capsys: pytest.CaptureFixture[str], text: str, *, as_json: bool
) -> None:
    line = logged(capsys, as_json=as_json, why=text)
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    if as_json:
        assert json.loads(line)["why"] == text
    else:
        assert len(line) < 600
        assert " level=" not in line.replace('\\" level=', "")


@given(text=st.text(st.characters(), max_size=30))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_field_is_one_line(capsys: pytest.CaptureFixture[str], text: str) -> None:
    for as_json in (False, True):
        line = logged(capsys, as_json=as_json, why=text)
        assert line.count("\n") == 1
        assert len(line.splitlines()) == 1


def test_a_traceback_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    for as_json in (False, True):
        logs.configure(as_json=as_json)
        try:
            raise ValueError("\x1b[31m")  # noqa: TRY301  to have one
        except ValueError:
            structlog.get_logger().exception("broken")
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        assert "\x1b" not in line


def test_the_level_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert logged(capsys, as_json=True, level="warning") == ""
    assert logging.getLevelNamesMapping()["WARNING"] == 30


# --- a log that cannot be written -----------------------------------------------------------------------------------

PROGRAM = """
import structlog
from lvsctl import logs
logs.configure()
for number in range(3):
    structlog.get_logger().warning("hold", number=number)
print("alive")
"""


@pytest.fixture(params=["full disk", "reader gone", "closed"])
def broken(request: pytest.FixtureRequest) -> Iterator[io.TextIOWrapper]:
    """Give a stream that cannot be written, one way after the other."""
    if request.param == "reader gone":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open("/dev/full", os.O_WRONLY)
    stream = io.TextIOWrapper(io.BufferedWriter(io.FileIO(writer, "w")), encoding="utf-8", line_buffering=True)
    if request.param == "closed":
        stream.close()
    yield stream
    stream.close()  # raises when a line is left in its buffer


@pytest.mark.parametrize("as_json", [False, True, None])
def test_a_log_that_cannot_be_written_never_raises(
    broken: io.TextIOWrapper, monkeypatch: pytest.MonkeyPatch, *, as_json: bool | None
) -> None:
    monkeypatch.setattr(sys, "stderr", broken)
    logs.configure(level="debug", as_json=as_json)
    log = structlog.get_logger()
    for method in (log.debug, log.info, log.warning, log.error, log.exception, log.critical):
        method("hold", name="reco")


def test_a_process_without_standard_error_logs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)  # what Python sets when descriptor 2 is closed
    logs.configure()
    structlog.get_logger().info("hold")


@pytest.mark.parametrize("how", ["full disk", "reader gone"])
def test_the_program_ends_as_it_would_have(how: str) -> None:
    if how == "reader gone":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open("/dev/full", os.O_WRONLY)
    try:
        command = [sys.executable, "-c", PROGRAM]
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=writer, check=False, timeout=60)
    finally:
        os.close(writer)
    assert (result.returncode, result.stdout) == (0, b"alive\n")


@pytest.mark.parametrize("as_json", [False, True])
def test_it_says_how_many_lines_were_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, as_json: bool) -> None:
    log = structlog.get_logger()
    with open("/dev/full", "w", encoding="utf-8") as stream, (tmp_path / "log").open("w") as disk:  # noqa: PTH123
        monkeypatch.setattr(sys, "stderr", stream)
        logs.configure(as_json=as_json)
        for _ in range(3):
            log.info("hold")
        os.dup2(disk.fileno(), stream.fileno())  # there is room again
        log.info("trouble_over", name="reco")
        log.info("stopped")
    lost, *after = (tmp_path / "log").read_text().splitlines()
    if as_json:
        event = json.loads(lost)
        assert event.pop("timestamp").endswith("Z")
        assert event == {"event": "log_lost", "level": "warning", "lines": 3}
        assert [json.loads(line)["event"] for line in after] == ["trouble_over", "stopped"]
    else:
        assert lost[8:] == " warning log_lost               lines=3"
        assert [line.split()[2] for line in after] == ["trouble_over", "stopped"]


TORN = """
import resource, structlog
from lvsctl import logs
logs.configure(as_json=True)
log, (_, most) = structlog.get_logger(), resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (300, most))  # a disk with this much room
log.info("started", why="x" * 100)
log.info("hold", why="x" * 300)
log.info("hold")
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
log.info("stopped")
"""


def test_a_line_cut_short_does_not_spoil_the_next(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        subprocess.run([sys.executable, "-c", TORN], stderr=file, check=True, timeout=60)
    started, torn, *after = (tmp_path / "log").read_text().splitlines()
    assert json.loads(started)["event"] == "started"
    assert len(started) + 1 + len(torn) == 300
    assert [json.loads(line)["event"] for line in after] == ["log_lost", "stopped"]
    assert json.loads(after[0])["lines"] == 2

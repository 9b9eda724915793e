"""The log: one event a line, in text and in JSON, whatever the fields hold."""

import json
import logging
from collections.abc import Iterator

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

"""`lvsctl events`: what it shows, of what, since when, and how it ends."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unicodedata
from datetime import datetime, timedelta
from pathlib import Path

import attrs
import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from lvsctl.cli import lvsctl
from lvsctl.cli.events import LAST, instant, moment
from lvsctl.core.event import Event
from lvsctl.journal import DIRECTORY, Journal
from lvsctl.text import HIDDEN
from tests.cli.test_commands import INTERRUPTIBLE
from tests.core.test_event import EVENTS, QUIESCED

NOW = time.time()
ADDED = attrs.evolve(
    QUIESCED,
    time=NOW - 7200,
    event="real_server_added",
    what="masquerade, weight 1",
    cause="new",
    why="passing in Consul: instance 'reco-1' on node 'app1'",
)
STORY = (
    Event(time=NOW - 7201, event="started", what="version 0.1.0, pid 7"),
    ADDED,
    attrs.evolve(QUIESCED, time=NOW - 60),
    Event(time=NOW - 30, event="released", name="shop", what="10.0.0.9:80", by="alice, pid 4242"),
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a configuration file; there is no journal yet."""
    path = tmp_path / "lvsctl.toml"
    path.write_text(f'[daemon]\nstate_directory = "{tmp_path}"\n[virtual_server.reco]\naddress = "10.9.0.100:80"\n')
    return path


def write(file: Path, *events: Event) -> None:
    with Journal(file.parent) as journal:
        for event in events:
            journal.note(event)


def run(file: Path, *arguments: str) -> Result:
    return CliRunner().invoke(lvsctl, ["events", "-c", str(file), *arguments])


def test_a_line_an_event_aligned_and_with_its_cause(file: Path) -> None:
    write(file, *STORY)
    result = run(file)
    assert (result.exit_code, result.stderr) == (0, "")
    times = [instant(event.time) for event in STORY]
    assert result.output.splitlines() == [
        f"{times[0]}  lvsctl  -              started, version 0.1.0, pid 7",
        f"{times[1]}  reco    10.0.0.1:8080  added, masquerade, weight 1    {ADDED.why} (Consul index 42)",
        f"{times[2]}  reco    10.0.0.1:8080  quiesced, weight 1 -> 0        {QUIESCED.why} (Consul index 42)",
        f"{times[3]}  shop    -              released, 10.0.0.9:80          by alice, pid 4242",
    ]


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["reco"], [1, 2]),
        (["10.0.0.1:8080"], [1, 2]),
        (["10.9.0.100:80", "shop"], [1, 2, 3]),
        (["--since", "10m"], [2, 3]),
        (["--since", "45s", "reco"], []),
        (["--since", "2001-01-01"], [0, 1, 2, 3]),
    ],
)
def test_of_whom_and_since_when(file: Path, arguments: list[str], shown: list[int]) -> None:
    write(file, *STORY)
    result = run(file, "--json", *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    found = [json.loads(line) for line in result.output.splitlines()]
    assert [each["time"] for each in found] == [STORY[number].time for number in shown]


def test_the_json_is_that_of_the_journal(file: Path) -> None:
    write(file, QUIESCED)
    (line,) = run(file, "--json").output.splitlines()
    assert json.loads(line) == {
        "time": QUIESCED.time,
        "event": "real_server_quiesced",
        "name": "reco",
        "virtual_server": "tcp 10.9.0.100:80",
        "real_server": "10.0.0.1:8080",
        "what": "weight 1 -> 0",
        "cause": "check",
        "why": QUIESCED.why,
        "consul": {
            "service": "reco",
            "index": 42,
            "node": "app1",
            "instance": "reco-1",
            "health": "critical",
            "check": "HTTP",
        },
    }


@settings(max_examples=40, deadline=None)
@given(events=st.lists(EVENTS, max_size=5))
def test_whatever_consul_says_is_harmless_here(tmp_path_factory: pytest.TempPathFactory, events: list[Event]) -> None:
    file = tmp_path_factory.mktemp("state") / "lvsctl.toml"
    file.write_text(f'[daemon]\nstate_directory = "{file.parent}"\n[virtual_server.reco]\naddress = "10.9.0.100:80"\n')
    write(file, *events, QUIESCED)
    for arguments in ([], ["--json"]):
        result = run(file, *arguments)
        assert result.exit_code == 0, result.exception
        lines = result.output.splitlines()
        assert len(lines) == len(events) + 1
        assert not {unicodedata.category(each) for line in lines for each in line} & HIDDEN


def test_a_name_that_nothing_is_about_is_told_with_those_that_there_are(file: Path) -> None:
    write(file, *STORY)
    result = run(file, "rec\x1b")
    assert result.exit_code == 2
    assert "nothing in the journal is about 'rec\\x1b'; it knows: reco, shop" in result.stderr


@pytest.mark.parametrize("since", ["", "x", "10", "10 minutes", "25:00", "2026-13-01", "-1h", "1e9m", "\x1b"])
def test_a_time_that_is_none_is_wrong_usage(file: Path, since: str) -> None:
    write(file, *STORY)
    result = run(file, "--since", since)
    assert result.exit_code == 2
    assert "is neither a span nor a time; write so long ago (90s, 10m, 2h)" in result.stderr
    assert "\x1b" not in result.stderr


def test_what_times_mean() -> None:
    now = datetime.fromisoformat("2026-11-23 14:00:30").astimezone()
    seconds = now.timestamp()
    assert moment("90s", seconds) == seconds - 90
    assert moment("14:00", seconds) == seconds - 30
    assert moment("14:00:31", seconds) == (now - timedelta(days=1) + timedelta(seconds=1)).timestamp()
    assert moment("2026-11-22", seconds) == datetime.fromisoformat("2026-11-22").astimezone().timestamp()
    assert moment("2026-11-23T12:00:00Z", seconds) == datetime.fromisoformat("2026-11-23T12:00:00+00:00").timestamp()
    assert moment("2026-11-23 14:00", seconds) == seconds - 30


@given(st.text(max_size=20) | st.from_regex(r"[0-9T:+. -]{1,25}", fullmatch=True))
def test_any_time_is_one_or_is_refused(text: str) -> None:
    with contextlib.suppress(click.UsageError):
        assert isinstance(moment(text, NOW), float)


def test_without_a_journal_it_is_code_7(file: Path) -> None:
    result = run(file)
    assert (result.exit_code, result.stdout) == (7, "")
    said = "there is no journal yet; `lvsctl run` begins it, in daemon.state_directory"
    assert result.stderr == f"lvsctl: {file.parent}/{DIRECTORY}: {said}\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="it takes root to become somebody else")
def test_who_may_not_read_it_is_told_who_may(file: Path) -> None:
    write(file, *STORY)
    for directory in file.parents:
        if directory.is_relative_to(tempfile.gettempdir()) and directory != Path(tempfile.gettempdir()):
            directory.chmod(0o755)
    code = (
        "import os, sys\nos.setgid(65534), os.setuid(65534)\n"
        f"sys.argv = ['lvsctl', 'events', '-c', {str(file)!r}]\nfrom lvsctl.cli import main\nmain()\n"
    )
    # Whoever may not read this project can import nothing of it any more.
    code = "import lvsctl.cli.events, lvsctl.cli.places, lvsctl.journal, lvsctl.configfile, lvsctl.cli\n" + code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (7, ""), done
    assert done.stderr.endswith("permission denied; the journal is root's alone, ask as root\n")


def test_a_file_with_mistakes_hides_nothing(file: Path) -> None:
    write(file, *STORY)
    file.write_text(file.read_text() + 'scheduler = "round-robin"\n')
    assert len(run(file).output.splitlines()) == len(STORY)


def test_it_follows_until_ctrl_c(file: Path) -> None:
    size = 4000
    with Journal(file.parent, size=size, files=4) as journal:
        for number in range(LAST + 5):
            journal.note(attrs.evolve(QUIESCED, what=f"weight {number} -> 0"))
    command = [*INTERRUPTIBLE, sys.executable, "-m", "lvsctl", "events", "-c", str(file), "-f", "reco"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        shown = [running.stdout.readline() for _ in range(LAST)]
        assert [f"weight {number} -> 0" in line for number, line in enumerate(shown, 5)] == [True] * LAST
        with Journal(file.parent, size=size, files=4) as journal:
            for number in range(100, 120):  # more than a file has room for
                journal.note(attrs.evolve(QUIESCED, what=f"weight {number} -> 0"))
                journal.note(Event(time=1, event="started"))
        shown = [running.stdout.readline() for _ in range(20)]
        assert [f"weight {number} -> 0" in line for number, line in enumerate(shown, 100)] == [True] * 20
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=30)
    assert (running.returncode, out, err) == (0, "", "")

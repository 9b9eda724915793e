"""`lvsctl reload`: what it says, what it asks of the daemon and of the operator, and how it ends."""

import contextlib
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner, Result

from lvsctl.cli import lvsctl
from lvsctl.core.reload import Ask, Became, Order, PlannedLine, Reloaded
from tests.statuses import FULL, Told, daemon

FILE = "/etc/lvsctl/lvsctl.toml"
LINE = PlannedLine(
    sign="remove",
    name="reco",
    virtual_server="tcp 10.9.0.100:80",
    real_server="10.0.0.1:8080",
    what="weight 1 -> 0",
    cause="configuration",
    why="no longer in the\x1b configuration",
    differs=True,
)
USED = Reloaded(became=Became.USED, config=FILE, lines=(LINE,), virtual_servers=2, real_servers=5)
PLAN = [
    "reco  tcp 10.9.0.100:80",
    r"  - 10.0.0.1:8080  weight 1 -> 0  no longer in the\x1b configuration",
    "",
    "1 difference: 2 virtual servers, 5 real servers",
]
UNKNOWN = attrs.evolve(
    LINE, sign="note", real_server=None, what="unknown", cause="unknown", why="no route to host", differs=False
)
SILENT = [
    "reco  tcp 10.9.0.100:80",
    "  ! virtual server  unknown  no route to host",
    "",
    "no difference known, 1 note: 0 virtual servers, 0 real servers",
]
WHY = "it would take away 2 of 2 real servers now serving; if that is meant: lvsctl reload --allow-remove"


def run(directory: Path, *arguments: str, outcomes: Sequence[Reloaded] = (USED,)) -> tuple[Result, list[Order]]:
    told = Told(FULL, outcomes=list(outcomes))
    with daemon(directory, told=told) as file:
        return CliRunner().invoke(lvsctl, ["reload", *arguments, "-c", str(file)]), told.orders


def test_it_shows_the_plan_and_what_became_of_it(tmp_path: Path) -> None:
    result, orders = run(tmp_path)
    assert result.stdout.splitlines() == [*PLAN, f"{FILE}: in use"]
    assert (result.exit_code, result.stderr) == (0, "")
    assert orders == [Order(file=str(tmp_path / "lvsctl.toml"))]


def test_every_option_arrives(tmp_path: Path) -> None:
    _, orders = run(tmp_path, "--allow-remove", "--confirm", "90s")
    assert orders == [Order(file=str(tmp_path / "lvsctl.toml"), allow_remove=True, confirm=90.0)]
    _, orders = run(tmp_path, "--dry-run")
    assert orders[0].dry_run
    assert [run(tmp_path, flag)[1][0].ask for flag in ("--keep", "--revert")] == [Ask.KEEP, Ask.REVERT]


@pytest.mark.parametrize(
    ("became", "code", "out", "err"),
    [
        ({"became": Became.REFUSED, "why": WHY}, 1, PLAN, f"refused, the configuration before stays in use: {WHY}"),
        ({"became": Became.PLANNED}, 0, [*PLAN, f"{FILE}: nothing was changed"], None),
        ({"became": Became.PLANNED, "why": WHY}, 1, PLAN, f"it would be refused: {WHY}"),
        ({"became": Became.PLANNED, "complete": False}, 4, [*PLAN, f"{FILE}: nothing was changed"], None),
        ({"became": Became.CONFIRMED}, 0, [f"{FILE}: confirmed"], None),
        ({"became": Became.REVERTED, "why": "x\x07"}, 0, [r"the configuration before is in use again: x\x07"], None),
        ({"lines": ()}, 0, ["in sync: 2 virtual servers, 5 real servers", f"{FILE}: in use"], None),
        (
            {"lines": (UNKNOWN,), "virtual_servers": 0, "real_servers": 0, "complete": False},
            0,
            [*SILENT, f"{FILE}: in use"],
            None,
        ),
        ({"notes": ("drains\x07",)}, 0, [*PLAN, f"{FILE}: in use"], r"drains\x07"),
    ],
)
def test_what_is_said_of_each_outcome(
    tmp_path: Path, became: dict[str, object], code: int, out: list[str], err: str | None
) -> None:
    result, _ = run(tmp_path, outcomes=[attrs.evolve(USED, **became)])  # type: ignore[arg-type]
    assert (result.exit_code, result.stdout.splitlines()) == (code, out)
    assert result.stderr == ("" if err is None else f"lvsctl: {err}\n")


def test_every_problem_of_a_bad_file_is_shown(tmp_path: Path) -> None:
    problems = (f"{FILE}:3: a.b: wrong; right\x1b", f"{FILE}:4: a.c: wrong; right")
    result, _ = run(tmp_path, outcomes=[Reloaded(became=Became.INVALID, config=FILE, problems=problems)])
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.splitlines() == [
        rf"lvsctl: {FILE}:3: a.b: wrong; right\x1b",
        f"lvsctl: {FILE}:4: a.c: wrong; right",
        "lvsctl: 2 problems; the configuration before stays in use",
    ]


def test_a_file_that_is_broken_now_still_says_where_the_daemon_is(tmp_path: Path) -> None:
    told = Told(FULL, outcomes=[Reloaded(became=Became.INVALID, config=FILE, problems=("a", "b"))])
    with daemon(tmp_path, told=told) as file:
        file.write_text(file.read_text() + "[nonsense\n")
        assert CliRunner().invoke(lvsctl, ["reload", "-c", str(file)]).exit_code == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--keep", "--revert"], "each stand alone"),
        (["--keep", "--confirm", "60s"], "each stand alone"),
        (["--revert", "--allow-remove"], "each stand alone"),
        (["--dry-run", "--confirm", "60s"], "changes nothing that could be confirmed"),
        (["--confirm", "0"], "--confirm: "),
        (["--confirm", "60"], "--confirm: "),
        (["--confirm", "abc"], "--confirm: "),
        (["--confirm", ""], "--confirm: "),
        (["--confirm", "4s"], "5s"),
        (["--confirm", "2h"], "1h"),
        (["--confirm", "-5s"], "--confirm"),
        (["--confirmed"], "No such option"),
        (["new.toml"], "unexpected extra argument"),
    ],
)
def test_wrong_usage_asks_the_daemon_nothing(tmp_path: Path, arguments: list[str], said: str) -> None:
    result, orders = run(tmp_path, *arguments)
    assert (result.exit_code, orders) == (2, [])
    assert said in result.stderr


def test_nothing_to_confirm_and_no_daemon_are_code_8(tmp_path: Path) -> None:
    result, _ = run(tmp_path, "--keep", outcomes=[])
    assert (result.exit_code, result.stderr) == (8, "lvsctl: nothing is to be confirmed\n")
    file = tmp_path / "lvsctl.toml"
    result = CliRunner().invoke(lvsctl, ["reload", "-c", str(file)])
    assert result.exit_code == 8
    assert "no daemon answers" in result.stderr
    assert "where control_socket was changed in the file, the daemon listens at the former one" in result.stderr
    file.unlink()
    result = CliRunner().invoke(lvsctl, ["reload", "-c", str(file)])
    assert result.exit_code == 8
    assert result.stderr.endswith(f"; {file}: there is no such file\n")


# ---- to be confirmed, at a terminal


def to_confirm(seconds: float = 60.0) -> Reloaded:
    return attrs.evolve(USED, until=time.time() + seconds)


def test_who_is_not_asked_is_told_how_to_confirm(tmp_path: Path) -> None:
    result, orders = run(tmp_path, "--confirm", "60s", outcomes=[to_confirm()])
    assert (result.exit_code, len(orders)) == (0, 1)
    assert f"{FILE}: in use, and taken back at " in result.stdout
    assert result.stdout.endswith(" unless: lvsctl reload --keep\n")


@attrs.define
class Terminal:
    """A command at a terminal of its own."""

    process: subprocess.Popen[bytes]
    end: int  # ours of the terminal
    shown: str = ""

    def until(self, text: str) -> None:
        """Read what is shown until `text` is there."""
        while text not in self.shown:
            self.shown += os.read(self.end, 4096).decode()

    def rest(self) -> int:
        """Read the rest; return the exit code."""
        with contextlib.suppress(OSError):  # the terminal has no other end any more
            while more := os.read(self.end, 4096):
                self.shown += more.decode()
        return self.process.wait(30)


@contextlib.contextmanager
def at_a_terminal(directory: Path, told: Told) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    with daemon(directory, told=told) as file:
        command = [sys.executable, "-m", "lvsctl", "reload", "--confirm", "60s", "-c", str(file)]
        command = ["env", "--default-signal=INT,HUP", "setsid", "--ctty", *command]
        with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            try:
                yield Terminal(process, ours)
            finally:
                process.kill()
                os.close(ours)


@pytest.mark.parametrize(
    ("typed", "became", "ask", "code"),
    [
        ("y\n", Became.CONFIRMED, Ask.KEEP, 0),
        ("what?\nYES\n", Became.CONFIRMED, Ask.KEEP, 0),
        ("n\n", Became.REVERTED, Ask.REVERT, 1),
        ("\n", Became.REVERTED, Ask.REVERT, 1),
    ],
)
def test_the_answer_is_obeyed(tmp_path: Path, typed: str, became: Became, ask: Ask, code: int) -> None:
    asked = to_confirm()
    told = Told(FULL, outcomes=[asked, Reloaded(became=became, config=FILE, why="reverted")])
    with at_a_terminal(tmp_path, told) as terminal:
        terminal.until("s left: ")
        os.write(terminal.end, typed.encode())
        assert terminal.rest() == code
    assert re.search(r"keep it\? \[y/N\]   (60|59|58) s left: ", terminal.shown)
    assert "\r\n\r\n" not in terminal.shown.partition("keep it?")[2]
    assert [(each.ask, each.of) for each in told.orders] == [(Ask.RELOAD, None), (ask, asked.until)]


def test_it_counts_down_on_one_line(tmp_path: Path) -> None:
    with at_a_terminal(tmp_path, Told(FULL, outcomes=[to_confirm()])) as terminal:
        terminal.until("58 s left: ")
        tail = terminal.shown[terminal.shown.index("keep it?") :]
        assert "\n" not in tail
        assert tail.count("\r") == tail.count("keep it?") - 1 >= 1


@pytest.mark.parametrize(("typed", "code"), [("\x03", 130), ("\x04", 1)])
def test_who_leaves_is_told_what_becomes_of_it(tmp_path: Path, typed: str, code: int) -> None:
    told = Told(FULL, outcomes=[to_confirm()])
    with at_a_terminal(tmp_path, told) as terminal:
        terminal.until("s left: ")
        os.write(terminal.end, typed.encode())
        assert terminal.rest() == code
    assert "lvsctl: not confirmed; taken back at " in terminal.shown
    assert terminal.shown.endswith("unless: lvsctl reload --keep\r\n")
    assert [each.ask for each in told.orders] == [Ask.RELOAD]


@pytest.mark.parametrize(
    ("rolled_back", "said", "code"),
    [(True, "the configuration before is in use again: not confirmed", 1), (False, "confirmed elsewhere", 0)],
)
def test_when_the_time_is_over_the_daemon_says_what_it_did(
    tmp_path: Path, said: str, code: int, *, rolled_back: bool
) -> None:
    status = attrs.evolve(FULL, rolled_back=rolled_back, config_error="not confirmed" if rolled_back else "")
    with at_a_terminal(tmp_path, Told(status, outcomes=[to_confirm(1.5)])) as terminal:
        assert terminal.rest() == code
    assert said in terminal.shown


@pytest.mark.parametrize(("option", "said"), [("--allow-remove", True), ("--dry-run", False), ("--keep", False)])
def test_ctrl_c_before_the_daemon_answers_says_that_it_goes_on(tmp_path: Path, option: str, *, said: bool) -> None:
    file, path = tmp_path / "lvsctl.toml", tmp_path / "control.sock"
    file.write_text(f'[daemon]\ncontrol_socket = "{path}"\n[virtual_server.reco]\naddress = "10.9.0.100:80"\n')
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        command = ["env", "--default-signal=INT,HUP", sys.executable, "-m", "lvsctl", "reload", option, "-c", str(file)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
            accepted, _ = listener.accept()
            with accepted:
                accepted.recv(1)
                running.send_signal(signal.SIGINT)
                out, err = running.communicate(timeout=30)
    assert (running.returncode, out) == (130, "")
    assert err == ("\nlvsctl: the daemon goes on with it; lvsctl status says what became of it\n" if said else "")


def test_a_lost_terminal_leaves_it_to_the_daemon(tmp_path: Path) -> None:
    told = Told(FULL, outcomes=[to_confirm()])
    with at_a_terminal(tmp_path, told) as terminal:
        terminal.until("s left: ")
        terminal.process.send_signal(signal.SIGHUP)
        assert terminal.rest() == -signal.SIGHUP
    assert [each.ask for each in told.orders] == [Ask.RELOAD]

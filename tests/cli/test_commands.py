"""The commands as a whole: help, errors, exit codes, and that asking for help loads nothing heavy."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from lvsctl import __version__
from lvsctl.cli import COMMANDS, lvsctl
from lvsctl.store import locked

HEAVY = ("aiohttp", "pyroute2", "consul", "structlog")

INTERRUPTIBLE = ["env", "--default-signal=INT"]  # a shell starts what it does not wait for deaf to Ctrl-C


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "lvsctl", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_every_command_explains_itself_with_examples(name: str, flag: str) -> None:
    result = run(name, flag)
    assert result.returncode == 0
    assert f"lvsctl {name}" in result.stdout.partition("Examples:")[2]


def test_the_help_names_every_command_in_order() -> None:
    shown = CliRunner().invoke(lvsctl, ["--help"]).stdout
    commands = shown.partition("Commands:")[2].partition("Start here:")[0]
    assert tuple(re.findall(r"^  (\w+)", commands, re.MULTILINE)) == COMMANDS


def test_the_version() -> None:
    assert CliRunner().invoke(lvsctl, ["--version"]).stdout == f"lvsctl {__version__}\n"


def test_an_unknown_command_is_wrong_usage() -> None:
    result = run("stauts")
    assert result.returncode == 2
    assert "No such command 'stauts'" in result.stderr


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys, json, atexit\n"
        f"atexit.register(lambda: sys.stderr.write(json.dumps([n for n in {HEAVY!r} if n in sys.modules])))\n"
        f"sys.argv = ['lvsctl', *{arguments!r}]\n"
        "from lvsctl.cli import main\n"
        "main()\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage: lvsctl" in result.stdout
    assert json.loads(result.stderr) == []


@pytest.mark.parametrize("name", ["diff", "run", "teardown"])
def test_a_configuration_that_is_wrong_is_one_message_a_problem_and_code_3(tmp_path: Path, name: str) -> None:
    file = tmp_path / "lvsctl.toml"
    file.write_text('[virtual_server.reco]\naddress = "10.9.0.100:80"\nscheduler = "x\\u001b"\nforwarding = "y"\n')
    result = run(name, "-c", str(file))
    assert (result.returncode, result.stdout) == (3, "")
    assert [line.split(": ")[:2] for line in result.stderr.splitlines()] == [
        ["lvsctl", f"{file}:3"],
        ["lvsctl", f"{file}:4"],
    ]
    assert "\x1b" not in result.stderr


def test_without_consul_it_is_code_4(tmp_path: Path) -> None:
    file = tmp_path / "lvsctl.toml"
    file.write_text('[consul]\naddress = "http://127.0.0.1:1"\n[virtual_server.reco]\naddress = "10.9.0.100:80"\n')
    result = run("diff", "-c", str(file))
    assert (result.returncode, result.stdout) == (4, "")
    assert result.stderr == "lvsctl: Consul service 'reco': cannot reach http://127.0.0.1:1: connection refused\n"


def test_a_token_file_that_is_missing_is_code_4_before_anything_else(tmp_path: Path) -> None:
    file = tmp_path / "lvsctl.toml"
    file.write_text(
        f'[consul]\ntoken_file = "{tmp_path}/none"\n[daemon]\nstate_directory = "{tmp_path}/state"\n'
        '[virtual_server.reco]\naddress = "10.9.0.100:80"\n'
    )
    for arguments in (["diff"], ["run", "--once"], ["run", "--once", "--dry-run"]):
        result = run(*arguments, "-c", str(file))
        assert result.returncode == 4, result
        assert f"consul.token_file {tmp_path}/none: no such file or directory" in result.stderr
    assert not (tmp_path / "state").exists()


def test_a_second_writer_is_code_6(tmp_path: Path) -> None:
    file = tmp_path / "lvsctl.toml"
    file.write_text(
        f'[daemon]\nstate_directory = "{tmp_path / "state"}"\n[virtual_server.reco]\naddress = "10.9.0.100:80"\n'
    )
    with locked(tmp_path / "state"):
        result = run("teardown", "--yes", "-c", str(file))
    assert result.returncode == 6, result
    assert f"pid {os.getpid()} (" in result.stderr
    assert "has the lock of this table's writer" in result.stderr


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Return a file that is valid and one that is not."""
    found = {name: tmp_path / f"{name}.toml" for name in ("good", "bad")}
    found["good"].write_text('[virtual_server.reco]\naddress = "10.9.0.100:80"\n')
    found["bad"].write_text("nonsense\n")
    return found


def shell(command: str, **paths: Path) -> subprocess.CompletedProcess[str]:
    """Return what became of `command`, in which `lvsctl` is ours and {names} are files."""
    script = f'lvsctl() {{ "{sys.executable}" -m lvsctl "$@"; }}\n' + command.format(**paths)
    return subprocess.run(["bash", "-o", "pipefail", "-c", script], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("lvsctl check {good} >&-", 0),
        ("lvsctl check {bad} >&-", 3),
        ("lvsctl check {bad} 2>&-", 3),
        ("lvsctl check {bad} 2>/dev/full", 3),
        ("lvsctl --help <&- >&- 2>&-", 0),
        ("lvsctl stauts <&- >&- 2>&-", 2),
        ("lvsctl diff -c {bad} <&- >&- 2>&-", 3),
        ("lvsctl check {good} >/dev/full", 9),
        ("lvsctl --help >/dev/full", 9),
        ("lvsctl check {good} | true", 141),
        ("lvsctl --help | true", 141),
    ],
)
def test_an_output_that_is_closed_full_or_unread_has_a_code_of_its_own(
    files: dict[str, Path], command: str, code: int
) -> None:
    done = shell(command, **files)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done
    assert (done.stderr == "lvsctl: the output cannot be written: no space left on device\n") == (code == 9)


def test_what_is_opened_never_becomes_a_standard_stream() -> None:
    code = "import os, lvsctl.cli as c; c.open_streams(); f = open('/dev/null'); os.write(3, b'%d' % f.fileno())"
    read, write = os.pipe()
    with os.fdopen(read) as told:
        script = f'exec "{sys.executable}" -c "{code}" 3>&{write} <&- >&- 2>&-'
        done = subprocess.run(["bash", "-c", script], pass_fds=(write,), check=False)
        os.close(write)
        assert (done.returncode, int(told.read()) > 2) == (0, True)


def test_an_error_of_its_own_reads_as_no_answer() -> None:
    code = (
        "import sys, lvsctl.cli.check as check, lvsctl.cli as cli\n"
        "def wrong(): raise ValueError('a\\x1bb')\n"
        "check.command.callback = lambda **_: wrong()\n"
        "sys.argv = ['lvsctl', 'check']\n"
        "cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 9, done
    assert done.stderr == ("lvsctl: error in lvsctl itself, please report it: ValueError at <string>:2: a\\x1bb\n")


def test_ctrl_c_is_no_answer(tmp_path: Path) -> None:
    """Consul accepts and says nothing, so `diff` waits."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        file = tmp_path / "lvsctl.toml"
        file.write_text(
            f'[consul]\naddress = "http://127.0.0.1:{listener.getsockname()[1]}"\n'
            '[virtual_server.reco]\naddress = "10.9.0.100:80"\n'
        )
        command = [*INTERRUPTIBLE, sys.executable, "-m", "lvsctl", "diff", "-c", str(file)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
            accepted, _ = listener.accept()
            with accepted:
                running.send_signal(signal.SIGINT)
                out, err = running.communicate(timeout=30)
    assert (running.returncode, out, err) == (130, "", "")


@pytest.mark.parametrize(("options", "code"), [([], 130), (["--watch"], 0)])
def test_ctrl_c_is_the_way_out_of_watch_and_no_answer_otherwise(tmp_path: Path, options: list[str], code: int) -> None:
    """A daemon accepts and says nothing."""
    file, path = tmp_path / "lvsctl.toml", tmp_path / "control.sock"
    file.write_text(f'[daemon]\ncontrol_socket = "{path}"\n[virtual_server.reco]\naddress = "10.9.0.100:80"\n')
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        command = [*INTERRUPTIBLE, sys.executable, "-m", "lvsctl", "status", "-c", str(file), *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
            accepted, _ = listener.accept()
            with accepted:
                running.send_signal(signal.SIGINT)
                out, err = running.communicate(timeout=30)
    assert (running.returncode, out.strip(), err) == (code, "", "")

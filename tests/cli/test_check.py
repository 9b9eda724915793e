"""`lvsctl check` as a person or a script sees it: output, standard error, exit status."""

import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from lvsctl.cli.check import command

VALID = """
[virtual_server.reco]
address = "10.9.0.100:80"
[virtual_server.feature]
address = "10.9.0.101:80"
[virtual_server.search]
firewall_mark = 7
"""


def test_a_valid_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "lvsctl.toml"
    path.write_text(VALID)
    result = CliRunner().invoke(command, [str(path)])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{path}: valid, 3 virtual servers (reco, feature, search)\n"


def test_one_virtual_server_is_singular(tmp_path: Path) -> None:
    path = tmp_path / "lvsctl.toml"
    path.write_text("[virtual_server.reco]\nfirewall_mark = 1")
    assert CliRunner().invoke(command, [str(path)]).stdout == f"{path}: valid, 1 virtual server (reco)\n"


def test_what_may_be_declared_is_said(tmp_path: Path) -> None:
    file = tmp_path / "lvsctl.toml"
    file.write_text('[discovery]\naddresses = ["10.9.1.0/24"]\n')
    result = CliRunner().invoke(command, [str(file)])
    assert (result.exit_code, result.stdout.splitlines()) == (
        0,
        [f"{file}: valid, 0 virtual servers", f"{file}: Consul services may declare 100 more in 10.9.1.0/24"],
    )


def test_every_problem_is_one_line_on_standard_error(tmp_path: Path) -> None:
    path = tmp_path / "lvsctl.toml"
    path.write_text('[virtual_server.reco]\naddress = "10.9.0.100"\nscheduler = "wlcc"\nforwarding = "nat\\u001b"\n')
    result = CliRunner().invoke(command, [str(path)])
    assert (result.exit_code, result.stdout) == (3, "")
    *problems, count = result.stderr.splitlines()
    assert [line.split(": ")[:2] for line in problems] == [
        [f"{path}:2", "virtual_server.reco.address"],
        [f"{path}:3", "virtual_server.reco.scheduler"],
        [f"{path}:4", "virtual_server.reco.forwarding"],
    ]
    assert count == f"{path}: 3 problems"
    assert "\x1b" not in result.stderr


def test_a_missing_file_is_a_problem_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "none\x1b.toml"
    result = CliRunner().invoke(command, [str(path)])
    assert result.exit_code == 3
    shown = f"{tmp_path}/none\\u001b.toml"
    assert result.stderr == f"{shown}: there is no such file; create it or name another one\n{shown}: 1 problem\n"


def test_help_has_examples() -> None:
    result = CliRunner().invoke(command, ["--help"])
    assert result.exit_code == 0
    assert "lvsctl check new.toml" in result.stdout


def test_importing_the_command_reads_no_heavy_module() -> None:
    code = (
        "import sys, lvsctl.cli.check; print(sorted({'cattrs', 'tomllib', 'aiohttp', 'pyroute2'} & sys.modules.keys()))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"

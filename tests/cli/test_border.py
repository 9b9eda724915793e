"""`lvsctl adopt` and `disown`: what they say, what they ask, and how they end."""

from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner, Result

from lvsctl.cli import lvsctl, moving
from lvsctl.core.status import Moved, State
from tests.statuses import FULL, RECO, Told, daemon

FOREIGN = attrs.evolve(FULL, virtual_servers=(attrs.evolve(RECO, state=State.FOREIGN, wanted=3),))
ADDRESS = "tcp 10.9.0.100:80"
ADOPTED = Moved(name="reco", address=ADDRESS, changed=True, done=("+ 10.0.0.2:80  masquerade, weight 1: passing",))


def run(directory: Path, *words: str, told: Told, answer: str | None = None) -> Result:
    with daemon(directory, told=told) as file:
        return CliRunner().invoke(lvsctl, [*words, "-c", str(file)], input=answer)


def test_it_says_what_was_done_for_it(tmp_path: Path) -> None:
    told = Told(FOREIGN, moves={"reco": ADOPTED})
    result = run(tmp_path, "adopt", "reco", told=told)
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "reco (tcp 10.9.0.100:80): ours now, 1 change",
        "  + 10.0.0.2:80  masquerade, weight 1: passing",
    ]
    assert [what for what, _ in told.asked] == ["adopt reco"]


def test_what_the_kernel_refuses_is_said(tmp_path: Path) -> None:
    refused = attrs.evolve(ADOPTED, done=(), refused="no memory (ENOMEM)")
    result = run(tmp_path, "adopt", "reco", told=Told(FOREIGN, moves={"reco": refused}))
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        "reco (tcp 10.9.0.100:80): ours now, nothing to change",
        "  the kernel refused: no memory (ENOMEM)",
    ]


@pytest.mark.parametrize(("word", "says"), [("adopt", "it is ours already"), ("disown", "it is foreign already")])
def test_what_is_so_already_is_all_right(tmp_path: Path, word: str, says: str) -> None:
    same = Moved(name="reco", address=ADDRESS, changed=False)
    result = run(tmp_path, word, "reco", told=Told(FULL, moves={"reco": same}))
    assert (result.exit_code, result.output) == (0, f"reco ({ADDRESS}): {says}\n")


@pytest.mark.parametrize(
    ("word", "status", "question"),
    [
        ("adopt", FOREIGN, "it has 3 real servers; what Consul does not have of them will be drained"),
        ("disown", FULL, "nothing will keep it equal to Consul any more"),
    ],
)
def test_at_a_terminal_it_asks_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, status: object, question: str
) -> None:
    monkeypatch.setattr(moving, "_is_asked", lambda: True)
    told = Told(FOREIGN if word == "adopt" else FULL, moves={"reco": attrs.evolve(ADOPTED, done=())})
    assert status is told.its
    result = run(tmp_path, word, "reco", told=told, answer="n\n")
    assert question in result.output
    assert (result.exit_code, result.output.splitlines()[-1]) == (1, "nothing was done")
    assert told.asked == []
    assert run(tmp_path, word, "reco", told=told, answer="y\n").exit_code == 0
    assert question not in run(tmp_path, word, "reco", "--yes", told=told).output


def test_what_takes_most_away_is_not_done_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(FOREIGN, moves={"reco": ADOPTED}, moves_by_force=True)
    result = run(tmp_path, "adopt", "reco", told=told)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        "reco: it would take away 3 of 4 real servers", "--yes adopts it all the same",
    ]  # fmt: skip
    assert run(tmp_path, "adopt", "reco", "--yes", told=told).exit_code == 0
    monkeypatch.setattr(moving, "_is_asked", lambda: True)
    assert run(tmp_path, "adopt", "reco", told=told, answer="y\ny\n").exit_code == 0
    assert run(tmp_path, "adopt", "reco", told=told, answer="y\nn\n").exit_code == 1


def test_an_unknown_name_moves_nothing_and_names_those_there_are(tmp_path: Path) -> None:
    told = Told(FULL)
    result = run(tmp_path, "disown", "reco", "rec", told=told)
    assert result.exit_code == 2
    assert "no virtual server 'rec'; there are: reco" in result.output
    assert told.asked == []


@pytest.mark.parametrize("name", ["tcp 10.9.0.200:80", "10.9.0.200:80"])
def test_a_foreign_one_that_is_not_in_the_file_is_told_how_to_get_there(tmp_path: Path, name: str) -> None:
    told = Told(attrs.evolve(FULL, foreign=("tcp 10.9.0.200:80",)))
    result = run(tmp_path, "adopt", name, told=told)
    assert result.exit_code == 2
    assert "tcp 10.9.0.200:80 is not in the file: give it a [virtual_server.NAME] there and reload" in result.output


def test_without_a_daemon_it_ends_with_8(tmp_path: Path) -> None:
    file = tmp_path / "lvsctl.toml"
    file.write_text(f'[daemon]\ncontrol_socket = "{tmp_path}/none"\n[virtual_server.reco]\naddress = "10.9.0.100:80"\n')
    assert CliRunner().invoke(lvsctl, ["adopt", "reco", "-c", str(file)]).exit_code == 8

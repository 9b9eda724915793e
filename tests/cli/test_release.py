"""`lvsctl release`: what it says, what it asks, and how it ends."""

from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner, Result

from lvsctl.cli import lvsctl
from lvsctl.cli import release as release_module
from lvsctl.core.status import Place, Released, State, Status
from tests.statuses import FULL, RECO, SHOP, Told, daemon, real_server

HELD = attrs.evolve(
    FULL,
    virtual_servers=(
        attrs.evolve(RECO, state=State.HELD, real_servers=(real_server(1), real_server(2, Place.HELD))),
        attrs.evolve(SHOP, name="shop", serving=1, real_servers=(real_server(3, Place.HELD),)),
    ),
)
OUTCOMES = {
    "reco": Released(name="reco", real_servers=("10.0.0.2:8080",), serving=1),
    "shop": Released(name="shop", real_servers=("10.0.0.3:8080", "10.0.0.4:8080"), serving=0),
}


def run(directory: Path, *names: str, told: Told, answer: str | None = None) -> Result:
    with daemon(directory, told=told) as file:
        return CliRunner().invoke(lvsctl, ["release", *names, "-c", str(file)], input=answer)


def told(status: Status = HELD, **outcomes: Released) -> Told:
    return Told(status, OUTCOMES | outcomes)


def test_it_says_what_leaves_and_what_is_left(tmp_path: Path) -> None:
    asked = told()
    result = run(tmp_path, "reco", "shop", "reco", told=asked)
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "reco: 1 real server leaves, 1 other serves",
        "  10.0.0.2:8080",
        "shop: 2 real servers leave, nothing serves",
        "  10.0.0.3:8080",
        "  10.0.0.4:8080",
    ]
    assert [name for name, _ in asked.asked] == ["reco", "shop"]


def test_where_nothing_is_held_that_is_said_and_all_is_well(tmp_path: Path) -> None:
    result = run(tmp_path, "reco", told=told(reco=Released(name="reco", real_servers=(), serving=2)))
    assert (result.exit_code, result.output) == (0, "reco: nothing is held\n")


def test_it_says_who_was_damped_and_comes_back(tmp_path: Path) -> None:
    let_in = Released(name="reco", real_servers=(), serving=2, let_in=("10.0.0.2:8080",))
    result = run(tmp_path, "reco", told=told(reco=let_in))
    assert result.exit_code == 0
    assert result.output.splitlines() == ["reco: 1 real server comes back, no longer damped", "  10.0.0.2:8080"]
    both = attrs.evolve(OUTCOMES["reco"], let_in=("10.0.0.3:8080", "10.0.0.4:8080"))
    assert run(tmp_path, "reco", told=told(reco=both)).output.splitlines() == [
        "reco: 2 real servers come back, no longer damped",
        "  10.0.0.3:8080",
        "  10.0.0.4:8080",
        "reco: 1 real server leaves, 1 other serves",
        "  10.0.0.2:8080",
    ]


def test_what_the_kernel_refuses_is_said(tmp_path: Path) -> None:
    refused = attrs.evolve(OUTCOMES["reco"], refused="no memory (ENOMEM)")
    result = run(tmp_path, "reco", told=told(reco=refused))
    assert (result.exit_code, result.output) == (1, "reco: 1 real server could not be released: no memory (ENOMEM)\n")


def test_an_unknown_name_releases_nothing_and_names_those_there_are(tmp_path: Path) -> None:
    asked = told()
    result = run(tmp_path, "reco", "rec", told=asked)
    assert result.exit_code == 2
    assert "no virtual server 'rec'; there are: reco" in result.output
    assert asked.asked == []


@pytest.mark.parametrize(
    ("answer", "code", "last"),
    [("n\n", 1, "nothing was released"), ("\n", 1, "nothing was released"), ("y\n", 0, "  10.0.0.4:8080")],
)
def test_at_a_terminal_it_asks_before_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, last: str
) -> None:
    monkeypatch.setattr(release_module, "_is_asked", lambda: True)
    result = run(tmp_path, "shop", told=told(), answer=answer)
    assert "nothing would serve any more: shop" in result.output
    assert (result.exit_code, result.output.splitlines()[-1]) == (code, last)
    quiet = run(tmp_path, "shop", "--yes", told=told())
    assert (quiet.exit_code, "nothing would serve" in quiet.output) == (0, False)


def test_without_a_daemon_it_says_so(tmp_path: Path) -> None:
    file = tmp_path / "lvsctl.toml"
    file.write_text(
        f'[daemon]\ncontrol_socket = "{tmp_path}/none.sock"\n[virtual_server.reco]\naddress = "10.9.0.100:80"\n'
    )
    result = CliRunner().invoke(lvsctl, ["release", "reco", "-c", str(file)])
    assert result.exit_code == 8
    assert "no daemon answers" in result.output

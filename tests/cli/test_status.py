"""The screen, the JSON and the exit code of `lvsctl status`; what the daemon says comes over a real socket."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner, Result

from lvsctl.cli import status as status_module
from lvsctl.cli.status import command, exit_code
from lvsctl.cli.status_screen import render
from lvsctl.core.status import KernelStatus, RefusedDeclaration, State, Status
from tests.statuses import CONSUL, FULL, RECO, SHOP, TIME, daemon


@pytest.fixture(autouse=True)
def _in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Show times of day in UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


HEADER = [
    "lvsctl   0.1.0 on director1, active, up 2 h 5 min",
    "consul   reachable at http://127.0.0.1:8500 over HTTP/1.1, data 2 s old",
    "kernel   in sync since 22:10:08 (3 min 12 s)",
    "foreign  2 virtual servers, never touched",
    "",
]
TABLE = [
    "NAME  CONSUL SERVICE  ADDRESS              SCHEDULER  FORWARDING    SERVING  STATE     ACTIVE  INACTIVE  CONN/S",
    "reco  reco            tcp 10.9.0.100:80    wlc        masquerade        2/2  ok            30         3       3",
    "shop  shop-v2         tcp [fd00:9::1]:443  sh flag-1  direct-route      1/2  degraded    1200       340      56",
]
RECO_ROWS = [
    "  REAL SERVER    NODE  INSTANCE  CHECK    STATE    WEIGHT  ACTIVE  INACTIVE  CONN/S  WHY",
    "  10.0.0.1:8080  app1  reco-1    passing  serving       1      10         1       1",
    "  10.0.0.2:8080  app2  reco-2    passing  serving       1      20         2       2",
]
SHOP_WHY = r"check 'HTTP' is critical: \x1b[31mno\x1b[0m\r\nanswer"
SHOP_ROWS = [
    "  REAL SERVER    NODE  INSTANCE  CHECK     STATE     WEIGHT  ACTIVE  INACTIVE  CONN/S  WHY",
    "  10.0.0.3:8080  app3  reco-3    passing   serving        1      30         3       3",
    "  10.0.0.4:8080  app4  reco-4    critical  draining       0      40         4       4  " + SHOP_WHY,
]


REFUSED = RefusedDeclaration(consul_service="sh\x1b[2Jop", name="sh.1", kept="tcp 10.9.1.2:80", why="lvs-x: no\nkey")


def test_the_screen() -> None:
    assert render(FULL) == [*HEADER, *TABLE]


def test_refused_declarations_are_below_the_table() -> None:
    other = attrs.evolve(REFUSED, consul_service="blog", kept="", why="tcp 10.9.1.2:80 belongs to others")
    shown = render(attrs.evolve(FULL, refused_declarations=(REFUSED, other)))
    assert shown == [
        *HEADER,
        *TABLE,
        "",
        "refused declarations:",
        "  CONSUL SERVICE  KEPT             WHY",
        r"  sh\x1b[2Jop     tcp 10.9.1.2:80  lvs-x: no\nkey",
        "  blog            -                tcp 10.9.1.2:80 belongs to others",
    ]


def test_the_wide_screen() -> None:
    assert render(FULL, with_real_servers=True, wide=True) == [
        *HEADER[:2],
        "         HTTP/1.1: 2 fit into the 90 that the agent's limit of 200 connections leaves us",
        *HEADER[2:],
        *TABLE,
        "",
        "reco  tcp 10.9.0.100:80",
        *RECO_ROWS,
        "",
        "shop  tcp [fd00:9::1]:443",
        *SHOP_ROWS,
        "",
        "foreign, never touched:",
        "  tcp 192.0.2.1:22",
        "  mark 9",
    ]


def test_the_datacenters_are_a_column_where_there_are_several() -> None:
    here, there = RECO.real_servers[0], attrs.evolve(RECO.real_servers[1], datacenter="dc2")
    stray = attrs.evolve(here, real_server="10.0.0.9:8080", node="", instance="", check="")
    row = attrs.evolve(RECO, datacenter="dc2", failed_over=True, real_servers=(there, here, stray))
    shown = render(attrs.evolve(FULL, virtual_servers=(row,)), with_real_servers=True)
    assert shown[-4:] == [
        "  REAL SERVER    DATACENTER  NODE  INSTANCE  CHECK    STATE    WEIGHT  ACTIVE  INACTIVE  CONN/S  WHY",
        "  10.0.0.2:8080  dc2         app2  reco-2    passing  serving       1      20         2       2",
        "  10.0.0.1:8080  own         app1  reco-1    passing  serving       1      10         1       1",
        "  10.0.0.9:8080  -           -     -         -        serving       1      10         1       1",
    ]


def header(status: Status) -> dict[str, str]:
    lines = render(status)
    return dict(line.split(maxsplit=1) for line in lines[: lines.index("")])


def test_consul_in_trouble() -> None:
    failing = attrs.evolve(
        CONSUL, reachable=False, data_age=130.0, failing=2, failing_since=TIME - 125, error="connection refused\x1b[2J"
    )
    words = header(attrs.evolve(FULL, consul=failing))["consul"]
    assert words == (r"unreachable for 2 min 5 s, data 2 min 10 s old, the table is kept: connection refused\x1b[2J")
    one = attrs.evolve(failing, reachable=True, failing=1)
    assert header(attrs.evolve(FULL, consul=one))["consul"].startswith("1 Consul service failing for 2 min 5 s")
    two = attrs.evolve(failing, reachable=True, data_age=None)
    assert header(attrs.evolve(FULL, consul=two))["consul"].startswith(
        "2 Consul services failing for 2 min 5 s, not everything answered yet"
    )


def test_how_consul_is_asked() -> None:
    signals = attrs.evolve(
        CONSUL,
        transport="HTTP/1.1 with signals",
        transport_why="300 do not fit into 90",
        transport_remedy="raise it",
    )
    lines = render(attrs.evolve(FULL, consul=signals))
    assert lines[1:3] == [
        "consul   reachable at http://127.0.0.1:8500 over HTTP/1.1 with signals, data 2 s old",
        "         300 do not fit into 90; raise it",
    ]


@pytest.mark.parametrize(("age", "words"), [(185.0, "3 min 5 s ago"), (8 * 86400.0, "8 d 0 h ago, which is OLD")])
def test_a_snapshot_that_stands_in_for_consul_shows_its_age(age: float, words: str) -> None:
    away = attrs.evolve(
        CONSUL, reachable=False, data_age=None, failing=2, failing_since=TIME - 5, error="refused", snapshot_age=age
    )
    assert header(attrs.evolve(FULL, consul=away))["consul"] == (
        f"unreachable for 5 s, not everything answered yet, what is empty is filled from the snapshot of {words}, "
        "the table is kept: refused"
    )


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        (KernelStatus(in_sync_since=None, pending=1), "1 change to make"),
        (KernelStatus(in_sync_since=None, pending=2), "2 changes to make"),
        (KernelStatus(in_sync_since=None, pending=0), "not reconciled yet"),
        (KernelStatus(in_sync_since=None, pending=0, error="no"), "cannot be reconciled: no"),
    ],
)
def test_the_kernel(kernel: KernelStatus, words: str) -> None:
    assert header(attrs.evolve(FULL, kernel=kernel))["kernel"] == words


def test_a_refused_reload() -> None:
    refused = attrs.evolve(FULL, config_error="a.toml:1: first\na.toml:2: second")
    assert header(refused)["config"] == (
        "the last reload was refused, the old one is kept: a.toml:1: first (and 1 more; lvsctl check shows them)"
    )


def test_a_reload_that_was_rolled_back() -> None:
    back = attrs.evolve(FULL, config_error="not confirmed within 60 s", rolled_back=True)
    assert header(back)["config"] == (
        "the last reload was rolled back, the one before it is in use: not confirmed within 60 s"
    )


def test_a_reload_that_is_to_be_confirmed() -> None:
    waits = attrs.evolve(FULL, confirm_until=FULL.time + 42)
    at = time.strftime("%H:%M:%S", time.localtime(FULL.time + 42))
    assert header(waits)["config"] == (
        f"taken back at {at} (in 42 s) unless it is confirmed: lvsctl reload --keep, or --revert"
    )
    both = render(attrs.evolve(waits, config_error="bad"))
    assert [line.split(maxsplit=3)[:2] for line in both if "config" in line or "refused" in line] == [
        ["config", "taken"],
        ["the", "last"],
    ]


def test_a_note_stands_at_the_end_of_its_row() -> None:
    noted = attrs.evolve(RECO, state=State.HELD, note="nothing passes\x07")
    line = render(attrs.evolve(FULL, virtual_servers=(noted,)))[-1]
    assert line.endswith(r"held       30         3       3  nothing passes\x07")


def test_nothing_at_all() -> None:
    bare = attrs.evolve(FULL, virtual_servers=(), foreign=())
    assert render(bare)[-1] == "no virtual servers"
    assert header(bare)["foreign"] == "none"


def test_without_a_daemon() -> None:
    row = attrs.evolve(RECO, name="", consul_service="")
    alone = attrs.evolve(
        FULL,
        role="no daemon",
        started=None,
        consul=None,
        kernel=KernelStatus(in_sync_since=None, pending=0, error="no daemon answers on x: refused"),
        virtual_servers=(row,),
        foreign=(),
    )
    assert render(alone) == [
        "lvsctl  0.1.0 on director1, no daemon",
        "        no daemon answers on x: refused; this is the kernel's own table",
        "",
        "NAME  ADDRESS            SCHEDULER  FORWARDING  SERVING  STATE  ACTIVE  INACTIVE  CONN/S",
        "-     tcp 10.9.0.100:80  wlc        masquerade      2/2  ok         30         3       3",
    ]
    assert exit_code(alone) == 8


# --- the exit code --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", list(State))
def test_the_exit_code_of_each_state(state: State) -> None:
    fine = {State.OK, State.DEGRADED, State.LEAVING}
    row = attrs.evolve(RECO, state=state)
    assert exit_code(attrs.evolve(FULL, virtual_servers=(row, SHOP))) == (0 if state in fine else 1)


@pytest.mark.parametrize(
    "trouble",
    [
        {"kernel": KernelStatus(in_sync_since=None, pending=0, error="no")},
        {"config_error": "bad"},
        {"confirm_until": FULL.time + 42},
        {"refused_declarations": (REFUSED,)},
        {"consul": attrs.evolve(CONSUL, failing=1)},
    ],
)
def test_the_exit_code_of_other_troubles(trouble: dict[str, object]) -> None:
    assert exit_code(attrs.evolve(FULL, **trouble)) == 1  # type: ignore[arg-type]
    assert exit_code(FULL) == 0


# --- the command ----------------------------------------------------------------------------------------------------


def run(file: Path, *arguments: str) -> Result:
    return CliRunner().invoke(command, ["-c", str(file), *arguments])


def test_the_command_asks_the_daemon(tmp_path: Path) -> None:
    with daemon(tmp_path) as file:
        result = run(file)
        assert (result.exit_code, result.stdout.splitlines()) == (0, [*HEADER, *TABLE])
        wide = run(file, "-o", "wide")
        assert wide.stdout.splitlines() == render(FULL, with_real_servers=True, wide=True)


def test_the_command_with_a_name(tmp_path: Path) -> None:
    with daemon(tmp_path) as file:
        assert run(file, "shop").stdout.splitlines()[-len(SHOP_ROWS) :] == SHOP_ROWS
        unknown = run(file, "sh\x1b[2Jop")
        assert unknown.exit_code == 2
        assert r"there are: reco, shop" in unknown.stderr
        assert "\x1b" not in unknown.stderr


def test_the_command_in_json(tmp_path: Path) -> None:
    with daemon(tmp_path) as file:
        document = json.loads(run(file, "-o", "json").stdout)
        assert document["schema"] == "lvsctl.status/1"
        assert [row["name"] for row in document["virtual_servers"]] == ["reco", "shop"]
        one = json.loads(run(file, "shop", "-o", "json").stdout)
        assert [row["name"] for row in one["virtual_servers"]] == ["shop"]
        assert "\x1b" not in run(file, "-o", "json").stdout


def test_the_command_exits_1_when_something_wants_attention(tmp_path: Path) -> None:
    with daemon(tmp_path, attrs.evolve(FULL, config_error="bad")) as file:
        assert run(file).exit_code == 1


def test_the_module_says_what_the_codes_mean() -> None:
    assert "8 no daemon answers" in status_module.EPILOG

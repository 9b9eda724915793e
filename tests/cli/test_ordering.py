"""`lvsctl drain` and the like: what they ask of the daemon, what they say, and how they end."""

import socket
import time
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner, Result

from lvsctl import control
from lvsctl.cli import lvsctl, ordering
from lvsctl.core.order import Wish
from lvsctl.core.status import OrderedRealServer, OrderGiven, OrderStatus, Place, Status
from lvsctl.errors import OrderRefused
from tests.statuses import FULL, TIME, Told, daemon

LEAVING = OrderedRealServer(
    virtual_server="reco",
    real_server="10.0.0.1:8080",
    node="app1",
    instance="reco-1",
    place=Place.DRAINING,
    active=2,
    inactive=1,
    until=TIME + 30,
)
DRAIN = OrderStatus(
    order="drain", target="node app1", by="alice", reason="", written=TIME, until=None, real_servers=(LEAVING,)
)
GIVEN = OrderGiven(order=DRAIN)


def run(directory: Path, *words: str, told: Told, answer: str | None = None) -> Result:
    with daemon(directory, told=told) as file:
        return CliRunner().invoke(lvsctl, [words[0], "-c", str(file), *words[1:]], input=answer)


def at(place: Place, **changes: object) -> OrderStatus:
    """Return the drain with its real server at `place`."""
    return attrs.evolve(DRAIN, real_servers=(attrs.evolve(LEAVING, place=place, **changes),))  # type: ignore[arg-type]


@attrs.define
class Moving(Told):
    """A daemon whose status is another one each time; the last one stays."""

    shown: list[Status] = attrs.field(factory=list)

    async def status(self, about: object = None) -> Status:
        """Return the next."""
        del about
        return self.shown.pop(0) if len(self.shown) > 1 else self.shown[0]


def waiting(directory: Path, *orders: OrderStatus | None, more: tuple[str, ...] = ()) -> Result:
    """Return what `drain --wait` says while the order goes through `orders`; None: it is gone."""
    shown = [attrs.evolve(FULL, orders=(each,) if each else ()) for each in orders]
    return run(directory, "drain", "app1", "--wait", *more, told=Moving(FULL, given=GIVEN, shown=shown))


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordering, "POLL", 0.0)
    monkeypatch.delenv("SUDO_USER", raising=False)


def test_what_is_typed_is_what_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(FULL, given=GIVEN)
    monkeypatch.setenv("SUDO_USER", "alice")
    words = ("drain", "app1", "--as", "node", "--reason", "why", "--for", "90s", "--ahead", "--yes")
    assert run(tmp_path, *words, told=told).exit_code == 0
    assert run(tmp_path, "undrain", "app1", told=told).exit_code == 0
    drain = Wish(
        order="drain", target="app1", kind="node", reason="why", seconds=90.0, ahead=True, force=True, user="alice"
    )
    assert told.wishes == [
        (drain, "alice as root", False),
        (Wish(order="drain", target="app1", user="alice"), "alice as root", True),
    ]


def test_an_order_that_is_refused_as_unknown_is_wrong_usage(tmp_path: Path) -> None:
    for words in (("drain", "x"), ("undrain", "x"), ("hold", "x"), ("pause", "x"), ("resume",)):
        result = run(tmp_path, *words, told=Told(FULL))
        assert (result.exit_code, result.output.splitlines()[-1]) == (2, "Error: no such target")


@attrs.define
class Emptying(Told):
    """A daemon that refuses what is not forced."""

    async def order(self, wish: Wish, by: str, *, end: bool) -> OrderGiven:
        """Refuse, or return what it was made with."""
        if not wish.force:
            raise OrderRefused("nothing else would serve: reco (10.0.0.1:8080)", empties=True)
        return await super().order(wish, by, end=end)


def test_at_a_terminal_it_asks_where_nothing_else_would_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Emptying(FULL, given=attrs.evolve(GIVEN, order=at(Place.HELD)))
    result = run(tmp_path, "drain", "app1", told=told)
    assert (result.exit_code, told.wishes) == (1, [])
    monkeypatch.setattr(ordering, "_is_asked", lambda: True)
    result = run(tmp_path, "drain", "app1", told=told, answer="n\n")
    assert (result.exit_code, told.wishes) == (1, [])
    assert result.output.splitlines() == [
        "nothing else would serve: reco (10.0.0.1:8080)", "Do it all the same? [y/N]: n", "nothing was changed",
    ]  # fmt: skip
    result = run(tmp_path, "drain", "app1", told=told, answer="y\n")
    assert result.exit_code == 0
    assert result.output.splitlines()[-1] == "reco: the last ones stay; lvsctl release reco lets them go"
    assert [wish.force for wish, _, _ in told.wishes] == [True]


def test_waiting_ends_when_it_is_out(tmp_path: Path) -> None:
    result = waiting(tmp_path, DRAIN, DRAIN, at(Place.DRAINING, active=0), at(Place.OUT))
    assert result.exit_code == 0
    assert result.output.splitlines()[-1] == "out: node app1 after 0 s"


def test_waiting_says_what_was_cut_off_at_the_deadline(tmp_path: Path) -> None:
    result = waiting(tmp_path, DRAIN, at(Place.OUT))
    assert result.exit_code == 0
    assert result.output.splitlines()[-1] == ("out: node app1 after 0 s; 2 active connections seen just before the end")


@pytest.mark.parametrize(
    ("then", "said"),
    [
        (None, "node app1 is drained no longer: the order was ended, or its time is over"),
        (at(Place.HELD), "node app1 stays drained, but 1 real server will not leave; lvsctl release reco lets go"),
        (at(Place.SERVING, why="another"), "node app1 stays drained, but 1 real server will not leave"),
        (at(Place.DRAINING, paused="paused by bob"), "nothing is written: paused by bob; lvsctl resume ends that"),
    ],
)
def test_waiting_ends_honestly_where_it_will_not_leave(tmp_path: Path, then: OrderStatus | None, said: str) -> None:
    result = waiting(tmp_path, DRAIN, then)
    assert result.exit_code == 1
    assert said in result.output.splitlines()[-1]


def test_waiting_ends_at_its_time_and_says_that_the_drain_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordering, "LINE", 0.2)
    monkeypatch.setattr(ordering, "POLL", 0.05)
    result = waiting(tmp_path, DRAIN, more=("--timeout", "1s"))
    assert result.exit_code == 1
    progress = "1 of 1 real server left, 2 active and 1 inactive connections, deleted in 0 s at the latest"
    lines = result.output.splitlines()
    assert lines[-1] == f"node app1 stays drained, and is not out after 1 s: {progress}"
    assert 2 <= lines.count(progress) <= 5, "a line now and then where there is no terminal"


def test_ctrl_c_ends_the_waiting_and_not_the_drain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupted)
    result = waiting(tmp_path, DRAIN)
    assert result.exit_code == 130
    assert result.output.splitlines()[-1] == (
        "not waiting any longer; node app1 stays drained: lvsctl undrain ends that"
    )


def test_ctrl_c_before_the_daemon_answers_says_that_it_may_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_path: Path, _wish: Wish) -> OrderGiven:
        raise KeyboardInterrupt

    monkeypatch.setattr(control, "order", interrupted)
    result = run(tmp_path, "drain", "app1", told=Told(FULL))
    assert result.exit_code == 130
    assert result.output.endswith("lvsctl: the daemon may have taken it; lvsctl status shows every order\n")


def test_a_daemon_that_is_restarted_meanwhile_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = [attrs.evolve(FULL, orders=(each,)) for each in (DRAIN, at(Place.OUT))]
    socket = tmp_path / "control.sock"
    away = iter([socket, tmp_path / "none", tmp_path / "none", socket])
    ask = control.ask
    monkeypatch.setattr(control, "ask", lambda _: ask(next(away)))
    result = run(tmp_path, "drain", "app1", "--wait", told=Moving(FULL, given=GIVEN, shown=shown))
    assert result.exit_code == 0, result.output
    monkeypatch.setattr(control, "ask", lambda _: ask(tmp_path / "none"))
    monkeypatch.setattr(ordering, "AWAY", 0.1)
    monkeypatch.setattr(ordering, "POLL", 0.05)
    result = run(tmp_path, "drain", "app1", "--wait", told=Moving(FULL, given=GIVEN, shown=shown))
    assert (result.exit_code, "no daemon answers on" in result.output) == (8, True)


def test_what_is_shown_is_safe_to_show(tmp_path: Path) -> None:
    hostile = attrs.evolve(
        at(Place.DRAINING, instance="\x1b[31mreco\r\n", node="\u202eapp"),
        target="node \x1b]0;x\x07",
        reason="a\nb",
        by="\x00",
    )
    told = Told(
        attrs.evolve(FULL, orders=(hostile,)),
        given=attrs.evolve(GIVEN, order=hostile, replaced=hostile, left=("\x1b",)),
    )
    for words in (
        ("drain", "x"),
        ("undrain", "x"),
        ("drain",),
        ("status",),
        ("hold", "x"),
        ("pause", "x"),
        ("resume",),
    ):
        result = run(tmp_path, *words, told=told)
        assert result.exit_code in (0, 1)
        assert result.output
        assert all(each == "\n" or each.isprintable() for each in result.output), words


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"order": "dance"}', 400),
        (b'{"order": "drain", "seconds": "long"}', 400),
        (b"", 400),
        (b"[" * 10_000, 400),
        (b'{"order": "drain", "target": "' + b"x" * (1 << 17) + b'"}', 413),
    ],
)
def test_what_is_no_wish_is_refused_by_the_socket(tmp_path: Path, body: bytes, expected: int) -> None:
    told = Told(FULL, given=GIVEN)
    with daemon(tmp_path, told=told), socket.socket(socket.AF_UNIX) as asking:
        asking.connect(str(tmp_path / "control.sock"))
        asking.sendall(
            b"POST /v1/orders HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        assert asking.recv(1000).startswith(b"HTTP/1.1 %d " % expected)
    assert told.wishes == []

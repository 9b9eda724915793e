"""What `drain`, `undrain`, `hold`, `pause` and `resume` ask of the daemon, show, and wait for."""

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, NoReturn

import attrs
import click

from lvsctl import control
from lvsctl.cli.cells import fit
from lvsctl.cli.columns import clock, columns, count, span
from lvsctl.cli.order_rows import ENDED_BY, order_rows
from lvsctl.config_types import Wrong, duration
from lvsctl.core.drain_watch import UNHEARD, as_it_stands, is_unheard
from lvsctl.core.order import Wish
from lvsctl.core.status import OrderedRealServer, OrderGiven, OrderStatus, Place, Status
from lvsctl.errors import DaemonError, OrderRefused
from lvsctl.text import visible

LONGEST: Final = 366 * 86400.0  # seconds; the daemon allows a pause less
POLL: Final = 1.0  # seconds between looks while waiting
LINE: Final = 5.0  # seconds between lines of progress where there is no terminal
AWAY: Final = 60.0  # seconds for which a daemon may be away while somebody waits: it is restarted, or upgraded
NOTHING: Final = "-"

Kind = Literal["", "address", "node", "instance"]


def give(path: Path, wish: Wish, *, empties: str = "") -> OrderGiven:
    """Have the daemon of the file `path` take an order, and return what it does.

    At a terminal it asks once more where nothing would serve, in the words `empties`; elsewhere that is refused.
    """
    socket = _socket(path)
    wish = attrs.evolve(wish, user=_user())
    try:
        return control.order(socket, wish)
    except KeyboardInterrupt:
        click.echo("\nlvsctl: the daemon may have taken it; lvsctl status shows every order", err=True)
        raise
    except OrderRefused as refused:
        if refused.unknown:
            raise click.UsageError(str(refused)) from refused
        if not refused.empties:
            raise
        said = str(refused)
    click.echo(visible(said), err=True)
    if not _is_asked():
        _declined(f"nothing was changed; {empties}")
    if not click.confirm("Do it all the same?"):
        _declined("nothing was changed")
    return control.order(socket, attrs.evolve(wish, force=True))


def end(path: Path, wish: Wish) -> OrderGiven:
    """Have the daemon of the file `path` end an order, and return what there was."""
    try:
        return control.order(_socket(path), attrs.evolve(wish, user=_user()), end=True)
    except OrderRefused as refused:
        if refused.unknown:
            raise click.UsageError(str(refused)) from refused
        raise


def seconds_of(text: str | None, option: str = "--for") -> float | None:
    """Return how long `text`, like `30m`, is, in seconds; None for None. Raises click.UsageError."""
    if text is None:
        return None
    try:
        return duration(1, LONGEST, "2h").read(text)
    except Wrong as wrong:
        raise click.UsageError(f"{option}: {wrong.wrong}; {wrong.remedy}") from None


# --- showing --------------------------------------------------------------------------------------------------------


def listing(path: Path, orders: Sequence[str]) -> list[str]:
    """Return a row for each order of these kinds, as the daemon has them."""
    status = control.ask(_socket(path))
    return table(status, orders)


def table(status: Status, orders: Sequence[str]) -> list[str]:
    """Return a row for each order of these kinds, and what is wrong with them all."""
    shown = [each for each in status.orders if each.order in orders]
    lines = order_rows(shown, status.time) if shown else [f"no {' or '.join(orders)} is ordered"]
    return [*lines, *([visible(status.orders_error)] if status.orders_error else [])]


def drained(given: OrderGiven, now: float) -> list[str]:
    """Return what to say of a drain that was given."""
    order = given.order
    leaving = [each for each in order.real_servers if each.place is Place.DRAINING]
    kept = [each for each in order.real_servers if each.place is Place.HELD]
    verb = "leaves" if len(leaving) == 1 else "leave"
    does = f"{count(len(leaving), 'real server')} {verb}" if leaving else "nothing leaves"
    if not order.real_servers:
        does = "nothing matches yet"
    lines = [visible(f"{order.target} is drained {_until(order, now)}: {does}{_replacing(given, now)}")]
    lines += _real_servers(order.real_servers)
    if given.paused:
        lines.append(visible(f"nothing is written yet: {given.paused}; lvsctl resume ends that"))
    for name in sorted({each.virtual_server for each in kept}):
        lines.append(visible(f"{name}: the last ones stay; lvsctl release {name} lets them go"))
    return lines


def undrained(given: OrderGiven) -> list[str]:
    """Return what to say of a drain that was ended."""
    order = given.order
    number = len({(each.node, each.instance) if each.instance else each.real_server for each in order.real_servers})
    does = f"{count(number, 'instance')} may serve again" if number else "nothing matched"
    lines = [visible(f"{order.target} is no longer drained ({_was(order)}): {does}")]
    if given.left:
        lines.append(visible(f"some of it is still out: {', '.join(given.left)} (lvsctl drain shows them)"))
    if given.paused:
        lines.append(visible(f"nothing is written yet: {given.paused}; lvsctl resume ends that"))
    return lines


def held(given: OrderGiven, now: float) -> list[str]:
    """Return what to say of a hold that was given."""
    order = given.order
    lines = [
        visible(
            f"{order.target} is held {_until(order, now)}: nothing leaves it on Consul's word"
            f"{_replacing(given, now)}; lvsctl release {order.target} ends it"
        )
    ]
    return [*lines, *_foreign(given), *_real_servers(order.real_servers)]


def paused(given: OrderGiven, now: float) -> list[str]:
    """Return what to say of a pause that was given."""
    order = given.order
    waiting = f", {count(order.changes, 'change')} wait" if order.changes else ""
    name = "" if order.target == "everything" else f" {order.target}"
    return [
        visible(
            f"{order.target} is paused {_until(order, now)}: nothing is written{waiting}{_replacing(given, now)}; "
            f"lvsctl resume{name} ends it"
        ),
        *_foreign(given),
    ]


def resumed(given: OrderGiven) -> list[str]:
    """Return what to say of a pause that was ended."""
    order = given.order
    changes = f": {count(order.changes, 'change')} to make" if order.changes else ""
    lines = [visible(f"{order.target} is paused no longer ({_was(order)}){changes}")]
    if given.paused and order.target != "everything":
        lines.append(visible(f"nothing is written yet: everything is {given.paused}; lvsctl resume ends that"))
    return lines


def _foreign(given: OrderGiven) -> list[str]:
    """Return that an order does nothing while what it is about is foreign, where it is."""
    name = given.order.target
    return [visible(f"{name} is foreign: lvsctl does not touch it before lvsctl adopt {name}")] if given.foreign else []


def _until(order: OrderStatus, now: float) -> str:
    if order.until is not None:
        return f"until {clock(order.until, now)} ({span(order.until - order.written)})"
    return f"until it is {ENDED_BY[order.order]}"


def _replacing(given: OrderGiven, now: float) -> str:
    before = given.replaced
    if before is None:
        return ""
    until = f" until {clock(before.until, now)}" if before.until is not None else ""
    return f" (in place of the {before.order} by {before.by}{until}{f': {before.reason}' if before.reason else ''})"


def _was(order: OrderStatus) -> str:
    return f"it was by {order.by}{f': {order.reason}' if order.reason else ''}"


def _real_servers(found: Sequence[OrderedRealServer]) -> list[str]:
    return columns(
        [
            [
                f"  {each.virtual_server}",
                each.real_server or NOTHING,
                each.instance or NOTHING,
                each.place.value,
                f"{each.active} active, {each.inactive} inactive" if each.place is not Place.OUT else "",
                each.why if each.place in (Place.HELD, Place.SERVING, Place.QUIESCED, Place.PENDING) else "",
            ]
            for each in found
        ]
    )


# --- waiting --------------------------------------------------------------------------------------------------------


def wait(path: Path, order: OrderStatus, timeout: float | None) -> int:
    """Return the exit code when what `order` drains is out of the table, or will not leave; shows how far it is.

    Ctrl-C ends the waiting and not the drain.
    """
    try:
        return _wait(_socket(path), order, timeout)
    except KeyboardInterrupt:
        _clear()
        click.echo(visible(f"not waiting any longer; {order.target} stays drained: lvsctl undrain ends that"), err=True)
        raise


def _wait(socket: Path, order: OrderStatus, timeout: float | None) -> int:
    began = heard = time.monotonic()
    shown, most = began, order
    while True:
        now, said = time.monotonic(), "the daemon does not answer; it is waited for"
        status = _asked(socket, away=now - heard)
        if status is not None:
            heard = time.monotonic()
            its = next(
                (each for each in status.orders if (each.order, each.target) == (order.order, order.target)), None
            )
            if its is None:
                return _ended(f"{order.target} is drained no longer: the order was ended, or its time is over", 1)
            most = as_it_stands(its, status, before := most)
            code = _code(most, before, status, now - began)
            if code is not None:
                return code
            said = UNHEARD if is_unheard(most, status) else _progress(most)
        if timeout is not None and now - began >= timeout:
            return _ended(f"{order.target} stays drained, and is not out after {span(timeout)}: {said}", 1)
        if sys.stdout.isatty():
            _show(said)
        elif now - shown >= LINE:
            shown = now
            click.echo(said)
        time.sleep(POLL)


def _asked(socket: Path, *, away: float) -> Status | None:
    """Return how everything stands; None where the daemon does not say, raises DaemonError where it is `away` long."""
    try:
        return control.ask(socket)
    except DaemonError:
        if away > AWAY:
            raise
        return None


def _code(order: OrderStatus, before: OrderStatus, status: Status, seconds: float) -> int | None:
    """Return the exit code where there is nothing to wait for any more, having said so; else None."""
    if is_unheard(order, status):
        return None
    left = [each for each in order.real_servers if each.place is not Place.OUT]
    if not left:
        cut = sum(each.active for each in before.real_servers if each.place is Place.DRAINING)
        rest = f"; {count(cut, 'active connection')} seen just before the end" if cut else ""
        return _ended(f"out: {order.target} after {span(seconds)}{rest}", 0)
    if whose := next((each.paused for each in left if each.paused), ""):
        return _ended(f"{order.target} does not leave now, nothing is written: {whose}; lvsctl resume ends that", 1)
    if any(each.place is Place.DRAINING for each in left):
        return None
    _clear()
    for line in _real_servers(left):
        click.echo(line)
    kept = sorted({each.virtual_server for each in left if each.place is Place.HELD})
    release = f"; lvsctl release {' '.join(kept)} lets go" if kept else ""
    return _ended(f"{order.target} stays drained, but {count(len(left), 'real server')} will not leave{release}", 1)


def _progress(order: OrderStatus) -> str:
    left = [each for each in order.real_servers if each.place is Place.DRAINING]
    active, inactive = sum(each.active for each in left), sum(each.inactive for each in left)
    ends = [each.until for each in left if each.until is not None]
    end = f", deleted in {span(max(ends) - time.time())} at the latest" if ends else ""
    total = count(len(order.real_servers), "real server")
    return f"{len(left)} of {total} left, {active} active and {inactive} inactive connections{end}"


def _ended(text: str, code: int) -> int:
    _clear()
    click.echo(visible(text), err=bool(code))
    return code


def _show(text: str) -> None:
    click.echo(f"\r{fit(text, shutil.get_terminal_size().columns - 1)}\x1b[K", nl=False)


def _clear() -> None:
    if sys.stdout.isatty():
        click.echo("\r\x1b[K", nl=False)


# --- asking ---------------------------------------------------------------------------------------------------------


def _socket(path: Path) -> Path:
    """Return where the daemon of the file `path` is asked; a file with mistakes hides nobody's daemon."""
    from lvsctl.cli.places import written
    from lvsctl.config import DaemonConfig
    from lvsctl.configfile import load
    from lvsctl.errors import ConfigError

    try:
        return load(path).daemon.control_socket
    except ConfigError:
        named = written(path, "control_socket")
        if named is None and not path.exists():
            raise
        return named or DaemonConfig().control_socket


def _user() -> str:
    import os

    return os.environ.get("SUDO_USER", "")[:64]


def _is_asked() -> bool:
    """Tell whether there is somebody to ask."""
    return sys.stdin.isatty()


def _declined(text: str) -> NoReturn:
    click.echo(text, err=True)
    sys.exit(1)

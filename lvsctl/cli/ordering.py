"""What `drain`, `undrain`, `hold`, `pause` and `resume` ask of the daemon, show, and wait for."""

import functools
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal, NoReturn, TypeVar

import attrs
import click

from lvsctl import control
from lvsctl.cli.cells import fit
from lvsctl.cli.columns import clock, columns, count, span
from lvsctl.cli.order_rows import ENDED_BY, order_rows
from lvsctl.config_types import Wrong, duration
from lvsctl.core.drain_watch import UNHEARD, as_it_stands, is_unheard
from lvsctl.core.order import FOR_THE_FLEET, Wish
from lvsctl.core.status import OrderedRealServer, OrderGiven, OrderStatus, Place, Status
from lvsctl.errors import DaemonError, OrderRefused
from lvsctl.text import visible

LONGEST: Final = 366 * 86400.0  # seconds; the daemon allows a pause less
POLL: Final = 1.0  # seconds between looks while waiting
LINE: Final = 5.0  # seconds between lines of progress where there is no terminal
AWAY: Final = 60.0  # seconds for which a daemon may be away while somebody waits: it is restarted, or upgraded
NOTHING: Final = "-"

T = TypeVar("T")
Show = Callable[[OrderGiven, float], list[str]]
Kind = Literal["", "address", "node", "instance"]


def give(path: Path, wish: Wish, *, empties: str = "") -> OrderGiven:
    """Have the daemon of the file `path` take an order, and return what it does."""
    return asked(path, wish, control.order, empties=empties)


def asked(path: Path, wish: Wish, ask: Callable[[Path, Wish], T], *, empties: str = "") -> T:
    """Return what the daemon of the file `path` answers to an order.

    At a terminal it asks once more where nothing would serve, in the words `empties`; elsewhere that is refused.
    """
    socket = socket_of(path)
    wish = attrs.evolve(wish, user=_user())
    try:
        return ask(socket, wish)
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
    return ask(socket, attrs.evolve(wish, force=True))


def end(path: Path, wish: Wish) -> OrderGiven:
    """Have the daemon of the file `path` end an order, and return what there was."""
    return asked_end(path, wish, functools.partial(control.order, end=True))


def asked_end(path: Path, wish: Wish, ask: Callable[[Path, Wish], T]) -> T:
    """Return what the daemon of the file `path` answers to the end of an order."""
    try:
        return ask(socket_of(path), attrs.evolve(wish, user=_user()))
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


def listing(path: Path, orders: Sequence[str], *, fleet: bool = False) -> list[str]:
    """Return a row for each order of these kinds, as the daemon has them; of the `fleet` alone where that is said."""
    status = control.ask(socket_of(path))
    if fleet:
        status = attrs.evolve(status, orders=tuple(each for each in status.orders if each.fleet), orders_error="")
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
    does = f"here {does}" if order.fleet else does
    lines = [visible(f"{order.target} is drained{_for(order)} {_until(order, now)}: {does}{_replacing(given, now)}")]
    lines += _real_servers(order.real_servers)
    if given.paused:
        lines.append(visible(f"nothing is written yet: {given.paused}; {_resume(given.paused)} ends that"))
    for name in sorted({each.virtual_server for each in kept}):
        lines.append(visible(f"{name}: the last ones stay; lvsctl release {name} lets them go"))
    return lines


def undrained(given: OrderGiven) -> list[str]:
    """Return what to say of a drain that was ended."""
    order = given.order
    number = len({(each.node, each.instance) if each.instance else each.real_server for each in order.real_servers})
    does = f"{count(number, 'instance')} may serve again" if number else "nothing matched"
    here = " here" if order.fleet else ""
    lines = [visible(f"{order.target} is no longer drained{_for(order)} ({_was(order)}): {does}{here}")]
    if given.left:
        lines.append(visible(f"some of it is still out: {', '.join(given.left)}; lvsctl drain shows them"))
    if given.paused:
        lines.append(visible(f"nothing is written yet: {given.paused}; {_resume(given.paused)} ends that"))
    return lines


def held(given: OrderGiven, now: float) -> list[str]:
    """Return what to say of a hold that was given."""
    order = given.order
    lines = [
        visible(
            f"{order.target} is held{_for(order)} {_until(order, now)}: nothing leaves it on Consul's word"
            f"{_replacing(given, now)}; lvsctl release {order.target}{_flag(order)} ends it"
        )
    ]
    return [*lines, *_foreign(given), *_real_servers(order.real_servers)]


def paused(given: OrderGiven, now: float) -> list[str]:
    """Return what to say of a pause that was given."""
    order = given.order
    here = " here" if order.fleet else ""
    waiting = f", {count(order.changes, 'change')} wait{here}" if order.changes else ""
    name = "" if order.target == "everything" else f" {order.target}"
    return [
        visible(
            f"{order.target} is paused{_for(order)} {_until(order, now)}: nothing is written{waiting}"
            f"{_replacing(given, now)}; lvsctl resume{name}{_flag(order)} ends it"
        ),
        *_foreign(given),
    ]


def resumed(given: OrderGiven) -> list[str]:
    """Return what to say of a pause that was ended."""
    order = given.order
    changes = f": {count(order.changes, 'change')} to make" if order.changes else ""
    here = " here" if order.fleet and changes else ""
    lines = [visible(f"{order.target} is paused no longer{_for(order)} ({_was(order)}){changes}{here}")]
    if given.left:
        lines.append(visible(f"nothing is written yet, it is still paused: {', '.join(given.left)}"))
    if given.paused and order.target != "everything":
        lines.append(
            visible(f"nothing is written yet: everything is {given.paused}; {_resume(given.paused)} ends that")
        )
    return lines


def unheld(given: OrderGiven) -> list[str]:
    """Return what to say of a hold for the fleet that was ended."""
    order = given.order
    lines = [visible(f"{order.target} is no longer held{_for(order)} ({_was(order)})")]
    if given.left:
        lines.append(visible(f"it is still held: {', '.join(given.left)}"))
    return lines


def told(path: Path, wish: Wish, show: Show, *, fleet: bool, empties: str = "") -> OrderGiven:
    """Have an order stand, here or on the whole `fleet`, say so with `show`, and return it.

    Exits with 1 where it is written and this director has not heard of it.
    """
    if not fleet:
        given = give(path, wish, empties=empties)
        click.echo("\n".join(show(given, time.time())))
        return given
    from lvsctl.cli import fleet as everywhere

    given, heard = everywhere.give(path, wish, empties=empties)
    click.echo("\n".join(show(given, time.time())))
    _conclude(everywhere.conclusion(heard=heard), heard=heard)
    return given


def told_end(path: Path, wish: Wish, show: Callable[[OrderGiven], list[str]], *, fleet: bool) -> None:
    """End an order, of this director or for the whole `fleet`, and say so with `show`; exits as `told` does."""
    if not fleet:
        click.echo("\n".join(show(end(path, wish))))
        return
    from lvsctl.cli import fleet as everywhere

    given, heard = everywhere.end(path, wish)
    click.echo("\n".join(show(given)))
    _conclude(everywhere.conclusion(heard=heard), heard=heard)


def _conclude(text: str, *, heard: bool) -> None:
    click.echo(text, err=not heard)
    if not heard:
        sys.exit(1)


def _for(order: OrderStatus) -> str:
    return FOR_THE_FLEET if order.fleet else ""


def _flag(order: OrderStatus) -> str:
    return " --fleet" if order.fleet else ""


def _resume(paused: str) -> str:
    """Return the command that ends the pause of these words, which are the daemon's."""
    return "lvsctl resume --fleet" if paused.startswith(f"paused{FOR_THE_FLEET}") else "lvsctl resume"


def _undrain(order: OrderStatus) -> str:
    return f"lvsctl undrain{_flag(order)}"


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
        return _wait(socket_of(path), order, timeout)
    except KeyboardInterrupt:
        _clear()
        click.echo(
            visible(f"not waiting any longer; {order.target} stays drained: {_undrain(order)} ends that"), err=True
        )
        raise


def _wait(socket: Path, order: OrderStatus, timeout: float | None) -> int:
    began = heard = time.monotonic()
    shown, most = began, order
    while True:
        now, said = time.monotonic(), "the daemon does not answer; it is waited for"
        status = _asked(socket, away=now - heard)
        if status is not None:
            heard = time.monotonic()
            its = next((each for each in status.orders if _is_same(each, order)), None)
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
        return _ended(f"{order.target} does not leave now, nothing is written: {whose}; {_resume(whose)} ends that", 1)
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


def _is_same(one: OrderStatus, other: OrderStatus) -> bool:
    return (one.order, one.target, one.fleet) == (other.order, other.target, other.fleet)


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


def socket_of(path: Path) -> Path:
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

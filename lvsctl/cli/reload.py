"""`lvsctl reload`: have the daemon use its file as it is now; or only for a while, until it is confirmed."""

import select
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from lvsctl.cli.options import config_file
from lvsctl.text import visible

if TYPE_CHECKING:
    from lvsctl.core.difference import Line
    from lvsctl.core.reload import PlannedLine, Reloaded

BACK: Final = 15.0  # seconds after the time to confirm in which the daemon says what became of it

EPILOG = """\b
The daemon reads the file that it was started with, shows what would change in
the kernel as lvsctl diff does, and uses it. A file with mistakes is not used, nor
is one that would take away more than half of the virtual servers or of the real
servers that serve now; then the configuration before stays in use.
\b
With --confirm the daemon goes back by itself, also when you are cut off, unless
you answer y here, or type lvsctl reload --keep, within that time.
\b
Exit codes: 0 in use, confirmed, or shown; 1 refused, taken back, or not confirmed;
2 wrong usage; 3 the file has mistakes; 4 (--dry-run) Consul did not answer for
everything; 8 no daemon answers, or it cannot now.
\b
Examples:
  lvsctl reload --dry-run         what would change? changes nothing
  lvsctl reload --confirm 60s     use it, and go back unless it is confirmed
  lvsctl reload --keep            it is confirmed
  lvsctl reload --allow-remove    yes, all that is to go
"""


@click.command(epilog=EPILOG, short_help="Use the file as it is now; show what that changes.")
@config_file
@click.option("--dry-run", is_flag=True, help="Show what would change, change nothing.")
@click.option("--allow-remove", is_flag=True, help="Also where most of what serves would go.")
@click.option("--confirm", metavar="DURATION", help="Go back after this, 60s, unless it is confirmed.")
@click.option("--keep", is_flag=True, help="Confirm what was reloaded with --confirm.")
@click.option("--revert", is_flag=True, help="Go back now, to what was there before --confirm.")
@click.pass_context
def command(
    context: click.Context,
    path: Path,
    *,
    dry_run: bool,
    allow_remove: bool,
    confirm: str | None,
    keep: bool,
    revert: bool,
) -> None:
    """Have the daemon use its file as it is now, and show what that changes in the kernel."""
    from lvsctl.cli.places import control_socket
    from lvsctl.control import reload
    from lvsctl.core.reload import Ask, Became, Order
    from lvsctl.errors import DaemonError

    others = dry_run or allow_remove or confirm is not None
    if (keep and revert) or ((keep or revert) and others):
        raise click.UsageError("--keep and --revert each stand alone")
    if dry_run and confirm is not None:
        raise click.UsageError("--dry-run changes nothing that could be confirmed")
    named = context.get_parameter_source("path") is not click.core.ParameterSource.DEFAULT
    order = Order(
        ask=Ask.KEEP if keep else Ask.REVERT if revert else Ask.RELOAD,
        file=str(path.absolute()) if named else "",
        allow_remove=allow_remove,
        dry_run=dry_run,
        confirm=None if confirm is None else _seconds(confirm),
    )
    socket = control_socket(path)
    try:
        outcome = reload(socket, order)
    except KeyboardInterrupt:
        if order.ask is Ask.RELOAD and not dry_run:
            click.echo("\nlvsctl: the daemon goes on with it; lvsctl status says what became of it", err=True)
        raise
    except DaemonError as error:
        raise DaemonError(f"{error}{_why_unheard(path, socket)}") from error
    for line in _plan_of(outcome):
        click.echo(line)
    for note in outcome.notes:
        click.echo(f"lvsctl: {visible(note)}", err=True)
    code = _say(outcome)
    if outcome.became is Became.USED and outcome.until is not None and _is_asked():
        code = _ask(socket, outcome.until)
    sys.exit(code)


def _why_unheard(path: Path, socket: Path) -> str:
    """Return what in the file may be why the daemon was not reached, or did not do it; empty where nothing is."""
    from lvsctl.cli.places import written

    if not path.exists():  # so it could not say where the daemon is
        return f"; {path}: there is no such file"
    if not socket.exists() and written(path, "control_socket") is not None:
        moved = "where control_socket was changed in the file, the daemon listens at the former one until a restart"
        return f"; {moved}; SIGHUP reloads the rest"
    return ""


def _seconds(text: str) -> float:
    """Return the time to confirm in, raises click.UsageError."""
    from lvsctl.config_types import Wrong, duration
    from lvsctl.core.reload import LONGEST, SHORTEST

    try:
        return duration(SHORTEST, LONGEST, "60s").read(text)
    except Wrong as wrong:
        raise click.UsageError(f"--confirm: {wrong.wrong}; {wrong.remedy}") from None


def _plan_of(outcome: "Reloaded") -> list[str]:
    """Return the plan as `lvsctl diff` shows it; nothing where there is none."""
    from lvsctl.cli.diff import render, summed_up
    from lvsctl.core.reload import Became

    seen = outcome.virtual_servers or outcome.lines
    if outcome.became not in {Became.USED, Became.PLANNED, Became.REFUSED} or not seen:
        return []
    lines = [_line(each) for each in outcome.lines]
    sizes = outcome.virtual_servers, outcome.real_servers
    return [*render(lines), summed_up(lines, *sizes, complete=outcome.complete)]


def _line(each: "PlannedLine") -> "Line":
    from lvsctl.core.cause import Cause, Kind
    from lvsctl.core.difference import Line, Sign

    return Line(
        sign=Sign[each.sign.upper()],
        name=each.name,
        virtual_server=each.virtual_server,
        real_server=each.real_server,
        what=each.what,
        cause=Cause(kind=Kind(each.cause), text=each.why),
        differs=each.differs,
    )


def _say(outcome: "Reloaded") -> int:
    """Say what became of it; return the exit code."""
    from lvsctl.cli.columns import count
    from lvsctl.core.reload import Became
    from lvsctl.errors import ConfigError, ConsulError

    file = visible(outcome.config)
    match outcome.became:
        case Became.INVALID:
            for problem in outcome.problems:
                click.echo(f"lvsctl: {visible(problem)}", err=True)
            problems = count(len(outcome.problems), "problem")
            click.echo(f"lvsctl: {problems}; the configuration before stays in use", err=True)
            return ConfigError.exit_code
        case Became.REFUSED:
            click.echo(f"lvsctl: refused, the configuration before stays in use: {visible(outcome.why)}", err=True)
            return 1
        case Became.PLANNED:
            if outcome.why:
                click.echo(f"lvsctl: it would be refused: {visible(outcome.why)}", err=True)
                return 1
            click.echo(f"{file}: nothing was changed")
            return 0 if outcome.complete else ConsulError.exit_code
        case Became.CONFIRMED:
            click.echo(f"{file}: confirmed")
        case Became.REVERTED:
            click.echo(f"the configuration before is in use again: {visible(outcome.why)}")
        case Became.USED if outcome.until is not None:
            click.echo(f"{file}: in use, and taken back at {_clock(outcome.until)} unless: lvsctl reload --keep")
        case Became.USED:
            click.echo(f"{file}: in use")
    return 0


def _is_asked() -> bool:
    """Tell whether there is somebody to ask."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def _ask(socket: Path, until: float) -> int:
    """Ask whether it is kept, for as long as there is time; return the exit code."""
    from lvsctl.control import reload
    from lvsctl.core.reload import Ask, Order

    left_open = f"\nlvsctl: not confirmed; taken back at {_clock(until)} unless: lvsctl reload --keep"
    try:
        answer = _answer(until)
    except KeyboardInterrupt:
        click.echo(left_open, err=True)
        raise
    if answer is None and time.time() < until:  # nobody is there any more
        click.echo(left_open, err=True)
        return 1
    if answer is None:
        click.echo()
        return _what_became(socket)
    outcome = reload(socket, Order(ask=Ask.KEEP if answer else Ask.REVERT, of=until))
    _say(outcome)
    return 0 if answer else 1


def _answer(until: float) -> bool | None:
    """Return what is answered before `until`; None where nothing is, sooner where nobody can."""
    while (left := until - time.time()) > 0:
        click.echo(f"\rkeep it? [y/N] {left:4.0f} s left: ", nl=False)
        ready, _, _ = select.select([sys.stdin], [], [], min(1.0, left))
        if not ready:
            continue
        line = sys.stdin.readline()
        if not line:
            return None
        word = line.strip().lower()
        if word in {"y", "yes"}:
            return True
        if word in {"", "n", "no"}:
            return False
    return None


def _what_became(socket: Path) -> int:
    """Say what the daemon did when nobody had answered here."""
    from lvsctl.control import ask

    ends = time.monotonic() + BACK
    while time.monotonic() < ends:
        status = ask(socket)
        if status.confirm_until is None:
            if not status.rolled_back:
                click.echo("confirmed elsewhere")
                return 0
            click.echo(f"the configuration before is in use again: {visible(status.config_error)}")
            return 1
        time.sleep(0.2)
    click.echo("lvsctl: not confirmed; lvsctl status says what becomes of it", err=True)
    return 1


def _clock(moment: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(moment))

"""`lvsctl release`: an operator's word against a hold."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lvsctl.cli.options import config_file
from lvsctl.text import listed, visible

if TYPE_CHECKING:
    from lvsctl.core.status import Released, Status, VirtualServerStatus

EPILOG = """\b
What lvsctl holds is a real server that Consul wants out while too few others
would serve (lvsctl status NAME says why). Released, it leaves as any other: it
is quiesced, and deleted when its connections are gone. What is held later is
held again. Who is damped (damping = true) comes back at once, and what it did is
forgotten. Ask before you release: is it Consul that is wrong? What an operator
held (lvsctl hold NAME) is released, too, and that order ends.
\b
Exit codes: 0 done, or nothing was held; 1 declined, or the kernel refused;
2 no such virtual server; 3 configuration; 8 no daemon answers, or it cannot now.
\b
Examples:
  lvsctl release reco
  lvsctl release reco shop    several at once
"""


@click.command(epilog=EPILOG, short_help="Let real servers go that are held, and in that are damped.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@config_file
@click.option("--yes", is_flag=True, help="Do not ask, even where nothing would be left.")
def command(names: tuple[str, ...], path: Path, *, yes: bool) -> None:
    """Let the real servers go that lvsctl holds although Consul wants them out.

    At a terminal it asks first where nothing would be left that serves.
    """
    from lvsctl.configfile import load
    from lvsctl.control import ask, release
    from lvsctl.errors import DaemonError

    socket = load(path).daemon.control_socket
    status = ask(socket)
    held = {each.target for each in status.orders if each.order == "hold"}  # of what is not configured any more, too
    rows = [_row(name, status) for name in dict.fromkeys(names) if name not in held or _has(name, status)]
    others = [name for name in dict.fromkeys(names) if name in held and not _has(name, status)]
    emptied = [row.name for row in rows if _held(row) and _held(row) == row.serving]
    if emptied and not yes and _is_asked():
        click.echo(f"nothing would serve any more: {', '.join(map(visible, emptied))}")
        if not click.confirm("Release all the same?"):
            click.echo("nothing was released")
            sys.exit(1)
    refused = False
    for name in [*(row.name for row in rows), *others]:
        try:
            released = release(socket, name)
        except DaemonError as error:
            raise DaemonError(f"{name}: {error}") from error
        refused |= bool(released.refused)
        for line in lines_of(released):
            click.echo(line)
    sys.exit(1 if refused else 0)


def lines_of(released: "Released") -> list[str]:
    """Return what to say about one virtual server."""
    from lvsctl.cli.columns import count

    name = visible(released.name)
    ended = [f"{name}: no longer {visible(released.order)}"] if released.order else []
    many = count(len(released.real_servers) + len(released.let_in), "real server")
    if released.refused:
        return [*ended, f"{name}: {many} could not be released: {visible(released.refused)}"]
    ended += _let_in(released)
    if not released.real_servers:
        return ended or [f"{name}: nothing is held"]
    many = count(len(released.real_servers), "real server")
    left = count(released.serving, "other") if released.serving else "nothing"
    verb = "leaves" if len(released.real_servers) == 1 else "leave"
    rest = f"{left} {'serves' if released.serving <= 1 else 'serve'}"
    return [*ended, f"{name}: {many} {verb}, {rest}", *(f"  {visible(each)}" for each in released.real_servers)]


def _let_in(released: "Released") -> list[str]:
    from lvsctl.cli.columns import count

    if not released.let_in:
        return []
    verb = "comes" if len(released.let_in) == 1 else "come"
    line = f"{visible(released.name)}: {count(len(released.let_in), 'real server')} {verb} back, no longer damped"
    return [line, *(f"  {visible(each)}" for each in released.let_in)]


def _is_asked() -> bool:
    """Tell whether there is somebody to ask."""
    return sys.stdin.isatty()


def _row(name: str, status: "Status") -> "VirtualServerStatus":
    """Return the row of virtual server `name`, raises click.UsageError where there is none."""
    for row in status.virtual_servers:
        if row.name == name:
            return row
    known = listed({row.name for row in status.virtual_servers if row.name}, name)
    raise click.UsageError(f"no virtual server '{visible(name)}'; there are: {known}")


def _has(name: str, status: "Status") -> bool:
    return any(row.name == name for row in status.virtual_servers)


def _held(row: "VirtualServerStatus") -> int:
    """Return how many real servers of `row` are held."""
    from lvsctl.core.status import Place

    return sum(each.place is Place.HELD for each in row.real_servers)

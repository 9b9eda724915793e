"""The heavy half of `adopt` and `disown`: asking, and telling what became of it."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from lvsctl.cli.columns import count
from lvsctl.configfile import load
from lvsctl.control import ask, move
from lvsctl.core.status import Moved, State, Status, VirtualServerStatus
from lvsctl.errors import DaemonError, OrderRefused
from lvsctl.text import listed, visible


def move_all(names: Sequence[str], path: Path, *, adopt: bool, yes: bool) -> None:
    """Move these virtual servers across the border, and exit with a code that says how it went."""
    socket = load(path).daemon.control_socket
    status = ask(socket)
    rows = [_row(name, status) for name in dict.fromkeys(names)]
    moving = [row for row in rows if (row.state is State.FOREIGN) is adopt]
    if moving and not yes and _is_asked():
        for row in moving:
            click.echo(_question(row, adopt=adopt))
        if not click.confirm("Adopt?" if adopt else "Disown?"):
            click.echo("nothing was done")
            sys.exit(1)
    refused = False
    for row in rows:
        try:
            moved = _move(socket, row.name, adopt=adopt, force=yes)
        except DaemonError as error:
            raise DaemonError(f"{row.name}: {error}") from error
        refused |= bool(moved.refused)
        for line in lines_of(moved, adopt=adopt):
            click.echo(line)
    sys.exit(1 if refused else 0)


def _move(socket: Path, name: str, *, adopt: bool, force: bool) -> Moved:
    """Move one; where most of what serves in it would go ask once more, and without a terminal do nothing."""
    try:
        return move(socket, name, adopt=adopt, force=force)
    except OrderRefused as refused:
        click.echo(visible(f"{name}: {refused}"), err=True)
    if not _is_asked():
        click.echo("--yes adopts it all the same", err=True)
        sys.exit(1)
    if not click.confirm("Do it all the same?"):
        click.echo("nothing was done", err=True)
        sys.exit(1)
    return move(socket, name, adopt=adopt, force=True)


def lines_of(moved: Moved, *, adopt: bool) -> list[str]:
    """Return what to say about one virtual server."""
    name = f"{visible(moved.name)} ({visible(moved.address)})"
    if not moved.changed:
        return [f"{name}: {'it is ours' if adopt else 'it is foreign'} already"]
    if not adopt:
        return [f"{name}: foreign now, left as it stands"]
    what = count(len(moved.done), "change") if moved.done else "nothing to change"
    refused = [f"  the kernel refused: {visible(moved.refused)}"] if moved.refused else []
    return [f"{name}: ours now, {what}", *(f"  {visible(line)}" for line in moved.done), *refused]


def _is_asked() -> bool:
    """Tell whether there is somebody to ask."""
    return sys.stdin.isatty()


def _question(row: VirtualServerStatus, *, adopt: bool) -> str:
    name, there = f"{visible(row.name)} ({visible(row.address)})", count(row.wanted, "real server")
    if adopt:
        return f"{name}: it has {there}; what Consul does not have of them will be drained"
    return f"{name}: nothing will keep it equal to Consul any more"


def _row(name: str, status: Status) -> VirtualServerStatus:
    """Return the row of virtual server `name`, raises click.UsageError where there is none."""
    for row in status.virtual_servers:
        if row.name == name:
            return row
    foreign = next((key for key in status.foreign if name and name in (key, key.partition(" ")[2])), "")
    if foreign:
        raise click.UsageError(
            f"{foreign} is not in the file: give it a [virtual_server.NAME] there and reload, then lvsctl adopt NAME"
        )
    known = listed({row.name for row in status.virtual_servers if row.name}, name)
    raise click.UsageError(f"no virtual server '{visible(name)}'; there are: {known}")

"""`lvsctl status`: how everything stands, from the daemon; without one, from the kernel itself."""

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from lvsctl.cli.options import config_file
from lvsctl.text import listed, visible

if TYPE_CHECKING:
    from lvsctl.core.status import Status
    from netlink.types import VirtualServerKey

EPILOG = """\b
States: ok, degraded (an instance does not serve), empty, held (some
stay although Consul wants them out; lvsctl release NAME lets go), paused
(nothing is written for it; lvsctl resume), leaving, waiting (for Consul),
refused (by the kernel), foreign (somebody else's virtual server is in the way).
\b
Exit codes: 0 all right, 1 something wants attention, 8 no daemon answers (the
kernel's own table is shown), 5 no daemon and no IPVS.
\b
Examples:
  lvsctl status
  lvsctl status reco            its real servers, and why the others are out
  lvsctl status -o wide --watch
  lvsctl status -o json | jq '.virtual_servers[] | {name, state}'
"""


@click.command(epilog=EPILOG, short_help="Show how everything stands.")
@click.argument("name", required=False)
@config_file
@click.option("-o", "--output", type=click.Choice(["text", "wide", "json"]), default="text", show_default=True)
@click.option("-w", "--watch", is_flag=True, help="Show it again every 2 seconds, until Ctrl-C.")
def command(name: str | None, path: Path, output: str, *, watch: bool) -> None:
    """Show how the virtual servers stand; with NAME the real servers of one."""
    try:
        _show(name, path, output, watch=watch)
    except KeyboardInterrupt:
        if not watch:
            raise  # it is no answer
        click.echo()  # the way to leave --watch


def _show(name: str | None, path: Path, output: str, *, watch: bool) -> None:
    from lvsctl.cli.status_screen import render

    while True:
        status = read(path)
        if name is not None and name not in {row.name for row in status.virtual_servers}:
            raise _unknown(name, status)
        if name is not None:
            status = _of(name, status)
        wide = output == "wide"
        screen = render(status, with_real_servers=wide or name is not None, wide=wide)
        shown = _as_json(status) if output == "json" else "\n".join(screen)
        if not watch:
            click.echo(shown)
            sys.exit(exit_code(status))
        if sys.stdout.isatty():
            click.clear()
        click.echo(shown)
        time.sleep(2)


def _of(name: str, status: "Status") -> "Status":
    """Return of `status` what is of virtual server `name`, and of everything."""
    orders = tuple(
        each
        for each in status.orders
        if each.target in (name, "everything") or name in {one.virtual_server for one in each.real_servers}
    )
    rows = tuple(row for row in status.virtual_servers if row.name == name)
    return attrs.evolve(status, virtual_servers=rows, orders=orders)


def read(path: Path) -> "Status":
    """Return the daemon's status, or the kernel's own table when no daemon answers."""
    from lvsctl.cli.places import written
    from lvsctl.config import DaemonConfig
    from lvsctl.configfile import load
    from lvsctl.control import ask
    from lvsctl.errors import ConfigError, DaemonError

    config, config_error = None, ""
    try:
        config = load(path)
    except ConfigError as error:
        config_error = str(error)  # a broken file must not hide how things stand
    named = config.daemon.control_socket if config else written(path, "control_socket")  # it can say what it refused
    socket = named or DaemonConfig().control_socket
    try:
        return ask(socket)
    except DaemonError as error:
        if isinstance(error.__cause__, PermissionError) and os.geteuid() != 0:
            raise  # there is a daemon that could tell; who may not ask it may not read the kernel either
        names = {each.key: each.name for each in config.virtual_servers.values()} if config else {}
        return attrs.evolve(from_kernel(path, str(error), names), config_error=config_error)


def from_kernel(path: Path, error: str, names: "dict[VirtualServerKey, str]") -> "Status":
    """Return what the kernel alone says, and that no daemon answers, in the words of `error`; raises KernelError."""
    import socket

    from lvsctl import __version__
    from lvsctl.core.status import KernelStatus, Status
    from lvsctl.core.virtual_server_status import bare_virtual_servers
    from lvsctl.errors import KernelError
    from netlink import IPVS
    from netlink.errors import NetlinkError

    try:
        with IPVS() as kernel:
            observed = kernel.observe()
    except NetlinkError as refused:
        raise KernelError(f"{error}, and the kernel cannot be read either: {refused}") from refused
    return Status(
        version=__version__,
        host=socket.gethostname(),
        role="no daemon",
        time=time.time(),
        started=None,
        config=str(path),
        config_error="",
        consul=None,
        kernel=KernelStatus(in_sync_since=None, pending=0, error=error),
        foreign=(),
        virtual_servers=bare_virtual_servers(observed, names),
    )


def _unknown(name: str, status: "Status") -> Exception:
    from lvsctl.errors import DaemonError

    known = listed({row.name for row in status.virtual_servers if row.name}, name)
    if status.consul is None:
        return DaemonError(f"{status.kernel.error}, and the kernel has no virtual server '{name}'; it has: {known}")
    return click.UsageError(f"no virtual server '{visible(name)}'; there are: {known}")


def exit_code(status: "Status") -> int:
    """Return 0 when all is right, 1 when something wants attention, 8 without a daemon."""
    from lvsctl.core.status import State
    from lvsctl.errors import DaemonError

    if status.consul is None:
        return DaemonError.exit_code
    wrong = {State.EMPTY, State.FALLBACK, State.HELD, State.PAUSED, State.WAITING, State.REFUSED, State.FOREIGN}
    trouble = (
        status.kernel.error
        or status.config_error
        or status.confirm_until is not None
        or status.consul.failing
        or (status.overrides is not None and (status.overrides.error or status.overrides.ignored))
        or (status.fleet is not None and (status.fleet.error or status.fleet.ignored))
        or status.refused_declarations
        or status.orders_error
        or any(each.order == "pause" for each in status.orders)
        or any(row.state in wrong for row in status.virtual_servers)
    )
    return 1 if trouble else 0


def _as_json(status: "Status") -> str:
    import json

    from lvsctl.control import as_json

    return json.dumps(as_json(status), indent=2)

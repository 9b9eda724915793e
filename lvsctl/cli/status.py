"""`lvsctl status`: how everything stands, from the daemon; without one, from the kernel itself."""

import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import click

from lvsctl.cli.columns import clock, columns, count, span
from lvsctl.cli.options import config_file
from lvsctl.text import visible

if TYPE_CHECKING:
    from lvsctl.core.status import Status, VirtualServerStatus
    from netlink.types import VirtualServerKey

NOTHING: Final = "-"

EPILOG = """\b
States: ok, degraded (an instance does not serve), empty, held (the last serving
ones stay although Consul wants them out), leaving, waiting (for Consul), refused
(by the kernel), foreign (somebody else's virtual server is in the way).
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
        click.echo()  # the way to leave --watch


def _show(name: str | None, path: Path, output: str, *, watch: bool) -> None:
    while True:
        status = read(path)
        if name is not None and name not in {row.name for row in status.virtual_servers}:
            raise _unknown(name, status)
        if name is not None:
            rows = tuple(row for row in status.virtual_servers if row.name == name)
            status = attrs.evolve(status, virtual_servers=rows)
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


def read(path: Path) -> "Status":
    """Return the daemon's status, or the kernel's own table when no daemon answers."""
    from lvsctl.config import DaemonConfig
    from lvsctl.configfile import load
    from lvsctl.control import ask
    from lvsctl.errors import ConfigError, DaemonError

    config, config_error = None, ""
    try:
        config = load(path)
    except ConfigError as error:
        config_error = str(error)  # a broken file must not hide how things stand
    socket = config.daemon.control_socket if config else _socket_in(path) or DaemonConfig().control_socket
    try:
        return ask(socket)
    except DaemonError as error:
        if isinstance(error.__cause__, PermissionError) and os.geteuid() != 0:
            raise  # there is a daemon that could tell; who may not ask it may not read the kernel either
        names = {each.key: each.name for each in config.virtual_servers.values()} if config else {}
        return attrs.evolve(_from_kernel(path, str(error), names), config_error=config_error)


def _socket_in(path: Path) -> Path | None:
    """Return the control socket that a file with mistakes names: its daemon can say that it refused the file."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    found = re.search(r"""^\s*control_socket\s*=\s*(["'])(/[^"'\\]+)\1""", text, re.MULTILINE)
    return Path(found[2]) if found else None


def _from_kernel(path: Path, error: str, names: "dict[VirtualServerKey, str]") -> "Status":
    import socket

    from lvsctl import __version__
    from lvsctl.core.status import KernelStatus, Status, bare_virtual_servers
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

    known = ", ".join(sorted({row.name for row in status.virtual_servers if row.name})) or "none"
    if status.consul is None:
        return DaemonError(f"{status.kernel.error}, and the kernel has no virtual server '{name}'; it has: {known}")
    return click.UsageError(f"no virtual server '{visible(name)}'; there are: {known}")


def exit_code(status: "Status") -> int:
    """Return 0 when all is right, 1 when something wants attention, 8 without a daemon."""
    from lvsctl.core.status import State
    from lvsctl.errors import DaemonError

    if status.consul is None:
        return DaemonError.exit_code
    wrong = {State.EMPTY, State.HELD, State.WAITING, State.REFUSED, State.FOREIGN}
    trouble = (
        status.kernel.error
        or status.config_error
        or status.consul.failing
        or (status.overrides is not None and (status.overrides.error or status.overrides.ignored))
        or status.refused_declarations
        or any(row.state in wrong for row in status.virtual_servers)
    )
    return 1 if trouble else 0


def render(status: "Status", *, with_real_servers: bool = False, wide: bool = False) -> list[str]:
    """Return the screen, line by line; `wide` adds the foreign virtual servers."""
    rows = status.virtual_servers
    lines = [*_header(status, wide=wide), "", *_virtual_servers(rows, with_names=status.consul is not None)]
    for row in rows if with_real_servers else ():
        heading = [visible(f"{row.name}  {row.address}")] if len(rows) > 1 else []
        lines += ["", *heading, *_real_servers(row)]
        lines += _overrides(row, status.time)
    if status.refused_declarations:
        lines += ["", "refused declarations:", *_refused_declarations(status)]
    if status.foreign and wide:
        lines += ["", "foreign, never touched:", *(f"  {key}" for key in status.foreign)]
    return lines


def _header(status: "Status", *, wide: bool) -> list[str]:
    up = f", up {span(status.time - status.started)}" if status.started else ""
    rows = [["lvsctl", f"{status.version} on {status.host}, {status.role}{up}"]]
    if status.consul is None:
        rows.append(["", f"{status.kernel.error}; this is the kernel's own table"])
        if status.config_error:
            rows.append(["config", f"cannot be read: {status.config_error.splitlines()[0]}"])
    else:
        rows.append(["consul", _consul_words(status)])
        if status.consul.transport_remedy:
            rows.append(["", f"{status.consul.transport_why}; {status.consul.transport_remedy}"])
        elif wide and status.consul.transport_why:
            rows.append(["", f"{status.consul.transport}: {status.consul.transport_why}"])
        rows += _override_lines(status, wide=wide)
        rows.append(["kernel", _kernel_words(status)])
        foreign = f"{count(len(status.foreign), 'virtual server')}, never touched" if status.foreign else "none"
        rows.append(["foreign", foreign])
    if status.config_error and status.consul is not None:
        first = status.config_error.splitlines()
        more = f" (and {len(first) - 1} more; lvsctl check shows them)" if len(first) > 1 else ""
        rows.append(["config", f"the last reload was refused, the old one is kept: {first[0]}{more}"])
    return columns(rows)


def _consul_words(status: "Status") -> str:
    from lvsctl.core.restoration import OLD

    consul = status.consul
    assert consul is not None  # noqa: S101  # a daemon always says
    age = "not everything answered yet" if consul.data_age is None else f"data {span(consul.data_age)} old"
    if consul.snapshot_age is not None:
        old = ", which is OLD" if consul.snapshot_age > OLD else ""
        age += f", what is empty is filled from the snapshot of {span(consul.snapshot_age)} ago{old}"
    if not consul.failing:
        over = f" over {consul.transport}" if consul.transport else ""
        return f"reachable at {consul.address}{over}, {age}"
    since = f"for {span(status.time - consul.failing_since)}" if consul.failing_since else ""
    what = "unreachable" if not consul.reachable else f"{count(consul.failing, 'Consul service')} failing"
    return f"{what} {since}, {age}, the table is kept: {consul.error}"


def _kernel_words(status: "Status") -> str:
    from lvsctl.core.status import State

    kernel = status.kernel
    if kernel.error:
        return f"cannot be reconciled: {kernel.error}"
    if kernel.pending:
        return f"{count(kernel.pending, 'change')} to make"
    if kernel.in_sync_since is None:
        return "not reconciled yet"
    clock = time.strftime("%H:%M:%S", time.localtime(kernel.in_sync_since))
    apart = sum(row.state in (State.HELD, State.FOREIGN, State.WAITING) for row in status.virtual_servers)
    but = f", but for {count(apart, 'virtual server')} (see STATE)" if apart else ""
    return f"in sync since {clock} ({span(status.time - kernel.in_sync_since)}){but}"


def _virtual_servers(rows: Sequence["VirtualServerStatus"], *, with_names: bool) -> list[str]:
    if not rows:
        return ["no virtual servers"]
    head = [
        "NAME",
        "CONSUL SERVICE",
        "ADDRESS",
        "SCHEDULER",
        "FORWARDING",
        "SERVING",
        "STATE",
        "ACTIVE",
        "INACTIVE",
        "CONN/S",
        "",
    ]
    cells = [
        [
            row.name or NOTHING,
            row.consul_service or NOTHING,
            row.address,
            row.scheduler or NOTHING,
            row.forwarding or NOTHING,
            f"{row.serving}/{row.wanted}",
            row.state.value,
            str(row.active),
            str(row.inactive),
            str(row.rate),
            row.note,
        ]
        for row in rows
    ]
    table = [head, *cells]
    if not with_names:
        table = [[*line[:1], *line[2:]] for line in table]
    numbers = {head.index(title) - (not with_names) for title in ("SERVING", "ACTIVE", "INACTIVE", "CONN/S")}
    return columns(table, right=frozenset(numbers))


def _real_servers(row: "VirtualServerStatus") -> list[str]:
    if not row.real_servers:
        return ["  no real servers"]
    head = ["  REAL SERVER", "NODE", "INSTANCE", "CHECK", "STATE", "WEIGHT", "ACTIVE", "INACTIVE", "CONN/S", "WHY"]
    several = len({each.datacenter for each in row.real_servers} | {row.datacenter}) > 1
    cells = [
        [
            f"  {each.real_server or NOTHING}",
            each.node or NOTHING,
            each.instance or NOTHING,
            each.check or NOTHING,
            each.place.value,
            NOTHING if each.weight is None else str(each.weight),
            str(each.active),
            str(each.inactive),
            str(each.rate),
            each.why,
        ]
        for each in row.real_servers
    ]
    if several:
        datacenters = [
            "DATACENTER",
            *((each.datacenter or "own") if each.instance else NOTHING for each in row.real_servers),
        ]
        table = [[*line[:1], name, *line[1:]] for name, line in zip(datacenters, [head, *cells], strict=True)]
        return columns(table, right=frozenset({6, 7, 8, 9}))
    return columns([head, *cells], right=frozenset({5, 6, 7, 8}))


def _overrides(row: "VirtualServerStatus", now: float) -> list[str]:
    """Return the overrides of a virtual server: who, until when, and what they do."""
    if not row.overrides:
        return []
    head = ["  OVERRIDE", "SHARE", "UNTIL", "BY", "INSTANCES", "WEIGHT", "REASON"]
    cells = [
        [
            f"  {each.selector}",
            each.share,
            "cleared" if each.until is None else f"{clock(each.until, now)} ({span(each.until - now)})",
            each.by or NOTHING,
            str(each.matching),
            str(each.smallest) if each.smallest == each.largest else f"{each.smallest} to {each.largest}",
            "; ".join(filter(None, (each.why_not, each.reason))),
        ]
        for each in row.overrides
    ]
    return ["", *columns([head, *cells], right=frozenset({1, 4, 5}))]


def _override_lines(status: "Status", *, wide: bool) -> list[list[str]]:
    """Return what the head says of overrides: that they cannot be read, and what is none; `wide` says all."""
    overrides = status.overrides
    if overrides is None:
        return []
    lines = []
    if overrides.error:
        age = "as last known" if overrides.data_age is None else f"as of {span(overrides.data_age)} ago"
        lines.append(f"{age}, for they cannot be read: {overrides.error}")
    elif overrides.ignored:
        lines.append(f"{count(len(overrides.ignored), 'key')} below {overrides.kv_prefix}/weights/ not used")
    elif wide:
        lines.append(f"of {overrides.kv_prefix}/weights/")
    shown = overrides.ignored.items() if wide else list(overrides.ignored.items())[:1]
    lines += [f"{key}: {why}" for key, why in shown]
    if wide:
        lines += [f"{each} is not in this configuration" for each in overrides.elsewhere]
    return [["" if number else "overrides", line] for number, line in enumerate(lines)]


def _refused_declarations(status: "Status") -> list[str]:
    head = ["  CONSUL SERVICE", "KEPT", "WHY"]
    return columns(
        [head, *([f"  {each.consul_service}", each.kept or NOTHING, each.why] for each in status.refused_declarations)]
    )


def _as_json(status: "Status") -> str:
    import json

    from lvsctl.control import as_json

    return json.dumps(as_json(status), indent=2)

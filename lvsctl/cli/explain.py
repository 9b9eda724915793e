"""`lvsctl explain`: why a real server is in the table or not, and what happened to it, in sentences."""

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
    from collections.abc import Sequence

    from lvsctl.config import Config
    from lvsctl.core.event import Event
    from lvsctl.core.status import Status, VirtualServerStatus
    from lvsctl.core.subject import Subject

EPILOG = """\b
ADDRESS:PORT is a virtual server's or a real server's; one that is in several
virtual servers is explained for each. INSTANCE is Consul's service id; NODE and
ADDRESS alone stand for all that is there.
\b
Exit codes: 0 answered, 2 nothing of that name, 7 answered without the journal, 8 no
daemon answers (the kernel and Consul were asked instead), 5 no daemon and no IPVS.
\b
Examples:
  lvsctl explain reco            how does it stand, and what changed?
  lvsctl explain 10.2.0.12:80    why is it out?
  lvsctl explain reco-r2         the same, by its instance
"""


@click.command(epilog=EPILOG, short_help="Say why something is in or out.")
@click.argument("subject", metavar="NAME|ADDRESS[:PORT]|INSTANCE|NODE")
@config_file
def command(subject: str, path: Path) -> None:
    """Say how a virtual server or a real server stands, why, and what happened to it."""
    from lvsctl.cli.explain_screen import answer
    from lvsctl.core.subject import Subject
    from lvsctl.errors import DaemonError, StateError

    meant = Subject(subject)
    status, heard = _status(path, meant)
    events, trouble = _events(path)
    lines = answer(status, meant, events, heard=heard)
    if not lines:
        raise _unknown(meant, status, events, heard=heard)
    if status.consul is None:
        lines = [f"{visible(status.kernel.error)}.", "", *lines]
    click.echo("\n".join(lines))
    if trouble:
        click.echo(f"lvsctl: {visible(trouble)}", err=True)
    sys.exit(DaemonError.exit_code if status.consul is None else StateError.exit_code if trouble else 0)


def _events(path: Path) -> "tuple[list[Event], str]":
    """Return the journal, and why it cannot be read; empty when it can."""
    from lvsctl.cli.places import state_directory
    from lvsctl.errors import StateError
    from lvsctl.journal import Reader

    try:
        return list(Reader(state_directory(path)).read()), ""
    except StateError as error:
        return [], str(error)


def _status(path: Path, subject: "Subject") -> "tuple[Status, bool]":
    """Return the daemon's status; without one what a fresh look at Consul and the kernel says, or the kernel alone.

    Also whether Consul's word is in it.
    """
    from lvsctl.cli.places import written
    from lvsctl.cli.status import from_kernel
    from lvsctl.config import DaemonConfig
    from lvsctl.configfile import load
    from lvsctl.control import ask
    from lvsctl.errors import ConfigError, ConsulError, DaemonError

    config, config_error = None, ""
    try:
        config = load(path)
    except ConfigError as error:
        config_error = str(error).splitlines()[0]
    named = config.daemon.control_socket if config else written(path, "control_socket")
    try:
        return ask(named or DaemonConfig().control_socket, about=subject.text), True
    except DaemonError as error:
        if isinstance(error.__cause__, PermissionError) and os.geteuid() != 0:
            raise
        said, gone = str(error), isinstance(error.__cause__, FileNotFoundError | ConnectionRefusedError)
    if config is None:
        told = f"{said}; the file cannot be used either ({config_error}): this is the kernel alone"
        return from_kernel(path, told, {}), False
    names = {each.key: each.name for each in config.virtual_servers.values()}
    bare = from_kernel(path, said, names)
    try:
        rows, foreign = _look(config, subject)
    except ConsulError as error:
        told = f"{said}; {error}: this is the kernel alone"
        alone = _unheard(bare.virtual_servers, config)
        return attrs.evolve(bare, kernel=attrs.evolve(bare.kernel, error=told), virtual_servers=alone), False
    nothing = "so nothing changes, and " if gone else ""
    told = f"{said}; {nothing}this is what lvsctl finds in Consul and in the kernel now"
    kernel = attrs.evolve(bare.kernel, error=told)
    return attrs.evolve(bare, time=time.time(), virtual_servers=rows, foreign=foreign, kernel=kernel), True


def _unheard(rows: "Sequence[VirtualServerStatus]", config: "Config") -> "tuple[VirtualServerStatus, ...]":
    """Return what the kernel alone says of `rows`, and the virtual servers of the file that it lacks."""
    from lvsctl.core.status import State
    from lvsctl.core.virtual_server_status import unheard
    from netlink.types import Observed

    nothing = Observed(table={}, traffic={}, usage={})
    there = {row.name for row in rows}
    absent = [unheard(each, nothing) for name, each in config.virtual_servers.items() if name not in there]
    known = [
        attrs.evolve(
            row,
            state=State.WAITING,
            consul_service=config.virtual_servers[row.name].consul_service if row.name else "",
            note="Consul does not answer; this is what the kernel has" if row.name else "the file has none there",
        )
        for row in rows
    ]
    missing = [attrs.evolve(row, note="Consul does not answer, and the kernel has no such") for row in absent]
    return (*known, *missing)


def _look(config: "Config", subject: "Subject") -> "tuple[tuple[VirtualServerStatus, ...], tuple[str, ...]]":
    """Return how everything stands and what is foreign, by what Consul and the kernel say now; raises ConsulError."""
    from lvsctl import logs
    from lvsctl.cli.live import (
        ask,
        ask_fleet_orders,
        ask_overrides,
        last_fleet_orders,
        last_overrides,
        reconciler,
    )
    from lvsctl.core.fleet import together
    from lvsctl.core.status import State
    from lvsctl.core.virtual_server_status import virtual_servers
    from lvsctl.errors import ConsulError

    logs.configure(level="warning")
    asked = ask(config)
    try:
        overrides = ask_overrides(config)
    except ConsulError:
        overrides = last_overrides(config)
    try:
        fleet = ask_fleet_orders(config)
    except ConsulError:
        fleet = last_fleet_orders(config)
    with reconciler(config) as kernel:
        kernel.orders = together(kernel.orders, fleet)
        look = kernel.look(config, asked.answers, overrides=overrides, candidates=asked.candidates)
    rows = virtual_servers(
        look.config, look.decision, look.observed, refused={}, local=look.surroundings.local, ages={}, about=subject
    )
    told = tuple(
        attrs.evolve(row, note=asked.why_unknown(look.config.virtual_servers[row.name]))
        if row.state is State.WAITING and row.name in look.config.virtual_servers
        else row
        for row in rows
    )
    return told, tuple(str(key) for key in sorted(look.decision.foreign))


def _unknown(subject: "Subject", status: "Status", events: "list[Event]", *, heard: bool) -> click.ClickException:
    from lvsctl.errors import DaemonError

    names = {row.name for row in status.virtual_servers if row.name} | {event.name for event in events if event.name}
    refused = "; the last reload was refused, and nothing that is new in the file counts" if status.config_error else ""
    if not heard:
        there = f"not in the kernel and not in the journal; virtual servers: {listed(names, subject.text)}"
        raise DaemonError(f"{status.kernel.error}, and '{visible(subject.text)}' is {there}")
    if subject.place or subject.host:
        return click.UsageError(
            f"'{visible(subject.text)}' is in no virtual server, in no answer of Consul and not in the journal; "
            f"virtual servers: {listed(names, subject.text)}{refused}"
        )
    names |= {each.instance for row in status.virtual_servers for each in row.real_servers if each.instance}
    there = listed(names, subject.text)
    return click.UsageError(
        f"no virtual server, real server or instance '{visible(subject.text)}'; there are: {there}{refused}"
    )

"""`lvsctl diff`: the kernel against what is wanted, without a daemon."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from lvsctl.cli.columns import columns, count
from lvsctl.cli.options import config_file
from lvsctl.text import visible

if TYPE_CHECKING:
    from lvsctl.core.difference import Line
    from lvsctl.reconcile import Look

SCHEMA: Final = "lvsctl.diff/1"

EPILOG = """\b
Signs:
  +  missing in the kernel          ~  different
  -  in the kernel and leaving      !  needs a person, or explains an absence
\b
Exit codes: 0 equal, 1 differs, 3 configuration, 4 Consul did not answer, or not for
everything: the rest is shown, 5 kernel.
\b
Examples:
  lvsctl diff
  lvsctl diff -c new.toml     what would this file change?
  lvsctl diff -o json | jq '.lines[] | select(.differs)'
"""


@click.command(epilog=EPILOG, short_help="Show what in the kernel is not as wanted, and why.")
@config_file
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(path: Path, output: str) -> None:
    """Show what in the kernel is not as Consul and the configuration want it, and why."""
    from lvsctl import logs
    from lvsctl.cli.live import (
        ask,
        ask_fleet_orders,
        ask_overrides,
        last_fleet_orders,
        last_overrides,
        reconciler,
    )
    from lvsctl.configfile import load
    from lvsctl.core.difference import difference, unknown_line
    from lvsctl.core.fleet import together
    from lvsctl.errors import ConsulError

    logs.configure(level="warning")
    config = load(path)
    asked = ask(config)
    missing = []
    try:
        overrides = ask_overrides(config)
    except ConsulError as error:
        overrides = last_overrides(config)
        missing = [f"the overrides cannot be read, the last known ones count here: {error}"]
    try:
        fleet = ask_fleet_orders(config)
    except ConsulError as error:
        fleet = last_fleet_orders(config)
        missing.append(f"the orders for the fleet cannot be read, the last known ones count here: {error}")
    with reconciler(config) as kernel:
        kernel.orders = together(kernel.orders, fleet)
        look = kernel.look(config, asked.answers, overrides=overrides, candidates=asked.candidates)
    waiting = [look.config.virtual_servers[name] for name in sorted(look.decision.waiting)]
    unknown = [unknown_line(each, asked.why_unknown(each)) for each in waiting]
    lines = [*difference(look.decision, look.moves, look.refusals), *unknown]
    if waiting:
        missing.append(f"Consul gave no answer for {', '.join(each.name for each in waiting)}; the rest is shown")
    equal = not missing and not any(line.differs for line in lines)
    if output == "json":
        click.echo(json.dumps(_as_json(lines, equal=equal, complete=not missing), indent=2))
    else:
        for text in render(lines):
            click.echo(text)
        click.echo(summary(lines, look, complete=not missing))
    for text in missing:
        click.echo(f"lvsctl: {visible(text)}", err=True)
    sys.exit(ConsulError.exit_code if missing else 0 if equal else 1)


def render(lines: Sequence["Line"]) -> list[str]:
    """Return the lines of a diff as text, under one heading a virtual server."""
    cells = [
        [f"  {line.sign.value} {line.real_server or 'virtual server'}", line.what, line.cause.text] for line in lines
    ]
    shown: list[str] = []
    heading = None
    for line, text in zip(lines, columns(cells), strict=True):
        if (line.name, line.virtual_server) != heading:
            heading = (line.name, line.virtual_server)
            shown += ["", *columns([heading])] if shown else columns([heading])
        shown.append(text)
    return shown


def summary(lines: Sequence["Line"], look: "Look", *, complete: bool = True) -> str:
    """Return the last line of a diff; where it is not `complete` nobody can say that all is in sync."""
    ours = [each.intended for each in look.decision.virtual_servers.values() if each.intended]
    return summed_up(lines, len(ours), sum(len(entry.real_servers) for entry in ours), complete=complete)


def summed_up(lines: Sequence["Line"], virtual_servers: int, real_servers: int, *, complete: bool) -> str:
    """Return the same for so many virtual servers and real servers."""
    differing = sum(line.differs for line in lines)
    notes = len(lines) - differing
    size = f"{count(virtual_servers, 'virtual server')}, {count(real_servers, 'real server')}"
    result = f"{count(differing, 'difference')}" if differing else "in sync" if complete else "no difference known"
    tail = f", {count(notes, 'note')}" if notes else ""
    return f"\n{result}{tail}: {size}" if lines else f"{result}: {size}"


def _as_json(lines: Sequence["Line"], *, equal: bool, complete: bool = True) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "equal": equal,
        "complete": complete,
        "lines": [
            {
                "sign": line.sign.name.lower(),
                "name": line.name,
                "virtual_server": line.virtual_server,
                "real_server": line.real_server,
                "what": line.what,
                "cause": line.cause.kind.value,
                "why": line.cause.text,
                "differs": line.differs,
            }
            for line in lines
        ],
    }

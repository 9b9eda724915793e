"""`lvsctl doctor`: what the kernel is set to, and what that means for this configuration."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from lvsctl.cli.columns import columns, count
from lvsctl.cli.options import config_file

if TYPE_CHECKING:
    from lvsctl.config import Config
    from lvsctl.core.facts import Row, Unread

SCHEMA: Final = "lvsctl.doctor/1"

EPILOG = """\b
Reads and sets nothing. `lvsctl run` sets what [kernel] in the configuration
names, and nothing else. Root sees the synchronisation daemons, too, and a
daemon's own network namespace.
\b
Exit codes: 0 nothing has to be done, 1 a finding: something should be
otherwise, or could not be read; 3 configuration; 5 kernel.
\b
Examples:
  lvsctl doctor
  lvsctl doctor -c new.toml     would this file ask for other settings?
  lvsctl doctor --all           what does not matter to this configuration, too
  lvsctl doctor --json | jq '.rows[] | select(.grade == "finding")'
"""


@click.command(epilog=EPILOG, short_help="Say what in the kernel is not set up for this configuration.")
@config_file
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The same as -o json.")
@click.option("-a", "--all", "everything", is_flag=True, help="Show what does not matter here, too.")
def command(path: Path, output: str, *, as_json: bool, everything: bool) -> None:
    """Show which kernel settings matter to this configuration, what they are, and what they should be."""
    from lvsctl import logs
    from lvsctl.configfile import load
    from lvsctl.core.facts import Grade
    from lvsctl.core.needs import needs_of
    from lvsctl.core.preflight import preflight
    from lvsctl.machine import examine

    logs.configure(level="warning")
    config = load(path)
    facts = examine(needs_of(config).schedulers, _daemon(config))
    rows = [row for row in preflight(config, facts) if row.relevant or everything]
    findings = [row for row in rows if row.grade is Grade.FINDING]
    if as_json or output == "json":
        click.echo(json.dumps(_as_json(rows), indent=2))
    else:
        click.echo("\n".join([*render(rows), "", *summary(rows)]))
    sys.exit(1 if findings else 0)


def _daemon(config: "Config") -> "int | Unread | None":
    """Return the process of the daemon, whose network namespace counts; None where there is none."""
    from lvsctl.control import process_of
    from lvsctl.core.facts import Unread
    from lvsctl.errors import DaemonError

    try:
        return process_of(config.daemon.control_socket)
    except DaemonError as error:
        return Unread(str(error))


def render(rows: Sequence["Row"]) -> list[str]:
    """Return the table: a row for each setting."""
    cells = [[row.setting, row.value or "?", row.should or "-", row.why] for row in rows]
    return columns([["SETTING", "IS", "SHOULD BE", "WHY"], *cells], whole=frozenset({0, 1}))


def summary(rows: Sequence["Row"]) -> list[str]:
    """Return how many findings there are, and how what can be set is set."""
    from lvsctl.core.facts import OF_IPVS, Grade

    findings = [row for row in rows if row.grade is Grade.FINDING]
    notes = sum(row.grade is Grade.NOTE for row in rows)
    tail = f", {count(notes, 'note')}" if notes else ""
    lines = [f"{count(len(findings), 'finding') if findings else 'nothing to be done'}{tail}"]
    others = [row for row in findings if row.should.isdecimal() and not row.by_lvsctl]
    to_set = [f"{name}={row.should}" for row in others for name in row.names or (row.setting,)]
    ours = [row for row in others if row.setting.removeprefix(OF_IPVS) in _may_be_set()]
    if to_set:
        lines.append(f"now:            {_inside(rows)}sysctl -w {' '.join(to_set)}")
    if ours:
        keys = ", ".join(f"{row.setting.removeprefix(OF_IPVS)} = {_as_written(row)}" for row in ours)
        lines.append(f"by lvsctl run:  [kernel] {keys}")
    return lines


def _inside(rows: Sequence["Row"]) -> str:
    """Return what goes to the network namespace that was looked at, where that is not the one of who asks."""
    from lvsctl.core.facts import DAEMONS, NAMESPACE

    place = next((row.value for row in rows if row.setting == NAMESPACE), "")
    return f"nsenter -t {place.removeprefix(DAEMONS)} -n " if place.startswith(DAEMONS) else ""


def _may_be_set() -> frozenset[str]:
    import attrs

    from lvsctl.config import KernelConfig

    return frozenset(field.name for field in attrs.fields(KernelConfig))


def _as_written(row: "Row") -> str:
    """Return what a row's setting should be as the configuration file writes it."""
    import attrs

    from lvsctl.config import KernelConfig
    from lvsctl.core.facts import OF_IPVS

    key = attrs.fields_dict(KernelConfig)[row.setting.removeprefix(OF_IPVS)]
    return str(row.should if key.metadata["type"].name == "integer" else row.should != "0").lower()


def _as_json(rows: Sequence["Row"]) -> dict[str, Any]:
    from lvsctl.core.facts import Grade

    return {
        "schema": SCHEMA,
        "findings": sum(row.grade is Grade.FINDING for row in rows),
        "rows": [
            {
                "setting": row.setting,
                "is": row.value or None,
                "should_be": row.should or None,
                "why": row.why,
                "grade": row.grade.value,
                "relevant": row.relevant,
                "by_lvsctl": row.by_lvsctl,
            }
            for row in rows
        ],
    }

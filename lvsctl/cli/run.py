"""`lvsctl run`: the daemon; or one pass of it."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lvsctl.cli.columns import count
from lvsctl.cli.options import config_file

if TYPE_CHECKING:
    from lvsctl.config import Config

EPILOG = """\b
Signals:
  SIGTERM, SIGINT   stop; the table stays and goes on serving
  SIGHUP            read the configuration again; a bad file changes nothing
\b
Exit codes: 0 stopped or converged, 3 configuration, 4 Consul (--once), 5 kernel,
6 another lvsctl runs, 7 state directory.
\b
Examples:
  lvsctl run
  lvsctl run --dry-run          log what would be done, write nothing
  lvsctl run --once             make the kernel as wanted, wait for drains, exit
  lvsctl run --once --dry-run   print what would be done, exit
"""


@click.command(epilog=EPILOG)
@config_file
@click.option("--dry-run", is_flag=True, help="Compute and show, never write.")
@click.option("--once", is_flag=True, help="Converge, print what was done, exit.")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="Default: info, with --once warning."
)
@click.option(
    "--log-format",
    type=click.Choice(["auto", "text", "json"]),
    default="auto",
    help="auto: text on a terminal, else JSON.",
)
def command(path: Path, *, dry_run: bool, once: bool, log_level: str | None, log_format: str) -> None:
    """Keep the kernel's IPVS table equal to what Consul and the configuration want."""
    import contextlib

    from lvsctl import logs
    from lvsctl.configfile import load
    from lvsctl.store import locked

    logs.configure(
        level=log_level or ("warning" if once else "info"),
        as_json=None if log_format == "auto" else log_format == "json",
    )
    config = load(path)
    with contextlib.nullcontext() if dry_run else locked(config.daemon.state_directory):
        if once:
            sys.exit(_once(config, dry_run=dry_run))
        _run(path, config, dry_run=dry_run)


def _run(path: Path, config: "Config", *, dry_run: bool) -> None:
    import asyncio

    from lvsctl.cli.live import reconciler
    from lvsctl.consul.client import Client
    from lvsctl.daemon import Daemon

    async def until_stopped() -> None:
        Client(config.consul).check()
        with reconciler(config) as kernel:
            await Daemon(path, config, kernel, dry_run=dry_run).run()

    asyncio.run(until_stopped())


def _once(config: "Config", *, dry_run: bool) -> int:
    """Converge and print each change; return the exit code: 5 when the kernel refused something."""
    from lvsctl.cli.diff import render
    from lvsctl.cli.live import ask, reconciler
    from lvsctl.core.difference import difference, line_of
    from lvsctl.errors import KernelError

    answers = ask(config)
    changes = 0
    with reconciler(config) as kernel:
        if dry_run:
            lines = [line for line in difference(kernel.look(config, answers).decision) if line.differs]
            click.echo("\n".join(render(lines) or ["in sync: nothing would be changed"]))
            return 0
        while True:
            cycle = kernel.cycle(config, answers)
            virtual_servers = cycle.look.decision.virtual_servers
            done = [line_of(each.step, virtual_servers[each.step.key]) for each in cycle.done if not each.refused]
            for text in render(done):
                click.echo(text)
            changes += len(done) + len(cycle.added_addresses) + len(cycle.removed_addresses)
            if cycle.refusals or cycle.address_error:
                errors = [refusal.error for refusal in cycle.refusals.values()] + [cycle.address_error]
                click.echo("\n".join(f"lvsctl: {error}" for error in errors if error), err=True)
                return KernelError.exit_code
            if not cycle.done and not cycle.look.decision.look_again:
                click.echo(f"in sync: {count(changes, 'change')} made")
                return 0
            time.sleep(0 if cycle.done else 1.0)  # what drains is looked at once a second

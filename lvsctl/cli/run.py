"""`lvsctl run`: the daemon; or one pass of it."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lvsctl.cli.columns import count
from lvsctl.cli.options import config_file
from lvsctl.text import visible

if TYPE_CHECKING:
    from lvsctl.announce import Tell
    from lvsctl.config import Config
    from lvsctl.reconcile import Reconciler

EPILOG = """\b
Signals:
  SIGTERM, SIGINT   stop; the table stays and goes on serving
  SIGHUP            read the configuration again; a bad file changes nothing
\b
Exit codes: 0 stopped or converged, 1 (--once) a hold or a foreign virtual server
is left, or most of what serves would go, 3 configuration, 4 Consul (--once), 5 kernel,
6 another lvsctl runs, 7 state directory.
\b
Examples:
  lvsctl run
  lvsctl run --dry-run          log what would be done, write nothing
  lvsctl run --once             make the kernel as wanted, wait for drains, exit
  lvsctl run --once --dry-run   print what would be done, exit
"""


@click.command(epilog=EPILOG, short_help="Keep the kernel equal to Consul: the daemon.")
@config_file
@click.option("--dry-run", is_flag=True, help="Compute and show, never write.")
@click.option("--once", is_flag=True, help="Converge, print what was done, exit.")
@click.option("--allow-remove", is_flag=True, help="With --once: also where most of what serves would go.")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="Default: info, with --once warning."
)
@click.option(
    "--log-format",
    type=click.Choice(["auto", "text", "json"]),
    default="auto",
    help="auto: text on a terminal, else JSON.",
)
def command(
    path: Path, *, dry_run: bool, once: bool, allow_remove: bool, log_level: str | None, log_format: str
) -> None:
    """Keep the kernel's IPVS table equal to what Consul and the configuration want."""
    import asyncio
    import contextlib

    import structlog

    from lvsctl import logs, memory
    from lvsctl.cli.live import reconciler
    from lvsctl.configfile import load
    from lvsctl.consul.client import Client
    from lvsctl.errors import ConsulError
    from lvsctl.journal import Journal
    from lvsctl.store import locked

    if allow_remove and not once:
        raise click.UsageError(
            "--allow-remove goes with --once; of a daemon it is asked by lvsctl reload --allow-remove"
        )
    logs.configure(
        level=log_level or ("warning" if once else "info"),
        as_json=None if log_format == "auto" else log_format == "json",
    )
    memory.give_back()
    memory.seldom()
    config = load(path) if once or dry_run else _config(path)
    try:
        Client(config.consul).check()
    except ConsulError as error:
        if once:
            raise
        # A director must come up without Consul, and so without what it is asked with: the file is looked for again.
        structlog.get_logger().error("consul_unusable", error=str(error), follows="as while Consul does not answer")
    writer = contextlib.nullcontext() if dry_run else locked(config.daemon.state_directory)
    with reconciler(config) as kernel, writer:
        if not once:
            asyncio.run(_run(path, config, kernel, dry_run=dry_run))
        elif dry_run:
            _plan(config, kernel)
        else:
            try:
                with Journal(config.daemon.state_directory) as journal:
                    code = _once(config, kernel, journal.note, judged=None if allow_remove else path)
                sys.exit(code)
            except KeyboardInterrupt:
                click.echo("lvsctl: interrupted; what was still draining stays quiesced", err=True)
                sys.exit(130)


def _config(path: Path) -> "Config":
    """Return the configuration to start with: of the file, or what was in use last where that has mistakes now.

    The daemon says so then, as of a reload. Raises ConfigError where nothing was in use before.
    """
    from lvsctl.cli.places import state_directory
    from lvsctl.configfile import load, parse_here
    from lvsctl.configuration_kept import ConfigurationKept
    from lvsctl.errors import ConfigError

    try:
        return load(path)
    except ConfigError as error:
        kept = ConfigurationKept(state_directory(path)).load()
        if kept is None or kept.file != str(path.absolute()):  # a typo in its name is no reason to take another one
            raise
        try:
            return parse_here(kept.text, path)
        except ConfigError:  # of another lvsctl
            raise error from None


async def _run(path: Path, config: "Config", kernel: "Reconciler", *, dry_run: bool) -> None:
    from lvsctl.daemon import Daemon

    await Daemon(path, config, kernel, dry_run=dry_run).run()


def _plan(config: "Config", kernel: "Reconciler") -> None:
    """Print what would be done."""
    from lvsctl.cli.diff import render
    from lvsctl.cli.live import ask, ask_overrides, demand
    from lvsctl.core.difference import difference
    from lvsctl.kernel_settings import KernelSettings

    for setting in KernelSettings().keep(config.kernel, write=False):
        click.echo(f"~ {setting.setting}  {setting.was} -> {setting.now}  {setting.why}")
    asked = ask(config).whole()
    look = demand(kernel.look(config, asked.answers, overrides=ask_overrides(config), candidates=asked.candidates))
    lines = [line for line in difference(look.decision, look.moves) if line.differs]
    click.echo("\n".join(render(lines) or ["in sync: nothing would be changed"]))


def _once(config: "Config", kernel: "Reconciler", tell: "Tell" = lambda _: None, *, judged: Path | None = None) -> int:
    """Converge and print each change; return 5 when the kernel refused something, 1 when something is left.

    Where the file that is `judged` would take most of what serves away, nothing is done: 1, too.
    """
    from lvsctl.announce import events_of
    from lvsctl.cli.diff import render
    from lvsctl.cli.judging import too_much
    from lvsctl.cli.live import ask, ask_overrides, demand
    from lvsctl.core.difference import difference, line_of
    from lvsctl.core.order import in_force
    from lvsctl.errors import KernelError, StateError
    from lvsctl.kernel_settings import KernelSettings

    kernel.opinions = None  # nobody knocks, so nobody is waited for
    asked, overrides = ask(config).whole(), ask_overrides(config)
    if judged is not None and (why := too_much(judged, config, kernel, asked, overrides)):
        click.echo(f"lvsctl: refused, nothing was changed: {visible(why)}; if that is meant: --allow-remove", err=True)
        return 1
    paused = in_force(kernel.orders, time.time()).everything
    for setting in () if paused else KernelSettings(tell=tell).keep(config.kernel):
        click.echo(f"~ {setting.setting}  {setting.was} -> {setting.now}  {setting.why}")
    changes = 0
    while True:
        cycle = kernel.cycle(config, asked.answers, overrides=overrides, candidates=asked.candidates)
        for event in events_of(cycle):
            tell(event)
        virtual_servers = cycle.look.decision.virtual_servers
        done = [line_of(each.step, virtual_servers[each.step.key]) for each in cycle.done if not each.refused]
        done.sort(key=lambda line: (line.name, line.virtual_server))
        moved = [f"+ virtual address {address}" for address in cycle.added_addresses]
        moved += [f"- virtual address {address}" for address in cycle.removed_addresses]
        for text in (*render(done), *moved):
            click.echo(text)
        changes += len(done) + len(moved)
        errors = [*(refusal.error for refusal in cycle.refusals.values()), cycle.address_error, cycle.ledger_error]
        if any(errors):
            click.echo("\n".join(f"lvsctl: {visible(error)}" for error in errors if error), err=True)
            return StateError.exit_code if cycle.ledger_error else KernelError.exit_code
        if not cycle.done and not any(each.draining and not each.ordered.pause for each in virtual_servers.values()):
            demand(cycle.look)
            left = [line for line in difference(cycle.look.decision) if line.differs]
            for text in render(left):
                click.echo(text)
            result = f"not in sync: {count(len(left), 'difference')} left" if left else "in sync"
            click.echo(f"{result}, {count(changes, 'change')} made")
            for pause in sorted({each.ordered.pause.words for each in virtual_servers.values() if each.ordered.pause}):
                click.echo(visible(f"{pause}: lvsctl resume ends it"))
            return 1 if left else 0
        time.sleep(0 if cycle.done else 1.0)  # what drains is looked at once a second

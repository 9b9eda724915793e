"""`lvsctl teardown`: the only command that removes what is ours."""

import sys
from pathlib import Path

import click

from lvsctl.cli.columns import columns, count
from lvsctl.cli.options import config_file

EPILOG = """\b
Clients of the removed virtual servers are cut off at once. Foreign virtual
servers stay. A running daemon would put everything back, so it must be stopped.
\b
Examples:
  lvsctl teardown --dry-run   show what would be removed
  lvsctl teardown             show it, ask, remove it
  lvsctl teardown --yes       for scripts
\b
Exit codes: 0 done, or nothing is ours; 1 declined; 3 configuration; 5 kernel;
6 a daemon runs; 7 the ledger cannot be read or is damaged: nothing was removed.
"""


@click.command(epilog=EPILOG, short_help="Remove what lvsctl created.")
@config_file
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Show what would be removed, remove nothing.")
def command(path: Path, *, yes: bool, dry_run: bool) -> None:
    """Remove every virtual server and virtual address that lvsctl created, after showing them."""
    import contextlib

    from lvsctl import logs
    from lvsctl.cli.overriding import author
    from lvsctl.configfile import load
    from lvsctl.configuration_kept import ConfigurationKept
    from lvsctl.journal import Journal
    from lvsctl.store import Store, locked
    from lvsctl.teardown import find, known, remove
    from netlink import IPVS
    from netlink.addresses import Addresses

    logs.configure(level="warning")
    config = load(path)
    store = Store(config.daemon.state_directory)
    writer = contextlib.nullcontext() if dry_run else locked(config.daemon.state_directory)
    with writer, IPVS() as kernel:
        leftovers = find(kernel, Addresses(), known(store, kernel))
        if leftovers.empty:
            others = count(len(kernel.observe().table), "virtual server")
            unknown = f"; the ledger in {config.daemon.state_directory} does not know the {others} there"
            click.echo(f"nothing of lvsctl's is in the kernel{'' if others.startswith('0 ') else unknown}")
            return
        rows = [
            [f"  {each.name}", str(each.key), count(each.real_servers, "real server")]
            for each in leftovers.virtual_servers
        ]
        for interface in leftovers.interfaces:
            rows += [["  address", str(address), f"on {interface.name}"] for address in interface.addresses]
            rows.append(["  interface", interface.name, ""])
        click.echo("\n".join(["to be removed:", *columns(rows)]))
        if dry_run:
            return
        if not yes and not click.confirm("Clients are cut off at once. Remove all this?"):
            click.echo("nothing was removed")
            sys.exit(1)
        with Journal(config.daemon.state_directory) as journal:
            remove(leftovers, kernel, Addresses(), store, journal.note, by=author())
        ConfigurationKept(config.daemon.state_directory).forget()  # the next start is a first one
        interfaces = [count(len(leftovers.interfaces), "interface")] if leftovers.interfaces else []
        click.echo(", ".join([f"removed {count(len(leftovers.virtual_servers), 'virtual server')}", *interfaces]))

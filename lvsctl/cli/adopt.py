"""`lvsctl adopt`: a virtual server that somebody else created becomes ours, as it stands."""

from pathlib import Path

import click

from lvsctl.cli.options import config_file

EPILOG = """\b
NAME is in the file, and the kernel has a virtual server at its address that lvsctl
did not create. It stays as it is and goes on serving; from its next start on lvsctl
makes it what the file says: in place, and what Consul does not know is drained.
Whoever looked after it until now must do so no more.
\b
Exit codes: 0 done; 1 there is nothing to take over; 3 configuration; 5 kernel;
6 a daemon runs: stop it first, the table goes on serving; 7 the ledger.
\b
Examples:
  systemctl stop lvsctl && lvsctl adopt reco && lvsctl diff
  systemctl start lvsctl
"""


@click.command(epilog=EPILOG, short_help="Take over a virtual server that lvsctl did not create.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@config_file
def command(names: tuple[str, ...], path: Path) -> None:
    """Take over the virtual servers that stand where the file wants these; the kernel is not written to."""
    from lvsctl.cli.border import move
    from lvsctl.core.border import adopted

    move(path, "adopted", adopted, names)

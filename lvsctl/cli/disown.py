"""`lvsctl disown`: a virtual server of ours becomes somebody else's, as it stands."""

from pathlib import Path

import click

from lvsctl.cli.options import config_file

EPILOG = """\b
NAME was taken out of the file, or is given by its key ("tcp 10.9.0.100:80"). It stays as
it is and goes on serving, and lvsctl never touches it again. With [vip] its virtual
address is lvsctl's all the same: it goes with the next start, so have it elsewhere first.
\b
Exit codes: 0 done; 1 nothing of that name is ours, or it is in the file; 3 configuration;
5 kernel; 6 a daemon runs: stop it first, the table goes on serving; 7 the ledger.
\b
Examples:
  systemctl stop lvsctl && lvsctl disown reco
  systemctl start lvsctl
"""


@click.command(epilog=EPILOG, short_help="Leave a virtual server of lvsctl's to somebody else.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@config_file
def command(names: tuple[str, ...], path: Path) -> None:
    """Leave these virtual servers, which left the file, to somebody else; the kernel is not written to."""
    from lvsctl.cli.border import move
    from lvsctl.core.border import disowned

    move(path, "disowned", lambda name, config, ledger, _: disowned(name, config, ledger), names)

"""`lvsctl disown`: a virtual server of ours becomes foreign, as it stands."""

from pathlib import Path

import click

from lvsctl.cli.options import config_file

EPILOG = """\b
It goes on serving as it stands, and lvsctl neither changes nor deletes it any
more: not what Consul says, not when it leaves the file, not with teardown. Its
virtual address stays on the interface. lvsctl remembers it until the virtual
server is adopted again, or leaves the file. At a terminal it asks first.
\b
Exit codes: 0 done, or it is foreign; 1 declined; 2 no such virtual server;
3 configuration; 8 no daemon answers, or it cannot now.
\b
Examples:
  lvsctl disown reco
  lvsctl adopt reco      and back
"""


@click.command(epilog=EPILOG, short_help="Leave a virtual server to somebody else.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@config_file
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(names: tuple[str, ...], path: Path, *, yes: bool) -> None:
    """Leave a virtual server as it stands to whoever wants it, and never touch it again."""
    from lvsctl.cli.moving import move_all

    move_all(names, path, adopt=False, yes=yes)

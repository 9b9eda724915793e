"""`lvsctl adopt`: a foreign virtual server becomes ours, as it stands."""

from pathlib import Path

import click

from lvsctl.cli.options import config_file

EPILOG = """\b
A virtual server that somebody else made at an address of your file is foreign:
lvsctl never touches it. Adopted, it is made what the file and Consul want, in
place and without a gap: what is missing is added, options are changed, and what
Consul does not have is drained. At a terminal it asks first; without one it does
not do it, unless by --yes, where more than half of what serves would go.
\b
Exit codes: 0 done, or it is ours; 1 declined, or the kernel refused something;
2 no such virtual server; 3 configuration; 8 no daemon answers, or it cannot now.
\b
Examples:
  lvsctl adopt reco
  lvsctl adopt reco shop --yes
"""


@click.command(epilog=EPILOG, short_help="Take a foreign virtual server over.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@config_file
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(names: tuple[str, ...], path: Path, *, yes: bool) -> None:
    """Take over a virtual server of the file that is foreign, as it stands."""
    from lvsctl.cli.moving import move_all

    move_all(names, path, adopt=True, yes=yes)

"""`lvsctl undrain`: the end of a drain."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lvsctl.cli.options import config_file, fleet

if TYPE_CHECKING:
    from lvsctl.cli.ordering import Kind

EPILOG = """\b
What was drained serves again where Consul and the file say so: one that is still
in the table is raised in place. `lvsctl drain` shows what is drained. What was
drained with --fleet is undrained with --fleet.
\b
Exit codes: 0 done, 1 this director has not heard of it (--fleet), 2 it is not drained,
3 configuration, 4 Consul did not take it (--fleet), 8 no daemon answers, or it cannot
do it now.
\b
Examples:
  lvsctl undrain app1
  lvsctl undrain app1 --fleet
  lvsctl undrain 10.2.0.12:80
"""


@click.command(epilog=EPILOG, short_help="End a drain.")
@click.argument("target")
@config_file
@fleet
@click.option("--as", "kind", type=click.Choice(["address", "node", "instance"]), help="What TARGET is.")
def command(target: str, path: Path, kind: "Kind | None", *, fleet: bool) -> None:
    """Let what `lvsctl drain TARGET` took out serve again."""
    from lvsctl.cli import ordering
    from lvsctl.core.order import Wish

    wish = Wish(order="drain", target=target, kind=kind or "")
    ordering.told_end(path, wish, ordering.undrained, fleet=fleet)

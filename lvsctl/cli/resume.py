"""`lvsctl resume`: the end of a pause."""

from pathlib import Path

import click

from lvsctl.cli.options import config_file, fleet

EPILOG = """\b
What waited is done at once: the kernel becomes what Consul and the file want now.
What was paused with --fleet is resumed with --fleet.
\b
Exit codes: 0 done, 1 this director has not heard of it (--fleet), 2 it is not paused,
3 configuration, 4 Consul did not take it (--fleet), 8 no daemon answers, or it cannot
do it now.
\b
Examples:
  lvsctl resume              end `lvsctl pause`
  lvsctl resume reco         end `lvsctl pause reco`
"""


@click.command(epilog=EPILOG, short_help="End a pause.")
@click.argument("name", required=False)
@config_file
@fleet
def command(name: str | None, path: Path, *, fleet: bool) -> None:
    """Let the daemon write again what `lvsctl pause` kept it from."""
    from lvsctl.cli import ordering
    from lvsctl.core.order import Wish

    ordering.told_end(path, Wish(order="pause", target=name or ""), ordering.resumed, fleet=fleet)

"""`lvsctl drain`: take out of every virtual server what an operator names, until he says otherwise."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lvsctl.cli.options import config_file, fleet

if TYPE_CHECKING:
    from lvsctl.cli.ordering import Kind

EPILOG = """\b
TARGET is an address (10.0.0.1, fd00::1), an address and port (10.0.0.1:80,
[fd00::1]:80), a node of Consul, an instance (its service id), or NODE/INSTANCE.
What matches gets no new connections in any virtual server, and is deleted when
it has none, or at its drain_timeout. That survives reloads, restarts and
registering again, until `lvsctl undrain TARGET` or --for ends it. It is this
director's alone, or with --fleet every director's: that needs [overrides] in the
file and a token that may write there (CONSUL_HTTP_TOKEN_FILE or CONSUL_HTTP_TOKEN,
else the daemon's). --wait looks at this director alone. Where nothing would be left
to serve here, it asks, and refuses without a terminal.
\b
Exit codes: 0 done (--wait: it is out), 1 declined, or --wait ended without it, or this
director has not heard of it, 2 no such target, 3 configuration, 4 Consul did not take
it (--fleet), 8 no daemon answers, or it cannot do it now.
\b
Examples:
  lvsctl drain                             every drain, and what it does
  lvsctl drain app1 --reason 'kernel upgrade' --for 2h --wait
  lvsctl drain app1 --fleet --for 2h       on every director
  lvsctl drain 10.2.0.12:80                one real server
  lvsctl drain reco-3                      one instance
"""


@click.command(epilog=EPILOG, short_help="Take a node, address or instance out, gently.")
@click.argument("target", required=False)
@config_file
@fleet
@click.option("--reason", default="", help="Why, for those who see it in `lvsctl status`.")
@click.option("--for", "lasts", metavar="DURATION", help="End by itself after this: 30m, 2h. Default: until undrained.")
@click.option("--as", "kind", type=click.Choice(["address", "node", "instance"]), help="What TARGET is.")
@click.option("--ahead", is_flag=True, help="Although nothing matches yet.")
@click.option("--yes", is_flag=True, help="Do not ask, even where nothing else would serve.")
@click.option("--wait", is_flag=True, help="Return when it is out of the table, and show how far it is.")
@click.option("--timeout", metavar="DURATION", help="With --wait: for no longer than this.")
def command(  # noqa: PLR0917  # click passes them by name
    target: str | None,
    path: Path,
    reason: str,
    lasts: str | None,
    kind: "Kind | None",
    timeout: str | None,
    *,
    fleet: bool,
    ahead: bool,
    yes: bool,
    wait: bool,
) -> None:
    """Give what matches TARGET no new connections, and delete it when it has none; without TARGET show the drains."""
    from lvsctl.cli import ordering
    from lvsctl.core.order import Wish

    if target is None and (reason or lasts or kind or timeout or ahead or yes or wait):
        raise click.UsageError("these options go with a target: lvsctl drain TARGET")
    if timeout is not None and not wait:
        raise click.UsageError("--timeout goes with --wait")
    if target is None:
        click.echo("\n".join(ordering.listing(path, ["drain"], fleet=fleet)))
        return
    seconds, patience = ordering.seconds_of(lasts), ordering.seconds_of(timeout, "--timeout")
    wish = Wish(order="drain", target=target, kind=kind or "", reason=reason, seconds=seconds, ahead=ahead, force=yes)
    empties = "--yes drains it, and the last ones stay until lvsctl release"
    given = ordering.told(path, wish, ordering.drained, fleet=fleet, empties=empties)
    if wait:
        if fleet:
            click.echo("waiting for this director; others have connections of their own")
        sys.exit(ordering.wait(path, given.order, patience))

"""`lvsctl hold`: nothing leaves a virtual server on Consul's word, by an operator's."""

from pathlib import Path

import click

from lvsctl.cli.options import config_file, fleet

EPILOG = """\b
What serves stays, with its weight, whatever Consul says: failing, in maintenance or
deregistered. What passes its checks still comes. An operator's drain, and a weight of
0 by override, still take effect, and an address that may not be in the table leaves.
With --fleet every director that has NAME holds it.
\b
Exit codes: 0 done, 1 this director has not heard of it (--fleet), 2 no such virtual
server, 3 configuration, 4 Consul did not take it (--fleet), 8 no daemon answers, or it
cannot do it now.
\b
Examples:
  lvsctl hold                                   every hold that is ordered
  lvsctl hold reco --for 30m --reason 'checks are broken, incident 99'
  lvsctl release reco                           end it
"""


@click.command(epilog=EPILOG, short_help="Let nothing leave a virtual server.")
@click.argument("name", required=False)
@config_file
@fleet
@click.option("--reason", default="", help="Why, for those who see it in `lvsctl status`.")
@click.option("--for", "lasts", metavar="DURATION", help="End by itself after this: 30m, 2h. Default: until released.")
def command(name: str | None, path: Path, reason: str, lasts: str | None, *, fleet: bool) -> None:
    """Keep what serves of virtual server NAME, whatever Consul says; without NAME show what is held so."""
    from lvsctl.cli import ordering
    from lvsctl.core.order import Wish

    if name is None:
        if reason or lasts:
            raise click.UsageError("these options go with a virtual server: lvsctl hold NAME")
        click.echo("\n".join(ordering.listing(path, ["hold"], fleet=fleet)))
        return
    wish = Wish(order="hold", target=name, reason=reason, seconds=ordering.seconds_of(lasts))
    ordering.told(path, wish, ordering.held, fleet=fleet)

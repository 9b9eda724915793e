"""`lvsctl pause`: the daemon writes nothing for a while."""

from pathlib import Path

import click

from lvsctl.cli.options import config_file, fleet

EPILOG = """\b
Paused, the kernel is left exactly as it is, and so is what a hand changes in it: a
failing instance stays, drift is not repaired, drains do not end. Everything waits
for `lvsctl resume` or the end of --for, which there always is: 1 hour unless you say
another, 24 hours at most. The table goes on serving. With --fleet every director
is paused.
\b
Exit codes: 0 done, 1 this director has not heard of it (--fleet), 2 no such virtual
server, 3 configuration, 4 Consul did not take it (--fleet), 8 no daemon answers, or it
cannot do it now.
\b
Examples:
  lvsctl pause --for 20m --reason 'trying something with ipvsadm'
  lvsctl pause reco          this virtual server alone
  lvsctl resume
"""


@click.command(epilog=EPILOG, short_help="Write nothing, for a while.")
@click.argument("name", required=False)
@config_file
@fleet
@click.option("--reason", default="", help="Why, for those who see it in `lvsctl status`.")
@click.option("--for", "lasts", metavar="DURATION", help="End by itself after this: 10m, 2h.  [default: 1h]")
def command(name: str | None, path: Path, reason: str, lasts: str | None, *, fleet: bool) -> None:
    """Have the daemon write nothing to the kernel, of virtual server NAME or at all."""
    from lvsctl.cli import ordering
    from lvsctl.core.order import Wish

    if name == "":
        raise click.UsageError("NAME is empty; leave it out to pause everything")
    wish = Wish(order="pause", target=name or "", reason=reason, seconds=ordering.seconds_of(lasts))
    ordering.told(path, wish, ordering.paused, fleet=fleet)

"""`lvsctl weight`: an operator's say in the weights, kept in Consul's KV for every director."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import click

from lvsctl.cli.options import config_file
from lvsctl.text import visible

if TYPE_CHECKING:
    from lvsctl.config import Config
    from lvsctl.core.override import Override

LONGEST: Final = 366 * 86400.0  # seconds

EPILOG = """\b
SELECTOR is a tag (v2), or a pair of the service's metadata (version=2).
SHARE is what the instances that match get together of all weights (5%, 0.5%), or
the weight that each of them gets (10). 0 quiesces them.
\b
Needs [overrides] in the file, and a token that may write Consul's KV there:
CONSUL_HTTP_TOKEN_FILE or CONSUL_HTTP_TOKEN, else the daemon's of the file.
\b
Exit codes: 0 done, 2 refused and nothing written, 3 configuration, 4 Consul: it
refused, does not answer, or somebody else was faster.
\b
Examples:
  lvsctl weight                            every override, and what it does
  lvsctl weight reco v2 5% --for 2h --reason 'canary of 1234'
  lvsctl weight reco v2 5% --ahead         before the first v2 is there
  lvsctl weight reco version=2 0           quiesce them
  lvsctl weight reco v2 --clear            back to their own weights
"""


@click.command(
    epilog=EPILOG,
    short_help="Give some instances a share, on every director.",
    context_settings={"ignore_unknown_options": True},  # so that -1% is a share, and told what is wrong with it
)
@click.argument("name", required=False)
@click.argument("selector", required=False)
@click.argument("share", required=False)
@config_file
@click.option("--for", "lasts", metavar="DURATION", help="End by itself after this: 30m, 2h. Default: until cleared.")
@click.option("--reason", default="", help="Why, for those who see it in `lvsctl status`.")
@click.option("--ahead", is_flag=True, help="Write it although nothing matches yet: before the deployment.")
@click.option("--clear", is_flag=True, help="Remove the override.")
def command(  # noqa: PLR0917  # click passes them by name
    name: str | None,
    selector: str | None,
    share: str | None,
    path: Path,
    lasts: str | None,
    reason: str,
    *,
    ahead: bool,
    clear: bool,
) -> None:
    """Show the overrides of weights; with SELECTOR and SHARE write one: a canary's part without a redeployment."""
    from lvsctl import logs

    options = bool(lasts or reason or ahead)
    if (name is None or selector is None) and (clear or options):
        raise click.UsageError("these options go with a virtual server and a selector: lvsctl weight NAME SELECTOR")
    if clear and (share is not None or options):
        raise click.UsageError("--clear goes with a virtual server and a selector alone")
    if selector is not None and share is None and not clear:
        raise click.UsageError("write the share too, like 5% or 10, or --clear")
    logs.configure(level="error")
    from lvsctl.cli import overriding

    config, prefix = configured(path)
    if name is None or name not in config.virtual_servers:
        config = overriding.with_declared(config, needed=not clear)
    if share is not None and name is not None and name not in config.virtual_servers:
        raise overriding.unknown(name, config.virtual_servers)
    if name is None or selector is None:
        lines = overriding.listing(config, prefix, name)
    elif share is None:
        lines = overriding.clear(config, prefix, name, selector)
    else:
        lines = overriding.write(config, prefix, _override(name, selector, share, lasts, reason), ahead=ahead)
    for line in lines:
        click.echo(line)


def configured(path: Path) -> "tuple[Config, str]":
    """Return the configuration, with the operator's own token where the environment has one; and the prefix."""
    from lvsctl.config_environment import current, with_operators_token
    from lvsctl.configfile import load
    from lvsctl.errors import ConfigError, Problem

    config = load(path)
    if config.overrides is None:
        wrong = "this file opens no overrides, so no director would obey one"
        remedy = 'write [overrides] with kv_prefix = "lvsctl"'
        raise ConfigError(path, (Problem(line=None, key="overrides", wrong=wrong, remedy=remedy),))
    consul, problems = with_operators_token(config.consul, current())
    if problems:
        raise ConfigError(path, problems)
    return attrs.evolve(config, consul=consul), config.overrides.kv_prefix


def _override(name: str, selector: str, share: str, lasts: str | None, reason: str) -> "Override":
    """Return the override that the command line asks for."""
    import time

    from lvsctl.cli.overriding import author
    from lvsctl.config_types import Wrong, duration
    from lvsctl.core.override import MAX_SELECTOR, MAX_WORDS, Override, parse_share

    if not 1 <= len(selector) <= MAX_SELECTOR:
        raise click.UsageError(f"a selector has 1 to {MAX_SELECTOR} characters")
    if len(reason) > MAX_WORDS:
        raise click.UsageError(f"--reason has {len(reason)} characters; write {MAX_WORDS} at most")
    now = time.time()
    try:
        until = None if lasts is None else now + duration(1, LONGEST, "2h").read(lasts)
        parsed = parse_share(share)
    except Wrong as wrong:
        raise click.UsageError(f"--for: {wrong.wrong}; {wrong.remedy}") from None
    except ValueError as error:
        raise click.UsageError(f"'{visible(share, 40)}': {error}") from None
    return Override(
        virtual_server=name, selector=selector, share=parsed, by=author(), reason=reason, until=until, written=now
    )

"""`lvsctl check`: say whether a configuration file is valid, and everything that is wrong when it is not."""

import contextlib
from pathlib import Path

import click

from lvsctl.cli.columns import count
from lvsctl.cli.options import DEFAULT_FILE

EPILOG = """\b
Examples:
  lvsctl check                       the installed file, /etc/lvsctl/lvsctl.toml
  lvsctl check new.toml && sudo mv new.toml /etc/lvsctl/lvsctl.toml

\b
Exit status:
  0  the file is valid
  3  it is not; every problem was printed to standard error
"""


@click.command(epilog=EPILOG, short_help="Say whether a configuration file is valid.")
@click.argument(
    "file", type=click.Path(path_type=Path, readable=False), default=Path(DEFAULT_FILE), envvar="LVSCTL_CONFIG"
)
def command(file: Path) -> None:
    """Check the configuration FILE (default: /etc/lvsctl/lvsctl.toml).

    Prints one line when it is valid. Otherwise prints every problem of the file, one a line, with file, line, key,
    what is wrong and what would be right. Neither Consul nor the kernel is asked, and token and certificate files are
    not opened. Says which variables of its own environment it used; the daemon's may be another.
    """
    from lvsctl.config_types import escaped
    from lvsctl.configfile import load
    from lvsctl.errors import ConfigError

    shown = Path(escaped(str(file)))
    try:
        config = load(file)
    except ConfigError as error:
        with contextlib.suppress(OSError):  # the exit code is honest even where nothing can be said
            for problem in error.problems:
                click.echo(problem.at(shown), err=True)
            click.echo(f"{shown}: {count(len(error.problems), 'problem')}", err=True)
        raise SystemExit(error.exit_code) from None
    names = f" ({', '.join(config.virtual_servers)})" if config.virtual_servers else ""
    click.echo(f"{shown}: valid, {count(len(config.virtual_servers), 'virtual server')}{names}")
    if config.discovery is not None:
        networks = ", ".join(map(str, config.discovery.addresses))
        click.echo(f"{shown}: Consul services may declare {config.discovery.max_virtual_servers} more in {networks}")
    if config.consul.from_environment:
        click.echo(f"{shown}: [consul] is completed from the environment: {', '.join(config.consul.from_environment)}")

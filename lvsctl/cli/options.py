"""Options that several commands share, so that they read and behave the same everywhere."""

from pathlib import Path
from typing import Final

import click

DEFAULT_FILE: Final = "/etc/lvsctl/lvsctl.toml"

fleet = click.option(
    "--fleet", is_flag=True, help="On every director, by way of Consul's KV (see [overrides]); not on this one alone."
)

config_file = click.option(
    "-c",
    "--config",
    "path",
    type=click.Path(path_type=Path, readable=False),
    default=DEFAULT_FILE,
    envvar="LVSCTL_CONFIG",
    show_default=True,
    show_envvar=True,
    help="The configuration file.",
)

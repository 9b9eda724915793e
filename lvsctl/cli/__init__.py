"""The `lvsctl` command. One command a file, loaded when it is called, for an operator's command must start fast.

Every error raised on purpose ends here as one message on standard error and the exit code of its class.
"""

import contextlib
import importlib
import sys
from typing import Final

import click

from lvsctl import __version__
from lvsctl.errors import KernelError, LvsctlError
from netlink.errors import NetlinkError

COMMANDS: Final = ("check", "diff", "run", "status", "teardown", "weight")

EPILOG: Final = """\b
Start here:
  lvsctl check /etc/lvsctl/lvsctl.toml   is the file right?
  lvsctl diff                            what would change, and why?
  lvsctl run                             keep the kernel equal to Consul
  lvsctl status                          how does everything stand?
"""


class _Commands(click.Group):
    """The commands, each imported from its own module on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the help."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command object `command` of module `lvsctl.cli.<name>`; None for an unknown name."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"lvsctl.cli.{cmd_name}").command
        return command


@click.group(cls=_Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="lvsctl", message="%(prog)s %(version)s")
def lvsctl() -> None:
    """Keep a Linux Virtual Server director equal to what Consul says is healthy."""


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        lvsctl(prog_name="lvsctl")
    except LvsctlError as error:
        _fail(str(error), error.exit_code)
    except NetlinkError as error:
        _fail(str(error), KernelError.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(message: str, exit_code: int) -> None:
    from lvsctl.text import visible

    with contextlib.suppress(OSError):  # the exit code is honest even where nothing can be said
        for line in message.splitlines():
            click.echo(f"lvsctl: {visible(line)}", err=True)
    sys.exit(exit_code)

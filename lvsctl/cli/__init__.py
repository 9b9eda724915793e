"""The `lvsctl` command. One command a file, loaded when it is called, for an operator's command must start fast.

How each ends, well or not, is in `ending`.
"""

import importlib
from typing import Any, Final

import click

from lvsctl import __version__
from lvsctl.cli.ending import ending, open_streams

COMMANDS: Final = (
    "adopt", "check", "diff", "disown", "doctor", "drain", "events", "explain", "hold", "pause", "release", "reload",
    "resume", "run", "status", "teardown", "undrain", "weight",
)  # fmt: skip

EPILOG: Final = """\b
Start here:
  lvsctl check /etc/lvsctl/lvsctl.toml   is the file right?
  lvsctl doctor                          is the kernel set up for it?
  lvsctl diff                            what would change, and why?
  lvsctl run                             keep the kernel equal to Consul
  lvsctl status                          how does everything stand?
  lvsctl explain 10.2.0.12:80            why is it in or out, and what happened?
"""


class _Commands(click.Group):
    """The commands, each imported from its own module on first use.

    Errors end below click, which would exit with 1 for Ctrl-C and for a reader that went away.
    """

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,  # noqa: ANN401  # as click has it
    ) -> click.Context:
        """Read the command line; help is printed here."""
        with ending():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401  # as click has it
        """Run the command."""
        with ending():
            return super().invoke(ctx)

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
    open_streams()
    with ending():
        lvsctl(prog_name="lvsctl")

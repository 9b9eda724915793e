"""The lab without Vagrant.

python -m vagrant.runner up PROFILE            boot and provision it: mini or full
python -m vagrant.runner test PROFILE          all of it: up, verify, every story, down, and a summary
python -m vagrant.runner ssh GUEST [COMMAND]   a shell in a guest
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from vagrant.runner import lab
from vagrant.runner.box import BoxError
from vagrant.runner.lab import LabError
from vagrant.runner.topology import TopologyError


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m vagrant.runner", description="The lab as plain QEMU guests.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    boot = commands.add_parser("boot", help="boot a profile, and provision nothing")
    boot.add_argument("profile")
    shell = commands.add_parser("ssh", help="a shell in a guest, or one command")
    shell.add_argument("guest")
    shell.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    power = commands.add_parser("power", help="switch a guest off and on")
    power.add_argument("action", choices=("reboot", "kill", "start"))
    power.add_argument("guest")
    commands.add_parser("down", help="end the lab, whatever is left of it")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit status of a command."""
    given = _arguments().parse_args(arguments)
    match given.command:
        case "boot":
            lab.boot(given.profile)
        case "ssh":
            command = lab.ssh(lab.load().guest(given.guest).name)
            os.execvp(command[0], [*command, *given.words])  # noqa: S606 - no shell is wanted
        case "power":
            {"reboot": lab.reboot, "kill": lab.kill, "start": lab.start}[given.action](lab.load(), given.guest)
        case "down":
            lab.down()
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end what was started on the way out, as for Ctrl-C
    try:
        sys.exit(main())
    except (LabError, BoxError, TopologyError) as error:
        sys.exit(f"lab: {error}")

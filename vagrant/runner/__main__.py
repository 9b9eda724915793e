"""The lab without Vagrant.

python -m vagrant.runner up PROFILE            boot and provision it: mini or full
python -m vagrant.runner test PROFILE          all of it: up, verify, every story, down, and a summary
python -m vagrant.runner ssh GUEST [COMMAND]   a shell in a guest
"""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from vagrant.runner import box, lab, tasks
from vagrant.runner.box import BoxError
from vagrant.runner.lab import LabError
from vagrant.runner.topology import TopologyError


def up(given: argparse.Namespace) -> None:
    """Boot a profile, provision it, and see that it works."""
    booted = lab.boot(given.profile)
    tasks.provision(booted)
    tasks.verify(booted)


def boot(given: argparse.Namespace) -> None:
    """Boot a profile, and provision nothing."""
    lab.boot(given.profile)


def test(given: argparse.Namespace) -> None:
    """Bring a profile up, tell every story, take it down, and sum up."""
    if not tasks.test(given.profile, times=given.times):
        sys.exit(1)


def provision(given: argparse.Namespace) -> None:
    """Bring the guests up to date with this checkout."""
    tasks.provision(lab.load(), given.guests)


def verify(_: argparse.Namespace) -> None:
    """See that the lab works."""
    tasks.verify(lab.load())


def story(given: argparse.Namespace) -> None:
    """Tell stories; without a name, list them."""
    if not given.names:
        print(*tasks.stories(lab.load()), sep="\n")
    for name in given.names:
        tasks.story(lab.load(), name)


def ssh(given: argparse.Namespace) -> None:
    """Open a shell in a guest, or run one command there."""
    command = lab.ssh(lab.load().guest(given.guest).name)
    os.execvp(command[0], [*command, *given.words])  # noqa: S606 - no shell is wanted


def power(given: argparse.Namespace) -> None:
    """Reboot a guest, switch it off as a power cut does, or switch it on."""
    {"reboot": lab.reboot, "kill": lab.kill, "start": lab.start}[given.action](lab.load(), given.guest)


def disk(_: argparse.Namespace) -> None:
    """Build the guests' disk, when it is not there, and say where it is."""
    print(box.ensure())


def down(_: argparse.Namespace) -> None:
    """End the lab, whatever is left of it."""
    lab.down()


def arguments() -> argparse.ArgumentParser:
    """Return the commands, each of which has the function that does it, and the first line of its documentation."""
    parser = argparse.ArgumentParser(prog="python -m vagrant.runner", description="The lab as plain QEMU guests.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    made = {}
    for act in (up, boot, test, provision, verify, story, ssh, power, down, disk):
        made[act] = commands.add_parser(act.__name__, help=act.__doc__)
        made[act].set_defaults(act=act)
    for act in (up, boot, test):
        made[act].add_argument("profile", help="mini or full, or another of the topology")
    made[test].add_argument("--times", type=int, default=1, help="how often each story is told")
    made[provision].add_argument("guests", nargs="*", metavar="GUEST", help="all without")
    made[story].add_argument("names", nargs="*", metavar="NAME")
    made[power].add_argument("action", choices=("reboot", "kill", "start"))
    for act in (ssh, power):
        made[act].add_argument("guest")
    made[ssh].add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Return the exit status of a command."""
    given = arguments().parse_args(words)
    try:
        given.act(given)
    except (LabError, BoxError, TopologyError, subprocess.SubprocessError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end what was started on the way out, as for Ctrl-C
    sys.exit(main())

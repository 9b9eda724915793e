"""The command `vagrant/story`: tells one story, or several in a row.

    vagrant/story --list          what there is in this profile
    vagrant/story rolling         one of them
    vagrant/story all             all that this profile can tell

Exit code 0: it went as promised; 1: it did not; 2: no such story, none of this profile, or no lab.
"""

import argparse
import importlib
import sys
import time
from types import ModuleType
from typing import Final

from vagrant.stories.guests import Failed
from vagrant.stories.lab import Lab, chosen
from vagrant.stories.topology import Wrong

NAMES: Final = ("scale", "rolling", "grey", "dies", "flush", "consul-upgrade", "director-reboot", "failover")


def module(name: str) -> ModuleType:
    """Return a story: its first line of documentation is its title, `run` tells it, it needs `DIRECTORS`."""
    return importlib.import_module(f"vagrant.stories.{name.replace('-', '_')}")


def title(story: ModuleType) -> str:
    """Return what a story is about, without the full stop."""
    return (story.__doc__ or "").splitlines()[0].rstrip(".")


def possible(lab: Lab) -> list[str]:
    """Return the stories that this profile can tell."""
    return [name for name in NAMES if len(lab.directors) >= getattr(module(name), "DIRECTORS", 1)]


def tell(lab: Lab, name: str) -> bool:
    """Tell a story and return whether it went as promised."""
    story = module(name)
    print(f"\n== {name}: {title(story)}", flush=True)
    begin = time.monotonic()
    fresh = Lab(lab.name, lab.profile)
    try:
        story.run(fresh)
    except Failed as error:
        print(f"== {name}: FAILED after {time.monotonic() - begin:.0f} s: {error}", flush=True)
        return False
    print(f"== {name}: as promised, {time.monotonic() - begin:.0f} s", flush=True)
    return True


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(prog="story", description="Tells what happens in the lab.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="a story, several, or: all")
    parser.add_argument("--list", action="store_true", help="names and titles of this profile's stories")
    given = parser.parse_args(arguments)
    try:
        lab = chosen()
    except Wrong as error:
        print(f"story: {error}", file=sys.stderr)
        return 2
    can = possible(lab)
    if given.list or not given.names:
        for name in can:
            print(f"{name:16} {title(module(name))}")
        return 0 if given.list else 2
    names = can if given.names == ["all"] else given.names
    for name in names:
        if name not in can:
            why = "needs two directors: LAB_PROFILE=full" if name in NAMES else f"there are: {', '.join(can)}"
            print(f"story: {name!r} is no story of {lab.name}; {why}", file=sys.stderr)
            return 2
    try:
        told = {name: tell(lab, name) for name in names}
    except Wrong as error:
        print(f"story: {error}", file=sys.stderr)
        return 2
    if len(told) > 1:
        print(f"\n{list(told.values()).count(True)} of {len(told)} stories went as promised")
    return 0 if all(told.values()) else 1

"""Which User-Mode Linux: this machine's, or that of another Debian release.

`install_kernel.sh` unpacks the others under build/lab/kernels, each with its release's own C library. Only the Linux
inside differs: the root file system, and so Python and ipvsadm, stay this machine's.
"""

import shutil
import subprocess
from pathlib import Path

import attrs

CHECKOUT = Path(__file__).resolve().parents[2]
STATE = CHECKOUT / "build" / "lab"
RELEASES = {"uml-5.10": "bullseye", "uml-6.1": "bookworm", "uml-6.12": "trixie", "uml-7.2": "sid"}  # in kernel order

# Faster than ptrace, which is what `auto` falls back to where this machine's kernel does not let it.
_ARGUMENTS = {"uml-7.2": ("seccomp=auto",)}


class KernelError(Exception):
    """No kernel with IPVS could be had; the text says what to do."""


@attrs.frozen(kw_only=True)
class UserModeLinux:
    """A kernel that is a program: the command that starts it, and what belongs under /lib/modules/<version>."""

    command: tuple[str, ...]
    modules: Path


def find_user_mode_linux(name: str) -> UserModeLinux:
    """Return this machine's kernel for `uml`, else that of the release that has `name`."""
    return _of_a_release(name) if name in RELEASES else _of_this_machine()


def _of_a_release(name: str) -> UserModeLinux:
    place = STATE / "kernels" / name
    if not (place / "linux.uml").exists():
        raise KernelError(f"lab: no {name} here: `tests/lab/install_kernel.sh {name} {RELEASES[name]}` gets it")
    # Its loader is named relative to its own directory, and only it may see its library.
    command = ("env", "-C", str(place), "LD_LIBRARY_PATH=lib", "./linux.uml", *_ARGUMENTS.get(name, ()))
    return UserModeLinux(command=command, modules=place / "modules")


def _of_this_machine() -> UserModeLinux:
    program = shutil.which("linux.uml")
    if not program:
        raise KernelError("lab: no linux.uml here: `make install` installs it (the package user-mode-linux)")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    modules = Path("/usr/lib/uml/modules") / version
    if not modules.is_dir():
        raise KernelError(f"lab: {program} is {version} and has no modules in {modules}: reinstall user-mode-linux")
    return UserModeLinux(command=(program,), modules=modules)

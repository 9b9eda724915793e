"""Reaching guests: ssh by LAB_SSH_CONFIG, and their power by LAB_POWER. Nothing else here knows what runs them.

One connection to each guest is kept open for a while (ssh's ControlMaster): under emulation a login takes seconds.
"""

import contextlib
import os
import pathlib
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Final

from vagrant.stories.topology import HERE, Wrong

BUILD: Final = HERE.parent / "build" / "vagrant"
PATIENCE: Final = 120.0  # seconds for a command in a guest; emulation is 10 to 20 times slower than a processor


class Failed(Exception):
    """A command in a guest ended badly; the text says which, and what it said."""


def ssh_configuration() -> str:
    """Return the path of the ssh configuration; asks Vagrant for one where LAB_SSH_CONFIG names none."""
    if named := os.environ.get("LAB_SSH_CONFIG"):
        return named
    path = BUILD / "ssh-config"
    with contextlib.suppress(OSError):
        done = subprocess.run(["vagrant", "ssh-config"], cwd=HERE, capture_output=True, text=True, check=False)
        if "Host " in done.stdout:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(done.stdout, encoding="utf-8")
            os.environ["LAB_SSH_CONFIG"] = str(path)
            return str(path)
    raise Wrong("no lab: LAB_SSH_CONFIG names no ssh configuration, and `vagrant ssh-config` gives none")


def command(guest: str, script: str) -> list[str]:
    """Return what runs `script` in bash as root in a guest."""
    sockets = pathlib.Path(tempfile.gettempdir()) / f"lab-ssh-{os.getuid()}"
    sockets.mkdir(mode=0o700, exist_ok=True)
    shared = ["-o", "ControlMaster=auto", "-o", f"ControlPath={sockets}/%C", "-o", "ControlPersist=60"]
    patient = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=60", "-o", "LogLevel=ERROR"]
    return ["ssh", "-F", ssh_configuration(), *shared, *patient, guest, f"sudo -n bash -c {shlex.quote(script)}"]


def forget(guest: str) -> None:
    """Close the connection that is kept to a guest, before its power goes."""
    whole = command(guest, "")
    subprocess.run([*whole[:-2], "-O", "exit", guest], capture_output=True, check=False)


def run(guest: str, script: str, *, patience: float = PATIENCE, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run `script` as root in a guest; raises Failed where it ends with anything but 0, unless not to `check`."""
    try:
        done = subprocess.run(
            command(guest, script),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=patience,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{guest}: no end after {patience:.0f} s: {script}") from error
    if done.returncode == 255 and check:
        raise Failed(f"{guest}: cannot be reached: {done.stderr.strip()}")
    if check and done.returncode != 0:
        raise Failed(f"{guest}: {script}: exit code {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done


def ask(guest: str, script: str, *, patience: float = PATIENCE) -> str:
    """Return what `script` prints, run as root in a guest; raises Failed."""
    return run(guest, script, patience=patience).stdout


def power(what: str, guest: str) -> None:
    """`reboot`, `kill` (the plug) or `start` a guest; returns when that is under way or done, whatever runs it."""
    forget(guest)
    whole = shlex.split(os.environ.get("LAB_POWER") or str(HERE / "power"))
    done = subprocess.run([*whole, what, guest], capture_output=True, text=True, timeout=900, check=False)
    if done.returncode != 0:
        raise Failed(f"{shlex.join([*whole, what, guest])}: {(done.stderr or done.stdout).strip()}")


@contextlib.contextmanager
def process(guest: str, script: str) -> Iterator[subprocess.Popen[str]]:
    """Have `script` run in a guest while the context lasts; it has to end when its standard input does."""
    with subprocess.Popen(command(guest, script), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            if running.stdin is not None and not running.stdin.closed:
                with contextlib.suppress(OSError):
                    running.stdin.close()
            try:
                running.wait(60)
            except subprocess.TimeoutExpired:
                running.kill()

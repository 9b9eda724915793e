"""What is done with a lab that is up: provisioning, verify, stories; and all of it in one go, with a summary."""

import contextlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import attrs

from vagrant.runner import lab
from vagrant.runner.lab import Lab, LabError
from vagrant.runner.machine import Files
from vagrant.runner.places import CHECKOUT, LAB, LOGS, SHARE, SSH_CONFIG, VAGRANT
from vagrant.runner.topology import Guest

PROVISION = 900  # seconds for a guest; some 60 with the full box
VERIFY = 300  # seconds until everything must be right: Consul checks each 10 s
STORY = 900


@attrs.frozen(kw_only=True)
class Step:
    """A step of a test: what was done, whether it went well, and in how many seconds."""

    name: str
    good: bool
    seconds: float

    def __str__(self) -> str:
        """Return the line of the summary."""
        return f"{self.name:<24} {'passed' if self.good else 'FAILED'} {self.seconds:5.0f} s"


def provision(up: Lab, names: Sequence[str] = ()) -> None:
    """Make each guest, or those named, what the topology says: the same scripts that Vagrant runs, on all at once."""
    for name in names:
        up.guest(name)
    subprocess.run([str(VAGRANT / "share.sh"), sys.executable], check=True)
    lab.in_each(up, lambda guest: None if names and guest.name not in names else _provision(up, guest))


def _provision(up: Lab, guest: Guest) -> None:
    """Copy the share to /lab and run guest.sh; what it says goes to the guest's log."""
    log = Files(directory=LAB, guest=guest.name).provisioned
    copy = ["rsync", "-a", "--delete", "--rsync-path=sudo -n rsync", "-e", shlex.join(["ssh", "-F", str(SSH_CONFIG)])]
    make = lab.ssh(guest.name, "sudo", "-n", "/lab/vagrant/provision/guest.sh", up.profile.name, guest.name)
    with log.open("wb") as output:
        for command in ([*copy, f"{SHARE}/", f"{guest.name}:/lab/"], make):
            ended = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=PROVISION, check=False
            )
            if ended.returncode:
                last = "\n".join(log.read_text("utf-8", "replace").splitlines()[-10:])
                raise LabError(f"{guest.name}: provisioning ended with {ended.returncode}, see {log}:\n{last}")


def environment(profile: str) -> dict[str, str]:
    """Return what verify and the stories go by."""
    return os.environ | {"LAB_PROFILE": profile, "LAB_SSH_CONFIG": str(SSH_CONFIG), "LAB_POWER": str(LAB / "power")}


def verify(up: Lab) -> None:
    """Return when the lab works; `vagrant/verify` prints what does not."""
    _show([sys.executable, str(VAGRANT / "verify"), "--wait", str(VERIFY)], up, seconds=VERIFY + 120)


def stories(up: Lab) -> list[str]:
    """Return the names of the stories that this lab can tell."""
    listed = subprocess.run(
        [sys.executable, str(VAGRANT / "story"), "--list"],
        env=environment(up.profile.name),
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.split()[0] for line in listed.stdout.splitlines() if line.strip()]


def story(up: Lab, name: str) -> None:
    """Return when a story was told and all went as promised."""
    _show([sys.executable, str(VAGRANT / "story"), name], up, seconds=STORY)


def test(profile: str, *, times: int) -> bool:
    """Return whether the lab came up, verified, and told each story `times` times as promised; then it is down.

    A story that fails does not keep the others from being told, for each leaves the lab as it found it, or tries to.
    """
    steps: list[Step] = []
    began = time.monotonic()
    good = False
    try:
        with _step(steps, "boot"):
            up = lab.boot(profile)
        with _step(steps, "provision"):
            provision(up)
        with _step(steps, "verify"):
            verify(up)
        for name in stories(up) * times:
            with contextlib.suppress(LabError), _step(steps, f"story {name}"):
                story(up, name)
        good = all(step.good for step in steps)
    except LabError as error:
        print(f"lab: {error}", flush=True)
    finally:
        lab.down()
    whole = Step(name="in all", good=good, seconds=time.monotonic() - began)
    print(
        f"== summary of {profile}",
        *steps,
        whole,
        f"what the guests said: {LOGS.relative_to(CHECKOUT)}",
        sep="\n",
        flush=True,
    )
    return good


@contextlib.contextmanager
def _step(steps: list[Step], name: str) -> Iterator[None]:
    """Have a step of the test done, and write down what became of it."""
    print(f"== {name}", flush=True)
    began, good = time.monotonic(), False
    try:
        yield
        good = True
    finally:
        steps.append(Step(name=name, good=good, seconds=time.monotonic() - began))


def _show(command: Sequence[str], up: Lab, *, seconds: float) -> None:
    """Run a command of the host's side, which prints what it sees."""
    try:
        ended = subprocess.run(command, env=environment(up.profile.name), cwd=CHECKOUT, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise LabError(f"{shlex.join(command)}: no end after {seconds:.0f} s") from None
    if ended.returncode:
        raise LabError(f"{shlex.join(command)} ended with {ended.returncode}")

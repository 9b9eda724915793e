"""The lab that is up: booting its guests, their power, and the end of it.

Its directory says everything: `lab.json` what was booted, and for each guest its disk, the process id of its QEMU and
its console. `down` goes by the process ids, so that it ends a lab of which only a part came up, too.
"""

import contextlib
import json
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs

from vagrant.runner import box
from vagrant.runner.machine import Files, Wire, qemu, ssh_config
from vagrant.runner.places import CHECKOUT, LAB, LOGS, SSH_CONFIG, TOPOLOGY
from vagrant.runner.topology import Guest, Profile, read

BOOT = 600  # seconds until a guest must answer by ssh; 25 when it boots alone
AT_ONCE = 4  # guests that are booted or provisioned at a time: more would only wait for each other and time out
COMMAND = 60  # seconds for a small command in a guest


class LabError(Exception):
    """Something about the lab went wrong; the text says what and where to look."""


@attrs.frozen(kw_only=True)
class Lab:
    """A lab that is up, or was; what `lab.json` keeps."""

    profile: Profile
    box: Path
    wires: tuple[Wire, ...]
    ports: dict[str, int]  # of ssh on the loopback, by guest
    sockets: Path  # where ssh's open connections are; their paths must be short

    def guest(self, name: str) -> Guest:
        """Return the guest of that name."""
        for guest in self.profile.guests:
            if guest.name == name:
                return guest
        raise LabError(f"no guest {name}: there are {', '.join(self.ports)}")


def load() -> Lab:
    """Return the lab that is up."""
    try:
        kept = json.loads((LAB / "lab.json").read_text("utf-8"))
    except FileNotFoundError:
        raise LabError("no lab is up; `python -m vagrant.runner up mini` boots one") from None
    return Lab(
        profile=read(TOPOLOGY, kept["profile"]),
        box=Path(kept["box"]),
        wires=tuple(Wire(**wire) for wire in kept["wires"]),
        ports=kept["ports"],
        sockets=Path(kept["sockets"]),
    )


def boot(profile: str) -> Lab:
    """Return the lab of that profile, all its guests reachable by ssh."""
    if (LAB / "lab.json").exists():
        raise LabError("a lab is up already; `python -m vagrant.runner down` ends it")
    chosen = read(TOPOLOGY, profile)
    disk = box.ensure()
    down()
    LAB.mkdir(parents=True)
    lab = Lab(
        profile=chosen,
        box=disk,
        wires=tuple(Wire(network=network, group=_free_group()) for network in chosen.networks),
        ports=dict(zip((guest.name for guest in chosen.guests), _free_ports(len(chosen.guests)), strict=True)),
        sockets=Path(tempfile.mkdtemp(prefix="lab-ssh-")),
    )
    SSH_CONFIG.write_text(ssh_config(lab.ports, box=disk, sockets=lab.sockets), "utf-8")
    _write_power()
    kept = {"profile": profile, "box": str(disk), "ports": lab.ports, "sockets": str(lab.sockets)}
    (LAB / "lab.json").write_text(json.dumps(kept | {"wires": [attrs.asdict(wire) for wire in lab.wires]}), "utf-8")
    in_each(lab, lambda guest: _boot(lab, guest))
    return lab


def in_each(lab: Lab, act: Callable[[Guest], None]) -> None:
    """Do `act` with each guest, several at a time; raise the first error when all have ended."""
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        doing = [pool.submit(act, guest) for guest in lab.profile.guests]
    for each in doing:
        each.result()


def ssh(guest: str, *command: str) -> list[str]:
    """Return the command that runs `command` in a guest, its words kept as they are."""
    return ["ssh", "-F", str(SSH_CONFIG), guest, *([shlex.join(command)] if command else [])]


def run(guest: str, script: str, *, seconds: float = COMMAND) -> str:
    """Return what a shell script prints that is run as root in a guest."""
    ended = subprocess.run(
        ssh(guest, "sudo", "-n", "sh", "-e", "-s"),
        input=script,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    if ended.returncode:
        raise LabError(f"{guest}: exit status {ended.returncode}: {ended.stderr.strip()}")
    return ended.stdout


def start(lab: Lab, name: str) -> None:
    """Switch a guest on, and wait until it answers; nothing to do when it is on."""
    guest = lab.guest(name)
    if _pid(Files(directory=LAB, guest=name).pid) is None:
        _start(lab, guest)
    _wait_for_ssh(guest)


def kill(lab: Lab, name: str) -> None:
    """Switch a guest off as a power cut does."""
    _end(Files(directory=LAB, guest=lab.guest(name).name).pid, signal.SIGKILL)


def reboot(lab: Lab, name: str) -> None:
    """Reboot a guest in good order, and wait until it answers again."""
    guest = lab.guest(name)
    before = run(name, "cat /proc/sys/kernel/random/boot_id; systemctl reboot")
    _close(lab, name)
    _wait_for_ssh(guest, unlike=before.strip())


def down() -> None:
    """End every guest that this checkout has started, and remove the lab's directory but for what the guests said."""
    with contextlib.suppress(LabError, OSError, ValueError, KeyError):
        sockets = Path(json.loads((LAB / "lab.json").read_text("utf-8"))["sockets"])
        for each in sockets.glob("*"):
            subprocess.run(["ssh", "-O", "exit", "-o", f"ControlPath={each}", "lab"], capture_output=True, check=False)
        shutil.rmtree(sockets, ignore_errors=True)
    for pid in LAB.glob("*.pid"):
        _end(pid, signal.SIGTERM)
    said = [*LAB.glob("*.console"), *LAB.glob("*.log")]
    if said:
        shutil.rmtree(LOGS, ignore_errors=True)
        LOGS.mkdir()
    for each in said:
        each.rename(LOGS / each.name)
    shutil.rmtree(LAB, ignore_errors=True)


def alive(name: str) -> bool:
    """Return whether the guest's QEMU runs."""
    return _pid(Files(directory=LAB, guest=name).pid) is not None


def _start(lab: Lab, guest: Guest) -> None:
    files = Files(directory=LAB, guest=guest.name)
    command = qemu(
        guest, files, lab.wires, ssh_port=lab.ports[guest.name], accelerator=os.environ.get("LAB_ACCELERATOR", "tcg")
    )
    started = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if started.returncode:
        raise LabError(f"{guest.name}: QEMU did not start: {started.stderr.strip()}")


def _boot(lab: Lab, guest: Guest) -> None:
    """Boot a guest for the first time; its cards get their addresses by provisioning, here and under Vagrant."""
    overlay = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(lab.box / "box.qcow2")]
    subprocess.run([*overlay, str(Files(directory=LAB, guest=guest.name).disk)], check=True)
    _start(lab, guest)
    _wait_for_ssh(guest)


def _wait_for_ssh(guest: Guest, *, unlike: str = "") -> None:
    """Return when a guest answers; `unlike` is the boot that it must have left."""
    files = Files(directory=LAB, guest=guest.name)
    give_up = time.monotonic() + BOOT
    asked = ssh(guest.name, "cat", "/proc/sys/kernel/random/boot_id")
    said = ""
    while time.monotonic() < give_up:
        if not alive(guest.name):
            raise LabError(f"{guest.name}: its QEMU has ended, see {files.console}")
        with contextlib.suppress(subprocess.TimeoutExpired):
            answer = subprocess.run(
                asked, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False
            )
            said = answer.stderr.strip()
            if answer.returncode == 0 and answer.stdout.strip() != unlike:
                return
        time.sleep(0.5)
    raise LabError(f"{guest.name}: no answer by ssh in {BOOT} s ({said}), see {files.console}")


def _close(lab: Lab, name: str) -> None:
    subprocess.run(
        ["ssh", "-F", str(SSH_CONFIG), "-O", "exit", name], capture_output=True, timeout=COMMAND, check=False
    )
    (lab.sockets / name).unlink(missing_ok=True)


def _pid(file: Path) -> int | None:
    """Return the process of a pid file if it is the QEMU that wrote it."""
    try:
        pid = int(file.read_text("ascii"))
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if str(file).encode() in command else None


def _end(file: Path, how: signal.Signals) -> None:
    """End the QEMU of a pid file; by force when it does not go."""
    for each in (how, signal.SIGKILL):
        pid = _pid(file)
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, each)
        give_up = time.monotonic() + 10
        while _pid(file) is not None and time.monotonic() < give_up:
            time.sleep(0.05)
    if _pid(file) is not None:
        raise LabError(f"the QEMU of {file} does not end")


def _free_ports(count: int) -> Iterator[int]:
    """Return ports of the loopback that nobody listens on."""
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        ports = [listener.getsockname()[1] for listener in listeners]
    return iter(ports)


def _free_group() -> str:
    """Return a multicast group that hardly anybody else has."""
    draw = random.SystemRandom()
    return f"239.{draw.randrange(256)}.{draw.randrange(256)}.{draw.randrange(1, 255)}:{draw.randrange(10000, 30000)}"


def _write_power() -> None:
    """Write LAB_POWER, the command by which verify and the stories switch guests off and on."""
    power = LAB / "power"
    words = shlex.join(["env", f"PYTHONPATH={CHECKOUT}", sys.executable, "-m", "vagrant.runner", "power"])
    power.write_text(f'#!/bin/sh\nexec {words} "$@"\n', "utf-8")
    power.chmod(0o755)

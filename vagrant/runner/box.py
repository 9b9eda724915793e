"""The disk that all guests begin with, built once for each recipe: `box.sh`, and the Consul that goes into it."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.lab.consul import program
from vagrant.runner.places import STATE, VAGRANT

SCRIPT = VAGRANT / "runner" / "box.sh"
DEADLINE = 900  # seconds; 80 with a near mirror


class BoxError(Exception):
    """The disk could not be built; the text says where to look."""


def recipe(script: bytes, consul: bytes, packages: str) -> str:
    """Return the name of the box that `script` makes with this Consul and BOX_PACKAGES."""
    digest = hashlib.sha256()
    for part in (script, consul, packages.encode()):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:12]


def ensure() -> Path:
    """Return the directory of the box of today's recipe, built now when it is missing."""
    consul = Path(shutil.which(program()) or program()).resolve()
    packages = os.environ.get("BOX_PACKAGES", "")
    boxes = STATE / "box"
    boxes.mkdir(parents=True, exist_ok=True)
    place = boxes / recipe(SCRIPT.read_bytes(), consul.read_bytes(), packages)
    with (boxes / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "box.qcow2").exists():
            _build(place, consul)
    return place


def _build(place: Path, consul: Path) -> None:
    log = STATE / "box.log"
    print(f"lab: building the guests' disk, in a minute or two ({log.relative_to(STATE.parents[1])})", file=sys.stderr)
    began = time.monotonic()
    names = [
        f"BOX_CONSUL={consul}",
        *(f"{name}={os.environ[name]}" for name in ("BOX_PACKAGES",) if name in os.environ),
    ]
    command = [*(("sudo",) if os.getuid() else ()), "env", *names, str(SCRIPT), str(place)]
    with log.open("wb") as output:
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=DEADLINE, check=False
        )
    if ended.returncode:
        last = "\n".join(log.read_text("utf-8", "replace").splitlines()[-5:])
        raise BoxError(f"the guests' disk could not be built, see {log}:\n{last}")
    print(f"lab: built it in {time.monotonic() - began:.0f} s", file=sys.stderr)

"""One line of the benchmark in a real distribution kernel, under qemu with software emulation.

User-Mode Linux makes system calls dear, which flatters who makes few. An emulated kernel makes them cheap and Python
slow. Bare metal lies between. The guest has the machine's own files as its root, read only (9p), and one writable
directory; install.sh made the kernel and the initramfs.
"""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

import attrs

from tests.bench.result import Result, from_json
from tests.bench.works import WIDE
from tests.lab.kernels import CHECKOUT

IMAGES: Final = CHECKOUT / "build/bench/emulated"
GUEST: Final = CHECKOUT / "build/bench/guest"
QEMU: Final = "qemu-system-x86_64"
DEADLINE: Final = 180.0  # seconds
AGAINST: Final = "ipvsadm -R"


def run_emulated(*, quick: bool) -> list[Result]:
    """Return the line, or one that says why there are no figures."""
    try:
        version, (result,) = _measured(quick=quick)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        words = " ".join(str(error).split())
        return [Result(work="load, emulated kernel", shape=str(WIDE), against=AGAINST, note=f"not run: {words}")]
    note = f"Debian's {version} under qemu (tcg), where system calls are cheap: bare metal lies between"
    return [attrs.evolve(result, work="load, emulated kernel", note=note)]


def _measured(*, quick: bool) -> tuple[str, list[Result]]:
    why = IMAGES / "why"
    if why.exists():
        raise OSError(why.read_text("utf-8"))
    if not shutil.which(QEMU) or not (IMAGES / "initramfs").exists():
        raise OSError(f"no {QEMU} or no kernel for it; tests/bench/install.sh gets them")
    shutil.rmtree(GUEST, ignore_errors=True)
    GUEST.mkdir(parents=True)
    results = GUEST / "results.json"
    options = ["--quick"] if quick else []
    command = [sys.executable, "-m", "tests.bench.inside", *options, str(results), "emulated"]
    (GUEST / "command").write_text(_script(command), "utf-8")
    with (GUEST / "console").open("wb") as console:
        subprocess.run(_qemu(), stdin=subprocess.DEVNULL, stdout=console, stderr=console, timeout=DEADLINE, check=True)
    status = GUEST / "status"
    if not status.exists() or status.read_text("ascii").strip() != "0":
        raise OSError(f"it failed in the guest, see {(GUEST / 'console').relative_to(CHECKOUT)}")
    return (IMAGES / "version").read_text("ascii").strip(), from_json(results.read_text("utf-8"))


def _qemu() -> Sequence[str]:
    machine = "local,path=/,mount_tag=machine,security_model=none,readonly=on,multidevs=remap"
    guest = f"local,path={GUEST},mount_tag=guest,security_model=none"
    return [
        *(QEMU, "-accel", "tcg,tb-size=96", "-cpu", "qemu64", "-m", "1G", "-smp", "1"),
        *("-display", "none", "-monitor", "none", "-serial", "stdio", "-nodefaults", "-no-reboot"),
        *("-virtfs", machine, "-virtfs", guest),
        *("-kernel", str(IMAGES / "vmlinuz"), "-initrd", str(IMAGES / "initramfs")),
        *("-append", f"console=ttyS0 quiet panic=-1 BENCH_GUEST={GUEST}"),
    ]


def _script(command: Sequence[str]) -> str:
    return "\n".join([
        "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "export PYTHONDONTWRITEBYTECODE=1 TMPDIR=/run LANG=C.UTF-8",
        f"cd {shlex.quote(str(CHECKOUT))} || exit",
        f"exec {shlex.join(command)}",
        "",
    ])  # fmt: skip

"""Runs a command as root in a kernel that has IPVS.

    python -m tests.lab.kernel [--timeout S] [--memory 2G] [--tty] -- COMMAND...

Most build machines have no `ip_vs` and no KVM. So the kernel is User-Mode Linux, a Linux kernel that is an
ordinary program, with the host's own file system as its root and every write to it (but to the working tree)
kept in memory. Where the host's kernel has IPVS and lets us use it, fresh namespaces of that kernel do the same
in less time. `init.sh` is the inside. LVSCTL_LAB_KERNEL decides: `host`, `uml` (this machine's linux.uml) or one of
`kernels.RELEASES` (`uml-5.10`: the one of another Debian release).

The exit status is COMMAND's; 124 when the deadline passed, 125 when the kernel could not run it. Only what
COMMAND prints comes out: the kernel's own messages go to a file, shown when something went wrong.
Inside, starting a process is slow (Python takes 0.3 s) and there is one processor.
"""

import argparse
import ctypes
import fcntl
import os
import pty
import selectors
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import attrs

from tests.lab.kernels import CHECKOUT, RELEASES, STATE, KernelError, UserModeLinux, find_user_mode_linux
from tests.lab.processor import claimed

PASSED = ("PATH", "HOME", "LANG", "LC_ALL", "TERM", "CI", "VIRTUAL_ENV", "COLUMNS", "LINES", "ARGS")
PASSED_PREFIXES = ("LVSCTL_", "HYPOTHESIS_", "PYTEST_", "PYTHON")
DEADLINE_PASSED, NO_KERNEL, INTERRUPTED = 124, 125, 130
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h

_libc = ctypes.CDLL(None)


@attrs.frozen(kw_only=True)
class Job:
    """One command and the conditions it runs under."""

    command: tuple[str, ...]
    timeout: float = attrs.field(default=600.0)  # seconds
    memory: str = attrs.field(default="2G")
    tty: bool = attrs.field(default=False)


def run(job: Job) -> int:
    """Return the exit status of `job.command`, run inside a kernel with IPVS."""
    if set(str(CHECKOUT)) & set(" \t:,'\""):
        raise KernelError(f"lab: the kernel's command line cannot carry {CHECKOUT}: move it where the path is simple")
    name = choose_kernel()
    kernel = None if name == "host" else find_user_mode_linux(name)
    kind = "uml" if kernel else "host"
    STATE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="run-", dir=STATE) as directory:
        place = Path(directory)
        (place / "command").write_text(_script(job, kind), encoding="utf-8")
        inside = {
            "LAB_RUN": str(place),
            "LAB_CHECKOUT": str(CHECKOUT),
            "LAB_KERNEL": kind,
            "LAB_TTY": "yes" if job.tty else "no",
        }
        status = _run_in_user_mode_linux(job, kernel, place, inside) if kernel else _run_in_host_kernel(job, inside)
        if status is not None:
            return status
        answer = place / "status"
        if answer.exists():
            return int(answer.read_text(encoding="ascii"))
        log = place / "kernel.log"
        words = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        print("lab: the kernel ended before the command did", words[-4000:], sep="\n", file=sys.stderr)
        return NO_KERNEL


def choose_kernel() -> str:
    """Return `host` when the host's kernel has IPVS for us, else `uml`; LVSCTL_LAB_KERNEL decides when set."""
    wanted = os.environ.get("LVSCTL_LAB_KERNEL", "")
    if wanted in {"host", "uml", *RELEASES}:
        return wanted
    if wanted:
        raise KernelError(f"lab: LVSCTL_LAB_KERNEL is {wanted}, which is none of host, uml, {', '.join(RELEASES)}")
    if os.geteuid() == 0 and shutil.which("ipvsadm") and shutil.which("unshare"):
        # Only a try tells: the module, the capability in the first user namespace, a container's filters.
        tried = subprocess.run(
            ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "ipvsadm", "-A", "-t", "127.0.0.1:1"],
            capture_output=True,
            check=False,
        )
        if tried.returncode == 0:
            return "host"
    return "uml"


def _script(job: Job, kind: str) -> str:
    """Return the shell text that gives `job.command` its directory and its environment."""
    passed = {name: value for name, value in os.environ.items() if name in PASSED or name.startswith(PASSED_PREFIXES)}
    # Debian keeps ip and ipvsadm where an ordinary person's PATH does not look.
    passed["PATH"] = (
        f"{Path(sys.executable).parent}:{passed.get('PATH', '/usr/bin:/bin')}:/usr/local/sbin:/usr/sbin:/sbin"
    )
    passed |= {"LVSCTL_LAB": kind, "GOMAXPROCS": "1", "TMPDIR": "/tmp"}  # noqa: S108 - memory inside
    if not sys.stdout.isatty():
        passed |= {"TERM": "dumb", "NO_COLOR": "1"}
    lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(passed.items())]
    if job.tty and sys.stdin.isatty():
        size = os.get_terminal_size(sys.stdin.fileno())
        lines.append(f"stty rows {size.lines} cols {size.columns}")
    lines += [f"cd {shlex.quote(str(Path.cwd()))} || exit", f"exec {shlex.join(job.command)}"]
    return "\n".join(lines) + "\n"


def _run_in_host_kernel(job: Job, inside: Mapping[str, str]) -> int | None:
    """Return the status when we ended the command ourselves, None when it ended by itself."""
    # A process namespace of its own: when its first process dies, the kernel ends all that it left behind.
    unshare = ["unshare", "--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
    process = subprocess.Popen(
        [*unshare, str(CHECKOUT / "tests/lab/init.sh")],
        env=os.environ | inside,
        stdin=None if job.tty else subprocess.DEVNULL,
        start_new_session=not job.tty,
    )
    try:
        process.wait(job.timeout)
    except subprocess.TimeoutExpired:
        _say_deadline(job)
        return DEADLINE_PASSED
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        process.kill()
        process.wait()
    return None


def _run_in_user_mode_linux(job: Job, kernel: UserModeLinux, place: Path, inside: Mapping[str, str]) -> int | None:
    """Return the status when we ended the kernel ourselves, None when it ended by itself."""
    with (
        (place / "kernel.log").open("wb") as log,
        _console(job) as (kernel_end, our_end, answer),
        claimed() as processor,
    ):
        arguments = [
            *_own_process_namespace(),
            *kernel.command,
            f"mem={job.memory}",
            "root=/dev/root",
            "rootfstype=hostfs",
            "rootflags=/",
            "rw",
            f"init={CHECKOUT}/tests/lab/init.sh",
            f"uml_dir={place}/",
            "con=null",
            "con0=null,fd:1",  # the kernel's messages: its log
            f"con1=fd:{kernel_end},fd:{kernel_end}",
            "quiet",
            "panic=-1",
            "noreboot",
            f"LAB_MODULES={kernel.modules}",
            *(f"{name}={value}" for name, value in inside.items()),
        ]
        _become_subreaper()
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[kernel_end],
            env=os.environ | {"TMPDIR": _memory_directory(job.memory)} | _preload(),
            start_new_session=True,
            preexec_fn=partial(_prepare, processor),  # noqa: PLW1509 - there is one thread here
        )
        os.close(kernel_end)
        try:
            return _relay(job, process, our_end, place / "status", answer)
        except KeyboardInterrupt:
            return INTERRUPTED
        finally:
            _end(process)


def _preload() -> dict[str, str]:
    """Return the environment that loads the answer to processors with AMX, see xstate.c."""
    library = STATE / "xstate.so"
    return {"LD_PRELOAD": str(library)} if library.exists() else {}


def _memory_directory(memory: str) -> str:
    """Return a directory for the file that is the kernel's memory: a tmpfs with room, else one of the disk's.

    A container's /dev/shm often has 64 MB, and a kernel whose memory cannot grow dies of SIGBUS.
    """
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    needed = int(memory[:-1]) * units[memory[-1].upper()]
    shared = Path("/dev/shm")  # noqa: S108 - User-Mode Linux makes its file there safely and unlinks it
    if shared.is_dir() and os.access(shared, os.W_OK) and shutil.disk_usage(shared).free > needed:
        return str(shared)
    return str(STATE)


def _own_process_namespace() -> list[str]:
    """Return the command before the kernel's that has all its processes end with the first, where we may."""
    own = ["unshare", "--pid", "--fork", "--kill-child"]
    allowed = subprocess.run([*own, "true"], capture_output=True, check=False).returncode == 0
    return own if allowed else []


def _become_subreaper() -> None:
    """Make this process the parent of what User-Mode Linux leaves behind, so that it can be waited for."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _prepare(processor: int | None) -> None:
    """Have the kernel stay on `processor`, and end when this process is killed and cannot end it."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if processor is not None:
        os.sched_setaffinity(0, {processor})


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the kernel and the processes it leaves behind, and wait for each.

    Its processes share its session, but the one that watches the console's size has a session of its own
    and outlives it: as subreaper we are its parent once the kernel is dead.
    """
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    with suppress(ChildProcessError):
        while True:
            for child in children.read_text(encoding="ascii").split():
                os.kill(int(child), signal.SIGKILL)
            os.waitpid(-1, 0)


@contextmanager
def _console(job: Job) -> Iterator[tuple[int, int, bool]]:
    """Yield the kernel's end and our end of its console, and whether our terminal answers on it.

    A pseudo-terminal in between, and never our own terminal: User-Mode Linux makes what it is given
    non-blocking and raw, and would leave it so.
    """
    our_end, kernel_end = pty.openpty()
    tty.setraw(kernel_end)
    answer = job.tty and sys.stdin.isatty()
    if answer:
        before = termios.tcgetattr(sys.stdin)
        rows_and_columns = fcntl.ioctl(sys.stdin, termios.TIOCGWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
        fcntl.ioctl(kernel_end, termios.TIOCSWINSZ, rows_and_columns)
        tty.setraw(sys.stdin)
    try:
        yield kernel_end, our_end, answer
    finally:
        if answer:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
        os.close(our_end)


def _relay(job: Job, process: subprocess.Popen[bytes], our_end: int, status: Path, answer: bool) -> int | None:  # noqa: FBT001
    """Copy the console until the kernel ends; None when it did, a status when the deadline passed first."""
    deadline = time.monotonic() + job.timeout
    with selectors.DefaultSelector() as selector:
        selector.register(our_end, selectors.EVENT_READ, _copier(our_end, sys.stdout.fileno()))
        if job.tty:
            # A script may type as well as a person: whatever standard input is, it goes to the console.
            with suppress(PermissionError):  # a plain file cannot be waited for
                selector.register(sys.stdin, selectors.EVENT_READ, _copier(sys.stdin.fileno(), our_end))
        while time.monotonic() < deadline:
            for key, _ in selector.select(0.1):
                copy: Callable[[], bool] = key.data
                if not copy():
                    if key.fd == our_end:
                        return None
                    selector.unregister(key.fileobj)
            if status.exists() or process.poll() is not None:
                while selector.select(0) and _copier(our_end, sys.stdout.fileno())():
                    pass
                return None
    if not answer:
        _say_deadline(job)
    return DEADLINE_PASSED


def _copier(source: int, target: int) -> Callable[[], bool]:
    """Return a function that copies what `source` has and says whether there may be more."""

    def copy() -> bool:
        try:
            data = os.read(source, 65536)
        except OSError:  # EIO: nobody holds the other end of the pseudo-terminal
            return False
        while data:
            data = data[os.write(target, data) :]
        return bool(data) or source != target

    return copy


def _say_deadline(job: Job) -> None:
    print(f"lab: {shlex.join(job.command)} was ended after {job.timeout:g} s", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit status of the command that `arguments` name."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.lab.kernel", description="Run a command in a kernel with IPVS."
    )
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds until the kernel is ended")
    parser.add_argument("--memory", default="2G", help="the kernel's memory: 512M, 2G")
    parser.add_argument("--tty", action="store_true", help="give the command a terminal")
    parser.add_argument("command", nargs="+")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end the kernel on the way out, as for Ctrl-C
    try:
        return run(Job(command=tuple(given.command), timeout=given.timeout, memory=given.memory, tty=given.tty))
    except KernelError as error:
        print(error, file=sys.stderr)
        return NO_KERNEL


if __name__ == "__main__":
    sys.exit(main())

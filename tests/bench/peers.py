"""Who is measured beside us: our own C program, ipvsadm and keepalived 2.2; all of them as processes.

ipvsadm and keepalived are timed from outside, start of the process included, for so an operator pays them. The C
program times itself, without its start, as we are timed without Python's.
"""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from netlink.channel import BATCH
from tests.bench.shapes import Shape
from tests.bench.timing import timed

BASELINE: Final = Path(__file__).resolve().parents[2] / "build/bench/baseline"
# keepalived tells nobody when it is done. So the C program asks for the real servers of the last virtual server (some
# 0.1 ms) every so many milliseconds: what it finds out is at most this late, and costs keepalived 1 to 2 % of the only
# processor. Afterwards the whole table is compared with the wanted one.
LOOK_EVERY: Final = 10  # ms
LONGEST: Final = 60  # seconds


class PeerError(Exception):
    """A peer did not do what it was measured at."""


def baseline(mode: str, *arguments: int) -> list[tuple[str, float]]:
    """Return the lines that the C program prints: a word and a number each."""
    return _lines(_output([str(BASELINE), mode, *map(str, arguments)]))


def c_load(shape: Shape, run: int) -> float:
    """Return the ms that the C program needs to create the table, in batches as long as ours."""
    return _only("load", baseline("load", shape.virtual_servers, shape.real_servers, run, BATCH))


def c_weights(shape: Shape, run: int, shift: int) -> float:
    """Return the ms that the C program needs to change every weight."""
    return _only("weights", baseline("weights", shape.virtual_servers, shape.real_servers, run, shift, BATCH))


def c_dumps(shape: Shape, count: int) -> list[float]:
    """Return the ms of `count` dumps of the C program on one socket; the first is the first of that socket."""
    lines = baseline("dump", count)
    if ("destinations", shape.virtual_servers * shape.real_servers) not in lines:
        raise PeerError(f"the C program read another table: {lines[-2:]}")
    return [ms for word, ms in lines if word == "dump"]


def c_changes(shape: Shape, run: int, count: int, block: int) -> list[float]:
    """Return the ms of one weight change, `count` times, each the mean of `block` changes; the first are left out."""
    lines = baseline("change", shape.virtual_servers, shape.real_servers, run, count, block)
    return [ms for _, ms in lines]


def ipvsadm_load(shape: Shape, run: int) -> float:
    """Return the ms that `ipvsadm -R` needs for the table."""
    with tempfile.TemporaryFile() as rules:
        rules.write(shape.rules_text(run).encode())
        rules.seek(0)
        ms, _ = timed(lambda: subprocess.run(["ipvsadm", "-R"], stdin=rules, check=True))
    return ms


def ipvsadm_list(*options: str) -> float:
    """Return the ms of one listing, into nowhere."""
    ms, _ = timed(lambda: subprocess.run(["ipvsadm", "-Ln", *options], stdout=subprocess.DEVNULL, check=True))
    return ms


@attrs.frozen(kw_only=True)
class Keepalived:
    """A running keepalived, only the part that does IPVS."""

    shape: Shape
    run: int
    started_ms: float  # from the start of the process until the table was complete
    process: "subprocess.Popen[bytes]"
    file: Path

    def reload(self, shift: int) -> float:
        """Return the ms from the signal until every weight is `shift` greater."""
        self.file.write_text(self.shape.keepalived_text(self.run, shift), "ascii")
        with _watching(self.shape, self.run, shift) as watch:
            began = time.monotonic() * 1000
            self.process.send_signal(signal.SIGHUP)
            return watch.completed() - began


@contextmanager
def keepalived(shape: Shape, run: int) -> Iterator[Keepalived]:
    """Start keepalived, and end it without its cleaning up."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        file = place / "keepalived.conf"
        file.write_text(shape.keepalived_text(run), "ascii")
        pids = [f"--pid={place}/pid", f"--checkers_pid={place}/checkers.pid"]
        only = ["--check", "--no_bfd", "--dont-respawn", "--dont-fork", "--no-syslog", "--dont-release-ipvs"]
        with _watching(shape, run, 0) as watch:
            began = time.monotonic() * 1000
            process = subprocess.Popen(["keepalived", *only, *pids, f"--use-file={file}"], start_new_session=True)
            try:
                ms = watch.completed() - began
                yield Keepalived(shape=shape, run=run, started_ms=ms, process=process, file=file)
            finally:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@attrs.frozen
class _Watch:
    process: "subprocess.Popen[str]"

    def completed(self) -> float:
        """Return when the table was complete, in ms of the monotonic clock."""
        output, _ = self.process.communicate()
        if self.process.returncode:
            raise PeerError("keepalived did not finish its table")
        return _only("at", _lines(output))


@contextmanager
def _watching(shape: Shape, run: int, shift: int) -> Iterator[_Watch]:
    numbers = (shape.virtual_servers, shape.real_servers, run, shift, LOOK_EVERY, LONGEST)
    with subprocess.Popen(
        [str(BASELINE), "wait", *map(str, numbers)], stdout=subprocess.PIPE, text=True, encoding="ascii"
    ) as process:
        try:
            if process.stdout is not None:
                process.stdout.readline()  # it looks from now on
            yield _Watch(process)
        finally:
            process.kill()


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, encoding="ascii", check=True)
    return done.stdout


def _lines(output: str) -> list[tuple[str, float]]:
    pairs = (line.split() for line in output.splitlines())
    return [(word, float(number)) for word, number in pairs]


def _only(word: str, lines: Sequence[tuple[str, float]]) -> float:
    if [found for found, _ in lines] != [word]:
        raise PeerError(f"the C program printed {lines}, not one line {word!r}")
    return lines[0][1]

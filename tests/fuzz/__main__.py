"""Runs a target under atheris, or makes an input that failed smaller: `make fuzz ARGS='--target bulk --seconds 300'`.

What atheris finds interesting stays in build/fuzz/TARGET/corpus, where the next run begins, and what fails beside it. A
failing input, once it is small (`--minimise FILE`, which prints what belongs into tests/fuzz/finds/TARGET/NAME.hex), is
a test from then on.
"""

import argparse
import hashlib
import importlib
import sys
import textwrap
import traceback
from collections.abc import Callable
from pathlib import Path

NAMES = (
    "framing", "answers", "bulk", "layouts", "connections", "talk", "encoder", "consul", "consul-bytes", "weights",
    "http2", "http2-fields",
)  # fmt: skip
STATE = Path("build/fuzz")


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.split(":", 1)[0])
    parser.add_argument("--target", choices=NAMES, default="bulk")
    parser.add_argument("--seconds", type=int, default=300, help="how long to look; 300")
    parser.add_argument("--seed", type=int, default=0, help="of the fuzzer's choices; 0 is another one every time")
    parser.add_argument("--minimise", type=Path, metavar="FILE", help="make this failing input smaller, and print it")
    arguments = parser.parse_args()
    if arguments.minimise is None:
        _fuzz(arguments.target, arguments.seconds, arguments.seed)
    else:
        _minimise(arguments.target, arguments.minimise.read_bytes())


def _fuzz(name: str, seconds: int, seed: int) -> None:
    try:
        atheris = importlib.import_module("atheris")
    except ImportError as error:
        sys.exit(f"atheris cannot be imported ({error}): `make fuzz` installs it where PyPI has it for this Python")
    with atheris.instrument_imports(include=["netlink", "lvsctl"]):
        target = importlib.import_module("tests.fuzz.targets").TARGETS[name]
    corpus = STATE / name / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for each in (*target.seeds, *importlib.import_module("tests.fuzz.recorded").finds(name).values()):
        (corpus / hashlib.sha256(each).hexdigest()[:40]).write_bytes(each)
    options = {
        "max_total_time": seconds,
        "seed": seed,
        "max_len": max(256, *map(len, target.seeds)),
        "len_control": 0,  # long inputs from the beginning
        "timeout": 60,  # seconds for one input
        "artifact_prefix": f"{STATE / name}/",
        "print_final_stats": 1,
    }
    atheris.Setup(["fuzz", *(f"-{option}={value}" for option, value in options.items()), str(corpus)], target.run)
    atheris.Fuzz()


def _failure(run: Callable[[bytes], None], data: bytes) -> tuple[object, ...] | None:
    """Return what fails and where, None when nothing does."""
    try:
        run(data)
    except Exception as error:  # noqa: BLE001 -- whatever a bug raises
        last = traceback.extract_tb(error.__traceback__)[-1]
        return type(error), last.filename, last.lineno
    return None


def _minimise(name: str, data: bytes) -> None:
    """Take pieces out of `data`, and turn bytes into 0, as long as the same fails."""
    run = importlib.import_module("tests.fuzz.targets").TARGETS[name].run
    failure = _failure(run, data)
    if failure is None:
        sys.exit("nothing fails")
    size = len(data)
    while size := size // 2:
        place = 0
        while place < len(data):
            shorter = data[:place] + data[place + size :]
            zeroed = data[:place] + bytes(len(data[place : place + size])) + data[place + size :]
            if _failure(run, shorter) == failure:
                data = shorter
            else:
                if _failure(run, zeroed) == failure:
                    data = zeroed
                place += size
    try:
        run(data)
    except Exception as error:  # noqa: BLE001 -- whatever a bug raises
        print(f"# {type(error).__name__}: {str(error)[:300]}")
    print(textwrap.fill(data.hex(" "), 95))


if __name__ == "__main__":
    main()

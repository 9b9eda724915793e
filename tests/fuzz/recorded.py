"""What real kernels sent, as text files of hexadecimal digits with comments."""

import re
from pathlib import Path

from netlink import framing

FOLDER = Path(__file__).parent
RECORDED = FOLDER / "recorded"
FINDS = FOLDER / "finds"


def octets(path: Path) -> bytes:
    """Return the bytes that a file holds in hexadecimal; what follows a # on a line is a comment."""
    return bytes.fromhex(re.sub(r"#.*", "", path.read_text("utf-8")))


def recordings(name: str) -> list[bytes]:
    """Return what each kernel sent under `name`."""
    return [octets(path) for path in sorted(RECORDED.glob(f"*-{name}.hex"))]


def single_messages(name: str) -> list[bytes]:
    """Return each message of the dumps recorded under `name`."""
    found = []
    for datagram in recordings(name):
        offset = 0
        while offset < len(datagram):
            length = framing.header(datagram, offset).padded_length
            found.append(datagram[offset : offset + length])
            offset += length
    return found


def connection_lines() -> list[bytes]:
    """Return what /proc/net/ip_vs_conn showed, line by line."""
    return (RECORDED / "6.1-proc-ip-vs-conn.txt").read_bytes().splitlines()[1:]


def finds(target: str) -> dict[str, bytes]:
    """Return the inputs on which `target` once failed, by what was wrong."""
    return {path.stem: octets(path) for path in sorted((FINDS / target).glob("*.hex"))}

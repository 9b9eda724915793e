"""Forms of attribute payloads: u32, be16, nul-terminated name and so on.

Pure. A form is a piece of a `struct` format with, where an integer of the host's byte order does not do, how a value
becomes what the struct holds and back. `layout` says which attribute has which form, `compiler` puts them together.
"""

import struct
from collections.abc import Callable
from typing import Final

import attrs

from netlink.errors import Malformed

Plain = int | str | bytes


@attrs.frozen
class Form:
    """How one kind of payload is written, read and checked."""

    description: str
    code: str  # of struct, in standard sizes; empty where the length differs from value to value
    problem: Callable[[Plain], str | None]  # why a value cannot be written, None when it can
    arguments: str = "{0}"  # what the struct packs, as an expression of the value
    read: Callable[..., Plain | None] | None = None  # the value of what the struct holds; None: the only item as it is
    write: Callable[[Plain], bytes] | None = None  # the payload, for a form without a code

    size: int = attrs.field(init=False)  # bytes of a payload; 0 where that differs from value to value

    @size.default
    def _size(self) -> int:
        return struct.calcsize(f"={self.code}")

    def unpack(self, kind: str, name: str, payload: bytes) -> Plain:
        """Return the value in `payload`; Malformed names object and attribute."""
        if not self.code or len(payload) == self.size:
            items = struct.unpack(f"={self.code}", payload) if self.code else (payload,)
            plain = items[0] if self.read is None else self.read(*items)
            if isinstance(plain, int | str | bytes):
                return plain
        raise Malformed("read", kind, f"its {name} is no {self.description}: {payload[:32].hex(' ')}")


def _number(description: str, code: str) -> Form:
    high = 256 ** struct.calcsize(f"={code}") - 1

    def problem(plain: Plain) -> str | None:
        return None if isinstance(plain, int) and 0 <= plain <= high else f"is not in 0..{high}"

    return Form(description, code, problem)


def _octets(length: int) -> Form:
    def problem(plain: Plain) -> str | None:
        return None if isinstance(plain, bytes) and len(plain) <= length else f"is longer than {length} bytes"

    return Form(f"{length} bytes", f"{length}s", problem)


_NAME_SIZE: Final = 16  # IP_VS_SCHEDNAME_MAXLEN, IP_VS_PENAME_MAXLEN, IP_VS_IFNAME_MAXLEN, with the nul


def _read_name(payload: bytes) -> str | None:
    text = payload.partition(b"\0")[0]
    return text.decode("ascii") if text and text.isascii() and text.decode("ascii").isprintable() else None


def _name_problem(plain: Plain) -> str | None:
    # the kernel asks modprobe for it: letters, digits, - and _ only
    if isinstance(plain, str) and plain.isascii() and plain.replace("-", "").replace("_", "").isalnum():
        return None if len(plain) < _NAME_SIZE else f"is longer than {_NAME_SIZE - 1} letters"
    return "is not a name of letters, digits, - and _"


def _read_interface(payload: bytes) -> str | None:
    return payload.partition(b"\0")[0].decode("utf-8", "surrogateescape") or None


def _interface_problem(plain: Plain) -> str | None:
    # dev_valid_name in net/core/dev.c
    if not isinstance(plain, str) or not plain or plain in (".", ".."):
        return "is not the name of an interface"
    if "/" in plain or ":" in plain or "\0" in plain or any(letter.isspace() for letter in plain):
        return "has a letter that no interface's name has"
    try:
        octets = plain.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return "has a letter that cannot be written"
    if octets.decode("utf-8", "surrogateescape") != plain:
        return "is no text of the bytes that it stands for"
    return f"is longer than {_NAME_SIZE - 1} bytes" if len(octets) >= _NAME_SIZE else None


def _write_text(plain: Plain) -> bytes:
    text = plain if isinstance(plain, str) else str(plain)  # str() of an enumeration's text is not that text
    return text.encode("utf-8", "surrogateescape") + b"\0"


U8: Final = _number("u8", "B")
U16: Final = _number("u16", "H")
U32: Final = _number("u32", "I")
U64: Final = _number("u64", "Q")
BE16: Final = attrs.evolve(  # two bytes, so that no host's byte order matters
    U16,
    description="be16",
    code="BB",
    arguments="{0} >> 8, {0} & 255",
    read=lambda high, low: high << 8 | low,
)
OCTETS_4: Final = _octets(4)
OCTETS_16: Final = _octets(16)
NAME: Final = Form("name", "", _name_problem, read=_read_name, write=_write_text)
INTERFACE: Final = Form("name of an interface", "", _interface_problem, read=_read_interface, write=_write_text)
FLAGS: Final = attrs.evolve(  # and a mask, all ones, for what is sent is the whole truth
    U32, description="flags and mask", code="II", arguments="{0}, 0xFFFFFFFF", read=lambda flags, _: flags
)

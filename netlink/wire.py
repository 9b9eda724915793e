"""Forms of attribute payloads (u32, be16, nul-terminated name …) and reading them by name.

Pure. `codec` says which attribute has which form.
"""

import struct
from collections.abc import Callable, Mapping
from typing import Final

import attrs

from netlink.errors import Malformed
from netlink.framing import attribute

Plain = int | str | bytes


@attrs.frozen
class Form:
    """How one kind of payload is written, read and checked."""

    description: str
    pack: Callable[[Plain], bytes]
    unpack_bytes: Callable[[bytes], Plain | None]  # None: the payload does not have this form
    problem: Callable[[Plain], str | None]  # why a value cannot be written, None when it can

    def attribute(self, number: int, plain: Plain) -> bytes:
        """Return `plain` as attribute `number`."""
        return attribute(number, self.pack(plain))

    def unpack(self, kind: str, name: str, payload: bytes) -> Plain:
        """Return the value in `payload`; Malformed names object and attribute."""
        plain = self.unpack_bytes(payload)
        if plain is None:
            raise Malformed("read", kind, f"its {name} is no {self.description}: {payload[:32].hex(' ')}")
        return plain


def _number(description: str, code: str) -> Form:
    layout = struct.Struct(code)
    high = 256**layout.size - 1

    def unpack(payload: bytes) -> int | None:
        return int(layout.unpack(payload)[0]) if len(payload) == layout.size else None

    def problem(plain: Plain) -> str | None:
        return None if isinstance(plain, int) and 0 <= plain <= high else f"is not in 0..{high}"

    return Form(description, layout.pack, unpack, problem)


def _octets(length: int) -> Form:
    def pack(plain: Plain) -> bytes:
        return plain.ljust(length, b"\0") if isinstance(plain, bytes) else b""

    def unpack(payload: bytes) -> bytes | None:
        return payload if len(payload) == length else None

    def problem(plain: Plain) -> str | None:
        return None if isinstance(plain, bytes) and len(plain) <= length else f"is longer than {length} bytes"

    return Form(f"{length} bytes", pack, unpack, problem)


_NAME_SIZE: Final = 16  # IP_VS_SCHEDNAME_MAXLEN and IP_VS_PENAME_MAXLEN, with the nul


def _unpack_name(payload: bytes) -> str | None:
    text = payload.partition(b"\0")[0]
    return text.decode("ascii") if text.isascii() and text.decode("ascii").isprintable() else None


def _name_problem(plain: Plain) -> str | None:
    # the kernel asks modprobe for it: letters, digits, - and _ only
    if isinstance(plain, str) and plain.isascii() and plain.replace("-", "").replace("_", "").isalnum():
        return None if len(plain) < _NAME_SIZE else f"is longer than {_NAME_SIZE - 1} letters"
    return "is not a name of letters, digits, - and _"


_FLAGS: Final = struct.Struct("=II")  # flags, mask: all ones, for what is sent is the whole truth
_ALL: Final = 0xFFFFFFFF


def _flags_problem(plain: Plain) -> str | None:
    return None if isinstance(plain, int) and 0 <= plain <= _ALL else "is not a set of 32 bits"


U8: Final = _number("u8", "=B")
U16: Final = _number("u16", "=H")
U32: Final = _number("u32", "=I")
BE16: Final = _number("be16", ">H")
OCTETS_4: Final = _octets(4)
OCTETS_16: Final = _octets(16)
NAME: Final = Form("name", lambda plain: str(plain).encode() + b"\0", _unpack_name, _name_problem)
FLAGS: Final = Form(
    "flags and mask",
    lambda plain: _FLAGS.pack(plain, _ALL),
    lambda payload: int(_FLAGS.unpack(payload)[0]) if len(payload) == _FLAGS.size else None,
    _flags_problem,
)


class Raw:
    """The unpacked attributes of one object by name; what is asked for and missing is Malformed."""

    __slots__ = ("_plain", "kind")

    def __init__(self, kind: str, plain: Mapping[str, Plain]) -> None:
        self.kind = kind
        self._plain = plain

    def _missing(self, name: str) -> Malformed:
        return Malformed("read", self.kind, f"it has no {name}")

    def optional_integer(self, name: str) -> int | None:
        """Return number `name`, None when the kernel did not send it."""
        plain = self._plain.get(name)
        return plain if isinstance(plain, int) else None

    def integer(self, name: str) -> int:
        """Return number `name`."""
        plain = self._plain.get(name)
        if not isinstance(plain, int):
            raise self._missing(name)
        return plain

    def octets(self, name: str) -> bytes:
        """Return bytes `name`."""
        plain = self._plain.get(name)
        if not isinstance(plain, bytes):
            raise self._missing(name)
        return plain

    def optional_text(self, name: str) -> str | None:
        """Return text `name`, None when the kernel did not send it or sent an empty one."""
        plain = self._plain.get(name)
        return plain if isinstance(plain, str) and plain else None

    def text(self, name: str) -> str:
        """Return text `name`."""
        plain = self.optional_text(name)
        if plain is None:
            raise self._missing(name)
        return plain

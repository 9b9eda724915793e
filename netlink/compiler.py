"""Turns the rows of a layout into functions: one that packs values, one that builds them.

Pure. Walking the rows for every object costs microseconds for each attribute; a table has tens of thousands of objects.
So the source of a function that does the same in one call of `struct` is written from the rows, once, when this package
is imported, as `attrs` does for `__init__`. For a real server it reads

    def pack(value):
        family = take_family(value.key)
        address = value.key.address.packed
        ...
        if forwarding not in allowed_forwarding or weight > 2147483647 or ...:
            raise ValueError
        packed = struct_pack(720902, family, 65556, address, 131078, port >> 8, port & 255, ...)
        return packed

with an attribute's header (length and number) as a constant before each payload.
"""

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

from netlink.framing import NLA_F_NESTED, attribute
from netlink.layout import Layout, Row
from netlink.wire import Plain

Pack = Callable[[Any], bytes]
REFUSED: Final = (struct.error, TypeError, AttributeError, ValueError, OverflowError)
"""What a packing function raises for what cannot be sent, without saying why: `problem_of` does."""

_HEADER: Final = struct.Struct("=HH")
_MOST_KNOWN: Final = 64  # names kept packed


def header(number: int, length: int) -> int:
    """Return the header of an attribute with `length` bytes of payload, as the u32 it is in the host's byte order."""
    packed: int = struct.unpack("=I", _HEADER.pack(4 + length, number))[0]
    return packed


def padded(size: int) -> int:
    """Return `size` rounded up to 4, to which every attribute is padded."""
    return (size + 3) & ~3


def packer(rows: Sequence[Row], *, of_key: bool = False, nested: int = 0) -> Pack:
    """Return a function that packs the attributes `rows` of a value; of a key where `of_key`.

    With `nested` they are wrapped in the attribute of that number, and none may be missing. Without, one that may be
    missing, or whose length differs, comes after those that are always there; the kernel takes any order. The function
    raises one of REFUSED for what cannot be sent.
    """
    names: dict[str, object] = {}
    constant = [row for row in rows if row.form.code and (nested or not row.optional)]
    items = "".join(f"I{row.form.code}{padded(row.form.size) - row.form.size}x" for row in constant)
    names["struct_pack"] = struct.Struct(f"={'I' if nested else ''}{items}").pack
    lines = ["def pack(value):"]
    lines += [f"    {row.name} = {_taken(row, names, of_key=of_key)}" for row in rows]
    refused = [_refusal(row, names) for row in rows if row.high is not None or row.allowed]
    if refused:
        lines += [f"    if {' or '.join(refused)}:", "        raise ValueError"]
    arguments = [f"{header(row.number, row.form.size)}, {row.form.arguments.format(row.name)}" for row in constant]
    if nested:
        arguments.insert(0, str(header(nested | NLA_F_NESTED, struct.calcsize(f"={items}"))))
    lines.append(f"    packed = struct_pack({', '.join(arguments)})")
    for row in rows:
        if row not in constant:
            names[f"pack_{row.name}"] = _single(row)
            lines += [f"    if {row.name} is not None:", f"        packed += pack_{row.name}({row.name})"]
    lines.append("    return packed")
    return _defined("pack", lines, names)


def builder(layout: Layout) -> Callable[..., Any]:
    """Return a function that makes the value of an object of its attributes, given in the order of the rows."""
    names: dict[str, object] = {"make": layout.make}
    made = {field.name for field in layout.fields}
    read = {name for field in layout.fields for name in field.reads}
    arguments = [f"{row.name}={row.name}" for row in layout.rows if row.name not in made | read]
    for field in layout.fields:
        names[f"make_{field.name}"] = field.make
        arguments.append(f"{field.name}=make_{field.name}({', '.join(field.reads)})")
    parameters = ", ".join(row.name for row in layout.rows)
    return _defined("build", [f"def build({parameters}):", f"    return make({', '.join(arguments)})"], names)


def problem_of(layout: Layout, value: Any) -> str | None:
    """Return why `value` cannot be sent, None when it can."""
    problems = (row.problem(value) for row in layout.rows)
    return layout.problem(value) or next((problem for problem in problems if problem is not None), None)


def _taken(row: Row, names: dict[str, object], *, of_key: bool) -> str:
    """Return the expression that takes an attribute from `value`."""
    holder = "value" if of_key or not row.key else "value.key"
    if row.take is not None:
        names[f"take_{row.name}"] = row.take
        return f"take_{row.name}({holder})"
    return f"{holder}.{row.path or row.name}"


def _refusal(row: Row, names: dict[str, object]) -> str:
    """Return the expression that is true where the row does not allow what the struct would take."""
    if row.allowed:
        names[f"allowed_{row.name}"] = row.allowed
        return f"{row.name} not in allowed_{row.name}"
    return f"{row.name} > {row.high}"


def _single(row: Row) -> Callable[[Plain], bytes]:
    """Return a function that packs one attribute."""
    form = row.form
    if form.write is not None:
        write, problem = form.write, form.problem
        known: dict[Plain, bytes] = {}  # a kernel has a dozen schedulers

        def pack_text(plain: Plain) -> bytes:
            if plain not in known:
                if problem(plain) is not None:
                    raise ValueError
                if len(known) > _MOST_KNOWN:
                    known.clear()
                known[plain] = attribute(row.number, write(plain))
            return known[plain]

        return pack_text
    struct_pack = struct.Struct(f"=I{form.code}{padded(form.size) - form.size}x").pack
    arguments = f"{header(row.number, form.size)}, {form.arguments.format('plain')}"
    source = ["def pack(plain):", f"    return struct_pack({arguments})"]
    return _defined("pack", source, {"struct_pack": struct_pack})


def _defined(name: str, lines: Sequence[str], names: dict[str, object]) -> Callable[..., Any]:
    """Return the function `name` that `lines` define."""
    source = "\n".join(lines)
    exec(compile(source, f"<netlink {name}>", "exec"), names)  # noqa: S102 -- written above from rows, not from input
    function = names[name]
    if not callable(function):
        raise TypeError(source)
    return function

"""Turns the rows of a layout into functions: those that pack values, and those that make them.

Pure. Walking the rows for every object costs microseconds for each attribute; a table has tens of thousands of objects.
So the source of a function that does the same in one call of `struct` is written from the rows, once, when this package
is imported, as `attrs` does for `__init__`. For a real server it reads

    def pack(value):
        key = value.key
        family = take_family(key)
        address = key.address.packed
        ...
        if forwarding not in allowed_forwarding or weight > 2147483647:
            raise ValueError
        if upper_threshold is usual_upper_threshold and ...:
            return struct_pack_usual(720902, family, 65556, address, 131078, port >> 8, port & 255, ..., ending)
        ...

with an attribute's header (length and number) as a constant before each payload, and those that hardly anybody sets as
one constant.
"""

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

from netlink.checks import type_problem
from netlink.errors import Malformed
from netlink.framing import NLA_F_NESTED, attribute
from netlink.layout import Layout, Row
from netlink.wire import Plain

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


def packer(
    layout: Layout, rows: Sequence[Row], *, of_key: bool = False, nested: int = 0, before: Sequence[str] = ()
) -> Callable[..., bytes]:
    """Return a function that packs the attributes `rows` of a value; of a key where `of_key`.

    With `nested` they are wrapped in the attribute of that number, and none may be missing. Without, one that may be
    missing, or whose length differs, comes after those that are always there; the kernel takes any order. `before` are
    struct codes of what comes in front of it all, which the function takes as further arguments. The function raises
    one of REFUSED for what cannot be sent, but for what only `layout.problem` sees.
    """
    names: dict[str, object] = {"problem": layout.problem}
    constant = [row for row in rows if row.form.code and (nested or not row.optional)]
    usual = [row for row in constant if row.usual is not None]
    always = [row for row in constant if row not in usual]
    others = [row for row in rows if row not in constant]
    front = [f"before_{n}" for n in range(len(before))]
    codes = "".join(before)
    if nested:
        codes += "I"
        front.append(str(header(nested | NLA_F_NESTED, sum(4 + padded(row.form.size) for row in constant))))
    lines = [f"def pack({', '.join(['value', *front[: len(before)]])}):"]
    lines += _takes(rows, names, of_key=of_key, missing=not nested)
    lines += _refusals([*always, *others], names)
    arguments = [*front, *map(_argument, always)]
    names["struct_pack"] = struct.Struct(f"={codes}{''.join(map(_code, constant))}").pack
    if usual:
        ending = b"".join(_single(row)(row.usual) for row in usual if row.usual is not None)
        names["ending"] = ending
        names |= {f"usual_{row.name}": row.usual for row in usual}
        names["struct_pack_usual"] = struct.Struct(f"={codes}{''.join(map(_code, always))}{len(ending)}s").pack
        lines += [
            f"    if {' and '.join(f'{row.name} is usual_{row.name}' for row in usual)}:",
            f"        return struct_pack_usual({', '.join([*arguments, 'ending'])})",
            *_refusals(usual, names),
            "    if problem(value) is not None:",
            "        raise ValueError",
        ]
    lines.append(f"    packed = struct_pack({', '.join([*arguments, *map(_argument, usual)])})")
    for row in others:
        names[f"pack_{row.name}"] = _single(row)
        lines += [f"    if {row.name} is not None:"] if row.optional else []
        lines.append(f"    {'    ' if row.optional else ''}packed += pack_{row.name}({row.name})")
    lines.append("    return packed")
    return _defined("pack", lines, names)


def builder(layout: Layout) -> Callable[..., Any]:
    """Return a function that makes the value of an object of its attributes, given in the order of the rows."""
    names: dict[str, object] = {}
    source = [f"def build({', '.join(row.name for row in layout.rows)}):", f"    return {_made(layout, names)}"]
    return _defined("build", source, names)


def reader(layout: Layout, numbers: Sequence[int]) -> Callable[..., Any]:
    """Return a function that makes the value of an object of what a struct holds, its attributes in order `numbers`.

    Those that are not among `numbers` are what their row says that it means. The function raises Malformed where a
    payload does not have its form.
    """
    names: dict[str, object] = {"Malformed": Malformed}
    rows = {row.number: row for row in layout.rows}
    parameters: list[str] = []
    lines: list[str] = []
    for number in numbers:
        row = rows[number]
        items = [f"{row.name}_{n}" for n in range(len(row.form.code.strip("0123456789")) or 1)]
        if row.form.read is None:
            items = [row.name]
        else:
            names[f"read_{row.name}"] = row.form.read
            lines.append(f"    {row.name} = read_{row.name}({', '.join(items)})")
            if not row.form.code:
                reason = f"its {row.name} is no {row.form.description}"
                lines += [
                    f"    if {row.name} is None:",
                    f"        raise Malformed('read', {layout.kind!r}, {reason!r})",
                ]
        parameters += items
    for row in layout.rows:
        if row.number not in numbers:
            lines.append(f"    {row.name} = {row.absent!r}")
    lines = [f"def read({', '.join(parameters)}):", *lines, f"    return {_made(layout, names)}"]
    return _defined("read", lines, names)


def _made(layout: Layout, names: dict[str, object]) -> str:
    """Return the expression that makes the value, of variables that are called as the rows."""
    names["make"] = layout.make
    read = {name for field in layout.fields for name in field.reads}
    made = {field.name for field in layout.fields}
    arguments = [f"{row.name}={row.name}" for row in layout.rows if row.name not in made | read]
    for field in layout.fields:
        names[f"make_{field.name}"] = field.make
        arguments.append(f"{field.name}=make_{field.name}({', '.join(field.reads)})")
    return f"make({', '.join(arguments)})"


def problem_of(layout: Layout, value: object) -> str | None:
    """Return why `value` cannot be sent, None when it can."""
    for problem_in in (layout.problem, *(row.problem for row in layout.rows)):
        try:
            problem = problem_in(value)
        except REFUSED:  # another type than what is asked of it
            continue
        if problem is not None:
            return problem
    return type_problem(value, layout.make)


def _takes(rows: Sequence[Row], names: dict[str, object], *, of_key: bool, missing: bool) -> list[str]:
    """Return the lines that take each attribute from `value`; only where one may be `missing` None is looked for."""
    lines = ["    key = value" if of_key else "    key = value.key"] if any(row.key for row in rows) else []
    for row in rows:
        holder = "key" if row.key else "value"
        taken = f"{holder}.{row.path or row.name}"
        if row.take is not None and (missing or not row.path):
            names[f"take_{row.name}"] = row.take
            taken = f"take_{row.name}({holder})"
        lines.append(f"    {row.name} = {taken}")
    return lines


def _refusals(rows: Sequence[Row], names: dict[str, object]) -> list[str]:
    """Return the lines that raise where a row does not allow what the struct would take."""
    refused = []
    for row in rows:
        if row.allowed:
            names[f"allowed_{row.name}"] = row.allowed
            refused.append(f"{row.name} not in allowed_{row.name}")
        elif row.high is not None:
            refused.append(f"{row.name} > {row.high}")
    return [f"    if {' or '.join(refused)}:", "        raise ValueError"] if refused else []


def _code(row: Row) -> str:
    """Return the struct codes of an attribute with its header and its padding."""
    return f"I{row.form.code}{padded(row.form.size) - row.form.size}x"


def _argument(row: Row) -> str:
    """Return what the struct packs for an attribute."""
    return f"{header(row.number, row.form.size)}, {row.form.arguments.format(row.name)}"


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
    struct_pack = struct.Struct(f"={_code(row)}").pack
    source = [f"def pack({row.name}):", f"    return struct_pack({_argument(row)})"]
    return _defined("pack", source, {"struct_pack": struct_pack})


def _defined(name: str, lines: Sequence[str], names: dict[str, object]) -> Callable[..., Any]:
    """Return the function `name` that `lines` define."""
    source = "\n".join(lines)
    exec(compile(source, f"<netlink {name}>", "exec"), names)  # noqa: S102 -- written above from rows, not from input
    function = names[name]
    if not callable(function):
        raise TypeError(source)
    return function

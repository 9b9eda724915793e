"""The types of value in the configuration file: how each is read, written, and described in words.

Pure. A type refuses a value by raising `Wrong`, or an ExceptionGroup of them for a list; `config` gives each key its
type, `configfile` collects what was refused. The range in the documentation and the check are side by side here.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import attrs

T = TypeVar("T")
KeyPath = tuple[str | int, ...]

SHOWN: Final = 60  # characters of a value that an error repeats
BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,63}")
UNIX_PATH_MAX: Final = 107  # bytes of a socket's path, sun_path less its NUL


@attrs.frozen
class Wrong(Exception):
    """One thing that is wrong at a key: what, and what would be right."""

    wrong: str
    remedy: str
    at: KeyPath = ()  # relative to where the reading began


@attrs.frozen(kw_only=True)
class KeyType(Generic[T]):
    """One type of value: `read` turns what tomllib returned into a T or raises, `write` is its TOML text."""

    name: str
    between: str  # its range in words
    unit: str = ""
    read: Callable[[object], T]
    write: Callable[[T], str]


AnyKeyType = KeyType[Any]


# --- showing values -------------------------------------------------------------------------------------------------


def quoted(text: str) -> str:
    """Return `text` as a TOML basic string in printable characters only."""
    return '"' + "".join("\\" + c if c in '"\\' else escaped(c) for c in text) + '"'


def escaped(text: str) -> str:
    """Return `text` with everything unprintable (control, bidirectional, surrogate) as a Unicode escape."""
    return "".join(
        c if c.isprintable() else f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}" for c in text
    )


def shown(value: object) -> str:
    """Return `value` as it may be repeated in an error: TOML-like, printable, at most about SHOWN characters."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return quoted(value) if len(value) <= SHOWN else quoted(value[:SHOWN])[:-1] + '…"'
        case int() if value.bit_length() > 64:
            return f"an integer of {value.bit_length()} bits"
        case int() | float():
            return str(value)
        case list():
            return "a list" if value else "an empty list"
        case dict():
            return "a table" if value else "an empty table"
        case _:
            return str(value)  # date and time


def shown_key(path: KeyPath) -> str:
    """Return a key path dotted, as a person would write it: `virtual_server.reco.tags[1]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if BARE_KEY.fullmatch(part) else shown(part))
    return text


def one_of(words: Iterable[str]) -> str:
    """Return `words` as they are listed in an error."""
    return ", ".join(words)


def closest(word: str, words: Iterable[str]) -> str | None:
    """Return the one of `words` that `word` was probably meant to be, or None."""
    found = difflib.get_close_matches(word.lower()[:SHOWN], list(words), n=1)
    return found[0] if found else None


# --- plain values ---------------------------------------------------------------------------------------------------


def string(value: object, example: str) -> str:
    """Return `value`, which has to be a string."""
    if isinstance(value, str):
        return value
    raise Wrong(f"{shown(value)} is not a string", f"write it in quotes, like {quoted(example)}")


def boolean() -> KeyType[bool]:
    """Return the type of true or false."""

    def read(value: object) -> bool:
        if isinstance(value, bool):
            return value
        raise Wrong(f"{shown(value)} is neither true nor false", "write true or false, without quotes")

    return KeyType(name="boolean", between="true or false", read=read, write=lambda value: str(value).lower())


def boolean_or(words: Mapping[str, T], *, yes: T, no: T) -> KeyType[T]:
    """Return the type of true, false, or one of `words`."""
    known = one_of(map(quoted, words))
    spelled = {value: quoted(word) for word, value in words.items()} | {yes: "true", no: "false"}

    def read(value: object) -> T:
        if isinstance(value, bool):
            return yes if value else no
        if isinstance(value, str) and value in words:
            return words[value]
        raise Wrong(
            f"{shown(value)} is neither true, false nor {known}", f"write true or false without quotes, or {known}"
        )

    return KeyType(
        name="boolean or string", between=f"true, false or {known}", read=read, write=lambda value: spelled[value]
    )


def integer(low: int, high: int, example: int) -> KeyType[int]:
    """Return the type of whole numbers from `low` to `high`."""
    between = f"{low} to {high}"

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            meant = value if isinstance(value, str) and re.fullmatch("[0-9]{1,10}", value) else example
            raise Wrong(f"{shown(value)} is not a whole number", f"write {between} without quotes, like {meant}")
        if not low <= value <= high:
            raise Wrong(f"{shown(value)} is out of range", f"write {between}, like {example}")
        return value

    return KeyType(name="integer", between=between, read=read, write=str)


def percentage(example: str) -> KeyType[int]:
    """Return the type of whole percentages from 0% to 100%."""

    def read(value: object) -> int:
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100:
            meant = round(value * 100) if isinstance(value, float) and value <= 1 else round(value)
            raise Wrong(f"{shown(value)} is not a percentage", f"write {quoted(f'{meant}%')}, in quotes")
        match = re.fullmatch("([0-9]{1,3})%", string(value, example))
        if match is None:
            raise Wrong(f"{shown(value)} is no percentage", f"write a whole number and %, like {quoted(example)}")
        if int(match[1]) > 100:
            raise Wrong(f"{shown(value)} is out of range", f"write 0% to 100%, like {quoted(example)}")
        return int(match[1])

    return KeyType(name="string", between="0% to 100%", read=read, write=lambda value: f'"{value}%"')


def text(pattern: str, what: str, example: str) -> KeyType[str]:
    """Return the type of strings that match `pattern` in full; `what` says so in words."""
    compiled = re.compile(pattern)

    def read(value: object) -> str:
        word = string(value, example)
        if not compiled.fullmatch(word) or not word.isprintable():
            raise Wrong(f"{shown(word)} cannot be used here", f"write {what}, like {quoted(example)}")
        return word

    return KeyType(name="string", between=what, read=read, write=quoted)


def choice(words: Mapping[str, T], instead: Mapping[str, str] | None = None) -> KeyType[T]:
    """Return the type of one of `words`; `instead` has words from elsewhere and ours for the same thing."""
    spelled = {value: word for word, value in words.items()}
    example = next(iter(words))

    def read(value: object) -> T:
        word = string(value, example)
        if word in words:
            return words[word]
        meant = (instead or {}).get(word.lower()) or closest(word, words)
        hint = f"did you mean {quoted(meant)}? It is one of" if meant else "write one of"
        raise Wrong(f"{shown(word)} is not known", f"{hint} {one_of(words)}")

    return KeyType(name="string", between=one_of(words), read=read, write=lambda value: quoted(spelled[value]))


def list_of(item: KeyType[T], *, least: int = 0, most: int | None = None) -> KeyType[tuple[T, ...]]:
    """Return the type of lists of `item` without duplicates, of `least` to `most` elements; None: any number."""

    def read(value: object) -> tuple[T, ...]:
        if not isinstance(value, list):
            meant = f"[{quoted(value)}]" if isinstance(value, str) and len(value) <= SHOWN else "[…]"
            raise Wrong(f"{shown(value)} is not a list", f"write it in square brackets: {escaped(meant)}")
        if len(value) < least:
            raise Wrong("the list is empty", f"write one element or more ({item.between}), or leave the key out")
        if most is not None and len(value) > most:
            raise Wrong(f"the list has {len(value)} elements", f"write {most} at most")
        found: dict[T, int] = {}
        wrongs: list[Wrong] = []
        for index, element in enumerate(value):
            try:
                one = item.read(element)
            except Wrong as wrong:
                wrongs.append(attrs.evolve(wrong, at=(index, *wrong.at)))
                continue
            if one in found:
                wrongs.append(Wrong(f"{shown(element)} is in the list twice", "remove one of them", (index,)))
            found.setdefault(one, index)
        if wrongs:
            raise ExceptionGroup("elements", wrongs)
        return tuple(found)

    return KeyType(
        name=f"list of {item.name}s",
        between=(f"{least} or more: " if least else "")
        + (f"{most} at most: " if most is not None else "")
        + f"{item.between}; none twice",
        read=read,
        write=lambda value: "[" + ", ".join(map(item.write, value)) + "]",
    )


def table_of_strings() -> KeyType[Mapping[str, str]]:
    """Return the type of tables whose keys and values are both any printable text."""

    def read(value: object) -> Mapping[str, str]:
        if not isinstance(value, dict):
            raise Wrong(f"{shown(value)} is not a table", 'write it in braces: { key = "value" }')
        wrongs: list[Wrong] = []
        for key, element in value.items():
            if not key or not key.isprintable():
                wrongs.append(Wrong(f"{shown(key)} is no key", "write a key of printable characters", (key,)))
            elif not isinstance(element, str):
                wrongs.append(Wrong(f"{shown(element)} is not a string", f'write {key} = "value" in quotes', (key,)))
            elif not element.isprintable():
                wrongs.append(Wrong(f"{shown(element)} has control characters", "write printable text", (key,)))
        if wrongs:
            raise ExceptionGroup("elements", wrongs)
        return value

    return KeyType(
        name="table of strings",
        between="printable text",
        read=read,
        write=lambda value: "{ " + ", ".join(f"{quoted(k)} = {quoted(v)}" for k, v in value.items()) + " }",
    )


# --- durations ------------------------------------------------------------------------------------------------------

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(ms|s|m|h)")


def written_duration(seconds: float) -> str:
    """Return seconds as they are written in the file, in the largest unit that leaves a whole number: `5m`."""
    for unit in ("h", "m", "s"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{seconds / _UNITS[unit]:.0f}{unit}"
    return f"{seconds * 1000:.0f}ms" if seconds else "0s"


def duration(low: float, high: float, example: str, *, whole: bool = False, also_zero: bool = False) -> KeyType[float]:
    """Return the type of durations from `low` to `high` seconds; `whole` allows no part of a second."""
    between = f"{written_duration(low)} to {written_duration(high)}"
    between += (" in whole seconds" if whole else "") + (", or 0s for none" if also_zero else "")

    def read(value: object) -> float:
        if not isinstance(value, str):
            is_seconds = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
            meant = f"{value}s" if is_seconds else example
            raise Wrong(f"{shown(value)} has no unit", f"write {quoted(meant)} (units ms, s, m, h)")
        match = _DURATION.fullmatch(value)
        if not match:
            raise Wrong(
                f"{shown(value)} is no duration", f"write a number and a unit (ms, s, m, h), like {quoted(example)}"
            )
        seconds = round(float(match[1]) * _UNITS[match[2]], 6)
        if not low <= seconds <= high and not (also_zero and seconds == 0):
            raise Wrong(f"{shown(value)} is out of range", f"write {between}, like {quoted(example)}")
        if whole and seconds % 1:
            raise Wrong(f"{shown(value)} is not in whole seconds", f"write {between}, like {quoted(example)}")
        return seconds

    return KeyType(
        name="string",
        unit="duration",
        between=between,
        read=read,
        write=lambda seconds: quoted(written_duration(seconds)),
    )


# --- files ----------------------------------------------------------------------------------------------------------


def absolute_path(example: str, *, socket: bool = False, also: str = "", secret: bool = False) -> KeyType[Path]:
    """Return the type of absolute paths; whether something is there is found out when it is used.

    A refused value is not repeated where it may be the `secret` itself, written in the place of its file.
    """

    def read(value: object) -> Path:
        word = string(value, example)
        try:
            check_path(word, word, example, socket=socket)
        except Wrong as wrong:
            if secret:
                raise attrs.evolve(wrong, wrong=wrong.wrong.replace(shown(word), "what is written")) from None
            raise
        return Path(word)

    between = "absolute path" + (f" of at most {UNIX_PATH_MAX} bytes" if socket else "") + also
    return KeyType(name="string", unit="path", between=between, read=read, write=lambda path: quoted(str(path)))


def check_path(path: str, value: str, example: str, *, socket: bool = False) -> None:
    """Raise Wrong about `value` unless its `path` is absolute, printable and, of a socket, short enough."""
    if not path.startswith("/"):
        raise Wrong(f"{shown(value)} is not an absolute path", f"write it from the root, like {quoted(example)}")
    if not path.isprintable():
        raise Wrong(f"{shown(value)} has control characters", f"write a path, like {quoted(example)}")
    if path.endswith("/"):
        raise Wrong(f"{shown(value)} ends in a slash", f"write it without, like {quoted(example)}")
    if socket and len(path.encode()) > UNIX_PATH_MAX:
        raise Wrong(f"{shown(value)} is too long for a socket", f"write a path of at most {UNIX_PATH_MAX} bytes")

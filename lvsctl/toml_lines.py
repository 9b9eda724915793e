"""The line of every key in a TOML text, which `tomllib` does not tell.

Pure. A small scanner that finds keys and steps over values; it checks nothing and needs a text that `tomllib`
has accepted (https://toml.io/en/v1.0.0). A key path is a tuple of names, with a number for the place in an array.
"""

import re
import tomllib
from bisect import bisect_right
from typing import Final

KeyPath = tuple[str | int, ...]

_SPACE: Final = re.compile(r"[ \t]*")
_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_NAME: Final = re.compile(r"""[A-Za-z0-9_-]+|"(?:\\.|[^"\\])*"|'[^']*'""")
_STRING: Final = re.compile(
    r'''"""(?:\\.|[^\\])*?"{3,5}'''  # up to two quotes may stand before the three that end it
    r"""|'''.*?'{3,5}"""
    r'''|"(?:\\.|[^"\\])*"'''
    r"""|'[^']*'""",
    re.DOTALL,
)
_SCALAR: Final = re.compile(r"[^,\]}#\n]+")  # number, boolean, date; a date may have a space inside


def lines(text: str) -> dict[KeyPath, int]:
    """Return the line (from 1) of every table, key and array element of `text`, which is valid TOML.

    A table that was only implied by a longer name has the line of the first that implied it.
    """
    scanner = _Scanner(text)
    scanner.document()
    return scanner.found


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.found: dict[KeyPath, int] = {}
        self._arrays: dict[KeyPath, int] = {}  # how many [[elements]] so far
        self._newlines = [match.start() for match in re.finditer("\n", text)]

    def document(self) -> None:
        table: KeyPath = ()
        self._skip(_BLANK)
        while self.position < len(self.text):
            if self.text[self.position] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip(_BLANK)

    def _header(self) -> KeyPath:
        """Return the path of the table that `[name]` or `[[name]]` opens."""
        line = self._line()
        is_array = self.text.startswith("[[", self.position)
        self.position += 2 if is_array else 1
        names = self._names()
        self.position += 2 if is_array else 1
        path: KeyPath = ()
        for depth, name in enumerate(names, start=1):
            path = (*path, name)
            self.found.setdefault(path, line)
            if is_array and depth == len(names):
                self._arrays[path] = self._arrays.get(path, 0) + 1
            if path in self._arrays:
                path = (*path, self._arrays[path] - 1)
        self.found[path] = line
        return path

    def _pair(self, table: KeyPath) -> None:
        line = self._line()
        path = table
        for name in self._names():
            path = (*path, name)
            self.found.setdefault(path, line)
        self.position += 1  # the equals sign
        self._skip(_SPACE)
        self._value(path)

    def _names(self) -> list[str]:
        """Return the names of a dotted key and stop at what follows it."""
        names = []
        while True:
            self._skip(_SPACE)
            start = self.position
            self._skip(_NAME)
            name = self.text[start : self.position]
            names.append(tomllib.loads(f"name = {name}")["name"] if name[0] in "\"'" else name)
            self._skip(_SPACE)
            if self.text[self.position] != ".":
                return names
            self.position += 1

    def _value(self, path: KeyPath) -> None:
        match self.text[self.position]:
            case "[":
                self._array(path)
            case "{":
                self._inline_table(path)
            case '"' | "'":
                self._skip(_STRING)
            case _:
                self._skip(_SCALAR)

    def _array(self, path: KeyPath) -> None:
        self.position += 1
        self._skip(_BLANK)
        index = 0
        while self.text[self.position] != "]":
            self.found[*path, index] = self._line()
            self._value((*path, index))
            index += 1
            self._separator()
        self.position += 1

    def _inline_table(self, path: KeyPath) -> None:
        self.position += 1
        self._skip(_BLANK)
        while self.text[self.position] != "}":
            self._pair(path)
            self._separator()
        self.position += 1

    def _separator(self) -> None:
        self._skip(_BLANK)
        if self.text[self.position] == ",":
            self.position += 1
            self._skip(_BLANK)

    def _line(self) -> int:
        return bisect_right(self._newlines, self.position) + 1

    def _skip(self, pattern: re.Pattern[str]) -> None:
        if match := pattern.match(self.text, self.position):
            self.position = match.end()

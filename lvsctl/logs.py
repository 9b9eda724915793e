"""The log: constant event names with fields, one event a line; text on a terminal, JSON otherwise.

Strings from Consul are in these fields; both forms write every control character out. A log that cannot be written
(a full disk, a reader that is gone) loses lines and nothing else: the program goes on, and says how many it lost.
"""

import logging
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TextIO

import click
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from lvsctl.text import visible

COLOURS: Final = {"error": "red", "critical": "red", "warning": "yellow"}
SHOWN: Final = 500  # characters of one field in a text line


def configure(*, level: str = "info", as_json: bool | None = None) -> None:
    """Set the log up on standard error; `as_json` None means JSON unless that is a terminal."""
    terminal = _is_terminal(sys.stderr)
    as_json = not terminal if as_json is None else as_json
    processors: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True) if as_json else _time,
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer() if as_json else partial(_render_text, coloured=terminal),
    ]
    lines = _Lines(sys.stderr, partial(_render_lost, processors))
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=lambda *_: lines,  # one for all, for it counts
    )


class _Lines:
    """Writes lines to a stream, each whole and at once, and never raises; `lost` renders the event `log_lost`.

    It writes below the stream's buffers: they would keep a line that failed, write it again with the next one, and
    once more at exit, which turns the exit code into 120.
    """

    def __init__(self, stream: TextIO | None, lost: Callable[[int], str]) -> None:
        self._file: Any = None if stream is None else getattr(stream.buffer, "raw", stream.buffer)
        self._encoding = "utf-8" if stream is None else stream.encoding
        self._render_lost = lost
        self._lost = 0  # lines since the last one that was written
        self._torn = False  # the last thing written is a part of a line
        self._lock = threading.Lock()  # cycles log from a thread of their own

    def line(self, text: str) -> None:
        """Write `text` and a newline, after what was lost before it; count it as lost when that is impossible."""
        with self._lock:
            if self._lost and self._put(self._render_lost(self._lost)):
                self._lost = 0
            if self._lost or not self._put(text):
                self._lost += 1

    debug = info = warning = error = critical = line  # by these names structlog calls it

    def _put(self, text: str) -> bool:
        """Write one line; return whether all of it was."""
        rest = f"{text}\n".encode(self._encoding, "backslashreplace")
        if self._torn:
            rest = b"\n" + rest
        try:
            while rest:
                written = self._file.write(rest) if self._file is not None else None
                if not written:  # it would block, or there is nothing to write to
                    return False
                self._torn = rest[written - 1 : written] != b"\n"
                rest = rest[written:]
        except (OSError, ValueError):  # a ValueError means that the stream is closed
            return False
        return True


def _is_terminal(stream: TextIO | None) -> bool:
    """Tell whether `stream` is a terminal; None (the process began without one) and a closed one are not."""
    return stream is not None and not stream.closed and stream.isatty()


def _render_lost(processors: list[Processor], lines: int) -> str:
    """Return the event that says how many lines were lost, as every other event is rendered."""
    event: Any = {"event": "log_lost", "lines": lines}
    for processor in processors:
        event = processor(None, "warning", event)
    return str(event)


_time = structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)


def _render_text(_logger: WrappedLogger, _method: str, event: EventDict, *, coloured: bool) -> str:
    """Return `12:00:01 info     real_server_added     name=reco real_server=10.0.0.1:80`."""
    level, name = event.pop("level"), event.pop("event")
    head = f"{event.pop('timestamp')} {level:<7}"
    if coloured:
        head = click.style(head, fg=COLOURS.get(level))
    fields = " ".join(f"{key}={_shown(value)}" for key, value in event.items())
    return f"{head} {name:<22} {fields}".rstrip()


def _shown(value: object) -> str:
    text = visible(str(value), SHOWN)
    if text and not any(character in text for character in ' ="'):
        return text
    return '"' + text.replace('"', '\\"') + '"'

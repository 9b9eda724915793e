"""The log: constant event names with fields, one event a line; text on a terminal, JSON otherwise.

Strings from Consul are in these fields; both forms write every control character out.
"""

import logging
import sys
from typing import Any, Final

import click
import structlog
from structlog.typing import EventDict, WrappedLogger

from lvsctl.text import visible

COLOURS: Final = {"error": "red", "critical": "red", "warning": "yellow"}
SHOWN: Final = 500  # characters of one field in a text line


def configure(*, level: str = "info", as_json: bool | None = None) -> None:
    """Set the log up on standard error; `as_json` None means JSON unless that is a terminal."""
    if as_json is None:
        as_json = not sys.stderr.isatty()
    renderer: Any = structlog.processors.JSONRenderer() if as_json else _render_text
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True) if as_json else _time,
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


_time = structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)


def _render_text(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """Return `12:00:01 info     real_server_added     name=reco real_server=10.0.0.1:80`."""
    level, name = event.pop("level"), event.pop("event")
    head = f"{event.pop('timestamp')} {level:<7}"
    if sys.stderr.isatty():
        head = click.style(head, fg=COLOURS.get(level))
    fields = " ".join(f"{key}={_shown(value)}" for key, value in event.items())
    return f"{head} {name:<22} {fields}".rstrip()


def _shown(value: object) -> str:
    text = visible(str(value), SHOWN)
    if text and not any(character in text for character in ' ="'):
        return text
    return '"' + text.replace('"', '\\"') + '"'

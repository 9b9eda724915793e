"""`lvsctl events`: what happened to the table and why, from the journal on disk; no daemon is needed."""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from lvsctl.cli.options import config_file
from lvsctl.text import listed, visible

if TYPE_CHECKING:
    from lvsctl.core.event import Event
    from lvsctl.core.subject import Subject
    from lvsctl.journal import Reader

LAST: Final = 10  # events with which --follow begins
LOOK: Final = 0.25  # seconds between two looks for more
LONGEST: Final = 10 * 366 * 86400.0  # seconds

EPILOG = """\b
TIME is a clock (14:00, 14:00:30: the last time it was that), a date
(2026-11-23) or both ('2026-11-23 14:00', with +01:00 or Z where it is not the
time of this machine). The journal has a bound: about 40,000 events.
\b
Exit codes: 0 done, 2 nothing of that name, 7 there is no journal, or you may
not read it.
\b
Examples:
  lvsctl events --since 10m
  lvsctl events reco                 of one virtual server
  lvsctl events 10.2.0.12:80 -f      of one real server, and what comes
  lvsctl events --json | jq 'select(.cause == "drift")'
"""


@click.command(epilog=EPILOG, short_help="Show what happened to the table, and why.")
@click.argument("subjects", metavar="[NAME|ADDRESS[:PORT]|INSTANCE|NODE]...", nargs=-1)
@config_file
@click.option("-f", "--follow", is_flag=True, help=f"Begin with the last {LAST}, or --since; go on until Ctrl-C.")
@click.option("--since", metavar="10m|TIME", help="Only what happened since then.")
@click.option("--json", "as_json", is_flag=True, help="One object a line.")
def command(subjects: tuple[str, ...], path: Path, since: str | None, *, follow: bool, as_json: bool) -> None:
    """Show every change of the table with its cause, the newest last."""
    try:
        _show(subjects, path, since, follow=follow, as_json=as_json)
    except KeyboardInterrupt:
        if not follow:
            raise  # it is no answer


def _show(texts: Sequence[str], path: Path, since: str | None, *, follow: bool, as_json: bool) -> None:
    from lvsctl.cli.places import state_directory
    from lvsctl.core.subject import Subject
    from lvsctl.journal import Reader

    subjects = [Subject(text) for text in texts]
    begin = 0.0 if since is None else moment(since, time.time())
    reader = Reader(state_directory(path))
    known = list(reader.read())
    if not follow:
        _demand(subjects, known)
    shown = [event for event in chosen(known, subjects) if event.time >= begin]
    del known
    if follow and since is None:
        shown = shown[-LAST:]
    lines = _as_json if as_json else Rows().lines
    while True:
        text = "\n".join(lines(shown))
        if text:
            click.echo(text)
        if not follow:
            sys.exit(0)
        sys.stdout.flush()
        shown = list(chosen(_more(reader), subjects))


def _more(reader: "Reader") -> "list[Event]":
    """Return what has come, as soon as something has."""
    from lvsctl.errors import StateError

    while True:
        time.sleep(LOOK)
        try:
            found = list(reader.read())
        except StateError:  # it was deleted; the daemon begins it anew
            found = []
        if found:
            return found


def chosen(events: "Iterable[Event]", subjects: "Sequence[Subject]") -> "Iterator[Event]":
    """Yield those of `events` that are about any of `subjects`, all where there is none."""
    for event in events:
        if not subjects or any(subject.is_of(event) for subject in subjects):
            yield event


def _demand(subjects: "Sequence[Subject]", events: "Sequence[Event]") -> None:
    """Raise click.UsageError where nothing in the journal is about one of `subjects`."""
    for subject in subjects:
        if not any(subject.is_of(event) for event in events):
            known = listed({event.name for event in events if event.name}, subject.text)
            raise click.UsageError(f"nothing in the journal is about '{visible(subject.text)}'; it knows: {known}")


class Rows:
    """Events as rows, aligned with all that were shown before."""

    def __init__(self) -> None:
        self._widths = [0, 0, 0, 0]

    def lines(self, events: "Iterable[Event]") -> list[str]:
        """Return a line for each event: when, of which virtual server, of what, what happened, and why."""
        from lvsctl.cli.cells import fit, to_the_left, width
        from lvsctl.cli.columns import GAP, WIDEST
        from lvsctl.core.event_words import about, done, why

        rows = []
        for event in events:
            name = event.name if event.name or event.address else "lvsctl"
            cells = [visible(each) for each in (instant(event.time), name or "-", about(event) or "-", done(event))]
            cells = [fit(cell, WIDEST) for cell in cells]
            self._widths = [max(known, width(cell)) for known, cell in zip(self._widths, cells, strict=True)]
            rows.append((cells, visible(why(event))))
        return [
            GAP.join([*(to_the_left(*cell) for cell in zip(cells, self._widths, strict=True)), reason]).rstrip()
            for cells, reason in rows
        ]


def _as_json(events: "Iterable[Event]") -> list[str]:
    from lvsctl.core.event_json import as_json

    return [json.dumps(as_json(event)) for event in events]


def instant(seconds: float) -> str:
    """Return `2026-11-23 14:02:11` by the clock of this machine."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def moment(text: str, now: float) -> float:
    """Return the Unix seconds that `--since` means: so long ago, or a time; raises click.UsageError."""
    from datetime import datetime, timedelta

    from lvsctl.config_types import Wrong, duration

    try:
        return now - float(duration(0, LONGEST, "10m").read(text))
    except Wrong:
        pass
    today = datetime.fromtimestamp(now).astimezone()
    try:
        if "-" in text:
            return datetime.fromisoformat(text).astimezone().timestamp()
        clock = datetime.fromisoformat(f"{today.date()} {text if ':' in text else 'no clock'}").astimezone()
        return (clock if clock <= today else clock - timedelta(days=1)).timestamp()
    except (ValueError, OverflowError, OSError):
        shown = visible(text, 40)
        wanted = "write so long ago (90s, 10m, 2h) or a time (14:00, 2026-11-23, '2026-11-23 14:00')"
        raise click.UsageError(f"--since: '{shown}' is neither a span nor a time; {wanted}") from None

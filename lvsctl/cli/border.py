"""What `adopt` and `disown` share: the ledger is changed on disk, under the lock of the one writer."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from lvsctl import logs
from lvsctl.cli.overriding import author
from lvsctl.config import Config
from lvsctl.configfile import load
from lvsctl.core.border import Stays
from lvsctl.core.event import Event
from lvsctl.core.ownership import Ledger
from lvsctl.journal import Journal, now
from lvsctl.store import Store, locked
from lvsctl.text import visible
from netlink import IPVS
from netlink.types import Table, VirtualServerKey

Moving = Callable[[str, Config, Ledger, Table], tuple[VirtualServerKey, Ledger]]


def move(path: Path, word: str, moving: Moving, names: Sequence[str]) -> None:
    """Move all of `names` or none, say so, and have it in the journal; exits with 1 where one stays."""
    logs.configure(level="warning")
    config = load(path)
    with locked(config.daemon.state_directory), IPVS() as kernel:
        table = kernel.observe().table
        with Journal(config.daemon.state_directory) as journal:
            sys.exit(moved(config, table, names, word=word, moving=moving, tell=journal.note))


def moved(
    config: Config,
    table: Table,
    names: Sequence[str],
    *,
    word: str,
    moving: Moving,
    tell: Callable[[Event], None],
) -> int:
    """Return 0 once the ledger has it so, 1 where one of `names` stays; then it is as it was."""
    store = Store(config.daemon.state_directory)
    ledger, events = store.load_whole(), []
    for name in names:
        try:
            key, ledger = moving(name, config, ledger, table)
        except Stays as stays:
            click.echo(f"lvsctl: {visible(str(stays))}; nothing was {word}", err=True)
            return 1
        events.append(Event(time=now(), event=word, name=name, virtual_server=str(key), by=author()))
    store.save(ledger, durable=True)
    for event in events:
        tell(event)
        click.echo(visible(f"{word} {event.name} ({event.virtual_server}); it stands as it was"))
    return 0

"""What `run --once` refuses to do unasked: what a reload refuses, too (`core.removal`)."""

from pathlib import Path

from lvsctl.cli.live import Asked
from lvsctl.config import Config
from lvsctl.configfile import parse_here, read
from lvsctl.configuration_kept import ConfigurationKept
from lvsctl.core.override import Overrides
from lvsctl.core.removal import left_out, removal
from lvsctl.errors import ConfigError
from lvsctl.reconcile import Reconciler
from lvsctl.sources import asks_alike


def too_much(path: Path, config: Config, kernel: Reconciler, asked: Asked, overrides: Overrides) -> str:
    """Return what the file `path`, which is `config`, would take away of what serves, where that is too much; or empty.

    It is compared with what the daemon had in use last; where that is not known, with what the ledger says served.
    Raises NetlinkError or StateError.
    """
    gone = left_out(kernel.served_last(), config)
    before = _before(path, config)
    if before is not None and not gone.is_mass:
        answers = asked.answers if asks_alike(config, before) else {}
        now = kernel.preview(before, answers, overrides=overrides, candidates=asked.candidates)
        then = kernel.preview(config, asked.answers, overrides=overrides, candidates=asked.candidates)
        gone = removal(now.observed.table, now.decision, then.decision, before)
    return gone.words if gone.is_mass else ""


def _before(path: Path, config: Config) -> Config | None:
    """Return what the daemon had in use last, where that is another text than the file has now, and can be used."""
    kept = ConfigurationKept(config.daemon.state_directory).load()
    try:
        return parse_here(kept.text, path) if kept and kept.text != read(path)[1] else None
    except ConfigError:
        return None

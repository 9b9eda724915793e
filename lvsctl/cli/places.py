"""Where the daemon keeps what commands read, also while its file has mistakes: those must not hide how things stand."""

import re
from pathlib import Path

from lvsctl.errors import ConfigError


def state_directory(path: Path) -> Path:
    """Return the state directory of the file at `path`, or the default one."""
    from lvsctl.config import DaemonConfig
    from lvsctl.configfile import load

    try:
        return load(path).daemon.state_directory
    except ConfigError:
        return written(path, "state_directory") or DaemonConfig().state_directory


def control_socket(path: Path) -> Path:
    """Return the control socket of the file at `path`, or the default one."""
    from lvsctl.config import DaemonConfig
    from lvsctl.configfile import load

    try:
        return load(path).daemon.control_socket
    except ConfigError:
        return written(path, "control_socket") or DaemonConfig().control_socket


def written(path: Path, key: str) -> Path | None:
    """Return the absolute path that a file with mistakes writes for `key`; None where it has none that can be read."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    found = re.search(rf"""^\s*{key}\s*=\s*(["'])(/[^"'\\]+)\1""", text, re.MULTILINE)
    return Path(found[2]) if found else None

"""The kernel's settings of IPVS, which each network namespace has of its own; read and never set.

Reads files, nothing else. Which settings there are depends on the kernel's version; what they mean is told in
Documentation/networking/ipvs-sysctl.rst. `/proc/sys/net` shows the network namespace of the thread that looks.
"""

import contextlib
import re
from pathlib import Path
from typing import Final

from netlink.errors import NetlinkError
from netlink.namespace import Namespace, Pinned

DIRECTORY: Final = Path("/proc/sys/net/ipv4/vs")
_NAME: Final = re.compile(r"[a-z0-9_]+")


def read(name: str, directory: Path = DIRECTORY, *, namespace: Namespace | None = None) -> int | None:
    """Return the number that setting `name` has, None when the kernel has no such setting (or no IPVS yet).

    In `namespace`; None is the one that the thread is in. ValueError for what cannot be the name of a setting,
    NetlinkError for what cannot be read or is no number, Unavailable where `namespace` cannot be entered.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a name of lower-case letters, digits and _")
    if namespace is None:
        return _number(name, directory)
    with contextlib.closing(Pinned(namespace)) as pinned, pinned.entered():
        return _number(name, directory)


def _number(name: str, directory: Path) -> int | None:
    try:
        text = (directory / name).read_text("ascii").strip()
        return int(text)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NetlinkError("read", f"setting {name}", (error.strerror or str(error)).lower()) from error
    except ValueError as error:
        raise NetlinkError("read", f"setting {name}", "it is no number") from error

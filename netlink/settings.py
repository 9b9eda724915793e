"""The kernel's settings of IPVS, which each network namespace has of its own.

Reads files, and writes one where that is asked for. Which settings there are depends on the kernel's version; what they
mean is told in Documentation/networking/ipvs-sysctl.rst. `/proc/sys/net` shows the network namespace of the thread that
looks.
"""

import contextlib
import os
import re
from collections.abc import Iterator
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
    with _inside(name, namespace):
        return _number(name, directory)


def write(name: str, number: int, directory: Path = DIRECTORY, *, namespace: Namespace | None = None) -> None:
    """Set `name` to `number`; NetlinkError where the kernel refuses it, has no such setting or has another one after.

    ValueError and Unavailable as `read` raises them.
    """
    with _inside(name, namespace):
        try:
            descriptor = os.open(directory / name, os.O_WRONLY | os.O_CLOEXEC)  # a file that is missing stays so
            try:
                os.write(descriptor, f"{number}\n".encode())
            finally:
                os.close(descriptor)
        except FileNotFoundError as error:
            raise NetlinkError("set", f"setting {name}", "this kernel has no such setting") from error
        except OSError as error:
            raise NetlinkError("set", f"setting {name}", (error.strerror or str(error)).lower()) from error
        after = _number(name, directory)
        if after != number:
            raise NetlinkError("set", f"setting {name}", f"the kernel took {number} and has {after}")


@contextlib.contextmanager
def _inside(name: str, namespace: Namespace | None) -> Iterator[None]:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a name of lower-case letters, digits and _")
    if namespace is None:
        yield
        return
    with contextlib.closing(Pinned(namespace)) as pinned, pinned.entered():
        yield


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

"""The kernel as it is now, read for `core.preflight`: settings, modules, interfaces, the connection table.

Reads files below /proc, /sys and /lib/modules, and asks IPVS which synchronisation daemons run, for no file says so.
Loads no module and sets nothing. Most of it needs no permission; what does is `Unread` without it. `/proc/sys/net` and
`/proc/thread-self/net` show the network namespace of the thread that looks, which goes to the daemon's where that is
another one.
"""

import contextlib
import fcntl
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs

from lvsctl.core.facts import (
    DAEMONS,
    NO_IPV6,
    OF_INTERFACES,
    OF_IPVS,
    READ,
    Facts,
    Module,
    Reading,
    Unread,
    sysctl_name,
)
from netlink import IPVS
from netlink.errors import NetlinkError
from netlink.namespace import Namespace, Pinned
from netlink.types import SyncRole

SIOCGIFFLAGS: Final = 0x8913  # netdevice(7)
SIOCGIFADDR: Final = 0x8915
UP, LOOPBACK, NO_ARP = 0x1, 0x8, 0x80
IFREQ: Final = struct.Struct("16s 24x")


@attrs.frozen(kw_only=True)
class Roots:
    """Where the kernel's files are."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    modules: Path = attrs.field(factory=lambda: Path("/lib/modules") / os.uname().release)


def examine(schedulers: Iterable[str], daemon: int | Unread | None, roots: Roots = Roots()) -> Facts:
    """Return the facts about the network namespace of `daemon`, a process; None: there is none, so it is ours.

    Raises Unavailable where that cannot be entered.
    """
    whose, namespace = _whose(daemon, roots)
    with contextlib.ExitStack() as stack:
        if namespace is not None:
            stack.enter_context(stack.enter_context(contextlib.closing(Pinned(namespace))).entered())
        interfaces = tuple(_interfaces(roots))
        settings = {name: _setting(roots, name) for name in (*READ, *_names_of(interfaces), "kernel.modules_disabled")}
        settings |= {f"{OF_IPVS}{each.name}": _reading(each) for each in _files(roots.proc / "sys/net/ipv4/vs")}
        settings |= {name: _setting(roots, name) for name in _of_ipv6(roots)}
        loaded = (roots.proc / "thread-self/net/ip_vs").exists()
        connections, slots = _table(roots)
        return Facts(
            modules=_modules(schedulers, roots, loaded=loaded),
            settings=settings,
            interfaces=interfaces,
            connections=connections,
            slots=slots,
            sync=_sync() if loaded else frozenset(),
            daemon=daemon is not None,
            read_only=_is_read_only(roots.proc / "sys/net/ipv4/vs"),
            namespace=whose,
        )


def _whose(daemon: int | Unread | None, roots: Roots) -> tuple[str | Unread, Namespace | None]:
    """Return whose network namespace is looked at, empty where it is ours, and where to go for it."""
    if daemon is None or isinstance(daemon, Unread):
        return daemon or "", None
    try:
        there, here = ((roots.proc / str(each) / "ns/net").stat().st_ino for each in (daemon, "thread-self"))
    except OSError as error:
        return Unread(_words(error)), None
    return ("", None) if there == here else (f"{DAEMONS}{daemon}", daemon)


# ---- settings


def _setting(roots: Roots, name: str) -> Reading:
    """Return the setting that sysctl(8) calls `name`."""
    return _reading(roots.proc / "sys" / Path(*(part.replace("/", ".") for part in name.split("."))))


def _reading(path: Path) -> Reading:
    try:
        text = path.read_text("ascii").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        return Unread(_words(error))
    except ValueError:
        return Unread("it is not of ASCII")
    try:
        return int(text)
    except ValueError:
        return text


def _files(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def _is_read_only(directory: Path) -> bool:
    try:
        return bool(os.statvfs(directory).f_flag & os.ST_RDONLY)
    except OSError:
        return False  # it is not there


def _names_of(interfaces: Iterable[str]) -> Iterator[str]:
    for interface in ("all", *interfaces):
        for name in OF_INTERFACES:
            yield sysctl_name("net", "ipv4", "conf", interface, name)


def _of_ipv6(roots: Roots) -> Iterator[str]:
    for path in _files(roots.proc / "sys/net/ipv6/conf"):
        if path.name not in ("all", "default", "lo"):
            yield sysctl_name("net", "ipv6", "conf", path.name, NO_IPV6)


# ---- interfaces


def _interfaces(roots: Roots) -> Iterator[str]:
    """Yield the interfaces that packets of IPv4 may come and go by: up, with an address, and ARP on them.

    That leaves out loopback and the dummy interface of [vip].
    """
    names = [path.name for path in _files(roots.proc / "sys/net/ipv4/conf") if path.name not in ("all", "default")]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for name in names:
            request = IFREQ.pack(name.encode())
            try:
                flags = struct.unpack_from("=H", fcntl.ioctl(asking, SIOCGIFFLAGS, request), 16)[0]
                address = fcntl.ioctl(asking, SIOCGIFADDR, request)[20:24]
            except OSError:
                continue  # it is gone, or has no address
            if flags & UP and not flags & (LOOPBACK | NO_ARP) and any(address):
                yield name


# ---- modules


def _modules(schedulers: Iterable[str], roots: Roots, *, loaded: bool) -> Mapping[str, Module | Unread]:
    names = ["ip_vs", *(f"ip_vs_{each}" for each in sorted(schedulers))]
    here = {name for name in names if (roots.sys / "module" / name).is_dir()} | ({"ip_vs"} if loaded else set())
    try:
        built_in, loadable = (_named(roots.modules / each) for each in ("modules.builtin", "modules.dep"))
    except OSError as error:
        rest: Module | Unread = Unread(f"{error.filename}: {_words(error)}")
        return {name: Module.LOADED if name in here else rest for name in names}
    states = {name: Module.LOADABLE if name in loadable else Module.MISSING for name in names}
    return states | dict.fromkeys(here | (built_in & set(names)), Module.LOADED)


def _named(path: Path) -> frozenset[str]:
    """Return the modules that a list of depmod(8) has: the first word of each line is a file."""
    lines = path.read_text("utf-8", "replace").splitlines()
    return frozenset(line.partition(":")[0].rpartition("/")[2].partition(".")[0].replace("-", "_") for line in lines)


# ---- what IPVS has


def _table(roots: Roots) -> tuple[int | Unread, int]:
    """Return how many connections all real servers have together, and in how many slots the kernel keeps them.

    `IP Virtual Server version 1.2.1 (size=4096)`, and lines that begin with `->` for real servers and one heading.
    """
    try:
        lines = (roots.proc / "thread-self/net/ip_vs").read_text("ascii").splitlines()
    except FileNotFoundError:
        return 0, 0
    except OSError as error:
        return Unread(_words(error)), 0
    first = lines[0].rpartition("(size=")[2].rstrip(")") if lines else ""
    counted = [line.split()[-2:] for line in lines if line.lstrip().startswith("->")]
    numbers = [int(each) for pair in counted for each in pair if each.isdecimal()]
    return sum(numbers), int(first) if first.isdecimal() else 0


def _sync() -> frozenset[SyncRole] | Unread:
    try:
        with IPVS() as kernel:
            return frozenset(each.role for each in kernel.sync_daemons())
    except NetlinkError as error:
        return Unread(str(error))


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()

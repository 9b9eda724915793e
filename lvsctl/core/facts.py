"""The kernel as it is now, as far as it matters to IPVS; and what is said of it, a row for each setting.

Pure: `machine` reads the facts, `preflight` judges them.
"""

import enum
from collections.abc import Mapping
from typing import Final

import attrs

from netlink.types import SyncRole

OF_IPVS: Final = "net.ipv4.vs."
FORWARD4: Final = "net.ipv4.ip_forward"
FORWARD6: Final = "net.ipv6.conf.all.forwarding"
NO_IPV6: Final = "disable_ipv6"  # of net.ipv6.conf.INTERFACE
NAMESPACE: Final = "network namespace"  # the row that says whose it is
DAEMONS: Final = "the daemon's, pid "  # the beginning of that
TRACKED: Final = "net.netfilter.nf_conntrack_count"
MOST_TRACKED: Final = "net.netfilter.nf_conntrack_max"
OF_INTERFACES: Final = ("rp_filter", "send_redirects", "arp_ignore")
READ: Final = (FORWARD4, FORWARD6, TRACKED, MOST_TRACKED)  # beside those of IPVS and of interfaces


class Grade(enum.Enum):
    """What a row is."""

    FINE = "fine"
    NOTE = "note"
    FINDING = "finding"


class Module(enum.Enum):
    """How it is with a module of the kernel."""

    LOADED = "loaded"  # or built in
    LOADABLE = "not loaded"
    MISSING = "missing"


@attrs.frozen
class Unread:
    """What could not be read, and why."""

    why: str


Reading = int | str | Unread | None
"""What a setting is; None: this kernel has no such setting."""


@attrs.frozen(kw_only=True)
class Facts:
    """The kernel as it is now, in one network namespace."""

    modules: Mapping[str, Module | Unread]  # ip_vs, and of each scheduler ip_vs_NAME
    settings: Mapping[str, Reading]  # by the name that sysctl has; none of IPVS while ip_vs is not loaded
    interfaces: tuple[str, ...] = ()  # that packets may come and go by
    connections: int | Unread = 0
    slots: int = 0  # of the connection table; 0: not told
    sync: frozenset[SyncRole] | Unread = frozenset()  # synchronisation daemons that run
    daemon: bool = False  # lvsctl run does
    read_only: bool = False  # the settings of IPVS, for everybody who has this /proc/sys
    namespace: str | Unread = ""  # whose it is, where it is not the one of who asks

    def number(self, name: str) -> int:
        """Return setting `name` as a number, 0 where it is none."""
        reading = self.settings.get(name)
        return reading if isinstance(reading, int) else 0


@attrs.frozen(kw_only=True)
class Row:
    """One setting: what it is, what it should be, and why."""

    setting: str
    value: str  # empty: not read, or not there
    should: str = ""  # empty: as it is
    why: str = ""
    grade: Grade = Grade.FINE
    relevant: bool = True  # to this configuration
    by_lvsctl: bool = False  # named in [kernel]
    names: tuple[str, ...] = ()  # what is set for it; empty: `setting`


def sysctl_name(*parts: str) -> str:
    """Return the name that sysctl(8) has for a file below /proc/sys: dots of an interface's name become slashes."""
    return ".".join(part.replace(".", "/") for part in parts)


def unread(name: str, reading: str | Unread, *, relevant: bool) -> Row:
    """Return the row of a setting that is no number, or could not be read."""
    why = f"it cannot be read: {reading.why}" if isinstance(reading, Unread) else f"it is {reading!r}, no number"
    return Row(setting=name, value="", why=why, grade=Grade.FINDING if relevant else Grade.FINE, relevant=relevant)

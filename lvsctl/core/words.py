"""The kernel's values in the words of the configuration file, the same on every screen and in every log.

Pure.
"""

import enum

from lvsctl.config import SCHEDULER_FLAGS
from netlink.types import RealServer, VirtualServer


def word(value: object) -> str:
    """Return `direct-route` for DIRECT_ROUTE, `none` for nothing, and any other value as it prints."""
    if isinstance(value, enum.Flag):
        return " | ".join(flag.name or "?" for flag in value).lower().replace("_", "-") or "none"
    if isinstance(value, enum.Enum):
        return value.name.lower().replace("_", "-")
    return "none" if value is None else str(value)


def virtual_server_words(virtual_server: VirtualServer) -> str:
    """Return `wlc`, `mh mh-port mh-fallback`, `rr, one-packet` or `wrr, persistent 300s /24`: all but its key."""
    words = [" ".join([virtual_server.scheduler, *_flags(virtual_server)])]
    if virtual_server.one_packet:
        words.append("one-packet")
    if virtual_server.persistence:
        prefix = virtual_server.persistence_prefix
        words.append(f"persistent {virtual_server.persistence}s" + ("" if prefix is None else f" /{prefix}"))
    return ", ".join(words)


def real_server_words(real_server: RealServer) -> str:
    """Return `masquerade, weight 1`."""
    return f"{word(real_server.forwarding)}, weight {real_server.weight}"


def _flags(virtual_server: VirtualServer) -> list[str]:
    """Return the scheduler's flags by the names that the configuration has for them."""
    own = f"{virtual_server.scheduler}-"
    names = {flag: name for name, flag in SCHEDULER_FLAGS.items() if name.startswith("flag-")}
    names |= {flag: name for name, flag in SCHEDULER_FLAGS.items() if name.startswith(own)}
    return [names[flag] for flag in virtual_server.scheduler_flags if flag in names]


def instant(seconds: float) -> str:
    """Return Unix seconds as `2026-11-23 14:00:12 UTC`."""
    return f"{moment(seconds).removesuffix(' UTC')}:{int(seconds) % 60:02} UTC"


def moment(seconds: float) -> str:
    """Return Unix seconds as `2026-11-23 14:00 UTC`; seconds are left out, and years are those of people."""
    days, rest = divmod(int(seconds), 86400)
    # From days to a date of the Gregorian calendar, by eras of 400 years that begin on the first of March.
    era, day = divmod(days + 719468, 146097)
    year = (day - day // 1460 + day // 36524 - day // 146096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    date = f"{year + 400 * era + (month >= 10):04}-{(month + 2) % 12 + 1:02}-{day - (153 * month + 2) // 5 + 1:02}"
    return f"{date} {rest // 3600:02}:{rest % 3600 // 60:02} UTC"

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

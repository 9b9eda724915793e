"""Which failing real servers are deleted at once, and why draining them would be worse for their clients.

Pure. Quiescing is meant to keep connections and to send everybody else elsewhere. Where the kernel goes on sending
new requests to a quiesced real server, or refuses them, a check that is critical leaves those clients without an answer
until the drain is over. One that leaves on purpose still answers, and is drained in any case.
Tried in `tests/kernel/test_drain_rules.py` and `tests/kernel/test_drain.py`.
"""

from typing import Final

from lvsctl.config import OnCritical, VirtualServerConfig
from lvsctl.core.admission import Excluded, Reason
from lvsctl.core.desired import Wanted
from lvsctl.core.nothing import NOBODY
from netlink.types import Protocol, RealServerKey, SchedulerFlag

WITH_FALLBACK: Final = {"sh", "mh"}  # pass over a quiesced real server where their first flag is set
WITHOUT_FALLBACK: Final = {"dh"}


def why_undrained(config: VirtualServerConfig, *, templates_expire: bool, connections_expire: bool) -> str:
    """Return why a real server whose check is critical is deleted at once; empty where it is drained.

    The settings of the kernel are those of `decide`.
    """
    if config.on_critical is OnCritical.DELETE:
        return 'on_critical is "delete"'
    if config.persistence is not None and not templates_expire:
        return "persistence would keep its clients"
    if _refuses(config):
        return f"{config.scheduler} would refuse its clients"
    if config.key.protocol is Protocol.UDP and not config.one_packet and connections_expire:
        return "clients that keep their source port would stay with it"
    return ""


def undrained(wanted: Wanted, why: str) -> frozenset[RealServerKey]:
    """Return the real servers that are failing and not to be waited for, for what `why_undrained` says."""
    if not why:
        return NOBODY
    return frozenset(
        key
        for key, member in wanted.by_key.items()
        if isinstance(member.verdict, Excluded) and member.verdict.reason is Reason.CRITICAL
    )


def _refuses(config: VirtualServerConfig) -> bool:
    """Tell whether clients that hash to a quiesced real server are refused."""
    if config.scheduler in WITH_FALLBACK:
        return SchedulerFlag.FLAG_1 not in config.scheduler_flags
    return config.scheduler in WITHOUT_FALLBACK

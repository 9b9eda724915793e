"""Which real servers are deleted at once, and why draining them would be worse for their clients.

Pure. Quiescing is meant to keep connections and to send everybody else elsewhere. Where the kernel goes on sending
new requests to a quiesced real server, or refuses them, a check that is critical leaves those clients without an answer
until the drain is over. One that leaves on purpose still answers, and is drained in any case. The fallback leaves when
something serves again: who would go on getting it, or be refused for its sake, is better off with that.
Tried in `tests/kernel/test_drain_rules.py` and `tests/kernel/test_drain.py`.
"""

from collections.abc import Mapping
from typing import Final

from lvsctl.config import OnCritical, VirtualServerConfig
from lvsctl.core.admission import Excluded, Reason
from lvsctl.core.desired import Member, Wanted
from lvsctl.core.nothing import NOTHING
from netlink.types import Protocol, RealServerKey, SchedulerFlag

WITH_FALLBACK: Final = {"sh", "mh"}  # pass over a quiesced real server where their first flag is set
WITHOUT_FALLBACK: Final = {"dh"}


def why_undrained(config: VirtualServerConfig, *, templates_expire: bool, connections_expire: bool) -> str:
    """Return why a real server whose check is critical is deleted at once; empty where it is drained.

    The settings of the kernel are those of `decide`.
    """
    if config.on_critical is OnCritical.DELETE:
        return 'on_critical is "delete"'
    return _why_worse(config, templates_expire=templates_expire, connections_expire=connections_expire)


def _why_worse(config: VirtualServerConfig, *, templates_expire: bool, connections_expire: bool) -> str:
    if config.persistence is not None and not templates_expire:
        return "persistence would keep its clients"
    if _refuses(config):
        return f"{config.scheduler} would refuse its clients"
    if config.key.protocol is Protocol.UDP and not config.one_packet and connections_expire:
        return "clients that keep their source port would stay with it"
    return ""


def undrained(
    wanted: Wanted, fallback: RealServerKey | None, *, templates_expire: bool, connections_expire: bool
) -> Mapping[RealServerKey, str]:
    """Return the real servers that are not to be waited for when they leave, each with why.

    Those are the failing ones, and the `fallback` that served until now. The settings are those of `decide`.
    """
    expiring = {"templates_expire": templates_expire, "connections_expire": connections_expire}
    found = {}
    if why := why_undrained(wanted.config, **expiring):
        found = {key: why for key, member in wanted.by_key.items() if _is_critical(member)}
    if fallback is not None and (why := _why_worse(wanted.config, **expiring)):
        found[fallback] = why
    return found or NOTHING


def _is_critical(member: Member) -> bool:
    return isinstance(member.verdict, Excluded) and member.verdict.reason is Reason.CRITICAL


def _refuses(config: VirtualServerConfig) -> bool:
    """Tell whether clients that hash to a quiesced real server are refused."""
    if config.scheduler in WITH_FALLBACK:
        return SchedulerFlag.FLAG_1 not in config.scheduler_flags
    return config.scheduler in WITHOUT_FALLBACK

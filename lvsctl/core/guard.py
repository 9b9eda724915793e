"""What must not leave, whatever Consul says: the last serving real servers of a virtual server.

Pure. A catalogue that calls every instance bad is far more often wrong than right (a lost permission answers an
empty list with status 200), and a virtual server without real servers is an outage for certain. So when a removal
would leave nothing that serves, those that serve now stay, and this is shown as a hold. It ends by itself as soon as
Consul has one instance that passes; to empty a virtual server on purpose, remove it from the configuration.
Instances that are registered but failing are kept rather than ones that are gone. What admission rejected is never
kept: an address that must not be in the table is worse than an empty one.

While Consul's answer is in doubt (`consul.doubt`), every one that serves and is not registered any more stays too.
"""

from collections.abc import Set as AbstractSet

from lvsctl.core.admission import Reason, Rejected
from lvsctl.core.desired import Wanted
from netlink.types import RealServer, RealServerKey, RealServers


def held(wanted: Wanted, observed: RealServers, written: RealServers) -> RealServers:
    """Return the real servers that stay although `wanted` lets them go; empty when nothing is held.

    They are those that serve in `observed`, as we last wrote them (`written`), and those that a hand quiesced or
    deleted since; of the deleted ones only those that Consul still has, for an old ledger may remember addresses
    that are somebody else's by now.
    """
    if not wanted.doubt and any(serves(real_server) for real_server in wanted.entry.real_servers.values()):
        return {}
    ours = {key: real_server for key, real_server in written.items() if serves(real_server)}
    there = {key: ours.get(key, each) for key, each in observed.items() if serves(each) or key in ours}
    gone = {key: each for key, each in there.items() if key not in wanted.by_key}
    if wanted.doubt and (gone or any(serves(real_server) for real_server in wanted.entry.real_servers.values())):
        return gone
    registered = wanted.by_key.keys() - _rejected(wanted)
    failing = {key: each for key, each in (ours | there).items() if key in registered}
    return failing or gone


def why_held(wanted: Wanted) -> str:
    """Return why real servers are held, in words."""
    return f"Consul's answer is in doubt ({wanted.doubt})" if wanted.doubt else "nothing else would serve"


def may_remove(intended: RealServers, observed: RealServers, refused: AbstractSet[RealServerKey]) -> bool:
    """Tell whether what leaves may leave, although the kernel refused some of the real servers that were to come.

    Not when those that come were to take over and none of them is there. `refused` are those the kernel did not take.
    """
    taking_over = {key for key, real_server in intended.items() if serves(real_server)}
    there = {key for key in taking_over if key not in refused or (key in observed and serves(observed[key]))}
    return bool(there) or not taking_over


def serves(real_server: RealServer) -> bool:
    """Tell whether `real_server` gets new connections."""
    return real_server.weight > 0


def _rejected(wanted: Wanted) -> AbstractSet[RealServerKey | None]:
    """Return the real servers that may not be in the table, even where other instances at the same address may."""
    verdicts = [member.verdict for member in wanted.members]
    return {each.key for each in verdicts if isinstance(each, Rejected) and each.reason is not Reason.DUPLICATE}

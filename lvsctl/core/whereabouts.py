"""What became of the instance behind a real server that is in none of Consul's answers any more.

Pure. Consul does not tell: one that is registered with another port or address, or with something that cannot be read,
looks at its old place like one that was deregistered. Who was behind it is known from the last decision, and why it
left is kept in the ledger until it is gone (`Provenance.left`), so that a restart does not forget.
"""

from collections.abc import Mapping
from typing import Final

from lvsctl.core.admission import Rejected
from lvsctl.core.cause import Kind, name_of, of_kind
from lvsctl.core.desired import Member, Wanted
from lvsctl.core.nothing import NOTHING
from netlink.types import RealServerKey

UNREGISTERED: Final = "is no longer registered in Consul"
LONGEST: Final = 400  # characters: it is in the ledger, for each real server that drains, and a stranger may write most


def whereabouts(behind: Mapping[RealServerKey, Member], wanted: Wanted) -> Mapping[RealServerKey, str]:
    """Return what became of the instances that were `behind` real servers, as `cause.of_kind` writes it."""
    if not behind:
        return NOTHING
    now = {_identity(member): member for member in (*wanted.by_key.values(), *wanted.members)}
    return {
        key: _became(member, now.get(_identity(member))) for key, member in behind.items() if member.source.instance_id
    }


def _identity(member: Member) -> tuple[str, str, str]:
    return member.datacenter, member.source.node, member.source.instance_id


def _became(before: Member, now: Member | None) -> str:
    if now is None:
        return of_kind(Kind.DEREGISTERED, _cut(f"{name_of(before)} {UNREGISTERED}"))
    if isinstance(now.verdict, Rejected):
        return of_kind(Kind.REJECTED, _cut(f"{name_of(now)} is rejected now: {now.verdict.text}"))
    place = f"at {now.key}" if now.key else "elsewhere"
    return of_kind(Kind.DEREGISTERED, _cut(f"{name_of(now)} is registered {place} now"))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:200]} … {text[-(LONGEST - 203) :]}"

"""What of Consul's decided a step: the index of the answer, the instance and its check.

Pure. The cause of a step says it in words; this is the same for programs, and to look it up in Consul.
"""

import attrs

from lvsctl.core.cause import GONE, Cause
from lvsctl.core.decision import VirtualServerDecision
from lvsctl.core.desired import Member, Wanted
from lvsctl.core.event import Evidence
from lvsctl.core.instance import Instance
from netlink.types import RealServerKey


def evidence_of(each: VirtualServerDecision, key: RealServerKey, cause: Cause) -> Evidence | None:
    """Return what decided a step of `cause` about real server `key`; None where Consul's answer has no part in it."""
    if each.wanted is None:
        return None
    member = each.wanted.by_key.get(key)
    if member is not None:
        return evidence_of_member(each.wanted, member)
    why = each.leaving_causes.get(key, cause)  # a deletion says that it is drained, this says why it left
    if why.kind not in GONE.values():
        return None
    behind = each.behind.get(key)
    if behind is None:
        return _of(each.wanted, each.wanted.datacenter)
    found = _of(each.wanted, behind.datacenter)
    return attrs.evolve(found, node=behind.source.node, instance=behind.source.instance_id)


def evidence_of_member(wanted: Wanted, member: Member) -> Evidence:
    """Return what is known of the instance of `member`."""
    source = member.source
    check = source.worst_check if isinstance(source, Instance) else None
    found = _of(wanted, member.datacenter)
    return Evidence(
        service=found.service,
        datacenter=found.datacenter,
        index=found.index,
        node=source.node,
        instance=source.instance_id,
        health=source.health.word if isinstance(source, Instance) else "",
        check=(check.name or check.check_id) if check else "",
    )


def _of(wanted: Wanted, datacenter: str) -> Evidence:
    """Return which answer it was: that of `datacenter`."""
    heard = zip(wanted.queries, wanted.heard, strict=True)
    index = next((answer.index for query, answer in heard if query.datacenter == datacenter and answer), 0)
    return Evidence(service=wanted.config.consul_service, datacenter=datacenter, index=index)

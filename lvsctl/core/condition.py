"""How a virtual server stands, in a word and a sentence.

Pure. `virtual_server_status` shows both, `standing` counts the words.
"""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from lvsctl.core.admission import Excluded, Reason, Rejected
from lvsctl.core.decision import VirtualServerDecision
from lvsctl.core.desired import Wanted
from lvsctl.core.failover import named, why_failed_over
from lvsctl.core.guard import serves
from lvsctl.core.status import State
from lvsctl.core.words import moment
from netlink.types import Address


def state_of(each: VirtualServerDecision, *, serving: int, wanted: int, refused: bool) -> State:
    """Return the state of a virtual server that is not foreign."""
    if refused:
        return State.REFUSED
    if each.wanted is None:
        return State.LEAVING
    if each.held:
        return State.HELD
    if serving == 0:
        return State.FALLBACK if each.fallback is not None else State.EMPTY
    if each.ordered.pause:
        return State.PAUSED
    return State.OK if serving >= wanted and not each.wanted.failed_over else State.DEGRADED


def note_on(each: VirtualServerDecision, state: State, local: AbstractSet[Address]) -> str:
    """Return what is to be said of a virtual server in `state`, which is not foreign; empty where all is well."""
    notes = [*_orders_on(each)]
    if each.wanted and each.wanted.failed_over:
        notes.append(_failed_over(each.wanted))
    if state is State.HELD:
        notes.append(_why_held(each))
    if state is State.LEAVING:
        notes.append(each.why_unwanted)
    if state is State.EMPTY:
        notes.append(why_nobody(each))
    if state is State.FALLBACK:
        notes.append(f"{why_nobody(each)}; the fallback {each.fallback} serves")
    if each.ramps.times > 1:
        whom = f"{len(each.ramps.of)} real server" + ("s have their" if len(each.ramps.of) > 1 else " has its")
        notes.append(f"weights are times {each.ramps.times} while {whom} slow start")
    if many := damped_of(each):
        notes.append(f"{many} damped; lvsctl release {each.name} lets {'it' if many == 1 else 'them'} in")
    if each.key.address is not None and each.key.address not in local:
        notes.append(f"{each.key.address} is on no interface of this machine")
    return "; ".join(notes)


def _orders_on(each: VirtualServerDecision) -> Iterator[str]:
    if each.ordered.pause:
        changes = f"{len(each.steps)} change{'s' if len(each.steps) > 1 else ''} to make, but " if each.steps else ""
        yield f"{changes}{each.ordered.pause.words}; lvsctl resume ends it"
    if each.ordered.hold and not each.hold.order and each.wanted:  # what left the file it does not keep
        yield f"{each.ordered.hold.words}; lvsctl release {each.name} ends it"


def damped_of(each: VirtualServerDecision) -> int:
    """Return how many instances pass and wait, because they come and go."""
    if each.undamped is None or each.wanted is None:
        return 0
    verdicts = [member.verdict for member in each.wanted.members]
    return sum(isinstance(verdict, Excluded) and verdict.reason is Reason.DAMPED for verdict in verdicts)


def _failed_over(wanted: Wanted) -> str:
    return why_failed_over(wanted.standings, [query.datacenter for query in wanted.queries], wanted.datacenter)


def _unheard(each: VirtualServerDecision) -> str:
    """Return which datacenters cannot take over because they do not answer, in words; empty where there is none."""
    if each.wanted is None:
        return ""
    asked = zip(each.wanted.queries, each.wanted.standings, strict=True)
    unheard = [named(query.datacenter) for query, standing in asked if standing is None or standing.silent]
    return f", {' and '.join(unheard)} {'does' if len(unheard) == 1 else 'do'} not answer" if unheard else ""


def _why_held(each: VirtualServerDecision) -> str:
    kept = f"{len(each.held)} kept"
    if each.opinion is not None and each.opinion.alive:
        kept += f" ({len(each.held.keys() & each.opinion.alive)} answer lvsctl)"
    if each.hold.order:
        return f"{kept}, {each.hold.order.words}; lvsctl release {each.name} ends it"
    if each.hold.floor.least:
        end = each.hold.floor.until
        what = "the next may leave at" if each.hold.floor.why else f"the floor is {each.hold.floor.least} until"
        until = f"{what} {moment(end)}, or: " if end is not None else ""
        return f"{kept}, for {each.hold.why}; {until}lvsctl release {each.name}"
    if each.wanted and each.wanted.doubt:
        return f"{kept}, for {each.hold.why}"
    return f"{why_nobody(each)}; the last serving real servers stay"


def why_nobody(each: VirtualServerDecision) -> str:
    """Return why nothing that Consul has may serve."""
    return _nobody(each) + _unheard(each)


def _nobody(each: VirtualServerDecision) -> str:
    if each.wanted and any(map(serves, each.wanted.entry.real_servers.values())):
        return "what passes is not in the kernel yet"
    members = each.wanted.members if each.wanted else ()
    meant = [member for member in members if not member.is_filtered]
    rejections = [member.verdict.text for member in meant if isinstance(member.verdict, Rejected)]
    if not members:
        return "Consul has no instance of it"
    if not meant:
        return f"none of Consul's {len(members)} instances has the tags and meta asked for"
    if len(rejections) < len(meant):
        return f"no instance passes, {len(rejections)} rejected" if rejections else "no instance passes"
    return (
        f"all {len(meant)} instances are rejected" if len(meant) > 1 else f"its instance is rejected: {rejections[0]}"
    )

"""Why a weight is written that is not the one that was last meant: slow start, in words.

Pure. Everybody else compares whole weights: a change of what a real server is to have in the end has the cause it would
have without slow start.
"""

import attrs

from lvsctl.core.cause import Cause, Kind, name_of
from lvsctl.core.decision import VirtualServerDecision
from lvsctl.core.desired import Member
from lvsctl.core.ownership import LedgerEntry
from lvsctl.core.ramp import end_of, ramp_words, unramped
from netlink.types import RealServer


def whole_of(real_server: RealServer, decision: VirtualServerDecision) -> RealServer:
    """Return intended `real_server` with the weight that it has in the end."""
    return unramped({real_server.key: real_server}, decision.ramps)[real_server.key]


def written_whole(written: RealServer | None, entry: LedgerEntry | None) -> RealServer | None:
    """Return what was `written` with the weight that was meant."""
    if written is None or entry is None:
        return written
    return unramped({written.key: written}, entry.ramps)[written.key]


def beginning(cause: Cause, real_server: RealServer, decision: VirtualServerDecision, now: float) -> Cause:
    """Return `cause` of a real server that comes, with how far its slow start is where it has one."""
    ramp = decision.ramps.of.get(real_server.key)
    if ramp is None or decision.wanted is None:
        return cause
    words = ramp_words(ramp, decision.wanted.config.slow_start, now)
    return attrs.evolve(cause, text=f"{cause.text}; slow start, {words}")


def cause_of_step(
    real_server: RealServer, decision: VirtualServerDecision, entry: LedgerEntry, member: Member | None, now: float
) -> Cause:
    """Return why `real_server` gets another weight although the one it has in the end is the same."""
    slow_start = decision.wanted.config.slow_start if decision.wanted else 0.0
    ramp, before = decision.ramps.of.get(real_server.key), entry.ramps.of.get(real_server.key)
    if ramp is not None:
        text = f"slow start, {ramp_words(ramp, slow_start, now)}"
    elif before is not None:
        early = slow_start and end_of(before, slow_start) > now
        why = "cut short, for too few others serve" if early else "over" if slow_start else "switched off"
        text = f"slow start is {why}"
    elif decision.ramps.of:
        text = f"weights are times {decision.ramps.times} while others have their slow start"
    else:
        text = f"weights are no longer times {entry.ramps.times}, for nobody has a slow start any more"
    return Cause(kind=Kind.SLOW_START, text=f"{text}: {name_of(member)}")

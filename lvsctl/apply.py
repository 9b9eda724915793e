"""Steps to netlink calls, in stages: what brings before what takes away, and nothing goes that others should replace.

A refusal never counts as success. It makes its own target wait, a real server or a virtual server, with a back-off
that grows while it goes on being refused; every other step goes on. Two things follow from a refusal at once: a virtual
server that could not be created gets no real servers (it may be somebody else's by now), and where the kernel took
none of the real servers that were to take over, those that serve stay, or as many as the guard's floor needs where it
took some.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

import attrs

from lvsctl.core import guard
from lvsctl.core.decision import Decision, Step
from lvsctl.core.plan import Stage, stage_of
from netlink.client import Client
from netlink.errors import Refused
from netlink.requests import (
    AddRealServer,
    AddVirtualServer,
    DeleteRealServer,
    DeleteVirtualServer,
    SetRealServer,
    SetVirtualServer,
)
from netlink.types import RealServerKey, Table, VirtualServerKey

Target = tuple[VirtualServerKey, RealServerKey | None]
"""What a step changes: a virtual server (None), or one of its real servers."""

BATCH: Final = 512  # steps in one call of the client, whose results come back together
FIRST_BACK_OFF: Final = 1.0  # seconds
LONGEST_BACK_OFF: Final = 60.0  # seconds


@attrs.frozen(kw_only=True)
class Done:
    """What became of one step; `refused` is the kernel's refusal, None where it was done."""

    step: Step
    refused: Refused | None = None


@attrs.frozen(kw_only=True)
class Refusal:
    """A target that the kernel refused to change."""

    error: str
    attempts: int
    retry_at: float  # Unix seconds

    def waits(self, now: float) -> bool:
        """Tell whether it is not tried again yet; a clock that was set back makes nobody wait for longer than ever."""
        return 0 < self.retry_at - now <= LONGEST_BACK_OFF


Refusals = Mapping[Target, Refusal]


def apply(
    kernel: Client, decision: Decision, waiting: AbstractSet[Target], tried: list[Step] | None = None
) -> Sequence[Done]:
    """Carry out the steps of `decision` but those of the targets that are `waiting`; return what became of each sent.

    Raises NetlinkError when the outcome is unknown; the table has to be read again. What was `tried` until then is in
    that list.
    """
    done: list[Done] = []
    refused = set(waiting)
    for stage in Stage:
        steps = [step for step in decision.steps if stage_of(step.request) is stage]
        unsent = waiting | (_kept_back(decision, refused) if stage is Stage.REMOVE else frozenset())
        going = [step for step in steps if _may_go(step, decision, unsent=unsent, refused=refused)]
        sent = send(kernel, going, tried)
        refused |= {target_of(each.step) for each in sent if each.refused is not None}
        done += sent
    return done


def send(kernel: Client, steps: Sequence[Step], tried: list[Step] | None = None) -> Sequence[Done]:
    """Send `steps` in order, in bounded batches, and return what became of each; `tried` as in `apply`."""
    done: list[Done] = []
    for start in range(0, len(steps), BATCH):
        batch = steps[start : start + BATCH]
        if tried is not None:
            tried += batch
        results = kernel.apply([step.request for step in batch])
        done += [Done(step=step, refused=refused) for step, refused in zip(batch, results, strict=True)]
    return done


def is_done(step: Step, table: Table) -> bool:
    """Tell whether `table` is as `step` was to make it."""
    there = table.get(step.key)
    match step.request:
        case AddVirtualServer(virtual_server=virtual_server) | SetVirtualServer(virtual_server=virtual_server):
            return there is not None and there.virtual_server == virtual_server
        case DeleteVirtualServer():
            return there is None
        case AddRealServer(real_server=real_server) | SetRealServer(real_server=real_server):
            return there is not None and there.real_servers.get(real_server.key) == real_server
        case DeleteRealServer(key=key):
            return there is not None and key not in there.real_servers


def target_of(step: Step) -> Target:
    """Return what `step` changes."""
    match step.request:
        case AddVirtualServer() | SetVirtualServer() | DeleteVirtualServer():
            return step.key, None
        case AddRealServer(real_server=real_server) | SetRealServer(real_server=real_server):
            return step.key, real_server.key
        case DeleteRealServer(key=key):
            return step.key, key


def refusals_after(done: Sequence[Done], before: Refusals, now: float) -> Refusals:
    """Return what is refused now: what of `before` was not tried, and what was refused in `done`."""
    outcome = {target_of(each.step): each.refused for each in done}
    after = {target: refusal for target, refusal in before.items() if target not in outcome}
    for target, error in outcome.items():
        if error is not None:
            attempts = before[target].attempts + 1 if target in before else 1
            wait = min(LONGEST_BACK_OFF, FIRST_BACK_OFF * 2 ** min(attempts - 1, 10))
            after[target] = Refusal(error=str(error), attempts=attempts, retry_at=now + wait)
    return after


def later(refusals: Refusals, seconds: float) -> Refusals:
    """Return `refusals` as they are for a clock that was set by so many `seconds`."""
    return {target: attrs.evolve(refusal, retry_at=refusal.retry_at + seconds) for target, refusal in refusals.items()}


def _may_go(step: Step, decision: Decision, *, unsent: AbstractSet[Target], refused: AbstractSet[Target]) -> bool:
    """Tell whether `step` may be sent, after what was refused in the stages before it; those `unsent` may not."""
    target = target_of(step)
    each = decision.virtual_servers[step.key]
    created = each.observed is not None or (step.key, None) not in refused
    return target not in unsent and (target[1] is None or created)


def _kept_back(decision: Decision, refused: AbstractSet[Target]) -> frozenset[Target]:
    """Return the real servers that may not leave yet, after what was refused in the stages before."""
    missing: dict[VirtualServerKey, set[RealServerKey]] = {}
    for key, server in refused:
        if server is not None:
            missing.setdefault(key, set()).add(server)
    return frozenset(
        (key, server)
        for key, servers in missing.items()
        if (each := decision.virtual_servers.get(key)) and each.intended and each.observed
        for server in guard.kept_back(
            each.wanted, each.intended.real_servers, each.observed.real_servers, servers, each.counts.least
        )
    )

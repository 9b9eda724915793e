"""Steps to netlink calls: sends them in bounded batches and says which virtual servers were refused something.

A refusal of one step never stops the steps of other virtual servers, and never counts as success: the virtual server
concerned is read and planned again, after a back-off that grows while it keeps being refused.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from lvsctl.core.decision import Step
from netlink.client import Client
from netlink.types import VirtualServerKey

BATCH: Final = 512  # steps sent between two looks at the clock and the signals
FIRST_BACK_OFF: Final = 1.0  # seconds
LONGEST_BACK_OFF: Final = 60.0  # seconds


@attrs.frozen(kw_only=True)
class Done:
    """What became of one step; `refused` is the kernel's refusal, None where it was done."""

    step: Step
    refused: Exception | None = None


@attrs.frozen(kw_only=True)
class Refusal:
    """A virtual server that the kernel refused something for."""

    error: str
    attempts: int
    retry_at: float  # Unix seconds


def apply(kernel: Client, steps: Sequence[Step]) -> Sequence[Done]:
    """Send `steps` in order and return what became of each.

    Raises NetlinkError when the outcome of a batch is unknown; the table has to be read again.
    """
    done = []
    for start in range(0, len(steps), BATCH):
        batch = steps[start : start + BATCH]
        done += [Done(step=step, refused=refused) for step, refused in zip(batch, _send(kernel, batch), strict=True)]
    return done


def _send(kernel: Client, steps: Sequence[Step]) -> Sequence[Exception | None]:
    """Return one result for each of `steps`; one that the client would not even send refuses only itself."""
    try:
        return kernel.apply([step.request for step in steps])
    except ValueError as error:
        return [error] if len(steps) == 1 else [_send(kernel, [step])[0] for step in steps]


def refusals_after(
    done: Sequence[Done], before: Mapping[VirtualServerKey, Refusal], now: float
) -> Mapping[VirtualServerKey, Refusal]:
    """Return who is refused now: those of `before` that were not tried, and those refused in `done`."""
    tried = {each.step.key for each in done}
    refused = {each.step.key: each.refused for each in reversed(done) if each.refused is not None}
    after = {key: refusal for key, refusal in before.items() if key not in tried}
    for key, error in refused.items():
        attempts = before[key].attempts + 1 if key in before else 1
        wait = min(LONGEST_BACK_OFF, FIRST_BACK_OFF * 2 ** min(attempts - 1, 10))
        after[key] = Refusal(error=str(error), attempts=attempts, retry_at=now + wait)
    return after

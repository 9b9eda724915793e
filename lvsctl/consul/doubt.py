"""Which answers of Consul to believe: one that lists fewer instances than before may be a lie with status 200.

Pure. A lost permission, a restored or wiped server, a catalogue that fills again: each answers 200 with fewer instances
or none. So what an answer adds or changes always counts, but that an instance is *gone* counts only when nothing speaks
against it. Otherwise the answer is in doubt: the guard keeps what serves and is not registered any more, and says why,
until the instances are back or the doubt is settled. One that is still registered and fails is not gone.
Source: Consul HTTP API, Blocking Queries and Consistency Modes; what Consul does is measured on 1.8.7.
"""

import enum
from collections.abc import Set as AbstractSet
from typing import Final

import attrs

from lvsctl.core.instance import Answer

HOLD: Final = 180.0  # seconds of a doubt that nothing renews; a server that lost its data is whole again after 72 to 87
STALE: Final = 10.0  # seconds since the answering server last heard its leader, from which on it is not believed

Identity = tuple[str, str]
"""Node and instance id."""


class Doubt(enum.Enum):
    """Why an answer is not believed wholly."""

    STALE = enum.auto()  # the server that answered has no leader, or has not heard it for long: while it is so
    FILTERED = enum.auto()  # Consul left out what the token may not read, and did not before: while it is so
    CONTRADICTED = enum.auto()  # it does not fit what Consul said before: for `HOLD`
    UNCONFIRMED = enum.auto()  # it lists so few, or may be filtered: asked again, of a leader that makes sure it is one


@attrs.frozen(kw_only=True)
class Belief:
    """What is believed after an answer."""

    answer: Answer  # its `doubt` says in words why it is not believed wholly
    known: AbstractSet[Identity]  # the instances of the last answer that was; of the first one while none was
    filtered: bool  # whether the token never could read it all
    doubt: Doubt | None = None
    since: float = 0.0  # Unix seconds when this doubt began; another one begins anew


def recalled(answer: Answer) -> Belief:
    """Return what `answer` of a snapshot is worth: what Consul says next is compared with it, as if heard just now."""
    return Belief(answer=answer, known=identities(answer), filtered=answer.filtered)


def believe(
    before: Belief | None, answer: Answer, now: float, *, refused: bool = False, consistent: bool = False
) -> Belief:
    """Return what to believe after `answer`, at `now` (Unix seconds).

    `refused`: Consul has refused the token since the last answer. `consistent`: the leader has made sure, before it
    answered, that it still is the leader.
    """
    found = identities(answer)
    known = before.known if before else found
    held = now - before.since if before and before.doubt else 0.0
    filtered = before.filtered if before else answer.filtered
    doubt, text = _doubt(before, answer, held=held, refused=refused, consistent=consistent)
    if doubt is None:
        return Belief(answer=answer, known=found, filtered=answer.filtered)
    answer = attrs.evolve(answer, doubt=text)
    since = before.since if before and before.doubt is doubt else now
    # What an answer in doubt adds is not known: when the truth comes without it, that is no loss.
    return Belief(answer=answer, known=known, filtered=filtered, doubt=doubt, since=since)


def _doubt(
    before: Belief | None, answer: Answer, *, held: float, refused: bool, consistent: bool
) -> tuple[Doubt | None, str]:
    """Return why `answer` is not believed wholly, and that in words; `held` is seconds since the doubt began."""
    if stale := _staleness(answer):
        return Doubt.STALE, stale
    found = identities(answer)
    lost = before.known - found if before else frozenset()
    if _newly_filtered(before, answer, lost=bool(lost), held=held):
        return Doubt.FILTERED, "Consul leaves out what the token may not read; it needs node:read and service:read"
    if before is None or not lost:
        return None, ""
    few = 2 * len(lost) > len(before.known) or not found
    unsure = few or answer.streamed or before.doubt is not None
    if before.doubt is not Doubt.CONTRADICTED or held < HOLD:
        text = _contradiction(before.answer, answer, refused=refused and few)
        if text or before.doubt is Doubt.CONTRADICTED:
            return Doubt.CONTRADICTED, text or before.answer.doubt
    if unsure and not consistent:
        return Doubt.UNCONFIRMED, f"it lists {len(found)} of {len(before.known)} instances and is not confirmed yet"
    return None, ""


def _staleness(answer: Answer) -> str:
    """Return why the server that answered may be behind the others, in words; empty when it is not."""
    if not answer.leader:
        return "the server that answered knows no leader"
    if answer.last_contact > STALE:
        return f"the server that answered last heard its leader {answer.last_contact:.0f} s ago"
    return ""


def _newly_filtered(before: Belief | None, answer: Answer, *, lost: bool, held: float) -> bool:
    """Tell whether a permission that was lost may be why an instance is missing.

    A token that never could read it all is one that its operator wants so; at the start nobody knows that yet.
    """
    if not answer.filtered or before is None:
        return answer.filtered
    if before.filtered:
        return before.doubt is Doubt.FILTERED and held < HOLD
    return lost


def _contradiction(last: Answer, answer: Answer, *, refused: bool) -> str:
    """Return how an answer that lacks instances does not fit what Consul said before; empty when it may be true."""
    if refused:
        return "Consul refused the token, and now lists far fewer instances"
    if answer.index == 0:
        return "instances went, and Consul's answer has no usable index"
    if answer.index < last.index:
        return f"Consul's index went back from {last.index} to {answer.index}, as after a loss of data"
    if answer.index == last.index and not identities(last) <= identities(answer):
        return f"instances went although Consul's index stayed at {answer.index}, as when a token loses a permission"
    return ""


def identities(answer: Answer) -> frozenset[Identity]:
    """Return the instances that `answer` lists, those that cannot be read too."""
    return frozenset(each.identity for each in answer.instances) | {
        (each.node, each.instance_id) for each in answer.malformed
    }

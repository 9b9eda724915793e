"""Which answers of Consul to believe: one that lists fewer instances than before may be a lie with status 200.

Pure. A lost permission, a restored or wiped server, a catalogue that fills again: each answers 200 with fewer instances
or none. So what an answer adds or changes always counts, but that an instance is *gone* counts only when nothing speaks
against it. Otherwise the answer is in doubt: the guard keeps what serves and is not registered any more, and says why,
until the instances are back or the doubt is settled. One that is still registered and fails is not gone.
Source: Consul HTTP API, Blocking Queries and Consistency Modes; what Consul does is measured on 1.8.7.
"""

import enum
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import attrs

from lvsctl.core.instance import Answer
from lvsctl.core.nothing import NOTHING

HOLD: Final = 180.0  # seconds of a doubt that nothing renews; a server that lost its data is whole again after 72 to 87
SETTLING: Final = 30.0  # seconds after Consul answers again; servers that start take nodes out until they hear of them
STALE: Final = 10.0  # seconds since the answering server last heard its leader, from which on it is not believed

Identity = tuple[str, str]
"""Node and instance id."""


class Doubt(enum.Enum):
    """Why an answer is not believed wholly."""

    STALE = enum.auto()  # the server that answered has no leader, or has not heard it for long: while it is so
    FILTERED = enum.auto()  # Consul left out what the token may not read, and did not before: while it is so
    CONTRADICTED = enum.auto()  # it does not fit what Consul said before: for `HOLD`
    RETURNED = enum.auto()  # it lists far fewer, and is the first one after failures: for `SETTLING`
    UNCONFIRMED = enum.auto()  # it lists so few, or may be filtered: asked again, of a leader that makes sure it is one


@attrs.frozen(kw_only=True)
class Belief:
    """What is believed after an answer."""

    answer: Answer  # its `doubt` says in words why it is not believed wholly
    trusted: Answer  # the last one that was believed wholly; the first one while none was
    index: int  # of the last answer that was; 0 while none was, or where it was another Consul's
    filtered: bool  # whether the token never could read it all
    doubt: Doubt | None = None
    # Each doubt since the last answer that was believed, and when it began. None ends by another one's coming between.
    begun: Mapping[Doubt, float] = NOTHING
    contradiction: str = ""  # in words, while there is one in `begun`
    served: int = 0  # real servers of before the start, of which the first answer listed less than half; until believed

    @property
    def known(self) -> AbstractSet[Identity]:
        """Return the instances that were there when an answer was last believed."""
        return identities(self.trusted)

    @property
    def since(self) -> float | None:
        """Return when the first doubt since the last answer that was believed began; None where there is none."""
        return min(self.begun.values(), default=None)


@attrs.frozen(kw_only=True)
class _Listed:
    """Which instances an answer lists; found out once, for there may be ten thousand."""

    found: AbstractSet[Identity]
    known: AbstractSet[Identity]  # those that were there when an answer was last believed
    lost: AbstractSet[Identity]  # of those

    @property
    def is_few(self) -> bool:
        """Tell whether more than half are lost, or none is listed."""
        return 2 * len(self.lost) > len(self.known) or not self.found


def recalled(answer: Answer) -> Belief:
    """Return what `answer` of a snapshot is worth: what Consul says next is compared with it, as if heard just now."""
    return Belief(answer=answer, trusted=answer, index=answer.index, filtered=answer.filtered)


def moved(belief: Belief) -> Belief:
    """Return `belief` as what the answers of another Consul are compared with: its indexes are others."""
    return attrs.evolve(belief, answer=attrs.evolve(belief.answer, index=0), index=0)


def believe(
    before: Belief | None,
    answer: Answer,
    now: float,
    *,
    refused: bool = False,
    failed: bool = False,
    consistent: bool = False,
    served: int = 0,
) -> Belief:
    """Return what to believe after `answer`, at `now`, in seconds of a clock that nobody sets.

    `refused`: Consul has refused the token since the last answer that was believed. `failed`: it was asked in vain
    since the last answer. `consistent`: the leader has made sure, before it answered, that it still is the leader.
    `served`: how many real servers were in place before the start; it is what a first answer is compared with.
    """
    if before and _is_known(before, answer):
        return Belief(answer=answer, trusted=answer, index=answer.index, filtered=answer.filtered)
    listed = _listed(before, answer)
    if before:
        served = before.served
    elif 2 * len(listed.found) >= served:
        served = 0
    begun = dict(before.begun) if before else {}
    contradiction = _contradiction(before, answer, listed, refused=refused, served=served)
    if contradiction:
        begun[Doubt.CONTRADICTED] = now
    elif before:
        contradiction = before.contradiction
    if before is None and answer.filtered:
        begun[Doubt.FILTERED] = now  # whether or not the server that says so has a leader
    if before and failed and listed.is_few:
        begun.setdefault(Doubt.RETURNED, now)
    held = {doubt: now - since for doubt, since in begun.items()}
    doubt, text = _doubt(
        before, answer, listed, held, contradiction=contradiction, consistent=consistent, served=served
    )
    if doubt is None:
        return Belief(answer=answer, trusted=answer, index=answer.index, filtered=answer.filtered)
    begun.setdefault(doubt, now)
    # What an answer in doubt adds is not known: when the truth comes without it, that is no loss.
    return Belief(
        answer=attrs.evolve(answer, doubt=text),
        trusted=before.trusted if before else answer,
        index=before.index if before else 0,
        filtered=before.filtered if before else answer.filtered,
        doubt=doubt,
        begun=begun,
        contradiction=contradiction,
        served=served,
    )


def _is_known(before: Belief, answer: Answer) -> bool:
    """Tell whether `answer` lists the very objects that were believed without any doubt, and raises none itself.

    That is what thousands of queries hear all the time, so it is found out without a look at each instance.
    """
    trusted = before.trusted
    return (
        answer.instances is trusted.instances
        and answer.malformed is trusted.malformed
        and before.doubt is None
        and not _staleness(answer)
    )


def _listed(before: Belief | None, answer: Answer) -> _Listed:
    found, known = identities(answer), before.known if before else frozenset()
    return _Listed(found=found, known=known, lost=known - found)


def _doubt(
    before: Belief | None,
    answer: Answer,
    listed: _Listed,
    held: Mapping[Doubt, float],
    *,
    contradiction: str,
    consistent: bool,
    served: int,
) -> tuple[Doubt | None, str]:
    """Return why `answer` is not believed wholly, and that in words; `held` is seconds since each doubt began."""
    if stale := _staleness(answer):
        return Doubt.STALE, stale
    found, lost = listed.found, listed.lost
    if _newly_filtered(before, answer, lost=bool(lost), held=held.get(Doubt.FILTERED, HOLD)):
        return Doubt.FILTERED, "Consul leaves out what the token may not read; it needs node:read and service:read"
    if not lost and len(found) >= served:
        return None, ""
    if held.get(Doubt.CONTRADICTED, HOLD) < HOLD:
        return Doubt.CONTRADICTED, contradiction
    number = f"{len(found)} of {max(served, len(listed.known))}"
    if held.get(Doubt.RETURNED, SETTLING) < SETTLING:
        return Doubt.RETURNED, f"Consul has just come back, and lists {number} instances"
    unsure = before is None or listed.is_few or answer.streamed or before.doubt is not None
    if unsure and not consistent:
        return Doubt.UNCONFIRMED, f"it lists {number} instances and is not confirmed yet"
    return None, ""


def is_whole(belief: Belief, answer: Answer) -> bool:
    """Tell whether nothing is missing in `answer` that was there when one was last believed."""
    return belief.known <= identities(answer)


def not_confirmed(belief: Belief, why: str) -> Belief:
    """Return `belief`, which is to be confirmed, with the words for that nobody did."""
    listed, known = len(identities(belief.answer)), max(belief.served, len(belief.known))
    text = f"it lists {listed} of {known} instances, and no leader confirms it ({why})"
    return attrs.evolve(belief, answer=attrs.evolve(belief.answer, doubt=text))


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
        return held < HOLD
    return lost


def _contradiction(before: Belief | None, answer: Answer, listed: _Listed, *, refused: bool, served: int) -> str:
    """Return how an answer that lacks instances does not fit what Consul said before; empty when it may be true.

    It is compared with the last answer that was believed until it contradicts that, and with the last one in any case:
    a Consul may lose its data twice. No other doubt hides it: what a server without a leader has lost stays lost.
    """
    found = listed.found
    if before is None:
        return f"it lists {len(found)} of the {served} or more instances that served before the start" if served else ""
    if not listed.lost:
        return ""
    last = identities(before.answer)
    told = answer.filtered and not before.filtered  # that a permission is lost, which it says as long as it is so
    if Doubt.CONTRADICTED not in before.begun:
        if refused and not told and listed.is_few:
            return "Consul refused the token, and now lists far fewer instances"
        if text := _misfit(before.index, answer, told=told):
            return text
    return _misfit(before.answer.index, answer, told=told) if last - found else ""


def _misfit(index: int, answer: Answer, *, told: bool) -> str:
    """Return how an answer that lacks instances does not fit one at `index` that had them; empty when it may.

    `told`: it says itself that a permission is lost, which moves no index.
    """
    if answer.index == 0:
        return "instances went, and Consul's answer has no usable index"
    if answer.index < index:
        return f"Consul's index went back from {index} to {answer.index}, as after a loss of data"
    if answer.index == index and not told:
        return f"instances went although Consul's index stayed at {index}, as when a token loses a permission"
    return ""


def identities(answer: Answer) -> frozenset[Identity]:
    """Return the instances that `answer` lists, those that cannot be read too."""
    return frozenset(each.identity for each in answer.instances) | {
        (each.node, each.instance_id) for each in answer.malformed
    }

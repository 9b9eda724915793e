"""What `lvsctl diff` shows: the kernel against what is wanted, each line with its cause.

Pure. A line is a *difference* when the kernel is not, or does not stay, as Consul and the configuration want it: a
step to be taken, a real server that drains, one that is held. Lines about instances that were rejected explain an
absence and are *notes*: the kernel is as wanted.
"""

import enum
from collections.abc import Iterable, Iterator, Sequence

import attrs

from lvsctl.config import VirtualServerConfig
from lvsctl.core.addresses import AddressMoves
from lvsctl.core.admission import Rejected
from lvsctl.core.candidates import Refusal
from lvsctl.core.cause import Cause, Kind, cause_of_absence, cause_of_disappearance, changes, name_of
from lvsctl.core.decision import Decision, Step, VirtualServerDecision
from lvsctl.core.drain import Draining
from lvsctl.core.ownership import Owner
from lvsctl.core.ramp import percent_of
from lvsctl.core.words import real_server_words, virtual_server_words
from netlink.requests import (
    AddRealServer,
    AddVirtualServer,
    DeleteRealServer,
    DeleteVirtualServer,
    SetRealServer,
    SetVirtualServer,
)


class Sign(enum.Enum):
    """What kind of line it is; the value is the mark in front of it."""

    ADD = "+"
    CHANGE = "~"
    REMOVE = "-"
    NOTE = "!"


@attrs.frozen(kw_only=True)
class Line:
    """One line of a diff."""

    sign: Sign
    name: str  # of the virtual server in the configuration
    virtual_server: str  # its key in words
    real_server: str | None  # None: the virtual server itself; the instance's name where it has no address
    what: str  # `weight 1 -> 5`, `masquerade, weight 1`
    cause: Cause
    differs: bool = True


def difference(
    decision: Decision, moves: AddressMoves | None = None, refusals: Iterable[Refusal] = ()
) -> Sequence[Line]:
    """Return all lines, virtual server by virtual server, then those of the virtual addresses that are to move.

    Last come the declarations of Consul services that were refused.
    """
    ordered = sorted(decision.virtual_servers.values(), key=lambda each: (each.name, each.key))
    lines = [line for each in ordered for line in _lines(each)]
    lines += address_lines(moves) if moves else ()
    return [*lines, *(_refusal_line(each) for each in refusals)]


def _refusal_line(refusal: Refusal) -> Line:
    kept = f"; {refusal.kept} goes on as it was" if refusal.kept else ""
    return Line(
        sign=Sign.NOTE,
        name=refusal.name,
        virtual_server="declared",
        real_server=None,
        what="declaration refused",
        cause=Cause(kind=Kind.REJECTED, text=f"Consul service {refusal.service!r}: {refusal.text}{kept}"),
        differs=False,
    )


def unknown_line(config: VirtualServerConfig, why: str) -> Line:
    """Return the line for a virtual server for which Consul does not answer."""
    return Line(
        sign=Sign.NOTE,
        name=config.name,
        virtual_server=str(config.key),
        real_server=None,
        what="unknown",
        cause=Cause(kind=Kind.UNKNOWN, text=why),
        differs=False,
    )


def line_of(step: Step, decision: VirtualServerDecision) -> Line:
    """Return the line for one step."""
    sign, real_server, what = _describe(step, decision)
    return Line(
        sign=sign,
        name=step.name,
        virtual_server=str(step.key),
        real_server=real_server,
        what=what,
        cause=step.cause,
    )


def _lines(each: VirtualServerDecision) -> Iterator[Line]:
    if each.owner is Owner.FOREIGN:
        yield _foreign_line(each)
        return
    for step in each.steps:
        yield line_of(step, each)
    planned = {step.request.real_server.key for step in each.steps if isinstance(step.request, SetRealServer)}
    for key, state in sorted(each.draining.items(), key=lambda pair: pair[0]):
        if key not in planned:
            yield _note(each, Sign.REMOVE, str(key), _draining(state), each.leaving_causes[key], differs=True)
    yield from _ramping_lines(each)
    for key, real_server in sorted(each.held.items(), key=lambda pair: pair[0]):
        member = each.wanted.by_key.get(key) if each.wanted else None
        why = (cause_of_absence(member) if member else cause_of_disappearance(each.why_gone(key))).text
        cause = Cause(kind=Kind.HELD, text=f"held, for {each.hold.why}: {why}")
        yield _note(each, Sign.REMOVE, str(key), f"stays with weight {real_server.weight}", cause, differs=True)
    for member in each.wanted.members if each.wanted else ():
        if isinstance(member.verdict, Rejected):
            if member.key is not None:
                yield _note(each, Sign.NOTE, str(member.key), "rejected", cause_of_absence(member), differs=False)
            else:
                cause = Cause(kind=Kind.REJECTED, text=member.verdict.text)
                yield _note(each, Sign.NOTE, name_of(member), "rejected", cause, differs=False)


def _ramping_lines(each: VirtualServerDecision) -> Iterator[Line]:
    """Yield a line for each real server with a slow start of which no step is due."""
    due = [
        step.request.real_server.key for step in each.steps if isinstance(step.request, AddRealServer | SetRealServer)
    ]
    for key, ramp in each.ramps.of.items():
        if key not in due:
            cause = Cause(kind=Kind.SLOW_START, text="slow start: its weight is not yet what it is to be")
            what = f"ramping: {percent_of(ramp)}% of weight {ramp.weight}"
            yield _note(each, Sign.CHANGE, str(key), what, cause, differs=True)


def address_lines(moves: AddressMoves) -> Iterator[Line]:
    """Yield a line for each virtual address that has to come or go."""
    changes_of = (
        (Sign.ADD, moves.missing, "a virtual server needs it"),
        (Sign.REMOVE, moves.superfluous, "no virtual server needs it"),
    )
    for sign, addresses, why in changes_of:
        for address in sorted(addresses, key=lambda address: (address.version, int(address))):
            yield Line(
                sign=sign,
                name=moves.interface,
                virtual_server="virtual addresses",
                real_server=str(address),
                what="virtual address",
                cause=Cause(kind=Kind.CONFIGURATION, text=why),
            )


def _note(
    each: VirtualServerDecision, sign: Sign, real_server: str | None, what: str, cause: Cause, *, differs: bool
) -> Line:
    return Line(
        sign=sign,
        name=each.name,
        virtual_server=str(each.key),
        real_server=real_server,
        what=what,
        cause=cause,
        differs=differs,
    )


def _foreign_line(each: VirtualServerDecision) -> Line:
    return _note(each, Sign.NOTE, None, "left alone", Cause(kind=Kind.REJECTED, text=why_foreign(each)), differs=True)


def why_foreign(each: VirtualServerDecision) -> str:
    """Return why a virtual server that is foreign is left alone, and what an operator can do about it."""
    if each.disowned:
        return f"disowned: lvsctl neither changes nor deletes it; lvsctl adopt {each.name} takes it back"
    return f"a foreign virtual server holds this address and differs from what is wanted; {remedy_of_foreign(each)}"


def remedy_of_foreign(each: VirtualServerDecision) -> str:
    """Return what an operator can do about a foreign virtual server that is in the way."""
    declaration = each.declaration
    out = f"take {each.name!r} out of the configuration"
    if declaration is not None:
        out = f"name Consul service {declaration.service!r} in discovery.exclude"
    return f"take it over as it stands (lvsctl adopt {each.name}), delete it ({ipvsadm_delete(each)}), or {out}"


def ipvsadm_delete(each: VirtualServerDecision) -> str:
    """Return the command that deletes the virtual server by hand."""
    if each.key.protocol is None:
        return f"ipvsadm -D -f {each.key.mark}" + (" -6" if each.key.family == 10 else "")
    flag = {"TCP": "-t", "UDP": "-u", "SCTP": "--sctp-service"}[each.key.protocol.name]
    return f"ipvsadm -D {flag} {str(each.key).split(' ', 1)[1]}"


def _draining(state: Draining) -> str:
    return f"draining: {state.active} active, {state.closing} closing"


def _describe(step: Step, each: VirtualServerDecision) -> tuple[Sign, str | None, str]:
    there = each.observed.real_servers if each.observed else {}
    match step.request:
        case AddVirtualServer(virtual_server=virtual_server):
            return Sign.ADD, None, virtual_server_words(virtual_server)
        case SetVirtualServer(virtual_server=virtual_server) if each.observed:
            return Sign.CHANGE, None, ", ".join(changes(each.observed.virtual_server, virtual_server))
        case SetVirtualServer(virtual_server=virtual_server):
            return Sign.CHANGE, None, virtual_server_words(virtual_server)
        case DeleteVirtualServer():
            return Sign.REMOVE, None, "the virtual server and what is left of it"
        case AddRealServer(real_server=real_server):
            return Sign.ADD, str(real_server.key), real_server_words(real_server)
        case SetRealServer(real_server=real_server):
            what = ", ".join(changes(there[real_server.key], real_server))
            return (Sign.REMOVE if real_server.key in each.leaving else Sign.CHANGE), str(real_server.key), what
        case DeleteRealServer(key=key):
            return Sign.REMOVE, str(key), real_server_words(there[key])

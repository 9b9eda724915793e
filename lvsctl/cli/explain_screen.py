"""What `lvsctl explain` answers, line by line.

Pure, but for the time zone. What is said comes from a `Status`, the daemon's or one made afresh, and from the journal:
nothing is decided here.
"""

import re
import shlex
import time
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from lvsctl.cli.columns import clock, columns, count, span
from lvsctl.core.event import Event
from lvsctl.core.event_words import sentence
from lvsctl.core.status import Place, RealServerStatus, State, Status, VirtualServerStatus
from lvsctl.core.subject import Subject
from lvsctl.text import visible

LATELY: Final = 10  # events of each
DELETED: Final = "virtual_server_deleted"
HELD: Final = frozenset({"hold", "released", "probed"})  # events that list real servers
NOT_ASKED: Final = frozenset({State.WAITING, State.FOREIGN, State.LEAVING})  # of these it is not known what Consul has
MANY: Final = 20  # real servers out of the table that are listed of a virtual server


def answer(status: Status, subject: Subject, events: Sequence[Event], *, heard: bool = True) -> list[str]:
    """Return all that is known of `subject`; nothing where nothing is.

    A virtual server's name counts before an instance's id, which is often the same word. Where Consul was not `heard`
    nothing is said about what it has.
    """
    rows = [row for row in status.virtual_servers if subject.is_virtual_server(row.name, row.address)]
    named = any(row.name == subject.text for row in rows)
    parts = [_virtual_server(row, status, events) for row in rows]
    parts += [_foreign(key) for key in status.foreign if subject.is_virtual_server("", key)]
    for row in status.virtual_servers if not named else ():
        its = [each for each in row.real_servers if subject.is_real_server(each.real_server, each.instance, each.node)]
        parts += [_real_server(each, row, status, events, subject) for each in its]
    if not parts:
        parts = list(_nameless(subject, status, events))
    if not parts:
        parts = list(_gone(subject, status, events, heard=heard))
    return [line for number, part in enumerate(parts) for line in ([""] if number else []) + part]


def _virtual_server(row: VirtualServerStatus, status: Status, events: Sequence[Event]) -> list[str]:
    of = f", Consul service {row.consul_service}" if row.consul_service else ""
    lines = [f"{row.name or 'no name'} ({row.address}{of}) is {_state(row)}: {row.serving} of {row.wanted} serve."]
    if row.note:
        lines.append(f"  {_capital(row.note)}.")
    if row.doubt:
        lines.append(f"  Consul's answer is in doubt, so what is gone from it stays: {row.doubt}.")
    if row.failed_over:
        lines.append(f"  The instances of datacenter {row.datacenter!r} serve.")
    lines += _consul(status, row)
    lines += _kernel(status)
    for each in row.overrides:
        until = "until it is cleared" if each.until is None else f"until {clock(each.until, status.time)}"
        by = f" of {each.by}" if each.by else ""
        why_not = f": {each.why_not}" if each.why_not else ""
        lines.append(
            f"  Override {each.selector} {each.share}{by} {until}: {count(each.matching, 'instance')}{why_not}."
        )
    out = [each for each in row.real_servers if each.place is not Place.SERVING]
    if out:
        shown = [[f"    {each.real_server or each.instance}", each.place.value, each.why] for each in out[:MANY]]
        lines += ["  Not in full service:", *columns(shown)]
        if len(out) > MANY:
            lines.append(f"    and {len(out) - MANY} more; lvsctl status {row.name} shows them")
    its = [event for event in events if _is_of(event, row)]
    return [*map(visible, lines), *_lately(its, status.time, row.name or row.address)]


def _state(row: VirtualServerStatus) -> str:
    return "all right" if row.state is State.OK else row.state.value


def _consul(status: Status, row: VirtualServerStatus) -> Iterator[str]:
    """Yield how it stands with Consul, where that may be why nothing changes."""
    consul = status.consul
    if consul is not None and consul.failing:
        since = f" for {span(status.time - consul.failing_since)}" if consul.failing_since else ""
        heard = f", was last heard about it {span(row.data_age)} ago" if row.data_age is not None else ""
        whom = "Consul" if not consul.reachable else f"{count(consul.failing, 'query')} of Consul"
        yield f"  {whom} does not answer{since}{heard}: what is in the table stays ({consul.error})."


def _kernel(status: Status) -> Iterator[str]:
    """Yield why the daemon cannot change the kernel, where it cannot; without one the answer begins with that."""
    if status.consul is not None and status.kernel.error:
        yield f"  lvsctl cannot do all that it should: {status.kernel.error}."


def _foreign(key: str) -> list[str]:
    return [visible(f"{key} is a virtual server that lvsctl did not create: foreign, never touched.")]


def _real_server(
    each: RealServerStatus, row: VirtualServerStatus, status: Status, events: Sequence[Event], subject: Subject
) -> list[str]:
    where = f"{row.name or row.address} ({row.address})" if row.name else row.address
    who = each.real_server or f"instance {each.instance!r}"
    lines = [f"{who} {_stands(each, where)}."]
    if each.place is Place.DRAINING and each.weight and row.state is State.REFUSED:
        lines.append("  It stays as it is until the kernel takes who should replace it.")
    elif each.place is Place.DRAINING:
        end = f", at {_clock(each.until)} at the latest" if each.until is not None else ""
        lines.append(
            f"  It is deleted when its connections are gone{end}: {each.active} active, {each.inactive} closing."
        )
    if each.slow_start is not None:
        ramp = each.slow_start
        lines.append(
            f"  It has its slow start: {ramp.percent}% of weight {ramp.weight} now, all of it at {_clock(ramp.until)}."
        )
    if each.why:
        lines.append(f"  {_reason(each)}: {each.why}.")
    if each.place is Place.HELD and row.note:
        lines.append(f"  Until when: {row.note}.")
    if row.state in (State.WAITING, State.FOREIGN):
        lines.append(f"  Of {row.name}: {row.note}.")
    if each.instance and not each.check:
        lines.append(f"  It was instance {each.instance!r} on node {each.node!r}.")
    elif each.instance:
        at = f" in datacenter {each.datacenter!r}" if each.datacenter else ""
        lines.append(f"  In Consul it is instance {each.instance!r} on node {each.node!r}{at}, {each.check}.")
    if not each.check and status.consul is not None and row.state not in NOT_ASKED:
        lines.append(f"  Consul service {row.consul_service} has no instance there.")
    lines += _consul(status, row)
    lines += _kernel(status)
    its = [event for event in events if _is_of(event, row) and _is_about(event, each, subject)]
    return [*map(visible, lines), *_lately(its, status.time, each.real_server or each.instance)]


def _stands(each: RealServerStatus, where: str) -> str:
    words = {
        Place.SERVING: f"is in {where} and serves, with weight {each.weight}",
        Place.QUIESCED: f"is in {where} with weight 0, so it gets no new connections",
        Place.DRAINING: f"is on its way out of {where}, with weight {each.weight}",
        Place.HELD: f"is held in {where}, with weight {each.weight}, although it is wanted out",
        Place.FALLBACK: f"is in {where} as its fallback and serves, for nothing else does",
        Place.PENDING: f"is wanted in {where} and not in the kernel",
        Place.OUT: f"is not meant for {where}" if each.filtered else f"is out of {where}",
        Place.REJECTED: f"is rejected, so it is not in {where}",
    }
    return words[each.place]


def _reason(each: RealServerStatus) -> str:
    return "Why" if each.place not in (Place.SERVING, Place.QUIESCED) else "Why this weight"


def _nameless(subject: Subject, status: Status, events: Sequence[Event]) -> Iterator[list[str]]:
    """Yield what is known of real servers in the table of which the journal alone knows that they were `subject`."""
    last = {
        (event.virtual_server, event.real_server): event.evidence
        for event in events
        if event.real_server and event.evidence and event.evidence.instance
    }
    for row in status.virtual_servers:
        for each in row.real_servers:
            known = last.get((row.address, each.real_server))
            if known is not None and not each.instance and subject.is_whose(known.instance, known.node):
                yield _real_server(each, row, status, events, subject)


def _gone(subject: Subject, status: Status, events: Sequence[Event], *, heard: bool) -> Iterator[list[str]]:
    """Yield what the journal alone knows: of what is in no table and in none of Consul's answers any more."""
    its = [event for event in events if subject.is_of(event)]
    places = {(event.virtual_server, event.real_server) for event in its if event.real_server}
    own = [event for event in events if subject.is_of(event) or _is_among(event, places, subject)]
    if own:
        if any(subject.is_virtual_server(event.name, event.virtual_server) for event in its if event.virtual_server):
            told = "is no virtual server now"
        else:
            told = "is in no virtual server, and " + (
                "no answer of Consul has it" if heard else "whether Consul has it is not known"
            )
        told = f"{subject.text} {told}. The journal knows it."
        yield [visible(told), *_lately(own, status.time, subject.text)]


def _is_of(event: Event, row: VirtualServerStatus) -> bool:
    if event.address:
        return row.address.partition(" ")[2].rpartition(":")[0].strip("[]") == event.address
    return event.virtual_server == row.address if event.virtual_server else bool(row.name) and event.name == row.name


def _is_among(event: Event, places: AbstractSet[tuple[str, str]], subject: Subject) -> bool:
    """Tell whether `event` is about real servers at `places`, which were those of `subject`, and about nobody else."""
    if event.event == DELETED:
        return event.virtual_server in {virtual_server for virtual_server, _ in places}
    others = event.evidence is not None and bool(event.evidence.instance) and not subject.is_of(event)
    return not others and (event.virtual_server, event.real_server) in places


def _is_about(event: Event, each: RealServerStatus, subject: Subject) -> bool:
    """Tell whether `event` is about this real server; where it has no place or was not asked about, its instance."""
    evidence = event.evidence
    same = evidence is not None and (evidence.instance, evidence.node) == (each.instance, each.node)
    if same and (not each.real_server or subject.is_whose(each.instance, each.node)):
        return True
    if not each.real_server:
        return False
    if event.event == DELETED:
        return True  # and its real servers with it
    listed = each.real_server in re.split("[ ,;]+", event.what) and HELD & {event.event, event.of}
    return event.real_server == each.real_server or bool(listed)


def _lately(events: Sequence[Event], now: float, name: str) -> list[str]:
    if not events:
        return ["  The journal has nothing about it."]
    shown = [[f"    {_stamp(event.time, now)}", f"{sentence(event)}."] for event in events[-LATELY:]]
    more = len(events) - LATELY
    command = f"lvsctl events {shlex.quote(name)}"
    head = visible(f"  Lately ({count(more, 'more event')} before: {command}):") if more > 0 else "  Lately:"
    return [head, *columns(shown)]


def _stamp(moment: float, now: float) -> str:
    same = time.localtime(moment)[:3] == time.localtime(now)[:3]
    return _clock(moment) if same else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def _clock(moment: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(moment))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]

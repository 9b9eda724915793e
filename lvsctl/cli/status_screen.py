"""The screen of `lvsctl status`, line by line.

Pure, but for the time zone. What it shows is a `Status`, from the daemon or from the kernel alone.
"""

import time
from collections.abc import Sequence
from typing import Final

from lvsctl.cli.columns import clock, columns, count, span
from lvsctl.core.restoration import OLD
from lvsctl.core.status import State, Status, VirtualServerStatus
from lvsctl.text import visible

NOTHING: Final = "-"


def render(status: Status, *, with_real_servers: bool = False, wide: bool = False) -> list[str]:
    """Return the screen, line by line; `wide` adds the foreign virtual servers."""
    rows = status.virtual_servers
    lines = [*_header(status, wide=wide), "", *_virtual_servers(rows, with_names=status.consul is not None)]
    for row in rows if with_real_servers else ():
        heading = [visible(f"{row.name}  {row.address}")] if len(rows) > 1 else []
        lines += ["", *heading, *_real_servers(row)]
        lines += _overrides(row, status.time)
    if status.refused_declarations:
        lines += ["", "refused declarations:", *_refused_declarations(status)]
    if status.foreign and wide:
        lines += ["", "foreign, never touched:", *(f"  {key}" for key in status.foreign)]
    return lines


def _header(status: Status, *, wide: bool) -> list[str]:
    up = f", up {span(status.time - status.started)}" if status.started else ""
    rows = [["lvsctl", f"{status.version} on {status.host}, {status.role}{up}"]]
    if status.consul is None:
        rows.append(["", f"{status.kernel.error}; this is the kernel's own table"])
        if status.config_error:
            rows.append(["config", f"cannot be read: {status.config_error.splitlines()[0]}"])
    else:
        rows.append(["consul", _consul_words(status)])
        if status.consul.transport_remedy:
            rows.append(["", f"{status.consul.transport_why}; {status.consul.transport_remedy}"])
        elif wide and status.consul.transport_why:
            rows.append(["", f"{status.consul.transport}: {status.consul.transport_why}"])
        rows += _override_lines(status, wide=wide)
        rows.append(["kernel", _kernel_words(status)])
        foreign = f"{count(len(status.foreign), 'virtual server')}, never touched" if status.foreign else "none"
        rows.append(["foreign", foreign])
    if status.config_error and status.consul is not None:
        first = status.config_error.splitlines()
        more = f" (and {len(first) - 1} more; lvsctl check shows them)" if len(first) > 1 else ""
        rows.append(["config", f"the last reload was refused, the old one is kept: {first[0]}{more}"])
    return columns(rows)


def _consul_words(status: Status) -> str:
    consul = status.consul
    assert consul is not None  # noqa: S101  # a daemon always says
    age = "not everything answered yet" if consul.data_age is None else f"data {span(consul.data_age)} old"
    if consul.snapshot_age is not None:
        old = ", which is OLD" if consul.snapshot_age > OLD else ""
        age += f", what is empty is filled from the snapshot of {span(consul.snapshot_age)} ago{old}"
    if not consul.failing:
        over = f" over {consul.transport}" if consul.transport else ""
        return f"reachable at {consul.address}{over}, {age}"
    since = f"for {span(status.time - consul.failing_since)}" if consul.failing_since else ""
    what = "unreachable" if not consul.reachable else f"{count(consul.failing, 'Consul service')} failing"
    return f"{what} {since}, {age}, the table is kept: {consul.error}"


def _kernel_words(status: Status) -> str:
    kernel = status.kernel
    if kernel.error:
        return f"cannot be reconciled: {kernel.error}"
    if kernel.pending:
        return f"{count(kernel.pending, 'change')} to make"
    if kernel.in_sync_since is None:
        return "not reconciled yet"
    clock = time.strftime("%H:%M:%S", time.localtime(kernel.in_sync_since))
    apart = sum(
        row.state in (State.HELD, State.FALLBACK, State.FOREIGN, State.WAITING) for row in status.virtual_servers
    )
    but = f", but for {count(apart, 'virtual server')} (see STATE)" if apart else ""
    return f"in sync since {clock} ({span(status.time - kernel.in_sync_since)}){but}"


def _virtual_servers(rows: Sequence[VirtualServerStatus], *, with_names: bool) -> list[str]:
    if not rows:
        return ["no virtual servers"]
    head = [
        "NAME",
        "CONSUL SERVICE",
        "ADDRESS",
        "SCHEDULER",
        "FORWARDING",
        "SERVING",
        "STATE",
        "ACTIVE",
        "INACTIVE",
        "CONN/S",
        "",
    ]
    cells = [
        [
            row.name or NOTHING,
            row.consul_service or NOTHING,
            row.address,
            row.scheduler or NOTHING,
            row.forwarding or NOTHING,
            f"{row.serving}/{row.wanted}",
            row.state.value,
            str(row.active),
            str(row.inactive),
            str(row.rate),
            row.note,
        ]
        for row in rows
    ]
    table = [head, *cells]
    if not with_names:
        table = [[*line[:1], *line[2:]] for line in table]
    numbers = {head.index(title) - (not with_names) for title in ("SERVING", "ACTIVE", "INACTIVE", "CONN/S")}
    return columns(table, right=frozenset(numbers))


def _real_servers(row: VirtualServerStatus) -> list[str]:
    if not row.real_servers:
        return ["  no real servers"]
    head = ["  REAL SERVER", "NODE", "INSTANCE", "CHECK", "STATE", "WEIGHT", "ACTIVE", "INACTIVE", "CONN/S", "WHY"]
    several = len({each.datacenter for each in row.real_servers} | {row.datacenter}) > 1
    cells = [
        [
            f"  {each.real_server or NOTHING}",
            each.node or NOTHING,
            each.instance or NOTHING,
            each.check or NOTHING,
            each.place.value,
            NOTHING if each.weight is None else str(each.weight),
            str(each.active),
            str(each.inactive),
            str(each.rate),
            each.why,
        ]
        for each in row.real_servers
    ]
    if several:
        datacenters = [
            "DATACENTER",
            *((each.datacenter or "own") if each.instance else NOTHING for each in row.real_servers),
        ]
        table = [[*line[:1], name, *line[1:]] for name, line in zip(datacenters, [head, *cells], strict=True)]
        return columns(table, right=frozenset({6, 7, 8, 9}))
    return columns([head, *cells], right=frozenset({5, 6, 7, 8}))


def _overrides(row: VirtualServerStatus, now: float) -> list[str]:
    """Return the overrides of a virtual server: who, until when, and what they do."""
    if not row.overrides:
        return []
    head = ["  OVERRIDE", "SHARE", "UNTIL", "BY", "INSTANCES", "WEIGHT", "REASON"]
    cells = [
        [
            f"  {each.selector}",
            each.share,
            "cleared" if each.until is None else f"{clock(each.until, now)} ({span(each.until - now)})",
            each.by or NOTHING,
            str(each.matching),
            str(each.smallest) if each.smallest == each.largest else f"{each.smallest} to {each.largest}",
            "; ".join(filter(None, (each.why_not, each.reason))),
        ]
        for each in row.overrides
    ]
    return ["", *columns([head, *cells], right=frozenset({1, 4, 5}))]


def _override_lines(status: Status, *, wide: bool) -> list[list[str]]:
    """Return what the head says of overrides: that they cannot be read, and what is none; `wide` says all."""
    overrides = status.overrides
    if overrides is None:
        return []
    lines = []
    if overrides.error:
        age = "as last known" if overrides.data_age is None else f"as of {span(overrides.data_age)} ago"
        lines.append(f"{age}, for they cannot be read: {overrides.error}")
    elif overrides.ignored:
        lines.append(f"{count(len(overrides.ignored), 'key')} below {overrides.kv_prefix}/weights/ not used")
    elif wide:
        lines.append(f"of {overrides.kv_prefix}/weights/")
    shown = overrides.ignored.items() if wide else list(overrides.ignored.items())[:1]
    lines += [f"{key}: {why}" for key, why in shown]
    if wide:
        lines += [f"{each} is not in this configuration" for each in overrides.elsewhere]
    return [["" if number else "overrides", line] for number, line in enumerate(lines)]


def _refused_declarations(status: Status) -> list[str]:
    head = ["  CONSUL SERVICE", "KEPT", "WHY"]
    return columns(
        [head, *([f"  {each.consul_service}", each.kept or NOTHING, each.why] for each in status.refused_declarations)]
    )

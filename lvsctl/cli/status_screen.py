"""The screen of `lvsctl status`, line by line.

Pure, but for the time zone. What it shows is a `Status`, from the daemon or from the kernel alone.
"""

import time
from collections.abc import Sequence
from typing import Final

from lvsctl.cli.columns import clock, columns, count, span
from lvsctl.cli.order_rows import order_rows
from lvsctl.core.restoration import OLD
from lvsctl.core.status import RealServerStatus, State, Status, VirtualServerStatus
from lvsctl.text import visible

NOTHING: Final = "-"


def render(status: Status, *, with_real_servers: bool = False, wide: bool = False) -> list[str]:
    """Return the screen, line by line; `wide` adds the foreign virtual servers."""
    rows = status.virtual_servers
    lines = [*_header(status, wide=wide), "", *_virtual_servers(rows, with_names=status.consul is not None)]
    for row in rows if with_real_servers else ():
        heading = [visible(f"{row.name}  {row.address}")] if len(rows) > 1 else []
        lines += ["", *heading, *_real_servers(row, status.time)]
        lines += _overrides(row, status.time)
    if status.orders:
        lines += ["", "orders:", *order_rows(status.orders, status.time, "  ")]
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
        rows += _fleet_lines(status, wide=wide)
        rows += _order_lines(status)
        rows.append(["kernel", _kernel_words(status)])
        foreign = f"{count(len(status.foreign), 'virtual server')}, never touched" if status.foreign else "none"
        rows.append(["foreign", foreign])
        rows += _config_lines(status)
    return columns(rows)


def _config_lines(status: Status) -> list[list[str]]:
    """Return what the head says of the configuration where the file is not what is in use, or not for good."""
    lines = []
    if status.confirm_until is not None:
        left = span(status.confirm_until - status.time)
        ways = "lvsctl reload --keep, or --revert"
        lines.append(f"taken back at {_time(status.confirm_until)} (in {left}) unless it is confirmed: {ways}")
    if status.config_error:
        first = status.config_error.splitlines()
        more = f" (and {len(first) - 1} more; lvsctl check shows them)" if len(first) > 1 else ""
        what = (
            "was rolled back, the one before it is in use" if status.rolled_back else "was refused, the old one is kept"
        )
        lines.append(f"the last reload {what}: {first[0]}{more}")
    return [["" if number else "config", line] for number, line in enumerate(lines)]


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
        waiting = any(each.order == "pause" and each.target == "everything" for each in status.orders)
        return f"{count(kernel.pending, 'change')} to make{', when the pause is over' if waiting else ''}"
    if kernel.in_sync_since is None:
        return "not reconciled yet"
    clock = _time(kernel.in_sync_since)
    apart = sum(
        row.state in (State.HELD, State.FALLBACK, State.FOREIGN, State.WAITING) for row in status.virtual_servers
    )
    but = f", but for {count(apart, 'virtual server')} (see STATE)" if apart else ""
    return f"in sync since {clock} ({span(status.time - kernel.in_sync_since)}){but}"


def _time(moment: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(moment))


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


def _real_servers(row: VirtualServerStatus, now: float) -> list[str]:
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
            "; ".join(filter(None, (ramping_words(each, now), each.why))),
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


def ramping_words(each: RealServerStatus, now: float) -> str:
    """Return `ramping: 40% of weight 10, 12 s left`; empty where its weight is what it is to be."""
    ramp = each.slow_start
    if ramp is None:
        return ""
    return f"ramping: {ramp.percent}% of weight {ramp.weight}, {span(ramp.until - now)} left"


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


def _fleet_lines(status: Status, *, wide: bool) -> list[list[str]]:
    """Return what the head says of the orders for the fleet: that they cannot be read, and what is none."""
    fleet = status.fleet
    if fleet is None:
        return []
    lines = []
    if fleet.error:
        age = "as last known" if fleet.data_age is None else f"as of {span(fleet.data_age)} ago"
        lines.append(f"orders {age}, for they cannot be read: {fleet.error}")
    elif fleet.ignored:
        lines.append(f"{count(len(fleet.ignored), 'key')} below {fleet.kv_prefix}/orders/ not used")
    elif wide:
        lines.append(f"orders of {fleet.kv_prefix}/orders/")
    lines += [f"{key}: {why}" for key, why in list(fleet.ignored.items())[: None if wide else 1]]
    return [["" if number else "fleet", line] for number, line in enumerate(lines)]


def _order_lines(status: Status) -> list[list[str]]:
    """Return what the head says of orders: that nothing is written, and that some do not count."""
    lines = [["orders", status.orders_error]] if status.orders_error else []
    for each in status.orders:
        if each.order == "pause" and each.target == "everything":
            until = f" until {clock(each.until, status.time)}" if each.until is not None else ""
            reason = f": {each.reason}" if each.reason else ""
            resume = "lvsctl resume --fleet" if each.fleet else "lvsctl resume"
            lines.append(["PAUSED", f"by {each.by}{until}, nothing is written; {resume} ends it{reason}"])
    return lines


def _refused_declarations(status: Status) -> list[str]:
    head = ["  CONSUL SERVICE", "KEPT", "WHY"]
    return columns(
        [head, *([f"  {each.consul_service}", each.kept or NOTHING, each.why] for each in status.refused_declarations)]
    )

"""What `--fleet` does: the daemon says what an order means, Consul's KV gets it, and the daemon is seen to obey.

Written with the operator's own token where the environment has one, as `lvsctl weight` does. Imported when it is
called, for it is heavy.
"""

import asyncio
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs
import click

from lvsctl import control
from lvsctl.cli import ordering
from lvsctl.cli.overriding import author
from lvsctl.cli.weight import configured
from lvsctl.config import Config
from lvsctl.consul import fleet_orders as kv
from lvsctl.consul.client import Client
from lvsctl.consul.order_keys import key_of, value
from lvsctl.core.fleet import FleetOrder, FleetOrders
from lvsctl.core.order import MAX_BY, MAX_ORDERS, Wish
from lvsctl.core.order_status import order_status
from lvsctl.core.status import FleetPlan, OrderGiven, OrderStatus, Status
from lvsctl.errors import ConsulError, ConsulRefused, DaemonError
from lvsctl.text import visible

TRIES: Final = 3  # to write where others write at the same time
HEARD: Final = 10.0  # seconds for this director to hear of it
POLL: Final = 0.1
SWEPT: Final = 86400.0  # seconds after its end when a key is removed by who writes another: clocks differ by less


def give(path: Path, wish: Wish, *, empties: str = "") -> tuple[OrderGiven, bool]:
    """Have every director obey an order; return what it does here, and whether this one has heard of it."""
    config, _ = configured(path)
    plan = ordering.asked(path, wish, control.order_fleet, empties=empties)
    order = attrs.evolve(plan.given.order, by=author()[:MAX_BY])
    before = asyncio.run(_write(config, plan, order))
    given = attrs.evolve(plan.given, order=order, replaced=order_status(before.order) if before else None)
    heard = _heard(path, lambda status: any(_is_this(each, order) for each in status.orders))
    return given, heard


def end(path: Path, wish: Wish) -> tuple[OrderGiven, bool]:
    """End an order for the fleet; return what there was, and whether this director has heard of its end."""
    config, _ = configured(path)
    plan = ordering.asked_end(path, wish, functools.partial(control.order_fleet, end=True))
    order = plan.given.order
    asyncio.run(_clear(config, plan))
    heard = _heard(path, lambda status: not any(_is_this(each, order) for each in status.orders))
    return plan.given, heard


def conclusion(*, heard: bool) -> str:
    """Return what to say when it is written: who obeys it."""
    if heard:
        return "every director with this kv_prefix obeys that, and this one does"
    return (
        f"that is in Consul's KV, but this director has not heard of it within {HEARD:g} s: lvsctl status says how it "
        "stands with Consul"
    )


async def _write(config: Config, plan: FleetPlan, order: OrderStatus) -> FleetOrder | None:
    """Have `order` in the KV, and return the one in whose place it is, None where there was none."""
    said = value(by=order.by, reason=order.reason, until=order.until, written=order.written)
    async with Client(config.consul) as client:
        for _ in range(TRIES):
            known = await _read(client, plan)
            before, modified = _at(plan, known)
            if before is None and len(known.entries) >= MAX_ORDERS:
                raise click.UsageError(
                    f"there are {MAX_ORDERS} orders for the fleet, and no more count; end some (lvsctl status)"
                )
            try:
                written = await kv.write(client, plan.prefix, plan.key, said, modified=modified)
            except ConsulError as error:
                raise _unwritten(plan, error) from error
            if written:
                await _sweep(client, plan, known)
                return before
    raise _contested(plan)


async def _clear(config: Config, plan: FleetPlan) -> None:
    """Have the key of `plan` gone from the KV."""
    async with Client(config.consul) as client:
        for _ in range(TRIES):
            _, modified = _at(plan, await _read(client, plan))
            if not modified:
                return  # somebody else ended it
            try:
                if await kv.clear(client, plan.prefix, plan.key, modified=modified):
                    return
            except ConsulError as error:
                raise _unwritten(plan, error) from error
    raise _contested(plan)


async def _read(client: Client, plan: FleetPlan) -> FleetOrders:
    try:
        return await kv.read(client, plan.prefix)
    except ConsulError as error:
        raise ConsulError(f"{visible(plan.key)}: {error}; nothing was changed") from error


def _at(plan: FleetPlan, known: FleetOrders) -> tuple[FleetOrder | None, int]:
    """Return the order at the key of `plan`, and its ModifyIndex, 0 where nothing is there."""
    for each in known.entries:
        if key_of(plan.prefix, each.order.what) == plan.key:
            return each, each.modified
    return None, next((each.modified for each in known.ignored if each.key == plan.key), 0)


async def _sweep(client: Client, plan: FleetPlan, known: FleetOrders) -> None:
    """Remove keys whose time is long over; what fails is for the next one who writes."""
    now = time.time()
    for each in known.entries:
        key, until = key_of(plan.prefix, each.order.what), each.order.until
        if key != plan.key and until is not None and until + SWEPT < now:
            try:
                await kv.clear(client, plan.prefix, key, modified=each.modified)
            except ConsulError:
                return


def _unwritten(plan: FleetPlan, error: ConsulError) -> ConsulError:
    if isinstance(error, ConsulRefused):
        return ConsulError(f"{visible(plan.key)}: {error}; nothing was changed")
    return ConsulError(f"{visible(plan.key)}: {error}; whether it was changed is not known, lvsctl status shows it")


def _contested(plan: FleetPlan) -> ConsulError:
    return ConsulError(
        f"{visible(plan.key)} was changed by somebody else at the same time, {TRIES} times; nothing was changed by "
        "you, look and try again"
    )


def _is_this(each: OrderStatus, order: OrderStatus) -> bool:
    return each.fleet and (each.order, each.target, each.written) == (order.order, order.target, order.written)


def _heard(path: Path, wanted: Callable[[Status], bool]) -> bool:
    """Tell whether the daemon's status becomes as `wanted` in time."""
    socket, ends = ordering.socket_of(path), time.monotonic() + HEARD
    while True:
        try:
            if wanted(control.ask(socket)):
                return True
        except DaemonError:
            pass  # it is restarted, or busy
        if time.monotonic() >= ends:
            return False
        time.sleep(POLL)

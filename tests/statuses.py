"""A whole status as a daemon sends it, for the screen and for the socket."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from lvsctl.control import serving
from lvsctl.core.order import Wish
from lvsctl.core.reload import Order, Reloaded
from lvsctl.core.status import (
    ConsulStatus,
    KernelStatus,
    Moved,
    OrderGiven,
    Place,
    RealServerStatus,
    Released,
    State,
    Status,
    VirtualServerStatus,
)
from lvsctl.core.subject import Subject
from lvsctl.errors import DaemonError, OrderRefused

TIME = 1_700_000_000.0


def real_server(number: int, place: Place = Place.SERVING, why: str = "", check: str = "passing") -> RealServerStatus:
    """Return one row; the numbers tell the rows apart."""
    return RealServerStatus(
        real_server=f"10.0.0.{number}:8080",
        node=f"app{number}",
        instance=f"reco-{number}",
        check=check,
        place=place,
        weight=0 if place is Place.DRAINING else 1,
        active=10 * number,
        inactive=number,
        rate=number,
        why=why,
    )


RECO = VirtualServerStatus(
    name="reco",
    consul_service="reco",
    address="tcp 10.9.0.100:80",
    scheduler="wlc",
    forwarding="masquerade",
    serving=2,
    wanted=2,
    state=State.OK,
    note="",
    active=30,
    inactive=3,
    rate=3,
    real_servers=(real_server(1), real_server(2)),
)
SHOP = VirtualServerStatus(
    name="shop",
    consul_service="shop-v2",
    address="tcp [fd00:9::1]:443",
    scheduler="sh flag-1",
    forwarding="direct-route",
    serving=1,
    wanted=2,
    state=State.DEGRADED,
    note="",
    active=1200,
    inactive=340,
    rate=56,
    real_servers=(
        real_server(3),
        real_server(4, Place.DRAINING, "check 'HTTP' is critical: \x1b[31mno\x1b[0m\r\nanswer", "critical"),
    ),
)
CONSUL = ConsulStatus(
    address="http://127.0.0.1:8500",
    reachable=True,
    data_age=2.4,
    transport="HTTP/1.1",
    transport_why="2 fit into the 90 that the agent's limit of 200 connections leaves us",
)
FULL = Status(
    version="0.1.0",
    host="director1",
    role="active",
    time=TIME,
    started=TIME - 7500,
    config="/etc/lvsctl/lvsctl.toml",
    config_error="",
    consul=CONSUL,
    kernel=KernelStatus(in_sync_since=TIME - 192, pending=0),
    foreign=("tcp 192.0.2.1:22", "mark 9"),
    virtual_servers=(RECO, SHOP),
)


@attrs.define
class Told:
    """What is asked over the control socket instead of a daemon."""

    its: Status | None = None  # None: it is in trouble
    releases: dict[str, Released] = attrs.field(factory=dict)
    moves: dict[str, Moved] = attrs.field(factory=dict)
    moves_by_force: bool = False
    asked: list[tuple[str, str]] = attrs.field(factory=list)  # what was to be released or moved, and by whom
    given: OrderGiven | None = None  # None: every order is refused
    wishes: list[tuple[Wish, str, bool]] = attrs.field(factory=list)  # each with whose it is, and whether it ends one
    about: list[str] = attrs.field(factory=list)  # what each status was asked about
    outcomes: list[Reloaded] = attrs.field(factory=list)  # of the orders about the configuration, one after the other
    orders: list[Order] = attrs.field(factory=list)

    async def status(self, about: Subject | None = None) -> Status:
        """Return what it was made with."""
        self.about.append(about.text if about else "")
        if self.its is None:
            raise RuntimeError
        return self.its

    async def release(self, name: str, by: str) -> Released:
        """Return what it was made with."""
        self.asked.append((name, by))
        if name not in self.releases:
            raise DaemonError(f"no virtual server '{name}'")
        return self.releases[name]

    async def order(self, wish: Wish, by: str, *, end: bool) -> OrderGiven:
        """Return what it was made with."""
        self.wishes.append((wish, by, end))
        if self.given is None:
            raise OrderRefused("no such target", unknown=True)
        return self.given

    async def move(self, name: str, *, adopt: bool, by: str, force: bool) -> Moved:
        """Return what it was made with; refuse where it takes `force`."""
        self.asked.append((f"{'adopt' if adopt else 'disown'} {name}", by))
        if self.moves_by_force and not force:
            raise OrderRefused("it would take away 3 of 4 real servers", empties=True)
        if name not in self.moves:
            raise DaemonError(f"no virtual server '{name}'")
        return self.moves[name]

    async def reload(self, order: Order, by: str) -> Reloaded:
        """Return the next of what it was made with."""
        del by
        self.orders.append(order)
        if not self.outcomes:
            raise DaemonError("nothing is to be confirmed")
        return self.outcomes.pop(0)


@contextmanager
def daemon(directory: Path, status: Status = FULL, told: Told | None = None) -> Iterator[Path]:
    """Serve `status`, or what is `told`, from another thread; give the configuration file that names the socket."""
    socket, ready, loop = directory / "control.sock", threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with serving(socket, told or Told(status)):
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert ready.wait(10)
        file = directory / "lvsctl.toml"
        file.write_text(f'[daemon]\ncontrol_socket = "{socket}"\n[virtual_server.reco]\naddress = "10.9.0.100:80"\n')
        yield file
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()

"""How far a drain is, by one status of the daemon after another: what `lvsctl drain --wait` waits for.

Pure. A status tells what an order is about by what Consul says now. Who waits has to know more: what it was about and
is in the table yet, although Consul has no instance of it any more, the file has no such virtual server, an operator
has disowned it, or a daemon that has just started has not heard of Consul. None of that makes it out.
"""

from collections.abc import Iterator
from typing import Final

import attrs

from lvsctl.core.status import OrderedRealServer, OrderStatus, Place, State, Status, VirtualServerStatus

UNHEARD: Final = "Consul has not answered for it since lvsctl was started"


def as_it_stands(order: OrderStatus, status: Status, before: OrderStatus) -> OrderStatus:
    """Return `order`, which is one of `status`, with what is in the table yet of what it was about `before`."""
    known = {_place_of(each) for each in order.real_servers}
    lost = [each for each in before.real_servers if each.place is not Place.OUT and _place_of(each) not in known]
    return attrs.evolve(
        order, real_servers=(*order.real_servers, *(row for each in lost for row in _now(each, status)))
    )


def is_unheard(order: OrderStatus, status: Status) -> bool:
    """Tell whether it cannot be known yet how far `order` is: Consul has not answered for what it is about.

    Of one that is about nothing as far as anybody knows, that is so while any virtual server waits for Consul.
    """
    waiting = {each.name for each in status.virtual_servers if each.state is State.WAITING}
    about = {each.virtual_server for each in order.real_servers if each.place is not Place.OUT}
    return bool(about & waiting) or (not order.real_servers and bool(waiting))


def _place_of(each: OrderedRealServer) -> tuple[str, str]:
    return each.virtual_server, each.real_server


def _now(each: OrderedRealServer, status: Status) -> Iterator[OrderedRealServer]:
    """Yield `each` as it stands in the table by `status`; nothing where it is not there."""
    for virtual_server in status.virtual_servers:
        if virtual_server.name != each.virtual_server:
            continue
        for row in virtual_server.real_servers:
            if row.real_server == each.real_server and row.weight is not None:
                why = _why(virtual_server) or row.why
                yield attrs.evolve(
                    each, place=row.place, active=row.active, inactive=row.inactive, until=row.until, why=why
                )


def _why(virtual_server: VirtualServerStatus) -> str:
    """Return why what was drained in it does not leave it now; empty where it does."""
    match virtual_server.state:
        case State.WAITING:
            return UNHEARD
        case State.FOREIGN:
            return f"{virtual_server.name} is foreign, so lvsctl does not touch it"
        case _:
            return ""

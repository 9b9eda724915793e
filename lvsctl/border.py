"""Operators' words on whose a virtual server is: from the control socket to the next cycle, and its outcome back.

Does no I/O. `adopt` takes a foreign virtual server over as it stands, `disown` leaves one of ours to somebody else; the
ledger remembers both (`core.ownership`). Whoever asks waits for the cycle that does it.
"""

import asyncio

import attrs

from lvsctl.config import Config
from lvsctl.core.difference import Line, line_of
from lvsctl.core.guard import serves
from lvsctl.core.ownership import Border, Owner
from lvsctl.core.removal import MOST_NAMED
from lvsctl.core.status import Moved
from lvsctl.errors import DaemonError, OrderRefused
from lvsctl.reconcile import Cycle, Look
from netlink.types import VirtualServerKey


@attrs.frozen
class _Wish:
    name: str
    adopt: bool
    outcome: asyncio.Future[Moved]


class Moves:
    """What operators want moved across the border with the next cycle."""

    def __init__(self) -> None:
        self._asked: dict[VirtualServerKey, _Wish] = {}

    @property
    def border(self) -> Border:
        """Return what is asked for."""
        return Border(
            adopted=frozenset(key for key, wish in self._asked.items() if wish.adopt),
            disowned=frozenset(key for key, wish in self._asked.items() if not wish.adopt),
        )

    def ask(self, config: Config, name: str, *, adopt: bool) -> asyncio.Future[Moved]:
        """Return what will have the outcome for virtual server `name`; raises DaemonError where there is none."""
        if name not in config.virtual_servers:
            raise DaemonError(f"no virtual server '{name}'")
        key = config.virtual_servers[name].key
        if key in self._asked and self._asked[key].adopt is not adopt:
            raise DaemonError("somebody else has just asked for the opposite; ask again")
        if key not in self._asked:
            self._asked[key] = _Wish(name, adopt, asyncio.get_running_loop().create_future())
        return self._asked[key].outcome

    def settle(self, border: Border, cycle: Cycle) -> None:
        """Tell whoever asked for a part of `border` what `cycle` did."""
        for key in (border.adopted | border.disowned) & self._asked.keys():
            wish = self._asked.pop(key)
            if not wish.outcome.done():  # else whoever asked has gone
                _end(wish.outcome, _outcome(wish, key, cycle))

    def fail(self, why: str) -> None:
        """Tell everybody who waits why nothing was done."""
        asked, self._asked = self._asked, {}
        for wish in asked.values():
            if not wish.outcome.done():
                wish.outcome.set_exception(DaemonError(why))


def demand_gentle(look: Look, key: VirtualServerKey) -> None:
    """Raise OrderRefused where adopting the virtual server at `key` takes most of what serves there away, by `look`."""
    each = look.decision.virtual_servers.get(key)
    if each is None or each.owner is not Owner.ADOPTED or each.observed is None:
        return
    there = {server for server, found in each.observed.real_servers.items() if serves(found)}
    intended = each.intended.real_servers if each.intended else {}
    leaving = [server for server in sorted(there) if server not in intended or not serves(intended[server])]
    if 2 * len(leaving) > len(there):
        shown = ", ".join(map(str, leaving[:MOST_NAMED])) + (" …" if len(leaving) > MOST_NAMED else "")
        gone = f"{len(leaving)} of its {len(there)} real servers that serve ({shown})"
        raise OrderRefused(f"it would take away {gone}; nothing was done", empties=True)


def _end(future: asyncio.Future[Moved], outcome: Moved | DaemonError) -> None:
    if isinstance(outcome, DaemonError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _outcome(wish: _Wish, key: VirtualServerKey, cycle: Cycle) -> Moved | DaemonError:
    each = cycle.look.decision.virtual_servers.get(key)
    if each is None and wish.name in cycle.look.decision.waiting:
        return DaemonError("it waits for Consul, which has not answered for it; whose it is stays as it was")
    if each is None:
        return DaemonError("another configuration is in use since; whose it is stays as it was")
    if cycle.ledger_error:
        return DaemonError(f"the ledger cannot be written, so a restart would forget it: {cycle.ledger_error}")
    before = each.remembered
    was_ours = before is not None and not before.disowned
    done = [found for found in cycle.done if found.step.key == key]
    return Moved(
        name=wish.name,
        address=str(key),
        changed=was_ours is not wish.adopt,
        done=tuple(_words(line_of(found.step, each)) for found in done if found.refused is None),
        refused=next((str(found.refused) for found in done if found.refused is not None), ""),
    )


def _words(line: Line) -> str:
    return f"{line.sign.value} {line.real_server or line.virtual_server}  {line.what}: {line.cause.text}"

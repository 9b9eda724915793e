"""Operators' wishes to let go of what is held and let in who is damped: from the control socket to the next cycle.

Does no I/O. Whoever asks waits for the cycle that does it, so that the answer tells what was done.
"""

import asyncio
from typing import Final

from lvsctl.apply import target_of
from lvsctl.config import Config
from lvsctl.core.guard import serves
from lvsctl.core.status import Released
from lvsctl.errors import DaemonError
from lvsctl.reconcile import Cycle
from netlink.types import VirtualServerKey

WAITS: Final = "the kernel refused it, or what was to come in its place, a moment ago"


class Releases:
    """What is to be released by the next cycle."""

    def __init__(self) -> None:
        self._asked: dict[VirtualServerKey, asyncio.Future[Released]] = {}

    @property
    def keys(self) -> frozenset[VirtualServerKey]:
        """Return the virtual servers of which nothing is to be held this time."""
        return frozenset(self._asked)

    def ask(self, config: Config, name: str) -> asyncio.Future[Released]:
        """Return what will have the outcome for virtual server `name`; raises DaemonError where there is none."""
        if name not in config.virtual_servers:
            raise DaemonError(f"no virtual server '{name}'")
        return self._asked.setdefault(config.virtual_servers[name].key, asyncio.get_running_loop().create_future())

    def settle(self, released: frozenset[VirtualServerKey], cycle: Cycle) -> None:
        """Tell whoever waits for one of `released` what `cycle` did."""
        for key in released & self.keys:
            self._end(key, _outcome(key, cycle))

    def fail(self, why: str) -> None:
        """Tell everybody who waits why nothing was released."""
        for key in self.keys:
            self._end(key, DaemonError(why))

    def _end(self, key: VirtualServerKey, outcome: Released | DaemonError) -> None:
        future = self._asked.pop(key)
        if future.done():  # whoever asked has gone
            return
        if isinstance(outcome, DaemonError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def _outcome(key: VirtualServerKey, cycle: Cycle) -> Released | DaemonError:
    each = cycle.look.decision.virtual_servers.get(key)
    if each is None:
        return DaemonError("it waits for Consul, which has not answered for it; nothing of it is held")
    tried = {target_of(done.step): done.refused for done in cycle.done if done.step.key == key}
    there = each.observed.real_servers if each.observed else {}
    going = each.hold.released.keys() & there.keys()
    stayed = [server for server in going | each.let_in if tried.get((key, server), WAITS)]
    left = each.intended.real_servers.values() if each.intended else ()
    return Released(
        name=each.name,
        real_servers=tuple(str(server) for server in sorted(each.hold.released)),
        let_in=tuple(str(server) for server in sorted(each.let_in)),
        serving=sum(map(serves, left)),
        refused=str(tried.get((key, min(stayed)), WAITS)) if stayed else "",
    )

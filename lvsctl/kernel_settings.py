"""Keeps the settings of IPVS that `[kernel]` names as they are written there, and touches no other.

Blocking. The daemon calls `keep` before every look at everything and every audit, so that a cycle decides by what the
kernel does then. What cannot be set is told once and tried again; nothing waits for it. Nothing is set back at the end:
the table goes on serving, and so does what it is served by.
"""

from collections.abc import Callable

import attrs
import structlog

from lvsctl.config import KernelConfig
from lvsctl.core.cause import Kind
from lvsctl.core.event import Event
from lvsctl.core.facts import OF_IPVS
from lvsctl.core.needs import is_as_wished, wished
from lvsctl.journal import now
from netlink import settings
from netlink.errors import NetlinkError

log = structlog.get_logger()


@attrs.frozen(kw_only=True)
class Change:
    """A setting that was set, or would be."""

    setting: str
    was: int
    now: int
    why: str


class KernelSettings:
    """Remembers what it has seen, to tell a wish that is new from a hand that undid it."""

    def __init__(
        self,
        read: Callable[[str], int | None] = settings.read,
        write: Callable[[str, int], None] = settings.write,
        tell: Callable[[Event], None] = lambda _: None,
    ) -> None:
        self._read = read
        self._write = write
        self._told = tell  # what the log is told, the journal
        self._seen: dict[str, int] = {}  # what was wished of each setting when it was last so
        self._troubles: dict[str, str] = {}
        self._planned: tuple[Change, ...] = ()

    @property
    def trouble(self) -> str:
        """Return why a setting is not as it is written in `[kernel]`; empty where all are."""
        return next(iter(self._troubles.values()), "")

    def keep(self, wanted: KernelConfig, *, write: bool = True) -> tuple[Change, ...]:
        """Set what differs and log it; return what was set. Without `write` nothing is, and it is what would be."""
        wishes = wished(wanted)
        for name in self._seen.keys() - wishes.keys():
            del self._seen[name]
        for name in self._troubles.keys() - wishes.keys():
            del self._troubles[name]
        changes = []
        for name, number in wishes.items():
            try:
                change = self._keep(name, number, write=write)
            except NetlinkError as error:
                self._tell(name, str(error))
                continue
            self._tell(name, "")
            changes += [change] if change else []
        if not write:
            self._plan(tuple(changes))
        return tuple(changes)

    def _keep(self, name: str, number: int, *, write: bool) -> Change | None:
        there = self._read(name)
        if there is None:
            raise NetlinkError("set", f"setting {name}", "this kernel has no such setting")
        drift = self._seen.get(name) == number
        change = None
        if not is_as_wished(name, there, number):
            why = "changed by hand" if drift else "[kernel] in the configuration"
            change = Change(setting=OF_IPVS + name, was=there, now=number, why=why)
            if write:
                self._write(name, number)
                log.info("setting_changed", setting=change.setting, was=there, now=number, why=why)
                cause = Kind.DRIFT if drift else Kind.CONFIGURATION
                self._note(change.setting, "setting_changed", what=f"{there} -> {number}", cause=cause.value, why=why)
        if write:
            self._seen[name] = number
        return change

    def _tell(self, name: str, error: str) -> None:
        before = self._troubles.pop(name, "")
        if error:
            self._troubles[name] = error
            if error != before:
                self._note(OF_IPVS + name, "setting_failed", error=error)
                log.warning("setting_failed", setting=OF_IPVS + name, error=error, follows="it stays as it is")
        elif before:
            log.info("trouble_over", name=OF_IPVS + name, trouble="setting_failed")
            self._note(OF_IPVS + name, "trouble_over", of="setting_failed")

    def _note(self, setting: str, event: str, **fields: str) -> None:
        told = Event(time=now(), event=event, name=setting)
        self._told(attrs.evolve(told, **fields))  # type: ignore[arg-type]  # they are texts all

    def _plan(self, changes: tuple[Change, ...]) -> None:
        if changes != self._planned:
            for each in changes:
                log.info("would_change", setting=each.setting, was=each.was, now=each.now, why=each.why)
        self._planned = changes

"""Which configuration is in use, and how it becomes another one: SIGHUP, `lvsctl reload`, and the way back.

Reloads are taken one after the other. Each reads the file anew, finds out what it would do (`preview`), refuses what
would take too much away (`core.removal`), and only then has it used. One that is to be confirmed is taken back by the
daemon itself, not by the command that asked for it, which may be cut off with its connection. What to go back to is on
disk before the new one is used (`configuration_kept`), so a daemon that is killed meanwhile starts with it.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import attrs
import structlog

from lvsctl import systemd
from lvsctl.config import Config
from lvsctl.configfile import parse_here, read
from lvsctl.configuration_kept import ConfigurationKept, Kept, digest_of
from lvsctl.core.event import Event
from lvsctl.core.ownership import Ledger
from lvsctl.core.reload import LONGEST, SHORTEST, Ask, Became, Order, Reloaded
from lvsctl.core.removal import ALLOW, left_out
from lvsctl.errors import ConfigError, DaemonError, StateError
from lvsctl.journal import now
from lvsctl.preview import Preview
from lvsctl.unexpected import in_words
from netlink.errors import NetlinkError
from netlink.types import Table

BY_SIGNAL: Final = "SIGHUP"
ENDED: Final = "not confirmed before lvsctl ended, so the start did not use it"
CHANGED_SINCE: Final = "the file has changed since it was reloaded; what was confirmed is what was reloaded then"
AT_START: Final = "state_directory, control_socket and [metrics] change at the next start only"

log = structlog.get_logger()


@attrs.frozen(kw_only=True)
class Pending:
    """A configuration in use that is taken back unless it is confirmed."""

    before: Config
    text: str
    seconds: float  # that there are to confirm it
    until: float  # Unix seconds
    ends: float  # the same by the loop's clock


@attrs.frozen(kw_only=True)
class _Unjudged:
    """What a start goes back to where the file, which is `text` now, turns out to take too much away."""

    before: Config
    text: str
    table: Table | None = None  # as it was when it was judged first: what has left since counts


class Reloading:
    """Owns the configuration in use; run `run()` as a task.

    `look` says what a configuration would do in place of the one in use, `look_back` what the one in use would do in
    place of another, by what is heard; `served` what served last. `take` is called when another one is in use, `over`
    after every SIGHUP. One that only looks (`dry_run`) keeps nothing on disk.
    """

    def __init__(
        self,
        path: Path,
        config: Config,
        *,
        look: Callable[[Config, Config], Awaitable[Preview]],
        look_back: Callable[[Config, Config], Awaitable[Preview]],
        served: Callable[[], Ledger],
        take: Callable[[], None],
        over: Callable[[], None],
        note: Callable[[Event], None],
        dry_run: bool,
    ) -> None:
        self.config = config
        self.error = ""  # why the file is not what is in use; empty where it is
        self.rolled_back = False  # it was in use until it was taken back
        self._path = path
        self._look = look
        self._look_back = look_back
        self._served = served
        self._take = take
        self._over = over
        self._note = note
        self._kept = ConfigurationKept(None if dry_run else config.daemon.state_directory, path)
        self._pending: Pending | None = None
        self._unjudged: _Unjudged | None = None
        self._turn = asyncio.Lock()
        self._news = asyncio.Event()
        self._hung_up = False

    @property
    def until(self) -> float | None:
        """Return when the configuration in use is taken back unless it is confirmed; None where it is."""
        return self._pending.until if self._pending else None

    def start(self) -> bool:
        """Begin with the file; or with what was in use before it, where it is not good, was not taken or lacks most.

        Return whether it is another one than was given. What is compared is what served last, for Consul has said
        nothing yet. What a file that is another one by now does to the rest is seen when it has (`judge`).
        """
        given, kept = self.config, self._kept.load()
        try:
            config, text = read(self._path)
        except ConfigError as error:  # what was given is what was in use before
            self._refuse([problem.at(self._path) for problem in error.problems])
            return False
        why, rolled_back = self._why_not(config, text, kept)
        before = self._before(kept.text) if kept and kept.text != text else None
        if before is None or not why:
            self.config = self._fixed(config)
            if before is None:
                self._kept.take(text)
            else:
                self._unjudged = _Unjudged(before=self._fixed(before), text=text)
            return self.config != given
        self.config = self._fixed(before)
        if rolled_back:
            self._say_rolled_back(why)
        else:
            self._refuse([why])
        self._kept.leave(text, why, rolled_back=rolled_back)
        return self.config != given

    @property
    def is_unjudged(self) -> bool:
        """Tell whether a start uses another file than was in use, and nobody has seen yet what that takes away."""
        return self._unjudged is not None

    async def judge(self) -> None:
        """Go back to the configuration before the start where it is seen now that the file takes too much away.

        To be called before anything is written, and again when Consul has answered for more. Raises NetlinkError or
        StateError where nothing can be seen.
        """
        async with self._turn:
            if self._unjudged is None:
                return
            before, text = self._unjudged.before, self._unjudged.text
            try:
                seen = await self._look_back(self.config, before)
            except (NetlinkError, StateError):
                raise
            except Exception as error:  # noqa: BLE001  # a start may not hang on what it was before
                in_words(error, "reload")
                self._unjudged = None
                return
            if self._unjudged.table is None:
                self._unjudged = attrs.evolve(self._unjudged, table=seen.now.observed.table)
            gone = seen.removal_of(self._unjudged.table or {})
            if gone.is_mass:
                why = _unless_allowed(gone.words)
                self._use(before)
                self._refuse([why])
                await asyncio.to_thread(self._kept.leave, text, why, rolled_back=False)
            elif seen.complete:
                self._unjudged = None
                await asyncio.to_thread(self._kept.take, text)

    def _why_not(self, config: Config, text: str, kept: Kept | None) -> tuple[str, bool]:
        """Return why a start does not use `config`, which is `text`, empty where it does; and if it was rolled back."""
        if kept is None or kept.text == text:
            return "", False
        known = kept.not_taken
        if known is not None and known.digest == digest_of(text):
            return known.why, known.rolled_back
        with contextlib.suppress(StateError):  # the first cycle says so
            gone = left_out(self._served(), config)
            if gone.is_mass:
                return _unless_allowed(gone.words), False
        return "", False

    def _before(self, text: str) -> Config | None:
        """Return what was in use when lvsctl ended, which is `text`; None where it cannot be used any more."""
        try:
            return parse_here(text, self._path)
        except ConfigError as error:
            log.warning("configuration_kept_ignored", why=f"this lvsctl cannot use it: {error}")
            return None

    def hang_up(self) -> None:
        """Reload soon: SIGHUP."""
        systemd.reloading()
        self._hung_up = True
        self._news.set()

    async def run(self) -> None:
        """Obey SIGHUP, and take back what nobody confirms, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._pending.ends if self._pending else None):
                    await self._news.wait()
            self._news.clear()
            if self._hung_up:
                self._hung_up = False
                try:
                    await self._obey_signal()
                finally:
                    self._over()
            async with self._turn:
                if self._pending and asyncio.get_running_loop().time() >= self._pending.ends:
                    await self._take_back(f"not confirmed within {self._pending.seconds:g} s")

    async def order(self, order: Order, by: str) -> Reloaded:
        """Do what an operator asks, for `by`; raises DaemonError where that cannot be done."""
        if order.file and not _is_same(Path(order.file), self._path):
            raise DaemonError(f"the daemon was started with {self._path.absolute()}, not with {order.file}")
        async with self._turn:
            match order.ask:
                case Ask.KEEP:
                    self._demand_meant(order)
                    return await self._confirm(by)
                case Ask.REVERT:
                    self._demand_meant(order)
                    return await self._revert(by)
                case Ask.RELOAD:
                    return await self._reload(order, by)

    async def _obey_signal(self) -> None:
        async with self._turn:
            try:
                await self._reload(Order(), BY_SIGNAL)
            except DaemonError as error:
                self._say_refused(str(error))
            except Exception as error:  # noqa: BLE001  # without it the daemon would end
                self._refuse([in_words(error, "reload")])

    async def _reload(self, order: Order, by: str) -> Reloaded:
        self._demand_possible(order)
        try:
            config, text = await asyncio.to_thread(read, self._path)
        except ConfigError as error:
            problems = tuple(problem.at(self._path) for problem in error.problems)
            if not order.dry_run:
                self._refuse(problems)
            return Reloaded(became=Became.INVALID, config=str(self._path.absolute()), problems=problems)
        planned = await self._plan(config, order)
        if order.dry_run:
            return planned
        if planned.why:
            self._refuse([planned.why])
            if self._pending is None:  # a start must know that one
                await asyncio.to_thread(self._kept.leave, text, planned.why, rolled_back=False)
            return attrs.evolve(planned, became=Became.REFUSED)
        if order.confirm is None:
            await asyncio.to_thread(self._kept.take, text)
        else:
            await self._arm(text, order.confirm)
        self._use(self._fixed(config))
        self._say_reloaded(planned, by)
        return attrs.evolve(planned, became=Became.USED, until=self.until)

    def _demand_possible(self, order: Order) -> None:
        if self._pending and order.confirm is None and not order.dry_run:
            raise DaemonError(f"{self._to_confirm()}; until then only reload --confirm takes another one")
        if order.confirm is not None and not SHORTEST <= order.confirm <= LONGEST:
            raise DaemonError(f"{order.confirm:g} s to confirm in; the time is {SHORTEST:g} s to {LONGEST:g} s")

    async def _plan(self, config: Config, order: Order) -> Reloaded:
        """Return what `config` would do, and why that is refused; empty where it is not."""
        fixed = self._fixed(config)
        notes = (AT_START,) if fixed != config else ()
        planned = Reloaded(became=Became.PLANNED, config=str(self._path.absolute()), notes=notes)
        try:
            planned, why = _seen(planned, await self._look(fixed, self.config), order)
        except Exception as error:  # noqa: BLE001  # nothing is known of what it would do, whatever went wrong
            why = f"what it would take away is not known: {in_words(error, 'reload')}"
        return attrs.evolve(planned, why=_unless_allowed(why) if why and not order.allow_remove else "")

    async def _arm(self, text: str, seconds: float) -> None:
        """Have what is about to be used, which is `text`, taken back after `seconds`."""
        if self._unjudged:  # it is what there is to go back to all the same
            await asyncio.to_thread(self._kept.take, self._unjudged.text)
        failed = await asyncio.to_thread(self._kept.leave, text, ENDED, rolled_back=True)
        if failed:
            raise DaemonError(f"what to go back to cannot be written down, so nothing was changed: {failed}")
        self._pending = Pending(
            before=self._pending.before if self._pending else self.config,
            text=text,
            seconds=seconds,
            until=time.time() + seconds,
            ends=asyncio.get_running_loop().time() + seconds,
        )
        self._news.set()

    async def _confirm(self, by: str) -> Reloaded:
        text = self._demand_pending().text
        failed = await asyncio.to_thread(self._kept.take, text, anyway=False)
        if failed:
            raise DaemonError(f"not confirmed, for a restart would not know of it: {failed}; {self._to_confirm()}")
        self._pending = None
        log.info("reload_confirmed", config=str(self._path), by=by)
        self._note(Event(time=now(), event="reload_confirmed", what=str(self._path), by=by))
        notes = () if await asyncio.to_thread(_has, self._path, text) else (CHANGED_SINCE,)
        return Reloaded(became=Became.CONFIRMED, config=str(self._path.absolute()), notes=notes)

    async def _revert(self, by: str) -> Reloaded:
        self._demand_pending()
        why = await self._take_back(f"reverted by {by}")
        return Reloaded(became=Became.REVERTED, config=str(self._path.absolute()), why=why)

    async def _take_back(self, why: str) -> str:
        """Have the configuration before the pending one in use again; return why."""
        pending, self._pending = self._demand_pending(), None
        why = f"{why}, taken back at {_clock(time.time())}; lvsctl reload takes {self._path} as it is then"
        self._use(pending.before)
        self._say_rolled_back(why)
        await asyncio.to_thread(self._kept.leave, pending.text, why, rolled_back=True)
        return why

    def _demand_pending(self) -> Pending:
        if self._pending is None:
            was = f"; the last one was rolled back: {self.error}" if self.rolled_back else ""
            raise DaemonError(f"nothing is to be confirmed{was}")
        return self._pending

    def _demand_meant(self, order: Order) -> None:
        """Raise DaemonError where somebody answers for another configuration than the one that is to be confirmed."""
        if order.of is not None and self._demand_pending().until != order.of:
            raise DaemonError(f"that was for a reload before; somebody has reloaded since: {self._to_confirm()}")

    def _to_confirm(self) -> str:
        assert self._pending is not None  # noqa: S101  # who asks knows
        return (
            f"the configuration in use is to be confirmed until {_clock(self._pending.until)}: "
            "lvsctl reload --keep, or --revert"
        )

    def _use(self, config: Config) -> None:
        self.config, self.error, self.rolled_back, self._unjudged = config, "", False, None
        self._take()

    def _say_reloaded(self, planned: Reloaded, by: str) -> None:
        if AT_START in planned.notes:
            log.warning("restart_needed", why=AT_START)
        until = _clock(self.until) if self.until else ""
        log.info(
            "reloaded",
            config=str(self._path),
            virtual_servers=len(self.config.virtual_servers),
            differences=sum(line.differs for line in planned.lines),
            by=by,
            **({"confirm_until": until} if until else {}),
        )
        confirm = f"to be confirmed until {until}" if until else ""
        self._note(Event(time=now(), event="reloaded", what=str(self._path), by=by, why=confirm))

    def _say_rolled_back(self, why: str) -> None:
        self.error, self.rolled_back = why, True
        log.warning("reload_rolled_back", config=str(self._path), why=why)
        self._note(Event(time=now(), event="reload_rolled_back", what=str(self._path), why=why))

    def _refuse(self, problems: Sequence[str]) -> None:
        self.error, self.rolled_back = "\n".join(problems), False
        for problem in problems:
            self._say_refused(problem)

    def _say_refused(self, problem: str) -> None:
        log.error("reload_refused", problem=problem, kept="the old configuration")
        self._note(Event(time=now(), event="reload_refused", why=problem))

    def _fixed(self, config: Config) -> Config:
        """Return `config` with what only a start changes as it is."""
        daemon = attrs.evolve(
            config.daemon,
            state_directory=self.config.daemon.state_directory,
            control_socket=self.config.daemon.control_socket,
        )
        return attrs.evolve(config, daemon=daemon, metrics=self.config.metrics)


def _seen(outcome: Reloaded, preview: Preview, order: Order) -> tuple[Reloaded, str]:
    """Return `outcome` with what is in `preview`, and why that is too much to do unasked; empty where it is not."""
    notes = [*outcome.notes, *preview.notes]
    decided = preview.then.decision.virtual_servers.values()
    short = [each.name for each in decided if each.leaving and each.drain_timeout < (order.confirm or 0.0)]
    if short:
        names = ", ".join(sorted(set(short)))
        notes.append(f"{names}: drain_timeout is over before the time to confirm: what leaves may be gone by then")
    intended = [each.intended for each in decided if each.intended]
    gone = preview.removal
    seen = attrs.evolve(
        outcome,
        lines=preview.lines,
        virtual_servers=len(intended),
        real_servers=sum(len(entry.real_servers) for entry in intended),
        complete=preview.complete,
        notes=tuple(notes),
    )
    return seen, gone.words if gone.is_mass else ""


def _clock(seconds: float) -> str:
    """Return Unix seconds by the clock of this machine."""
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def _unless_allowed(why: str) -> str:
    return f"{why}; if that is meant: {ALLOW}"


def _has(path: Path, text: str) -> bool:
    """Tell whether the file `path` is `text`."""
    try:
        return read(path)[1] == text
    except ConfigError:
        return False


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except (OSError, ValueError):  # one is not there, or no path at all
        return one.absolute() == other.absolute()

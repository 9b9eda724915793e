"""`lvsctl run`: the watches, the reconcile loop, the control socket and the signals, wired together.

One task reconciles and is the only one to write; the others leave what they learnt and wake it. Stopping leaves the
table as it is: packets are forwarded by the kernel, not by us.
"""

import asyncio
import contextlib
import functools
import os
import resource
import signal
import socket
import time
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Final

import attrs
import structlog

from lvsctl import __version__, control, memory, systemd
from lvsctl.agenda import Agenda, Due, Keys
from lvsctl.announce import Announcer
from lvsctl.border import Moves, demand_gentle
from lvsctl.config import Config
from lvsctl.core.candidates import questions_of
from lvsctl.core.event import Event
from lvsctl.core.fleet import ended_by, together
from lvsctl.core.instance import Query
from lvsctl.core.measures import Seen
from lvsctl.core.order import Orders, Wish, in_force
from lvsctl.core.ownership import NO_WORD, Border
from lvsctl.core.part import concerned
from lvsctl.core.reload import Order, Reloaded
from lvsctl.core.restoration import stands_alone
from lvsctl.core.status import FleetPlan, Moved, OrderGiven, Released, Status
from lvsctl.core.subject import Subject
from lvsctl.core.virtual_server_status import refused_declarations, virtual_servers
from lvsctl.errors import DaemonError, StateError
from lvsctl.fleet import Fleet
from lvsctl.fleet_desk import FleetDesk
from lvsctl.health import Health
from lvsctl.journal import Journal, now
from lvsctl.keeping import Keeping
from lvsctl.kernel_settings import KernelSettings
from lvsctl.orders import OrderDesk
from lvsctl.preview import preview, preview_of_start
from lvsctl.probing import Knock, Prober, knock
from lvsctl.pulse import Pulse
from lvsctl.reconcile import Cycle, Look, Reconciler
from lvsctl.record import Record
from lvsctl.releases import Releases
from lvsctl.reloading import Reloading
from lvsctl.snapshot import Snapshot
from lvsctl.sources import Sources
from lvsctl.unexpected import in_words
from netlink.errors import NetlinkError

FIRST_ANSWERS: Final = 10.0  # seconds to wait for an answer to every query before the first write
WITH_SNAPSHOT: Final = 3.0  # the same where a snapshot can restore what is empty; less once every query has failed
FEW: Final = 100  # steps whose lines in the log take no time to speak of
MANY: Final = 1_000  # steps of a cycle after which there is memory to be given back
LONGEST_PAUSE: Final = 30.0  # seconds between cycles that fail
MOST_FILES: Final = 65_536  # open at one time, more than any configuration takes

log = structlog.get_logger()


class Daemon:
    """One running lvsctl. `dry_run` looks and logs but never writes, and opens no socket."""

    def __init__(
        self, path: Path, config: Config, reconciler: Reconciler, *, dry_run: bool, knock: Knock = knock
    ) -> None:
        self._path = path
        self._reconciler = reconciler
        self._dry_run = dry_run
        self._wake = asyncio.Event()
        self._stopping = False
        self._kernel = asyncio.Lock()  # the netlink socket serves one caller at a time
        self._sources = Sources(
            config,
            hear=self._hear,
            hear_overrides=self._look_at_everything,
            hear_orders=self._hear_orders,
            hear_candidates=self._hear_candidates,
            dry_run=dry_run,
        )
        self._reloading = Reloading(
            path,
            config,
            look=functools.partial(preview, sources=self._sources, reconciler=reconciler, kernel=self._kernel),
            look_back=functools.partial(
                preview_of_start, sources=self._sources, reconciler=reconciler, kernel=self._kernel
            ),
            served=reconciler.served_last,
            take=self._take,
            over=self._reloaded,
            note=self._note,
            dry_run=dry_run,
        )
        self._keeping = Keeping(Snapshot(config.daemon.state_directory), self._sources)
        self._journal = Journal(config.daemon.state_directory)
        self._announcer = Announcer(self._note)
        self._fleet = Fleet(self._note)
        self._orders = OrderDesk(
            config.daemon.state_directory,
            self._preview,
            self._look_at_everything,
            self._note,
            fleet=lambda: self._fleet.orders,
        )
        self._fleet_desk = FleetDesk(self._preview, lambda: self._orders.orders, lambda: self._fleet.orders)
        self._record = Record(keep=config.metrics is not None and not dry_run)
        self._started = time.time()
        self._health = Health()
        self._agenda = Agenda()
        self._releases = Releases()
        self._settings = KernelSettings(tell=self._note)
        self._prober = Prober(self._wake.set, knock, self._note)
        self._pulse = Pulse(reconciler.census, reconciler.is_ours)
        self._moves = Moves()
        self._judged_by: frozenset[Query] = frozenset()  # of what Consul had answered when the start was judged last
        self._known = config  # with what was discovered, as the last cycle had it
        self._concerned_by = config, concerned(config)

    @property
    def _config(self) -> Config:
        return self._reloading.config

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT."""
        _have_more_files()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        loop.add_signal_handler(signal.SIGHUP, self._reloading.hang_up)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._sources.close)
            if not self._dry_run:
                await stack.enter_async_context(control.serving(self._config.daemon.control_socket, self))
                if self._config.metrics is not None:
                    from lvsctl import metrics  # noqa: PLC0415  prometheus_client, for those who want it

                    await stack.enter_async_context(metrics.serving(self._config.metrics.listen, self))
                stack.enter_context(self._journal)
            self._note(Event(time=now(), event="started", what=f"version {__version__}, pid {os.getpid()}"))
            log.info(
                "started",
                version=__version__,
                pid=os.getpid(),
                config=str(self._path),
                dry_run=self._dry_run,
                environment=self._config.consul.from_environment,
            )
            if self._reloading.start():
                self._sources.use(self._config)
            self._watch()
            await self._keeping.recall()
            with contextlib.suppress(StateError):  # the first cycle says so
                expected = functools.partial(self._reconciler.expected, self._config, writes=not self._dry_run)
                self._sources.heard.expect(await asyncio.to_thread(expected))
            await self._sources.recall_keys()
            self._fleet.recall(self._sources.fleet_orders)
            await self._orders.recall(writes=not self._dry_run)
            if not self._dry_run:
                await self._resume_what_is_lost()
            async with asyncio.TaskGroup() as group:
                tasks = self._sources.tasks(group)
                tasks.append(group.create_task(self._health.feed_watchdog(), name="watchdog"))
                tasks.append(group.create_task(self._prober.run(), name="probes"))
                beats = self._pulse.run(self._audit, is_busy=self._kernel.locked)
                tasks.append(group.create_task(beats, name="pulse"))
                tasks.append(group.create_task(self._reloading.run(), name="reloads"))
                tasks.append(group.create_task(self._fleet.run(), name="orders for the fleet"))
                if not self._dry_run:
                    tasks.append(group.create_task(self._keeping.run(), name="snapshots"))
                    tasks.append(group.create_task(self._orders.run(), name="orders"))
                await self._reconcile()  # a cycle that is under way is finished, and logged
                self._releases.fail("the daemon is stopping; nothing was released")
                self._moves.fail("the daemon is stopping; whose it is stays as it was")
                systemd.notify("STOPPING=1")
                for task in tasks:
                    task.cancel()
            if not self._dry_run:
                await self._keeping.keep(renew=True)
            self._note(Event(time=now(), event="stopped", what="the table is left serving"))
        log.info("stopped", table="left serving")

    @property
    def _in_force(self) -> Orders:
        """Return the orders that count: this director's own, and those for the fleet."""
        return together(self._orders.orders, self._fleet.orders)

    async def _resume_what_is_lost(self) -> None:
        """End the pauses of what a reboot has taken out of the kernel: they are to leave that as it is, not empty."""
        if "pause" in self._orders.counts() or self._config.overrides is not None:
            with contextlib.suppress(NetlinkError, StateError):  # the first cycle says so
                names, everything = await asyncio.to_thread(self._reconciler.lost)
                await self._orders.end_lost(names, everything=everything)
                self._fleet.end_lost(names, everything=everything)

    def _note(self, event: Event) -> None:
        """Have `event` in the journal; one that only looks has none."""
        if not self._dry_run:
            self._journal.note(event)

    async def status(self, about: Subject | None = None) -> Status:
        """Return how everything stands now; the table is read afresh.

        Instances that are not meant for a virtual server are left out, but for those that somebody asks `about`.
        """
        async with self._kernel:
            look = await asyncio.to_thread(
                self._reconciler.look,
                self._config,
                self._sources.heard.answers,
                overrides=self._sources.overrides,
                candidates=self._sources.candidates,
                orders=self._in_force,
            )
        refused = {target: refusal.error for target, refusal in self._reconciler.refusals.items()}
        pending = len(look.decision.steps) + len(look.moves or ())
        return Status(
            version=__version__,
            host=socket.gethostname(),
            role="dry-run" if self._dry_run else "active",
            time=time.time(),
            started=self._started,
            config=str(self._path),
            config_error=self._reloading.error,
            rolled_back=self._reloading.rolled_back,
            confirm_until=self._reloading.until,
            consul=self._sources.status(),
            overrides=self._sources.overrides_status(look.config),
            kernel=self._health.kernel_status(pending),
            foreign=tuple(str(key) for key in sorted(look.decision.foreign)),
            virtual_servers=virtual_servers(
                look.config,
                look.decision,
                look.observed,
                refused=refused,
                local=look.surroundings.local,
                ages=self._sources.ages(),
                about=about,
            ),
            refused_declarations=refused_declarations(look.refusals),
            orders=self._orders.status(look),
            orders_error=self._orders.error,
            fleet=self._sources.fleet_status(),
        )

    async def _preview(self, orders: Orders, border: Border = NO_WORD) -> Look:
        """Return what a cycle under these orders would do, and with this word of operators on whose things are."""
        async with self._kernel:
            return await asyncio.to_thread(
                self._reconciler.preview,
                self._config,
                self._sources.heard.answers,
                overrides=self._sources.overrides,
                candidates=self._sources.candidates,
                orders=orders,
                border=border,
            )

    async def order(self, wish: Wish, by: str, *, end: bool) -> OrderGiven:
        """Have an order stand, or `end` one, for `by`, and return what it does; raises OrderRefused."""
        return await (self._orders.end(wish, by) if end else self._orders.give(wish, by))

    async def order_fleet(self, wish: Wish, by: str, *, end: bool) -> FleetPlan:
        """Return what an order for the fleet means and does here, or which one is ended; raises OrderRefused."""
        prefix = self._config.overrides.kv_prefix if self._config.overrides else None
        desk = self._fleet_desk
        return await (desk.plan_end(wish, prefix) if end else desk.plan(wish, by, prefix))

    async def release(self, name: str, by: str) -> Released:
        """Let go of what is held of virtual server `name`, for `by`, and let in who is damped.

        It ends the order to hold it, where there is one.

        Raises DaemonError where that cannot be done.
        """
        force = in_force(self._in_force, time.time()).on(name)
        if force.pause is not None:
            raise DaemonError(f"nothing can be released: {force.pause.words}; {ended_by(force.pause)} ends it")
        if force.hold is not None and force.hold.fleet:
            own = in_force(self._orders.orders, time.time()).on(name).hold
            ended = own is not None and await self._orders.end_hold(name, by)
            rest = f"{force.hold.words}; {ended_by(force.hold)} ends it"
            if own is None or not ended:
                raise DaemonError(f"nothing can be released: {rest}")
            return Released(name=name, real_servers=(), serving=0, order=f"{own.words}, but {rest}")
        if force.hold is not None:
            await self._orders.demand_kept()  # what is let go of may not be held again by an order that did not end
        try:
            asked = self._releases.ask(self._known, name)
            self._wake.set()
            released = await asyncio.shield(asked)  # another one may wait for the same
        except DaemonError:
            if force.hold is None:
                raise
            released = Released(name=name, real_servers=(), serving=0)  # nothing of it is decided: the order ends alone
        if force.hold is not None and await self._orders.end_hold(name, by):
            released = attrs.evolve(released, order=force.hold.words)
        if released.real_servers or released.let_in:
            real_servers, let_in = list(released.real_servers), list(released.let_in)
            more: dict[str, object] = {"let_in": let_in} if let_in else {}
            more |= {"refused": released.refused} if released.refused else {}
            log.warning("released", name=name, by=by, real_servers=real_servers, serving=released.serving, **more)
            what = "; ".join(filter(None, (", ".join(real_servers), f"let in {', '.join(let_in)}" if let_in else "")))
            self._note(Event(time=now(), event="released", name=name, what=what, by=by, error=released.refused))
        return released

    async def move(self, name: str, *, adopt: bool, by: str, force: bool) -> Moved:
        """Take virtual server `name` over as it stands, or leave it to somebody else, for `by`; raises DaemonError.

        Raises OrderRefused where most of what serves in it would go, unless by `force`.
        """
        pause = in_force(self._in_force, time.time()).on(name).pause
        if pause is not None:
            raise DaemonError(f"whose it is cannot change now: {pause.words}; {ended_by(pause)} ends it")
        if adopt and not force and name in self._known.virtual_servers:
            key = self._known.virtual_servers[name].key
            try:
                look = await self._preview(self._in_force, Border(adopted=frozenset({key})))
            except (NetlinkError, StateError) as error:
                raise DaemonError(f"{error}; whose it is stays as it was") from error
            demand_gentle(look, key)
        asked = self._moves.ask(self._known, name, adopt=adopt)
        self._wake.set()
        moved = await asyncio.shield(asked)
        if moved.changed:
            word = "adopted" if adopt else "disowned"
            log.warning(word, name=name, virtual_server=moved.address, by=by)
            self._note(Event(time=now(), event=word, name=name, virtual_server=moved.address, by=by))
        return moved

    async def reload(self, order: Order, by: str) -> Reloaded:
        """Do `order` about the configuration, for `by`; raises DaemonError where that cannot be done."""
        return await self._reloading.order(order, by)

    def seen(self) -> Seen:
        """Return what the metrics show, by the table as the last cycle read it: nobody who asks has it read again."""
        tally = self._record.tally
        return Seen(
            version=__version__,
            config=self._config,
            config_error=self._reloading.error,
            consul=self._sources.seen(),
            kernel=self._health.kernel_status(len(tally.pending)),
            reading=self._record.reading,
            tally=tally,
            waiting=self._record.waiting,
            orders=self._orders.counts(),
            fleet_orders=self._fleet.counts(),
            orders_error=self._orders.error,
            fleet=self._sources.fleet_status(),
        )

    def _hear(self) -> None:
        self._wake.set()
        self._keeping.hear()

    def _hear_orders(self) -> None:
        self._fleet.hear(self._sources.fleet_orders)
        self._look_at_everything()

    def _hear_candidates(self) -> None:
        self._watch()
        self._look_at_everything()

    def _audit(self) -> None:
        self._agenda.audit()
        self._wake.set()

    def _look_at_everything(self) -> None:
        self._agenda.everything()  # which virtual servers it is about is not told
        self._wake.set()

    def _watch(self, *, again: bool = False) -> None:
        """Watch what the file, the catalogue and the ledger name now; `again` even where it is the same."""
        known = self._sources.questions
        try:
            questions = self._reconciler.questions(self._config, self._sources.candidates)
        except StateError:  # the ledger cannot be read: the next cycle says so, and asks again
            questions = known if known.queries else questions_of(self._config)
            self._agenda.everything()
        self._sources.watch(questions, again=again)

    def _end(self) -> None:
        self._stopping = True
        self._wake.set()

    async def _reconcile(self) -> None:
        """Reconcile on every news, of what they concern, and at every audit of what differs, until a signal ends it."""
        await self._first_answers()
        failures = 0
        while not self._stopping:
            self._wake.clear()
            due = Due(None)
            try:
                await self._judge_start()
                news = self._sources.heard.take_news()
                if (news and self._config.discovery is not None) or self._moves.border != NO_WORD:
                    self._agenda.everything()  # what one declares concerns others; who asks may have come in a cycle
                concerned = self._concerned(news) | self._releases.keys | self._prober.take_news()
                due = self._agenda.due(concerned, time.monotonic(), at_once=self._releases.keys)
                if due and await self._one_cycle(due) > MANY:
                    await asyncio.to_thread(memory.trim)
                pause = self._agenda.pause(time.monotonic())
                failures = 0
                if self._health.succeed():  # the table is as wanted, or seen and left as it is while Consul is away
                    systemd.notify("READY=1")
            except Exception as error:  # noqa: BLE001  # a daemon that ends would only fail again at its start
                failures += 1
                self._agenda.everything()
                pause = min(LONGEST_PAUSE, 0.5 * 2 ** min(failures, 10))
                self._health.fail(in_words(error, "cycle"))
                self._record.failure()
                self._releases.fail(f"{self._health.error}; nothing was released")
                self._moves.fail(f"{self._health.error}; whose it is stays as it was")
                log.warning("cycle_failed", error=self._health.error, retry_in=f"{pause:g}s")
                if failures & (failures - 1) == 0:  # it may fail for ever
                    self._note(Event(time=now(), event="cycle_failed", error=self._health.error, attempt=failures))
            if due.keys is None or due.audit:
                systemd.notify(f"STATUS={self._in_words()}")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def _judge_start(self) -> None:
        """See what a file that was changed before the start takes away, as soon as Consul's answers tell it."""
        answers = self._sources.heard.answers
        heard = frozenset(query for query, each in answers.items() if each.snapshot is None)
        if self._reloading.is_unjudged and heard != self._judged_by:
            await self._reloading.judge()
            self._judged_by = heard

    async def _first_answers(self) -> None:
        """Wait until every query is answered, or long enough that those that are should be served.

        What a snapshot can restore serves nobody while we wait, so with one we only wait while Consul may answer.
        """
        sources, recalls = self._sources, self._sources.heard.recalls
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WITH_SNAPSHOT if recalls else FIRST_ANSWERS):
                while not (sources.complete or self._stopping or (recalls and sources.tried)):
                    self._wake.clear()
                    await self._wake.wait()
        if not (sources.complete or self._stopping):  # without overrides weights are the instances' own
            rest = "what serves of those is left as it is" if recalls else "those are left as they are"
            log.warning("consul_incomplete", why=f"not every Consul service was answered for; {rest}")

    async def _one_cycle(self, due: Due) -> int:
        """Reconcile once, and tell about it; return how many steps were taken."""
        sources, config, act = self._sources, self._config, self._reconciler
        answers, overrides, candidates = sources.heard.answers, sources.overrides, sources.candidates
        answered = bool(answers) or sources.listed
        write = answered and not self._dry_run  # without a single answer the table stays as it is
        if self._dry_run and due.keys is None:
            await self._orders.recall(writes=False)  # the daemon beside us may have others by now
        released, border, orders = self._releases.keys, self._moves.border, self._in_force
        act.opinions = self._prober.opinions
        began = time.monotonic()
        with self._health.in_cycle():  # to wait for whoever uses the kernel may be to be stuck, too
            async with self._kernel:
                act.orders, paused = orders, in_force(orders, time.time()).everything
                if (due.keys is None or due.audit) and not paused:  # whether Consul answers or not
                    await asyncio.to_thread(self._settings.keep, config.kernel, write=not self._dry_run)
                if write:
                    cycle = await asyncio.to_thread(
                        act.cycle,
                        config,
                        answers,
                        due.keys,
                        audit=due.audit,
                        overrides=overrides,
                        candidates=candidates,
                        released=released,
                        border=border,
                    )
                else:
                    look = await asyncio.to_thread(
                        act.look, config, answers, overrides=overrides, candidates=candidates
                    )
                    cycle = Cycle(look=look)
                    self._releases.fail("Consul has not answered since the start, so nothing is held")
                    self._moves.fail("Consul has not answered since the start; whose it is stays as it was")
        self._pulse.wrote(each.step.request for each in cycle.done if each.refused is None)
        self._known = cycle.look.config
        self._prober.concern(cycle)
        self._releases.settle(released, cycle)
        self._moves.settle(border, cycle)
        if config.discovery is not None:
            self._watch()  # the ledger may remember more declarations now, or fewer
        self._record.cycle(cycle.look.config, cycle, seconds=time.monotonic() - began, only=cycle.only)
        self._health.inform(informed=bool(answers) or _has_real_servers(cycle.look))
        if cycle.only is None or len(cycle.done) > FEW:  # beside the loop: it takes a while, and answers wait
            await asyncio.to_thread(self._announcer.cycle, cycle, planned=self._dry_run)
        else:
            self._announcer.cycle(cycle, planned=self._dry_run)
        addresses = f"virtual addresses: {cycle.address_error}" if cycle.address_error else ""
        setting = f"[kernel] in the configuration: {self._settings.trouble}" if self._settings.trouble else ""
        self._health.trouble = cycle.ledger_error or addresses or setting
        if not answered or stands_alone(answers) or cycle.undone:
            self._health.in_sync_since = None
        elif cycle.done or self._health.in_sync_since is None:
            self._health.in_sync_since = time.time()
        self._agenda.note(
            cycle,
            now=time.monotonic(),
            clock=time.time(),
            audit_interval=config.daemon.audit_interval,
            dry_run=self._dry_run,
        )
        if config is not self._config or (sources.overrides, sources.candidates) != (overrides, candidates):
            self._agenda.everything()  # there are others meanwhile
        if self._in_force != orders:
            self._agenda.everything()
        return len(cycle.done)

    def _concerned(self, queries: AbstractSet[Query]) -> Keys:
        """Return the virtual servers that something else may be wanted of since the answers to `queries` are others."""
        if self._concerned_by[0] is not self._config:
            self._concerned_by = self._config, concerned(self._config)
        return frozenset().union(*(self._concerned_by[1].get(query, frozenset()) for query in queries))

    def _take(self) -> None:
        """Have everything by the configuration in use, which is another one now."""
        if self._sources.use(self._config):
            self._keeping.everything()
        self._fleet.hear(self._sources.fleet_orders)
        self._watch(again=True)
        self._look_at_everything()

    def _reloaded(self) -> None:
        systemd.notify("READY=1", f"STATUS={self._in_words()}")
        self._look_at_everything()

    def why_not_alive(self) -> str:
        """Return why we should be restarted; empty when we should not."""
        return self._health.why_not_alive()

    def why_not_ready(self) -> str:
        """Return why this director should get no traffic yet; empty when it may."""
        return self._health.why_not_ready(self._sources.status())

    def _in_words(self) -> str:
        pause = in_force(self._in_force, time.time()).everything
        return pause.words if pause else self._health.in_words(self._sources.status())


def _have_more_files() -> None:
    """Let this process have as many files open as it may: a query over HTTP/1.1 is a socket, and 1,024 soon are few.

    The usual soft limit is for programs that use select(2).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _has_real_servers(look: Look) -> bool:
    """Tell whether any virtual server that is to be has a real server in the kernel."""
    there = (look.observed.table.get(each.key) for each in look.config.virtual_servers.values())
    return any(entry.real_servers for entry in there if entry)

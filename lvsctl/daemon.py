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
from lvsctl.agenda import Agenda, Keys
from lvsctl.announce import Announcer
from lvsctl.config import Config
from lvsctl.configfile import load
from lvsctl.consul.catalogue import Catalogue
from lvsctl.consul.client import Client
from lvsctl.consul.overrides import OverrideWatch
from lvsctl.consul.watch import Watches
from lvsctl.core.candidates import Questions, questions_of
from lvsctl.core.instance import Query
from lvsctl.core.measures import Consul, Seen
from lvsctl.core.override import Overrides
from lvsctl.core.part import concerned
from lvsctl.core.restoration import snapshot_age, stands_alone
from lvsctl.core.status import (
    ConsulStatus,
    KernelStatus,
    OverridesStatus,
    Status,
    overrides_status,
    refused_declarations,
    virtual_servers,
)
from lvsctl.errors import ConfigError, StateError
from lvsctl.override_file import OverrideFile
from lvsctl.reconcile import Cycle, Look, Reconciler
from lvsctl.record import Record
from lvsctl.snapshot import Snapshot
from lvsctl.text import visible
from lvsctl.unexpected import in_words

FIRST_ANSWERS: Final = 10.0  # seconds to wait for an answer to every query before the first write
WITH_SNAPSHOT: Final = 3.0  # the same where a snapshot can restore what is empty; less once every query has failed
KEEP: Final = 1.0  # seconds between snapshots at least
KEEP_SHARE: Final = (
    100.0  # times as long as writing the last one took: a large one takes a processor's tenth of a second
)
RENEW: Final = 300.0  # seconds after which a snapshot without news is written again: its age is what it is trusted by
FEW: Final = 100  # steps whose lines in the log take no time to speak of
MANY: Final = 1_000  # steps of a cycle after which there is memory to be given back
LONGEST_PAUSE: Final = 30.0  # seconds between cycles that fail
MOST_FILES: Final = 65_536  # open at one time, more than any configuration takes
STALLED: Final = 60.0  # seconds in one cycle after which the watchdog is no longer fed

log = structlog.get_logger()


class Daemon:
    """One running lvsctl. `dry_run` looks and logs but never writes, and opens no socket."""

    def __init__(self, path: Path, config: Config, reconciler: Reconciler, *, dry_run: bool) -> None:
        self._path = path
        self._config = config
        self._config_error = ""
        self._reconciler = reconciler
        self._dry_run = dry_run
        self._snapshot = Snapshot(config.daemon.state_directory)
        self._wake = asyncio.Event()
        self._news = asyncio.Event()  # for the snapshot
        self._keep_all = True  # the next snapshot is made of everything, not of news alone
        self._stopping = False
        self._kernel = asyncio.Lock()  # the netlink socket serves one caller at a time
        self._client = _client(config)
        self._watches = Watches(self._client, self._hear)
        self._override_file = OverrideFile(config.daemon.state_directory)
        self._overrides = OverrideWatch(self._client, _prefix(config), self._hear_overrides, self._keep_overrides)
        self._catalogue = Catalogue(self._client, config.discovery, self._hear_catalogue)
        self._questions = Questions()
        self._announcer = Announcer()
        self._record = Record(keep=config.metrics is not None and not dry_run)
        self._started = time.time()
        self._in_sync_since: float | None = None
        self._cycle_error = ""
        self._trouble = ""  # with the ledger or the virtual addresses, in the last cycle
        self._cycle_began: float | None = None
        self._agenda = Agenda()
        self._concerned_by = config, concerned(config)
        self._reconciled = False  # a cycle was finished
        self._informed = False  # Consul, the snapshot or the table itself has said what is to be served

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT."""
        _have_more_files()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._close_client)
            if not self._dry_run:
                await stack.enter_async_context(control.serving(self._config.daemon.control_socket, self.status))
                if self._config.metrics is not None:
                    from lvsctl import metrics  # noqa: PLC0415  prometheus_client, for those who want it

                    await stack.enter_async_context(metrics.serving(self._config.metrics.listen, self))
            log.info(
                "started",
                version=__version__,
                pid=os.getpid(),
                config=str(self._path),
                dry_run=self._dry_run,
                environment=self._config.consul.from_environment,
            )
            self._watch()
            address, queries = self._config.consul.address, self._questions.queries
            self._watches.recall(await asyncio.to_thread(self._snapshot.load, address, queries))
            with contextlib.suppress(StateError):  # the first cycle says so
                expected = functools.partial(self._reconciler.expected, self._config, writes=not self._dry_run)
                self._watches.expect(await asyncio.to_thread(expected))
            if self._config.overrides is not None:
                whose = (self._config.consul.address, self._config.overrides.kv_prefix)
                self._overrides.recall(await asyncio.to_thread(self._override_file.load, *whose))
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._watches.run(), name="watches"),
                    group.create_task(self._overrides.run(), name="overrides"),
                    group.create_task(self._catalogue.run(), name="catalogue"),
                    group.create_task(self._feed_watchdog(), name="watchdog"),
                    group.create_task(self._keep_snapshots(), name="snapshots"),
                ]
                await self._reconcile()  # a cycle that is under way is finished, and logged
                systemd.notify("STOPPING=1")
                for task in tasks:
                    task.cancel()
            await self._keep_snapshot(renew=True)
        log.info("stopped", table="left serving")

    async def status(self) -> Status:
        """Return how everything stands now; the table is read afresh."""
        async with self._kernel:
            look = await asyncio.to_thread(
                self._reconciler.look,
                self._config,
                self._watches.answers,
                overrides=self._overrides.overrides,
                candidates=self._catalogue.candidates,
            )
        refused = {key: refusal.error for (key, _), refusal in self._reconciler.refusals.items()}
        pending = len(look.decision.steps) + len(look.moves or ())
        return Status(
            version=__version__,
            host=socket.gethostname(),
            role="dry-run" if self._dry_run else "active",
            time=time.time(),
            started=self._started,
            config=str(self._path),
            config_error=self._config_error,
            consul=self._consul_status(),
            overrides=self._overrides_status(look.config),
            kernel=self._kernel_status(pending),
            foreign=tuple(str(key) for key in sorted(look.decision.foreign)),
            virtual_servers=virtual_servers(
                look.config,
                look.decision,
                look.observed,
                refused=refused,
                local=look.local,
                ages={
                    query: time.time() - contact.last
                    for query, contact in self._watches.contacts.items()
                    if contact.last is not None
                },
            ),
            refused_declarations=refused_declarations(look.refusals),
        )

    def seen(self) -> Seen:
        """Return what the metrics show, by the table as the last cycle read it: nobody who asks has it read again."""
        choice, tally = self._watches.choice, self._record.tally
        contacts = self._watches.contacts
        return Seen(
            version=__version__,
            config=self._config,
            config_error=self._config_error,
            consul=Consul(
                status=self._consul_status(),
                reason=choice.reason.value if choice else "",
                queries=len(contacts),
                doubted=sum(bool(answer.doubt) for answer in self._watches.answers.values()),
                heard={query: contact.last for query, contact in contacts.items()},
            ),
            kernel=self._kernel_status(len(tally.pending)),
            reading=self._record.reading,
            tally=tally,
            waiting=self._record.waiting,
        )

    def _kernel_status(self, pending: int) -> KernelStatus:
        return KernelStatus(
            in_sync_since=self._in_sync_since if not pending else None,
            pending=pending,
            error=self._cycle_error or self._trouble,
        )

    def _consul_status(self) -> ConsulStatus:
        contacts = list(self._watches.contacts.values())
        contacts += [self._catalogue.contact] if self._catalogue.watched else []
        failing = [contact for contact in contacts if contact.failing_since is not None]
        heard = {query: each.last for query, each in self._watches.contacts.items() if each.last is not None}
        complete = self._questions.first <= heard.keys()
        times = list(heard.values())
        if self._catalogue.watched:
            last = self._catalogue.contact.last
            complete, times = complete and last is not None, times + ([] if last is None else [last])
        choice = self._watches.choice
        since = [each.failing_since for each in failing if each.failing_since]
        reachable = len(failing) < len(contacts) or not contacts
        return ConsulStatus(
            address=self._config.consul.address,
            reachable=reachable,
            data_age=time.time() - min(times) if complete and times else None,
            # One datacenter may have been away for days before the agent was: it is since the last one failed.
            failing_since=(min if reachable else max)(since, default=None),
            failing=len(failing),
            error=failing[0].error if failing else "",
            transport=choice.way.value if choice else "",
            transport_why=choice.why if choice else "",
            transport_remedy=choice.remedy if choice else "",
            snapshot_age=snapshot_age(self._watches.answers, time.time()),
        )

    def _overrides_status(self, config: Config) -> OverridesStatus | None:
        contact = self._overrides.contact
        if contact is None or config.overrides is None:
            return None
        return overrides_status(
            config,
            self._overrides.overrides,
            prefix=config.overrides.kv_prefix,
            data_age=None if contact.last is None else time.time() - contact.last,
            error=contact.error,
        )

    def _keep_overrides(self, overrides: Overrides) -> None:
        config = self._config
        if config.overrides is not None and not self._dry_run:
            self._override_file.keep(overrides, config.consul.address, config.overrides.kv_prefix)

    def _hear(self) -> None:
        self._wake.set()
        self._news.set()

    def _hear_overrides(self) -> None:
        self._agenda.everything()  # which virtual servers they are of is not told
        self._wake.set()

    def _hear_catalogue(self) -> None:
        self._watch()
        self._agenda.everything()
        self._wake.set()

    def _watch(self, *, again: bool = False) -> None:
        """Watch what the file, the catalogue and the ledger name now; `again` even where it is the same."""
        try:
            questions = self._reconciler.questions(self._config, self._catalogue.candidates)
        except StateError:  # the ledger cannot be read: the next cycle says so, and asks again
            questions = self._questions if self._questions.queries else questions_of(self._config)
            self._agenda.everything()
        if again or questions != self._questions:
            self._questions = questions
            self._watches.watch(
                questions.queries,
                first=questions.first,
                contested=questions.contested,
                beside=int(self._catalogue.watched) + int(self._config.overrides is not None),
            )

    def _end(self) -> None:
        self._stopping = True
        self._wake.set()

    async def _reconcile(self) -> None:
        """Reconcile on every news, of what they concern, and everything at every audit, until a signal ends it."""
        await self._first_answers()
        failures = 0
        while not self._stopping:
            self._wake.clear()
            keys = None
            try:
                news = self._watches.take_news()
                if news and self._config.discovery is not None:
                    self._agenda.everything()  # what one declares concerns others
                keys = self._agenda.due(self._concerned(news), time.monotonic())
                if keys is None or keys:
                    await self._one_cycle(keys)
                pause = self._agenda.pause(time.monotonic())
                self._cycle_error, failures = "", 0
                if not self._reconciled:  # the table is as wanted, or seen and left as it is while Consul is away
                    self._reconciled = True
                    systemd.notify("READY=1")
            except Exception as error:  # noqa: BLE001  # a daemon that ends would only fail again at its start
                failures += 1
                self._agenda.everything()
                pause = min(LONGEST_PAUSE, 0.5 * 2 ** min(failures, 10))
                self._in_sync_since, self._cycle_error = None, in_words(error, "cycle")
                self._record.failure()
                log.warning("cycle_failed", error=self._cycle_error, retry_in=f"{pause:g}s")
            if keys is None:
                systemd.notify(f"STATUS={self._state_words()}")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def _first_answers(self) -> None:
        """Wait until every query is answered, or long enough that those that are should be served.

        What a snapshot can restore serves nobody while we wait, so with one we only wait while Consul may answer.
        """
        recalls = self._watches.recalls
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WITH_SNAPSHOT if recalls else FIRST_ANSWERS):
                while not (self._complete or self._stopping or (recalls and self._tried)):
                    self._wake.clear()
                    await self._wake.wait()
        if not (self._complete or self._stopping):  # without overrides weights are the instances' own
            rest = "what serves of those is left as it is" if recalls else "those are left as they are"
            log.warning("consul_incomplete", why=f"not every Consul service was answered for; {rest}")

    @property
    def _complete(self) -> bool:
        return self._catalogue.heard and self._watches.complete and self._overrides.settled

    @property
    def _tried(self) -> bool:
        return self._catalogue.tried and self._watches.tried and self._overrides.tried

    async def _keep_snapshots(self) -> None:
        """Keep the last believed answers on disk, as they come."""
        renewed = time.monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, renewed + RENEW - time.monotonic())):
                    await self._news.wait()
            self._news.clear()
            began = time.monotonic()
            due = began >= renewed + RENEW
            try:
                await self._keep_snapshot(renew=due)
            except Exception as error:  # noqa: BLE001  # the older file stays, and no more
                in_words(error, "snapshots")
            if due:
                renewed = began
            await asyncio.sleep(max(KEEP, KEEP_SHARE * (time.monotonic() - began)))

    async def _keep_snapshot(self, *, renew: bool) -> None:
        if not self._dry_run:
            address, queries = self._config.consul.address, self._questions.queries
            news = self._watches.take_believed()
            believed = self._watches.believed if renew or self._keep_all else news
            self._keep_all = True  # until it is known that the file has it
            kept = await asyncio.to_thread(self._snapshot.keep, address, queries, believed, renew=renew)
            self._keep_all = not kept or address != self._config.consul.address

    async def _one_cycle(self, only: Keys | None) -> None:
        answers, overrides, config = self._watches.answers, self._overrides.overrides, self._config
        candidates = self._catalogue.candidates
        answered = bool(answers) or (self._catalogue.watched and self._catalogue.heard)
        write = answered and not self._dry_run  # without a single answer the table stays as it is
        self._cycle_began = began = time.monotonic()  # to wait for whoever uses the kernel may be to be stuck, too
        async with self._kernel:
            try:
                act = self._reconciler
                if write:
                    cycle = await asyncio.to_thread(
                        act.cycle, config, answers, only, overrides=overrides, candidates=candidates
                    )
                else:
                    look = await asyncio.to_thread(
                        act.look, config, answers, overrides=overrides, candidates=candidates
                    )
                    cycle = Cycle(look=look)
                if len(cycle.done) > MANY:
                    await asyncio.to_thread(memory.trim)
            finally:
                self._cycle_began = None
        if config.discovery is not None:
            self._watch()  # the ledger may remember more declarations now, or fewer
        self._record.cycle(cycle.look.config, cycle, seconds=time.monotonic() - began, only=cycle.only)
        self._informed = self._informed or bool(answers) or _has_real_servers(cycle.look)
        if cycle.only is None or len(cycle.done) > FEW:  # beside the loop: it takes a while, and answers wait
            await asyncio.to_thread(self._announcer.cycle, cycle, planned=self._dry_run)
        else:
            self._announcer.cycle(cycle, planned=self._dry_run)
        addresses = f"virtual addresses: {cycle.address_error}" if cycle.address_error else ""
        self._trouble = cycle.ledger_error or addresses
        if not answered or stands_alone(answers) or cycle.undone:
            self._in_sync_since = None
        elif cycle.done or self._in_sync_since is None:
            self._in_sync_since = time.time()
        self._agenda.note(
            cycle,
            now=time.monotonic(),
            clock=time.time(),
            audit_interval=config.daemon.audit_interval,
            dry_run=self._dry_run,
        )
        now = (self._overrides.overrides, self._catalogue.candidates)
        if config is not self._config or now != (overrides, candidates):
            self._agenda.everything()  # there are others meanwhile

    def _concerned(self, queries: AbstractSet[Query]) -> Keys:
        """Return the virtual servers that something else may be wanted of since the answers to `queries` are others."""
        if self._concerned_by[0] is not self._config:
            self._concerned_by = self._config, concerned(self._config)
        return frozenset().union(*(self._concerned_by[1].get(query, frozenset()) for query in queries))

    def _reload(self) -> None:
        """Read the configuration file again; a bad one changes nothing."""
        systemd.reloading()
        try:
            self._use(load(self._path))
        except ConfigError as error:
            self._refuse(error)
        finally:
            systemd.notify("READY=1", f"STATUS={self._state_words()}")
            self._agenda.everything()
            self._wake.set()

    def _refuse(self, error: ConfigError) -> None:
        self._config_error = str(error)
        for problem in error.problems:
            log.error("reload_refused", problem=problem.at(self._path), kept="the old configuration")

    def _use(self, config: Config) -> None:
        old, self._config_error = self._config, ""
        fixed = attrs.evolve(
            config.daemon,
            state_directory=old.daemon.state_directory,
            control_socket=old.daemon.control_socket,
        )
        if (fixed, old.metrics) != (config.daemon, config.metrics):
            why = "state_directory, control_socket and [metrics] change at the next start only"
            log.warning("restart_needed", why=why)
        self._config = attrs.evolve(config, daemon=fixed, metrics=old.metrics)
        if (config.consul, config.safety.max_instances) != (old.consul, old.safety.max_instances):
            replaced, self._client = self._client, _client(config)
            self._watches.use(self._client, replaced)
            self._keep_all = True
        self._overrides.use(self._client, _prefix(config))
        self._catalogue.use(self._client, config.discovery)
        self._watch(again=True)
        log.info("reloaded", config=str(self._path), virtual_servers=len(config.virtual_servers))

    async def _feed_watchdog(self) -> None:
        """Tell systemd that we live, as long as no cycle is stuck."""
        interval = systemd.watchdog_interval()
        if interval is None:
            return
        while True:
            if not self.why_not_alive():
                systemd.notify("WATCHDOG=1")
            await asyncio.sleep(interval)

    def why_not_alive(self) -> str:
        """Return why we should be restarted; empty when we should not. Consul has no say in it."""
        began = self._cycle_began
        if began is None or time.monotonic() - began < STALLED:
            return ""
        return f"a cycle has been stuck for {time.monotonic() - began:.0f} s"

    def why_not_ready(self) -> str:
        """Return why this director should get no traffic yet; once it may, it may for good."""
        if not self._reconciled:
            return visible(self._state_words(), 500)
        return "" if self._informed else "Consul has not answered yet, and the table has no real server"

    def _state_words(self) -> str:
        if self._cycle_error:
            return f"cannot reconcile: {self._cycle_error}"
        consul = self._consul_status()
        if consul.data_age is None or not consul.reachable:
            return "Consul does not answer, the table is left as it is" if consul.failing else "waiting for Consul"
        return "in sync" if self._in_sync_since else "reconciling"

    async def _close_client(self) -> None:
        await self._client.close()


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


def _prefix(config: Config) -> str | None:
    return config.overrides.kv_prefix if config.overrides else None


def _client(config: Config) -> Client:
    return Client(config.consul, max_instances=config.safety.max_instances)

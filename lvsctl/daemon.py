"""`lvsctl run`: the watches, the reconcile loop, the control socket and the signals, wired together.

One task reconciles and is the only one to write; the others leave what they learnt and wake it. Stopping leaves the
table as it is: packets are forwarded by the kernel, not by us.
"""

import asyncio
import contextlib
import os
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
from lvsctl.consul.client import Client
from lvsctl.consul.watch import Watches
from lvsctl.core.desired import queries_of
from lvsctl.core.instance import Query
from lvsctl.core.part import concerned
from lvsctl.core.restoration import snapshot_age, stands_alone
from lvsctl.core.status import ConsulStatus, KernelStatus, Status, virtual_servers
from lvsctl.errors import ConfigError, StateError
from lvsctl.reconcile import Cycle, Reconciler
from lvsctl.snapshot import Snapshot
from netlink.errors import NetlinkError

FIRST_ANSWERS: Final = 10.0  # seconds to wait for an answer to every query before the first write
WITH_SNAPSHOT: Final = 3.0  # the same where a snapshot can restore what is empty; less once every query has failed
KEEP: Final = 1.0  # seconds between snapshots at least
KEEP_SHARE: Final = (
    30.0  # times as long as writing the last one took: a large one takes a processor's tenths of a second
)
RENEW: Final = 300.0  # seconds after which a snapshot without news is written again: its age is what it is trusted by
FEW: Final = 100  # steps whose lines in the log take no time to speak of
MANY: Final = 1_000  # steps of a cycle after which there is memory to be given back
LONGEST_PAUSE: Final = 30.0  # seconds between cycles that fail
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
        self._announcer = Announcer()
        self._started = time.time()
        self._in_sync_since: float | None = None
        self._cycle_error = ""
        self._trouble = ""  # with the ledger or the virtual addresses, in the last cycle
        self._cycle_began: float | None = None
        self._agenda = Agenda()
        self._concerned_by = config, concerned(config)

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._close_client)
            if not self._dry_run:
                await stack.enter_async_context(control.serving(self._config.daemon.control_socket, self.status))
            log.info(
                "started",
                version=__version__,
                pid=os.getpid(),
                config=str(self._path),
                dry_run=self._dry_run,
                environment=self._config.consul.from_environment,
            )
            queries = queries_of(self._config)
            self._watches.recall(await asyncio.to_thread(self._snapshot.load, self._config.consul.address, queries))
            self._watches.watch(queries)
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._watches.run(), name="watches"),
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
        error = self._cycle_error or self._trouble
        async with self._kernel:
            look = await asyncio.to_thread(self._reconciler.look, self._config, self._watches.answers)
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
            kernel=KernelStatus(
                in_sync_since=self._in_sync_since if not pending else None, pending=pending, error=error
            ),
            foreign=tuple(str(key) for key in sorted(look.decision.foreign)),
            virtual_servers=virtual_servers(
                self._config,
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
        )

    def _consul_status(self) -> ConsulStatus:
        contacts = list(self._watches.contacts.values())
        failing = [contact for contact in contacts if contact.failing_since is not None]
        heard = [contact.last for contact in contacts if contact.last is not None]
        complete = len(heard) == len(contacts) and contacts
        choice = self._watches.choice
        return ConsulStatus(
            address=self._config.consul.address,
            reachable=len(failing) < len(contacts) or not contacts,
            data_age=time.time() - min(heard) if complete else None,
            failing_since=min((each.failing_since for each in failing if each.failing_since), default=None),
            failing=len(failing),
            error=failing[0].error if failing else "",
            transport=choice.way.value if choice else "",
            transport_why=choice.why if choice else "",
            transport_remedy=choice.remedy if choice else "",
            snapshot_age=snapshot_age(self._watches.answers, time.time()),
        )

    def _hear(self) -> None:
        self._wake.set()
        self._news.set()

    def _end(self) -> None:
        self._stopping = True
        self._wake.set()

    async def _reconcile(self) -> None:
        """Reconcile on every news, of what they concern, and everything at every audit, until a signal ends it."""
        await self._first_answers()
        failures, ready = 0, False
        while not self._stopping:
            self._wake.clear()
            keys = self._agenda.due(self._concerned(self._watches.take_news()), time.monotonic())
            try:
                if keys is None or keys:
                    await self._one_cycle(keys)
                pause = self._agenda.pause(time.monotonic())
                self._cycle_error, failures = "", 0
                if not ready:  # the table is as wanted, or seen and left as it is because Consul does not answer
                    ready = True
                    systemd.notify("READY=1")
            except (NetlinkError, StateError) as error:
                failures += 1
                self._agenda.everything()
                pause = min(LONGEST_PAUSE, 0.5 * 2 ** min(failures, 10))
                self._in_sync_since, self._cycle_error = None, str(error)
                log.warning("cycle_failed", error=str(error), retry_in=f"{pause:g}s")
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
                while not (self._watches.complete or self._stopping or (recalls and self._watches.tried)):
                    self._wake.clear()
                    await self._wake.wait()
        if not (self._watches.complete or self._stopping):
            rest = "what serves of those is left as it is" if recalls else "those are left as they are"
            log.warning("consul_incomplete", why=f"not every Consul service was answered for; {rest}")

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
            await self._keep_snapshot(renew=due)
            if due:
                renewed = began
            await asyncio.sleep(max(KEEP, KEEP_SHARE * (time.monotonic() - began)))

    async def _keep_snapshot(self, *, renew: bool) -> None:
        if not self._dry_run:
            address, queries = self._config.consul.address, queries_of(self._config)
            news = self._watches.take_believed()
            believed = self._watches.believed if renew or self._keep_all else news
            self._keep_all = True  # until it is known that the file has it
            kept = await asyncio.to_thread(self._snapshot.keep, address, queries, believed, renew=renew)
            self._keep_all = not kept or address != self._config.consul.address

    async def _one_cycle(self, only: Keys | None) -> None:
        answers = self._watches.answers
        config = self._config
        write = bool(answers) and not self._dry_run  # without a single answer the table stays as it is
        async with self._kernel:
            self._cycle_began = time.monotonic()
            try:
                if write:
                    cycle = await asyncio.to_thread(self._reconciler.cycle, config, answers, only)
                else:
                    cycle = Cycle(look=await asyncio.to_thread(self._reconciler.look, config, answers))
                if len(cycle.done) > MANY:
                    await asyncio.to_thread(memory.trim)
            finally:
                self._cycle_began = None
        if len(cycle.look.decision.steps) > FEW:  # beside the loop: thousands of lines take seconds, and answers wait
            await asyncio.to_thread(self._announcer.cycle, cycle, planned=self._dry_run)
        else:
            self._announcer.cycle(cycle, planned=self._dry_run)
        addresses = f"virtual addresses: {cycle.address_error}" if cycle.address_error else ""
        self._trouble = cycle.ledger_error or addresses
        if not answers or stands_alone(answers) or cycle.undone:
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
        if config is not self._config:
            self._agenda.everything()  # it was reloaded meanwhile

    def _concerned(self, queries: AbstractSet[Query]) -> Keys:
        """Return the virtual servers that something else may be wanted of since the answers to `queries` are others."""
        if self._concerned_by[0] is not self._config:
            self._concerned_by = self._config, concerned(self._config)
        return frozenset().union(*(self._concerned_by[1].get(query, frozenset()) for query in queries))

    def _reload(self) -> None:
        """Read the configuration file again; a bad one changes nothing."""
        systemd.reloading()
        try:
            config = load(self._path)
        except ConfigError as error:
            self._refuse(error)
        else:
            self._use(config)
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
        if fixed != config.daemon:
            log.warning("restart_needed", why="state_directory and control_socket change at the next start only")
        self._config = attrs.evolve(config, daemon=fixed)
        if (config.consul, config.safety.max_instances) != (old.consul, old.safety.max_instances):
            replaced, self._client = self._client, _client(config)
            self._watches.use(self._client, replaced)
            self._keep_all = True
        self._watches.watch(queries_of(config))
        log.info("reloaded", config=str(self._path), virtual_servers=len(config.virtual_servers))

    async def _feed_watchdog(self) -> None:
        """Tell systemd that we live, as long as no cycle is stuck."""
        interval = systemd.watchdog_interval()
        if interval is None:
            return
        while True:
            began = self._cycle_began
            if began is None or time.monotonic() - began < STALLED:
                systemd.notify("WATCHDOG=1")
            await asyncio.sleep(interval)

    def _state_words(self) -> str:
        if self._cycle_error:
            return f"cannot reconcile: {self._cycle_error}"
        consul = self._consul_status()
        if consul.data_age is None or not consul.reachable:
            return "Consul does not answer, the table is left as it is" if consul.failing else "waiting for Consul"
        return "in sync" if self._in_sync_since else "reconciling"

    async def _close_client(self) -> None:
        await self._client.close()


def _client(config: Config) -> Client:
    return Client(config.consul, max_instances=config.safety.max_instances)

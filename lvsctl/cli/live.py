"""The live kernel and the live Consul, opened for commands that ask once; imported late, for all of it is heavy."""

import asyncio
import contextlib
import time
from collections.abc import Iterator

import attrs
import structlog

from lvsctl.config import Config
from lvsctl.consul import overrides
from lvsctl.consul.catalogue import candidates_once
from lvsctl.consul.client import Client
from lvsctl.consul.once import ask_once
from lvsctl.core.candidates import queries_to_ask
from lvsctl.core.desired import first_queries_of, queries_of
from lvsctl.core.instance import Answers
from lvsctl.core.override import NO_OVERRIDES, Overrides
from lvsctl.errors import ConsulError
from lvsctl.reconcile import Look, Reconciler
from lvsctl.store import Store
from netlink import IPVS
from netlink.addresses import Addresses

log = structlog.get_logger()


@contextlib.contextmanager
def reconciler(config: Config) -> Iterator[Reconciler]:
    """Open the kernel; raises netlink.errors.Unavailable when IPVS cannot be used from here."""
    with IPVS() as kernel:
        yield Reconciler(kernel, Addresses(), Store(config.daemon.state_directory), time.time)


@attrs.frozen(kw_only=True)
class Asked:
    """What Consul says now."""

    answers: Answers
    candidates: frozenset[str] = frozenset()  # Consul services that may declare virtual servers themselves


def ask(config: Config) -> Asked:
    """Return a fresh answer of Consul for every virtual server; raises ConsulError when one of the file has none.

    A datacenter to fail over to that does not answer is told in the log; `demand` says whether it was needed. So is a
    Consul service that only declares something: it must not keep the others from being seen.
    """

    async def ask_all() -> Asked:
        async with Client(config.consul, max_instances=config.safety.max_instances) as client:
            answers = dict(await ask_once(client, first_queries_of(config), queries_of(config)))
            if config.discovery is None:
                return Asked(answers=answers)
            candidates = await candidates_once(client, config.discovery)
            ledger = Store(config.daemon.state_directory).load(set_aside_damage=False)
            for query in sorted(queries_to_ask(config, candidates, ledger) - answers.keys()):
                try:
                    answers |= await ask_once(client, [query])
                except ConsulError as error:
                    log.warning("consul_failed", consul_service=query.service, error=str(error), kept="left out here")
            return Asked(answers=answers, candidates=candidates)

    return asyncio.run(ask_all())


def demand(look: Look) -> Look:
    """Return `look`; raises ConsulError where a virtual server waits for a datacenter that did not answer."""
    if look.decision.waiting:
        names = ", ".join(sorted(look.decision.waiting))
        raise ConsulError(f"{names}: served by another datacenter, which does not answer now; left as it is")
    return look


def ask_overrides(config: Config) -> Overrides:
    """Return the overrides as Consul has them, none where they are not opened; raises ConsulError when it has none."""
    if config.overrides is None:
        return NO_OVERRIDES
    prefix = config.overrides.kv_prefix

    async def ask_them() -> Overrides:
        async with Client(config.consul) as client:
            return (await overrides.read(client, prefix))[1]

    return asyncio.run(ask_them())

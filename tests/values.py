"""Short ways to write the values that tests are about, and a kernel in memory that has them."""

# ruff: noqa: ANN401 -- changes are attributes of whatever is built
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

import attrs

from lvsctl.config import Config, VirtualServerConfig
from lvsctl.core.admission import Limits
from lvsctl.core.decide import decide
from lvsctl.core.decision import Decision
from lvsctl.core.desired import limits_of, query_of
from lvsctl.core.instance import Answer, Answers, Check, Health, Instance
from lvsctl.core.order import NO_ORDERS, Orders
from lvsctl.core.ownership import NO_WORD, Border, Ledger
from lvsctl.core.remembrance import ledger_ahead, ledger_settled
from lvsctl.core.served import after
from netlink.fake import FakeIPVS
from netlink.requests import AddRealServer, AddVirtualServer, Request
from netlink.types import (
    Address,
    Observed,
    Protocol,
    RealServer,
    RealServerKey,
    RealServerUsage,
    Table,
    TableEntry,
    VirtualServer,
    VirtualServerKey,
)

NOW = 1_000_000.0
VIP = ip_address("10.9.0.100")
KEY = VirtualServerKey.by_address(Protocol.TCP, VIP, 80)
OWN = frozenset({ip_address("10.0.0.254")})


def configured(name: str = "reco", key: VirtualServerKey = KEY, **changes: Any) -> VirtualServerConfig:
    """Return a virtual server of the configuration; `changes` are attributes of VirtualServerConfig."""
    return VirtualServerConfig(name=name, key=key, **{"consul_service": name, **changes})


def config_of(*virtual_servers: VirtualServerConfig, **changes: Any) -> Config:
    """Return a configuration with these virtual servers."""
    return Config(virtual_servers={each.name: each for each in virtual_servers or (configured(),)}, **changes)


def limits(config: Config | None = None) -> Limits:
    """Return the limits on a director that has OWN."""
    return limits_of(config or config_of(), OWN)


def instance(number: int = 1, **changes: Any) -> Instance:
    """Return instance `reco-N` on node `appN` at 10.0.0.N:8080, passing."""
    values = {"node": f"app{number}", "instance_id": f"reco-{number}", "address": f"10.0.0.{number}", "port": 8080}
    return Instance(**{**values, **changes})


def failing(number: int = 1, health: Health = Health.CRITICAL, output: str = "no answer", **changes: Any) -> Instance:
    """Return an instance with one check that does not pass."""
    check = Check(check_id="http", name="HTTP", health=health, output=output)
    return instance(number, checks=(check,), **changes)


def answers_of(config: Config, *instances: Instance) -> Answers:
    """Return these instances as the answer to every query of `config`."""
    return {query_of(each): Answer(instances=instances, index=1) for each in config.virtual_servers.values()}


def real_key(number: int = 1, port: int = 8080) -> RealServerKey:
    """Return 10.0.0.N:8080."""
    return RealServerKey(address=ip_address(f"10.0.0.{number}"), port=port)


def real(number: int = 1, weight: int = 1, **changes: Any) -> RealServer:
    """Return the real server of `instance(number)`."""
    return RealServer(**{"key": real_key(number), "weight": weight, **changes})


def entry(*real_servers: RealServer, **changes: Any) -> TableEntry:
    """Return a virtual server at KEY, or as `changes` say, with these real servers."""
    return TableEntry(
        virtual_server=VirtualServer(**{"key": KEY, **changes}), real_servers={each.key: each for each in real_servers}
    )


def most_lately(history: Sequence[tuple[float, int]], now: float, window: float) -> int:
    """Return the largest count of the last `window` seconds; each of `history`, with its time, lasts until the next."""
    ends = [*(time for time, _ in history[1:]), now]
    return max(count for (_, count), end in zip(history, ends, strict=True) if end == now or end + window > now)


def lasting(ledger: Ledger, now: float) -> Ledger:
    """Return `ledger` without the counts that are over at `now`: what nothing happens to keeps them."""
    counts = {key: after(each.served, each.served.count, now) for key, each in ledger.items()}
    return {key: attrs.evolve(each, served=counts[key]) for key, each in ledger.items()}


def table_of(*entries: TableEntry) -> Table:
    """Return a table of these entries."""
    return {each.virtual_server.key: each for each in entries}


def requests_for(table: Table) -> Sequence[Request]:
    """Return what makes `table` of an empty one."""
    requests: list[Request] = []
    for key, each in table.items():
        requests.append(AddVirtualServer(virtual_server=each.virtual_server))
        requests += [AddRealServer(virtual_server=key, real_server=server) for server in each.real_servers.values()]
    return requests


def kernel_with(table: Table) -> FakeIPVS:
    """Return a kernel in memory that has `table`, and has forgotten how it came to it."""
    kernel = FakeIPVS()
    refused = [result for result in kernel.apply(requests_for(table)) if result]
    assert not refused, refused
    kernel.writes.clear()
    return kernel


def observed_of(
    *entries: TableEntry, connections: Mapping[RealServerKey, int] | None = None, inactive: int = 0
) -> Observed:
    """Return these entries as read from a kernel; `connections` are the active ones of some real servers."""
    kernel = kernel_with(table_of(*entries))
    for each in entries:
        for key, active in (connections or {}).items():
            if key in each.real_servers:
                usage = RealServerUsage(active=active, inactive=inactive)
                kernel.set_usage(each.virtual_server.key, key, usage)
    return kernel.observe()


def decided(
    observed: Observed,
    *instances: Instance,
    config: Config | None = None,
    ledger: Ledger | None = None,
    templates_expire: bool = False,
    connections_expire: bool = False,
    now: float = NOW,
) -> Decision:
    """Return what is decided when Consul answers every query with `instances`."""
    config = config or config_of()
    return decide(
        config,
        answers_of(config, *instances),
        observed,
        ledger or {},
        own_addresses=OWN,
        templates_expire=templates_expire,
        connections_expire=connections_expire,
        now=now,
    )


@attrs.define
class Cycles:
    """The cycle of `reconcile` without its files and threads: what is kept is the ledger, the kernel and the clock."""

    config: Config
    answers: Answers
    kernel: FakeIPVS
    ledger: Ledger
    now: float = NOW
    own_addresses: frozenset[Address] = OWN
    templates_expire: bool = False
    connections_expire: bool = False
    orders: Orders = NO_ORDERS
    border: Border = NO_WORD  # for the next cycle
    on_decision: Callable[[Decision, Ledger, Observed], None] | None = None
    last: Decision | None = None

    def decide(self, observed: Observed) -> Decision:
        """Return what is decided now; that it is remembered from the last time changes nothing."""
        afresh, decision = (
            decide(
                self.config,
                self.answers,
                observed,
                self.ledger,
                own_addresses=self.own_addresses,
                templates_expire=self.templates_expire,
                connections_expire=self.connections_expire,
                now=self.now,
                before=before,
                orders=self.orders,
                border=self.border,
            )
            for before in (None, self.last)
        )
        assert decision == afresh
        self.last = decision
        return decision

    def once(self, steps: int | None = None) -> Decision:
        """Decide and carry out all steps, or die after so many of them."""
        observed = self.kernel.observe()
        decision = self.decide(observed)
        self.border = NO_WORD
        if self.on_decision:
            self.on_decision(decision, self.ledger, observed)
        self.ledger = ledger_ahead(decision, self.ledger, observed)
        refused = [result for result in self.kernel.apply(requests_of(decision.steps[:steps])) if result]
        assert not refused, refused
        if steps is None:
            self.ledger = ledger_settled(decision, self.ledger, ())
        self.now += 1.0
        return decision

    def until_quiet(self, most: int = 5) -> int:
        """Repeat until a cycle has nothing to do or to wait for; return how many had, at most `most`."""
        for cycles in range(most + 1):
            decision = self.once()
            ramps = any(each.next_look is not None for each in decision.virtual_servers.values())
            if not decision.steps and decision.look_again is None and not ramps:
                return cycles
        raise AssertionError(f"not quiet after {most} cycles: {self.once().steps}")


def requests_of(steps: Iterable[Any]) -> list[Request]:
    """Return what the steps ask of the kernel."""
    return [step.request for step in steps]

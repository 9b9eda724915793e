"""The virtual servers that Consul services declare themselves, beside those of the file: `[discovery]`.

Pure. `discover` returns a configuration in which they stand like all others, so that nothing downstream has to know;
`declaration` says what an instance declares and whether it may be so. Who gets an address:
1. a virtual server of the file always has its own;
2. then whoever has it by the ledger keeps it, for as long as it is remembered there;
3. then the first by name.
What counts is changed only by a declaration that all instances agree on, and ends only when there are instances, the
answer that lists them is believed, and none declares anything. Until then the ledger remembers it: an answer that is
missing, empty, doubted or a snapshot's takes nothing away, and neither does a declaration that is refused.
"""

import functools
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

import attrs

from lvsctl.config import Config, Declaration, DiscoveryConfig, VirtualServerConfig
from lvsctl.core.admission import parse_address
from lvsctl.core.candidates import Refusal, asked, name_of, query_for, remembered
from lvsctl.core.declaration import Heard, heard, still_allowed, virtual_server_for
from lvsctl.core.instance import Answers, Instance
from lvsctl.core.ownership import Ledger
from netlink.types import Address, VirtualServerKey

_parsed = functools.lru_cache(maxsize=65_536)(parse_address)


@attrs.frozen(kw_only=True)
class Discovered:
    """The configuration with what was discovered, and what was refused."""

    config: Config
    refusals: tuple[Refusal, ...] = ()
    # Of what it was made, so that the same need not be read again.
    discovery: DiscoveryConfig | None = attrs.field(default=None, eq=False, repr=False)
    heard: Mapping[str, Heard] = attrs.field(factory=dict, eq=False, repr=False)
    read: Mapping[tuple[str, Declaration], VirtualServerConfig | str] = attrs.field(factory=dict, eq=False, repr=False)


def discover(
    config: Config,
    candidates: AbstractSet[str],
    answers: Answers,
    ledger: Ledger,
    *,
    own_addresses: AbstractSet[Address] = frozenset(),
    before: Discovered | None = None,
) -> Discovered:
    """Return `config` with the virtual servers that Consul services declare.

    `own_addresses` are those of the director that nobody may claim. `before` is an earlier outcome: it spares work
    where nothing has changed since, and changes nothing.
    """
    if config.discovery is None:
        return Discovered(config=config)
    if before is None or before.discovery != config.discovery:
        before = Discovered(config=config)
    services, refusals = asked(config.discovery, candidates, ledger)
    finding = _Finding(config, config.discovery, answers, ledger, own_addresses, before)
    found = finding.virtual_servers(services)
    return Discovered(
        config=attrs.evolve(config, virtual_servers={**config.virtual_servers, **found}),
        refusals=tuple(sorted((*finding.refusals, *refusals), key=lambda each: each.service)),
        discovery=config.discovery,
        heard=finding.heard,
        read=finding.read,
    )


class _Finding:
    """One pass over the Consul services that may declare something."""

    def __init__(  # noqa: PLR0917  # what `discover` has
        self,
        config: Config,
        discovery: DiscoveryConfig,
        answers: Answers,
        ledger: Ledger,
        own_addresses: AbstractSet[Address],
        before: Discovered,
    ) -> None:
        self.refusals: list[Refusal] = []
        self.heard: dict[str, Heard] = {}
        self.read: dict[tuple[str, Declaration], VirtualServerConfig | str] = {}
        self._config = config
        self._discovery = discovery
        self._answers = answers
        self._ledger = ledger
        self._own_addresses = own_addresses
        self._before = before
        self._remembered = remembered(ledger)
        self._configured = {each.key: name for name, each in config.virtual_servers.items()}
        self._taken: dict[VirtualServerKey, str] = {}

    def virtual_servers(self, services: tuple[str, ...]) -> Mapping[str, VirtualServerConfig]:
        """Return the virtual servers of `services` by name."""
        kept = {service: self._kept(service) for service in services}
        wished = {service: self._wish(service, kept[service]) for service in services}
        self._taken = {key: service for service, (key, _) in self._remembered.items()}
        staying = {service for service, wish in wished.items() if wish and self._taken.get(wish.key) == service}
        found: dict[str, VirtualServerConfig] = {}
        for service in sorted(services, key=lambda service: (service not in staying, service)):
            wish = wished[service]
            granted = wish and self._granted(wish, kept[service])
            if granted is None:
                continue
            if granted.name in found:
                self._refuse(service, f"its virtual server would be called {granted.name!r}, which is another one's")
                continue
            self._taken[granted.key] = service
            found[granted.name] = granted
        return found

    def _kept(self, service: str) -> VirtualServerConfig | None:
        """Return what counts of `service` by the ledger, as far as the operator still allows it."""
        if service not in self._remembered:
            return None
        key, declaration = self._remembered[service]
        now: VirtualServerConfig | str | None = self._reading(declaration)
        if isinstance(now, str):
            now = still_allowed(declaration, self._name(service), self._discovery)
        if now is None or now.key != key:
            return None
        known = self._before.config.virtual_servers.get(now.name)
        return known if known == now else now

    def _wish(self, service: str, kept: VirtualServerConfig | None) -> VirtualServerConfig | None:
        """Return what `service` is to have if nobody else has its address."""
        answer = self._answers.get(query_for(service, self._discovery))
        if answer is None:
            return kept
        known = self._before.heard.get(service)
        now = known if known and known.answer is answer else heard(answer, self._discovery.tag)
        self.heard[service] = now
        if kept and (answer.doubt or answer.snapshot is not None):
            return kept
        if not now.said:
            # While another datacenter serves, the one that is asked for declarations has nobody who could say more.
            elsewhere = kept is not None and kept.key in self._ledger and self._ledger[kept.key].failed_over
            return None if now.nothing and not elsewhere else kept
        readings = [self._reading(Declaration(service=service, values=values)) for values, _ in now.said]
        good = [each for each in readings if isinstance(each, VirtualServerConfig)]
        if not good:
            self._refuse(service, str(readings[0]), kept)
            return kept
        if len(readings) > 1:
            self._refuse(service, f"its instances disagree: {_differing(now)}", kept or good[0])
            return kept or good[0]
        return good[0]

    def _reading(self, declaration: Declaration) -> VirtualServerConfig | str:
        name = self._name(declaration.service)
        known = self._before.read.get((name, declaration))
        self.read[name, declaration] = known or virtual_server_for(declaration, name, self._discovery)
        return self.read[name, declaration]

    def _granted(self, wish: VirtualServerConfig, kept: VirtualServerConfig | None) -> VirtualServerConfig | None:
        """Return `wish` where its address is free, what counted before where it is not, or None."""
        service = wish.consul_service
        if kept and kept.key in self._configured:
            kept = None
        if wish.key in self._configured:
            name = self._configured[wish.key]
            self._refuse(service, f"{wish.key} is virtual_server.{name} of the configuration file, which has it", kept)
            return kept
        owner = self._taken.get(wish.key, service)
        if owner != service:
            self._refuse(service, f"{wish.key} belongs to Consul service {owner!r}, which had it first", kept)
            return kept
        if kept is None or wish.key != kept.key:
            misplaced = self._misplaced(wish.key.address)
            if misplaced:
                self._refuse(service, f"{wish.key.address} is {misplaced}; declare an address of its own", kept)
                return kept
        return wish

    def _misplaced(self, address: Address | None) -> str:
        """Return what `address` is already, in words; a virtual server there would take it from whoever has it."""
        if address in self._own_addresses:
            return "the director's own address"
        if address in self._of_instances:
            service, instance = self._of_instances[address]
            return f"the address of {_told(instance)} of Consul service {service!r}"
        for entry in self._ledger.values():
            if entry.written and any(key.address == address for key in entry.written.real_servers):
                return f"the address of a real server of {entry.name!r}"
        return ""

    @functools.cached_property
    def _of_instances(self) -> Mapping[Address | None, tuple[str, Instance]]:
        """The addresses of all instances that are known, each with the first that has it."""
        found: dict[Address | None, tuple[str, Instance]] = {}
        for query, answer in sorted(self._answers.items(), key=lambda pair: pair[0]):
            for instance in answer.instances:
                found.setdefault(_parsed(instance.address), (query.service, instance))
        return found

    def _name(self, service: str) -> str:
        return name_of(service, self._config.virtual_servers.keys())

    def _refuse(self, service: str, text: str, kept: VirtualServerConfig | None = None) -> None:
        self.refusals.append(
            Refusal(service=service, name=self._name(service), text=text, kept=kept.key if kept else None)
        )


def _differing(now: Heard) -> str:
    told = [f"{_told(instance)} says {_said(values)}" for values, instance in now.said[:2]]
    more = f", and there are {len(now.said) - 2} more" if len(now.said) > 2 else ""
    return ", ".join(told) + more


def _said(values: tuple[tuple[str, str], ...]) -> str:
    return repr(" ".join(f"{key}={value}" for key, value in values)[:100])


def _told(instance: Instance) -> str:
    return f"instance {instance.instance_id[:60]!r} on node {instance.node[:60]!r}"

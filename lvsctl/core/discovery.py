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
import hashlib
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import attrs

from lvsctl.config import (
    NAME_PATTERN,
    Config,
    Declaration,
    DiscoveryConfig,
    VirtualServerConfig,
    VirtualServerTable,
)
from lvsctl.config_types import Wrong
from lvsctl.core.admission import parse_address
from lvsctl.core.declaration import Heard, heard, still_allowed, virtual_server_for
from lvsctl.core.desired import query_of
from lvsctl.core.instance import Answers, Instance, Query
from lvsctl.core.ownership import Ledger
from netlink.types import Address, VirtualServerKey

MAX_NAME: Final = 255  # characters of a Consul service's name that are shown

_NAME: Final = re.compile(NAME_PATTERN)
_MADE: Final = re.compile(r".*\.[0-9a-f]{8}")  # a name that `name_of` made
_SERVICE: Final = attrs.fields_dict(VirtualServerTable)["consul_service"].metadata["type"]

_parsed = functools.lru_cache(maxsize=65_536)(parse_address)


@attrs.frozen(kw_only=True)
class Refusal:
    """A declaration that does not count, and why; the texts hold what registrants wrote, unescaped."""

    service: str
    name: str  # of the virtual server that it has or would have
    text: str
    kept: VirtualServerKey | None = None  # what counted before and goes on; None: nothing


@attrs.frozen(kw_only=True)
class Discovered:
    """The configuration with what was discovered, and what was refused."""

    config: Config
    refusals: tuple[Refusal, ...] = ()
    # Of what it was made, so that the same need not be read again.
    discovery: DiscoveryConfig | None = attrs.field(default=None, eq=False, repr=False)
    heard: Mapping[str, Heard] = attrs.field(factory=dict, eq=False, repr=False)
    read: Mapping[tuple[str, Declaration], VirtualServerConfig | str] = attrs.field(factory=dict, eq=False, repr=False)


def remembered(ledger: Ledger) -> Mapping[str, tuple[VirtualServerKey, Declaration]]:
    """Return what the ledger has of each Consul service that has declared a virtual server and not withdrawn it."""
    found: dict[str, tuple[VirtualServerKey, Declaration]] = {}
    for key, entry in ledger.items():
        each = entry.declaration
        if each is not None and each.values and (each.service not in found or key < found[each.service][0]):
            found[each.service] = (key, each)
    return found


def asked(
    discovery: DiscoveryConfig, candidates: AbstractSet[str], ledger: Ledger
) -> tuple[tuple[str, ...], tuple[Refusal, ...]]:
    """Return the Consul services whose instances are asked for what they declare, and those that are not and why.

    `candidates` have a tag that says so. Those that are remembered come first, so that a crowd displaces none of them.
    """
    known = {service for service in remembered(ledger) if _is_open(service, discovery)}
    judged = {each: _unusable(each) for each in sorted(candidates - known) if _is_open(each, discovery)}
    new = [service for service, why in judged.items() if not why]
    wrong = [Refusal(service=each[:MAX_NAME], name=_made(each), text=why) for each, why in judged.items() if why]
    most = discovery.max_virtual_servers
    room = max(0, most - len(known))
    left = [*new[room:], *(each.service for each in wrong[most:])]
    refusals = wrong[:most]
    if left:
        text = f"it and {len(left) - 1} more are passed over: discovery.max_virtual_servers is {most}"
        refusals.append(Refusal(service=left[0][:MAX_NAME], name=_made(left[0]), text=text))
    return tuple(sorted({*known, *new[:room]})), tuple(refusals)


def queries_to_ask(config: Config, candidates: AbstractSet[str], ledger: Ledger) -> frozenset[Query]:
    """Return what has to be asked of Consul to know what is declared; nothing where nothing may be."""
    if config.discovery is None:
        return frozenset()
    services, _ = asked(config.discovery, candidates, ledger)
    return frozenset(_query(service, config.discovery) for service in services)


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


def name_of(service: str, taken: AbstractSet[str]) -> str:
    """Return the name of the virtual server that `service` declares: its own where that can name one and is not taken.

    Else as much of it as can be, and eight digits that are its own. A Consul service cannot be called like another
    one's made name: then it gets one itself.
    """
    return (
        service
        if _NAME.fullmatch(service) and service not in taken and not _MADE.fullmatch(service)
        else _made(service)
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
        answer = self._answers.get(_query(service, self._discovery))
        if answer is None:
            return kept
        known = self._before.heard.get(service)
        now = known if known and known.answer is answer else heard(answer, self._discovery.tag)
        self.heard[service] = now
        if kept and (answer.doubt or answer.snapshot is not None):
            return kept
        if not now.said:
            return None if now.nothing else kept
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


def _query(service: str, discovery: DiscoveryConfig) -> Query:
    """Return the query whose answer says what `service` declares; its virtual server asks the same."""
    defaults = discovery.defaults
    return query_of(
        VirtualServerConfig(
            name="",
            key=VirtualServerKey.by_mark(1),
            consul_service=service,
            datacenter=defaults.datacenter,
            near=defaults.near,
        )
    )


def _is_open(service: str, discovery: DiscoveryConfig) -> bool:
    """Tell whether the operator lets `service` declare itself."""
    return _matches(service, discovery.services) and not _matches(service, discovery.exclude)


def _matches(service: str, patterns: tuple[str, ...]) -> bool:
    return any(_compiled(pattern).fullmatch(service) for pattern in patterns)


@functools.lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"(\\\*)+", ".*", re.escape(pattern)), re.DOTALL)


def _unusable(service: str) -> str:
    """Return why Consul cannot be asked about `service`, in words; empty when it can."""
    if service in (".", ".."):
        return "a Consul service of this name cannot be asked for"
    try:
        _SERVICE.read(service)
    except Wrong as wrong:
        return f"its name {wrong.wrong}; {wrong.remedy}"
    return ""


def _made(service: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9_-]", "-", service[:40]).lstrip("-") or "service"
    return f"{plain}.{hashlib.sha256(service.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def _differing(now: Heard) -> str:
    told = [f"{_told(instance)} says {_said(values)}" for values, instance in now.said[:2]]
    more = f", and there are {len(now.said) - 2} more" if len(now.said) > 2 else ""
    return ", ".join(told) + more


def _said(values: tuple[tuple[str, str], ...]) -> str:
    return repr(" ".join(f"{key}={value}" for key, value in values)[:100])


def _told(instance: Instance) -> str:
    return f"instance {instance.instance_id[:60]!r} on node {instance.node[:60]!r}"

"""Which Consul services are asked what they declare, and what their virtual servers are called.

Pure. Names are a registrant's: most can name a virtual server as they are, the others get one that is made of them, and
one that Consul could not be asked about is refused. How many are asked is bounded, for each costs a query.
"""

import functools
import hashlib
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import attrs

from lvsctl.config import NAME_PATTERN, Config, Declaration, DiscoveryConfig, VirtualServerConfig, VirtualServerTable
from lvsctl.config_types import Wrong
from lvsctl.core.desired import contested_queries_of, first_queries_of, queries_of, query_of
from lvsctl.core.instance import Query
from lvsctl.core.ownership import Ledger
from netlink.types import VirtualServerKey

MAX_NAME: Final = 255  # characters of a Consul service's name that are shown

_NAME: Final = re.compile(NAME_PATTERN)
_MADE: Final = re.compile(r".*\.[0-9a-f]{8}")  # a name that `name_of` made
_SERVICE: Final = attrs.fields_dict(VirtualServerTable)["consul_service"].metadata["type"]


@attrs.frozen(kw_only=True)
class Refusal:
    """A declaration that does not count, and why; the texts hold what registrants wrote, unescaped."""

    service: str
    name: str  # of the virtual server that it has or would have
    text: str
    kept: VirtualServerKey | None = None  # what counted before and goes on; None: nothing


@attrs.frozen(kw_only=True)
class Questions:
    """What has to be asked of Consul."""

    queries: frozenset[Query] = frozenset()
    first: frozenset[Query] = frozenset()  # those of them that the start waits for
    contested: frozenset[Query] = frozenset()  # those of which it matters whether they are answered just now


def questions_of(
    config: Config, declaring: frozenset[Query] = frozenset(), elsewhere: frozenset[Query] = frozenset()
) -> Questions:
    """Return what has to be asked for the virtual servers of `config`.

    `declaring` say what is declared, `elsewhere` are of the datacenters that what is remembered may fail over to.
    """
    return Questions(
        queries=queries_of(config) | declaring | elsewhere,
        first=first_queries_of(config) | declaring,
        contested=contested_queries_of(config) | elsewhere,
    )


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
    return frozenset(query_for(service, config.discovery) for service in services)


def queries_elsewhere(config: Config, ledger: Ledger) -> frozenset[Query]:
    """Return what to ask of other datacenters for what is remembered as declared, and of its own where there are any.

    Who serves may be one of them, and is to be known before it is declared anew: at a start, after a reload.
    """
    discovery = config.discovery
    if discovery is None or not discovery.defaults.failover:
        return frozenset()
    services = [service for service in remembered(ledger) if _is_open(service, discovery)]
    others = (Query(service=service, datacenter=name) for service in services for name in discovery.defaults.failover)
    return frozenset((*(query_for(service, discovery) for service in services), *others))


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


def query_for(service: str, discovery: DiscoveryConfig) -> Query:
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

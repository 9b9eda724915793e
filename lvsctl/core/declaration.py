"""What the instances of a Consul service say of the virtual server that they want, and whether it may be so.

Pure. A declaration is the tags `lvs-KEY=VALUE` of an instance and, where it has the tag `lvs`, its metadata of the same
names (`lvs` is `discovery.tag`). Nothing in it is trusted: its values are read by the very types and rules of the
configuration file, it may say no more than the operator opened, and it counts as a whole or not at all.
"""

import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network
from typing import Any, Final

import attrs

from lvsctl.config import (
    DECLARABLE,
    PROTOCOLS,
    Declaration,
    DefaultsTable,
    DiscoveryConfig,
    Network,
    VirtualServerConfig,
    VirtualServerTable,
)
from lvsctl.config_addresses import Endpoint
from lvsctl.config_rules import Merged, Read, virtual_server, virtual_server_rules
from lvsctl.config_types import AnyKeyType, Wrong, closest, one_of, shown
from lvsctl.core.admission import METADATA_ADDRESSES
from lvsctl.core.instance import Answer, Instance
from netlink.types import Address

Values = tuple[tuple[str, str], ...]
"""Keys and their texts in order; a key that was said twice is in it twice."""

MAX_VALUE: Final = 100  # characters of a value; no good one is as long
MAX_SHOWN: Final = 3  # things wrong with one declaration that are told

IDENTITY: Final = ("address", "protocol")
_TYPES: Final[Mapping[str, AnyKeyType]] = {
    name: attrs.fields_dict(VirtualServerTable)[name].metadata["type"] for name in (*IDENTITY, *DECLARABLE)
}
_WHOLE_NUMBER: Final = re.compile("[0-9]{1,10}")


@attrs.frozen(kw_only=True)
class Heard:
    """What one answer declares: each different declaration once, with the first instance that made it, in order."""

    answer: Answer = attrs.field(repr=False)
    said: tuple[tuple[Values, Instance], ...]

    @property
    def nothing(self) -> bool:
        """Tell whether it is certain that no instance declares anything: there are some, and all could be read."""
        sure = self.answer.snapshot is None and not self.answer.doubt and not self.answer.malformed
        return sure and bool(self.answer.instances) and not self.said


def heard(answer: Answer, tag: str) -> Heard:
    """Return what the instances of `answer` declare, the first by node and id first, whatever the answer's order."""
    said: dict[Values, Instance] = {}
    for instance in answer.instances:
        values = values_of(instance, tag)
        if values is not None and (values not in said or instance.identity < said[values].identity):
            said[values] = instance
    return Heard(answer=answer, said=tuple(sorted(said.items(), key=lambda pair: pair[1].identity)))


def values_of(instance: Instance, tag: str) -> Values | None:
    """Return what `instance` declares; None when it declares nothing."""
    prefix = f"{tag}-"
    said = {
        (key, value)
        for key, equals, value in (
            each.removeprefix(prefix).partition("=") for each in instance.tags if each.startswith(prefix)
        )
        if equals
    }
    by_meta = tag in instance.tags
    if by_meta:
        said |= {(key[len(prefix) :], value) for key, value in instance.meta.items() if key.startswith(prefix)}
    return tuple(sorted(said)) if said or by_meta else None


def is_candidate(tags: object, tag: str) -> bool:
    """Tell whether `tags`, those of all instances of a Consul service together, make it worth asking about."""
    if not isinstance(tags, list):
        return False
    address = f"{tag}-address="
    return any(isinstance(each, str) and (each == tag or each.startswith(address)) for each in tags)


def virtual_server_for(declaration: Declaration, name: str, discovery: DiscoveryConfig) -> VirtualServerConfig | str:
    """Return the virtual server `name` that `declaration` asks for, or in words why it may not be."""
    values = dict(declaration.values)
    wrongs = list(_unreadable(declaration.values, discovery))
    read: dict[str, Any] = {}
    for key, text in values.items() if not wrongs else ():
        try:
            read[key] = _TYPES[key].read(_as_in_the_file(key, text))
        except Wrong as wrong:
            wrongs.append(attrs.evolve(wrong, at=(key,)))
        except ExceptionGroup as group:
            wrongs += [attrs.evolve(wrong, at=(key,)) for wrong in group.exceptions if isinstance(wrong, Wrong)]
    if not wrongs:
        wrongs += _closed(read, discovery)
    merged = Merged(
        name=name,
        own=Read(table=VirtualServerTable(consul_service=declaration.service, **read), written=frozenset(read)),
        defaults=Read(table=discovery.defaults, written=_written(discovery.defaults)),
    )
    if not wrongs:
        wrongs += [attrs.evolve(wrong, at=wrong.at[2:3]) for wrong in virtual_server_rules(merged)]
    if wrongs:
        return _in_words(wrongs, discovery.tag)
    return attrs.evolve(virtual_server(merged), declaration=declaration)


def still_allowed(declaration: Declaration, name: str, discovery: DiscoveryConfig) -> VirtualServerConfig | None:
    """Return the virtual server that was declared before, without what the operator has closed since.

    None where its very address is closed.
    """
    opened = tuple(pair for pair in declaration.values if pair[0] in (*IDENTITY, *discovery.keys))
    least = tuple(pair for pair in declaration.values if pair[0] in IDENTITY)
    for values in (opened, least):
        found = virtual_server_for(attrs.evolve(declaration, values=values), name, discovery)
        if isinstance(found, VirtualServerConfig):
            return found
    return None


def _unreadable(values: Values, discovery: DiscoveryConfig) -> Iterator[Wrong]:
    """Yield what is wrong with the keys, whatever their values say."""
    opened = (*IDENTITY, *discovery.keys)
    keys = [key for key, _ in values]
    for key in sorted(set(keys)):
        if key in DECLARABLE and key not in discovery.keys:
            yield Wrong("this key is not opened", f"remove it, or have {shown(key)} in discovery.keys", (key,))
        elif key not in _TYPES:
            meant = closest(key, opened)
            yield Wrong(
                "there is no such key", f"did you mean {meant}?" if meant else f"write {one_of(opened)}", (key,)
            )
        elif keys.count(key) > 1:
            yield Wrong("it is declared twice, differently", "declare it once, by a tag or by metadata", (key,))
    if "address" not in keys:
        yield Wrong("it is missing", 'declare one, like "10.9.0.100:80"', ("address",))
    for key, text in values:
        if len(text) > MAX_VALUE:
            yield Wrong(f"{shown(text)} has {len(text)} characters", f"write {MAX_VALUE} at most", (key,))


def _as_in_the_file(key: str, text: str) -> object:
    """Return a declared text as what tomllib would have made of it in the file."""
    if key == "scheduler_flags":
        return [word.strip() for word in text.split(",")] if text.strip() else []
    if key.endswith("_threshold") and _WHOLE_NUMBER.fullmatch(text):
        return int(text)
    return text


def _closed(read: Mapping[str, Any], discovery: DiscoveryConfig) -> Iterator[Wrong]:
    """Yield what of a declared address, its port and its protocol the operator did not open."""
    endpoint: Endpoint = read["address"]
    network = next((each for each in discovery.addresses if endpoint.address in each), None)
    if network is None:
        yield Wrong(
            f"{endpoint.address} is outside discovery.addresses",
            f"declare one in {one_of(map(str, discovery.addresses[:5]))}",
            ("address",),
        )
    elif kind := _kind(endpoint.address, network):
        yield Wrong(f"{endpoint.address} is {kind}", f"declare another one in {network}", ("address",))
    if discovery.ports and not any(endpoint.port in ports for ports in discovery.ports):
        yield Wrong(f"port {endpoint.port} is not in discovery.ports", "declare one that is", ("address",))
    protocol = read.get("protocol", PROTOCOLS["tcp"])
    if protocol not in discovery.protocols:
        words = one_of(word for word, each in PROTOCOLS.items() if each in discovery.protocols)
        yield Wrong(f"{protocol.name.lower()} is not in discovery.protocols", f"declare {words}", ("protocol",))


def _kind(address: Address, network: Network) -> str:
    """Return what makes `address` one that is not given away, in words; empty when nothing does."""
    if address in METADATA_ADDRESSES:
        return "a cloud's metadata address"
    if isinstance(network, IPv4Network) and network.prefixlen < 31:
        if address == network[0]:
            return "the first address of its network"
        if address == network[-1]:
            return "its network's broadcast address"
    return ""


def _written(defaults: DefaultsTable) -> frozenset[str]:
    return frozenset(
        field.name for field in attrs.fields(DefaultsTable) if getattr(defaults, field.name) != field.default
    )


def _in_words(wrongs: list[Wrong], tag: str) -> str:
    told = [f"{tag}-{shown(key)[1:-1]}: {each.wrong}; {each.remedy}" for each in wrongs for key in _key(each)]
    more = f", and {len(told) - MAX_SHOWN} more" if len(told) > MAX_SHOWN else ""
    return "; ".join(told[:MAX_SHOWN]) + more


def _key(wrong: Wrong) -> tuple[str]:
    return (str(wrong.at[0]) if wrong.at else "address",)

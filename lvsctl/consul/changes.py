"""What has changed in a Consul catalogue, of three lists that are read again and again.

Pure. No single list of Consul's moves with everything that a health answer says: `health/state/any` misses weights,
tags, metadata and instances without checks, `catalog/services` misses checks and nodes, `catalog/nodes` has addresses
of nodes alone. Together they miss nothing, but a weight moves only the index of `catalog/services`, not what it lists:
then anything may have changed. Source: Consul HTTP API, Health and Catalog; measured on 1.8.7.
"""

import enum
import json
from collections.abc import Mapping
from sys import intern  # the same few names are in every list: each is kept once
from typing import Any, Final

import attrs

from lvsctl.consul.entries import entries
from lvsctl.errors import ConsulError


class Listing(enum.Enum):
    """A list of the catalogue; the value is its path below /v1."""

    CHECKS = "health/state/any"
    SERVICES = "catalog/services"
    NODES = "catalog/nodes"


@attrs.frozen
class Changes:
    """Consul services and nodes of which something may have changed."""

    services: frozenset[str] = frozenset()
    nodes: frozenset[str] = frozenset()
    everything: bool = False


EVERYTHING: Final = Changes(everything=True)
Listed = Mapping[tuple[str, ...], tuple[str, str, object]]
"""Each entry by what identifies it: Consul service and node that it tells of, and what changes with it."""


def decode_listing(listing: Listing, body: bytes) -> Listed:
    """Return what `body` lists; ConsulError where it is no such list. An entry that cannot be read is passed over."""
    if listing is not Listing.SERVICES:
        read = _check if listing is Listing.CHECKS else _node
        try:  # one by one: as a whole it would take some ten times its size
            return dict(read(each) for each in entries(body) if isinstance(each, dict))
        except ValueError as error:
            raise ConsulError(f"/v1/{listing.value} is not a JSON list ({error})") from error
    try:
        services = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ConsulError(f"/v1/{listing.value} is not JSON ({type(error).__name__})") from error
    if not isinstance(services, dict):
        raise ConsulError(f"/v1/{listing.value} is a JSON {type(services).__name__}, which is not what it should be")
    return {(name,): (name, "", json.dumps(tags)) for name, tags in services.items()}


def _check(entry: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str, str, object]]:
    service, node = intern(_text(entry, "ServiceName")), intern(_text(entry, "Node"))
    return (node, _text(entry, "CheckID")), (service, "" if service else node, entry.get("ModifyIndex"))


def _node(entry: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str, str, object]]:
    node = _text(entry, "Node")
    return (node,), ("", node, entry.get("ModifyIndex"))


def _text(entry: dict[str, Any], key: str) -> str:
    value = entry.get(key)
    return value if isinstance(value, str) else ""


def changes(listing: Listing, before: Listed, now: Listed) -> Changes:
    """Return what is not the same in `now` as `before`; the index of the list has moved in between.

    A list of Consul services that is the same says that something it does not list has changed.
    """
    if listing is Listing.SERVICES and before == now:
        return EVERYTHING
    moved = [key for key in before.keys() | now.keys() if before.get(key) != now.get(key)]
    touched = [listed[key] for listed in (before, now) for key in moved if key in listed]
    return Changes(
        services=frozenset(service for service, _, _ in touched if service),
        nodes=frozenset(node for _, node, _ in touched if node),
    )

"""What has changed in a Consul catalogue, of three lists that are read again and again.

Pure. No single list of Consul's moves with everything that a health answer says: `health/state/any` misses weights,
tags, metadata and instances without checks, `catalog/services` misses checks and nodes, `catalog/nodes` has addresses
of nodes alone. Together they miss nothing, but a weight moves only the index of `catalog/services`, not what it lists:
whenever that moves anything may have changed, for what it does list may have changed in the same moment. It lists tags
in another order each time. Source: Consul HTTP API, Health and Catalog; measured on 1.8.7, 1.20.6 and 1.22.7.
"""

import enum
import json
from collections.abc import Mapping
from sys import intern  # the same few names are in every list: each is kept once
from typing import Any, Final

import attrs

from lvsctl.consul.budget import Body
from lvsctl.consul.entries import Unread, entries, members
from lvsctl.errors import ConsulUnreadable


class Listing(enum.Enum):
    """A list of the catalogue; the value is its path below /v1."""

    CHECKS = "health/state/any"
    SERVICES = "catalog/services"
    NODES = "catalog/nodes"


@attrs.frozen
class Changes:
    """Consul services and nodes of which something may have changed; with `everything`, of any other, too."""

    services: frozenset[str] = frozenset()
    nodes: frozenset[str] = frozenset()
    everything: bool = False


EVERYTHING: Final = Changes(everything=True)
Listed = Mapping[tuple[str, ...], tuple[str, str, object]]
"""Each entry by what identifies it: Consul service and node that it tells of, and what changes with it."""
UNREAD: Final = ()  # stands for what of a list could not be read, and may have changed with it


def decode_listing(listing: Listing, body: Body) -> Listed:
    """Return what `body` lists; ConsulUnreadable where it is no such list. Of what cannot be read it has UNREAD."""
    found: dict[tuple[str, ...], tuple[str, str, object]] = {}
    try:
        if listing is Listing.SERVICES:
            for name, tags in members(body):
                unread = isinstance(name, Unread) or isinstance(tags, Unread)
                found[UNREAD if unread else (name,)] = ("", "", None) if unread else (name, "", _unordered(tags))
            return found
        for entry in entries(body):
            if isinstance(entry, Unread):
                found[UNREAD] = ("", "", None)
            elif isinstance(entry, dict):
                key, listed = _check(entry) if listing is Listing.CHECKS else _node(entry)
                found[key] = listed
    except ValueError as error:
        kind = "object" if listing is Listing.SERVICES else "list"
        raise ConsulUnreadable(f"answer is not a JSON {kind}: {error}") from error
    return found


def _check(entry: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str, str, object]]:
    service, node = intern(_text(entry, "ServiceName")), intern(_text(entry, "Node"))
    return (node, _text(entry, "CheckID")), (service, "" if service else node, entry.get("ModifyIndex"))


def _node(entry: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str, str, object]]:
    node = _text(entry, "Node")
    return (node,), ("", node, entry.get("ModifyIndex"))


def _unordered(tags: object) -> str:
    return json.dumps(sorted(map(json.dumps, tags)) if isinstance(tags, list) else tags)


def _text(entry: dict[str, Any], key: str) -> str:
    value = entry.get(key)
    return value if isinstance(value, str) else ""


def changes(listing: Listing, before: Listed, now: Listed) -> Changes:
    """Return what is not the same in `now` as `before`; the index of the list has moved in between.

    Of Consul services what differs has changed for certain, and anything else may have. Of an entry that cannot be
    read, nobody can say whether it has.
    """
    if UNREAD in now:
        return EVERYTHING
    moved = [key for key in before.keys() | now.keys() if before.get(key) != now.get(key)]
    touched = [listed[key] for listed in (before, now) for key in moved if key in listed]
    return Changes(
        services=frozenset(service for service, _, _ in touched if service),
        nodes=frozenset(node for _, node, _ in touched if node),
        everything=listing is Listing.SERVICES,
    )

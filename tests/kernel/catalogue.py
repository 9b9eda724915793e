"""Instances on a node that no agent answers for: any number in one transaction, with whatever a registrant may say."""

import urllib.error
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from tests.lab.consul import ConsulAgent

NODE: Final = "fake"  # `Director.clean` removes every node that is not an agent's
AT_ONCE: Final = 64  # operations that a transaction may have


def put(consul: ConsulAgent, services: Iterable[Mapping[str, Any]]) -> int:
    """Register instances, 64 in one transaction; return how many of them Consul itself refused."""
    consul.put("/v1/catalog/register", {"Node": NODE, "Address": "10.3.0.1"})
    return _transact(consul, [{"Service": {"Verb": "set", "Node": NODE, "Service": each}} for each in services])


def remove(consul: ConsulAgent, service: str, *instances: str) -> None:
    """Deregister instances, 64 in one transaction."""
    gone = [{"ID": each, "Service": service} for each in instances]
    refused = _transact(consul, [{"Service": {"Verb": "delete", "Node": NODE, "Service": each}} for each in gone])
    assert not refused


def _transact(consul: ConsulAgent, operations: Sequence[Mapping[str, Any]]) -> int:
    """Return how many operations Consul refused; it refuses a transaction whole, so these are tried one by one."""
    refused = 0
    for start in range(0, len(operations), AT_ONCE):
        some = operations[start : start + AT_ONCE]
        try:
            consul.put("/v1/txn", some)
        except urllib.error.HTTPError:
            refused += 1 if len(some) == 1 else sum(_transact(consul, [each]) for each in some)
    return refused

"""What an operator means by the word behind `lvsctl drain`: an address, an address and port, a node or an instance.

Pure. A word that means nothing, or two things, is refused with what there is: a drain of the wrong machine is an outage
that somebody ordered.
"""

from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address
from typing import Final

import attrs

from lvsctl.core.admission import parse_address
from lvsctl.core.decision import Decision
from lvsctl.core.desired import Member
from lvsctl.core.instance import Instance
from lvsctl.core.order import MAX_TARGET, AtAddress, AtPort, Drain, Drains, OneInstance, OnNode, Order, Target
from lvsctl.text import listed, visible
from netlink.types import RealServerKey

KINDS: Final = ("address", "node", "instance")


class Unresolved(ValueError):
    """The word means nothing, or not one thing; the text says what would."""


@attrs.frozen(kw_only=True)
class Known:
    """What a word may mean: what Consul lists, and what is in the table."""

    names: frozenset[str]  # of virtual servers
    members: tuple[Member, ...]  # of all of them
    real_servers: frozenset[RealServerKey]  # ours
    answered: bool = True  # Consul has said what there is

    @property
    def instances(self) -> Iterable[Instance]:
        """Yield the instances that are meant for a virtual server."""
        return (each.source for each in self.members if isinstance(each.source, Instance) and not each.is_filtered)


def known_of(decision: Decision, names: Iterable[str]) -> Known:
    """Return what `decision` knows, with virtual servers of these `names`."""
    decided = decision.virtual_servers.values()
    return Known(
        names=frozenset(names) | {each.name for each in decided},
        members=tuple(member for each in decided if each.wanted for member in each.wanted.members),
        real_servers=frozenset(key for each in decided if each.observed for key in each.observed.real_servers),
        answered=any(each.wanted for each in decided),
    )


def spelled(word: str) -> AtAddress | AtPort | None:
    """Return the address, or address and port, that `word` spells; None where it spells none.

    As Consul's addresses are read: IPv4 for an IPv4-mapped one. An IPv6 address with a port is `[fd00::1]:80`.
    """
    bare = word[1:-1] if word.startswith("[") and word.endswith("]") else word
    address = parse_address(bare)
    if address is not None:
        return AtAddress(address)
    host, colon, port = word.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or len(port) > 5 or int(port) > 65535:
        return None
    bracketed = host.startswith("[") and host.endswith("]")
    address = parse_address(host[1:-1] if bracketed else host)
    if address is None or bracketed != isinstance(_literal(host[1:-1] if bracketed else host), IPv6Address):
        return None
    return AtPort(address, int(port))


def resolve(word: str, known: Known, *, kind: str = "", ahead: bool = False) -> Target:
    """Return what `word` means; `kind` is one of KINDS where the operator says which, else empty.

    `ahead` takes what is not there yet. Raises Unresolved.
    """
    if not word or len(word) > MAX_TARGET:
        raise Unresolved(f"a target has 1 to {MAX_TARGET} characters")
    address = spelled(word)
    if kind == "address" and address is None:
        raise Unresolved(f"'{visible(word)}' is no address; write 10.0.0.1, 10.0.0.1:80, fd00::1 or [fd00::1]:80")
    if address is not None and kind in ("", "address"):
        if not ahead and not is_there(address, known):
            raise Unresolved(_nowhere(address, word, known))
        return address
    candidates = _named(word, known, kind)
    if len(candidates) == 1:
        if len(str(candidates[0])) > MAX_TARGET:
            raise Unresolved(f"its name has more than {MAX_TARGET} characters; write its address")
        return candidates[0]
    if candidates:
        ways = ", ".join(visible(as_typed(each)) for each in sorted(candidates, key=str))
        raise Unresolved(f"'{visible(word)}' is {len(candidates)} things; write which: {ways}")
    if not ahead:
        raise Unresolved(_unknown(word, known))
    return _to_come(word, kind)


def _to_come(word: str, kind: str) -> Target:
    """Return what `word` will mean by what it is said to be; raises Unresolved."""
    node, slash, instance = word.partition("/")
    if kind == "node" and not slash:
        return OnNode(word)
    if kind == "instance" and node and instance:
        return OneInstance(node, instance)
    raise Unresolved(
        f"'{visible(word)}' is not there yet, so write what it will be: an address, --as node, or NODE/INSTANCE with "
        "--as instance"
    )


def resolve_ordered(word: str, known: Known, drains: Iterable[Order], *, kind: str = "") -> Target:
    """Return which of the targets of `drains` is meant by `word`; raises Unresolved with what there is."""
    targets = [each.what.target for each in drains if isinstance(each.what, Drain)]
    address = spelled(word)
    meant = [each for each in targets if _is_spelled(each, word, address, kind)]
    if len(meant) == 1:
        return meant[0]
    if meant:
        ways = ", ".join(visible(as_typed(each)) for each in sorted(meant, key=str))
        raise Unresolved(f"'{visible(word)}' is {len(meant)} drains; write which: {ways}")
    by = _drained_by(word, address, known, Drains(tuple(drains)))
    if by:
        commands = ", ".join(f"lvsctl undrain {visible(as_typed(each))}" for each in by)
        raise Unresolved(f"'{visible(word)}' is out by another drain: {commands}")
    there = ", ".join(visible(str(each)) for each in targets[:20]) or "nothing is"
    raise Unresolved(f"'{visible(word)}' is not drained; drained: {there}")


def is_there(target: Target, known: Known) -> bool:
    """Tell whether `target` means anything now."""
    drains = Drains((Order(what=Drain(target), by="", written=0.0),))
    members = (each for each in known.members if not each.is_filtered)
    return any(drained_by(each, drains) for each in members) or any(drains.at(key) for key in known.real_servers)


def drained_by(member: Member, drains: Drains) -> Order | None:
    """Return which of `drains` takes the instance of `member` out; None where none does."""
    if not isinstance(member.source, Instance):
        return None
    return drains.of(member.source, parse_address(member.source.address), member.key)


def _literal(text: str) -> object:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _named(word: str, known: Known, kind: str) -> list[Target]:
    """Return the nodes and instances that are called `word`, or `NODE/INSTANCE`."""
    found: set[Target] = set()
    for each in known.instances:
        if kind in ("", "node") and each.node == word:
            found.add(OnNode(each.node))
        if kind in ("", "instance") and word in (each.instance_id, f"{each.node}/{each.instance_id}"):
            found.add(OneInstance(each.node, each.instance_id))
    return list(found)


def as_typed(target: Target) -> str:
    """Return how an operator writes `target`, so that it means nothing else."""
    match target:
        case OnNode(node=node):
            return f"{node} --as node"
        case OneInstance(node=node, instance=instance):
            return f"{node}/{instance}"
        case _:
            return str(target)


def _is_spelled(target: Target, word: str, address: Target | None, kind: str) -> bool:
    match target:
        case OnNode(node=node):
            return kind in ("", "node") and node == word
        case OneInstance(node=node, instance=instance):
            return kind in ("", "instance") and word in (instance, f"{node}/{instance}")
        case _:
            return kind in ("", "address") and target == address


def _drained_by(word: str, address: AtAddress | AtPort | None, known: Known, drains: Drains) -> list[Target]:
    """Return what drains that `word` does not name take out of what it does name."""
    named: list[Target] = [address] if address is not None else _named(word, known, "")
    mine = Drains(tuple(Order(what=Drain(each), by="", written=0.0) for each in named))
    found = {drained_by(each, drains) for each in known.members if drained_by(each, mine)}
    return sorted({each.what.target for each in found if each and isinstance(each.what, Drain)}, key=str)


def _nowhere(target: AtAddress | AtPort, word: str, known: Known) -> str:
    if not known.answered:
        return _unanswered(word)
    address = target.address
    keys = {each.key for each in known.members if each.key is not None} | known.real_servers
    there = sorted({str(key) for key in keys if key.address == address})
    if there:
        return f"nothing is at {target}; at that address there are: {', '.join(there[:20])}"
    hint = ""
    if isinstance(target, AtAddress) and isinstance(address, IPv6Address) and not word.startswith("["):
        host, _, port = word.rpartition(":")
        if port.isdigit() and parse_address(host) is not None:
            hint = f"; with a port it is written [{host}]:{port}"
    return f"no instance and no real server is at {target}{hint}; --ahead takes what is to come"


def _unknown(word: str, known: Known) -> str:
    if word in known.names:
        return (
            f"'{visible(word)}' is a virtual server; drain takes an address, a node or an instance of it "
            f"(lvsctl status {visible(word)} shows them), hold and pause take a virtual server"
        )
    if not known.answered:
        return _unanswered(word)
    names = {each.node for each in known.instances} | {each.instance_id for each in known.instances}
    return f"no address, node or instance '{visible(word)}'; there are: {listed(names, word)}"


def _unanswered(word: str) -> str:
    return f"Consul has not answered yet, so nobody knows what '{visible(word)}' is; --ahead takes it all the same"

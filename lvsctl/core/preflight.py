"""What the kernel is set to, and what that means for a configuration: a row for each setting.

Pure: `machine` reads the facts, `needs` says what the configuration asks for, `ipvs_settings` judges those of IPVS. A
finding is what costs clients or blinds an operator, by this configuration; a note is what one should know and may want
so. What a setting of the machine does is told in the kernel's Documentation/networking/ip-sysctl.rst.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final, assert_never

import attrs

from lvsctl.config import Config
from lvsctl.core.facts import (
    FORWARD4,
    FORWARD6,
    MOST_TRACKED,
    NAMESPACE,
    NO_IPV6,
    OF_IPVS,
    TRACKED,
    Facts,
    Grade,
    Module,
    Row,
    Unread,
    sysctl_name,
    unread,
)
from lvsctl.core.ipvs_settings import of_ipvs, others_of_ipvs
from lvsctl.core.needs import Needs, needs_of
from netlink.types import Family

NEARLY_FULL: Final = 0.8
LONG_CHAIN: Final = 8  # connections in a slot of the connection table, on average
LARGEST_TABLE: Final = 20  # bits, of kernels whose table does not grow


def preflight(config: Config, facts: Facts) -> tuple[Row, ...]:
    """Return a row for every setting that there is, in the order in which they are shown."""
    needs = needs_of(config)
    rows = [*_place(facts), *_modules(facts)]
    if facts.modules.get("ip_vs") is Module.LOADED:
        rows += [*_hidden(facts), *of_ipvs(config, needs, facts), *others_of_ipvs(needs, facts)]
        rows += _load(facts)
    return (*rows, *_routing(config, needs, facts))


# ---- where, and the modules


def _place(facts: Facts) -> Iterator[Row]:
    match facts.namespace:
        case Unread(why=why):
            why = f"whether the daemon is in this network namespace cannot be seen: {why}"
            yield Row(setting=NAMESPACE, value="yours", why=why, grade=Grade.NOTE)
        case "":
            pass
        case whose:
            yield Row(setting=NAMESPACE, value=whose, why="it is not yours", grade=Grade.NOTE)


def _modules(facts: Facts) -> Iterator[Row]:
    no_more = facts.number("kernel.modules_disabled") == 1
    for name, module in facts.modules.items():
        scheduler = name.removeprefix("ip_vs_") if name != "ip_vs" else ""
        row = Row(setting=f"module {name}", value="not loaded", should="loaded", grade=Grade.FINDING)
        match module:
            case Module.LOADED:
                yield Row(setting=f"module {name}", value="loaded")
            case Module.MISSING:
                why = f"this kernel refuses scheduler {scheduler}" if scheduler else "this kernel has no IPVS"
                yield attrs.evolve(row, value="missing", why=f"{why}: it has no module {name}; install it")
            case Module.LOADABLE if no_more:
                yield attrs.evolve(row, why="kernel.modules_disabled is 1: nothing is loaded before the next boot")
            case Module.LOADABLE if scheduler:
                yield attrs.evolve(row, should="", why="loaded when it is first used", grade=Grade.FINE)
            case Unread(why=why) if scheduler:
                if facts.modules.get("ip_vs") is Module.LOADED:
                    why = f"whether it can be loaded is not known: {why}"
                    yield attrs.evolve(row, should="", why=why, grade=Grade.NOTE)
            case Module.LOADABLE | Unread():
                why = "without it there is no IPVS and none of its settings: modprobe ip_vs; lvsctl run does that, too"
                why += f"; whether it can is not known: {module.why}" if isinstance(module, Unread) else ""
                yield attrs.evolve(row, why=why)
            case _:
                assert_never(module)


def _hidden(facts: Facts) -> Iterator[Row]:
    """Yield that nothing can be said of the settings of IPVS, where none is to be seen although it is loaded."""
    if not any(name.startswith(OF_IPVS) for name in facts.settings):
        why = "none of them is to be seen from here, as in a user namespace: ask outside of it, as root"
        yield Row(setting=f"{OF_IPVS}*", value="", why=why, grade=Grade.FINDING)


# ---- how much there is


def _load(facts: Facts) -> Iterator[Row]:
    if isinstance(facts.connections, Unread):
        why = f"they cannot be read: {facts.connections.why}"
        yield Row(setting="connections", value="", why=why, grade=Grade.NOTE)
        return
    there, grows = facts.connections, f"{OF_IPVS}conn_lfactor" in facts.settings
    row = Row(setting="connections", value=f"{there} in {facts.slots} slots" if facts.slots else str(there))
    most = facts.number(f"{OF_IPVS}conn_max")
    if grows and most and there >= NEARLY_FULL * most:
        why = f"net.ipv4.vs.conn_max lets there be {most} at most; then new ones are refused"
        row = attrs.evolve(row, why=why, grade=Grade.FINDING)
    elif facts.slots and not grows and there > LONG_CHAIN * facts.slots:
        bits = min(LARGEST_TABLE, (there - 1).bit_length())
        why = f"each packet is looked for among {there // facts.slots}; load ip_vs with conn_tab_bits={bits}"
        row = attrs.evolve(row, should=f"{2**bits} slots", why=why, grade=Grade.FINDING)
    yield row
    if facts.number(f"{OF_IPVS}conntrack"):
        yield _tracked(facts)


def _tracked(facts: Facts) -> Row:
    there, most = facts.settings.get(TRACKED), facts.settings.get(MOST_TRACKED)
    if not isinstance(there, int) or not isinstance(most, int):
        unread = there if not isinstance(there, int) else most
        why = unread.why if isinstance(unread, Unread) else "there is none in this network namespace"
        return Row(setting=TRACKED, value="", why=f"it cannot be read: {why}", grade=Grade.FINDING)
    row = Row(setting=TRACKED, value=f"{there} of {most}")
    if most and there >= NEARLY_FULL * most:
        why = "at nf_conntrack_max new connections are dropped, for net.ipv4.vs.conntrack is 1"
        return attrs.evolve(row, should=f"of {2 * most}", why=why, grade=Grade.FINDING)
    return row


# ---- the machine around it


def _routing(config: Config, needs: Needs, facts: Facts) -> Iterator[Row]:
    for name, family in ((FORWARD4, Family.IPV4), (FORWARD6, Family.IPV6)):
        yield _row_of(
            facts,
            name,
            relevant=needs.masquerades(family),
            why="with masquerade the answers of real servers end here instead of going back to clients",
        )
    yield from _ipv6(needs, facts)
    yield from _redirects(needs, facts)
    yield from _reverse_path(needs, facts)
    yield from _arp(config, needs, facts)


def _ipv6(needs: Needs, facts: Facts) -> Iterator[Row]:
    """Yield whether there is IPv6 at all, where anything is of it; what counts is what each interface has."""
    relevant = needs.has(Family.IPV6)
    if facts.settings.get(FORWARD6) is None:
        none = Row(setting="IPv6", value="none", relevant=relevant)
        why = "this kernel has none, or was told to do without at its start (ipv6.disable=1)"
        yield attrs.evolve(none, should="there", why=why, grade=Grade.FINDING) if relevant else none
        return
    names = [each for each in facts.settings if each.startswith("net.ipv6.conf.") and each.endswith(f".{NO_IPV6}")]
    values = {name.removesuffix(f".{NO_IPV6}").removeprefix("net.ipv6.conf."): facts.number(name) for name in names}
    row = _of_interfaces(NO_IPV6, values, relevant=relevant, version=6)
    if row is not None and relevant and all(values.values()):
        why = "no interface takes IPv6; with 0 their addresses come back, but for those that somebody gave them"
        row = attrs.evolve(row, should="0", why=why, grade=Grade.FINDING, names=_names(NO_IPV6, values, version=6))
    yield from filter(None, [row])


def _row_of(facts: Facts, name: str, *, relevant: bool, why: str) -> Row:
    """Return the row of a setting of the machine that should be on."""
    reading = facts.settings.get(name)
    if reading is None:
        reading = Unread("this kernel has no such setting")
    if not isinstance(reading, int):
        return unread(name, reading, relevant=relevant)
    if reading or not relevant:
        return Row(setting=name, value=str(reading), relevant=relevant)
    return Row(setting=name, value=str(reading), should="1", why=why, grade=Grade.FINDING)


def _redirects(needs: Needs, facts: Facts) -> Iterator[Row]:
    """Yield where real servers may be told to answer past the director: all counts beside each interface."""
    values = _effective(facts, "send_redirects", lambda everywhere, here: int(bool(everywhere or here)))
    row = _of_interfaces("send_redirects", values, relevant=needs.masquerades(Family.IPV4))
    if row is None or not row.relevant or not any(values.values()):
        yield from filter(None, [row])
    elif len(values) == 1:
        why = "real servers and clients are behind one interface: real servers are told to answer past the director"
        names = _names("send_redirects", values)
        yield attrs.evolve(row, should="0", why=why, grade=Grade.FINDING, names=names)
    else:
        why = "real servers are told to answer past the director those clients that are behind the same interface"
        yield attrs.evolve(row, why=why, grade=Grade.NOTE)


def _reverse_path(needs: Needs, facts: Facts) -> Iterator[Row]:
    """Yield whether clients' packets are dropped for where they come in: the larger of all and the interface counts."""
    values = _effective(facts, "rp_filter", max)
    row = _of_interfaces("rp_filter", values, relevant=needs.goes_past_the_director(Family.IPV4) and len(values) > 1)
    if row is not None and row.relevant and 1 in values.values():
        why = "clients' packets are dropped that do not come in where this machine would answer them"
        row = attrs.evolve(row, why=f"{why}; 2 looks for any way", grade=Grade.NOTE)
    yield from filter(None, [row])


def _arp(config: Config, needs: Needs, facts: Facts) -> Iterator[Row]:
    """Yield whether the network may ask for virtual addresses: they are on an interface that nobody is connected to."""
    values = _effective(facts, "arp_ignore", max)
    kept = config.vip is not None and Family.IPV4 in needs.families
    row = _of_interfaces("arp_ignore", values, relevant=kept)
    if row is not None and kept and config.vip is not None and set(values.values()) & {1, 2, 8}:
        why = f"nobody answers ARP for the virtual addresses on {config.vip.interface}"
        why += "; fine where they are routed to here"
        row = attrs.evolve(row, should="0", why=why, grade=Grade.FINDING, names=_names("arp_ignore", values))
    yield from filter(None, [row])


def _effective(facts: Facts, name: str, joined: Callable[[int, int], int]) -> Mapping[str, int]:
    """Return what counts of setting `name` on each interface."""
    everywhere = facts.number(sysctl_name("net", "ipv4", "conf", "all", name))
    found = {each: facts.settings.get(sysctl_name("net", "ipv4", "conf", each, name)) for each in facts.interfaces}
    return {each: joined(everywhere, reading) for each, reading in found.items() if isinstance(reading, int)}


def _names(name: str, values: Mapping[str, int], *, version: int = 4) -> tuple[str, ...]:
    """Return what has to be set for each of these interfaces to have it: all counts, too."""
    return tuple(sysctl_name("net", f"ipv{version}", "conf", each, name) for each in ("all", *values))


def _of_interfaces(name: str, values: Mapping[str, int], *, relevant: bool, version: int = 4) -> Row | None:
    """Return the row of a setting that each interface has; None where none is known."""
    if not values:
        return None
    by_value: dict[int, list[str]] = {}
    for interface, value in values.items():
        by_value.setdefault(value, []).append(interface)
    parts = [f"{value} ({', '.join(interfaces)})" for value, interfaces in sorted(by_value.items())]
    return Row(setting=f"net.ipv{version}.conf.*.{name}", value=", ".join(parts), relevant=relevant)
